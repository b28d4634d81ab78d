//! Running processes: `veil worker run`, `veil committee run`, `veil status`.

mod evict;

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::json;
use tokio_util::sync::CancellationToken;
use veil_node_api::status::Status;
use veil_node_config::{AnyConfig, MemberConfig, WorkerConfig, process_environment};
use veil_node_core::lifecycle::Secrets;
use veil_node_operator::show;
use veil_node_terminal::waiting;

use super::{
    asking::Asking,
    failure::{Exit, Failure},
    output::{self, Shown},
    run::{block_on, conclude, log_to_stderr, stop_on_signals},
    watch::Watch,
};

/// Commands about a worker.
#[derive(Debug, Subcommand)]
pub(super) enum Worker {
    /// Run a worker in this process until it is interrupted.
    Run(Run),
    /// What the running worker says of itself.
    Status(Ask),
    /// Give replicas of this worker back to the committee, which places them elsewhere: they run on until they run there,
    /// or until the notice is over. It counts against nobody, and is not taken back.
    Evict(evict::Arguments),
}

/// Commands about a committee member.
#[derive(Debug, Subcommand)]
pub(super) enum Member {
    /// Run a member in this process until it is interrupted: take part in the key ceremony if there
    /// is no key yet, then in every slot.
    Run(Run),
    /// What the running member says of itself.
    Status(Ask),
    /// After the data directory of a member went back in time, or lost its journals: keep the member from
    /// signing until the cluster is past everything that it may have signed. The member must not run.
    Fence(Fence),
}

/// How to run.
#[derive(Debug, Args)]
pub(super) struct Run {
    /// The configuration; `veil config sample --role worker|member` prints one to start from.
    #[arg(long, env = "VEIL_CONFIG", value_name = "FILE")]
    config: PathBuf,
    /// Log as JSON, one object a line. VEIL_LOG chooses what is logged.
    #[arg(long)]
    json: bool,
}

/// Whom to ask.
#[derive(Debug, Args)]
pub(super) struct Ask {
    /// The configuration of the running process, member or worker, or of an operator.
    #[arg(long, env = "VEIL_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    watch: Watch,
}

/// Whom to fence.
#[derive(Debug, Args)]
pub(super) struct Fence {
    /// The configuration of the member.
    #[arg(long, env = "VEIL_CONFIG", value_name = "FILE")]
    config: PathBuf,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// `veil worker`.
pub(super) fn worker(command: &Worker, asking: &Asking) -> Exit {
    match command {
        Worker::Run(arguments) => run(arguments, async |stop| {
            let config = WorkerConfig::load(&arguments.config, &process_environment)?;
            let secrets = Secrets::load(&config.node, &config.chain, &process_environment)?;
            Ok(veil_node_worker::run(&config, secrets, stop).await?)
        }),
        Worker::Status(ask) => status(ask, asking),
        Worker::Evict(arguments) => evict::run(arguments, asking),
    }
}

/// `veil committee`.
pub(super) fn member(command: &Member, asking: &Asking) -> Exit {
    match command {
        Member::Run(arguments) => run(arguments, async |stop| {
            let config = MemberConfig::load(&arguments.config, &process_environment)?;
            let secrets = Secrets::load(&config.node, &config.chain, &process_environment)?;
            Ok(veil_node_member::run(&config, secrets, stop).await?)
        }),
        Member::Status(ask) => status(ask, asking),
        Member::Fence(arguments) => conclude(arguments.json, fence(arguments)),
    }
}

fn fence(arguments: &Fence) -> Result<Exit, Failure> {
    let config = MemberConfig::load(&arguments.config, &process_environment)?;
    let path = veil_node_member::raise_fence(&config)?;
    output::show(arguments.json, &json!({ "fence": path }), |out| {
        writeln!(out, "fenced: start the member; it waits before it signs, and says for what")
    })?;
    Ok(Exit::Done)
}

/// Runs a role until it ends or a signal stops it.
fn run(arguments: &Run, role: impl AsyncFnOnce(CancellationToken) -> Result<(), Failure>) -> Exit {
    log_to_stderr(arguments.json);
    let served = block_on(async {
        role(stop_on_signals()?).await?;
        Ok(Exit::Done)
    });
    conclude(arguments.json, served)
}

/// `veil status`.
pub(super) fn status(arguments: &Ask, asking: &Asking) -> Exit {
    conclude(arguments.json, block_on(ask(arguments, asking)))
}

async fn ask(arguments: &Ask, asking: &Asking) -> Result<Exit, Failure> {
    let file = arguments.config.as_ref();
    let config = file.map(|file| AnyConfig::load(file, &process_environment)).transpose()?;
    let node = asking.client(config.as_ref().map(AnyConfig::node))?;
    let look = async || {
        waiting::on(format_args!("waiting for the node at {}", node.address()));
        let status: Status = node.get("/v1/status").await?;
        Shown::new(&status, |out| show::write_status(out, &status, output::width()))
    };
    arguments.watch.show(arguments.json, look).await
}
