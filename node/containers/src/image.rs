//! Images, pulled by digest.

use std::time::Duration;

use backon::{ExponentialBuilder, Retryable as _};
use bollard::{errors::Error, query_parameters::CreateImageOptionsBuilder};
use futures::StreamExt as _;
use tokio::time::timeout;
use veil_protocol_spec::scheduling::ImageReference;

use crate::{
    engine::Docker,
    error::{DockerError, ReplicaError},
};

const CALL: &str = "pull";
const ATTEMPTS: usize = 3;

impl Docker {
    /// Makes sure that the engine has `image`: pulls it if it has not, and compares the digest.
    pub(crate) async fn ensure_image(&self, image: &ImageReference) -> Result<(), ReplicaError> {
        match self.image(image.as_str()).await {
            Ok(_) => {}
            Err(error) if error.status() == Some(404) => self.pull(image).await?,
            Err(error) => return Err(error.into()),
        }
        let found = self.image(image.as_str()).await?.repo_digests.unwrap_or_default();
        // Engines shorten the names of their default registry: the digest is what counts.
        let digest = format!("@sha256:{}", image.digest_hex());
        if found.iter().any(|reference| reference.ends_with(&digest)) {
            return Ok(());
        }
        Err(ReplicaError::WrongDigest { image: image.clone(), found: found.join(", ") })
    }

    async fn pull(&self, image: &ImageReference) -> Result<(), ReplicaError> {
        let backoff = ExponentialBuilder::default()
            .with_min_delay(Duration::from_millis(500))
            .with_max_delay(Duration::from_secs(10))
            .with_max_times(ATTEMPTS - 1)
            .with_jitter();
        (|| self.pull_once(image))
            .retry(backoff)
            .when(|error| !is_final(error))
            .notify(|error, wait| tracing::warn!(%image, %error, ?wait, "pull failed, will retry"))
            .await
            .map_err(|error| {
                let image = image.clone();
                if is_final(&error) {
                    ReplicaError::NoSuchImage { image, reason: error.to_string() }
                } else {
                    ReplicaError::Pull { image, attempts: ATTEMPTS, reason: error.to_string() }
                }
            })
    }

    async fn pull_once(&self, image: &ImageReference) -> Result<(), DockerError> {
        tracing::info!(%image, "pulling");
        let options = CreateImageOptionsBuilder::new().from_image(image.as_str()).build();
        let stall = self.deadlines.stall;
        let pulling = async {
            let mut progress = std::pin::pin!(self.client.create_image(Some(options), None, None));
            // A registry that stops sending must not hold the pull until its full deadline.
            while let Some(step) = timeout(stall, progress.next())
                .await
                .map_err(|_| DockerError::Timeout { call: CALL, deadline: stall })?
            {
                let step = step.map_err(|error| DockerError::from_call(CALL, error))?;
                if let Some(message) = step.error_detail.and_then(|detail| detail.message) {
                    let source = Error::DockerStreamError { error: message };
                    return Err(DockerError::Failed { call: CALL, source });
                }
            }
            Ok(())
        };
        let deadline = self.deadlines.pull;
        timeout(deadline, pulling)
            .await
            .unwrap_or(Err(DockerError::Timeout { call: CALL, deadline }))
    }
}

/// Asking again will not help.
fn is_final(error: &DockerError) -> bool {
    match error {
        DockerError::Refused { status: 408 | 429, .. } => false,
        DockerError::Refused { status, .. } => (400..500).contains(status),
        // The status is lost once the engine has begun to answer.
        DockerError::Failed { source: Error::DockerStreamError { error }, .. } => {
            error.contains("manifest unknown") || error.contains("not found")
        }
        _ => false,
    }
}
