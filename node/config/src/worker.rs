//! What a worker's file says of its own.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Deserialize;
use veil_protocol_spec::scheduling::{
    Egress, Name, PriceClass, Profile, ProfileError, WorkerPriority,
};

use crate::{
    ConfigError, Environment,
    accept::AcceptSection,
    anchor,
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

/// Whether containers are kept from this host, from metadata and from private ranges.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EgressFilter {
    /// They are, or none is started.
    #[default]
    Filtered,
    /// They are not.
    Unfiltered,
}

/// `[[worker.volume]]`: a folder of this host that jobs may ask for by name.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VolumeSection {
    /// What jobs call it.
    pub name: Name,
    /// Where it is.
    pub path: PathBuf,
    /// Whether it can only be read.
    #[serde(default)]
    pub read_only: bool,
}

/// Folders that are the system's or an engine's: whoever writes there owns the host.
const SYSTEM: &[&str] = &[
    "/boot",
    "/dev",
    "/etc",
    "/proc",
    "/root",
    "/run",
    "/sys",
    "/usr",
    "/var/lib/containerd",
    "/var/lib/containers",
    "/var/lib/docker",
];

/// `[worker]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WorkerSection {
    /// The Docker engine's socket.
    pub docker_socket: PathBuf,
    /// Let operators run commands in their containers here.
    pub exec: bool,
    /// Whether connections of containers are filtered.
    pub egress: EgressFilter,
    /// Whether jobs may reach private ranges if they ask for them.
    pub allow_private_egress: bool,
    /// Name servers of containers, in place of the host's.
    pub name_servers: Vec<Ipv4Addr>,
    /// Where ports are published.
    pub publish_address: IpAddr,
    /// The address at which replicas' ports are said to be reached where they are published on all of them; the
    /// first one that the node listens on if it is not given.
    pub announced_address: Option<IpAddr>,
    /// First and last of those that the worker chooses from.
    pub dynamic_ports: [u16; 2],
    /// What runs containers, if not the engine's default.
    pub runtime: Option<String>,
    /// Folders that jobs may ask for.
    #[serde(rename = "volume")]
    pub volumes: Vec<VolumeSection>,
    /// After its last use, an image that the worker pulled is kept for so long.
    pub keep_images_hours: u64,
    /// Public keys of those who sign images, for clusters whose policy asks for signatures.
    pub image_keys: Vec<PathBuf>,
    /// Registries that have no TLS: hosts with their ports.
    pub insecure_registries: Vec<String>,
    /// The key set, if it was brought by hand.
    pub key_set: Option<PathBuf>,
    /// Between two telemetry messages.
    pub telemetry_interval_seconds: u64,
    /// Hold no evaluation key, and audit nothing. The registration must say so too.
    pub light: bool,
    /// The most it offers.
    pub offer: OfferSection,
    /// What it accepts.
    pub accept: AcceptSection,
}

impl Default for WorkerSection {
    fn default() -> Self {
        Self {
            docker_socket: PathBuf::new(), // chosen when the environment is known
            exec: false,
            egress: EgressFilter::default(),
            allow_private_egress: false,
            name_servers: Vec::new(),
            publish_address: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            announced_address: None,
            dynamic_ports: [20_000, 32_000],
            runtime: None,
            volumes: Vec::new(),
            keep_images_hours: 24,
            image_keys: Vec::new(),
            insecure_registries: Vec::new(),
            key_set: None,
            telemetry_interval_seconds: 30,
            light: false,
            offer: OfferSection::default(),
            accept: AcceptSection::default(),
        }
    }
}

impl WorkerSection {
    /// What each key cannot say alone.
    pub(crate) fn check(&mut self, data_dir: &Path) -> Result<(), ConfigError> {
        self.check_containers(data_dir)?;
        // Else a stranger's job could read what another's has left there.
        let AcceptSection { operators, organisations, .. } = &self.accept;
        if !self.volumes.is_empty() && operators.is_none() && organisations.is_none() {
            return Err(ConfigError::Value {
                key: "worker.volume",
                reason: "a folder is lent to every account whose jobs run here: say which, in \
                         [worker.accept] operators or organisations"
                    .to_owned(),
            });
        }
        let refused = |error: ProfileError| ConfigError::Value {
            key: "worker.accept or worker.volume",
            reason: error.to_string(),
        };
        self.profile().validate().map_err(refused)
    }

    /// What the worker says of itself in public, but for what it finds out.
    #[must_use]
    pub fn profile(&self) -> Profile {
        let names: BTreeSet<_> = self.volumes.iter().map(|volume| volume.name.clone()).collect();
        let egress = if self.allow_private_egress { Egress::AllowPrivate } else { Egress::Public };
        Profile {
            facts: Vec::new(),
            volumes: names.into_iter().collect(),
            accepts: self.accept.accepts(egress),
        }
    }

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

    /// Refuses what cannot be published or must not be lent. Paths are as the system resolves them from here
    /// on.
    fn check_containers(&mut self, data_dir: &Path) -> Result<(), ConfigError> {
        let refused = |key, reason: String| Err(ConfigError::Value { key, reason });
        let [first, last] = self.dynamic_ports;
        if first < 1024 || first > last {
            let reason = "the first and the last port, ascending, none below 1024".to_owned();
            return refused("worker.dynamic_ports", reason);
        }
        if self.announced_address.is_some_and(|address| address.is_unspecified()) {
            let reason = "the one address by which clients reach this machine".to_owned();
            return refused("worker.announced_address", reason);
        }
        let key = "worker.volume";
        let mut names = Vec::new();
        let socket = self.docker_socket.clone();
        for VolumeSection { name, path, .. } in &mut self.volumes {
            if names.contains(name) {
                return refused(key, format!("`{name}` is there twice"));
            }
            names.push(name.clone());
            if !path.is_absolute() {
                return refused(key, format!("`{name}`: {} is not absolute", path.display()));
            }
            let resolved = match path.canonicalize() {
                Ok(resolved) if resolved.is_dir() => resolved,
                Ok(_) => return refused(key, format!("`{name}`: {} is no folder", path.display())),
                Err(error) => {
                    return refused(key, format!("`{name}`: {}: {error}", path.display()));
                }
            };
            let system = SYSTEM.iter().map(Path::new).chain([data_dir, socket.as_path()]);
            let mut own = system.filter(|folder| !folder.as_os_str().is_empty());
            if let Some(folder) = own.find(|folder| overlaps(&resolved, folder)) {
                let (path, folder) = (resolved.display(), folder.display());
                let reason = format!(
                    "`{name}`: {path} and {folder}, which is the system's, the \
                     engine's or this node's, lie in one another; lend a folder of its own"
                );
                return refused(key, reason);
            }
            *path = resolved;
        }
        Ok(())
    }

    /// Between two telemetry messages.
    #[must_use]
    pub const fn telemetry_interval(&self) -> Duration {
        Duration::from_secs(self.telemetry_interval_seconds)
    }
}

/// Whether one lies in the other, as the system resolves them.
fn overlaps(one: &Path, other: &Path) -> bool {
    let other = other.canonicalize().unwrap_or_else(|_| other.to_owned());
    one.starts_with(&other) || other.starts_with(one)
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
    fn what_is_published_keeps_its_bounds() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().canonicalize().unwrap();
        let lent = |name: &str| VolumeSection {
            name: name.parse().unwrap(),
            path: folder.clone(),
            read_only: false,
        };
        let volumes = vec![lent("logs"), lent("data")];
        let mut section =
            WorkerSection { volumes, allow_private_egress: true, ..WorkerSection::default() };
        let error = section.check(Path::new("")).unwrap_err().to_string();
        assert!(error.contains("[worker.accept] operators"), "{error}");
        section.accept = toml::from_str("organisations = [\"Acme\"]").unwrap();
        section.check(Path::new("")).unwrap();
        section.accept = toml::from_str("operators = []").unwrap();
        section.check(Path::new("")).unwrap();
        let Profile { facts, volumes, accepts } = section.profile();
        assert!(facts.is_empty());
        assert_eq!(volumes.iter().map(Name::as_str).collect::<Vec<_>>(), ["data", "logs"]);
        assert_eq!(accepts.operators, Some(Vec::new()));
        assert_eq!(accepts.egress, Egress::AllowPrivate);
        let numbered = |i: usize| format!("r{i}.example").parse().unwrap();
        section.accept.images = Some((0..33).map(numbered).collect());
        let error = section.check(Path::new("")).unwrap_err().to_string();
        assert!(error.contains("worker.accept") && error.contains("at most 32"), "{error}");
    }

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

    fn with_volume(path: &Path) -> WorkerSection {
        let name = "data".parse().unwrap();
        let volume = VolumeSection { name, path: path.to_owned(), read_only: false };
        WorkerSection { volumes: vec![volume], ..WorkerSection::default() }
    }

    #[test]
    fn a_folder_that_is_lent_is_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().canonicalize().unwrap();
        let data = folder.join("node/data");
        let lent = folder.join("lent");
        for one in [&data, &lent] {
            std::fs::create_dir_all(one).unwrap();
        }
        std::os::unix::fs::symlink(&data, folder.join("link")).unwrap();
        std::fs::write(folder.join("file"), "").unwrap();
        let mut section = with_volume(&folder.join("node/../lent"));
        section.check_containers(&data).unwrap();
        assert_eq!(section.volumes[0].path, lent);
        let inside = data.join("inside");
        std::fs::create_dir(&inside).unwrap();
        let socket =
            WorkerSection { docker_socket: lent.join("run/docker.sock"), ..with_volume(&lent) };
        let twice = {
            let one = with_volume(&lent);
            WorkerSection { volumes: [one.volumes.clone(), one.volumes].concat(), ..one }
        };
        let missing = folder.join("missing");
        for mut section in [
            with_volume(Path::new("/")),
            with_volume(Path::new("/etc")),
            with_volume(Path::new("/var")),
            with_volume(Path::new("/usr/share")),
            with_volume(Path::new("lent")),
            with_volume(&missing),
            with_volume(&folder.join("file")),
            with_volume(&folder.join("link")),
            with_volume(&folder),
            with_volume(&inside),
            socket,
            twice,
        ] {
            let refused = section.check_containers(&data);
            let key = "worker.volume";
            let named = matches!(&refused, Err(ConfigError::Value { key: k, .. }) if *k == key);
            assert!(named, "{:?}: {refused:?}", section.volumes);
        }
    }

    #[test]
    fn what_is_announced_is_one_address() {
        for (address, is_sound) in [("192.0.2.7", true), ("0.0.0.0", false), ("::", false)] {
            let announced_address = Some(address.parse().unwrap());
            let mut section = WorkerSection { announced_address, ..WorkerSection::default() };
            assert_eq!(section.check_containers(Path::new("/srv/veil")).is_ok(), is_sound);
        }
    }

    #[test]
    fn a_range_of_ports_ascends_and_leaves_the_systems_alone() {
        for (dynamic_ports, is_sound) in [
            ([20_000, 32_000], true),
            ([1024, 1024], true),
            ([1023, 2000], false),
            ([2001, 2000], false),
        ] {
            let mut section = WorkerSection { dynamic_ports, ..WorkerSection::default() };
            let checked = section.check_containers(Path::new("/srv/veil"));
            assert_eq!(checked.is_ok(), is_sound, "{dynamic_ports:?}");
        }
    }
}
