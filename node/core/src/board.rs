//! What a process says of itself, collected from its parts.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};

use veil_node_p2p::{Health, InvalidIdentity, PeerId, Topic, Traffic, peer_id};
use veil_node_process::{peak_rss_bytes, rss_bytes};
use veil_protocol_spec::{
    Blake3Digest, ParticipantIndex, PeerIdHash, PublicIdentity, Slot,
    scheduling::{ClusterState, Outcome, ReplicaIndex},
};

use crate::{
    cluster::Cluster,
    epoch::Epoch,
    status::{
        JobStatus, KEPT_SLOTS, Observed, PeerCounts, ReplicaStatus, Role, SlotReport, Status,
        TrafficStatus,
    },
};

type Replica = (Blake3Digest, ReplicaIndex);

#[derive(Default)]
struct Notes {
    stage: String,
    waiting_for: Vec<String>,
    slots: BTreeMap<Slot, SlotReport>,
    observed: BTreeMap<Replica, Observed>,
}

/// See the [module documentation](super).
pub struct StatusBoard {
    role: Role,
    peer_id: PeerId,
    peer: PeerIdHash,
    cluster: OnceLock<Arc<Cluster>>,
    epoch: OnceLock<Arc<Epoch>>,
    notes: Mutex<Notes>,
}

impl core::fmt::Debug for StatusBoard {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("StatusBoard").field("peer", &self.peer).finish_non_exhaustive()
    }
}

impl StatusBoard {
    /// Of a process that has not joined yet.
    ///
    /// # Errors
    /// [`InvalidIdentity`].
    pub fn new(role: Role, identity: &PublicIdentity) -> Result<Self, InvalidIdentity> {
        Ok(Self {
            role,
            peer_id: peer_id(identity)?,
            peer: PeerIdHash::of(identity),
            cluster: OnceLock::new(),
            epoch: OnceLock::new(),
            notes: Mutex::new(Notes { stage: "starting".to_owned(), ..Notes::default() }),
        })
    }

    fn notes(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// This node in the registry.
    #[must_use]
    pub const fn peer(&self) -> PeerIdHash {
        self.peer
    }

    /// What the process does now, and what or whom it waits for.
    pub fn stage(&self, stage: &str, waiting_for: impl IntoIterator<Item = String>) {
        let mut notes = self.notes();
        if notes.stage != stage {
            tracing::info!(stage, "now");
            stage.clone_into(&mut notes.stage);
        }
        notes.waiting_for = waiting_for.into_iter().collect();
    }

    /// The same for steps that follow quickly on each other: not for the log.
    pub fn progress(&self, stage: &str, waiting_for: impl IntoIterator<Item = String>) {
        let mut notes = self.notes();
        stage.clone_into(&mut notes.stage);
        notes.waiting_for = waiting_for.into_iter().collect();
    }

    /// The node has joined.
    pub fn joined(&self, cluster: &Arc<Cluster>) {
        let _ = self.cluster.set(Arc::clone(cluster)); // a process joins once
    }

    /// The key in force can be used.
    pub fn prepared(&self, epoch: &Arc<Epoch>) {
        let _ = self.epoch.set(Arc::clone(epoch)); // there is one epoch
    }

    /// The cluster, once joined.
    #[must_use]
    pub fn cluster(&self) -> Option<&Arc<Cluster>> {
        self.cluster.get()
    }

    /// The epoch, once prepared.
    #[must_use]
    pub fn epoch(&self) -> Option<&Arc<Epoch>> {
        self.epoch.get()
    }

    /// Changes the report of a slot; the oldest is dropped when there are too many.
    pub fn slot(&self, slot: Slot, change: impl FnOnce(&mut SlotReport)) {
        let mut notes = self.notes();
        let new = || SlotReport { slot, ..SlotReport::default() };
        change(notes.slots.entry(slot).or_insert_with(new));
        while notes.slots.len() > KEPT_SLOTS {
            notes.slots.pop_first();
        }
    }

    /// What this process's own replicas do.
    pub fn observed(&self, observed: BTreeMap<Replica, Observed>) {
        self.notes().observed = observed;
    }

    /// The whole answer.
    #[must_use]
    pub fn status(&self) -> Status {
        let (cluster, epoch) = (self.cluster.get(), self.epoch.get());
        let state = epoch.map(|epoch| epoch.ledger.state()).unwrap_or_default();
        let replicas = self.replicas(&state);
        let seat = epoch.and_then(|epoch| {
            let me = |identity| PeerIdHash::of(identity) == self.peer;
            let position = epoch.roster.iter().position(me)?;
            ParticipantIndex::new(u8::try_from(position + 1).ok()?).ok()
        });
        let notes = self.notes();
        Status {
            role: self.role,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            peer_id: self.peer_id.to_string(),
            peer: self.peer,
            addresses: cluster.map_or_else(Vec::new, |cluster| {
                cluster.network.addresses().iter().map(ToString::to_string).collect()
            }),
            stage: notes.stage.clone(),
            waiting_for: notes.waiting_for.clone(),
            participant: seat,
            key_set: epoch.map(|epoch| epoch.binding.key_set),
            insecure_reference_string: epoch.is_some_and(|epoch| {
                epoch.origin == veil_protocol_spec::scheduling::ReferenceStringOrigin::SingleParty
            }),
            last_slot: state.last_slot(),
            certificate: (state.last_slot() > Slot(0)).then(|| state.last_certificate()),
            peers: cluster.map_or_else(PeerCounts::default, |cluster| peers(cluster)),
            slots: notes.slots.values().cloned().collect(),
            replicas,
            traffic: cluster
                .map_or_else(TrafficStatus::default, |cluster| traffic(&cluster.network.traffic())),
            rss_bytes: rss_bytes(),
            peak_rss_bytes: peak_rss_bytes(),
        }
    }

    /// Every submitted job and its replicas.
    #[must_use]
    pub fn jobs(&self) -> Vec<JobStatus> {
        let Some(cluster) = self.cluster.get() else { return Vec::new() };
        let state = self.epoch.get().map(|epoch| epoch.ledger.state()).unwrap_or_default();
        let mut replicas: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for replica in self.replicas(&state) {
            replicas.entry(replica.job).or_default().push(replica);
        }
        let view = cluster.view();
        let jobs = view.submissions.iter().map(|(submission, operator)| {
            let body = cluster.jobs.body(&submission.job);
            JobStatus {
                job: submission.job,
                position: submission.position,
                operator: *operator,
                cancelled: submission.cancelled,
                image: body.as_ref().map(|body| body.image.to_string()),
                wanted: body.map(|body| body.replicas),
                replicas: replicas.get(&submission.job).cloned().unwrap_or_default(),
            }
        });
        jobs.collect()
    }

    fn replicas(&self, state: &ClusterState) -> Vec<ReplicaStatus> {
        let mut observed = self.notes().observed.clone();
        let mut replicas: Vec<_> = state
            .replicas()
            .map(|(job, replica, placement)| ReplicaStatus {
                job,
                replica,
                worker: Some(placement.worker),
                pending_because: None,
                observed: observed.remove(&(job, replica)),
            })
            .collect();
        let Some(cluster) = self.cluster.get() else { return replicas };
        let jobs = &cluster.jobs;
        let none = BTreeSet::new();
        let next = state.next_replicas(&jobs.submissions(), |job| jobs.replicas(job), &none, &none);
        let tried = self.left_over(state.last_slot());
        replicas.extend(next.pending.iter().map(|pending| {
            let key = (pending.job, pending.replica);
            let because = if tried.contains(&key) {
                format!("no candidate had room for it in slot {}", state.last_slot())
            } else {
                "no slot has tried to place it yet".to_owned()
            };
            ReplicaStatus {
                job: pending.job,
                replica: pending.replica,
                worker: None,
                pending_because: Some(because),
                observed: observed.remove(&key),
            }
        }));
        // Still to be stopped here.
        replicas.extend(observed.into_iter().map(|((job, replica), observed)| ReplicaStatus {
            job,
            replica,
            worker: None,
            pending_because: None,
            observed: Some(observed),
        }));
        replicas
    }

    /// What the last slot could not place.
    fn left_over(&self, slot: Slot) -> BTreeSet<Replica> {
        let record = self.epoch.get().and_then(|epoch| epoch.ledger.record(slot).ok().flatten());
        let Some(record) = record else { return BTreeSet::new() };
        let assignments = record.assignments.as_slice().iter();
        let left = assignments.filter(|assignment| assignment.outcome == Outcome::Pending);
        left.map(|assignment| (assignment.job, assignment.replica)).collect()
    }
}

fn peers(cluster: &Cluster) -> PeerCounts {
    let liveness = cluster.network.liveness();
    let liveness = liveness.borrow();
    let others = cluster.others();
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
