//! The drill of `docs/backup.md`: its commands, as they stand there. A member's data directory is gone, its share is brought
//! back, and it takes part again behind its fence; a process that still has the old directory ends.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::network::{Network, json, until, veil};

const MEMBER: &str = "member-2";

/// The commands of the drill, one text for each step.
fn drill() -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/backup.md");
    let text = fs::read_to_string(path).unwrap();
    let section = text.split("\n## ").find(|section| section.starts_with("The drill\n")).unwrap();
    let blocks = section.split("```sh\n").skip(1);
    let lines = |block: &str| {
        let block = block.split("```").next().unwrap();
        block.lines().map(|line| format!("{}\n", line.trim_start())).collect::<String>()
    };
    blocks.map(lines).collect()
}

struct Drill {
    config: PathBuf,
    data: PathBuf,
    backup: PathBuf,
    /// Holds `veil` by that name.
    bin: PathBuf,
}

impl Drill {
    fn run(&self, commands: &str) -> Output {
        let paths = std::env::var("PATH").unwrap_or_default();
        Command::new("sh")
            .args(["-eu", "-c", commands])
            .env("PATH", format!("{}:{paths}", self.bin.display()))
            .env("CONFIG", &self.config)
            .env("DATA", &self.data)
            .env("BACKUP", &self.backup)
            .env("VEIL_BACKUP_PASSPHRASE_FILE", self.backup.with_file_name("backup-passphrase.txt"))
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    fn succeeds(&self, commands: &str) {
        let output = self.run(commands);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{commands}\n{said}");
    }

    /// The code that it ends with and what it says.
    fn refused(&self, commands: &str) -> (Option<i32>, String) {
        let output = self.run(commands);
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

fn stage(network: &Network) -> Option<String> {
    let mut command = veil();
    command.args(["status", "--json", "--config"]).arg(network.config(MEMBER));
    let output = command.stderr(Stdio::null()).output().unwrap();
    let status: Value = serde_json::from_slice(&output.stdout).ok()?;
    Some(status["stage"].as_str()?.to_owned())
}

/// The member's configuration with what was its data directory, at another port: as on another machine.
fn old_process(network: &Network) -> PathBuf {
    let config = network.config(MEMBER);
    let mut table: toml::Table = fs::read_to_string(&config).unwrap().parse().unwrap();
    let mut set = |section: &str, key: &str, value: toml::Value| {
        table[section].as_table_mut().unwrap().insert(key.to_owned(), value);
    };
    set("node", "data_dir", "old".into());
    set("network", "listen", vec!["/ip4/127.0.0.1/udp/0/quic-v1"].into());
    table.remove("api");
    let old = config.with_file_name("old.toml");
    fs::write(&old, table.to_string()).unwrap();
    old
}

#[test]
fn a_member_whose_data_directory_is_lost_comes_back_by_the_drill() {
    let (network, _) = Network::start();
    let [export, check, refused, import, run, look] = &drill()[..] else {
        panic!("the drill has other steps than this test goes through");
    };
    let place = network.folder.with_file_name("drill");
    let drill = Drill {
        config: network.config(MEMBER),
        data: network.folder.join(MEMBER).join("data"),
        backup: place.join("backup"),
        bin: place.join("bin"),
    };
    fs::create_dir_all(&drill.backup).unwrap();
    fs::create_dir_all(&drill.bin).unwrap();
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_veil"), drill.bin.join("veil")).unwrap();
    fs::write(place.join("backup-passphrase.txt"), "a test's\n").unwrap();

    drill.succeeds(export);
    drill.succeeds(check);
    let (code, said) = drill.refused(refused);
    assert!(code == Some(1) && said.contains("the member runs"), "{code:?} {said}");

    // Not only because it runs.
    network.end(MEMBER);
    let (code, said) = drill.refused(refused);
    assert!(code == Some(1) && said.contains("nothing is brought back over a share"), "{said}");

    // What was there is kept, by somebody who may start it.
    let old = old_process(&network);
    fs::rename(&drill.data, old.with_file_name("old")).unwrap();
    drill.succeeds(import);
    assert_eq!(run.trim(), "veil committee run --config \"$CONFIG\"");
    let back = network.start_node(MEMBER);
    until("the member waits behind its fence", || (stage(&network)? == "fenced").then_some(()));
    // While there is work there are slots.
    let mut jobs = 0;
    until("the fence is down", || {
        let stage = stage(&network)?;
        if stage != "fenced" {
            return Some(());
        }
        let job = network.submit(1);
        until("a job runs that was submitted meanwhile", || network.running(&job, 1));
        network.stop_job(&job);
        jobs += 1;
        assert!(jobs < 20, "the fence stays up");
        None
    });
    drill.succeeds(look);

    // Lock and certificate take three members of four: without another one, this one is among them.
    network.signal_node("member-4", Signal::SIGKILL);
    let job = network.submit(1);
    until("a job runs that it has decided on", || network.running(&job, 1));

    // The old process is told that there is another, and ends before it has a voice.
    let mut command = veil();
    command.args(["committee", "run", "--config"]).arg(&old);
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("so that the member has one voice"), "{said}");
    let job = network.submit(1);
    until("the member that was brought back decides on", || network.running(&job, 1));

    // Nothing that it has said contradicts what it said before.
    let mut command = veil();
    command.args(["evidence", "list", "--json", "--config"]).arg(network.config("member-1"));
    let evidence = json(&mut command);
    assert_eq!(evidence["evidence"], Value::Array(Vec::new()), "{evidence}");
    drop(back);
}
