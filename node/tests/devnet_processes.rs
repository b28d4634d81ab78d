//! `veil devnet --processes` as a user runs it, insecure parameters: each node is a process, and
//! `kill -9` is what happens to a worker that runs a replica and to a member in the middle of a slot.
//!
//! It needs anvil, a Docker engine and the sample image (`cargo xtask setup`); without them it fails
//! and says so.

#![allow(clippy::unwrap_used, reason = "a failed helper fails the test")]

use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

/// Ends a test that hangs.
const PATIENCE: Duration = Duration::from_secs(300);

fn veil() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_veil"));
    command.stdin(Stdio::null());
    command
}

/// Standard output of a command, as JSON.
fn json(command: &mut Command) -> Value {
    let output = command.stderr(Stdio::piped()).output().unwrap();
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
        panic!("{command:?}: {error}\n{}", String::from_utf8_lossy(&output.stderr))
    })
}

fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begun.elapsed() < PATIENCE, "it never came to this: {what}");
        sleep(Duration::from_millis(20));
    }
}

/// The network's own process, told to end when the test does.
struct Network {
    child: Child,
    folder: PathBuf,
}

impl Drop for Network {
    fn drop(&mut self) {
        self.signal(Signal::SIGTERM);
        let _ = self.child.wait();
    }
}

impl Network {
    fn signal(&self, signal: Signal) {
        let _ = kill(Pid::from_raw(self.child.id().try_into().unwrap()), signal);
    }

    fn config(&self, node: &str) -> PathBuf {
        let role = if node.starts_with("member") { "member" } else { "worker" };
        self.folder.join(node).join(format!("{role}.toml"))
    }

    fn pid(&self, node: &str) -> Option<Pid> {
        let config = self.config(node);
        let has_it = |process: &Path| {
            let line = fs::read(process.join("cmdline")).unwrap_or_default();
            let mut words = line.split(|byte| *byte == 0);
            words.any(|word| word == config.as_os_str().as_encoded_bytes())
        };
        fs::read_dir("/proc").unwrap().flatten().find_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            has_it(&entry.path()).then_some(Pid::from_raw(pid))
        })
    }

    fn kill(&self, node: &str) {
        kill(self.pid(node).unwrap(), Signal::SIGKILL).unwrap();
    }

    fn stage(&self, member: &str) -> Option<String> {
        let mut command = veil();
        let output = command.args(["status", "--json", "--config"]).arg(self.config(member));
        let output = output.stderr(Stdio::null()).output().unwrap();
        let status: Value = serde_json::from_slice(&output.stdout).ok()?;
        Some(status["stage"].as_str()?.to_owned())
    }

    fn submit(&self, replicas: u16) -> String {
        let image = veil_node::devnet::sample_image().unwrap();
        let path = self.folder.join("job.toml");
        let text = format!(
            "image = \"{image}\"\nreplicas = {replicas}\n[resources]\ncpu_millicores = 100\nmemory_mib = 64\n"
        );
        fs::write(&path, text).unwrap();
        let mut command = veil();
        command.args(["job", "submit", "--json"]).arg(&path).arg("--devnet").arg(&self.folder);
        json(&mut command)["job"].as_str().unwrap().to_owned()
    }

    /// Names of the workers that run the job's replicas, once all of them run.
    fn running(&self, job: &str, replicas: usize) -> Option<Vec<String>> {
        let mut command = veil();
        command.args(["job", "status", job, "--json", "--devnet"]).arg(&self.folder);
        let status = json(&mut command);
        let all = status["replicas"].as_array()?;
        let runs = |entry: &&Value| entry["assigned"] == true && entry["running"] == true;
        let here = |entry: &Value| Some(entry["worker_name"].as_str()?.to_owned());
        let running: Vec<_> = all.iter().filter(runs).filter_map(here).collect();
        (running.len() == replicas && all.len() == replicas).then_some(running)
    }
}

#[test]
fn killed_processes_neither_stop_placement_nor_double_it() {
    let place = tempfile::Builder::new().prefix("veil-").tempdir().unwrap();
    let folder = place.path().join("net");
    let mut command = veil();
    command.args(["devnet", "--processes", "--json", "--parameters", "insecure-test", "--keep"]);
    let log = fs::File::create(place.path().join("log")).unwrap();
    let child = command.arg(&folder).stdout(Stdio::piped()).stderr(log).spawn().unwrap();
    let mut network = Network { child, folder };
    let mut line = String::new();
    let output = network.child.stdout.take().unwrap();
    BufReader::new(output).read_line(&mut line).unwrap();
    let placed: Value = serde_json::from_str(&line).unwrap_or_else(|_| {
        let log = fs::read_to_string(place.path().join("log")).unwrap_or_default();
        panic!("no placement (was `cargo xtask setup` run?): {line}\n{log}")
    });
    assert_eq!(placed["replicas_running"], 3, "{placed}");
    assert!(placed["certificate_verified"] == true && placed["anchored"] == true, "{placed}");
    assert_eq!(placed["processes"], true);
    let web = placed["job"].as_str().unwrap();

    // A worker dies: its replica runs elsewhere.
    let lost = placed["replicas"][0]["worker"].as_str().unwrap();
    network.kill(lost);
    let moved = until("the replica runs on another worker", || {
        network.running(web, 3).filter(|workers| workers.iter().all(|worker| worker != lost))
    });
    // Its return changes nothing.
    let mut again = veil();
    again.args(["worker", "run", "--config"]).arg(network.config(lost));
    let again = again.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let back = Guard(again.unwrap());
    until("the worker is back, without the replica", || {
        let mut command = veil();
        command.args(["worker", "status", "--json", "--config"]).arg(network.config(lost));
        let output = command.stderr(Stdio::null()).output().unwrap();
        let status: Value = serde_json::from_slice(&output.stdout).ok()?;
        let known = status["replicas"].as_array().filter(|replicas| replicas.len() == 3)?;
        known.iter().all(|r| r["observed"].is_null()).then_some(())
    });
    assert_eq!(network.running(web, 3).unwrap(), moved);

    // A member dies between the lock and the certificate: the others go on.
    let second = network.submit(1);
    until("member-2 evaluates, decrypts or signs", || {
        let stage = network.stage("member-2")?;
        matches!(&*stage, "evaluating" | "decrypting" | "signing").then_some(())
    });
    network.kill("member-2");
    until("the second job runs", || network.running(&second, 1));
    // It returns and catches up with a slot that was certified without it.
    let mut again = veil();
    again.args(["committee", "run", "--config"]).arg(network.config("member-2"));
    let again = again.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let member = Guard(again.unwrap());
    let third = network.submit(1);
    until("the third job runs", || network.running(&third, 1));
    until("the member that was away has every certificate", || {
        let slot = |member: &str| {
            let mut command = veil();
            command.args(["status", "--json", "--config"]).arg(network.config(member));
            let output = command.stderr(Stdio::null()).output().unwrap();
            serde_json::from_slice::<Value>(&output.stdout).ok()?["last_slot"].as_u64()
        };
        (slot("member-2")? == slot("member-1")?).then_some(())
    });

    // Told to end, it ends everything that it started.
    drop((back, member));
    network.signal(Signal::SIGTERM);
    assert!(network.child.wait().unwrap().success());
    assert_eq!(network.pid("member-1"), None);
}

/// A node that the test started by hand.
struct Guard(Child);

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
