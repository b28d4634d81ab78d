//! A whole network in the test's process: four members and three workers with insecure parameters, the real chain and the
//! real engine.

use std::{
    panic::{AssertUnwindSafe, resume_unwind},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use futures::FutureExt as _;
use tokio_util::sync::CancellationToken;
use veil_node_containers::DEFAULT_SOCKET;
use veil_node_devnet::{Devnet, DevnetOptions, Event, EventHandler, sample_image};
use veil_protocol_spec::Committee;

const SET_UP: &str =
    "this test needs anvil, a Docker engine and the sample image: cargo xtask setup";
/// For conditions that need a slot; it ends a test that hangs.
const PATIENCE: Duration = Duration::from_secs(1200);

pub(crate) fn image() -> String {
    sample_image().expect(SET_UP)
}

/// Runs `scenario` on a network in `folder` whose nodes have not started, and ends the network whatever comes of it.
pub(crate) async fn with_network(folder: &Path, scenario: impl AsyncFnOnce(&mut Devnet)) {
    let socket = std::env::var_os("VEIL_DOCKER_SOCKET").map(PathBuf::from);
    let options = DevnetOptions {
        committee: Committee::new(4).unwrap(),
        workers: 3,
        parameters: "insecure-test".to_owned(),
        processes: false,
        rpc_port: None,
        docker_socket: socket.unwrap_or_else(|| DEFAULT_SOCKET.into()),
        volumes: Vec::new(),
    };
    let on_event: EventHandler = Arc::new(|event| {
        if let Event::Done(step, seconds) = event {
            println!("{step}: {seconds:.1} s");
        }
    });
    let prepared = Devnet::prepare(options, folder, on_event, CancellationToken::new()).await;
    let mut devnet = prepared.unwrap_or_else(|error| panic!("{SET_UP}\n{error}"));
    let result = AssertUnwindSafe(scenario(&mut devnet)).catch_unwind().await;
    let ended = devnet.end().await;
    if let Err(panic) = result {
        resume_unwind(panic);
    }
    ended.unwrap();
}

/// Asks until it holds; for what stays so, since between two looks anything may pass.
pub(crate) async fn until(what: &str, holds: impl AsyncFn() -> bool) {
    let begun = Instant::now();
    while !holds().await {
        assert!(begun.elapsed() < PATIENCE, "it never came to this: {what}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
