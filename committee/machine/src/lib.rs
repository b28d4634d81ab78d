//! The face that every machine without I/O shows to its host.
//!
//! # Roles
//! - A [`Machine`] advances one participant of one session: the key ceremony, agreement, decryption,
//!   signing. It has no clock, no socket and no disk.
//! - Its **host** owns it: `veil-node-driver` over a network, `veil-committee-world` in virtual time.
//!   The host brings messages, timeouts and acknowledgements, and carries out the effects.
//!
//! # Call order
//! 1. The host makes the machine from what is stored, and drains [`Machine::poll_effect`] once: a
//!    machine may have effects from its construction.
//! 2. Any input: [`Machine::handle`], [`Machine::handle_timeout`] when [`Machine::poll_timeout`] is
//!    due, [`Machine::work`], [`Machine::persisted`], or a method of the machine's own.
//! 3. After each input the host drains [`Machine::poll_effect`] and carries the effects out in the
//!    order in which they came. A record is durable before any later effect is carried out.
//! 4. After each input the host reads [`Machine::poll_timeout`] again. A timeout that is read cannot
//!    get lost, which one that is set can.
//!
//! # State and restart
//! What a restart needs is in the [records](Machine::Record). A machine that is made from its records
//! sends what it sent before, or says nothing: it never contradicts what has left.
//!
//! # Example
//! A machine that stores what it hears before it echoes it:
//!
//! ```
//! use std::{collections::VecDeque, convert::Infallible, sync::Arc};
//! use veil_committee_machine::{Effect, Machine, Millis, PersistId, Verdict};
//! use veil_protocol_spec::ParticipantIndex;
//!
//! #[derive(Default)]
//! struct Echo {
//!     effects: VecDeque<Effect<Vec<u8>, Infallible>>,
//!     unsaved: Option<Arc<[u8]>>,
//! }
//!
//! impl Machine for Echo {
//!     type Record = Vec<u8>;
//!     type Special = Infallible;
//!     type Skip = &'static str;
//!     type Fault = Infallible;
//!
//!     fn handle(
//!         &mut self,
//!         _from: ParticipantIndex,
//!         bytes: &[u8],
//!         _now: Millis,
//!     ) -> Verdict<&'static str, Infallible> {
//!         if self.unsaved.is_some() {
//!             return Verdict::Skip("one at a time");
//!         }
//!         self.unsaved = Some(bytes.into());
//!         self.effects.push_back(Effect::Persist { id: PersistId(0), record: bytes.to_vec() });
//!         Verdict::Valid
//!     }
//!     fn handle_timeout(&mut self, _now: Millis) {}
//!     fn poll_timeout(&self) -> Option<Millis> {
//!         None
//!     }
//!     fn poll_effect(&mut self) -> Option<Effect<Vec<u8>, Infallible>> {
//!         self.effects.pop_front()
//!     }
//!     fn persisted(&mut self, _id: PersistId) {
//!         self.effects.extend(self.unsaved.take().map(Effect::Broadcast));
//!     }
//! }
//!
//! let mut echo = Echo::default();
//! let peer = ParticipantIndex::new(2).unwrap();
//! assert_eq!(echo.handle(peer, b"hello", 0), Verdict::Valid);
//! let Some(Effect::Persist { id, .. }) = echo.poll_effect() else { panic!() };
//! assert_eq!(echo.poll_effect(), None); // nothing leaves before the record is durable
//! echo.persisted(id);
//! assert_eq!(echo.poll_effect(), Some(Effect::Broadcast(b"hello"[..].into())));
//! ```

use std::{fmt, sync::Arc};

use veil_protocol_spec::ParticipantIndex;

/// Milliseconds of the host's clock: any origin, never backwards, virtual or real.
pub type Millis = u64;

/// Number of an [`Effect::Persist`] within its machine, to acknowledge it with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PersistId(pub u64);

/// What the host is to do, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect<R, S> {
    /// Make durable before any later effect; then [`Machine::persisted`], or
    /// [`Machine::persist_failed`] if that is impossible.
    Persist {
        /// What to acknowledge with.
        id: PersistId,
        /// What to store.
        record: R,
    },
    /// Deliver to one other participant.
    Send {
        /// The recipient.
        to: ParticipantIndex,
        /// An encoded message.
        bytes: Arc<[u8]>,
    },
    /// Deliver an encoded message to every other participant.
    Broadcast(Arc<[u8]>),
    /// What only this machine asks for.
    Special(S),
}

/// What a machine says of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum Verdict<S, F> {
    /// The message is accepted.
    Valid,
    /// The message is left aside; nobody is to blame, or nobody can be proved to be.
    Skip(S),
    /// The message is refused: its sender, or a signer that it names, misbehaves.
    Fault(F),
}

/// The effects of a machine.
pub type EffectOf<M> = Effect<<M as Machine>::Record, <M as Machine>::Special>;

/// The verdicts of a machine.
pub type VerdictOf<M> = Verdict<<M as Machine>::Skip, <M as Machine>::Fault>;

/// A machine without I/O; see the [crate](self) for the order of calls.
pub trait Machine: Send + 'static {
    /// What it stores for a restart.
    type Record: Send;
    /// The effects that only this machine has.
    type Special: Send;
    /// Why it leaves a message aside.
    type Skip: fmt::Debug + Send;
    /// Why it refuses a message; printed in the log.
    type Fault: fmt::Display + Send;

    /// Accepts an encoded message from an authenticated participant.
    fn handle(
        &mut self,
        from: ParticipantIndex,
        bytes: &[u8],
        now: Millis,
    ) -> Verdict<Self::Skip, Self::Fault>;

    /// The time of [`Self::poll_timeout`] has come; an earlier call does nothing.
    fn handle_timeout(&mut self, now: Millis);

    /// When [`Self::handle_timeout`] is to be called next.
    fn poll_timeout(&self) -> Option<Millis>;

    /// Does one bounded piece of computation; `false` if there is none.
    fn work(&mut self, _now: Millis) -> bool {
        false
    }

    /// The next effect, if any.
    fn poll_effect(&mut self) -> Option<Effect<Self::Record, Self::Special>>;

    /// The record is durable.
    fn persisted(&mut self, _id: PersistId) {}

    /// The record could not be stored. Returns whether the machine goes on without it.
    fn persist_failed(&mut self, _id: PersistId) -> bool {
        false
    }
}

/// A message for a machine that has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoMessages;

/// The part of an `impl Machine` that says that others send it nothing: what comes all the same is left aside.
///
/// ```
/// use std::convert::Infallible;
/// use veil_committee_machine::{Effect, Machine, Millis, NoMessages, Verdict, no_messages};
/// use veil_protocol_spec::ParticipantIndex;
///
/// struct Clock;
///
/// impl Machine for Clock {
///     type Record = Infallible;
///     type Special = Infallible;
///     no_messages!();
///     fn handle_timeout(&mut self, _now: Millis) {}
///     fn poll_timeout(&self) -> Option<Millis> {
///         None
///     }
///     fn poll_effect(&mut self) -> Option<Effect<Infallible, Infallible>> {
///         None
///     }
/// }
///
/// let peer = ParticipantIndex::new(1).unwrap();
/// assert!(matches!(Clock.handle(peer, b"what time is it?", 0), Verdict::Skip(NoMessages)));
/// ```
#[macro_export]
macro_rules! no_messages {
    () => {
        type Skip = $crate::NoMessages;
        type Fault = ::core::convert::Infallible;

        fn handle(
            &mut self,
            _from: ::veil_protocol_spec::ParticipantIndex,
            _bytes: &[u8],
            _now: $crate::Millis,
        ) -> $crate::VerdictOf<Self> {
            $crate::Verdict::Skip($crate::NoMessages)
        }
    };
}
