//! The ledger takes what the committee certified once, and keeps the proof when it certified twice.

#![allow(clippy::unwrap_used, reason = "a failed helper fails the test")]

mod support;

use std::{path::Path, sync::Arc};

use rand::rngs::OsRng;
use veil_committee::frost::{
    self, EvmSuite, GroupKeyShare, GroupVerifyingKey, Purpose, SessionContext, SigningContext,
    SigningEffect, SigningKeyId, SigningMachine, SigningSchedule,
    dkg::{Dkg, Packages},
};
use veil_committee_machine::{Effect, Machine as _};
use veil_node_storage::{
    ledger::{Ledger, LedgerError},
    trust::{Trust, TrustList},
};
use veil_protocol_spec::{
    Blake3Digest, Committee, KeccakDigest, PublicIdentity, Slot,
    agreement::{Instance, Lock},
    identity::SecretIdentity,
    scheduling::{
        AssignmentCertificate, Assignments, Binding, BlockRef, CertificateBody, CircuitId,
        ClusterState, GroupSignature, Manifest, ReferenceStringOrigin, SlotRecord,
    },
};

use self::support::binding;

/// A committee of one.
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

    fn trust(&self) -> TrustList {
        let key = self.share.public().verifying_key_bytes().try_into().unwrap();
        let trust = Trust {
            binding: binding(),
            committee: self.committee,
            roster: vec![self.identity.public()],
            group: GroupVerifyingKey::new(&PublicIdentity(key)).unwrap(),
        };
        TrustList::from_iter([(Slot(1), trust)])
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

    /// A record of slot 1; `variant` makes another one.
    fn record(&self, variant: u64) -> SlotRecord {
        let manifest = Manifest {
            binding: binding(),
            slot: Slot(1),
            proposer: self.committee.participants().next().unwrap(),
            previous: CertificateBody::NO_PREVIOUS,
            block: BlockRef { number: variant, hash: KeccakDigest([2; 32]) },
            base: KeccakDigest([0; 32]),
            jobs_seen: 0,
            policy: KeccakDigest([3; 32]),
            circuit: CircuitId { version: 1, fingerprint: Blake3Digest([4; 32]) },
            telemetry: Vec::new(),
            pending: Vec::new(),
            running: Vec::new(),
            lost: Vec::new(),
        };
        let assignments = Assignments::default();
        let (instance, value) = (Instance::manifest(Slot(1)), manifest.digest());
        let vote = Lock::vote_digest(&binding(), instance, 0, &value);
        let lock = Lock {
            binding: binding(),
            instance,
            round: 0,
            value,
            votes: vec![(manifest.proposer, self.identity.sign(&vote))],
        };
        let state = ClusterState::default().apply(&manifest, &assignments).unwrap();
        let body = CertificateBody {
            binding: binding(),
            slot: Slot(1),
            manifest: manifest.digest(),
            previous: manifest.previous,
            base: manifest.base,
            jobs_seen: manifest.jobs_seen,
            evaluation: manifest.no_outputs(),
            members_only: CertificateBody::NO_SECTION,
            assignments_root: assignments.tree().root(),
            state_root: state.state_root(),
            reference_string: ReferenceStringOrigin::Committee,
        };
        let certificate = AssignmentCertificate { signature: self.sign(&body), body };
        SlotRecord { manifest, lock, assignments, certificate }
    }
}

fn open(folder: &Path, trust: TrustList) -> Ledger {
    Ledger::open(&folder.join("ledger.redb"), trust).unwrap()
}

#[test]
fn the_second_certificate_of_a_slot_is_refused_and_kept_for_the_dispute() {
    let folder = tempfile::tempdir().unwrap();
    let member = Member::new();
    let [first, second, third] = [1, 2, 3].map(|variant| member.record(variant));
    let ledger = open(folder.path(), member.trust());
    assert!(ledger.accept(&first).unwrap());
    assert!(!ledger.accept(&first).unwrap(), "it is known");
    assert_eq!(ledger.conflict(Slot(1)).unwrap(), None);
    for conflicting in [&second, &third] {
        let refused = ledger.accept(conflicting);
        assert!(matches!(refused, Err(LedgerError::Equivocation(Slot(1)))), "{refused:?}");
    }
    drop(ledger);
    let ledger = open(folder.path(), member.trust());
    assert_eq!(ledger.record(Slot(1)).unwrap(), Some(first));
    assert_eq!(ledger.conflict(Slot(1)).unwrap(), Some(second), "the first proof is enough");
}

#[test]
fn a_certificate_of_another_committee_is_neither_taken_nor_a_proof() {
    let folder = tempfile::tempdir().unwrap();
    let (member, stranger) = (Member::new(), Member::new());
    let ledger = open(folder.path(), member.trust());
    assert!(matches!(ledger.accept(&stranger.record(1)), Err(LedgerError::Signature { .. })));
    assert!(ledger.accept(&member.record(1)).unwrap());
    assert!(matches!(ledger.accept(&stranger.record(2)), Err(LedgerError::Signature { .. })));
    assert_eq!(ledger.conflict(Slot(1)).unwrap(), None);
}

#[test]
fn a_slot_before_the_first_trust_has_no_committee() {
    let folder = tempfile::tempdir().unwrap();
    let member = Member::new();
    let trust = member.trust().at(Slot(1)).cloned().unwrap();
    let later = TrustList::from_iter([(Slot(5), trust)]);
    assert!(
        later.at(Slot(4)).is_none() && later.at(Slot(5)).is_some() && later.at(Slot(9)).is_some()
    );
    let ledger = open(folder.path(), later);
    assert!(matches!(ledger.accept(&member.record(1)), Err(LedgerError::NoCommittee(Slot(1)))));
}
