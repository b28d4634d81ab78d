//! What a node acts on: the chain as of one block.
//!
//! # Flow
//! [`View::read`] reads all that a cluster's contracts say at a block, by its hash: two nodes that name a block mean the
//! same. `veil-node-core` reads the next one with every block that is deep enough, and hands it to whoever acts.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use async_recursion::async_recursion as boxed;
use veil_committee_slot::{demand::AllowedImages, fit::Fit};
use veil_node_chain::{Chain, ChainError, Head, PublishedKey, RegisteredNode, SubmittedJob};
use veil_node_p2p::{Directory, Peer};
use veil_protocol_spec::{
    Address, ClusterId, Committee, KeccakDigest, PeerIdHash, PublicIdentity,
    registry::{Eligibility, Roles, is_light},
    scheduling::{
        BlockRef, ClusterPolicy, JobSpec, Organisation, PolicyError, Profile, Submission, keccak,
    },
};
use veil_scheduler_plan::unfit::{OnChain, Unfit};

/// What the chain says of a cluster as of one block.
#[derive(Clone, Debug)]
pub struct View {
    /// The block.
    pub block: BlockRef,
    /// Its time (Unix, seconds), which periodic jobs go by.
    pub time: u64,
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
    /// Submissions.
    pub submissions: Vec<Submission>,
    /// Images that the cluster runs.
    pub images: AllowedImages,
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
    #[boxed]
    pub async fn read(
        chain: &Chain,
        cluster: ClusterId,
        block: BlockRef,
    ) -> Result<Self, ChainError> {
        let chain = chain.at(block);
        let time = chain.block_time(block).await?;
        let settings = chain.cluster(cluster).await?;
        let policy = chain.cluster_policy(cluster).await?;
        let nodes: BTreeMap<_, _> =
            chain.nodes(cluster).await?.into_iter().map(|node| (node.peer, node)).collect();
        let submissions = chain.jobs(cluster, 0).await?.into_iter().map(|job| {
            let SubmittedJob { position, digest, operator, cancelled, leak_bits } = job;
            Submission { position, job: digest, operator, leak_bits, cancelled }
        });
        let submissions = submissions.collect();
        let rules = match policy.as_slice() {
            [] => Ok(ClusterPolicy::default()),
            policy => ClusterPolicy::parse(policy),
        };
        let signed_only = rules.as_ref().is_ok_and(|rules| rules.image_signatures);
        let images = AllowedImages::new(chain.allowed_images(cluster).await?, signed_only);
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
            time,
            committee: settings.committee,
            policy: keccak(&policy),
            rules,
            slot_interval: Duration::from_millis(settings.slot_millis),
            nodes,
            submissions,
            images,
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

    /// The organisations of an account: those of the nodes that it has registered, strictly ascending.
    #[must_use]
    pub fn organisations_of(&self, account: &Address) -> Vec<Organisation> {
        let own = self.nodes.values().filter(|node| node.operator == *account);
        own.filter_map(|node| node.organisation.clone())
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect()
    }

    /// Whether a worker that says this of itself may run a system job; `None` if it has said nothing here.
    #[must_use]
    pub fn fit(&self, job: &JobSpec, worker: &PeerIdHash, profile: Option<&Profile>) -> Fit {
        let node = self.nodes.get(worker).filter(|node| node.roles.worker);
        let (Some(node), Some(profile)) = (node, profile) else {
            return if node.is_none() { Fit::Gone } else { Fit::Silent };
        };
        let by_organisation = profile.accepts.organisations.is_some();
        let submitter = by_organisation.then(|| self.organisations_of(&job.operator));
        let submitter = &submitter.unwrap_or_default();
        let organisation = node.organisation.as_ref();
        let chain = OnChain { labels: &node.labels, organisation, submitter };
        let is_closed = node.eligibility != Eligibility::Eligible;
        Fit::of(Unfit::of(job, chain, profile), is_closed)
    }

    /// Workers that are given nothing more.
    #[must_use]
    pub fn closed(&self) -> BTreeSet<PeerIdHash> {
        self.which(|eligibility| eligibility != Eligibility::Eligible)
    }

    /// Those of them whose replicas go to others.
    #[must_use]
    pub fn draining(&self) -> BTreeSet<PeerIdHash> {
        self.which(|eligibility| eligibility == Eligibility::Draining)
    }

    /// The operators of registered workers.
    #[must_use]
    pub fn owners(&self) -> BTreeMap<PeerIdHash, Address> {
        let workers = self.nodes.values().filter(|node| node.roles.worker);
        workers.map(|node| (node.peer, node.operator)).collect()
    }

    fn which(&self, is: impl Fn(Eligibility) -> bool) -> BTreeSet<PeerIdHash> {
        let workers = self.nodes.values().filter(|node| node.roles.worker);
        workers.filter(|node| is(node.eligibility)).map(|node| node.peer).collect()
    }

    /// Workers that may be drawn as auditors: "workers are auditors unless they register as light". Who has
    /// a seat in the committee evaluates every slot anyway.
    #[must_use]
    pub fn full_workers(&self) -> BTreeSet<PeerIdHash> {
        full(self.nodes.values(), &self.roster)
    }

    /// Peers that may connect: the registered nodes, and the committee of the key in force. A member that
    /// leaves the registry keeps its seat until its epoch ends, and must be reached until then.
    #[must_use]
    pub fn directory(&self) -> Directory {
        peers(self.nodes.values().map(|node| (node.identity, node.roles)), &self.roster)
    }

    /// The members' peers: the committee of the key in force, and those that are registered for the next.
    #[must_use]
    pub fn members(&self) -> BTreeSet<PeerIdHash> {
        let directory = self.directory();
        directory.iter().filter(|(_, peer)| peer.roles.member).map(|(peer, _)| *peer).collect()
    }
}

fn full<'a>(
    nodes: impl Iterator<Item = &'a RegisteredNode>,
    roster: &[PublicIdentity],
) -> BTreeSet<PeerIdHash> {
    let workers = nodes.filter(|node| node.roles.worker && !is_light(&node.labels));
    workers.filter(|node| !roster.contains(&node.identity)).map(|node| node.peer).collect()
}

fn peers(
    registered: impl Iterator<Item = (PublicIdentity, Roles)>,
    roster: &[PublicIdentity],
) -> Directory {
    let mut roles: BTreeMap<PublicIdentity, Roles> = registered.collect();
    for member in roster {
        roles.entry(*member).or_default().member = true;
    }
    roles.into_iter().map(|(identity, roles)| Peer { identity, roles }).collect()
}

#[cfg(test)]
mod tests {
    use veil_protocol_spec::registry::LIGHT_LABEL;

    use super::*;

    #[test]
    fn a_member_that_left_the_registry_is_reached_while_its_key_is_in_force() {
        let id = |byte| PublicIdentity([byte; 33]);
        let (worker, member) =
            (Roles { worker: true, member: false }, Roles { worker: false, member: true });
        let registered = [(id(1), worker), (id(2), member), (id(3), worker)];
        let directory = peers(registered.into_iter(), &[id(2), id(3), id(4)]);
        let roles = |byte| directory.get(&PeerIdHash::of(&id(byte))).map(|peer| peer.roles);
        assert_eq!(roles(1), Some(worker));
        assert_eq!(roles(2), Some(member));
        assert_eq!(roles(3), Some(Roles { worker: true, member: true }));
        assert_eq!(roles(4), Some(member), "it has left, and keeps its seat");
        assert_eq!(roles(5), None);
    }

    #[test]
    fn light_workers_and_members_are_not_drawn_as_auditors() {
        let node = |byte, worker, labels: &[&str]| {
            let identity = PublicIdentity([byte; 33]);
            RegisteredNode {
                peer: PeerIdHash::of(&identity),
                identity,
                roles: Roles { worker, member: !worker },
                operator: Address([byte; 20]),
                organisation: None,
                labels: labels.iter().map(|label| label.parse().unwrap()).collect(),
                position: 0,
                stake: 0,
                eligibility: Eligibility::Eligible,
                seat: None,
                drain_deadline: None,
            }
        };
        let nodes = [
            node(1, true, &["zone=eu"]),
            node(2, true, &["zone=eu", LIGHT_LABEL]),
            node(3, false, &[]),
            node(4, true, &[]),
        ];
        let drawn = full(nodes.iter(), &[nodes[3].identity]);
        assert_eq!(drawn, [nodes[0].peer].into());
    }
}
