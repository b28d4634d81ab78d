//! The chain, block by block: the view to act on now, and views of blocks that others name.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_recursion::async_recursion as boxed;
use backon::{ExponentialBuilder, Retryable};
use tokio::sync::watch;
use veil_node_chain::{Chain, ChainError};
use veil_node_view::View;
use veil_protocol_spec::{ClusterId, scheduling::BlockRef};

/// Views kept for manifests that name an earlier block.
const KEPT_VIEWS: usize = 64;
/// How often a block is asked for that this node's endpoint does not have yet.
const BLOCK_RETRIES: usize = 6;

/// Views of one cluster; cheap to clone.
#[derive(Clone)]
pub struct Views(Arc<Inner>);

struct Inner {
    chain: Chain,
    cluster: ClusterId,
    current: watch::Receiver<Arc<View>>,
    history: Mutex<VecDeque<Arc<View>>>,
}

impl core::fmt::Debug for Views {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Views").field("block", &self.current().block).finish_non_exhaustive()
    }
}

impl Views {
    /// Views that begin with `first`, and the channel that publishes later ones.
    pub(super) fn new(
        chain: Chain,
        cluster: ClusterId,
        first: View,
    ) -> (watch::Sender<Arc<View>>, Self) {
        let first = Arc::new(first);
        let (sender, current) = watch::channel(Arc::clone(&first));
        let history = Mutex::new(VecDeque::from([first]));
        (sender, Self(Arc::new(Inner { chain, cluster, current, history })))
    }

    pub(super) fn chain(&self) -> &Chain {
        &self.0.chain
    }

    /// The last view.
    #[must_use]
    pub fn current(&self) -> Arc<View> {
        Arc::clone(&self.0.current.borrow())
    }

    /// Notifies of every new view.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<Arc<View>> {
        self.0.current.clone()
    }

    fn history(&self) -> MutexGuard<'_, VecDeque<Arc<View>>> {
        self.0.history.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The view as of a block that a peer named. A block that this node's endpoint does not have
    /// yet is waited for a little: the peer may be ahead.
    ///
    /// # Errors
    /// [`ChainError`]; `UnknownBlock` if this node's chain has another block of that number, or
    /// still none.
    #[boxed]
    pub async fn at(&self, block: BlockRef) -> Result<Arc<View>, ChainError> {
        let known = self.history().iter().find(|view| view.block == block).cloned();
        if let Some(view) = known {
            return Ok(view);
        }
        let backoff = ExponentialBuilder::default()
            .with_min_delay(Duration::from_millis(200))
            .with_max_delay(Duration::from_secs(2))
            .with_max_times(BLOCK_RETRIES)
            .with_jitter();
        let behind = |error: &ChainError| matches!(error, ChainError::UnknownBlock(_));
        let check = || self.0.chain.check_block(block);
        check.retry(backoff).when(behind).await?;
        self.read(block).await
    }

    /// Reads the view of the last block that is deep enough to act on.
    pub(super) async fn read_settled(&self) -> Result<Arc<View>, ChainError> {
        let block = self.0.chain.settled().await?;
        self.forget_replaced(block).await?;
        self.read(block).await
    }

    async fn read(&self, block: BlockRef) -> Result<Arc<View>, ChainError> {
        let view = Arc::new(View::read(&self.0.chain, self.0.cluster, block).await?);
        let mut history = self.history();
        if history.len() >= KEPT_VIEWS {
            history.pop_front();
        }
        history.push_back(Arc::clone(&view));
        Ok(view)
    }

    /// Forgets views of blocks that are no longer in the chain, which a reorganisation deeper than
    /// the configured depth may have replaced.
    async fn forget_replaced(&self, now: BlockRef) -> Result<(), ChainError> {
        let last = self.current().block;
        let continues = last.number < now.number && self.0.chain.check_block(last).await.is_ok();
        if continues || last == now {
            return Ok(());
        }
        let known: Vec<_> = self.history().iter().map(|view| view.block).collect();
        for block in known {
            match self.0.chain.check_block(block).await {
                Ok(()) => {}
                Err(ChainError::UnknownBlock(_)) => {
                    tracing::warn!(block = block.number, "a block was replaced; its view is void");
                    self.history().retain(|view| view.block != block);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
