//! Encrypted requests of jobs.

use veil_protocol_spec::{
    Blake3Digest, KeySetDigest,
    scheduling::{JobSpec, ResourceRequest},
};
use veil_scheduler::{
    EncryptedQuantities, EvaluationKey, ListError, ReferenceString, verify_and_expand_request,
};

use crate::known::{Known, Refusal};

/// Why the encrypted request of a job is not computed on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "each message says what its fields are")]
pub enum RequestRefusal {
    /// It is for another key.
    #[error(
        "the request of job {job} is encrypted under key set {found}, and this one is {expected}"
    )]
    KeySet { job: Blake3Digest, found: KeySetDigest, expected: KeySetDigest },
    /// Its proof does not hold, or tfhe does not take it.
    #[error("the encrypted request of job {job}: {reason}")]
    List { job: Blake3Digest, reason: String },
    /// There is no evaluation key.
    #[error("this node is a light worker: it expands no requests")]
    Light,
    /// The runtime is shutting down.
    #[error("the request was not looked at to the end")]
    Stopped,
}

impl Refusal for RequestRefusal {
    fn says_nothing(&self) -> bool {
        matches!(self, Self::Stopped)
    }
}

/// What is known of requests, by job.
pub type Requests = Known<EncryptedQuantities, RequestRefusal>;

/// Verifies a job's request against the key in force, and expands it. It takes as long as a proof takes.
///
/// # Errors
/// [`RequestRefusal`]: it must not be computed on.
pub fn expand(
    job: Blake3Digest,
    body: &JobSpec,
    expected: KeySetDigest,
    key: Option<&EvaluationKey>,
    string: &ReferenceString,
) -> Result<EncryptedQuantities, RequestRefusal> {
    let list = |error: ListError| RequestRefusal::List { job, reason: error.to_string() };
    let key = key.ok_or(RequestRefusal::Light)?;
    let ResourceRequest::Encrypted(request) = &body.request else {
        return Err(list(ListError::Malformed("it is in no known form".to_owned())));
    };
    let found = request.key_set;
    if found != expected {
        return Err(RequestRefusal::KeySet { job, found, expected });
    }
    let metadata = body.request_metadata().ok_or_else(|| list(ListError::Proof))?;
    verify_and_expand_request(&request.list, &metadata, string, key).map_err(list)
}
