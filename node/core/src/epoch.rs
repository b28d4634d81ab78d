//! Everything that follows from the key in force: how certificates are verified, the evaluation key,
//! the reference string, the telemetry received so far.
//!
//! # Flow
//! [`ActiveEpoch::prepare`]: takes the key that the chain publishes; finds key set and reference string on
//! disk, or fetches them from peers and checks them against the chain; expands the key set; opens
//! the ledger.
//!
//! A light worker needs less: the compact public key alone, which it takes from t+1 members that say the
//! same, and the reference string ([`Material::Light`]).
//!
//! # Caveats
//! An expanded key set takes more than a gigabyte. Nodes of one process share it: the chain says
//! which key set it is, so there is nothing to disagree about.

mod material;
mod requests;
pub(crate) mod weights;

use std::{
    io,
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use async_recursion::async_recursion as boxed;
use futures::{FutureExt, future::BoxFuture};
use tokio::sync::watch;
use veil_committee::frost::GroupVerifyingKey;
use veil_committee_slot::pool::{Pool, Refusal, Verified};
use veil_keygen_ceremony::keyset::{KeySetError, ParameterSet, UnknownParameters};
use veil_node_chain::{ChainError, PublishedKey};
use veil_node_p2p::FetchError;
use veil_node_process::{evaluation_pool::EvaluationPool, unix_now};
use veil_node_proven::{request::Requests, weights::PolicyWeightLists};
use veil_node_storage::{
    evidence::{EvidenceError, EvidenceStore},
    ledger::{Ledger, LedgerError},
    retention::Retention,
    slot_stores::SlotStores,
    trust::{Trust, TrustList},
};
use veil_protocol_spec::{
    Committee, PeerIdHash, PublicIdentity, Slot,
    decryption::DecryptionCounter,
    evidence::{Evidence, Proof},
    scheduling::{Binding, ReferenceStringOrigin, SlotRecord, Telemetry, UnixMillis},
    sync::KeyFiles,
};
use veil_scheduler::{
    InvalidPublicKey, KeyError, ListError, ReferenceString, ReferenceStringError,
    threshold::{EncryptedReport, verify_and_expand_report},
};

use crate::{
    cluster::{Cluster, View},
    sealing::Sealing,
};

pub use self::material::{Keys, Material, MaterialFiles};

use self::material::Loaded;

/// Why the key in force cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum EpochError {
    /// The chain's own words are not understood.
    #[error("the chain publishes a key that cannot be one: {0}")]
    Published(&'static str),
    /// The parameters' name.
    #[error(transparent)]
    Parameters(#[from] UnknownParameters),
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
    /// Not the public key alone.
    #[error("{path}: {source}; remove it, and the members are asked again")]
    PublicKey {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        source: InvalidPublicKey,
    },
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
    /// Nothing is verified here.
    #[error("this node is a light worker: it holds no evaluation key and verifies no telemetry")]
    Light,
}

impl TelemetryRefusal {
    /// In metrics.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Message(refusal) => refusal.name(),
            Self::List { source: ListError::Proof, .. } => "proof",
            Self::List { source: ListError::Malformed(_), .. } => "malformed_list",
            Self::List { .. } => "not_expanded",
            Self::Light => "light_worker",
        }
    }
}

/// What verifying a telemetry message leaves.
#[derive(Debug)]
pub struct Expanded {
    /// The ciphertexts.
    pub telemetry: Arc<EncryptedReport>,
    /// Seconds that verifying and expanding took.
    pub seconds: f64,
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
    pub keys: Arc<Keys>,
    /// What telemetry proofs rest on.
    pub reference_string: ReferenceString,
    /// Who made it.
    pub origin: ReferenceStringOrigin,
    /// Certificates.
    pub ledger: Arc<Ledger>,
    /// What a member keeps of slots besides.
    pub stores: Option<Arc<SlotStores>>,
    /// Evidence of faults, and the members' votes for certificates.
    pub evidence: Arc<EvidenceStore>,
    /// Where manifests are evaluated.
    pub evaluators: EvaluationPool,
    /// The digests under which this node provides key set and CRS; a light worker provides none.
    pub files: Option<KeyFiles>,
    /// How many blocks this member has opened under the key; `None` until it takes part.
    pub blocks_opened: watch::Sender<Option<DecryptionCounter>>,
    /// What this member answers about sealed jobs; nothing until it takes part.
    pub sealing: OnceLock<Sealing>,
    /// Encrypted requests of jobs.
    pub(crate) requests: Requests,
    /// Encrypted weights of policies.
    pub weights: PolicyWeightLists,
    pool: Mutex<Pool<Expanded>>,
    arrivals: watch::Sender<u64>,
    /// The last slot for which this node may have signed; the last of all until it has
    /// [resumed](Self::has_resumed).
    signed: AtomicU64,
}

impl core::fmt::Debug for ActiveEpoch {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("ActiveEpoch").field("binding", &self.binding).finish_non_exhaustive()
    }
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
        material: Material,
        telemetry_max_age: UnixMillis,
        retention: Retention,
    ) -> Result<Arc<Self>, EpochError> {
        let view = cluster.views.current();
        let committee = view.committee;
        if view.roster.len() != committee.n() {
            return Err(EpochError::Published("its committee is not registered any more"));
        }
        let origin = key.reference_string.origin;
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
        let file = |name: &str| cluster.data_dir.join(name);
        let evidence = Arc::new(EvidenceStore::open(&file("evidence.redb"), trust.clone())?);
        let trust = TrustList::from_iter([(Slot(1), trust)]);
        let ledger = Arc::new(Ledger::open(&file("ledger.redb"), trust, retention)?);
        let stores = material.stores();
        let roster = view.roster.clone();
        let Loaded { keys, reference_string, files } =
            material::load(cluster, &key, &roster, &parameters, material).await?;
        let mut pool = Pool::new(binding, telemetry_max_age);
        pool.set_workers(view.workers());
        Ok(Arc::new(Self {
            binding,
            committee,
            roster,
            parameters,
            keys,
            reference_string,
            origin,
            ledger,
            stores,
            evidence,
            evaluators: EvaluationPool::default(),
            files,
            blocks_opened: watch::Sender::new(None),
            sealing: OnceLock::new(),
            requests: Requests::default(),
            weights: PolicyWeightLists::new(&cluster.data_dir),
            pool: Mutex::new(pool),
            arrivals: watch::Sender::new(0),
            signed: AtomicU64::new(u64::MAX),
        }))
    }

    /// From here on this node may have signed the certificate of that slot: a member says so before a share
    /// leaves.
    pub fn signs(&self, slot: Slot) {
        self.signed.store(slot.0, Ordering::SeqCst);
    }

    /// This member has said of what slot it signed the certificate before it was started, if it did.
    pub fn has_resumed(&self) {
        let _ = self.signed.compare_exchange(u64::MAX, 0, Ordering::SeqCst, Ordering::SeqCst);
    }

    /// Whether this node may tell others that there is nothing newer than what is in its ledger. "Who has
    /// signed the certificate of a slot tells nobody so before it has that certificate" (`leases.md`, 3): a
    /// worker would take its leases for renewed, although it counts as lost.
    #[must_use]
    pub fn is_up_to_date(&self) -> bool {
        self.signed.load(Ordering::SeqCst) <= self.ledger.state().last_slot().0
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
            self.pool().admit(&telemetry, unix_now())?;
            let (telemetry, expanded) = self.expand(telemetry).await?;
            let kept = self.pool().insert(telemetry, expanded, unix_now())?;
            self.notify_arrivals();
            Ok(kept)
        };
        taking.boxed()
    }

    pub(crate) fn notify_arrivals(&self) {
        self.arrivals.send_modify(|count| *count += 1);
    }

    /// Notifies of telemetry that was taken, and of requests that were looked at.
    pub fn arrivals(&self) -> watch::Receiver<u64> {
        self.arrivals.subscribe()
    }

    /// Verifies a message's proof and expands it, off the reactor. The caller has checked the rest.
    ///
    /// # Errors
    /// [`TelemetryRefusal::List`], [`TelemetryRefusal::Light`].
    pub async fn expand(
        self: &Arc<Self>,
        telemetry: Telemetry,
    ) -> Result<(Telemetry, Expanded), TelemetryRefusal> {
        let Some(key) = self.keys.evaluation.clone() else { return Err(TelemetryRefusal::Light) };
        let epoch = Arc::clone(self);
        let sender = telemetry.body.sender();
        let verified = tokio::task::spawn_blocking(move || {
            let begun = Instant::now();
            let body = &telemetry.body;
            let expanded = verify_and_expand_report(
                &body.list,
                &body.proof_metadata(),
                &epoch.reference_string,
                &key,
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
        let accepted = self.ledger.accept(record, unix_now());
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
