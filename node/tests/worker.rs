//! `veil worker run` from outside, where there is no chain: it waits, says for what, and leaves nothing
//! behind.

#![allow(clippy::unwrap_used, reason = "a failed helper fails the test")]

use std::{
    fs,
    net::TcpListener,
    path::Path,
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;
use veil_node_storage::keystore::{Passphrase, new_identity, write_identity};

const DEADLINE: Duration = Duration::from_secs(60);

fn veil(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_veil"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("VEIL_")) {
        command.env_remove(name);
    }
    command.args(arguments);
    command
}

/// A worker's folder whose chain is at a port where nobody listens; the path of its configuration.
fn folder(folder: &Path) -> String {
    let unused = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let passphrase = Passphrase::random();
    passphrase.write(&folder.join("passphrase.txt")).unwrap();
    fs::create_dir(folder.join("data")).unwrap();
    write_identity(&folder.join("data/identity.age"), &new_identity(), &passphrase).unwrap();
    let (contract, cluster) = ("11".repeat(20), "22".repeat(32));
    let config = format!(
        "[node]\ndata_dir = \"data\"\npassphrase_file = \"passphrase.txt\"\n\
         [network]\nlisten = [\"/ip4/127.0.0.1/tcp/0\"]\n\
         [chain]\nrpc = \"http://127.0.0.1:{unused}\"\ncontract = \"0x{contract}\"\ncluster = \"0x{cluster}\"\n"
    );
    let path = folder.join("worker.toml");
    fs::write(&path, config).unwrap();
    path.to_str().unwrap().to_owned()
}

/// Ends the process if the test fails before it does.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill(); // ended already is as good
        let _ = self.0.wait();
    }
}

fn json(output: &Output) -> Value {
    let text = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text:?}"))
}

#[test]
fn without_a_chain_a_worker_waits_and_says_so() {
    let temporary = tempfile::tempdir().unwrap();
    let config = folder(temporary.path());
    let status = || veil(&["worker", "status", "--json", "--config", &config]).output().unwrap();
    let down = status();
    assert_eq!(down.status.code(), Some(1));
    assert_eq!(json(&down)["kind"], "admin");

    let running = veil(&["worker", "run", "--config", &config]).stderr(Stdio::null()).spawn();
    let mut running = Process(running.unwrap());
    let since = Instant::now();
    let seen = loop {
        let answer = status();
        if answer.status.success() {
            let answer = json(&answer);
            if answer["stage"] == "waiting for the chain" {
                break answer;
            }
        }
        assert!(running.0.try_wait().unwrap().is_none(), "it ended");
        assert!(since.elapsed() < DEADLINE, "{answer:?}");
        std::thread::sleep(Duration::from_millis(50));
    };
    assert_eq!(seen["role"], "worker");
    assert!(seen["waiting_for"][0].as_str().unwrap().contains("does not answer"), "{seen}");

    let second = veil(&["worker", "run", "--json", "--config", &config]).output().unwrap();
    assert_eq!(second.status.code(), Some(3));
    assert!(json(&second)["error"].as_str().unwrap().contains("in use"));

    let told = Command::new("sh").arg("-c").arg(format!("kill -TERM {}", running.0.id())).status();
    assert!(told.unwrap().success());
    assert_eq!(running.0.wait().unwrap().code(), Some(0));
    assert!(!temporary.path().join("data/admin.sock").exists());
}

#[test]
fn wrong_configurations_and_secrets_are_named() {
    let temporary = tempfile::tempdir().unwrap();
    let config = folder(temporary.path());
    let run = || veil(&["worker", "run", "--json", "--config", &config]).output().unwrap();
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, format!("{text}\n[worker]\nnonsense = 1\n")).unwrap();
    let refused = run();
    assert_eq!(refused.status.code(), Some(2));
    assert!(json(&refused)["error"].as_str().unwrap().contains("nonsense"));

    fs::write(&config, text.replace("[network]", "peer_id = \"16Uiu2HAm\"\n[network]")).unwrap();
    let refused = run();
    assert_eq!(refused.status.code(), Some(2));
    assert!(json(&refused)["error"].as_str().unwrap().contains("expects 16Uiu2HAm"));

    fs::write(&config, text).unwrap();
    fs::write(temporary.path().join("passphrase.txt"), "another\n").unwrap();
    let refused = run();
    assert_eq!(refused.status.code(), Some(3));
    assert!(json(&refused)["error"].as_str().unwrap().contains("wrong passphrase"));
}
