//! `veil job forward`.

use std::{sync::Arc, time::Duration};

use clap::Args;
use serde_json::json;
use tokio::{net::TcpListener, task::JoinSet, time::sleep};
use veil_node_operator::reach::{
    self, Named,
    mapping::{self, Mapping},
};
use veil_node_terminal::waiting;

use super::Reaching;
use crate::cli::{
    asking::Asking,
    failure::{Exit, Failure},
    output::{self, Reader},
    run::stop_on_signals,
};

/// After an error of the listener: this process is out of file descriptors, for instance.
const ACCEPT_PAUSE: Duration = Duration::from_millis(500);

#[derive(Debug, Args)]
pub(in crate::cli) struct Forward {
    /// A job, by name, digest or its first digits, and perhaps which replica; otherwise the first that is reached.
    #[arg(value_name = "JOB[/REPLICA]")]
    job: Named,
    /// Where to listen, and the port of the container: a name that the job gives it, or any number. The address is
    /// 127.0.0.1 unless it is given; LOCAL 0 takes a free port.
    #[arg(value_name = "[ADDRESS:]LOCAL:PORT", required = true)]
    ports: Vec<Mapping>,
    #[command(flatten)]
    pub(in crate::cli::job) reaching: Reaching,
}

pub(in crate::cli::job) async fn forward(
    arguments: &Forward,
    asking: &Asking,
) -> Result<Exit, Failure> {
    let Forward { job, ports, reaching } = arguments;
    let (way, _) = reaching.way(asking).await?;
    let stop = stop_on_signals()?;
    let (mut listening, mut told) = (JoinSet::new(), Vec::new());
    for Mapping { listen, port } in ports {
        let listener = TcpListener::bind(listen).await;
        let listener = listener.map_err(|error| Failure::usage(format!("{listen}: {error}")))?;
        let at = listener.local_addr();
        let at = at.map_err(|error| Failure::new(Exit::Failed, "runtime", error))?;
        waiting::on("reaching the replica");
        let begun = reach::forward::Forward::begin(Arc::clone(&way), job.clone(), port.clone());
        let (forward, placed) = begun.await?;
        told.push((at, mapping::name(port), placed));
        listening.spawn(accept(listener, Arc::new(forward)));
    }
    waiting::over();
    let object = told.iter().map(|(at, port, placed)| {
        let (job, replica, worker) = (placed.job, placed.replica, placed.worker);
        json!({ "listen": at, "port": port, "job": job, "replica": replica, "worker": worker })
    });
    let object = json!({ "forwards": object.collect::<Vec<_>>() });
    let reader = output::show(reaching.json(), &object, |out| {
        told.iter().try_for_each(|(at, port, placed)| {
            writeln!(out, "{at} leads to {}/{} port {port}", job.job, placed.replica)
        })
    })?;
    if reader == Reader::Reads {
        stop.cancelled().await;
    }
    Ok(Exit::Done)
}

async fn accept(listener: TcpListener, forward: Arc<reach::forward::Forward>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((connection, _)) => {
                    let forward = Arc::clone(&forward);
                    connections.spawn(async move {
                        if let Err(error) = forward.carry(connection).await {
                            output::note(format_args!("error: {error}"));
                        }
                    });
                }
                Err(error) => {
                    output::note(format_args!("error: {error}"));
                    sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
        }
    }
}
