//! New blocks, told to whoever watches.

use alloy::providers::Provider;
use tokio::{sync::watch, task::JoinHandle};
use tracing::{debug, warn};

use super::connection::Rpc;

/// Asks for the last block's number until it is dropped.
pub(super) struct Watcher {
    last: watch::Receiver<u64>,
    task: JoinHandle<()>,
}

impl Watcher {
    pub(super) fn start(rpc: Rpc) -> Self {
        let (sender, last) = watch::channel(0);
        let task = tokio::spawn(async move {
            let mut ticks = tokio::time::interval(rpc.poll);
            ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            let mut reachable = true;
            loop {
                ticks.tick().await;
                match rpc.provider.get_block_number().await {
                    Ok(number) => {
                        if !reachable {
                            debug!(url = %rpc.url, "the chain answers again");
                        }
                        reachable = true;
                        sender.send_if_modified(|last| {
                            let changed = *last != number;
                            *last = number;
                            changed
                        });
                    }
                    Err(error) => {
                        if reachable {
                            warn!(url = %rpc.url, %error, "the chain does not answer; asking on");
                        }
                        reachable = false;
                    }
                }
            }
        });
        Self { last, task }
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<u64> {
        self.last.clone()
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.task.abort();
    }
}
