//! The answers of a process about itself, collected from its parts as they come to be.

use std::{collections::BTreeMap, sync::Arc};

use tokio::sync::watch;
use veil_node_api::progress::Progress;
use veil_node_chain::Chain;
use veil_node_p2p::{Health, Network, Topic, Traffic};
use veil_node_process::{metrics::Metrics, peak_rss_bytes, rss_bytes};
use veil_node_storage::jobs::Jobs;
use veil_protocol_spec::{
    Blake3Digest, ParticipantIndex, PeerIdHash, Slot,
    scheduling::{ClusterScope, ClusterState, JobSpec, JobType},
};

use crate::{
    cluster::{Cluster, Peers, Views},
    epoch::ActiveEpoch,
    pending::unplaced,
    sync::CurrentEpoch,
};
use veil_node_api::measure::Measured;
use veil_node_api::periodic::PeriodicStatus;
use veil_node_api::replicas::{Known, Replica, replicas, wanted};
use veil_node_api::status::{
    ChainStatus, EndpointStatus, JobStatus, PeerCounts, Readiness, ReplicaStatus, Status,
    TrafficStatus,
};
use veil_node_api::versions::{JobVersion, VersionStatus, history};

/// What answers need of a node that has joined its cluster.
#[derive(Clone, Debug)]
pub struct Joined {
    /// The network.
    pub network: Network,
    /// The other nodes.
    pub peers: Peers,
    /// The chain.
    pub views: Views,
    /// Jobs.
    pub jobs: Arc<Jobs>,
    /// Contracts.
    pub chain: Chain,
    /// Chain, directory, cluster.
    pub scope: ClusterScope,
}

impl From<&Cluster> for Joined {
    fn from(cluster: &Cluster) -> Self {
        Self {
            network: cluster.network.clone(),
            peers: cluster.peers.clone(),
            views: cluster.views.clone(),
            jobs: Arc::clone(&cluster.jobs),
            chain: cluster.chain.clone(),
            scope: cluster.scope,
        }
    }
}

/// Answers for one process; cheap to clone.
#[derive(Clone, Debug)]
pub struct Reporter {
    progress: Arc<Progress>,
    metrics: Metrics,
    joined: watch::Receiver<Option<Joined>>,
    epoch: CurrentEpoch,
}

impl Reporter {
    /// Answers from these, as they come to be.
    #[must_use]
    pub const fn new(
        progress: Arc<Progress>,
        metrics: Metrics,
        joined: watch::Receiver<Option<Joined>>,
        epoch: CurrentEpoch,
    ) -> Self {
        Self { progress, metrics, joined, epoch }
    }

    /// Everything in the node's registry, as text.
    #[must_use]
    pub fn metrics(&self) -> String {
        let ready = self.readiness().ready;
        self.metrics.text_with(Measured { status: self.status(), ready })
    }

    /// The cluster's parts, once joined.
    #[must_use]
    pub fn joined(&self) -> Option<Joined> {
        self.joined.borrow().clone()
    }

    /// The epoch, once its key can be used.
    #[must_use]
    pub fn epoch(&self) -> Option<Arc<ActiveEpoch>> {
        self.epoch.borrow().clone()
    }

    /// The whole answer.
    #[must_use]
    pub fn status(&self) -> Status {
        let (joined, epoch) = (self.joined(), self.epoch());
        let state = epoch.as_ref().map(|epoch| epoch.ledger.state()).unwrap_or_default();
        let replicas = self.replicas(&state);
        let seat = epoch.as_ref().and_then(|epoch| {
            let me = |identity| PeerIdHash::of(identity) == self.progress.peer();
            let position = epoch.roster.iter().position(me)?;
            ParticipantIndex::new(u8::try_from(position + 1).ok()?).ok()
        });
        let notes = self.progress.notes();
        Status {
            role: self.progress.role(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            peer_id: self.progress.peer_id().to_owned(),
            peer: self.progress.peer(),
            addresses: joined.as_ref().map_or_else(Vec::new, |joined| {
                joined.network.addresses().iter().map(ToString::to_string).collect()
            }),
            stage: notes.stage.clone(),
            waiting_for: notes.waiting_for.clone(),
            engine: notes.engine.clone(),
            participant: seat,
            key_set: epoch.as_ref().map(|epoch| epoch.binding.key_set),
            last_slot: state.last_slot(),
            certificate: (state.last_slot() > Slot(0)).then(|| state.last_certificate()),
            chain: joined.as_ref().map(chain),
            peers: joined.as_ref().map_or_else(PeerCounts::default, peers),
            slots: notes.slots.values().cloned().collect(),
            replicas,
            traffic: joined
                .map_or_else(TrafficStatus::default, |joined| traffic(&joined.network.traffic())),
            refusals: self.refusals(),
            rss_bytes: rss_bytes(),
            peak_rss_bytes: peak_rss_bytes(),
        }
    }

    /// Whether it can take part, and what it does.
    #[must_use]
    pub fn readiness(&self) -> Readiness {
        let notes = self.progress.notes();
        Readiness {
            ready: notes.takes_part,
            stage: notes.stage.clone(),
            waiting_for: notes.waiting_for.clone(),
        }
    }

    fn refusals(&self) -> BTreeMap<String, BTreeMap<String, u64>> {
        let named = |(reason, count): (&str, u64)| (reason.to_owned(), count);
        let protocols = self.metrics.refusals().into_iter();
        protocols
            .map(|(protocol, by)| (protocol.to_owned(), by.into_iter().map(named).collect()))
            .collect()
    }

    /// Every submitted job and its replicas.
    #[must_use]
    pub fn jobs(&self) -> Vec<JobStatus> {
        let Some(joined) = self.joined() else { return Vec::new() };
        let state = self.epoch().map(|epoch| epoch.ledger.state()).unwrap_or_default();
        let mut replicas: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for replica in self.replicas(&state) {
            replicas.entry(replica.job).or_default().push(replica);
        }
        let (view, lines) = (joined.views.current(), state.lines_by_job());
        let jobs = view.submissions.iter().map(|submission| {
            let body = joined.jobs.body(&submission.job);
            let periodic = body
                .as_ref()
                .and_then(|body| PeriodicStatus::of(&state, &submission.job, body, view.time));
            let replicas = replicas.get(&submission.job).cloned().unwrap_or_default();
            JobStatus {
                job: submission.job,
                position: submission.position,
                operator: submission.operator,
                cancelled: submission.cancelled,
                name: body.as_ref().map(|body| body.name.to_string()),
                image: body.as_ref().map(|body| body.image.to_string()),
                after: body
                    .iter()
                    .flat_map(|body| &body.after)
                    .map(|after| after.job.clone())
                    .collect(),
                wanted: body.map(|body| wanted(&body, &replicas)),
                replicas,
                version: VersionStatus::of(&state, &lines, &submission.job),
                periodic,
            }
        });
        jobs.collect()
    }

    /// The versions of the job that this one is a version of.
    #[must_use]
    pub fn versions(&self, job: &Blake3Digest) -> Vec<JobVersion> {
        let Some(joined) = self.joined() else { return Vec::new() };
        let state = self.epoch().map(|epoch| epoch.ledger.state()).unwrap_or_default();
        let view = joined.views.current();
        history(job, &view.submissions, &|job| joined.jobs.body(job), &state)
    }

    fn replicas(&self, state: &ClusterState) -> Vec<ReplicaStatus> {
        let joined = self.joined();
        let draining =
            joined.as_ref().map(|joined| joined.views.current().draining()).unwrap_or_default();
        let is_system = |job: &Blake3Digest| {
            let kind = |body: &JobSpec| body.kind == JobType::System;
            joined.as_ref().and_then(|joined| joined.jobs.read(job, kind)) == Some(true)
        };
        let observed = self.progress.notes().observed.clone();
        let because = self.because(state);
        replicas(state, Known { observed, because, draining: &draining, is_system: &is_system })
    }

    /// Of every replica of a wanted job, why it has no place, or no other.
    fn because(&self, state: &ClusterState) -> BTreeMap<Replica, String> {
        let Some(joined) = self.joined() else { return BTreeMap::new() };
        let profiles = self.epoch().map(|epoch| {
            let pool = epoch.pool();
            pool.profiles().map(|(worker, profile)| (worker, profile.clone())).collect()
        });
        let view = joined.views.current();
        let mut waits = unplaced(&view, &joined.jobs, state, &profiles.unwrap_or_default());
        if let Some(epoch) = self.epoch() {
            let weights = view.rules_or_default().weights;
            // A light worker has none, and says nothing of those that need some.
            let evaluates = epoch.keys.evaluation.is_some();
            for ((job, _), why) in &mut waits {
                let list = joined.jobs.read(job, |body| weights.list_for(body.policy)).flatten();
                let lacks = list.and_then(|named| epoch.weights.why_not(&named));
                if let Some(lacks) = lacks.filter(|_| evaluates) {
                    *why = format!("it is placed by cost, and {lacks}");
                }
                if epoch.sealing.get().is_some_and(|own| own.was_dealt_wrongly(job)) {
                    why.push_str("; its sealed part was dealt wrongly to this member, which does not propose it");
                }
                if let Some(refusal) = epoch.requests.refused(job) {
                    *why =
                        format!("{refusal}; its operator submits it again with `veil job submit`");
                }
            }
        }
        waits
    }
}

fn chain(joined: &Joined) -> ChainStatus {
    let view = joined.views.current();
    let endpoints = joined.chain.endpoints().into_iter().map(|endpoint| {
        let veil_node_chain::EndpointStatus { url, healthy, fault, answered, failed } = endpoint;
        EndpointStatus { url, healthy, fault, answered, failed }
    });
    ChainStatus {
        block: view.block.number,
        block_time: view.time,
        anchored_slot: view.head.map(|head| head.slot),
        endpoints: endpoints.collect(),
    }
}

fn peers(joined: &Joined) -> PeerCounts {
    let liveness = joined.network.liveness();
    let liveness = liveness.borrow();
    let others = joined.peers.others();
    let count = |which: fn(Health) -> bool| {
        others.iter().filter(|peer| liveness.get(peer).is_some_and(which)).count()
    };
    PeerCounts {
        registered: others.len(),
        alive: count(|health| matches!(health, Health::Alive)),
        down: count(|health| matches!(health, Health::Down { .. })),
    }
}

fn traffic(traffic: &Traffic) -> TrafficStatus {
    let telemetry = traffic.topics.get(&Topic::Telemetry).copied().unwrap_or_default();
    TrafficStatus {
        telemetry_originated_bytes: telemetry.sent_bytes,
        telemetry_messages: telemetry.sent,
        sent_bytes: traffic.wire_sent_bytes,
        received_bytes: traffic.wire_received_bytes,
    }
}
