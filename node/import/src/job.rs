//! A job as it comes out of another format, before it is written as a job file.

use std::{collections::BTreeMap, path::PathBuf};

use veil_protocol_spec::scheduling::Name;
use zeroize::Zeroizing;

/// What kind of work it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Kind {
    #[default]
    Service,
    Batch {
        max_attempts: u64,
    },
    Periodic {
        cron: String,
        time_zone: Option<String>,
        overlap: Option<&'static str>,
    },
    System,
}

impl Kind {
    pub(crate) const fn word(&self) -> &'static str {
        match self {
            Self::Service => "service",
            Self::Batch { .. } => "batch",
            Self::Periodic { .. } => "periodic",
            Self::System => "system",
        }
    }

    /// Whether its replicas come to an end.
    pub(crate) const fn ends(&self) -> bool {
        matches!(self, Self::Batch { .. } | Self::Periodic { .. })
    }
}

/// How an image is built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Build {
    /// The folder that is handed to the engine.
    pub context: PathBuf,
    /// Its Dockerfile, if it has another name.
    pub dockerfile: Option<PathBuf>,
    /// The Dockerfile's text, if it stands in the file itself.
    pub inline: Option<String>,
    /// The stage that is wanted.
    pub target: Option<String>,
    /// Arguments.
    pub args: Vec<(String, String)>,
}

/// What is run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Image {
    /// The name as the file has it, without tag and digest; empty if there is none.
    pub name: String,
    /// The tag, if the file has one.
    pub tag: Option<String>,
    /// The digest, `sha256:...`, if the file has it or a registry was asked.
    pub digest: Option<String>,
    /// How to build it.
    pub build: Option<Build>,
}

impl Image {
    /// As `docker pull` takes it.
    pub(crate) fn of(text: &str) -> Self {
        let text = text.strip_prefix("docker://").unwrap_or(text).trim();
        let (name, digest) = match text.split_once('@') {
            Some((name, digest)) => (name, Some(digest.to_owned())),
            None => (text, None),
        };
        // A colon before the last slash is that of a port.
        let last = name.rfind('/').map_or(0, |at| at + 1);
        let (name, tag) = match name.get(last..).and_then(|last| last.rsplit_once(':')) {
            Some((_, tag)) => (&name[..name.len() - tag.len() - 1], Some(tag.to_owned())),
            None => (name, None),
        };
        Self { name: name.to_owned(), tag, digest, build: None }
    }

    /// The name with its tag.
    #[must_use]
    pub fn tagged(&self) -> String {
        match &self.tag {
            Some(tag) => format!("{}:{tag}", self.name),
            None => self.name.clone(),
        }
    }
}

/// What it asks for; what is not said is filled in by the options.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Resources {
    pub(crate) millicores: Option<u64>,
    pub(crate) memory: Option<u64>,
    pub(crate) disk: u64,
    pub(crate) gpus: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Container {
    pub(crate) entrypoint: Option<Vec<String>>,
    pub(crate) args: Option<Vec<String>>,
    pub(crate) user: Option<String>,
    pub(crate) workdir: Option<String>,
    pub(crate) hostname: Option<String>,
    pub(crate) init: bool,
    pub(crate) read_only: bool,
    /// Places and sizes.
    pub(crate) tmpfs: BTreeMap<String, u64>,
    pub(crate) shm_size: Option<u64>,
    pub(crate) pids: Option<u64>,
    pub(crate) ulimits: BTreeMap<String, String>,
    pub(crate) stop_signal: Option<String>,
    pub(crate) stop_timeout: Option<u64>,
    pub(crate) cap_add: Vec<String>,
    pub(crate) cap_drop: Vec<String>,
}

/// Where something that is sealed is read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum From {
    File(String),
    Variable(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    Path { path: String, mode: Option<u32> },
    Variable(String),
}

/// A secret, or a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sealed {
    pub(crate) target: Target,
    pub(crate) from: From,
}

/// Where a port is on the worker's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Host {
    None,
    Dynamic,
    Number(u16),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Port {
    pub(crate) container: u16,
    pub(crate) udp: bool,
    pub(crate) host: Host,
    /// What the file calls it.
    pub(crate) called: Option<String>,
}

impl Port {
    pub(crate) fn name(&self) -> String {
        let kind = if self.udp { "udp" } else { "tcp" };
        format!("{kind}-{}", self.container)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum VolumeKind {
    Host,
    Ephemeral(u64),
    Tmpfs(u64),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Volume {
    pub(crate) name: String,
    pub(crate) mount: String,
    pub(crate) kind: VolumeKind,
    pub(crate) read_only: bool,
    /// What the file has there, for whoever offers the volume.
    pub(crate) was: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Link {
    /// Name of a job.
    pub(crate) job: String,
    /// Name of its port.
    pub(crate) port: String,
    pub(crate) host: String,
    pub(crate) listen: u16,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct After {
    pub(crate) job: String,
    pub(crate) is: &'static str,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Restart {
    /// `always`, `on_failure`, `never`; none for the default.
    pub(crate) mode: Option<&'static str>,
    pub(crate) attempts: Option<u64>,
    pub(crate) interval: Option<u64>,
    pub(crate) delay: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Probe {
    Command(Vec<String>),
    Tcp(u16),
    Http { port: u16, path: String },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Health {
    pub(crate) probe: Probe,
    pub(crate) interval: u64,
    pub(crate) timeout: u64,
    pub(crate) retries: u64,
    pub(crate) start_period: u64,
    pub(crate) restart: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Update {
    pub(crate) max_parallel: Option<u64>,
    pub(crate) min_healthy: Option<u64>,
    pub(crate) auto_revert: Option<bool>,
}

/// A file that lies beside the job file, since the imported file has its content in itself.
#[derive(Clone, PartialEq, Eq)]
pub struct NewFile {
    /// Where, relative to the job files.
    pub path: String,
    /// What is in it.
    pub content: Zeroizing<Vec<u8>>,
    /// Whether only its owner may read it.
    pub secret: bool,
}

impl core::fmt::Debug for NewFile {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "NewFile({:?}, {} bytes, <redacted>)", self.path, self.content.len())
    }
}

/// A job that is to be written.
///
/// # Security
/// Its variables may be secret, as they were in the imported file: it prints its name and nothing of them.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Job {
    /// Its name, of the form that jobs have.
    pub name: String,
    /// What the file calls it.
    pub service: String,
    /// What it runs.
    pub image: Image,
    pub(crate) kind: Kind,
    pub(crate) replicas: u64,
    pub(crate) resources: Resources,
    pub(crate) container: Container,
    pub(crate) env: BTreeMap<String, String>,
    pub(crate) secrets: Vec<Sealed>,
    pub(crate) files: Vec<Sealed>,
    /// Who pulls the image, and where the password is.
    pub(crate) registry: Option<(String, From)>,
    /// Whether it is pulled with what `docker login` left, if the file itself says nothing of that.
    pub docker_login: bool,
    /// After how long without contact it stops, so that it never runs twice.
    pub(crate) exclusive: Option<u64>,
    pub(crate) ports: Vec<Port>,
    pub(crate) egress: Option<&'static str>,
    pub(crate) volumes: Vec<Volume>,
    pub(crate) links: Vec<Link>,
    pub(crate) after: Vec<After>,
    pub(crate) restart: Restart,
    pub(crate) health: Option<Health>,
    pub(crate) update: Update,
    pub(crate) allow: Vec<String>,
    pub(crate) deny: Vec<String>,
    pub(crate) anti_affinity: Option<&'static str>,
    pub(crate) organisations: Vec<String>,
    /// What somebody has to fill in before it can be submitted.
    pub(crate) fill_in: Vec<String>,
}

impl core::fmt::Debug for Job {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Job({:?} of {:?}, <redacted>)", self.name, self.service)
    }
}

impl Job {
    /// Whether part of it is sealed, so that it must say for whom.
    #[must_use]
    pub fn seals(&self) -> bool {
        !self.env.is_empty()
            || !self.secrets.is_empty()
            || !self.files.is_empty()
            || self.registry.is_some()
            || self.docker_login
    }

    /// Volumes that workers have to offer: name, place in the container, and what the file had there.
    pub fn host_volumes(&self) -> impl Iterator<Item = (&str, &str, &str)> {
        let host = self.volumes.iter().filter(|volume| volume.kind == VolumeKind::Host);
        host.map(|volume| (volume.name.as_str(), volume.mount.as_str(), volume.was.as_str()))
    }

    /// Its kind of work, as the job file says it.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        self.kind.word()
    }

    /// Adds a port, or says better where one is that is there.
    pub(crate) fn add_port(&mut self, port: Port) -> Result<(), Port> {
        let same = |own: &&mut Port| own.container == port.container && own.udp == port.udp;
        match self.ports.iter_mut().find(same) {
            None => {
                self.ports.push(port);
                Ok(())
            }
            Some(own) if port.host == Host::None || own.host == port.host => Ok(()),
            Some(own) if own.host == Host::None => {
                own.host = port.host;
                Ok(())
            }
            Some(_) => Err(port),
        }
    }

    /// Adds a volume under a name that no other volume of it has.
    pub(crate) fn add_volume(&mut self, mut volume: Volume) {
        if self.volumes.iter().any(|own| own.name == volume.name) {
            let names: Vec<_> = self.volumes.iter().map(|own| own.name.clone()).collect();
            volume.name = unlike(&volume.name, |name| names.iter().any(|own| own == name));
        }
        self.volumes.push(volume);
    }

    /// Whether something is mounted there already.
    pub(crate) fn mounts(&self, place: &str) -> bool {
        self.volumes.iter().any(|volume| volume.mount == place)
            || self.container.tmpfs.contains_key(place)
            || self
                .files
                .iter()
                .chain(&self.secrets)
                .any(|file| matches!(&file.target, Target::Path { path, .. } if path == place))
    }
}

/// A name of the form that jobs, ports and volumes have.
pub(crate) fn name_like(text: &str) -> String {
    let name = Name::resembling(text, "");
    name.map_or_else(|| "job".to_owned(), |name| name.as_str().to_owned())
}

/// The name, or one with a number behind it that is not taken.
pub(crate) fn unlike(name: &str, is_taken: impl Fn(&str) -> bool) -> String {
    let numbered = (2..).map(|number: u32| {
        let suffix = format!("-{number}");
        Name::resembling(name, &suffix).map_or(suffix, |name| name.as_str().to_owned())
    });
    let mut names = core::iter::once(name.to_owned()).chain(numbered);
    names.find(|name| !is_taken(name)).unwrap_or_default()
}

impl Health {
    /// Within the bounds of jobs: a probe takes no longer than from one to the next.
    pub(crate) fn fitting(self) -> Self {
        let timeout = self.timeout.clamp(1, 3600);
        Self {
            interval: self.interval.clamp(1, 3600).max(timeout),
            timeout,
            retries: self.retries.clamp(1, 100),
            start_period: self.start_period.min(3600),
            ..self
        }
    }
}
