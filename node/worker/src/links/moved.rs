//! Where replicas were before a certificate gave them to another worker: they run there until they run where they go.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use veil_node_links::Target;
use veil_protocol_spec::{PeerIdHash, link::LinkEnd, scheduling::ClusterState};

/// A worker keeps what has left as long, if it does not come to run elsewhere.
const KEPT: Duration = Duration::from_secs(600);

/// See the [module documentation](self).
#[derive(Debug, Default)]
pub(super) struct Moved {
    /// Where each replica has its place.
    now: BTreeMap<LinkEnd, PeerIdHash>,
    /// Where it had it before, and when it left.
    before: BTreeMap<LinkEnd, (PeerIdHash, Instant)>,
    lost: BTreeSet<PeerIdHash>,
}

impl Moved {
    /// After a new certificate, or some time.
    pub(super) fn follow(&mut self, state: &ClusterState, at: Instant) {
        let places = state
            .replicas()
            .map(|(job, replica, placement)| (LinkEnd { job, replica }, placement.worker));
        self.follow_places(places.collect(), state.lost().map(|(worker, _)| worker).collect(), at);
    }

    fn follow_places(
        &mut self,
        places: BTreeMap<LinkEnd, PeerIdHash>,
        lost: BTreeSet<PeerIdHash>,
        at: Instant,
    ) {
        for (replica, worker) in &places {
            // A lost worker counts as such until what it had has left, so up to the state before.
            let is_lost = |before: &PeerIdHash| lost.contains(before) || self.lost.contains(before);
            let left = self.now.get(replica).filter(|before| *before != worker && !is_lost(before));
            if let Some(before) = left {
                self.before.insert(*replica, (*before, at));
            }
        }
        self.before.retain(|replica, (worker, since)| {
            let age = at.saturating_duration_since(*since);
            age < KEPT && places.get(replica).is_some_and(|now| now != worker)
        });
        (self.now, self.lost) = (places, lost);
    }

    /// Where a replica was, if it may still run there.
    pub(super) fn former(&self, replica: &LinkEnd) -> Option<Target> {
        let (worker, _) = self.before.get(replica)?;
        Some(Target { is_former: true, replica: *replica, worker: *worker })
    }
}

#[cfg(test)]
mod tests {
    use veil_protocol_spec::{Blake3Digest, ReplicaIndex};

    use super::*;

    const REPLICA: LinkEnd = LinkEnd { job: Blake3Digest([1; 32]), replica: ReplicaIndex(0) };

    fn follow(moved: &mut Moved, worker: Option<u8>, lost: &[u8], at: Instant) -> Option<u8> {
        let places = worker.map(|worker| (REPLICA, PeerIdHash([worker; 32])));
        let lost = lost.iter().map(|worker| PeerIdHash([*worker; 32])).collect();
        moved.follow_places(places.into_iter().collect(), lost, at);
        moved.former(&REPLICA).map(|former| former.worker.0[0])
    }

    #[test]
    fn what_has_moved_is_known_where_it_was_for_some_time() {
        let (mut moved, start) = (Moved::default(), Instant::now());
        assert_eq!(follow(&mut moved, Some(1), &[], start), None);
        assert_eq!(follow(&mut moved, Some(2), &[], start), Some(1));
        assert_eq!(follow(&mut moved, Some(2), &[], start + KEPT / 2), Some(1));
        assert_eq!(follow(&mut moved, Some(2), &[], start + KEPT), None);
        // It goes on, and back.
        assert_eq!(follow(&mut moved, Some(3), &[], start + KEPT), Some(2));
        assert_eq!(follow(&mut moved, Some(2), &[], start + KEPT), Some(3));
        // Without a place it is nowhere.
        assert_eq!(follow(&mut moved, None, &[], start + KEPT), None);
    }

    #[test]
    fn a_lost_worker_is_not_asked_for_what_it_had() {
        let (mut moved, start) = (Moved::default(), Instant::now());
        // By the state in which it loses the last that it had it is not lost any more.
        follow(&mut moved, Some(1), &[1], start);
        assert_eq!(follow(&mut moved, Some(2), &[], start), None);
    }
}
