//! What can go wrong with the engine, and with one replica.

use std::time::Duration;

use veil_protocol_spec::scheduling::ImageReference;

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
        "the registry does not serve {image}: {reason}; push it again or submit the job with a \
         digest that `docker pull` accepts"
    )]
    NoSuchImage {
        /// The image.
        image: ImageReference,
        /// The engine's words.
        reason: String,
    },
    /// The image could not be pulled in several attempts.
    #[error(
        "{image} cannot be pulled after {attempts} attempts: {reason}; it is retried; see whether \
         the registry can be reached from this worker"
    )]
    Pull {
        /// The image.
        image: ImageReference,
        /// How often it was tried.
        attempts: usize,
        /// Why the last one failed.
        reason: String,
    },
    /// The engine has another image under this name.
    #[error("the engine has {image} with the digests [{found}] only; it is not started")]
    WrongDigest {
        /// What was asked for.
        image: ImageReference,
        /// What is there.
        found: String,
    },
    /// A foreign container has the name.
    #[error(
        "a container named {name} exists that is not this worker's; rename or remove it, it will \
         not be touched"
    )]
    NameTaken {
        /// The name.
        name: String,
    },
    /// The request is in a form that only the circuit can read.
    #[error("the job's request is in a form this worker cannot turn into limits; update it")]
    Request,
    /// The engine refused.
    #[error(transparent)]
    Docker(#[from] DockerError),
}
