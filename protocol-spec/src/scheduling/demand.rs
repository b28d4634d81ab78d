//! What a job wants, as far as everybody must know it to say which of its replicas wait for a place; and
//! the bounds of a slot's list of them.

use super::{
    job::{JobSpec, LeasePolicy, Priority},
    quantities::Scale,
    resources::ResourceRequest,
};
use crate::ids::Address;

/// Most look-ups that a slot's circuit takes: 16 minutes of two cores, 2 of sixteen.
pub const MAX_LOOK_UPS: u64 = 1 << 17;
/// Look-ups for one replica and one worker, in the costliest plan of clear requests. A test of
/// `veil-scheduler-plan` compares it with what the circuits take.
pub const LOOK_UPS_PER_PAIR: u64 = 32;

/// Most replicas that a slot with that many workers tries to place, so that its circuit takes at most
/// [`MAX_LOOK_UPS`]; at least one. `voids` is the number of slots in a row, up to the last one, that ended
/// void: each of them halves it, so that a committee whose machines are too slow for the whole comes to
/// an end all the same.
#[must_use]
pub fn most_replicas(workers: usize, voids: u64) -> usize {
    if workers == 0 {
        return usize::MAX; // nothing is evaluated
    }
    let pairs = (MAX_LOOK_UPS / LOOK_UPS_PER_PAIR) as usize;
    let halvings = u32::try_from(voids).unwrap_or(u32::MAX);
    (pairs / workers).checked_shr(halvings).unwrap_or(0).max(1)
}

/// Bits that the answer to one replica in one slot can tell: a worker out of that many, or none.
#[must_use]
pub const fn bits_of_try(workers: usize) -> u32 {
    usize::BITS - workers.leading_zeros()
}

/// Tries of each replica, within [`LEAK_WINDOW_BLOCKS`], for which an operator's client states bits unless
/// it is told otherwise.
pub const STATED_TRIES: u32 = 32;
/// Blocks of the chain after which what was told about a job's surroundings is counted anew.
pub const LEAK_WINDOW_BLOCKS: u64 = 7_200;

/// Bits to state for a job in a cluster of that many workers, which may become twice as many.
#[must_use]
pub fn bits_to_state(replicas: u16, workers: usize) -> u32 {
    let bits = bits_of_try(workers.saturating_mul(2).max(1));
    u32::from(replicas).max(1).saturating_mul(bits).saturating_mul(STATED_TRIES)
}

/// What the body of a job says that decides which of its replicas wait for a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JobDemand {
    /// Whose job it is: submissions of its digest by others do not count.
    pub operator: Address,
    /// How many replicas run at once.
    pub replicas: u16,
    /// Which of the operator's jobs come first.
    pub priority: Priority,
    /// What a worker does that is cut off.
    pub lease: LeasePolicy,
    /// Why no slot can place it, whatever is free.
    pub refused: Option<NotConsidered>,
}

impl JobDemand {
    /// Of a job in a cluster whose policy has this scale.
    #[must_use]
    pub fn of(job: &JobSpec, scale: &Scale) -> Self {
        let refused = match &job.request {
            ResourceRequest::Clear(request) => {
                scale.request(request).is_err().then_some(NotConsidered::TooLarge)
            }
            _ => Some(NotConsidered::Encrypted),
        };
        let &JobSpec { operator, replicas, priority, lease, .. } = job;
        Self { operator, replicas, priority, lease, refused }
    }
}

/// Why the replicas of a job that want a place are not listed, by public rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "each message says what its fields are")]
pub enum NotConsidered {
    /// No worker can offer as much by the policy's scale.
    #[error(
        "its request is beyond what a worker can offer by the policy's scale: ask for less, or have \
         the policy's units raised"
    )]
    TooLarge,
    /// The request is encrypted: until the winner of a placement is told the clear figures, no worker
    /// could set its container's limits.
    #[error("its request is encrypted, and workers cannot be told the clear figures yet")]
    Encrypted,
    /// The answers could tell more about others' load than its submission states.
    #[error(
        "its submission states {stated} bits; {told} are told since block {since}, and another try \
         may tell {needed}: wait until block {until}, or submit it again with more (`--leak-bits`)"
    )]
    LeakBits { stated: u32, told: u32, needed: u32, since: u64, until: u64 },
}

impl LeasePolicy {
    /// Seconds from when a worker counts as lost until its replica may be placed elsewhere; `None` if at
    /// once. For an exclusive lease: the lease itself; 90 seconds in which the worker notices and stops
    /// the container; and a thousandth of the lease, by which two clocks may run apart (`leases.md`).
    #[must_use]
    pub const fn wait_seconds(&self) -> Option<u32> {
        match self {
            Self::Keep => None,
            Self::Exclusive { seconds } => {
                Some(seconds.saturating_add(Self::STOP_SECONDS).saturating_add(*seconds / 1000))
            }
        }
    }

    /// Seconds within which a worker has stopped a container whose lease is over.
    pub const STOP_SECONDS: u32 = 90;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheduling::{CpuUnits, Resources, arbitrary::job};

    #[test]
    fn a_slot_lists_fewer_replicas_the_more_workers_and_voids_there_are() {
        assert_eq!(most_replicas(0, 0), usize::MAX);
        assert_eq!(most_replicas(1024, 0), 4);
        assert_eq!(most_replicas(64, 0), 64);
        assert_eq!(most_replicas(64, 1), 32);
        assert_eq!(most_replicas(64, 6), 1);
        for voids in [7, 64, u64::MAX] {
            assert_eq!(most_replicas(64, voids), 1, "there is always one");
        }
    }

    #[test]
    fn an_answer_is_a_worker_or_none() {
        // ceil(log2(workers + 1))
        for (workers, bits) in [(0, 0), (1, 1), (2, 2), (3, 2), (4, 3), (7, 3), (8, 4), (1023, 10)]
        {
            assert_eq!(bits_of_try(workers), bits, "{workers} workers");
        }
        assert_eq!(bits_to_state(3, 3), 3 * 3 * STATED_TRIES);
        assert!(bits_to_state(1024, 1024) < u32::MAX);
    }

    #[test]
    fn an_exclusive_replica_waits_longer_than_its_lease() {
        assert_eq!(LeasePolicy::Keep.wait_seconds(), None);
        let wait = |seconds| LeasePolicy::Exclusive { seconds }.wait_seconds().unwrap();
        assert_eq!((wait(30), wait(86_400)), (120, 86_400 + 90 + 86));
    }

    #[test]
    fn what_fits_no_worker_is_named() {
        let large = |cpu| JobSpec {
            request: ResourceRequest::Clear(Resources {
                cpu: CpuUnits(cpu),
                ..Resources::default()
            }),
            ..job()
        };
        assert_eq!(JobDemand::of(&large(191), &Scale::FINEST).refused, None);
        let refused = JobDemand::of(&large(192), &Scale::FINEST).refused;
        assert_eq!(refused, Some(NotConsidered::TooLarge));
        assert_eq!(JobDemand::of(&large(192), &Scale::default()).refused, None);
    }
}
