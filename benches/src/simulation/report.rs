//! The figures of a day.

use serde::Serialize;

use super::{Amounts, Arrival, Workload};

/// Sums over a day.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The placer's name.
    pub policy: &'static str,
    /// Jobs that arrived.
    pub arrived: usize,
    /// Jobs that were placed.
    pub accepted: usize,
    /// Jobs that waited for too long.
    pub rejected: usize,
    /// Jobs that still waited at the end, or came after the last slot.
    pub waiting: usize,
    /// Core-hours of the placed jobs.
    pub accepted_core_hours: f64,
    /// GiB-hours of the placed jobs.
    pub accepted_gib_hours: f64,
    /// The mean of the placed jobs' CPU and memory, each as a share of the cluster, times hours:
    /// hours of the whole cluster.
    pub accepted_work: f64,
    /// Mean share of the cluster's CPU in use.
    pub cpu_utilisation: f64,
    /// Mean share of the cluster's memory in use.
    pub memory_utilisation: f64,
    /// Mean over the day of the standard deviation over the machines of the larger of their two
    /// shares in use.
    pub imbalance: f64,
    /// Mean seconds from arrival to placement.
    pub wait_seconds: f64,
    #[serde(skip)]
    total: Amounts,
    #[serde(skip)]
    slots: u64,
}

impl Report {
    pub(super) fn new(workload: &Workload) -> Self {
        Self {
            policy: "",
            arrived: workload.arrivals.len(),
            accepted: 0,
            rejected: 0,
            waiting: 0,
            accepted_core_hours: 0.0,
            accepted_gib_hours: 0.0,
            accepted_work: 0.0,
            cpu_utilisation: 0.0,
            memory_utilisation: 0.0,
            imbalance: 0.0,
            wait_seconds: 0.0,
            total: workload.machines.iter().fold(Amounts::default(), |sum, one| sum.with(one)),
            slots: workload.slots(),
        }
    }

    pub(super) fn accept(&mut self, arrival: &Arrival, now: u64) {
        let hours = arrival.seconds as f64 / 3600.0;
        let [cpu, memory, ..] = arrival.request.0;
        self.accepted += 1;
        self.accepted_core_hours += cpu as f64 / 1000.0 * hours;
        self.accepted_gib_hours += memory as f64 / 1024.0 * hours;
        self.accepted_work += arrival.request.shares(&self.total).iter().sum::<f64>() / 2.0 * hours;
        let waited = now.saturating_sub(arrival.at) as f64;
        self.wait_seconds += (waited - self.wait_seconds) / self.accepted as f64;
    }

    pub(super) fn sample(&mut self, capacity: &[Amounts], free: &[Amounts]) {
        let slots = self.slots as f64;
        let all_free = free.iter().fold(Amounts::default(), |sum, one| sum.with(one));
        let [cpu, memory] = all_free.shares(&self.total);
        self.cpu_utilisation += (1.0 - cpu) / slots;
        self.memory_utilisation += (1.0 - memory) / slots;
        let loads: Vec<f64> = capacity
            .iter()
            .zip(free)
            .map(|(capacity, free)| {
                let [cpu, memory] = free.shares(capacity);
                1.0 - cpu.min(memory)
            })
            .collect();
        let count = loads.len().max(1) as f64;
        let mean = loads.iter().sum::<f64>() / count;
        let variance = loads.iter().map(|load| (load - mean).powi(2)).sum::<f64>() / count;
        self.imbalance += variance.sqrt() / slots;
    }
}
