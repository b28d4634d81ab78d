//! A ceremony between processes on a local chain, one of them killed with SIGKILL and started again.
//! Needs anvil; without it the test fails and says how to get it.

#![allow(clippy::unwrap_used, reason = "a test that unwraps has failed")]

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;
use veil_node_ceremony::read_status;
use veil_node_chain::{
    AccountKey, Chain, ChainConfig, ClusterSettings, NodeRegistration,
    anvil::{Anvil, AnvilConfig},
};
use veil_node_p2p::peer_id;
use veil_node_storage::keystore::{Passphrase, write_identity};
use veil_protocol_spec::{
    Address, ClusterId, Committee, identity::SecretIdentity, registry::Roles,
};

fn identity(i: u8) -> SecretIdentity {
    SecretIdentity::from_bytes(&[i; 32]).unwrap()
}

/// The secret scalar of the account that a member pays with. The first is the cluster's administrator.
fn scalar(i: u8) -> [u8; 32] {
    [0x40 + i; 32]
}

fn account(i: u8) -> AccountKey {
    AccountKey::from_bytes(&scalar(i)).unwrap()
}

struct Cluster {
    anvil: Anvil,
    folder: tempfile::TempDir,
    directory: Address,
    cluster: ClusterId,
    parameters: &'static str,
    members: u8,
}

impl Cluster {
    async fn new(parameters: &'static str, members: u8) -> Self {
        let anvil = Anvil::start(AnvilConfig::default()).await.unwrap();
        for i in 1..=members {
            let parameters = format!("[\"0x{}\",\"0x8ac7230489e80000\"]", account(i).address());
            rpc(&anvil, "anvil_setBalance", &parameters);
        }
        let config = ChainConfig::new(anvil.url(), Address([0; 20]));
        let (chain, deployment) = Chain::deploy(config.with_key(account(1))).await.unwrap();
        let cluster = chain
            .register_cluster(&ClusterSettings::new(Committee::new(members).unwrap()))
            .await
            .unwrap();
        for i in 1..=members {
            let registration = NodeRegistration {
                cluster,
                roles: Roles { worker: false, member: true },
                organisation: format!("organisation {i}").parse().ok(),
                labels: Vec::new(),
                stake: 0,
            };
            chain.register_node(&registration, &identity(i)).await.unwrap();
        }
        let directory = deployment.contracts.directory;
        let folder = tempfile::tempdir().unwrap();
        let this = Self { anvil, folder, directory, cluster, parameters, members };
        for i in 1..=members {
            this.configure(i);
        }
        this
    }

    fn configure(&self, i: u8) {
        let home = self.home(i);
        fs::create_dir_all(home.join("data")).unwrap();
        fs::write(home.join("passphrase.txt"), "correct horse\n").unwrap();
        let passphrase = Passphrase::from_file(&home.join("passphrase.txt")).unwrap();
        write_identity(&home.join("data/identity.age"), &identity(i), &passphrase).unwrap();
        let bootstrap: Vec<String> = (1..=2)
            .filter(|j| *j != i)
            .map(|j| {
                let peer = peer_id(&identity(j).public()).unwrap();
                format!("\"{}/p2p/{peer}\"", address(j))
            })
            .collect();
        let text = format!(
            "[node]\ndata_dir = \"data\"\npassphrase_file = \"passphrase.txt\"\n\
             [network]\nlisten = [\"{}\"]\nbootstrap = [{}]\n\
             [chain]\nrpc = \"{}\"\ncontract = \"0x{}\"\ncluster = \"0x{}\"\n\
             [committee]\nparameters = \"{}\"\n",
            address(i),
            bootstrap.join(", "),
            self.anvil.url(),
            self.directory,
            self.cluster,
            self.parameters,
        );
        fs::write(home.join("member.toml"), text).unwrap();
    }

    fn home(&self, i: u8) -> PathBuf {
        self.folder.path().join(format!("member-{i}"))
    }

    fn command(&self, i: u8, verb: &str) -> Command {
        let account: String = scalar(i).iter().map(|byte| format!("{byte:02x}")).collect();
        let mut command = Command::new(env!("CARGO_BIN_EXE_veil"));
        command
            .args(["ceremony", verb, "--json", "--config"])
            .arg(self.home(i).join("member.toml"))
            .env("VEIL_CHAIN_KEY", account);
        command
    }

    fn join(&self, i: u8) -> Process {
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.home(i).join("log"))
            .unwrap();
        let child = self.command(i, "join").stdout(Stdio::piped()).stderr(log).spawn().unwrap();
        Process(Some(child))
    }

    fn run(&self, i: u8, verb: &str, more: &[&str]) -> Output {
        self.command(i, verb).args(more).output().unwrap()
    }

    fn log(&self, i: u8) -> String {
        fs::read_to_string(self.home(i).join("log")).unwrap_or_default()
    }

    fn logs(&self) -> String {
        logs(self.folder.path(), self.members)
    }

    /// Whether the chain puts transactions into blocks. As long as it does not, an attempt that is
    /// proposed stays so: neither a key nor an abort gets there.
    fn mine(&self, mines: bool) {
        rpc(&self.anvil, "evm_setAutomine", &format!("[{mines}]"));
        if mines {
            rpc(&self.anvil, "evm_mine", "[]"); // what waits
        }
    }
}

fn rpc(anvil: &Anvil, method: &str, parameters: &str) {
    let url = anvil.url();
    let host = url.trim_start_matches("http://");
    let body =
        format!("{{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"{method}\",\"params\":{parameters}}}");
    let head = format!(
        "POST / HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\nconnection: close"
    );
    let mut stream = TcpStream::connect(host).unwrap();
    write!(stream, "{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.contains("\"result\""), "{method}: {answer}");
}

/// Ends with the test, whatever becomes of it.
struct Process(Option<Child>);

impl Process {
    /// SIGKILL.
    fn kill(mut self) {
        let mut child = self.0.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    fn is_running(&mut self) -> bool {
        self.0.as_mut().unwrap().try_wait().unwrap().is_none()
    }

    fn finish(mut self) -> Output {
        let mut child = self.0.take().unwrap();
        let late = Instant::now() + Duration::from_secs(1500);
        while child.try_wait().unwrap().is_none() {
            if Instant::now() > late {
                child.kill().unwrap();
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        child.wait_with_output().unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Where a member listens: at a loopback address that only this process has, so that tests beside
/// this one take none of its ports.
fn address(member: u8) -> String {
    let [_, a, b, c] = std::process::id().to_be_bytes();
    let host = Ipv4Addr::new(127, 64 | a, b, c);
    format!("/ip4/{host}/udp/{}/quic-v1", 20_000 + u16::from(member))
}

fn parse(output: &Output) -> Value {
    let text = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// What the members whose homes are in a folder have logged.
fn logs(folder: &Path, members: u8) -> String {
    let log = |i| fs::read_to_string(folder.join(format!("member-{i}/log"))).unwrap_or_default();
    (1..=members).map(|i| format!("--- member {i}\n{}", log(i))).collect()
}

/// For conditions that stay.
fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let late = Instant::now() + Duration::from_secs(1200);
    while !condition() {
        assert!(Instant::now() < late, "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Whether a member has sent something of the ceremony, which is not over: nothing is mined.
fn started(data_dir: &Path, logs: impl Fn() -> String) -> bool {
    let status = read_status(data_dir).unwrap_or_default();
    assert_eq!(status.outcome, None, "{}", logs());
    !["", "preflight"].contains(&status.step.as_str())
}

#[tokio::test(flavor = "multi_thread")]
async fn four_processes_one_of_them_killed_make_one_key() {
    one_key("insecure-test", 4).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes; run it with --ignored"]
async fn thirteen_processes_one_of_them_killed_make_one_key() {
    one_key("insecure-test", 13).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes and 8 GB of memory; run it with --ignored"]
async fn four_processes_make_one_key_with_production_parameters() {
    one_key("production", 4).await;
}

async fn one_key(parameters: &'static str, committee: u8) {
    let cluster = Cluster::new(parameters, committee).await;
    let unproposed = cluster.run(1, "join", &[]);
    assert_eq!(unproposed.status.code(), Some(1));
    assert!(parse(&unproposed)["error"].as_str().unwrap().contains("veil ceremony propose"));

    let proposed = cluster.run(1, "propose", &["--duration", "3000"]);
    assert!(proposed.status.success(), "{proposed:?}");
    assert_eq!(parse(&proposed)["attempt"], 0);
    cluster.mine(false);
    let mut members: Vec<Process> = (1..=committee).map(|i| cluster.join(i)).collect();
    let data_dir = cluster.home(3).join("data");
    let folder = cluster.folder.path().to_owned();
    let begun = move || {
        wait_until("member 3 has begun", || started(&data_dir, || logs(&folder, committee)));
    };
    tokio::task::spawn_blocking(begun).await.unwrap();
    members.remove(2).kill();
    let status = parse(&cluster.run(3, "status", &[]));
    assert_eq!(status["member"]["running"], false, "{status}");
    assert_eq!(status["chain"]["status"], "proposed", "{status}");
    let before = cluster.log(3).len();
    members.insert(2, cluster.join(3));
    // It listens once it has its data directory.
    wait_until("member 3 runs again", || {
        assert!(members[2].is_running(), "{}", cluster.logs());
        cluster.log(3)[before..].contains("listening on")
    });
    let second = cluster.run(3, "join", &[]);
    assert_eq!(second.status.code(), Some(3), "one process per data directory");
    cluster.mine(true);

    let (mut digests, mut strings) = (Vec::new(), std::collections::BTreeSet::new());
    for (i, member) in members.into_iter().enumerate() {
        let output = tokio::task::spawn_blocking(move || member.finish()).await.unwrap();
        let report = parse(&output);
        assert!(output.status.success(), "member {}: {report}\n{}", i + 1, cluster.logs());
        assert_eq!(report["outcome"], "completed");
        strings.insert(report["reference_string_digest"].to_string());
        digests.push((report["keyset_digest"].clone(), report["folder"].clone()));
    }
    assert!(digests.iter().all(|(digest, _)| *digest == digests[0].0), "{digests:?}");
    assert_eq!(strings.len(), 1, "all have made one reference string: {strings:?}");
    let status = parse(&cluster.run(3, "status", &[]));
    assert_eq!(status["chain"]["status"], "published", "{status}");
    assert_eq!(status["chain"]["keyset_digest"], digests[0].0, "{status}");
    assert_eq!(status["member"]["outcome"], "completed", "{status}");
    let folder = digests[2].1.as_str().unwrap();
    let verified = Command::new(env!("CARGO_BIN_EXE_veil"))
        .args(["ceremony", "verify", folder, "--json"])
        .output()
        .unwrap();
    assert!(verified.status.success(), "{verified:?}");
    assert_eq!(parse(&verified)["keyset_digest"], digests[0].0);
}
