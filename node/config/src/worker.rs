//! What a worker's file says of its own.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Deserialize;
use veil_protocol_spec::scheduling::{PriceClass, WorkerPriority};

use crate::{
    ConfigError, Environment, anchor,
    offer::{CpuMeasure, Kept, Offer, Standing},
};

/// Where an engine listens unless somebody says otherwise.
const DEFAULT_SOCKET: &str = "/var/run/docker.sock";

/// `[worker.offer]`: the most a worker offers; the host's own capacity where nothing is said.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OfferSection {
    /// CPU time in thousandths of a core.
    pub cpu_millicores: Option<u64>,
    /// Memory.
    pub memory_mib: Option<u64>,
    /// Disk.
    pub disk_gib: Option<u64>,
    /// What is never lent, in thousandths of a core.
    pub reserve_cpu_millicores: Option<u64>,
    /// Memory that is never lent.
    pub reserve_memory_mib: Option<u64>,
    /// Disk that is never lent.
    pub reserve_disk_gib: Option<u64>,
    /// GPUs.
    pub gpus: Option<u64>,
    /// Whether CPU that others use counts as free.
    pub cpu_measure: CpuMeasure,
    /// What is taken for it: 0 is cheapest. Sent encrypted.
    pub price: PriceClass,
    /// How much it wants to be used: 3 first. Sent encrypted.
    pub priority: WorkerPriority,
}

impl OfferSection {
    /// In the sampler's units.
    #[must_use]
    pub fn offer(&self) -> Offer {
        let (all, kept) = (Offer::default(), Kept::default());
        let mib = |given: Option<u64>, other| given.map_or(other, |n| n.saturating_mul(1 << 20));
        let gib = |given: Option<u64>, other| given.map_or(other, |n| n.saturating_mul(1 << 30));
        Offer {
            cpu_millicores: self.cpu_millicores.unwrap_or(all.cpu_millicores),
            memory_bytes: mib(self.memory_mib, all.memory_bytes),
            disk_bytes: gib(self.disk_gib, all.disk_bytes),
            gpus: self.gpus.unwrap_or(all.gpus),
            reserve: Kept {
                cpu_millicores: self.reserve_cpu_millicores.unwrap_or(kept.cpu_millicores),
                memory_bytes: mib(self.reserve_memory_mib, kept.memory_bytes),
                disk_bytes: gib(self.reserve_disk_gib, kept.disk_bytes),
            },
            cpu_measure: self.cpu_measure,
        }
    }

    /// What the operator says of the worker.
    #[must_use]
    pub const fn standing(&self) -> Standing {
        Standing { price: self.price, priority: self.priority }
    }
}

/// `[worker]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WorkerSection {
    /// The Docker engine's socket.
    pub docker_socket: PathBuf,
    /// After its last use, an image that the worker pulled is kept for so long.
    pub keep_images_hours: u64,
    /// The key set, if it was brought by hand.
    pub key_set: Option<PathBuf>,
    /// Between two telemetry messages.
    pub telemetry_interval_seconds: u64,
    /// Hold no evaluation key, and audit nothing. The registration must say so too.
    pub light: bool,
    /// Prove under a reference string made by one party.
    pub insecure_reference_string: bool,
    /// The most it offers.
    pub offer: OfferSection,
}

impl Default for WorkerSection {
    fn default() -> Self {
        Self {
            docker_socket: PathBuf::new(), // chosen when the environment is known
            keep_images_hours: 24,
            key_set: None,
            telemetry_interval_seconds: 30,
            light: false,
            insecure_reference_string: false,
            offer: OfferSection::default(),
        }
    }
}

impl WorkerSection {
    /// How long images that nothing uses are kept.
    #[must_use]
    pub const fn images_kept(&self) -> Duration {
        Duration::from_secs(self.keep_images_hours.saturating_mul(3600))
    }

    /// The engine's socket: by `VEIL_DOCKER_SOCKET`, by the file, by `DOCKER_HOST`, or where engines are. Each
    /// may be a path or, as Docker's own programs have it, `unix://` and a path.
    pub(crate) fn choose_socket(
        &mut self,
        folder: &Path,
        env: Environment<'_>,
    ) -> Result<(), ConfigError> {
        let given = |variable| Some((variable, env(variable).filter(|value| !value.is_empty())?));
        let file = self.docker_socket.to_string_lossy().into_owned();
        let own = given("VEIL_DOCKER_SOCKET");
        let dockers = || given("DOCKER_HOST").filter(|_| file.is_empty());
        let Some((variable, value)) = own.or_else(dockers) else {
            let value = if file.is_empty() { DEFAULT_SOCKET } else { &file };
            let path = socket_path(value)
                .map_err(|reason| ConfigError::Value { key: "worker.docker_socket", reason })?;
            self.docker_socket = path;
            anchor(folder, &mut self.docker_socket);
            return Ok(());
        };
        let path =
            socket_path(&value).map_err(|reason| ConfigError::Environment { variable, reason })?;
        self.docker_socket = path;
        Ok(())
    }

    /// Between two telemetry messages.
    #[must_use]
    pub const fn telemetry_interval(&self) -> Duration {
        Duration::from_secs(self.telemetry_interval_seconds)
    }
}

fn socket_path(value: &str) -> Result<PathBuf, String> {
    match value.split_once("://") {
        None => Ok(PathBuf::from(value)),
        Some(("unix", path)) => Ok(PathBuf::from(path)),
        Some(_) => Err(format!(
            "{value}: a worker reaches its engine through a Unix socket only; name its path, such as \
             unix:///run/user/1000/docker.sock"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_engines_socket_is_chosen_by_variable_file_and_dockers_own_variable() {
        let choose = |own: &str, file: &str, dockers: &str| {
            let env = |name: &str| match name {
                "VEIL_DOCKER_SOCKET" => Some(own.to_owned()),
                "DOCKER_HOST" => Some(dockers.to_owned()),
                _ => None,
            };
            let mut section =
                WorkerSection { docker_socket: PathBuf::from(file), ..WorkerSection::default() };
            let chosen = section.choose_socket(Path::new("/etc/veil"), &env);
            chosen.map(|()| section.docker_socket.to_string_lossy().into_owned())
        };
        let (user, own) = ("unix:///run/user/1000/docker.sock", "unix:///run/own.sock");
        for (own, file, dockers, expected) in [
            ("", "", "", DEFAULT_SOCKET),
            ("", "", user, "/run/user/1000/docker.sock"),
            ("", "/run/file.sock", user, "/run/file.sock"),
            ("", "unix:///run/file.sock", "", "/run/file.sock"),
            ("", "docker.sock", "", "/etc/veil/docker.sock"),
            (own, "/run/file.sock", user, "/run/own.sock"),
            ("/run/own.sock", "", "tcp://10.0.0.1:2375", "/run/own.sock"),
        ] {
            assert_eq!(choose(own, file, dockers).unwrap(), expected, "{own} {file} {dockers}");
        }
        for (own, file, dockers, key) in [
            ("", "", "tcp://10.0.0.1:2375", "DOCKER_HOST"),
            ("ssh://host", "", "", "VEIL_DOCKER_SOCKET"),
            ("", "tcp://10.0.0.1:2375", "", "worker.docker_socket"),
        ] {
            let error = choose(own, file, dockers).unwrap_err().to_string();
            assert!(error.contains(key) && error.contains("Unix socket"), "{error}");
        }
    }
}
