//! Following the contracts' events, through reorganisations and after absences.
//!
//! # Flow of a step
//! 1. Read the last block. While the last block remembered is not in the chain, undo its events, back to
//!    the common ancestor.
//! 2. Read blocks that are deep enough in bounded ranges, and settle their events at once: so the
//!    follower catches up after an absence.
//! 3. Read the blocks above one by one, by hash, which ties events to their block. Each has to build on
//!    the one before. Their events are seen, and settled when enough blocks are on top.
//!
//! # State
//! The blocks that may still be replaced, with their events.
//!
//! # Restart
//! A caller stores [`Follower::position`] and follows on from it: events above it are reported again.
//!
//! # Caveats
//! If the chain replaces a settled block, the follower ends with [`ChainError::DeepReorganisation`]:
//! callers have acted on its events.

use std::collections::VecDeque;

use alloy::{
    primitives::B256,
    providers::Provider,
    rpc::types::{Block as RpcBlock, Filter, Log},
};
use async_recursion::async_recursion as boxed;
use tokio::sync::watch;
use tracing::{debug, warn};
use veil_protocol_spec::{KeccakDigest, scheduling::BlockRef};

use crate::{
    address::evm,
    connection::Chain,
    error::ChainError,
    events::ChainEvent,
    rpc::reference,
    track::{Block, Track, Update},
};

/// Names the request in errors.
const EVENTS: &str = "the contracts' events";

/// Follows the events of all contracts of a set.
#[derive(Debug)]
pub struct Follower {
    chain: Chain,
    filter: Filter,
    track: Track<ChainEvent>,
    updates: VecDeque<Update<ChainEvent>>,
    changes: watch::Receiver<BlockRef>,
}

/// Whether a step read anything new.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    Progress,
    UpToDate,
}

impl Chain {
    /// Follows the events after a block: one that [`Follower::position`] gave, or
    /// [`Self::block_before`].
    #[must_use]
    pub fn follow(&self, after: BlockRef) -> Follower {
        let contracts: Vec<_> =
            self.contracts.named().into_iter().map(|(_, address)| evm(address)).collect();
        Follower {
            filter: Filter::new().address(contracts),
            track: Track::new(after, self.depth()),
            updates: VecDeque::new(),
            changes: self.changes(),
            chain: self.clone(),
        }
    }

    /// The block before one of a number, to follow from there. Block 0 has no events.
    ///
    /// # Errors
    /// [`ChainError`]; `Unexpected` if the chain is not that long.
    #[boxed]
    pub async fn block_before(&self, number: u64) -> Result<BlockRef, ChainError> {
        let found = self.rpc.block(number.saturating_sub(1)).await?;
        found
            .as_ref()
            .map(reference)
            .ok_or(ChainError::Unexpected("a shorter chain than asked for"))
    }
}

impl Follower {
    /// The last settled block: where to follow on after a restart.
    #[must_use]
    pub const fn position(&self) -> BlockRef {
        self.track.settled()
    }

    /// Waits for the next update, also while no endpoint answers.
    ///
    /// # Errors
    /// [`ChainError`]; after all but `DeepReorganisation` the call may be repeated.
    #[boxed]
    pub async fn next(&mut self) -> Result<Update<ChainEvent>, ChainError> {
        loop {
            if let Some(update) = self.updates.pop_front() {
                return Ok(update);
            }
            // Before the step: a block that comes during it ends the wait below.
            self.changes.mark_unchanged();
            match self.step().await {
                Ok(Step::Progress) => continue,
                Ok(Step::UpToDate) => {}
                Err(error @ ChainError::Unreachable { .. }) => {
                    warn!(%error, "no endpoint answers; following on later")
                }
                Err(error) => return Err(error),
            }
            let poll = self.chain.rpc.config.poll;
            // Without a change too, since an endpoint may have lagged behind.
            if let Ok(Err(_)) = tokio::time::timeout(poll * 4, self.changes.changed()).await {
                return Err(ChainError::Unexpected("the end of the block watch"));
            }
        }
    }

    /// All updates up to the last block, without waiting for more.
    ///
    /// # Errors
    /// As [`Self::next`], and [`ChainError::Unreachable`] if no endpoint answers.
    #[boxed]
    pub async fn catch_up(&mut self) -> Result<Vec<Update<ChainEvent>>, ChainError> {
        while self.step().await? == Step::Progress {}
        Ok(self.updates.drain(..).collect())
    }

    async fn step(&mut self) -> Result<Step, ChainError> {
        let last = self.chain.rpc.latest().await?;
        if !self.unwind(&last).await? {
            return Ok(Step::UpToDate);
        }
        let (number, tip) = (last.header.number, self.track.tip());
        let deep = number.saturating_sub(self.chain.depth());
        if number <= tip.number {
            Ok(Step::UpToDate)
        } else if deep > tip.number {
            self.read_settled(deep).await
        } else {
            self.read_next(&last).await
        }
    }

    /// Step 1. Whether the last block remembered is in the chain that `last` ends.
    async fn unwind(&mut self, last: &RpcBlock) -> Result<bool, ChainError> {
        let last = (reference(last), KeccakDigest(last.header.parent_hash.0));
        loop {
            let tip = self.track.tip();
            if tip == last.0 || (tip.hash == last.1 && tip.number + 1 == last.0.number) {
                return Ok(true);
            }
            if last.0.number < tip.number && self.track.at(last.0.number) == Some(last.0) {
                debug!(block = last.0.number, "the endpoint lags behind");
                return Ok(false);
            }
            let found = self.chain.rpc.block(tip.number).await?;
            match found.as_ref().map(reference) {
                Some(found) if found == tip => return Ok(true),
                // A short chain alone may be an endpoint that lags behind.
                None if tip == self.track.settled() => return Ok(false),
                _ => {}
            }
            let undone = self.track.undo().ok_or(ChainError::DeepReorganisation(tip))?;
            warn!(block = tip.number, events = undone.len(), "a block was replaced");
            self.updates.extend(undone);
        }
    }

    /// Step 2.
    async fn read_settled(&mut self, deep: u64) -> Result<Step, ChainError> {
        let rpc = &self.chain.rpc;
        let from = self.track.tip().number + 1;
        let to = deep.min(from.saturating_add(rpc.config.log_range.max(1) - 1));
        let Some(end) = rpc.block(to).await? else { return Ok(Step::UpToDate) };
        let logs = rpc.logs(EVENTS, &self.filter, (from, to)).await?;
        let events = logs.iter().filter_map(|log| self.event(log)).collect::<Vec<_>>();
        self.updates.extend(self.track.settle(reference(&end)));
        self.updates.extend(events.into_iter().map(Update::Settled));
        Ok(Step::Progress)
    }

    /// Step 3.
    async fn read_next(&mut self, last: &RpcBlock) -> Result<Step, ChainError> {
        let rpc = &self.chain.rpc;
        let number = self.track.tip().number + 1;
        let next = if number == last.header.number {
            Some(last.clone())
        } else {
            rpc.block(number).await?
        };
        let Some(next) = next else { return Ok(Step::UpToDate) };
        let filter = self.filter.clone().at_block_hash(next.header.hash);
        let logs = rpc.ask(EVENTS, || rpc.provider.get_logs(&filter)).await?;
        let block = Block {
            at: reference(&next),
            parent: KeccakDigest(next.header.parent_hash.0),
            events: logs.iter().filter_map(|log| self.event(log)).collect(),
        };
        // If it does not build on the tip, a block was replaced in between: the next step undoes it.
        if let Ok(updates) = self.track.extend(block) {
            self.updates.extend(updates);
        }
        Ok(Step::Progress)
    }

    fn event(&self, log: &Log) -> Option<ChainEvent> {
        let named = self.chain.contracts.named();
        let (contract, _) = named.into_iter().find(|(_, at)| evm(*at) == log.address())?;
        let event = ChainEvent::decode(contract, log);
        if event.is_none() {
            let topic = log.topic0().copied().unwrap_or(B256::ZERO);
            warn!(contract, %topic, "unknown event: update this build");
        }
        event
    }
}
