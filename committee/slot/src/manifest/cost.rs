//! What a slot's circuit may cost.

use veil_protocol_spec::scheduling::{Manifest, PendingReplica};
use veil_scheduler_plan::cost::{most_pairs, pairs};

use super::{InvalidManifest, LocalView};

impl LocalView<'_> {
    /// "A manifest that costs more than the slot's bound is never locked", and how many workers a replica asks is no
    /// choice of the proposer's.
    pub(super) fn validate_cost(&self, manifest: &Manifest) -> Result<(), InvalidManifest> {
        let (found, most) = (pairs(manifest), most_pairs(self.state.voids()));
        if found > most && manifest.pending.len() > 1 {
            return Err(InvalidManifest::TooCostly { found, most });
        }
        let asks_right = |of: &PendingReplica| {
            let failed = self.state.failed(of.job, of.replica);
            of.candidates == of.only.map_or_else(|| self.sampling.of_try(failed), |_| 1)
        };
        if !manifest.pending.iter().all(asks_right) {
            return Err(InvalidManifest::Differs("number of candidates"));
        }
        Ok(())
    }
}
