//! Clusters and nodes.

use alloy::{
    primitives::{B256, U256, aliases::U96},
    providers::{Provider, RootProvider},
};
use async_recursion::async_recursion as boxed;
use veil_contracts::node_registry::{
    INodeRegistry::{Node, Registration, Settings},
    IVeilContract::{CompactSignature, Point},
    NodeRegistry::{self, NodeRegistryErrors, NodeRegistryInstance},
};
use veil_node_chain_refusal::{
    Refusal,
    forms::{role_bits, roles_of},
};
use veil_protocol_spec::{
    Address, ClusterId, Committee, ParticipantIndex, PeerIdHash, PublicIdentity,
    election::OrganisationTag, identity::SecretIdentity, registry::Eligibility,
    scheduling::BlockRef,
};

use crate::{
    address::{address, evm, organisation_word},
    connection::Chain,
    error::ChainError,
    point::{Coordinates, compact},
    registrations::ClusterRegistrations,
    rpc::reference,
    typed::{labels_text, registration_digest},
    types::{Cluster, ClusterSettings, Mined, NodeRegistration, RegisteredNode},
};

type Contract = NodeRegistryInstance<RootProvider>;

/// Nodes that one call reads.
const NODES_PER_CALL: u32 = 64;

impl Chain {
    pub(crate) fn registry(&self) -> Contract {
        NodeRegistry::new(evm(self.contracts.node_registry), self.rpc.provider.clone())
    }

    /// Registers a cluster of which this account becomes the admin, and uploads its policy. If an earlier
    /// call with the same settings was interrupted, this one does the rest.
    ///
    /// # Errors
    /// [`ChainError`].
    #[boxed]
    pub async fn register_cluster(
        &self,
        settings: &ClusterSettings,
    ) -> Result<ClusterId, ChainError> {
        let admin = self.account().ok_or(ChainError::NoAccount)?;
        let cluster = self.cluster_id(admin, settings.salt).await?;
        if !self.lacks_only_policy(cluster, settings).await? {
            let wanted = Settings {
                committeeSize: u8::from(settings.committee),
                standbys: settings.standbys,
                seatsPerOrganisation: settings.seats_per_organisation,
                openToWorkers: settings.open_to_workers,
                elected: settings.elected,
                slotMillis: settings.slot_millis,
                memberStake: U96::saturating_from(settings.member_stake),
                wideningDelay: settings.widening_delay,
            };
            let request = self
                .registry()
                .registerCluster(settings.salt.into(), wanted)
                .into_transaction_request();
            self.send("the registration of a cluster", request).await?;
        }
        if !settings.policy.is_empty() {
            self.set_cluster_policy(cluster, &settings.policy).await?;
        }
        Ok(cluster)
    }

    /// Whether the cluster is registered with these settings and lacks only its policy.
    async fn lacks_only_policy(
        &self,
        cluster: ClusterId,
        settings: &ClusterSettings,
    ) -> Result<bool, ChainError> {
        let found = match self.cluster(cluster).await {
            Ok(found) => found,
            Err(ChainError::Refused(Refusal::Registry(NodeRegistryErrors::UnknownCluster(_)))) => {
                return Ok(false);
            }
            Err(error) => return Err(error),
        };
        let same = found.committee == settings.committee
            && found.standbys == settings.standbys
            && found.seats_per_organisation == settings.seats_per_organisation
            && found.open_to_workers == settings.open_to_workers
            && found.elected == settings.elected
            && found.slot_millis == settings.slot_millis
            && found.member_stake == settings.member_stake
            && found.widening_delay == settings.widening_delay;
        let without_policy = self.cluster_policy(cluster).await?.is_empty();
        Ok(same && without_policy && !settings.policy.is_empty())
    }

    /// The id of the cluster that `admin` registered, or would register, under `salt`.
    ///
    /// # Errors
    /// [`ChainError`].
    #[boxed]
    pub async fn cluster_id(
        &self,
        admin: Address,
        salt: [u8; 32],
    ) -> Result<ClusterId, ChainError> {
        let contract = self.registry();
        let call = || async { contract.clusterId(evm(admin), salt.into()).call().await };
        Ok(ClusterId(self.rpc.call("a cluster's id", call).await?.0))
    }

    /// A cluster's settings and its admin.
    ///
    /// # Errors
    /// [`ChainError`].
    #[boxed]
    pub async fn cluster(&self, cluster: ClusterId) -> Result<Cluster, ChainError> {
        let contract = self.registry();
        let call =
            || async { contract.clusterOf(cluster.0.into()).call().block(self.rpc.at).await };
        let found = self.rpc.call("the cluster", call).await?;
        let committee = Committee::new(found.committeeSize)
            .map_err(|_| ChainError::Unexpected("a committee of another size"))?;
        Ok(Cluster {
            admin: address(found.admin),
            committee,
            standbys: found.standbys,
            seats_per_organisation: found.seatsPerOrganisation,
            open_to_workers: found.openToWorkers,
            elected: found.elected,
            slot_millis: found.slotMillis,
            member_stake: found.memberStake.saturating_to(),
            widening_delay: found.wideningDelay,
        })
    }

    /// Registers a node of this account, proving possession of its identity.
    ///
    /// # Errors
    /// [`ChainError`].
    #[boxed]
    pub async fn register_node(
        &self,
        registration: &NodeRegistration,
        identity: &SecretIdentity,
    ) -> Result<Mined, ChainError> {
        let operator = self.account().ok_or(ChainError::NoAccount)?;
        let (cluster, public) = (registration.cluster, identity.public());
        let contract = self.registry();
        let peer = B256::from(PeerIdHash::of(&public).0);
        let nonce = self
            .rpc
            .call("the registration's nonce", || async {
                contract.registrations(cluster.0.into(), peer).call().await
            })
            .await?;
        let scope = self.scope(cluster);
        let digest = registration_digest(&scope, registration, &public, &operator, nonce);
        let (r, vs) = compact(&public, &digest, &identity.sign(&digest))?;
        let Coordinates { x, y } = Coordinates::of(&public)?;
        let message = Registration {
            cluster: cluster.0.into(),
            identity: Point { x, y },
            roles: role_bits(registration.roles),
            organisation: organisation_word(registration.organisation.as_ref()),
            labels: labels_text(registration),
        };
        let request = contract
            .register(message, CompactSignature { r, vs })
            .value(U256::from(registration.stake))
            .into_transaction_request();
        self.transact("the registration of a node", request).await
    }

    /// Adds to a node's stake, in wei; only its operator may.
    ///
    /// # Errors
    /// [`ChainError`].
    #[boxed]
    pub async fn increase_stake(
        &self,
        cluster: ClusterId,
        peer: PeerIdHash,
        stake: u128,
    ) -> Result<Mined, ChainError> {
        let request = self
            .registry()
            .increaseStake(cluster.0.into(), peer.0.into())
            .value(U256::from(stake))
            .into_transaction_request();
        self.transact("the increase of a stake", request).await
    }

    /// Says what a worker is given from now on; only its operator and the admin may. One that is drained stops what
    /// is left at `deadline`, in Unix seconds.
    ///
    /// # Errors
    /// [`ChainError`].
    #[boxed]
    pub async fn set_eligibility(
        &self,
        cluster: ClusterId,
        peer: PeerIdHash,
        eligibility: Eligibility,
        deadline: Option<u64>,
    ) -> Result<Mined, ChainError> {
        let number = match eligibility {
            Eligibility::Eligible => 0,
            Eligibility::Ineligible => 1,
            Eligibility::Draining => 2,
        };
        let request = self
            .registry()
            .setEligibility(cluster.0.into(), peer.0.into(), number, deadline.unwrap_or(0))
            .into_transaction_request();
        self.transact("the eligibility of a worker", request).await
    }

    /// Takes a node out of the cluster; only its operator and the admin may. Its stake enters the exit
    /// queue. A member of an elected cluster the admin takes out in two calls, two epochs apart; whether the node
    /// is still there, [`Self::node`] says.
    ///
    /// # Errors
    /// [`ChainError`].
    #[boxed]
    pub async fn exit_node(
        &self,
        cluster: ClusterId,
        peer: PeerIdHash,
    ) -> Result<Mined, ChainError> {
        let request =
            self.registry().requestExit(cluster.0.into(), peer.0.into()).into_transaction_request();
        self.transact("the exit of a node", request).await
    }

    /// Pays the stake of a node that left to its withdrawal address, or its operator, once it can no longer be
    /// slashed.
    ///
    /// # Errors
    /// [`ChainError`].
    #[boxed]
    pub async fn withdraw_stake(
        &self,
        cluster: ClusterId,
        peer: PeerIdHash,
    ) -> Result<Mined, ChainError> {
        let request =
            self.registry().withdraw(cluster.0.into(), peer.0.into()).into_transaction_request();
        self.transact("the withdrawal of a stake", request).await
    }

    /// Says where the stake of a node goes when it is paid. Its operator may, once; then only that address.
    ///
    /// # Errors
    /// [`ChainError`].
    #[boxed]
    pub async fn set_withdrawal_address(
        &self,
        cluster: ClusterId,
        peer: PeerIdHash,
        to: Address,
    ) -> Result<Mined, ChainError> {
        let request = self
            .registry()
            .setWithdrawalAddress(cluster.0.into(), peer.0.into(), evm(to))
            .into_transaction_request();
        self.transact("the withdrawal address of a stake", request).await
    }

    /// Proposes another admin of the cluster, who has to accept; nobody to withdraw that. Only the admin may.
    ///
    /// # Errors
    /// [`ChainError`].
    #[boxed]
    pub async fn transfer_admin(
        &self,
        cluster: ClusterId,
        to: Option<Address>,
    ) -> Result<Mined, ChainError> {
        let to = evm(to.unwrap_or(Address([0; 20])));
        let request =
            self.registry().transferAdmin(cluster.0.into(), to).into_transaction_request();
        self.transact("the transfer of a cluster", request).await
    }

    /// Takes the place of the admin, who has proposed this account.
    ///
    /// # Errors
    /// [`ChainError`].
    #[boxed]
    pub async fn accept_admin(&self, cluster: ClusterId) -> Result<Mined, ChainError> {
        let request = self.registry().acceptAdmin(cluster.0.into()).into_transaction_request();
        self.transact("the transfer of a cluster", request).await
    }

    /// The cluster's nodes, members first, each in the order of the registry's lists; all as of one block.
    ///
    /// # Errors
    /// [`ChainError`].
    #[boxed]
    pub async fn nodes(&self, cluster: ClusterId) -> Result<Vec<RegisteredNode>, ChainError> {
        let Some(block) = self.rpc.at_block else {
            let last = reference(&self.rpc.latest().await?);
            return Box::pin(self.at(last).nodes(cluster)).await;
        };
        let settings = self.cluster(cluster).await?;
        let known = self.registrations(cluster, block).await?;
        let contract = self.registry();
        let mut seats =
            settings.committee.participants().take(if settings.elected { 0 } else { usize::MAX });
        let mut nodes = Vec::new();
        for members in [true, false] {
            let mut from = 0;
            loop {
                let call = || async {
                    let page = contract.nodes(cluster.0.into(), members, from, NODES_PER_CALL);
                    page.call().block(self.rpc.at).await
                };
                let found = self.rpc.call("the cluster's nodes", call).await?;
                for node in &found.page {
                    nodes.push(registered(node, &known, &mut seats)?);
                }
                if found.next == 0 {
                    break;
                }
                from = found.next;
            }
        }
        Ok(nodes)
    }

    /// One node, or none if the peer is not registered in the cluster.
    ///
    /// # Errors
    /// [`ChainError`].
    #[boxed]
    pub async fn node(
        &self,
        cluster: ClusterId,
        peer: PeerIdHash,
    ) -> Result<Option<RegisteredNode>, ChainError> {
        Ok(self.nodes(cluster).await?.into_iter().find(|node| node.peer == peer))
    }

    /// An account's balance, in wei.
    ///
    /// # Errors
    /// [`ChainError`].
    #[boxed]
    pub async fn balance(&self, account: Address) -> Result<U256, ChainError> {
        let owner = evm(account);
        self.rpc.ask("a balance", || self.rpc.provider.get_balance(owner)).await
    }

    /// Keys of peers that are registered or once were, in the same order.
    ///
    /// # Errors
    /// [`ChainError`]; `Unexpected` if one never was.
    #[boxed]
    pub async fn identities(
        &self,
        cluster: ClusterId,
        peers: &[PeerIdHash],
    ) -> Result<Vec<PublicIdentity>, ChainError> {
        let block = match self.rpc.at_block {
            Some(block) => block,
            None => reference(&self.rpc.latest().await?),
        };
        let known = self.registrations(cluster, block).await?;
        let keys: Option<Vec<_>> = peers.iter().map(|peer| known.key(peer)).collect();
        keys.ok_or(ChainError::Unexpected("a member that was never registered"))
    }

    async fn registrations(
        &self,
        cluster: ClusterId,
        block: BlockRef,
    ) -> Result<ClusterRegistrations, ChainError> {
        self.registrations.up_to(&self.rpc, self.contracts.node_registry, cluster, block).await
    }
}

fn registered(
    node: &Node,
    known: &ClusterRegistrations,
    seats: &mut impl Iterator<Item = ParticipantIndex>,
) -> Result<RegisteredNode, ChainError> {
    let (peer, roles) = (PeerIdHash(node.peer.0), roles_of(node.roles));
    let stated = known
        .of(peer, node.registration)
        .ok_or(ChainError::Unexpected("a node without the event of its registration"))?;
    Ok(RegisteredNode {
        peer,
        identity: stated.identity,
        roles,
        operator: address(node.operator),
        // Of the event only what the contract stores a hash of.
        organisation: stated.organisation.clone().filter(|name| {
            let word = organisation_word(Some(name));
            OrganisationTag::of(&word.0).0 == node.organisationTag.0
        }),
        labels: stated.labels.clone(),
        position: node.position,
        stake: node.stake.saturating_to(),
        eligibility: match node.eligibility {
            0 => Eligibility::Eligible,
            1 => Eligibility::Ineligible,
            2 => Eligibility::Draining,
            _ => return Err(ChainError::Unexpected("another eligibility of a node")),
        },
        seat: if roles.member { seats.next() } else { None },
        drain_deadline: (node.drainDeadline > 0).then_some(node.drainDeadline),
    })
}
