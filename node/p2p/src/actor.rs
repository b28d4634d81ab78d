//! The task that owns the libp2p swarm.
//!
//! It takes commands from the handles and hands messages to subscribers and servers; it never waits
//! for them. It keeps a connection to every registered peer whose address it knows.

mod events;
mod links;
mod start;

use std::{
    collections::{BTreeSet, HashMap, VecDeque, hash_map::Entry},
    sync::Arc,
    time::{Duration, Instant},
};

use futures::StreamExt;
use libp2p::{
    Multiaddr, PeerId, Swarm, connection_limits,
    gossipsub::PublishError as GossipError,
    ping,
    request_response::OutboundRequestId,
    swarm::{
        NetworkBehaviour,
        dial_opts::{DialOpts, PeerCondition},
    },
};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use veil_node_process::metrics::Metrics;
use veil_protocol_spec::PeerIdHash;

use self::links::Links;
use crate::{
    admission::{Admission, Use},
    command::{Command, Gossip, Incoming},
    dialer::Dialer,
    directory::Directory,
    error::{PublishError, RequestError},
    gate::Gate,
    gossip::{Gossipsub, Topics},
    kind::{Lane, Protocol, Topic},
    refusal::Refusal,
    request::{Answer, Call, MAX_IN_FLIGHT, Requests},
    round_trips::RoundTrips,
    swim,
    traffic::Counters,
};

/// How often the task looks for registered peers to dial.
const DIAL_INTERVAL: Duration = Duration::from_millis(250);

/// Requests to one peer that wait until others are answered.
const MAX_WAITING: usize = 1024;

#[derive(NetworkBehaviour)]
struct Behaviour {
    // The first field: it decides before the others see a connection.
    gate: Gate,
    limits: connection_limits::Behaviour,
    gossip: Gossipsub,
    ping: ping::Behaviour,
    requests: Requests,
    swim: Requests,
    streams: libp2p_stream::Behaviour,
}

/// A request without an answer yet.
#[derive(Debug)]
struct Pending {
    to: PeerIdHash,
    protocol: Protocol,
    reply: oneshot::Sender<Result<Vec<u8>, RequestError>>,
}

/// Requests to one peer on one lane. libp2p silently drops requests beyond its own limit of streams,
/// so `in_flight` stays below it.
#[derive(Debug, Default)]
struct LaneQueue {
    in_flight: usize,
    waiting: VecDeque<(Pending, Vec<u8>)>,
}

struct Actor {
    swarm: Swarm<Behaviour>,
    topics: Topics,
    admission: Admission,
    metrics: Metrics,
    directory: watch::Receiver<Arc<Directory>>,
    commands: mpsc::UnboundedReceiver<Command>,
    /// For the verdicts and responders that the task hands out.
    commands_back: mpsc::UnboundedSender<Command>,
    to_swim: mpsc::Sender<swim::Input>,
    subscribers: HashMap<Topic, Vec<mpsc::Sender<Gossip>>>,
    servers: HashMap<Protocol, mpsc::Sender<Incoming>>,
    pending: HashMap<(Lane, OutboundRequestId), Pending>,
    lanes: HashMap<(Lane, PeerId), LaneQueue>,
    links: Links,
    /// Peers that closed the last connection before they sent a message.
    shunned_by: BTreeSet<PeerIdHash>,
    dialer: Dialer,
    connected: watch::Sender<BTreeSet<PeerIdHash>>,
    addresses: watch::Sender<Vec<Multiaddr>>,
    counters: Counters,
    round_trips: RoundTrips,
    last_refusal_log: Option<Instant>,
}

impl Actor {
    async fn run(mut self, stop: CancellationToken) {
        let mut tick = tokio::time::interval(DIAL_INTERVAL);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                event = self.swarm.select_next_some() => self.on_event(event),
                Some(command) = self.commands.recv() => self.on_command(command),
                Ok(()) = self.directory.changed() => self.on_directory(),
                _ = tick.tick() => self.dial_missing(),
            }
        }
    }

    fn on_directory(&mut self) {
        let directory = self.directory.borrow_and_update().clone();
        tracing::info!(peers = directory.len(), "the directory has changed");
        let gate = &mut self.swarm.behaviour_mut().gate;
        gate.update(&directory);
        self.admission.update(&directory);
        let gate = &*gate;
        self.dialer.retain(|peer| gate.hash_of(peer).is_some());
        self.shunned_by.retain(|peer| gate.peer_of(peer).is_some());
        self.dial_missing();
    }

    /// Dials every registered peer that has an address, no connection, and no backoff that runs.
    fn dial_missing(&mut self) {
        let now = Instant::now();
        let due: Vec<PeerId> = self
            .swarm
            .behaviour()
            .gate
            .reachable(now)
            .filter(|peer| !self.links.contains(peer) && self.dialer.is_due(peer, now))
            .collect();
        for peer in due {
            self.dialer.attempt(peer, now);
            let dial =
                DialOpts::peer_id(peer).condition(PeerCondition::DisconnectedAndNotDialing).build();
            if let Err(reason) = self.swarm.dial(dial) {
                tracing::debug!(%peer, %reason, "did not dial");
            }
        }
    }

    fn on_command(&mut self, command: Command) {
        match command {
            Command::Publish { topic, bytes, reply } => {
                let _ = reply.send(self.publish(topic, bytes)); // the caller may have given up
            }
            Command::Subscribe { topic, queue } => self.subscribe(topic, queue),
            Command::Verdict { message, relay, acceptance } => {
                let gossip = &mut self.swarm.behaviour_mut().gossip;
                if !gossip.report_message_validation_result(&message, &relay, acceptance) {
                    tracing::debug!(%message, "a verdict came too late to count");
                }
            }
            Command::Request { to, protocol, bytes, reply } => {
                self.request(Pending { to, protocol, reply }, bytes);
            }
            Command::Serve { protocol, queue } => {
                self.servers.insert(protocol, queue);
            }
            Command::Respond { to, protocol, channel, answer } => {
                if let Answer::Done(bytes) = &answer {
                    let len = bytes.len();
                    self.counters.protocol(protocol, |count| count.send(len));
                    self.admission.charge(&to, Use::Request(protocol), len);
                }
                let behaviour = self.swarm.behaviour_mut().requests_on(protocol.lane());
                // An error means that the peer has gone or given up.
                let _ = behaviour.send_response(channel, answer);
            }
            Command::Refused { peer, protocol, refusal } => self.refuse(peer, protocol, refusal),
            Command::Learn { peer, addresses } => {
                let gate = &mut self.swarm.behaviour_mut().gate;
                gate.learn(&peer, addresses);
                if let Some(id) = gate.peer_of(&peer) {
                    self.dialer.reset(&id);
                }
            }
            Command::Restarted(peer) => {
                let id = self.swarm.behaviour().gate.peer_of(&peer);
                if let Some(id) = id.filter(|id| self.links.connections(id) > 1) {
                    self.begin_anew(id);
                }
            }
        }
    }

    /// Counts a refusal, and lets the peer wait if there were too many.
    fn refuse(&mut self, peer: PeerId, protocol: &'static str, refusal: Refusal) {
        tracing::debug!(%peer, protocol, reason = %refusal, "refused");
        self.metrics.refuse(protocol, refusal.name());
        let gate = &mut self.swarm.behaviour_mut().gate;
        if let Some(pause) = gate.fault(peer, refusal, Instant::now()) {
            tracing::warn!(
                %peer, protocol, reason = %refusal, ?pause,
                "the peer misbehaves: disconnected for a while"
            );
        }
    }

    fn subscribe(&mut self, topic: Topic, queue: mpsc::Sender<Gossip>) {
        self.subscribers.entry(topic).or_default().push(queue);
        let ident = self.topics.ident(topic);
        if let Err(reason) = self.swarm.behaviour_mut().gossip.subscribe(ident) {
            tracing::error!(%topic, %reason, "cannot subscribe");
        }
    }

    fn publish(&mut self, topic: Topic, bytes: Vec<u8>) -> Result<(), PublishError> {
        let len = bytes.len();
        let ident = self.topics.ident(topic).clone();
        let published = self.swarm.behaviour_mut().gossip.publish(ident, bytes);
        published.map_err(|error| match error {
            GossipError::Duplicate => PublishError::Duplicate(topic),
            GossipError::NoPeersSubscribedToTopic => PublishError::NoPeers(topic),
            GossipError::MessageTooLarge => {
                PublishError::TooLarge { topic, len, max: topic.max_bytes() }
            }
            GossipError::AllQueuesFull(_) => PublishError::Congested(topic),
            GossipError::SigningError(_) | GossipError::TransformFailed(_) => PublishError::Signing,
        })?;
        self.counters.topic(topic, |count| count.send(len));
        Ok(())
    }

    fn request(&mut self, pending: Pending, bytes: Vec<u8>) {
        let Some(peer) = self.swarm.behaviour().gate.peer_of(&pending.to) else {
            let error = RequestError::NotRegistered(pending.to);
            let _ = pending.reply.send(Err(error)); // the caller may have given up
            return;
        };
        let lane = pending.protocol.lane();
        if lane == Lane::Swim && !self.links.contains(&peer) {
            // A probe of an unconnected peer is lost; only the dialer connects.
            let _ = pending.reply.send(Err(RequestError::NotConnected(pending.to)));
            return;
        }
        let queue = self.lanes.entry((lane, peer)).or_default();
        if queue.in_flight < MAX_IN_FLIGHT {
            self.send(peer, pending, bytes);
        } else if lane == Lane::Bulk && queue.waiting.len() < MAX_WAITING {
            queue.waiting.push_back((pending, bytes));
        } else {
            let _ = pending.reply.send(Err(RequestError::Busy(pending.to)));
        }
    }

    fn send(&mut self, peer: PeerId, pending: Pending, bytes: Vec<u8>) {
        let lane = pending.protocol.lane();
        let len = bytes.len();
        self.counters.protocol(pending.protocol, |count| count.send(len));
        let call = Call::Read(pending.protocol, bytes, None);
        let id = self.swarm.behaviour_mut().requests_on(lane).send_request(&peer, call);
        self.pending.insert((lane, id), pending);
        self.lanes.entry((lane, peer)).or_default().in_flight += 1;
    }

    /// A request has ended: sends the next one whose caller still waits.
    fn finish(&mut self, lane: Lane, peer: PeerId, id: OutboundRequestId) -> Option<Pending> {
        let finished = self.pending.remove(&(lane, id))?;
        if let Entry::Occupied(mut entry) = self.lanes.entry((lane, peer)) {
            let queue = entry.get_mut();
            queue.in_flight = queue.in_flight.saturating_sub(1);
            queue.waiting.retain(|(pending, _)| !pending.reply.is_closed());
            match queue.waiting.pop_front() {
                Some((pending, bytes)) => self.send(peer, pending, bytes),
                None if queue.in_flight == 0 => drop(entry.remove()),
                None => {}
            }
        }
        Some(finished)
    }
}

impl Behaviour {
    fn requests_on(&mut self, lane: Lane) -> &mut Requests {
        match lane {
            Lane::Swim => &mut self.swim,
            Lane::Bulk => &mut self.requests,
        }
    }
}
