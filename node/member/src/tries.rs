//! What could not be placed is tried again, less and less often: what never fits must not cost a slot
//! and a transaction at every interval.

use std::{collections::BTreeSet, time::Duration};

use veil_node_storage::ledger::Ledger;
use veil_protocol_spec::{
    Blake3Digest, PeerIdHash, ReplicaIndex, Slot,
    scheduling::{Assignments, Manifest, Outcome},
};

/// How often the wait for another try doubles: to 64 intervals.
const MAX_DOUBLINGS: u32 = 6;

/// The slots in a row, up to the last one, that could not place the same replicas while nothing changed
/// that everybody sees: the workers that were considered, and what ran.
#[derive(Debug, Default)]
pub(crate) struct FailedTries {
    pending: BTreeSet<(Blake3Digest, u16)>,
    workers: BTreeSet<PeerIdHash>,
    running: BTreeSet<(Blake3Digest, ReplicaIndex)>,
    count: u32,
}

impl FailedTries {
    /// Those before a slot. They are read from the records, so a restart changes nothing.
    pub(crate) fn before(slot: Slot, ledger: &Ledger) -> Self {
        let before = (1..=u64::from(MAX_DOUBLINGS) + 1).map_while(|k| slot.0.checked_sub(k));
        let records = before.map_while(|slot| ledger.record(Slot(slot)).ok().flatten());
        Self::of(records.map(|record| (record.manifest, record.assignments)))
    }

    /// Those among slots, latest first.
    fn of(slots: impl Iterator<Item = (Manifest, Assignments)>) -> Self {
        let mut tries = slots.map(|(manifest, assignments)| {
            // A slot that ended void has no assignments: it was a try of everything pending.
            let placed = assignments.as_slice().iter().filter(|a| a.outcome != Outcome::Pending);
            let placed: BTreeSet<_> = placed.map(|a| (a.job, a.replica)).collect();
            let left = manifest.pending.iter().filter(|p| !placed.contains(&(p.job, p.replica)));
            Self {
                pending: left.map(|p| (p.job, p.replica.0)).collect(),
                workers: manifest.telemetry.iter().map(|entry| entry.sender).collect(),
                running: manifest.running.iter().map(|r| (r.job, r.replica)).collect(),
                count: 1,
            }
        });
        let mut last = tries.next().unwrap_or_default();
        let same = |earlier: &Self| {
            (&earlier.pending, &earlier.workers, &earlier.running)
                == (&last.pending, &last.workers, &last.running)
        };
        // Without anything left over there is nothing to count, and no record to read.
        if !last.pending.is_empty() {
            last.count += tries.take_while(same).count() as u32;
        }
        last
    }

    /// Whether a slot would only try the same again. Workers that are silent now change nothing.
    pub(crate) fn are_of(
        &self,
        pending: &BTreeSet<(Blake3Digest, u16)>,
        candidates: &BTreeSet<PeerIdHash>,
    ) -> bool {
        !pending.is_empty() && *pending == self.pending && candidates.is_subset(&self.workers)
    }

    /// How long after the last one the next try is due.
    pub(crate) fn pause(&self, interval: Duration) -> Duration {
        interval * (1 << self.count.saturating_sub(1).min(MAX_DOUBLINGS))
    }
}

#[cfg(test)]
mod tests {
    use veil_protocol_spec::{
        Address, ChainId, ClusterId, Epoch, KeccakDigest, KeySetDigest, ParticipantIndex,
        scheduling::{
            Assignment, Binding, BlockRef, CircuitId, ClusterScope, PendingReplica, ReplicaState,
            RunningReplica, TelemetryEntry,
        },
    };

    use super::*;

    const INTERVAL: Duration = Duration::from_secs(10);
    const JOB: Blake3Digest = Blake3Digest([1; 32]);

    fn worker(byte: u8) -> PeerIdHash {
        PeerIdHash([byte; 32])
    }

    /// A slot in which one replica found no place.
    fn slot(slot: u64, workers: &[u8], running: u16) -> (Manifest, Assignments) {
        let scope = ClusterScope {
            chain_id: ChainId(1),
            contract: Address([2; 20]),
            cluster: ClusterId([3; 32]),
        };
        let replica = ReplicaIndex(0);
        let manifest = Manifest {
            binding: Binding { scope, key_set: KeySetDigest([4; 32]), epoch: Epoch(0) },
            slot: Slot(slot),
            proposer: ParticipantIndex::new(1).unwrap(),
            previous: KeccakDigest([5; 32]),
            block: BlockRef { number: slot, hash: KeccakDigest([6; 32]) },
            base: KeccakDigest([0; 32]),
            jobs_seen: 0,
            policy: KeccakDigest([7; 32]),
            circuit: CircuitId { version: 1, fingerprint: Blake3Digest([8; 32]) },
            telemetry: workers
                .iter()
                .map(|w| TelemetryEntry { sender: worker(*w), digest: Blake3Digest([*w; 32]) })
                .collect(),
            pending: vec![PendingReplica { submission: 1, job: JOB, replica }],
            running: (0..running)
                .map(|k| RunningReplica {
                    job: Blake3Digest([9; 32]),
                    replica: ReplicaIndex(k),
                    worker: worker(1),
                    state: ReplicaState::Serving,
                })
                .collect(),
            lost: Vec::new(),
        };
        let pending = Assignment { job: JOB, replica, outcome: Outcome::Pending };
        (manifest, Assignments::try_from(vec![pending]).unwrap())
    }

    fn pause(slots: Vec<(Manifest, Assignments)>) -> Duration {
        FailedTries::of(slots.into_iter().rev()).pause(INTERVAL)
    }

    #[test]
    fn each_try_that_fails_doubles_the_wait() {
        let tries = |count: u64| pause((1..=count).map(|k| slot(k, &[1, 2], 3)).collect());
        let waits: Vec<u64> = (1..=9).map(|count| tries(count).as_secs()).collect();
        assert_eq!(waits, [10, 20, 40, 80, 160, 320, 640, 640, 640]);
    }

    #[test]
    fn a_slot_that_ended_void_is_a_try() {
        let mut slots: Vec<_> = (1..=3).map(|k| slot(k, &[1, 2], 3)).collect();
        slots[1].1 = Assignments::default();
        assert_eq!(pause(slots), INTERVAL * 4);
    }

    #[test]
    fn what_could_change_the_outcome_begins_anew() {
        let same: Vec<_> = (1..=4).map(|k| slot(k, &[1, 2], 3)).collect();
        let with = |last| pause([same.clone(), vec![last]].concat());
        assert_eq!(with(slot(5, &[1, 2], 3)), INTERVAL * 16);
        assert_eq!(with(slot(5, &[1, 2], 2)), INTERVAL); // a replica left
        assert_eq!(with(slot(5, &[1, 2, 3], 3)), INTERVAL); // a worker came
    }

    #[test]
    fn a_new_job_or_worker_does_not_wait() {
        let tries = FailedTries::of(vec![slot(1, &[1, 2], 3)].into_iter());
        let left = BTreeSet::from([(JOB, 0)]);
        let more = BTreeSet::from([(JOB, 0), (Blake3Digest([2; 32]), 0)]);
        let known = |workers: &[u8]| workers.iter().copied().map(worker).collect();
        assert!(tries.are_of(&left, &known(&[1, 2])));
        assert!(tries.are_of(&left, &known(&[1])), "a silent worker brings no room");
        assert!(!tries.are_of(&left, &known(&[1, 3])));
        assert!(!tries.are_of(&more, &known(&[1, 2])));
        assert!(!FailedTries::default().are_of(&left, &known(&[1, 2])));
    }
}
