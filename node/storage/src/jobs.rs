//! The jobs that the chain has ordered, and their bodies, which travel by gossip.
//!
//! # Flow
//! 1. [`Jobs::set_submissions`]: what the chain lists, in its order.
//! 2. [`Jobs::offer`]: a body that somebody brought. It counts once the chain lists its digest,
//!    submitted by the operator that the body names; until then a few wait.
//!
//! # State
//! Bodies are stored in a file, so that a restart needs nobody's help to know what runs.

use std::{
    collections::{BTreeMap, VecDeque},
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use veil_protocol_spec::{
    Address, Blake3Digest, Wire,
    scheduling::{ClusterScope, JobError, JobSpec, ResourceRequest, Submission},
};

const BODIES: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("job bodies v1");
/// Bodies that may wait for the chain to list them.
const MAX_WAITING: usize = 64;

/// Why a body is not taken.
#[derive(Debug, thiserror::Error)]
pub enum JobsError {
    /// No sound job.
    #[error(transparent)]
    Job(#[from] JobError),
    /// For another cluster.
    #[error("the job names another cluster")]
    Cluster,
    /// Not by the one it names.
    #[error("job {job} was submitted by {submitted_by}, its body names {named}")]
    Operator {
        /// Which.
        job: Blake3Digest,
        /// On chain.
        submitted_by: Address,
        /// In the body.
        named: Address,
    },
    /// The file cannot be read or written.
    #[error("the job store {path}: {detail}")]
    Storage {
        /// Which file.
        path: PathBuf,
        /// What the storage said.
        detail: String,
    },
}

/// What became of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offered {
    /// Taken.
    New,
    /// Known already.
    Known,
    /// The chain does not list it (yet).
    Waiting,
}

#[derive(Debug, Default)]
struct Known {
    submissions: Vec<Submission>,
    operators: BTreeMap<Blake3Digest, Address>,
    bodies: BTreeMap<Blake3Digest, JobSpec>,
    waiting: VecDeque<JobSpec>,
}

/// See the [module documentation](self).
pub struct Jobs {
    path: PathBuf,
    scope: ClusterScope,
    database: Database,
    known: Mutex<Known>,
}

impl core::fmt::Debug for Jobs {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Jobs").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Jobs {
    /// Opens or makes the file.
    ///
    /// # Errors
    /// [`JobsError::Storage`], [`JobsError::Job`] if it is damaged.
    pub fn open(path: &Path, scope: ClusterScope) -> Result<Self, JobsError> {
        let read = || -> Result<_, redb::Error> {
            let database = Database::create(path)?;
            let writing = database.begin_write()?;
            writing.open_table(BODIES)?;
            writing.commit()?;
            let table = database.begin_read()?.open_table(BODIES)?;
            let stored: Result<Vec<_>, redb::Error> =
                table.iter()?.map(|entry| Ok(entry?.1.value().to_vec())).collect();
            Ok((database, stored?))
        };
        let (database, stored) = read()
            .map_err(|e| JobsError::Storage { path: path.to_owned(), detail: e.to_string() })?;
        let mut known = Known::default();
        for bytes in stored {
            let job = JobSpec::parse(&bytes)?;
            known.bodies.insert(job.digest(), job);
        }
        Ok(Self { path: path.to_owned(), scope, database, known: Mutex::new(known) })
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the chain lists now, each with its operator. Bodies that waited for it are taken.
    pub fn set_submissions(&self, listed: &[(Submission, Address)]) {
        let waiting = {
            let mut known = self.known();
            known.submissions = listed.iter().map(|(submission, _)| *submission).collect();
            known.operators = listed.iter().map(|(submission, by)| (submission.job, *by)).collect();
            core::mem::take(&mut known.waiting)
        };
        for job in waiting {
            if let Err(error) = self.offer(job) {
                tracing::warn!(%error, "a job's body was dropped");
            }
        }
    }

    /// The chain's submissions, in order.
    #[must_use]
    pub fn submissions(&self) -> Vec<Submission> {
        self.known().submissions.clone()
    }

    /// Takes a body.
    ///
    /// # Errors
    /// [`JobsError`].
    pub fn offer(&self, job: JobSpec) -> Result<Offered, JobsError> {
        job.validate()?;
        if job.scope != self.scope {
            return Err(JobsError::Cluster);
        }
        let digest = job.digest();
        let mut known = self.known();
        if known.bodies.contains_key(&digest) {
            return Ok(Offered::Known);
        }
        let Some(submitted_by) = known.operators.get(&digest).copied() else {
            if known.waiting.len() >= MAX_WAITING {
                known.waiting.pop_front();
            }
            if !known.waiting.contains(&job) {
                known.waiting.push_back(job);
            }
            return Ok(Offered::Waiting);
        };
        if submitted_by != job.operator {
            return Err(JobsError::Operator { job: digest, submitted_by, named: job.operator });
        }
        let store = || -> Result<(), redb::Error> {
            let writing = self.database.begin_write()?;
            let key: &[u8] = digest.as_bytes();
            writing.open_table(BODIES)?.insert(key, job.to_wire().as_slice())?;
            writing.commit()?;
            Ok(())
        };
        store()
            .map_err(|e| JobsError::Storage { path: self.path.clone(), detail: e.to_string() })?;
        known.bodies.insert(digest, job);
        Ok(Offered::New)
    }

    /// The body of a job.
    #[must_use]
    pub fn body(&self, digest: &Blake3Digest) -> Option<JobSpec> {
        self.known().bodies.get(digest).cloned()
    }

    /// How many replicas a job wants, if its body is known. One whose request is encrypted wants
    /// none: until the winner of a placement is told the clear figures, no worker could set its
    /// container's limits.
    #[must_use]
    pub fn replicas(&self, digest: &Blake3Digest) -> Option<u16> {
        self.known().bodies.get(digest).map(|job| match job.request {
            ResourceRequest::Clear(_) => job.replicas,
            _ => 0,
        })
    }

    /// Jobs that the chain lists and wants, whose body is not known here.
    #[must_use]
    pub fn missing(&self) -> Vec<Blake3Digest> {
        let known = self.known();
        let wanted = known.submissions.iter().filter(|submission| !submission.cancelled);
        let mut missing: Vec<_> =
            wanted.map(|s| s.job).filter(|job| !known.bodies.contains_key(job)).collect();
        missing.sort_unstable();
        missing.dedup();
        missing
    }
}

#[cfg(test)]
mod tests {
    use veil_protocol_spec::{
        ChainId, ClusterId,
        scheduling::{
            Constraints, CpuUnits, LeasePolicy, MemoryUnits, Priority, Resources, RestartPolicy,
            SchedulingPolicy,
        },
    };

    use super::*;

    fn scope() -> ClusterScope {
        let (contract, cluster) = (Address([1; 20]), ClusterId([2; 32]));
        ClusterScope { chain_id: ChainId(31_337), contract, cluster }
    }

    fn job(nonce: u64) -> JobSpec {
        let digest = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
        JobSpec {
            scope: scope(),
            operator: Address([3; 20]),
            nonce,
            image: format!("a/b@sha256:{digest}").parse().unwrap(),
            command: Vec::new(),
            args: Vec::new(),
            request: ResourceRequest::Clear(Resources {
                cpu: CpuUnits(1),
                memory: MemoryUnits(1),
                ..Resources::default()
            }),
            replicas: 2,
            priority: Priority::default(),
            policy: SchedulingPolicy::Spread,
            constraints: Constraints::default(),
            lease: LeasePolicy::Keep,
            restart: RestartPolicy::Always,
            health: None,
        }
    }

    fn listed(position: u64, job: &JobSpec, by: Address) -> (Submission, Address) {
        (Submission { position, job: job.digest(), cancelled: false }, by)
    }

    #[test]
    fn a_body_counts_once_the_chain_lists_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("jobs.redb");
        let jobs = Jobs::open(&path, scope()).unwrap();
        let (one, two) = (job(1), job(2));
        assert_eq!(jobs.offer(one.clone()).unwrap(), Offered::Waiting);
        assert_eq!(jobs.body(&one.digest()), None);
        let chain = [listed(1, &one, Address([3; 20])), listed(2, &two, Address([9; 20]))];
        jobs.set_submissions(&chain);
        assert_eq!(jobs.replicas(&one.digest()), Some(2));
        assert_eq!(jobs.missing(), [two.digest()]);
        assert_eq!(jobs.offer(one.clone()).unwrap(), Offered::Known);
        assert!(matches!(jobs.offer(two), Err(JobsError::Operator { .. })));
        drop(jobs);
        assert_eq!(Jobs::open(&path, scope()).unwrap().body(&one.digest()), Some(one));
    }

    #[test]
    fn another_clusters_job_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let jobs = Jobs::open(&folder.path().join("jobs.redb"), scope()).unwrap();
        let mut foreign = job(1);
        foreign.scope.cluster = ClusterId([7; 32]);
        assert!(matches!(jobs.offer(foreign), Err(JobsError::Cluster)));
    }
}
