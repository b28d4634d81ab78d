//! The handle on the chain: connecting, checking, reading.

use std::sync::Arc;

use alloy::{primitives::B256, rpc::types::BlockId};
use async_recursion::async_recursion as boxed;
use tokio::sync::watch;
use veil_protocol_spec::{
    Address, ChainId, ClusterId,
    scheduling::{BlockRef, ClusterScope},
};

use crate::{
    account::Account,
    config::ChainConfig,
    contracts::Contracts,
    endpoints::{EndpointStatus, RpcUrls},
    error::ChainError,
    key::AccountKey,
    registrations::Registrations,
    rpc::{Rpc, reference},
    watch::Watcher,
};

/// A handle on the contracts of one directory. Clones share the connection and the account's
/// transaction count.
#[derive(Clone)]
pub struct Chain {
    pub(crate) rpc: Rpc,
    pub(crate) contracts: Contracts,
    pub(crate) account: Option<Arc<Account>>,
    pub(crate) registrations: Arc<Registrations>,
    watcher: Arc<Watcher>,
}

impl core::fmt::Debug for Chain {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Chain")
            .field("rpc", &self.rpc.config.rpc)
            .field("chain_id", &self.rpc.chain_id)
            .field("directory", &self.contracts.directory)
            .finish_non_exhaustive()
    }
}

impl Chain {
    /// Connects and checks that the directory names contracts that this build speaks.
    ///
    /// # Errors
    /// [`ChainError`].
    #[boxed]
    pub async fn connect(config: ChainConfig) -> Result<Self, ChainError> {
        let rpc = Rpc::connect(&config).await?;
        let contracts = rpc.contracts(config.directory).await?;
        Ok(Self::assemble(rpc, contracts, config.key))
    }

    pub(crate) fn assemble(rpc: Rpc, contracts: Contracts, key: Option<AccountKey>) -> Self {
        let account = key.map(|key| Arc::new(Account::new(key)));
        let watcher = Arc::new(Watcher::start(rpc.clone()));
        Self { rpc, contracts, account, registrations: Arc::default(), watcher }
    }

    /// The same connection with another account.
    #[must_use]
    pub fn with_key(&self, key: AccountKey) -> Self {
        Self { account: Some(Arc::new(Account::new(key))), ..self.clone() }
    }

    /// The same connection, reading the contracts as of one block, by its hash: nodes that read at
    /// the same block read the same.
    #[must_use]
    pub fn at(&self, block: BlockRef) -> Self {
        let mut reading = self.clone();
        reading.rpc.at = BlockId::hash(B256::from(block.hash.0));
        reading.rpc.at_block = Some(block);
        reading
    }

    /// Whether this node's chain holds the block.
    ///
    /// # Errors
    /// [`ChainError::UnknownBlock`] if it has another one of that number, or none yet.
    #[boxed]
    pub async fn check_block(&self, block: BlockRef) -> Result<(), ChainError> {
        self.rpc.check_block(block).await
    }

    /// The chain's EIP-155 id.
    #[must_use]
    pub const fn chain_id(&self) -> ChainId {
        self.rpc.chain_id
    }

    /// The contracts' addresses.
    #[must_use]
    pub const fn contracts(&self) -> &Contracts {
        &self.contracts
    }

    /// The scope that messages and signatures of a cluster name.
    #[must_use]
    pub const fn scope(&self, cluster: ClusterId) -> ClusterScope {
        ClusterScope { chain_id: self.rpc.chain_id, contract: self.contracts.directory, cluster }
    }

    /// The account that sends this handle's transactions, or that others sign them for.
    #[must_use]
    pub fn account(&self) -> Option<Address> {
        let own = self.account.as_ref().map(|account| account.address());
        own.or_else(|| self.rpc.config.draft?.from)
    }

    /// The key of that account.
    #[must_use]
    pub fn account_key(&self) -> Option<&AccountKey> {
        self.account.as_ref().map(|account| account.key())
    }

    /// The state of the endpoints, in the order of configuration.
    #[must_use]
    pub fn endpoints(&self) -> Vec<EndpointStatus> {
        self.rpc.endpoints.status()
    }

    /// A handle on each endpoint alone, for what no single endpoint is to be believed. They only read.
    ///
    /// # Errors
    /// [`ChainError`] if one of them does not answer, or serves another chain.
    #[boxed]
    pub async fn each_endpoint(&self) -> Result<Vec<Self>, ChainError> {
        let config = &*self.rpc.config;
        let mut alone = Vec::new();
        for url in config.rpc.as_slice() {
            let rpc = RpcUrls::from(vec![url.clone()]);
            let chain_id = Some(self.rpc.chain_id);
            alone.push(Self::connect(ChainConfig { rpc, chain_id, ..config.clone() }).await?);
        }
        Ok(alone)
    }

    /// Blocks on top of a block before callers act on it ([`ChainConfig::depth`]).
    #[must_use]
    pub fn depth(&self) -> u64 {
        self.rpc.depth()
    }

    /// The last block seen. It changes with every new block, and when the last one is replaced, as long
    /// as a clone of this handle lives. After a change, what was read before may be out of date.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<BlockRef> {
        self.watcher.subscribe()
    }

    /// The last block and its time (Unix, seconds).
    ///
    /// # Errors
    /// [`ChainError`].
    #[boxed]
    pub async fn block(&self) -> Result<(BlockRef, u64), ChainError> {
        let block = self.rpc.latest().await?;
        Ok((reference(&block), block.header.timestamp))
    }

    /// The time of a block (Unix, seconds).
    ///
    /// # Errors
    /// [`ChainError::UnknownBlock`] if the chain has another one of that number, or none yet.
    #[boxed]
    pub async fn block_time(&self, block: BlockRef) -> Result<u64, ChainError> {
        let found = self.rpc.block(block.number).await?;
        let found = found.filter(|found| reference(found) == block);
        found.map(|found| found.header.timestamp).ok_or(ChainError::UnknownBlock(block))
    }

    /// The last block that is deep enough to act on ([`ChainConfig::depth`]).
    ///
    /// # Errors
    /// [`ChainError`].
    #[boxed]
    pub async fn settled(&self) -> Result<BlockRef, ChainError> {
        let last = self.rpc.latest().await?;
        let depth = self.rpc.depth();
        if depth == 0 {
            return Ok(reference(&last));
        }
        let number = last.header.number.saturating_sub(depth);
        let found = self.rpc.block(number).await?;
        found.as_ref().map(reference).ok_or(ChainError::Unexpected("a chain with a gap"))
    }

    pub(crate) fn check_scope(&self, scope: &ClusterScope) -> Result<(), ChainError> {
        if *scope == self.scope(scope.cluster) { Ok(()) } else { Err(ChainError::OtherScope) }
    }
}
