//! What 2t+1 precommits make.

use serde::{Deserialize, Serialize};

use super::instance::Instance;
use crate::{
    codec::Wire,
    committee::Committee,
    domain,
    ids::{Blake3Digest, ParticipantIndex, PublicIdentity, Signature},
    scheduling::Binding,
};

/// 2t+1 members' precommits for one value in one instance of the agreement: its decision.
///
/// A lock on a slot's manifest opens the outputs that are computed from it: without it no partial
/// decryption leaves. The votes are those of the deciding round, so the lock costs no message of its
/// own. An instance may have locks of several rounds, but never for two values while at most t
/// members are corrupt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lock {
    /// Cluster, key set and epoch.
    pub binding: Binding,
    /// What is decided.
    pub instance: Instance,
    /// Round of the agreement in which the votes were cast.
    pub round: u32,
    /// Digest of the value.
    pub value: Blake3Digest,
    /// Votes in ascending order of participants.
    pub votes: Vec<(ParticipantIndex, Signature)>,
}

/// Why votes are not a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "each message says what its fields are")]
pub enum LockError {
    /// The voters are not members in strictly ascending order.
    #[error("the votes are not by distinct participants in ascending order")]
    Voters,
    /// A vote's signature does not verify.
    #[error("participant {0} did not sign this vote")]
    Signature(ParticipantIndex),
    /// There are fewer than 2t+1 votes.
    #[error("{given} votes are no lock: {needed} are needed")]
    TooFew { given: usize, needed: usize },
}

impl Lock {
    /// The digest a member signs to vote: to precommit to `value` in `round` of the instance.
    #[must_use]
    pub fn vote_digest(
        binding: &Binding,
        instance: Instance,
        round: u32,
        value: &Blake3Digest,
    ) -> [u8; 32] {
        domain::hash_parts(
            domain::AGREEMENT_LOCK,
            &[&binding.to_bytes(), &instance.to_bytes(), &round.to_le_bytes(), &value.0],
        )
    }

    /// # Errors
    /// [`LockError`] unless 2t+1 distinct participants signed.
    pub fn verify(&self, committee: Committee, roster: &[PublicIdentity]) -> Result<(), LockError> {
        if self.votes.windows(2).any(|pair| pair[0].0 >= pair[1].0) {
            return Err(LockError::Voters);
        }
        let digest = Self::vote_digest(&self.binding, self.instance, self.round, &self.value);
        for (voter, signature) in &self.votes {
            let identity = roster
                .get(voter.position())
                .filter(|_| committee.contains(*voter))
                .ok_or(LockError::Voters)?;
            identity.verify(&digest, signature).map_err(|_| LockError::Signature(*voter))?;
        }
        let needed = committee.signing_threshold().get();
        if self.votes.len() < needed {
            return Err(LockError::TooFew { given: self.votes.len(), needed });
        }
        Ok(())
    }
}

impl Wire for Lock {
    const NAME: &'static str = "Lock";
    // Version 1 had a slot and a manifest in place of instance and value.
    const VERSION: u8 = 2;
    const MAX_BYTES: usize = 2048;
}
