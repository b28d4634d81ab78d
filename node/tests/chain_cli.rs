//! `veil chain` and `veil identity` from outside, against a local chain.

#![allow(clippy::unwrap_used, reason = "a failed helper fails the test")]

use std::{env, path::Path, process::Command};

use alloy::{hex, signers::local::PrivateKeySigner};
use serde_json::Value;
use veil_node::chain::anvil::{Anvil, AnvilConfig};

/// The first key of Foundry's test phrase, known to everybody.
const KEY: &str = "ac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80";
/// The second.
const OTHER_KEY: &str = "59c6995e998f97a5a0044966f0945389dc9e86dae88c7a8412f4603b6b78690d";

struct Shell {
    rpc: String,
    key: String,
    contract: String,
    cluster: String,
    folder: tempfile::TempDir,
}

impl Shell {
    /// Runs `veil`; its exit code and the object it printed.
    fn veil(&self, arguments: &[&str]) -> (i32, Value) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_veil"));
        for (name, _) in env::vars_os() {
            if name.to_string_lossy().starts_with("VEIL_") {
                command.env_remove(name);
            }
        }
        let set = [
            ("VEIL_RPC_URL", &self.rpc),
            ("VEIL_CHAIN_KEY", &self.key),
            ("VEIL_CONTRACT_ADDRESS", &self.contract),
            ("VEIL_CLUSTER", &self.cluster),
        ];
        command.envs(set.into_iter().filter(|(_, value)| !value.is_empty()));
        command.env("VEIL_PASSPHRASE", "open sesame").current_dir(self.folder.path());
        let output = command.args(arguments).arg("--json").output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let said = serde_json::from_str(&text).unwrap_or(Value::Null);
        (output.status.code().unwrap(), said)
    }

    fn done(&self, arguments: &[&str]) -> Value {
        let (code, said) = self.veil(arguments);
        assert_eq!(code, 0, "{arguments:?}: {said}");
        said
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_string_lossy().into_owned()
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn from_deployment_to_a_registered_node() {
    let anvil = Anvil::start(AnvilConfig::default()).await.unwrap();
    let mut shell = Shell {
        rpc: anvil.url(),
        key: KEY.to_owned(),
        contract: String::new(),
        cluster: String::new(),
        folder: tempfile::tempdir().unwrap(),
    };
    let deployed = shell.done(&["chain", "deploy"]);
    assert!(Path::new(&shell.path("veil-deployment.json")).is_file());
    let (code, said) = shell.veil(&["chain", "deploy"]);
    assert_eq!((code, said["kind"].as_str()), (3, Some("files")), "not overwritten");
    shell.contract = text(&deployed["directory"]);
    shell.cluster = text(&shell.done(&["chain", "cluster", "--committee", "1"])["cluster"]);
    let (code, said) = shell.veil(&["chain", "cluster", "--committee", "1"]);
    assert_eq!((code, said["kind"].as_str()), (1, Some("refused")), "{said}");

    let file = shell.path("identity.age");
    let made = shell.done(&["identity", "new", "--out", &file]);
    assert_eq!(shell.veil(&["identity", "new", "--out", &file]).0, 3, "not overwritten");
    assert_eq!(shell.done(&["identity", "show", "--identity", &file]), made);

    // Another account needs the admin's approval for a member.
    let register =
        ["chain", "register", "--identity", &file, "--role", "member", "--role", "worker"];
    shell.key = OTHER_KEY.to_owned();
    let (code, said) = shell.veil(&register);
    assert_eq!(code, 1);
    assert!(text(&said["error"]).contains("veil chain approve"), "{said}");
    let operator = PrivateKeySigner::from_slice(&hex::decode(OTHER_KEY).unwrap()).unwrap();
    let operator = operator.address().to_string().to_lowercase();
    shell.key = KEY.to_owned();
    let peer = text(&made["peer_id_hash"]);
    shell.done(&["chain", "approve", "--peer", &peer, "--operator", &operator]);
    shell.key = OTHER_KEY.to_owned();
    assert_eq!(text(&shell.done(&register)["peer"]), peer);

    let status = shell.done(&["chain", "status"]);
    let node = &status["cluster"]["nodes"][0];
    assert_eq!((text(&node["peer"]), node["seat"].as_u64()), (peer, Some(1)));
    assert_eq!(text(&node["operator"]), operator);
    assert_eq!(status["cluster"]["key"], Value::Null);

    // From an encrypted keystore, with its passphrase in a file.
    let (_, name) = PrivateKeySigner::encrypt_keystore(
        shell.folder.path(),
        &mut rand::thread_rng(),
        hex::decode(KEY).unwrap(),
        "the passphrase",
        None,
    )
    .unwrap();
    std::fs::write(shell.path("passphrase"), "the passphrase\n").unwrap();
    shell.key = String::new();
    let (passphrase, keystore) = (shell.path("passphrase"), shell.path(&name));
    let by = ["--keystore", &keystore, "--keystore-passphrase-file", &passphrase];
    let grant = [&["chain", "grant", "--account", &operator], &by[..]].concat();
    assert_eq!(shell.done(&grant)["may_submit"], true);
    let (code, said) = shell.veil(&["chain", "grant", "--account", &operator]);
    assert_eq!((code, said["kind"].as_str()), (2, Some("usage")), "no account");

    drop(anvil);
    let (code, said) = shell.veil(&["chain", "status"]);
    assert_eq!((code, said["kind"].as_str()), (1, Some("chain")));
    assert!(text(&said["error"]).contains("VEIL_RPC_URL"), "{said}");
}
