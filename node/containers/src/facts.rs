//! What the engine and its machine are.

use std::{
    collections::{BTreeSet, HashMap},
    fmt,
};

use async_recursion::async_recursion as boxed;
use bollard::models::{ContainerCreateBody, HostConfigLogConfig, SystemVersion};

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

    /// Podman has Docker's API, but none of its log drivers that bound what they keep; and takes the address that
    /// stands for all of them for one that no packet has.
    pub(crate) fn adapt(&self, body: &mut ContainerCreateBody) {
        if !self.is_podman() {
            return;
        }
        if let Some(host) = &mut body.host_config {
            host.log_config = Some(HostConfigLogConfig {
                typ: Some("k8s-file".to_owned()),
                config: Some(HashMap::from([("max-size".to_owned(), "30m".to_owned())])),
            });
            let bindings = host.port_bindings.iter_mut().flat_map(HashMap::values_mut);
            for binding in bindings.flatten().flatten() {
                binding.host_ip = binding.host_ip.take().filter(|address| address != "0.0.0.0");
            }
        }
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
    /// [`DockerError::NoRuntime`] if not.
    #[boxed]
    pub async fn check_runtime(&self, runtime: &str) -> Result<(), DockerError> {
        let info = self.call(Kind::List, "info", self.client.info()).await?;
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
    use bollard::models::{HostConfig, PortBinding};

    use super::*;

    #[test]
    fn podman_publishes_on_all_addresses_by_naming_none() {
        let bound = |address: &str, engine: &str| {
            let at = PortBinding { host_ip: Some(address.to_owned()), ..PortBinding::default() };
            let mut body = ContainerCreateBody {
                host_config: Some(HostConfig {
                    port_bindings: Some([("80/tcp".to_owned(), Some(vec![at]))].into()),
                    ..HostConfig::default()
                }),
                ..ContainerCreateBody::default()
            };
            let facts = EngineFacts {
                os: "linux".to_owned(),
                architecture: "amd64".to_owned(),
                engine: engine.to_owned(),
                version: "4.3.1".to_owned(),
            };
            facts.adapt(&mut body);
            let bindings = body.host_config.unwrap().port_bindings.unwrap();
            bindings["80/tcp"].clone().unwrap()[0].host_ip.clone()
        };
        assert_eq!(bound("0.0.0.0", PODMAN), None);
        assert_eq!(bound("127.0.0.1", PODMAN).as_deref(), Some("127.0.0.1"));
        assert_eq!(bound("0.0.0.0", "Docker").as_deref(), Some("0.0.0.0"));
    }

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
