//! The other nodes of the cluster, to ask for what this node lacks.

use std::{pin::pin, time::Duration};

use futures::{StreamExt, stream};
use rand::seq::SliceRandom;
use veil_node_p2p::{Network, Protocol};
use veil_node_storage::jobs::Jobs;
use veil_protocol_spec::{
    Blake3Digest, PeerIdHash, Wire,
    scheduling::JobSpec,
    sync::{SyncAnswer, SyncRequest},
};

use super::views::Views;

/// Peers that are asked for one thing at once: a dead one among them holds up nobody.
const ASKED_AT_ONCE: usize = 2;
/// For one answer of one peer.
const SYNC_DEADLINE: Duration = Duration::from_secs(20);

/// The registered peers of this node; cheap to clone.
#[derive(Clone, Debug)]
pub struct Peers {
    network: Network,
    views: Views,
    me: PeerIdHash,
}

impl Peers {
    pub(super) const fn new(network: Network, views: Views, me: PeerIdHash) -> Self {
        Self { network, views, me }
    }

    /// Asks peers, a few at once, until `useful` makes something of an answer: those that are connected
    /// first, in random order.
    pub async fn ask<T>(
        &self,
        peers: impl IntoIterator<Item = PeerIdHash>,
        request: SyncRequest,
        mut useful: impl FnMut(PeerIdHash, SyncAnswer) -> Option<T>,
    ) -> Option<T> {
        let mut peers: Vec<_> = peers.into_iter().filter(|peer| *peer != self.me).collect();
        peers.shuffle(&mut rand::thread_rng());
        let connected = self.network.connected();
        peers.sort_by_key(|peer| !connected.borrow().contains(peer));
        let asked = stream::iter(peers).map(async |peer| {
            let request = request.to_wire();
            (peer, self.network.request(peer, Protocol::Sync, request, SYNC_DEADLINE).await)
        });
        let mut answers = pin!(asked.buffer_unordered(ASKED_AT_ONCE));
        while let Some((peer, answer)) = answers.next().await {
            let answer = match answer {
                Ok(bytes) => SyncAnswer::from_wire(&bytes),
                Err(error) => {
                    tracing::debug!(%peer, %error, "no answer");
                    continue;
                }
            };
            match answer {
                Ok(answer) => {
                    if let Some(found) = useful(peer, answer) {
                        return Some(found);
                    }
                }
                Err(error) => tracing::warn!(%peer, %error, "an answer was refused"),
            }
        }
        None
    }

    /// The committee members' peers.
    #[must_use]
    pub fn members(&self) -> Vec<PeerIdHash> {
        self.views.current().members().into_iter().collect()
    }

    /// Every other registered node.
    #[must_use]
    pub fn others(&self) -> Vec<PeerIdHash> {
        self.views.current().nodes.keys().copied().filter(|peer| *peer != self.me).collect()
    }

    /// The body of a job, from this node's store or from peers; what peers bring is stored.
    pub async fn job(&self, jobs: &Jobs, digest: Blake3Digest) -> Option<JobSpec> {
        if let Some(job) = jobs.body(&digest) {
            return Some(job);
        }
        let others = self.others();
        self.ask(others, SyncRequest::Job(digest), |peer, answer| {
            let SyncAnswer::Job(Some(job)) = answer else { return None };
            if job.digest() != digest {
                tracing::warn!(%peer, %digest, "the peer brought another job's body");
                return None;
            }
            match jobs.offer((*job).clone()) {
                Ok(_) => Some(*job),
                Err(error) => {
                    tracing::warn!(%peer, %error, "a job's body was refused");
                    None
                }
            }
        })
        .await
    }
}
