//! One simulated world for every machine: virtual time, a network, disks, crashes, an event log.
//!
//! # Roles
//! - [`World`] runs the members of one session: it brings messages, timeouts and acknowledgements to
//!   their machines and carries out what these ask for, with one event loop for every
//!   [`Machine`].
//! - A [`Host`] says what is special about a kind of session: how a member is made from its disk,
//!   what the machine's own effects mean, and what a member that deviates sends.
//! - A [`Schedule`] is what hosts plan with: inputs of machines, events outside them, messages.
//! - [`Conditions`] and [`Crash`] are what goes wrong.
//!
//! # An instant
//! 1. All events of the next instant are taken, in the order in which they were planned.
//! 2. Each machine takes its inputs, beside the others, on all cores: machines share nothing.
//! 3. The effects are carried out, member by member, in order. A record takes
//!    [`Physics::store`] to become durable; the member's later effects wait for it, as the machine's
//!    contract says. What they cause at the same instant is another round of it.
//!
//! # State and restart
//! A member that crashes keeps what its host has [stored](Host::store), and nothing else: messages
//! under way to it arrive if it is back by then, its timers, inputs and uncarried effects are lost. Then
//! its host makes it anew.
//!
//! There is no clock and no entropy here: a run is a function of host, physics and seed, and the same
//! run has the same [trace](EventLog::trace).
//!
//! # Example
//! Two machines, of which one calls and the other answers:
//!
//! ```
//! use std::{convert::Infallible, sync::Arc};
//! use veil_committee_machine::{Effect, Machine, Millis, Verdict};
//! use veil_committee_world::{Host, Physics, Schedule, World};
//! use veil_protocol_spec::{Committee, ParticipantIndex};
//!
//! struct Caller(Option<Arc<[u8]>>, usize);
//!
//! impl Machine for Caller {
//!     type Record = Infallible;
//!     type Special = Infallible;
//!     type Skip = Infallible;
//!     type Fault = Infallible;
//!
//!     fn handle(&mut self, _: ParticipantIndex, _: &[u8], _: Millis) -> Verdict<Infallible, Infallible> {
//!         self.1 += 1;
//!         Verdict::Valid
//!     }
//!     fn handle_timeout(&mut self, _: Millis) {}
//!     fn poll_timeout(&self) -> Option<Millis> { None }
//!     fn poll_effect(&mut self) -> Option<Effect<Infallible, Infallible>> {
//!         self.0.take().map(Effect::Broadcast)
//!     }
//! }
//!
//! struct Call;
//!
//! impl Host for Call {
//!     type Machine = Caller;
//!     type Moment = ();
//!
//!     fn boot(&mut self, _: ParticipantIndex, _: &mut Schedule<Self>) -> Option<Caller> {
//!         Some(Caller(Some(b"hello"[..].into()), 0))
//!     }
//!     fn special(&mut self, _: ParticipantIndex, special: Infallible, _: &mut Schedule<Self>) {
//!         match special {}
//!     }
//! }
//!
//! let committee = Committee::new(4).unwrap();
//! let physics = Physics { recorded: Some("call".into()), seed: [7; 32], ..Physics::default() };
//! let ended = World::new(Call, committee, physics, Vec::new()).run();
//! assert!(ended.machines.iter().all(|caller| caller.as_ref().unwrap().1 == 3));
//! assert_eq!(ended.log.text().matches("arrives").count(), 12);
//! ```

mod life;
mod log;
mod network;
mod schedule;
mod world;

use std::{borrow::Cow, sync::Arc};

use serde::{Deserialize, Serialize};
use veil_committee_machine::{EffectOf, Machine, Millis, VerdictOf};
use veil_protocol_spec::ParticipantIndex;

pub use self::{
    log::EventLog,
    network::{Conditions, Partition, Traffic},
    schedule::Schedule,
    world::{End, Ended, Physics, World},
};

/// The moment of a crash. Effects that were not carried out by then are lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum When<M> {
    /// At this time.
    Time(Millis),
    /// When the member has carried out this many effects, over all its lives.
    AfterEffects(u64),
    /// At a moment of this kind of session.
    At(M),
}

/// A member's process dies, once; its disk stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Crash<M> {
    /// Who.
    pub participant: ParticipantIndex,
    /// When.
    pub at: When<M>,
    /// How long it is away; `None`: until nothing happens any more.
    pub away: Option<Millis>,
}

/// A message from one member to another.
#[derive(Clone, Debug)]
pub struct Mail {
    /// The member that the transport names.
    pub from: ParticipantIndex,
    /// The recipient.
    pub to: ParticipantIndex,
    /// An encoded message.
    pub bytes: Arc<[u8]>,
}

/// One kind of session: what surrounds the machines in it.
///
/// Its methods carry out effects for all members of the world; they see no clock but [`Schedule::now`].
pub trait Host: Sized {
    /// The machine of each member.
    type Machine: Machine;
    /// Moments at which a plan may let a member crash.
    type Moment: Copy + PartialEq + Send;

    /// Makes a member's machine from what the member has on disk; at the start and after each crash.
    /// `None`: the member is not there, and does not come back.
    fn boot(
        &mut self,
        member: ParticipantIndex,
        schedule: &mut Schedule<Self>,
    ) -> Option<Self::Machine>;

    /// Carries out an effect that only this machine has.
    fn special(
        &mut self,
        member: ParticipantIndex,
        special: <Self::Machine as Machine>::Special,
        schedule: &mut Schedule<Self>,
    );

    /// A member's process has died, with its machine. `storing`: while a record was on its way to the
    /// disk, which is lost.
    fn crashed(&mut self, _member: ParticipantIndex, _machine: &Self::Machine, _storing: bool) {}

    /// A record is durable.
    fn store(&mut self, _member: ParticipantIndex, _record: <Self::Machine as Machine>::Record) {}

    /// A message leaves a member. For one that deviates the host posts more, nothing, something else,
    /// or later.
    fn leave(&mut self, mail: Mail, schedule: &mut Schedule<Self>) {
        schedule.post(mail, 0);
    }

    /// A message has arrived, and this is what the machine said of it.
    fn verdict(&mut self, _mail: &Mail, _verdict: VerdictOf<Self::Machine>) {}

    /// The moment at which a machine is after an input, if it is one to crash at.
    fn moment(_machine: &Self::Machine) -> Option<Self::Moment> {
        None
    }

    /// The moment that has come since an effect was carried out; a record is durable by then.
    fn moment_of(
        &self,
        _member: ParticipantIndex,
        _effect: &EffectOf<Self::Machine>,
    ) -> Option<Self::Moment> {
        None
    }

    /// A round of an instant has ended. Whether nothing else needs to happen.
    fn is_over<'a>(&mut self, _machines: impl Iterator<Item = &'a Self::Machine>) -> bool
    where
        Self::Machine: 'a,
    {
        false
    }

    /// A message for a reader of the event log.
    fn describe(_bytes: &[u8]) -> Cow<'static, str> {
        "a message".into()
    }
}
