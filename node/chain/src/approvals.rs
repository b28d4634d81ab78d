//! Whom a cluster's admin admits, and as what.

use async_recursion::async_recursion as boxed;
use veil_contracts::node_registry::INodeRegistry::Approval;
use veil_node_chain_refusal::forms::{organisation, role_bits, roles_of};
use veil_protocol_spec::{Address, ClusterId, PeerIdHash};

use crate::{
    address::{address, evm, organisation_word},
    connection::Chain,
    error::ChainError,
    types::{Mined, NodeApproval},
};

impl Chain {
    /// Admits a peer, under an operator's account, to a cluster of which this account is the admin. The
    /// operator then registers it, in these roles and of this organisation, once.
    ///
    /// # Errors
    /// [`ChainError`].
    #[boxed]
    pub async fn approve_node(
        &self,
        cluster: ClusterId,
        peer: PeerIdHash,
        approval: &NodeApproval,
    ) -> Result<Mined, ChainError> {
        let given = Approval {
            operator: evm(approval.operator),
            roles: role_bits(approval.roles),
            validUntil: approval.valid_until,
            organisation: organisation_word(approval.organisation.as_ref()),
        };
        let request = self
            .registry()
            .approve(cluster.0.into(), peer.0.into(), given)
            .into_transaction_request();
        self.transact("the approval of a node", request).await
    }

    /// Makes what was approved, and not used, void.
    ///
    /// # Errors
    /// [`ChainError`].
    #[boxed]
    pub async fn withdraw_approval(
        &self,
        cluster: ClusterId,
        peer: PeerIdHash,
    ) -> Result<Mined, ChainError> {
        let request = self
            .registry()
            .withdrawApproval(cluster.0.into(), peer.0.into())
            .into_transaction_request();
        self.transact("the withdrawal of an approval", request).await
    }

    /// What is approved of a peer and not used yet, though its time may be over.
    ///
    /// # Errors
    /// [`ChainError`].
    #[boxed]
    pub async fn approval(
        &self,
        cluster: ClusterId,
        peer: PeerIdHash,
    ) -> Result<Option<NodeApproval>, ChainError> {
        let contract = self.registry();
        let call = || async { contract.approvalOf(cluster.0.into(), peer.0.into()).call().await };
        let found = self.rpc.call("an approval", call).await?;
        let operator = address(found.operator);
        Ok((operator != Address([0; 20])).then(|| NodeApproval {
            operator,
            roles: roles_of(found.roles),
            organisation: organisation(&found.organisation),
            valid_until: found.validUntil,
        }))
    }
}
