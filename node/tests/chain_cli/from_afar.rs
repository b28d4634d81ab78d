//! A worker that is asked over TLS: read with its token, given a job by an operator's key. Its chain is real;
//! there is no key to place jobs with.

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Stdio},
    time::{Duration, Instant},
};

use serde_json::json;
use veil_node_api::{
    client::{Client, ClientError},
    gate::{Challenge, ChallengeRequest, LoggedIn, LoginRequest},
    tls::{CertificateHash, TlsFiles},
};
use veil_node_chain::login_digest;
use veil_protocol_spec::{ClusterId, hex, scheduling::ClusterScope};

use super::*;

/// Ends a test that hangs.
const PATIENCE: Duration = Duration::from_secs(300);

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill(); // ended already is as good
        let _ = self.0.wait();
    }
}

/// The worker, and how it is reached.
struct Worker {
    url: String,
    certificate: PathBuf,
    token: PathBuf,
    _running: Running,
}

impl Worker {
    fn start(shell: &Shell) -> Self {
        let data = shell.folder.path().join("data");
        fs::create_dir(&data).unwrap();
        let identity = shell.path("data/identity.age");
        shell.done(&["identity", "new", "--out", &identity]);
        shell.done(&["chain", "register", "--identity", &identity, "--role", "worker"]);
        // Free as soon as it is dropped here.
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let Shell { rpc, contract, cluster, .. } = shell;
        let config = format!(
            "[node]\ndata_dir = \"data\"\n[network]\nlisten = [\"/ip4/127.0.0.1/tcp/0\"]\n\
             [chain]\nrpc = \"{rpc}\"\ncontract = \"{contract}\"\ncluster = \"{cluster}\"\n\
             [api]\nlisten = \"{address}\"\n[worker]\n"
        );
        fs::write(shell.path("worker.toml"), config).unwrap();
        let mut command = shell.command();
        command.args(["worker", "run", "--config", "worker.toml"]);
        let running = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        Self {
            url: format!("https://{address}"),
            certificate: data.join("api-certificate.pem"),
            token: data.join("api-read-token"),
            _running: Running(running),
        }
    }

    /// What a command says that asks it, with the read token in this file.
    fn ask(&self, shell: &Shell, token: &Path, arguments: &[&str]) -> (i32, Value) {
        let (ca, token) = (self.certificate.to_str().unwrap(), token.to_str().unwrap());
        let to = ["--node", &self.url, "--node-ca", ca, "--node-token-file", token];
        shell.veil(&[arguments, &to].concat())
    }

    fn client(&self, token: Option<&Path>) -> Client {
        Client::open(self.url.parse().unwrap(), Some(&self.certificate), token).unwrap()
    }

    fn shown(&self) -> CertificateHash {
        let (certificate, key) = (self.certificate.clone(), PathBuf::new());
        TlsFiles { certificate, key }.certificate_hash().unwrap()
    }
}

fn wait_for(what: &str, mut holds: impl FnMut() -> bool) {
    let since = Instant::now();
    while !holds() {
        assert!(since.elapsed() < PATIENCE, "it never came to this: {what}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// A login by the first key, as signed for this cluster.
fn login(scope: &ClusterScope, shown: &CertificateHash, given: &Challenge) -> LoginRequest {
    let key = account(KEY);
    let mut challenge = [0; 32];
    read_hex(&given.challenge, &mut challenge).unwrap();
    let by = key.address();
    let digest = login_digest(scope, &shown.0, (&by, &by), &challenge, given.expires);
    LoginRequest {
        account: by,
        operator: None,
        cluster: scope.cluster,
        challenge: given.challenge.clone(),
        expires: given.expires,
        signature: hex(&key.sign(&digest).unwrap()),
    }
}

fn word<T: core::fmt::Debug>(answer: Result<T, ClientError>) -> String {
    match answer {
        Err(ClientError::Denied { kind, .. }) => kind,
        other => panic!("{other:?}"),
    }
}

/// What `OTHER_KEY` may do from afar for the first key, which says so and takes it back.
fn a_delegate_submits(worker: &Worker, delegate: &Shell, chain: &[&str], image: &str) {
    let address = |key: &str| format!("0x{}", account(key).address());
    let (operator, key) = (address(KEY), address(OTHER_KEY));
    let owner = Shell {
        key: KEY.to_owned(),
        folder: tempfile::tempdir().unwrap(),
        rpc: delegate.rpc.clone(),
        contract: delegate.contract.clone(),
        cluster: delegate.cluster.clone(),
    };
    let at = [chain, &["--cluster", &delegate.cluster]].concat();
    let build = format!(
        "name = \"build\"\nimage = \"{image}\"\n[resources]\ncpu = \"100m\"\nmemory = \"64Mi\"\n"
    );
    fs::write(delegate.path("build.toml"), build).unwrap();
    let submit = [&["job", "submit", "build.toml", "--for", &operator], &at[..]].concat();
    let (code, said) = worker.ask(delegate, &worker.token, &submit);
    assert_eq!((code, said["kind"].as_str()), (1, Some("denied")), "{said}");
    assert!(text(&said["error"]).contains("veil operator delegate"), "{said}");

    let keys = |command: &[&str]| owner.done(&[&["operator"], command, &at].concat());
    keys(&["delegate", "--key", &key, "--until", "1h"]);
    let listed = keys(&["delegates"]);
    let bare = key.trim_start_matches("0x");
    let listed = &listed["delegates"][0];
    assert_eq!((listed["key"].as_str(), listed["state"].as_str()), (Some(bare), Some("active")));
    let (code, said) = worker.ask(delegate, &worker.token, &submit);
    assert_eq!(code, 0, "{said}");
    let job = text(&said["job"]);
    wait_for("the chain lists the delegate's job", || {
        let (_, said) = worker.ask(delegate, &worker.token, &["job", "list"]);
        let jobs = said["jobs"].as_array().cloned().unwrap_or_default();
        let own = operator.trim_start_matches("0x");
        jobs.iter().any(|listed| listed["job"] == job.as_str() && listed["operator"] == own)
    });
    // Its own it has none, and says whose it stops.
    let stop = [&["job", "stop", &job], &at[..]].concat();
    assert_eq!(worker.ask(delegate, &worker.token, &stop).0, 1);
    let stop = [&stop[..], &["--for", &operator]].concat();
    let (code, said) = worker.ask(delegate, &worker.token, &stop);
    assert_eq!((code, said["submissions_withdrawn"].as_u64()), (0, Some(1)), "{said}");

    keys(&["revoke", "--key", &key]);
    assert_eq!(keys(&["delegates"])["delegates"], json!([]));
    let (code, said) = worker.ask(delegate, &worker.token, &submit);
    assert_eq!((code, said["kind"].as_str()), (1, Some("denied")), "{said}");
    assert!(text(&said["error"]).contains("revoked"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_submitted_and_seen_from_afar() {
    let anvil = Anvil::start(AnvilConfig::default()).await.unwrap();
    let mut shell = Shell {
        rpc: anvil.url(),
        key: KEY.to_owned(),
        contract: String::new(),
        cluster: String::new(),
        folder: tempfile::tempdir().unwrap(),
    };
    shell.contract = text(&shell.done(&["chain", "deploy"])["directory"]);
    shell.cluster = text(&shell.done(&["chain", "cluster", "--committee", "1"])["cluster"]);
    shell.done(&["chain", "grant"]);
    let worker = Worker::start(&shell);
    wait_for("the worker has joined", || {
        let (code, said) = worker.ask(&shell, &worker.token, &["status"]);
        code == 0 && text(&said["stage"]).contains("waiting for an active key")
    });

    let image = format!("localhost:5000/app@sha256:{}", "ab".repeat(32));
    let job = format!(
        "name = \"web\"\nimage = \"{image}\"\n[resources]\ncpu = \"100m\"\nmemory = \"64Mi\"\n"
    );
    fs::write(shell.path("job.toml"), job).unwrap();
    let (rpc, contract, cluster) = (&shell.rpc, &shell.contract, &shell.cluster);
    let chain = ["--rpc", rpc, "--contract", contract, "--cluster", cluster];
    let submit = [&["job", "submit", "job.toml"], &chain[..]].concat();
    let nothing = PathBuf::from("/dev/null");
    // The account's key is enough to post; the token is enough to look.
    let (code, said) = worker.ask(&shell, &worker.token, &submit);
    assert_eq!(code, 0, "{said}");
    let job = text(&said["job"]);
    wait_for("the chain lists the job", || {
        let (code, said) = worker.ask(&shell, &worker.token, &["job", "list"]);
        let listed = &said["jobs"][0];
        code == 0 && listed["job"] == job.as_str() && listed["name"] == "web"
    });
    let (code, said) = worker.ask(&shell, &worker.token, &["job", "status"]);
    assert_eq!(code, 0, "{said}");
    assert_eq!(said["replicas"][0]["job"], job.as_str());
    let (code, said) = worker.ask(&shell, &nothing, &["job", "status"]);
    assert_eq!((code, said["kind"].as_str()), (3, Some("files")), "{said}");

    // Whom the chain grants nothing is named.
    let stranger =
        Shell { key: OTHER_KEY.to_owned(), folder: tempfile::tempdir().unwrap(), ..shell };
    fs::copy(worker.token.parent().unwrap().join("../job.toml"), stranger.path("job.toml"))
        .unwrap();
    let chain = ["--rpc", &stranger.rpc, "--contract", &stranger.contract];
    let submit =
        [&["job", "submit", "job.toml", "--cluster", &stranger.cluster], &chain[..]].concat();
    let (code, said) = worker.ask(&stranger, &worker.token, &submit);
    assert_eq!((code, said["kind"].as_str()), (1, Some("denied")), "{said}");
    assert!(text(&said["error"]).contains("veil chain grant"), "{said}");

    a_delegate_submits(&worker, &stranger, &chain, &image);

    // A challenge is answered once, for this cluster and this certificate.
    let config = ChainConfig::new(stranger.rpc.as_str(), stranger.contract.parse().unwrap());
    let scope = Chain::connect(config).await.unwrap().scope(stranger.cluster.parse().unwrap());
    let (client, shown) = (worker.client(None), worker.shown());
    let asked = ChallengeRequest { account: account(KEY).address() };
    let given: Challenge = client.post("/v1/login/challenge", &asked).await.unwrap();
    let post = async |asked: &LoginRequest| client.post::<LoggedIn>("/v1/login", asked).await;
    let other = ClusterScope { cluster: ClusterId([9; 32]), ..scope };
    let elsewhere = login(&other, &shown, &given);
    assert_eq!(word(post(&elsewhere).await), "other_cluster");
    let disguised = LoginRequest { cluster: scope.cluster, ..elsewhere };
    assert_eq!(word(post(&disguised).await), "signature");
    let relayed = login(&scope, &CertificateHash([9; 32]), &given);
    assert_eq!(word(post(&relayed).await), "signature");
    let right = login(&scope, &shown, &given);
    post(&right).await.unwrap();
    assert_eq!(word(post(&right).await), "challenge_replayed");

    // Without a token a node only says that it runs, and how it is asked.
    assert_eq!(client.get::<Value>("/livez").await.unwrap(), json!({ "live": true }));
    let document: Value = client.get("/openapi.json").await.unwrap();
    assert_eq!(word(client.get::<Value>("/readyz").await), "no_token");
    let reader = worker.client(Some(&worker.token));
    let unready = reader.get::<Value>("/readyz").await.unwrap_err().to_string();
    assert!(unready.contains("waiting for an active key"), "{unready}");
    assert_eq!(word(reader.post::<Value>("/v1/jobs", &json!({})).await), "read_only");
    let status: Value = reader.get("/v1/status").await.unwrap();
    let documented = &document["components"]["schemas"]["Status"]["properties"];
    let keys = |object: &Value| object.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    let (mut said, mut documented) = (keys(&status), keys(documented));
    said.sort();
    documented.sort();
    assert_eq!(said, documented);
    drop((worker, anvil));
}
