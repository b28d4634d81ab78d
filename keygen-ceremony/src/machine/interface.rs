//! What goes into a ceremony machine and what comes out, beside messages and time.

use core::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tfhe::xof_key_set::CompressedXofKeySet;
use veil_committee::key_share::KeyShare;
use veil_protocol_spec::{
    CodecError, KeySetDigest, ParticipantIndex,
    ceremony::{AbortReason, Round, SignedMessage, Stream},
};

use crate::transcript::FinishCertificate;

/// What a member waits for or does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Waits for the messages of a round.
    Collect(Round),
    /// Raises the powers of the reference string, or waits for whoever does.
    Raise(ParticipantIndex),
    /// Checks the finished reference string.
    CheckReferenceString,
    /// Computes its share stream; the next chunk.
    Produce(Stream, u32),
    /// Collects and opens the members' streams; the next chunk.
    Open(Stream, u32),
    /// Assembles the key set and proves its share.
    Assemble,
    /// Has all n FINISH signatures, and waits for the commit point.
    AwaitCommitPoint,
    /// The key is valid.
    Completed,
    /// The attempt made no key.
    Aborted,
}

impl Stage {
    /// The name used in progress and reports. Chunks of one stream have the same.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Collect(round) => round.name(),
            Self::Raise(_) => Round::ReferenceString.name(),
            Self::CheckReferenceString => "check-reference-string",
            Self::Produce(Stream::Bits, _) => "compute-bits",
            Self::Produce(Stream::Bodies, _) => "compute-bodies",
            Self::Open(Stream::Bits, _) => "open-bits",
            Self::Open(Stream::Bodies, _) => "open-bodies",
            Self::Assemble => "assemble",
            Self::AwaitCommitPoint => "commit-point",
            Self::Completed => "completed",
            Self::Aborted => "aborted",
        }
    }
}

/// Why a message counts against the peer that brought it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the messages name the fields")]
pub enum Fault {
    /// The bytes are not a message.
    #[error(transparent)]
    Malformed(#[from] CodecError),
    /// The message names a sender outside the committee.
    #[error("participant {0} is not in the committee")]
    NotAMember(ParticipantIndex),
    /// The signature is not the sender's.
    #[error("the signature of participant {0} does not verify")]
    Signature(ParticipantIndex),
    /// The payload does not belong to the round, or there is a recipient where there must be none.
    #[error("the {0} message has the wrong form")]
    Form(Round),
    /// Two messages are signed for one round: evidence is kept and the attempt aborted.
    #[error("participant {sender} signed two different {round} messages")]
    Equivocation { sender: ParticipantIndex, round: Round },
    /// The bytes do not match the root that the chunk's sender signed.
    #[error("chunk {index} of participant {sender} does not match its root")]
    Chunk { sender: ParticipantIndex, index: u32 },
}

/// What a restart needs.
#[derive(Clone)]
pub enum Record {
    /// A message taken or sent, in order.
    Message(Box<SignedMessage>),
    /// The key set, before FINISH.
    KeySet(Arc<CompressedXofKeySet>),
    /// The key share, before FINISH; secret, to be encrypted by the host.
    KeyShare(Arc<KeyShare>),
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Message(message) => write!(f, "Message({:?})", message.header),
            Self::KeySet(_) => f.write_str("KeySet"),
            Self::KeyShare(_) => f.write_str("KeyShare(<redacted>)"),
        }
    }
}

/// What the host carries out for a ceremony beside storing and sending.
#[derive(Clone, Debug)]
pub enum CeremonyEffect {
    /// Destroy the persisted seed: FINISH is signed.
    EraseSeed,
    /// Put the persisted key share out of use: the attempt made no key. It is worth nothing, so it need not
    /// be destroyed before the commit point's word is beyond doubt.
    VoidKeyShare,
    /// Bring to the commit point.
    Publish(Box<FinishCertificate>),
    /// The attempt succeeded: the key is valid.
    Complete(Box<Outcome>),
    /// The attempt failed: this member has no key of it.
    Abort(Box<AbortReport>),
}

/// What a finished attempt made.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Digest of the key set.
    pub key_set: KeySetDigest,
    /// All n FINISH signatures.
    pub certificate: FinishCertificate,
}

/// A failed attempt, as this member saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AbortReport {
    /// The reason of this member's own ABORT, or the commit point's.
    pub reason: AbortReason,
    /// What this member did when it gave up.
    pub stage: Stage,
    /// Signed messages that show it, where there are such.
    pub evidence: Vec<SignedMessage>,
}

/// What the commit point says.
#[derive(Clone, Debug)]
pub enum CommitPoint {
    /// The certificate that was published in time.
    Published(Box<FinishCertificate>),
    /// The attempt's deadline passed without one.
    Expired,
}

/// How far a member is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// What it waits for or does.
    pub stage: Stage,
    /// Pieces done within the stage.
    pub done: u32,
    /// Pieces of the stage.
    pub total: u32,
    /// Participants whose contribution to the stage is outstanding.
    pub outstanding: Vec<ParticipantIndex>,
}

/// Why a member cannot go on from its records.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResumeError {
    /// They hold no FINISH and no ABORT of this member, and there is no seed.
    #[error(
        "the ceremony seed is missing; without it this attempt cannot go on: let it expire and join the next one"
    )]
    NoSeed,
    /// The records were written with another seed or another build.
    #[error(
        "replaying the {0} message gives other bytes than were sent; the records or the seed are damaged"
    )]
    Diverged(Round),
}
