//! What goes into and comes out of the agreement machine besides messages.

use veil_protocol_spec::{
    Blake3Digest, CodecError, ParticipantIndex, Slot,
    agreement::Equivocation,
    decryption::{LockError, ManifestLock},
    scheduling::{BindingMismatch, Manifest, ManifestError},
};

/// What only agreement asks of its host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AgreementEffect {
    /// It is this member's turn: call [`Agreement::propose`](super::machine::Agreement::propose) before the
    /// round's time is over.
    GetValue {
        /// The slot to propose for.
        slot: Slot,
        /// The round to propose in.
        round: u32,
    },
    /// Validate a manifest and call [`Agreement::validated`](super::machine::Agreement::validated).
    /// Its structure, slot and binding are checked already.
    Validate {
        /// The slot it is for.
        slot: Slot,
        /// The round in which it was proposed.
        round: u32,
        /// The member that proposed it.
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
        /// The manifest that the votes are for.
        manifest: Box<Manifest>,
    },
    /// A member signed two different messages for one place.
    Equivocated {
        /// The member.
        culprit: ParticipantIndex,
        /// The proof.
        evidence: Box<Equivocation>,
    },
    /// t+1 members are in a later slot, so an honest one is: catch up on certificates and start it.
    Behind {
        /// The earliest slot that all of them have reached.
        slot: Slot,
    },
    /// This member casts no more votes in this slot, since its records do not say for certain what
    /// it voted; it waits for the others' decision.
    Abstained {
        /// The slot in which it abstains.
        slot: Slot,
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
    /// The encoding is of another manifest than the one that is signed.
    #[error("the manifest beside the message is not the one that the message names")]
    OtherManifest,
    /// The same message was accepted before.
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
    Abstained(Slot),
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
    /// It signed a proposal of an invalid manifest.
    #[error("it proposed an invalid manifest: {0}")]
    Manifest(ManifestError),
    /// It signed a proposal of a manifest for something else.
    #[error("it proposed a manifest of another {0}")]
    Elsewhere(&'static str),
}

/// What the host says of a manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Validity {
    /// This member may vote for it.
    Valid,
    /// This member votes for none in this round.
    Invalid,
}

/// Why a slot is not started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the messages name the fields")]
pub enum StartError {
    /// Slots count from 1.
    #[error("slot 0 is before the first slot")]
    SlotZero,
    /// Slots only go forward: votes of this one may have left already.
    #[error("slot {slot} is not after slot {last}, which was started here before")]
    NotAfter { slot: Slot, last: Slot },
}

/// Why a manifest is not proposed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the messages name the fields")]
pub enum ProposeError {
    /// Another slot or round, decided, or proposed already.
    #[error("it is not this member's turn to propose in round {round} of slot {slot} any more")]
    NotNow { slot: Slot, round: u32 },
    /// The bytes are not a valid manifest.
    #[error("the manifest is invalid: {0}")]
    Manifest(#[from] ManifestError),
    /// Of another slot, cluster or proposer.
    #[error("the manifest is of another {0}")]
    Elsewhere(&'static str),
}

/// Where the slot stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgreementStatus {
    /// The slot.
    pub slot: Slot,
    /// The round.
    pub round: u32,
    /// The member that proposes in it.
    pub proposer: ParticipantIndex,
    /// Digest of the locked manifest.
    pub locked: Option<Blake3Digest>,
    /// Members whose precommit of this round is not here.
    pub outstanding: Vec<ParticipantIndex>,
    /// Whether this member abstains.
    pub abstained: bool,
}
