//! One driver for every machine without I/O: the key ceremony, signing, decryption, agreement.
//!
//! # Roles
//! - a [`Machine`] takes messages, timeouts and pieces of computation, and gives back effects;
//! - a [`Link`] carries bytes to the other participants, a bounded channel brings theirs;
//! - a [`Keeper`] is the machine's owner: it stores records and carries out the effects that only
//!   this machine has;
//! - the [`Driver`] connects them and owns clock, queues and retries.
//!
//! # Flow
//! The machine lives on a thread of its own, since its steps compute and its keeper waits for the
//! disk; the asynchronous runtime never does. The thread takes what has come in, then a due
//! timeout, then one piece of work, and carries out the effects after each of them in order. It
//! sleeps when there is nothing of the three.
//!
//! 1. Consecutive persist effects go to the keeper together, and are durable before any later effect
//!    is carried out. If that fails, the machine decides whether it can go on
//!    ([`Machine::persist_failed`]); by default the driver stops with [`DriverError::Persist`].
//! 2. Messages go to a bounded queue for each participant. A few are in flight at once; a send is
//!    complete when the other side has taken the message into its own bounded queue, so the
//!    acknowledgement is the flow control. A failed send is tried again a few times with backoff and
//!    jitter; then it is left to the machine, which asks again anyway.
//! 3. Special effects are carried out by the keeper, on the machine's thread.
//!
//! # State
//! None of its own that outlives the process: what a restart needs is with the keeper.
//!
//! # Caveats
//! A message that does not fit into a participant's queue displaces the oldest there, and is counted
//! ([`Driver::dropped`]). Waiting instead could make two members wait for each other; every machine
//! here tolerates loss. A message that is in the queue already is not queued twice.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use tokio::{sync::mpsc, task::JoinHandle};
use tokio_util::sync::{CancellationToken, DropGuard};
use veil_protocol_spec::{Committee, ParticipantIndex};

mod decryption;
mod key_ceremony;
mod link;
#[cfg(test)]
pub(crate) mod memory;
mod nonces;
mod outbox;
mod p2p_link;
mod run;
mod signing;
#[cfg(test)]
mod tests;

pub use decryption::{DecryptionEffect, DecryptionMachine};
pub use key_ceremony::CeremonyEffect;
pub use link::{Channel, Inbound, Link, LinkError, Links};
pub use nonces::{ConflictingNonce, NonceKeeper, NonceStore, SigningOutcome};
pub use outbox::QueueLimits;
pub use p2p_link::{P2pLink, P2pLinks};
pub use signing::{SigningEffect, SigningMachine, SigningSchedule};

/// Milliseconds since the driver's clock was made.
pub type Millis = u64;

/// What a machine gives to acknowledge a record with; machines that wait for none use 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// What a machine wants done.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect<R, S> {
    /// To be durable before any later effect; then [`Machine::persisted`].
    Persist(Ticket, R),
    /// To one other participant.
    Send(ParticipantIndex, Arc<[u8]>),
    /// To all other participants.
    Broadcast(Arc<[u8]>),
    /// What only this machine has.
    Special(S),
}

/// What became of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum Verdict {
    /// Taken.
    Valid,
    /// Left aside; nobody's fault.
    Skip,
    /// Refused, with the reason for the log.
    Fault(String),
}

/// A machine without I/O. After every input the driver drains [`Self::poll_effect`].
pub trait Machine: Send + 'static {
    /// What it stores.
    type Record: Send;
    /// Effects that its keeper carries out.
    type Special: Send;

    /// Takes bytes from an authenticated participant.
    fn handle(&mut self, from: ParticipantIndex, bytes: &[u8], now: Millis) -> Verdict;

    /// The time of [`Self::poll_timeout`] has come.
    fn handle_timeout(&mut self, now: Millis);

    /// When [`Self::handle_timeout`] is to be called next.
    fn poll_timeout(&self) -> Option<Millis>;

    /// Does one bounded piece of computation; `false` if there is none.
    fn work(&mut self, _now: Millis) -> bool {
        false
    }

    /// The next thing to do.
    fn poll_effect(&mut self) -> Option<Effect<Self::Record, Self::Special>>;

    /// The record is durable.
    fn persisted(&mut self, _ticket: Ticket) {}

    /// The record could not be stored. Returns whether the machine goes on without it.
    fn persist_failed(&mut self, _ticket: Ticket) -> bool {
        false
    }
}

/// The owner of a machine: its disk and its special effects. Called on the machine's thread, where
/// waiting for a disk is allowed.
pub trait Keeper<M: Machine>: Send + 'static {
    /// Makes records durable, in order, all or none.
    ///
    /// # Errors
    /// [`KeeperError`]: none of them may be taken for stored.
    fn persist(&mut self, records: &[M::Record]) -> Result<(), KeeperError>;

    /// Carries out a special effect.
    ///
    /// # Errors
    /// [`KeeperError`] stops the driver.
    fn carry_out(&mut self, effect: M::Special, machine: &M) -> Result<(), KeeperError>;

    /// Looks at the machine after a round of inputs, for progress and `status`.
    fn observe(&mut self, _machine: &M, _now: Millis) {}
}

/// Why a keeper could not do what it was told.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct KeeperError(#[source] Box<dyn std::error::Error + Send + Sync>);

impl KeeperError {
    /// Wraps the keeper's own error, whose text is kept.
    pub fn new(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self(error.into())
    }

    /// The keeper's own error.
    #[must_use]
    pub fn inner(&self) -> &(dyn std::error::Error + Send + Sync + 'static) {
        &*self.0
    }
}

/// Why a driver stopped by itself.
#[derive(Debug, thiserror::Error)]
pub enum DriverError {
    /// A record is not durable, so nothing after it may happen.
    #[error(
        "a record could not be stored, so this member stopped before sending what depends on it: {0}; mend the disk and start again"
    )]
    Persist(#[source] KeeperError),
    /// The keeper could not carry out an effect.
    #[error("{0}")]
    Effect(#[source] KeeperError),
    /// The machine's thread panicked.
    #[error("the machine stopped because of a defect: {0}; please report it")]
    Panicked(String),
}

/// Milliseconds since some start, never backwards. Machines of one process may share one.
#[derive(Clone, Copy, Debug)]
pub struct Clock(Instant);

impl Clock {
    /// Starts at zero now.
    #[must_use]
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// Milliseconds since the start.
    #[must_use]
    pub fn now(&self) -> Millis {
        u64::try_from(self.0.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    pub(crate) fn at(&self, millis: Millis) -> Option<Instant> {
        self.0.checked_add(std::time::Duration::from_millis(millis))
    }
}

/// Whose machine it is, and how much may wait for the others.
#[derive(Clone, Copy, Debug)]
pub struct DriverConfig {
    /// The committee.
    pub committee: Committee,
    /// This participant.
    pub me: ParticipantIndex,
    /// The machine's clock.
    pub clock: Clock,
    /// Bounds of the queues.
    pub queues: QueueLimits,
}

impl DriverConfig {
    /// With a clock that starts now and the usual bounds.
    #[must_use]
    pub fn new(committee: Committee, me: ParticipantIndex) -> Self {
        Self { committee, me, clock: Clock::start(), queues: QueueLimits::default() }
    }
}

type Command<M> = Box<dyn FnOnce(&mut M, Millis) + Send>;

/// What is left when a driver has ended.
pub struct Ended<M, K> {
    /// The machine as it was.
    pub machine: M,
    /// Its keeper.
    pub keeper: K,
    /// Why it ended, if nobody told it to.
    pub error: Option<DriverError>,
}

impl<M, K> fmt::Debug for Ended<M, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ended").field("error", &self.error).finish_non_exhaustive()
    }
}

/// The driver has stopped, so the machine takes no more commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the machine has stopped")]
pub struct Stopped;

/// A running machine.
pub struct Driver<M: Machine, K: Keeper<M>> {
    commands: mpsc::Sender<Command<M>>,
    stop: CancellationToken,
    ended: CancellationToken,
    dropped: Arc<AtomicU64>,
    task: JoinHandle<Ended<M, K>>,
    senders: Vec<JoinHandle<()>>,
    drain: CancellationToken,
    /// A driver that is dropped ends its thread and its senders.
    guards: [DropGuard; 2],
}

/// Gives commands to a running machine; cheap to clone.
pub struct Control<M: Machine> {
    commands: mpsc::Sender<Command<M>>,
}

impl<M: Machine> Clone for Control<M> {
    fn clone(&self) -> Self {
        Self { commands: self.commands.clone() }
    }
}

impl<M: Machine> Control<M> {
    /// Runs `f` on the machine's thread; its effects follow as after any input.
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn with<T: Send + 'static>(
        &self,
        f: impl FnOnce(&mut M, Millis) -> T + Send + 'static,
    ) -> Result<T, Stopped> {
        let (reply, answer) = tokio::sync::oneshot::channel();
        let command: Command<M> = Box::new(move |machine, now| drop(reply.send(f(machine, now))));
        self.commands.send(command).await.map_err(|_| Stopped)?;
        answer.await.map_err(|_| Stopped)
    }
}

impl<M: Machine, K: Keeper<M>> Driver<M, K> {
    /// Starts the machine's thread and the senders. To be called within a tokio runtime.
    pub fn start<L: Link>(
        config: DriverConfig,
        machine: M,
        keeper: K,
        link: L,
        incoming: mpsc::Receiver<Inbound>,
    ) -> Self {
        let (commands, received) = mpsc::channel(16);
        let stop = CancellationToken::new();
        let ended = CancellationToken::new();
        let drain = CancellationToken::new();
        let dropped = Arc::new(AtomicU64::new(0));
        let (outboxes, senders) = outbox::start(&config, &link, &drain, &dropped);
        let thread = run::Thread {
            config,
            machine,
            keeper,
            incoming,
            commands: received,
            outboxes,
            stop: stop.clone(),
            runtime: tokio::runtime::Handle::current(),
        };
        let guard = ended.clone().drop_guard();
        let task = tokio::task::spawn_blocking(move || {
            let _guard = guard;
            thread.run()
        });
        let guards = [stop.clone().drop_guard(), drain.clone().drop_guard()];
        Self { commands, stop, ended, dropped, task, senders, drain, guards }
    }

    /// For commands from elsewhere.
    #[must_use]
    pub fn control(&self) -> Control<M> {
        Control { commands: self.commands.clone() }
    }

    /// Runs `f` on the machine's thread; its effects follow as after any input.
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn with<T: Send + 'static>(
        &self,
        f: impl FnOnce(&mut M, Millis) -> T + Send + 'static,
    ) -> Result<T, Stopped> {
        self.control().with(f).await
    }

    /// Completes when the machine's thread has ended, for whatever reason.
    pub async fn ended(&self) {
        self.ended.cancelled().await;
    }

    /// Messages that found their queue full, since the start.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Ends the machine, then gives the queues until `deadline` to empty.
    ///
    /// # Errors
    /// [`DriverError::Panicked`]; other errors are in [`Ended::error`].
    pub async fn finish(self, deadline: std::time::Duration) -> Result<Ended<M, K>, DriverError> {
        let Self { stop, task, senders, drain, guards: _guards, .. } = self;
        stop.cancel();
        let ended = task.await.map_err(|error| DriverError::Panicked(error.to_string()))?;
        drain.cancel();
        let aborts: Vec<_> = senders.iter().map(JoinHandle::abort_handle).collect();
        let all = futures::future::join_all(senders);
        if tokio::time::timeout(deadline, all).await.is_err() {
            aborts.iter().for_each(tokio::task::AbortHandle::abort);
        }
        Ok(ended)
    }

    /// Ends the machine at once; what is queued is lost, as in a crash.
    ///
    /// # Errors
    /// As [`Self::finish`].
    pub async fn kill(self) -> Result<Ended<M, K>, DriverError> {
        self.senders.iter().for_each(JoinHandle::abort);
        self.stop.cancel();
        self.task.await.map_err(|error| DriverError::Panicked(error.to_string()))
    }
}
