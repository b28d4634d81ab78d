//! Transports over the peer-to-peer network: a message is a request, and its empty answer says that
//! the other side's machine has room for the next one. Until then it waits in its sender's own queue.

use std::{future::ready, sync::Arc, time::Duration};

use futures::{StreamExt, stream};
use tokio::sync::mpsc;
use veil_node_driver::{Channel, Inbound, Receipt, Transport, TransportError, Transports, deliver};
use veil_node_p2p::{Incoming, Network, Protocol, RequestError, Responder};
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
        let arriving = stream::poll_fn(move |context| requests.poll_recv(context));
        let of_members = arriving.filter_map(move |request: Incoming| {
            let position = members.iter().position(|member| *member == request.from);
            let from = position
                .and_then(|i| ParticipantIndex::new(u8::try_from(i).ok()?.checked_add(1)?).ok());
            ready(match from {
                Some(from) => Some((from, request.bytes, Answered(request.responder))),
                None => {
                    let reason = "only members of this committee speak here";
                    request.refuse_as("another_committee", reason);
                    None
                }
            })
        });
        tokio::spawn(deliver(of_members, sender));
        (P2pTransport { network: self.0.clone(), protocol, roster }, receiver)
    }
}

/// The answer to a message.
struct Answered(Responder);

impl Receipt for Answered {
    fn taken(self) {
        self.0.respond(Vec::new());
    }
    fn full(self) {
        self.0.refuse_as("queue_full", "too many messages of this member wait here");
    }
    fn closed(self) {
        self.0.refuse("nothing listens here any more");
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

#[cfg(test)]
mod tests {
    use tokio::{
        sync::watch,
        time::{sleep, timeout},
    };
    use veil_node_p2p::{Directory, NetworkConfig, Peer};
    use veil_protocol_spec::{
        Address, ChainId, ClusterId, identity::SecretIdentity, registry::Roles,
        scheduling::ClusterScope,
    };

    use super::*;

    const SCOPE: ClusterScope = ClusterScope {
        chain_id: ChainId(31_337),
        contract: Address([1; 20]),
        cluster: ClusterId([1; 32]),
    };
    /// What a driver of ours would never have under way.
    const FLOOD: usize = 48;

    fn secret(node: u8) -> SecretIdentity {
        SecretIdentity::from_bytes(&[node; 32]).unwrap()
    }

    /// Finding L6: one queue for all senders on a protocol, which one member could keep full.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_member_that_fills_its_queue_holds_up_nobody_elses_message() {
        let roster = [1, 2, 3].map(|node| secret(node).public());
        let roles = Roles { worker: false, member: true };
        let peers = roster.map(|identity| Peer { identity, roles });
        let directory = watch::Sender::new(Arc::new(Directory::from_iter(peers)));
        let mut networks = Vec::new();
        for node in 1..=3 {
            let mut config = NetworkConfig::new(secret(node), SCOPE);
            config.listen = vec!["/ip4/127.0.0.1/tcp/0".parse().unwrap()];
            config.bootstrap = networks.first().map(Network::addresses).unwrap_or_default();
            networks.push(Network::start(config, directory.subscribe()).await.unwrap());
        }
        let mut connected = networks[0].connected();
        timeout(DEADLINE, connected.wait_for(|peers| peers.len() == 2)).await.unwrap().unwrap();
        let mut opened = networks
            .iter()
            .map(|network| P2pTransports::new(network.clone()).open(Channel::Agreement, &roster));
        let [(_, mut machine), (hostile, _), (honest, _)] =
            [opened.next().unwrap(), opened.next().unwrap(), opened.next().unwrap()];
        let member = |index| ParticipantIndex::new(index).unwrap();
        let has_received = async |count: u64| {
            let protocols = || networks[0].traffic().protocols;
            while protocols().get(&Protocol::Agreement).map_or(0, |of| of.received) < count {
                sleep(Duration::from_millis(10)).await;
            }
            sleep(Duration::from_millis(200)).await; // until it is in its queue
        };
        for _ in 0..FLOOD {
            let hostile = hostile.clone();
            tokio::spawn(async move { hostile.send(member(1), [0; 9].into()).await });
        }
        timeout(DEADLINE, has_received(FLOOD as u64)).await.unwrap();
        let sent = tokio::spawn(async move { honest.send(member(1), [1; 9].into()).await });
        timeout(DEADLINE, has_received(FLOOD as u64 + 1)).await.unwrap();
        // After what the machine has been given already, and one more of the other at most.
        let mut before = 0;
        while timeout(DEADLINE, machine.recv()).await.unwrap().unwrap().0 != member(3) {
            before += 1;
        }
        assert!(before <= QUEUE + 1, "{before} messages came before it");
        assert_eq!(timeout(DEADLINE, sent).await.unwrap().unwrap(), Ok(()));
    }
}
