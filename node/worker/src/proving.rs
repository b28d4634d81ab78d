//! How replicas fare that were placed here in an update.
//!
//! # Flow
//! 1. A certificate places a replica of a version that takes the place of another: its time begins.
//! 2. Each look at the containers says whether it is healthy. One that has been so, without a new start, for as
//!    long as its job asks for is *healthy*. One that was not in time, that has ended for good, or whose image
//!    cannot be had, has *failed*.
//! 3. The worker's telemetry says so until a certificate does ([`Proving::said`]).
//!
//! # Restart
//! A worker that starts anew measures anew: no clock of this machine survives its process.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use veil_node_containers::{Observed, ObservedReplica};
use veil_protocol_spec::{
    PeerIdHash, Slot,
    scheduling::{ClusterState, ReplicaHealth, UpdatePolicy},
};

use crate::assigned::Replica;

/// How long a container has ended before it counts as not started again: the next look but one knows.
const ENDS: Duration = Duration::from_secs(5);

/// What of a replica decides how it fares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    /// It is healthy, after so many restarts.
    Healthy { restarts: u64 },
    /// It is not, and may come to be.
    Waits,
    /// It is not started before another job is what it waits for: its time has not begun.
    Held,
    /// It has ended: whether it is started again is decided after that.
    Ended,
    /// It will not be.
    Over,
}

impl Look {
    pub(crate) const fn at(seen: &ObservedReplica) -> Self {
        match seen.observed {
            _ if seen.is_hopeless => Self::Over,
            Observed::Running => Self::Healthy { restarts: seen.restarts },
            Observed::Exited { .. } => Self::Ended,
            _ => Self::Waits,
        }
    }
}

/// One replica, by the slot that placed it here.
#[derive(Debug)]
struct Proof {
    placed: Slot,
    since: Instant,
    /// Since when it is healthy, and after how many restarts.
    healthy: Option<(Instant, u64)>,
    /// Since when it has ended and is not started again.
    ended: Option<Instant>,
    said: Option<bool>,
}

/// See the [module documentation](self).
#[derive(Debug, Default)]
pub(crate) struct Proving(BTreeMap<Replica, Proof>);

impl Proving {
    /// After new certificates.
    pub(crate) fn follow(&mut self, me: PeerIdHash, state: &ClusterState, now: Instant) {
        let unproven: BTreeMap<Replica, Slot> = state
            .unproven_at(me)
            .map(|(job, replica, placement)| ((job, replica), placement.slot))
            .collect();
        self.0.retain(|replica, proof| unproven.get(replica) == Some(&proof.placed));
        for (replica, placed) in unproven {
            let new = Proof { placed, since: now, healthy: None, ended: None, said: None };
            self.0.entry(replica).or_insert(new);
        }
    }

    /// Whether something is to be looked at.
    pub(crate) fn waits(&self) -> bool {
        self.0.values().any(|proof| proof.said.is_none())
    }

    /// What a look has seen, and what the job of a replica asks for. Whether something is decided now.
    pub(crate) fn look(
        &mut self,
        seen: impl Fn(&Replica) -> Look,
        policy: impl Fn(&Replica) -> UpdatePolicy,
        now: Instant,
    ) -> bool {
        let mut decided = false;
        for (replica, proof) in self.0.iter_mut().filter(|(_, proof)| proof.said.is_none()) {
            let seconds = |seconds: u16| Duration::from_secs(seconds.into());
            let UpdatePolicy { min_healthy_seconds, healthy_deadline_seconds, .. } =
                policy(replica);
            let look = seen(replica);
            if look == Look::Held {
                (proof.since, proof.healthy, proof.ended) = (now, None, None);
                continue;
            }
            proof.healthy = match (look, proof.healthy) {
                (Look::Healthy { restarts }, Some((since, before))) if restarts == before => {
                    Some((since, before))
                }
                (Look::Healthy { restarts }, _) => Some((now, restarts)),
                _ => None,
            };
            proof.ended = match look {
                Look::Ended => proof.ended.or(Some(now)),
                _ => None,
            };
            let age = now.saturating_duration_since(proof.since);
            let ended = |since: Instant| now.saturating_duration_since(since) >= ENDS;
            let is_over = look == Look::Over || proof.ended.is_some_and(ended);
            proof.said = match proof.healthy {
                Some((since, _))
                    if now.saturating_duration_since(since) >= seconds(min_healthy_seconds) =>
                {
                    Some(true)
                }
                // What is healthy in time may take its time to stay so.
                Some((since, _))
                    if since.saturating_duration_since(proof.since)
                        <= seconds(healthy_deadline_seconds) =>
                {
                    None
                }
                _ if is_over || age >= seconds(healthy_deadline_seconds) => Some(false),
                _ => None,
            };
            if let Some(healthy) = proof.said {
                let (job, index) = replica;
                tracing::info!(%job, replica = %index, healthy, "decided for the update");
                decided = true;
            }
        }
        decided
    }

    /// What telemetry is to say, in order.
    pub(crate) fn said(&self) -> Vec<ReplicaHealth> {
        let said = self.0.iter().filter_map(|(&(job, replica), proof)| {
            Some(ReplicaHealth { job, replica, healthy: proof.said? })
        });
        said.collect()
    }
}

#[cfg(test)]
mod tests {
    use veil_protocol_spec::{Blake3Digest, ReplicaIndex};

    use super::*;

    const ONE: Replica = (Blake3Digest([1; 32]), ReplicaIndex(0));
    const UP: Look = Look::Healthy { restarts: 0 };

    /// Looks at these seconds see this; what is said in the end.
    fn after(looks: &[(u64, Look)]) -> Option<bool> {
        let start = Instant::now();
        let proof = Proof { placed: Slot(3), since: start, healthy: None, ended: None, said: None };
        let mut proving = Proving([(ONE, proof)].into());
        let policy = UpdatePolicy {
            min_healthy_seconds: 10,
            healthy_deadline_seconds: 60,
            ..UpdatePolicy::default()
        };
        for (second, look) in looks {
            proving.look(|_| *look, |_| policy, start + Duration::from_secs(*second));
        }
        assert_eq!(proving.waits(), proving.said().is_empty());
        proving.said().first().map(|said| said.healthy)
    }

    #[test]
    fn what_is_healthy_for_long_enough_is_said_to_be() {
        assert_eq!(after(&[(1, UP), (10, UP)]), None);
        assert_eq!(after(&[(1, UP), (11, UP)]), Some(true));
        assert_eq!(after(&[(1, UP), (5, Look::Waits), (11, UP)]), None, "it begins anew");
        let again = Look::Healthy { restarts: 1 };
        assert_eq!(after(&[(1, UP), (11, again)]), None, "it was started again between two looks");
        assert_eq!(after(&[(59, UP), (65, UP), (69, UP)]), Some(true), "it was healthy in time");
    }

    #[test]
    fn the_time_of_what_waits_for_another_job_begins_when_it_may_start() {
        assert_eq!(after(&[(1, Look::Held), (500, Look::Held)]), None);
        assert_eq!(after(&[(500, Look::Held), (559, UP), (569, UP)]), Some(true));
        assert_eq!(after(&[(500, Look::Held), (560, Look::Waits)]), Some(false));
    }

    #[test]
    fn what_is_not_healthy_in_time_or_never_will_be_has_failed() {
        assert_eq!(after(&[(1, Look::Waits), (59, Look::Waits)]), None);
        assert_eq!(after(&[(1, Look::Waits), (60, Look::Waits)]), Some(false));
        assert_eq!(after(&[(1, Look::Over)]), Some(false));
        assert_eq!(after(&[(1, Look::Ended), (6, Look::Ended)]), Some(false));
        assert_eq!(after(&[(1, Look::Ended), (3, Look::Waits), (7, Look::Ended)]), None);
        assert_eq!(after(&[(30, UP), (61, Look::Waits)]), Some(false));
        assert_eq!(after(&[(61, UP)]), Some(false), "too late");
        // What is said is said.
        assert_eq!(after(&[(1, UP), (11, UP), (12, Look::Over)]), Some(true));
    }
}
