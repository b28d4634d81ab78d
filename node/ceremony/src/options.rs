//! A member and what it is told.

use std::{sync::Arc, time::Duration};

use veil_committee::frost::{self, SigningSchedule};
use veil_keygen_ceremony::setup::Timing;
use veil_node_driver::{AnyTransports, Transports};
use veil_node_storage::{data_dir::DataDir, keystore::Passphrase};
use veil_protocol_spec::{domain, identity::SecretIdentity, scheduling::ClusterScope};

use crate::{commit_point::CommitPointChain, status::CeremonyProgress};

/// How long a member waits for what.
#[derive(Clone, Copy, Debug)]
pub struct CeremonyTiming {
    /// Of the ceremony's machine: rounds, and before it asks again.
    pub machine: Timing,
    /// For everybody's answer to the pre-flight questions.
    pub preflight: Duration,
    /// Between two looks at the chain.
    pub poll: Duration,
    /// Between the members' turns to publish.
    pub publish_backoff: Duration,
    /// Of the proof of possession.
    pub signing: SigningSchedule,
    /// For the last messages to get out at the end.
    pub drain: Duration,
    /// For the next attempt to be proposed after one has failed.
    pub next_attempt: Duration,
}

impl Default for CeremonyTiming {
    fn default() -> Self {
        Self {
            machine: Timing { round: 900_000, retry: 5_000 },
            preflight: Duration::from_secs(300),
            poll: Duration::from_secs(2),
            publish_backoff: Duration::from_secs(10),
            signing: SigningSchedule {
                rotation: 10_000,
                timing: frost::Timing { commit: 10_000, share: 10_000, max_attempts: 8 },
                restarts: 0,
            },
            drain: Duration::from_secs(10),
            next_attempt: Duration::from_secs(600),
        }
    }
}

/// What a member is told.
#[derive(Clone, Debug)]
pub struct MemberOptions {
    /// The member's key.
    pub identity: SecretIdentity,
    /// Encrypts what is secret on disk.
    pub passphrase: Passphrase,
    /// Chain, contract and cluster.
    pub scope: ClusterScope,
    /// Name of the FHE parameter set that this member takes part with, and no other.
    pub parameters: String,
    /// How long it waits for what.
    pub timing: CeremonyTiming,
}

/// A member, ready to take part.
pub struct Member<T: Transports = AnyTransports> {
    /// What it was told.
    pub options: MemberOptions,
    /// Its data directory, locked.
    pub data: Arc<DataDir>,
    /// The network.
    pub transports: T,
    /// The chain.
    pub chain: Arc<dyn CommitPointChain>,
    /// Shows how far it is.
    pub status: CeremonyProgress,
}

impl<T: Transports> Member<T> {
    /// The same member, over transports of whatever kind.
    pub(crate) fn over_any(&self) -> Member {
        Member {
            options: self.options.clone(),
            data: Arc::clone(&self.data),
            transports: AnyTransports::new(self.transports.clone()),
            chain: Arc::clone(&self.chain),
            status: self.status.clone(),
        }
    }
}

/// What ties a ceremony's messages to one deployment.
#[must_use]
pub fn ceremony_context(scope: &ClusterScope) -> [u8; 32] {
    let parts: [&[u8]; 3] =
        [&scope.chain_id.0.to_le_bytes(), scope.contract.as_bytes(), scope.cluster.as_bytes()];
    domain::hash_parts(domain::CEREMONY_CONTEXT, &parts)
}
