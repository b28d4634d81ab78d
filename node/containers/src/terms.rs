//! What a worker's operator lets containers have, beside what they ask for.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
    ops::RangeInclusive,
    path::PathBuf,
};

use veil_protocol_spec::scheduling::Name;

use crate::{approve::Approve, carry::Links, gpu::Gpus};

/// Whether this worker keeps containers from its host, from metadata and from private ranges.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Filter {
    /// By rules in the kernel; without them no container is started.
    #[default]
    Enforced,
    /// It does not.
    Unfiltered,
}

/// A folder of this worker that jobs may ask for by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostVolume {
    /// Where it is.
    pub path: PathBuf,
    /// Whether it can only be read.
    pub read_only: bool,
}

/// What the worker's operator lets containers have and reach. The default is what a worker grants whose operator says nothing.
#[derive(Clone, Debug)]
pub struct Terms {
    /// Whether connections of containers are filtered.
    pub filter: Filter,
    /// Whether a job may reach private ranges if it asks for them.
    pub allow_private: bool,
    /// Name servers in place of those that the engine takes from the host.
    pub name_servers: Vec<Ipv4Addr>,
    /// Where ports are published.
    pub publish_address: IpAddr,
    /// What is said in place of "all addresses" where ports are published on all of them.
    pub announced_address: Option<IpAddr>,
    /// Of which the worker chooses.
    pub dynamic_ports: RangeInclusive<u16>,
    /// Folders by the names that jobs know.
    pub volumes: BTreeMap<Name, HostVolume>,
    /// Devices of this machine.
    pub gpus: Gpus,
    /// Whether an image is what the cluster allows.
    pub approve: Approve,
    /// Who carries connections of links.
    pub links: Links,
    /// The engine's runtime for containers, if not its default.
    pub runtime: Option<String>,
    /// A folder in memory, in which the files of sealed contents get one of this worker's own.
    pub secrets: PathBuf,
}

/// In memory on every Linux.
const SECRETS: &str = "/dev/shm";

/// Below those that kernels give to outgoing connections.
const DYNAMIC_PORTS: RangeInclusive<u16> = 20_000..=32_000;

impl Default for Terms {
    fn default() -> Self {
        Self {
            filter: Filter::default(),
            allow_private: false,
            name_servers: Vec::new(),
            publish_address: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            announced_address: None,
            dynamic_ports: DYNAMIC_PORTS,
            volumes: BTreeMap::new(),
            gpus: Gpus::default(),
            approve: Approve::default(),
            links: Links::default(),
            runtime: None,
            secrets: SECRETS.into(),
        }
    }
}
