//! This worker's own telemetry: sampled, encrypted, proven, signed, gossiped.
//!
//! # Flow
//! At an interval; when the cluster's policy changes; as soon as the executor knows what a new slot has
//! placed here, since a message that does not include it does not count; when containers have made
//! room; when a replica of a batch job has ended, or one is given back; when it is decided how one fares that was placed
//! in an update; when the engine falls silent, from when on nothing is free here, and when it answers again. The clear
//! sample does not outlive its encryption.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use backon::{ExponentialBuilder, Retryable};
use tokio::sync::watch;
use veil_node_config::offer::Standing;
use veil_node_containers::Executor;
use veil_node_core::{
    cluster::Views,
    epoch::{ActiveEpoch, TelemetryRefusal},
};
use veil_node_p2p::{Network, PublishError, Topic};
use veil_node_process::unix_now;
use veil_protocol_spec::{
    Wire,
    identity::SecretIdentity,
    scheduling::{
        MAX_ENDED, MAX_HEALTH_SAID, PolicyError, Profile, ProofMetadata, ReplicaHealth, Telemetry,
        TelemetryBody,
    },
};
use veil_scheduler::{ListError, encrypt};

use crate::{
    desired::Included,
    evictions::Evictions,
    profile,
    sequence::{Sequence, SequenceError},
    telemetry::Sampler,
};

/// After a failure.
const RETRY_DELAY: Duration = Duration::from_secs(2);
/// Attempts to publish one message, the first left out.
const RETRIES: usize = 6;

/// Why a message was not sent.
#[derive(Debug, thiserror::Error)]
enum ReportError {
    #[error(transparent)]
    Sequence(#[from] SequenceError),
    #[error(transparent)]
    Encrypt(#[from] ListError),
    #[error(transparent)]
    Publish(#[from] PublishError),
    #[error("the cluster's policy: {0}; `veil chain policy set` replaces it")]
    Policy(#[from] PolicyError),
    #[error("the node is stopping")]
    Stopped,
}

/// See the [module documentation](self).
pub(crate) struct Reporter {
    pub(crate) network: Network,
    pub(crate) views: Views,
    pub(crate) identity: SecretIdentity,
    pub(crate) epoch: Arc<ActiveEpoch>,
    pub(crate) executor: Arc<Executor>,
    pub(crate) sampler: Sampler,
    /// What its operator says of it, in encrypted telemetry.
    pub(crate) standing: Standing,
    /// What it says of itself in clear, but for what it finds out.
    pub(crate) profile: Profile,
    pub(crate) sequence: Sequence,
    pub(crate) interval: Duration,
    /// What a message may claim to include.
    pub(crate) included: watch::Receiver<Option<Included>>,
    /// What it gives back.
    pub(crate) evictions: Arc<Evictions>,
    /// How those fare that were placed here in updates.
    pub(crate) health: watch::Receiver<Vec<ReplicaHealth>>,
}

impl Reporter {
    /// Runs until it is dropped.
    pub(crate) async fn run(mut self) {
        let mut given_back = self.evictions.subscribe();
        // The first message waits until the executor has seen the state.
        if self.included.wait_for(Option::is_some).await.is_err() {
            return;
        }
        loop {
            let wait = match self.report().await {
                Ok(()) => self.interval,
                Err(error) => {
                    tracing::warn!(%error, "no telemetry sent; it is tried again");
                    RETRY_DELAY.min(self.interval)
                }
            };
            let policy = self.views.current().policy;
            let mut views = self.views.subscribe();
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                changed = self.included.changed() => if changed.is_err() {
                    return;
                },
                changed = given_back.changed() => if changed.is_err() {
                    return;
                },
                changed = self.health.changed() => if changed.is_err() {
                    return;
                },
                // What was sent before is in another scale.
                Ok(_) = views.wait_for(|view| view.policy != policy) => {}
            }
        }
    }

    async fn report(&mut self) -> Result<(), ReportError> {
        // Read before the sample is taken, so that the sample includes no less.
        let included = self.included.borrow_and_update().clone().unwrap_or_default();
        let mut health = self.health.borrow_and_update().clone();
        health.truncate(MAX_HEALTH_SAID);
        let held = self.executor.held().await;
        // Nothing is placed where nothing is free: then nobody asks what the engine is.
        let facts = match held.silence {
            None => self.executor.facts().await.ok(),
            Some(_) => None,
        };
        if let Some(silence) = &held.silence {
            tracing::warn!(%silence, "this worker offers nothing until its engine answers");
        }
        let includes_slot = included.within(&held.replicas);
        let sampled_at = unix_now();
        let sample = self.sampler.sample(&held).await;
        let view = self.views.current();
        let (policy, scale) = (view.policy, view.rules.clone()?.scale);
        let round_trip = self.network.round_trip();
        let reading = sample.reading(&scale, &self.standing, round_trip);
        let epoch = Arc::clone(&self.epoch);
        let (binding, sequence) = (epoch.binding, self.sequence.take()?);
        let metadata =
            ProofMetadata::new(&binding.scope, &binding.key_set, &self.network.me(), sequence);
        let begun = Instant::now();
        let encrypting = tokio::task::spawn_blocking(move || {
            encrypt(reading.expose(), &epoch.keys.public, &epoch.reference_string, &metadata)
        });
        let list = encrypting.await.map_err(|_| ReportError::Stopped)??;
        let identity = self.identity.public();
        let facts = facts.as_ref().map(profile::facts).unwrap_or_default();
        let profile = Profile { facts, ..self.profile.clone() };
        // The others follow when these are certified.
        let mut ended = self.executor.ended();
        ended.truncate(MAX_ENDED);
        let given_back = self.evictions.said(view.draining().contains(&self.network.me()));
        let body = TelemetryBody {
            binding,
            identity,
            sequence,
            includes_slot,
            sampled_at,
            policy,
            profile,
            ended,
            list,
            given_back,
            health,
        };
        let telemetry = body.sign(&self.identity);
        tracing::debug!(
            sequence,
            %includes_slot,
            seconds = begun.elapsed().as_secs_f64(),
            "telemetry encrypted and proven"
        );
        let bytes = telemetry.to_wire();
        let (sent, own) = tokio::join!(self.publish(bytes), self.keep(telemetry));
        match own {
            Ok(()) | Err(TelemetryRefusal::Light) => {}
            Err(error) => {
                tracing::warn!(%error, "this worker's own telemetry is left aside here");
            }
        }
        Ok(sent?)
    }

    async fn publish(&self, bytes: Vec<u8>) -> Result<(), PublishError> {
        let backoff = ExponentialBuilder::default()
            .with_min_delay(Duration::from_millis(200))
            .with_max_times(RETRIES)
            .with_jitter();
        let publishing = || async { self.network.publish(Topic::Telemetry, bytes.clone()).await };
        let later = |error: &PublishError| {
            matches!(error, PublishError::NoPeers(_) | PublishError::Congested(_))
        };
        match publishing.retry(backoff).when(later).await {
            Err(PublishError::Duplicate(_)) => Ok(()),
            result => result,
        }
    }

    /// An auditor evaluates with its own telemetry too, like any other's.
    async fn keep(&self, telemetry: Telemetry) -> Result<(), TelemetryRefusal> {
        self.epoch.take_telemetry(telemetry).await.map(drop)
    }
}
