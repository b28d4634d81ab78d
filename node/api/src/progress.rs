//! How far a process is: its tasks write it, the API reads it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard, PoisonError},
};

use prometheus_client::metrics::{family::Family, histogram::Histogram};
use veil_node_process::metrics::Metrics;
use veil_protocol_spec::{PeerIdHash, Slot};

use crate::{
    replicas::Replica,
    status::{EngineStatus, KEPT_SLOTS, Observed, Role, SlotReport},
};

/// What has been recorded so far.
#[derive(Clone, Debug, Default)]
pub struct Notes {
    /// What the process does.
    pub stage: String,
    /// What or whom it waits for.
    pub waiting_for: Vec<String>,
    /// Whether the process can do its part in the cluster.
    pub takes_part: bool,
    /// The last slots.
    pub slots: BTreeMap<Slot, SlotReport>,
    /// Its own replicas.
    pub observed: BTreeMap<Replica, Observed>,
    serving: BTreeSet<Replica>,
    /// Its container engine.
    pub engine: Option<EngineStatus>,
}

/// Seconds of slots' phases, by phase.
type Phases = Family<[(&'static str, &'static str); 1], Histogram>;

/// Bounds of seconds: test parameters take milliseconds, a full slot minutes.
const SECONDS: [f64; 12] = [0.01, 0.03, 0.1, 0.3, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0, 300.0];

/// See the [module documentation](self).
pub struct Progress {
    role: Role,
    peer_id: String,
    peer: PeerIdHash,
    notes: Mutex<Notes>,
    phases: Phases,
}

impl core::fmt::Debug for Progress {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Progress").field("peer", &self.peer).finish_non_exhaustive()
    }
}

impl Progress {
    /// Of a process that has not joined yet; `peer_id` is its name in the network.
    #[must_use]
    pub fn new(role: Role, peer_id: String, peer: PeerIdHash) -> Self {
        let notes = Notes { stage: "starting".to_owned(), ..Notes::default() };
        let phases = Phases::new_with_constructor(|| Histogram::new(SECONDS));
        Self { role, peer_id, peer, notes: Mutex::new(notes), phases }
    }

    /// Has `metrics` show how long the phases of slots take.
    pub fn measure(&self, metrics: &Metrics) {
        let help = "How long the phases of slots took, in seconds";
        metrics.registry().register("veil_slot_phase_seconds", help, self.phases.clone());
    }

    /// What the process is for.
    #[must_use]
    pub const fn role(&self) -> Role {
        self.role
    }

    /// This node in the network.
    #[must_use]
    pub fn peer_id(&self) -> &str {
        &self.peer_id
    }

    /// What has been recorded so far, which nobody changes as long as this is held.
    pub fn notes(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// This node in the registry.
    #[must_use]
    pub const fn peer(&self) -> PeerIdHash {
        self.peer
    }

    /// What the process does before it can take part, or in place of it, and what or whom it waits for.
    pub fn stage(&self, stage: &str, waiting_for: impl IntoIterator<Item = String>) {
        self.note(stage, waiting_for.into_iter().collect(), false);
    }

    /// The same for what it does as part of the cluster.
    pub fn takes_part(&self, stage: &str, waiting_for: impl IntoIterator<Item = String>) {
        self.note(stage, waiting_for.into_iter().collect(), true);
    }

    fn note(&self, stage: &str, waiting_for: Vec<String>, takes_part: bool) {
        let mut notes = self.notes();
        if notes.stage != stage {
            tracing::info!(stage, "now");
            stage.clone_into(&mut notes.stage);
        }
        (notes.waiting_for, notes.takes_part) = (waiting_for, takes_part);
    }

    /// As [`Self::stage`] for steps that follow quickly on each other: not for the log.
    pub fn progress(&self, stage: &str, waiting_for: impl IntoIterator<Item = String>) {
        let mut notes = self.notes();
        stage.clone_into(&mut notes.stage);
        notes.waiting_for = waiting_for.into_iter().collect();
    }

    /// Changes the report of a slot; the oldest is dropped when there are too many.
    pub fn slot(&self, slot: Slot, change: impl FnOnce(&mut SlotReport)) {
        let mut notes = self.notes();
        let new = || SlotReport { slot, ..SlotReport::default() };
        let report = notes.slots.entry(slot).or_insert_with(new);
        let before = report.phases.clone();
        change(report);
        for (phase, seconds) in &report.phases {
            if !before.contains_key(phase) {
                self.phases.get_or_create(&[("phase", phase.name())]).observe(*seconds);
            }
        }
        while notes.slots.len() > KEPT_SLOTS {
            notes.slots.pop_first();
        }
    }

    /// What this process's own replicas do, and which of them serve: they have their place here, run, and are
    /// healthy as far as their job says how to tell. A container that runs only until its replica runs
    /// elsewhere, or is being stopped, serves nobody who counts on it.
    pub fn observed(&self, observed: BTreeMap<Replica, Observed>, serving: BTreeSet<Replica>) {
        let mut notes = self.notes();
        (notes.observed, notes.serving) = (observed, serving);
    }

    /// What was last seen of one of this process's own replicas.
    #[must_use]
    pub fn seen(&self, replica: &Replica) -> Option<Observed> {
        self.notes().observed.get(replica).cloned()
    }

    /// See [`Self::observed`].
    #[must_use]
    pub fn serving(&self) -> Vec<Replica> {
        self.notes().serving.iter().copied().collect()
    }

    /// What this process's container engine is.
    pub fn engine(&self, engine: EngineStatus) {
        self.notes().engine = Some(engine);
    }
}
