//! The cluster of `ops/compose`, from the images that were just made: it comes to a placement, Prometheus has its figures, and
//! it goes.

use std::{
    net::TcpListener,
    process,
    thread::sleep,
    time::{Duration, Instant},
};

use serde_json::Value;

use super::NAME;
use crate::{
    containers::Containers,
    failed::Failed,
    step::{Step, root},
};

/// Nodes that Prometheus reads.
const NODES: usize = 6;
/// Ports that it takes, from the first one on.
const PORTS: u16 = 31;
/// From the start to the first job that runs, with insecure parameters on a busy machine.
const PATIENCE: Duration = Duration::from_secs(900);
const POLL: Duration = Duration::from_secs(2);

/// A cluster that is ended with its containers and volume.
struct Cluster {
    project: String,
    port: u16,
    image: String,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // Its containers would run on.
        let stopped = self.compose(&["run", "--rm", "--no-deps", "first-job", "stop-job"]).run();
        let ended = self.compose(&["down", "--volumes"]).run();
        if let Some(failed) = stopped.and(ended).err() {
            eprintln!("{failed}");
        }
    }
}

impl Cluster {
    fn compose(&self, args: &[&str]) -> Step {
        let file = root().join("ops/compose/docker-compose.yml").to_string_lossy().into_owned();
        let named = ["--no-ansi", "--file", &file, "--project-name", &self.project];
        Step::new(NAME, "docker-compose", &[&named[..], args].concat())
            .env("VEIL_PARAMETERS", "insecure-test")
            .env("VEIL_PORT", &self.port.to_string())
            .env("VEIL_IMAGE", &self.image)
    }

    /// What the first job's service has ended with, once it has.
    fn first_job(&self) -> Result<Option<String>, Failed> {
        let container = self.compose(&["ps", "--quiet", "first-job"]).quiet().output()?;
        let format = "{{.State.Status}} {{.State.ExitCode}}";
        let args = ["inspect", "--format", format, container.trim()];
        let state = Step::new(NAME, "docker", &args).quiet().output()?;
        Ok(state.trim().strip_prefix("exited ").map(str::to_owned))
    }

    /// How many nodes are ready, as Prometheus has it.
    fn ready(&self) -> Result<usize, Failed> {
        let url = format!("http://127.0.0.1:{}", self.port + 30);
        let query = ["promtool", "query", "instant", "--format=json", &url, "veil_ready == 1"];
        let args = [&["exec", "-T", "prometheus"][..], &query].concat();
        let answer = self.compose(&args).quiet().output()?;
        let found: Vec<Value> = serde_json::from_str(&answer).map_err(|error| {
            Failed::new(NAME, format!("Prometheus answers `{answer}`: {error}"))
        })?;
        Ok(found.len())
    }
}

/// The first of as many free ports as it takes.
fn free_ports() -> Option<u16> {
    let is_free = |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok();
    (0..100).map(|i| 20_000 + i * PORTS).find(|first| (*first..first + PORTS).all(is_free))
}

/// Starts it, waits for its job and for the figures, ends it.
pub(super) fn run(containers: &Containers) -> Result<(), Failed> {
    let port = free_ports().ok_or_else(|| Failed::new(NAME, "no free ports"))?;
    let project = format!("veil-{}", process::id());
    let cluster = Cluster { project, port, image: containers.image.clone() };
    cluster.compose(&["up", "--detach"]).run()?;
    let begun = Instant::now();
    let in_time = |what: &str| {
        if begun.elapsed() >= PATIENCE {
            return Err(Failed::new(NAME, format!("the cluster of ops/compose: {what}")));
        }
        sleep(POLL);
        Ok(())
    };
    let code = loop {
        match cluster.first_job()? {
            Some(code) => break code,
            None => in_time("its first job does not run")?,
        }
    };
    if code != "0" {
        cluster.compose(&["logs", "--tail=20"]).run()?;
        return Err(Failed::new(NAME, format!("its first job ended with {code}")));
    }
    while cluster.ready()? < NODES {
        in_time("Prometheus has no figures of some nodes")?;
    }
    Ok(())
}
