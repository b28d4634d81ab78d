//! What is asked about one replica: public.

use veil_protocol_spec::scheduling::{Reading, SchedulingPolicy, Share, Weights};

use crate::{
    circuit::{
        score::{MAX_COST, cost},
        worker::MAX_HIGH,
    },
    rules::RESOURCES,
};

/// Members of a group: as many flags as one look-up can join.
pub const GROUP: usize = 15;

/// A worker that may take the replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Position in the manifest's telemetry.
    pub worker: usize,
    /// What it must have free: the request and what it was promised in this slot. Of an encrypted request 0.
    pub least: [u8; RESOURCES],
    /// By how much its score is lowered, but not below the lowest: replicas that it was given in this slot.
    pub lowered: u8,
}

/// One replica and candidates of one public level, in the order of preference among equals.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// Position in the plan's steps.
    pub(crate) step: usize,
    pub(crate) candidates: Vec<Candidate>,
}

impl Question {
    /// Who may take the replica, in the order of preference among equals.
    #[must_use]
    pub fn candidates(&self) -> &[Candidate] {
        &self.candidates
    }

    /// How many nodes each layer has: the candidates, groups of up to 15 of them, and so on up to one.
    #[must_use]
    pub fn layers(&self) -> Vec<usize> {
        let mut layers = vec![self.candidates.len()];
        while let Some(last @ 2..) = layers.last().copied() {
            layers.push(last.div_ceil(GROUP));
        }
        layers
    }

    /// How many digits are opened until a worker is found.
    #[must_use]
    pub fn openings(&self) -> usize {
        self.layers().len().saturating_sub(1).max(1)
    }

    /// The positions, one layer further down, of the members of the node that `path` leads to from the top.
    #[must_use]
    pub fn members(&self, path: &[usize]) -> core::ops::Range<usize> {
        let layers = self.layers();
        if layers.len() < 2 {
            return 0..layers[0];
        }
        let node = path.iter().fold(0, |node, member| node * GROUP + member);
        let below = layers.len().saturating_sub(2 + path.len());
        let (begin, count) = (node * GROUP, layers.get(below).copied().unwrap_or(0));
        begin.min(count)..(begin + GROUP).min(count)
    }
}

/// How many scores a policy tells apart.
pub(crate) const fn levels(policy: SchedulingPolicy) -> i64 {
    match policy {
        SchedulingPolicy::Spread | SchedulingPolicy::BinPack => Share::LEVELS as i64,
        SchedulingPolicy::PriorityRoundRobin => 4,
        SchedulingPolicy::Cost => MAX_COST + 1,
    }
}

/// The score that `bin_pack` gives the high digit of what is free of the dominant resource: 7 for the
/// fullest of 8 classes.
pub(crate) fn packed(high: i64) -> i64 {
    7 - high.min(MAX_HIGH) * 2 / 3
}

/// A worker's score, from 0 to one below [`levels`], higher is better.
pub(crate) fn score(
    policy: SchedulingPolicy,
    weights: &Weights,
    dominant: usize,
    reading: &Reading,
) -> i64 {
    match policy {
        SchedulingPolicy::Spread => reading.share.get().into(),
        SchedulingPolicy::BinPack => packed(i64::from(reading.free.to_array()[dominant] >> 4)),
        SchedulingPolicy::PriorityRoundRobin => reading.priority.get().into(),
        SchedulingPolicy::Cost => {
            let classes = i64::from(reading.latency.get() + 4 * reading.price.get());
            MAX_COST - cost(weights, classes).min(MAX_COST)
        }
    }
}
