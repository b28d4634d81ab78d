//! What goes into and comes out of the slot's machine.

use veil_committee_machine::Millis;
use veil_protocol_spec::{
    Blake3Digest, ParticipantIndex, Slot,
    agreement::{Instance, SlotEnd},
    evidence::Proof,
    scheduling::{CertificateBody, Manifest, ReferenceStringOrigin, SlotRecord},
    sync::LockedManifest,
};
use veil_scheduler_plan::inputs::PublicInputs;

use crate::manifest::LocalView;

/// What a member must know to take part.
#[derive(Clone, Copy, Debug)]
pub struct SlotConfig {
    /// This member.
    pub me: ParticipantIndex,
    /// What the proofs of the epoch's telemetry rest on.
    pub origin: ReferenceStringOrigin,
    /// How long it waits.
    pub timing: SlotTiming,
}

/// How long a member waits, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotTiming {
    /// For telemetry of workers that are there but silent.
    pub collect: Millis,
    /// Before what has failed is tried again.
    pub retry: Millis,
    /// From the lock until this member accepts that the slot ends void. Evaluating and opening, all steps of
    /// it, must fit into it on an honest member's machine.
    pub void_after: Millis,
}

impl Default for SlotTiming {
    fn default() -> Self {
        Self { collect: 20_000, retry: 2_000, void_after: 600_000 }
    }
}

/// What a member sees when something may have changed.
#[derive(Clone, Copy)]
#[allow(missing_debug_implementations, reason = "a view is borrowed from all over the member")]
pub struct Observation<'a> {
    /// What it knows.
    pub view: &'a LocalView<'a>,
    /// Whether a worker that is there has sent no telemetry that counts.
    pub silent: bool,
    /// Between two tries to place the same replicas among the same workers, in milliseconds; it
    /// doubles with each of them.
    pub interval: Millis,
}

/// One step of a manifest's evaluation, as far as the slot is concerned with it: the ciphertexts stay with the host.
#[derive(Clone, Debug)]
pub struct Evaluated {
    /// What evaluators compare.
    pub digest: Blake3Digest,
    /// What reading the opened digits needs.
    pub public: PublicInputs,
    /// How many digits there are to open. None: nothing more is asked, and the outcome follows from what was opened.
    pub outputs: usize,
}

/// What the slot asks of its host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SlotEffect {
    /// Call [`SlotMachine::observe`](super::SlotMachine::observe) with what is known now.
    Observe,
    /// Telemetry of workers that are there is awaited: say of whom. What comes is to be
    /// [observed](super::SlotMachine::observe).
    Collect,
    /// Get ready to sign in this slot: signing's first round trip needs no message to sign.
    Prepare(Slot),
    /// Start an instance of the agreement.
    Agree(Instance),
    /// Keep the manifest's inputs, then propose it in the MANIFEST instance of its slot, as the agreement asked.
    ProposeManifest {
        /// In this round.
        round: u32,
        /// What.
        manifest: Box<Manifest>,
    },
    /// Propose how a slot ends in its END instance, as the agreement asked.
    ProposeEnd {
        /// In this round.
        round: u32,
        /// How.
        end: SlotEnd,
    },
    /// Tell the agreement what this member says of a proposed end.
    Validated {
        /// Which.
        end: SlotEnd,
        /// Whether it may vote for it.
        valid: bool,
    },
    /// Tell the workers what is locked.
    Publish(Box<LockedManifest>),
    /// Evaluate the locked manifest; answer with
    /// [`SlotMachine::evaluated`](super::SlotMachine::evaluated).
    Evaluate {
        /// What.
        locked: Box<LockedManifest>,
        /// For the how-manieth time, from 0.
        step: u16,
        /// The digits of the steps before, which are public inputs of this one.
        opened: Vec<Vec<u8>>,
    },
    /// The slot needs no evaluation any more.
    Cancel(Slot),
    /// Open what this step has put out; answer with [`SlotMachine::opened`](super::SlotMachine::opened).
    Open {
        /// Under which lock.
        locked: Box<LockedManifest>,
        /// Of which step.
        step: u16,
        /// What was evaluated and opened before ([`opened_digest`](veil_protocol_spec::slot::opened_digest)).
        before: Blake3Digest,
    },
    /// Tell auditors what this member has evaluated, all steps of it.
    State {
        /// Under which lock.
        locked: Box<LockedManifest>,
        /// [`evaluation_digest`](veil_protocol_spec::slot::evaluation_digest) of the steps.
        evaluation: Blake3Digest,
    },
    /// Have the group sign; answer with [`SlotMachine::signed`](super::SlotMachine::signed). One
    /// message per key and slot: it follows from the decided end, which is stored by now.
    Sign {
        /// The message.
        body: Box<CertificateBody>,
        /// Members that are known to be ready to sign it.
        ready: Vec<ParticipantIndex>,
    },
    /// The slot is certified: store the record and tell everybody.
    Finish(Box<SlotRecord>),
    /// A slot has its certificate, whoever brought it: what is kept of those before it is not needed any more.
    Certified {
        /// Which.
        slot: Slot,
        /// Whether it ended void.
        void: bool,
    },
    /// Judge what shows that somebody broke the protocol, store it and serve it.
    Report(Box<Proof>),
    /// The others are ahead: fetch the certificates up to before this slot.
    CatchUp(Slot),
}

/// What a member is doing in a slot, for its operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SlotStage {
    /// Nothing is to be placed.
    Ready,
    /// What has no place is tried again later.
    BackingOff,
    /// Telemetry is awaited.
    Collecting,
    /// The members agree on the manifest.
    AgreeingOnManifest,
    /// The manifest is being evaluated.
    Evaluating,
    /// The outcome is being opened.
    Opening,
    /// The members agree on how the slot ends.
    AgreeingOnEnd,
    /// The certificate is being signed.
    Signing,
}

impl SlotStage {
    /// In words.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::BackingOff => "some replicas have no place; trying again later",
            Self::Collecting => "collecting telemetry",
            Self::AgreeingOnManifest => "agreeing on the manifest",
            Self::Evaluating => "evaluating",
            Self::Opening => "decrypting",
            Self::AgreeingOnEnd => "agreeing on the slot's end",
            Self::Signing => "signing",
        }
    }
}
