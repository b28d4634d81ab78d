//! The inputs of the machine after authorisation: messages, timeouts, acknowledgements.

use std::sync::Arc;

use veil_committee_machine::{Effect, Machine, Millis, PersistId, Verdict};
use veil_protocol_spec::{
    ParticipantIndex, Wire,
    decryption::{DecryptionCounter, DecryptionMessage, DecryptionPayload, RequestId},
};

use super::{
    Decryptor, MAX_COMPLETE, MAX_COMPLETE_BLOCKS, MAX_EARLY, MAX_EARLY_BYTES, ask_at,
    effect::{DecryptionEffect, Fault, Skip},
    request::{DecryptorEffect, DecryptorVerdict, Own, Request, repeated},
};

impl Machine for Decryptor {
    type Record = DecryptionCounter;
    type Special = DecryptionEffect;
    type Skip = Skip;
    type Fault = Box<Fault>;

    fn handle(&mut self, from: ParticipantIndex, bytes: &[u8], now: Millis) -> DecryptorVerdict {
        self.handle_timeout(now);
        let message = match self.open(from, bytes) {
            Ok(message) => message,
            Err(skip) => return Verdict::Skip(skip),
        };
        match message.payload {
            DecryptionPayload::Partial(_) => self.partial(from, message),
            DecryptionPayload::Request => match self.answer(from, message.request, now) {
                Ok(()) => Verdict::Valid,
                Err(reason) => {
                    let request = message.request;
                    let refused = DecryptionEffect::Refused { from, request, reason };
                    self.effects.push_back(Effect::Special(refused));
                    Verdict::Skip(reason)
                }
            },
        }
    }

    /// Step 4.
    ///
    /// "Every wait has a deadline and is asked again; every retry a bound and jitter; every outstanding
    /// party is named in `status`." (`decryption.md`)
    fn handle_timeout(&mut self, now: Millis) {
        let (committee, me) = (self.committee(), self.participant());
        for request in self.requests.values_mut() {
            if request.ask_at.is_none_or(|at| now < at) {
                continue;
            }
            let outstanding = request.outstanding(committee);
            if request.asked >= self.retry.rounds {
                let (request, participants) = (request.id, outstanding.clone());
                let named = DecryptionEffect::Outstanding { request, participants };
                self.effects.push_back(Effect::Special(named));
            }
            request.asked = request.asked.saturating_add(1);
            request.ask_at = Some(ask_at(&self.decryptor, self.retry, request.asked, now));
            let payload = DecryptionPayload::Request;
            let ask = DecryptionMessage::sign(request.id, me, payload, &self.identity);
            let bytes: Arc<[u8]> = ask.to_wire().into();
            for to in outstanding.into_iter().filter(|to| *to != me) {
                self.effects.push_back(Effect::Send { to, bytes: Arc::clone(&bytes) });
            }
        }
    }

    fn poll_timeout(&self) -> Option<Millis> {
        self.requests.values().filter_map(|request| request.ask_at).min()
    }

    fn poll_effect(&mut self) -> Option<DecryptorEffect> {
        self.effects.pop_front()
    }

    /// Step 2. Unknown ids are ignored.
    fn persisted(&mut self, id: PersistId) {
        let Some(request) = self.held(id) else { return };
        let Own::Held(_, share) = core::mem::replace(&mut request.own, Own::Sent) else { return };
        self.effects.push_back(Effect::Broadcast(share.to_wire().into()));
        self.add(*share);
    }

    /// The share stays here and its blocks stay counted. [`Decryptor::authorise`] with the same
    /// outputs tries again; meanwhile the shares of the others may complete the request.
    fn persist_failed(&mut self, id: PersistId) -> bool {
        if let Some(request) = self.held(id) {
            request.own = Own::NotPersisted;
        }
        true
    }
}

impl Decryptor {
    /// "Everything from outside has a size limit before decoding, a version, a signature where it
    /// matters, a named refusal." (`decryption.md`)
    fn open(&self, from: ParticipantIndex, bytes: &[u8]) -> Result<DecryptionMessage, Skip> {
        if !self.committee().contains(from) {
            return Err(Skip::NotAMember(from));
        }
        let message = DecryptionMessage::from_wire(bytes)?;
        let sender = message.sender;
        if !self.committee().contains(sender) {
            return Err(Skip::NotAMember(sender));
        }
        if sender == self.participant() {
            return Err(Skip::Own);
        }
        if sender != from && message.payload == DecryptionPayload::Request {
            return Err(Skip::RelayedRequest);
        }
        let identity = self.roster.get(sender.position()).ok_or(Skip::NotAMember(sender))?;
        message.verify(identity).map_err(|_| Skip::BadSignature)?;
        Ok(message)
    }

    /// Step 3.
    fn partial(&mut self, from: ParticipantIndex, message: DecryptionMessage) -> DecryptorVerdict {
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
        early.push_back(message);
        let bytes = |message: &DecryptionMessage| match &message.payload {
            DecryptionPayload::Partial(share) => share.0.len(),
            DecryptionPayload::Request => 0,
        };
        while early.len() > MAX_EARLY || early.iter().map(bytes).sum::<usize>() > MAX_EARLY_BYTES {
            early.pop_front();
        }
        Verdict::Valid
    }

    /// Step 5.
    fn answer(&mut self, from: ParticipantIndex, id: RequestId, now: Millis) -> Result<(), Skip> {
        let (me, forgotten) = (self.participant(), self.is_forgotten(id));
        let pause = self.retry.longest / 2;
        let Some(request) = self.requests.get_mut(&id) else {
            return Err(if forgotten { Skip::Forgotten } else { Skip::NotAuthorised });
        };
        let bytes = request.answer(me, from, pause, now)?.to_wire().into();
        self.effects.push_back(Effect::Send { to: from, bytes });
        Ok(())
    }

    /// Whether the outputs were authorised here once and are no longer kept.
    fn is_forgotten(&self, id: RequestId) -> bool {
        !self.requests.contains_key(&id) && self.authorised.knows(id)
    }

    pub(super) fn accept_early(&mut self, id: RequestId) {
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
        self.effects.extend(effects.into_iter().map(Effect::Special));
        if completed {
            self.complete.push_back(id);
            let blocks = |id| self.requests.get(id).map_or(0, |request| request.blocks());
            let mut blocks: usize = self.complete.iter().map(blocks).sum();
            while self.complete.len() > MAX_COMPLETE || blocks > MAX_COMPLETE_BLOCKS {
                let Some(oldest) = self.complete.pop_front() else { break };
                let dropped = self.requests.remove(&oldest);
                blocks -= dropped.map_or(0, |request| request.blocks());
            }
        }
    }

    fn held(&mut self, id: PersistId) -> Option<&mut Request> {
        self.requests.values_mut().find(|r| matches!(&r.own, Own::Held(held, _) if *held == id))
    }
}
