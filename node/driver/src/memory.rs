//! Participants in one process, for tests: bounded channels, with members that are down and
//! messages that get lost.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::sync::mpsc;
use veil_protocol_spec::{ParticipantIndex, PublicIdentity};

use crate::transport::{Channel, Inbound, Transport, TransportError, Transports};

type Inboxes = BTreeMap<(ParticipantIndex, Channel), mpsc::Sender<Inbound>>;

/// What connects the participants of one process; a cheap handle.
#[derive(Clone, Default)]
pub struct MemoryNetwork {
    inboxes: Arc<Mutex<Inboxes>>,
    /// Every message whose number is a multiple of it is lost; 0 loses none.
    lose_every: usize,
    sent: Arc<AtomicUsize>,
}

impl MemoryNetwork {
    /// A network that loses each message whose number is a multiple of `every`.
    #[must_use]
    pub fn losing(every: usize) -> Self {
        Self { lose_every: every, ..Self::default() }
    }

    /// The transports of one participant.
    #[must_use]
    pub fn of(&self, me: ParticipantIndex) -> MemoryTransports {
        MemoryTransports { network: self.clone(), me }
    }

    /// Takes a participant down; opening a channel brings it up again.
    pub fn kill(&self, me: ParticipantIndex) {
        self.inboxes.lock().unwrap_or_else(PoisonError::into_inner).retain(|(j, _), _| *j != me);
    }

    /// Messages sent so far, lost ones included.
    #[must_use]
    pub fn sent(&self) -> usize {
        self.sent.load(Ordering::Relaxed)
    }
}

/// The transports of one participant.
#[derive(Clone)]
pub struct MemoryTransports {
    network: MemoryNetwork,
    me: ParticipantIndex,
}

impl Transports for MemoryTransports {
    type Transport = MemoryTransport;

    fn open(
        &self,
        channel: Channel,
        _roster: &[PublicIdentity],
    ) -> (MemoryTransport, mpsc::Receiver<Inbound>) {
        let (sender, receiver) = mpsc::channel(16);
        self.network
            .inboxes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert((self.me, channel), sender);
        (MemoryTransport { network: self.network.clone(), me: self.me, channel }, receiver)
    }
}

/// Carries the messages of one participant on one channel.
#[derive(Clone)]
pub struct MemoryTransport {
    network: MemoryNetwork,
    me: ParticipantIndex,
    channel: Channel,
}

impl Transport for MemoryTransport {
    async fn send(&self, to: ParticipantIndex, bytes: Arc<[u8]>) -> Result<(), TransportError> {
        let count = self.network.sent.fetch_add(1, Ordering::Relaxed) + 1;
        if self.network.lose_every > 0 && count.is_multiple_of(self.network.lose_every) {
            return Ok(());
        }
        let inbox = self
            .network
            .inboxes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&(to, self.channel))
            .cloned();
        let down = || TransportError::Unreachable { to, detail: "it is down".to_owned() };
        let inbox = inbox.ok_or_else(down)?;
        inbox.send((self.me, bytes.to_vec())).await.map_err(|_| down())
    }
}
