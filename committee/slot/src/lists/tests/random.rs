//! Properties over random submissions, losses and outcomes.

use proptest::prelude::*;

use super::*;

proptest! {
    /// Slots with random jobs, cancellations, losses, drains and outcomes: a replica that is wanted
    /// is always either placed once or pending, never both, and nothing else runs.
    #[test]
    fn every_wanted_replica_is_placed_once_or_pending(
        slots in prop::collection::vec(
            (
                prop::collection::btree_map(1u8..6, any::<bool>(), 0..5),
                prop::collection::btree_set(1u8..5, 0..3),
                prop::collection::btree_set(1u8..5, 0..2),
                any::<u64>(),
                0..3usize,
            ),
            1..8,
        ),
    ) {
        let mut state = ClusterState::default();
        for (jobs, lost, draining, choice, voids) in slots {
            let submissions: Vec<_> = jobs
                .iter()
                .map(|(byte, cancelled)| Submission { cancelled: *cancelled, ..submission((*byte).into(), *byte) })
                .collect();
            let lost: Vec<_> = lost.into_iter().collect();
            let draining: Vec<_> = draining.into_iter().collect();
            // As often as it ends void, nothing is lost, and nothing is drawn anew.
            let expected = |state: &ClusterState| next(state, &submissions, &lost, &draining);
            let decided = state.clone();
            for _ in 0..voids {
                let locked = manifest(&state, &submissions, &lost, &draining);
                let record = void(&state, locked.clone());
                prop_assert_eq!(record.verify_structure(committee()), Ok(()));
                let before = state.clone();
                state = state.follow(&record).unwrap();
                prop_assert_eq!(expected(&state), expected(&decided));
                prop_assert_eq!(state.seed(), decided.seed());
                prop_assert_eq!(state.last_decided(), decided.last_decided());
                prop_assert!(state.previous(&locked).eq(decided.previous(&locked)));
                prop_assert_ne!(state.last_certificate(), before.last_certificate());
                prop_assert_eq!(ClusterState::from_wire(&state.to_wire()), Ok(state.clone()));
            }
            let manifest = manifest(&state, &submissions, &lost, &draining);
            let stay: Vec<_> = state
                .running(&manifest)
                .filter(|r| r.state == ReplicaState::Serving)
                .map(|r| (r.job, r.replica, r.worker))
                .collect();
            let candidates: Vec<_> = manifest.telemetry.iter().map(|t| t.sender).collect();
            let assignments = assignments(&manifest, |i| {
                let pick = (choice >> (i % 60)) as usize % (candidates.len() + 1);
                candidates.get(pick).copied()
            });
            let record = record(&state, manifest.clone(), assignments);
            prop_assert_eq!(record.verify_structure(committee()), Ok(()));
            prop_assert_eq!(SlotRecord::from_wire(&record.to_wire()), Ok(record.clone()));
            let before = state.clone();
            state = state.follow(&record).unwrap();
            // What was to stay is where it was.
            let places: BTreeSet<_> = state.replicas().map(|(job, replica, p)| (job, replica, p.worker)).collect();
            prop_assert!(stay.iter().all(|place| places.contains(place)));
            prop_assert_eq!(before.follow(&record).unwrap().state_root(), state.state_root());
            prop_assert!(before == state || before.last_certificate() != state.last_certificate());
            prop_assert_eq!(ClusterState::from_wire(&state.to_wire()), Ok(state.clone()));

            let wanted: BTreeSet<_> = submissions
                .iter()
                .filter(|s| !s.cancelled)
                .flat_map(|s| (0..3).map(|replica| (s.job, ReplicaIndex(replica))))
                .collect();
            // Of those that have a place none is tried, and nothing else runs; nobody who is there lost one.
            let next = next(&state, &submissions, &[], &[]);
            let pending: BTreeSet<_> = next.pending.iter().map(|p| (p.job, p.replica)).collect();
            let placed: BTreeSet<_> = state.replicas().map(|(job, replica, _)| (job, replica)).collect();
            prop_assert!(placed.is_disjoint(&pending) && next.leaving.is_empty());
            prop_assert_eq!(next.staying, placed.len());
            prop_assert!((&placed | &pending).is_subset(&wanted));
            let unplaced: BTreeSet<_> = wanted.difference(&placed).copied().collect();
            prop_assert_eq!(pending.is_empty(), unplaced.is_empty(), "something is always tried");
            for (job, replica, placement) in before.replicas() {
                let is_lost = lost.contains(&placement.worker.0[0]) || draining.contains(&placement.worker.0[0]);
                let stays = state.replicas().any(|r| r == (job, replica, placement));
                prop_assert!(is_lost || stays || !wanted.contains(&(job, replica)));
            }
            for (worker, _) in state.lost() {
                prop_assert!(state.assigned_to(worker).next().is_some());
                prop_assert!(!candidates.contains(&worker));
            }
        }
    }
}
