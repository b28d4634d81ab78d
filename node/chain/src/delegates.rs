//! Keys that submit and cancel jobs for an operator.

use std::time::{SystemTime, UNIX_EPOCH};

use async_recursion::async_recursion as boxed;
use veil_contracts::job_board::IJobBoard;
use veil_protocol_spec::{Address, ClusterId, registry::Delegation};

use crate::{
    address::{address, evm},
    connection::Chain,
    error::ChainError,
    types::{DelegatedKey, Mined},
};

impl Chain {
    /// Lets another key submit and cancel jobs for this account, until that second (Unix time).
    ///
    /// # Errors
    /// [`ChainError`].
    #[boxed]
    pub async fn delegate(
        &self,
        cluster: ClusterId,
        key: Address,
        until: u64,
    ) -> Result<Mined, ChainError> {
        let request =
            self.job_board().delegate(cluster.0.into(), evm(key), until).into_transaction_request();
        self.transact("the delegation to a key", request).await
    }

    /// Ends what a key may do for this account.
    ///
    /// # Errors
    /// [`ChainError`].
    #[boxed]
    pub async fn revoke_delegate(
        &self,
        cluster: ClusterId,
        key: Address,
    ) -> Result<Mined, ChainError> {
        let request =
            self.job_board().revoke(cluster.0.into(), evm(key)).into_transaction_request();
        self.transact("the revocation of a key", request).await
    }

    /// The keys of an operator that it has not revoked; the time of some may be over.
    ///
    /// # Errors
    /// [`ChainError`].
    #[boxed]
    pub async fn delegates(
        &self,
        cluster: ClusterId,
        operator: Address,
    ) -> Result<Vec<DelegatedKey>, ChainError> {
        let contract = self.job_board();
        let call = || async { contract.delegatesOf(cluster.0.into(), evm(operator)).call().await };
        let found = self.rpc.call("an operator's keys", call).await?;
        let now = self.time().await?;
        let key = |one: &IJobBoard::Delegation| DelegatedKey {
            key: address(one.key),
            delegation: Delegation::new(one.until, one.revokedAt, now),
        };
        Ok(found.iter().map(key).collect())
    }

    /// What an operator's delegation to a key is worth.
    ///
    /// # Errors
    /// [`ChainError`].
    #[boxed]
    pub async fn delegation(
        &self,
        cluster: ClusterId,
        operator: Address,
        key: Address,
    ) -> Result<Delegation, ChainError> {
        let contract = self.job_board();
        let (operator, key) = (evm(operator), evm(key));
        let call = || async { contract.delegationOf(cluster.0.into(), operator, key).call().await };
        let found = self.rpc.call("what a key may do", call).await?;
        Ok(Delegation::new(found.until, found.revokedAt, self.time().await?))
    }

    /// Unix time as the next block will have it at least: an idle local chain makes no blocks, and its clock may
    /// have been put forward.
    ///
    /// # Errors
    /// [`ChainError`].
    #[boxed]
    pub async fn time(&self) -> Result<u64, ChainError> {
        let (_, of_block) = self.block().await?;
        let here = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        Ok(here.max(of_block))
    }
}
