//! What this member knows when it writes or validates a manifest, taken at one moment.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use veil_committee_slot::{
    demand::JobDemand,
    fit::Fit,
    manifest::{LocalView, MAX_BLOCK_AGE, TelemetryRef},
    pool::Verified,
};
use veil_node_core::{
    cluster::View,
    epoch::{ActiveEpoch, Expanded},
};
use veil_node_process::unix_now;
use veil_node_storage::jobs::Jobs;
use veil_protocol_spec::{
    Address, Blake3Digest, PeerIdHash, Slot,
    scheduling::{CertificateBody, ClusterState, JobSpec, Profile, TelemetryEntry, UnixMillis},
};
use veil_scheduler::slot::circuit_of;

use crate::suspicions::{BySlot, Suspicions};

/// As far as a manifest is concerned with a message.
pub(crate) fn telemetry_ref(entry: &Verified<Expanded>) -> TelemetryRef {
    let body = &entry.telemetry.body;
    TelemetryRef {
        entry: TelemetryEntry { sender: body.sender(), digest: entry.digest },
        includes_slot: body.includes_slot,
        sampled_at: body.sampled_at,
        policy: body.policy,
        ended: body.ended.as_slice().into(),
        given_back: body.given_back.as_slice().into(),
        health: body.health.as_slice().into(),
        profile: Arc::new(body.profile.clone()),
    }
}

/// The owned parts of a [`LocalView`].
pub(crate) struct ViewSnapshot {
    view: Arc<View>,
    state: Arc<ClusterState>,
    pub(crate) workers: BTreeSet<PeerIdHash>,
    draining: BTreeSet<PeerIdHash>,
    owners: BTreeMap<PeerIdHash, Address>,
    settled: u64,
    pub(crate) fresh: Vec<TelemetryRef>,
    suspicions: BySlot,
}

impl ViewSnapshot {
    /// With the chain as of `view`, and what this member has received by now.
    pub(crate) fn take(
        epoch: &ActiveEpoch,
        suspicions: &Suspicions,
        view: Arc<View>,
        slot: Slot,
    ) -> Self {
        let state = epoch.ledger.state();
        let now = unix_now();
        let fresh = epoch.pool().fresh(now, now, |_| Slot(0));
        let fresh = fresh.iter().map(|entry| telemetry_ref(entry));
        let fresh =
            fresh.filter(|c| state.telemetry_counts(&c.entry.sender, c.includes_slot)).collect();
        Self {
            workers: view.workers(),
            draining: view.draining(),
            owners: view.owners(),
            settled: view.block.number,
            suspicions: suspicions.of(slot),
            state,
            fresh,
            view,
        }
    }

    /// The same with the chain as of another block; number `settled` is the last settled one.
    pub(crate) fn with_chain(self, view: Arc<View>, settled: u64) -> Self {
        let (workers, draining, owners) = (view.workers(), view.draining(), view.owners());
        Self { workers, draining, owners, settled, view, ..self }
    }

    /// Jobs that have a place, and the wanted versions of those that have several; one may be named more than once.
    pub(crate) fn placed(&self) -> impl Iterator<Item = Blake3Digest> + '_ {
        let wanted = self.state.lines().filter_map(|(_, line)| Some(line.target()?.job));
        self.state.replicas().map(|(job, ..)| job).chain(wanted)
    }

    /// Which workers may run a system job.
    pub(crate) fn fit<'a>(
        &self,
        jobs: &'a Jobs,
    ) -> impl Fn(&Blake3Digest, &PeerIdHash, &Profile) -> Fit + use<'a> {
        let view = Arc::clone(&self.view);
        move |job, worker, profile| {
            let fit = |body: &JobSpec| view.fit(body, worker, Some(profile));
            jobs.read(job, fit).unwrap_or(Fit::Silent)
        }
    }

    /// What jobs want by the policy.
    pub(crate) fn demands<'a>(
        &self,
        jobs: &'a Jobs,
    ) -> impl Fn(&Blake3Digest) -> Option<JobDemand> + use<'a> {
        let (view, policy) = (Arc::clone(&self.view), self.view.rules_or_default());
        move |job| jobs.read(job, |body| JobDemand::of(body, &policy, &view.images, view.time))
    }

    /// The same of jobs that this member proposes: not of one whose sealed key was dealt to it wrongly
    /// (`sealed.md`, step 4), whose encrypted request it has not verified, or that is placed by weights which it does
    /// not have. "A job that is not listed is no objection."
    pub(crate) fn proposed<'a>(
        &self,
        jobs: &'a Jobs,
        epoch: &'a Arc<ActiveEpoch>,
    ) -> impl Fn(&Blake3Digest) -> Option<JobDemand> + use<'a> {
        let demands = self.demands(jobs);
        let has_right_share = |job: &Blake3Digest| {
            epoch.sealing.get().is_none_or(|sealing| sealing.proposes(job, jobs))
        };
        let is_sound = |job: &Blake3Digest| {
            jobs.read(job, |body| epoch.has_sound_request(job, body)) == Some(true)
        };
        let weights = self.view.rules_or_default().weights;
        let has_weights = move |body: &JobSpec| {
            weights.list_for(body.policy).is_none_or(|named| epoch.weights.has(&named))
        };
        let can_place = move |job: &Blake3Digest| jobs.read(job, has_weights) == Some(true);
        move |job| demands(job).filter(|_| has_right_share(job) && is_sound(job) && can_place(job))
    }

    /// The view that rules and differences follow from. `jobs` says what a job wants whose body is known, `fit` who
    /// may run one that is for each worker;
    /// samples older than `max_age` do not count.
    pub(crate) fn local_view<'a>(
        &'a self,
        epoch: &'a ActiveEpoch,
        jobs: &'a dyn Fn(&Blake3Digest) -> Option<JobDemand>,
        fit: &'a dyn Fn(&Blake3Digest, &PeerIdHash, &Profile) -> Fit,
        max_age: u64,
    ) -> LocalView<'a> {
        LocalView {
            binding: epoch.binding,
            committee: epoch.committee,
            roster: &epoch.roster,
            state: &self.state,
            block: self.view.block,
            settled: self.settled,
            max_block_age: MAX_BLOCK_AGE,
            base: self.view.head.map_or(CertificateBody::NO_PREVIOUS, |head| head.hash),
            anchored: self.view.head.map_or(Slot(0), |head| head.slot),
            policy: self.view.policy,
            max_workers: self.view.rules.as_ref().map_or(0, |rules| rules.max_workers.into()),
            sampling: self.view.rules_or_default().sampling(),
            workers: &self.workers,
            draining: &self.draining,
            submissions: &self.view.submissions,
            jobs,
            circuit: circuit_of(self.view.rules_or_default().circuit_at(self.view.block.number)),
            fresh: &self.fresh,
            suspicions: &self.suspicions,
            not_before: UnixMillis(unix_now().0.saturating_sub(max_age)),
            appeal: false,
            owners: &self.owners,
            fit,
        }
    }
}
