//! From time to time: images that nobody needs any more are removed, and what the engine is, is looked up.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::time::MissedTickBehavior;
use veil_node_api::progress::Progress;
use veil_node_api::status::EngineStatus;
use veil_node_containers::{DockerError, Executor};

/// Between two rounds.
const INTERVAL: Duration = Duration::from_secs(600);

/// What the worker's file says of it.
#[derive(Clone, Copy)]
pub(crate) struct Rounds {
    /// Images are kept for so long after their last use.
    pub(crate) kept: Duration,
    /// Whether connections of containers are filtered.
    pub(crate) is_filtered: bool,
}

/// Runs until it is dropped.
pub(crate) async fn collect(executor: Arc<Executor>, of: Rounds, progress: &Progress) {
    let mut rounds = tokio::time::interval(INTERVAL);
    rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        rounds.tick().await;
        if let Err(error) = round(&executor, of, progress).await {
            tracing::warn!(%error, "no images collected; it is tried again");
        }
    }
}

async fn round(executor: &Executor, of: Rounds, progress: &Progress) -> Result<(), DockerError> {
    let facts = executor.renew_facts().await?;
    progress.engine(EngineStatus {
        name: facts.engine,
        version: facts.version,
        os: facts.os,
        architecture: facts.architecture,
        filtered: of.is_filtered,
    });
    executor.collect_images(of.kept, SystemTime::now()).await.map(drop)
}
