//! How a job is reached, and what it reaches.

use core::num::NonZeroU16;

use serde::{Deserialize, Serialize};

use crate::names::Name;

/// How packets reach a port.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// Connections.
    #[default]
    Tcp,
    /// Datagrams.
    Udp,
}

/// Where a port is on the worker's announced address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HostPort {
    /// The worker chooses.
    #[default]
    Dynamic,
    /// There, or the replica is not placed on this worker.
    Fixed(NonZeroU16),
    /// Nowhere: only links and forwards lead to it.
    None,
}

/// A port of the job.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Port {
    /// What links and endpoints call it.
    pub name: Name,
    /// What the program listens on.
    pub container: NonZeroU16,
    /// How packets reach it.
    pub protocol: Protocol,
    /// Where it is on the worker's address.
    pub host: HostPort,
}

/// What a container may open connections to. Neither the worker's host nor the metadata address of a
/// cloud is ever among it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Egress {
    /// All public addresses, and no private ranges.
    #[default]
    Public,
    /// Private ranges, too; only on workers whose operators say so.
    AllowPrivate,
    /// Nothing but its links.
    None,
}
