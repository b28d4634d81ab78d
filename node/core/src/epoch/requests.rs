//! Encrypted requests of jobs, as far as an epoch is concerned with them: each is
//! [verified and expanded](veil_node_proven::request) once.
//!
//! # Flow
//! 1. A member that sees a new job [looks](ActiveEpoch::has_sound_request) at its request beside everything else, and
//!    proposes the job once that is through.
//! 2. Whoever evaluates a manifest takes [what was expanded](ActiveEpoch::request), or does it then.

use std::sync::Arc;

use veil_node_proven::request::{RequestRefusal, expand};
use veil_protocol_spec::{
    Blake3Digest,
    scheduling::{JobSpec, ResourceRequest},
};
use veil_scheduler::EncryptedQuantities;

use super::ActiveEpoch;

type Found = Result<Arc<EncryptedQuantities>, RequestRefusal>;

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
        let found = match self.requests.found(&job) {
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
            let (key, string) = (epoch.keys.evaluation.as_ref(), &epoch.reference_string);
            expand(job, &body, epoch.binding.key_set, key, string).map(Arc::new)
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
