//! What runs for a node, and how it ends.

use futures::{FutureExt, future::BoxFuture};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// The tasks of one node; cheap to clone.
#[derive(Clone, Debug)]
pub struct Tasks {
    stop: CancellationToken,
    running: TaskTracker,
}

impl Tasks {
    /// Tasks that end when that is cancelled.
    #[must_use]
    pub fn new(stop: CancellationToken) -> Self {
        Self { stop, running: TaskTracker::new() }
    }

    /// Runs a task until it ends or the node stops.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.spawn_boxed(task.boxed());
    }

    fn spawn_boxed(&self, task: BoxFuture<'static, ()>) {
        let stop = self.stop.clone();
        self.running.spawn(async move {
            tokio::select! {
                () = task => {}
                () = stop.cancelled() => {}
            }
        });
    }

    /// Stops all tasks and waits until they have ended.
    pub(super) async fn end(&self) {
        self.stop.cancel();
        self.running.close();
        self.running.wait().await;
    }
}
