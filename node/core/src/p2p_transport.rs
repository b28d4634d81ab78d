//! Transports over the peer-to-peer network: a message is a request, and its empty answer says that
//! the other side's machine has room for the next one.

use std::{sync::Arc, time::Duration};

use tokio::sync::mpsc;
use veil_node_driver::{Channel, Inbound, Transport, TransportError, Transports};
use veil_node_p2p::{Network, Protocol, RequestError};
use veil_protocol_spec::{ParticipantIndex, PeerIdHash, PublicIdentity};

/// Messages between the network and a machine. Each may be a chunk of 2 MiB.
const QUEUE: usize = 16;
/// A machine may compute for a while before it takes its next message.
const DEADLINE: Duration = Duration::from_secs(120);

/// The transports of this node.
#[derive(Clone, Debug)]
pub struct P2pTransports(Network);

impl P2pTransports {
    /// Over this network.
    #[must_use]
    pub const fn new(network: Network) -> Self {
        Self(network)
    }
}

const fn protocol(channel: Channel) -> Protocol {
    match channel {
        Channel::Ceremony => Protocol::Ceremony,
        Channel::Signing => Protocol::Signing,
        Channel::Publication => Protocol::Publication,
        Channel::Decryption => Protocol::Decryption,
        Channel::Agreement => Protocol::Agreement,
    }
}

impl Transports for P2pTransports {
    type Transport = P2pTransport;

    fn open(
        &self,
        channel: Channel,
        roster: &[PublicIdentity],
    ) -> (P2pTransport, mpsc::Receiver<Inbound>) {
        let protocol = protocol(channel);
        let roster: Arc<[PeerIdHash]> = roster.iter().map(PeerIdHash::of).collect();
        let (sender, receiver) = mpsc::channel(QUEUE);
        let mut requests = self.0.serve(protocol);
        let members = Arc::clone(&roster);
        tokio::spawn(async move {
            loop {
                let request = tokio::select! {
                    request = requests.recv() => request,
                    () = sender.closed() => None,
                };
                let Some(request) = request else { return };
                let position = members.iter().position(|member| *member == request.from);
                let from = position.and_then(|i| {
                    ParticipantIndex::new(u8::try_from(i).ok()?.checked_add(1)?).ok()
                });
                let Some(from) = from else {
                    let reason = "only members of this committee speak here";
                    request.refuse_as("another_committee", reason);
                    continue;
                };
                let (bytes, responder) = (request.bytes, request.responder);
                match sender.send((from, bytes)).await {
                    Ok(()) => responder.respond(Vec::new()),
                    Err(_) => return responder.refuse("nothing listens here any more"),
                }
            }
        });
        (P2pTransport { network: self.0.clone(), protocol, roster }, receiver)
    }
}

/// Carries messages to the members of one roster on one protocol.
#[derive(Clone, Debug)]
pub struct P2pTransport {
    network: Network,
    protocol: Protocol,
    roster: Arc<[PeerIdHash]>,
}

impl Transport for P2pTransport {
    async fn send(&self, to: ParticipantIndex, bytes: Arc<[u8]>) -> Result<(), TransportError> {
        let Some(peer) = self.roster.get(to.position()) else {
            return Err(TransportError::Refused { to, detail: "no such participant".to_owned() });
        };
        let sent = self.network.request(*peer, self.protocol, bytes.to_vec(), DEADLINE).await;
        sent.map(drop).map_err(|error| {
            let detail = error.to_string();
            match error {
                RequestError::TooLarge { .. } | RequestError::Stopped => {
                    TransportError::Refused { to, detail }
                }
                // A peer that refuses or does not serve the protocol may be about to.
                _ => TransportError::Unreachable { to, detail },
            }
        })
    }
}
