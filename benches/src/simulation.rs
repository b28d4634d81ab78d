//! A day of a cluster, in clear: jobs arrive, are placed slot by slot, run and end. The same day is
//! run with several [`Placer`]s, so that what a policy loses by seeing quantised capacities only can
//! be told from what any policy loses.
//!
//! # Flow of a slot
//! 1. Jobs whose time is over leave their machine.
//! 2. Jobs that arrived since the last slot join the queue; those that waited for longer than
//!    [`Workload::patience`] are rejected.
//! 3. The placer sees the free capacity of every machine and the first [`Workload::batch`] jobs of
//!    the queue, and names a machine or none for each.
//! 4. The machine must have room, exactly; [`SimulationError::Overcommitted`] otherwise. What was not placed waits.
//!
//! # Caveats
//! Machines do not fail, jobs use what they ask for and are never moved, and each has one replica:
//! constraints are public and cost every placer the same.

mod exact;
mod quantised;
mod report;
mod trace;
mod workload;

use std::{cmp::Reverse, collections::BinaryHeap, ops::Range};

pub use exact::{BestFit, LeastLoaded};
pub use quantised::Quantised;
pub use report::Report;
pub use trace::{HEADER, TraceError};
pub use workload::{Arrival, Workload};

/// Resources: CPU, memory, disk, GPU.
pub const RESOURCES: usize = 4;

/// Millicores, MiB of memory, GiB of disk, GPUs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amounts(pub [u64; RESOURCES]);

impl Amounts {
    /// Whether a machine with this much free has room for `request`.
    #[must_use]
    pub fn has_room_for(&self, request: &Self) -> bool {
        self.0.iter().zip(request.0).all(|(free, need)| *free >= need)
    }

    /// What is left, if there is room.
    #[must_use]
    pub fn without(&self, request: &Self) -> Option<Self> {
        let mut left = *self;
        for (free, need) in left.0.iter_mut().zip(request.0) {
            *free = free.checked_sub(need)?;
        }
        Some(left)
    }

    /// The sum of two amounts.
    #[must_use]
    pub fn with(&self, other: &Self) -> Self {
        Self(core::array::from_fn(|i| self.0[i] + other.0[i]))
    }

    /// CPU and memory as shares of `whole`, each 0 to 1.
    #[must_use]
    pub fn shares(&self, whole: &Self) -> [f64; 2] {
        core::array::from_fn(|i| self.0[i] as f64 / whole.0[i].max(1) as f64)
    }
}

/// Why a placer does not decide.
pub type PlaceError = Box<dyn std::error::Error + Send + Sync>;

/// A machine for each job, or `None` if it has to wait.
pub type Placement = Result<Vec<Option<usize>>, PlaceError>;

/// What a policy decides from.
#[derive(Debug)]
pub struct View<'a> {
    /// The number of the slot, from 0.
    pub slot: u64,
    /// Capacity of every machine.
    pub capacity: &'a [Amounts],
    /// What is free on it.
    pub free: &'a [Amounts],
    /// What the jobs of the batch ask for, in the order in which they are placed.
    pub requests: &'a [Amounts],
    /// In how many slots each of them found no machine.
    pub failed: &'a [u8],
}

/// A policy of placement.
pub trait Placer {
    /// The policy in one word or two.
    fn name(&self) -> &'static str;

    /// Decides on the batch. Later jobs must take into account what earlier ones took.
    ///
    /// # Errors
    /// If it cannot decide at all.
    fn place(&mut self, view: &View<'_>) -> Placement;
}

/// Why a day ended early.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "each message says what its fields are")]
pub enum SimulationError {
    /// A placer chose a machine without room, or none that exists.
    #[error("slot {slot}: machine {machine} has no room for what was placed there")]
    Overcommitted { slot: u64, machine: usize },
    /// A placer did not decide.
    #[error("slot {slot}: {source}")]
    Placer { slot: u64, source: PlaceError },
}

/// Runs `workload` with `placer`.
///
/// # Errors
/// [`SimulationError`] if the placer breaks a capacity or cannot decide.
pub fn run(workload: &Workload, placer: &mut dyn Placer) -> Result<Report, SimulationError> {
    let mut day = Day::new(workload);
    for slot in 0..workload.slots() {
        day.advance(slot);
        let batch = day.batch();
        let requests: Vec<_> =
            day.queue[batch.clone()].iter().map(|job| workload.arrivals[*job].request).collect();
        let failed: Vec<_> = day.queue[batch.clone()].iter().map(|job| day.failed[*job]).collect();
        let placed = if requests.is_empty() {
            Vec::new()
        } else {
            let (capacity, free) = (&workload.machines, &day.free);
            placer
                .place(&View { slot, capacity, free, requests: &requests, failed: &failed })
                .map_err(|source| SimulationError::Placer { slot, source })?
        };
        day.start(slot, batch, &placed)?;
        day.report.sample(&workload.machines, &day.free);
    }
    Ok(day.finish(placer.name()))
}

/// The state while a day runs. Jobs are indices into [`Workload::arrivals`].
struct Day<'a> {
    workload: &'a Workload,
    free: Vec<Amounts>,
    /// End, job, machine; the earliest end first.
    running: BinaryHeap<Reverse<(u64, usize, usize)>>,
    queue: Vec<usize>,
    /// By job: slots that found no machine for it.
    failed: Vec<u8>,
    next_arrival: usize,
    report: Report,
}

impl<'a> Day<'a> {
    fn new(workload: &'a Workload) -> Self {
        Self {
            workload,
            free: workload.machines.clone(),
            running: BinaryHeap::new(),
            queue: Vec::new(),
            failed: vec![0; workload.arrivals.len()],
            next_arrival: 0,
            report: Report::new(workload),
        }
    }

    fn advance(&mut self, slot: u64) {
        let Workload { arrivals, slot_seconds, patience, .. } = self.workload;
        let now = slot * slot_seconds;
        while let Some(Reverse((end, job, machine))) = self.running.peek().copied() {
            if end > now {
                break;
            }
            self.running.pop();
            self.free[machine] = self.free[machine].with(&arrivals[job].request);
        }
        let before = self.queue.len();
        self.queue.retain(|job| arrivals[*job].at + patience >= now);
        self.report.rejected += before - self.queue.len();
        while arrivals.get(self.next_arrival).is_some_and(|next| next.at <= now) {
            self.queue.push(self.next_arrival);
            self.next_arrival += 1;
        }
    }

    fn batch(&self) -> Range<usize> {
        0..self.queue.len().min(self.workload.batch)
    }

    fn start(
        &mut self,
        slot: u64,
        batch: Range<usize>,
        placed: &[Option<usize>],
    ) -> Result<(), SimulationError> {
        let now = slot * self.workload.slot_seconds;
        let jobs: Vec<_> = self.queue.drain(batch).collect();
        let mut waiting = Vec::new();
        for (index, job) in jobs.into_iter().enumerate() {
            let Some(machine) = placed.get(index).copied().flatten() else {
                waiting.push(job);
                self.failed[job] = self.failed[job].saturating_add(1);
                continue;
            };
            let arrival = &self.workload.arrivals[job];
            let free = self.free.get_mut(machine);
            let (free, left) = free
                .and_then(|free| free.without(&arrival.request).map(|left| (free, left)))
                .ok_or(SimulationError::Overcommitted { slot, machine })?;
            *free = left;
            self.running.push(Reverse((now + arrival.seconds, job, machine)));
            self.report.accept(arrival, now);
        }
        self.queue.splice(0..0, waiting);
        Ok(())
    }

    fn finish(mut self, name: &'static str) -> Report {
        self.report.policy = name;
        let unseen = self.workload.arrivals.len() - self.next_arrival;
        self.report.waiting = self.queue.len() + unseen;
        self.report
    }
}

#[cfg(test)]
mod tests;
