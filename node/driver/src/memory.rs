//! Participants in one process, for tests: bounded channels, with members that are down and
//! messages that get lost.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::sync::mpsc;
use veil_protocol_spec::{ParticipantIndex, PublicIdentity};

use crate::transport::{Channel, Inbound, Transport, TransportError, Transports};

type Inboxes = BTreeMap<(ParticipantIndex, Channel), mpsc::Sender<Inbound>>;

#[derive(Clone, Default)]
pub(crate) struct MemoryNetwork {
    inboxes: Arc<Mutex<Inboxes>>,
    /// Every message whose number is a multiple of it is lost; 0 loses none.
    lose_every: usize,
    sent: Arc<AtomicUsize>,
}

impl MemoryNetwork {
    pub(crate) fn losing(every: usize) -> Self {
        Self { lose_every: every, ..Self::default() }
    }

    /// A participant's end.
    pub(crate) fn of(&self, me: ParticipantIndex) -> MemoryTransports {
        MemoryTransports { network: self.clone(), me }
    }

    /// Takes a participant down; opening a channel brings it up again.
    pub(crate) fn kill(&self, me: ParticipantIndex) {
        self.inboxes.lock().unwrap().retain(|(j, _), _| *j != me);
    }

    pub(crate) fn sent(&self) -> usize {
        self.sent.load(Ordering::Relaxed)
    }
}

#[derive(Clone)]
pub(crate) struct MemoryTransports {
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
        self.network.inboxes.lock().unwrap().insert((self.me, channel), sender);
        (MemoryTransport { network: self.network.clone(), me: self.me, channel }, receiver)
    }
}

#[derive(Clone)]
pub(crate) struct MemoryTransport {
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
        let inbox = self.network.inboxes.lock().unwrap().get(&(to, self.channel)).cloned();
        let down = || TransportError::Unreachable { to, detail: "it is down".to_owned() };
        let inbox = inbox.ok_or_else(down)?;
        inbox.send((self.me, bytes.to_vec())).await.map_err(|_| down())
    }
}
