//! Everything that follows from the key in force: how certificates are verified, the evaluation key,
//! the reference string, the telemetry received so far.
//!
//! # Flow
//! [`ActiveEpoch::prepare`]: takes the key that the chain publishes; finds key set and reference string on
//! disk, or fetches them from peers and checks them against the chain; expands the key set; opens
//! the ledger.
//!
//! # Caveats
//! An expanded key set takes more than a gigabyte. Nodes of one process share it: the chain says
//! which key set it is, so there is nothing to disagree about.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, BufReader},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::{Duration, Instant},
};

use async_recursion::async_recursion as boxed;
use futures::{FutureExt, future::BoxFuture};
use tfhe::CompactPublicKey;
use tokio::sync::watch;
use veil_committee::frost::GroupVerifyingKey;
use veil_committee_slot::pool::{Pool, Refusal, Verified};
use veil_keygen_ceremony::keyset::{
    KeySetError, ParameterSet, UnknownParameters, key_set_size_limit, read_key_set_with_digest,
};
use veil_node_chain::{ChainError, PublishedKey};
use veil_node_p2p::FetchError;
use veil_node_process::unix_now;
use veil_node_storage::{
    durable::hash_file,
    evidence::{EvidenceError, EvidenceStore},
    ledger::{Ledger, LedgerError},
    trust::{Trust, TrustList},
};
use veil_protocol_spec::{
    Committee, KeySetDigest, PeerIdHash, PublicIdentity, Slot,
    evidence::{Evidence, Proof},
    scheduling::{Binding, ReferenceStringOrigin, SlotRecord, Telemetry, UnixMillis},
    sync::{KeyFiles, SyncAnswer, SyncRequest},
};
use veil_scheduler::{
    EncryptedTelemetry, EvaluationKey, KeyError, ListError, ReferenceString, ReferenceStringError,
    verify_and_expand,
};

use crate::{
    cluster::{Cluster, View},
    evaluation_pool::EvaluationPool,
};

/// Longest reference string file; at production size it has about a megabyte.
const MAX_REFERENCE_STRING_BYTES: u64 = 64 << 20;
/// For fetching the key set.
const FETCH_DEADLINE: Duration = Duration::from_secs(1800);
/// Between two rounds of asking for files that nobody has yet.
const RETRY_DELAY: Duration = Duration::from_millis(500);

/// Why the key in force cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum EpochError {
    /// The chain's own words are not understood.
    #[error("the chain publishes a key that cannot be one: {0}")]
    Published(&'static str),
    /// The parameters' name.
    #[error(transparent)]
    Parameters(#[from] UnknownParameters),
    /// The reference string was made by one party, and nobody said that this is acceptable.
    #[error(
        "the telemetry proofs of this cluster rest on a reference string that ONE PARTY made and could forge proofs with; if that is acceptable here, set insecure_reference_string = true"
    )]
    InsecureReferenceString,
    /// The key set.
    #[error("{path}: {source}")]
    KeySet {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        source: KeySetError,
    },
    /// tfhe does not expand it, or the circuits cannot use it.
    #[error("the key set cannot be used: {0}")]
    Key(#[from] KeyError),
    /// The reference string.
    #[error("{path}: {source}")]
    ReferenceString {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        source: ReferenceStringError,
    },
    /// Another one than the chain names.
    #[error(
        "{path} is not the reference string that the chain names; remove it, and it is fetched"
    )]
    OtherReferenceString {
        /// Which file.
        path: PathBuf,
    },
    /// A file cannot be read.
    #[error("{path}: {source}")]
    Io {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Nobody could provide it.
    #[error("the key material cannot be fetched: {0}")]
    Fetch(#[from] FetchError),
    /// The certificates.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The evidence.
    #[error(transparent)]
    Evidence(#[from] EvidenceError),
    /// The chain.
    #[error(transparent)]
    Chain(#[from] ChainError),
}

/// Why telemetry was not taken.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryRefusal {
    /// Before its proof was looked at.
    #[error(transparent)]
    Message(#[from] Refusal),
    /// Its proof.
    #[error("telemetry of {sender}: {source}")]
    List {
        /// Whose.
        sender: PeerIdHash,
        /// What is wrong.
        source: ListError,
    },
}

/// What verifying a telemetry message leaves.
#[derive(Debug)]
pub struct Expanded {
    /// The ciphertexts.
    pub telemetry: Arc<EncryptedTelemetry>,
    /// Seconds that verifying and expanding took.
    pub seconds: f64,
}

/// A key set, expanded.
#[derive(Clone)]
pub struct Keys {
    /// For circuits.
    pub evaluation: EvaluationKey,
    /// For encryption.
    pub public: CompactPublicKey,
}

/// Where key set and reference string are, if this node has them already.
#[derive(Clone, Debug)]
pub struct MaterialFiles {
    /// The key set.
    pub key_set: PathBuf,
    /// The reference string.
    pub reference_string: PathBuf,
}

/// See the [module documentation](self).
pub struct ActiveEpoch {
    /// Cluster, key set and epoch.
    pub binding: Binding,
    /// The committee.
    pub committee: Committee,
    /// Identities of participants 1, 2, ...
    pub roster: Vec<PublicIdentity>,
    /// The FHE parameters.
    pub parameters: ParameterSet,
    /// The key set.
    pub keys: Keys,
    /// What telemetry proofs rest on.
    pub reference_string: ReferenceString,
    /// Who made it.
    pub origin: ReferenceStringOrigin,
    /// Certificates.
    pub ledger: Arc<Ledger>,
    /// Evidence of faults, and the members' votes for certificates.
    pub evidence: Arc<EvidenceStore>,
    /// Where manifests are evaluated.
    pub evaluators: EvaluationPool,
    /// The digests under which this node provides key set and CRS.
    pub files: KeyFiles,
    pool: Mutex<Pool<Expanded>>,
    arrivals: watch::Sender<u64>,
}

impl core::fmt::Debug for ActiveEpoch {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("ActiveEpoch").field("binding", &self.binding).finish_non_exhaustive()
    }
}

/// What this process has expanded, by digest.
static EXPANDED: Mutex<BTreeMap<KeySetDigest, Weak<Keys>>> = Mutex::new(BTreeMap::new());

fn io_error(path: &Path) -> impl FnOnce(io::Error) -> EpochError {
    let path = path.to_owned();
    move |source| EpochError::Io { path, source }
}

fn expand(
    path: &Path,
    digest: &KeySetDigest,
    parameters: &ParameterSet,
) -> Result<Arc<Keys>, EpochError> {
    // Held while one node of the process reads and expands, so that the others find the result.
    let mut expanded = EXPANDED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(keys) = expanded.get(digest).and_then(Weak::upgrade) {
        return Ok(keys);
    }
    let file = File::open(path).map_err(io_error(path))?;
    let key_set =
        read_key_set_with_digest(file, key_set_size_limit(parameters), parameters, digest)
            .map_err(|source| EpochError::KeySet { path: path.to_owned(), source })?;
    let (public, server_key) = key_set.decompress().into_raw_parts();
    let keys =
        Arc::new(Keys { evaluation: EvaluationKey::new(public.clone(), server_key)?, public });
    expanded.insert(*digest, Arc::downgrade(&keys));
    Ok(keys)
}

impl ActiveEpoch {
    /// See the [module documentation](self). Fetching waits until some peer has the files.
    ///
    /// # Errors
    /// [`EpochError`].
    #[boxed]
    pub async fn prepare(
        cluster: &Cluster,
        key: PublishedKey,
        own: Option<MaterialFiles>,
        accept_insecure: bool,
        telemetry_max_age: UnixMillis,
    ) -> Result<Arc<Self>, EpochError> {
        let view = cluster.views.current();
        let committee = view.committee;
        if view.roster.len() != committee.n() {
            return Err(EpochError::Published("its committee is not registered any more"));
        }
        let origin = key.reference_string.origin;
        if origin == ReferenceStringOrigin::SingleParty {
            if !accept_insecure {
                return Err(EpochError::InsecureReferenceString);
            }
            tracing::warn!(
                "INSECURE: telemetry proofs rest on a reference string that one party made; every certificate says so"
            );
        }
        let attempt = cluster
            .chain
            .ceremony_attempt(cluster.scope.cluster, key.epoch, key.attempt)
            .await?
            .ok_or(EpochError::Published("its ceremony is not known"))?;
        let parameters = ParameterSet::by_name(&attempt.parameters, committee)?;
        let binding = Binding { scope: cluster.scope, key_set: key.key_set, epoch: key.epoch };
        let group = GroupVerifyingKey::new(&key.group_key)
            .map_err(|_| EpochError::Published("the group key is no point of the curve"))?;
        let trust = Trust { binding, committee, roster: view.roster.clone(), group };
        let path = cluster.data_dir.join("evidence.redb");
        let evidence = Arc::new(EvidenceStore::open(&path, trust.clone())?);
        let path = cluster.data_dir.join("ledger.redb");
        let ledger = Arc::new(Ledger::open(&path, TrustList::from_iter([(Slot(1), trust)]))?);
        let files = match own {
            Some(files) => files,
            None => fetch(cluster, &key, &parameters).await?,
        };
        let roster = view.roster.clone();
        let of = parameters.clone();
        let load = tokio::task::spawn_blocking(move || load(&files, &key, &of));
        let (keys, reference_string, provided) =
            load.await.map_err(|_| EpochError::Published("loading it failed"))??;
        let (digests, files) = provided;
        cluster.network.provide(digests.key_set, files.key_set);
        cluster.network.provide(digests.reference_string, files.reference_string);
        let mut pool = Pool::new(binding, telemetry_max_age);
        pool.set_workers(view.workers());
        Ok(Arc::new(Self {
            binding,
            committee,
            roster,
            parameters,
            keys: (*keys).clone(),
            reference_string,
            origin,
            ledger,
            evidence,
            evaluators: EvaluationPool::default(),
            files: digests,
            pool: Mutex::new(pool),
            arrivals: watch::Sender::new(0),
        }))
    }

    /// The telemetry received.
    pub fn pool(&self) -> MutexGuard<'_, Pool<Expanded>> {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Checks, verifies and keeps a message. The proof is verified off the reactor.
    ///
    /// # Errors
    /// [`TelemetryRefusal`].
    pub fn take_telemetry(
        self: &Arc<Self>,
        telemetry: Telemetry,
    ) -> BoxFuture<'_, Result<Arc<Verified<Expanded>>, TelemetryRefusal>> {
        let taking = async move {
            self.pool().check(&telemetry, unix_now())?;
            let (telemetry, expanded) = self.expand(telemetry).await?;
            let kept = self.pool().insert(telemetry, expanded, unix_now())?;
            self.arrivals.send_modify(|count| *count += 1);
            Ok(kept)
        };
        taking.boxed()
    }

    /// Notifies of telemetry that was taken.
    pub fn arrivals(&self) -> watch::Receiver<u64> {
        self.arrivals.subscribe()
    }

    /// Verifies a message's proof and expands it, off the reactor. The caller has checked the rest.
    ///
    /// # Errors
    /// [`TelemetryRefusal::List`].
    pub async fn expand(
        self: &Arc<Self>,
        telemetry: Telemetry,
    ) -> Result<(Telemetry, Expanded), TelemetryRefusal> {
        let epoch = Arc::clone(self);
        let sender = telemetry.body.sender();
        let verified = tokio::task::spawn_blocking(move || {
            let begun = Instant::now();
            let body = &telemetry.body;
            let expanded = verify_and_expand(
                &body.list,
                &body.proof_metadata(),
                &epoch.reference_string,
                &epoch.keys.evaluation,
            );
            (expanded, begun.elapsed().as_secs_f64(), telemetry)
        });
        let (expanded, seconds, telemetry) = match verified.await {
            Ok(verified) => verified,
            // Whatever makes tfhe panic is no telemetry.
            Err(error) if error.is_panic() => {
                let source = ListError::Malformed("verifying it panicked".to_owned());
                return Err(TelemetryRefusal::List { sender, source });
            }
            // The runtime is shutting down.
            Err(_) => std::future::pending().await,
        };
        let expanded = expanded.map_err(|source| TelemetryRefusal::List { sender, source })?;
        Ok((telemetry, Expanded { telemetry: Arc::new(expanded), seconds }))
    }

    /// Gives the ledger a record, whoever brought it; `false` if it is known already. Two certificates of
    /// one slot are evidence, which is kept. Waits for the disk: not for the reactor.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub fn accept(&self, record: &SlotRecord) -> Result<bool, LedgerError> {
        let accepted = self.ledger.accept(record);
        if let Err(LedgerError::Equivocation(slot)) = accepted
            && let Some(known) = self.ledger.record(slot)?
        {
            let both = Box::new((known.certificate, record.certificate));
            let proof = Proof::Certificates(both);
            let kept = self.evidence.accept(&Evidence { binding: self.binding, proof });
            if let Err(error) = kept {
                tracing::error!(%slot, %error, "evidence against the committee is not kept");
            }
        }
        accepted
    }

    /// Tells the pool who is registered.
    pub fn follow(&self, view: &View) {
        self.pool().set_workers(view.workers());
    }
}

type Loaded = (Arc<Keys>, ReferenceString, (KeyFiles, MaterialFiles));

fn load(
    files: &MaterialFiles,
    key: &PublishedKey,
    parameters: &ParameterSet,
) -> Result<Loaded, EpochError> {
    let path = &files.reference_string;
    let compact = *parameters.pke();
    let file = BufReader::new(File::open(path).map_err(io_error(path))?);
    let reference_string = ReferenceString::read(file, compact)
        .map_err(|source| EpochError::ReferenceString { path: path.clone(), source })?;
    if reference_string.digest() != key.reference_string.digest {
        return Err(EpochError::OtherReferenceString { path: path.clone() });
    }
    let keys = expand(&files.key_set, &key.key_set, parameters)?;
    let (key_set, key_set_bytes) = hash_file(&files.key_set).map_err(io_error(&files.key_set))?;
    let (string, string_bytes) = hash_file(path).map_err(io_error(path))?;
    let digests = KeyFiles {
        key_set,
        key_set_bytes,
        reference_string: string,
        reference_string_bytes: string_bytes,
    };
    Ok((keys, reference_string, (digests, files.clone())))
}

/// Gets both files from peers, unless they are in the data directory from an earlier run.
async fn fetch(
    cluster: &Cluster,
    key: &PublishedKey,
    parameters: &ParameterSet,
) -> Result<MaterialFiles, EpochError> {
    let folder = &cluster.data_dir;
    let files = MaterialFiles {
        key_set: folder.join(format!("keyset-{}.bin", key.key_set)),
        reference_string: folder
            .join(format!("reference-string-{}.bin", key.reference_string.digest)),
    };
    if files.key_set.exists() && files.reference_string.exists() {
        return Ok(files);
    }
    let limit = key_set_size_limit(parameters);
    let (from, found) = loop {
        let request = SyncRequest::KeyFiles(key.key_set);
        let found =
            cluster.peers.ask(cluster.peers.members(), request, |peer, answer| match answer {
                SyncAnswer::KeyFiles(Some(files)) => Some((peer, files)),
                _ => None,
            });
        match found.await {
            Some(found) => break found,
            None => tokio::time::sleep(RETRY_DELAY).await,
        }
    };
    // Whoever announced it comes first; any other member that has the same bytes will do.
    let mut peers = cluster.peers.members();
    peers.sort_by_key(|peer| *peer != from);
    if !files.reference_string.exists() {
        cluster
            .network
            .fetch(
                &peers,
                found.reference_string,
                &files.reference_string,
                MAX_REFERENCE_STRING_BYTES,
                FETCH_DEADLINE,
                |_| {},
            )
            .await?;
    }
    if !files.key_set.exists() {
        tracing::info!(bytes = found.key_set_bytes, "fetching the key set");
        cluster
            .network
            .fetch(&peers, found.key_set, &files.key_set, limit, FETCH_DEADLINE, |_| {})
            .await?;
    }
    Ok(files)
}
