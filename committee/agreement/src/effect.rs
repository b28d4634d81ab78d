//! What goes into and comes out of the agreement machine besides messages.

use veil_protocol_spec::{
    Blake3Digest, CodecError, ParticipantIndex,
    agreement::{Equivocation, Instance, Lock, LockError},
    scheduling::BindingMismatch,
};

use super::value::{Value, ValueError};

/// What only agreement asks of its host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AgreementEffect {
    /// It is this member's turn: call [`Agreement::propose`](super::machine::Agreement::propose) before the
    /// round's time is over.
    GetValue {
        /// The instance to propose for.
        instance: Instance,
        /// The round to propose in.
        round: u32,
    },
    /// Validate a value and call [`Agreement::validated`](super::machine::Agreement::validated).
    /// Its structure, slot and binding are checked already. The end of a slot need not be answered,
    /// or may be whenever its validity comes to be known; it comes again with every proposal of it
    /// while it is not valid.
    Validate {
        /// The instance it is for.
        instance: Instance,
        /// The round in which it was proposed.
        round: u32,
        /// The member that proposed it.
        proposer: ParticipantIndex,
        /// Its digest.
        digest: Blake3Digest,
        /// The value.
        value: Value,
        /// 2t+1 members have voted for the manifest although this one refused it, or all members have
        /// had their turn to propose in vain: refuse it only for what every member sees alike (the
        /// chain, the previous certificate), not for what this one happened to receive. Members that
        /// insist on different telemetry never agree. Never with the end of a slot.
        by_quorum: bool,
    },
    /// The instance is decided; nothing else follows in it.
    Decided {
        /// 2t+1 members' votes.
        lock: Box<Lock>,
        /// The value that the votes are for.
        value: Value,
    },
    /// A member signed two different messages for one place.
    Equivocated {
        /// The member.
        culprit: ParticipantIndex,
        /// The proof.
        evidence: Box<Equivocation>,
    },
    /// t+1 members are in a later instance, so an honest one is: catch up, on certificates if that
    /// is of a later slot, and start it.
    Behind {
        /// The earliest instance that all of them have reached.
        instance: Instance,
    },
    /// This member casts no more votes in this instance, since its records do not say for certain what
    /// it voted; it waits for the others' decision.
    Abstained {
        /// The instance in which it abstains.
        instance: Instance,
        /// What its records lack or contradict.
        reason: String,
    },
}

/// Why a message was left aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Skip {
    /// Too long, of another version, or no agreement message.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// Brought or signed by somebody outside this committee.
    #[error("participant {0} is not of this committee")]
    NotAMember(ParticipantIndex),
    /// This member's own message came back.
    #[error("the message is this member's own")]
    Own,
    /// Not signed by the member it names.
    #[error("the message's signature does not verify")]
    BadSignature,
    /// The votes prove nothing.
    #[error("the votes are no proof: they must be of distinct members, of one place, and enough")]
    NoProof,
    /// The lock is for something else.
    #[error(transparent)]
    Binding(#[from] BindingMismatch),
    /// The votes do not make a lock.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The encoding is of another value than the one that is signed.
    #[error("the value beside the message is not the one that the message names")]
    OtherValue,
    /// The same message was accepted before.
    #[error("the message is a repetition")]
    Duplicate,
    /// Of an instance before this one, and not asking for its decision.
    #[error("{0} is past")]
    Past(Instance),
    /// Of a later instance; kept until that starts.
    #[error("{0} is not under way here yet")]
    Ahead(Instance),
    /// The instance is decided here.
    #[error("{0} is decided")]
    Decided(Instance),
    /// Only a decision counts.
    #[error("this member abstains from {0} and waits for the decision")]
    Abstained(Instance),
    /// Too far ahead in the instance.
    #[error("round {0} is too far ahead")]
    FarRound(u32),
    /// A round has one proposal.
    #[error("round {0} has had its proposals")]
    TooManyProposals(u32),
    /// A bound on answers to one member.
    #[error("refused: this member was answered a moment ago")]
    TooOften,
}

/// A member and what it did.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("participant {culprit}: {kind}")]
pub struct Fault {
    /// The member.
    pub culprit: ParticipantIndex,
    /// What it did.
    pub kind: FaultKind,
}

/// What a member did.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FaultKind {
    /// Two different messages for one place; [`Equivocation::convict`] convinces third parties.
    #[error("it signed two different messages for one place")]
    Equivocation(Box<Equivocation>),
    /// It signed a proposal of what is no value of the instance.
    #[error("it proposed no value of the instance: {0}")]
    Value(ValueError),
}

/// What the host says of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Validity {
    /// This member may vote for it.
    Valid,
    /// This member votes for none in this round. Of the end of a slot that is all: it may be valid
    /// in the next one.
    Invalid,
}

/// Why an instance is not started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the messages name the fields")]
pub enum StartError {
    /// Slots count from 1.
    #[error("slot 0 is before the first slot")]
    SlotZero,
    /// Instances only go forward: votes of this one may have left already.
    #[error("{instance} is not after {last}, which was started here before")]
    NotAfter { instance: Instance, last: Instance },
}

/// Why a value is not proposed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the messages name the fields")]
pub enum ProposeError {
    /// Another instance or round, decided, or proposed already.
    #[error("it is not this member's turn to propose {instance} in round {round} any more")]
    NotNow { instance: Instance, round: u32 },
    /// The bytes are no value of the instance.
    #[error(transparent)]
    Value(#[from] ValueError),
    /// A manifest names the member that wrote it.
    #[error("the manifest is by participant {0}, not by this member")]
    OtherProposer(ParticipantIndex),
}

/// Where the instance stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgreementStatus {
    /// The instance.
    pub instance: Instance,
    /// The round.
    pub round: u32,
    /// The member that proposes in it.
    pub proposer: ParticipantIndex,
    /// Digest of the value, once it is decided.
    pub decided: Option<Blake3Digest>,
    /// Members whose precommit of this round is not here.
    pub outstanding: Vec<ParticipantIndex>,
    /// Whether this member abstains.
    pub abstained: bool,
}
