//! Participants in one process, for tests: bounded channels, with members that are down and
//! messages that get lost.

use std::sync::{Arc, Mutex};

use tokio::sync::mpsc;
use veil_protocol_spec::{Committee, ParticipantIndex};

use super::{Inbound, Link, LinkError};

type Slot = Option<mpsc::Sender<Inbound>>;

#[derive(Clone)]
pub(crate) struct MemoryNetwork {
    inboxes: Arc<Mutex<Vec<Slot>>>,
    /// Every message with this number modulo it is lost; 0 loses none.
    lose_every: usize,
    sent: Arc<std::sync::atomic::AtomicUsize>,
}

impl MemoryNetwork {
    pub(crate) fn new(committee: Committee) -> Self {
        let inboxes = Arc::new(Mutex::new(vec![None; committee.n()]));
        Self { inboxes, lose_every: 0, sent: Arc::default() }
    }

    pub(crate) fn losing(mut self, every: usize) -> Self {
        self.lose_every = every;
        self
    }

    /// Brings a participant up; what was sent to its former self is gone.
    pub(crate) fn join(&self, me: ParticipantIndex) -> (MemoryLink, mpsc::Receiver<Inbound>) {
        let (sender, receiver) = mpsc::channel(16);
        self.inboxes.lock().unwrap()[me.position()] = Some(sender);
        (MemoryLink { network: self.clone(), me }, receiver)
    }

    pub(crate) fn kill(&self, me: ParticipantIndex) {
        self.inboxes.lock().unwrap()[me.position()] = None;
    }
}

#[derive(Clone)]
pub(crate) struct MemoryLink {
    network: MemoryNetwork,
    me: ParticipantIndex,
}

impl Link for MemoryLink {
    async fn send(&self, to: ParticipantIndex, bytes: Arc<[u8]>) -> Result<(), LinkError> {
        let count = self.network.sent.fetch_add(1, std::sync::atomic::Ordering::Relaxed) + 1;
        if self.network.lose_every > 0 && count.is_multiple_of(self.network.lose_every) {
            return Ok(());
        }
        let inbox = self.network.inboxes.lock().unwrap()[to.position()].clone();
        let down = || LinkError::Unreachable { to, detail: "it is down".to_owned() };
        let inbox = inbox.ok_or_else(down)?;
        inbox.send((self.me, bytes.to_vec())).await.map_err(|_| down())
    }
}
