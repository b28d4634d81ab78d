//! What a node shows of where replicas are, checked by a committee of one.

use std::sync::Arc;

use rand::rngs::OsRng;
use veil_committee::frost::{
    self, EvmSuite, GroupKeyShare, Purpose, SessionContext, SigningContext, SigningEffect,
    SigningKeyId, SigningMachine, SigningSchedule,
    dkg::{Dkg, Packages},
};
use veil_committee_machine::{Effect, Machine as _};
use veil_protocol_spec::{
    Address, Blake3Digest, ChainId, Epoch, KeccakDigest, KeySetDigest, PeerIdHash, ReplicaIndex,
    agreement::{Instance, Lock, SlotEnd, SlotOutcome},
    identity::SecretIdentity,
    scheduling::{
        Assignment, AssignmentCertificate, Assignments, BlockRef, CircuitId, ClusterScope,
        GroupSignature, Manifest, Outcome, PendingReplica, ReferenceStringOrigin, RolloutChanges,
        SAMPLE, TelemetryEntry,
    },
};

use super::*;

const JOB: Blake3Digest = Blake3Digest([1; 32]);
const REPLICA: ReplicaIndex = ReplicaIndex(0);

fn binding() -> Binding {
    let scope = ClusterScope {
        chain_id: ChainId(31_337),
        contract: Address([1; 20]),
        cluster: ClusterId([2; 32]),
    };
    Binding { scope, key_set: KeySetDigest([3; 32]), epoch: Epoch(0) }
}

struct Member {
    identity: SecretIdentity,
    share: Arc<GroupKeyShare>,
    committee: Committee,
}

impl Member {
    fn new() -> Self {
        let committee = Committee::new(1).unwrap();
        let me = committee.participants().next().unwrap();
        let (secret, _) = Dkg::<EvmSuite>::start(committee, me, &mut OsRng).unwrap();
        let (secret, _) = secret.receive(&Packages::new()).unwrap();
        let share = Arc::new(secret.finish(&Packages::new()).unwrap());
        Self { identity: SecretIdentity::from_bytes(&[7; 32]).unwrap(), share, committee }
    }

    fn verifier(&self, anchored: Slot) -> Verifier {
        let key = self.share.public().verifying_key_bytes().try_into().unwrap();
        Verifier {
            binding: binding(),
            committee: self.committee,
            roster: vec![self.identity.public()],
            group: GroupVerifyingKey::new(&PublicIdentity(key)).unwrap(),
            anchored,
            state: ClusterState::default(),
            bodies: Vec::new(),
        }
    }

    fn sign(&self, body: &CertificateBody) -> GroupSignature {
        let Binding { scope, epoch, .. } = body.binding;
        let context = SigningContext {
            chain: scope.chain_id,
            contract: scope.contract,
            cluster: scope.cluster,
            key: SigningKeyId { purpose: Purpose::Certificate, epoch, slot: body.slot },
        };
        let group = Arc::new(self.share.public().clone());
        let session = SessionContext::new(context, group, vec![self.identity.public()]).unwrap();
        let schedule = SigningSchedule {
            rotation: 1_000,
            timing: frost::Timing { commit: 1_000, share: 1_000, max_attempts: 1 },
            restarts: 0,
        };
        let (share, identity) = (Arc::clone(&self.share), self.identity.clone());
        let mut machine =
            SigningMachine::new(Arc::new(session), share, identity, [], schedule).unwrap();
        machine.authorise(body.signing_digest(), &[], 10_000, 0).unwrap();
        while let Some(effect) = machine.poll_effect() {
            match effect {
                Effect::Persist { id, .. } => machine.persisted(id),
                Effect::Special(SigningEffect::Complete(done)) => {
                    return GroupSignature(done.signature.as_bytes().try_into().unwrap());
                }
                // There is nobody else to tell.
                Effect::Broadcast(_) => {}
                other => panic!("{other:?}"),
            }
        }
        panic!("no signature");
    }

    /// The first slot, which places the replica on `worker`, and the state after it.
    fn snapshot(&self, worker: PeerIdHash) -> StateSnapshot {
        let (state, slot) = (ClusterState::default(), Slot(1));
        let manifest = Manifest {
            binding: binding(),
            slot,
            proposer: self.committee.participants().next().unwrap(),
            previous: state.last_certificate(),
            block: BlockRef { number: 1, hash: KeccakDigest([2; 32]) },
            base: KeccakDigest([0; 32]),
            jobs_seen: 0,
            policy: KeccakDigest([3; 32]),
            circuit: CircuitId { version: 1, fingerprint: Blake3Digest([4; 32]) },
            telemetry: vec![TelemetryEntry { sender: worker, digest: Blake3Digest([5; 32]) }],
            pending: vec![PendingReplica {
                submission: 0,
                job: JOB,
                replica: REPLICA,
                only: None,
                candidates: SAMPLE,
            }],
            leaving: Vec::new(),
            done: Vec::new(),
            lost: Vec::new(),
            given_back: Vec::new(),
            rollouts: RolloutChanges::default(),
            runs: Vec::new(),
        };
        let outcome = Outcome::Node(worker);
        let assignment = Assignment { job: JOB, replica: REPLICA, outcome };
        let assignments = Assignments::try_from(vec![assignment]).unwrap();
        let (instance, value) = (Instance::manifest(slot), manifest.digest());
        let vote = Lock::vote_digest(&binding(), instance, 0, &value);
        let votes = vec![(manifest.proposer, self.identity.sign(&vote))];
        let lock = Lock { binding: binding(), instance, round: 0, value, votes };
        let after = state.apply(&manifest, &assignments).unwrap();
        let outcome = SlotOutcome::new(manifest.no_outputs(), &assignments, &after);
        let end = SlotEnd { binding: binding(), slot, manifest: value, outcome: Some(outcome) };
        let body = CertificateBody::of(&manifest, &end, ReferenceStringOrigin::Committee, &state);
        let certificate = AssignmentCertificate { signature: self.sign(&body), body };
        let record = SlotRecord { manifest, lock, assignments, certificate };
        StateSnapshot { record, state: after }
    }
}

#[test]
fn a_node_cannot_say_that_a_replica_is_elsewhere() {
    let (member, stranger) = (Member::new(), Member::new());
    let (right, wrong) = (PeerIdHash([8; 32]), PeerIdHash([9; 32]));
    let verifier = member.verifier(Slot(1));
    let shown = member.snapshot(right);
    let state = verifier.newest(shown.clone()).unwrap();
    assert_eq!(state.placement(JOB, REPLICA).map(|placed| placed.worker), Some(right));
    // A state of its own under the committee's record.
    let lie = StateSnapshot { state: member.snapshot(wrong).state, ..shown.clone() };
    assert!(matches!(verifier.newest(lie), Err(VerifyError::Snapshot(_))));
    // A record of its own, with a state that fits.
    assert!(matches!(verifier.newest(stranger.snapshot(wrong)), Err(VerifyError::Signature(_))));
    let mut lie = shown.clone();
    lie.record.certificate.body = stranger.snapshot(wrong).record.certificate.body;
    assert!(verifier.newest(lie).is_err());
    // What was once.
    let stale = member.verifier(Slot(2)).newest(shown);
    assert!(matches!(stale, Err(VerifyError::Stale { found: Slot(1), anchored: Slot(2) })));
}
