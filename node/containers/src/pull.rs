//! Images, pulled by digest, after it was asked whether they are what the cluster allows.
//!
//! # When a pull is tried
//! Once in a reconciliation, and after a failure not before its [`Pause`](crate::pause::Pause) is over, which is no shorter than
//! the engine or the registry asks for. What asking again cannot change is not tried again until another
//! job wants the image, or the engine has been away. One pull at a time for each image.

use std::{collections::BTreeSet, sync::Arc};

use bollard::{
    auth::DockerCredentials, errors::Error, query_parameters::CreateImageOptionsBuilder,
};
use futures::StreamExt as _;
use tokio::time::{Instant, timeout};
use veil_protocol_spec::scheduling::{ImageReference, RegistryCredentials};

use crate::{
    engine::Docker,
    error::{DockerError, ReplicaError},
    executor::Executor,
    facts::EngineFacts,
    image::Verdict,
    refusal,
    replica::DesiredReplica,
};

const CALL: &str = "pull";

/// One pull of an image, until it is done or dropped.
struct Pulling<'a> {
    executor: &'a Executor,
    image: &'a ImageReference,
}

impl Drop for Pulling<'_> {
    fn drop(&mut self) {
        self.executor.memory().images.end(self.image);
    }
}

/// What came of asking for an image.
pub(crate) enum Had {
    Yes,
    /// Another call is at it.
    Busy,
    /// It is not asked for now, for what the last attempt brought.
    Waits(Arc<ReplicaError>),
    No(Arc<ReplicaError>),
}

impl Executor {
    /// What was final of images is asked for again: the cluster allows others now.
    pub fn approvals_changed(&self) {
        self.memory().images.forget_final();
        self.woken.notify_one();
    }

    /// Makes sure that the engine has the image of `group`, and that it is what it should be.
    pub(crate) async fn have_image(&self, group: &[&DesiredReplica]) -> Had {
        let Some(first) = group.first() else { return Had::Yes };
        let image = &first.spec.image;
        let jobs: BTreeSet<_> = group.iter().map(|desired| desired.id().job).collect();
        let _pulling = {
            let images = &mut self.memory().images;
            match images.verdict(image, &jobs, Instant::now()) {
                Verdict::Ask => images.begin(image),
                Verdict::Busy => return Had::Busy,
                Verdict::Wait(error) => return Had::Waits(error),
            }
            Pulling { executor: self, image }
        };
        let credentials =
            group.iter().find_map(|desired| desired.contents.as_ref()?.registry.as_ref());
        match self.ensure_image(image, credentials).await.map_err(Arc::new) {
            Ok(()) => {
                self.memory().images.succeed(image);
                Had::Yes
            }
            Err(error) => {
                self.memory().images.fail(image, jobs, &error, Instant::now());
                Had::No(error)
            }
        }
    }

    /// Pulls it if it is allowed and the engine has not got it, and compares digest and platform.
    async fn ensure_image(
        &self,
        image: &ImageReference,
        credentials: Option<&RegistryCredentials>,
    ) -> Result<(), ReplicaError> {
        self.terms.approve.ask(image).await?;
        let facts = self.facts().await?;
        let found = match self.docker.image(image.as_str()).await {
            Err(error) if error.status() == Some(404) => {
                self.docker.pull(image, &facts, credentials).await?;
                self.pulled(image);
                self.docker.image(image.as_str()).await?
            }
            found => found?,
        };
        // Engines shorten the names of their default registry: the digest is what counts.
        let digest = format!("@sha256:{}", image.digest_hex());
        let digests = found.repo_digests.unwrap_or_default();
        if !digests.iter().any(|reference| reference.ends_with(&digest)) {
            let found = digests.join(", ");
            return Err(ReplicaError::WrongDigest { image: image.clone(), found });
        }
        // An engine takes a single manifest of another platform without a word.
        let (os, architecture) =
            (found.os.unwrap_or_default(), found.architecture.unwrap_or_default());
        if architecture == "unknown" {
            return Err(ReplicaError::Attestation { image: image.clone() });
        }
        if facts.runs(&os, &architecture) {
            return Ok(());
        }
        let reason = format!("the image is for {os}/{architecture}");
        Err(ReplicaError::WrongPlatform { image: image.clone(), wants: facts.platform(), reason })
    }
}

impl Docker {
    /// As long as it gets on.
    async fn pull(
        &self,
        image: &ImageReference,
        facts: &EngineFacts,
        credentials: Option<&RegistryCredentials>,
    ) -> Result<(), ReplicaError> {
        tracing::info!(%image, with_credentials = credentials.is_some(), "pulling");
        let options = CreateImageOptionsBuilder::new().from_image(image.as_str()).build();
        let with = credentials.map(|credentials| DockerCredentials {
            username: Some(credentials.username.clone()),
            password: Some(credentials.password.clone()),
            ..DockerCredentials::default()
        });
        let mut progress = std::pin::pin!(self.client.create_image(Some(options), None, with));
        let deadline = self.deadlines.stall;
        let error = loop {
            match timeout(deadline, progress.next()).await {
                Ok(None) => return Ok(()),
                Ok(Some(Ok(step))) => {
                    if let Some(error) = step.error_detail.and_then(|detail| detail.message) {
                        let source = Error::DockerStreamError { error };
                        break DockerError::Failed { call: CALL, source };
                    }
                }
                Ok(Some(Err(error))) => break DockerError::from_call(CALL, error),
                Err(_) => break DockerError::Timeout { call: CALL, deadline },
            }
        };
        tracing::warn!(%image, %error, "pull failed");
        Err(refusal::of_pull(image, facts, credentials.is_some(), &error))
    }
}
