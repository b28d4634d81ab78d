//! A worker whose chain does not answer: it runs, waits, and can be asked.

use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use veil_node_storage::keystore::{Passphrase, new_identity, write_identity};

/// Ends a test that hangs.
const PATIENCE: Duration = Duration::from_secs(600);

/// `veil` without the settings of whoever runs the tests.
pub(crate) fn veil(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_veil"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| {
        let name = name.to_string_lossy();
        name.starts_with("VEIL_")
    }) {
        command.env_remove(name);
    }
    command.args(arguments).stdin(Stdio::null());
    command
}

/// A worker's folder; the path of its configuration. Its chain is at a port that only the system may
/// listen at, and nothing does.
pub(crate) fn write_folder(folder: &Path) -> String {
    let passphrase = Passphrase::random();
    passphrase.write(&folder.join("passphrase.txt")).unwrap();
    fs::create_dir(folder.join("data")).unwrap();
    write_identity(&folder.join("data/identity.age"), &new_identity(), &passphrase).unwrap();
    let (contract, cluster) = ("11".repeat(20), "22".repeat(32));
    let config = format!(
        "[node]\ndata_dir = \"data\"\npassphrase_file = \"passphrase.txt\"\n\
         [network]\nlisten = [\"/ip4/127.0.0.1/tcp/0\"]\n\
         [chain]\nrpc = \"http://127.0.0.1:1\"\ncontract = \"0x{contract}\"\ncluster = \"0x{cluster}\"\n"
    );
    let path = folder.join("worker.toml");
    fs::write(&path, config).unwrap();
    path.to_str().unwrap().to_owned()
}

/// The running worker; it ends with the test, whatever becomes of it.
pub(crate) struct Process(pub(crate) Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill(); // ended already is as good
        let _ = self.0.wait();
    }
}

/// Starts the worker, and waits until it waits for its chain, which it does from then on.
pub(crate) fn start(config: &str) -> Process {
    let running = veil(&["worker", "run", "--config", config]).stderr(Stdio::null()).spawn();
    let mut running = Process(running.unwrap());
    let since = Instant::now();
    loop {
        let answer = veil(&["worker", "status", "--config", config]).output().unwrap();
        if String::from_utf8_lossy(&answer.stdout).contains("waiting for the chain") {
            return running;
        }
        assert!(running.0.try_wait().unwrap().is_none(), "it ended");
        assert!(since.elapsed() < PATIENCE, "{answer:?}");
        sleep(Duration::from_millis(50));
    }
}
