//! `veil job init|import|validate|plan|submit|status|list|history|revert|stop|logs|exec|forward|endpoints`.

mod file;
mod import;
mod reach;
pub(in crate::cli) mod target;
mod version;

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::json;
use veil_node_operator::{history, plan, replicas, submission, table};
use veil_node_terminal::waiting;
use veil_protocol_spec::{Blake3Digest, PeerIdHash};

use self::target::{Access, ForOperator, Target};
use super::{
    asking::Asking,
    failure::{Exit, Failure},
    output::{self, Shown},
    run::{TRANSACTION, block_on, conclude},
    watch::Watch,
};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Write a commented job file to start from.
    Init(file::Init),
    /// Write job files for what a Compose file, Kubernetes objects or an Akash SDL say.
    Import(import::Import),
    /// Check a job file, without any network.
    Validate(file::Validate),
    /// Say what submitting a job would cost and tell, and whether it can run, without a transaction.
    Plan(Plan),
    /// Submit a job: its digest on chain, its body through a node. A job of a name that the account runs already
    /// is an update of that one.
    Submit(Submit),
    /// Show where replicas are assigned and what runs; of all jobs, or of one.
    Status(Ask),
    /// List the jobs that the chain has.
    List(Everything),
    /// Print what the replicas of a job write.
    Logs(reach::Logs),
    /// Run a command in the container of a replica, if its worker lets operators do that.
    Exec(reach::Exec),
    /// Listen here, and carry connections to a port of a replica, published or not.
    Forward(reach::Forward),
    /// Show where replicas are reached: workers, published ports, health.
    Endpoints(reach::Endpoints),
    /// List the versions of a job, and what has become of each.
    History(version::History),
    /// Submit an earlier version of a job again.
    Revert(version::Revert),
    /// Withdraw a job with all its versions; its containers are stopped after the next certificate.
    Stop(One),
}

#[derive(Debug, Args)]
pub(super) struct Plan {
    /// The job file.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Bits that its placement may tell about others' load in a day, as for `submit`.
    #[arg(long, value_name = "N")]
    leak_bits: Option<u32>,
    #[command(flatten)]
    operator: ForOperator,
    #[command(flatten)]
    target: Target,
}

#[derive(Debug, Args)]
pub(super) struct Submit {
    /// The job file.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Give the body of a job that the chain lists already to a node again.
    #[arg(long, value_name = "N")]
    nonce: Option<u64>,
    /// Bits that its placement may tell about others' load in a day; otherwise enough for 32 tries of each
    /// replica.
    #[arg(long, value_name = "N", conflicts_with = "nonce")]
    leak_bits: Option<u32>,
    #[command(flatten)]
    operator: ForOperator,
    #[command(flatten)]
    target: Target,
}

#[derive(Debug, Args)]
pub(super) struct Ask {
    /// Digest of a job, or its first digits.
    #[arg(value_name = "DIGEST")]
    job: Option<String>,
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    watch: Watch,
}

#[derive(Debug, Args)]
pub(super) struct Everything {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    watch: Watch,
}

#[derive(Debug, Args)]
pub(super) struct One {
    /// Digest of the job, or of one of its versions; if a node is asked also the first digits, or the job's name.
    #[arg(value_name = "JOB")]
    job: String,
    #[command(flatten)]
    operator: ForOperator,
    #[command(flatten)]
    target: Target,
}

pub(super) fn run(command: &Command, asking: &Asking) -> Exit {
    let (json, ended) = match command {
        Command::Init(arguments) => (arguments.json, file::init(arguments)),
        Command::Import(arguments) => (arguments.json, block_on(import::import(arguments))),
        Command::Validate(arguments) => (arguments.json, file::validate(arguments)),
        Command::Plan(arguments) => (arguments.target.json, block_on(plan(arguments, asking))),
        Command::Submit(arguments) => (arguments.target.json, block_on(submit(arguments, asking))),
        Command::Status(arguments) => (arguments.target.json, block_on(status(arguments, asking))),
        Command::List(arguments) => (arguments.target.json, block_on(list(arguments, asking))),
        Command::Logs(arguments) => {
            (arguments.reaching.json(), block_on(reach::logs(arguments, asking)))
        }
        Command::Exec(arguments) => {
            (arguments.reaching.json(), block_on(reach::exec(arguments, asking)))
        }
        Command::Forward(arguments) => {
            (arguments.reaching.json(), block_on(reach::forward(arguments, asking)))
        }
        Command::Endpoints(arguments) => {
            (arguments.reaching.json(), block_on(reach::endpoints(arguments, asking)))
        }
        Command::History(arguments) => {
            (arguments.target.json, block_on(version::history(arguments, asking)))
        }
        Command::Revert(arguments) => {
            (arguments.target.json, block_on(version::revert(arguments, asking)))
        }
        Command::Stop(arguments) => (arguments.target.json, block_on(stop(arguments, asking))),
    };
    conclude(json, ended)
}

async fn plan(arguments: &Plan, asking: &Asking) -> Result<Exit, Failure> {
    let job = file::read(&arguments.file)?;
    let access = arguments.target.resolve(asking)?;
    let (chain, cluster) = access.chain().await?;
    let operator = arguments.operator.of(&chain)?;
    let node = access.session(&chain, cluster, operator).await?;
    waiting::on("asking the chain and the node what speaks against the job");
    let plan = plan::look(&chain, cluster, &node, operator, job, arguments.leak_bits).await?;
    let mut object = serde_json::to_value(&plan).unwrap_or_default();
    object["can_be_submitted"] = plan.can_be_submitted().into();
    output::show(arguments.target.json, &object, |out| table::write_plan(out, &plan))?;
    Ok(if plan.obstacles.is_empty() { Exit::Done } else { Exit::Failed })
}

async fn submit(arguments: &Submit, asking: &Asking) -> Result<Exit, Failure> {
    let job = file::read(&arguments.file)?;
    let access = arguments.target.resolve(asking)?;
    let (chain, cluster) = access.chain().await?;
    let operator = arguments.operator.of(&chain)?;
    let node = access.session(&chain, cluster, operator).await?;
    let leak_bits = arguments.leak_bits;
    match arguments.nonce {
        Some(nonce) => {
            waiting::on(format_args!("giving the job to the node at {}", node.address()));
            let digest =
                submission::give_again(&chain, cluster, &node, operator, job, nonce).await?;
            output::show(arguments.target.json, &json!({ "job": digest }), |out| {
                writeln!(out, "{digest}")
            })?;
            Ok(Exit::Done)
        }
        None => {
            waiting::on(TRANSACTION);
            let submitted =
                submission::submit(&chain, cluster, &node, operator, job, leak_bits).await?;
            version::show(arguments.target.json, &submitted)
        }
    }
}

async fn status(arguments: &Ask, asking: &Asking) -> Result<Exit, Failure> {
    let access = arguments.target.resolve(asking)?;
    arguments.watch.show(arguments.target.json, async || look(arguments, &access).await).await
}

async fn look(arguments: &Ask, access: &Access) -> Result<Shown, Failure> {
    let statuses = access.statuses().await?;
    let wanted = |job: &Blake3Digest| {
        let prefix = arguments.job.as_deref().unwrap_or_default();
        job.to_string().starts_with(prefix.trim_start_matches("0x"))
    };
    let devnet = access.devnet.as_ref();
    let name_of = |peer: &PeerIdHash| devnet.map(|devnet| devnet.name_of(peer));
    let rows: Vec<_> =
        replicas::rows(&statuses, &name_of).into_iter().filter(|row| wanted(&row.job)).collect();
    let running = rows.iter().filter(|row| row.running).count();
    // A node that answers knows how far updates are.
    let jobs: Vec<_> = access.jobs().await.unwrap_or_default();
    let jobs: Vec<_> = jobs.iter().filter(|job| wanted(&job.job)).collect();
    let rollouts = replicas::rollouts(&jobs);
    let periodic = replicas::periodic(&jobs);
    let object = json!({
        "replicas_running": running, "replicas": rows, "rollouts": rollouts, "periodic": periodic,
    });
    Shown::new(&object, |out| {
        table::write_rows(out, &rows, output::width())?;
        table::write_rollouts(out, &rollouts)?;
        table::write_periodic(out, &periodic)
    })
}

async fn list(arguments: &Everything, asking: &Asking) -> Result<Exit, Failure> {
    let access = arguments.target.resolve(asking)?;
    let look = async || {
        let jobs = access.jobs().await?;
        let object = json!({ "jobs": jobs });
        Shown::new(&object, |out| table::write_jobs(out, &jobs, output::width()))
    };
    arguments.watch.show(arguments.target.json, look).await
}

async fn stop(arguments: &One, asking: &Asking) -> Result<Exit, Failure> {
    let access = arguments.target.resolve(asking)?;
    let (chain, cluster) = access.chain().await?;
    let operator = arguments.operator.of(&chain)?;
    let node = access.session(&chain, cluster, operator).await.ok();
    let job = match arguments.job.parse::<Blake3Digest>() {
        Ok(digest) => digest,
        Err(_) => history::find_own(&access.jobs().await?, operator, &arguments.job)?,
    };
    waiting::on(TRANSACTION);
    let stopped = history::stop(&chain, cluster, node.as_ref(), operator, job).await?;
    if node.is_none() {
        output::note(
            "no node was asked for other versions of the job: if there are later ones, stop the last",
        );
    }
    let object = json!({ "job": job, "submissions_withdrawn": stopped });
    output::show(arguments.target.json, &object, |out| {
        writeln!(out, "{job} is withdrawn; its containers stop after the next certificate")
    })?;
    Ok(Exit::Done)
}
