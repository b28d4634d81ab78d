//! What goes into a ceremony machine and what comes out.

use std::sync::Arc;

use tfhe::xof_key_set::CompressedXofKeySet;
use veil_committee::key_share::KeyShare;
use veil_protocol_spec::{
    CodecError, KeySetDigest, ParticipantIndex,
    ceremony::{AbortReason, Round, SignedMessage, Stream},
};

use crate::transcript::FinishCertificate;

/// Milliseconds on a monotonic clock.
pub type Millis = u64;

/// How long a member waits. Virtual or real, the round time must cover what the slowest member
/// computes within a round: its whole share stream before `bits-root` and `bodies-root`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// For the messages of a round, or for progress within a stream, in milliseconds.
    pub round: Millis,
    /// Before it asks again for what is missing.
    pub retry: Millis,
}

/// What a member waits for or does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stage {
    /// Waits for the messages of a round.
    Collect(Round),
    /// Computes its share stream; the next chunk.
    Produce(Stream, u32),
    /// Collects and opens the members' streams; the next chunk.
    Open(Stream, u32),
    /// Assembles the key set and proves its share.
    Assemble,
    /// All n FINISH signatures are there; waits for the commit point.
    AwaitCommitPoint,
    /// The key is valid.
    Completed,
    /// The attempt made no key.
    Aborted,
}

/// Why a message was ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Skip {
    /// Seen before.
    Duplicate,
    /// Of another ceremony.
    OtherCeremony,
    /// Of an earlier or later attempt.
    OtherAttempt,
    /// Meant for another participant.
    NotForMe,
    /// A chunk that is not wanted (any more).
    NotWanted,
    /// A request for something this member does not have.
    NotHere,
    /// This member is done with the attempt.
    Done,
}

/// Why a message counts against its bringer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Not a message.
    #[error(transparent)]
    Malformed(#[from] CodecError),
    /// Names a sender outside the committee.
    #[error("participant {0} is not in the committee")]
    Stranger(ParticipantIndex),
    /// The signature is not the sender's.
    #[error("the signature of participant {0} does not verify")]
    Signature(ParticipantIndex),
    /// A payload that does not belong to the round, or a recipient where there is none.
    #[error("the {0} message has the wrong form")]
    Form(Round),
    /// Two messages signed for one round: evidence is kept and the attempt aborted.
    #[error("participant {sender} signed two different {round} messages")]
    Equivocation {
        /// Who.
        sender: ParticipantIndex,
        /// In which round.
        round: Round,
    },
    /// Bytes that do not match the signed root.
    #[error("chunk {index} of participant {sender} does not match its root")]
    Chunk {
        /// Whose stream.
        sender: ParticipantIndex,
        /// Which chunk.
        index: u32,
    },
}

/// What became of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum Verdict {
    /// Taken.
    Valid,
    /// Ignored; nobody's fault.
    Skip(Skip),
    /// Refused; its bringer, or the signer it names, misbehaves.
    Fault(Fault),
}

/// What a restart needs.
#[derive(Clone)]
pub enum Record {
    /// A message taken or sent, in order.
    Message(Box<SignedMessage>),
    /// The key set, before FINISH.
    KeySet(Arc<CompressedXofKeySet>),
    /// The key share, before FINISH; secret, to be encrypted by the keeper.
    KeyShare(Arc<KeyShare>),
}

impl core::fmt::Debug for Record {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Message(message) => write!(f, "Message({:?})", message.header),
            Self::KeySet(_) => f.write_str("KeySet"),
            Self::KeyShare(_) => f.write_str("KeyShare(<redacted>)"),
        }
    }
}

/// What the driver carries out.
#[derive(Clone, Debug)]
pub enum Effect {
    /// To be durable before any later effect.
    Persist(Record),
    /// To one participant.
    Send(ParticipantIndex, Arc<[u8]>),
    /// To all other participants.
    Broadcast(Arc<[u8]>),
    /// Destroy the persisted seed: FINISH is signed.
    EraseSeed,
    /// Destroy the persisted key share: FINISH was signed, but the attempt made no key.
    EraseKeyShare,
    /// Bring to the commit point.
    Publish(Box<FinishCertificate>),
    /// The attempt succeeded.
    Complete(Box<Outcome>),
    /// The attempt failed.
    Abort(Box<AbortReport>),
}

/// A finished attempt.
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
    /// Why.
    pub reason: AbortReason,
    /// At which stage.
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

/// Records that cannot be resumed from.
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
