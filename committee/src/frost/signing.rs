//! The signing machine of one member in one session: its signer, and a coordinator when it is its
//! turn.
//!
//! # Roles
//! Every member runs a [`SigningMachine`] for each signature. It is made of a
//! [`SigningSession`], always, and of a [`Coordinator`], while this member collects.
//!
//! # Messages
//! [`SignedMessage`]. Each that comes in goes to both parts, and so does what one part sends to this
//! very member; each part skips what is for the other.
//!
//! # Inputs and effects
//! Inputs are those of every [`Machine`], and [`prepare`](SigningMachine::prepare) and
//! [`authorise`](SigningMachine::authorise). The record is the [`NonceRecord`]: the store refuses one
//! that [conflicts](NonceRecord::conflicts_with) with another. The effects of its own are
//! [`SigningEffect`]. The order of calls is that of
//! [every machine](veil_committee_machine#call-order).
//!
//! # Flow
//! 0. Optional, while the message is not known yet: `prepare`. The first member in turn gathers
//!    commitments, so that one round trip is left later.
//! 1. `authorise`: this member has checked for itself what the message stands for. What comes
//!    earlier waits in the signer.
//! 2. The member at [`coordinator_at`]`(committee, slot, k)` starts a coordinator k rotation
//!    intervals after it authorised the message, unless it has seen the signature. A silent or
//!    failing coordinator costs an interval.
//! 3. [`SigningEffect::Complete`] once, or [`SigningEffect::Failed`] at the deadline.
//!
//! # State and restart
//! Nonces and the coordinator's attempts live in memory only. After a restart make a new machine
//! with the stored records and a larger [`SigningSchedule::restarts`]: members answer only later
//! attempts of the same coordinator, and no second message is signed.
//!
//! # Example
//! A group of one:
//!
//! ```
//! # use std::sync::Arc;
//! # use rand::SeedableRng;
//! # use veil_protocol_spec::{
//! #     Address, ChainId, ClusterId, Committee, Epoch, KeccakDigest, Slot, identity::SecretIdentity,
//! # };
//! # use veil_committee::frost::{EvmSuite, dkg::{Dkg, Packages}};
//! use veil_committee::frost::{
//!     Purpose, SessionContext, SigningContext, SigningKeyId, Timing,
//!     signing::{SigningEffect, SigningMachine, SigningSchedule},
//! };
//! use veil_committee_machine::{Effect, Machine};
//!
//! # let alone = Committee::new(1).unwrap();
//! # let me = alone.participants().next().unwrap();
//! # let mut rng = rand_chacha::ChaCha20Rng::seed_from_u64(7);
//! # let (secret, _) = Dkg::<EvmSuite>::start(alone, me, &mut rng).unwrap();
//! # let (secret, _) = secret.receive(&Packages::new()).unwrap();
//! # let share = Arc::new(secret.finish(&Packages::new()).unwrap());
//! # let identity = SecretIdentity::from_bytes(&[1; 32]).unwrap();
//! let key = SigningKeyId { purpose: Purpose::Certificate, epoch: Epoch(0), slot: Slot(7) };
//! # let (chain, contract, cluster) = (ChainId(1), Address([2; 20]), ClusterId([3; 32]));
//! let context = SigningContext { chain, contract, cluster, key };
//! let group = Arc::new(share.public().clone());
//! let session = SessionContext::new(context, group.clone(), vec![identity.public()]).unwrap();
//! let timing = Timing { commit: 5_000, share: 5_000, max_attempts: 4 };
//! let schedule = SigningSchedule { rotation: 10_000, timing, restarts: 0 };
//! let mut machine =
//!     SigningMachine::new(Arc::new(session), share, identity, &[], schedule).unwrap();
//!
//! let message = KeccakDigest([9; 32]);
//! machine.authorise(message, &[], 60_000, 0).unwrap();
//! // The signature leaves after the record is durable.
//! let Some(Effect::Persist { id, record }) = machine.poll_effect() else { panic!() };
//! assert_eq!((record.message, machine.poll_effect()), (message, None));
//! machine.persisted(id);
//! assert!(matches!(machine.poll_effect(), Some(Effect::Broadcast(_))));
//! let Some(Effect::Special(SigningEffect::Complete(done))) = machine.poll_effect() else {
//!     panic!()
//! };
//! assert!(group.verify(message.as_bytes(), &done.signature).is_ok());
//! ```

use core::fmt;
use std::{collections::VecDeque, sync::Arc};

use frost_core::Ciphersuite;
use veil_committee_machine::{Effect, Machine, Millis, PersistId, Verdict};
use veil_protocol_spec::{Attempt, KeccakDigest, ParticipantIndex, Wire, identity::SecretIdentity};

use super::{
    EvmSuite,
    coordinator::{Coordinator, Timing},
    effect::{Completion, SessionEffect, SigningError, coordinator_at},
    keys::GroupKeyShare,
    session::{Fault, SessionContext, SessionVerdict, Skip},
    sign::SigningSession,
    wire::{NonceRecord, SignedMessage},
};

/// When a member coordinates, and how long it waits then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SigningSchedule {
    /// Milliseconds until the next member starts a coordinator.
    pub rotation: Millis,
    /// Waits of each coordinator.
    pub timing: Timing,
    /// Above any value that this member used in this session before a restart: a persisted restart
    /// counter, say. Each start of a coordinator takes a range of attempts of its own from it.
    pub restarts: u32,
}

/// Starts of coordinators by one member in one life, at most.
const MAX_STARTS: u32 = 1024;

/// What only signing asks of its host.
#[derive(Clone, Debug, PartialEq)]
pub enum SigningEffect<C: Ciphersuite = EvmSuite> {
    /// The signature; nothing follows but answers to latecomers.
    Complete(Box<Completion<C>>),
    /// For the log: this member's coordinator gave up, and the next member's turn comes.
    CoordinatorFailed(SigningError),
    /// No signature by the deadline, or none that may be made; nothing follows.
    Failed(SigningError),
}

type SigningMachineEffect<C> = Effect<NonceRecord, SigningEffect<C>>;

/// One member in one session. See the [module documentation](self).
///
/// # Security
/// Holds the nonces of its [`SigningSession`] and the member's identity; never printed.
pub struct SigningMachine<C: Ciphersuite = EvmSuite> {
    session: Arc<SessionContext<C>>,
    me: ParticipantIndex,
    identity: SecretIdentity,
    schedule: SigningSchedule,
    signer: SigningSession<C>,
    coordinator: Option<Coordinator<C>>,
    message: Option<KeccakDigest>,
    /// The next rotation and its time, while there is no outcome.
    next: Option<(u64, Millis)>,
    starts: u32,
    /// Time of the latest input, for what follows from an acknowledgement.
    now: Millis,
    to_self: VecDeque<Arc<[u8]>>,
    effects: VecDeque<SigningMachineEffect<C>>,
    over: bool,
}

impl<C: Ciphersuite> SigningMachine<C> {
    /// `records` is what the store holds; records of other sessions are ignored.
    ///
    /// # Errors
    /// [`SigningError::WrongKey`], [`SigningError::CorruptJournal`].
    pub fn new<'r>(
        session: Arc<SessionContext<C>>,
        share: Arc<GroupKeyShare<C>>,
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
            coordinator: None,
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
        self.drain_parts(now);
    }

    /// Step 1. Members in `ready` have authorised the message too, or soon will: a coordinator
    /// chooses them first. `deadline` ends the session. Idempotent for the same message.
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
        self.drain_parts(now);
        Ok(())
    }

    fn turn(&self, rotation: u64) -> ParticipantIndex {
        coordinator_at(self.session.committee(), self.session.context().key.slot, rotation)
    }

    /// Step 2.
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
            Arc<SessionContext<C>>,
            ParticipantIndex,
            SecretIdentity,
            Attempt,
            Timing,
        ) -> Result<Coordinator<C>, SigningError>,
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
            Ok(coordinator) => self.coordinator = Some(coordinator),
            Err(error) => self.coordinator_failed(error),
        }
    }

    fn coordinator_failed(&mut self, error: SigningError) {
        self.effects.push_back(Effect::Special(SigningEffect::CoordinatorFailed(error)));
    }

    /// Step 3.
    fn end(&mut self, effect: SigningEffect<C>) {
        if !core::mem::replace(&mut self.over, true) {
            self.next = None;
            self.effects.push_back(Effect::Special(effect));
        }
    }

    fn send(&mut self, to: ParticipantIndex, bytes: Arc<[u8]>) {
        if to == self.me {
            self.to_self.push_back(bytes);
        } else {
            self.effects.push_back(Effect::Send { to, bytes });
        }
    }

    fn broadcast(&mut self, bytes: Arc<[u8]>) {
        self.to_self.push_back(Arc::clone(&bytes));
        self.effects.push_back(Effect::Broadcast(bytes));
    }

    /// Drains both parts, and gives them what they send to this member, until nothing is left. The
    /// coordinator comes first: its completion names the signers.
    fn drain_parts(&mut self, now: Millis) {
        self.now = now;
        loop {
            while let Some(effect) = self.coordinator.as_mut().and_then(Machine::poll_effect) {
                match effect {
                    Effect::Persist { record, .. } => match record {},
                    Effect::Send { to, bytes } => self.send(to, bytes),
                    Effect::Broadcast(bytes) => self.broadcast(bytes),
                    Effect::Special(SessionEffect::Complete(completion)) => {
                        self.end(SigningEffect::Complete(completion));
                    }
                    Effect::Special(SessionEffect::Failed(error)) => self.coordinator_failed(error),
                }
            }
            while let Some(effect) = self.signer.poll_effect() {
                match effect {
                    Effect::Persist { id, record } => {
                        self.effects.push_back(Effect::Persist { id, record });
                    }
                    Effect::Send { to, bytes } => self.send(to, bytes),
                    Effect::Broadcast(bytes) => self.broadcast(bytes),
                    Effect::Special(SessionEffect::Complete(completion)) => {
                        self.end(SigningEffect::Complete(completion));
                    }
                    Effect::Special(SessionEffect::Failed(error)) => {
                        self.end(SigningEffect::Failed(error));
                    }
                }
            }
            let Some(bytes) = self.to_self.pop_front() else { return };
            // A part refuses what is for the other one.
            let _ = self.receive(self.me, &bytes, now);
        }
    }

    /// Hands a message to both parts.
    fn receive(&mut self, from: ParticipantIndex, bytes: &[u8], now: Millis) -> SessionVerdict {
        let message = match SignedMessage::from_wire(bytes) {
            Ok(message) => message,
            Err(error) => return Verdict::Skip(error.into()),
        };
        let collected = self.coordinator.as_mut().map(|c| c.receive(from, &message, now));
        let signed = self.signer.receive(from, &message, now);
        match (collected, signed) {
            (Some(fault @ Verdict::Fault(_)), _) | (_, fault @ Verdict::Fault(_)) => fault,
            (Some(Verdict::Valid), _) | (_, Verdict::Valid) => Verdict::Valid,
            (Some(skipped), Verdict::Skip(Skip::NotForMe)) | (_, skipped) => skipped,
        }
    }
}

impl<C: Ciphersuite> Machine for SigningMachine<C> {
    type Record = NonceRecord;
    type Special = SigningEffect<C>;
    type Skip = Skip;
    type Fault = Box<Fault>;

    fn handle(&mut self, from: ParticipantIndex, bytes: &[u8], now: Millis) -> SessionVerdict {
        let verdict = self.receive(from, bytes, now);
        self.drain_parts(now);
        verdict
    }

    fn handle_timeout(&mut self, now: Millis) {
        self.signer.handle_timeout(now);
        if let Some(coordinator) = self.coordinator.as_mut().filter(|_| !self.over) {
            coordinator.handle_timeout(now);
        }
        self.rotate(now);
        self.drain_parts(now);
    }

    fn poll_timeout(&self) -> Option<Millis> {
        let coordinator = self.coordinator.as_ref().filter(|_| !self.over);
        let rotation = self.next.map(|(_, at)| at);
        let all =
            [self.signer.poll_timeout(), coordinator.and_then(Machine::poll_timeout), rotation];
        all.into_iter().flatten().min()
    }

    fn poll_effect(&mut self) -> Option<SigningMachineEffect<C>> {
        self.effects.pop_front()
    }

    fn persisted(&mut self, id: PersistId) {
        self.signer.persisted(id);
        self.drain_parts(self.now);
    }

    fn persist_failed(&mut self, id: PersistId) -> bool {
        let goes_on = self.signer.persist_failed(id);
        self.drain_parts(self.now);
        goes_on
    }
}

impl<C: Ciphersuite> fmt::Debug for SigningMachine<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningMachine({:?}, {:?})", self.signer, self.coordinator)
    }
}
