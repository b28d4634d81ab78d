//! `veil worker evict`.

use std::path::PathBuf;

use clap::Args;
use veil_node_api::evict::{Evict, Evicted, PATH};
use veil_node_config::{AnyConfig, process_environment};
use veil_node_process::moment;
use veil_node_terminal::waiting;
use veil_protocol_spec::{
    ReplicaIndex,
    scheduling::{InvalidNote, Note},
};

use crate::cli::{
    asking::Asking,
    failure::{Exit, Failure},
    output,
    run::{block_on, conclude},
};

#[derive(Debug, Args)]
pub(in crate::cli) struct Arguments {
    /// The job, by its digest or the first digits of it, and which of its replicas; all of them without.
    #[arg(value_name = "JOB[/REPLICA]", required_unless_present = "all", conflicts_with = "all")]
    replica: Option<String>,
    /// Everything that this worker has now. To be given nothing more either, have it drained: `veil node drain`.
    #[arg(long)]
    all: bool,
    /// How long the replicas may run here still, as in 90s, 10m, 2h or 1d.
    #[arg(long, value_name = "DURATION", value_parser = moment::seconds)]
    notice: u64,
    /// Why: one line, which everybody sees.
    #[arg(long, value_name = "TEXT", value_parser = note)]
    reason: Option<Note>,
    /// The configuration of the running worker.
    #[arg(long, env = "VEIL_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

fn note(text: &str) -> Result<Note, InvalidNote> {
    text.to_owned().try_into()
}

/// The job, and which of its replicas.
fn named(text: &str) -> Result<(String, Option<ReplicaIndex>), Failure> {
    let (job, replica) = match text.split_once('/') {
        None => (text, None),
        Some((job, index)) => {
            let index = index.parse().map_err(|_| {
                Failure::usage(format!("{text}: the replica is a number, as in {job}/0"))
            })?;
            (job, Some(ReplicaIndex(index)))
        }
    };
    if job.is_empty() {
        return Err(Failure::usage(format!(
            "{text}: which job? `veil worker status` lists what runs here"
        )));
    }
    Ok((job.to_owned(), replica))
}

/// `veil worker evict`.
pub(in crate::cli) fn run(arguments: &Arguments, asking: &Asking) -> Exit {
    conclude(arguments.json, block_on(evict(arguments, asking)))
}

async fn evict(arguments: &Arguments, asking: &Asking) -> Result<Exit, Failure> {
    let (job, replica) = match arguments.replica.as_deref().map(named).transpose()? {
        Some((job, replica)) => (Some(job), replica),
        None => (None, None),
    };
    let reason = arguments.reason.clone().unwrap_or_default();
    let request = Evict { job, replica, notice_seconds: arguments.notice, reason };
    let file = arguments.config.as_ref();
    let config = file.map(|file| AnyConfig::load(file, &process_environment)).transpose()?;
    let worker = asking.client(config.as_ref().map(AnyConfig::node))?;
    waiting::on(format_args!("waiting for the worker at {}", worker.address()));
    let evicted: Vec<Evicted> = worker.post(PATH, &request).await?;
    let object = serde_json::json!({ "evicted": evicted });
    output::show(arguments.json, &object, |out| {
        for Evicted { job, replica, until } in &evicted {
            match until {
                Some(until) => {
                    let until = moment::utc(*until);
                    writeln!(
                        out,
                        "{job}/{replica} is given back, and runs here until {until} at most"
                    )?;
                }
                None => writeln!(
                    out,
                    "{job}/{replica} is given back, and runs here until it runs elsewhere"
                )?,
            }
        }
        Ok(())
    })?;
    Ok(Exit::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replica_is_named_by_job_and_number() {
        assert_eq!(named("ab12").unwrap(), ("ab12".to_owned(), None));
        assert_eq!(named("ab12/3").unwrap(), ("ab12".to_owned(), Some(ReplicaIndex(3))));
        for wrong in ["", "/3", "ab/", "ab/x", "ab/1/2"] {
            assert!(named(wrong).is_err(), "{wrong}");
        }
    }
}
