//! Readers that leave early, as `head` does.

use std::{
    io::{PipeWriter, Read as _, pipe},
    process::Command,
};

use crate::idle_worker::{start, veil, write_folder};

/// A pipe that nobody reads.
fn closed() -> PipeWriter {
    pipe().unwrap().1
}

/// Ends quietly, with `code`, whether only its output is not read or what it says beside it neither.
fn ends_quietly(code: i32, arguments: &[&str]) {
    let command = |arguments: &[&str]| -> Command {
        let mut command = veil(arguments);
        command.env("VEIL_PASSPHRASE", "open sesame").stdout(closed());
        command
    };
    let (mut reader, writer) = pipe().unwrap();
    let mut running = command(arguments).stderr(writer).spawn().unwrap();
    let mut said = String::new();
    reader.read_to_string(&mut said).unwrap();
    let ended = running.wait().unwrap();
    assert!(
        !said.contains("panicked") && !said.contains("RUST_BACKTRACE"),
        "{arguments:?}: {said}"
    );
    assert_eq!(ended.code(), Some(code), "{arguments:?}: {said}");
    // As with `2>&1 | head`. A panic would end it with 101.
    let ended = command(arguments).stderr(closed()).status().unwrap();
    assert_eq!(ended.code(), Some(code), "{arguments:?}, standard error closed too");
}

#[test]
fn commands_end_quietly_when_nobody_reads() {
    let folder = tempfile::tempdir().unwrap();
    let config = write_folder(folder.path());
    let socket = folder.path().join("data/admin.sock");
    let (socket, nowhere) = (socket.to_str().unwrap(), "/nowhere");
    for json in [&[][..], &["--json"]] {
        let ends = |code, arguments: &[&str]| ends_quietly(code, &[arguments, json].concat());
        ends(0, &["config", "check", &config]);
        ends(3, &["config", "check", nowhere]);
        ends(1, &["status", "--config", &config]);
        ends(3, &["ceremony", "verify", nowhere]);
        ends(2, &["chain", "status", "--rpc", "nonsense"]);
        let contract = "0x1111111111111111111111111111111111111111";
        ends(1, &["chain", "status", "--rpc", "http://127.0.0.1:1", "--contract", contract]);
        ends(3, &["worker", "run", "--config", nowhere]);
    }
    for arguments in
        [&["--help"][..], &["job", "submit", "--help"], &["--version"], &["help", "ceremony"]]
    {
        ends_quietly(0, arguments);
    }
    ends_quietly(2, &["nonsense"]);
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        ends_quietly(0, &["completions", shell]);
    }
    ends_quietly(0, &["man"]);
    ends_quietly(0, &["man", folder.path().join("man").to_str().unwrap()]);
    for role in ["member", "worker", "operator", "policy"] {
        ends_quietly(0, &["config", "sample", "--role", role]);
    }

    let running = start(&config);
    for json in [&[][..], &["--json"]] {
        let ends = |code, arguments: &[&str]| ends_quietly(code, &[arguments, json].concat());
        ends(0, &["status", "--config", &config]);
        ends(0, &["worker", "status", "--config", &config]);
        ends(0, &["job", "status", "--node", socket]);
        ends(0, &["job", "list", "--node", socket]);
        ends(3, &["worker", "run", "--config", &config]);
    }
    drop(running);
}

#[test]
fn a_ceremony_that_nobody_watches_is_finished() {
    for (code, fault) in [(0, &[][..]), (1, &["--fault", "silent"])] {
        for json in [&[][..], &["--json"]] {
            let simulate = ["ceremony", "simulate", "--parameters", "insecure-short"];
            ends_quietly(code, &[&simulate[..], &["--no-comparison"], fault, json].concat());
        }
    }
}

#[test]
fn a_new_identity_is_written_though_nobody_reads_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("identity.age");
    let made = veil(&["identity", "new", "--out", path.to_str().unwrap()])
        .env("VEIL_PASSPHRASE", "open sesame")
        .stdout(closed())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&made.stderr);
    let is_quiet = said.lines().all(|line| line.starts_with("encrypting the identity"));
    assert!(made.status.success() && is_quiet, "{made:?}");
    ends_quietly(0, &["identity", "show", "--identity", path.to_str().unwrap(), "--json"]);
}

#[test]
fn a_full_disk_behind_standard_output_is_named() {
    // Linux's device for this case.
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let ended = veil(&["config", "sample", "--role", "worker"]).stdout(full).output().unwrap();
    assert_eq!(ended.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&ended.stderr).contains("standard output"), "{ended:?}");
}
