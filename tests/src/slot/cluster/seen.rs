//! What members see of the world around them.

use std::{collections::BTreeSet, sync::Arc};

use veil_committee_machine::Millis;
use veil_protocol_spec::{
    ParticipantIndex, Slot,
    scheduling::{ClusterState, UnixMillis},
};

use super::{
    super::{
        SlotBehaviour,
        chain::ChainView,
        sight::{BySlot, Sight},
        telemetry::MAX_AGE,
    },
    Cluster,
};

/// Workers that a member calls lost that are not.
const ACCUSED: usize = 8;
/// Seconds for which it says that they are.
const SAID_TO_BE_LOST_FOR: u32 = 86_400;

impl Cluster {
    /// What member `j` sees, with the chain as of a block.
    pub(in crate::slot) fn sight(
        &mut self,
        j: ParticipantIndex,
        chain: Arc<ChainView>,
        now: Millis,
    ) -> Sight {
        let state = Arc::clone(&self.disks[j.position()].state);
        let slot = Slot(state.last_slot().0 + 1);
        let suspicions = self.suspicions(slot, &state, now);
        let (fresh, silent) = self.around.fresh(j, &state, now);
        let bodies = self.around.jobs.bodies(chain.time);
        Sight {
            committee: self.plan.committee,
            roster: Arc::clone(&self.roster),
            silent,
            state,
            settled: self.around.chain.head().block.number,
            max_workers: usize::from(self.plan.scenario.max_workers),
            sampling: self.around.sampling(),
            circuit: self.around.circuit(chain.block.number),
            bodies,
            fresh,
            suspicions,
            not_before: self.not_before(j, MAX_AGE, now),
            appeal: false,
            owners: self.around.owners(),
            chain,
        }
    }

    pub(in crate::slot) fn not_before(
        &self,
        j: ParticipantIndex,
        age: Millis,
        now: Millis,
    ) -> UnixMillis {
        UnixMillis(self.around.clock(j).at(now).0.saturating_sub(age))
    }

    /// "A member suspects a worker on its own evidence only."
    fn suspicions(&mut self, slot: Slot, state: &ClusterState, now: Millis) -> Arc<BySlot> {
        let honest: BTreeSet<_> = self.plan.honest().filter(|j| self.is_up(*j)).collect();
        let mut who = Vec::new();
        for (worker, by) in self.around.suspected(now) {
            let by_it = |j: &&ParticipantIndex| by.is_none_or(|by| by == j.position());
            let lost_for = self.suspicions.lost_for(worker, state, now);
            who.extend(honest.iter().filter(by_it).map(|j| (worker, *j, lost_for)));
        }
        let accuses = |behaviour: &SlotBehaviour| *behaviour == SlotBehaviour::SuspectAll;
        let liars: Vec<_> =
            self.plan.behaviours.iter().filter(|(_, b)| accuses(b)).map(|(j, _)| *j).collect();
        for j in liars {
            self.deviated(j, "suspicions");
            let accused = self.around.some_that_are_there(ACCUSED);
            who.extend(accused.into_iter().map(|worker| (worker, j, SAID_TO_BE_LOST_FOR)));
        }
        self.suspicions.of(slot, who, self.seed)
    }
}
