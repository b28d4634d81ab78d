//! Removing images that nobody needs.
//!
//! # Which
//! Images that this worker has pulled itself, that no container of anybody uses, that no replica is to run,
//! for as long as they are to be kept. An image that somebody has given a name since is theirs. The engine
//! is asked by the image's reference and without force: it refuses what is in use, and keeps what another
//! reference needs.
//!
//! # Caveats
//! An image that somebody else pulls by the same digest cannot be told from the worker's own.

use std::{
    collections::BTreeSet,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use async_recursion::async_recursion as boxed;
use bollard::query_parameters::{ListContainersOptionsBuilder, RemoveImageOptions};
use veil_protocol_spec::scheduling::ImageReference;

use crate::{
    engine::{Docker, Kind},
    error::DockerError,
    executor::Executor,
};

/// Removed in one call, so that an engine is not busy with that alone.
const MOST_AT_ONCE: usize = 16;

fn unix_seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

impl Executor {
    /// This worker has brought it to the engine.
    pub(crate) fn pulled(&self, image: &ImageReference) {
        self.memory().record.used(image, unix_seconds(SystemTime::now()));
    }

    /// Removes images that this worker has pulled, that no container of anybody uses and no replica is to
    /// run, and did not for `keep` before `now`; says which.
    ///
    /// # Errors
    /// [`DockerError`] if the engine does not say what is in use; nothing was removed then.
    #[boxed]
    pub async fn collect_images(
        &self,
        keep: Duration,
        now: SystemTime,
    ) -> Result<Vec<ImageReference>, DockerError> {
        let now = unix_seconds(now);
        let (recorded, desired) = {
            let memory = self.memory();
            let recorded: Vec<_> =
                memory.record.images().map(|(image, at)| (image.clone(), at)).collect();
            let bodies = memory.desired.values().map(|desired| &desired.spec);
            let desired: BTreeSet<_> =
                bodies.chain(memory.held_back.values()).map(|spec| spec.image.clone()).collect();
            (recorded, desired)
        };
        if recorded.is_empty() {
            return Ok(Vec::new());
        }
        let in_use = self.docker.images_in_use().await?;
        let mut removed = Vec::new();
        for (image, last_used) in recorded {
            if desired.contains(&image) {
                self.memory().record.used(&image, now);
                continue;
            }
            if now.saturating_sub(last_used) < keep.as_secs() || removed.len() == MOST_AT_ONCE {
                continue;
            }
            match self.docker.image(image.as_str()).await {
                Err(error) if error.status() == Some(404) => self.memory().record.forget(&image),
                Err(error) => tracing::warn!(%image, %error, "not collected; it is tried again"),
                Ok(found) if found.id.as_ref().is_some_and(|id| in_use.contains(id)) => {
                    self.memory().record.used(&image, now);
                }
                Ok(found) if found.repo_tags.as_ref().is_some_and(|tags| !tags.is_empty()) => {
                    self.memory().record.forget(&image);
                }
                Ok(_) => match self.docker.remove_image(&image).await {
                    Ok(()) => {
                        tracing::info!(%image, "removed: nothing has used it for long");
                        let mut memory = self.memory();
                        memory.record.forget(&image);
                        memory.images.removed(&image);
                        removed.push(image);
                    }
                    // A container has come meanwhile.
                    Err(error) if error.status() == Some(409) => {
                        self.memory().record.used(&image, now);
                    }
                    Err(error) => {
                        tracing::warn!(%image, %error, "not collected; it is tried again")
                    }
                },
            }
        }
        Ok(removed)
    }
}

impl Docker {
    /// Ids of the images of all containers, whoever made them.
    async fn images_in_use(&self) -> Result<BTreeSet<String>, DockerError> {
        let options = ListContainersOptionsBuilder::new().all(true).build();
        let containers = self.containers(options).await?;
        Ok(containers.into_iter().filter_map(|container| container.image_id).collect())
    }

    async fn remove_image(&self, image: &ImageReference) -> Result<(), DockerError> {
        let removing = self.client.remove_image(image.as_str(), None::<RemoveImageOptions>, None);
        self.call(Kind::Change, "remove image", removing).await.map(drop)
    }
}
