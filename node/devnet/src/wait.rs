//! Waiting with a deadline, and saying who is outstanding.

use std::time::{Duration, Instant};

use futures::future::join_all;
use veil_node_api::status::{Role, Status};

use crate::{Devnet, DevnetError, Event, node::Node};

/// Between two polls.
const POLL_INTERVAL: Duration = Duration::from_millis(250);

/// What a poll found.
pub(crate) enum Polled<T> {
    /// It has come.
    Done(T),
    /// Who or what is outstanding.
    Outstanding(String),
}

impl Devnet {
    /// Polls until it has come. A node that ends meanwhile ends the wait.
    pub(crate) async fn wait<T>(
        &self,
        what: &'static str,
        deadline: Duration,
        poll: impl AsyncFn() -> Result<Polled<T>, DevnetError>,
    ) -> Result<T, DevnetError> {
        let begun = Instant::now();
        let mut outstanding = String::new();
        loop {
            self.nodes.iter().try_for_each(Node::check)?;
            match poll().await? {
                Polled::Done(found) => return Ok(found),
                Polled::Outstanding(now) => {
                    if now != outstanding {
                        (self.on_event)(Event::Detail(&now));
                        outstanding = now;
                    }
                }
            }
            if begun.elapsed() > deadline {
                let (seconds, logs) = (deadline.as_secs(), self.folder.clone());
                return Err(DevnetError::Deadline { what, seconds, outstanding, logs });
            }
            tokio::select! {
                () = tokio::time::sleep(POLL_INTERVAL) => {}
                () = self.stop.cancelled() => return Err(DevnetError::Interrupted),
            }
        }
    }

    /// What every started node says now; nothing where it does not answer.
    pub(crate) async fn statuses(&self) -> Vec<(&Node, Option<Status>)> {
        let started = self.nodes.iter().filter(|node| node.is_started());
        join_all(started.map(async |node| (node, node.status().await.ok()))).await
    }

    /// Where each node is that is not done yet; nothing if all are.
    pub(crate) async fn outstanding(
        &self,
        done: impl Fn(&Node, &Status) -> bool,
    ) -> Option<String> {
        let mut outstanding = Vec::new();
        for (node, status) in self.statuses().await {
            match status {
                Some(status) if done(node, &status) => {}
                status => outstanding.push(describe(node, status.as_ref())),
            }
        }
        (!outstanding.is_empty()).then(|| outstanding.join("; "))
    }

    pub(crate) fn of_role(&self, role: Role) -> impl Iterator<Item = &Node> {
        self.nodes.iter().filter(move |node| node.role() == role)
    }
}

/// Where a node is.
pub(crate) fn describe(node: &Node, status: Option<&Status>) -> String {
    let name = node.name();
    match status {
        None => format!("{name}: does not answer"),
        Some(status) if status.waiting_for.is_empty() => format!("{name}: {}", status.stage),
        Some(status) => {
            format!("{name}: {}, waits for {}", status.stage, status.waiting_for.join(", "))
        }
    }
}
