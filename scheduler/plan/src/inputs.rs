//! What a plan is made from besides the manifest, and why there is none.

use std::collections::{BTreeMap, BTreeSet};

use veil_protocol_spec::{
    Address, Blake3Digest, KeccakDigest, PeerIdHash, ReplicaIndex, Slot,
    inputs::{InputBundle, PreviousPlace, SubmitterOrganisations, WorkerLabels},
    scheduling::{
        CertificateBody, ClusterPolicy, Draw, JobError, JobSpec, Label, Manifest, Organisation,
        Profile, RequestTooLarge, RunningReplica,
    },
};

use crate::unfit::UnfitCounts;

/// What is public besides the manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicInputs {
    /// The policy whose digest the manifest names. The caller checks that it is that one, as it
    /// checks everything that it reads from the chain at the manifest's block.
    pub policy: ClusterPolicy,
    /// The jobs of the pending replicas, by digest.
    pub jobs: BTreeMap<Blake3Digest, JobSpec>,
    /// The workers' labels as the registry holds them at the manifest's block; none for a worker
    /// that is not here.
    pub labels: BTreeMap<PeerIdHash, Vec<Label>>,
    /// What the workers say of themselves in the telemetry that the manifest names; nothing special for a
    /// worker that is not here.
    pub profiles: BTreeMap<PeerIdHash, Profile>,
    /// Workers that are given nothing more, as of the manifest's block.
    pub closed: BTreeSet<PeerIdHash>,
    /// What keeps its place by
    /// [`ClusterState::running`](veil_protocol_spec::scheduling::ClusterState::running) of the state that
    /// the manifest builds on, of the pending jobs at least: the others do not matter.
    pub running: Vec<RunningReplica>,
    /// The worker that held a pending replica last, by the certificates that the manifest builds
    /// on; none for a replica that is not here.
    pub previous: BTreeMap<(Blake3Digest, ReplicaIndex), PeerIdHash>,
    /// [`ClusterState::seed`](veil_protocol_spec::scheduling::ClusterState::seed) of the state that the
    /// manifest builds on: the order among equals follows from it.
    pub seed: KeccakDigest,
    /// [`ClusterState::last_decided`](veil_protocol_spec::scheduling::ClusterState::last_decided) of it:
    /// where the turn of equals begins.
    pub last_decided: Slot,
    /// [`ClusterState::draw`](veil_protocol_spec::scheduling::ClusterState::draw) of it.
    pub draw: Draw,
    /// The workers' organisations as the registry holds them at the manifest's block; none for a worker that is
    /// not here.
    pub organisations: BTreeMap<PeerIdHash, Organisation>,
    /// The organisations of the accounts that have submitted the pending jobs: of the nodes that these have
    /// registered, as of the manifest's block.
    pub submitters: BTreeMap<Address, Vec<Organisation>>,
    /// Workers that get a pending replica not, since they
    /// [gave it back](veil_protocol_spec::scheduling::ClusterState::barred).
    pub barred: BTreeSet<((Blake3Digest, ReplicaIndex), PeerIdHash)>,
    /// [`ClusterState::late`](veil_protocol_spec::scheduling::ClusterState::late) of that state: workers that are
    /// asked after all others.
    pub late: BTreeSet<PeerIdHash>,
}

impl PublicInputs {
    /// Hash of the block that decides the order among equals for a job of that submission.
    pub(crate) fn draw_for(&self, manifest: &Manifest, submission: u64) -> KeccakDigest {
        if submission < self.draw.jobs_seen { self.draw.block } else { manifest.block.hash }
    }
}

impl Default for PublicInputs {
    /// Of the first slot, with no job and no labels.
    fn default() -> Self {
        Self {
            policy: ClusterPolicy::default(),
            jobs: BTreeMap::new(),
            labels: BTreeMap::new(),
            profiles: BTreeMap::new(),
            closed: BTreeSet::new(),
            running: Vec::new(),
            previous: BTreeMap::new(),
            seed: CertificateBody::NO_PREVIOUS,
            last_decided: Slot(0),
            draw: Draw { block: KeccakDigest([0; 32]), jobs_seen: 0 },
            organisations: BTreeMap::new(),
            submitters: BTreeMap::new(),
            barred: BTreeSet::new(),
            late: BTreeSet::new(),
        }
    }
}

impl PublicInputs {
    /// What a member stores of it before it votes for the manifest; the bodies of the jobs are stored
    /// beside it, and so is the telemetry, from which the profiles follow.
    #[must_use]
    pub fn bundle(&self, manifest: &Manifest) -> InputBundle {
        let Self {
            policy,
            jobs: _,
            labels,
            profiles: _,
            closed,
            running,
            previous,
            seed,
            last_decided,
            draw,
            organisations,
            submitters,
            barred,
            late,
        } = self;
        let workers: BTreeSet<_> = labels.keys().chain(organisations.keys()).collect();
        let labels = workers.into_iter().map(|worker| WorkerLabels {
            worker: *worker,
            labels: labels.get(worker).cloned().unwrap_or_default(),
            organisation: organisations.get(worker).cloned(),
        });
        let submitters = submitters.iter().map(|(&account, organisations)| {
            SubmitterOrganisations { account, organisations: organisations.clone() }
        });
        let place =
            |(&(job, replica), &worker): (&(_, _), &_)| PreviousPlace { job, replica, worker };
        InputBundle {
            slot: manifest.slot,
            manifest: manifest.digest(),
            policy: *policy,
            labels: labels.collect(),
            closed: closed.iter().copied().collect(),
            running: running.clone(),
            previous: previous.iter().map(place).collect(),
            seed: *seed,
            last_decided: *last_decided,
            draw: *draw,
            submitters: submitters.collect(),
            barred: barred.iter().map(|(of, worker)| place((of, worker))).collect(),
            late: late.iter().copied().collect(),
        }
    }

    /// The same again, yet without profiles.
    #[must_use]
    pub fn from_bundle(bundle: InputBundle, jobs: BTreeMap<Blake3Digest, JobSpec>) -> Self {
        let InputBundle {
            policy,
            labels,
            closed,
            running,
            previous,
            seed,
            last_decided,
            draw,
            submitters,
            barred,
            late,
            ..
        } = bundle;
        let of_worker = |of: &WorkerLabels| Some((of.worker, of.organisation.clone()?));
        let organisations = labels.iter().filter_map(of_worker).collect();
        let labels = labels.into_iter().map(|of| (of.worker, of.labels)).collect();
        let submitters = submitters.into_iter().map(|of| (of.account, of.organisations)).collect();
        let place = |of: PreviousPlace| ((of.job, of.replica), of.worker);
        let previous = previous.into_iter().map(place).collect();
        let barred = barred.into_iter().map(place).collect();
        let profiles = BTreeMap::new();
        let closed = closed.into_iter().collect();
        let late = late.into_iter().collect();
        Self {
            policy,
            jobs,
            labels,
            profiles,
            closed,
            running,
            previous,
            seed,
            last_decided,
            draw,
            organisations,
            submitters,
            barred,
            late,
        }
    }
}

/// Why a manifest cannot be evaluated.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "each message says what its fields are")]
pub enum PlanError {
    /// The body of a pending job has not arrived.
    #[error("job {0} is pending but its body is missing: fetch it before evaluating")]
    MissingJob(Blake3Digest),
    /// The body under this digest is another job's.
    #[error("the body held for job {0} has another digest")]
    WrongJob(Blake3Digest),
    /// The body breaks the rules of a job; `error` is the first broken one.
    #[error("job {job} is not valid: {error}")]
    InvalidJob { job: Blake3Digest, error: JobError },
    /// The manifest names a replica that the job does not have.
    #[error("job {job} has no replica {replica}")]
    NoSuchReplica { job: Blake3Digest, replica: ReplicaIndex },
    /// The manifest names a worker for a replica that is not of a system job, or none for one that is.
    #[error(
        "replica {replica} of job {job}: one of a system job is for one worker, one of another job for none"
    )]
    OneWorker { job: Blake3Digest, replica: ReplicaIndex },
    /// The job states its request in a way that came after this circuit.
    #[error("job {job} states its request in a form this circuit does not know")]
    UnsupportedRequest { job: Blake3Digest },
    /// The manifest has more workers than the policy allows.
    #[error("the manifest has {found} workers: the policy allows {max}")]
    TooManyWorkers { found: usize, max: usize },
    /// One worker has two messages.
    #[error("worker {0} is twice in the manifest's telemetry, or out of order")]
    DuplicateWorker(PeerIdHash),
}

/// Why the pending replicas of a job are not evaluated, which is public. They stay pending, and
/// other jobs are not affected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "each message says what its fields are")]
pub enum JobRefusal {
    /// No worker can ever have that much by the cluster's scale.
    #[error("its request is beyond what a worker can offer: {0}")]
    TooLarge(RequestTooLarge),
    /// What it asks for, latency, draining and hard anti-affinity leave so few workers that the answer would
    /// tell too much about each of them.
    #[error(
        "{found} workers can take it and the policy asks for {min}, since the answer would tell too much about \
         fewer; left out are {unfit}"
    )]
    TooFewCandidates { found: usize, min: usize, unfit: UnfitCounts },
}
