//! The connection without contracts: requests, and their repetition.

use std::{future::Future, sync::Arc, time::Duration};

use alloy::{
    providers::{DynProvider, Provider, ProviderBuilder},
    rpc::{
        client::RpcClient,
        types::{Block, BlockId, BlockNumberOrTag},
    },
};
use backon::{ExponentialBuilder, Retryable};
use veil_protocol_spec::{ChainId, KeccakDigest, scheduling::BlockRef};

use crate::{config::ChainConfig, endpoints::Endpoints, error::ChainError};

/// How often a request is repeated while no endpoint answers.
const MAX_RETRIES: usize = 4;

/// See the [module documentation](self). Clones share the endpoints.
#[derive(Clone)]
pub(crate) struct Rpc {
    pub(crate) endpoints: Endpoints,
    pub(crate) provider: DynProvider,
    pub(crate) chain_id: ChainId,
    /// The configuration without the account.
    pub(crate) config: Arc<ChainConfig>,
    /// The block at which contracts are read.
    pub(crate) at: BlockId,
    /// The same, if it is one block and not always the last.
    pub(crate) at_block: Option<BlockRef>,
}

impl Rpc {
    pub(crate) async fn connect(config: &ChainConfig) -> Result<Self, ChainError> {
        let endpoints = Endpoints::new(&config.rpc, config.chain_id)?;
        let provider = ProviderBuilder::new()
            .disable_recommended_fillers()
            .connect_client(RpcClient::new(endpoints.clone(), false))
            .erased();
        let mut kept = config.clone();
        // `Account` holds the key.
        kept.key = None;
        let mut rpc = Self {
            endpoints,
            provider,
            chain_id: ChainId(0),
            config: Arc::new(kept),
            at: BlockId::latest(),
            at_block: None,
        };
        let found = rpc.ask("the chain id", || rpc.provider.get_chain_id()).await?;
        rpc.chain_id = rpc.endpoints.chain().unwrap_or(ChainId(found));
        Ok(rpc)
    }

    /// Blocks on top of a block before callers act on it.
    pub(crate) fn depth(&self) -> u64 {
        // Nothing reorganises a local chain; another one may be reorganised by a few blocks.
        self.config.depth.unwrap_or(if self.is_local() { 0 } else { 3 })
    }

    /// Whether it is a chain for development: Foundry's, Hardhat's or geth's.
    pub(crate) const fn is_local(&self) -> bool {
        matches!(self.chain_id, ChainId(31_337 | 1_337))
    }

    /// Confirmations before a transaction counts.
    pub(crate) fn confirmations(&self) -> u64 {
        self.config.confirmations.unwrap_or_else(|| self.depth() + 1).max(1)
    }

    /// Makes a request, and repeats it a bounded number of times while no endpoint answers. `what` names it
    /// in errors.
    ///
    /// # Errors
    /// [`ChainError`].
    pub(crate) async fn ask<T, F>(
        &self,
        what: &'static str,
        request: impl Fn() -> F,
    ) -> Result<T, ChainError>
    where
        F: IntoFuture<Output = Result<T, alloy::transports::TransportError>>,
    {
        self.repeat(|| async {
            request().await.map_err(|error| ChainError::transport(what, &error))
        })
        .await
    }

    /// The same for a call of a contract.
    ///
    /// # Errors
    /// [`ChainError`].
    pub(crate) async fn call<T, F>(
        &self,
        what: &'static str,
        call: impl Fn() -> F,
    ) -> Result<T, ChainError>
    where
        F: Future<Output = Result<T, alloy::contract::Error>>,
    {
        self.repeat(|| async { call().await.map_err(|error| ChainError::call(what, &error)) }).await
    }

    async fn repeat<T, F>(&self, mut request: impl FnMut() -> F) -> Result<T, ChainError>
    where
        F: Future<Output = Result<T, ChainError>>,
    {
        let backoff = ExponentialBuilder::default()
            .with_min_delay(Duration::from_millis(100))
            .with_max_delay(Duration::from_secs(2))
            .with_max_times(MAX_RETRIES)
            .with_jitter();
        (|| request())
            .retry(backoff)
            .when(|error| matches!(error, ChainError::Unreachable { .. }))
            .await
    }

    /// The last block.
    pub(crate) async fn latest(&self) -> Result<Block, ChainError> {
        let asked = self
            .ask("the last block", || self.provider.get_block_by_number(BlockNumberOrTag::Latest));
        asked.await?.ok_or(ChainError::Unexpected("no last block"))
    }

    /// Whether this node's chain holds the block.
    ///
    /// # Errors
    /// [`ChainError::UnknownBlock`] if it has another one of that number, or none yet.
    pub(crate) async fn check_block(&self, block: BlockRef) -> Result<(), ChainError> {
        let found = self.block(block.number).await?;
        if found.is_some_and(|found| reference(&found) == block) {
            Ok(())
        } else {
            Err(ChainError::UnknownBlock(block))
        }
    }

    /// The block of a number, if the chain is that long.
    pub(crate) async fn block(&self, number: u64) -> Result<Option<Block>, ChainError> {
        let number = BlockNumberOrTag::Number(number);
        self.ask("a block", || self.provider.get_block_by_number(number)).await
    }
}

/// Number and hash of a block.
pub(crate) fn reference(block: &Block) -> BlockRef {
    BlockRef { number: block.header.number, hash: KeccakDigest(block.header.hash.0) }
}
