//! Showing and setting the cluster's policy, also one whose weights nobody but the circuits sees.
//!
//! # Flow
//! [`set`]: weights that the file wants hidden are encrypted and proven with the cluster's keys, as members state them and the chain
//! names them, bound to cluster, key set, account and a number drawn by lot. The list is written to a file, then the
//! chain is told its digest, then a node gets the list, as soon as it sees the digest on chain.
//!
//! # State and restart
//! What is cut off after the transaction leaves the file: [`give`] hands it to a node, any number of times.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use async_recursion::async_recursion as boxed;
use serde_json::{Value, json};
use veil_node_api::{
    client::{Client, ClientError},
    weights::{PATH, WeightsFile, WeightsStatus, WeightsTaken},
};
use veil_node_chain::{Chain, ChainError};
use veil_node_config::policy_file::{self, HiddenWeights, PolicyFile};
use veil_node_terminal::waiting;
use veil_protocol_spec::{
    Blake3Digest, ClusterId, Wire as _, hex,
    scheduling::{ClusterPolicy, EncryptedWeights, ProofMetadata, keccak},
    sealing::EncryptionKeys,
};
use veil_scheduler::encrypt_weights;

use crate::{error::OperatorError, sealing::Key, submission::log_in};

/// Between two looks at what a node sees on chain.
const INTERVAL: Duration = Duration::from_secs(1);
/// Until a node sees what was confirmed: it acts on blocks that others are built on.
const PATIENCE: Duration = Duration::from_secs(300);

fn shown(policy: &[u8]) -> Value {
    json!({
        "policy": ClusterPolicy::parse(policy).ok().as_ref().map(policy_file::shown),
        "policy_hex": hex(policy),
        "policy_hash": format!("0x{}", keccak(policy)),
    })
}

/// What the chain has, and what is announced; with a node, what that has of encrypted weights. The bytes too.
///
/// # Errors
/// [`OperatorError`].
#[boxed]
pub async fn describe(
    chain: &Chain,
    cluster: ClusterId,
    node: Option<&Client>,
) -> Result<(Value, Vec<u8>), OperatorError> {
    let policy = chain.cluster_policy(cluster).await?;
    let mut report = shown(&policy);
    if let Some((announced, from)) = chain.announced_policy(cluster).await? {
        report["announced"] = shown(&announced);
        report["announced"]["from"] = json!(from);
    }
    if let Some(node) = node {
        report["node"] = json!(held(node).await.map_err(OperatorError::Weights)?);
    }
    Ok((report, policy))
}

/// Sets the policy of a file. If its weights are to be encrypted, `node` gives the keys, and gets the list, which is
/// written beside the file.
///
/// # Errors
/// [`OperatorError`].
#[boxed]
pub async fn set(
    chain: &Chain,
    cluster: ClusterId,
    policy: &PolicyFile,
    file: &Path,
    node: Option<&Client>,
) -> Result<Value, OperatorError> {
    let (hidden, node) = match (policy.hidden(), node) {
        (Some(hidden), Some(node)) => (hidden, node),
        _ => return set_on_chain(chain, cluster, &policy.public()?).await,
    };
    // Whatever the node says no to, it says before anything is paid for.
    let session = logged_in(chain, cluster, node).await?;
    waiting::on("encrypting the weights with the cluster's key, and proving it");
    let list = encrypted(chain, cluster, node, hidden).await?;
    let weights = list.digest();
    let path = list_file(file, &weights);
    fs::write(&path, list.to_wire()).map_err(OperatorError::file(&path))?;
    waiting::on("setting the policy, a transaction");
    let set = set_on_chain(chain, cluster, &policy.with_encrypted(weights)).await;
    let mut report = set.inspect_err(|error| {
        // One that may still be mined names the list.
        if matches!(error, OperatorError::Chain(ChainError::Refused(_))) {
            let _ = fs::remove_file(&path);
        }
    })?;
    give_to(&session, &list, &path).await?;
    report["weights"] = json!(weights);
    report["list"] = json!(path);
    Ok(report)
}

async fn set_on_chain(
    chain: &Chain,
    cluster: ClusterId,
    policy: &ClusterPolicy,
) -> Result<Value, OperatorError> {
    let bytes = policy.to_wire();
    let mined = chain.set_cluster_policy(cluster, &bytes).await?;
    let announced = chain.announced_policy(cluster).await?;
    Ok(json!({
        "policy_hash": format!("0x{}", keccak(&bytes)),
        "from": announced.map(|(_, from)| from),
        "transaction": format!("0x{}", mined.transaction),
    }))
}

/// Hands a list from a file to a node, which takes it if the chain names it.
///
/// # Errors
/// [`OperatorError`].
#[boxed]
pub async fn give(
    chain: &Chain,
    cluster: ClusterId,
    node: &Client,
    path: &Path,
) -> Result<Value, OperatorError> {
    let bytes = fs::read(path).map_err(OperatorError::file(path))?;
    let list = EncryptedWeights::from_wire(&bytes)
        .map_err(|source| OperatorError::List { path: path.to_owned(), source })?;
    let session = logged_in(chain, cluster, node).await?;
    give_to(&session, &list, path).await?;
    Ok(json!({ "weights": list.digest() }))
}

/// What a node has of the encrypted weights that the chain names.
///
/// # Errors
/// [`ClientError`].
#[boxed]
pub async fn held(node: &Client) -> Result<Vec<WeightsStatus>, ClientError> {
    node.get(PATH).await
}

async fn logged_in(
    chain: &Chain,
    cluster: ClusterId,
    node: &Client,
) -> Result<Client, OperatorError> {
    let account = chain.account().ok_or(ChainError::NoAccount)?;
    waiting::on(format_args!("logging in at the node at {}", node.address()));
    log_in(chain, cluster, node, account).await
}

async fn encrypted(
    chain: &Chain,
    cluster: ClusterId,
    node: &Client,
    hidden: &HiddenWeights,
) -> Result<EncryptedWeights, OperatorError> {
    let author = chain.account().ok_or(ChainError::NoAccount)?;
    let key = Key::of(chain, cluster, node).await?;
    let keys: EncryptionKeys =
        node.get("/v1/encryption-keys").await.map_err(OperatorError::SealingKeys)?;
    let (scope, key_set, nonce) = (chain.scope(cluster), key.key_set(), rand::random());
    let metadata = ProofMetadata::for_weights(&scope, &key_set, &author, nonce);
    let weights = hidden.expose();
    let list = key
        .prove(keys, move |public_key, string| {
            encrypt_weights(&weights, public_key, string, &metadata)
        })
        .await?;
    Ok(EncryptedWeights { scope, key_set, author, nonce, list })
}

/// Beside the policy file: every list has a name of its own, so that none is lost for another.
fn list_file(policy: &Path, weights: &Blake3Digest) -> PathBuf {
    let name = policy.file_stem().unwrap_or_default().to_string_lossy();
    let digits = weights.to_string();
    policy.with_file_name(format!("{name}-{}.weights", digits.get(..16).unwrap_or(&digits)))
}

async fn give_to(
    session: &Client,
    list: &EncryptedWeights,
    path: &Path,
) -> Result<(), OperatorError> {
    let (weights, path) = (list.digest(), path.to_owned());
    waiting::on(format_args!(
        "giving the weights to the node at {}, when it sees the policy on chain",
        session.address()
    ));
    let list_file = path.clone();
    let not_given =
        |source| OperatorError::NotGiven { path: list_file.clone(), source: Box::new(source) };
    let seen = async {
        loop {
            let named = held(session).await?;
            if named.iter().any(|one| one.weights == weights) {
                return Ok(());
            }
            tokio::time::sleep(INTERVAL).await;
        }
    };
    match tokio::time::timeout(PATIENCE, seen).await {
        Err(_) => return Err(OperatorError::NotNamed { path, weights }),
        Ok(Err(source)) => return Err(not_given(source)),
        Ok(Ok(())) => {}
    }
    let file = WeightsFile { wire: hex(&list.to_wire()) };
    let taken = session.post::<WeightsTaken>(PATH, &file).await;
    taken.map(drop).map_err(not_given)
}

#[cfg(test)]
mod tests {
    use veil_protocol_spec::Address;
    use veil_scheduler::verify_weights;

    use super::*;
    use crate::sealing::tests::{SCOPE, cluster};

    #[test]
    fn every_list_has_a_file_of_its_own_beside_the_policy() {
        let weights = Blake3Digest([0xab; 32]);
        let path = list_file(Path::new("/etc/veil/policy.toml"), &weights);
        assert_eq!(path, Path::new("/etc/veil/policy-abababababababab.weights"));
        assert_ne!(list_file(&path, &weights), list_file(&path, &Blake3Digest([0xac; 32])));
    }

    /// By the keys that members state, and for nobody else's name.
    #[tokio::test]
    async fn weights_are_encrypted_with_the_clusters_keys_alone() {
        let of = cluster();
        let author = Address([9; 20]);
        let metadata = ProofMetadata::for_weights(&SCOPE, &of.key.key_set(), &author, 5);
        let file = policy_file::parse("[weights]\nencrypted = true").unwrap();
        let weights = file.hidden().unwrap().expose();
        let prove = async |keys: EncryptionKeys| {
            let encrypt = move |public_key: &_, string: &_| {
                encrypt_weights(&weights, public_key, string, &metadata)
            };
            of.key.prove(keys, encrypt).await
        };
        let list = prove(of.keys.clone()).await.unwrap();
        assert!(verify_weights(&list, &metadata, &of.public, &of.string).is_ok());
        let other = ProofMetadata::for_weights(&SCOPE, &of.key.key_set(), &Address([8; 20]), 5);
        assert!(verify_weights(&list, &other, &of.public, &of.string).is_err());

        let another = cluster();
        let mut keys = of.keys.clone();
        keys.public_key = another.keys.public_key.clone();
        assert!(matches!(prove(keys).await, Err(OperatorError::OtherPublicKey)));
        let mut keys = of.keys.clone();
        keys.reference_string = another.keys.reference_string.clone();
        assert!(matches!(prove(keys).await, Err(OperatorError::OtherReferenceString)));
    }
}
