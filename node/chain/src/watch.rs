//! A task that reports new blocks on a watch channel.

use tokio::{sync::watch, task::JoinHandle};
use tracing::{info, warn};
use veil_protocol_spec::{KeccakDigest, scheduling::BlockRef};

use crate::rpc::{Rpc, reference};

/// Polls the last block until it is dropped.
pub(crate) struct Watcher {
    last: watch::Receiver<BlockRef>,
    task: JoinHandle<()>,
}

impl Watcher {
    pub(crate) fn start(rpc: Rpc) -> Self {
        let none = BlockRef { number: 0, hash: KeccakDigest([0; 32]) };
        let (sender, last) = watch::channel(none);
        let task = tokio::spawn(async move {
            let mut ticks = tokio::time::interval(rpc.config.poll);
            ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            let mut reachable = true;
            loop {
                ticks.tick().await;
                match rpc.latest().await {
                    Ok(block) => {
                        if !reachable {
                            info!(url = rpc.endpoints.current(), "the chain answers again");
                        }
                        reachable = true;
                        let now = reference(&block);
                        sender.send_if_modified(|last| core::mem::replace(last, now) != now);
                    }
                    Err(error) => {
                        if reachable {
                            warn!(%error, "the last block cannot be read; repeating");
                        }
                        reachable = false;
                    }
                }
            }
        });
        Self { last, task }
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<BlockRef> {
        self.last.clone()
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.task.abort();
    }
}
