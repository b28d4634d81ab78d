//! Replicas that a certificate has given to another worker, and that run here until they run there.
//!
//! # Flow
//! "Replacements are healthy before the old ones stop": what leaves for another worker is [noted](Moves::follow),
//! and its container stays. That worker is asked what runs there; the container goes when it says that the replica
//! does, when the replica has no place any more, or when [`PATIENCE`] is over. Where a second container must
//! not run beside the first, under an exclusive lease or of a batch job, nothing is kept.
//!
//! # Restart
//! A worker that starts anew keeps nothing: what is not assigned to it goes at once, as after any certificate.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use futures::{future::BoxFuture, stream::FuturesUnordered};
use veil_node_core::cluster::Peers;
use veil_protocol_spec::{
    PeerIdHash,
    sync::{SyncAnswer, SyncRequest},
};

use crate::assigned::{Assigned, Replica};

/// How long the container of a replica is kept that does not come to run elsewhere: pulling an image may take
/// minutes, and a container that cannot start there is reported, and placed anew by its operator.
const PATIENCE: Duration = Duration::from_secs(600);

/// Workers that are asked what runs there.
#[derive(Default)]
pub(crate) struct Asking {
    pub(crate) asked: BTreeSet<PeerIdHash>,
    pub(crate) answers: FuturesUnordered<BoxFuture<'static, (PeerIdHash, BTreeSet<Replica>)>>,
}

impl Asking {
    pub(crate) fn ask(&mut self, peers: &Peers, worker: PeerIdHash) {
        if !self.asked.insert(worker) {
            return;
        }
        let peers = peers.clone();
        self.answers.push(Box::pin(async move {
            let running = |_, answer| match answer {
                SyncAnswer::Running(running) => Some(running.into_iter().collect()),
                _ => None,
            };
            let answer = peers.ask([worker], SyncRequest::Running, running).await;
            (worker, answer.unwrap_or_default())
        }));
    }
}

/// See the [module documentation](self).
#[derive(Debug, Default)]
pub(crate) struct Moves(BTreeMap<Replica, Move>);

#[derive(Debug)]
struct Move {
    to: PeerIdHash,
    since: Instant,
}

impl Moves {
    /// After new certificates: `place` says which worker has a replica now, `may_double` whether a second
    /// container of it may run for a moment.
    pub(crate) fn follow(
        &mut self,
        before: &Assigned,
        now: &Assigned,
        place: impl Fn(&Replica) -> Option<PeerIdHash>,
        may_double: impl Fn(&Replica) -> bool,
        at: Instant,
    ) {
        let left = before.here.keys().filter(|replica| may_double(replica));
        for replica in left {
            let begun = Move { to: PeerIdHash([0; 32]), since: at };
            self.0.entry(*replica).or_insert(begun);
        }
        self.0.retain(|replica, moved| match place(replica) {
            Some(to) if !now.here.contains_key(replica) => {
                moved.to = to;
                true
            }
            _ => false,
        });
    }

    /// What is kept.
    pub(crate) fn kept(&self) -> impl Iterator<Item = &Replica> {
        self.0.keys()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whom to ask.
    pub(crate) fn destinations(&self) -> BTreeSet<PeerIdHash> {
        self.0.values().map(|moved| moved.to).collect()
    }

    /// What runs at a worker, as it says. Whether something need not be kept any more.
    pub(crate) fn run_there(&mut self, worker: PeerIdHash, running: &BTreeSet<Replica>) -> bool {
        self.ends(|replica, moved| moved.to == worker && running.contains(replica))
    }

    /// Whether something has been kept for too long.
    pub(crate) fn expire(&mut self, now: Instant) -> bool {
        self.ends(|replica, moved| {
            let over = now.saturating_duration_since(moved.since) >= PATIENCE;
            if over {
                let (job, replica) = replica;
                tracing::warn!(%job, %replica, worker = %moved.to, "it does not run at its new worker, and stops here");
            }
            over
        })
    }

    fn ends(&mut self, ends: impl Fn(&Replica, &Move) -> bool) -> bool {
        let before = self.0.len();
        self.0.retain(|replica, moved| !ends(replica, moved));
        self.0.len() < before
    }
}

#[cfg(test)]
mod tests {
    use veil_protocol_spec::{Blake3Digest, ReplicaIndex, Slot};

    use super::*;

    const ONE: Replica = (Blake3Digest([1; 32]), ReplicaIndex(0));
    const TWO: Replica = (Blake3Digest([2; 32]), ReplicaIndex(0));
    const OTHER: PeerIdHash = PeerIdHash([9; 32]);
    const THIRD: PeerIdHash = PeerIdHash([8; 32]);

    fn assigned(replicas: &[Replica]) -> Assigned {
        let here = replicas.iter().map(|replica| (*replica, Slot(3))).collect();
        Assigned { slot: Slot(4), here, is_lost: false }
    }

    fn keep(_: &Replica) -> bool {
        true
    }

    fn kept(moves: &Moves) -> Vec<Replica> {
        moves.kept().copied().collect()
    }

    #[test]
    fn what_left_is_kept_until_it_runs_where_it_went() {
        let (mut moves, start) = (Moves::default(), Instant::now());
        let here = assigned(&[ONE, TWO]);
        moves.follow(&here, &here, |_| None, keep, start);
        assert!(moves.is_empty(), "nothing has left");
        moves.follow(&here, &assigned(&[TWO]), |_| Some(OTHER), keep, start);
        assert_eq!((kept(&moves), moves.destinations()), (vec![ONE], [OTHER].into()));
        assert!(!moves.run_there(THIRD, &[ONE].into()), "another worker's word");
        assert!(!moves.run_there(OTHER, &[TWO].into()));
        // It moves on before it has come to run.
        let later = assigned(&[TWO]);
        moves.follow(&later, &later, |_| Some(THIRD), keep, start);
        assert_eq!(moves.destinations(), [THIRD].into());
        assert!(moves.run_there(THIRD, &[ONE].into()));
        assert!(moves.is_empty());
    }

    #[test]
    fn what_is_wanted_nowhere_comes_back_or_is_exclusive_is_not_kept() {
        let (mut moves, start) = (Moves::default(), Instant::now());
        let (here, gone) = (assigned(&[ONE, TWO]), assigned(&[]));
        moves.follow(&here, &gone, |_| None, keep, start);
        assert!(moves.is_empty(), "cancelled");
        moves.follow(&here, &gone, |_| Some(OTHER), |_| false, start);
        assert!(moves.is_empty(), "exclusive, or of a job that is not known");
        moves.follow(&here, &gone, |_| Some(OTHER), keep, start);
        assert_eq!(kept(&moves), [ONE, TWO]);
        moves.follow(&gone, &assigned(&[ONE]), |_| Some(OTHER), keep, start);
        assert_eq!(kept(&moves), [TWO]);
        assert!(!moves.expire(start + PATIENCE - Duration::from_secs(1)));
        assert!(moves.expire(start + PATIENCE));
        assert!(moves.is_empty());
    }
}
