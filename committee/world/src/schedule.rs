//! What hosts plan with.

use veil_committee_machine::Millis;
use veil_protocol_spec::ParticipantIndex;

use crate::{Host, log::Recorder, network::Network, queue::EventQueue, seat::Input, world::Event};

/// What is planned, and the network that decides when it arrives.
pub struct Schedule<H: Host> {
    pub(crate) queue: EventQueue<Event<H>>,
    pub(crate) network: Network,
    /// Raised by each crash of a member, so that what was under way for its former life is lost.
    pub(crate) lives: Vec<u64>,
    /// The event log, if there is one.
    pub(crate) recorder: Option<Recorder>,
}

impl<H: Host> Schedule<H> {
    /// Virtual time.
    #[must_use]
    pub const fn now(&self) -> Millis {
        self.queue.now()
    }

    /// Plans an input of a machine. It is lost if the member crashes before.
    pub fn input(&mut self, member: ParticipantIndex, delay: Millis, input: H::Input) {
        self.seat(member, delay, Input::Own(input));
    }

    /// Plans an event, whoever crashes.
    pub fn event(&mut self, delay: Millis, event: H::Event) {
        self.queue.at(self.now() + delay, Event::Host { of: None, event });
    }

    /// Plans an event that is lost if the member crashes before.
    pub fn event_of(&mut self, member: ParticipantIndex, delay: Millis, event: H::Event) {
        let of = Some((member, self.lives[member.position()]));
        self.queue.at(self.now() + delay, Event::Host { of, event });
    }

    /// How long it takes from a member to the commit point, or back. Nothing is lost on this way, but
    /// a member that is cut off waits.
    pub fn way_to_commit_point(&mut self, member: ParticipantIndex) -> Millis {
        self.network.commit_point(member, self.queue.now()) - self.queue.now()
    }

    /// A line in the event log.
    pub fn record(&mut self, event: impl FnOnce() -> String) {
        self.record_bytes(&[], event);
    }

    pub(crate) fn record_bytes(&mut self, bytes: &[u8], event: impl FnOnce() -> String) {
        let now = self.now();
        if let Some(recorder) = &mut self.recorder {
            recorder.record(now, bytes, &event());
        }
    }

    pub(crate) fn seat(&mut self, member: ParticipantIndex, delay: Millis, input: Input<H>) {
        let life = self.lives[member.position()];
        self.queue.at(self.now() + delay, Event::Seat { member, life, input });
    }
}
