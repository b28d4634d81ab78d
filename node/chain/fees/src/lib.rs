//! Pools that pay back what a cluster's steps on the chain cost.
//!
//! Source: `contracts/src/FeePool.sol`.
//!
//! # Role
//! [`Fees`] reads a cluster's pool and what it owes to an account, fills it, and takes out what an account is owed. The
//! steps themselves go through the pool without a call of their own: [`Chain::anchor`], [`Chain::confirm_deployment`],
//! [`Chain::seal_election`], [`Chain::publish_key`], [`Chain::activate_key`].
//!
//! # Flow
//! 1. Anybody [deposits](Fees::deposit); slashed stake comes by itself.
//! 2. Whoever does a step is owed base fee and tip of it, as long as the pool has something.
//! 3. The account, or anybody for it, [withdraws](Fees::withdraw).
//!
//! # State and restart
//! None: all of it is on the chain.

use alloy::{
    network::TransactionBuilder,
    primitives::{Address as EvmAddress, U256},
    rpc::types::TransactionRequest,
    sol_types::SolCall,
};
use async_recursion::async_recursion as boxed;
use serde::Serialize;
use veil_contracts::fee_pool::FeePool::{
    DEFAULT_INTERVALCall, depositCall, owedToCall, poolOfCall, setAnchorIntervalCall, withdrawCall,
};
use veil_node_chain::{Chain, ChainError, Mined};
use veil_protocol_spec::{Address, ClusterId};

/// What a cluster has for its steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Pool {
    /// In wei.
    pub balance_wei: u128,
    /// Seconds between two anchors that are paid back.
    pub anchor_interval: u32,
    /// When the last anchor was paid back (Unix time); 0 if none was.
    pub anchor_refunded_at: u64,
}

/// The fee pool of the contracts that a handle is connected to.
#[derive(Clone, Copy, Debug)]
pub struct Fees<'a>(pub &'a Chain);

impl Fees<'_> {
    /// A cluster's pool.
    ///
    /// # Errors
    /// [`ChainError`].
    #[boxed]
    pub async fn pool(&self, cluster: ClusterId) -> Result<Pool, ChainError> {
        let found = self.read(&poolOfCall { cluster: cluster.0.into() }).await?;
        let interval = match found.interval {
            0 => self.read(&DEFAULT_INTERVALCall {}).await?,
            given => given,
        };
        Ok(Pool {
            balance_wei: found.balance,
            anchor_interval: interval,
            anchor_refunded_at: found.refundedAt.to(),
        })
    }

    /// What an account is owed, in wei.
    ///
    /// # Errors
    /// [`ChainError`].
    #[boxed]
    pub async fn owed(&self, account: Address) -> Result<U256, ChainError> {
        self.read(&owedToCall { account: EvmAddress::from(account.0) }).await
    }

    /// Gives value to a cluster's pool, for ever.
    ///
    /// # Errors
    /// [`ChainError`].
    #[boxed]
    pub async fn deposit(&self, cluster: ClusterId, wei: u128) -> Result<Mined, ChainError> {
        let call = depositCall { cluster: cluster.0.into() };
        self.0.transact("a deposit", self.to_pool(&call).with_value(U256::from(wei))).await
    }

    /// Says how often anchors are paid back, as the cluster's admin; those in between are anchored all the same.
    ///
    /// # Errors
    /// [`ChainError`].
    #[boxed]
    pub async fn set_anchor_interval(
        &self,
        cluster: ClusterId,
        seconds: u32,
    ) -> Result<Mined, ChainError> {
        let call = setAnchorIntervalCall { cluster: cluster.0.into(), interval: seconds };
        self.0.transact("the interval of refunds", self.to_pool(&call)).await
    }

    /// Pays an account what it is owed. Any account may send this.
    ///
    /// # Errors
    /// [`ChainError`].
    #[boxed]
    pub async fn withdraw(&self, account: Address) -> Result<Mined, ChainError> {
        let call = withdrawCall { account: EvmAddress::from(account.0) };
        self.0.transact("the payment of what is owed", self.to_pool(&call)).await
    }

    fn to_pool(self, call: &impl SolCall) -> TransactionRequest {
        TransactionRequest::default()
            .with_to(EvmAddress::from(self.0.contracts().fee_pool.0))
            .with_input(call.abi_encode())
    }

    async fn read<C: SolCall>(&self, call: &C) -> Result<C::Return, ChainError> {
        let answer = self.0.view("the fee pool", self.to_pool(call)).await?;
        C::abi_decode_returns_validate(&answer)
            .map_err(|_| ChainError::Unexpected("an answer of another form"))
    }
}
