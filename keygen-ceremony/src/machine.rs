//! One participant of one attempt of the key ceremony, as a machine without I/O.
//!
//! Source: `ceremony.md`; each step is quoted where it is done.
//!
//! # Inputs
//! - [`Ceremony::handle`]: bytes from a peer whose index the transport has authenticated;
//! - [`Ceremony::handle_timeout`]: the time has come that [`Ceremony::poll_timeout`] named;
//! - [`Ceremony::work`]: do a bounded piece of computation; call it while it returns `true`;
//! - [`Ceremony::handle_commit_point`]: what the chain (or whatever stands for it) decided.
//!
//! `now` is milliseconds on any monotonic clock. There is no clock, no socket and no entropy inside:
//! everything drawn comes from the [`CeremonySeed`].
//!
//! # Effects
//! [`Ceremony::poll_effect`] after every input, in order: a [`Effect::Persist`] is complete before
//! any later effect is carried out.
//!
//! # Restart
//! [`Ceremony::resume`] takes the persisted records and replays them; the member sends the same
//! bytes again. After FINISH the seed is gone and the records alone are enough.
//!
//! # State
//! [`Stage`] names what the member waits for or computes. Every wait has a deadline; whatever goes
//! wrong before this member signed FINISH ends in ABORT with a reason and the evidence kept. After
//! FINISH only the commit point decides: "a key is valid only with the FINISH signatures of all n
//! members over one root", published before the attempt's deadline.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use rand::SeedableRng;
use rand_chacha::ChaCha20Rng;
use tfhe::xof_key_set::CompressedXofKeySet;
use veil_committee::{
    frost::{
        EvmSuite,
        dkg::{Dkg, Packages, Round1Secret, Round2Secret},
        keys::GroupKeyShare,
    },
    key_share::KeyShare,
    prf::SetKey,
};
use veil_protocol_spec::{
    Blake3Digest, CodecError, KeySetDigest, ParticipantIndex, Wire,
    ceremony::{
        AbortReason, Bytes, CeremonyMessage, ChunkId, Commit, Confirm, Deal, DealPlaintext, Echo,
        Finish, Header, Payload, Prove, Round, SignedMessage, Stream, StreamRoot,
    },
    identity::SecretIdentity,
};
use zeroize::Zeroizing;

use crate::{
    channel::ChannelKey,
    contributions::{Slot, SplitKeys, slots_of},
    engine::{Engine, engine},
    keyset::{Bodies, assemble, keyset_digest},
    proof,
    seed::CeremonySeed,
    setup::Setup,
    store::{ChunkStore, StoreError},
    transcript::{FinishCertificate, transcript_root},
};

/// Milliseconds on a monotonic clock.
pub type Millis = u64;

/// Chunks of each member that are requested ahead.
const WINDOW: u32 = 4;

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
    /// FINISH was signed but the key share is not among the records.
    #[error(
        "FINISH was signed but the key share is missing from the records; restore it from backup"
    )]
    NoKeyShare,
}

/// Messages by round and sender.
type Messages = BTreeMap<Round, BTreeMap<ParticipantIndex, SignedMessage>>;

enum Frost {
    None,
    Round1(Box<Round1Secret<EvmSuite>>),
    Round2(Box<Round2Secret<EvmSuite>>),
}

/// One participant of one attempt; see the module.
pub struct Ceremony {
    setup: Arc<Setup>,
    identity: SecretIdentity,
    seed: Option<CeremonySeed>,
    store: Box<dyn ChunkStore>,
    messages: Messages,
    /// Own deals, by recipient.
    deals: BTreeMap<ParticipantIndex, SignedMessage>,
    /// Own messages of a former run, to compare with.
    replayed: Vec<SignedMessage>,
    /// A message that came out differently than before the restart.
    diverged: Option<Round>,
    stage: Stage,
    deadline: Option<Millis>,
    next_retry: Option<Millis>,
    effects: VecDeque<Effect>,
    evidence: Vec<SignedMessage>,
    slots: Vec<Slot>,
    channel: Option<ChannelKey>,
    frost: Frost,
    group: Option<Arc<GroupKeyShare<EvmSuite>>>,
    keys: Option<SplitKeys>,
    slot_keys: Vec<(Slot, SetKey)>,
    engine: Option<Box<dyn Engine>>,
    /// Digests of own chunks made so far.
    produced: Vec<Blake3Digest>,
    /// Chunks of the stage that have arrived, by index and participant.
    arrived: BTreeMap<u32, BTreeMap<ParticipantIndex, Vec<u8>>>,
    requested: u32,
    bodies: Option<Bodies>,
    key_set: Option<Arc<CompressedXofKeySet>>,
    key_share: Option<Arc<KeyShare>>,
}

impl core::fmt::Debug for Ceremony {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Ceremony(participant {}, {:?}, <redacted>)", self.setup.me, self.stage)
    }
}

impl Ceremony {
    /// Starts an attempt. The seed has been persisted before.
    #[must_use]
    pub fn new(
        setup: Arc<Setup>,
        identity: SecretIdentity,
        seed: CeremonySeed,
        store: Box<dyn ChunkStore>,
        now: Millis,
    ) -> Self {
        let mut machine = Self::idle(setup, identity, Some(seed), store);
        machine.start(now);
        machine
    }

    /// Goes on after a restart, from the records of the former run.
    ///
    /// # Errors
    /// [`ResumeError`] if they do not allow it; nothing was sent then.
    pub fn resume(
        setup: Arc<Setup>,
        identity: SecretIdentity,
        seed: Option<CeremonySeed>,
        store: Box<dyn ChunkStore>,
        records: Vec<Record>,
        now: Millis,
    ) -> Result<Self, ResumeError> {
        let mut machine = Self::idle(setup, identity, seed, store);
        let me = machine.setup.me;
        let mut own = Vec::new();
        for record in records {
            match record {
                Record::Message(message) if message.header.sender == me => own.push(*message),
                Record::Message(message) => {
                    let header = message.header;
                    machine
                        .messages
                        .entry(header.round)
                        .or_default()
                        .insert(header.sender, *message);
                }
                Record::KeySet(key_set) => machine.key_set = Some(key_set),
                Record::KeyShare(key_share) => machine.key_share = Some(key_share),
            }
        }
        let decided = own.iter().any(|m| matches!(m.header.round, Round::Finish | Round::Abort));
        if !decided {
            if machine.seed.is_none() {
                return Err(ResumeError::NoSeed);
            }
            machine.replayed = own;
            machine.start(now);
            if let Some(round) = machine.diverged {
                return Err(ResumeError::Diverged(round));
            }
            let aborted = machine.messages.get(&Round::Abort).and_then(|by| by.keys().next());
            if let Some(by) = aborted.copied() {
                machine.abort(AbortReason::PeerAborted { by });
            }
            return Ok(machine);
        }
        let mut finished = false;
        for message in own {
            let header = message.header;
            finished |= header.round == Round::Finish;
            if let Some(recipient) = header.recipient {
                machine.deals.insert(recipient, message);
            } else {
                machine.messages.entry(header.round).or_default().insert(me, message);
            }
        }
        machine.seed = None;
        if !finished {
            machine.stage = Stage::Aborted;
        } else if machine.key_share.is_none() {
            return Err(ResumeError::NoKeyShare);
        } else {
            machine.effects.push_back(Effect::EraseSeed);
            machine.enter(Stage::Collect(Round::Finish), now);
            if let Some(finish) = machine.message(Round::Finish, me).cloned() {
                machine.broadcast(&finish);
            }
            machine.advance(now);
        }
        Ok(machine)
    }

    fn idle(
        setup: Arc<Setup>,
        identity: SecretIdentity,
        seed: Option<CeremonySeed>,
        store: Box<dyn ChunkStore>,
    ) -> Self {
        Self {
            slots: slots_of(setup.committee(), setup.me),
            setup,
            identity,
            seed,
            store,
            messages: BTreeMap::new(),
            deals: BTreeMap::new(),
            replayed: Vec::new(),
            diverged: None,
            stage: Stage::Collect(Round::Commit),
            deadline: None,
            next_retry: None,
            effects: VecDeque::new(),
            evidence: Vec::new(),
            channel: None,
            frost: Frost::None,
            group: None,
            keys: None,
            slot_keys: Vec::new(),
            engine: None,
            produced: Vec::new(),
            arrived: BTreeMap::new(),
            requested: 0,
            bodies: None,
            key_set: None,
            key_share: None,
        }
    }

    /// What this member waits for or does.
    #[must_use]
    pub const fn stage(&self) -> Stage {
        self.stage
    }

    /// The participant.
    #[must_use]
    pub fn participant(&self) -> ParticipantIndex {
        self.setup.me
    }

    /// The key share, once FINISH is signed. It is worth nothing before [`Effect::Complete`].
    #[must_use]
    pub fn key_share(&self) -> Option<&Arc<KeyShare>> {
        self.key_share.as_ref()
    }

    /// The key set, once assembled.
    #[must_use]
    pub fn key_set(&self) -> Option<&Arc<CompressedXofKeySet>> {
        self.key_set.as_ref()
    }

    /// Every broadcast message taken or sent, for the transcript.
    pub fn broadcasts(&self) -> impl Iterator<Item = &SignedMessage> {
        self.messages.values().flat_map(BTreeMap::values).filter(|m| m.header.recipient.is_none())
    }

    /// How far this member is.
    #[must_use]
    pub fn progress(&self) -> Progress {
        let others = |have: &dyn Fn(ParticipantIndex) -> bool| {
            self.setup.others().filter(|j| !have(*j)).collect::<Vec<_>>()
        };
        let (done, total, outstanding) = match self.stage {
            Stage::Collect(round) => {
                let outstanding = others(&|j| self.message(round, j).is_some());
                let n = self.setup.committee().n() as u32;
                (n - outstanding.len() as u32, n, outstanding)
            }
            Stage::Produce(stream, next) => (next, self.setup.chunks(stream), Vec::new()),
            Stage::Open(stream, next) => {
                let here = self.arrived.get(&next);
                let outstanding = others(&|j| here.is_some_and(|chunks| chunks.contains_key(&j)));
                (next, self.setup.chunks(stream), outstanding)
            }
            _ => (0, 1, Vec::new()),
        };
        Progress { stage: self.stage, done, total, outstanding }
    }

    /// The next effect to carry out.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// When [`Self::handle_timeout`] should be called next.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Millis> {
        self.deadline.into_iter().chain(self.next_retry).min()
    }

    /// Takes bytes from an authenticated peer.
    pub fn handle(&mut self, from: ParticipantIndex, bytes: &[u8], now: Millis) -> Verdict {
        match CeremonyMessage::from_wire(bytes) {
            Err(error) => Verdict::Fault(error.into()),
            Ok(CeremonyMessage::Signed(message)) => self.handle_signed(*message, now),
            Ok(CeremonyMessage::Request { ceremony, attempt, round, sender }) => {
                match self.setup.check(&ceremony, attempt) {
                    Err(skip) => Verdict::Skip(skip),
                    Ok(()) => self.answer(from, round, sender),
                }
            }
            Ok(CeremonyMessage::ChunkRequest(id)) => {
                match self.setup.check(&id.ceremony, id.attempt) {
                    Err(skip) => Verdict::Skip(skip),
                    Ok(()) => self.answer_chunk(from, id),
                }
            }
            Ok(CeremonyMessage::Chunk { id, bytes }) => {
                match self.setup.check(&id.ceremony, id.attempt) {
                    Err(skip) => Verdict::Skip(skip),
                    Ok(()) => self.handle_chunk(id, bytes.0, now),
                }
            }
        }
    }

    /// The time of [`Self::poll_timeout`] has come.
    pub fn handle_timeout(&mut self, now: Millis) {
        if self.deadline.is_some_and(|deadline| now >= deadline) {
            let missing = self.progress().outstanding;
            let reason = match self.stage {
                Stage::Collect(round) => AbortReason::Silent { round, missing },
                Stage::Open(stream, index) => AbortReason::Starved { stream, index, missing },
                _ => return,
            };
            self.abort(reason);
        } else if self.next_retry.is_some_and(|retry| now >= retry) {
            self.next_retry = Some(now + self.setup.timing.retry);
            self.ask_again();
        }
    }

    /// What the commit point decided. Before this member signed FINISH only expiry has an effect.
    pub fn handle_commit_point(&mut self, decision: CommitPoint) {
        let finished = self.message(Round::Finish, self.setup.me).is_some();
        match decision {
            _ if matches!(self.stage, Stage::Completed | Stage::Aborted) => {}
            CommitPoint::Published(certificate) => {
                let root = self.own_finish_root();
                if finished
                    && root == Some(certificate.root)
                    && certificate.verify(&self.setup.parameters).is_ok()
                {
                    self.complete(*certificate);
                }
            }
            CommitPoint::Expired if finished => self.fail(AbortReason::Expired),
            CommitPoint::Expired => self.abort(AbortReason::Expired),
        }
    }

    // ---- messages in -----------------------------------------------------------------------

    fn handle_signed(&mut self, message: SignedMessage, now: Millis) -> Verdict {
        let header = message.header;
        if let Err(skip) = self.setup.check(&header.ceremony, header.attempt) {
            return Verdict::Skip(skip);
        }
        let Some(identity) = self
            .setup
            .parameters
            .identity(header.sender)
            .filter(|_| self.setup.committee().contains(header.sender))
        else {
            return Verdict::Fault(Fault::Stranger(header.sender));
        };
        let is_deal = header.round == Round::Deal;
        if !message.payload.fits(header.round) || header.recipient.is_some() != is_deal {
            return Verdict::Fault(Fault::Form(header.round));
        }
        if header.sender == self.setup.me {
            return Verdict::Skip(Skip::Duplicate);
        }
        if header.recipient.is_some_and(|recipient| recipient != self.setup.me) {
            return Verdict::Skip(Skip::NotForMe);
        }
        let known = self.message(header.round, header.sender);
        if known == Some(&message) {
            return Verdict::Skip(Skip::Duplicate);
        }
        if message.verify(identity).is_err() {
            return Verdict::Fault(Fault::Signature(header.sender));
        }
        if let Some(first) = known.cloned() {
            let (sender, round) = (header.sender, header.round);
            if !matches!(self.stage, Stage::Completed | Stage::Aborted) {
                self.effects.push_back(Effect::Persist(Record::Message(Box::new(message.clone()))));
                self.evidence.extend([first, message]);
                self.abort(AbortReason::Equivocation { accused: sender, round });
            }
            return Verdict::Fault(Fault::Equivocation { sender, round });
        }
        if matches!(self.stage, Stage::Completed | Stage::Aborted) {
            return Verdict::Skip(Skip::Done);
        }
        self.effects.push_back(Effect::Persist(Record::Message(Box::new(message.clone()))));
        self.messages.entry(header.round).or_default().insert(header.sender, message);
        if header.round == Round::Abort {
            self.abort(AbortReason::PeerAborted { by: header.sender });
        } else {
            self.advance(now);
        }
        Verdict::Valid
    }

    fn answer(
        &mut self,
        from: ParticipantIndex,
        round: Round,
        sender: ParticipantIndex,
    ) -> Verdict {
        let found = if round == Round::Deal {
            self.deals.get(&from).filter(|_| sender == self.setup.me)
        } else {
            self.message(round, sender)
        };
        // Whoever aborted will not have it, and its ABORT may have been lost: silence would be blamed
        // on it.
        let found = found.or_else(|| self.message(Round::Abort, self.setup.me));
        let Some(message) = found.cloned() else {
            return Verdict::Skip(Skip::NotHere);
        };
        let bytes = CeremonyMessage::Signed(Box::new(message)).to_wire();
        self.effects.push_back(Effect::Send(from, bytes.into()));
        Verdict::Valid
    }

    fn answer_chunk(&mut self, from: ParticipantIndex, id: ChunkId) -> Verdict {
        match self.load_chunk(id.stream, id.sender, id.index) {
            Ok(Some(bytes)) => {
                let bytes = CeremonyMessage::Chunk { id, bytes: Bytes(bytes) }.to_wire();
                self.effects.push_back(Effect::Send(from, bytes.into()));
                Verdict::Valid
            }
            Ok(None) => Verdict::Skip(Skip::NotHere),
            Err(error) => {
                self.abort(AbortReason::Local { detail: error.to_string() });
                Verdict::Skip(Skip::NotHere)
            }
        }
    }

    fn handle_chunk(&mut self, id: ChunkId, bytes: Vec<u8>, now: Millis) -> Verdict {
        let wanted = match self.stage {
            Stage::Open(stream, next) => {
                stream == id.stream && (next..self.requested).contains(&id.index)
            }
            _ => false,
        };
        let here =
            self.arrived.get(&id.index).is_some_and(|chunks| chunks.contains_key(&id.sender));
        if !wanted || here || !self.setup.others().any(|j| j == id.sender) {
            return Verdict::Skip(Skip::NotWanted);
        }
        if !self.chunk_matches(id.stream, id.sender, id.index, &bytes) {
            return Verdict::Fault(Fault::Chunk { sender: id.sender, index: id.index });
        }
        if let Err(error) = self.store.put(id.stream, id.sender, id.index, &bytes) {
            self.abort(AbortReason::Local { detail: error.to_string() });
            return Verdict::Valid;
        }
        self.arrived.entry(id.index).or_default().insert(id.sender, bytes);
        self.deadline = Some(now + self.setup.timing.round);
        Verdict::Valid
    }

    // ---- messages out ----------------------------------------------------------------------

    /// Signs, persists and sends this member's message of a round.
    fn say(&mut self, round: Round, recipient: Option<ParticipantIndex>, payload: Payload) {
        let header = Header {
            ceremony: self.setup.id,
            attempt: self.setup.attempt,
            round,
            sender: self.setup.me,
            recipient,
        };
        let message = SignedMessage::sign(header, payload, &self.identity);
        let before = self
            .replayed
            .iter()
            .find(|m| m.header.round == round && m.header.recipient == recipient);
        match before {
            // Other bytes than were sent before the restart: sending them would be equivocation.
            Some(before) if *before != message => {
                self.diverged = Some(round);
                let detail = ResumeError::Diverged(round).to_string();
                return self.fail(AbortReason::Local { detail });
            }
            Some(_) => {}
            None => {
                let record = Record::Message(Box::new(message.clone()));
                self.effects.push_back(Effect::Persist(record));
            }
        }
        if let Some(recipient) = recipient {
            let bytes = CeremonyMessage::Signed(Box::new(message.clone())).to_wire();
            self.effects.push_back(Effect::Send(recipient, bytes.into()));
            self.deals.insert(recipient, message);
        } else {
            self.broadcast(&message);
            self.messages.entry(round).or_default().insert(self.setup.me, message);
        }
    }

    fn broadcast(&mut self, message: &SignedMessage) {
        let bytes = CeremonyMessage::Signed(Box::new(message.clone())).to_wire();
        self.effects.push_back(Effect::Broadcast(bytes.into()));
    }

    /// Asks everybody for what is missing: its sender first, but a relay may have it too.
    fn ask_again(&mut self) {
        let outstanding = self.progress().outstanding;
        match self.stage {
            Stage::Collect(round) => {
                for sender in outstanding {
                    let request = CeremonyMessage::Request {
                        ceremony: self.setup.id,
                        attempt: self.setup.attempt,
                        round,
                        sender,
                    };
                    let bytes: Arc<[u8]> = request.to_wire().into();
                    if round == Round::Deal {
                        self.effects.push_back(Effect::Send(sender, bytes));
                    } else {
                        self.effects.push_back(Effect::Broadcast(bytes));
                    }
                }
            }
            Stage::Open(stream, next) => {
                for index in next..self.requested {
                    for sender in self.setup.others().collect::<Vec<_>>() {
                        let here =
                            self.arrived.get(&index).is_some_and(|c| c.contains_key(&sender));
                        if !here {
                            let relay = self.relay_for(sender, index);
                            self.request_chunk(stream, sender, index, sender);
                            self.request_chunk(stream, sender, index, relay);
                        }
                    }
                }
            }
            _ => {}
        }
    }

    /// Somebody else who may have a chunk; changes with the chunk, so that load spreads.
    fn relay_for(&self, sender: ParticipantIndex, index: u32) -> ParticipantIndex {
        let others: Vec<_> = self.setup.others().filter(|j| *j != sender).collect();
        others.get(index as usize % others.len().max(1)).copied().unwrap_or(sender)
    }

    fn request_chunk(
        &mut self,
        stream: Stream,
        sender: ParticipantIndex,
        index: u32,
        to: ParticipantIndex,
    ) {
        let id =
            ChunkId { ceremony: self.setup.id, attempt: self.setup.attempt, stream, sender, index };
        let bytes = CeremonyMessage::ChunkRequest(id).to_wire();
        self.effects.push_back(Effect::Send(to, bytes.into()));
    }

    // ---- decisions -------------------------------------------------------------------------

    /// Signs ABORT, unless FINISH was signed: "a member signs either ABORT or FINISH(root), persisted
    /// before sending, never both".
    fn abort(&mut self, reason: AbortReason) {
        if matches!(self.stage, Stage::Completed | Stage::Aborted)
            || self.message(Round::Finish, self.setup.me).is_some()
        {
            return;
        }
        self.say(Round::Abort, None, Payload::Abort(reason.clone()));
        self.fail(reason);
    }

    fn fail(&mut self, reason: AbortReason) {
        let report = AbortReport {
            reason,
            stage: self.stage,
            evidence: core::mem::take(&mut self.evidence),
        };
        self.stage = Stage::Aborted;
        self.deadline = None;
        self.next_retry = None;
        self.erase_secrets();
        if self.key_share.take().is_some() && self.message(Round::Finish, self.setup.me).is_some() {
            self.effects.push_back(Effect::EraseKeyShare);
        }
        self.key_set = None;
        self.effects.push_back(Effect::Abort(Box::new(report)));
    }

    fn complete(&mut self, certificate: FinishCertificate) {
        let Some(key_share) = &self.key_share else { return };
        self.stage = Stage::Completed;
        self.deadline = None;
        self.next_retry = None;
        let outcome = Outcome { key_set: key_share.origin().key_set, certificate };
        self.effects.push_back(Effect::Complete(Box::new(outcome)));
    }

    /// Everything that, with the transcript, would recompute what must not be recomputed.
    fn erase_secrets(&mut self) {
        self.channel = None;
        self.frost = Frost::None;
        self.group = None;
        self.keys = None;
        self.slot_keys.clear();
        self.engine = None;
        self.bodies = None;
        self.arrived.clear();
    }

    // ---- steps -----------------------------------------------------------------------------

    fn enter(&mut self, stage: Stage, now: Millis) {
        self.stage = stage;
        let waits = match stage {
            // After FINISH there is no deadline of one's own: the commit point decides.
            Stage::Collect(round) => (round != Round::Finish, true),
            Stage::Open(..) => (true, true),
            _ => (false, false),
        };
        self.deadline = waits.0.then(|| now + self.setup.timing.round);
        self.next_retry = waits.1.then(|| now + self.setup.timing.retry);
    }

    /// Step 1: "each member broadcasts an ephemeral channel key, commitments to its contributions to
    /// every key set and noise group it is in, a commitment to its part of the public seed, and its
    /// FROST round-1 package".
    fn start(&mut self, now: Millis) {
        self.enter(Stage::Collect(Round::Commit), now);
        let Some(seed) = self.seed.clone() else { return };
        let (id, attempt, me) = (self.setup.id, self.setup.attempt, self.setup.me);
        let channel = ChannelKey::derive(&seed.derive(&id, attempt, "channel", b""));
        let context = self.setup.context();
        let contributions = self
            .slots
            .iter()
            .map(|slot| context.commitment(me, *slot, &context.contribution(&seed, *slot)))
            .collect();
        let mut rng = ChaCha20Rng::from_seed(seed.derive(&id, attempt, "frost", b""));
        let (frost, frost_round1) = match Dkg::start(self.setup.committee(), me, &mut rng) {
            Ok(started) => started,
            Err(error) => return self.fail(AbortReason::Local { detail: error.to_string() }),
        };
        let commit = Commit {
            channel_key: Bytes(channel.public().to_vec()),
            contributions,
            public_seed: context.public_seed_commitment(me, &self.setup.public_seed_part(&seed)),
            frost_round1: Bytes(frost_round1),
        };
        self.channel = Some(channel);
        self.frost = Frost::Round1(Box::new(frost));
        self.say(Round::Commit, None, Payload::Commit(commit));
        self.advance(now);
    }

    /// Goes through every step for which all messages are there. Computation is left to
    /// [`Self::work`].
    fn advance(&mut self, now: Millis) {
        while let Stage::Collect(round) = self.stage {
            if !self.complete_round(round) {
                return;
            }
            let result = match round {
                Round::Commit => self.after_commit(now),
                Round::CommitEcho => self.check_echo(round).and_then(|()| self.deal(now)),
                Round::Deal => self.after_deal(now),
                Round::Confirm => self.after_confirm(now),
                Round::ConfirmEcho => self.check_echo(round).map(|()| self.draw_bits(now)),
                Round::BitsRoot | Round::BodiesRoot => self.after_root(round, now),
                Round::BitsRootEcho => {
                    self.check_echo(round).map(|()| self.open(Stream::Bits, now))
                }
                Round::BodiesRootEcho => {
                    self.check_echo(round).map(|()| self.open(Stream::Bodies, now))
                }
                Round::Prove => self.after_prove(now),
                Round::Finish => {
                    self.after_finish();
                    return;
                }
                Round::Abort => return,
            };
            if let Err(reason) = result {
                return self.abort(reason);
            }
        }
    }

    fn message(&self, round: Round, sender: ParticipantIndex) -> Option<&SignedMessage> {
        self.messages.get(&round).and_then(|by_sender| by_sender.get(&sender))
    }

    fn complete_round(&self, round: Round) -> bool {
        let own_needed = round != Round::Deal;
        self.setup
            .committee()
            .participants()
            .filter(|j| own_needed || *j != self.setup.me)
            .all(|j| self.message(round, j).is_some())
    }

    /// The payloads of a complete round in order of participants.
    fn payloads<T>(
        &self,
        round: Round,
        pick: impl Fn(&Payload) -> Option<&T>,
    ) -> Vec<(ParticipantIndex, &T)> {
        self.messages
            .get(&round)
            .into_iter()
            .flatten()
            .filter_map(|(j, message)| pick(&message.payload).map(|payload| (*j, payload)))
            .collect()
    }

    fn commits(&self) -> Vec<(ParticipantIndex, &Commit)> {
        self.payloads(Round::Commit, |p| match p {
            Payload::Commit(commit) => Some(commit),
            _ => None,
        })
    }

    /// Steps 2, 5, 7, 9: "each member broadcasts the digests of the n messages it received".
    fn echo(&mut self, of: Round, echo: Round, now: Millis) {
        let digests =
            self.messages.get(&of).into_iter().flatten().map(|(_, m)| m.digest()).collect();
        self.say(echo, None, Payload::Echo(Echo { digests }));
        if self.stage != Stage::Aborted {
            self.enter(Stage::Collect(echo), now);
        }
    }

    fn check_echo(&self, round: Round) -> Result<(), AbortReason> {
        let Some(of) = round.echoes() else { return Ok(()) };
        let digests: Vec<_> = self
            .messages
            .get(&of)
            .into_iter()
            .flatten()
            .map(|(j, message)| (*j, message.digest()))
            .collect();
        let echoes = self.payloads(round, |p| match p {
            Payload::Echo(echo) => Some(echo),
            _ => None,
        });
        for (echoed_by, echo) in echoes {
            if echo.digests.len() != digests.len() {
                let detail = format!("{} digests", echo.digests.len());
                return Err(AbortReason::InvalidMessage { accused: echoed_by, round, detail });
            }
            for ((accused, mine), theirs) in digests.iter().zip(&echo.digests) {
                if mine != theirs {
                    let accused = *accused;
                    return Err(AbortReason::EchoMismatch { accused, round: of, echoed_by });
                }
            }
        }
        Ok(())
    }

    fn after_commit(&mut self, now: Millis) -> Result<(), AbortReason> {
        for (accused, commit) in self.commits() {
            let expected = slots_of(self.setup.committee(), accused).len();
            if commit.contributions.len() != expected {
                let given = commit.contributions.len();
                let detail = format!("{given} commitments instead of {expected}");
                return Err(AbortReason::InvalidMessage { accused, round: Round::Commit, detail });
            }
        }
        self.echo(Round::Commit, Round::CommitEcho, now);
        Ok(())
    }

    /// Step 3: "each member sends every other one, under its channel key, the contributions to all
    /// sets that contain both, and its FROST round-2 package".
    fn deal(&mut self, now: Millis) -> Result<(), AbortReason> {
        let Some(seed) = self.seed.clone() else { return Ok(()) };
        let Frost::Round1(frost) = core::mem::replace(&mut self.frost, Frost::None) else {
            return Ok(());
        };
        let packages: Packages = self
            .commits()
            .into_iter()
            .filter(|(j, _)| *j != self.setup.me)
            .map(|(j, commit)| (j, commit.frost_round1.0.clone()))
            .collect();
        let (frost, shares) = frost.receive(&packages).map_err(|error| AbortReason::Frost {
            accused: error.culprits(),
            detail: error.to_string(),
        })?;
        let mut sealed = Vec::new();
        for (recipient, commit) in self.commits() {
            if recipient == self.setup.me {
                continue;
            }
            let package = shares.get(&recipient).map(|p| p.to_vec()).unwrap_or_default();
            let bytes = self
                .setup
                .seal_deal(&seed, recipient, &commit.channel_key.0, package)
                .map_err(|error| AbortReason::InvalidMessage {
                    accused: recipient,
                    round: Round::Commit,
                    detail: error.to_string(),
                })?;
            sealed.push((recipient, bytes));
        }
        self.frost = Frost::Round2(Box::new(frost));
        for (recipient, bytes) in sealed {
            self.say(Round::Deal, Some(recipient), Payload::Deal(Deal { sealed: Bytes(bytes) }));
        }
        if self.stage != Stage::Aborted {
            self.enter(Stage::Collect(Round::Deal), now);
        }
        Ok(())
    }

    /// Step 4: "each member checks the contributions against their commitments, computes
    /// r_A = KDF(all contributions, ceremony id, attempt, A) for each of its sets, and broadcasts
    /// H(r_A), its part of the public seed and the FROST group key; or it complains, by ABORT".
    fn after_deal(&mut self, now: Millis) -> Result<(), AbortReason> {
        let context = self.setup.context();
        let (Some(seed), Some(channel)) = (self.seed.clone(), self.channel.take()) else {
            return Ok(());
        };
        let deals = self.payloads(Round::Deal, |p| match p {
            Payload::Deal(deal) => Some(deal),
            _ => None,
        });
        let mut dealt = BTreeMap::new();
        for (accused, deal) in deals {
            let invalid = |detail: String| AbortReason::InvalidMessage {
                accused,
                round: Round::Deal,
                detail,
            };
            let aad = self.setup.deal_data(accused, self.setup.me);
            let plaintext =
                channel.open(&deal.sealed.0, &aad).map_err(|error| invalid(error.to_string()))?;
            let plaintext =
                DealPlaintext::from_wire(&plaintext).map_err(|error| invalid(error.to_string()))?;
            dealt.insert(accused, plaintext);
        }
        let mut contributions: BTreeMap<(Slot, ParticipantIndex), Zeroizing<[u8; 32]>> =
            BTreeMap::new();
        for (sender, commit) in self.commits() {
            let Some(plaintext) = dealt.get(&sender) else { continue };
            let slots = slots_of(self.setup.committee(), sender);
            let common: Vec<_> = slots
                .into_iter()
                .zip(&commit.contributions)
                .filter(|(slot, _)| slot.members.contains(self.setup.me))
                .collect();
            if common.len() != plaintext.contributions.len() {
                return Err(AbortReason::WrongContribution { accused: sender });
            }
            for ((slot, commitment), contribution) in
                common.into_iter().zip(&plaintext.contributions)
            {
                if context.commitment(sender, slot, contribution) != *commitment {
                    return Err(AbortReason::WrongContribution { accused: sender });
                }
                contributions.insert((slot, sender), Zeroizing::new(*contribution));
            }
        }
        let slot_keys: Vec<(Slot, SetKey)> = self
            .slots
            .iter()
            .map(|slot| {
                let parts: Vec<_> = slot
                    .members
                    .iter()
                    .filter_map(|j| {
                        if j == self.setup.me {
                            Some(context.contribution(&seed, *slot))
                        } else {
                            contributions.remove(&(*slot, j))
                        }
                    })
                    .collect();
                (*slot, context.slot_key(*slot, &parts))
            })
            .collect();
        let Frost::Round2(frost) = core::mem::replace(&mut self.frost, Frost::None) else {
            return Ok(());
        };
        let packages = dealt
            .iter()
            .map(|(j, plaintext)| (*j, Zeroizing::new(plaintext.frost_round2.clone())))
            .collect();
        let group = frost.finish(&packages).map_err(|error| AbortReason::Frost {
            accused: error.culprits(),
            detail: error.to_string(),
        })?;
        let confirm = Confirm {
            keys: slot_keys.iter().map(|(slot, key)| context.confirmation(*slot, key)).collect(),
            public_seed: self.setup.public_seed_part(&seed),
            frost_group: Bytes(group.public().to_wire()),
        };
        self.group = Some(Arc::new(group));
        self.slot_keys = slot_keys;
        self.say(Round::Confirm, None, Payload::Confirm(confirm));
        if self.stage != Stage::Aborted {
            self.enter(Stage::Collect(Round::Confirm), now);
        }
        Ok(())
    }

    fn confirms(&self) -> Vec<(ParticipantIndex, &Confirm)> {
        self.payloads(Round::Confirm, |p| match p {
            Payload::Confirm(confirm) => Some(confirm),
            _ => None,
        })
    }

    fn after_confirm(&mut self, now: Millis) -> Result<(), AbortReason> {
        let context = self.setup.context();
        let mine: BTreeMap<Slot, Blake3Digest> = self
            .slot_keys
            .iter()
            .map(|(slot, key)| (*slot, context.confirmation(*slot, key)))
            .collect();
        let group = self.group.as_ref().map(|group| group.public().to_wire()).unwrap_or_default();
        let mut differ = Vec::new();
        let mut other_group = Vec::new();
        for ((j, confirm), (_, commit)) in self.confirms().into_iter().zip(self.commits()) {
            if context.public_seed_commitment(j, &confirm.public_seed) != commit.public_seed {
                return Err(AbortReason::WrongSeedReveal { accused: j });
            }
            let slots = slots_of(self.setup.committee(), j);
            let agrees = slots.len() == confirm.keys.len()
                && slots
                    .iter()
                    .zip(&confirm.keys)
                    .all(|(slot, theirs)| mine.get(slot).is_none_or(|mine| mine == theirs));
            if !agrees {
                differ.push(j);
            }
            if confirm.frost_group.0 != group {
                other_group.push(j);
            }
        }
        if !differ.is_empty() {
            return Err(AbortReason::KeyMismatch { with: differ });
        }
        if !other_group.is_empty() {
            let detail = "they computed another group key".to_owned();
            return Err(AbortReason::Frost { accused: other_group, detail });
        }
        self.echo(Round::Confirm, Round::ConfirmEcho, now);
        Ok(())
    }

    /// Step 6: "for each key bit: \[r\] <- PRSS; locally r_j^2 + r_j; plus a fresh PRZS share".
    fn draw_bits(&mut self, now: Millis) {
        let keys = SplitKeys::new(&self.slot_keys);
        self.slot_keys.clear();
        let setup = &self.setup;
        self.engine =
            Some(engine(setup.committee(), setup.me, &setup.params, &setup.layout, &keys));
        self.keys = Some(keys);
        self.produced.clear();
        self.enter(Stage::Produce(Stream::Bits, 0), now);
    }

    fn after_root(&mut self, round: Round, now: Millis) -> Result<(), AbortReason> {
        let (stream, echo) = match round {
            Round::BitsRoot => (Stream::Bits, Round::BitsRootEcho),
            _ => (Stream::Bodies, Round::BodiesRootEcho),
        };
        let expected = self.setup.chunks(stream) as usize;
        for (accused, root) in self.roots(round) {
            if root.chunks.len() != expected {
                let detail = format!("{} chunks instead of {expected}", root.chunks.len());
                return Err(AbortReason::InvalidMessage { accused, round, detail });
            }
        }
        self.echo(round, echo, now);
        Ok(())
    }

    fn roots(&self, round: Round) -> Vec<(ParticipantIndex, &StreamRoot)> {
        self.payloads(round, |p| match p {
            Payload::StreamRoot(root) => Some(root),
            _ => None,
        })
    }

    fn open(&mut self, stream: Stream, now: Millis) {
        if stream == Stream::Bodies {
            self.bodies = Some(Bodies::zeroed(&self.setup.layout));
        }
        self.arrived.clear();
        self.requested = 0;
        self.enter(Stage::Open(stream, 0), now);
        self.request_ahead(stream, 0);
    }

    /// Looks for the chunks of the window in the store, and asks their senders for the rest.
    fn request_ahead(&mut self, stream: Stream, next: u32) {
        let until = (next + WINDOW).min(self.setup.chunks(stream));
        while self.requested < until {
            let index = self.requested;
            self.requested += 1;
            for sender in self.setup.others().collect::<Vec<_>>() {
                match self.load_chunk(stream, sender, index) {
                    Ok(Some(bytes)) => {
                        self.arrived.entry(index).or_default().insert(sender, bytes);
                    }
                    Ok(None) => self.request_chunk(stream, sender, index, sender),
                    Err(error) => {
                        return self.abort(AbortReason::Local { detail: error.to_string() });
                    }
                }
            }
        }
    }

    /// A chunk from the store, if it is there and is the one that the sender's root names.
    fn load_chunk(
        &mut self,
        stream: Stream,
        sender: ParticipantIndex,
        index: u32,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        let found = self.store.get(stream, sender, index)?;
        Ok(found.filter(|bytes| self.chunk_matches(stream, sender, index, bytes)))
    }

    fn chunk_matches(
        &self,
        stream: Stream,
        sender: ParticipantIndex,
        index: u32,
        bytes: &[u8],
    ) -> bool {
        let Some(message) = self.message(stream.root_round(), sender) else { return false };
        let Payload::StreamRoot(root) = &message.payload else { return false };
        let length = self.setup.plan.of(stream).get(index as usize).map(|chunk| chunk.bytes);
        length == Some(bytes.len())
            && root.chunks.get(index as usize)
                == Some(&StreamRoot::chunk_digest(&message.header, stream, index, bytes))
    }

    // ---- computation -----------------------------------------------------------------------

    /// Does one bounded piece of computation, if there is any to do. Returns whether there may be
    /// more.
    pub fn work(&mut self, now: Millis) -> bool {
        match self.stage {
            Stage::Produce(stream, next) => {
                self.produce(stream, next, now);
                true
            }
            Stage::Open(stream, next) => {
                let n = self.setup.committee().n();
                if self.arrived.get(&next).map_or(0, BTreeMap::len) + 1 < n {
                    return false;
                }
                self.open_next(stream, next, now);
                true
            }
            Stage::Assemble => {
                self.assemble(now);
                true
            }
            _ => false,
        }
    }

    fn produce(&mut self, stream: Stream, next: u32, now: Millis) {
        let Some(engine) = &self.engine else { return };
        if next == self.setup.chunks(stream) {
            let chunks = core::mem::take(&mut self.produced);
            let round = stream.root_round();
            self.say(round, None, Payload::StreamRoot(StreamRoot { chunks }));
            if stream == Stream::Bodies
                && let Some(engine) = &mut self.engine
            {
                engine.finish_bodies();
            }
            if self.stage != Stage::Aborted {
                self.enter(Stage::Collect(round), now);
                self.advance(now);
            }
            return;
        }
        let Some(chunk) = self.setup.plan.of(stream).get(next as usize) else { return };
        let bytes = match stream {
            Stream::Bits => engine.bits_chunk(chunk),
            Stream::Bodies => engine.bodies_chunk(chunk),
        };
        let header = Header {
            ceremony: self.setup.id,
            attempt: self.setup.attempt,
            round: stream.root_round(),
            sender: self.setup.me,
            recipient: None,
        };
        self.produced.push(StreamRoot::chunk_digest(&header, stream, next, &bytes));
        if let Err(error) = self.store.put(stream, self.setup.me, next, &bytes) {
            return self.abort(AbortReason::Local { detail: error.to_string() });
        }
        self.stage = Stage::Produce(stream, next + 1);
    }

    /// Steps 7 and 9: "receivers interpolate from 2t+1 shares and check that all n shares lie on one
    /// polynomial of degree 2t".
    fn open_next(&mut self, stream: Stream, next: u32, now: Millis) {
        let Some(arrived) = self.arrived.remove(&next) else {
            if self.setup.committee().n() > 1 {
                return;
            }
            return self.open_with(stream, next, BTreeMap::new(), now);
        };
        self.open_with(stream, next, arrived, now);
    }

    fn open_with(
        &mut self,
        stream: Stream,
        next: u32,
        mut chunks: BTreeMap<ParticipantIndex, Vec<u8>>,
        now: Millis,
    ) {
        match self.store.get(stream, self.setup.me, next) {
            Ok(Some(own)) => chunks.insert(self.setup.me, own),
            Ok(None) => {
                let detail = format!("own chunk {next} is gone from the share store");
                return self.abort(AbortReason::Local { detail });
            }
            Err(error) => return self.abort(AbortReason::Local { detail: error.to_string() }),
        };
        let shares: Vec<&[u8]> = chunks.values().map(Vec::as_slice).collect();
        let setup = Arc::clone(&self.setup);
        let Some(chunk) = setup.plan.of(stream).get(next as usize) else { return };
        let Some(engine) = &mut self.engine else { return };
        let opened = match (stream, &mut self.bodies) {
            (Stream::Bits, _) => engine.open_bits(chunk, &shares),
            (Stream::Bodies, Some(bodies)) => {
                let section = &setup.layout.sections[chunk.section];
                engine.open_bodies(section, chunk, &shares, &mut bodies.sections[chunk.section])
            }
            (Stream::Bodies, None) => return,
        };
        if let Err(element) = opened {
            return self.abort(AbortReason::InconsistentShares {
                stream,
                index: next,
                element: element as u32,
            });
        }
        let next = next + 1;
        if next < setup.chunks(stream) {
            self.enter(Stage::Open(stream, next), now);
            self.request_ahead(stream, next);
        } else if stream == Stream::Bits {
            self.derive_keys(now);
        } else {
            self.enter(Stage::Assemble, now);
        }
    }

    /// Step 8: "take the root x with even constant coefficient; \[b\] = (\[r\] - x) (-1 - 2x)^-1", then
    /// the shares of the public material.
    fn derive_keys(&mut self, now: Millis) {
        let parts: Vec<[u8; 32]> = self.confirms().iter().map(|(_, c)| c.public_seed).collect();
        let public_seed = self.setup.context().public_seed(&parts);
        let (Some(engine), Some(keys)) = (&mut self.engine, &self.keys) else { return };
        if let Err(bit) = engine.derive_keys(keys, &public_seed) {
            let chunks = self.setup.plan.of(Stream::Bits);
            let index = chunks.iter().rposition(|chunk| chunk.start <= bit).unwrap_or(0);
            return self.abort(AbortReason::InconsistentShares {
                stream: Stream::Bits,
                index: index as u32,
                element: (bit - chunks.get(index).map_or(0, |chunk| chunk.start)) as u32,
            });
        }
        self.produced.clear();
        self.enter(Stage::Produce(Stream::Bodies, 0), now);
    }

    /// Step 10: "each member assembles the key set, erases its shares of s, S and p and every key but
    /// `dec`, and broadcasts the key set's digest and its partial decryption of the test ciphertext".
    fn assemble(&mut self, now: Millis) {
        let parts: Vec<[u8; 32]> = self.confirms().iter().map(|(_, c)| c.public_seed).collect();
        let public_seed = self.setup.context().public_seed(&parts);
        let Some(bodies) = self.bodies.take() else { return };
        let key_set = match assemble(&self.setup.params, public_seed, bodies) {
            Ok(key_set) => Arc::new(key_set),
            Err(error) => {
                return self.abort(AbortReason::InvalidKeySet { detail: error.to_string() });
            }
        };
        let digest = keyset_digest(&key_set);
        let (Some(mut engine), Some(keys), Some(group)) =
            (self.engine.take(), self.keys.take(), self.group.take())
        else {
            return;
        };
        let share = engine.take_squash_share();
        let root = self.root_before(Round::Prove);
        let key_share = proof::key_share(&self.setup, digest, &root, share, keys.dec, &group);
        let key_share = match key_share {
            Ok(key_share) => key_share,
            Err(error) => return self.abort(AbortReason::Local { detail: error.to_string() }),
        };
        let prove = Prove { key_set: digest, test_share: Bytes(key_share.test_share().to_vec()) };
        self.erase_secrets();
        self.key_set = Some(key_set);
        self.key_share = Some(Arc::new(key_share));
        self.say(Round::Prove, None, Payload::Prove(prove));
        if self.stage != Stage::Aborted {
            self.enter(Stage::Collect(Round::Prove), now);
            self.advance(now);
        }
    }

    /// The root over everything broadcast before a round.
    fn root_before(&self, round: Round) -> Blake3Digest {
        let messages = self
            .broadcasts()
            .filter(|message| message.header.round < round)
            .map(SignedMessage::digest);
        transcript_root(&self.setup.parameters, self.setup.attempt, messages)
    }

    /// Step 11: "when all n proofs fit, each member persists its key share and signs FINISH over the
    /// transcript's root; the seed is destroyed".
    fn after_prove(&mut self, now: Millis) -> Result<(), AbortReason> {
        let Some(key_share) = self.key_share.clone() else { return Ok(()) };
        let proofs = self.payloads(Round::Prove, |p| match p {
            Payload::Prove(prove) => Some(prove),
            _ => None,
        });
        let shares: Vec<_> = proofs.iter().map(|(j, p)| (*j, p.test_share.0.as_slice())).collect();
        let strangers: Vec<_> = proofs
            .iter()
            .filter(|(_, proof)| proof.key_set != key_share.origin().key_set)
            .map(|(j, _)| *j)
            .collect();
        if !strangers.is_empty() {
            let detail = "another key set digest".to_owned();
            return Err(AbortReason::WrongProof { accused: strangers, detail });
        }
        proof::check(self.setup.committee(), &shares)?;
        let root = self.root_before(Round::Finish);
        if let Some(key_set) = self.key_set.clone() {
            self.effects.push_back(Effect::Persist(Record::KeySet(key_set)));
        }
        self.effects.push_back(Effect::Persist(Record::KeyShare(key_share)));
        self.say(Round::Finish, None, Payload::Finish(Finish { root }));
        if self.stage != Stage::Aborted {
            self.seed = None;
            self.effects.push_back(Effect::EraseSeed);
            self.enter(Stage::Collect(Round::Finish), now);
        }
        Ok(())
    }

    fn own_finish_root(&self) -> Option<Blake3Digest> {
        match &self.message(Round::Finish, self.setup.me)?.payload {
            Payload::Finish(finish) => Some(finish.root),
            _ => None,
        }
    }

    /// "A key is valid only with the FINISH signatures of all n members over one root": collect them
    /// and bring them to the commit point.
    fn after_finish(&mut self) {
        let Some(root) = self.own_finish_root() else { return };
        let finishes = self.payloads(Round::Finish, |p| match p {
            Payload::Finish(finish) => Some(finish),
            _ => None,
        });
        if finishes.iter().any(|(_, finish)| finish.root != root) {
            // Somebody finished another transcript; this attempt can make no key. The commit point
            // will say so.
            self.stage = Stage::AwaitCommitPoint;
            return;
        }
        let signatures = self
            .messages
            .get(&Round::Finish)
            .into_iter()
            .flatten()
            .map(|(_, message)| message.signature)
            .collect();
        let certificate = FinishCertificate {
            ceremony: self.setup.id,
            attempt: self.setup.attempt,
            root,
            signatures,
        };
        self.stage = Stage::AwaitCommitPoint;
        self.next_retry = None;
        self.effects.push_back(Effect::Publish(Box::new(certificate)));
    }
}
