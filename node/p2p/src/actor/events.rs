//! Events of the swarm.

use std::{
    sync::{Arc, atomic::AtomicBool},
    time::{Duration, Instant},
};

use libp2p::{
    Multiaddr, PeerId,
    gossipsub::{self, MessageAcceptance, MessageId},
    multiaddr::Protocol as Part,
    request_response::{self, Message, OutboundFailure, ResponseChannel},
    swarm::{ConnectionId, DialError, ListenError, SwarmEvent},
};
use tokio::sync::mpsc::error::TrySendError;
use veil_protocol_spec::PeerIdHash;

use super::{
    Actor, BehaviourEvent, Pending,
    links::{Closed, Opened},
};
use crate::{
    command::{Gossip, Incoming, Responder, Verdict},
    error::RequestError,
    gate::Denied,
    kind::{Lane, Protocol},
    refusal::Refusal,
    request::{Answer, Call},
    swim,
};

/// The shortest time between two logged refusals: an unregistered peer cannot fill the log.
const REFUSAL_LOG_INTERVAL: Duration = Duration::from_secs(1);

type RequestEvent = request_response::Event<Call, Answer>;

impl Actor {
    pub(super) fn on_event(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::Behaviour(BehaviourEvent::Gossip(event)) => self.on_gossip(event),
            SwarmEvent::Behaviour(BehaviourEvent::Ping(event)) => {
                let hash = self.swarm.behaviour().gate.hash_of(&event.peer);
                if let (Some(hash), Ok(round_trip)) = (hash, event.result) {
                    self.round_trips.record(hash, Some(round_trip), Instant::now());
                }
            }
            SwarmEvent::Behaviour(BehaviourEvent::Requests(event)) => {
                self.on_request(Lane::Bulk, event)
            }
            SwarmEvent::Behaviour(BehaviourEvent::Swim(event)) => {
                self.on_request(Lane::Swim, event)
            }
            SwarmEvent::ConnectionEstablished { peer_id, connection_id, .. } => {
                self.on_connected(peer_id, connection_id);
            }
            SwarmEvent::ConnectionClosed { peer_id, connection_id, endpoint, cause, .. } => {
                let reason = cause.map(|cause| cause.to_string()).unwrap_or_default();
                self.on_closed(peer_id, connection_id, endpoint.is_dialer(), &reason);
            }
            SwarmEvent::OutgoingConnectionError { peer_id: Some(peer), error, .. }
                if !matches!(error, DialError::DialPeerConditionFalse(_)) =>
            {
                tracing::debug!(%peer, %error, "could not connect");
            }
            SwarmEvent::IncomingConnectionError { error, send_back_addr, .. } => {
                self.on_refused(error, &send_back_addr);
            }
            SwarmEvent::NewListenAddr { address, .. } => {
                let address = address.with(Part::P2p(*self.swarm.local_peer_id()));
                tracing::info!(%address, "listening");
                self.addresses.send_modify(|addresses| addresses.push(address));
            }
            SwarmEvent::ExpiredListenAddr { address, .. } => {
                let address = address.with(Part::P2p(*self.swarm.local_peer_id()));
                self.addresses.send_modify(|addresses| addresses.retain(|known| *known != address));
            }
            SwarmEvent::ListenerClosed { reason: Err(error), .. }
            | SwarmEvent::ListenerError { error, .. } => {
                tracing::error!(%error, "a listener failed");
            }
            _ => {}
        }
    }

    fn on_connected(&mut self, peer: PeerId, connection: ConnectionId) {
        let now = Instant::now();
        let opened = self.links.opened(peer, connection, now);
        let Some(hash) = self.swarm.behaviour().gate.hash_of(&peer) else { return };
        self.round_trips.record(hash, None, now);
        match opened {
            Opened::First => tracing::info!(peer = %hash, id = %peer, "connected"),
            Opened::Further => {}
            Opened::Forgotten => {
                tracing::info!(peer = %hash, "the peer has forgotten its connection; beginning anew");
                return self.begin_anew(peer);
            }
        }
        // SWIM announces itself again later if its queue is full now.
        let _ = self.to_swim.try_send(swim::Input::Connected(hash));
        self.publish_connected();
    }

    fn on_closed(&mut self, peer: PeerId, connection: ConnectionId, dialer: bool, reason: &str) {
        let talks = match self.links.closed(&peer, connection, Instant::now()) {
            Closed::Last { talked } => talked,
            Closed::OneOfSeveral | Closed::Unknown => return,
            Closed::Oldest => return self.begin_anew(peer),
        };
        if let Some(hash) = self.swarm.behaviour().gate.hash_of(&peer) {
            self.round_trips.closed(&hash, Instant::now());
            if dialer && !talks {
                tracing::warn!(
                    peer = %hash,
                    "the peer closes connections at once: is this node registered where it looks?"
                );
                self.shunned_by.insert(hash);
            } else {
                tracing::info!(peer = %hash, reason, "disconnected");
            }
        }
        self.publish_connected();
    }

    /// The peer has sent a message: this node is in its directory.
    fn on_talk(&mut self, peer: PeerId) {
        if self.links.talks(&peer) {
            self.dialer.reset(&peer);
            if let Some(hash) = self.swarm.behaviour().gate.hash_of(&peer) {
                self.shunned_by.remove(&hash);
            }
        }
    }

    /// Closes all connections to a peer. One of both dials then.
    pub(super) fn begin_anew(&mut self, peer: PeerId) {
        let _ = self.swarm.disconnect_peer_id(peer); // fails if there is none any more
    }

    fn publish_connected(&self) {
        let gate = &self.swarm.behaviour().gate;
        let connected = self.links.peers().filter_map(|peer| gate.hash_of(peer)).collect();
        self.connected.send_if_modified(|known| {
            let changed = *known != connected;
            *known = connected;
            changed
        });
    }

    fn on_refused(&mut self, error: ListenError, from: &Multiaddr) {
        let ListenError::Denied { cause } = error else {
            tracing::debug!(%from, %error, "an incoming connection failed");
            return;
        };
        let denied = cause.downcast::<Denied>();
        let name = denied.as_ref().map_or("too_many_connections", |denied| denied.name());
        self.metrics.refuse("connection", name);
        let now = Instant::now();
        if self.last_refusal_log.is_some_and(|last| now - last < REFUSAL_LOG_INTERVAL) {
            return;
        }
        self.last_refusal_log = Some(now);
        match denied {
            Ok(denied) => tracing::warn!(%from, %denied, "refused a connection"),
            Err(cause) => tracing::warn!(%from, %cause, "refused a connection"),
        }
    }

    fn on_gossip(&mut self, event: gossipsub::Event) {
        match event {
            gossipsub::Event::Message { propagation_source, message_id, message } => {
                self.on_message(propagation_source, message_id, message);
            }
            gossipsub::Event::Subscribed { peer_id, .. } => self.on_talk(peer_id),
            gossipsub::Event::SlowPeer { peer_id, .. } => {
                tracing::warn!(peer = %peer_id, "gossip to this peer is delayed or dropped");
            }
            _ => {}
        }
    }

    fn on_message(&mut self, relay: PeerId, id: MessageId, message: gossipsub::Message) {
        let gate = &self.swarm.behaviour().gate;
        let author = message.source.and_then(|author| Some((author, gate.hash_of(&author)?)));
        let Some(topic) = self.topics.find(&message.topic) else { return };
        let admitted = author.ok_or(Refusal::UnknownAuthor).and_then(|(author, hash)| {
            self.admission.gossip(&relay, &author, topic, message.data.len())?;
            Ok(hash)
        });
        let author = match admitted {
            Ok(author) => author,
            Err(refusal) => {
                // A relay does not answer for others: it may know a registration that this node has not
                // read yet, and what its neighbours each send slowly enough may be too much together.
                if message.source == Some(relay) {
                    self.refuse(relay, topic.name(), refusal);
                } else {
                    self.metrics.refuse(topic.name(), refusal.name());
                }
                let gossip = &mut self.swarm.behaviour_mut().gossip;
                gossip.report_message_validation_result(&id, &relay, MessageAcceptance::Ignore);
                return;
            }
        };
        let verdict = Arc::new(Verdict {
            topic,
            message: id,
            relay,
            given: AtomicBool::new(false),
            metrics: self.metrics.clone(),
            commands: self.commands_back.clone(),
        });
        let bytes: Arc<[u8]> = message.data.into();
        self.counters.topic(topic, |count| count.receive(bytes.len()));
        let counters = &self.counters;
        self.subscribers.entry(topic).or_default().retain(|queue| {
            let gossip = Gossip::new(author, Arc::clone(&bytes), Arc::clone(&verdict));
            match queue.try_send(gossip) {
                Ok(()) => true,
                Err(TrySendError::Closed(_)) => false,
                Err(TrySendError::Full(_)) => {
                    tracing::warn!(%topic, "a slow subscriber lost a message");
                    counters.topic(topic, |count| count.dropped += 1);
                    true
                }
            }
        });
    }

    fn on_request(&mut self, lane: Lane, event: RequestEvent) {
        match event {
            RequestEvent::Message { peer, message, .. } => {
                self.on_talk(peer);
                match message {
                    Message::Request { request, channel, .. } => {
                        self.on_call(peer, lane, request, channel);
                    }
                    Message::Response { request_id, response } => {
                        let Some(pending) = self.finish(lane, peer, request_id) else {
                            return;
                        };
                        let Pending { to, protocol, reply } = pending;
                        let result = response.into_result(to, protocol);
                        if let Ok(bytes) = &result {
                            self.counters.protocol(protocol, |count| count.receive(bytes.len()));
                        }
                        let _ = reply.send(result); // the caller may have given up
                    }
                }
            }
            RequestEvent::OutboundFailure { peer, request_id, error, .. } => {
                if let Some(pending) = self.finish(lane, peer, request_id) {
                    let error = self.explain(pending.to, pending.protocol, &error);
                    let _ = pending.reply.send(Err(error)); // the caller may have given up
                }
            }
            RequestEvent::InboundFailure { peer, error, .. } => {
                tracing::debug!(%peer, %error, "a request was not answered");
            }
            RequestEvent::ResponseSent { .. } => {}
        }
    }

    fn explain(&self, to: PeerIdHash, protocol: Protocol, error: &OutboundFailure) -> RequestError {
        match error {
            OutboundFailure::DialFailure | OutboundFailure::ConnectionClosed
                if self.shunned_by.contains(&to) =>
            {
                RequestError::Shunned(to)
            }
            OutboundFailure::DialFailure => RequestError::NotConnected(to),
            OutboundFailure::Timeout => RequestError::Timeout(to),
            OutboundFailure::UnsupportedProtocols => RequestError::Unsupported(to, protocol),
            OutboundFailure::ConnectionClosed | OutboundFailure::Io(_) => {
                RequestError::Broken(to, error.to_string())
            }
        }
    }

    fn on_call(&mut self, peer: PeerId, lane: Lane, call: Call, channel: ResponseChannel<Answer>) {
        let (protocol, bytes, held) = match call {
            Call::Read(protocol, bytes, held) => (protocol, bytes, held),
            Call::Refused(protocol, refusal) => {
                return self.turn_away(peer, lane, protocol, refusal, channel);
            }
        };
        let Some(from) = self.swarm.behaviour().gate.hash_of(&peer) else {
            return; // the peer has just left the directory; the gate closes its connection
        };
        let (metrics, commands) = (self.metrics.clone(), self.commands_back.clone());
        let responder = Responder { to: peer, protocol, channel, metrics, commands, held };
        let len = bytes.len();
        if protocol == Protocol::Swim {
            self.counters.protocol(protocol, |count| count.receive(len));
            responder.send(Answer::Done(Vec::new()));
            // SWIM expects loss: a full queue needs no answer.
            let _ = self.to_swim.try_send(swim::Input::Packet { from, bytes });
            return;
        }
        let refused = match self.servers.get(&protocol) {
            None => Some((Refusal::NotServed, responder)),
            Some(queue) => match queue.try_send(Incoming { from, bytes, responder }) {
                Ok(()) => None,
                Err(TrySendError::Full(request)) => Some((Refusal::QueueFull, request.responder)),
                Err(TrySendError::Closed(request)) => Some((Refusal::NotServed, request.responder)),
            },
        };
        self.counters.protocol(protocol, |count| match &refused {
            None => count.receive(len),
            Some(_) => count.dropped += 1,
        });
        if let Some((refusal, responder)) = refused {
            responder.send(refusal.into());
            self.refuse(peer, protocol.name(), refusal);
        }
    }

    fn turn_away(
        &mut self,
        peer: PeerId,
        lane: Lane,
        protocol: Option<Protocol>,
        refusal: Refusal,
        channel: ResponseChannel<Answer>,
    ) {
        if let Some(protocol) = protocol {
            self.counters.protocol(protocol, |count| count.dropped += 1);
        }
        // An error means that the peer has gone.
        let behaviour = self.swarm.behaviour_mut().requests_on(lane);
        let _ = behaviour.send_response(channel, refusal.into());
        self.refuse(peer, protocol.map_or(lane.name(), Protocol::name), refusal);
    }
}
