//! When the enforcer gives replicas back by itself, and how it learns that they have stopped.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use futures::{future::BoxFuture, stream::FuturesUnordered};
use tokio::time::Instant;
use veil_node_containers::{DockerError, Executor, ReplicaId};
use veil_node_core::cluster::View;
use veil_node_process::unix_now;
use veil_node_storage::jobs::Jobs;
use veil_protocol_spec::{
    Blake3Digest, PeerIdHash, Slot,
    registry::Eligibility,
    scheduling::{EndedReplica, GiveBackReason, GivenBack, JobSpec, JobType, Note, UnixMillis},
};

use crate::{
    assigned::{Assigned, Replica},
    evictions::{Evictions, word},
    moves::Moves,
    unsealing::Unsealing,
};

/// Between two looks for containers of what is to have stopped.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Until it is looked when the next notice is over.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);

/// What the registry says of this worker that concerns what it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mine {
    is_drained: bool,
    /// When what is left of it is stopped.
    deadline: Option<UnixMillis>,
}

pub(crate) fn mine(me: PeerIdHash, view: &View) -> Mine {
    let node = view.nodes.get(&me);
    let is_drained = node.is_some_and(|node| node.eligibility == Eligibility::Draining);
    let deadline = node.and_then(|node| node.drain_deadline);
    let millis = |seconds: u64| UnixMillis(seconds.saturating_mul(1000));
    Mine { is_drained, deadline: deadline.map(millis) }
}

impl Mine {
    /// When a replica is stopped that nobody has given back yet. What must not run twice is stopped at once, since it
    /// cannot be placed elsewhere before; but a run that ends by itself, or that of a system job beside others, `may_go_on`
    /// until the deadline.
    fn stops(self, may_go_on: bool, may_double: bool, now: UnixMillis) -> Option<UnixMillis> {
        if !self.is_drained {
            return None;
        }
        let is_due = self.deadline.is_some_and(|deadline| deadline <= now);
        (is_due || !may_go_on && !may_double).then_some(now)
    }
}

/// Whether a replica on a drained worker goes on until the deadline, if its worker stops it: a run that ends by itself,
/// and one of a system job as long as something else runs there, which may need it.
const fn may_go_on(kind: &JobType, is_alone: bool) -> bool {
    match kind {
        JobType::Batch { .. } | JobType::Periodic { .. } => true,
        JobType::System => !is_alone,
        JobType::Service => false,
    }
}

/// What it takes to give something back.
pub(crate) struct Giver<'a> {
    pub(crate) me: PeerIdHash,
    pub(crate) view: &'a View,
    pub(crate) executor: &'a Executor,
    pub(crate) jobs: &'a Jobs,
    pub(crate) evictions: &'a Evictions,
}

impl Giver<'_> {
    /// After a new state, a change in the registry, or a look: what this worker gives back by itself.
    pub(crate) fn give_back(
        &self,
        now: &Assigned,
        moves: &Moves,
        (caught_up, unsealing): (bool, &Unsealing),
        may_double: impl Fn(&Replica) -> bool,
    ) {
        let mine = mine(self.me, self.view);
        let ended: BTreeSet<_> = self.executor.ended().iter().map(EndedReplica::key).collect();
        let at = unix_now();
        let mut words = Vec::new();
        for (id, placed) in self.executor.given_up() {
            let of = (id.job, id.replica);
            if now.here.get(&of) == Some(&placed) && !ended.contains(&of) {
                // It serves badly, and not at all would be no better: what may runs until it runs elsewhere.
                let until = (!may_double(&of)).then_some(at);
                words.push(word(of, placed, GiveBackReason::Unhealthy, until, Note::default()));
            }
        }
        words.extend(closed(now, |job| unsealing.unusable(job), at));
        if mine.is_drained {
            let here = || now.here.iter().filter(|(of, _)| !ended.contains(*of));
            let is_system = |of: &Replica| {
                self.jobs.read(&of.0, |body| body.kind == JobType::System) == Some(true)
            };
            let is_alone = moves.is_empty() && here().all(|(of, _)| is_system(of));
            for (of, placed) in here() {
                let kind = |body: &JobSpec| may_go_on(&body.kind, is_alone);
                // Of a job that is not known here nothing runs that this worker could stop.
                let Some(may_go_on) = self.jobs.read(&of.0, kind) else { continue };
                if let Some(until) = mine.stops(may_go_on, may_double(of), at) {
                    let reason = GiveBackReason::Drained;
                    words.push(word(*of, *placed, reason, Some(until), Note::default()));
                }
            }
        }
        if let Err(error) = self.evictions.add(words) {
            tracing::warn!(%error, "what this worker gives back is not on disk; nothing is given back");
        }
        if caught_up {
            let kept: BTreeSet<_> = moves.kept().collect();
            self.evictions.follow(now, |of| kept.contains(of));
        }
    }
}

/// Words for what cannot start here, nor anywhere else, as far as this worker can tell: step 10 of `sealed.md`. It runs
/// nowhere here, so it is over at once.
fn closed(
    now: &Assigned,
    unusable: impl Fn(&Blake3Digest) -> Option<Note>,
    at: UnixMillis,
) -> Vec<GivenBack> {
    let of = |(of, placed): (&Replica, &Slot)| {
        let note = unusable(&of.0)?;
        Some(word(*of, *placed, GiveBackReason::SealedPart, Some(at), note))
    };
    now.here.iter().filter_map(of).collect()
}

type Gone = Result<BTreeSet<ReplicaId>, DockerError>;

/// Looks whether what was given back has stopped, one at a time.
#[derive(Default)]
pub(crate) struct Giving<'a> {
    pub(crate) looks: FuturesUnordered<BoxFuture<'a, Gone>>,
    at: Option<Instant>,
    /// What the last reconciliation was told to stop.
    done: BTreeSet<Replica>,
}

impl<'a> Giving<'a> {
    /// What the reconciliation that follows stops. However long that takes, the next look is an interval away: a slow
    /// engine is not asked ever faster.
    pub(crate) fn done(&mut self, due: BTreeSet<Replica>) -> BTreeSet<Replica> {
        self.done.clone_from(&due);
        self.at = Some(Instant::now());
        due
    }

    /// After a reconciliation.
    pub(crate) fn look(&mut self, executor: &'a Arc<Executor>, evictions: &Evictions) {
        let stopping = evictions.stopping(unix_now());
        if stopping.is_empty() || !self.looks.is_empty() {
            return;
        }
        self.at = Some(Instant::now());
        let id = |(job, replica)| ReplicaId { job, replica };
        let stopping = stopping.into_iter().map(id).collect();
        self.looks.push(Box::pin(executor.gone(stopping)));
    }

    pub(crate) fn stopped(&self, gone: Gone, evictions: &Evictions) {
        match gone {
            Ok(gone) => {
                let gone = gone.into_iter().map(|id| (id.job, id.replica)).collect();
                evictions.have_stopped(unix_now(), &gone);
            }
            Err(error) => {
                tracing::warn!(%error, "whether what is given back has stopped is not known yet")
            }
        }
    }

    /// When the next reconciliation is due: when a notice is over that the last one did not know of, and as long as
    /// something of it runs.
    pub(crate) fn due(&self, evictions: &Evictions) -> Option<Instant> {
        let (now, unix) = (Instant::now(), unix_now());
        let stopping = evictions.stopping(unix);
        if !stopping.is_subset(&self.done) {
            return Some(now);
        }
        let waits = stopping.is_empty() || !self.looks.is_empty();
        let again = (!waits).then(|| self.at.map_or(now, |at| at + LOOK_INTERVAL));
        // A notice may be of any length.
        let left = |at: UnixMillis| LONGEST_WAIT.min(Duration::from_millis(at.0 - unix.0));
        let next = evictions.next_due(unix).map(|at| now + left(at));
        again.into_iter().chain(next).min()
    }
}

#[cfg(test)]
mod tests {
    use veil_protocol_spec::ReplicaIndex;

    use super::*;

    #[test]
    fn what_is_sealed_and_cannot_be_used_is_given_back_for_its_place_and_nothing_else() {
        let [wrong, right] = [1, 2].map(|byte| Blake3Digest([byte; 32]));
        let here = [((wrong, 0), 3), ((wrong, 1), 4), ((right, 0), 3)];
        let here = here.map(|((job, replica), slot)| ((job, ReplicaIndex(replica)), Slot(slot)));
        let now = Assigned { slot: Slot(9), here: here.into(), is_lost: false };
        let note = || Note::try_from("dealt wrongly".to_owned()).unwrap();
        let at = UnixMillis(5);
        let words = closed(&now, |job| (*job == wrong).then(note), at);
        let said = |replica, slot| {
            let of = (wrong, ReplicaIndex(replica));
            word(of, Slot(slot), GiveBackReason::SealedPart, Some(at), note())
        };
        assert_eq!(words, [said(0, 3), said(1, 4)]);
        assert_eq!(closed(&now, |_| None, at), []);
    }

    #[test]
    fn a_drained_worker_stops_at_once_what_cannot_run_elsewhere_before_and_the_rest_at_the_deadline()
     {
        let now = UnixMillis(1_000);
        let drained =
            |deadline: Option<u64>| Mine { is_drained: true, deadline: deadline.map(UnixMillis) };
        let not = Mine { is_drained: false, deadline: Some(UnixMillis(1)) };
        for (mine, may_go_on, may_double, stops) in [
            (not, false, false, false),
            (drained(None), false, true, false),
            (drained(None), true, false, false),
            (drained(None), false, false, true),
            (drained(Some(1_001)), false, true, false),
            (drained(Some(1_001)), true, false, false),
            (drained(Some(1_001)), false, false, true),
            (drained(Some(1_000)), false, true, true),
            (drained(Some(1_000)), true, false, true),
        ] {
            let stopped = mine.stops(may_go_on, may_double, now);
            assert_eq!(stopped, stops.then_some(now), "{mine:?} {may_go_on} {may_double}");
        }
    }

    /// The engine may be slow: the reconciliations would become more and more, and what they work on is never idle.
    #[test]
    fn while_a_reconciliation_goes_on_no_other_is_due() {
        let folder = tempfile::tempdir().unwrap();
        let evictions = Evictions::open(&folder.path().join("given-back.json")).unwrap();
        let of = (Blake3Digest([1; 32]), ReplicaIndex(0));
        let reason = GiveBackReason::Drained;
        let over = word(of, Slot(3), reason, Some(UnixMillis(1)), Note::default());
        evictions.add([over]).unwrap();
        let mut giving = Giving::default();
        assert!(giving.due(&evictions).unwrap() <= Instant::now(), "it is to be stopped");
        let stops = giving.done(evictions.due(unix_now()));
        assert_eq!(stops, [of].into());
        assert!(giving.due(&evictions).unwrap() > Instant::now());
    }

    #[test]
    fn a_system_jobs_replica_leaves_a_drained_worker_after_the_others() {
        let batch = JobType::Batch { max_attempts: 1 };
        let goes_on = |kind| [false, true].map(|is_alone| may_go_on(kind, is_alone));
        assert_eq!(goes_on(&JobType::System), [true, false]);
        assert_eq!(goes_on(&batch), [true, true]);
        assert_eq!(goes_on(&JobType::Service), [false, false], "as before");
    }
}
