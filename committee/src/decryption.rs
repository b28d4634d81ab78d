//! The decryption machine of one member under one key and epoch.
//!
//! Source: `decryption.md`. The algebra is in [`crate::decrypt`].
//!
//! # Roles
//! Every member runs one [`Decryptor`] for all slots of an epoch. There is no coordinator: each
//! sends its share to all and combines what it receives.
//!
//! # Messages
//! [`DecryptionMessage`]: `Partial`, the sender's share, which anyone may relay; `Request`, which
//! asks its receiver for its share and counts only from the member that signed it. No message
//! carries a ciphertext.
//!
//! # Flow
//! 1. [`authorise`](Decryptor::authorise): the member has recomputed the outputs from the locked
//!    manifest. Check lock, key, epoch, size and budget; compute the share; count its blocks; emit
//!    [`Effect::Persist`].
//! 2. [`persisted`](Decryptor::persisted): now the share may leave; [`Effect::Broadcast`].
//! 3. `Partial`: keep the first of each sender. As soon as 2t+1 agree, [`Effect::Complete`], with
//!    [`Effect::LiarFound`] for each share that does not; the same for one that comes later.
//! 4. [`handle_timeout`](Decryptor::handle_timeout): ask those whose shares are outstanding, in
//!    rounds, then name them in [`Effect::Outstanding`]. The request stays open.
//! 5. `Request`: answer with this member's share of outputs that it authorised itself; anything
//!    else is [`Effect::Refused`] and computed never.
//!
//! # State
//! Kept here are open requests (at most [`MAX_OPEN`]), complete ones for answers and for late liars
//! (the last [`MAX_COMPLETE`], or until [`forget`](Decryptor::forget)), what was authorised in the
//! last [`MAX_SLOTS`] slots, and shares that came before step 1 (the last [`MAX_EARLY`] of each
//! sender, only if it brought them itself; what is dropped is asked for again).
//!
//! # Restart
//! Make a new machine with the stored [`DecryptionCounter`] and authorise the slots that are not
//! certified yet again. They are counted again, on the safe side; shares are a function of the
//! outputs, so the same bytes are sent again. What earlier slots were authorised for is not stored:
//! that a slot's outputs cannot change over a restart rests on their being recomputed.
//!
//! # Call order
//! After every input drain [`poll_effect`](Decryptor::poll_effect), and do what comes out in order.
//! The machine is deterministic: same inputs, same effects.

pub mod effect;
mod request;
mod slots;

use std::collections::{BTreeMap, VecDeque};

use rayon::prelude::*;
use veil_protocol_spec::{
    Blake3Digest, Committee, ParticipantIndex, PublicIdentity, Wire,
    ceremony::Bytes,
    decryption::{
        DecryptionMessage, DecryptionPayload, MAX_BLOCKS_PER_REQUEST, ManifestLock, RequestContext,
        RequestId,
    },
    identity::SecretIdentity,
    scheduling::Binding,
};

pub use veil_protocol_spec::decryption::DecryptionCounter;

pub use self::effect::{
    Completion, Effect, Evidence, Fault, InvalidEvidence, RecomputedOutputs, Refusal,
    RequestStatus, Retry, Skip, Verdict, WrongMembership, wrong_shares,
};
pub use self::slots::MAX_SLOTS;
use self::{
    request::{Own, Request, repeated},
    slots::Slots,
};
use crate::{
    decrypt::{Flooding, PartialDecryptor},
    frost::{Millis, PersistId},
};

/// Requests that may wait for other members at a time.
pub const MAX_OPEN: usize = 64;
/// Complete requests kept; the oldest is forgotten.
pub const MAX_COMPLETE: usize = 16;
/// Requests of which a sender's early share is kept; the oldest is dropped.
pub const MAX_EARLY: usize = 4;
/// Times that one member is sent the share of one request again.
pub const MAX_ANSWERS: u32 = 16;

/// One member's decryptions. See the [module documentation](self).
///
/// # Security
/// Holds the member's share of the key and its identity; zeroized on drop, never printed.
pub struct Decryptor {
    decryptor: PartialDecryptor,
    identity: SecretIdentity,
    roster: Vec<PublicIdentity>,
    retry: Retry,
    counter: DecryptionCounter,
    requests: BTreeMap<RequestId, Request>,
    complete: VecDeque<RequestId>,
    slots: Slots,
    early: BTreeMap<ParticipantIndex, VecDeque<DecryptionMessage>>,
    timer: Option<Millis>,
    next_persist: u64,
    effects: VecDeque<Effect>,
}

impl Decryptor {
    /// `counter` is what was stored last for this key and epoch, or zero. `roster` holds the
    /// identities of participants 1, 2, ...
    ///
    /// # Errors
    /// [`WrongMembership`] unless the roster is the committee's and `identity` is the member's.
    pub fn new(
        decryptor: PartialDecryptor,
        identity: SecretIdentity,
        roster: Vec<PublicIdentity>,
        counter: DecryptionCounter,
    ) -> Result<Self, WrongMembership> {
        let (committee, me) = (decryptor.committee(), decryptor.participant());
        if roster.len() != committee.n() {
            return Err(WrongMembership::Roster { given: roster.len(), committee });
        }
        if roster.get(me.position()) != Some(&identity.public()) {
            return Err(WrongMembership::Identity { me });
        }
        Ok(Self {
            decryptor,
            identity,
            roster,
            retry: Retry::default(),
            counter,
            requests: BTreeMap::new(),
            complete: VecDeque::new(),
            slots: Slots::default(),
            early: BTreeMap::new(),
            timer: None,
            next_persist: 0,
            effects: VecDeque::new(),
        })
    }

    /// Asks absent members in another rhythm.
    #[must_use]
    pub const fn with_retry(mut self, retry: Retry) -> Self {
        self.retry = retry;
        self
    }

    /// The committee.
    #[must_use]
    pub const fn committee(&self) -> Committee {
        self.decryptor.committee()
    }

    /// Whose machine it is.
    #[must_use]
    pub const fn participant(&self) -> ParticipantIndex {
        self.decryptor.participant()
    }

    /// Blocks counted so far; what is being stored is included.
    #[must_use]
    pub const fn counter(&self) -> DecryptionCounter {
        self.counter
    }

    /// Blocks the key is good for.
    #[must_use]
    pub const fn budget(&self) -> u64 {
        Flooding::of(self.committee()).budget
    }

    /// Step 1. Idempotent for the same outputs: they are counted once, and if their share was
    /// withheld because the counter could not be stored, or asking had ended, that starts again.
    ///
    /// # Errors
    /// Every way in which the outputs are not to be decrypted, see [`Refusal`].
    pub fn authorise(
        &mut self,
        outputs: RecomputedOutputs,
        lock: &ManifestLock,
        now: Millis,
    ) -> Result<RequestId, Refusal> {
        let RecomputedOutputs { context, blocks } = outputs;
        self.check_context(&context, lock)?;
        if !(1..=MAX_BLOCKS_PER_REQUEST).contains(&blocks.len()) {
            return Err(Refusal::BlockCount { given: blocks.len() });
        }
        let digests: Vec<Blake3Digest> = blocks.par_iter().map(|block| block.digest()).collect();
        let id = RequestId::of(&context, &digests);
        let counted = self.slots.check(&context, id)?;
        if let Some(request) = self.requests.get_mut(&id) {
            if !request.complete && request.ask_at.is_none() {
                request.asked = 0;
                request.ask_at = Some(ask_at(&self.decryptor, self.retry, now));
                self.set_timer();
            }
        } else {
            let open = self.requests.len() - self.complete.len();
            if open >= MAX_OPEN {
                return Err(Refusal::TooManyOpen { open });
            }
        }
        if self.requests.get(&id).is_some_and(|r| !matches!(r.own, Own::NotPersisted)) {
            return Ok(id);
        }
        let (used, asked) = (self.counter.blocks, blocks.len() as u64);
        let budget = self.budget();
        let total = used.saturating_add(asked);
        if !counted && total > budget {
            return Err(Refusal::Budget { used, asked, budget });
        }
        let share = self.decryptor.partial(&blocks)?;
        // Nothing fails from here on.
        if !counted {
            // "State the number of decryptions a key is good for and count them." (`decryption.md`,
            // "Flooding")
            self.counter.blocks = total;
            self.slots.take(&context, id);
        }
        let me = self.participant();
        let share = DecryptionPayload::Partial(Bytes(share));
        let share = DecryptionMessage::sign(id, me, share, &self.identity);
        let persist = PersistId(self.next_persist);
        self.next_persist += 1;
        let first_ask = ask_at(&self.decryptor, self.retry, now);
        let request = self.requests.entry(id).or_insert_with(|| {
            let mut request = Request::new(id, context, blocks.len());
            request.ask_at = Some(first_ask);
            request
        });
        request.own = Own::Held(persist, Box::new(share));
        self.effects.push_back(Effect::Persist { id: persist, counter: self.counter });
        self.take_early(id);
        self.set_timer();
        Ok(id)
    }

    /// "No partial decryption leaves before the 2t+1 lock is seen." (`decryption.md`, step 2)
    fn check_context(&self, context: &RequestContext, lock: &ManifestLock) -> Result<(), Refusal> {
        let key_set = self.decryptor.key_set();
        if context.key_set != key_set {
            return Err(Refusal::OtherKeySet { mine: key_set, asked: context.key_set });
        }
        let epoch = self.decryptor.epoch();
        if context.epoch != epoch {
            return Err(Refusal::OtherEpoch { mine: epoch, asked: context.epoch });
        }
        let ManifestLock { binding: Binding { key_set, epoch, .. }, slot, manifest, .. } = *lock;
        let locked = RequestContext { key_set, epoch, slot, manifest };
        if locked != *context {
            return Err(Refusal::OtherLock(locked));
        }
        Ok(lock.verify(self.committee(), &self.roster)?)
    }

    /// Takes what peer `from` brought; the transport has authenticated it.
    pub fn handle(&mut self, from: ParticipantIndex, bytes: &[u8], now: Millis) -> Verdict {
        if self.timer.is_some_and(|at| now >= at) {
            self.handle_timeout(now);
        }
        let message = match self.open(from, bytes) {
            Ok(message) => message,
            Err(skip) => return Verdict::Skip(skip),
        };
        match message.payload {
            DecryptionPayload::Partial(_) => self.partial(from, message),
            DecryptionPayload::Request => match self.answer(from, message.request) {
                Ok(()) => Verdict::Valid,
                Err(reason) => {
                    let request = message.request;
                    self.effects.push_back(Effect::Refused { from, request, reason });
                    Verdict::Skip(reason)
                }
            },
        }
    }

    /// "Everything from outside has a size limit before decoding, a version, a signature where it
    /// matters, a named refusal." (`decryption.md`)
    fn open(&self, from: ParticipantIndex, bytes: &[u8]) -> Result<DecryptionMessage, Skip> {
        if !self.committee().contains(from) {
            return Err(Skip::Stranger(from));
        }
        let message = DecryptionMessage::from_wire(bytes)?;
        let sender = message.sender;
        if !self.committee().contains(sender) {
            return Err(Skip::Stranger(sender));
        }
        if sender == self.participant() {
            return Err(Skip::Own);
        }
        if sender != from && message.payload == DecryptionPayload::Request {
            return Err(Skip::RelayedRequest);
        }
        let identity = self.roster.get(sender.position()).ok_or(Skip::Stranger(sender))?;
        message.verify(identity).map_err(|_| Skip::BadSignature)?;
        Ok(message)
    }

    /// Step 3.
    fn partial(&mut self, from: ParticipantIndex, message: DecryptionMessage) -> Verdict {
        let id = message.request;
        if let Some(request) = self.requests.get(&id) {
            if let Some(verdict) = request.repeated(&message) {
                return verdict;
            }
            self.add(message);
            return Verdict::Valid;
        }
        if self.is_forgotten(id) {
            return Verdict::Skip(Skip::Forgotten);
        }
        // Only from the sender itself, so that replaying a member's old shares cannot push out
        // those that it sends now.
        if from != message.sender {
            return Verdict::Skip(Skip::RelayedEarly);
        }
        let early = self.early.entry(from).or_default();
        if let Some(first) = early.iter().find(|first| first.request == id) {
            return repeated(first, &message);
        }
        if early.len() >= MAX_EARLY {
            early.pop_front();
        }
        early.push_back(message);
        Verdict::Valid
    }

    /// Step 5.
    fn answer(&mut self, from: ParticipantIndex, id: RequestId) -> Result<(), Skip> {
        let (me, forgotten) = (self.participant(), self.is_forgotten(id));
        let Some(request) = self.requests.get_mut(&id) else {
            return Err(if forgotten { Skip::Forgotten } else { Skip::NotAuthorised });
        };
        let bytes = request.answer(me, from, MAX_ANSWERS)?.to_wire();
        self.effects.push_back(Effect::Send { to: from, bytes });
        Ok(())
    }

    /// Whether the outputs were authorised here once and are no longer kept.
    fn is_forgotten(&self, id: RequestId) -> bool {
        !self.requests.contains_key(&id) && self.slots.knows(id)
    }

    fn take_early(&mut self, id: RequestId) {
        let mut ready = Vec::new();
        for early in self.early.values_mut() {
            if let Some(at) = early.iter().position(|message| message.request == id) {
                ready.extend(early.remove(at));
            }
        }
        for message in ready {
            let first = self.requests.get(&id).is_some_and(|r| r.repeated(&message).is_none());
            if first {
                self.add(message);
            }
        }
    }

    fn add(&mut self, message: DecryptionMessage) {
        let (id, committee) = (message.request, self.committee());
        let Some(request) = self.requests.get_mut(&id) else { return };
        let before = request.complete;
        let effects = request.add(message, committee);
        let completed = request.complete && !before;
        self.effects.extend(effects);
        if completed {
            self.complete.push_back(id);
            if self.complete.len() > MAX_COMPLETE
                && let Some(oldest) = self.complete.pop_front()
            {
                self.requests.remove(&oldest);
            }
        }
    }

    /// Step 2: the counter is on disk. Unknown ids are ignored.
    pub fn persisted(&mut self, id: PersistId) {
        let Some(request) = self.held(id) else { return };
        let Own::Held(_, share) = core::mem::replace(&mut request.own, Own::Sent) else { return };
        self.effects.push_back(Effect::Broadcast(share.to_wire()));
        self.add(*share);
    }

    /// The counter cannot be stored: the share stays here. Its blocks stay counted.
    /// [`authorise`](Self::authorise) with the same outputs tries again; meanwhile the shares of
    /// the others may complete the request.
    pub fn persist_failed(&mut self, id: PersistId) {
        if let Some(request) = self.held(id) {
            request.own = Own::NotPersisted;
        }
    }

    fn held(&mut self, id: PersistId) -> Option<&mut Request> {
        self.requests.values_mut().find(|r| matches!(&r.own, Own::Held(held, _) if *held == id))
    }

    /// Step 4. To be called at the time of the last [`Effect::SetTimer`]; earlier calls do nothing.
    ///
    /// "Every wait has a deadline; every retry a bound and jitter; every outstanding party is named
    /// in `status`." (`decryption.md`)
    pub fn handle_timeout(&mut self, now: Millis) {
        let (committee, me) = (self.committee(), self.participant());
        let next = ask_at(&self.decryptor, self.retry, now);
        for request in self.requests.values_mut() {
            if request.ask_at.is_none_or(|at| now < at) {
                continue;
            }
            let outstanding = request.outstanding(committee);
            if request.asked >= self.retry.rounds {
                request.ask_at = None;
                let (request, participants) = (request.id, outstanding);
                self.effects.push_back(Effect::Outstanding { request, participants });
                continue;
            }
            request.asked += 1;
            request.ask_at = Some(next);
            let payload = DecryptionPayload::Request;
            let ask = DecryptionMessage::sign(request.id, me, payload, &self.identity).to_wire();
            for to in outstanding.into_iter().filter(|to| *to != me) {
                self.effects.push_back(Effect::Send { to, bytes: ask.clone() });
            }
        }
        self.timer = None;
        self.set_timer();
    }

    /// The timer of the request that is due first.
    fn set_timer(&mut self) {
        let due = self.requests.values().filter_map(|request| request.ask_at).min();
        if let Some(at) = due.filter(|at| self.timer.is_none_or(|timer| timer != *at)) {
            self.timer = Some(at);
            self.effects.push_back(Effect::SetTimer { at });
        }
    }

    /// Drops a request and all shares of it, complete or not; a share that has not left stays here.
    /// What its slot was authorised for is still known.
    pub fn forget(&mut self, request: RequestId) {
        self.requests.remove(&request);
        self.complete.retain(|id| *id != request);
    }

    /// The next thing to do, if any.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// Where every request kept stands, by slot.
    #[must_use]
    pub fn status(&self) -> Vec<RequestStatus> {
        let mut status: Vec<_> =
            self.requests.values().map(|request| request.status(self.committee())).collect();
        status.sort_by_key(|request| request.context.slot);
        status
    }

    /// The signed shares of a request, this member's included, by sender: with them
    /// [`wrong_shares`] proves who lied.
    pub fn partials(&self, request: RequestId) -> impl Iterator<Item = &DecryptionMessage> {
        self.requests.get(&request).into_iter().flat_map(Request::partials)
    }
}

/// When to ask next: members are staggered, so that one that was away is not asked by all at once.
fn ask_at(decryptor: &PartialDecryptor, retry: Retry, now: Millis) -> Millis {
    let position = decryptor.participant().position() as u64;
    let stagger = retry.interval.saturating_mul(position) / (4 * decryptor.committee().n() as u64);
    now.saturating_add(retry.interval).saturating_add(stagger)
}

impl core::fmt::Debug for Decryptor {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Decryptor(member {} of {}, <redacted>)", self.participant(), self.committee())
    }
}

#[cfg(test)]
mod tests;
