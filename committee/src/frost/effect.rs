//! How the machines of a signing session end: the signature, or why there is none.

use frost_core::Ciphersuite;
use veil_protocol_spec::{Committee, KeccakDigest, ParticipantIndex, Slot};

use super::{EvmSuite, keys::GroupSignature, wire::SignedMessage};

/// How a signer or a coordinator ends. It is the only effect that other machines do not have.
#[derive(Clone, Debug, PartialEq)]
pub enum SessionEffect<C: Ciphersuite = EvmSuite> {
    /// The signature; nothing follows but answers to latecomers.
    Complete(Box<Completion<C>>),
    /// No signature from this machine; nothing follows.
    Failed(SigningError),
}

/// The outcome of a session.
#[derive(Clone, Debug, PartialEq)]
pub struct Completion<C: Ciphersuite = EvmSuite> {
    /// The message that was signed.
    pub message: KeccakDigest,
    /// The signature.
    pub signature: GroupSignature<C>,
    /// The signers' share messages, which say who signed; only a coordinator has them.
    pub shares: Vec<SignedMessage>,
}

/// Why there is no signature.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the messages name the fields")]
pub enum SigningError {
    /// A second message was to be authorised.
    #[error("{authorised} is authorised for this slot already; {asked} is not signed beside it")]
    AlreadyAuthorised { authorised: KeccakDigest, asked: KeccakDigest },
    /// The key share is of another group, or the identity is not that member's.
    #[error("the key share or identity does not belong to this session's group")]
    WrongKey,
    /// The store holds two messages for one place.
    #[error("the nonce journal holds two messages for one slot: do not sign with this key again")]
    CorruptJournal,
    /// A share did not leave, because its record could not be stored.
    #[error("the nonce record was not stored, so the share was not sent: check the journal's disk")]
    NotPersisted,
    /// The session has ended.
    #[error("the session is over")]
    Over,
    /// No coordinator brought a signature before the deadline.
    #[error("no group signature before the deadline")]
    Deadline,
    /// Too few members are left. The evidence against the culprits is with the coordinator; the
    /// absentees did not answer in time.
    #[error(
        "fewer than {needed} members left to sign: at fault {culprits:?}, silent {absentees:?}"
    )]
    TooFewSigners {
        needed: usize,
        culprits: Vec<ParticipantIndex>,
        absentees: Vec<ParticipantIndex>,
    },
    /// Every attempt failed; culprits and absentees as above.
    #[error("{attempts} attempts failed: at fault {culprits:?}, silent {absentees:?}")]
    OutOfAttempts {
        attempts: u32,
        culprits: Vec<ParticipantIndex>,
        absentees: Vec<ParticipantIndex>,
    },
}

impl SigningError {
    /// Members that are provably at fault.
    #[must_use]
    pub fn culprits(&self) -> &[ParticipantIndex] {
        match self {
            Self::TooFewSigners { culprits, .. } | Self::OutOfAttempts { culprits, .. } => culprits,
            Self::AlreadyAuthorised { .. }
            | Self::WrongKey
            | Self::CorruptJournal
            | Self::NotPersisted
            | Self::Over
            | Self::Deadline => &[],
        }
    }

    /// Members that did not answer; silence alone convicts nobody.
    #[must_use]
    pub fn absentees(&self) -> &[ParticipantIndex] {
        match self {
            Self::TooFewSigners { absentees, .. } | Self::OutOfAttempts { absentees, .. } => {
                absentees
            }
            Self::AlreadyAuthorised { .. }
            | Self::WrongKey
            | Self::CorruptJournal
            | Self::NotPersisted
            | Self::Over
            | Self::Deadline => &[],
        }
    }
}

/// The member whose turn it is to coordinate, for the k-th rotation.
#[must_use]
pub fn coordinator_at(committee: Committee, slot: Slot, rotation: u64) -> ParticipantIndex {
    let n = committee.n() as u64;
    let position = (slot.0 % n + rotation % n) % n;
    committee.participants().nth(position as usize).expect("a position below n is a participant")
}
