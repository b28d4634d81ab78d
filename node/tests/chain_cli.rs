//! `veil chain` and `veil identity` from outside, against a local chain.

#![allow(clippy::unwrap_used, reason = "a failed helper fails the test")]

use std::{env, path::Path, process::Command};

use serde_json::{Value, json};
use veil_node_chain::{
    AccountKey, Chain, ChainConfig,
    anvil::{Anvil, AnvilConfig},
};
use veil_protocol_spec::read_hex;

#[path = "chain_cli/federation.rs"]
mod federation;
#[path = "chain_cli/from_afar.rs"]
mod from_afar;

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
    fn command(&self) -> Command {
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
        command
    }

    /// Runs `veil`; its exit code and the object it printed.
    fn veil(&self, arguments: &[&str]) -> (i32, Value) {
        let output = self.command().args(arguments).arg("--json").output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let said = serde_json::from_str(&text).unwrap_or(Value::Null);
        (output.status.code().unwrap(), said)
    }

    fn done(&self, arguments: &[&str]) -> Value {
        let (code, said) = self.veil(arguments);
        assert_eq!(code, 0, "{arguments:?}: {said}");
        said
    }

    /// The objects that a command printed, one a line.
    fn lines(&self, arguments: &[&str]) -> Vec<Value> {
        let output = self.command().args(arguments).arg("--json").output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_string_lossy().into_owned()
    }
}

fn account(key: &str) -> AccountKey {
    let mut bytes = [0; 32];
    read_hex(key, &mut bytes).unwrap();
    AccountKey::from_bytes(&bytes).unwrap()
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
    let operator = format!("0x{}", account(OTHER_KEY).address());
    shell.key = KEY.to_owned();
    let peer = text(&made["peer_id_hash"]);
    let approve =
        ["chain", "approve", "--peer", &peer, "--operator", &operator, "--role", "member"];
    let approved = shell.done(&[&approve[..], &["--organisation", "Acme"]].concat());
    assert_eq!(approved["roles"], json!(["member"]));
    shell.key = OTHER_KEY.to_owned();
    let (code, said) = shell.veil(&register);
    assert_eq!(code, 1);
    let next = "veil chain register --role member --organisation 'Acme'";
    assert!(text(&said["error"]).contains(next), "{said}");
    shell.key = KEY.to_owned();
    let both = ["--role", "worker", "--organisation", "Acme", "--valid-for", "1h"];
    shell.done(&[&approve[..], &both].concat());
    shell.key = OTHER_KEY.to_owned();
    let registered = shell.done(&register);
    assert_eq!(
        (text(&registered["peer"]), text(&registered["organisation"])),
        (peer.clone(), "Acme".to_owned())
    );

    let status = shell.done(&["chain", "status"]);
    let node = &status["cluster"]["nodes"][0];
    assert_eq!((text(&node["peer"]), node["seat"].as_u64()), (peer, Some(1)));
    assert_eq!(text(&node["operator"]), operator);
    assert_eq!(status["cluster"]["key"], Value::Null);

    // From an encrypted keystore, with its passphrase in a file.
    let admin = account(KEY);
    let keystore = shell.path("account.json");
    admin.write_keystore(Path::new(&keystore), "the passphrase").unwrap();
    std::fs::write(shell.path("passphrase"), "the passphrase\n").unwrap();
    shell.key = String::new();
    let passphrase = shell.path("passphrase");
    let by = ["--keystore", &keystore, "--keystore-passphrase-file", &passphrase];
    // Without --account: to who signs.
    let granted = shell.done(&[&["chain", "grant"], &by[..]].concat());
    assert_eq!(text(&granted["account"]), format!("0x{}", admin.address()));
    assert_eq!(granted["may_submit"], true);
    for grant in [&["chain", "grant"][..], &["chain", "grant", "--account", &operator]] {
        let (code, said) = shell.veil(grant);
        assert_eq!((code, said["kind"].as_str()), (2, Some("usage")), "nobody signs");
    }

    // The body goes first: a job that no node takes is not on chain.
    shell.key = KEY.to_owned();
    let image = format!("localhost:5000/app@sha256:{}", "ab".repeat(32));
    let resources = "[resources]\ncpu = \"100m\"\nmemory = \"64Mi\"\n";
    std::fs::write(shell.path("job.toml"), format!("image = \"{image}\"\n{resources}")).unwrap();
    let (rpc, contract, cluster) = (&shell.rpc, &shell.contract, &shell.cluster);
    let at = ["--rpc", rpc, "--contract", contract, "--cluster", cluster, "--node", "none.sock"];
    let (code, said) = shell.veil(&[&["job", "submit", "job.toml"], &at[..]].concat());
    assert_eq!(code, 1, "{said}");
    assert!(text(&said["error"]).contains("nothing was submitted"), "{said}");
    let config = ChainConfig::new(rpc.as_str(), contract.parse().unwrap());
    let chain = Chain::connect(config).await.unwrap();
    assert_eq!(chain.jobs(cluster.parse().unwrap(), 0).await.unwrap(), []);

    drop(anvil);
    let (code, said) = shell.veil(&["chain", "status"]);
    assert_eq!((code, said["kind"].as_str()), (1, Some("chain")));
    assert!(text(&said["error"]).contains("VEIL_RPC_URL"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn policy_images_and_an_election() {
    let anvil = Anvil::start(AnvilConfig::default()).await.unwrap();
    let mut shell = Shell {
        // The first endpoint is dead.
        rpc: format!("http://127.0.0.1:1,{}", anvil.url()),
        key: KEY.to_owned(),
        contract: String::new(),
        cluster: String::new(),
        folder: tempfile::tempdir().unwrap(),
    };
    shell.contract = text(&shell.done(&["chain", "deploy"])["directory"]);
    let cluster = ["chain", "cluster", "--committee", "4", "--standbys", "1", "--elected"];
    shell.cluster = text(&shell.done(&cluster)["cluster"]);
    let status = shell.done(&["chain", "status"]);
    let healthy: Vec<_> =
        status["endpoints"].as_array().unwrap().iter().map(|e| &e["healthy"]).collect();
    assert_eq!(healthy, [false, true]);

    std::fs::write(shell.path("policy"), "min_candidates = 2\n").unwrap();
    shell.done(&["chain", "policy", "set", "--file", "policy"]);
    assert_eq!(shell.done(&["chain", "policy", "get"])["policy"]["min_candidates"], 2);

    // Encrypted weights take a node that gives the keys, and a new cluster has none.
    std::fs::write(shell.path("hidden"), "[weights]\nencrypted = true\n").unwrap();
    let (code, said) = shell.veil(&["chain", "policy", "set", "--file", "hidden"]);
    assert_eq!((code, said["kind"].as_str()), (2, Some("usage")), "{said}");
    assert!(text(&said["error"]).contains("--node"), "{said}");
    let set = ["chain", "policy", "set", "--file", "hidden", "--node", "/no/such/socket"];
    let (code, said) = shell.veil(&set);
    assert_eq!((code, said["kind"].as_str()), (1, Some("chain")), "{said}");
    assert!(text(&said["error"]).contains("veil ceremony status"), "{said}");
    let (code, said) = shell.veil(&["chain", "cluster", "--name", "other", "--policy", "hidden"]);
    assert_eq!((code, said["kind"].as_str()), (2, Some("usage")), "{said}");
    assert!(text(&said["error"]).contains("veil chain policy set"), "{said}");
    assert_eq!(shell.done(&["chain", "policy", "get"])["policy"]["min_candidates"], 2);

    shell.done(&["chain", "fees", "deposit", "--amount", "12345"]);
    shell.done(&["chain", "fees", "interval", "--seconds", "30"]);
    let shown = shell.done(&["chain", "fees", "show"]);
    assert_eq!((&shown["pool_wei"], &shown["owed_wei"]), (&json!("12345"), &json!("0")));
    assert_eq!(shown["anchor_interval_seconds"], 30);
    let (code, said) = shell.veil(&["chain", "fees", "claim"]);
    assert!(code != 0 && said.to_string().contains("is owed nothing"), "{said}");

    let digest = |byte: &str| format!("sha256:{}", byte.repeat(32));
    let manifest = serde_json::json!({
        "config": {"digest": digest("01")},
        "layers": [{"digest": digest("02")}, {"digest": digest("03")}],
    });
    std::fs::write(shell.path("manifest.json"), manifest.to_string()).unwrap();
    let layer = digest("03");
    let prove = ["chain", "image", "prove", "--manifest", "manifest.json", "--part", &layer];
    assert_eq!(shell.done(&prove)["proven"], false);
    let image = shell.done(&["chain", "image", "allow", "--manifest", "manifest.json"]);
    assert_eq!((&image["status"], &image["parts"]), (&"allowed".into(), &3.into()));
    assert_eq!(image["signature"], serde_json::Value::Null);
    let proven = shell.done(&prove);
    assert_eq!((&proven["proven"], &proven["part"]), (&true.into(), &"layer".into()));
    let image = text(&image["image"]);
    let signature = digest("04");
    let source = ["--manifest", "manifest.json", "--signature", &signature];
    let show = [&["chain", "image", "show"], &source[..]].concat();
    assert_eq!(shell.done(&show)["committed"], false, "without a signature so far");
    let signed = shell.done(&[&["chain", "image", "allow"], &source[..]].concat());
    assert_eq!((&signed["signature"], &signed["parts"]), (&signature.clone().into(), &4.into()));
    assert_eq!(shell.done(&show)["committed"], true);
    let nowhere = format!("127.0.0.1:1/app@{image}");
    let (code, said) = shell.veil(&["chain", "image", "show", "--image", &nowhere]);
    assert_eq!((code, said["kind"].as_str()), (1, Some("registry")), "{said}");
    shell.done(&["chain", "image", "revoke", "--image", &image]);
    assert_eq!(shell.done(&prove)["proven"], false);
    let (code, said) = shell.veil(&["chain", "image", "revoke", "--image", &image]);
    assert_eq!((code, said["kind"].as_str()), (1, Some("refused")));
    assert!(text(&said["error"]).contains("veil chain image allow"), "{said}");

    let (code, said) = shell.veil(&["chain", "elect", "request"]);
    assert_eq!(code, 1);
    assert!(text(&said["error"]).contains("veil chain register"), "{said}");
    for i in 1..=5 {
        let file = shell.path(&format!("identity-{i}.age"));
        shell.done(&["identity", "new", "--out", &file]);
        let stake = (i * 1_000_000_000_u64).to_string();
        shell.done(&[
            "chain",
            "register",
            "--identity",
            &file,
            "--role",
            "member",
            "--stake",
            &stake,
        ]);
    }
    assert_eq!(shell.done(&["chain", "elect", "request"])["status"], "requested");
    // Each of these makes a block of the local chain.
    for _ in 0..2 {
        let account = format!("0x{}", "11".repeat(20));
        shell.done(&["chain", "grant", "--account", &account, "--right", "images"]);
    }
    let sealed = shell.done(&["chain", "elect", "seal"]);
    let count = |what: &str| sealed[what].as_array().unwrap().len();
    assert_eq!(
        (sealed["status"].as_str(), count("seats"), count("standbys")),
        (Some("sealed"), 4, 1)
    );
    assert_eq!(shell.done(&["chain", "elect", "show"])["seats"], sealed["seats"]);
    let (code, said) = shell.veil(&["chain", "elect", "seal"]);
    assert_eq!((code, said["kind"].as_str()), (1, Some("refused")), "{said}");

    let events = shell.lines(&["chain", "watch", "--from", "1", "--once", "--settled"]);
    let named: Vec<_> = events.iter().map(|event| text(&event["event"])).collect();
    for name in
        ["SetPublished", "ClusterRegistered", "NodeRegistered", "ImageRevoked", "CommitteeElected"]
    {
        assert!(named.iter().any(|found| found == name), "{name}: {named:?}");
    }
    let elected = events.iter().find(|event| event["event"] == "CommitteeElected").unwrap();
    assert_eq!(elected["arguments"]["seats"], 4);
    assert_eq!(elected["update"], "settled");
}
