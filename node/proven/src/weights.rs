//! The encrypted weights of the cluster's policy.
//!
//! # What makes a list the policy's
//! The policy on chain names a digest, and the admin alone sets it. The digest covers all of the list, its author
//! too, and the proof binds the author: so a list that has the digest, is of this cluster and key set, and whose proof
//! holds, is what the policy's author encrypted, whoever brought it. Nothing else is asked of who brings it.
//!
//! # State and restart
//! A file for each list, `weights/DIGEST.bin` in the data directory, written before the list is remembered: what this
//! node votes for can be evaluated after a restart. Lists that the chain does not name any more are kept as well, the
//! newest of them: auditors and challenges evaluate earlier slots again.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use veil_node_storage::durable::replace;
use veil_protocol_spec::{
    Blake3Digest, KeySetDigest, Wire as _,
    scheduling::{Binding, EncryptedWeights},
};
use veil_scheduler::{
    EvaluationKey, ExpandedWeights, ListError, ReferenceString, verify_and_expand_weights,
};

use crate::known::{Found, Known, Refusal};

/// Lists that are kept although the chain does not name them any more.
const EARLIER: usize = 16;

/// Why weights are not computed on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "each message says what its fields are")]
pub enum WeightsRefusal {
    /// They are not those that were asked for.
    #[error("these weights are {found}, and the policy names {named}")]
    Other { named: Blake3Digest, found: Blake3Digest },
    /// They are for another cluster.
    #[error(
        "the encrypted weights {0} of the policy are for another cluster: set the policy again with \
         `veil chain policy set`"
    )]
    Cluster(Blake3Digest),
    /// They are for another key.
    #[error(
        "the encrypted weights {weights} of the policy are for key set {found}, and this one is {expected}: set the \
         policy again with `veil chain policy set`"
    )]
    KeySet { weights: Blake3Digest, found: KeySetDigest, expected: KeySetDigest },
    /// Their proof does not hold, or tfhe does not take them.
    #[error(
        "the encrypted weights {weights} of the policy: {reason}; set the policy again with `veil chain policy set`"
    )]
    List { weights: Blake3Digest, reason: String },
    /// Nobody has brought them.
    #[error(
        "no node has the encrypted weights {0} of the policy: whoever set it gives them to a node again with \
         `veil chain policy give`"
    )]
    Missing(Blake3Digest),
    /// There is no evaluation key.
    #[error("this node is a light worker: it expands no weights")]
    Light,
    /// The disk.
    #[error("the policy's weights cannot be kept: {0}")]
    Storage(String),
    /// The runtime is shutting down.
    #[error("the weights were not looked at to the end")]
    Stopped,
}

impl WeightsRefusal {
    /// In metrics, of what a peer brought.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Other { .. } => "other_weights",
            Self::Cluster(_) => "weights_of_another_cluster",
            Self::KeySet { .. } => "weights_of_another_key",
            Self::List { .. } => "weights_not_proven",
            Self::Missing(_) | Self::Light | Self::Storage(_) | Self::Stopped => {
                "weights_not_taken"
            }
        }
    }
}

impl Refusal for WeightsRefusal {
    /// Another list may be the one that is named, also if this one is not.
    fn says_nothing(&self) -> bool {
        matches!(self, Self::Other { .. } | Self::Missing(_) | Self::Storage(_) | Self::Stopped)
    }
}

/// What a list must be proven under.
#[derive(Clone, Copy, Debug)]
pub struct Under<'a> {
    /// Cluster and key set.
    pub binding: &'a Binding,
    /// The evaluation key; a light worker has none.
    pub key: Option<&'a EvaluationKey>,
    /// What proofs rest on.
    pub string: &'a ReferenceString,
}

/// The lists that policies have named: on disk, and expanded.
#[derive(Debug)]
pub struct PolicyWeightLists {
    folder: PathBuf,
    known: Known<ExpandedWeights, WeightsRefusal>,
}

impl PolicyWeightLists {
    /// Of this data directory.
    #[must_use]
    pub fn new(data_dir: &Path) -> Self {
        Self { folder: data_dir.join("weights"), known: Known::default() }
    }

    fn path(&self, named: &Blake3Digest) -> PathBuf {
        self.folder.join(format!("{named}.bin"))
    }

    /// The list as its author encrypted it, if it is here. Waits for the disk.
    #[must_use]
    pub fn kept(&self, named: &Blake3Digest) -> Option<EncryptedWeights> {
        let path = self.path(named);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "the policy's weights cannot be read");
                return None;
            }
        };
        // Whoever could write here decides nothing: it is that list, or none.
        let list = EncryptedWeights::from_wire(&bytes).ok().filter(|list| list.digest() == *named);
        if list.is_none() {
            tracing::warn!(path = %path.display(), "this is not the list of its name; peers are asked for it");
        }
        list
    }

    /// What was found of it, if somebody has looked.
    #[must_use]
    pub fn found(&self, named: &Blake3Digest) -> Option<Found<ExpandedWeights, WeightsRefusal>> {
        self.known.found(named)
    }

    /// Whether a circuit can have them.
    #[must_use]
    pub fn has(&self, named: &Blake3Digest) -> bool {
        self.found(named).is_some_and(|found| found.is_ok())
    }

    /// Why a circuit cannot have them.
    #[must_use]
    pub fn why_not(&self, named: &Blake3Digest) -> Option<WeightsRefusal> {
        match self.found(named) {
            Some(Ok(_)) => None,
            Some(Err(refusal)) => Some(refusal),
            None => Some(WeightsRefusal::Missing(*named)),
        }
    }

    /// Verifies and expands a list, whoever brought it, keeps it, and remembers what was found. It takes as long as a
    /// proof takes.
    ///
    /// # Errors
    /// [`WeightsRefusal`]: it must not be computed on, and is not kept.
    pub fn take(
        &self,
        named: Blake3Digest,
        list: &EncryptedWeights,
        under: Under<'_>,
    ) -> Found<ExpandedWeights, WeightsRefusal> {
        if let Some(found) = self.found(&named) {
            return found;
        }
        let expanded = expand(named, list, under).map(Arc::new);
        let kept = expanded.and_then(|expanded| {
            self.keep(&named, list).map_err(|error| WeightsRefusal::Storage(error.to_string()))?;
            Ok(expanded)
        });
        self.known.set(named, &kept);
        kept
    }

    fn keep(&self, named: &Blake3Digest, list: &EncryptedWeights) -> io::Result<()> {
        if self.kept(named).is_some() {
            return Ok(());
        }
        fs::create_dir_all(&self.folder)?;
        replace(&self.path(named), &list.to_wire())
    }

    /// Drops the oldest lists, but for what the chain names and some that it named before. Waits for the disk.
    ///
    /// # Errors
    /// What the system says.
    pub fn forget(&self, named: &[Blake3Digest]) -> io::Result<()> {
        let entries = match fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        let named: Vec<_> = named.iter().map(|named| self.path(named)).collect();
        let mut earlier: Vec<(SystemTime, PathBuf)> = Vec::new();
        for entry in entries {
            let entry = entry?;
            if !named.contains(&entry.path()) {
                earlier.push((entry.metadata()?.modified()?, entry.path()));
            }
        }
        earlier.sort();
        let excess = earlier.len().saturating_sub(EARLIER);
        earlier.iter().take(excess).try_for_each(|(_, path)| fs::remove_file(path))
    }
}

/// What a peer has answered, if it is the list that was asked for.
///
/// # Errors
/// [`WeightsRefusal::Other`]: the peer deviates.
pub fn answered(
    named: Blake3Digest,
    list: Option<Box<EncryptedWeights>>,
) -> Result<Option<Box<EncryptedWeights>>, WeightsRefusal> {
    match list.as_ref().map(|list| list.digest()) {
        Some(found) if found != named => Err(WeightsRefusal::Other { named, found }),
        _ => Ok(list),
    }
}

/// Form, binding, proof; then the expansion.
fn expand(
    named: Blake3Digest,
    list: &EncryptedWeights,
    under: Under<'_>,
) -> Result<ExpandedWeights, WeightsRefusal> {
    let found = list.digest();
    if found != named {
        return Err(WeightsRefusal::Other { named, found });
    }
    if list.scope != under.binding.scope {
        return Err(WeightsRefusal::Cluster(named));
    }
    let (found, expected) = (list.key_set, under.binding.key_set);
    if found != expected {
        return Err(WeightsRefusal::KeySet { weights: named, found, expected });
    }
    let key = under.key.ok_or(WeightsRefusal::Light)?;
    let refused =
        |error: ListError| WeightsRefusal::List { weights: named, reason: error.to_string() };
    verify_and_expand_weights(&list.list, &list.proof_metadata(), under.string, key)
        .map_err(refused)
}

#[cfg(test)]
mod tests;
