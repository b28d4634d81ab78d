//! What the worker has chosen for one container.

use std::collections::HashMap;

use bollard::models::Mount;

use crate::port::Bound;

/// What no two containers can have at once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Unshared {
    /// Ports of the worker's address.
    pub(crate) ports: Vec<Bound>,
    /// GPUs, by the driver's ids.
    pub(crate) devices: Vec<String>,
    /// The block of addresses of its links, if it has such.
    pub(crate) links: Option<u16>,
}

/// See the [module documentation](self).
#[derive(Clone, Debug, Default)]
pub(crate) struct Place {
    /// The name of its network.
    pub(crate) network: String,
    /// The network's interface.
    pub(crate) bridge: String,
    pub(crate) name_servers: Vec<String>,
    pub(crate) unshared: Unshared,
    pub(crate) mounts: Vec<Mount>,
    /// Folders in memory, with the options of their mounts.
    pub(crate) tmpfs: HashMap<String, String>,
    /// What runs it, if not the engine's default.
    pub(crate) runtime: Option<String>,
}
