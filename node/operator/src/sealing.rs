//! Sealing at the operator (`sealed.md`, steps 1 and 2): the members' keys come from a node, and count as far as
//! identities that the chain names have signed them. A request is encrypted before, with the cluster's keys.

use async_recursion::async_recursion as boxed;
use rand::{SeedableRng, rngs::StdRng};
use tfhe::CompactPublicKey;
use veil_committee_sealed::seal::{SealerKey, seal};
use veil_keygen_ceremony::keyset::ParameterSet;
use veil_node_api::client::Client;
use veil_node_chain::{Chain, ChainError};
use veil_node_config::job_file::{JobFile, JobFileError};
use veil_protocol_spec::{
    Blake3Digest, ClusterId, KeySetDigest,
    scheduling::{
        Binding, EncryptedRequest, JobSpec, ProofMetadata, ProvenList, ResourceRequest, Scale,
        Sealed, SealedContents, SealedRequest, dominant,
    },
    sealing::{EncryptionKeys, SealingKeyAnnouncement, SealingRoster, public_key_digest},
};
use veil_scheduler::{ListError, ReferenceString, encrypt_request, read_public_key};

use crate::{error::OperatorError, obstacle::Obstacle, policy};

/// What a job file hides from everybody but winners.
#[derive(Debug)]
pub(crate) struct Hidden {
    /// What is sealed, but for the limits.
    contents: SealedContents,
    /// Whether the request is encrypted.
    encrypts: bool,
}

impl Hidden {
    /// Reads it.
    ///
    /// # Errors
    /// [`JobFileError`].
    pub(crate) fn of(file: &JobFile) -> Result<Self, JobFileError> {
        Ok(Self { contents: file.contents()?, encrypts: file.encrypts() })
    }
}

/// What the chain says of the key that jobs are sealed and encrypted under.
pub(crate) struct Key {
    binding: Binding,
    parameters: ParameterSet,
    reference_string: Blake3Digest,
    roster: SealingRoster,
}

impl Key {
    /// As of now, for what is sent to the cluster.
    ///
    /// # Errors
    /// [`OperatorError`].
    pub(crate) async fn of(
        chain: &Chain,
        cluster: ClusterId,
        node: &Client,
    ) -> Result<Self, OperatorError> {
        let key = chain.current_key(cluster).await?.ok_or(OperatorError::NoCommittee)?;
        let scope = chain.scope(cluster);
        let binding = Binding { scope, key_set: key.key_set, epoch: key.epoch };
        let committee = chain.cluster(cluster).await?.committee;
        let attempt = chain.ceremony_attempt(cluster, key.epoch, key.attempt).await?;
        let attempt = attempt.ok_or(OperatorError::NoCommittee)?;
        let identities = chain.identities(cluster, &attempt.roster).await?;
        let announced: Vec<SealingKeyAnnouncement> =
            node.get("/v1/sealing-keys").await.map_err(OperatorError::SealingKeys)?;
        let roster = SealingRoster::new(binding, committee, &identities, &announced)?;
        let parameters = ParameterSet::by_name(&attempt.parameters, committee)
            .map_err(|error| OperatorError::Encrypt(error.to_string()))?;
        let reference_string = key.reference_string.digest;
        Ok(Self { binding, parameters, reference_string, roster })
    }
}

impl Key {
    pub(crate) const fn key_set(&self) -> KeySetDigest {
        self.binding.key_set
    }

    /// Encrypts with what a node gives, once that is known to be the cluster's. It takes seconds.
    ///
    /// # Errors
    /// [`OperatorError`]; nothing was encrypted then.
    pub(crate) async fn prove(
        &self,
        keys: EncryptionKeys,
        encrypt: impl FnOnce(&CompactPublicKey, &ReferenceString) -> Result<ProvenList, ListError>
        + Send
        + 'static,
    ) -> Result<ProvenList, OperatorError> {
        let public_key = public_key(self, &keys)?;
        let (parameters, expected) = (*self.parameters.pke(), self.reference_string);
        let encrypting = tokio::task::spawn_blocking(move || {
            let string = ReferenceString::read(&*keys.reference_string.0, parameters);
            let string = string.map_err(|error| OperatorError::Encrypt(error.to_string()))?;
            if string.digest() != expected {
                return Err(OperatorError::OtherReferenceString);
            }
            let list = encrypt(&public_key, &string);
            list.map_err(|error| OperatorError::Encrypt(error.to_string()))
        });
        encrypting.await.map_err(|error| OperatorError::Encrypt(error.to_string()))?
    }
}

/// The cluster's public key, if a node gives it: "t+1 members state the same: one of them is honest". A node's own key would
/// open limits to that node.
pub(crate) fn public_key(
    key: &Key,
    keys: &EncryptionKeys,
) -> Result<CompactPublicKey, OperatorError> {
    let bytes = &keys.public_key.0;
    if key.roster.public_key() != Some(public_key_digest(bytes)) {
        return Err(OperatorError::OtherPublicKey);
    }
    let read = read_public_key(bytes, key.parameters.pke());
    read.map_err(|error| OperatorError::Encrypt(error.to_string()))
}

/// The job with what is `hidden` sealed in it for the committee of the epoch, and its request encrypted if it is to be;
/// as it is if nothing is hidden. The same again under the same nonce, as long as the same members answer.
///
/// # Errors
/// [`OperatorError`]; nothing was sealed then.
#[boxed]
pub(crate) async fn sealed(
    chain: &Chain,
    cluster: ClusterId,
    node: &Client,
    job: JobSpec,
    hidden: Hidden,
) -> Result<JobSpec, OperatorError> {
    let Hidden { mut contents, encrypts } = hidden;
    if contents.is_empty() && !encrypts {
        return Ok(job);
    }
    let account = chain.account_key().ok_or(ChainError::NoAccount)?;
    let signature = account.sign(&SealerKey::to_sign(&job))?;
    let sealer = SealerKey::from_signature(&signature);
    let key = Key::of(chain, cluster, node).await?;
    let mut job = contents.public(job);
    if encrypts {
        let scale = policy::current(chain, cluster).await?.scale;
        let keys: EncryptionKeys =
            node.get("/v1/encryption-keys").await.map_err(OperatorError::SealingKeys)?;
        let (request, sealed) = encrypted(&job, scale, &key, keys, &sealer).await?;
        job.request = ResourceRequest::Encrypted(request);
        contents.request = Some(sealed);
    }
    let randomness = sealer.randomness(&job, &contents, &key.roster);
    let part = seal(&job, &contents, &key.roster, &sealer, &mut StdRng::from_seed(*randomness))?;
    Ok(JobSpec { sealed: Sealed::Part(Box::new(part)), ..job })
}

/// The request of a job in clear, encrypted, and what winners learn of it.
async fn encrypted(
    job: &JobSpec,
    scale: Scale,
    key: &Key,
    keys: EncryptionKeys,
    sealer: &SealerKey,
) -> Result<(EncryptedRequest, SealedRequest), OperatorError> {
    let failed = |error: &dyn std::fmt::Display| OperatorError::Encrypt(error.to_string());
    let limits = match &job.request {
        ResourceRequest::Clear(limits) => *limits,
        _ => return Err(failed(&"its request is encrypted already")),
    };
    let sealed = SealedRequest { limits, seed: sealer.request_seed(job.nonce, &limits) };
    let quantities = sealed.quantities(&scale).map_err(Obstacle::TooLarge)?;
    let key_set = key.binding.key_set;
    let metadata = ProofMetadata::for_request(&job.scope, &key_set, &job.operator, job.nonce);
    let (commitment, randomness) = (sealed.commitment(&metadata), sealed.seed.randomness());
    let list = key
        .prove(keys, move |public_key, string| {
            encrypt_request(&quantities, &randomness, public_key, string, &metadata)
        })
        .await?;
    let dominant = dominant(&quantities);
    Ok((EncryptedRequest { key_set, scale, dominant, commitment, list }, sealed))
}

#[cfg(test)]
pub(crate) mod tests;
