//! What goes into and comes out of the agreement machine besides messages.

use veil_protocol_spec::{
    Blake3Digest, CodecError, ParticipantIndex, Slot,
    agreement::Equivocation,
    decryption::{LockError, ManifestLock},
    scheduling::{BindingMismatch, Manifest, ManifestError},
};

use super::record::Record;

/// Milliseconds of the driver's clock; any origin, never backwards.
pub type Millis = u64;

/// Number of an [`Effect::Persist`] within its machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PersistId(pub u64);

/// What the driver is to do, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Store durably, then call [`Agreement::persisted`](super::Agreement::persisted). Nothing that
    /// follows from it is given out before. If it cannot be stored, drop the machine: this member
    /// is silent from then on, which harms nobody.
    Persist {
        /// What to acknowledge with.
        id: PersistId,
        /// What to store.
        record: Box<Record>,
    },
    /// Deliver to every other member.
    Broadcast(Vec<u8>),
    /// Deliver to one member.
    Send {
        /// To whom.
        to: ParticipantIndex,
        /// What.
        bytes: Vec<u8>,
    },
    /// It is this member's turn: call [`Agreement::propose`](super::Agreement::propose) before the
    /// round's time is over.
    NeedProposal {
        /// For which slot.
        slot: Slot,
        /// In which round.
        round: u32,
    },
    /// Check a manifest and call [`Agreement::validated`](super::Agreement::validated). Its
    /// structure, slot and binding are checked.
    Validate {
        /// For which slot.
        slot: Slot,
        /// In which round it was proposed.
        round: u32,
        /// By whom.
        proposer: ParticipantIndex,
        /// Its digest.
        digest: Blake3Digest,
        /// The manifest.
        manifest: Box<Manifest>,
        /// 2t+1 members have voted for it although this one refused it: refuse it again only for
        /// what every member sees alike (the chain, the previous certificate), not for what this
        /// one happened to receive. Members that insist on different telemetry never agree.
        by_quorum: bool,
    },
    /// The slot is decided; nothing else follows in it.
    Locked {
        /// 2t+1 members' votes.
        lock: Box<ManifestLock>,
        /// What they are for.
        manifest: Box<Manifest>,
    },
    /// A member said two things in one place.
    Equivocated {
        /// Who.
        member: ParticipantIndex,
        /// The proof.
        evidence: Box<Equivocation>,
    },
    /// t+1 members are in a later slot, so an honest one is: catch up on certificates and start it.
    Wanted {
        /// The earliest slot that all of them have reached.
        slot: Slot,
    },
    /// This member casts no more votes in this slot, since its records do not say for certain what
    /// it voted; it waits for the others' decision.
    Abstaining {
        /// In which slot.
        slot: Slot,
        /// Why.
        reason: String,
    },
}

/// What became of a message.
#[must_use]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Taken up.
    Valid,
    /// Left aside; nobody is to blame, or nobody can be proved to be.
    Skip(Skip),
    /// Punishable, and provably so.
    Fault(Box<Fault>),
}

/// Why a message was left aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Skip {
    /// Too long, of another version, or no agreement message.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// Brought or signed by nobody of this committee.
    #[error("participant {0} is not of this committee")]
    Stranger(ParticipantIndex),
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
    /// No lock.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The encoding is of another manifest than the one that is signed.
    #[error("the manifest beside the message is not the one that the message names")]
    OtherManifest,
    /// Taken up before.
    #[error("the message is a repetition")]
    Duplicate,
    /// Of a slot before this one, and not asking for its outcome.
    #[error("slot {0} is over")]
    Past(Slot),
    /// Of a later slot; kept until that starts.
    #[error("slot {0} has not started here yet")]
    Ahead(Slot),
    /// The slot is decided here.
    #[error("slot {0} is decided")]
    Decided(Slot),
    /// Only a decision counts.
    #[error("this member abstains in slot {0} and waits for its decision")]
    Abstaining(Slot),
    /// Too far ahead in the slot.
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
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Who.
    pub culprit: ParticipantIndex,
    /// What.
    pub kind: FaultKind,
}

/// What a member did.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FaultKind {
    /// Two words in one place; [`Equivocation::convict`] convinces third parties.
    #[error("it said two things in one place")]
    Equivocation(Box<Equivocation>),
    /// It signed a proposal of something that is no sound manifest.
    #[error("it proposed an unsound manifest: {0}")]
    Manifest(ManifestError),
    /// It signed a proposal of a manifest for something else.
    #[error("it proposed a manifest of another {0}")]
    Elsewhere(&'static str),
}

/// What the owner says of a manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// Sound: this member may vote for it.
    Sound,
    /// Refused: this member votes for none in this round.
    Refused,
}

/// Why a slot is not started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StartError {
    /// Slots count from 1.
    #[error("slot 0 is before the first slot")]
    SlotZero,
    /// Slots only go forward: votes of this one may have left already.
    #[error("slot {slot} is not after slot {last}, which was started here before")]
    NotAfter {
        /// The slot asked for.
        slot: Slot,
        /// The last one started.
        last: Slot,
    },
}

/// Why a manifest is not proposed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// Another slot or round, decided, or proposed already.
    #[error("it is not this member's turn to propose in round {round} of slot {slot} any more")]
    NotNow {
        /// The slot asked for.
        slot: Slot,
        /// The round asked for.
        round: u32,
    },
    /// The bytes are no sound manifest.
    #[error("the manifest is not sound: {0}")]
    Manifest(#[from] ManifestError),
    /// Of another slot, cluster or proposer.
    #[error("the manifest is of another {0}")]
    Elsewhere(&'static str),
}

/// The configuration does not fit together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SetupError {
    /// Roster and committee differ in size.
    #[error("the roster has {found} identities: a committee of {expected} needs as many")]
    Roster {
        /// Given.
        found: usize,
        /// Needed.
        expected: usize,
    },
    /// The identity is not in the roster.
    #[error("this identity is not in the committee's roster: check the keystore and the epoch")]
    NotAMember,
}

/// Where the slot stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgreementStatus {
    /// The slot.
    pub slot: Slot,
    /// The round.
    pub round: u32,
    /// Who proposes in it.
    pub proposer: ParticipantIndex,
    /// Digest of the locked manifest.
    pub locked: Option<Blake3Digest>,
    /// Whose precommit of this round is not here.
    pub outstanding: Vec<ParticipantIndex>,
    /// Whether this member abstains.
    pub abstaining: bool,
}
