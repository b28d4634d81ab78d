//! Which replica the next connection goes to.
//!
//! In turn, over all that do not pause: between two turns of one, each other has had one. A replica that has refused
//! pauses, each time twice as long, until it has taken a connection. One that has moved is another target, and does
//! not pause for what it did elsewhere; where it was it is tried after all others, since it runs there until it runs
//! where it goes.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use veil_protocol_spec::{PeerIdHash, link::LinkEnd};

/// The first pause of a replica that has refused.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// The longest.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// A replica, and a worker that has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Target {
    /// Whether it has its place elsewhere by now, and may still run there: it is tried last.
    pub is_former: bool,
    /// Which.
    pub replica: LinkEnd,
    /// The worker.
    pub worker: PeerIdHash,
}

#[derive(Clone, Debug)]
struct Pause {
    length: Duration,
    until: Instant,
    why: String,
}

/// Which replica takes the next connection.
#[derive(Debug, Default)]
pub struct Choice {
    last: Option<Target>,
    pauses: BTreeMap<Target, Pause>,
}

impl Choice {
    /// Forgets what is not among `targets` any more.
    pub fn follow(&mut self, targets: &[Target]) {
        self.pauses.retain(|target, _| targets.contains(target));
    }

    /// Those to try for the next connection, the first one first.
    pub fn order(&mut self, targets: &[Target], now: Instant) -> Vec<Target> {
        let mut ready: Vec<_> =
            targets.iter().copied().filter(|target| !self.pauses_at(target, now)).collect();
        ready.sort_unstable();
        ready.dedup();
        // Former ones are last by their order.
        let count = ready.partition_point(|target| !target.is_former);
        let (placed, _) = ready.split_at_mut(count);
        let next = placed.iter().position(|target| Some(*target) > self.last).unwrap_or(0);
        placed.rotate_left(next);
        if let Some(first) = placed.first() {
            self.last = Some(*first);
        }
        ready
    }

    fn pauses_at(&self, target: &Target, now: Instant) -> bool {
        self.pauses.get(target).is_some_and(|pause| now < pause.until)
    }

    /// It has refused, for this reason.
    pub fn failed(&mut self, target: Target, now: Instant, why: String) {
        let before = self.pauses.get(&target);
        // Of several connections at once that it refuses the first one counts.
        if before.is_some_and(|pause| now < pause.until) {
            return;
        }
        let length = before.map_or(FIRST_PAUSE, |pause| (pause.length * 2).min(LONGEST_PAUSE));
        self.pauses.insert(target, Pause { length, until: now + length, why });
    }

    /// It has taken a connection.
    pub fn succeeded(&mut self, target: &Target) {
        self.pauses.remove(target);
    }

    /// If all of `targets` pause: until when, and why the first of them that is tried again.
    pub fn all_pause(&self, targets: &[Target], now: Instant) -> Option<(Instant, &str)> {
        if targets.iter().any(|target| !self.pauses_at(target, now)) {
            return None;
        }
        let pauses = targets.iter().filter_map(|target| self.pauses.get(target));
        pauses.min_by_key(|pause| pause.until).map(|pause| (pause.until, pause.why.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use veil_protocol_spec::{Blake3Digest, ReplicaIndex};

    use super::*;

    fn target(replica: u16, worker: u8) -> Target {
        let replica = LinkEnd { job: Blake3Digest([1; 32]), replica: ReplicaIndex(replica) };
        Target { is_former: false, replica, worker: PeerIdHash([worker; 32]) }
    }

    fn refuse(choice: &mut Choice, target: Target, now: Instant) {
        choice.failed(target, now, "its program does not listen".to_owned());
    }

    #[test]
    fn a_replica_that_refuses_pauses_longer_and_longer_until_it_takes_a_connection() {
        let (mut choice, start) = (Choice::default(), Instant::now());
        let (one, other) = (target(0, 1), target(1, 2));
        let mut now = start;
        let mut lengths = Vec::new();
        for _ in 0..9 {
            refuse(&mut choice, one, now);
            refuse(&mut choice, one, now); // at once: the same refusal
            assert_eq!(choice.order(&[one, other], now), [other]);
            let (until, why) = choice.all_pause(&[one], now).unwrap();
            assert!(why.contains("does not listen"));
            lengths.push(until - now);
            now = until;
        }
        assert!(lengths.windows(2).all(|pair| pair[0] < pair[1] || pair[1] == LONGEST_PAUSE));
        assert_eq!((lengths[0], lengths[8]), (FIRST_PAUSE, LONGEST_PAUSE));
        assert_eq!(choice.all_pause(&[one, other], now), None);
        choice.succeeded(&one);
        refuse(&mut choice, one, now);
        assert_eq!(choice.all_pause(&[one], now).unwrap().0, now + FIRST_PAUSE);
    }

    #[test]
    fn what_has_moved_does_not_pause_for_what_it_did_elsewhere() {
        let (mut choice, now) = (Choice::default(), Instant::now());
        refuse(&mut choice, target(0, 1), now);
        assert_eq!(choice.order(&[target(0, 2)], now), [target(0, 2)]);
        // And when it is back much later, it begins anew.
        choice.follow(&[target(0, 2)]);
        assert_eq!(choice.order(&[target(0, 1)], now), [target(0, 1)]);
    }

    #[test]
    fn where_a_replica_was_it_is_tried_last() {
        let (mut choice, now) = (Choice::default(), Instant::now());
        let before = Target { is_former: true, ..target(0, 1) };
        let all = [before, target(0, 2), target(1, 3)];
        assert_eq!(choice.order(&all, now), [target(0, 2), target(1, 3), before]);
        assert_eq!(choice.order(&all, now), [target(1, 3), target(0, 2), before]);
        // It does not run yet where it goes.
        refuse(&mut choice, target(0, 2), now);
        assert_eq!(choice.order(&[before, target(0, 2)], now), [before]);
        assert_eq!(choice.all_pause(&[before, target(0, 2)], now), None);
    }

    #[test]
    fn without_targets_there_is_nothing_to_try_and_nothing_that_pauses() {
        let (mut choice, now) = (Choice::default(), Instant::now());
        assert_eq!(choice.order(&[], now), []);
        assert_eq!(choice.all_pause(&[], now), None);
    }

    proptest! {
        /// Whatever comes, goes and refuses: whoever is ready all the time waits for no more turns than there are
        /// others.
        #[test]
        fn every_replica_that_is_ready_has_its_turn(
            steps in prop::collection::vec((0u16..6, any::<bool>(), any::<bool>()), 1..80),
        ) {
            let (mut choice, mut now) = (Choice::default(), Instant::now());
            let mut targets = vec![target(9, 9)];
            let mut waited = 0;
            for (replica, comes, refuses) in steps {
                let changed = target(replica, 1);
                targets.retain(|of| *of != changed);
                if comes {
                    targets.push(changed);
                }
                choice.follow(&targets);
                let order = choice.order(&targets, now);
                let tried: std::collections::BTreeSet<_> = order.iter().copied().collect();
                prop_assert_eq!(tried.len(), order.len());
                prop_assert!(tried.contains(&target(9, 9)));
                prop_assert!(tried.iter().all(|of| targets.contains(of)));
                waited = if order[0] == target(9, 9) { 0 } else { waited + 1 };
                prop_assert!(waited <= 6, "{}", waited);
                match order[0] {
                    first if refuses && first != target(9, 9) => refuse(&mut choice, first, now),
                    first => choice.succeeded(&first),
                }
                now += Duration::from_millis(200);
            }
        }
    }
}
