//! Workers that give replicas back, and workers that are drained.
//!
//! # What a worker of the world does
//! 1. Its operator evicts a replica with some notice, or finds it unhealthy: the worker says so until the replica has
//!    left. A notice that has no end lasts until the replica has another place.
//! 2. It is drained, perhaps with a deadline. It stops exclusive replicas at once, and what is left at the deadline.
//! 3. When the notice is over it stops the container, and says so. A worker that is cut off stops it too; one that has
//!    died says nothing, and says it when it is back.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use rand::Rng;
use rand_chacha::ChaCha20Rng;
use veil_committee_machine::Millis;
use veil_protocol_spec::{
    Blake3Digest, PeerIdHash, ReplicaIndex,
    scheduling::{ClusterState, GiveBackReason, GivenBack, MAX_WORDS, Note, Placement, UnixMillis},
};

use super::{SlotReport, jobs::Jobs, runs::Runs, worker::Worker};

/// A replica where it was placed.
type Place = (Blake3Digest, ReplicaIndex, Placement);

/// A worker's word.
#[derive(Clone, Copy)]
struct Word {
    reason: GiveBackReason,
    /// When the worker stops it.
    until: Option<Millis>,
    has_stopped: bool,
}

/// A drain.
#[derive(Clone, Copy)]
struct Drain {
    deadline: Option<Millis>,
    /// When the worker may be given something again.
    over: Millis,
}

pub(super) struct GiveBacks {
    rng: ChaCha20Rng,
    is_on: bool,
    words: BTreeMap<(PeerIdHash, Blake3Digest, ReplicaIndex), (Placement, Word)>,
    drains: BTreeMap<PeerIdHash, Drain>,
    /// The same as the chain has it.
    draining: Arc<BTreeSet<PeerIdHash>>,
}

/// What a worker says that gives everything back that anybody runs, and stops nothing.
pub(super) fn everything(state: &ClusterState) -> Arc<[GivenBack]> {
    let stopped = |(job, replica, placement): Place| {
        let word = Word { reason: GiveBackReason::Evicted, until: None, has_stopped: true };
        word.of((job, replica, placement))
    };
    state.replicas().take(MAX_WORDS).map(stopped).collect()
}

impl Word {
    fn of(self, (job, replica, placement): Place) -> GivenBack {
        let Self { reason, until, has_stopped } = self;
        let (placed, until) = (placement.slot, until.map(UnixMillis));
        GivenBack { job, replica, placed, reason, until, has_stopped, note: Note::default() }
    }
}

impl GiveBacks {
    pub(super) fn new(rng: ChaCha20Rng, is_on: bool) -> Self {
        let (words, drains) = (BTreeMap::new(), BTreeMap::new());
        Self { rng, is_on, words, drains, draining: Arc::default() }
    }

    /// Workers that are drained, as the next block has it.
    pub(super) fn draining(&self) -> Arc<BTreeSet<PeerIdHash>> {
        Arc::clone(&self.draining)
    }

    /// One step; `state` is the latest that anybody has.
    pub(super) fn tick(
        &mut self,
        state: &ClusterState,
        (jobs, runs): (&Jobs, &Runs),
        workers: &[Worker],
        now: Millis,
        report: &mut SlotReport,
    ) {
        if !self.is_on {
            return;
        }
        self.words.retain(|(_, job, replica), (placement, _)| {
            state.placement(*job, *replica) == Some(*placement)
        });
        self.drain(workers, now, report);
        let is_up = |worker: &PeerIdHash| {
            workers.iter().any(|w| w.id == *worker && w.gone.is_none() && w.behaviour.is_none())
        };
        for (job, replica, placement) in state.replicas() {
            let has_ended = runs.has_ended((job, replica, placement.slot), now);
            if has_ended || jobs.get(&job).is_none() || !is_up(&placement.worker) {
                continue;
            }
            let stops_first = !jobs.moves_running(&job);
            let key = (placement.worker, job, replica);
            let drain = self.drains.get(&placement.worker).copied();
            let is_due = drain.and_then(|drain| drain.deadline).is_some_and(|at| at <= now);
            let exclusive = stops_first && !jobs.is_batch(&job);
            let word = if drain.is_some() && (is_due || exclusive) {
                Some((GiveBackReason::Drained, Some(now)))
            } else if self.rng.gen_ratio(1, 400) {
                let until = now + self.rng.gen_range(0..120_000);
                if self.rng.gen_ratio(1, 2) {
                    report.count("replica evicted");
                    Some((GiveBackReason::Evicted, Some(until)))
                } else {
                    report.count("unhealthy replica given back");
                    Some((GiveBackReason::Unhealthy, stops_first.then_some(now)))
                }
            } else {
                None
            };
            if let Some((reason, until)) = word {
                let word = Word { reason, until, has_stopped: false };
                self.words.entry(key).or_insert((placement, word));
            }
        }
        for ((worker, ..), (_, word)) in &mut self.words {
            // Whoever has died stops nothing, and runs nothing.
            let is_over = word.until.is_some_and(|until| until <= now);
            let of = workers.iter().find(|of| of.id == *worker);
            let acts = of.is_some_and(|of| of.gone.is_none_or(|gone| gone.cut));
            if is_over && acts && !core::mem::replace(&mut word.has_stopped, true) {
                report.count("replica stopped after its notice");
            }
            // A drain is no reason any more when it is over.
            if word.reason == GiveBackReason::Drained && !self.drains.contains_key(worker) {
                word.reason = GiveBackReason::DrainEnded;
                report.count("drain ended before what it stopped was certified");
            }
        }
    }

    fn drain(&mut self, workers: &[Worker], now: Millis, report: &mut SlotReport) {
        let before = self.drains.len();
        self.drains.retain(|_, drain| now < drain.over);
        let ended = self.drains.len() < before;
        let few = self.drains.len() * 8 < workers.len();
        let begins = few && self.rng.gen_ratio(1, 30);
        if begins {
            let k = self.rng.gen_range(0..workers.len());
            let deadline =
                self.rng.gen_ratio(1, 2).then(|| now + self.rng.gen_range(20_000..120_000));
            let over = now + self.rng.gen_range(60_000..300_000);
            report.count(if deadline.is_some() { "drain with a deadline" } else { "drain" });
            self.drains.entry(workers[k].id).or_insert(Drain { deadline, over });
        }
        if begins || ended {
            self.draining = Arc::new(self.drains.keys().copied().collect());
        }
    }

    /// What a worker says.
    pub(super) fn said(&self, worker: PeerIdHash) -> Arc<[GivenBack]> {
        let first = (worker, Blake3Digest([0; 32]), ReplicaIndex(0));
        let own = self.words.range(first..).take_while(|((of, ..), _)| *of == worker);
        let words =
            own.map(|(&(_, job, replica), &(placement, word))| word.of((job, replica, placement)));
        // The notice of a drain is on chain.
        let counts = |word: &GivenBack| word.reason != GiveBackReason::Drained || word.has_stopped;
        words.filter(counts).take(MAX_WORDS).collect()
    }

    /// Whether a worker has stopped a replica where it was placed, for good.
    pub(super) fn has_stopped(&self, (job, replica, placement): Place) -> bool {
        let word = self.words.get(&(placement.worker, job, replica));
        word.is_some_and(|(of, word)| *of == placement && word.has_stopped)
    }
}
