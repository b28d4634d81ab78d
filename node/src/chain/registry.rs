//! Clusters and nodes.

use alloy::primitives::{B256, U256};
use veil_contracts::node_registry::{
    INodeRegistry::{Node, Registration},
    IVeilContract::{CompactSignature, Point},
    NodeRegistry::{self, NodeRegistryInstance},
};
use veil_protocol_spec::{
    Address, ClusterId, Committee, ParticipantIndex, PeerIdHash, PublicIdentity,
    identity::SecretIdentity, scheduling::Label,
};

use super::{
    Chain, ChainError, Cluster, ClusterSettings, Mined, NodeRegistration, RegisteredNode, Rights,
    connection::evm,
    typed::{Coordinates, compact, labels_text, organisation_word, registration_digest},
    types::{role_bits, roles_of},
};

type Contract = NodeRegistryInstance<alloy::providers::DynProvider>;

/// Nodes read in one call.
const PAGE: u32 = 64;

impl Chain {
    fn registry(&self) -> Contract {
        NodeRegistry::new(evm(self.contracts.node_registry), self.rpc.provider.clone())
    }

    /// Registers a cluster of which this account is the admin.
    ///
    /// # Errors
    /// [`ChainError`].
    pub async fn register_cluster(
        &self,
        settings: &ClusterSettings,
    ) -> Result<ClusterId, ChainError> {
        let contract = self.registry();
        let request = contract
            .registerCluster(
                settings.salt.into(),
                u8::from(settings.committee),
                settings.open_to_workers,
                settings.slot_millis,
                settings.policy.clone().into(),
            )
            .into_transaction_request();
        self.send("the registration of a cluster", request).await?;
        let admin = self.account().ok_or(ChainError::NoAccount)?;
        self.cluster_id(admin, settings.salt).await
    }

    /// The id of the cluster that `admin` registered, or would register, under `salt`.
    ///
    /// # Errors
    /// [`ChainError`].
    pub async fn cluster_id(
        &self,
        admin: Address,
        salt: [u8; 32],
    ) -> Result<ClusterId, ChainError> {
        let contract = self.registry();
        let call = || async { contract.clusterId(evm(admin), salt.into()).call().await };
        Ok(ClusterId(self.rpc.call("a cluster's id", call).await?.0))
    }

    /// What a cluster was registered with.
    ///
    /// # Errors
    /// [`ChainError`].
    pub async fn cluster(&self, cluster: ClusterId) -> Result<Cluster, ChainError> {
        let contract = self.registry();
        let call =
            || async { contract.clusterOf(cluster.0.into()).call().block(self.rpc.at).await };
        let found = self.rpc.call("the cluster", call).await?;
        let committee = Committee::new(found.committeeSize)
            .map_err(|_| ChainError::Unexpected("a committee of another size"))?;
        Ok(Cluster {
            admin: Address(found.admin.0.0),
            committee,
            open_to_workers: found.openToWorkers,
            slot_millis: found.slotMillis,
        })
    }

    /// The cluster's policy; manifests name its Keccak-256.
    ///
    /// # Errors
    /// [`ChainError`].
    pub async fn cluster_policy(&self, cluster: ClusterId) -> Result<Vec<u8>, ChainError> {
        let contract = self.registry();
        let call = || async {
            contract.getClusterPolicy(cluster.0.into()).call().block(self.rpc.at).await
        };
        Ok(self.rpc.call("the cluster's policy", call).await?.to_vec())
    }

    /// Replaces the policy; the admin's.
    ///
    /// # Errors
    /// [`ChainError`].
    pub async fn set_cluster_policy(
        &self,
        cluster: ClusterId,
        policy: &[u8],
    ) -> Result<Mined, ChainError> {
        let policy = policy.to_vec().into();
        let request =
            self.registry().setClusterPolicy(cluster.0.into(), policy).into_transaction_request();
        Ok(Mined::from_receipt(&self.send("the change of the policy", request).await?))
    }

    /// Says what an account may do in the cluster; the admin's.
    ///
    /// # Errors
    /// [`ChainError`].
    pub async fn set_rights(
        &self,
        cluster: ClusterId,
        account: Address,
        rights: Rights,
    ) -> Result<Mined, ChainError> {
        let request = self
            .registry()
            .setRights(cluster.0.into(), evm(account), rights.0)
            .into_transaction_request();
        Ok(Mined::from_receipt(&self.send("the change of rights", request).await?))
    }

    /// What an account may do in the cluster; the admin may do everything.
    ///
    /// # Errors
    /// [`ChainError`].
    pub async fn rights(&self, cluster: ClusterId, account: Address) -> Result<Rights, ChainError> {
        let contract = self.registry();
        let call = || async { contract.rightsOf(cluster.0.into(), evm(account)).call().await };
        Ok(Rights(self.rpc.call("an account's rights", call).await?))
    }

    /// Admits a peer under an operator's account to the clusters of which this account is the
    /// admin (`registerNode` of the contract). The operator then registers it.
    ///
    /// # Errors
    /// [`ChainError`].
    pub async fn approve_node(
        &self,
        peer: PeerIdHash,
        operator: Address,
    ) -> Result<Mined, ChainError> {
        let request =
            self.registry().registerNode(peer.0.into(), evm(operator)).into_transaction_request();
        Ok(Mined::from_receipt(&self.send("the admission of a node", request).await?))
    }

    /// Registers a node of this account, proving possession of its identity.
    ///
    /// # Errors
    /// [`ChainError`].
    pub async fn register_node(
        &self,
        registration: &NodeRegistration,
        identity: &SecretIdentity,
    ) -> Result<Mined, ChainError> {
        let operator = self.account().ok_or(ChainError::NoAccount)?;
        if registration.organisation.len() > 32 || !registration.organisation.is_ascii() {
            return Err(ChainError::Organisation);
        }
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
            organisation: organisation_word(&registration.organisation),
            labels: labels_text(registration),
        };
        let request =
            contract.register(message, CompactSignature { r, vs }).into_transaction_request();
        Ok(Mined::from_receipt(&self.send("the registration of a node", request).await?))
    }

    /// Takes a node out of the cluster; its operator's or the admin's.
    ///
    /// # Errors
    /// [`ChainError`].
    pub async fn deregister_node(
        &self,
        cluster: ClusterId,
        peer: PeerIdHash,
    ) -> Result<Mined, ChainError> {
        let request =
            self.registry().deregister(cluster.0.into(), peer.0.into()).into_transaction_request();
        Ok(Mined::from_receipt(&self.send("the deregistration of a node", request).await?))
    }

    /// The cluster's nodes in the order of registration. Pages are of one block each, so that a
    /// list longer than a page may mix two states.
    ///
    /// # Errors
    /// [`ChainError`].
    pub async fn nodes(&self, cluster: ClusterId) -> Result<Vec<RegisteredNode>, ChainError> {
        let n = self.cluster(cluster).await?.committee;
        let contract = self.registry();
        let (mut nodes, mut from) = (Vec::new(), 0);
        let mut seats = n.participants();
        loop {
            let call = || async {
                contract.nodes(cluster.0.into(), from, PAGE).call().block(self.rpc.at).await
            };
            let found = self.rpc.call("the cluster's nodes", call).await?;
            for node in &found.page {
                nodes.push(registered(node, &mut seats)?);
            }
            if found.next == 0 {
                return Ok(nodes);
            }
            from = found.next;
        }
    }

    /// One node, or none if the peer is not registered in the cluster.
    ///
    /// # Errors
    /// [`ChainError`].
    pub async fn node(
        &self,
        cluster: ClusterId,
        peer: PeerIdHash,
    ) -> Result<Option<RegisteredNode>, ChainError> {
        Ok(self.nodes(cluster).await?.into_iter().find(|node| node.peer == peer))
    }

    /// What an account owns, in wei.
    ///
    /// # Errors
    /// [`ChainError`].
    pub async fn balance(&self, account: Address) -> Result<U256, ChainError> {
        use alloy::providers::Provider;
        let address = evm(account);
        self.rpc.ask("a balance", || self.rpc.provider.get_balance(address)).await
    }
}

fn registered(
    node: &Node,
    seats: &mut impl Iterator<Item = ParticipantIndex>,
) -> Result<RegisteredNode, ChainError> {
    let identity: [u8; 33] = node
        .identity
        .as_ref()
        .try_into()
        .map_err(|_| ChainError::Unexpected("an identity of another length"))?;
    let roles = roles_of(node.roles);
    // Labels are an operator's text: what is no label is left out, not refused.
    let labels = node.labels.split(',').filter_map(|label| label.parse::<Label>().ok()).collect();
    let organisation = node.organisation.iter().take_while(|byte| **byte != 0);
    Ok(RegisteredNode {
        peer: PeerIdHash(node.peer.0),
        identity: PublicIdentity(identity),
        roles,
        operator: Address(node.operator.0.0),
        organisation: organisation
            .map(|byte| if byte.is_ascii_graphic() { char::from(*byte) } else { '?' })
            .collect(),
        labels,
        position: node.position,
        seat: if roles.member { seats.next() } else { None },
    })
}
