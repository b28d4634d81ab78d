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
    Blake3Digest, ParticipantIndex, Wire,
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

mod computation;
mod interface;
mod steps;

pub use interface::*;

/// Chunks of each member that are requested ahead.
const WINDOW: u32 = 4;

/// The commit point says that the key is valid. (If it says that the attempt expired, the key share
/// is gone because it was erased: a restart alone cannot tell.)
const NO_KEY_SHARE: &str =
    "FINISH was signed but the key share is missing from the records; restore it from backup";

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
                    let known = machine.messages.entry(header.round).or_default();
                    // The first one counts, as it did before the restart.
                    match known.get(&header.sender) {
                        Some(first) if *first == *message => {}
                        Some(first) => machine.evidence.extend([first.clone(), *message]),
                        None => drop(known.insert(header.sender, *message)),
                    }
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
            if let Some(Header { sender: accused, round, .. }) =
                machine.evidence.first().map(|first| first.header)
            {
                machine.abort(AbortReason::Equivocation { accused, round });
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
            self.ask_again(now);
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
            // After FINISH there is nothing to abort, and no end to what a liar may sign.
            let finished = self.message(Round::Finish, self.setup.me).is_some();
            if !finished && !matches!(self.stage, Stage::Completed | Stage::Aborted) {
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
    fn ask_again(&mut self, now: Millis) {
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
                            let relay = self.relay_for(sender, index, now);
                            self.request_chunk(stream, sender, index, sender);
                            self.request_chunk(stream, sender, index, relay);
                        }
                    }
                }
            }
            _ => {}
        }
    }

    /// Somebody else who may have a chunk; changes with the chunk, so that load spreads, and with
    /// time, since it may be one that gives nothing.
    fn relay_for(&self, sender: ParticipantIndex, index: u32, now: Millis) -> ParticipantIndex {
        let others: Vec<_> = self.setup.others().filter(|j| *j != sender).collect();
        let turn = u64::from(index) + now / self.setup.timing.retry.max(1);
        others.get((turn % others.len().max(1) as u64) as usize).copied().unwrap_or(sender)
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
        if self.key_share.take().is_some() {
            self.effects.push_back(Effect::EraseKeyShare);
        }
        self.key_set = None;
        self.effects.push_back(Effect::Abort(Box::new(report)));
    }

    fn complete(&mut self, certificate: FinishCertificate) {
        let Some(key_share) = &self.key_share else {
            return self.fail(AbortReason::Local { detail: NO_KEY_SHARE.to_owned() });
        };
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
}
