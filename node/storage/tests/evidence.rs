//! Evidence is kept once for each fault, within bounds, and only if it proves what it claims.

#![allow(clippy::unwrap_used, reason = "a failed helper fails the test")]

mod support;

use std::sync::Arc;

use rand::rngs::OsRng;
use veil_committee::frost::{
    self, EvmSuite, GroupKeyShare, GroupVerifyingKey, Purpose, SessionContext, SigningContext,
    SigningEffect, SigningKeyId, SigningMachine, SigningSchedule,
    dkg::{Dkg, Packages},
    wire::{Body, Payload},
};
use veil_committee_machine::{Effect, Machine as _};
use veil_node_storage::{
    evidence::{
        EvidenceError, EvidenceStore, KEPT_VOTE_SLOTS, Kept, PER_CULPRIT,
        verdict::{Culprit, InvalidEvidence, Place},
    },
    trust::Trust,
};
use veil_protocol_spec::{
    Attempt, Blake3Digest, Committee, Epoch, KeccakDigest, ParticipantIndex, PeerIdHash,
    PublicIdentity, Slot, Wire,
    agreement::{Equivocation, Instance, Vote, VoteKind},
    codec::Bytes,
    decryption::{DecryptionMessage, DecryptionPayload, RequestContext, RequestId},
    evidence::{Evidence, EvidenceKind, Proof, WrongPartial},
    identity::SecretIdentity,
    scheduling::{
        AssignmentCertificate, Binding, CertificateBody, CertificateVote, CircuitId,
        EvaluationBody, GroupSignature, ReferenceStringOrigin, SignedCertificateVote,
    },
};

use self::support::binding;

fn member(j: u8) -> ParticipantIndex {
    ParticipantIndex::new(j).unwrap()
}

fn identity(j: u8) -> SecretIdentity {
    SecretIdentity::from_bytes(&[j; 32]).unwrap()
}

/// A group that one party controls signs for the committee.
struct World {
    share: Arc<GroupKeyShare>,
    committee: Committee,
    folder: tempfile::TempDir,
}

impl World {
    fn new(n: u8) -> Self {
        let alone = Committee::new(1).unwrap();
        let (secret, _) = Dkg::<EvmSuite>::start(alone, member(1), &mut OsRng).unwrap();
        let (secret, _) = secret.receive(&Packages::new()).unwrap();
        let share = Arc::new(secret.finish(&Packages::new()).unwrap());
        let folder = tempfile::tempdir().unwrap();
        Self { share, committee: Committee::new(n).unwrap(), folder }
    }

    fn path(&self) -> std::path::PathBuf {
        self.folder.path().join("evidence.redb")
    }

    fn open(&self) -> EvidenceStore {
        EvidenceStore::open(&self.path(), self.trust()).unwrap()
    }

    fn trust(&self) -> Trust {
        let key = self.share.public().verifying_key_bytes().try_into().unwrap();
        Trust {
            binding: binding(),
            committee: self.committee,
            roster: self.committee.participants().map(|j| identity(j.get()).public()).collect(),
            group: GroupVerifyingKey::new(&PublicIdentity(key)).unwrap(),
        }
    }

    fn session(&self, slot: Slot) -> SessionContext {
        let key = SigningKeyId { purpose: Purpose::Certificate, epoch: Epoch(0), slot };
        let scope = binding().scope;
        let (chain, contract, cluster) = (scope.chain_id, scope.contract, scope.cluster);
        let context = SigningContext { chain, contract, cluster, key };
        let group = Arc::new(self.share.public().clone());
        SessionContext::new(context, group, vec![identity(1).public()]).unwrap()
    }

    fn sign(&self, body: &CertificateBody) -> GroupSignature {
        let schedule = SigningSchedule {
            rotation: 1_000,
            timing: frost::Timing { commit: 1_000, share: 1_000, max_attempts: 1 },
            restarts: 0,
        };
        let session = Arc::new(self.session(body.slot));
        let share = Arc::clone(&self.share);
        let mut machine = SigningMachine::new(session, share, identity(1), [], schedule).unwrap();
        machine.authorise(body.signing_digest(), &[], 10_000, 0).unwrap();
        loop {
            match machine.poll_effect().unwrap() {
                Effect::Persist { id, .. } => machine.persisted(id),
                Effect::Special(SigningEffect::Complete(done)) => {
                    return GroupSignature(done.signature.as_bytes().try_into().unwrap());
                }
                // There is nobody else to tell.
                Effect::Broadcast(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    fn certificate(&self, slot: u64, root: u8) -> AssignmentCertificate {
        let body = CertificateBody {
            binding: binding(),
            slot: Slot(slot),
            manifest: Blake3Digest([4; 32]),
            previous: CertificateBody::NO_PREVIOUS,
            base: CertificateBody::NO_PREVIOUS,
            jobs_seen: 0,
            evaluation: Blake3Digest([5; 32]),
            members_only: CertificateBody::NO_SECTION,
            assignments_root: KeccakDigest([root; 32]),
            state_root: KeccakDigest([6; 32]),
            reference_string: ReferenceStringOrigin::Committee,
        };
        AssignmentCertificate { body, signature: self.sign(&body) }
    }
}

const fn evidence(proof: Proof) -> Evidence {
    Evidence { binding: binding(), proof }
}

/// Two prevotes of member j in a slot; `variant` makes other ones.
fn two_votes(j: u8, slot: u64, variant: u32) -> Evidence {
    let vote = |value: Option<Blake3Digest>| {
        let (instance, kind) = (Instance::manifest(Slot(slot)), VoteKind::Prevote);
        let vote = Vote { instance, round: variant, kind, value, voter: member(j) };
        vote.sign(&binding(), &identity(j))
    };
    let both = Equivocation::Votes(vote(None), vote(Some(Blake3Digest([9; 32]))));
    evidence(Proof::Agreement(Box::new(both)))
}

fn invalid(store: &EvidenceStore, evidence: &Evidence) -> InvalidEvidence {
    match store.accept(evidence) {
        Err(EvidenceError::Invalid(reason)) => reason,
        other => panic!("{other:?}"),
    }
}

fn new(store: &EvidenceStore, evidence: &Evidence) -> (EvidenceKind, Culprit, Place) {
    match store.accept(evidence).unwrap() {
        Kept::New(verdict) => (verdict.kind, verdict.culprit, verdict.place),
        other => panic!("{other:?}"),
    }
}

#[test]
fn evidence_is_kept_once_for_each_kind_culprit_and_slot_over_a_restart() {
    let world = World::new(4);
    let store = world.open();
    let first = two_votes(2, 7, 0);
    let agreement = EvidenceKind::Agreement;
    let in_slot = |slot| Place::Slot(Slot(slot));
    assert_eq!(new(&store, &first), (agreement, Culprit::Member(member(2)), in_slot(7)));
    assert_eq!(store.accept(&first).unwrap(), Kept::Known);
    assert_eq!(store.accept(&two_votes(2, 7, 1)).unwrap(), Kept::Known, "of the same slot");
    new(&store, &two_votes(2, 8, 0));
    new(&store, &two_votes(3, 7, 0));
    let list = store.list().unwrap();
    drop(store);
    let store = world.open();
    assert_eq!(store.list().unwrap(), list);
    let culprits: Vec<_> =
        list.iter().map(|kept| (kept.verdict.culprit, kept.verdict.place)).collect();
    let by = |j| Culprit::Member(member(j));
    assert_eq!(culprits, [(by(2), in_slot(7)), (by(2), in_slot(8)), (by(3), in_slot(7))]);
    assert!(list.iter().all(|kept| kept.bytes > 100 && kept.verdict.epoch == Epoch(0)));
    assert_eq!(store.find(&first.digest()).unwrap().as_ref(), Some(&first));
    assert_eq!(store.find(&Blake3Digest([0; 32])).unwrap(), None);
    assert_eq!(store.accept(&first).unwrap(), Kept::Known);
}

#[test]
fn what_proves_nothing_is_refused_by_name_and_not_kept() {
    let world = World::new(4);
    let store = world.open();
    let mut other = two_votes(2, 7, 0);
    other.binding.epoch = Epoch(1);
    assert!(matches!(invalid(&store, &other), InvalidEvidence::Binding(_)));
    let Proof::Agreement(both) = two_votes(2, 7, 0).proof else { unreachable!() };
    let Equivocation::Votes(vote, _) = *both else { unreachable!() };
    let same = evidence(Proof::Agreement(Box::new(Equivocation::Votes(vote, vote))));
    let nothing = InvalidEvidence::Nothing(EvidenceKind::Agreement);
    assert_eq!(invalid(&store, &same), nothing);
    let mut forged = vote;
    forged.vote.value = Some(Blake3Digest([1; 32]));
    let forged = evidence(Proof::Agreement(Box::new(Equivocation::Votes(vote, forged))));
    assert_eq!(invalid(&store, &forged), nothing);
    let garbage = evidence(Proof::Signing(Bytes(vec![1; 20])));
    assert_eq!(invalid(&store, &garbage), InvalidEvidence::NoShares);
    let blocks = vec![Blake3Digest([1; 32]); Evidence::MAX_BYTES / 32];
    let context = context(7);
    let long = WrongPartial { culprit: member(2), context, blocks, partials: Vec::new() };
    let long = evidence(Proof::WrongPartial(Box::new(long)));
    assert!(matches!(invalid(&store, &long), InvalidEvidence::Codec(_)));
    assert!(store.list().unwrap().is_empty());
}

#[test]
fn nobody_fills_the_store() {
    let world = World::new(4);
    let store = world.open();
    for slot in 0..PER_CULPRIT as u64 {
        new(&store, &two_votes(2, slot, 0));
    }
    let more = two_votes(2, 1_000, 0);
    assert_eq!(store.accept(&more).unwrap(), Kept::Enough);
    // It keeps nobody else's out, nor another kind.
    new(&store, &two_votes(3, 1_000, 0));
    new(&store, &evidence(votes_for(2, 1_000)));
    assert_eq!(store.list().unwrap().len(), PER_CULPRIT + 2);
}

fn context(slot: u64) -> RequestContext {
    let Binding { key_set, epoch, .. } = binding();
    RequestContext::first(key_set, epoch, Slot(slot), Blake3Digest([8; 32]))
}

#[test]
fn partial_decryptions_convict_whoever_sent_wrong_ones() {
    let world = World::new(4);
    let store = world.open();
    // Shares of zero are on a polynomial; whatever else one member sends is not.
    let blocks = vec![Blake3Digest([7; 32]); 12];
    let request = RequestId::of(&context(5), &blocks);
    let partial = |j: u8, byte: u8| {
        let payload = DecryptionPayload::Partial(Bytes(vec![byte; 12 * 16]));
        DecryptionMessage::sign(request, member(j), payload, &identity(j))
    };
    let wrong = |culprit: u8, slot: u64| {
        let partials = vec![partial(2, 1), partial(1, 0), partial(3, 0), partial(4, 0)];
        let (culprit, context, blocks) = (member(culprit), context(slot), blocks.clone());
        let wrong = WrongPartial { culprit, context, blocks, partials };
        evidence(Proof::WrongPartial(Box::new(wrong)))
    };
    let kind = EvidenceKind::WrongPartial;
    let by_second = Culprit::Member(member(2));
    assert_eq!(new(&store, &wrong(2, 5)), (kind, by_second, Place::Slot(Slot(5))));
    assert_eq!(invalid(&store, &wrong(3, 5)), InvalidEvidence::Nothing(kind), "its share is right");
    let elsewhere = invalid(&store, &wrong(2, 6));
    assert_eq!(elsewhere, InvalidEvidence::Nothing(kind), "the request is of another slot");
    let both = Proof::TwoPartials(Box::new((partial(2, 0), partial(2, 1))));
    let kind = EvidenceKind::TwoPartials;
    assert_eq!(new(&store, &evidence(both)), (kind, by_second, Place::Request(request)));
    let both = Proof::TwoPartials(Box::new((partial(2, 0), partial(3, 1))));
    assert_eq!(invalid(&store, &evidence(both)), InvalidEvidence::Nothing(kind));
    let places: Vec<_> = store.list().unwrap().iter().map(|kept| kept.verdict.place).collect();
    assert_eq!(places, [Place::Request(request), Place::Slot(Slot(5))]);
}

#[test]
fn a_group_that_signs_twice_and_an_evaluation_that_differs_are_evidence() {
    let world = World::new(4);
    let store = world.open();
    let (one, other) = (world.certificate(3, 1), world.certificate(3, 2));
    let pair = |a, b| evidence(Proof::Certificates(Box::new((a, b))));
    let kind = EvidenceKind::Certificates;
    assert_eq!(new(&store, &pair(one, other)), (kind, Culprit::Group, Place::Slot(Slot(3))));
    for (a, b) in [(one, one), (one, world.certificate(4, 2))] {
        assert_eq!(invalid(&store, &pair(a, b)), InvalidEvidence::Nothing(kind));
    }
    let mut forged = world.certificate(5, 1);
    forged.body.state_root = KeccakDigest([0; 32]);
    let forged = pair(forged, world.certificate(5, 1));
    assert_eq!(invalid(&store, &forged), InvalidEvidence::Nothing(kind));

    let auditor = SecretIdentity::from_bytes(&[77; 32]).unwrap();
    let report = |outputs: u8, slot: u64| {
        let body = EvaluationBody {
            binding: binding(),
            slot: Slot(slot),
            manifest: Blake3Digest([4; 32]),
            circuit: CircuitId { version: 1, fingerprint: Blake3Digest([1; 32]) },
            outputs: Blake3Digest([outputs; 32]),
            identity: auditor.public(),
        };
        evidence(Proof::Evaluation(Box::new((body.sign(&auditor), one))))
    };
    let kind = EvidenceKind::Evaluation;
    let by = Culprit::Node(PeerIdHash::of(&auditor.public()));
    assert_eq!(new(&store, &report(9, 3)), (kind, by, Place::Slot(Slot(3))));
    assert_eq!(invalid(&store, &report(5, 3)), InvalidEvidence::Nothing(kind), "it agrees");
    assert_eq!(invalid(&store, &report(9, 4)), InvalidEvidence::Nothing(kind));
}

#[test]
fn frost_messages_are_judged_with_the_verifying_shares() {
    let world = World::new(1);
    let store = world.open();
    let session = world.session(Slot(6));
    let share = |share: Vec<u8>| {
        let (message, package) = (KeccakDigest([1; 32]), Blake3Digest([2; 32]));
        let body = Body::Share { message, package, share };
        let payload =
            Payload { coordinator: member(1), attempt: Attempt(0), from: member(1), body };
        let malformed = frost::Evidence::Malformed(session.seal(&identity(1), payload));
        evidence(Proof::Signing(Bytes(malformed.to_wire())))
    };
    assert_eq!(invalid(&store, &share(vec![1; 5])), InvalidEvidence::NoShares);
    store.know_shares(Arc::new(world.share.public().clone()));
    let kind = EvidenceKind::Signing;
    let by_first = Culprit::Member(member(1));
    assert_eq!(new(&store, &share(vec![1; 5])), (kind, by_first, Place::Slot(Slot(6))));
    assert_eq!(invalid(&store, &share(vec![1; 32])), InvalidEvidence::Nothing(kind), "a scalar");
    let garbage = evidence(Proof::Signing(Bytes(vec![1; 20])));
    assert!(matches!(invalid(&store, &garbage), InvalidEvidence::Codec(_)));
}

fn vote(j: u8, slot: u64, certificate: u8) -> SignedCertificateVote {
    let Binding { scope, epoch, .. } = binding();
    let certificate = KeccakDigest([certificate; 32]);
    CertificateVote { scope, epoch, slot: Slot(slot), certificate }.sign(member(j), &identity(j))
}

fn votes_for(j: u8, slot: u64) -> Proof {
    Proof::CertificateVotes(Box::new((vote(j, slot, 1), vote(j, slot, 2))))
}

#[test]
fn a_member_casts_one_vote_for_a_slot_over_a_restart() {
    let world = World::new(4);
    let store = world.open();
    store.cast(&vote(1, 5, 1)).unwrap();
    drop(store);
    let store = world.open();
    store.cast(&vote(1, 5, 1)).unwrap();
    let refused = store.cast(&vote(1, 5, 2)).unwrap_err();
    assert!(matches!(refused, EvidenceError::AlreadyVoted { slot: Slot(5), .. }), "{refused}");
    assert_eq!(store.votes(Slot(5)).unwrap(), [vote(1, 5, 1)]);
    store.cast(&vote(1, 6, 2)).unwrap();
}

#[test]
fn two_votes_of_one_member_meet_and_convict_it() {
    let world = World::new(4);
    let store = world.open();
    let last = Slot(5);
    let found = store.take_votes(&[vote(2, 5, 1), vote(3, 5, 1)], last).unwrap();
    assert!(found.is_empty());
    assert_eq!(store.votes(Slot(5)).unwrap(), [vote(2, 5, 1), vote(3, 5, 1)]);
    assert!(store.take_votes(&[vote(3, 5, 1)], last).unwrap().is_empty(), "the same again");
    let found = store.take_votes(&[vote(2, 5, 2), vote(4, 5, 1)], last).unwrap();
    assert_eq!(found, [evidence(votes_for(2, 5))]);
    assert_eq!(store.votes(Slot(5)).unwrap().len(), 3, "the first vote stays, others count");
    assert!(store.take_votes(&[vote(2, 5, 2)], last).unwrap().is_empty(), "told once");
    let kept = store.list().unwrap();
    assert_eq!(kept[0].verdict.culprit, Culprit::Member(member(2)));
    assert!(kept[0].verdict.kind.is_punished_on_chain());
}

#[test]
fn votes_that_do_not_count_are_refused_and_old_ones_forgotten() {
    let world = World::new(4);
    let store = world.open();
    let last = Slot(KEPT_VOTE_SLOTS + 10);
    let refused = |signed: SignedCertificateVote| store.take_votes(&[signed], last).unwrap_err();
    for slot in [0, 10, last.0 + 3, u64::MAX] {
        assert!(matches!(refused(vote(2, slot, 1)), EvidenceError::Slot { .. }), "slot {slot}");
    }
    let mut forged = vote(2, last.0, 1);
    forged.vote.certificate = KeccakDigest([9; 32]);
    assert!(matches!(refused(forged), EvidenceError::Vote(_)));
    store.take_votes(&[vote(2, 11, 1), vote(2, 12, 1)], last).unwrap();
    store.take_votes(&[vote(2, last.0 + 1, 1)], last).unwrap();
    assert!(store.votes(Slot(11)).unwrap().is_empty());
    assert_eq!(store.votes(Slot(12)).unwrap().len(), 1);
}

#[test]
fn a_file_that_is_no_store_is_named() {
    let world = World::new(4);
    std::fs::write(world.path(), b"this is no database").unwrap();
    let error = EvidenceStore::open(&world.path(), world.trust()).unwrap_err().to_string();
    assert!(error.contains("evidence.redb"), "{error}");
}
