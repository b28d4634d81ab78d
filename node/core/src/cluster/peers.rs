//! The other nodes of the cluster, to ask for what this node lacks.

use std::{pin::pin, time::Duration};

use async_recursion::async_recursion as boxed;
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
    pub async fn ask<T: Send>(
        &self,
        peers: impl IntoIterator<Item = PeerIdHash>,
        request: SyncRequest,
        mut useful: impl FnMut(PeerIdHash, SyncAnswer) -> Option<T> + Send,
    ) -> Option<T> {
        let peers = peers.into_iter().filter(|peer| *peer != self.me).collect();
        let mut found = None;
        let mut is_useful = |peer, answer| {
            found = useful(peer, answer);
            found.is_some()
        };
        self.ask_until(peers, request, &mut is_useful).await;
        found
    }

    /// Until `is_useful` is true: the part that does not depend on what is made of an answer.
    #[boxed]
    async fn ask_until(
        &self,
        mut peers: Vec<PeerIdHash>,
        request: SyncRequest,
        is_useful: &mut (dyn FnMut(PeerIdHash, SyncAnswer) -> bool + Send),
    ) {
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
                    if is_useful(peer, answer) {
                        return;
                    }
                }
                Err(error) => tracing::warn!(%peer, %error, "an answer was refused"),
            }
        }
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
    #[boxed]
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
