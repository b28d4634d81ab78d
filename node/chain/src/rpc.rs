//! The connection without contracts: requests, and their repetition.

use std::{future::Future, sync::Arc, time::Duration};

use alloy::{
    providers::{Provider, RootProvider},
    rpc::{
        client::RpcClient,
        types::{Block, BlockId, BlockNumberOrTag},
    },
};
use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use veil_protocol_spec::{ChainId, KeccakDigest, scheduling::BlockRef};

use crate::{config::ChainConfig, endpoints::Endpoints, error::ChainError};

/// How often a request is repeated while no endpoint answers.
const MAX_RETRIES: usize = 4;

/// See the [module documentation](self). Clones share the endpoints.
#[derive(Clone)]
pub(crate) struct Rpc {
    pub(crate) endpoints: Endpoints,
    /// Not `dyn Provider`: its table would have all of alloy's methods generated, used or not.
    pub(crate) provider: RootProvider,
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
        let provider = RootProvider::new(RpcClient::new(endpoints.clone(), false));
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
        let mut delays = retries();
        loop {
            match request().await.map_err(|error| ChainError::transport(what, &error)) {
                Err(error) => wait_after(error, &mut delays).await?,
                answer => return answer,
            }
        }
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
        let mut delays = retries();
        loop {
            match call().await.map_err(|error| ChainError::call(what, &error)) {
                Err(error) => wait_after(error, &mut delays).await?,
                answer => return answer,
            }
        }
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

fn retries() -> ExponentialBackoff {
    ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(100))
        .with_max_delay(Duration::from_secs(2))
        .with_max_times(MAX_RETRIES)
        .with_jitter()
        .build()
}

/// Waits before a request that failed is made again.
///
/// # Errors
/// The request's, if that would not help or has been done often enough.
async fn wait_after(error: ChainError, delays: &mut ExponentialBackoff) -> Result<(), ChainError> {
    match delays.next() {
        Some(delay) if matches!(error, ChainError::Unreachable { .. }) => {
            tokio::time::sleep(delay).await;
            Ok(())
        }
        _ => Err(error),
    }
}

/// Number and hash of a block.
pub(crate) fn reference(block: &Block) -> BlockRef {
    BlockRef { number: block.header.number, hash: KeccakDigest(block.header.hash.0) }
}
