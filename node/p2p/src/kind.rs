//! Gossip topics and request protocols, with their size limits.

use core::fmt;

use veil_protocol_spec::{
    domain::{self, hash_parts},
    scheduling::{ClusterScope, SealedPart},
};

pub(crate) const KIB: usize = 1024;
pub(crate) const MIB: usize = 1024 * KIB;

/// A gossip topic. Every message reaches every subscribed peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Topic {
    /// Proven, encrypted utilisation of workers.
    Telemetry,
    /// Bodies of jobs that the chain has ordered.
    Jobs,
    /// Proposed manifests.
    Manifests,
    /// Digests of what workers evaluated.
    Evaluations,
    /// Signed outcomes of slots.
    Certificates,
    /// Signed suspicions of lost workers.
    Suspicions,
}

impl Topic {
    /// All topics.
    pub const ALL: [Self; 6] = [
        Self::Telemetry,
        Self::Jobs,
        Self::Manifests,
        Self::Evaluations,
        Self::Certificates,
        Self::Suspicions,
    ];

    /// Name in logs, counters and on the wire.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Telemetry => "telemetry",
            Self::Jobs => "jobs",
            Self::Manifests => "manifests",
            Self::Evaluations => "evaluations",
            Self::Certificates => "certificates",
            Self::Suspicions => "suspicions",
        }
    }

    /// Longest message in bytes, checked before anything is decoded.
    #[must_use]
    pub const fn max_bytes(self) -> usize {
        match self {
            Self::Telemetry => 136 * KIB,
            // With a sealed part.
            Self::Jobs => 33 * KIB + SealedPart::MAX_BYTES,
            Self::Manifests => MIB + 4 * KIB,
            Self::Evaluations | Self::Suspicions => KIB,
            Self::Certificates => MIB + 320 * KIB,
        }
    }

    /// Whether only members of the committee write its messages.
    pub(crate) const fn is_for_members(self) -> bool {
        matches!(self, Self::Manifests | Self::Certificates | Self::Suspicions)
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a stream is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum StreamKind {
    /// An operator reaches its job on a worker; the peer that opens it passes on bytes that it cannot read.
    Reach,
    /// A worker reaches a job on another, for one of its own.
    Link,
}

impl StreamKind {
    /// All kinds.
    pub const ALL: [Self; 2] = [Self::Reach, Self::Link];

    /// Name in logs, counters and on the wire.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Reach => "reach",
            Self::Link => "link",
        }
    }

    /// Whether only workers open it.
    pub(crate) const fn is_for_workers(self) -> bool {
        matches!(self, Self::Link)
    }
}

/// A request protocol: one message and one answer, between two registered peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Protocol {
    /// Messages of the key ceremony, one chunk of a share stream at most.
    Ceremony = 1,
    /// Agreement on the manifest of a slot.
    Agreement = 2,
    /// Partial decryptions.
    Decryption = 3,
    /// FROST commitments and signature shares.
    Signing = 4,
    /// Certificates, manifests and telemetry that a peer has missed.
    Sync = 5,
    /// Liveness; only the network itself uses it.
    Swim = 6,
    /// Votes to publish a key set on chain.
    Publication = 7,
}

impl Protocol {
    /// All protocols.
    pub const ALL: [Self; 7] = [
        Self::Ceremony,
        Self::Agreement,
        Self::Decryption,
        Self::Signing,
        Self::Sync,
        Self::Swim,
        Self::Publication,
    ];

    /// Name in logs and counters.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ceremony => "ceremony",
            Self::Agreement => "agreement",
            Self::Decryption => "decryption",
            Self::Signing => "signing",
            Self::Sync => "sync",
            Self::Swim => "swim",
            Self::Publication => "publication",
        }
    }

    /// Longest request in bytes, checked before memory is allocated for it.
    #[must_use]
    pub const fn max_request(self) -> usize {
        match self {
            Self::Ceremony => 2 * MIB + 64 * KIB,
            Self::Agreement => MIB + 64 * KIB,
            Self::Decryption => MIB + 128 * KIB,
            Self::Signing | Self::Publication => 8 * KIB,
            Self::Sync => 64 * KIB,
            Self::Swim => SWIM_BYTES,
        }
    }

    /// Longest answer in bytes.
    #[must_use]
    pub const fn max_response(self) -> usize {
        match self {
            Self::Sync => 4 * MIB,
            Self::Swim => 0,
            other => other.max_request(),
        }
    }

    /// Whether only members of the committee speak it.
    pub(crate) const fn is_for_members(self) -> bool {
        !matches!(self, Self::Sync | Self::Swim)
    }

    pub(crate) const fn lane(self) -> Lane {
        match self {
            Self::Swim => Lane::Swim,
            _ => Lane::Bulk,
        }
    }

    pub(crate) fn from_tag(tag: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|protocol| *protocol as u8 == tag)
    }
}

/// The libp2p behaviour that carries a protocol. SWIM has its own: bulk requests must not use up
/// the streams that liveness depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Lane {
    Swim,
    /// All other protocols.
    Bulk,
}

impl Lane {
    /// The label of the metrics for what names no protocol.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Swim => "swim",
            Self::Bulk => "request",
        }
    }
}

/// Longest SWIM message: one answer to a newcomer holds the signed records of some sixty peers, the
/// whole of most clusters. Streams, unlike datagrams, need not fit into a packet.
pub(crate) const SWIM_BYTES: usize = 16 * KIB;

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The name of one cluster in topic and protocol names, 16 bytes in hexadecimal: peers of two
/// clusters have no name in common.
pub(crate) fn scope_tag(scope: &ClusterScope) -> String {
    let parts: [&[u8]; 3] =
        [&scope.chain_id.0.to_le_bytes(), scope.contract.as_bytes(), scope.cluster.as_bytes()];
    let hash = hash_parts(domain::NETWORK_SCOPE, &parts);
    hash[..16].iter().map(|byte| format!("{byte:02x}")).collect()
}
