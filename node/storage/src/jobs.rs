//! The jobs that the chain has ordered, and their bodies, which travel by gossip.
//!
//! # Flow
//! 1. [`Jobs::set_submissions`]: what the chain lists, in its order.
//! 2. [`Jobs::offer`]: a body that somebody brought. It counts once the chain lists its digest,
//!    submitted by the operator that the body names; until then a few wait.
//!
//! 3. [`Jobs::forget`]: a job that is cancelled and of which nothing runs needs no body any more.
//!
//! # State
//! Bodies are stored in a file, so that a restart needs nobody's help to know what runs.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use veil_protocol_spec::{
    Address, Blake3Digest, Wire,
    scheduling::{ClusterScope, JobError, JobSpec, Submission},
};

use crate::database;

const BODIES: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("job bodies v1");
/// Bodies that may wait for the chain to list them.
const MAX_WAITING: usize = 64;
/// Bytes of all of them, encoded. One body fits, however much is sealed in it.
const MAX_WAITING_BYTES: usize = 8 << 20;
const _: () = assert!(JobSpec::MAX_BYTES <= MAX_WAITING_BYTES, "the longest body must fit");

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
    operators: BTreeSet<(Blake3Digest, Address)>,
    bodies: BTreeMap<Blake3Digest, JobSpec>,
    waiting: Waiting,
}

/// Bodies that the chain does not list (yet), the oldest first, and how long each is.
#[derive(Debug, Default)]
struct Waiting {
    bodies: VecDeque<(usize, JobSpec)>,
    bytes: usize,
}

impl Waiting {
    /// Adds one; the oldest make room for it. One that comes again takes no other's place.
    fn add(&mut self, job: JobSpec) {
        if self.bodies.iter().any(|(_, own)| *own == job) {
            return;
        }
        let len = job.to_wire().len();
        self.bodies.push_back((len, job));
        self.bytes += len;
        while self.bodies.len() > MAX_WAITING || self.bytes > MAX_WAITING_BYTES {
            let Some((len, _)) = self.bodies.pop_front() else { break };
            self.bytes -= len;
        }
    }
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
    /// [`JobsError::Storage`].
    pub fn open(path: &Path, scope: ClusterScope) -> Result<Self, JobsError> {
        let read = || -> Result<_, redb::Error> {
            let database = database::open(path)?;
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
            match JobSpec::parse(&bytes) {
                Ok(job) => drop(known.bodies.insert(job.digest(), job)),
                // Of an earlier version: peers are asked for it, as for any that is missing.
                Err(error) => {
                    tracing::warn!(path = %path.display(), %error, "a stored job's body is not read")
                }
            }
        }
        Ok(Self { path: path.to_owned(), scope, database, known: Mutex::new(known) })
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the chain lists now. Bodies that waited for it are taken.
    pub fn set_submissions(&self, listed: &[Submission]) {
        let waiting = {
            let mut known = self.known();
            known.submissions = listed.to_vec();
            known.operators = listed.iter().map(|one| (one.job, one.operator)).collect();
            core::mem::take(&mut known.waiting)
        };
        for (_, job) in waiting.bodies {
            if let Err(error) = self.offer(job) {
                tracing::warn!(%error, "a job's body was dropped");
            }
        }
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
        // Whoever copies a digest submits nothing: the operator that the body names must have.
        let by = (digest, Address([0; 20]))..=(digest, Address([0xff; 20]));
        let Some((_, submitted_by)) = known.operators.range(by).next().copied() else {
            known.waiting.add(job);
            return Ok(Offered::Waiting);
        };
        if !known.operators.contains(&(digest, job.operator)) {
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

    /// Drops the bodies of jobs that the chain lists as cancelled, but for those that are `placed`. Waits
    /// for the disk if there are any.
    ///
    /// # Errors
    /// [`JobsError::Storage`]; then they are still here.
    pub fn forget(&self, placed: &BTreeSet<Blake3Digest>) -> Result<(), JobsError> {
        let mut known = self.known();
        let mut over: BTreeSet<_> = known.submissions.iter().map(|s| s.job).collect();
        over.retain(|job| known.bodies.contains_key(job) && !placed.contains(job));
        for wanted in known.submissions.iter().filter(|s| !s.cancelled) {
            over.remove(&wanted.job);
        }
        if over.is_empty() {
            return Ok(());
        }
        let remove = || -> Result<(), redb::Error> {
            let writing = self.database.begin_write()?;
            {
                let mut bodies = writing.open_table(BODIES)?;
                for job in &over {
                    bodies.remove(&job.as_bytes()[..])?;
                }
            }
            writing.commit()?;
            Ok(())
        };
        remove()
            .map_err(|e| JobsError::Storage { path: self.path.clone(), detail: e.to_string() })?;
        known.bodies.retain(|job, _| !over.contains(job));
        Ok(())
    }

    /// The body of a job.
    #[must_use]
    pub fn body(&self, digest: &Blake3Digest) -> Option<JobSpec> {
        self.read(digest, JobSpec::clone)
    }

    /// What `read` takes from the body of a job, if that is known: lists are made from all jobs at once, and
    /// need a few numbers of each. `read` must not ask this store again.
    #[must_use]
    pub fn read<T>(&self, digest: &Blake3Digest, read: impl FnOnce(&JobSpec) -> T) -> Option<T> {
        self.known().bodies.get(digest).map(read)
    }

    /// What `read` takes from the body of each job that the chain lists, that its operator has not withdrawn, and whose
    /// body is known; and from its place in the chain's order. `read` must not ask this store again.
    #[must_use]
    pub fn wanted<T>(&self, read: impl Fn(u64, &JobSpec) -> T) -> Vec<T> {
        let known = self.known();
        let wanted = known.submissions.iter().filter(|submission| !submission.cancelled);
        let read = |submission: &Submission| {
            // Whoever copies a digest submits nothing.
            let body = known.bodies.get(&submission.job)?;
            (body.operator == submission.operator).then(|| read(submission.position, body))
        };
        wanted.filter_map(read).collect()
    }

    /// The submissions of a job that the chain lists, by whomever.
    #[must_use]
    pub fn submissions_of(&self, digest: &Blake3Digest) -> Vec<Submission> {
        let known = self.known();
        known.submissions.iter().filter(|submission| submission.job == *digest).copied().collect()
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
        ChainId, ClusterId, Epoch, KeySetDigest, ParticipantIndex, ShareCommitment,
        codec::Bytes,
        scheduling::{
            CpuUnits, EncryptedShare, MemoryUnits, ResourceRequest, Resources, Sealed, SealedPart,
            limits,
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
            replicas: 2,
            ..JobSpec::new(
                scope(),
                Address([3; 20]),
                nonce,
                "app".parse().unwrap(),
                format!("a/b@sha256:{digest}").parse().unwrap(),
                ResourceRequest::Clear(Resources {
                    cpu: CpuUnits(1),
                    memory: MemoryUnits(1),
                    ..Resources::default()
                }),
            )
        }
    }

    fn listed(position: u64, job: &JobSpec, operator: Address) -> Submission {
        Submission { position, job: job.digest(), operator, leak_bits: 100, cancelled: false }
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
        let read = jobs.read(&one.digest(), |job| (job.operator, job.replicas));
        assert_eq!(read, Some((one.operator, 2)));
        assert_eq!(jobs.read(&two.digest(), |job| job.replicas), None);
        assert_eq!(jobs.missing(), [two.digest()]);
        assert_eq!(jobs.submissions_of(&two.digest()), chain[1..]);
        assert_eq!(jobs.offer(one.clone()).unwrap(), Offered::Known);
        assert!(matches!(jobs.offer(two.clone()), Err(JobsError::Operator { .. })));
        // A copy of the digest takes nothing from the operator that the body names.
        let copied = [chain[0], chain[1], listed(3, &two, two.operator)];
        jobs.set_submissions(&copied);
        assert_eq!(jobs.offer(two).unwrap(), Offered::New);
        drop(jobs);
        assert_eq!(Jobs::open(&path, scope()).unwrap().body(&one.digest()), Some(one));
    }

    /// Whoever offers bodies without end fills no memory: the oldest makes room, and only for another one.
    #[test]
    fn a_bounded_number_of_bodies_waits_for_the_chain() {
        let folder = tempfile::tempdir().unwrap();
        let jobs = Jobs::open(&folder.path().join("jobs.redb"), scope()).unwrap();
        let most = MAX_WAITING as u64;
        for nonce in 0..=most {
            assert_eq!(jobs.offer(job(nonce)).unwrap(), Offered::Waiting);
        }
        for _ in 0..MAX_WAITING {
            assert_eq!(jobs.offer(job(most)).unwrap(), Offered::Waiting);
        }
        let all = [0, 1, most].map(job);
        let chain: Vec<_> =
            (1..).zip(&all).map(|(at, job)| listed(at, job, Address([3; 20]))).collect();
        jobs.set_submissions(&chain);
        assert_eq!(jobs.missing(), [all[0].digest()]);
        assert_eq!(jobs.offer(all[1].clone()).unwrap(), Offered::Known);
    }

    /// The longest bodies, too: they count by their bytes.
    #[test]
    fn bodies_that_wait_for_the_chain_have_a_bounded_length_together() {
        let folder = tempfile::tempdir().unwrap();
        let jobs = Jobs::open(&folder.path().join("jobs.redb"), scope()).unwrap();
        let share = |i| EncryptedShare {
            member: ParticipantIndex::new(i).unwrap(),
            share: Bytes(vec![1; 1200]),
        };
        let longest = |nonce| {
            let part = SealedPart {
                key_set: KeySetDigest([0; 32]),
                epoch: Epoch(0),
                roster: Blake3Digest([0; 32]),
                tag: Blake3Digest([0; 32]),
                commitments: vec![ShareCommitment([2; 33]); 2],
                shares: (1..=4).map(share).collect(),
                ciphertext: Bytes(vec![1; limits::SEALED_BYTES + 16]),
            };
            JobSpec { sealed: Sealed::Part(Box::new(part)), ..job(nonce) }
        };
        let most = MAX_WAITING as u64;
        for nonce in 0..most {
            assert_eq!(jobs.offer(longest(nonce)).unwrap(), Offered::Waiting);
        }
        let known = jobs.known();
        let waiting = &known.waiting;
        let bytes: usize = waiting.bodies.iter().map(|(_, job)| job.to_wire().len()).sum();
        assert_eq!(waiting.bytes, bytes);
        let of_one = longest(0).to_wire().len();
        assert!(bytes <= MAX_WAITING_BYTES && bytes + of_one + 64 > MAX_WAITING_BYTES, "{bytes}");
        assert_eq!(waiting.bodies.back().map(|(_, job)| job.nonce), Some(most - 1));
    }

    #[test]
    fn a_cancelled_job_of_which_nothing_runs_needs_no_body() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("jobs.redb");
        let jobs = Jobs::open(&path, scope()).unwrap();
        let all = [1, 2, 3, 4].map(job);
        let by = Address([3; 20]);
        let mut chain: Vec<_> = (1..).zip(&all).map(|(at, job)| listed(at, job, by)).collect();
        jobs.set_submissions(&chain);
        for job in &all {
            assert_eq!(jobs.offer(job.clone()).unwrap(), Offered::New);
        }
        // 1 is wanted, 2 still runs, 3 was submitted again, 4 is over.
        (1..4).for_each(|i| chain[i].cancelled = true);
        chain.push(listed(9, &all[2], by));
        jobs.set_submissions(&chain);
        jobs.forget(&BTreeSet::from([all[1].digest()])).unwrap();
        let kept = |jobs: &Jobs| all.each_ref().map(|job| jobs.body(&job.digest()).is_some());
        assert_eq!(kept(&jobs), [true, true, true, false]);
        assert_eq!(jobs.missing(), []);
        drop(jobs);
        assert_eq!(kept(&Jobs::open(&path, scope()).unwrap()), [true, true, true, false]);
    }

    /// Of an earlier version, for instance.
    #[test]
    fn a_body_that_is_not_read_is_missing_and_stops_no_start() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("jobs.redb");
        let (one, two) = (job(1), job(2));
        let chain = [&one, &two].map(|job| listed(job.nonce, job, Address([3; 20])));
        let jobs = Jobs::open(&path, scope()).unwrap();
        jobs.set_submissions(&chain);
        jobs.offer(one.clone()).unwrap();
        jobs.offer(two.clone()).unwrap();
        let writing = jobs.database.begin_write().unwrap();
        let mut earlier = one.to_wire();
        earlier[0] -= 1;
        let key = one.digest();
        let stored = |mut table: redb::Table<'_, &[u8], &[u8]>| {
            table.insert(&key.as_bytes()[..], earlier.as_slice()).map(drop)
        };
        stored(writing.open_table(BODIES).unwrap()).unwrap();
        writing.commit().unwrap();
        drop(jobs);
        let jobs = Jobs::open(&path, scope()).unwrap();
        jobs.set_submissions(&chain);
        assert_eq!((jobs.body(&two.digest()), jobs.missing()), (Some(two), vec![one.digest()]));
        assert_eq!(jobs.offer(one.clone()).unwrap(), Offered::New);
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
