//! The encrypted weights of the cluster's policy: found on disk, else asked for.
//!
//! # Flow
//! 1. [`follow`] looks at every new view which lists the chain names, in force or announced, and
//!    [gets](ActiveEpoch::weights) those that are not here: from the data directory, else from peers, members first.
//! 2. Whoever has set the policy hands its list to a node, which takes it once the chain names it
//!    (`POST /v1/policy/weights`); the others get it from there.
//! 3. Whoever evaluates a manifest that needs them gets them the same way.

use std::{sync::Arc, time::Instant};

use async_recursion::async_recursion as boxed;
use veil_node_chain::Chain;
use veil_node_proven::{
    sought::Sought,
    weights::{Under, WeightsRefusal, answered},
};
use veil_node_view::View;
use veil_protocol_spec::{
    Blake3Digest, ClusterId, PeerIdHash,
    scheduling::{ClusterPolicy, EncryptedWeights},
    sync::{SyncAnswer, SyncRequest},
};
use veil_scheduler::ExpandedWeights;

use super::ActiveEpoch;
use crate::cluster::{Peers, Views};

type Found = Result<Arc<ExpandedWeights>, WeightsRefusal>;

impl ActiveEpoch {
    /// Verified and expanded, from this node or from a peer.
    ///
    /// # Errors
    /// [`WeightsRefusal`]: there is nothing to compute on.
    #[boxed]
    pub async fn weights<'a>(self: &'a Arc<Self>, named: Blake3Digest, peers: &'a Peers) -> Found {
        if let Some(found) = self.weights.found(&named) {
            return found;
        }
        let epoch = Arc::clone(self);
        let kept = tokio::task::spawn_blocking(move || epoch.weights.kept(&named)).await;
        if let Some(kept) = kept.map_err(|_| WeightsRefusal::Stopped)? {
            return self.take_weights(named, kept).await;
        }
        let fits = |peer: PeerIdHash, answer: SyncAnswer| {
            let SyncAnswer::Weights(list) = answer else { return None };
            answered(named, list).unwrap_or_else(|refusal| {
                peers.refuse(peer, refusal.name(), &refusal);
                None
            })
        };
        let request = SyncRequest::Weights(named);
        let found = match peers.ask_members(request.clone(), fits).await {
            Some(found) => Some(found),
            None => peers.ask(peers.others(), request, fits).await,
        };
        self.take_weights(named, *found.ok_or(WeightsRefusal::Missing(named))?).await
    }

    /// Verifies, expands and keeps them, and tells whoever waits.
    pub(crate) async fn take_weights(
        self: &Arc<Self>,
        named: Blake3Digest,
        list: EncryptedWeights,
    ) -> Found {
        let epoch = Arc::clone(self);
        let taking = tokio::task::spawn_blocking(move || {
            let key = epoch.keys.evaluation.as_ref();
            let under = Under { binding: &epoch.binding, key, string: &epoch.reference_string };
            epoch.weights.take(named, &list, under)
        });
        let taken = match taking.await {
            Ok(taken) => taken,
            // Whatever makes tfhe panic is no list.
            Err(error) if error.is_panic() => {
                let reason = "verifying it panicked".to_owned();
                Err(WeightsRefusal::List { weights: named, reason })
            }
            Err(_) => Err(WeightsRefusal::Stopped),
        };
        self.notify_arrivals();
        taken
    }
}

/// Which lists the chain names: the policy in force first, then the one that is announced.
pub(crate) async fn named(view: &View, chain: &Chain, cluster: ClusterId) -> Vec<Blake3Digest> {
    let announced = chain.announced_policy(cluster).await.unwrap_or_else(|error| {
        tracing::debug!(%error, "whether a policy is announced is not known");
        None
    });
    let announced = announced.and_then(|(policy, _)| ClusterPolicy::parse(&policy).ok());
    let policies = view.rules.iter().copied().chain(announced);
    let mut named: Vec<_> = policies.filter_map(|policy| policy.weights.encrypted()).collect();
    named.dedup();
    named
}

/// Gets what the chain names until the node stops, and drops what it has not named for long.
pub(crate) async fn follow(views: Views, peers: Peers, chain: Chain, epoch: Arc<ActiveEpoch>) {
    let (mut changes, cluster) = (views.subscribe(), epoch.binding.scope.cluster);
    let mut sought = Sought::default();
    loop {
        let view = Arc::clone(&changes.borrow_and_update());
        let named = named(&view, &chain, cluster).await;
        let missing = || -> Vec<_> {
            named.iter().copied().filter(|list| epoch.weights.found(list).is_none()).collect()
        };
        for weights in missing() {
            if !sought.is_due(&weights, Instant::now()) {
                continue;
            }
            match epoch.weights(weights, &peers).await {
                Ok(_) => tracing::info!(%weights, "the policy's encrypted weights are here"),
                Err(error) if sought.failed(weights, Instant::now()) => {
                    tracing::warn!(%error, "no job is placed by cost");
                }
                Err(_) => {}
            }
        }
        sought.keep(&missing());
        let keeping = Arc::clone(&epoch);
        let forgotten = tokio::task::spawn_blocking(move || keeping.weights.forget(&named)).await;
        if let Ok(Err(error)) = forgotten {
            tracing::warn!(%error, "weights of earlier policies are kept");
        }
        let changed = match sought.next(Instant::now()) {
            Some(wait) => tokio::time::timeout(wait, changes.changed()).await.unwrap_or(Ok(())),
            None => changes.changed().await,
        };
        if changed.is_err() {
            return;
        }
    }
}
