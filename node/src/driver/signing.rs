//! One signing session of one member as a [`Machine`]: its signer, and its coordinator when it is
//! its turn.
//!
//! # Flow
//! 0. Optional: [`SigningMachine::prepare`], while the message is not known yet. The first member
//!    in turn gathers commitments, so that one round trip is left later.
//! 1. [`SigningMachine::authorise`], through [`Driver::with`](super::Driver::with). What comes
//!    earlier waits in the signer.
//! 2. Every message is handed to signer and coordinator; each skips what is for the other. What they
//!    say to this member comes back to both.
//! 3. The member at `coordinator_at(committee, slot, k)` starts a coordinator k intervals after it
//!    authorised the message, unless it has seen the signature. So a silent or failing coordinator
//!    costs an interval.
//! 4. [`SigningEffect::Complete`] once, [`SigningEffect::Failed`] at the deadline.

use std::{collections::VecDeque, sync::Arc};

use veil_committee::frost::{
    self, Completion, Coordinator, NonceRecord, PersistId, SessionContext, SignedMessage,
    SigningError, SigningSession, Timing, coordinator_at, keys::GroupKeyShare,
};
use veil_protocol_spec::{Attempt, KeccakDigest, ParticipantIndex, Wire, identity::SecretIdentity};

use super::{Effect, Machine, Millis, Ticket, Verdict};

/// When who coordinates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SigningSchedule {
    /// Until the next member starts a coordinator.
    pub rotation: Millis,
    /// Of each coordinator.
    pub timing: Timing,
    /// Above any attempt that this member used as coordinator of this session before a restart: a
    /// persisted restart counter, say. Each start of a coordinator takes a range of its own from it.
    pub restarts: u32,
}

/// Starts of coordinators by one member in one life, at most.
const MAX_STARTS: u32 = 1024;

/// What only signing has done.
#[derive(Clone, Debug, PartialEq)]
pub enum SigningEffect {
    /// The signature.
    Complete(Box<Completion>),
    /// This member's coordinator gave up; the next one's turn comes.
    CoordinatorFailed(SigningError),
    /// No signature by the deadline, or none that may be made.
    Failed(SigningError),
}

type Pending = Effect<NonceRecord, SigningEffect>;

/// One member in one session: its signer, and a coordinator when it is its turn, by rotation.
pub struct SigningMachine {
    session: Arc<SessionContext>,
    me: ParticipantIndex,
    identity: SecretIdentity,
    schedule: SigningSchedule,
    signer: SigningSession,
    signer_timer: Option<Millis>,
    coordinator: Option<Coordinator>,
    coordinator_timer: Option<Millis>,
    message: Option<KeccakDigest>,
    /// The next rotation and its time, while there is no outcome.
    next: Option<(u64, Millis)>,
    starts: u32,
    /// Time of the latest input, for what follows from an acknowledgement.
    now: Millis,
    to_self: VecDeque<SignedMessage>,
    effects: VecDeque<Pending>,
    over: bool,
}

impl SigningMachine {
    /// `records` are the nonce records on disk.
    ///
    /// # Errors
    /// [`SigningError::WrongKey`], [`SigningError::CorruptJournal`].
    pub fn new<'r>(
        session: Arc<SessionContext>,
        share: Arc<GroupKeyShare>,
        identity: SecretIdentity,
        records: impl IntoIterator<Item = &'r NonceRecord>,
        schedule: SigningSchedule,
    ) -> Result<Self, SigningError> {
        let me = share.index();
        let signer = SigningSession::new(Arc::clone(&session), share, identity.clone(), records)?;
        Ok(Self {
            session,
            me,
            identity,
            schedule,
            signer,
            signer_timer: None,
            coordinator: None,
            coordinator_timer: None,
            message: None,
            next: None,
            starts: 0,
            now: 0,
            to_self: VecDeque::new(),
            effects: VecDeque::new(),
            over: false,
        })
    }

    /// Step 0. Idempotent, and without effect once the message is known.
    pub fn prepare(&mut self, now: Millis) {
        let first = self.turn(0) == self.me && self.session.committee().n() > 1;
        if !first || self.message.is_some() || self.coordinator.is_some() || self.over {
            return;
        }
        self.coordinate(|session, me, identity, attempt, timing| {
            Coordinator::prepare(session, me, identity, attempt, timing, now)
        });
        self.settle(now);
    }

    /// This member has checked for itself what the message stands for. Of `ready` it knows that they
    /// have too, or soon will: as coordinator it takes them first. Idempotent.
    ///
    /// # Errors
    /// [`SigningError::AlreadyAuthorised`] for a second message, [`SigningError::Over`].
    pub fn authorise(
        &mut self,
        message: KeccakDigest,
        ready: &[ParticipantIndex],
        deadline: Millis,
        now: Millis,
    ) -> Result<(), SigningError> {
        self.signer.authorise(message, deadline)?;
        if self.message.replace(message).is_none() && self.session.committee().n() > 1 {
            self.next = Some((0, now));
            if let Some(prepared) = &mut self.coordinator {
                prepared.authorise(message, ready.iter().copied(), now);
                // Its turn is the first.
                self.next = Some((1, now + self.schedule.rotation));
            }
            self.rotate(now);
        }
        self.settle(now);
        Ok(())
    }

    fn turn(&self, rotation: u64) -> ParticipantIndex {
        coordinator_at(self.session.committee(), self.session.context().key.slot, rotation)
    }

    /// Step 3.
    fn rotate(&mut self, now: Millis) {
        let (Some((rotation, at)), Some(message)) = (self.next, self.message) else { return };
        if now < at || self.over {
            return;
        }
        self.next = Some((rotation + 1, at + self.schedule.rotation));
        if self.turn(rotation) == self.me {
            self.coordinate(|session, me, identity, attempt, timing| {
                Coordinator::start(session, me, identity, message, attempt, timing, now)
            });
        }
    }

    /// Starts a coordinator at an attempt above all that this member has used in this session.
    fn coordinate(
        &mut self,
        start: impl FnOnce(
            Arc<SessionContext>,
            ParticipantIndex,
            SecretIdentity,
            Attempt,
            Timing,
        ) -> Result<Coordinator, SigningError>,
    ) {
        if self.starts == MAX_STARTS {
            return;
        }
        let range =
            u64::from(self.schedule.restarts) * u64::from(MAX_STARTS) + u64::from(self.starts);
        let first = range * u64::from(self.schedule.timing.max_attempts);
        let Ok(first) = u32::try_from(first) else { return };
        self.starts += 1;
        let (session, identity) = (Arc::clone(&self.session), self.identity.clone());
        match start(session, self.me, identity, Attempt(first), self.schedule.timing) {
            Ok(coordinator) => {
                self.coordinator = Some(coordinator);
                self.coordinator_timer = None;
            }
            Err(error) => {
                self.effects.push_back(Effect::Special(SigningEffect::CoordinatorFailed(error)));
            }
        }
    }

    fn end(&mut self, effect: SigningEffect) {
        if !core::mem::replace(&mut self.over, true) {
            self.next = None;
            self.coordinator_timer = None;
            self.effects.push_back(Effect::Special(effect));
        }
    }

    fn post(&mut self, message: SignedMessage, to: Option<ParticipantIndex>) {
        let bytes: Arc<[u8]> = message.to_wire().into();
        match to {
            Some(to) if to == self.me => {}
            Some(to) => return self.effects.push_back(Effect::Send(to, bytes)),
            None => self.effects.push_back(Effect::Broadcast(bytes)),
        }
        self.to_self.push_back(message);
    }

    /// Drains both machines, and gives them what they say to this member, until nothing is left.
    /// The coordinator comes first: its completion names the signers.
    fn settle(&mut self, now: Millis) {
        self.now = now;
        loop {
            while let Some(effect) = self.coordinator.as_mut().and_then(Coordinator::poll_effect) {
                match effect {
                    frost::Effect::Send { to, message } => self.post(message, Some(to)),
                    frost::Effect::Broadcast(message) => self.post(message, None),
                    frost::Effect::SetTimer { at } => self.coordinator_timer = Some(at),
                    frost::Effect::Complete(completion) => {
                        self.end(SigningEffect::Complete(completion));
                    }
                    frost::Effect::Fail(error) => {
                        self.coordinator_timer = None;
                        let failed = SigningEffect::CoordinatorFailed(error);
                        self.effects.push_back(Effect::Special(failed));
                    }
                    // A coordinator has nothing to store.
                    frost::Effect::Persist { .. } => {}
                }
            }
            while let Some(effect) = self.signer.poll_effect() {
                match effect {
                    frost::Effect::Send { to, message } => self.post(message, Some(to)),
                    frost::Effect::Broadcast(message) => self.post(message, None),
                    frost::Effect::SetTimer { at } => self.signer_timer = Some(at),
                    frost::Effect::Persist { id, record } => {
                        self.effects.push_back(Effect::Persist(Ticket(id.0), record));
                    }
                    frost::Effect::Complete(completion) => {
                        self.end(SigningEffect::Complete(completion));
                    }
                    frost::Effect::Fail(error) => self.end(SigningEffect::Failed(error)),
                }
            }
            let Some(message) = self.to_self.pop_front() else { return };
            let _ = self.give(self.me, &message, now);
        }
    }

    fn give(&mut self, from: ParticipantIndex, message: &SignedMessage, now: Millis) -> Verdict {
        let collected = self.coordinator.as_mut().map(|c| c.handle(from, message, now));
        let signed = self.signer.handle(from, message, now);
        let mut taken = Verdict::Skip;
        for verdict in collected.into_iter().chain([signed]) {
            match verdict {
                frost::Verdict::Valid => taken = Verdict::Valid,
                frost::Verdict::Skip(_) => {}
                frost::Verdict::Fault(fault) => {
                    return Verdict::Fault(format!(
                        "participant {} is provably at fault",
                        fault.culprit
                    ));
                }
            }
        }
        taken
    }
}

impl Machine for SigningMachine {
    type Record = NonceRecord;
    type Special = SigningEffect;

    fn handle(&mut self, from: ParticipantIndex, bytes: &[u8], now: Millis) -> Verdict {
        let message = match SignedMessage::from_wire(bytes) {
            Ok(message) => message,
            Err(error) => return Verdict::Fault(error.to_string()),
        };
        let verdict = self.give(from, &message, now);
        self.settle(now);
        verdict
    }

    fn handle_timeout(&mut self, now: Millis) {
        if self.signer_timer.is_some_and(|at| now >= at) {
            self.signer_timer = None;
            self.signer.handle_timeout(now);
        }
        if self.coordinator_timer.is_some_and(|at| now >= at) {
            self.coordinator_timer = None;
            if let Some(coordinator) = &mut self.coordinator {
                coordinator.handle_timeout(now);
            }
        }
        self.rotate(now);
        self.settle(now);
    }

    fn poll_timeout(&self) -> Option<Millis> {
        let next = self.next.map(|(_, at)| at);
        [self.signer_timer, self.coordinator_timer, next].into_iter().flatten().min()
    }

    fn poll_effect(&mut self) -> Option<Pending> {
        self.effects.pop_front()
    }

    fn persisted(&mut self, ticket: Ticket) {
        self.signer.persisted(PersistId(ticket.0));
        self.settle(self.now);
    }

    fn persist_failed(&mut self, ticket: Ticket) -> bool {
        self.signer.persist_failed(PersistId(ticket.0));
        self.settle(self.now);
        true
    }
}
