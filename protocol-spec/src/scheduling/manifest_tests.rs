use proptest::prelude::*;

use super::*;
use crate::{
    ids::{Epoch, JobLine},
    scheduling::{
        GiveBackReason, MAX_HEALTH, Note, ReplicaExit, SAMPLE, Suspicion, SuspicionError,
        arbitrary::{assert_wire, binding, secret},
    },
};

const COMMITTEE: u8 = 7;

fn committee() -> Committee {
    Committee::new(COMMITTEE).unwrap()
}

fn member(index: u8) -> ParticipantIndex {
    ParticipantIndex::new(index).unwrap()
}

fn pending(submission: u64, job: u8, replica: u16) -> PendingReplica {
    PendingReplica {
        submission,
        job: Blake3Digest([job; 32]),
        replica: ReplicaIndex(replica),
        only: None,
        candidates: SAMPLE,
    }
}

fn done(job: u8, replica: u16) -> EndedReplica {
    let exit = ReplicaExit { code: Some(3), out_of_memory: false };
    EndedReplica { job: Blake3Digest([job; 32]), replica: ReplicaIndex(replica), exit }
}

fn leaving(job: u8, replica: u16) -> LeavingReplica {
    LeavingReplica { job: Blake3Digest([job; 32]), replica: ReplicaIndex(replica) }
}

fn telemetry(sender: u8) -> TelemetryEntry {
    TelemetryEntry { sender: PeerIdHash([sender; 32]), digest: Blake3Digest([!sender; 32]) }
}

fn lost(worker: u8, members: &[u8]) -> LostWorker {
    let worker = PeerIdHash([worker; 32]);
    let sign = |&index: &u8| {
        let lost_for = 100 * u32::from(index);
        let suspicion = Suspicion { binding: binding(), slot: Slot(5), worker, lost_for };
        suspicion.sign(member(index), &secret(index))
    };
    LostWorker { worker, suspicions: members.iter().map(sign).collect() }
}

/// Of a replica that was placed in slot 3.
fn given_back(job: u8, replica: u16) -> GivenBack {
    GivenBack {
        job: Blake3Digest([job; 32]),
        replica: ReplicaIndex(replica),
        placed: Slot(3),
        reason: GiveBackReason::Evicted,
        until: None,
        has_stopped: true,
        note: Note::default(),
    }
}

fn manifest() -> Manifest {
    Manifest {
        binding: binding(),
        slot: Slot(5),
        proposer: member(2),
        previous: KeccakDigest([0xce; 32]),
        block: BlockRef { number: 1234, hash: KeccakDigest([0xb1; 32]) },
        base: KeccakDigest([0xba; 32]),
        jobs_seen: 12,
        policy: KeccakDigest([0x90; 32]),
        circuit: CircuitId { version: 1, fingerprint: Blake3Digest([0xf1; 32]) },
        telemetry: vec![telemetry(1), telemetry(2), telemetry(3)],
        pending: vec![pending(10, 0x22, 0), pending(10, 0x22, 1), pending(11, 0x11, 4)],
        leaving: vec![leaving(0x11, 3), leaving(0x33, 4)],
        done: vec![done(0x11, 5), done(0x44, 0)],
        lost: vec![lost(4, &[1, 2, 3]), lost(5, &[2, 4, 7])],
        given_back: vec![given_back(0x22, 0), given_back(0x55, 1)],
        rollouts: RolloutChanges::default(),
        runs: Vec::new(),
    }
}

fn refused(change: impl FnOnce(&mut Manifest)) -> ManifestError {
    let mut manifest = manifest();
    change(&mut manifest);
    let error = manifest.validate(committee()).unwrap_err();
    assert_eq!(Manifest::parse(&manifest.to_wire(), committee()), Err(error));
    error
}

#[test]
fn a_sound_manifest_parses() {
    assert_eq!(manifest().validate(committee()), Ok(()));
    assert_wire(&manifest());
    assert!(matches!(Manifest::parse(&[2], committee()), Err(ManifestError::Codec(_))));
    let earlier = Manifest::parse(&[1], committee()).unwrap_err();
    assert!(earlier.to_string().contains("Manifest has version 1"), "{earlier}");
    assert_ne!(manifest().no_outputs(), manifest().digest());
}

#[test]
fn slot_and_proposer_are_checked() {
    assert_eq!(refused(|m| m.slot = Slot(0)), ManifestError::SlotZero);
    assert_eq!(refused(|m| m.proposer = member(8)), ManifestError::Proposer(member(8)));
}

#[test]
fn every_list_is_strictly_ascending() {
    let order = |list, index| ManifestError::Order { list, index };
    assert_eq!(refused(|m| m.telemetry.swap(0, 1)), order("telemetry", 1));
    assert_eq!(refused(|m| m.telemetry[2] = m.telemetry[1]), order("telemetry", 2));
    assert_eq!(refused(|m| m.pending.swap(1, 2)), order("pending", 2));
    assert_eq!(refused(|m| m.pending[1] = m.pending[0]), order("pending", 1));
    assert_eq!(refused(|m| m.leaving.swap(0, 1)), order("leaving", 1));
    assert_eq!(refused(|m| m.leaving.insert(1, leaving(0x11, 3))), order("leaving", 1));
    assert_eq!(refused(|m| m.done.swap(0, 1)), order("done", 1));
    assert_eq!(refused(|m| m.done.insert(1, done(0x11, 5))), order("done", 1));
    assert_eq!(refused(|m| m.lost.swap(0, 1)), order("lost", 1));
    assert_eq!(refused(|m| m.given_back.swap(0, 1)), order("given_back", 1));
    let lines = vec![JobLine([2; 32]), JobLine([1; 32])];
    assert_eq!(refused(|m| m.rollouts.forgotten = lines), order("forgotten", 1));
    let health = |replica| ReplicaHealth {
        job: Blake3Digest([0x11; 32]),
        replica: ReplicaIndex(replica),
        healthy: true,
    };
    let twice = vec![health(1), health(1)];
    assert_eq!(refused(|m| m.rollouts.health = twice), order("health", 1));
    let most: Vec<_> = (0..=MAX_HEALTH as u16).map(health).collect();
    let many = ManifestError::TooMany { list: "health", len: MAX_HEALTH + 1, max: MAX_HEALTH };
    assert_eq!(refused(|m| m.rollouts.health = most), many);
}

#[test]
fn every_list_is_bounded() {
    let many = |list, max| ManifestError::TooMany { list, len: max + 1, max };
    let mut long = manifest();
    long.telemetry = vec![telemetry(1); MAX_TELEMETRY + 1];
    assert_eq!(long.validate(committee()), Err(many("telemetry", MAX_TELEMETRY)));
    let mut long = manifest();
    long.pending = vec![pending(1, 1, 1); MAX_PENDING + 1];
    assert_eq!(long.validate(committee()), Err(many("pending", MAX_PENDING)));
    let mut long = manifest();
    long.leaving = vec![leaving(1, 1); MAX_RUNNING + 1];
    assert_eq!(long.validate(committee()), Err(many("leaving", MAX_RUNNING)));
    long.leaving.clear();
    long.done = vec![done(1, 1); MAX_RUNNING + 1];
    assert_eq!(long.validate(committee()), Err(many("done", MAX_RUNNING)));
    let mut long = manifest();
    long.lost = vec![LostWorker { worker: PeerIdHash([0; 32]), suspicions: vec![] }; MAX_LOST + 1];
    assert_eq!(long.validate(committee()), Err(many("lost", MAX_LOST)));
    let mut long = manifest();
    long.given_back = vec![given_back(1, 1); MAX_GIVEN_BACK + 1];
    assert_eq!(long.validate(committee()), Err(many("given_back", MAX_GIVEN_BACK)));
}

#[test]
fn one_message_counts_for_one_worker() {
    let digest = telemetry(1).digest;
    assert_eq!(
        refused(|m| m.telemetry[2].digest = digest),
        ManifestError::DuplicateTelemetry(digest)
    );
}

#[test]
fn what_is_for_one_worker_is_for_one_with_telemetry() {
    let mut of_system = manifest();
    let last = of_system.telemetry.len() - 1;
    of_system.pending[0].only = Some(u16::try_from(last).unwrap());
    assert_eq!(of_system.validate(committee()), Ok(()));
    assert_eq!(of_system.only(&of_system.pending[0]), Some(of_system.telemetry[last].sender));
    let PendingReplica { job, replica, .. } = of_system.pending[0];
    assert_eq!(
        refused(|m| m.pending[0].only = Some(u16::try_from(m.telemetry.len()).unwrap())),
        ManifestError::NoSuchWorker { job, replica }
    );
}

#[test]
fn a_job_and_its_submission_belong_together() {
    // One job under two submissions, then one submission with two jobs.
    assert_eq!(
        refused(|m| m.pending.push(pending(12, 0x22, 9))),
        ManifestError::Submission(Blake3Digest([0x22; 32]))
    );
    assert!(matches!(
        refused(|m| m.pending.push(pending(11, 0x33, 9))),
        ManifestError::Submission(_)
    ));
}

#[test]
fn what_leaves_wants_no_place() {
    let (job, replica) = (Blake3Digest([0x11; 32]), ReplicaIndex(4));
    assert_eq!(
        refused(|m| m.leaving[0] = leaving(0x11, 4)),
        ManifestError::PendingAndLeaving { job, replica }
    );
}

#[test]
fn what_is_done_is_nothing_else() {
    for (byte, replica) in [(0x11, 3), (0x11, 4)] {
        let (job, index) = (Blake3Digest([byte; 32]), ReplicaIndex(replica));
        let refused = refused(|m| m.done[0] = done(byte, replica));
        assert_eq!(refused, ManifestError::DoneAndListed { job, replica: index });
    }
}

#[test]
fn what_is_given_back_does_not_leave_for_another_reason_too() {
    for (job, replica) in [(0x11, 3), (0x11, 5)] {
        let refused = refused(|m| m.given_back.insert(0, given_back(job, replica)));
        let (job, replica) = (Blake3Digest([job; 32]), ReplicaIndex(replica));
        assert_eq!(refused, ManifestError::GivenBackAndListed { job, replica });
    }
}

#[test]
fn a_lost_worker_is_no_candidate() {
    let worker = PeerIdHash([4; 32]);
    assert_eq!(refused(|m| m.telemetry.push(telemetry(4))), ManifestError::LostButListed(worker));
}

#[test]
fn a_loss_is_signed_by_t_plus_one_members() {
    let worker = PeerIdHash([4; 32]);
    for (members, found) in [(&[1, 2][..], 2), (&[1, 2, 3, 4], 4), (&[], 0)] {
        assert_eq!(
            refused(|m| m.lost[0] = lost(4, members)),
            ManifestError::SuspicionCount { worker, found, required: 3 }
        );
    }
    for members in [[1, 1, 2], [2, 1, 3], [1, 2, 8]] {
        assert_eq!(
            refused(|m| m.lost[0] = lost(4, &members)),
            ManifestError::SuspicionMembers(worker)
        );
    }
}

#[test]
fn suspicions_hold_for_one_slot_of_one_epoch() {
    let lost = lost(4, &[1, 2, 3]);
    let worker = lost.worker;
    let key = |index: ParticipantIndex| Some(secret(index.get()).public());
    assert_eq!(lost.verify(&binding(), Slot(5), key), Ok(()));
    let refused = Err(SuspicionError { member: member(1), worker });
    assert_eq!(lost.lost_for(), 100, "as long as each of t+1 members says");
    let mut longer = lost.clone();
    longer.suspicions[0].lost_for += 1;
    assert_eq!(longer.verify(&binding(), Slot(5), key), refused);
    assert_eq!(lost.verify(&binding(), Slot(6), key), refused);
    let other = Binding { epoch: Epoch(9), ..binding() };
    assert_eq!(lost.verify(&other, Slot(5), key), refused);
    let stranger = |index: ParticipantIndex| (index != member(3)).then(|| key(index)).flatten();
    assert_eq!(
        lost.verify(&binding(), Slot(5), stranger),
        Err(SuspicionError { member: member(3), worker })
    );
}

#[test]
fn every_field_changes_the_digest() {
    let changes: [fn(&mut Manifest); 17] = [
        |m| m.binding.epoch = Epoch(9),
        |m| m.slot = Slot(6),
        |m| m.proposer = member(3),
        |m| m.previous.0[0] ^= 1,
        |m| m.block.number += 1,
        |m| m.base.0[0] ^= 1,
        |m| m.jobs_seen += 1,
        |m| m.policy.0[0] ^= 1,
        |m| m.circuit.version += 1,
        |m| m.telemetry.truncate(2),
        |m| m.pending.truncate(1),
        |m| m.leaving.truncate(1),
        |m| m.done.truncate(1),
        |m| m.done[0].exit.code = None,
        |m| m.lost.truncate(1),
        |m| m.given_back.truncate(1),
        |m| m.given_back[0].has_stopped = false,
    ];
    for (i, change) in changes.iter().enumerate() {
        let mut changed = manifest();
        change(&mut changed);
        assert_ne!(changed.digest(), manifest().digest(), "change {i}");
    }
}

proptest! {
    #[test]
    fn round_trips(
        slot in 1u64..,
        number: u64,
        senders in prop::collection::btree_set(any::<[u8; 32]>(), 0..20),
        jobs in prop::collection::btree_map(any::<u64>(), (any::<[u8; 32]>(), 1u16..4), 0..10),
    ) {
        let manifest = Manifest {
            slot: Slot(slot),
            block: BlockRef { number, hash: KeccakDigest([1; 32]) },
            telemetry: senders
                .iter()
                .map(|s| TelemetryEntry { sender: PeerIdHash(*s), digest: Blake3Digest(*s) })
                .collect(),
            pending: jobs
                .iter()
                .flat_map(|(&submission, &(job, replicas))| {
                    (0..replicas).map(move |replica| PendingReplica {
                        submission,
                        job: Blake3Digest(job),
                        replica: ReplicaIndex(replica),
                        only: None,
                        candidates: SAMPLE,
                    })
                })
                .collect(),
            leaving: vec![],
            done: vec![],
            lost: vec![],
            given_back: vec![],
            ..manifest()
        };
        prop_assert_eq!(Manifest::parse(&manifest.to_wire(), committee()), Ok(manifest));
    }

    #[test]
    fn noise_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = Manifest::parse(&bytes, committee());
    }
}
