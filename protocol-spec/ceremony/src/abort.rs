//! Why a member gives an attempt up.

use serde::{Deserialize, Serialize};

use super::round::{Round, Stream};
use veil_protocol_spec_base::ids::ParticipantIndex;

/// Why a member gives an attempt up: what it accuses which participants of, as far as it knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "each message says what its fields are")]
pub enum AbortReason {
    /// A message did not come before the deadline.
    #[error("no {round} message from participants {missing:?} before the deadline")]
    MissingMessage { round: Round, missing: Vec<ParticipantIndex> },
    /// A chunk came neither from its member nor from a relay; `index` is the first missing one.
    #[error(
        "no chunk {index} of the {stream:?} stream from participants {missing:?} before the deadline"
    )]
    MissingChunk { stream: Stream, index: u32, missing: Vec<ParticipantIndex> },
    /// A participant signed two different messages for one round.
    #[error("participant {accused} signed two different {round} messages")]
    Equivocation { accused: ParticipantIndex, round: Round },
    /// Participants hold different messages of one sender.
    #[error("participant {echoed_by} echoes another {round} message of participant {accused}")]
    EchoMismatch { accused: ParticipantIndex, round: Round, echoed_by: ParticipantIndex },
    /// A participant signed a message that no honest member sends.
    #[error("the {round} message of participant {accused} is invalid: {detail}")]
    InvalidMessage { accused: ParticipantIndex, round: Round, detail: String },
    /// A private contribution does not open its commitment.
    #[error("participant {accused} dealt a contribution that does not open its commitment")]
    WrongContribution { accused: ParticipantIndex },
    /// Members of one set hold different keys.
    #[error("participants {with:?} confirm another key of a set shared with the reporter")]
    KeyMismatch { with: Vec<ParticipantIndex> },
    /// A revealed part of the public seed does not open its commitment.
    #[error("participant {accused} revealed another part of the public seed than it committed to")]
    WrongSeedReveal { accused: ParticipantIndex },
    /// The shares of a packed value do not lie on one polynomial.
    #[error(
        "the shares of element {element} in chunk {index} of the {stream:?} stream are inconsistent"
    )]
    InconsistentShares { stream: Stream, index: u32, element: u32 },
    /// The test decryptions do not lie on one polynomial, or key set digests differ.
    #[error("the proofs of participants {accused:?} do not fit the others: {detail}")]
    WrongProof { accused: Vec<ParticipantIndex>, detail: String },
    /// The opened material is not a key set.
    #[error("the opened material is no valid key set: {detail}")]
    InvalidKeySet { detail: String },
    /// The FROST DKG failed; `accused` is empty where the culprits are not known.
    #[error("the FROST key generation failed because of participants {accused:?}: {detail}")]
    Frost { accused: Vec<ParticipantIndex>, detail: String },
    /// Another member aborted.
    #[error("participant {by} aborted")]
    PeerAborted { by: ParticipantIndex },
    /// The attempt's deadline passed at the commit point without a publication.
    #[error("the attempt expired before its key was published")]
    Expired,
    /// This member's disk or memory failed it.
    #[error("local failure: {detail}")]
    Local { detail: String },
}

impl AbortReason {
    /// Participants that this reason points at, without proof; empty if it points at none.
    #[must_use]
    pub fn accused(&self) -> Vec<ParticipantIndex> {
        match self {
            Self::MissingMessage { missing, .. } | Self::MissingChunk { missing, .. } => {
                missing.clone()
            }
            Self::Equivocation { accused, .. }
            | Self::EchoMismatch { accused, .. }
            | Self::InvalidMessage { accused, .. }
            | Self::WrongContribution { accused }
            | Self::WrongSeedReveal { accused } => vec![*accused],
            Self::KeyMismatch { with } => with.clone(),
            Self::WrongProof { accused, .. } | Self::Frost { accused, .. } => accused.clone(),
            Self::PeerAborted { by } => vec![*by],
            Self::InconsistentShares { .. }
            | Self::InvalidKeySet { .. }
            | Self::Expired
            | Self::Local { .. } => Vec::new(),
        }
    }
}
