//! Incoming messages: a bounded queue for each sender, of which the machine takes in turns.
//!
//! Whoever sends without a pause fills the own queue and is told so; a message of another waits for one of
//! each sender that has some, and for what the machine has taken already, whatever else has come before.

use std::collections::{BTreeMap, VecDeque};

use futures::{Stream, StreamExt};
use tokio::sync::mpsc;
use veil_protocol_spec::ParticipantIndex;

use crate::transport::Inbound;

/// Messages of one sender that wait. A driver has a few under way to each participant.
const MOST: usize = 32;

/// What the sender of a message is told.
pub trait Receipt: Send {
    /// There is room for the next one.
    fn taken(self);
    /// Too many of this sender wait already.
    fn full(self);
    /// Nothing listens any more.
    fn closed(self);
}

/// What waits for a machine, by sender.
struct Turns<T> {
    waiting: BTreeMap<ParticipantIndex, VecDeque<T>>,
    /// Whose turn was the last.
    last: Option<ParticipantIndex>,
}

impl<T> Turns<T> {
    const fn new() -> Self {
        Self { waiting: BTreeMap::new(), last: None }
    }

    fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Gives it back if too many of this sender wait.
    fn push(&mut self, from: ParticipantIndex, message: T) -> Result<(), T> {
        let queue = self.waiting.entry(from).or_default();
        if queue.len() >= MOST {
            return Err(message);
        }
        queue.push_back(message);
        Ok(())
    }

    /// The oldest of whoever comes after the last one and has any.
    fn pop(&mut self) -> Option<(ParticipantIndex, T)> {
        let after = |from: &&ParticipantIndex| self.last.is_none_or(|last| **from > last);
        let next = self.waiting.keys().find(after).or_else(|| self.waiting.keys().next()).copied();
        let from = next?;
        let queue = self.waiting.get_mut(&from)?;
        let message = queue.pop_front();
        if queue.is_empty() {
            self.waiting.remove(&from);
        }
        self.last = Some(from);
        Some((from, message?))
    }
}

/// Brings what arrives to a machine, until either ends. Messages of one sender keep their order.
pub async fn deliver<R: Receipt>(
    arriving: impl Stream<Item = (ParticipantIndex, Vec<u8>, R)> + Send,
    machine: mpsc::Sender<Inbound>,
) {
    let mut arriving = core::pin::pin!(arriving);
    let mut turns = Turns::new();
    loop {
        tokio::select! {
            message = arriving.next() => {
                let Some((from, bytes, receipt)) = message else { break };
                if let Err((_, receipt)) = turns.push(from, (bytes, receipt)) {
                    tracing::debug!(%from, "more of this participant's messages wait than may");
                    receipt.full();
                }
            }
            room = machine.reserve(), if !turns.is_empty() => {
                let Ok(room) = room else { break };
                if let Some((from, (bytes, receipt))) = turns.pop() {
                    room.send((from, bytes));
                    receipt.taken();
                }
            }
            () = machine.closed() => break,
        }
    }
    while let Some((_, (_, receipt))) = turns.pop() {
        receipt.closed();
    }
}

#[cfg(test)]
mod tests {
    use futures::stream;
    use tokio::sync::mpsc::UnboundedSender;

    use super::*;

    /// Tells which message, and what became of it.
    struct Told(u8, UnboundedSender<(u8, &'static str)>);

    impl Told {
        fn tell(self, what: &'static str) {
            let _ = self.1.send((self.0, what));
        }
    }

    impl Receipt for Told {
        fn taken(self) {
            self.tell("taken");
        }
        fn full(self) {
            self.tell("full");
        }
        fn closed(self) {
            self.tell("closed");
        }
    }

    fn member(index: u8) -> ParticipantIndex {
        ParticipantIndex::new(index).unwrap()
    }

    struct Sender {
        messages: UnboundedSender<(ParticipantIndex, Vec<u8>, Told)>,
        tell: UnboundedSender<(u8, &'static str)>,
    }

    impl Sender {
        fn send(&self, from: u8, number: u8) {
            let told = Told(number, self.tell.clone());
            self.messages.send((member(from), vec![number], told)).unwrap();
        }
    }

    /// A machine with room for one message, whoever sends to it, and what senders are told.
    fn inbox() -> (Sender, mpsc::Receiver<Inbound>, mpsc::UnboundedReceiver<(u8, &'static str)>) {
        let (messages, mut arriving) = mpsc::unbounded_channel();
        let (tell, told) = mpsc::unbounded_channel();
        let (machine, incoming) = mpsc::channel(1);
        let arriving = stream::poll_fn(move |context| arriving.poll_recv(context));
        tokio::spawn(deliver(arriving, machine));
        (Sender { messages, tell }, incoming, told)
    }

    /// Lets the delivery, on the same thread, do all that it can.
    async fn settle() {
        for _ in 0..1_000 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_member_that_sends_without_a_pause_delays_others_by_one_message_each() {
        let (sender, mut machine, mut told) = inbox();
        for number in 0..100 {
            sender.send(1, number);
        }
        settle().await;
        sender.send(2, 200);
        sender.send(2, 201);
        sender.send(3, 210);
        settle().await;
        let mut taken = Vec::new();
        for _ in 0..7 {
            let (from, bytes) = machine.recv().await.unwrap();
            taken.push((from.get(), bytes[0]));
            settle().await;
        }
        // The first was taken before the others came.
        let expected = [(1, 0), (2, 200), (3, 210), (1, 1), (2, 201), (1, 2), (1, 3)];
        assert_eq!(taken, expected);
        drop(machine);
        settle().await;
        let mut counts = BTreeMap::new();
        while let Ok((number, what)) = told.try_recv() {
            assert!(what != "full" || number < 100, "{number} is of a member that sends little");
            *counts.entry(what).or_insert(0) += 1;
        }
        // One more was taken than was read: the machine's own queue holds it.
        let waited = 1 + MOST;
        assert_eq!(counts["full"], 100 - waited);
        assert_eq!(counts["taken"] + counts["closed"], waited + 3);
        assert_eq!(counts["taken"], 8);
    }
}
