//! One worker of the world.

use std::collections::VecDeque;

use veil_committee_machine::Millis;
use veil_protocol_spec::PeerIdHash;

use super::{
    WorkerBehaviour,
    telemetry::{Clock, Sample},
};

/// Between two samples of a worker.
pub(super) const SAMPLES: Millis = 30_000;
/// What a worker has, of each resource.
pub(super) const CAPACITY: [u8; 4] = [64, 96, 120, 0];
/// Until a member considers a worker lost.
pub(super) const GRACE: Millis = 20_000;

/// An absence.
#[derive(Clone, Copy)]
pub(super) struct Gone {
    pub(super) since: Millis,
    pub(super) until: Millis,
    /// Whether the worker only has no connection: what it runs runs on.
    pub(super) cut: bool,
}

pub(super) struct Worker {
    pub(super) id: PeerIdHash,
    pub(super) behaviour: Option<WorkerBehaviour>,
    pub(super) clock: Clock,
    pub(super) samples: VecDeque<Sample>,
    pub(super) sequence: u64,
    pub(super) next_sample: Millis,
    pub(super) gone: Option<Gone>,
    /// While it has left the registry.
    pub(super) unregistered: Option<Gone>,
    /// Since when it is there.
    pub(super) up_since: Millis,
    /// When it was last gone for the grace.
    pub(super) lost_at: Option<Millis>,
    /// What it has free.
    pub(super) free: [u8; 4],
}

impl Worker {
    pub(super) const fn new(
        id: PeerIdHash,
        behaviour: Option<WorkerBehaviour>,
        clock: Clock,
        next_sample: Millis,
    ) -> Self {
        Self {
            id,
            behaviour,
            clock,
            samples: VecDeque::new(),
            sequence: 0,
            next_sample,
            gone: None,
            unregistered: None,
            up_since: 0,
            lost_at: None,
            free: CAPACITY,
        }
    }

    /// Since when it is gone, or not registered.
    pub(super) fn gone_since(&self) -> Option<Millis> {
        self.gone.iter().chain(&self.unregistered).map(|gone| gone.since).min()
    }

    pub(super) fn is_lost(&self, now: Millis) -> bool {
        self.gone_since().is_some_and(|since| since + GRACE <= now)
    }

    /// Until when it may run what it was told to, under a lease, if it has no connection.
    pub(super) fn runs_until(&self, lease: Millis) -> Option<Millis> {
        self.gone.filter(|gone| gone.cut).map(|gone| gone.since + lease)
    }

    /// Whether it has had room for this, as members can know by now.
    pub(super) fn has_room(&self, need: &[u64; 4], now: Millis) -> bool {
        let fits = self.free.iter().zip(need).all(|(free, need)| u64::from(*free) >= *need);
        let there = self.gone_since().is_none() && self.up_since + 2 * SAMPLES <= now;
        fits && there && self.behaviour.is_none()
    }
}
