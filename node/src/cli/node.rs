//! Running processes: `veil worker run`, `veil committee run`, `veil status`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::{Exit, complain};
use crate::{
    admin::{self, AdminError},
    config::{AnyConfig, ConfigError, MemberConfig, WorkerConfig, process_environment},
    member::{self, MemberError},
    role::{RoleError, Secrets},
    status::Status,
    worker::{self, WorkerError},
};

/// What a worker can be told.
#[derive(Debug, Subcommand)]
pub(super) enum Worker {
    /// Run a worker in this process until it is interrupted.
    Run(Run),
    /// What the running worker says of itself.
    Status(Ask),
}

/// What a committee member can be told.
#[derive(Debug, Subcommand)]
pub(super) enum Member {
    /// Run a member in this process until it is interrupted: take part in the key ceremony if there
    /// is no key yet, then in every slot.
    Run(Run),
    /// What the running member says of itself.
    Status(Ask),
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
    /// The configuration of the running process, member or worker.
    #[arg(long, env = "VEIL_CONFIG", value_name = "FILE")]
    config: PathBuf,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// Logs to standard error: what `VEIL_LOG` selects, from `info` up by default.
pub(super) fn init_logs(json: bool) {
    let filter = tracing_subscriber::EnvFilter::try_from_env("VEIL_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // An error means that something in this process logs already.
    let _ = if json { builder.json().try_init() } else { builder.try_init() };
}

/// Is cancelled by SIGINT and SIGTERM. A second one ends the process at once.
pub(super) fn stop_on_signals() -> std::io::Result<CancellationToken> {
    let stop = CancellationToken::new();
    let (mut interrupt, mut terminate) =
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let told = stop.clone();
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            if told.is_cancelled() {
                std::process::exit(130);
            }
            tracing::info!("stopping; once more to stop at once");
            told.cancel();
        }
    });
    Ok(stop)
}

/// `veil worker`.
pub(super) fn worker(command: &Worker) -> Exit {
    match command {
        Worker::Run(run) => run_worker(run),
        Worker::Status(ask) => status(ask),
    }
}

fn run_worker(arguments: &Run) -> Exit {
    init_logs(arguments.json);
    let json = arguments.json;
    let config = match WorkerConfig::load(&arguments.config, &process_environment) {
        Ok(config) => config,
        Err(error) => return refuse_config(json, &error),
    };
    let loaded = Secrets::load(&config.node, &config.chain, &process_environment);
    serve(json, loaded, async |secrets, stop| {
        worker::run(&config, secrets, stop).await.map_err(|error| {
            let exit = match &error {
                WorkerError::Role(error) => role_exit(error),
                WorkerError::KeySet { .. } | WorkerError::Sequence(_) => Exit::Files,
                WorkerError::Unreadable(_) => Exit::Failed,
            };
            ("worker", error.to_string(), exit)
        })
    })
}

/// `veil committee`.
pub(super) fn member(command: &Member) -> Exit {
    match command {
        Member::Run(run) => run_member(run),
        Member::Status(ask) => status(ask),
    }
}

fn run_member(arguments: &Run) -> Exit {
    init_logs(arguments.json);
    let json = arguments.json;
    let config = match MemberConfig::load(&arguments.config, &process_environment) {
        Ok(config) => config,
        Err(error) => return refuse_config(json, &error),
    };
    let loaded = Secrets::load(&config.node, &config.chain, &process_environment);
    serve(json, loaded, async |secrets, stop| {
        member::run(&config, secrets, stop).await.map_err(|error| {
            let exit = match &error {
                MemberError::Role(error) => role_exit(error),
                MemberError::Io { .. } | MemberError::Keystore(_) => Exit::Files,
                _ => Exit::Failed,
            };
            ("member", error.to_string(), exit)
        })
    })
}

fn refuse_config(json: bool, error: &ConfigError) -> Exit {
    complain(json, "configuration", error);
    config_exit(error)
}

/// Runs a role until it ends or a signal stops it.
fn serve(
    json: bool,
    secrets: Result<Secrets, RoleError>,
    role: impl AsyncFnOnce(Secrets, CancellationToken) -> Result<(), (&'static str, String, Exit)>,
) -> Exit {
    let secrets = match secrets {
        Ok(secrets) => secrets,
        Err(error) => {
            complain(json, "secrets", &error);
            return role_exit(&error);
        }
    };
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            complain(json, "runtime", &error);
            return Exit::Failed;
        }
    };
    let ran = runtime.block_on(async {
        let stop =
            stop_on_signals().map_err(|error| ("signals", error.to_string(), Exit::Failed))?;
        role(secrets, stop).await
    });
    // An evaluation may still compute on a thread that nobody waits for.
    runtime.shutdown_background();
    match ran {
        Ok(()) => Exit::Done,
        Err((kind, error, exit)) => {
            complain(json, kind, &error);
            exit
        }
    }
}

const fn config_exit(error: &ConfigError) -> Exit {
    match error {
        ConfigError::Read { .. } => Exit::Files,
        _ => Exit::Usage,
    }
}

pub(super) const fn role_exit(error: &RoleError) -> Exit {
    match error {
        RoleError::DataDir(_) | RoleError::Keystore(_) | RoleError::PassphraseFile { .. } => {
            Exit::Files
        }
        RoleError::NoPassphrase
        | RoleError::NoKeystorePassphrase
        | RoleError::OtherPeer { .. }
        | RoleError::Account(_) => Exit::Usage,
        _ => Exit::Failed,
    }
}

/// `veil status`.
pub(super) fn status(arguments: &Ask) -> Exit {
    let loaded = AnyConfig::load(&arguments.config, &process_environment);
    let socket = match loaded.map(|config| config.admin_socket()) {
        Ok(socket) => socket,
        Err(error) => {
            complain(arguments.json, "configuration", &error);
            return config_exit(&error);
        }
    };
    let asked = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| AdminError::Connect { socket: socket.clone(), source })
        .and_then(|runtime| runtime.block_on(admin::get::<Status>(&socket, "/v1/status")));
    let status = match asked {
        Ok(status) => status,
        Err(error) => {
            complain(arguments.json, "admin", &error);
            return Exit::Failed;
        }
    };
    if arguments.json {
        match serde_json::to_string(&status) {
            Ok(json) => println!("{json}"),
            Err(error) => {
                complain(true, "output", &error);
                return Exit::Failed;
            }
        }
    } else {
        print(&status);
    }
    Exit::Done
}

fn print(status: &Status) {
    println!("{:?} {}, {}", status.role, status.peer_id, status.stage);
    for waited in &status.waiting_for {
        println!("  waiting for {waited}");
    }
    if let Some(key_set) = &status.key_set {
        let insecure = if status.insecure_reference_string {
            ", INSECURE reference string of one party"
        } else {
            ""
        };
        println!("key set {key_set}{insecure}");
    }
    if let Some(seat) = status.participant {
        println!("seat {seat}");
    }
    let peers = &status.peers;
    println!("{} of {} peers answer, {} are down", peers.alive, peers.registered, peers.down);
    println!("last certified slot {}", status.last_slot);
    for replica in &status.replicas {
        let place = match (&replica.worker, &replica.pending_because) {
            (Some(worker), _) => format!("on {worker}"),
            (None, Some(because)) => format!("pending: {because}"),
            (None, None) => "on no worker".to_owned(),
        };
        let observed = match &replica.observed {
            Some(observed) => format!(" ({})", observed.state),
            None => String::new(),
        };
        println!("{}/{} {place}{observed}", replica.job, replica.replica);
    }
}
