//! Whether this member can vote for a proposed manifest.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use veil_committee_slot::manifest::InvalidManifest;
use veil_node_core::{
    epoch::ActiveEpoch,
    evaluation::{EvaluationError, Fetched, InputSource, KeptManifest},
};
use veil_protocol_spec::{
    ParticipantIndex,
    scheduling::{Manifest, TelemetryEntry, UnixMillis},
};
use veil_scheduler_plan::plan::Plan;

use crate::local_view::{ViewSnapshot, telemetry_ref};

/// A validator allows samples to be this much older than a proposer.
const AGE_SLACK: u64 = 30_000;
/// For fetching all that a manifest lists: as long as its proposer may take, so that nobody is held up
/// by what does not exist.
const FETCH_DEADLINE: Duration = Duration::from_secs(10);

/// For a block that a proposer acts on already.
const SETTLE_DEADLINE: Duration = Duration::from_secs(5);

/// See the [module documentation](self).
pub(crate) struct Validator {
    pub(crate) inputs: InputSource,
    pub(crate) telemetry_max_age: UnixMillis,
}

impl Validator {
    /// "A member votes only for a manifest that includes every live registered worker whose fresh
    /// telemetry it received before the cut-off": what is in `received`, taken before the manifest
    /// came.
    ///
    /// # Errors
    /// [`InvalidManifest`].
    pub(crate) async fn validate(
        &self,
        received: ViewSnapshot,
        manifest: Manifest,
        proposer: ParticipantIndex,
        by_quorum: bool,
    ) -> Result<KeptManifest, InvalidManifest> {
        let epoch: &ActiveEpoch = &self.inputs.epoch;
        let unknown = |error: &dyn std::fmt::Display| InvalidManifest::Unknown(error.to_string());
        // What was received before the manifest came, but the chain as of the block that it names.
        let view = self.inputs.views.at(manifest.block).await.map_err(|error| unknown(&error))?;
        let snapshot = received.with_chain(view, self.settled(manifest.block.number).await);
        let jobs = snapshot.demands(&self.inputs.jobs);
        let fit = snapshot.fit(&self.inputs.jobs);
        let max_age = self.telemetry_max_age.0 + AGE_SLACK;
        let local_view = || {
            let view = snapshot.local_view(epoch, &jobs, &fit, max_age);
            if by_quorum { view.in_appeal() } else { view }
        };
        // What ends by itself and what is a version is told by bodies.
        let mut bodies: BTreeSet<_> = manifest.done.iter().map(|done| done.job).collect();
        bodies.extend(manifest.rollouts.versions.iter().map(|version| version.job));
        // Cheap checks first; then one deadline for everything that has to be fetched.
        local_view().validate_facts(&manifest, proposer)?;
        let fetched = in_time(async {
            let fetched = self.inputs.fetch(&manifest).await;
            // What is not found is named by the lists.
            for job in bodies {
                self.inputs.job(job).await;
            }
            fetched
        })
        .await?;
        let Fetched { public, telemetry, .. } = &fetched;
        let found: BTreeMap<_, _> =
            telemetry.iter().map(|found| (found.digest, telemetry_ref(found))).collect();
        let found = |entry: &TelemetryEntry| found.get(&entry.digest).cloned();
        let plan = || Plan::new(&manifest, public).map(drop);
        let mut judged = local_view().validate_lists(&manifest, plan, found);
        if matches!(judged, Err(InvalidManifest::Unknown(_))) {
            // Of which job a new one could be a version is told by the bodies of what runs.
            let missing: BTreeSet<_> =
                snapshot.placed().filter(|job| jobs(job).is_none()).collect();
            let fetching = async {
                for job in missing {
                    self.inputs.job(job).await;
                }
            };
            let _ = tokio::time::timeout(FETCH_DEADLINE, fetching).await;
            judged = local_view().validate_lists(&manifest, plan, found);
        }
        judged?;
        // "Before a member votes for a manifest [...] it stores" its inputs (`slot.md`, 3).
        self.inputs.keep(manifest, &fetched).await.map_err(|error| unknown(&error))
    }

    /// Number of the last block that counts as settled here. A proposer may be a little ahead, so one that
    /// is not yet is waited for.
    async fn settled(&self, block: u64) -> u64 {
        let mut views = self.inputs.views.subscribe();
        let reached = views.wait_for(|view| view.block.number >= block);
        // If it is not settled in time, it is refused by what is.
        let _ = tokio::time::timeout(SETTLE_DEADLINE, reached).await;
        self.inputs.views.current().block.number
    }
}

/// What is fetched, unless it takes too long or cannot be found.
async fn in_time<T>(
    fetching: impl Future<Output = Result<T, EvaluationError>>,
) -> Result<T, InvalidManifest> {
    let fetched = tokio::time::timeout(FETCH_DEADLINE, fetching).await;
    let fetched = fetched
        .map_err(|_| InvalidManifest::Unknown(format!("what it lists in {FETCH_DEADLINE:?}")))?;
    fetched.map_err(|error| InvalidManifest::Unknown(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Finding A5: a proposer that names what nobody has held the others up for minutes.
    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_what_does_not_exist() {
        let begun = tokio::time::Instant::now();
        let nobody_has_it = std::future::pending::<Result<(), EvaluationError>>();
        let waited = tokio::time::timeout(FETCH_DEADLINE * 2, in_time(nobody_has_it)).await;
        assert!(matches!(waited, Ok(Err(InvalidManifest::Unknown(_)))), "{waited:?}");
        assert_eq!(begun.elapsed(), FETCH_DEADLINE);
        assert!(matches!(in_time(async { Ok(7) }).await, Ok(7)));
    }
}
