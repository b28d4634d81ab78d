//! Images, pulled by digest, after it was asked whether they are what the cluster allows.
//!
//! # When a pull is tried
//! Once in a reconciliation, and after a failure not before its [`Pause`](crate::pause::Pause) is over, which is no shorter than
//! the engine or the registry asks for. What asking again cannot change is not tried again until another
//! job wants the image, or the engine has been away. One pull at a time for each image.
//!
//! # Who pulls
//! Each job that has credentials by itself, and together those that have none: an image that a registry has served here to
//! others only is asked for again, which costs its manifest, so that nobody runs what it could not have pulled. What the
//! engine has from before this process is not asked for: a worker that starts again needs no registry.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

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
    image::{Puller, Verdict},
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

    /// Makes sure that the engine has the image of `group`, and that it is what it should be, for each that pulls it: one
    /// after the other.
    pub(crate) async fn have_image(&self, group: &[&DesiredReplica]) -> BTreeMap<Puller, Had> {
        let mut pullers = BTreeMap::<_, Vec<_>>::new();
        for desired in group {
            pullers.entry(desired.puller()).or_default().push(*desired);
        }
        let mut had = BTreeMap::new();
        for (puller, group) in pullers {
            had.insert(puller, self.have_image_as(puller, &group).await);
        }
        had
    }

    async fn have_image_as(&self, puller: Puller, group: &[&DesiredReplica]) -> Had {
        let Some(first) = group.first() else { return Had::Yes };
        let image = &first.spec.image;
        let jobs: BTreeSet<_> = group.iter().map(|desired| desired.id().job).collect();
        let _pulling = {
            let images = &mut self.memory().images;
            match images.verdict(image, puller, &jobs, Instant::now()) {
                Verdict::Ask => images.begin(image),
                Verdict::Busy => return Had::Busy,
                Verdict::Wait(error) => return Had::Waits(error),
            }
            Pulling { executor: self, image }
        };
        let credentials = first.contents.as_ref().and_then(|contents| contents.registry.as_ref());
        match self.ensure_image(image, puller, credentials).await.map_err(Arc::new) {
            Ok(()) => {
                self.memory().images.succeed(image, puller);
                Had::Yes
            }
            Err(error) => {
                self.memory().images.fail(image, puller, jobs, &error, Instant::now());
                Had::No(error)
            }
        }
    }

    /// Pulls it if it is allowed and the engine has not got it, and compares digest and platform.
    async fn ensure_image(
        &self,
        image: &ImageReference,
        puller: Puller,
        credentials: Option<&RegistryCredentials>,
    ) -> Result<(), ReplicaError> {
        self.terms.approve.ask(image, credentials).await?;
        let facts = self.facts().await?;
        let here = match self.docker.image(image.as_str()).await {
            Err(error) if error.status() == Some(404) => None,
            found => Some(found?),
        };
        let is_of_others = self.memory().images.is_of_others(image, puller);
        let was_here = here.is_some();
        let found = match here {
            Some(found) if !is_of_others => found,
            _ => {
                self.docker.pull(image, &facts, credentials).await?;
                self.memory().images.serve(image, puller, was_here);
                if !was_here {
                    self.pulled(image);
                }
                self.docker.image(image.as_str()).await?
            }
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

#[cfg(test)]
mod tests {
    use veil_protocol_spec::scheduling::{RegistryCredentials, SealedContents};

    use super::*;
    use crate::fake::{Fake, reconcile, replicas};

    /// A job of one replica; all have the same image.
    fn job(nonce: u64, username: Option<&str>) -> DesiredReplica {
        let contents = username.map(|username| {
            let mut contents = SealedContents::default();
            let (username, password) = (username.to_owned(), "hunter2".to_owned());
            contents.registry = Some(RegistryCredentials { username, password });
            Arc::new(contents)
        });
        DesiredReplica { contents, ..replicas(nonce, 1).remove(0) }
    }

    /// Whoever comes first, whatever the engine has by then.
    #[tokio::test(start_paused = true)]
    async fn each_job_pulls_with_its_own_credentials() {
        let fake = Fake::default();
        fake.state().accepts = Some("good");
        let worker = fake.worker().await;
        let jobs = [job(1, Some("bad")), job(2, None), job(3, Some("good")), job(4, Some("worse"))];
        let report = reconcile(&worker, &jobs).await;
        assert_eq!(report.started, [jobs[2].id()], "{report:?}");
        let refused = |of: &DesiredReplica| {
            let (_, error) = report.failed.iter().find(|(id, _)| *id == of.id()).unwrap();
            Arc::clone(error)
        };
        for bad in [&jobs[0], &jobs[3]] {
            let error = refused(bad);
            assert!(matches!(*error, ReplicaError::Credentials { .. }), "{error}");
        }
        assert!(matches!(*refused(&jobs[1]), ReplicaError::NoSuchImage { .. }));
        let mut pulls = core::mem::take(&mut fake.state().pulls);
        pulls.sort();
        let name = |name: &str| Some(name.to_owned());
        assert_eq!(pulls, [None, name("bad"), name("good"), name("worse")]);
        // What cannot change is not asked again, and who has been served is not either.
        let more = [job(5, Some("bad")), job(6, Some("good")), job(7, None)];
        let all: Vec<_> = jobs.iter().chain(&more).cloned().collect();
        let report = reconcile(&worker, &all).await;
        assert_eq!(report.started, [more[1].id()], "{report:?}");
        let mut pulls = core::mem::take(&mut fake.state().pulls);
        pulls.sort();
        assert_eq!(pulls, [None, name("bad"), name("good")], "those that are new");
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_no_credentials_shares_a_pull_and_what_was_here_is_everybodys() {
        let fake = Fake::default();
        let worker = fake.worker().await;
        let open = [job(1, None), job(2, None)];
        assert_eq!(reconcile(&worker, &open).await.started.len(), 2);
        assert_eq!(fake.state().pulls, [None]);
        // A process that starts anew asks no registry for what it had.
        fake.state().accepts = Some("good");
        let again = fake.worker().await;
        let all = [job(1, None), job(2, None), job(3, Some("good")), job(4, None)];
        assert_eq!(reconcile(&again, &all).await.started.len(), 2);
        assert_eq!(fake.state().pulls, [None]);
    }
}
