//! What an evaluator states that it computed: a cross-check for the members and a record for audits.
//!
//! # Roles
//! Evaluators are the members, and the slot's auditors: workers drawn by a public hash
//! (`protocol-spec/slot.md`, "Audit").
//!
//! # Caveats
//! A report decides nothing. A member decrypts what it recomputed itself. A report that differs from the
//! certificate shows that one side is wrong, the evaluator or the committee; who evaluates the archived inputs
//! again learns which.

use serde::{Deserialize, Serialize};

use super::{
    binding::{Binding, BindingMismatch},
    manifest::CircuitId,
};
use crate::{
    codec::Wire,
    domain::{self, hash_parts},
    identity::{InvalidSignature, SecretIdentity},
    ids::{Blake3Digest, PeerIdHash, PublicIdentity, Signature, Slot},
};

/// Everything of an [`EvaluationReport`] that is signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvaluationBody {
    /// Cluster, key set and epoch.
    pub binding: Binding,
    /// The slot that was evaluated.
    pub slot: Slot,
    /// Digest of the slot's locked manifest.
    pub manifest: Blake3Digest,
    /// The circuit that was evaluated.
    pub circuit: CircuitId,
    /// Digest of the squashed outputs.
    pub outputs: Blake3Digest,
    /// The evaluator's key.
    pub identity: PublicIdentity,
}

/// A worker's or member's signed statement of what the slot's circuit gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvaluationReport {
    /// The signed part.
    pub body: EvaluationBody,
    /// Made with [`EvaluationBody::identity`] over [`EvaluationBody::digest`].
    pub signature: Signature,
}

impl Wire for EvaluationBody {
    const NAME: &'static str = "EvaluationBody";
    // Version, binding, slot, two digests, circuit, key.
    const MAX_BYTES: usize = 1 + (2 * 10 + 20 + 32 + 32) + 10 + 2 * 32 + (5 + 32) + 33;
}

impl Wire for EvaluationReport {
    const NAME: &'static str = "EvaluationReport";
    const MAX_BYTES: usize = EvaluationBody::MAX_BYTES + 64;
}

/// Why a report is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReportError {
    /// The report is for another cluster, key set or epoch.
    #[error(transparent)]
    Binding(#[from] BindingMismatch),
    /// The identity that it names did not sign it.
    #[error(transparent)]
    Signature(#[from] InvalidSignature),
}

impl EvaluationBody {
    /// The evaluator as the registry knows it.
    #[must_use]
    pub fn sender(&self) -> PeerIdHash {
        PeerIdHash::of(&self.identity)
    }

    /// What is signed.
    #[must_use]
    pub fn digest(&self) -> Blake3Digest {
        Blake3Digest(hash_parts(domain::EVALUATION_REPORT, &[&self.to_wire()]))
    }

    /// Signs the body. `secret` must be the secret side of [`Self::identity`]; with another key
    /// the result does not [`verify`](EvaluationReport::verify).
    #[must_use]
    pub fn sign(self, secret: &SecretIdentity) -> EvaluationReport {
        EvaluationReport { signature: secret.sign(self.digest().as_bytes()), body: self }
    }
}

impl EvaluationReport {
    /// Checks binding and signature. Whether the sender is registered is the caller's check.
    ///
    /// # Errors
    /// [`ReportError`].
    pub fn verify(&self, expected: &Binding) -> Result<(), ReportError> {
        self.body.binding.check(expected)?;
        Ok(self.body.identity.verify(self.body.digest().as_bytes(), &self.signature)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        ids::{ChainId, Epoch},
        scheduling::arbitrary::{assert_wire, binding, secret},
    };

    fn body() -> EvaluationBody {
        EvaluationBody {
            binding: binding(),
            slot: Slot(9),
            manifest: Blake3Digest([1; 32]),
            circuit: CircuitId { version: 1, fingerprint: Blake3Digest([2; 32]) },
            outputs: Blake3Digest([3; 32]),
            identity: secret(7).public(),
        }
    }

    #[test]
    fn a_report_verifies_only_as_it_was_signed() {
        let report = body().sign(&secret(7));
        assert_eq!(report.verify(&binding()), Ok(()));
        assert_eq!(report.body.sender(), PeerIdHash::of(&secret(7).public()));
        let changes: [fn(&mut EvaluationBody); 6] = [
            |b| b.slot = Slot(8),
            |b| b.manifest.0[0] ^= 1,
            |b| b.circuit.version = 2,
            |b| b.circuit.fingerprint.0[0] ^= 1,
            |b| b.outputs.0[0] ^= 1,
            |b| b.identity = secret(8).public(),
        ];
        for (i, change) in changes.iter().enumerate() {
            let mut changed = report;
            change(&mut changed.body);
            let refused = changed.verify(&binding());
            assert_eq!(refused, Err(ReportError::Signature(InvalidSignature)), "change {i}");
        }
        let other = Binding { epoch: Epoch(3), ..binding() };
        let mismatch = BindingMismatch { field: "epoch" };
        assert_eq!(report.verify(&other), Err(ReportError::Binding(mismatch)));
    }

    #[test]
    fn only_the_exact_bytes_decode() {
        assert_wire(&body().sign(&secret(7)));
        let mut longest = body();
        longest.binding.scope.chain_id = ChainId(u64::MAX);
        longest.binding.epoch = Epoch(u64::MAX);
        longest.slot = Slot(u64::MAX);
        longest.circuit.version = u32::MAX;
        let longest = longest.sign(&secret(7));
        assert_eq!(longest.to_wire().len(), EvaluationReport::MAX_BYTES);
        assert_eq!(EvaluationReport::from_wire(&longest.to_wire()), Ok(longest));
    }
}
