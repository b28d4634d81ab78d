//! One driver for every machine without I/O: the key ceremony, signing, decryption, agreement.
//!
//! # Roles
//! - a [`Machine`](veil_committee_machine::Machine) takes messages, timeouts and pieces of
//!   computation, and gives back effects;
//! - a [`Transport`] carries bytes to the other participants, a bounded channel brings theirs;
//! - a [`Host`] stores records and carries out the effects that only this machine has;
//! - the [`Driver`] connects them and owns clock, queues and retries.
//!
//! # Flow
//! The machine lives on a thread of its own, since its steps compute and its host waits for the
//! disk; the asynchronous runtime never does. The thread takes what has come in, then a due timeout,
//! then one piece of work, and carries out the effects after each of them in order. It sleeps when
//! there is nothing of the three.
//!
//! 1. Consecutive persist effects go to the host together, and are durable before any later effect
//!    is carried out. If that fails, the machine decides whether it can go on
//!    ([`persist_failed`](veil_committee_machine::Machine::persist_failed)); by default the driver
//!    stops with [`DriverError::Persist`].
//! 2. Messages go to a bounded queue for each participant. A few are in flight at once; a send is
//!    complete when the other side has taken the message into its own bounded queue, so the
//!    acknowledgement is the flow control. A failed send is tried again a few times with backoff and
//!    jitter; then it is left to the machine, which asks again anyway.
//! 3. Special effects are carried out by the host, on the machine's thread.
//!
//! # State and restart
//! The driver keeps nothing that outlives the process. After a restart the machine is made from the
//! records that its host has stored, and a new driver runs it.
//!
//! # Caveats
//! A message that does not fit into a participant's queue displaces the oldest there, and is counted
//! ([`Driver::dropped`]). Waiting instead could make two members wait for each other; every machine
//! here tolerates loss. A message that is in the queue already is not queued twice.

mod clock;
mod config;
mod error;
mod host;
#[cfg(any(test, feature = "testing"))]
pub mod memory;
mod nonces;
mod outbox;
mod run;
mod running;
#[cfg(test)]
mod tests;
mod transport;

pub use clock::Clock;
pub use config::{DriverConfig, QueueLimits};
pub use error::{DriverError, Stopped};
pub use host::{Host, HostError};
pub use nonces::{ConflictingNonce, NonceHost, NonceStore, SigningOutcome};
pub use run::Ended;
pub use running::{Control, Driver};
pub use transport::{Channel, Inbound, Transport, TransportError, Transports};
