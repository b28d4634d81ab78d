//! The engine behind a socket. Every call has a deadline.

use std::{fmt, io, path::Path, sync::Arc, time::Duration};

use async_recursion::async_recursion as boxed;
use bollard::{
    errors::Error,
    models::{ContainerCreateBody, ContainerInspectResponse, ContainerSummary, ImageInspect},
    query_parameters::{
        CreateContainerOptionsBuilder, ListContainersOptions, ListContainersOptionsBuilder,
        RemoveContainerOptionsBuilder, RenameContainerOptionsBuilder, StopContainerOptionsBuilder,
    },
};
use tokio::time::timeout;
use veil_protocol_spec::scheduling::limits;

use crate::{
    error::DockerError,
    labels,
    owner::Owner,
    states::reread,
    transport::{self, Dial},
};

/// Where an engine listens unless configured otherwise.
pub const DEFAULT_SOCKET: &str = "/var/run/docker.sock";

/// The longest that a job may ask for.
const LONGEST_GRACE: Duration = Duration::from_secs(*limits::STOP_SECONDS.end() as u64);

/// How long the engine may take, by the kind of call.
#[derive(Clone, Copy, Debug)]
pub struct Deadlines {
    /// For the first answer.
    pub connect: Duration,
    /// For what concerns the engine as a whole: which containers there are, what it is.
    pub list: Duration,
    /// For a look at one container or image.
    pub look: Duration,
    /// For a change of one container or image.
    pub change: Duration,
    /// Without any progress of a pull, which has no other deadline: large images take as long as they take.
    pub stall: Duration,
    /// Between asking a container to stop and killing it, unless its job says another time.
    pub grace: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            list: Duration::from_secs(15),
            look: Duration::from_secs(5),
            change: Duration::from_secs(30),
            stall: Duration::from_secs(60),
            grace: Duration::from_secs(10),
        }
    }
}

/// What a call is about, which decides how long it may take.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    List,
    Look,
    Change,
    /// With the grace of the container.
    Stop(Duration),
}

impl Deadlines {
    fn of(&self, kind: Kind) -> Duration {
        match kind {
            Kind::List => self.list,
            Kind::Look => self.look,
            Kind::Change => self.change,
            Kind::Stop(grace) => grace + self.change,
        }
    }
}

/// A Docker engine that has answered; clones share it.
#[derive(Clone)]
pub struct Docker {
    pub(crate) client: bollard::Docker,
    pub(crate) dial: Dial,
    pub(crate) deadlines: Deadlines,
}

impl fmt::Debug for Docker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Docker").field("deadlines", &self.deadlines).finish_non_exhaustive()
    }
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

    /// Connects to `socket`, a path or `unix://` and a path, and agrees on a version with the engine.
    ///
    /// # Errors
    /// [`DockerError::NoEngine`].
    #[boxed]
    pub async fn connect_with(socket: &Path, deadlines: Deadlines) -> Result<Self, DockerError> {
        let given = socket.to_string_lossy();
        let no_engine =
            |reason| DockerError::NoEngine { socket: given.clone().into_owned(), reason };
        let path = match given.split_once("://") {
            None => socket,
            Some(("unix", path)) => Path::new(path),
            Some(_) => return Err(no_engine("only Unix sockets are supported".to_owned())),
        };
        Self::over(transport::unix(path.to_owned()), deadlines).await.map_err(no_engine)
    }

    /// Agrees on a version with the engine that `dial` leads to, or says why not.
    pub(crate) async fn over(dial: Dial, deadlines: Deadlines) -> Result<Self, String> {
        // bollard's own time-out is a backstop only.
        let longest =
            deadlines.stall.max(deadlines.of(Kind::Stop(LONGEST_GRACE))).max(deadlines.list);
        let connecting = async {
            let client =
                transport::client(Arc::clone(&dial), longest.as_secs().saturating_add(60))?;
            let client = client.negotiate_version().await?;
            client.ping().await?;
            Ok::<_, Error>(client)
        };
        match timeout(deadlines.connect, connecting).await {
            Ok(Ok(client)) => Ok(Self { client, dial, deadlines }),
            Ok(Err(Error::IOError { err })) if err.kind() == io::ErrorKind::NotFound => {
                Err("no such socket".to_owned())
            }
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!("silent for {} s", deadlines.connect.as_secs())),
        }
    }

    /// The one place where the engine is called, but for pulls.
    pub(crate) async fn call<T>(
        &self,
        kind: Kind,
        call: &'static str,
        future: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, DockerError> {
        let deadline = self.deadlines.of(kind);
        match timeout(deadline, future).await {
            Ok(result) => result.map_err(|error| DockerError::from_call(call, error)),
            Err(_) => Err(DockerError::Timeout { call, deadline }),
        }
    }

    /// All containers of `owner`, whatever their state.
    pub(crate) async fn list(&self, owner: &Owner) -> Result<Vec<ContainerSummary>, DockerError> {
        let filter = labels::filter(owner);
        let options = ListContainersOptionsBuilder::new().all(true).filters(&filter).build();
        self.containers(options).await
    }

    /// Those that `options` ask for.
    pub(crate) async fn containers(
        &self,
        options: ListContainersOptions,
    ) -> Result<Vec<ContainerSummary>, DockerError> {
        let listing = async { reread(self.client.list_containers(Some(options)).await) };
        self.call(Kind::List, "list", listing).await
    }

    pub(crate) async fn inspect(&self, id: &str) -> Result<ContainerInspectResponse, DockerError> {
        let looking = async { reread(self.client.inspect_container(id, None).await) };
        self.call(Kind::Look, "inspect", looking).await
    }

    pub(crate) async fn image(&self, name: &str) -> Result<ImageInspect, DockerError> {
        self.call(Kind::Look, "inspect image", self.client.inspect_image(name)).await
    }

    /// The id of the new container.
    pub(crate) async fn create(
        &self,
        name: &str,
        body: ContainerCreateBody,
    ) -> Result<String, DockerError> {
        let options = CreateContainerOptionsBuilder::new().name(name).build();
        let creating = self.client.create_container(Some(options), body);
        Ok(self.call(Kind::Change, "create", creating).await?.id)
    }

    pub(crate) async fn start(&self, id: &str) -> Result<(), DockerError> {
        self.call(Kind::Change, "start", self.client.start_container(id, None)).await
    }

    /// Stops with grace. What is already gone is no error.
    pub(crate) async fn stop(&self, container: &ContainerSummary) -> Result<(), DockerError> {
        let id = container.id.as_deref().unwrap_or_default();
        let grace = labels::stop_time(container.labels.as_ref()).unwrap_or(self.deadlines.grace);
        let seconds = i32::try_from(grace.as_secs()).unwrap_or(i32::MAX);
        let options = StopContainerOptionsBuilder::new().t(seconds).build();
        let stopping = self.client.stop_container(id, Some(options));
        gone_is_fine(self.call(Kind::Stop(grace), "stop", stopping).await)
    }

    pub(crate) async fn rename(&self, id: &str, name: &str) -> Result<(), DockerError> {
        let options = RenameContainerOptionsBuilder::new().name(name).build();
        let renaming = self.client.rename_container(id, options);
        self.call(Kind::Change, "rename", renaming).await
    }

    /// Removes at once, running or not. What is already gone is no error.
    pub(crate) async fn remove(&self, id: &str) -> Result<(), DockerError> {
        let options = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
        let removing = self.client.remove_container(id, Some(options));
        gone_is_fine(self.call(Kind::Change, "remove", removing).await)
    }
}

fn gone_is_fine(result: Result<(), DockerError>) -> Result<(), DockerError> {
    match result {
        Err(error) if error.status() == Some(404) => Ok(()),
        result => result,
    }
}
