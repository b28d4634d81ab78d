//! What a node acts on: the chain as of one block.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use veil_node_chain::{Chain, ChainError, Head, PublishedKey, RegisteredNode};
use veil_node_p2p::{Directory, Peer};
use veil_protocol_spec::{
    Address, ClusterId, Committee, KeccakDigest, PeerIdHash, PublicIdentity,
    scheduling::{BlockRef, ClusterPolicy, PolicyError, Submission, keccak},
};

/// What the chain says of a cluster as of one block.
#[derive(Clone, Debug)]
pub struct View {
    /// The block.
    pub block: BlockRef,
    /// Size of the committee.
    pub committee: Committee,
    /// Digest of the cluster's policy.
    pub policy: KeccakDigest,
    /// The policy; the default before the cluster has one, an error if it is of another build's form.
    pub rules: Result<ClusterPolicy, PolicyError>,
    /// Longest time between slots while work is pending.
    pub slot_interval: Duration,
    /// Registered nodes.
    pub nodes: BTreeMap<PeerIdHash, RegisteredNode>,
    /// Submissions and who made them.
    pub submissions: Vec<(Submission, Address)>,
    /// The certificate anchored last, if there is one.
    pub head: Option<Head>,
    /// The key in force, if there is one.
    pub key: Option<PublishedKey>,
    /// Identities of the key's committee, participant 1 first.
    pub roster: Vec<PublicIdentity>,
}

impl View {
    /// Reads all of it at `block`.
    ///
    /// # Errors
    /// [`ChainError`].
    pub async fn read(
        chain: &Chain,
        cluster: ClusterId,
        block: BlockRef,
    ) -> Result<Self, ChainError> {
        let chain = chain.at(block);
        let settings = chain.cluster(cluster).await?;
        let policy = chain.cluster_policy(cluster).await?;
        let nodes: BTreeMap<_, _> =
            chain.nodes(cluster).await?.into_iter().map(|node| (node.peer, node)).collect();
        let submissions = chain.jobs(cluster, 0).await?.into_iter().map(|job| {
            let (position, cancelled) = (job.position, job.cancelled);
            (Submission { position, job: job.digest, cancelled }, job.operator)
        });
        let submissions = submissions.collect();
        let head = chain.head(cluster).await?;
        let key = chain.current_key(cluster).await?;
        let mut roster = Vec::new();
        if let Some(key) = &key {
            let attempt = chain.ceremony_attempt(cluster, key.epoch, key.attempt).await?;
            let seats = attempt.map(|attempt| attempt.roster).unwrap_or_default();
            // Also of members that left the registry since.
            roster = chain.identities(cluster, &seats).await?;
        }
        Ok(Self {
            block,
            committee: settings.committee,
            policy: keccak(&policy),
            rules: match policy.as_slice() {
                [] => Ok(ClusterPolicy::default()),
                policy => ClusterPolicy::parse(policy),
            },
            slot_interval: Duration::from_millis(settings.slot_millis),
            nodes,
            submissions,
            head,
            key,
            roster,
        })
    }

    /// The policy, or the default instead of one that this build cannot read.
    #[must_use]
    pub fn rules_or_default(&self) -> ClusterPolicy {
        self.rules.as_ref().copied().unwrap_or_default()
    }

    /// Registered workers.
    #[must_use]
    pub fn workers(&self) -> BTreeSet<PeerIdHash> {
        let workers = self.nodes.values().filter(|node| node.roles.worker);
        workers.map(|node| node.peer).collect()
    }

    pub(super) fn directory(&self) -> Directory {
        let peers =
            self.nodes.values().map(|node| Peer { identity: node.identity, roles: node.roles });
        peers.collect()
    }
}
