//! What hosts plan with.

use std::collections::BTreeMap;

use veil_committee_machine::Millis;
use veil_protocol_spec::ParticipantIndex;

use crate::{Crash, Host, Mail, life::Input, log::Recorder, network::Network};

/// What happens at an instant.
pub(crate) enum Event<H: Host> {
    Deliver(Mail),
    Give { member: ParticipantIndex, life: u64, input: Input<H> },
    Crash(Crash<H::Moment>),
    Return(ParticipantIndex),
    Host { of: Option<(ParticipantIndex, u64)>, event: HostEvent<H> },
}

type HostEvent<H> = Box<dyn FnOnce(&mut H, &mut Schedule<H>)>;

/// What is planned, and the network that decides when it arrives.
pub struct Schedule<H: Host> {
    pub(crate) now: Millis,
    /// By time and then by the order in which they were planned, so that a run is a function of its
    /// seed.
    events: BTreeMap<Millis, Vec<Event<H>>>,
    pub(crate) network: Network,
    /// Raised by each crash of a member, so that what was under way for its former life is lost.
    pub(crate) lives: Vec<u64>,
    /// The event log, if there is one.
    pub(crate) recorder: Option<Recorder>,
}

impl<H: Host> Schedule<H> {
    pub(crate) fn new(network: Network, recorder: Option<Recorder>) -> Self {
        let lives = vec![0; network.traffic.len()];
        Self { now: 0, events: BTreeMap::new(), network, lives, recorder }
    }

    /// Virtual time.
    #[must_use]
    pub const fn now(&self) -> Millis {
        self.now
    }

    /// Plans an input of a machine's own. It is lost if the member crashes before.
    pub fn input(
        &mut self,
        member: ParticipantIndex,
        delay: Millis,
        input: impl FnOnce(&mut H::Machine, Millis) + Send + 'static,
    ) {
        self.give(member, delay, Input::Own(Box::new(input)));
    }

    /// Plans what happens outside the machines, such as a decision of the chain. If a member's process
    /// does it, it is lost if that crashes before.
    pub fn event(
        &mut self,
        of: Option<ParticipantIndex>,
        delay: Millis,
        event: impl FnOnce(&mut H, &mut Self) + 'static,
    ) {
        let of = of.map(|member| (member, self.lives[member.position()]));
        self.plan(delay, Event::Host { of, event: Box::new(event) });
    }

    /// Puts a message on the network after a delay. It may be lost, doubled or overtaken there.
    pub fn post(&mut self, mail: Mail, delay: Millis) {
        let Mail { from, to, bytes } = &mail;
        let arrivals = self.network.carry(&mail, self.now + delay);
        if arrivals.is_empty() {
            self.record_bytes(bytes, || format!("{from} -> {to} is lost: {}", H::describe(bytes)));
        }
        for way in arrivals {
            self.plan(delay + way, Event::Deliver(mail.clone()));
        }
    }

    /// How long it takes from a member to the commit point, or back. Nothing is lost on this way, but
    /// a member that is cut off waits.
    pub fn way_to_commit_point(&mut self, member: ParticipantIndex) -> Millis {
        self.network.commit_point(member, self.now)
    }

    /// A line in the event log.
    pub fn record(&mut self, event: impl FnOnce() -> String) {
        self.record_bytes(&[], event);
    }

    pub(crate) fn record_bytes(&mut self, bytes: &[u8], event: impl FnOnce() -> String) {
        if let Some(recorder) = &mut self.recorder {
            recorder.record(self.now, bytes, &event());
        }
    }

    pub(crate) fn give(&mut self, member: ParticipantIndex, delay: Millis, input: Input<H>) {
        let life = self.lives[member.position()];
        self.plan(delay, Event::Give { member, life, input });
    }

    pub(crate) fn plan(&mut self, delay: Millis, event: Event<H>) {
        self.events.entry(self.now + delay).or_default().push(event);
    }

    /// Takes all events of the next instant and moves the clock to it. What they cause at the same
    /// instant is another call's.
    pub(crate) fn next_instant(&mut self) -> Option<Vec<Event<H>>> {
        let (time, events) = self.events.pop_first()?;
        self.now = time;
        Some(events)
    }
}
