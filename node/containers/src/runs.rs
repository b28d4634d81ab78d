//! How often a batch replica was run, and how it ended: part of the executor's [record](crate::record).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use veil_protocol_spec::{
    Blake3Digest, ReplicaIndex, Slot,
    scheduling::{EndedReplica, ReplicaExit},
};

use crate::replica::ReplicaId;

/// Runs of one replica by this worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Runs {
    job: Blake3Digest,
    replica: ReplicaIndex,
    /// What placed it here. Another placement counts anew.
    slot: Slot,
    /// Runs that were begun.
    begun: u16,
    /// How the last of them ended, once no other follows.
    ended: Option<ReplicaExit>,
}

/// Of all replicas.
#[derive(Default)]
pub(crate) struct AllRuns {
    runs: BTreeMap<ReplicaId, Runs>,
}

impl AllRuns {
    pub(crate) fn restore(stored: Vec<Runs>) -> Self {
        let id = |of: &Runs| ReplicaId { job: of.job, replica: of.replica };
        Self { runs: stored.into_iter().map(|of| (id(&of), of)).collect() }
    }

    pub(crate) fn stored(&self) -> Vec<Runs> {
        self.runs.values().copied().collect()
    }

    /// Runs that were begun for this placement.
    pub(crate) fn begun(&self, id: &ReplicaId, slot: Slot) -> u16 {
        self.runs.get(id).filter(|of| of.slot == slot).map_or(0, |of| of.begun)
    }

    /// Runs that were begun for whichever placement.
    pub(crate) fn begun_ever(&self, id: &ReplicaId) -> u16 {
        self.runs.get(id).map_or(0, |of| of.begun)
    }

    pub(crate) fn has_ended(&self, id: &ReplicaId, slot: Slot) -> bool {
        self.runs.get(id).is_some_and(|of| of.slot == slot && of.ended.is_some())
    }

    /// So many runs were begun for this placement, and no more.
    pub(crate) fn begin(&mut self, id: ReplicaId, slot: Slot, begun: u16) {
        let ReplicaId { job, replica } = id;
        if begun == 0 {
            self.runs.remove(&id);
        } else {
            self.runs.insert(id, Runs { job, replica, slot, begun, ended: None });
        }
    }

    /// No other run follows.
    pub(crate) fn end(&mut self, id: ReplicaId, slot: Slot, exit: ReplicaExit) {
        let ReplicaId { job, replica } = id;
        let begun = self.begun_ever(&id);
        self.runs.insert(id, Runs { job, replica, slot, begun, ended: Some(exit) });
    }

    /// What has ended of the placements for which `counts` says so, in order.
    pub(crate) fn ended(&self, counts: impl Fn(&ReplicaId, Slot) -> bool) -> Vec<EndedReplica> {
        let ended = self.runs.iter().filter_map(|(id, of)| {
            let exit = of.ended.filter(|_| counts(id, of.slot))?;
            Some(EndedReplica { job: id.job, replica: id.replica, exit })
        });
        ended.collect()
    }

    /// Drops replicas that are over; whether there were any.
    pub(crate) fn retain(&mut self, as_of: Slot, wanted: impl Fn(&ReplicaId) -> bool) -> bool {
        let before = self.runs.len();
        self.runs.retain(|id, of| of.slot > as_of || wanted(id));
        self.runs.len() != before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: ReplicaId = ReplicaId { job: Blake3Digest([1; 32]), replica: ReplicaIndex(3) };
    const FAILED: ReplicaExit = ReplicaExit { code: Some(3), out_of_memory: false };

    #[test]
    fn another_placement_counts_anew() {
        let mut runs = AllRuns::default();
        runs.begin(ID, Slot(7), 2);
        assert_eq!((runs.begun(&ID, Slot(7)), runs.begun(&ID, Slot(9))), (2, 0));
        assert_eq!(runs.begun_ever(&ID), 2, "of a container that is still there");
        runs.end(ID, Slot(7), FAILED);
        assert!(runs.has_ended(&ID, Slot(7)) && !runs.has_ended(&ID, Slot(9)));
        let of = |slot| runs.ended(|_, placed| placed == slot).len();
        assert_eq!((of(Slot(7)), of(Slot(9))), (1, 0));
        let runs = AllRuns::restore(runs.stored());
        let ended = EndedReplica { job: ID.job, replica: ID.replica, exit: FAILED };
        assert_eq!(runs.ended(|_, _| true), [ended]);
    }

    #[test]
    fn a_start_that_was_refused_was_no_run() {
        let mut runs = AllRuns::default();
        runs.begin(ID, Slot(7), 1);
        runs.begin(ID, Slot(7), 0);
        assert_eq!((runs.begun_ever(&ID), runs.stored()), (0, vec![]));
    }

    #[test]
    fn a_certificate_has_it_forgotten() {
        let mut runs = AllRuns::default();
        runs.end(ID, Slot(7), FAILED);
        assert!(!runs.retain(Slot(6), |_| false) && !runs.retain(Slot(9), |id| *id == ID));
        assert!(runs.retain(Slot(7), |_| false));
    }
}
