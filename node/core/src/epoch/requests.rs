//! Encrypted requests of jobs: verified, since "an unproven ciphertext that enters a circuit is a key-extraction oracle", and
//! expanded, once for each job.
//!
//! # Flow
//! 1. A member that sees a new job [looks](ActiveEpoch::has_sound_request) at its request beside everything else, and
//!    proposes the job once that is through.
//! 2. Whoever evaluates a manifest takes [what was expanded](ActiveEpoch::request), or does it then.
//!
//! # State and restart
//! What was found is remembered as long as the epoch is; after a restart it is looked at again.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use veil_protocol_spec::{
    Blake3Digest, KeySetDigest,
    scheduling::{JobSpec, ResourceRequest},
};
use veil_scheduler::{EncryptedQuantities, ListError, verify_and_expand_request};

use super::ActiveEpoch;

/// Jobs of which it is remembered; each takes some tens of kilobytes.
const REMEMBERED: usize = 1024;

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

type Found = Result<Arc<EncryptedQuantities>, RequestRefusal>;

/// What is known of requests; of one that is being looked at, nothing yet.
#[derive(Debug, Default)]
pub(crate) struct Requests(Mutex<BTreeMap<Blake3Digest, Option<Found>>>);

impl Requests {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<Blake3Digest, Option<Found>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this call is the first to ask for it; what is known, if it is not.
    fn begin(&self, job: Blake3Digest) -> Result<(), Option<Found>> {
        let mut known = self.lock();
        if let Some(known) = known.get(&job) {
            return Err(known.clone());
        }
        if known.len() >= REMEMBERED {
            known.retain(|_, found| found.is_none());
        }
        known.insert(job, None);
        Ok(())
    }

    fn set(&self, job: Blake3Digest, found: &Found) {
        let mut known = self.lock();
        match found {
            Err(RequestRefusal::Stopped) => _ = known.remove(&job),
            found => _ = known.insert(job, Some(found.clone())),
        }
    }
}

impl ActiveEpoch {
    /// Whether a job's request is in clear, or encrypted and verified. One that nobody has looked at yet is looked at
    /// beside, and [arrivals](Self::arrivals) tell when that is through.
    pub fn has_sound_request(self: &Arc<Self>, job: &Blake3Digest, body: &JobSpec) -> bool {
        if matches!(body.request, ResourceRequest::Clear(_)) {
            return true;
        }
        match self.requests.begin(*job) {
            Err(known) => known.is_some_and(|found| found.is_ok()),
            Ok(()) => {
                let (epoch, job, body) = (Arc::clone(self), *job, body.clone());
                tokio::spawn(async move {
                    let found = epoch.expand_request(job, body).await;
                    if let Err(refusal) = &found {
                        tracing::warn!(%job, %refusal, "this member does not propose the job");
                    }
                    epoch.requests.set(job, &found);
                    epoch.notify_arrivals();
                });
                false
            }
        }
    }

    /// Why a job's encrypted request was found not to be one.
    pub(crate) fn refused_request(&self, job: &Blake3Digest) -> Option<RequestRefusal> {
        self.requests.lock().get(job)?.as_ref()?.as_ref().err().cloned()
    }

    /// A job's encrypted request, verified and expanded; `None` of one in clear.
    ///
    /// # Errors
    /// [`RequestRefusal`]: it must not be computed on.
    pub async fn request(
        self: &Arc<Self>,
        job: Blake3Digest,
        body: &JobSpec,
    ) -> Result<Option<Arc<EncryptedQuantities>>, RequestRefusal> {
        if matches!(body.request, ResourceRequest::Clear(_)) {
            return Ok(None);
        }
        let known = self.requests.lock().get(&job).cloned().flatten();
        let found = match known {
            Some(found) => found,
            None => {
                let found = self.expand_request(job, body.clone()).await;
                self.requests.set(job, &found);
                found
            }
        };
        found.map(Some)
    }

    async fn expand_request(self: &Arc<Self>, job: Blake3Digest, body: JobSpec) -> Found {
        let epoch = Arc::clone(self);
        let looking = tokio::task::spawn_blocking(move || {
            let list = |error: ListError| RequestRefusal::List { job, reason: error.to_string() };
            let key = epoch.keys.evaluation.as_ref().ok_or(RequestRefusal::Light)?;
            let ResourceRequest::Encrypted(request) = &body.request else {
                return Err(list(ListError::Malformed("it is in no known form".to_owned())));
            };
            let (found, expected) = (request.key_set, epoch.binding.key_set);
            if found != expected {
                return Err(RequestRefusal::KeySet { job, found, expected });
            }
            let metadata = body.request_metadata();
            let metadata = metadata.ok_or_else(|| list(ListError::Proof))?;
            let string = &epoch.reference_string;
            let expanded = verify_and_expand_request(&request.list, &metadata, string, key);
            expanded.map(Arc::new).map_err(list)
        });
        match looking.await {
            Ok(found) => found,
            // Whatever makes tfhe panic is no request.
            Err(error) if error.is_panic() => {
                let reason = "verifying it panicked".to_owned();
                Err(RequestRefusal::List { job, reason })
            }
            Err(_) => Err(RequestRefusal::Stopped),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_looked_at_once() {
        let requests = Requests::default();
        let job = Blake3Digest([1; 32]);
        assert!(requests.begin(job).is_ok());
        assert!(matches!(requests.begin(job), Err(None)), "it is under way");
        let refusal = RequestRefusal::Light;
        requests.set(job, &Err(refusal.clone()));
        match requests.begin(job) {
            Err(Some(Err(found))) => assert_eq!(found, refusal),
            other => panic!("{other:?}"),
        }
        let other = Blake3Digest([2; 32]);
        assert!(requests.begin(other).is_ok());
        requests.set(other, &Err(RequestRefusal::Stopped));
        assert!(requests.begin(other).is_ok(), "what was cut off is looked at again");
    }
}
