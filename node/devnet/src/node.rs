//! One running node: a task of this process, or a process of its own.

use std::{
    fs::File,
    net::UdpSocket,
    path::PathBuf,
    process::Stdio,
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::{process::Command, task::JoinHandle, time::sleep};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;
use veil_node_api::client::{Client, ClientError};
use veil_node_api::status::{Role, Status};
use veil_node_config::{MemberConfig, WorkerConfig};
use veil_node_core::lifecycle::Secrets;
use veil_node_storage::keystore::Passphrase;
use veil_protocol_spec::PeerIdHash;

use crate::{DevnetError, files::NodeFiles};

/// How long a node may take to leave before it is ended by force.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(30);

/// A node and, if it was started, what runs it.
#[derive(Debug)]
pub struct Node {
    pub(crate) files: NodeFiles,
    pub(crate) log: PathBuf,
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    stop: CancellationToken,
    task: JoinHandle<()>,
    ended: Arc<OnceLock<String>>,
    pid: Option<u32>,
}

impl Node {
    pub(crate) const fn new(files: NodeFiles, log: PathBuf) -> Self {
        Self { files, log, running: None }
    }

    /// Short name, such as `worker-2`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.files.name
    }

    /// What it is.
    #[must_use]
    pub const fn role(&self) -> Role {
        self.files.role
    }

    /// In the registry.
    #[must_use]
    pub fn peer(&self) -> PeerIdHash {
        PeerIdHash::of(&self.files.identity.public())
    }

    /// Asks it through its socket.
    #[must_use]
    pub fn client(&self) -> Client {
        Client::of_socket(self.files.admin_socket())
    }

    /// Its process, if it has one of its own and runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.running.as_ref()?.pid
    }

    /// Whether it was started and not stopped since.
    #[must_use]
    pub const fn is_started(&self) -> bool {
        self.running.is_some()
    }

    /// What it says of itself.
    ///
    /// # Errors
    /// Why it does not answer.
    pub async fn status(&self) -> Result<Status, ClientError> {
        self.client().get("/v1/status").await
    }

    /// An error if it ended by itself.
    pub(crate) fn check(&self) -> Result<(), DevnetError> {
        let Some(running) = self.running.as_ref().filter(|running| running.task.is_finished())
        else {
            return Ok(());
        };
        let why = running.ended.get().cloned();
        Err(DevnetError::NodeEnded {
            node: self.name().to_owned(),
            why: why.unwrap_or_else(|| "it panicked".to_owned()),
            log: self.log.clone(),
        })
    }

    /// Starts it, as a process of its own if told to.
    pub(crate) fn start(&mut self, process: bool) -> Result<(), DevnetError> {
        let stop = CancellationToken::new();
        let ended = Arc::new(OnceLock::new());
        let (task, pid) = if process {
            let (child, pid) = self.spawn_process()?;
            (tokio::spawn(attend(child, pid, stop.clone(), Arc::clone(&ended))), pid)
        } else {
            (self.spawn_task(stop.clone(), Arc::clone(&ended))?, None)
        };
        self.running = Some(Running { stop, task, ended, pid });
        Ok(())
    }

    fn spawn_task(
        &self,
        stop: CancellationToken,
        ended: Arc<OnceLock<String>>,
    ) -> Result<JoinHandle<()>, DevnetError> {
        let passphrase = Passphrase::from_file(&self.files.passphrase())?;
        let secrets = Secrets { passphrase, account: self.files.account.clone() };
        let file = self.files.config();
        // The environment is this process's, not that of one of its nodes.
        let nothing = |_: &str| None;
        let span = tracing::info_span!("node", name = %self.name());
        let said = |result: Result<(), String>| match result {
            Ok(()) => "it stopped".to_owned(),
            Err(error) => error,
        };
        Ok(match self.role() {
            Role::Member => {
                let config = MemberConfig::load(&file, &nothing)?;
                tokio::spawn(
                    async move {
                        let result = veil_node_member::run(&config, secrets, stop).await;
                        let _ = ended.set(said(result.map_err(|e| e.to_string())));
                    }
                    .instrument(span),
                )
            }
            Role::Worker => {
                let config = WorkerConfig::load(&file, &nothing)?;
                tokio::spawn(
                    async move {
                        let result = veil_node_worker::run(&config, secrets, stop).await;
                        let _ = ended.set(said(result.map_err(|e| e.to_string())));
                    }
                    .instrument(span),
                )
            }
        })
    }

    fn spawn_process(&self) -> Result<(tokio::process::Child, Option<u32>), DevnetError> {
        let program = std::env::current_exe()
            .map_err(|source| DevnetError::Io { path: PathBuf::from("/proc/self/exe"), source })?;
        let log = File::options().create(true).append(true).open(&self.log);
        let log = log.map_err(DevnetError::io(&self.log))?;
        let errors = log.try_clone().map_err(DevnetError::io(&self.log))?;
        let role = match self.role() {
            Role::Member => "committee",
            Role::Worker => "worker",
        };
        let mut command = Command::new(&program);
        command.args([role, "run", "--config"]).arg(self.files.config());
        // What is in the environment is meant for this command; the files say all a node needs.
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            if text.starts_with("VEIL_") && text != "VEIL_LOG" {
                command.env_remove(name);
            }
        }
        command.stdin(Stdio::null()).stdout(log).stderr(errors).kill_on_drop(true);
        command.process_group(0); // Ctrl-C is for this command, which then stops its nodes
        let child = command.spawn().map_err(DevnetError::io(&program))?;
        let pid = child.id();
        Ok((child, pid))
    }

    /// Tells it to leave; [`Self::stopped`] waits for it.
    pub(crate) fn request_stop(&self) {
        if let Some(running) = &self.running {
            running.stop.cancel();
        }
    }

    /// Waits until it has left. One that takes too long is ended.
    pub(crate) async fn stopped(&mut self) {
        let Some(mut running) = self.running.take() else { return };
        if tokio::time::timeout(SHUTDOWN_TIMEOUT * 2, &mut running.task).await.is_err() {
            tracing::warn!(node = self.name(), "does not stop and is ended");
            running.task.abort();
        }
    }

    /// Waits until it can listen again: within one process a UDP port is taken until the connections over it have
    /// drained.
    pub(crate) async fn freed(&self) {
        let listen = self.files.listen.iter();
        let sockets = listen.filter_map(|at| match at.split('/').collect::<Vec<_>>()[..] {
            [_, "ip4", host, "udp", port, ..] => Some(format!("{host}:{port}")),
            _ => None,
        });
        let begun = Instant::now();
        for at in sockets {
            while UdpSocket::bind(&at).is_err() && begun.elapsed() < SHUTDOWN_TIMEOUT {
                sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

/// Waits for a process; asks it to end when told to stop, and reaps it in any case.
async fn attend(
    mut child: tokio::process::Child,
    pid: Option<u32>,
    stop: CancellationToken,
    ended: Arc<OnceLock<String>>,
) {
    tokio::select! {
        status = child.wait() => {
            let why = status.map_or_else(|e| e.to_string(), |status| status.to_string());
            let _ = ended.set(why);
            return;
        }
        () = stop.cancelled() => {}
    }
    if let Some(pid) = pid.and_then(|pid| i32::try_from(pid).ok()) {
        let _ = kill(Pid::from_raw(pid), Signal::SIGTERM); // it may have ended meanwhile
    }
    if tokio::time::timeout(SHUTDOWN_TIMEOUT, child.wait()).await.is_err() {
        let _ = child.kill().await; // also waits for it
    }
    let _ = ended.set("it stopped".to_owned());
}
