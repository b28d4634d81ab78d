//! Who may send what, and how fast: asked before a body is read.
//!
//! # Flow
//! - [`Admission::request`] knows protocol and length of a request from its head. Only members may use
//!   the committee's protocols; the budget is that of the peer on this protocol; then it waits until the
//!   peer's requests in hand leave room. A request is in hand until it is answered.
//! - [`Admission::gossip`] takes a message of a connected peer, its own or relayed.
//! - [`Admission::stream`] takes a stream on which the peer fetches a file, [`Admission::session`] any other stream.
//! - [`Admission::charge`] counts what the peer made this node send.
//!
//! # State
//! An account for each registered peer; none for others.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use libp2p::PeerId;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use veil_protocol_spec::registry::Roles;

use crate::{
    budget::Budget,
    directory::Directory,
    identity::peer_id,
    kind::StreamKind,
    kind::{KIB, MIB, Protocol, Topic},
    rates::{Rate, Rates},
    refusal::Refusal,
};

/// Bodies of one member's requests in memory at once. A driver sends four messages of 2 MiB at a time.
const MEMBER_ROOM: usize = 32 * MIB;
/// The unit of that room.
const UNIT: usize = KIB;
/// Questions of one peer in hand at once: what a peer that catches up may ask.
const QUESTIONS: usize = 64;
/// Requests of one peer that wait for room at once; a peer has 48 under way. libp2p keeps the first
/// 256 KiB of each.
const WAITING: usize = 64;
/// Files that one peer fetches at once.
const STREAMS: usize = 2;
/// Streams of one kind that one peer has open at once: as an entry node it opens one for each session. QUIC carries 256
/// streams of a peer, gossip and requests among them.
const SESSIONS: usize = 64;

/// What a request in hand takes from its peer's room, as long as it lives.
pub(crate) type Held = Option<OwnedSemaphorePermit>;

/// What a budget is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Use {
    Request(Protocol),
    /// Written by the peer itself.
    Own(Topic),
    /// Written by others.
    Relayed(Topic),
    Blobs,
    Stream(StreamKind),
}

#[derive(Debug)]
struct Account {
    roles: Roles,
    budgets: HashMap<Use, Budget>,
    /// For the committee's protocols.
    room: Arc<Semaphore>,
    questions: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
    streams: Arc<Semaphore>,
    sessions: [Arc<Semaphore>; StreamKind::ALL.len()],
}

/// What a request takes of its peer's room.
struct Room {
    room: Arc<Semaphore>,
    units: u32,
    waiting: Arc<Semaphore>,
}

impl Account {
    fn new(roles: Roles) -> Self {
        Self {
            roles,
            budgets: HashMap::new(),
            room: Arc::new(Semaphore::new(MEMBER_ROOM / UNIT)),
            questions: Arc::new(Semaphore::new(QUESTIONS)),
            waiting: Arc::new(Semaphore::new(WAITING)),
            streams: Arc::new(Semaphore::new(STREAMS)),
            sessions: StreamKind::ALL.map(|_| Arc::new(Semaphore::new(SESSIONS))),
        }
    }
}

#[derive(Debug)]
struct Accounts {
    rates: Rates,
    peers: HashMap<PeerId, Account>,
}

/// The accounts of the registered peers; cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Admission(Arc<Mutex<Accounts>>);

impl Admission {
    pub(crate) fn new(rates: Rates) -> Self {
        Self(Arc::new(Mutex::new(Accounts { rates, peers: HashMap::new() })))
    }

    fn lock(&self) -> MutexGuard<'_, Accounts> {
        // Each account is valid on its own, also after the panic of another holder.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Follows the directory: the accounts of those that leave it are closed.
    pub(crate) fn update(&self, directory: &Directory) {
        let mut accounts = self.lock();
        let mut old = core::mem::take(&mut accounts.peers);
        for (_, peer) in directory.iter() {
            let Ok(id) = peer_id(&peer.identity) else { continue };
            let known = old.remove(&id).filter(|account| account.roles == peer.roles);
            accounts.peers.insert(id, known.unwrap_or_else(|| Account::new(peer.roles)));
        }
    }

    /// A request of `len` bytes, of which the head was read.
    pub(crate) async fn request(
        &self,
        peer: PeerId,
        protocol: Protocol,
        len: usize,
    ) -> Result<Held, Refusal> {
        let taken = self.lock().request(peer, protocol, len, Instant::now())?;
        let Some(Room { room, units, waiting }) = taken else { return Ok(None) };
        let Ok(_waits) = waiting.try_acquire() else { return Err(Refusal::TooMuch) };
        // Fails only if the semaphore is closed, which nobody does.
        room.acquire_many_owned(units).await.map(Some).map_err(|_| Refusal::NotRegistered)
    }

    /// A message that `relay` brought.
    pub(crate) fn gossip(
        &self,
        relay: &PeerId,
        author: &PeerId,
        topic: Topic,
        len: usize,
    ) -> Result<(), Refusal> {
        self.lock().gossip(relay, author, topic, len, Instant::now())
    }

    /// A stream of a file.
    pub(crate) fn stream(&self, peer: &PeerId) -> Result<OwnedSemaphorePermit, Refusal> {
        let mut accounts = self.lock();
        let rate = accounts.rates.blobs;
        let account = accounts.peers.get_mut(peer).ok_or(Refusal::NotRegistered)?;
        account.take(Use::Blobs, rate, 0, Instant::now())?;
        Arc::clone(&account.streams).try_acquire_owned().map_err(|_| Refusal::TooManyStreams)
    }

    /// A stream of a kind.
    pub(crate) fn session(
        &self,
        peer: &PeerId,
        kind: StreamKind,
    ) -> Result<OwnedSemaphorePermit, Refusal> {
        let mut accounts = self.lock();
        let rate = accounts.rates.streams;
        let account = accounts.peers.get_mut(peer).ok_or(Refusal::NotRegistered)?;
        if kind.is_for_workers() && !account.roles.worker {
            return Err(Refusal::NotAWorker);
        }
        account.take(Use::Stream(kind), rate, 0, Instant::now())?;
        let sessions = account.sessions.get(kind as usize).ok_or(Refusal::NotServed)?;
        Arc::clone(sessions).try_acquire_owned().map_err(|_| Refusal::TooManyStreams)
    }

    /// Bytes that the peer made this node send.
    pub(crate) fn charge(&self, peer: &PeerId, reason: Use, bytes: usize) {
        let mut accounts = self.lock();
        let rate = accounts.rate(reason);
        let Some(account) = accounts.peers.get_mut(peer) else { return };
        account.budget(reason, rate, Instant::now()).charge(rate, bytes as u64, Instant::now());
    }
}

impl Account {
    fn budget(&mut self, reason: Use, rate: Rate, now: Instant) -> &mut Budget {
        self.budgets.entry(reason).or_insert_with(|| Budget::full(rate, now))
    }

    fn take(&mut self, reason: Use, rate: Rate, len: usize, now: Instant) -> Result<(), Refusal> {
        self.budget(reason, rate, now).take(rate, len, now)
    }
}

impl Accounts {
    fn rate(&self, reason: Use) -> Rate {
        /// Of what the configuration leaves out, nothing is taken.
        const NONE: Rate = Rate { per_second: 0, burst: 0, bytes_per_second: 0, burst_bytes: 0 };
        let of = |rate: Option<&Rate>| rate.copied().unwrap_or(NONE);
        match reason {
            Use::Request(protocol) => of(self.rates.requests.get(&protocol)),
            Use::Own(topic) => of(self.rates.gossip.get(&topic)),
            Use::Relayed(topic) => of(self.rates.gossip.get(&topic)).of_all(self.peers.len()),
            Use::Blobs => self.rates.blobs,
            Use::Stream(_) => self.rates.streams,
        }
    }

    fn request(
        &mut self,
        peer: PeerId,
        protocol: Protocol,
        len: usize,
        now: Instant,
    ) -> Result<Option<Room>, Refusal> {
        let rate = self.rate(Use::Request(protocol));
        let account = self.peers.get_mut(&peer).ok_or(Refusal::NotRegistered)?;
        if protocol.is_for_members() && !account.roles.member {
            return Err(Refusal::NotAMember);
        }
        if len > protocol.max_request() {
            return Err(Refusal::TooLong);
        }
        account.take(Use::Request(protocol), rate, len, now)?;
        let units = u32::try_from(len.div_ceil(UNIT)).map_err(|_| Refusal::TooLong)?;
        let (room, units) = match protocol {
            Protocol::Swim => return Ok(None), // answered at once
            Protocol::Sync => (&account.questions, 1),
            _ => (&account.room, units),
        };
        let (room, waiting) = (Arc::clone(room), Arc::clone(&account.waiting));
        Ok(Some(Room { room, units, waiting }))
    }

    fn gossip(
        &mut self,
        relay: &PeerId,
        author: &PeerId,
        topic: Topic,
        len: usize,
        now: Instant,
    ) -> Result<(), Refusal> {
        let writer = self.peers.get(author).ok_or(Refusal::UnknownAuthor)?;
        if topic.is_for_members() && !writer.roles.member {
            return Err(Refusal::NotAMember);
        }
        let reason = if relay == author { Use::Own(topic) } else { Use::Relayed(topic) };
        let rate = self.rate(reason);
        let account = self.peers.get_mut(relay).ok_or(Refusal::NotRegistered)?;
        account.take(reason, rate, len, now)
    }
}

#[cfg(test)]
mod tests {
    use veil_protocol_spec::identity::SecretIdentity;

    use super::*;
    use crate::directory::Peer;

    fn peer(byte: u8, member: bool) -> (Peer, PeerId) {
        let identity = SecretIdentity::from_bytes(&[byte; 32]).unwrap().public();
        (Peer { identity, roles: Roles { worker: true, member } }, peer_id(&identity).unwrap())
    }

    fn admission(peers: &[Peer]) -> Admission {
        let admission = Admission::new(Rates::default());
        admission.update(&peers.iter().copied().collect());
        admission
    }

    #[tokio::test]
    async fn the_role_comes_before_the_length_and_the_length_before_the_budget() {
        let ((member, m), (worker, w)) = (peer(1, true), peer(2, false));
        let admission = admission(&[member, worker]);
        let (stranger, longest) = (PeerId::random(), Protocol::Ceremony.max_request());
        let ask = |peer, protocol, len| admission.request(peer, protocol, len);
        assert!(ask(m, Protocol::Ceremony, longest).await.unwrap().is_some());
        let too_long = ask(m, Protocol::Ceremony, longest + 1).await;
        assert_eq!(too_long.unwrap_err(), Refusal::TooLong);
        let other = ask(w, Protocol::Ceremony, longest + 1).await;
        assert_eq!(other.unwrap_err(), Refusal::NotAMember);
        assert!(ask(w, Protocol::Sync, 10).await.is_ok());
        assert_eq!(ask(stranger, Protocol::Sync, 1).await.unwrap_err(), Refusal::NotRegistered);
        let gossip = |relay, author| admission.gossip(relay, author, Topic::Certificates, 1);
        assert_eq!(gossip(&w, &m), Ok(()), "relayed");
        assert_eq!(gossip(&m, &w), Err(Refusal::NotAMember));
        assert_eq!(gossip(&m, &stranger), Err(Refusal::UnknownAuthor));
    }

    #[tokio::test]
    async fn requests_in_hand_are_bounded_for_each_peer_alone() {
        let ((a, first), (b, second)) = (peer(1, true), peer(2, true));
        let admission = admission(&[a, b]);
        let longest = Protocol::Ceremony.max_request();
        let ask = |peer| admission.request(peer, Protocol::Ceremony, longest);
        let mut held = Vec::new();
        for _ in 0..MEMBER_ROOM / longest {
            held.push(ask(first).await.unwrap());
        }
        let mut waiting: Vec<_> = (0..WAITING).map(|_| Box::pin(ask(first))).collect();
        for next in &mut waiting {
            assert!(futures::poll!(next).is_pending(), "it waits");
        }
        assert_eq!(ask(first).await.unwrap_err(), Refusal::TooMuch, "too many wait");
        assert!(ask(second).await.is_ok());
        held.pop();
        assert!(waiting.remove(0).await.is_ok());
    }

    #[test]
    fn a_relay_answers_for_what_it_writes_and_not_for_what_it_passes_on() {
        let ((a, author), (b, relay)) = (peer(1, true), peer(2, true));
        let admission = admission(&[a, b]);
        let burst = Rates::default().gossip[&Topic::Telemetry].burst;
        let now = Instant::now();
        let bring = |relay: &PeerId| {
            let mut accounts = admission.lock();
            (0..).find(|_| accounts.gossip(relay, &author, Topic::Telemetry, 1, now).is_err())
        };
        assert_eq!(bring(&author), Some(burst));
        assert_eq!(bring(&relay), Some(2 * burst), "as much as both may write");
        let (telemetry, own) = (Topic::Telemetry, admission.gossip(&relay, &relay, Topic::Jobs, 1));
        assert_eq!(own, Ok(()));
        assert!(admission.gossip(&author, &relay, telemetry, 1).is_ok(), "its own budget is whole");
    }

    #[test]
    fn what_a_peer_fetches_makes_it_wait() {
        let (a, id) = peer(1, false);
        let admission = admission(&[a]);
        let (one, two) = (admission.stream(&id).unwrap(), admission.stream(&id).unwrap());
        assert_eq!(admission.stream(&id).unwrap_err(), Refusal::TooManyStreams);
        drop((one, two));
        let burst = Rates::default().blobs.burst_bytes;
        admission.charge(&id, Use::Blobs, usize::try_from(2 * burst).unwrap());
        assert_eq!(admission.stream(&id).unwrap_err(), Refusal::TooMuch);
        admission.update(&Directory::default());
        assert_eq!(admission.stream(&id).unwrap_err(), Refusal::NotRegistered);
    }

    #[test]
    fn streams_are_bounded_for_each_peer_and_links_are_for_workers() {
        let (mut a, first) = peer(1, true);
        let (b, second) = peer(2, false);
        a.roles.worker = false;
        let admission = admission(&[a, b]);
        assert_eq!(admission.session(&first, StreamKind::Link).unwrap_err(), Refusal::NotAWorker);
        let open = |kind| admission.session(&second, kind);
        let held: Vec<_> = (0..SESSIONS).map(|_| open(StreamKind::Reach).unwrap()).collect();
        assert_eq!(open(StreamKind::Reach).unwrap_err(), Refusal::TooManyStreams);
        assert!(open(StreamKind::Link).is_ok(), "another kind");
        assert!(admission.session(&first, StreamKind::Reach).is_ok(), "another peer");
        drop(held);
        let burst = Rates::default().streams.burst as usize;
        let mut more = 0;
        while open(StreamKind::Reach).is_ok() {
            more += 1;
        }
        assert_eq!(open(StreamKind::Reach).unwrap_err(), Refusal::TooOften);
        assert!(more < burst, "{more}");
    }
}
