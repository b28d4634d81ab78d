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
//!    complete when the other side has taken the message into its machine's bounded queue, so the
//!    acknowledgement is the flow control; before that a transport lets senders take turns ([`deliver`]). A failed
//!    send is tried again a few times with backoff and jitter; then it is left to the machine, which asks again anyway.
//! 3. Special effects are carried out by the host, on the machine's thread, which is also given the proof
//!    against a participant that the machine catches ([`Host::faulted`]).
//!
//! # State and restart
//! The driver keeps nothing that outlives the process. After a restart the machine is made from the
//! records that its host has stored, and a new driver runs it.
//!
//! # Caveats
//! A message that does not fit into a participant's queue displaces the oldest there, and is counted
//! ([`Driver::dropped`]). Waiting instead could make two members wait for each other; every machine
//! here tolerates loss. A message that is in the queue already is not queued twice.
//!
//! # Example
//! A machine that stores what it is told to store, and a host that keeps it in memory:
//!
//! ```
//! use std::{collections::VecDeque, convert::Infallible, sync::Arc, time::Duration};
//! use tokio::sync::mpsc;
//! use veil_committee_machine::{Effect, Machine, Millis, PersistId, Verdict};
//! use veil_node_driver::{Driver, DriverConfig, Host, HostError, Transport, TransportError};
//! use veil_protocol_spec::{Committee, ParticipantIndex};
//!
//! #[derive(Default)]
//! struct Notes {
//!     effects: VecDeque<Effect<u32, Infallible>>,
//!     stored: u32,
//! }
//!
//! impl Machine for Notes {
//!     type Record = u32;
//!     type Special = Infallible;
//!     type Skip = ();
//!     type Fault = Infallible;
//!
//!     fn handle(&mut self, _: ParticipantIndex, _: &[u8], _: Millis) -> Verdict<(), Infallible> {
//!         Verdict::Skip(())
//!     }
//!     fn handle_timeout(&mut self, _now: Millis) {}
//!     fn poll_timeout(&self) -> Option<Millis> {
//!         None
//!     }
//!     fn poll_effect(&mut self) -> Option<Effect<u32, Infallible>> {
//!         self.effects.pop_front()
//!     }
//!     fn persisted(&mut self, _id: PersistId) {
//!         self.stored += 1;
//!     }
//! }
//!
//! struct Disk(Vec<u32>);
//!
//! impl Host<Notes> for Disk {
//!     fn persist(&mut self, records: &[u32]) -> Result<(), HostError> {
//!         self.0.extend(records);
//!         Ok(())
//!     }
//!     fn carry_out(&mut self, effect: Infallible, _: &Notes) -> Result<(), HostError> {
//!         match effect {}
//!     }
//! }
//!
//! /// Nobody else is there.
//! #[derive(Clone)]
//! struct Alone;
//!
//! impl Transport for Alone {
//!     async fn send(&self, to: ParticipantIndex, _: Arc<[u8]>) -> Result<(), TransportError> {
//!         Err(TransportError::Unreachable { to, detail: "nobody is there".to_owned() })
//!     }
//! }
//!
//! # #[tokio::main(flavor = "multi_thread", worker_threads = 1)]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let committee = Committee::new(1)?;
//! let config = DriverConfig::new(committee, ParticipantIndex::new(1)?);
//! let (_sender, incoming) = mpsc::channel(1);
//! let driver = Driver::start(config, Notes::default(), Disk(Vec::new()), Alone, incoming);
//! driver
//!     .with(|machine, _now| {
//!         let persist = Effect::Persist { id: PersistId(0), record: 7 };
//!         machine.effects.push_back(persist);
//!     })
//!     .await?;
//! let ended = driver.finish(Duration::from_secs(1)).await?;
//! assert_eq!((ended.host.0, ended.machine.stored), (vec![7], 1));
//! # Ok(()) }
//! ```

mod clock;
mod config;
mod error;
mod host;
mod inbox;
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
pub use inbox::{Receipt, deliver};
pub use nonces::{ConflictingNonce, NonceHost, NonceStore, SigningOutcome};
pub use run::Ended;
pub use running::{Control, Driver};
pub use transport::{
    AnyTransport, AnyTransports, Channel, Inbound, Transport, TransportError, Transports,
};
