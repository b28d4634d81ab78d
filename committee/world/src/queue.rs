//! Virtual time: the events that are planned, by time.

use std::collections::BTreeMap;

use veil_committee_machine::Millis;

/// What is going to happen, by time and then by the order in which it was planned, so that a run is a
/// function of its seed.
#[derive(Debug)]
pub(crate) struct EventQueue<E> {
    now: Millis,
    events: BTreeMap<Millis, Vec<E>>,
}

impl<E> Default for EventQueue<E> {
    fn default() -> Self {
        Self { now: 0, events: BTreeMap::new() }
    }
}

impl<E> EventQueue<E> {
    /// The time of the events that were taken last.
    pub(crate) const fn now(&self) -> Millis {
        self.now
    }

    /// Plans an event; not before now.
    pub(crate) fn at(&mut self, time: Millis, event: E) {
        self.events.entry(time.max(self.now)).or_default().push(event);
    }

    /// Takes all events of the next instant and moves the clock to it. What they cause at the same
    /// instant is another call's.
    pub(crate) fn pop_instant(&mut self) -> Option<Vec<E>> {
        let (time, events) = self.events.pop_first()?;
        self.now = time;
        Some(events)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_by_time_and_then_in_order() {
        let mut queue = EventQueue::default();
        queue.at(5, 'c');
        queue.at(3, 'a');
        queue.at(3, 'b');
        assert_eq!((queue.pop_instant(), queue.now()), (Some(vec!['a', 'b']), 3));
        queue.at(0, 'x'); // not before now
        assert_eq!((queue.pop_instant(), queue.now()), (Some(vec!['x']), 3));
        assert_eq!((queue.pop_instant(), queue.now()), (Some(vec!['c']), 5));
        assert_eq!((queue.pop_instant(), queue.now()), (None, 5));
    }
}
