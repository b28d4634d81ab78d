//! What a member stores of the slot that is under way, beside what agreement, decryption and signing
//! store themselves; and what it keeps of the slot's inputs.

use serde::{Deserialize, Serialize};

use crate::{
    agreement::{Lock, SlotEnd, SlotOutcome},
    codec::{Bytes, Wire},
    domain,
    ids::{Blake3Digest, Slot},
    scheduling::{Assignments, CertificateBody, ClusterState, Manifest, ReferenceStringOrigin},
    sync::LockedManifest,
};

/// One thing that a member must know again after a restart in the slot. Those of earlier slots are of
/// no use any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(clippy::large_enum_variant, reason = "one or two are held at a time")]
pub enum SlotEntry {
    /// The slot's inputs are fixed.
    Locked(Box<LockedManifest>),
    /// One more step was evaluated and opened. Stored before the next one is evaluated, which depends on it.
    Opened {
        /// In this slot.
        slot: Slot,
        /// What.
        step: OpenedStep,
    },
    /// How the slot ends is decided. Stored before a share of the certificate's signature leaves.
    Ended {
        /// 2t+1 votes for the end.
        lock: Lock,
        /// The end.
        end: SlotEnd,
    },
}

impl Wire for SlotEntry {
    const NAME: &'static str = "slot entry";
    // Versions 1 and 2 held manifests that listed everything that runs, version 3 manifests that knew nothing
    // of replicas that are done, version 4 manifests that knew nothing of versions of jobs,
    // version 5 nothing of periodic jobs, version 6 was opened once.
    const VERSION: u8 = 7;
    const MAX_BYTES: usize = LockedManifest::MAX_BYTES + 16;
}

/// What was evaluated in one step of a slot, and what the committee opened of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OpenedStep {
    /// Digest of the outputs.
    pub evaluation: Blake3Digest,
    /// Their digits.
    pub digits: Bytes,
}

/// What the steps so far come to, in order: requests to open the next one name it.
#[must_use]
pub fn opened_digest(steps: &[OpenedStep]) -> Blake3Digest {
    let parts = steps.iter().flat_map(|step| [&step.evaluation.0[..], &step.digits.0]);
    Blake3Digest(domain::hash_parts(domain::OPENED_STEPS, &parts.collect::<Vec<_>>()))
}

/// What the end of a slot says of its evaluations, by the digests of their outputs, in order: of one it is that
/// one's. Digits that were opened in between follow from them.
#[must_use]
pub fn evaluation_digest(steps: &[Blake3Digest]) -> Blake3Digest {
    if let [only] = steps {
        return *only;
    }
    let parts: Vec<_> = steps.iter().map(|digest| &digest.0[..]).collect();
    Blake3Digest(domain::hash_parts(domain::CIRCUIT_STEPS, &parts))
}

impl SlotOutcome {
    /// Of an evaluation with this digest, which gave these assignments, and the state after them.
    #[must_use]
    pub fn new(evaluation: Blake3Digest, assignments: &Assignments, after: &ClusterState) -> Self {
        let (assignments_root, state_root) = (assignments.tree().root(), after.state_root());
        Self { evaluation, assignments_root, state_root }
    }
}

impl CertificateBody {
    /// What the group signs for a slot that builds on `state` and ends so. A void slot places nothing
    /// and removes nothing.
    #[must_use]
    pub fn of(
        manifest: &Manifest,
        end: &SlotEnd,
        origin: ReferenceStringOrigin,
        state: &ClusterState,
    ) -> Self {
        let (evaluation, assignments_root, state_root) = match &end.outcome {
            Some(o) => (o.evaluation, o.assignments_root, o.state_root),
            None => {
                let nothing = Assignments::default().tree().root();
                let after = state.void(manifest).unwrap_or_else(|_| state.clone());
                (Self::VOID, nothing, after.state_root())
            }
        };
        Self {
            binding: manifest.binding,
            slot: manifest.slot,
            manifest: end.manifest,
            previous: manifest.previous,
            base: manifest.base,
            jobs_seen: manifest.jobs_seen,
            evaluation,
            assignments_root,
            state_root,
            reference_string: origin,
            members_only: Self::NO_SECTION,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        agreement::{Instance, Subject},
        decryption::RequestContext,
        ids::{KeccakDigest, ParticipantIndex, Signature},
        scheduling::arbitrary::{assert_wire, binding},
    };

    #[test]
    fn the_digest_covers_every_evaluation_in_order() {
        let [a, b, c] = [1, 2, 3].map(|byte| Blake3Digest([byte; 32]));
        assert_eq!(evaluation_digest(&[a]), a);
        let of_two = evaluation_digest(&[a, b]);
        let others: [&[_]; 5] = [&[a], &[b], &[b, a], &[a, c], &[a, b, c]];
        assert!(others.iter().all(|steps| evaluation_digest(steps) != of_two));
    }

    #[test]
    fn what_was_opened_is_told_apart_by_evaluations_digits_and_order() {
        let step = |byte, digits: &[u8]| OpenedStep {
            evaluation: Blake3Digest([byte; 32]),
            digits: Bytes(digits.to_vec()),
        };
        let all: [&[_]; 7] = [
            &[],
            &[step(1, &[2])],
            &[step(1, &[3])],
            &[step(2, &[2])],
            &[step(1, &[2]), step(2, &[3])],
            &[step(2, &[3]), step(1, &[2])],
            &[step(1, &[2, 3])],
        ];
        let digests: std::collections::BTreeSet<_> =
            all.into_iter().map(|steps| opened_digest(steps).0).collect();
        assert_eq!(digests.len(), all.len());
        let of = binding();
        let first = RequestContext::first(of.key_set, of.epoch, Slot(1), Blake3Digest([1; 32]));
        assert_eq!(first.before, opened_digest(&[]));
    }

    #[test]
    fn only_the_exact_bytes_decode() {
        let step = OpenedStep { evaluation: Blake3Digest([1; 32]), digits: Bytes(vec![7]) };
        assert_wire(&SlotEntry::Opened { slot: Slot(7), step });
        let outcome = SlotOutcome {
            evaluation: Blake3Digest([1; 32]),
            assignments_root: KeccakDigest([2; 32]),
            state_root: KeccakDigest([3; 32]),
        };
        for outcome in [None, Some(outcome)] {
            let end = SlotEnd {
                binding: binding(),
                slot: Slot(7),
                manifest: Blake3Digest([4; 32]),
                outcome,
            };
            let lock = Lock {
                binding: binding(),
                instance: Instance { slot: Slot(7), subject: Subject::End },
                round: 1,
                value: end.digest(),
                votes: vec![(ParticipantIndex::new(2).unwrap(), Signature([5; 64]))],
            };
            assert_wire(&SlotEntry::Ended { lock, end });
        }
    }
}
