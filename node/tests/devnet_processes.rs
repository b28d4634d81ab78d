//! `veil devnet --processes` as a user runs it, insecure parameters: each node is a process, and
//! `kill -9` is what happens to a worker that runs a replica and to a member in the middle of a slot.
//!
//! The test waits for nothing that passes: what it waits for stays, or is a line of a node's log. A
//! slot is held by stopping (SIGSTOP) the members that it needs.
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
const PATIENCE: Duration = Duration::from_secs(1200);
/// Shorter than the grace after which a worker is lost.
const PAUSE: Duration = Duration::from_secs(10);
/// Slots in which a member may be stopped too late to hold them.
const MAX_TRIES: usize = 20;

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

/// Lines of a member's log: the slot's manifest is locked, its certificate is signed for, is there.
const LOCKED: &str = " locked slot=";
const SIGNING: &str = "stage=\"signing\"";
const CERTIFIED: &str = " certified";

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

    fn signal_node(&self, node: &str, signal: Signal) {
        kill(self.pid(node).unwrap(), signal).unwrap();
    }

    /// Stops a node where it is: when this returns it does nothing more until SIGCONT.
    fn hold(&self, node: &str) {
        let process = self.pid(node).unwrap();
        kill(process, Signal::SIGSTOP).unwrap();
        until("the node is stopped", || {
            let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
            status.contains("State:\tT").then_some(())
        });
    }

    /// What a node has logged so far.
    fn log(&self, node: &str) -> String {
        fs::read_to_string(self.folder.join(node).join("log.txt")).unwrap()
    }

    /// Brings the members to a slot that is locked and cannot be certified, and holds member-3 and
    /// member-4 there; returns the job that the slot places.
    ///
    /// Lock and certificate take three members of four. Without member-4 both take the other three,
    /// so that a slot is held for good if member-3 stops after its lock and before it signs. Whether
    /// it was in time its log tells, which does not change while it is stopped.
    fn hold_between_lock_and_certificate(&self) -> String {
        self.hold("member-4");
        for _ in 0..MAX_TRIES {
            let before = ["member-2", "member-3"].map(|member| self.log(member).len());
            let since = |i: usize, member| self.log(member).split_off(before[i]);
            let job = self.submit(1);
            until("member-3 has a lock", || since(1, "member-3").contains(LOCKED).then_some(()));
            self.hold("member-3");
            let log = since(1, "member-3");
            if !log.contains(SIGNING) && !log.contains(CERTIFIED) {
                until("member-2 has it too", || {
                    since(0, "member-2").contains(LOCKED).then_some(())
                });
                return job;
            }
            self.signal_node("member-3", Signal::SIGCONT);
            until("the job runs that it did not hold up", || {
                since(1, "member-3").contains(CERTIFIED).then_some(())
            });
        }
        panic!("member-3 signed before it was stopped, {MAX_TRIES} times");
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

    /// Docker's ids of the containers that a worker's replicas run in.
    fn containers(&self, worker: &str) -> Vec<String> {
        let mut command = veil();
        command.args(["worker", "status", "--json", "--config"]).arg(self.config(worker));
        let status = json(&mut command);
        let replicas = status["replicas"].as_array().unwrap().iter();
        let ids = replicas.filter_map(|replica| replica["observed"]["container"].as_str());
        ids.map(str::to_owned).collect()
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

    // A worker that is paused for a while loses nothing: neither it nor the others touch a container.
    let paused = placed["replicas"][1]["worker"].as_str().unwrap();
    let before = network.containers(paused);
    assert!(!before.is_empty());
    network.hold(paused);
    sleep(PAUSE);
    network.signal_node(paused, Signal::SIGCONT);
    sleep(PAUSE);
    assert_eq!(network.containers(paused), before);
    assert_eq!(network.running(web, 3).map(|workers| workers.len()), Some(3));

    // A worker dies: its replica runs elsewhere.
    let lost = placed["replicas"][0]["worker"].as_str().unwrap();
    network.signal_node(lost, Signal::SIGKILL);
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
    let second = network.hold_between_lock_and_certificate();
    network.signal_node("member-2", Signal::SIGKILL);
    network.signal_node("member-3", Signal::SIGCONT);
    network.signal_node("member-4", Signal::SIGCONT);
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
