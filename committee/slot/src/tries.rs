//! What could not be placed is tried again, less and less often: what never fits must not cost a slot
//! and a transaction at every interval.

use std::collections::BTreeSet;

use veil_committee_machine::Millis;
use veil_protocol_spec::{
    Blake3Digest, PeerIdHash, ReplicaIndex,
    scheduling::{Assignments, Manifest, Outcome},
};

/// How often the wait for another try doubles: to 64 intervals.
const MAX_DOUBLINGS: u32 = 6;

/// How many of the last slots [`FailedTries`] depends on.
pub const REMEMBERED_SLOTS: u64 = MAX_DOUBLINGS as u64 + 1;

/// The slots in a row, up to the last one, that could not place the same replicas while nothing changed
/// that everybody sees: the workers that were considered, and what ran.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FailedTries {
    pending: BTreeSet<(Blake3Digest, u16)>,
    workers: BTreeSet<PeerIdHash>,
    running: BTreeSet<(Blake3Digest, ReplicaIndex)>,
    count: u32,
}

impl FailedTries {
    /// Takes in the slot after those that are known. After a restart, the last
    /// [`REMEMBERED_SLOTS`] are enough.
    pub fn record(&mut self, manifest: &Manifest, assignments: &Assignments) {
        // A void slot answers nothing: all that was pending has no place.
        let placed: BTreeSet<_> = assignments
            .as_slice()
            .iter()
            .filter(|assignment| assignment.outcome != Outcome::Pending)
            .map(|assignment| (assignment.job, assignment.replica.0))
            .collect();
        let pending = manifest.pending.iter().map(|pending| (pending.job, pending.replica.0));
        let mut last = Self {
            pending: pending.filter(|replica| !placed.contains(replica)).collect(),
            workers: manifest.telemetry.iter().map(|entry| entry.sender).collect(),
            running: manifest.running.iter().map(|r| (r.job, r.replica)).collect(),
            count: 1,
        };
        let same = (&self.pending, &self.workers, &self.running)
            == (&last.pending, &last.workers, &last.running);
        if same && !last.pending.is_empty() {
            last.count = self.count.saturating_add(1);
        }
        *self = last;
    }

    /// Whether a slot would only try the same again. Workers that are silent now change nothing.
    #[must_use]
    pub fn are_of(
        &self,
        pending: &BTreeSet<(Blake3Digest, u16)>,
        candidates: &BTreeSet<PeerIdHash>,
    ) -> bool {
        !pending.is_empty() && *pending == self.pending && candidates.is_subset(&self.workers)
    }

    /// How long after the last one the next try is due.
    #[must_use]
    pub const fn pause(&self, interval: Millis) -> Millis {
        let doublings = self.count.saturating_sub(1);
        let doublings = if doublings < MAX_DOUBLINGS { doublings } else { MAX_DOUBLINGS };
        interval.saturating_mul(1 << doublings)
    }
}

#[cfg(test)]
mod tests {
    use veil_protocol_spec::{
        Slot,
        scheduling::{Assignment, PendingReplica, ReplicaState, RunningReplica, TelemetryEntry},
    };

    use super::*;
    use crate::fixtures;

    const INTERVAL: Millis = 10_000;
    const JOB: Blake3Digest = Blake3Digest([1; 32]);

    fn worker(byte: u8) -> PeerIdHash {
        PeerIdHash([byte; 32])
    }

    /// A slot in which one replica found no place.
    fn slot(slot: u64, workers: &[u8], running: u16) -> (Manifest, Assignments) {
        let replica = ReplicaIndex(0);
        let manifest = Manifest {
            slot: Slot(slot),
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
            ..fixtures::manifest()
        };
        let pending = Assignment { job: JOB, replica, outcome: Outcome::Pending };
        (manifest, Assignments::try_from(vec![pending]).unwrap())
    }

    fn tries(slots: &[(Manifest, Assignments)]) -> FailedTries {
        let mut tries = FailedTries::default();
        slots.iter().for_each(|(manifest, assignments)| tries.record(manifest, assignments));
        tries
    }

    #[test]
    fn each_try_that_fails_doubles_the_wait() {
        let pause = |count: u64| {
            let slots: Vec<_> = (1..=count).map(|k| slot(k, &[1, 2], 3)).collect();
            tries(&slots).pause(INTERVAL) / 1000
        };
        let waits: Vec<u64> = (1..=9).map(pause).collect();
        assert_eq!(waits, [10, 20, 40, 80, 160, 320, 640, 640, 640]);
    }

    #[test]
    fn what_could_change_the_outcome_begins_anew() {
        let same: Vec<_> = (1..=4).map(|k| slot(k, &[1, 2], 3)).collect();
        let with = |last| tries(&[same.clone(), vec![last]].concat()).pause(INTERVAL);
        assert_eq!(with(slot(5, &[1, 2], 3)), INTERVAL * 16);
        assert_eq!(with(slot(5, &[1, 2], 2)), INTERVAL); // a replica left
        assert_eq!(with(slot(5, &[1, 2, 3], 3)), INTERVAL); // a worker came
        let (manifest, _) = slot(5, &[1, 2], 3);
        assert_eq!(with((manifest, Assignments::default())), INTERVAL * 16); // a void slot
    }

    #[test]
    fn the_last_slots_are_enough_after_a_restart() {
        let slots: Vec<_> = (1..=20).map(|k| slot(k, &[1, 2], 3)).collect();
        let last = slots.len() - REMEMBERED_SLOTS as usize;
        assert_eq!(tries(&slots).pause(INTERVAL), tries(&slots[last..]).pause(INTERVAL));
    }

    #[test]
    fn a_new_job_or_worker_does_not_wait() {
        let tries = tries(&[slot(1, &[1, 2], 3)]);
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
