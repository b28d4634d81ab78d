//! The engine behind a socket. Every call has a deadline.

use std::{path::Path, time::Duration};

use async_recursion::async_recursion as boxed;
use bollard::{
    API_DEFAULT_VERSION,
    errors::Error,
    models::{ContainerCreateBody, ContainerInspectResponse, ContainerSummary, ImageInspect},
    query_parameters::{
        CreateContainerOptionsBuilder, ListContainersOptionsBuilder, RemoveContainerOptionsBuilder,
        RenameContainerOptionsBuilder, StopContainerOptionsBuilder,
    },
};
use tokio::time::timeout;

use crate::{error::DockerError, labels, replica::Owner};

/// Where an engine listens unless configured otherwise.
pub const DEFAULT_SOCKET: &str = "/var/run/docker.sock";

/// How long the engine may take.
#[derive(Clone, Copy, Debug)]
pub struct Deadlines {
    /// For the first answer.
    pub connect: Duration,
    /// For any call but the following.
    pub call: Duration,
    /// For one attempt to pull an image.
    pub pull: Duration,
    /// Without any progress of a pull.
    pub stall: Duration,
    /// Between asking a container to stop and killing it.
    pub grace: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            call: Duration::from_secs(30),
            pull: Duration::from_secs(600),
            stall: Duration::from_secs(60),
            grace: Duration::from_secs(10),
        }
    }
}

/// A Docker engine that has answered; clones share it.
#[derive(Clone, Debug)]
pub struct Docker {
    pub(crate) client: bollard::Docker,
    pub(crate) deadlines: Deadlines,
}

impl Docker {
    /// Connects with the default [`Deadlines`].
    ///
    /// # Errors
    /// [`DockerError::NoEngine`].
    #[boxed]
    pub async fn connect(socket: &Path) -> Result<Self, DockerError> {
        Self::connect_with(socket, Deadlines::default()).await
    }

    /// Connects to `socket` and agrees on a version with the engine.
    ///
    /// # Errors
    /// [`DockerError::NoEngine`].
    #[boxed]
    pub async fn connect_with(socket: &Path, deadlines: Deadlines) -> Result<Self, DockerError> {
        let no_engine =
            |reason: String| DockerError::NoEngine { socket: socket.display().to_string(), reason };
        // bollard's own time-out is a backstop only.
        let backstop = deadlines.pull.as_secs().saturating_add(60);
        let path = socket.to_string_lossy();
        let connecting = async {
            let client = bollard::Docker::connect_with_unix(&path, backstop, API_DEFAULT_VERSION)?;
            let client = client.negotiate_version().await?;
            client.ping().await?;
            Ok::<_, Error>(client)
        };
        match timeout(deadlines.connect, connecting).await {
            Ok(Ok(client)) => Ok(Self { client, deadlines }),
            Ok(Err(Error::SocketNotFoundError(_))) => Err(no_engine("no such socket".to_owned())),
            Ok(Err(error)) => Err(no_engine(error.to_string())),
            Err(_) => Err(no_engine(format!("silent for {} s", deadlines.connect.as_secs()))),
        }
    }

    pub(crate) async fn within<T>(
        call: &'static str,
        deadline: Duration,
        future: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, DockerError> {
        match timeout(deadline, future).await {
            Ok(result) => result.map_err(|error| DockerError::from_call(call, error)),
            Err(_) => Err(DockerError::Timeout { call, deadline }),
        }
    }

    /// All containers of `owner`, whatever their state.
    pub(crate) async fn list(&self, owner: &Owner) -> Result<Vec<ContainerSummary>, DockerError> {
        let filter = labels::filter(owner);
        let options = ListContainersOptionsBuilder::new().all(true).filters(&filter).build();
        Self::within("list", self.deadlines.call, self.client.list_containers(Some(options))).await
    }

    pub(crate) async fn inspect(&self, id: &str) -> Result<ContainerInspectResponse, DockerError> {
        Self::within("inspect", self.deadlines.call, self.client.inspect_container(id, None)).await
    }

    pub(crate) async fn image(&self, name: &str) -> Result<ImageInspect, DockerError> {
        Self::within("inspect image", self.deadlines.call, self.client.inspect_image(name)).await
    }

    /// The id of the new container.
    pub(crate) async fn create(
        &self,
        name: &str,
        body: ContainerCreateBody,
    ) -> Result<String, DockerError> {
        let options = CreateContainerOptionsBuilder::new().name(name).build();
        let creating = self.client.create_container(Some(options), body);
        Ok(Self::within("create", self.deadlines.call, creating).await?.id)
    }

    pub(crate) async fn start(&self, id: &str) -> Result<(), DockerError> {
        Self::within("start", self.deadlines.call, self.client.start_container(id, None)).await
    }

    /// Stops with grace, then removes. What is already gone is no error.
    pub(crate) async fn stop_and_remove(&self, id: &str) -> Result<(), DockerError> {
        self.stop(id).await?;
        self.remove(id).await
    }

    /// Stops with grace. What is already gone is no error.
    pub(crate) async fn stop(&self, id: &str) -> Result<(), DockerError> {
        let grace = self.deadlines.grace;
        let seconds = i32::try_from(grace.as_secs()).unwrap_or(i32::MAX);
        let options = StopContainerOptionsBuilder::new().t(seconds).build();
        let stopping = self.client.stop_container(id, Some(options));
        let stopped = Self::within("stop", grace + self.deadlines.call, stopping).await;
        gone_is_fine(stopped)
    }

    pub(crate) async fn rename(&self, id: &str, name: &str) -> Result<(), DockerError> {
        let options = RenameContainerOptionsBuilder::new().name(name).build();
        let renaming = self.client.rename_container(id, options);
        Self::within("rename", self.deadlines.call, renaming).await
    }

    /// Removes at once, running or not. What is already gone is no error.
    pub(crate) async fn remove(&self, id: &str) -> Result<(), DockerError> {
        let options = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
        let removing = self.client.remove_container(id, Some(options));
        gone_is_fine(Self::within("remove", self.deadlines.call, removing).await)
    }
}

fn gone_is_fine(result: Result<(), DockerError>) -> Result<(), DockerError> {
    match result {
        Err(error) if error.status() == Some(404) => Ok(()),
        result => result,
    }
}
