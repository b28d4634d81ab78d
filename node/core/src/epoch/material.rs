//! The key material: found on disk, or fetched from peers.
//!
//! # Flow
//! 1. Key set and reference string are files of the data directory. What is missing is fetched, and checked
//!    against the digests on chain.
//! 2. The key set is expanded, once in a process.
//!
//! A light worker takes the compact public key by itself. The chain has no digest of it, so it counts when t+1
//! members of the committee state the same: one of them is honest, and t+1 that are not could open its
//! telemetry under the right key too.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::{self, BufReader},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use tfhe::CompactPublicKey;
use veil_keygen_ceremony::keyset::{ParameterSet, key_set_size_limit, read_key_set_with_digest};
use veil_node_chain::PublishedKey;
use veil_node_storage::{
    durable::{hash_file, replace},
    slot_stores::SlotStores,
};
use veil_protocol_spec::{
    Committee, KeySetDigest, PeerIdHash, PublicIdentity,
    codec::Bytes,
    sync::{KeyFiles, SyncAnswer, SyncRequest},
};
use veil_scheduler::{EvaluationKey, ReferenceString, read_public_key};

use super::EpochError;
use crate::cluster::Cluster;

/// Longest reference string file; at production size it has about a megabyte.
const MAX_REFERENCE_STRING_BYTES: u64 = 64 << 20;
/// For fetching the key set.
const FETCH_DEADLINE: Duration = Duration::from_secs(1800);
/// Between two rounds of asking for what nobody has yet.
const RETRY_DELAY: Duration = Duration::from_millis(500);

/// A key set, expanded.
#[derive(Clone)]
pub struct Keys {
    /// For circuits; a light worker has none.
    pub evaluation: Option<EvaluationKey>,
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

/// Which material a node uses.
#[derive(Clone, Debug)]
pub enum Material {
    /// Its own: a member has made it.
    Own {
        /// Where it is; if it is not there it is fetched.
        files: Option<MaterialFiles>,
        /// What the member keeps of slots.
        stores: Arc<SlotStores>,
    },
    /// Everything, from the data directory or from peers.
    Fetched,
    /// Only what encrypting takes: the compact public key and the reference string.
    Light,
}

impl Material {
    pub(super) fn stores(&self) -> Option<Arc<SlotStores>> {
        match self {
            Self::Own { stores, .. } => Some(Arc::clone(stores)),
            Self::Fetched | Self::Light => None,
        }
    }
}

/// What [`load`] gives.
pub(super) struct Loaded {
    pub(super) keys: Arc<Keys>,
    pub(super) reference_string: ReferenceString,
    pub(super) files: Option<KeyFiles>,
}

fn io_error(path: &Path) -> impl FnOnce(io::Error) -> EpochError {
    let path = path.to_owned();
    move |source| EpochError::Io { path, source }
}

/// What this process has expanded, by digest.
static EXPANDED: Mutex<BTreeMap<KeySetDigest, Weak<Keys>>> = Mutex::new(BTreeMap::new());

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
    let keys = Arc::new(Keys {
        evaluation: Some(EvaluationKey::new(public.clone(), server_key)?),
        public,
    });
    expanded.insert(*digest, Arc::downgrade(&keys));
    Ok(keys)
}

/// See the [module documentation](self). Waits until some peer has what is missing.
///
/// # Errors
/// [`EpochError`].
pub(super) async fn load(
    cluster: &Cluster,
    key: &PublishedKey,
    roster: &[PublicIdentity],
    parameters: &ParameterSet,
    material: Material,
) -> Result<Loaded, EpochError> {
    let files = match material {
        Material::Light => return load_light(cluster, key, roster, parameters).await,
        Material::Own { files: Some(files), .. } => files,
        Material::Own { .. } | Material::Fetched => fetch(cluster, key, parameters).await?,
    };
    let (key, of) = (*key, parameters.clone());
    let loading = tokio::task::spawn_blocking(move || {
        let reference_string = read_reference_string(&files.reference_string, &key, &of)?;
        let keys = expand(&files.key_set, &key.key_set, &of)?;
        let (key_set, key_set_bytes) =
            hash_file(&files.key_set).map_err(io_error(&files.key_set))?;
        let (string, string_bytes) =
            hash_file(&files.reference_string).map_err(io_error(&files.reference_string))?;
        let digests = KeyFiles {
            key_set,
            key_set_bytes,
            reference_string: string,
            reference_string_bytes: string_bytes,
        };
        Ok::<_, EpochError>((keys, reference_string, digests, files))
    });
    let (keys, reference_string, digests, files) =
        loading.await.map_err(|_| EpochError::Published("loading it failed"))??;
    cluster.network.provide(digests.key_set, files.key_set);
    cluster.network.provide(digests.reference_string, files.reference_string);
    Ok(Loaded { keys, reference_string, files: Some(digests) })
}

fn read_reference_string(
    path: &Path,
    key: &PublishedKey,
    parameters: &ParameterSet,
) -> Result<ReferenceString, EpochError> {
    let file = BufReader::new(File::open(path).map_err(io_error(path))?);
    let reference_string = ReferenceString::read(file, *parameters.pke())
        .map_err(|source| EpochError::ReferenceString { path: path.to_owned(), source })?;
    if reference_string.digest() != key.reference_string.digest {
        return Err(EpochError::OtherReferenceString { path: path.to_owned() });
    }
    Ok(reference_string)
}

async fn load_light(
    cluster: &Cluster,
    key: &PublishedKey,
    roster: &[PublicIdentity],
    parameters: &ParameterSet,
) -> Result<Loaded, EpochError> {
    let path = cluster.data_dir.join(format!("public-key-{}.bin", key.key_set));
    if !path.exists() {
        let bytes = ask_public_key(cluster, key.key_set, roster).await;
        replace(&path, &bytes).map_err(io_error(&path))?;
    }
    let string = reference_string_file(cluster, key);
    if !string.exists() {
        let (peers, files) = ask_files(cluster, key.key_set).await;
        fetch_reference_string(cluster, &peers, &files, &string).await?;
    }
    let (key, of) = (*key, parameters.clone());
    let loading = tokio::task::spawn_blocking(move || {
        let reference_string = read_reference_string(&string, &key, &of)?;
        let bytes = fs::read(&path).map_err(io_error(&path))?;
        let public = read_public_key(&bytes, of.pke())
            .map_err(|source| EpochError::PublicKey { path, source })?;
        let keys = Arc::new(Keys { evaluation: None, public });
        Ok::<_, EpochError>(Loaded { keys, reference_string, files: None })
    });
    loading.await.map_err(|_| EpochError::Published("loading it failed"))?
}

/// What members say, until enough of them say the same.
struct Agreeing {
    needed: usize,
    said: BTreeMap<Vec<u8>, BTreeSet<PeerIdHash>>,
}

impl Agreeing {
    /// Those of the committee that holds the key: "one of t+1 is honest".
    const fn in_committee(committee: Committee) -> Self {
        let needed = committee.reconstruction_threshold().get();
        Self { needed, said: BTreeMap::new() }
    }

    fn hear(&mut self, from: PeerIdHash, bytes: Vec<u8>) -> Option<Vec<u8>> {
        let by = self.said.entry(bytes.clone()).or_default();
        by.insert(from);
        (by.len() >= self.needed).then_some(bytes)
    }
}

async fn ask_public_key(
    cluster: &Cluster,
    key_set: KeySetDigest,
    roster: &[PublicIdentity],
) -> Vec<u8> {
    let committee = cluster.views.current().committee;
    let members: Vec<_> = roster.iter().map(PeerIdHash::of).collect();
    loop {
        let mut agreeing = Agreeing::in_committee(committee);
        let request = SyncRequest::PublicKey(key_set);
        let found = cluster.peers.ask(members.clone(), request, |peer, answer| match answer {
            SyncAnswer::PublicKey(Some(Bytes(bytes))) => agreeing.hear(peer, bytes),
            _ => None,
        });
        match found.await {
            Some(bytes) => return bytes,
            None => tokio::time::sleep(RETRY_DELAY).await,
        }
    }
}

fn reference_string_file(cluster: &Cluster, key: &PublishedKey) -> PathBuf {
    cluster.data_dir.join(format!("reference-string-{}.bin", key.reference_string.digest))
}

/// Gets both files from peers, unless they are in the data directory from an earlier run.
async fn fetch(
    cluster: &Cluster,
    key: &PublishedKey,
    parameters: &ParameterSet,
) -> Result<MaterialFiles, EpochError> {
    let files = MaterialFiles {
        key_set: cluster.data_dir.join(format!("keyset-{}.bin", key.key_set)),
        reference_string: reference_string_file(cluster, key),
    };
    if files.key_set.exists() && files.reference_string.exists() {
        return Ok(files);
    }
    let limit = key_set_size_limit(parameters);
    let (peers, found) = ask_files(cluster, key.key_set).await;
    if !files.reference_string.exists() {
        fetch_reference_string(cluster, &peers, &found, &files.reference_string).await?;
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

/// Under which digests peers provide the files, and the peers.
async fn ask_files(cluster: &Cluster, key_set: KeySetDigest) -> (Vec<PeerIdHash>, KeyFiles) {
    let (from, found) = loop {
        let request = SyncRequest::KeyFiles(key_set);
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
    (peers, found)
}

async fn fetch_reference_string(
    cluster: &Cluster,
    peers: &[PeerIdHash],
    files: &KeyFiles,
    path: &Path,
) -> Result<(), EpochError> {
    let digest = files.reference_string;
    let limit = MAX_REFERENCE_STRING_BYTES;
    cluster.network.fetch(peers, digest, path, limit, FETCH_DEADLINE, |_| {}).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_public_key_counts_when_more_members_than_may_lie_say_the_same() {
        let peer = |byte| PeerIdHash([byte; 32]);
        let mut agreeing = Agreeing::in_committee(Committee::new(7).unwrap());
        // Two of seven may lie.
        assert_eq!(agreeing.hear(peer(1), vec![9]), None);
        assert_eq!(agreeing.hear(peer(1), vec![9]), None, "one member, twice");
        assert_eq!(agreeing.hear(peer(2), vec![9]), None);
        assert_eq!(agreeing.hear(peer(3), vec![1]), None);
        assert_eq!(agreeing.hear(peer(4), vec![1]), None);
        assert_eq!(agreeing.hear(peer(5), vec![1]), Some(vec![1]));
    }
}
