//! `veil worker run` from outside, where there is no chain: it waits, says for what, and leaves nothing
//! behind.

#![allow(clippy::unwrap_used, reason = "a failed helper fails the test")]

use std::{
    fs,
    net::TcpListener,
    path::Path,
    process::{Command, Output},
};

use serde_json::Value;

use self::idle_worker::{start, veil, write_folder};

#[path = "support/idle_worker.rs"]
mod idle_worker;

fn json(output: &Output) -> Value {
    let text = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text:?}"))
}

#[test]
fn without_a_chain_a_worker_waits_and_says_so() {
    let temporary = tempfile::tempdir().unwrap();
    let config = write_folder(temporary.path());
    let status = || veil(&["worker", "status", "--json", "--config", &config]).output().unwrap();
    let down = status();
    assert_eq!(down.status.code(), Some(1));
    assert_eq!(json(&down)["kind"], "node");

    let mut running = start(&config);
    let seen = json(&status());
    assert_eq!(seen["role"], "worker");
    assert_eq!(seen["stage"], "waiting for the chain");
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
fn tokens_that_open_nothing_are_named() {
    let (temporary, user) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let config = write_folder(temporary.path());
    // Free as soon as it is dropped here.
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, format!("{text}[api]\nlisten = \"{address}\"\n")).unwrap();
    let _running = start(&config);

    let (url, data) = (format!("https://{address}"), temporary.path().join("data"));
    let certificate = data.join("api-certificate.pem");
    let job_status = |ca: Option<&Path>, token: Option<&Path>| {
        let mut command = veil(&["--node", &url, "job", "status", "--json"]);
        command.envs(ca.map(|file| ("VEIL_NODE_CA", file)));
        command.envs(token.map(|file| ("VEIL_NODE_TOKEN_FILE", file)));
        let output = command.output().unwrap();
        (output.status.code().unwrap(), json(&output))
    };
    let (code, said) = job_status(Some(&certificate), Some(&data.join("api-read-token")));
    assert_eq!((code, &said["replicas_running"]), (0, &0.into()), "{said}");

    let (here, there, secret) = ("22".repeat(32), "33".repeat(32), "00".repeat(32));
    for (token, why) in [
        (format!("veil-read-{here}-{secret}"), "neither this node's read token"),
        (format!("veil-read-{there}-{secret}"), "is for cluster 0x3333"),
        (format!("veil-session-{here}-1700000000-{secret}"), "expired"),
        (format!("veil-session-{there}-1700000000-{secret}"), "is for cluster 0x3333"),
    ] {
        let file = user.path().join("token");
        fs::write(&file, token).unwrap();
        let (code, said) = job_status(Some(&certificate), Some(&file));
        assert_eq!((code, said["kind"].as_str()), (1, Some("denied")), "{said}");
        let error = said["error"].as_str().unwrap();
        assert!(error.contains(why) && error.contains("--node-token-file"), "{error}");
    }
    let (code, said) = job_status(Some(&certificate), None);
    assert_eq!((code, said["kind"].as_str()), (1, Some("denied")), "{said}");
    let (code, said) = job_status(None, None);
    assert_eq!(code, 2, "{said}");
    assert!(said["error"].as_str().unwrap().contains("--node-ca"), "{said}");
    let (code, said) = job_status(Some(&user.path().join("none.pem")), None);
    assert_eq!((code, said["kind"].as_str()), (3, Some("files")), "{said}");
}

#[test]
fn wrong_configurations_and_secrets_are_named() {
    let temporary = tempfile::tempdir().unwrap();
    let config = write_folder(temporary.path());
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
