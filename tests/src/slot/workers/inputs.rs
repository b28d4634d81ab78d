//! What members store of a slot's inputs, and evaluate.

use veil_committee_slot::manifest::TelemetryRef;
use veil_protocol_spec::{
    Blake3Digest,
    scheduling::{CircuitId, ClusterState, Manifest, Reading, Sampling, TelemetryEntry},
};
use veil_scheduler_plan::inputs::PublicInputs;

use super::{Sample, Surroundings};

impl Surroundings {
    fn find(&self, entry: &TelemetryEntry) -> Option<&Sample> {
        self.bundle.get(&entry.digest).or_else(|| self.samples.get(&entry.digest))
    }

    /// A message that anybody has.
    pub(in crate::slot) fn fetched(&self, entry: &TelemetryEntry) -> Option<TelemetryRef> {
        self.find(entry).map(|sample| sample.telemetry.clone())
    }

    /// What stays true of a manifest's inputs, whatever happens to jobs and telemetry after.
    pub(in crate::slot) fn inputs(
        &mut self,
        manifest: &Manifest,
        state: &ClusterState,
    ) -> (PublicInputs, Vec<Reading>) {
        let pending = manifest.pending.iter();
        let public = PublicInputs {
            policy: self.policy,
            jobs: pending.filter_map(|p| Some((p.job, self.jobs.get(&p.job)?.clone()))).collect(),
            running: state.running(manifest).collect(),
            closed: self
                .chain
                .at(manifest.block)
                .map(|view| (*view.draining).clone())
                .unwrap_or_default(),
            previous: state.previous(manifest).collect(),
            seed: state.seed(),
            last_decided: state.last_decided(),
            draw: state.draw(manifest),
            barred: state.barred(manifest).collect(),
            late: state.late(manifest).collect(),
            ..PublicInputs::default()
        };
        let mut readings = Vec::with_capacity(manifest.telemetry.len());
        for entry in &manifest.telemetry {
            let sample = self.find(entry).cloned();
            readings.push(sample.as_ref().map(|sample| sample.reading).unwrap_or_default());
            self.bundle.extend(sample.map(|sample| (entry.digest, sample)));
        }
        (public, readings)
    }

    /// How many candidates the policy lets a try ask.
    pub(in crate::slot) const fn sampling(&self) -> Sampling {
        self.policy.sampling()
    }

    /// What a manifest of a block is evaluated under.
    pub(in crate::slot) const fn circuit(&self, block: u64) -> CircuitId {
        let version = self.policy.circuit_at(block);
        CircuitId { version, fingerprint: Blake3Digest([0xcc; 32]) }
    }

    /// The slot is over.
    pub(in crate::slot) fn drop_bundle(&mut self) {
        self.bundle.clear();
    }
}
