//! The other nodes of the cluster, to ask for what this node lacks.

use core::fmt;
use std::{pin::pin, time::Duration};

use async_recursion::async_recursion as boxed;
use futures::{StreamExt, stream};
use rand::seq::SliceRandom;
use veil_node_p2p::{Network, Protocol, RequestError};
use veil_node_storage::jobs::Jobs;
use veil_protocol_spec::{
    Blake3Digest, PeerIdHash, Wire,
    scheduling::JobSpec,
    sync::{SyncAnswer, SyncRequest},
};

use super::views::Views;

/// Peers that are asked for one thing at once, unless they are members: a dead one among them holds up nobody.
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
        useful: impl FnMut(PeerIdHash, SyncAnswer) -> Option<T> + Send,
    ) -> Option<T> {
        self.ask_some(peers, ASKED_AT_ONCE, request, useful).await
    }

    /// The same of the committee's members, all of them at once: "all that a manifest lists is asked of the proposer
    /// and live members at once", so that those which do not answer hold up nobody.
    pub async fn ask_members<T: Send>(
        &self,
        request: SyncRequest,
        useful: impl FnMut(PeerIdHash, SyncAnswer) -> Option<T> + Send,
    ) -> Option<T> {
        self.ask_some(self.members(), usize::MAX, request, useful).await
    }

    async fn ask_some<T: Send>(
        &self,
        peers: impl IntoIterator<Item = PeerIdHash>,
        at_once: usize,
        request: SyncRequest,
        mut useful: impl FnMut(PeerIdHash, SyncAnswer) -> Option<T> + Send,
    ) -> Option<T> {
        let peers = peers.into_iter().filter(|peer| *peer != self.me).collect();
        let mut found = None;
        let mut is_useful = |peer, answer| {
            found = useful(peer, answer);
            found.is_some()
        };
        self.ask_until(peers, at_once, request, &mut is_useful).await;
        found
    }

    /// Until `is_useful` is true: the part that does not depend on what is made of an answer.
    #[boxed]
    async fn ask_until(
        &self,
        mut peers: Vec<PeerIdHash>,
        at_once: usize,
        request: SyncRequest,
        is_useful: &mut (dyn FnMut(PeerIdHash, SyncAnswer) -> bool + Send),
    ) {
        peers.shuffle(&mut rand::thread_rng());
        let connected = self.network.connected();
        peers.sort_by_key(|peer| !connected.borrow().contains(peer));
        let ask = |peer| {
            let request = request.to_wire();
            async move {
                (peer, self.network.request(peer, Protocol::Sync, request, SYNC_DEADLINE).await)
            }
        };
        let is_enough = |(peer, answer): (PeerIdHash, Result<Vec<u8>, RequestError>)| {
            let answer = match answer {
                Ok(bytes) => SyncAnswer::from_wire(&bytes),
                Err(error) => {
                    tracing::debug!(%peer, %error, "no answer");
                    return false;
                }
            };
            match answer {
                Ok(answer) => is_useful(peer, answer),
                Err(error) => {
                    tracing::warn!(%peer, %error, "an answer was refused");
                    false
                }
            }
        };
        until_enough(peers.into_iter().map(ask), at_once, is_enough).await;
    }

    /// Counts what a peer brought that is not what was asked for.
    pub(crate) fn refuse(&self, peer: PeerIdHash, name: &'static str, why: &dyn fmt::Display) {
        self.network.metrics().refuse(Protocol::Sync.name(), name);
        tracing::warn!(%peer, %why, "what a peer brought is refused");
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
        let request = SyncRequest::Job(digest);
        let fits = |peer: PeerIdHash, answer: SyncAnswer| {
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
        };
        match self.ask_members(request.clone(), fits).await {
            Some(found) => Some(found),
            None => self.ask(self.others(), request, fits).await,
        }
    }
}

/// Waits for so many at once, until one is enough or all have been asked.
async fn until_enough<A: Future>(
    asked: impl Iterator<Item = A>,
    at_once: usize,
    mut is_enough: impl FnMut(A::Output) -> bool,
) {
    let mut answers = pin!(stream::iter(asked).buffer_unordered(at_once));
    while let Some(answer) = answers.next().await {
        if is_enough(answer) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::{FutureExt, future};

    use super::*;

    /// Members that do not answer, and one that does.
    #[test]
    fn who_does_not_answer_holds_up_nobody_who_is_asked_at_once() {
        let found = |at_once| {
            let silent = (0..4).map(|_| future::pending().boxed());
            let asked = silent.chain([future::ready(7).boxed()]);
            until_enough(asked, at_once, |answer| answer == 7).now_or_never().is_some()
        };
        assert!(found(usize::MAX));
        assert!(!found(ASKED_AT_ONCE));
    }
}
