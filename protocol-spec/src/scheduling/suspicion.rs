//! Workers that members consider lost.

use serde::{Deserialize, Serialize};

use super::binding::Binding;
use crate::{
    domain::{self, hash_parts},
    identity::{InvalidSignature, SecretIdentity},
    ids::{Blake3Digest, ParticipantIndex, PeerIdHash, PublicIdentity, Signature, Slot},
};

/// What a member signs when it considers a worker lost: valid for one slot only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Suspicion {
    /// Cluster, key set and epoch.
    pub binding: Binding,
    /// The slot that places the worker's replicas again.
    pub slot: Slot,
    /// The worker that the member considers lost.
    pub worker: PeerIdHash,
    /// [`SignedSuspicion::lost_for`].
    pub lost_for: u32,
}

/// One member's signed suspicion.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignedSuspicion {
    /// The member that suspects the worker.
    pub member: ParticipantIndex,
    /// Whole seconds, by the member's own clock, for which it has had the certificate that
    /// [counts the worker as lost](super::ClusterState::lost_since); 0 if there is none (`leases.md`).
    pub lost_for: u32,
    /// Made with that member's identity over [`Suspicion::digest`].
    pub signature: Signature,
}

/// A worker whose replicas are to be placed again: at once, or when their lease is over.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LostWorker {
    /// The worker that counts as lost.
    pub worker: PeerIdHash,
    /// Exactly t+1, one of which is honest, by member in strictly ascending order.
    pub suspicions: Vec<SignedSuspicion>,
}

/// The signature of a suspicion does not verify.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("member {member} did not sign that worker {worker} is lost in this slot")]
pub struct SuspicionError {
    /// The member that the suspicion names.
    pub member: ParticipantIndex,
    /// The worker that it suspects.
    pub worker: PeerIdHash,
}

impl Suspicion {
    /// What is signed.
    #[must_use]
    pub fn digest(&self) -> Blake3Digest {
        let Binding { scope, key_set, epoch } = &self.binding;
        Blake3Digest(hash_parts(
            domain::WORKER_SUSPICION,
            &[
                &scope.chain_id.0.to_le_bytes(),
                scope.contract.as_bytes(),
                scope.cluster.as_bytes(),
                key_set.as_bytes(),
                &epoch.0.to_le_bytes(),
                &self.slot.0.to_le_bytes(),
                self.worker.as_bytes(),
                &self.lost_for.to_le_bytes(),
            ],
        ))
    }

    /// Signs as `member`, whose secret key `secret` must be.
    #[must_use]
    pub fn sign(&self, member: ParticipantIndex, secret: &SecretIdentity) -> SignedSuspicion {
        let signature = secret.sign(self.digest().as_bytes());
        SignedSuspicion { member, lost_for: self.lost_for, signature }
    }
}

impl LostWorker {
    /// Whole seconds for which at least one honest member has had the certificate that counts the worker
    /// as lost: the least that t+1 members say.
    #[must_use]
    pub fn lost_for(&self) -> u32 {
        self.suspicions.iter().map(|suspicion| suspicion.lost_for).min().unwrap_or(0)
    }

    /// Checks every signature; `identity` maps a member to its key, `None` outside the
    /// committee.
    ///
    /// # Errors
    /// [`SuspicionError`] for the first signature that does not verify.
    pub fn verify(
        &self,
        binding: &Binding,
        slot: Slot,
        identity: impl Fn(ParticipantIndex) -> Option<PublicIdentity>,
    ) -> Result<(), SuspicionError> {
        let (binding, worker) = (*binding, self.worker);
        for &SignedSuspicion { member, lost_for, ref signature } in &self.suspicions {
            let digest = Suspicion { binding, slot, worker, lost_for }.digest();
            identity(member)
                .ok_or(InvalidSignature)
                .and_then(|key| key.verify(digest.as_bytes(), signature))
                .map_err(|InvalidSignature| SuspicionError { member, worker })?;
        }
        Ok(())
    }
}
