//! What is sealed in jobs of which a replica is here: kept from before, or opened with the members' shares.
//!
//! # Flow
//! 1. [`Unsealing::follow`], before each reconciliation: what is open; of the rest, what is kept on disk is opened, and
//!    else the members are asked (`sealed.md`, steps 5 to 8), with growing pauses. Nothing is waited for.
//! 2. What comes of it is [taken](Unsealing::took): kept on disk, then open.
//! 3. What belongs to no job that is here any more is forgotten and erased.
//!
//! # State
//! The folder `sealed`: a file for each job, encrypted under this worker's identity. "A rebooted worker starts its
//! containers from what it keeps encrypted under its identity, without asking the committee." The folder
//! `wrong-requests`: evidence against operators whose encrypted request is not that of their sealed limits.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{future::BoxFuture, stream::FuturesUnordered};
use rand::{RngCore, rngs::OsRng};
use veil_committee_sealed::{
    keep::Keeper,
    open::{OpenError, Opening, Refusals},
};
use veil_node_core::{cluster::Peers, epoch::ActiveEpoch};
use veil_node_storage::durable::replace;
use veil_protocol_spec::{
    Blake3Digest, PeerIdHash, ReplicaIndex,
    identity::SecretIdentity,
    scheduling::{JobSpec, Note, ResourceRequest, SealedContents},
    sealing::{ShareAnswer, ShareRefusal, WrongRequest},
    sync::{SyncAnswer, SyncRequest},
};
use veil_scheduler::request_agrees;
use zeroize::Zeroizing;

use crate::assigned::Replica;

/// Between two questions about one job, doubled each time.
const SHORTEST_PAUSE: Duration = Duration::from_secs(1);
/// Up to this.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Why what is sealed is not open. The operator sees it as the replica's state.
pub(crate) type Closed = &'static str;

const ASKING: Closed = "its sealed part is not open yet: the members are asked for their shares";
const TOO_FEW: Closed =
    "fewer than t+1 members have given their shares of its sealed part; they are asked again";
const ELSEWHERE: Closed = "it is sealed to the committee of another epoch: its operator submits it again with `veil job submit`";
pub(crate) const DEALT_WRONGLY: Closed =
    "its sealed part was dealt wrongly: its operator seals it again with `veil job submit`";
const NO_CONTENTS: Closed = "what is sealed in it is nothing that a container can have: its operator puts it right and submits it again";
const OTHER_REQUEST: Closed = "its encrypted request is not that of its sealed limits: this worker has the evidence \
     (`veil evidence request`), and its operator submits the job again with `veil job submit`";
const NOT_KEPT: Closed = "what is sealed in it cannot be stored; see this worker's log";

/// Whether it will never be open, however often the members are asked.
pub(crate) fn is_final(why: Closed) -> bool {
    matches!(why, ELSEWHERE | DEALT_WRONGLY | NO_CONTENTS | OTHER_REQUEST)
}

/// What is said to the committee of what no worker can use, whichever it is given to (`sealed.md`, step 10). What is sealed
/// to another epoch is not: a worker that has opened it goes on.
fn unusable(why: Closed) -> Option<&'static str> {
    match why {
        DEALT_WRONGLY => Some("its sealed part was dealt wrongly"),
        NO_CONTENTS => Some("no container can have what is sealed in it"),
        OTHER_REQUEST => Some("its encrypted request is not that of its sealed limits"),
        _ => None,
    }
}

/// What came of opening one job.
pub(crate) type Opened = Result<Arc<SealedContents>, Closed>;

/// A job that could not be opened.
struct Waiting {
    why: Closed,
    pauses: u32,
    until: Instant,
}

/// See the [module documentation](self).
pub(crate) struct Unsealing {
    folder: PathBuf,
    evidence: PathBuf,
    keeper: Arc<Keeper>,
    identity: SecretIdentity,
    peers: Peers,
    epoch: Arc<ActiveEpoch>,
    open: BTreeMap<Blake3Digest, Arc<SealedContents>>,
    waiting: BTreeMap<Blake3Digest, Waiting>,
    asked: BTreeSet<Blake3Digest>,
    /// The jobs of which what is kept was left.
    retained: Option<BTreeSet<Blake3Digest>>,
}

/// Jobs that are being opened.
pub(crate) type Openings = FuturesUnordered<BoxFuture<'static, (Blake3Digest, Opened)>>;

impl Unsealing {
    /// What is kept is in `data_dir`.
    pub(crate) fn new(
        data_dir: &Path,
        identity: SecretIdentity,
        peers: Peers,
        epoch: Arc<ActiveEpoch>,
    ) -> Self {
        Self {
            folder: data_dir.join("sealed"),
            evidence: data_dir.join("wrong-requests"),
            keeper: Arc::new(Keeper::new(&identity, &epoch.binding.scope)),
            identity,
            peers,
            epoch,
            open: BTreeMap::new(),
            waiting: BTreeMap::new(),
            asked: BTreeSet::new(),
            retained: None,
        }
    }

    /// Asks for what is sealed in the jobs that are here and is not open. Once this worker has `caught_up`, it forgets
    /// and erases what belongs to others: a certificate says that they are not here any more.
    pub(crate) fn follow<'a>(
        &mut self,
        here: impl Iterator<Item = &'a Replica> + Clone,
        bodies: &BTreeMap<Blake3Digest, Arc<JobSpec>>,
        caught_up: bool,
        (openings, now): (&Openings, Instant),
    ) {
        if caught_up {
            self.retain(here.clone().map(|(job, _)| *job).collect());
        }
        for &(job, replica) in here {
            let Some(body) = bodies.get(&job).filter(|body| body.sealed_part().is_some()) else {
                continue;
            };
            let pauses = self.waiting.get(&job).is_some_and(|waiting| waiting.until > now);
            if pauses || self.open.contains_key(&job) || !self.asked.insert(job) {
                continue;
            }
            let asking = Asking {
                path: file(&self.folder, &job),
                evidence: self.evidence.clone(),
                keeper: Arc::clone(&self.keeper),
                identity: self.identity.clone(),
                peers: self.peers.clone(),
                epoch: Arc::clone(&self.epoch),
                body: Arc::clone(body),
                job,
                replica,
            };
            openings.push(Box::pin(async move { (job, asking.open().await) }));
        }
    }

    /// Takes what came of it.
    pub(crate) fn took(&mut self, job: Blake3Digest, opened: Opened, now: Instant) {
        self.asked.remove(&job);
        match opened {
            Ok(contents) => {
                self.waiting.remove(&job);
                self.open.insert(job, contents);
            }
            Err(why) => {
                let pauses = self.waiting.get(&job).map_or(0, |waiting| waiting.pauses);
                if self.waiting.get(&job).is_none_or(|waiting| waiting.why != why) {
                    tracing::warn!(%job, why, "a sealed part is not open");
                }
                let pause = SHORTEST_PAUSE.saturating_mul(1 << pauses.min(6)).min(LONGEST_PAUSE);
                let waiting = Waiting { why, pauses: pauses + 1, until: now + pause };
                self.waiting.insert(job, waiting);
            }
        }
    }

    /// What is sealed in a job, opened.
    ///
    /// # Errors
    /// Why it is not open.
    pub(crate) fn contents(&self, job: &Blake3Digest) -> Opened {
        let closed = || self.waiting.get(job).map_or(ASKING, |waiting| waiting.why);
        self.open.get(job).cloned().ok_or_else(closed)
    }

    /// What this worker says of a job whose sealed part it cannot use, and no other could.
    pub(crate) fn unusable(&self, job: &Blake3Digest) -> Option<Note> {
        let text = unusable(self.waiting.get(job)?.why)?;
        Note::try_from(text.to_owned()).ok()
    }

    /// When the next of those that wait is asked for again.
    pub(crate) fn due(&self, now: Instant) -> Option<Instant> {
        self.waiting.values().map(|waiting| waiting.until).filter(|until| *until > now).min()
    }

    fn retain(&mut self, jobs: BTreeSet<Blake3Digest>) {
        if self.retained.as_ref() == Some(&jobs) {
            return;
        }
        self.open.retain(|job, _| jobs.contains(job));
        self.waiting.retain(|job, _| jobs.contains(job));
        erase_others(&self.folder, &jobs);
        self.retained = Some(jobs);
    }
}

/// Erases what is kept of other jobs than these.
fn erase_others(folder: &Path, jobs: &BTreeSet<Blake3Digest>) {
    let names: BTreeSet<_> = jobs.iter().map(ToString::to_string).collect();
    let Ok(files) = fs::read_dir(folder) else { return };
    for found in files.filter_map(Result::ok) {
        let is_here = names.contains(&*found.file_name().to_string_lossy());
        if !is_here && let Err(error) = fs::remove_file(found.path()) {
            let path = found.path();
            tracing::warn!(path = %path.display(), %error, "what was sealed in a job that is gone is not erased");
        }
    }
}

fn file(folder: &Path, job: &Blake3Digest) -> PathBuf {
    folder.join(job.to_string())
}

/// One job that is opened.
struct Asking {
    path: PathBuf,
    evidence: PathBuf,
    keeper: Arc<Keeper>,
    identity: SecretIdentity,
    peers: Peers,
    epoch: Arc<ActiveEpoch>,
    body: Arc<JobSpec>,
    job: Blake3Digest,
    replica: ReplicaIndex,
}

impl Asking {
    async fn open(self) -> Opened {
        let (path, keeper, job) = (self.path.clone(), Arc::clone(&self.keeper), self.job);
        let kept = tokio::task::spawn_blocking(move || kept(&path, &keeper, &job)).await;
        if let Ok(Some(contents)) = kept {
            return Ok(Arc::new(contents));
        }
        let contents = self.agreed(self.ask().await?).await?;
        let Self { path, keeper, .. } = self;
        let keeping = tokio::task::spawn_blocking(move || {
            keep(&path, &keeper, &job, &contents).map(|()| contents)
        });
        match keeping.await {
            Ok(Ok(contents)) => Ok(Arc::new(contents)),
            Ok(Err(error)) => {
                tracing::error!(%job, %error, "what is sealed in it cannot be stored");
                Err(NOT_KEPT)
            }
            Err(_) => Err(NOT_KEPT), // the runtime is shutting down
        }
    }

    /// Step 8, of an encrypted request: "it encrypts the limits again with the seed, and compares with the list".
    async fn agreed(&self, contents: SealedContents) -> Result<SealedContents, Closed> {
        let ResourceRequest::Encrypted(request) = &self.body.request else { return Ok(contents) };
        let sealed = contents.request.clone().ok_or(NO_CONTENTS)?;
        let quantities = sealed.quantities(&request.scale).map_err(|_| NO_CONTENTS)?;
        let (body, epoch) = (Arc::clone(&self.body), Arc::clone(&self.epoch));
        let randomness = sealed.seed.randomness();
        let comparing = tokio::task::spawn_blocking(move || {
            let ResourceRequest::Encrypted(request) = &body.request else { return Ok(true) };
            request_agrees(&request.list, &quantities, &randomness, &epoch.keys.public)
        });
        match comparing.await {
            Ok(Ok(true)) => return Ok(contents),
            Ok(Ok(false)) => {}
            Ok(Err(error)) => {
                tracing::warn!(job = %self.job, %error, "the encrypted request cannot be compared");
                return Err(NO_CONTENTS);
            }
            Err(_) => return Err(NOT_KEPT), // the runtime is shutting down
        }
        let evidence = WrongRequest { job: self.job, opened: sealed };
        let path = self.evidence.join(format!("{}.json", self.job));
        let stored = serde_json::to_vec(&evidence).map_err(io::Error::other).and_then(|json| {
            fs::create_dir_all(&self.evidence)?;
            replace(&path, &json)
        });
        let path = path.display();
        match stored {
            Ok(()) => tracing::error!(job = %self.job, %path, "evidence against its operator"),
            Err(error) => tracing::error!(%path, %error, "evidence is not stored"),
        }
        Err(OTHER_REQUEST)
    }

    /// Steps 5 to 8.
    async fn ask(&self) -> Result<SealedContents, Closed> {
        let mut randomness = Zeroizing::new([0; 32]);
        OsRng.fill_bytes(&mut *randomness);
        let (body, job) = (&*self.body, self.job);
        // Whoever keeps a body has compared its operator with the chain's.
        let opening = Opening::new(body, &body.operator, self.replica, &self.identity, &randomness);
        let mut opening = opening.map_err(|error| why(&error))?;
        let request = SyncRequest::Share(Box::new(opening.request().clone()));
        let mut refused = Refusals::default();
        let opened = self.peers.ask_members(request, |peer, answer| {
            let seat = |index: usize| self.epoch.roster.get(index).map(PeerIdHash::of);
            match answer {
                SyncAnswer::Share(ShareAnswer::Released { member, share })
                    if seat(member.position()) == Some(peer) =>
                {
                    match opening.take(member, &share.0) {
                        Ok(true) => Some(opening.open()),
                        Ok(false) => None,
                        Err(wrong) => {
                            tracing::warn!(%job, %peer, %wrong, "another member's share is taken");
                            None
                        }
                    }
                }
                SyncAnswer::Share(ShareAnswer::Refused(refusal)) => {
                    tracing::info!(%job, %peer, %refusal, "a member keeps its share");
                    refused.count(refusal);
                    None
                }
                _ => {
                    tracing::warn!(%job, %peer, "the member answered something else than its share");
                    None
                }
            }
        });
        match opened.await {
            Some(Ok(contents)) => Ok(contents),
            Some(Err(error)) => {
                tracing::warn!(%job, %error, "the sealed part is not opened");
                Err(why(&error))
            }
            None => Err(kept_by(refused.agreed(self.epoch.committee))),
        }
    }
}

/// Why there are not enough shares, by what t+1 members say.
const fn kept_by(agreed: Option<ShareRefusal>) -> Closed {
    match agreed {
        Some(ShareRefusal::SealedElsewhere) => ELSEWHERE,
        Some(ShareRefusal::DealtWrongly) => DEALT_WRONGLY,
        _ => TOO_FEW,
    }
}

const fn why(error: &OpenError) -> Closed {
    match error {
        OpenError::NothingSealed | OpenError::Part(_) | OpenError::DealtWrongly => DEALT_WRONGLY,
        OpenError::TooFew { .. } => TOO_FEW,
        OpenError::Malformed(_) | OpenError::Contents(_) => NO_CONTENTS,
    }
}

fn kept(path: &Path, keeper: &Keeper, job: &Blake3Digest) -> Option<SealedContents> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "what was kept of a sealed part is not read");
            return None;
        }
    };
    match keeper.open(job, &bytes) {
        Ok(contents) => Some(contents),
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "asking anew");
            None
        }
    }
}

/// Stored before anything starts: else a worker that dies has a container that it cannot start again alone.
fn keep(
    path: &Path,
    keeper: &Keeper,
    job: &Blake3Digest,
    contents: &SealedContents,
) -> io::Result<()> {
    let mut nonce = [0; 24];
    OsRng.fill_bytes(&mut nonce);
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    replace(path, &keeper.keep(job, contents, &nonce))
}

#[cfg(test)]
mod tests {
    use veil_protocol_spec::{
        Address, ChainId, ClusterId,
        codec::Bytes,
        scheduling::{ClusterScope, FileMode, SealedFile},
    };

    use super::*;

    fn contents() -> SealedContents {
        let content = Bytes(b"hunter2hunter2".to_vec());
        let path = "/run/secrets/db".parse().unwrap();
        let file = SealedFile { path, mode: FileMode::READ_ONLY, content };
        let mut contents = SealedContents::default();
        contents.files = vec![file];
        contents
    }

    fn keeper(byte: u8) -> Keeper {
        let scope = ClusterScope {
            chain_id: ChainId(1),
            contract: Address([1; 20]),
            cluster: ClusterId([2; 32]),
        };
        Keeper::new(&SecretIdentity::from_bytes(&[byte; 32]).unwrap(), &scope)
    }

    #[test]
    fn what_no_worker_can_use_is_said_to_the_committee_and_what_may_open_is_not() {
        assert_eq!(kept_by(Some(ShareRefusal::DealtWrongly)), DEALT_WRONGLY);
        assert!(is_final(ELSEWHERE) && !is_final(kept_by(None)));
        for why in [ASKING, TOO_FEW, ELSEWHERE, NOT_KEPT] {
            assert_eq!(unusable(why), None, "{why}");
        }
        for why in [DEALT_WRONGLY, NO_CONTENTS, OTHER_REQUEST] {
            assert!(is_final(why));
            let text = unusable(why).unwrap().to_owned();
            assert!(Note::try_from(text).is_ok(), "it fits into what telemetry says");
        }
    }

    #[test]
    fn what_was_opened_is_kept_for_this_worker_and_in_clear_nowhere() {
        let folder = tempfile::tempdir().unwrap();
        let job = Blake3Digest([7; 32]);
        let path = file(&folder.path().join("sealed"), &job);
        assert_eq!(kept(&path, &keeper(1), &job), None, "nothing is there yet");
        keep(&path, &keeper(1), &job, &contents()).unwrap();
        assert_eq!(kept(&path, &keeper(1), &job), Some(contents()));
        let bytes = fs::read(&path).unwrap();
        assert!(!bytes.windows(7).any(|bytes| bytes == b"hunter2"));
        assert_eq!(kept(&path, &keeper(2), &job), None, "of another identity");
        erase_others(&folder.path().join("sealed"), &[job].into());
        assert_eq!(kept(&path, &keeper(1), &job), Some(contents()), "the job is here");
        fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
        assert_eq!(kept(&path, &keeper(1), &job), None, "damaged: the members are asked");
        erase_others(&folder.path().join("sealed"), &BTreeSet::new());
        assert!(!path.exists(), "the job is gone");
    }
}
