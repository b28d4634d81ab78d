//! From a locked manifest to the encrypted outcome, getting what is missing on the way.
//!
//! # Flow
//! 1. What was kept for the manifest before this member voted for it ([`InputSource::keep`]); then nothing
//!    else is needed. Else labels and policy as of the manifest's block, from the chain, and
//! 2. bodies of the pending jobs and telemetry, from this node or from peers. Telemetry from a peer is
//!    checked like gossip, but for its age: the committee has decided that it counts.
//!    Encrypted requests of jobs are verified and expanded, and so are the policy's weights, if they are encrypted and
//!    a job is placed by them.
//! 3. The circuit, step by step, on the threads of the evaluation pool.

mod error;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use async_recursion::async_recursion as boxed;
use futures::{StreamExt, TryStreamExt, stream};
use veil_committee_slot::{
    pool::Verified,
    rollout::homes::{host_volumes, inherits, predecessor},
};
use veil_node_p2p::{Network, PublishError, Topic};
use veil_node_process::unix_now;
use veil_node_storage::{inputs::InputsError, jobs::Jobs};
use veil_protocol_spec::{
    Blake3Digest, PeerIdHash, Wire,
    identity::SecretIdentity,
    scheduling::{
        Assignments, ClusterState, EvaluationBody, EvaluationReport, JobSpec, Manifest, Telemetry,
        TelemetryEntry,
    },
    sync::{SyncAnswer, SyncRequest},
};
use veil_scheduler::{
    Cancellation, EncryptedQuantities, EvaluateError, EvaluationKey, ExpandedWeights, Outputs,
    slot::SlotEvaluation, threshold::Inputs,
};
use veil_scheduler_plan::{inputs::PublicInputs, outcome::openings};

use crate::{
    cluster::{Peers, Views},
    epoch::{ActiveEpoch, Expanded},
};

pub use error::EvaluationError;

/// Inputs fetched at once.
const FETCH_AT_ONCE: usize = 4;

/// A manifest that is being evaluated, step by step.
#[derive(Clone, Debug)]
pub struct Begun {
    evaluation: Arc<Mutex<SlotEvaluation>>,
    /// What reading the outcome needs again.
    pub public: PublicInputs,
    epoch: Arc<ActiveEpoch>,
}

impl Begun {
    /// What is put out after what was opened, its digest, and the seconds that the circuit took.
    ///
    /// # Errors
    /// [`EvaluationError::Evaluate`].
    #[boxed]
    pub async fn step(
        &self,
        opened: Vec<Vec<u8>>,
    ) -> Result<((Outputs, Blake3Digest), f64), EvaluationError> {
        self.run(move |evaluation| evaluation.step(&opened)).await
    }

    /// Computes on the threads of the evaluation pool.
    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut SlotEvaluation) -> Result<T, EvaluateError> + Send + 'static,
    ) -> Result<(T, f64), EvaluationError> {
        let Self { evaluation, epoch, .. } = self.clone();
        let done = tokio::task::spawn_blocking(move || {
            let begun = Instant::now();
            let mut evaluation = evaluation.lock().unwrap_or_else(PoisonError::into_inner);
            let evaluation = &mut *evaluation;
            let done = epoch.evaluators.run(|| work(evaluation))??;
            Ok((done, begun.elapsed().as_secs_f64()))
        });
        done.await.map_err(|_| EvaluationError::Stopped)?
    }
}

/// What a manifest names.
#[derive(Debug)]
pub struct Fetched {
    /// What is public besides the manifest.
    pub public: PublicInputs,
    /// The telemetry, in no order.
    pub telemetry: Vec<Arc<Verified<Expanded>>>,
    /// The encrypted requests, by job.
    pub requests: BTreeMap<Blake3Digest, Arc<EncryptedQuantities>>,
    /// The policy's weights, if they are encrypted and a job is placed by them.
    weights: Option<Arc<ExpandedWeights>>,
    /// Whether the input bundle was kept before.
    is_kept: bool,
}

/// A manifest whose inputs are stored here. Only [`InputSource::keep`] makes one, and a member votes for no other
/// manifest, and proposes no other.
#[derive(Debug)]
pub struct KeptManifest(Manifest);

impl KeptManifest {
    /// The manifest.
    #[must_use]
    pub const fn manifest(&self) -> &Manifest {
        &self.0
    }
}

/// Where the inputs of a manifest come from: this node, else its peers.
#[derive(Clone)]
pub struct InputSource {
    /// The chain.
    pub views: Views,
    /// The other nodes.
    pub peers: Peers,
    /// Bodies of jobs.
    pub jobs: Arc<Jobs>,
    /// Telemetry, certificates, the evaluation key.
    pub epoch: Arc<ActiveEpoch>,
}

impl InputSource {
    /// The digest of a manifest's evaluation, and the seconds that it took, where the slot has ended so: on the state
    /// that it builds on, which need not be the last one any more.
    ///
    /// # Errors
    /// [`EvaluationError`].
    #[boxed]
    pub async fn evaluate_again(
        &self,
        state: &ClusterState,
        manifest: Manifest,
        ended: &Assignments,
    ) -> Result<(Blake3Digest, f64), EvaluationError> {
        let fetched = self.fetch_on(state, &manifest).await?;
        let opened = openings(&manifest, &fetched.public, ended)?;
        let begun = self.begin(manifest, fetched, Cancellation::default())?;
        begun.run(move |evaluation| evaluation.again(&opened)).await
    }

    /// A manifest whose lock the caller has checked, to be evaluated until it is cancelled.
    ///
    /// # Errors
    /// [`EvaluationError::Light`].
    pub fn begin(
        &self,
        manifest: Manifest,
        fetched: Fetched,
        cancellation: Cancellation,
    ) -> Result<Begun, EvaluationError> {
        let key = self.key()?.until(cancellation);
        let Fetched { public, telemetry, requests, weights, .. } = fetched;
        let reports = telemetry
            .iter()
            .map(|found| (found.digest, Arc::clone(&found.expanded.telemetry)))
            .collect();
        let inputs = Inputs { public: public.clone(), reports, requests, weights };
        let evaluation = Arc::new(Mutex::new(SlotEvaluation::new(manifest, inputs, key)));
        Ok(Begun { evaluation, public, epoch: Arc::clone(&self.epoch) })
    }

    /// What circuits are evaluated under.
    ///
    /// # Errors
    /// [`EvaluationError::Light`].
    pub fn key(&self) -> Result<EvaluationKey, EvaluationError> {
        self.epoch.keys.evaluation.clone().ok_or(EvaluationError::Light)
    }

    /// "Before a member votes for a manifest, and before it proposes one, it stores the bodies of the pending
    /// jobs, the telemetry, and policy and labels as of the block" (`slot.md`, 3), unless that was done. Waits
    /// for the disk.
    ///
    /// # Errors
    /// [`EvaluationError::Kept`], or [`EvaluationError::KeepsNone`].
    #[boxed]
    pub async fn keep(
        &self,
        manifest: Manifest,
        fetched: &Fetched,
    ) -> Result<KeptManifest, EvaluationError> {
        let stores = self.epoch.stores.clone().ok_or(EvaluationError::KeepsNone)?;
        if fetched.is_kept {
            return Ok(KeptManifest(manifest));
        }
        let bundle = fetched.public.bundle(&manifest);
        let jobs: Vec<_> = fetched.public.jobs.values().cloned().collect();
        let telemetry = fetched.telemetry.clone();
        let keeping = tokio::task::spawn_blocking(move || {
            let messages = telemetry.iter().map(|found| &found.telemetry);
            stores.inputs.keep(&bundle, &jobs, messages)
        });
        keeping.await.map_err(|_| EvaluationError::Stopped)??;
        Ok(KeptManifest(manifest))
    }

    /// Gets everything that a manifest names, and keeps it.
    ///
    /// # Errors
    /// [`EvaluationError`].
    #[boxed]
    pub async fn fetch_and_keep(
        &self,
        manifest: Manifest,
    ) -> Result<(Fetched, KeptManifest), EvaluationError> {
        let fetched = self.fetch(&manifest).await?;
        let kept = self.keep(manifest, &fetched).await?;
        Ok((fetched, kept))
    }

    /// What is public besides the manifest, as it was kept; `None` if it was not, or not all of it.
    async fn kept(&self, manifest: &Manifest) -> Option<PublicInputs> {
        let (manifest, stores) = (manifest.clone(), self.epoch.stores.clone()?);
        self.read_kept(move || {
            let Some(bundle) = stores.inputs.bundle(&manifest.digest())? else { return Ok(None) };
            let mut jobs = BTreeMap::new();
            for pending in &manifest.pending {
                let Some(job) = stores.inputs.job(&pending.job)? else { return Ok(None) };
                jobs.insert(pending.job, job);
            }
            Ok(Some(PublicInputs::from_bundle(bundle, jobs)))
        })
        .await
    }

    async fn read_kept<T: Send + 'static>(
        &self,
        read: impl FnOnce() -> Result<Option<T>, InputsError> + Send + 'static,
    ) -> Option<T> {
        tokio::task::spawn_blocking(read).await.ok()?.unwrap_or_else(|error| {
            tracing::warn!(%error, "what was kept for a manifest is not used");
            None
        })
    }

    /// Everything that a manifest names.
    ///
    /// # Errors
    /// [`EvaluationError`].
    #[boxed]
    pub async fn fetch(&self, manifest: &Manifest) -> Result<Fetched, EvaluationError> {
        let state = self.epoch.ledger.state();
        self.fetch_on(&state, manifest).await
    }

    async fn fetch_on(
        &self,
        state: &ClusterState,
        manifest: &Manifest,
    ) -> Result<Fetched, EvaluationError> {
        let kept = self.kept(manifest).await;
        let is_kept = kept.is_some();
        let mut public = match kept {
            Some(kept) => kept,
            None => self.public_inputs(state, manifest).await?,
        };
        let entries = manifest.telemetry.iter().copied();
        let telemetry: Vec<_> =
            fetch_all(entries, async |entry| self.telemetry(entry).await).await?;
        let profiles = telemetry.iter().map(|found| &found.telemetry.body);
        public.profiles = profiles.map(|body| (body.sender(), body.profile.clone())).collect();
        let mut requests = BTreeMap::new();
        for (job, body) in &public.jobs {
            requests.extend(self.epoch.request(*job, body).await?.map(|found| (*job, found)));
        }
        let weights = public.policy.weights;
        let weights = match public.jobs.values().find_map(|job| weights.list_for(job.policy)) {
            Some(named) => Some(self.epoch.weights(named, &self.peers).await?),
            None => None,
        };
        Ok(Fetched { public, telemetry, requests, weights, is_kept })
    }

    async fn public_inputs(
        &self,
        state: &ClusterState,
        manifest: &Manifest,
    ) -> Result<PublicInputs, EvaluationError> {
        let mut public = PublicInputs::default();
        let view = self.views.at(manifest.block).await?;
        if state.last_certificate() != manifest.previous {
            return Err(EvaluationError::Behind);
        }
        let jobs: BTreeSet<_> = manifest.pending.iter().map(|pending| pending.job).collect();
        public.running =
            state.running(manifest).filter(|replica| jobs.contains(&replica.job)).collect();
        let candidates = manifest.telemetry.iter().map(|entry| entry.sender);
        let workers: BTreeSet<_> =
            candidates.chain(public.running.iter().map(|replica| replica.worker)).collect();
        for worker in workers {
            let Some(node) = view.nodes.get(&worker) else { continue };
            public.labels.insert(worker, node.labels.clone());
            let organisation = node.organisation.clone();
            public.organisations.extend(organisation.map(|organisation| (worker, organisation)));
        }
        public.closed = view.closed();
        public.policy = view.rules.clone()?;
        public.previous = state.previous(manifest).collect();
        (public.seed, public.last_decided) = (state.seed(), state.last_decided());
        public.draw = state.draw(manifest);
        public.barred = state.barred(manifest).collect();
        public.late = state.late(manifest).collect();
        let body = async |digest| match self.job(digest).await {
            Some(job) => Ok((digest, job)),
            None => Err(EvaluationError::NoJob(digest)),
        };
        public.jobs = fetch_all(jobs, body).await?;
        let submitters = public.jobs.values().map(|job| job.operator);
        let submitters = submitters.map(|account| (account, view.organisations_of(&account)));
        public.submitters = submitters.filter(|(_, of)| !of.is_empty()).collect();
        self.inherit(state, manifest, &mut public).await?;
        Ok(public)
    }

    /// "A version goes where the one before keeps the data": that is where it had its place.
    async fn inherit(
        &self,
        state: &ClusterState,
        manifest: &Manifest,
        public: &mut PublicInputs,
    ) -> Result<(), EvaluationError> {
        let lines = state.lines_by_job();
        for pending in &manifest.pending {
            let Some(job) = public.jobs.get(&pending.job) else { continue };
            let line = lines.get(&pending.job).filter(|_| !host_volumes(job).is_empty());
            let before =
                line.and_then(|line| predecessor(state, line, pending.job, pending.replica));
            let Some((before, worker)) = before else { continue };
            let body = self.job(before).await.ok_or(EvaluationError::NoJob(before))?;
            if inherits(job, &body) {
                public.previous.insert((pending.job, pending.replica), worker);
            }
        }
        Ok(())
    }

    /// The body of a job.
    #[boxed]
    pub async fn job(&self, digest: Blake3Digest) -> Option<JobSpec> {
        self.peers.job(&self.jobs, digest).await
    }

    /// One telemetry message, verified and expanded.
    ///
    /// # Errors
    /// [`EvaluationError`].
    #[boxed]
    pub async fn telemetry(
        &self,
        entry: TelemetryEntry,
    ) -> Result<Arc<Verified<Expanded>>, EvaluationError> {
        let TelemetryEntry { sender, digest } = entry;
        let Self { peers, epoch, .. } = self;
        if let Some(known) = epoch.pool().get(&sender, &digest) {
            return Ok(known);
        }
        if let Some(stores) = epoch.stores.clone()
            && let Some(kept) = self.read_kept(move || stores.inputs.telemetry(&digest)).await
        {
            let (telemetry, expanded) = epoch.expand(kept).await?;
            return Ok(Arc::new(Verified { telemetry, digest, expanded, received_at: unix_now() }));
        }
        let fits = |peer: PeerIdHash, answer: SyncAnswer| -> Option<Telemetry> {
            let SyncAnswer::Telemetry(Some(telemetry)) = answer else { return None };
            let right = telemetry.body.sender() == sender && telemetry.body.digest() == digest;
            if !right || telemetry.verify(&epoch.binding).is_err() {
                tracing::warn!(%peer, %digest, "the peer brought other telemetry than asked for");
                return None;
            }
            Some(*telemetry)
        };
        let request = SyncRequest::Telemetry(digest);
        // Members must have it: they locked it. Its sender may have it, and so may others.
        let found = match peers.ask_members(request.clone(), fits).await {
            Some(found) => Some(found),
            None => peers.ask(peers.others(), request, fits).await,
        };
        let found = found.ok_or(EvaluationError::NoTelemetry { sender, digest })?;
        let (telemetry, expanded) = epoch.expand(found).await?;
        // Not for the pool, in which a later message of the sender may be already.
        Ok(Arc::new(Verified { telemetry, digest, expanded, received_at: unix_now() }))
    }
}

/// Gets all of them, [`FETCH_AT_ONCE`] at once; the first that nobody has ends it.
async fn fetch_all<T, R, F, C>(
    wanted: impl IntoIterator<Item = T>,
    fetch: impl FnMut(T) -> F,
) -> Result<C, EvaluationError>
where
    F: Future<Output = Result<R, EvaluationError>>,
    C: Default + Extend<R>,
{
    stream::iter(wanted).map(fetch).buffer_unordered(FETCH_AT_ONCE).try_collect().await
}

/// Signs what this node computed and gossips it. Nothing waits for it: others compare. Gives what was signed.
#[boxed]
pub async fn report(
    network: &Network,
    identity: &SecretIdentity,
    manifest: &Manifest,
    outputs: Blake3Digest,
) -> EvaluationReport {
    let body = EvaluationBody {
        binding: manifest.binding,
        slot: manifest.slot,
        manifest: manifest.digest(),
        circuit: manifest.circuit,
        outputs,
        identity: identity.public(),
    };
    let report = body.sign(identity);
    match network.publish(Topic::Evaluations, report.to_wire()).await {
        Ok(()) | Err(PublishError::Duplicate(_)) => {}
        Err(error) => {
            tracing::warn!(slot = %manifest.slot, %error, "the evaluation was not reported");
        }
    }
    report
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// One body after the other, a manifest that lists many took longer than a member may take to validate it; all at
    /// once, one manifest would have every peer answer for all of it.
    #[tokio::test(start_paused = true)]
    async fn a_few_inputs_are_fetched_at_once() {
        let (under_way, begun) = (Mutex::new((0, 0)), tokio::time::Instant::now());
        let fetch = async |number: u64| {
            {
                let (now, most) = &mut *under_way.lock().unwrap();
                *now += 1;
                *most = (*now).max(*most);
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
            under_way.lock().unwrap().0 -= 1;
            Ok(number)
        };
        let all: BTreeSet<u64> = fetch_all(0..40, fetch).await.unwrap();
        assert!(all.into_iter().eq(0..40));
        assert_eq!(*under_way.lock().unwrap(), (0, FETCH_AT_ONCE));
        assert_eq!(begun.elapsed(), Duration::from_secs(40 / FETCH_AT_ONCE as u64));
    }

    #[tokio::test(start_paused = true)]
    async fn what_nobody_has_ends_the_fetching() {
        let nobody_has = async |number: u8| match number {
            1 => Err(EvaluationError::NoJob(Blake3Digest([number; 32]))),
            _ => std::future::pending::<Result<u8, _>>().await,
        };
        let found: Result<Vec<_>, _> = fetch_all(0..9, nobody_has).await;
        assert!(matches!(found, Err(EvaluationError::NoJob(_))), "{found:?}");
    }
}
