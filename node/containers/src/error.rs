//! What can go wrong with the engine, and with one replica.

use std::{path::PathBuf, sync::Arc, time::Duration};

use veil_protocol_spec::scheduling::{ImageReference, Name};

use crate::firewall::FirewallError;

/// The engine cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DockerError {
    /// Nothing answers behind the socket.
    #[error(
        "no Docker engine answers at {socket}: {reason}; start it (`cargo xtask setup --docker` \
         does on a development machine), or name its socket in VEIL_DOCKER_SOCKET"
    )]
    NoEngine {
        /// Path of the socket.
        socket: String,
        /// What the system says.
        reason: String,
    },
    /// It has no such runtime.
    #[error(
        "worker.runtime = \"{runtime}\": the Docker engine has none of this name, but {known}; add it to the \
         engine's configuration, or name one of these"
    )]
    NoRuntime {
        /// The name.
        runtime: String,
        /// Those that it has.
        known: String,
    },
    /// Podman runs containers by another runtime, and would say nothing of it.
    #[error(
        "worker.runtime = \"{runtime}\": Podman runs all containers by {own}; write runtime = \"{runtime}\" under \
         [engine] in its containers.conf, and restart its service"
    )]
    OtherRuntime {
        /// The name.
        runtime: String,
        /// That of Podman.
        own: String,
    },
    /// A call took too long.
    #[error(
        "the Docker engine did not finish `{call}` within {} s; it is retried, but see whether \
         `docker info` answers and the disk has room", deadline.as_secs()
    )]
    Timeout {
        /// What was asked for.
        call: &'static str,
        /// The time it was given.
        deadline: Duration,
    },
    /// The engine answered with an error.
    #[error("the Docker engine refused `{call}` with status {status}: {message}")]
    Refused {
        /// What was asked for.
        call: &'static str,
        /// HTTP status.
        status: u16,
        /// The engine's words.
        message: String,
    },
    /// The call broke off, or its answer is not understood.
    #[error("`{call}` to the Docker engine failed: {source}")]
    Failed {
        /// What was asked for.
        call: &'static str,
        /// Why.
        source: bollard::errors::Error,
    },
}

impl DockerError {
    /// The HTTP status of a refusal.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Refused { status, .. } => Some(*status),
            _ => None,
        }
    }

    /// Whether a container has the name already. Docker says 409, Podman 500.
    pub(crate) fn is_name_taken(&self) -> bool {
        match self {
            Self::Refused { status: 409, .. } => true,
            Self::Refused { message, .. } => message.contains("that name is already in use"),
            _ => false,
        }
    }

    /// Whether a port of the host is in use, in the words of Docker's own list, of its proxy, and of Podman.
    fn is_port_taken(&self) -> bool {
        let words = ["port is already allocated", "address already in use"];
        match self {
            Self::Refused { message, .. } => words.iter().any(|part| message.contains(part)),
            _ => false,
        }
    }

    pub(crate) fn from_call(call: &'static str, error: bollard::errors::Error) -> Self {
        match error {
            bollard::errors::Error::DockerResponseServerError { status_code, message } => {
                Self::Refused { call, status: status_code, message }
            }
            source => Self::Failed { call, source },
        }
    }
}

/// One replica cannot be made to run, or to stop. The others are not affected.
#[derive(Debug, thiserror::Error)]
pub enum ReplicaError {
    /// The registry does not have the image.
    #[error(
        "the registry does not serve {image}: {reason}; push it again and submit the job anew, with a \
         digest that `docker pull` accepts"
    )]
    NoSuchImage {
        /// The image.
        image: ImageReference,
        /// The engine's words.
        reason: String,
    },
    /// The image is for other machines.
    #[error(
        "{image} is not for this worker's {wants}: {reason}; build it for that platform too, or let the \
         job's constraints keep it off such workers"
    )]
    WrongPlatform {
        /// The image.
        image: ImageReference,
        /// The engine's platform.
        wants: String,
        /// What the image is for, or the engine's words.
        reason: String,
    },
    /// The digest is that of what was said about an image.
    #[error(
        "{image} is an attestation, no image; use the digest of the index, which `docker buildx \
         imagetools inspect` shows first"
    )]
    Attestation {
        /// What was taken for an image.
        image: ImageReference,
    },
    /// The engine cannot unpack the image.
    #[error(
        "{engine} cannot unpack {image}: {reason}; layers compressed with zstd need Docker 23: build it \
         with gzip, or update the worker's engine"
    )]
    Unreadable {
        /// The image.
        image: ImageReference,
        /// Name and version of the engine.
        engine: String,
        /// Its words.
        reason: String,
    },
    /// The registry serves something else under the digest.
    #[error(
        "what the registry serves as {image} is something else: {reason}; nothing of it runs; push the \
         image again, and ask whoever runs the registry"
    )]
    WrongContent {
        /// The image.
        image: ImageReference,
        /// The engine's words.
        reason: String,
    },
    /// It is not what the cluster allows.
    #[error("nothing of {image} is run: {reason}")]
    NotApproved {
        /// The image.
        image: ImageReference,
        /// What speaks against it.
        reason: String,
    },
    /// The registry wants fewer requests.
    #[error(
        "the registry limits how often {image} may be asked for: {reason}; it is tried again, less and \
         less often; a mirror close to the workers, or an account there, raises the limit"
    )]
    Limited {
        /// The image.
        image: ImageReference,
        /// The engine's words.
        reason: String,
    },
    /// The image could not be pulled.
    #[error(
        "{image} cannot be pulled: {reason}; it is tried again, less and less often; see whether the \
         registry can be reached from this worker"
    )]
    Pull {
        /// The image.
        image: ImageReference,
        /// Why the last attempt failed.
        reason: String,
    },
    /// The engine has another image under this name.
    #[error(
        "the engine has {image} with the digests [{found}] only; it is not started: `docker image rm` it"
    )]
    WrongDigest {
        /// What was asked for.
        image: ImageReference,
        /// What is there.
        found: String,
    },
    /// The kernel does not lead to links.
    #[error(
        "`egress = \"none\"` with links needs rules in the kernel, and this worker has worker.egress = \"unfiltered\": \
         let the job's constraints keep it off such workers, or have the worker filter"
    )]
    UnfilteredLinks,
    /// The kernel takes no rules for links.
    #[error("links need rules in the kernel, also where connections are not filtered: {0}")]
    Lead(FirewallError),
    /// Nobody carries connections of links.
    #[error("this worker carries no links; it is run by a program that gives it none")]
    NoLinks,
    /// All addresses for links are taken.
    #[error(
        "this worker has no addresses left for the links of another container; it is tried again"
    )]
    NoLinkAddress,
    /// The worker cannot listen for a link.
    #[error("the worker cannot listen for its links: {0}; it is tried again")]
    Listen(std::io::Error),
    /// A foreign container has the name.
    #[error(
        "a container named {name} exists that is not this worker's; rename or remove it, it will \
         not be touched"
    )]
    NameTaken {
        /// The name.
        name: String,
    },
    /// The request is encrypted, and what is sealed in the job does not say what it is.
    #[error(
        "the job's request is encrypted, and no limits are sealed in it: its operator submits it again"
    )]
    Request,
    /// What keeps containers from the host is not in force.
    #[error("no container is started: {0}")]
    Firewall(#[from] FirewallError),
    /// Its operator may not reach private ranges here.
    #[error(
        "egress = \"allow_private\": this worker's operator lets no job reach private ranges \
         (worker.allow_private_egress)"
    )]
    PrivateEgress,
    /// Without filter rules a container without a way out has none in either.
    #[error(
        "egress = \"none\" beside published ports: this worker does not filter (worker.egress = \
         \"unfiltered\"), and without rules a port leads both ways; publish none, or let the job's \
         constraints keep it off such workers"
    )]
    NoWayOut,
    /// Somebody has the port already.
    #[error(
        "a port that the job publishes is in use on this worker: {reason}; it is tried again, less and less \
         often; free the port, or let the worker choose one: host = \"dynamic\""
    )]
    PortInUse {
        /// The engine's words.
        reason: String,
    },
    /// All ports that the worker may choose from are in use.
    #[error(
        "port `{name}`: none from {first} to {last} is free on this worker (worker.dynamic_ports)"
    )]
    NoPort {
        /// The job's port.
        name: Name,
        /// First of the range.
        first: u16,
        /// Last of the range.
        last: u16,
    },
    /// The worker offers no folder of this name.
    #[error(
        "this worker offers no volume `{name}`; `[[worker.volume]]` in its file lists those it does"
    )]
    NoVolume {
        /// The name.
        name: Name,
    },
    /// The worker offers the folder for reading.
    #[error("this worker offers the volume `{name}` for reading only: write read_only = true")]
    ReadOnlyVolume {
        /// The name.
        name: Name,
    },
    /// Too few devices are left.
    #[error(
        "the job asks for {wanted} GPUs; of the {all} that the driver here can use, {free} are free"
    )]
    NoGpus {
        /// So many.
        wanted: u16,
        /// Free of them.
        free: usize,
        /// On this worker.
        all: usize,
    },
    /// The registry does not take the credentials that are sealed in the job.
    #[error(
        "the registry refuses the credentials that are sealed in the job for {image}: {reason}; put right \
         [registry] in the job file, and submit it again"
    )]
    Credentials {
        /// The image.
        image: ImageReference,
        /// The engine's words.
        reason: String,
    },
    /// Files of sealed contents cannot be put into memory.
    #[error("{path}: {reason}; the job's secrets are put nowhere else, and it is not started")]
    Secrets {
        /// Where they would be.
        path: PathBuf,
        /// What is wrong there.
        reason: String,
    },
    /// Podman ignores such requests without a word.
    #[error(
        "the job asks for {wanted} GPUs, and Podman gives none through its Docker-compatible socket; keep it off such \
         workers (placement.deny = [\"veil/engine=podman\"]), or run this one on Docker"
    )]
    NoGpusOfPodman {
        /// So many.
        wanted: u16,
    },
    /// The engine refused.
    #[error(transparent)]
    Docker(#[from] DockerError),
    /// The engine does not say how the container is.
    #[error(transparent)]
    Look(#[from] Arc<DockerError>),
}

impl ReplicaError {
    /// What the engine's refusal to start a container means.
    pub(crate) fn of_start(self) -> Self {
        match self {
            Self::Docker(error) if error.is_port_taken() => {
                Self::PortInUse { reason: error.to_string() }
            }
            other => other,
        }
    }

    /// Whether asking again brings the same, as long as job and engine are the same.
    #[must_use]
    pub const fn is_final(&self) -> bool {
        match self {
            Self::NoSuchImage { .. }
            | Self::WrongPlatform { .. }
            | Self::Attestation { .. }
            | Self::Unreadable { .. }
            | Self::WrongContent { .. }
            | Self::Credentials { .. }
            | Self::NotApproved { .. } => true,
            Self::Limited { .. }
            | Self::Pull { .. }
            | Self::WrongDigest { .. }
            | Self::NameTaken { .. }
            | Self::Request
            | Self::Firewall(_)
            | Self::UnfilteredLinks
            | Self::Lead(_)
            | Self::NoLinks
            | Self::NoLinkAddress
            | Self::Listen(_)
            | Self::PrivateEgress
            | Self::NoWayOut
            | Self::PortInUse { .. }
            | Self::NoPort { .. }
            | Self::NoVolume { .. }
            | Self::ReadOnlyVolume { .. }
            | Self::NoGpus { .. }
            | Self::Secrets { .. }
            | Self::NoGpusOfPodman { .. }
            | Self::Docker(_)
            | Self::Look(_) => false,
        }
    }
}
