//! What every node takes from gossip whatever its role: telemetry and bodies of jobs.
//!
//! Proofs are verified a few at a time: the rest waits in the topic's queue, and what does not fit
//! there is lost, which the next message of the same worker makes good.

use std::{num::NonZeroUsize, sync::Arc, time::Instant};

use async_recursion::async_recursion as boxed;
use tokio::sync::Semaphore;
use veil_committee_slot::pool::Refusal;
use veil_node_p2p::{Gossip, Network, Topic};
use veil_node_proven::sought::Sought;
use veil_node_storage::jobs::{Jobs, JobsError, Offered};
use veil_protocol_spec::{
    Wire,
    scheduling::{JobSpec, Telemetry},
};
use veil_scheduler::ListError;

use crate::{
    cluster::{Peers, Tasks, Views},
    epoch::{ActiveEpoch, TelemetryRefusal},
};

/// Takes telemetry until the node stops.
#[boxed]
pub async fn telemetry(network: Network, tasks: Tasks, epoch: Arc<ActiveEpoch>) {
    let mut messages = network.subscribe(Topic::Telemetry);
    let at_once = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let slots = Arc::new(Semaphore::new(at_once));
    while let Some(gossip) = messages.recv().await {
        // Fails only if the semaphore is closed, which nobody does.
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
        let epoch = Arc::clone(&epoch);
        tasks.spawn(async move {
            on_telemetry(&epoch, &gossip).await;
            drop(slot);
        });
    }
}

async fn on_telemetry(epoch: &Arc<ActiveEpoch>, gossip: &Gossip) {
    let telemetry = match Telemetry::from_wire(&gossip.bytes) {
        Ok(telemetry) => telemetry,
        Err(error) => return gossip.reject_as("malformed", &error),
    };
    let sender = telemetry.body.sender();
    if sender != gossip.author {
        return gossip.reject_as("another_author", &sender);
    }
    match epoch.take_telemetry(telemetry).await {
        Ok(taken) => {
            tracing::debug!(%sender, seconds = taken.expanded.seconds, "telemetry verified");
            gossip.accept();
        }
        Err(error) if is_fault(&error) => gossip.reject_as(error.name(), &error),
        Err(error) => {
            tracing::debug!(%error, "telemetry left aside");
            gossip.ignore_as(error.name());
        }
    }
}

/// Whether an honest peer would not have passed the message on, whatever its clock and its view of
/// the chain.
const fn is_fault(refusal: &TelemetryRefusal) -> bool {
    match refusal {
        TelemetryRefusal::Message(refusal) => matches!(refusal, Refusal::Telemetry(_)),
        TelemetryRefusal::List { source, .. } => {
            matches!(source, ListError::Proof | ListError::Malformed(_))
        }
        TelemetryRefusal::Light => false,
    }
}

/// Takes bodies of jobs until the node stops, and asks for those that the chain lists and nobody
/// has brought.
#[boxed]
pub async fn jobs(network: Network, views: Views, peers: Peers, jobs: Arc<Jobs>) {
    let mut bodies = network.subscribe(Topic::Jobs);
    let listening = async {
        while let Some(gossip) = bodies.recv().await {
            on_job(&jobs, &gossip).await;
        }
    };
    tokio::join!(listening, missing_jobs(&views, &peers, &jobs));
}

async fn on_job(jobs: &Arc<Jobs>, gossip: &Gossip) {
    let job = match JobSpec::from_wire(&gossip.bytes) {
        Ok(job) => job,
        Err(error) => return gossip.reject_as("malformed", &error),
    };
    let jobs = Arc::clone(jobs);
    let offered = tokio::task::spawn_blocking(move || jobs.offer(job)).await;
    match offered {
        Ok(Ok(Offered::New | Offered::Known)) => gossip.accept(),
        // Others may see the block that lists it before this node does.
        Ok(Ok(Offered::Waiting)) => gossip.accept(),
        Ok(Err(error @ JobsError::Storage { .. })) => {
            tracing::error!(%error, "a job's body cannot be kept");
            gossip.ignore_as("not_stored");
        }
        Ok(Err(error @ JobsError::Cluster)) => gossip.reject_as("another_cluster", &error),
        Ok(Err(error @ JobsError::Operator { .. })) => {
            gossip.reject_as("another_operator", &error);
        }
        Ok(Err(error)) => gossip.reject_as("unsound", &error),
        Err(_) => {} // the runtime is shutting down
    }
}

async fn missing_jobs(views: &Views, peers: &Peers, jobs: &Jobs) {
    let mut views = views.subscribe();
    let mut sought = Sought::default();
    loop {
        views.mark_unchanged();
        let missing = jobs.missing();
        sought.keep(&missing);
        for job in missing {
            let is_due = sought.is_due(&job, Instant::now());
            if is_due && peers.job(jobs, job).await.is_none() && sought.failed(job, Instant::now())
            {
                tracing::warn!(%job, "no peer has the body of this job; submit it again");
            }
        }
        // A new view may list more.
        let changed = match sought.next(Instant::now()) {
            Some(wait) => tokio::time::timeout(wait, views.changed()).await.unwrap_or(Ok(())),
            None => views.changed().await,
        };
        if changed.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use veil_protocol_spec::{
        PeerIdHash,
        identity::InvalidSignature,
        scheduling::{BindingMismatch, ProfileError, TelemetryError},
    };

    use super::*;

    #[test]
    fn only_what_an_honest_peer_would_not_pass_on_is_a_fault() {
        let sender = PeerIdHash([1; 32]);
        let message = TelemetryRefusal::Message;
        let list = |source| TelemetryRefusal::List { sender, source };
        assert!(is_fault(&message(TelemetryError::from(InvalidSignature).into())));
        let other = BindingMismatch { field: "cluster" };
        assert!(is_fault(&message(TelemetryError::from(other).into())));
        assert!(is_fault(&message(TelemetryError::from(ProfileError::Key).into())));
        assert!(is_fault(&list(ListError::Proof)));
        assert!(is_fault(&list(ListError::Malformed(String::new()))));
        for lag in [
            Refusal::NotAWorker(sender),
            Refusal::Stale { sender, given: 1, last: 1 },
            Refusal::Old { sender, age_ms: 2, max_ms: 1 },
            Refusal::Ahead { sender, ahead_ms: 1 },
            Refusal::TooSoon { sender, after_ms: 1, min_ms: 2 },
        ] {
            assert!(!is_fault(&message(lag)));
        }
        assert!(!is_fault(&list(ListError::Expand(String::new()))));
    }
}
