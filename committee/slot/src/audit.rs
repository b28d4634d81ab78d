//! Who evaluates a slot again, and what comes of what they state.
//!
//! # Roles
//! Workers are auditors unless they register as light. "Per slot a public hash draws some of them (policy,
//! default 2), who run the encrypted scheduling too and sign its digest; disagreement is evidence."
//!
//! # Flow
//! 1. [`auditors`] says who is drawn, once the certificate before the slot is known.
//! 2. [`Statements::stated`] takes what an evaluator signed, [`Statements::certified`] how the slot ended, in
//!    whatever order they come. Each gives the disagreements that it shows.
//!
//! # State
//! The statements of the last [`COMPARED`] slots, one of each evaluator. Nothing is stored: what they show is
//! the caller's to keep.
//!
//! # Caveats
//! Who draws the auditors cannot choose them: the hash is of the last certificate that is not void, which
//! no void slot changes. Signatures are the caller's to check, and whether the evaluator was to state
//! anything.

use std::collections::{BTreeMap, BTreeSet};

use veil_protocol_spec::{
    KeccakDigest, PeerIdHash, Slot, domain,
    scheduling::{AssignmentCertificate, CircuitId, EvaluationReport},
};

/// How many slots back statements are compared.
pub const COMPARED: u64 = 16;

/// The auditors of a slot: the first `count` of `workers` by rank. `seed` is the hash of the last
/// certificate before the slot that is not void, `workers` the full ones as of the manifest's block.
#[must_use]
pub fn auditors(
    seed: KeccakDigest,
    slot: Slot,
    workers: impl IntoIterator<Item = PeerIdHash>,
    count: u16,
) -> BTreeSet<PeerIdHash> {
    let rank = |worker: PeerIdHash| {
        let parts: [&[u8]; 3] = [&seed.0, &slot.0.to_le_bytes(), &worker.0];
        (domain::hash_parts(domain::AUDITOR_RANK, &parts), worker)
    };
    let mut ranks: Vec<_> = workers.into_iter().map(rank).collect();
    ranks.sort_unstable();
    ranks.into_iter().map(|(_, worker)| worker).take(usize::from(count)).collect()
}

/// An evaluator's statement of a slot beside a certificate that says something else: evidence against one of
/// the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Disagreement {
    /// What the committee signed.
    pub certificate: AssignmentCertificate,
    /// What the evaluator signed.
    pub report: EvaluationReport,
}

/// How a slot ended: the circuit is not in the certificate, and the result of another says nothing.
#[derive(Clone, Copy, Debug)]
struct Ended {
    certificate: AssignmentCertificate,
    circuit: CircuitId,
}

impl Ended {
    /// The two, if they are of the same locked manifest, which has an outcome, and differ in it.
    fn differs(&self, report: &EvaluationReport) -> Option<Disagreement> {
        let Self { certificate, circuit } = *self;
        let (signed, stated) = (&certificate.body, &report.body);
        let same = (signed.binding, signed.slot, signed.manifest, circuit)
            == (stated.binding, stated.slot, stated.manifest, stated.circuit);
        let differs = !signed.is_void() && signed.evaluation != stated.outputs;
        (same && differs).then_some(Disagreement { certificate, report: *report })
    }
}

#[derive(Debug, Default)]
struct Statement {
    ended: Option<Ended>,
    reports: BTreeMap<PeerIdHash, EvaluationReport>,
}

/// See the [module documentation](self).
#[derive(Debug, Default)]
pub struct Statements(BTreeMap<Slot, Statement>);

impl Statements {
    /// An evaluator's statement: of each the first for a slot counts. What it shows, if it differs from how
    /// the slot ended.
    pub fn stated(&mut self, report: EvaluationReport) -> Option<Disagreement> {
        let known = self.slot(report.body.slot)?;
        let by = report.body.sender();
        if known.reports.contains_key(&by) {
            return None;
        }
        known.reports.insert(by, report);
        known.ended.as_ref()?.differs(&report)
    }

    /// Whether an evaluator has stated something of a slot.
    #[must_use]
    pub fn has(&self, slot: Slot, by: PeerIdHash) -> bool {
        self.0.get(&slot).is_some_and(|known| known.reports.contains_key(&by))
    }

    /// How a slot ended: what the statements so far show.
    pub fn certified(
        &mut self,
        certificate: &AssignmentCertificate,
        circuit: CircuitId,
    ) -> Vec<Disagreement> {
        let ended = Ended { certificate: *certificate, circuit };
        let Some(known) = self.slot(certificate.body.slot) else { return Vec::new() };
        known.ended = Some(ended);
        known.reports.values().filter_map(|report| ended.differs(report)).collect()
    }

    /// Where a slot is kept; nowhere if it is long over. Older ones make room.
    fn slot(&mut self, slot: Slot) -> Option<&mut Statement> {
        let last = self.0.keys().next_back().copied().unwrap_or_default();
        if slot.0.saturating_add(COMPARED) <= last.0 {
            return None;
        }
        self.0.entry(slot).or_default();
        let last = last.max(slot);
        self.0.retain(|slot, _| slot.0.saturating_add(COMPARED) > last.0);
        self.0.get_mut(&slot)
    }
}

#[cfg(test)]
mod tests {
    use veil_protocol_spec::{
        Blake3Digest,
        scheduling::{CertificateBody, EvaluationBody, GroupSignature, ReferenceStringOrigin},
    };

    use super::*;
    use crate::fixtures::{CIRCUIT, binding, secret, worker};

    const SEED: KeccakDigest = KeccakDigest([5; 32]);
    const MANIFEST: Blake3Digest = Blake3Digest([1; 32]);
    const OUTPUTS: Blake3Digest = Blake3Digest([2; 32]);

    fn stated(slot: u64, by: u8, outputs: Blake3Digest) -> EvaluationReport {
        let identity = secret(by).public();
        let (binding, slot, circuit) = (binding(), Slot(slot), CIRCUIT);
        EvaluationBody { binding, slot, manifest: MANIFEST, circuit, outputs, identity }
            .sign(&secret(by))
    }

    fn ended(slot: u64, evaluation: Blake3Digest) -> AssignmentCertificate {
        AssignmentCertificate {
            body: CertificateBody {
                binding: binding(),
                slot: Slot(slot),
                manifest: MANIFEST,
                previous: SEED,
                base: SEED,
                jobs_seen: 0,
                evaluation,
                members_only: CertificateBody::NO_SECTION,
                assignments_root: KeccakDigest([3; 32]),
                state_root: KeccakDigest([4; 32]),
                reference_string: ReferenceStringOrigin::Committee,
            },
            signature: GroupSignature([2; 65]),
        }
    }

    #[test]
    fn everybody_draws_the_same_auditors_and_each_worker_has_its_turn() {
        let workers: Vec<_> = (1..=20).map(worker).collect();
        let mut backwards = workers.clone();
        backwards.reverse();
        let mut drawn = BTreeSet::new();
        for slot in 1..=200 {
            let now = auditors(SEED, Slot(slot), workers.clone(), 2);
            assert_eq!(now.len(), 2);
            assert_eq!(now, auditors(SEED, Slot(slot), backwards.clone(), 2), "slot {slot}");
            drawn.extend(now);
        }
        assert_eq!(drawn, workers.iter().copied().collect());
        let other = KeccakDigest([6; 32]);
        let differs = |slot: &u64| {
            auditors(SEED, Slot(*slot), workers.clone(), 2)
                != auditors(other, Slot(*slot), workers.clone(), 2)
        };
        assert!((1..=20).filter(differs).count() > 10, "the certificate decides");
        assert_eq!(auditors(SEED, Slot(1), workers[..1].to_vec(), 2), [workers[0]].into());
        assert_eq!(auditors(SEED, Slot(1), workers, 0), BTreeSet::new());
    }

    #[test]
    fn a_worker_that_leaves_changes_no_other_place() {
        let workers: Vec<_> = (1..=20).map(worker).collect();
        let drawn = auditors(SEED, Slot(1), workers.clone(), 3);
        let left = *drawn.first().unwrap();
        let without = workers.into_iter().filter(|worker| *worker != left);
        let now = auditors(SEED, Slot(1), without, 3);
        assert_eq!(now.intersection(&drawn).count(), 2);
    }

    #[test]
    fn a_wrong_statement_is_found_in_whatever_order_it_comes() {
        let wrong = stated(1, 7, Blake3Digest([9; 32]));
        let found = Disagreement { certificate: ended(1, OUTPUTS), report: wrong };
        let mut before = Statements::default();
        assert_eq!(before.stated(wrong), None);
        assert_eq!(before.stated(stated(1, 8, OUTPUTS)), None);
        assert_eq!(before.certified(&ended(1, OUTPUTS), CIRCUIT), [found]);
        let mut after = Statements::default();
        assert_eq!(after.certified(&ended(1, OUTPUTS), CIRCUIT), []);
        assert_eq!(after.stated(stated(1, 8, OUTPUTS)), None);
        assert_eq!(after.stated(wrong), Some(found));
        assert!(
            after.has(Slot(1), wrong.body.sender()) && !after.has(Slot(2), wrong.body.sender())
        );
        assert_eq!(after.stated(wrong), None, "told once");
        assert_eq!(after.stated(stated(1, 8, Blake3Digest([9; 32]))), None, "the first counts");
    }

    #[test]
    fn void_slots_and_other_manifests_and_circuits_show_nothing() {
        let mut statements = Statements::default();
        assert_eq!(statements.stated(stated(1, 7, OUTPUTS)), None);
        assert_eq!(statements.certified(&ended(1, CertificateBody::VOID), CIRCUIT), []);
        let mut other = ended(3, OUTPUTS);
        other.body.manifest.0[0] ^= 1;
        assert_eq!(statements.stated(stated(3, 7, Blake3Digest([9; 32]))), None);
        assert_eq!(statements.certified(&other, CIRCUIT), []);
        let other = CircuitId { version: CIRCUIT.version + 1, ..CIRCUIT };
        assert_eq!(statements.stated(stated(2, 7, Blake3Digest([9; 32]))), None);
        assert_eq!(statements.certified(&ended(2, OUTPUTS), other), []);
    }

    #[test]
    fn old_slots_are_forgotten() {
        let mut statements = Statements::default();
        for slot in 1..=3 * COMPARED {
            statements.stated(stated(slot, 7, OUTPUTS));
        }
        assert_eq!(statements.0.len() as u64, COMPARED);
        assert_eq!(statements.certified(&ended(1, Blake3Digest([9; 32])), CIRCUIT), []);
        assert_eq!(statements.0.len() as u64, COMPARED);
    }
}
