//! `veil job submit|status|list|stop`.

mod show;
mod target;

use std::{fs, path::PathBuf};

use clap::{Args, Subcommand};
use serde_json::json;
use veil_protocol_spec::Blake3Digest;

use self::target::{JobFailure, Target};
use super::{Exit, run::run as run_async};
use crate::{job_file::JobFile, operator};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Submit a job: its digest on chain, its body through a node.
    Submit(Submit),
    /// Show where replicas are assigned and what runs; of all jobs, or of one.
    Status(Ask),
    /// List the jobs that the chain has.
    List(Everything),
    /// Withdraw a job; its containers are stopped after the next certificate.
    Stop(One),
}

#[derive(Debug, Args)]
pub(super) struct Submit {
    /// The job file.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Give the body of a job that the chain lists already to a node again.
    #[arg(long, value_name = "N")]
    nonce: Option<u64>,
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
}

#[derive(Debug, Args)]
pub(super) struct Everything {
    #[command(flatten)]
    target: Target,
}

#[derive(Debug, Args)]
pub(super) struct One {
    /// Digest of the job.
    #[arg(value_name = "DIGEST")]
    job: Blake3Digest,
    #[command(flatten)]
    target: Target,
}

pub(super) fn run(command: &Command) -> Exit {
    match command {
        Command::Submit(arguments) => run_async(arguments.target.json, submit(arguments)),
        Command::Status(arguments) => run_async(arguments.target.json, status(arguments)),
        Command::List(arguments) => run_async(arguments.target.json, list(&arguments.target)),
        Command::Stop(arguments) => run_async(arguments.target.json, stop(arguments)),
    }
}

async fn submit(arguments: &Submit) -> Result<Exit, JobFailure> {
    let path = &arguments.file;
    let text = fs::read_to_string(path)
        .map_err(|source| JobFailure::File { path: path.clone(), source })?;
    let job = JobFile::parse(&text)?;
    let access = arguments.target.resolve()?;
    let (chain, cluster) = access.chain().await?;
    let socket = access.first_socket()?;
    let digest = match arguments.nonce {
        Some(nonce) => {
            let account = chain.account().ok_or(veil_node_chain::ChainError::NoAccount)?;
            let spec = job.into_spec(chain.scope(cluster), account, nonce)?;
            operator::give_body(socket, &spec).await?;
            spec.digest()
        }
        None => operator::submit(&chain, cluster, socket, job).await?.0,
    };
    if arguments.target.json {
        println!("{}", json!({ "job": digest }));
    } else {
        println!("{digest}");
    }
    Ok(Exit::Done)
}

async fn status(arguments: &Ask) -> Result<Exit, JobFailure> {
    let access = arguments.target.resolve()?;
    let statuses = access.statuses().await?;
    let wanted = |job: &Blake3Digest| {
        let prefix = arguments.job.as_deref().unwrap_or_default();
        job.to_string().starts_with(prefix.trim_start_matches("0x"))
    };
    let rows: Vec<_> =
        show::rows(&statuses, &access).into_iter().filter(|row| wanted(&row.job)).collect();
    if arguments.target.json {
        let running = rows.iter().filter(|row| row.running).count();
        println!("{}", json!({ "replicas_running": running, "replicas": rows }));
    } else {
        print!("{}", show::table(&rows));
    }
    Ok(Exit::Done)
}

async fn list(target: &Target) -> Result<Exit, JobFailure> {
    let access = target.resolve()?;
    let jobs = access.jobs().await?;
    if target.json {
        println!("{}", json!({ "jobs": jobs }));
    } else {
        print!("{}", show::jobs(&jobs));
    }
    Ok(Exit::Done)
}

async fn stop(arguments: &One) -> Result<Exit, JobFailure> {
    let access = arguments.target.resolve()?;
    let (chain, cluster) = access.chain().await?;
    let stopped = operator::stop(&chain, cluster, arguments.job).await?;
    if arguments.target.json {
        println!("{}", json!({ "job": arguments.job, "submissions_withdrawn": stopped }));
    } else {
        println!("{} is withdrawn; its containers stop after the next certificate", arguments.job);
    }
    Ok(Exit::Done)
}
