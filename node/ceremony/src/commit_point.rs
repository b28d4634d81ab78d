//! What a ceremony needs from the chain, which orders publication, abort and expiry once for all.

use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use veil_committee::frost::{GroupPublicKey, GroupSignature};
use veil_keygen_ceremony::transcript::FinishCertificate;
use veil_node_chain::UnsignedBatch;
use veil_protocol_spec::{
    Attempt, Blake3Digest, Epoch, KeccakDigest, KeySetDigest, ParticipantIndex, PublicIdentity,
    Signature, Wire,
    identity::SecretIdentity,
    publication::{Publication, ReferenceString},
};

/// An attempt as it was proposed, and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proposal {
    /// The epoch that the key is for.
    pub epoch: Epoch,
    /// Its attempt.
    pub attempt: Attempt,
    /// Name of the FHE parameter set.
    pub parameters: String,
    /// Its digest.
    pub parameters_digest: Blake3Digest,
    /// Identities in the order of their seats.
    pub roster: Vec<PublicIdentity>,
    /// [`crate::options::ceremony_context`] of the cluster that it is for.
    pub context: [u8; 32],
    /// Last second, Unix time on the chain's clock, at which the key may be published.
    pub deadline: u64,
    /// Where it stands.
    pub status: AttemptStatus,
}

/// Where an attempt stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AttemptStatus {
    /// It may still publish.
    Proposed,
    /// A member or the cluster's admin ended it.
    Aborted,
    /// Its deadline passed.
    Expired,
    /// It made the key of its epoch.
    Published {
        /// Root of the transcript.
        transcript_root: Blake3Digest,
        /// The key set.
        key_set: KeySetDigest,
    },
}

impl AttemptStatus {
    /// Whether it made no key and never will.
    #[must_use]
    pub const fn is_over(&self) -> bool {
        matches!(self, Self::Aborted | Self::Expired)
    }

    /// For output.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Proposed => "proposed",
            Self::Aborted => "aborted",
            Self::Expired => "expired",
            Self::Published { .. } => "published",
        }
    }
}

/// What the admin of a cluster proposes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewAttempt {
    /// The epoch.
    pub epoch: Epoch,
    /// 0 for the first, then one more each.
    pub attempt: Attempt,
    /// Name of the FHE parameter set.
    pub parameters: String,
    /// Its digest.
    pub parameters_digest: Blake3Digest,
    /// [`crate::options::ceremony_context`].
    pub context: [u8; 32],
    /// From now on the chain's clock.
    pub duration: Duration,
}

/// The publication of an attempt's key.
pub(crate) fn publication(
    epoch: Epoch,
    certificate: &FinishCertificate,
    key_set: KeySetDigest,
    group: &GroupPublicKey,
    reference: &ReferenceString,
) -> Publication {
    Publication {
        epoch,
        attempt: certificate.attempt,
        group: group.to_wire(),
        key_set,
        transcript_root: certificate.root,
        reference_string: reference.digest,
    }
}

/// Why the chain did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum CommitPointError {
    /// The node does not answer, or not in time: worth another try.
    #[error("the chain cannot be reached: {0}")]
    Unreachable(String),
    /// The contracts refuse, with their reason.
    #[error("{0}")]
    Refused(String),
    /// Nothing was sent: others sign this.
    #[error("{0}")]
    Unsigned(Box<UnsignedBatch>),
    /// Nothing was proposed.
    #[error(
        "no ceremony is proposed for epoch {epoch}; the cluster's admin runs `veil ceremony propose`"
    )]
    NotProposed {
        /// The epoch that has no key yet.
        epoch: Epoch,
    },
}

impl CommitPointError {
    /// Whether another try may help.
    #[must_use]
    pub const fn is_transient(&self) -> bool {
        matches!(self, Self::Unreachable(_))
    }
}

/// The chain, as far as a ceremony is concerned.
#[async_trait]
pub trait CommitPointChain: Send + Sync + 'static {
    /// The latest attempt for the epoch that has no key yet; for the current epoch, if its key has
    /// just been published and nothing newer is proposed. As of the last block that is deep enough to act
    /// on.
    ///
    /// # Errors
    /// [`CommitPointError`].
    async fn latest(&self) -> Result<Proposal, CommitPointError>;

    /// The number of the last block that is deep enough to act on.
    ///
    /// # Errors
    /// [`CommitPointError`].
    async fn settled_block(&self) -> Result<u64, CommitPointError>;

    /// Where an attempt stands, as of that block: "decisions that destroy rest on settled facts, never on
    /// one endpoint's latest block".
    ///
    /// # Errors
    /// [`CommitPointError`].
    async fn status(
        &self,
        epoch: Epoch,
        attempt: Attempt,
    ) -> Result<AttemptStatus, CommitPointError>;

    /// Whether every endpoint that is configured says by itself, as of its last settled block, that the
    /// attempt made no key.
    ///
    /// # Errors
    /// [`CommitPointError`], also if one of them does not answer.
    async fn is_over_everywhere(
        &self,
        epoch: Epoch,
        attempt: Attempt,
    ) -> Result<bool, CommitPointError>;

    /// Epoch and attempt to propose next.
    ///
    /// # Errors
    /// [`CommitPointError`].
    async fn next(&self) -> Result<(Epoch, Attempt), CommitPointError>;

    /// Proposes an attempt, as the cluster's admin.
    ///
    /// # Errors
    /// [`CommitPointError`].
    async fn propose(&self, attempt: &NewAttempt) -> Result<(), CommitPointError>;

    /// What each member signs with its identity.
    ///
    /// # Errors
    /// [`CommitPointError::Refused`] if the publication cannot be published.
    fn publication_digest(
        &self,
        publication: &Publication,
    ) -> Result<KeccakDigest, CommitPointError>;

    /// What the new group signs.
    ///
    /// # Errors
    /// As [`Self::publication_digest`].
    fn possession_digest(
        &self,
        publication: &Publication,
    ) -> Result<KeccakDigest, CommitPointError>;

    /// Publishes; `signatures` by seat.
    ///
    /// # Errors
    /// [`CommitPointError`].
    async fn publish(
        &self,
        publication: &Publication,
        signatures: &[Signature],
        possession: &GroupSignature,
    ) -> Result<(), CommitPointError>;

    /// Whether a member that ends an attempt forfeits its seat, as it does in an elected committee.
    ///
    /// # Errors
    /// [`CommitPointError`].
    async fn abort_costs_seat(&self) -> Result<bool, CommitPointError>;

    /// Ends an attempt, signed by a member's identity.
    ///
    /// # Errors
    /// [`CommitPointError`].
    async fn abort(
        &self,
        epoch: Epoch,
        attempt: Attempt,
        reason: Blake3Digest,
        seat: ParticipantIndex,
        identity: &SecretIdentity,
    ) -> Result<(), CommitPointError>;
}
