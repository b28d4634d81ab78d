//! A network that the test started, each of its nodes a process.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader, Read, Seek, SeekFrom, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc::{self, RecvTimeoutError},
    thread::{self, sleep},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;
use veil_node_chain::Chain;
use veil_node_config::{AnyConfig, process_environment};
use veil_node_core::lifecycle::account;
use veil_node_devnet::DevnetFile;
use veil_protocol_spec::Blake3Digest;

/// Ends a test that hangs.
const PATIENCE: Duration = Duration::from_secs(1200);
/// Between two counts of containers.
const COUNT_INTERVAL: Duration = Duration::from_millis(20);
/// A request that fits nowhere.
pub(crate) const NOWHERE: &str = "cpu = \"100m\"\nmemory = \"64Mi\"\ngpus = 191";

pub(crate) fn veil() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_veil"));
    command.stdin(Stdio::null());
    command
}

/// Standard output of a command, as JSON.
pub(crate) fn json(command: &mut Command) -> Value {
    let output = command.stderr(Stdio::piped()).output().unwrap();
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
        panic!("{command:?}: {error}\n{}", String::from_utf8_lossy(&output.stderr))
    })
}

pub(crate) fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look() {
            eprintln!("after {:.1?}: {what}", begun.elapsed());
            return found;
        }
        assert!(begun.elapsed() < PATIENCE, "it never came to this: {what}");
        sleep(Duration::from_millis(20));
    }
}

/// What a member does in a slot while it waits for others.
const TOGETHER: [&str; 4] =
    ["agreeing on the manifest", "decrypting", "agreeing on the slot's end", "signing"];

/// A line of a member's log: a slot's certificate is there.
pub(crate) const CERTIFIED: &str = " certified";

/// The state of each thread of a process, as in `T (stopped)`; none once its parent has asked for its end.
fn states(process: Pid) -> Vec<String> {
    let threads = fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
    // A thread that has ended meanwhile has no state.
    let texts = threads.filter_map(|thread| fs::read_to_string(thread.path().join("status")).ok());
    let state = |text: String| {
        Some(text.lines().find_map(|line| line.strip_prefix("State:\t"))?.to_owned())
    };
    texts.filter_map(state).collect()
}

/// Stops a process: when this returns it does nothing more until SIGCONT. On a busy machine its threads stop one after
/// the other.
fn stop(process: Pid) {
    kill(process, Signal::SIGSTOP).unwrap();
    until("the process is stopped", || {
        states(process).iter().all(|state| state.starts_with('T')).then_some(())
    });
}

/// Kills a process: when this returns it holds neither its data directory nor its ports any more. It does as long as one
/// of its threads has not ended: the first may be a zombie long before.
fn end(process: Pid) {
    kill(process, Signal::SIGKILL).unwrap();
    until("the process has ended", || {
        // Its parent may not have asked for its end yet.
        let states = states(process);
        (states.len() <= 1 && states.iter().all(|state| state.starts_with('Z'))).then_some(())
    });
}

/// The network's own process, told to end when the test does.
pub(crate) struct Network {
    pub(crate) child: Child,
    pub(crate) folder: PathBuf,
    _place: tempfile::TempDir,
}

impl Drop for Network {
    fn drop(&mut self) {
        self.signal(Signal::SIGTERM);
        let _ = self.child.wait();
    }
}

impl Network {
    /// Starts one, and waits until its first job runs, which is described too.
    pub(crate) fn start() -> (Self, Value) {
        let place = tempfile::Builder::new().prefix("veil-").tempdir().unwrap();
        let folder = place.path().join("net");
        let mut command = veil();
        command.args([
            "devnet",
            "--processes",
            "--json",
            "--parameters",
            "insecure-test",
            "--keep",
        ]);
        let log = fs::File::create(place.path().join("log")).unwrap();
        let child = command.arg(&folder).stdout(Stdio::piped()).stderr(log).spawn().unwrap();
        let mut network = Self { child, folder, _place: place };
        let mut line = String::new();
        let output = network.child.stdout.take().unwrap();
        BufReader::new(output).read_line(&mut line).unwrap();
        let placed: Value = serde_json::from_str(&line).unwrap_or_else(|_| {
            let log = fs::read_to_string(network.folder.with_file_name("log")).unwrap_or_default();
            panic!("no placement (was `cargo xtask setup` run?): {line}\n{log}")
        });
        assert_eq!(placed["replicas_running"], 3, "{placed}");
        assert!(placed["certificate_verified"] == true && placed["anchored"] == true, "{placed}");
        assert_eq!(placed["processes"], true);
        (network, placed)
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let _ = kill(Pid::from_raw(self.child.id().try_into().unwrap()), signal);
    }

    pub(crate) fn config(&self, node: &str) -> PathBuf {
        let role = if node.starts_with("member") { "member" } else { "worker" };
        self.folder.join(node).join(format!("{role}.toml"))
    }

    pub(crate) fn pid(&self, node: &str) -> Option<Pid> {
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

    pub(crate) fn signal_node(&self, node: &str, signal: Signal) {
        kill(self.pid(node).unwrap(), signal).unwrap();
    }

    /// Kills a node: when this returns it can be started again.
    pub(crate) fn end(&self, node: &str) {
        end(self.pid(node).unwrap());
    }

    /// Stops a node where it is: when this returns it does nothing more until SIGCONT.
    pub(crate) fn hold(&self, node: &str) {
        stop(self.pid(node).unwrap());
    }

    /// How many bytes a node has logged so far.
    pub(crate) fn logged(&self, node: &str) -> u64 {
        fs::metadata(self.folder.join(node).join("log.txt")).unwrap().len()
    }

    /// What a node has logged after as many bytes.
    pub(crate) fn log_since(&self, node: &str, logged: u64) -> String {
        let mut log = fs::File::open(self.folder.join(node).join("log.txt")).unwrap();
        log.seek(SeekFrom::Start(logged)).unwrap();
        let mut text = String::new();
        log.read_to_string(&mut text).unwrap();
        text
    }

    /// Stops member-3 and member-4, and brings the others to a step of a slot that they cannot take alone; returns a job
    /// that waits for it. It is the first step, unless a slot before this one was not over.
    ///
    /// Nothing passes that has to be caught: each such step takes three members of four, so the two stay in it for as long
    /// as the others are stopped.
    pub(crate) fn hold_in_a_slot(&self) -> String {
        self.hold("member-3");
        self.hold("member-4");
        let job = self.submit(1);
        for member in ["member-1", "member-2"] {
            until(&format!("{member} is in a slot"), || {
                let status = self.status(member)?;
                TOGETHER.contains(&status["stage"].as_str()?).then_some(())
            });
        }
        job
    }

    pub(crate) fn submit(&self, replicas: u16) -> String {
        self.submit_sized(replicas, "cpu = \"100m\"\nmemory = \"64Mi\"")
    }

    /// Submits a job whose request is these lines.
    pub(crate) fn submit_sized(&self, replicas: u16, resources: &str) -> String {
        let image = veil_node_devnet::sample_image().unwrap();
        self.submit_file(&format!(
            "image = \"{image}\"\nreplicas = {replicas}\n[resources]\n{resources}\n"
        ))
    }

    /// Withdraws a job.
    pub(crate) fn stop_job(&self, job: &str) {
        let mut command = veil();
        command.args(["job", "stop", job, "--devnet"]).arg(&self.folder);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    fn submission(&self, text: &str) -> Command {
        let path = self.folder.join("job.toml");
        fs::write(&path, text).unwrap();
        let mut command = veil();
        command.args(["job", "submit", "--json"]).arg(&path).arg("--devnet").arg(&self.folder);
        command
    }

    /// Submits the job of a job file.
    pub(crate) fn submit_file(&self, text: &str) -> String {
        let told = json(&mut self.submission(text));
        told["job"].as_str().unwrap_or_else(|| panic!("{told}")).to_owned()
    }

    /// Why the job of a job file is not submitted.
    pub(crate) fn refused_file(&self, text: &str) -> String {
        let told = json(&mut self.submission(text));
        assert!(told["job"].is_null(), "{told}");
        told.to_string()
    }

    /// Has the chain order a job whose body nobody has, as the operator.
    pub(crate) fn submit_without_body(&self) {
        let file = DevnetFile::read(&self.folder).unwrap();
        let config = AnyConfig::load(&file.operator, &process_environment).unwrap();
        let submitting = async {
            let key = account(config.chain()).unwrap();
            let chain = Chain::connect(config.chain().connection(key)).await.unwrap();
            let operator = chain.account().unwrap();
            let nonce = chain.next_job_nonce(file.cluster, operator).await.unwrap();
            let nobody_has_it = Blake3Digest(rand::random());
            chain.submit_job(file.cluster, nobody_has_it, nonce, 1).await.unwrap();
        };
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
        runtime.unwrap().block_on(submitting);
    }

    /// What a node says of itself, if it answers.
    pub(crate) fn status(&self, node: &str) -> Option<Value> {
        let mut command = veil();
        command.args(["status", "--json", "--config"]).arg(self.config(node));
        let output = command.stderr(Stdio::null()).output().unwrap();
        serde_json::from_slice(&output.stdout).ok()
    }

    /// The last slot that a node knows a certificate of, if it answers.
    pub(crate) fn last_slot(&self, node: &str) -> Option<u64> {
        self.status(node)?["last_slot"].as_u64()
    }

    /// Questions the last slot that a node knows to be anchored, with the certificates that it keeps and by an account
    /// that has nothing to do with the cluster; gives what the command says.
    pub(crate) fn challenge(&self, node: &str) -> Value {
        let status = json(&mut self.at_address(node, &["status"]));
        let slot = status["chain"]["anchored_slot"].to_string();
        let DevnetFile { rpc, contract, cluster, .. } = DevnetFile::read(&self.folder).unwrap();
        let evidence = "e0".repeat(32);
        let what = ["chain", "dispute", "challenge", &slot, "--evidence", &evidence];
        let mut command = self.at_address(node, &what);
        // The eighteenth key of Foundry's test phrase, known to everybody.
        let key = "689af8efa8c651a91ad287602527f3af2fe9f6501a7ac4b061667b5a93e037fd";
        command.env("VEIL_CHAIN_KEY", key).env("VEIL_RPC_URL", rpc);
        command.env("VEIL_CONTRACT_ADDRESS", format!("0x{contract}"));
        json(command.env("VEIL_CLUSTER", format!("0x{cluster}")))
    }

    /// A command that asks a node at its address, with what its owner would give to a reader.
    pub(crate) fn at_address(&self, node: &str, arguments: &[&str]) -> Command {
        let nodes = DevnetFile::read(&self.folder).unwrap().nodes;
        let entry = nodes.into_iter().find(|entry| entry.name == node).unwrap();
        let data = self.folder.join(node).join("data");
        let mut command = veil();
        command.args(["--node", &entry.api.unwrap()]).args(arguments).arg("--json");
        command.env("VEIL_NODE_CA", data.join("api-certificate.pem"));
        command.env("VEIL_NODE_TOKEN_FILE", data.join("api-read-token"));
        command
    }

    /// What a node measures of itself, by line of its `/metrics`.
    pub(crate) fn metrics(&self, node: &str) -> BTreeMap<String, u64> {
        let socket = self.folder.join(node).join("data").join("admin.sock");
        let mut stream = UnixStream::connect(socket).unwrap();
        stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let lines = answer.lines().filter_map(|line| line.rsplit_once(' '));
        lines.filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?))).collect()
    }

    /// Starts a node that is not running.
    pub(crate) fn start_node(&self, node: &str) -> Guard {
        let role = if node.starts_with("member") { "committee" } else { "worker" };
        let mut command = veil();
        command.args([role, "run", "--config"]).arg(self.config(node));
        Guard(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }

    /// Says what a worker is given, with its operator's account: `drain`, `eligible`.
    pub(crate) fn give(&self, verb: &str, worker: &str) {
        self.give_with(verb, worker, &[]);
    }

    pub(crate) fn give_with(&self, verb: &str, worker: &str, more: &[&str]) {
        let peer = self.peer(worker);
        let config = AnyConfig::load(&self.config(worker), &process_environment).unwrap();
        let chain = config.chain();
        let rpc = chain.rpc.as_slice().to_vec().join(",");
        let mut command = veil();
        command.args(["node", verb, &peer, "--json", "--rpc", &rpc]).args(more);
        command.args(["--contract", &chain.contract.to_string()]);
        command.args(["--cluster", &chain.cluster.to_string()]);
        command.arg("--keystore").arg(chain.keystore.as_ref().unwrap());
        command.arg("--keystore-passphrase-file");
        command.arg(chain.keystore_passphrase_file.as_ref().unwrap());
        let given = json(&mut command);
        assert_eq!(given["node"], peer.as_str(), "{given}");
    }

    /// How few containers of a job ran at once on this network's workers, by the engine, while something was done.
    pub(crate) fn fewest_containers<T>(&self, job: &str, done: impl FnOnce() -> T) -> (T, usize) {
        let peers = ["worker-1", "worker-2", "worker-3"].map(|worker| self.peer(worker));
        let count = || {
            let mut command = Command::new("docker");
            command.args(["ps", "--filter", &format!("label=veil.job={job}")]);
            command.args(["--format", "{{.Label \"veil.worker\"}}"]);
            let output = command.output().unwrap();
            assert!(output.status.success(), "{output:?}");
            let workers = String::from_utf8(output.stdout).unwrap();
            workers.lines().filter(|worker| peers.iter().any(|peer| peer == worker)).count()
        };
        let (over, is_over) = mpsc::channel::<()>(); // closed also when what is done panics
        thread::scope(|scope| {
            let counting = scope.spawn(move || {
                let mut fewest = count();
                while is_over.recv_timeout(COUNT_INTERVAL) == Err(RecvTimeoutError::Timeout) {
                    fewest = fewest.min(count());
                }
                fewest
            });
            let done = done();
            drop(over);
            (done, counting.join().unwrap())
        })
    }

    /// A worker in the registry.
    pub(crate) fn peer(&self, worker: &str) -> String {
        let mut command = veil();
        command.args(["worker", "status", "--json", "--config"]).arg(self.config(worker));
        json(&mut command)["peer"].as_str().unwrap().to_owned()
    }

    /// Docker's ids of the containers that a worker's replicas run in.
    pub(crate) fn containers(&self, worker: &str) -> Vec<String> {
        let mut command = veil();
        command.args(["worker", "status", "--json", "--config"]).arg(self.config(worker));
        let status = json(&mut command);
        let replicas = status["replicas"].as_array().unwrap().iter();
        let ids = replicas.filter_map(|replica| replica["observed"]["container"].as_str());
        ids.map(str::to_owned).collect()
    }

    /// Names of the workers that run the job's replicas, once all of them run.
    pub(crate) fn running(&self, job: &str, replicas: usize) -> Option<Vec<String>> {
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

/// A node that the test started by hand.
pub(crate) struct Guard(Child);

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Of anvil's first account, which is the cluster's admin.
const ADMIN: &str = "ac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80";

/// What the admin tells the chain.
pub(crate) fn chain(network: &Network, arguments: &[&str]) -> Value {
    let file = DevnetFile::read(&network.folder).unwrap();
    let mut command = veil();
    command.arg("chain").args(arguments).args(["--json", "--rpc", &file.rpc]);
    command.args(["--contract", &file.contract.to_string()]);
    command.args(["--cluster", &file.cluster.to_string()]).env("VEIL_CHAIN_KEY", ADMIN);
    let said = json(&mut command);
    assert!(said["transaction"].is_string(), "{arguments:?}: {said}");
    said
}

pub(crate) fn set_policy(network: &Network, text: &str) {
    let path = network.folder.join("policy.toml");
    fs::write(&path, text).unwrap();
    chain(network, &["policy", "set", "--file", path.to_str().unwrap()]);
}

/// Rows of `veil job status`.
pub(crate) fn rows(network: &Network, job: &str) -> Vec<Value> {
    let mut command = veil();
    command.args(["job", "status", job, "--json", "--devnet"]).arg(&network.folder);
    json(&mut command)["replicas"].as_array().unwrap().clone()
}

/// Waits until `veil job status` says of a replica what all of these words are of.
pub(crate) fn reason(network: &Network, job: &str, words: &[&str]) {
    until(&format!("{words:?} is said of {job}"), || {
        let rows = rows(network, job);
        let said = rows.iter().filter_map(|row| row["pending_because"].as_str());
        let mut said = said.chain(rows.iter().filter_map(|row| row["observed"]["state"].as_str()));
        said.any(|said| words.iter().all(|word| said.contains(word))).then_some(())
    });
}
