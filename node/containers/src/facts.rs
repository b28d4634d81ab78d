//! What the engine and its machine are.

use std::{collections::BTreeSet, fmt};

use async_recursion::async_recursion as boxed;
use bollard::models::SystemVersion;

use crate::{
    engine::{Docker, Kind},
    error::DockerError,
};

const PODMAN: &str = "Podman";

/// The engine, and the platform whose images it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineFacts {
    /// Such as `linux`.
    pub os: String,
    /// In the words of images, such as `amd64`.
    pub architecture: String,
    /// `Docker` or `Podman`.
    pub engine: String,
    /// The engine's own.
    pub version: String,
}

impl EngineFacts {
    /// Such as `linux/amd64`.
    #[must_use]
    pub fn platform(&self) -> String {
        format!("{}/{}", self.os, self.architecture)
    }

    /// Whether an image of this platform runs here. An image that does not say is let through: the engine
    /// decides.
    pub(crate) fn runs(&self, os: &str, architecture: &str) -> bool {
        let same = |own: &str, images: &str| images.is_empty() || own == images;
        // Processors that run the programs of their predecessors.
        let older = matches!(
            (self.architecture.as_str(), architecture),
            ("amd64", "386") | ("arm64", "arm")
        );
        same(&self.os, os) && (older || same(&self.architecture, architecture))
    }
}

impl EngineFacts {
    pub(crate) fn is_podman(&self) -> bool {
        self.engine == PODMAN
    }
}

impl fmt::Display for EngineFacts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} on {}", self.engine, self.version, self.platform())
    }
}

impl From<SystemVersion> for EngineFacts {
    fn from(said: SystemVersion) -> Self {
        let components = said.components.unwrap_or_default();
        let is_podman = components.iter().any(|component| component.name.starts_with(PODMAN));
        Self {
            os: said.os.unwrap_or_default(),
            architecture: said.arch.unwrap_or_default(),
            engine: if is_podman { PODMAN } else { "Docker" }.to_owned(),
            version: said.version.unwrap_or_default(),
        }
    }
}

impl Docker {
    /// What it is.
    ///
    /// # Errors
    /// [`DockerError`] if it does not say.
    #[boxed]
    pub async fn facts(&self) -> Result<EngineFacts, DockerError> {
        Ok(self.call(Kind::List, "version", self.client.version()).await?.into())
    }

    /// Whether it has this runtime for containers.
    ///
    /// # Errors
    /// [`DockerError::NoRuntime`] or [`DockerError::OtherRuntime`] if not.
    #[boxed]
    pub async fn check_runtime(&self, runtime: &str) -> Result<(), DockerError> {
        let is_podman = self.facts().await?.is_podman();
        let info = self.call(Kind::List, "info", self.client.info()).await?;
        if is_podman {
            // It lists many, installed or not, and runs everything by one, whatever a container is made with.
            let own = info.default_runtime.unwrap_or_default();
            let runtime = runtime.to_owned();
            return if own == runtime {
                Ok(())
            } else {
                Err(DockerError::OtherRuntime { runtime, own })
            };
        }
        let known: BTreeSet<_> = info.runtimes.unwrap_or_default().into_keys().collect();
        if known.contains(runtime) {
            return Ok(());
        }
        let known = known.into_iter().collect::<Vec<_>>().join(", ");
        Err(DockerError::NoRuntime { runtime: runtime.to_owned(), known })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_runs_on_its_platform_and_on_the_successor_of_it() {
        let facts = |architecture: &str| EngineFacts {
            os: "linux".to_owned(),
            architecture: architecture.to_owned(),
            engine: "Docker".to_owned(),
            version: "20.10.24".to_owned(),
        };
        assert_eq!(facts("amd64").to_string(), "Docker 20.10.24 on linux/amd64");
        for (own, os, architecture, runs) in [
            ("amd64", "linux", "amd64", true),
            ("amd64", "linux", "arm64", false),
            ("arm64", "linux", "amd64", false),
            ("amd64", "linux", "386", true),
            ("arm64", "linux", "arm", true),
            ("amd64", "windows", "amd64", false),
            ("amd64", "unknown", "unknown", false),
            ("amd64", "", "", true),
        ] {
            assert_eq!(facts(own).runs(os, architecture), runs, "{own}: {os}/{architecture}");
        }
    }
}
