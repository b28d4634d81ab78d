//! `examples/shop` as people would run it: its Compose file is imported, its four jobs are placed on a network of
//! processes, and its page is fetched through `veil job forward`. Then nodes are searched for its secret.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    containers::Containers,
    failed::Failed,
    step::{Step, root, target},
};

const NAME: &str = "shop";
const FOLDER: &str = "examples/shop";
/// Held by jobs that read the secret: their workers may know it.
const READERS: [&str; 2] = ["shop-db", "shop-web"];
/// The job that the page is fetched from, and its port.
const PAGE: (&str, &str) = ("shop-proxy", "80");
/// What the page says if all four programs have done their part: the web program's greeting, one of the database's
/// goods, the cache's count.
const ON_THE_PAGE: [&str; 3] = ["Welcome to the shop", "Coffee", "visit "];
/// The volume that the database asks for.
const VOLUME: &str = "shop-db-data";
/// From the submission to the page.
const PATIENCE: Duration = Duration::from_secs(900);
const POLL: Duration = Duration::from_millis(500);
/// For one answer of the page.
const ANSWER: Duration = Duration::from_secs(20);
/// A file above this is a key set, which is public.
const MOST_BYTES: u64 = 256 << 20;

/// What `--json` ends with.
struct Outcome {
    page: String,
    workers: BTreeSet<String>,
    found: Vec<String>,
}

impl Outcome {
    fn page_ok(&self) -> bool {
        ON_THE_PAGE.iter().all(|text| self.page.contains(text))
    }

    fn failed(&self) -> Option<Failed> {
        let failed = |reason: String| Some(Failed::new(NAME, reason));
        if !self.page_ok() {
            return failed(format!("the page is not what it should be:\n{}", self.page));
        }
        if self.workers.len() < 2 {
            return failed("one worker runs all of it; its links went nowhere".to_owned());
        }
        if !self.found.is_empty() {
            return failed(format!("its secret was found in {}", self.found.join(", ")));
        }
        None
    }
}

/// Sets up a network, runs the shop on it, fetches its page, and ends everything, or leaves it until Ctrl-C if `stay`.
/// Options in `args` go to `veil devnet`, `--json` apart.
pub(super) fn run(containers: &Containers, stay: bool, args: &[String]) -> Result<(), Failed> {
    let (is_json, args) = {
        let others: Vec<_> = args.iter().filter(|arg| *arg != "--json").cloned().collect();
        (others.len() < args.len(), others)
    };
    let base = root().join(FOLDER).join("base");
    on(containers, Step::new(NAME, &base.to_string_lossy(), &[])).run()?;
    Step::cargo(NAME, &["build", "--release", "--bin", "veil"]).run()?;

    let folder = tempfile::Builder::new().prefix("veil-shop-").tempdir();
    let folder =
        folder.map_err(|error| Failed::new(NAME, format!("no temporary folder: {error}")))?;
    let net = folder.path().join("net");
    let network = Network::start(containers, &net, &args)?;
    let jobs = network.import(containers, &folder.path().join("jobs"))?;
    for job in &jobs {
        println!("== {NAME}: veil job submit {}", job.display());
        network.json(&["job", "submit", "--json", &job.to_string_lossy()])?;
    }
    let workers = network.all_run(jobs.len())?;
    let page = network.page()?;
    let found = network.search(&workers)?;
    let used = workers.values().flatten().cloned().collect();
    let outcome = Outcome { page, workers: used, found };
    println!("\n== {NAME}: the page, through `veil job forward`:\n\n{}", outcome.page);
    if stay {
        println!(
            "== {NAME}: the network goes on until Ctrl-C; ask it with `veil job status --devnet {}`",
            net.display()
        );
        network.wait()?;
    }
    if is_json {
        let object = json!({
            "page_ok": outcome.page_ok(),
            "workers_used": outcome.workers.len(),
            "secret_found_outside_winners": outcome.found,
        });
        println!("{object}");
    }
    outcome.failed().map_or(Ok(()), Err)
}

/// With the engine that was chosen.
fn on(containers: &Containers, step: Step) -> Step {
    match &containers.socket {
        Some(socket) => step.env("DOCKER_HOST", &format!("unix://{socket}")),
        None => step,
    }
}

/// What cargo has built.
fn veil() -> Command {
    let mut command = Command::new(target().join("release/veil"));
    command.stdin(Stdio::null()).current_dir(root());
    command
}

fn not_started(error: std::io::Error) -> Failed {
    Failed::new(NAME, format!("`veil` cannot be started: {error}"))
}

/// A process that ends with this.
struct Running(Child);

impl Running {
    /// Starts it, and returns the JSON object that it prints once it is ready.
    fn start(command: &mut Command) -> Result<(Self, Value), Failed> {
        let mut running = Self(command.stdout(Stdio::piped()).spawn().map_err(not_started)?);
        let mut line = String::new();
        if let Some(output) = running.0.stdout.take() {
            let read = BufReader::new(output).read_line(&mut line);
            read.map_err(|error| Failed::new(NAME, error.to_string()))?;
        }
        let object = serde_json::from_str(&line);
        let object = object.map_err(|_| Failed::new(NAME, format!("{command:?} says: {line}")))?;
        Ok((running, object))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Ok(pid) = self.0.id().try_into() {
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
        let _ = self.0.wait();
    }
}

/// What is asked of `devnet.json`.
#[derive(Deserialize)]
struct Described {
    nodes: Vec<Node>,
}

#[derive(Deserialize)]
struct Node {
    name: String,
    peer: String,
}

struct Network {
    process: Running,
    /// The engine, in the form that the Docker client takes, if one was chosen.
    engine: Option<String>,
    folder: PathBuf,
    described: Described,
}

impl Network {
    fn start(containers: &Containers, folder: &Path, args: &[String]) -> Result<Self, Failed> {
        let mut command = veil();
        command.args(["devnet", "--processes", "--json", "--replicas", "1"]);
        command.args(["--image", &containers.image, "--volume", VOLUME, "--keep"]).arg(folder);
        command.args(args);
        if let Some(socket) = &containers.socket {
            command.env("VEIL_DOCKER_SOCKET", socket);
        }
        println!("\n== {NAME}: {command:?}");
        let (process, _) = Running::start(&mut command)?;
        let path = folder.join("devnet.json");
        let text = fs::read(&path).map_err(|error| unreadable(&path, &error))?;
        let described = serde_json::from_slice(&text);
        let described =
            described.map_err(|error| Failed::new(NAME, format!("{}: {error}", path.display())))?;
        let engine = containers.socket.as_ref().map(|socket| format!("unix://{socket}"));
        Ok(Self { process, engine, folder: folder.to_owned(), described })
    }

    /// Until somebody ends it.
    fn wait(mut self) -> Result<(), Failed> {
        self.process.0.wait().map(|_| ()).map_err(not_started)
    }

    /// What a command says of this network.
    fn json(&self, args: &[&str]) -> Result<Value, Failed> {
        let mut command = veil();
        let output = command.args(args).arg("--devnet").arg(&self.folder).output();
        let output = output.map_err(not_started)?;
        if !output.status.success() {
            let said = [&output.stdout[..], &output.stderr].concat();
            let said = String::from_utf8_lossy(&said).into_owned();
            return Err(Failed::new(NAME, format!("`veil {}`: {said}", args.join(" "))));
        }
        serde_json::from_slice(&output.stdout)
            .map_err(|error| Failed::new(NAME, format!("`veil {}`: {error}", args.join(" "))))
    }

    /// The shop's job files, its images built and pushed.
    fn import(&self, containers: &Containers, out: &Path) -> Result<Vec<PathBuf>, Failed> {
        let compose = root().join(FOLDER).join("compose.yaml");
        // As in `host:port/name@sha256:...`.
        let registry = containers.image.split('/').next().unwrap_or_default();
        let mut command = veil();
        command.args(["job", "import", "--json", "--build", "--organisation", "any", "--out"]);
        command.arg(out).arg(&compose);
        command.env("SHOP_REGISTRY", registry).env("SHOP_PORT", free_port()?.to_string());
        if let Some(engine) = &self.engine {
            command.env("DOCKER_HOST", engine);
        }
        println!("\n== {NAME}: {command:?}");
        let output = command.stderr(Stdio::inherit()).output().map_err(not_started)?;
        let said = String::from_utf8_lossy(&output.stdout);
        if !output.status.success() {
            return Err(Failed::new(NAME, format!("the import fails: {said}")));
        }
        let object: Value = serde_json::from_str(&said)
            .map_err(|error| Failed::new(NAME, format!("the import says {said}: {error}")))?;
        let jobs = object["jobs"].as_array().into_iter().flatten();
        let names = jobs.filter_map(|job| job["name"].as_str());
        Ok(names.map(|name| out.join(format!("{name}.toml"))).collect())
    }

    /// Waits until each job of the shop runs; the workers of each.
    fn all_run(&self, jobs: usize) -> Result<BTreeMap<String, BTreeSet<String>>, Failed> {
        let begun = Instant::now();
        loop {
            // Names are known once the bodies are.
            let list = self.json(&["job", "list", "--json"])?;
            let names: BTreeMap<_, _> = list["jobs"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(|job| Some((job["job"].as_str()?, job["name"].as_str()?)))
                .filter(|(_, name)| name.starts_with("shop-"))
                .collect();
            let status = self.json(&["job", "status", "--json"])?;
            let mut workers = BTreeMap::<String, BTreeSet<String>>::new();
            for replica in status["replicas"].as_array().into_iter().flatten() {
                let (job, worker) = (replica["job"].as_str(), replica["worker_name"].as_str());
                let name = job.and_then(|job| names.get(job));
                if let (Some(name), Some(worker), true) = (name, worker, replica["running"] == true)
                {
                    workers.entry((*name).to_owned()).or_default().insert(worker.to_owned());
                }
            }
            if workers.len() == jobs {
                println!("== {NAME}: all jobs run after {:.1?}: {workers:?}", begun.elapsed());
                return Ok(workers);
            }
            if begun.elapsed() > PATIENCE {
                return Err(Failed::new(NAME, format!("not all jobs run:\n{status:#}")));
            }
            sleep(POLL);
        }
    }

    /// The shop's page, by way of the node that the operator asks, once the programs have started.
    fn page(&self) -> Result<String, Failed> {
        let (job, port) = PAGE;
        let mut command = veil();
        command.args(["job", "forward", "--json", job, &format!("0:{port}"), "--devnet"]);
        let (_forward, object) = Running::start(command.arg(&self.folder))?;
        let at = object["forwards"][0]["listen"].as_str().and_then(|at| at.parse().ok());
        let at = at.ok_or_else(|| Failed::new(NAME, format!("the forward says {object}")))?;
        let begun = Instant::now();
        loop {
            match get(at) {
                Ok(answer) if answer.starts_with("HTTP/1.1 200") => {
                    let page = answer.split_once("\r\n\r\n");
                    return Ok(page.map_or_else(String::new, |(_, page)| page.to_owned()));
                }
                // The database makes itself first, and says so with another code.
                said if begun.elapsed() > PATIENCE => {
                    return Err(Failed::new(NAME, format!("{job} does not serve: {said:?}")));
                }
                _ => sleep(POLL),
            }
        }
    }

    /// Output and errors of the engine's command.
    fn docker(&self, args: &[&str]) -> Result<String, Failed> {
        let mut command = Command::new("docker");
        if let Some(engine) = &self.engine {
            command.env("DOCKER_HOST", engine);
        }
        let output = command.args(args).output();
        let output = output.map_err(|error| Failed::new(NAME, format!("`docker`: {error}")))?;
        Ok(String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
    }

    /// Where the secret is found: in stores and logs of all nodes (of the winners, too: they keep it encrypted), and in
    /// what the engine knows and logs of containers that are not the winners'.
    fn search(&self, workers: &BTreeMap<String, BTreeSet<String>>) -> Result<Vec<String>, Failed> {
        let path = root().join(FOLDER).join("db-password.txt");
        let secret = fs::read_to_string(&path).map_err(|error| unreadable(&path, &error))?;
        let mut found = Vec::new();
        for node in &self.described.nodes {
            let folder = self.folder.join(&node.name);
            let mut knows_the_job = false;
            for file in files(&folder)? {
                let bytes = fs::read(&file).map_err(|error| unreadable(&file, &error))?;
                if contains(&bytes, secret.trim()) {
                    found.push(format!("{} of {}", file.display(), node.name));
                }
                knows_the_job |= contains(&bytes, READERS[0]);
            }
            // All nodes keep what is public of jobs: else the search looks at nothing.
            if !knows_the_job {
                let reason = format!("{} holds nothing of {}", folder.display(), READERS[0]);
                return Err(Failed::new(NAME, reason));
            }
        }
        let winners: BTreeSet<_> =
            READERS.iter().filter_map(|job| workers.get(*job)).flatten().collect();
        for node in self.described.nodes.iter().filter(|node| !winners.contains(&node.name)) {
            let label = format!("label=veil.worker={}", node.peer);
            for id in
                self.docker(&["ps", "--all", "--quiet", "--filter", &label])?.split_whitespace()
            {
                for command in ["inspect", "logs"] {
                    if self.docker(&[command, id])?.contains(secret.trim()) {
                        found.push(format!("`docker {command} {id}` of {}", node.name));
                    }
                }
            }
        }
        Ok(found)
    }
}

fn unreadable(path: &Path, error: &std::io::Error) -> Failed {
    Failed::new(NAME, format!("{}: {error}", path.display()))
}

fn contains(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

/// A port that nobody listens at now.
fn free_port() -> Result<u16, Failed> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).and_then(|at| at.local_addr());
    listener
        .map(|at| at.port())
        .map_err(|error| Failed::new(NAME, format!("no free port: {error}")))
}

/// One request of HTTP 1.0, whose answer ends with the connection.
fn get(at: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&at, ANSWER)?;
    stream.set_read_timeout(Some(ANSWER))?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// All plain files below, but for those that jobs write into volumes.
fn files(folder: &Path) -> Result<Vec<PathBuf>, Failed> {
    let mut found = Vec::new();
    let entries = fs::read_dir(folder).map_err(|error| unreadable(folder, &error))?;
    for entry in entries.flatten() {
        let (Ok(kind), path) = (entry.file_type(), entry.path()) else { continue };
        if kind.is_dir() && !path.ends_with("volumes") {
            found.extend(files(&path)?);
        } else if kind.is_file() && entry.metadata().is_ok_and(|of| of.len() < MOST_BYTES) {
            found.push(path);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(page: &str, workers: &[&str], found: &[&str]) -> Outcome {
        Outcome {
            page: page.to_owned(),
            workers: workers.iter().map(|&name| name.to_owned()).collect(),
            found: found.iter().map(|&place| place.to_owned()).collect(),
        }
    }

    #[test]
    fn what_is_missing_is_named() {
        let page = ON_THE_PAGE.join("\n");
        assert!(outcome(&page, &["a", "b"], &[]).failed().is_none());
        let said = |outcome: Outcome| outcome.failed().unwrap().to_string();
        assert!(said(outcome("closed", &["a", "b"], &[])).contains("closed"));
        assert!(said(outcome(&page, &["a"], &[])).contains("one worker"));
        assert!(said(outcome(&page, &["a", "b"], &["a log"])).contains("a log"));
    }

    #[test]
    fn a_text_is_found_wherever_it_stands() {
        assert!(contains(b"\0\xffhunter2\0", "hunter2"));
        assert!(!contains(b"hunter", "hunter2"));
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("data/volumes")).unwrap();
        for path in ["log", "data/store", "data/volumes/job"] {
            fs::write(folder.path().join(path), "x").unwrap();
        }
        let mut found = files(folder.path()).unwrap();
        found.sort();
        assert_eq!(found, [folder.path().join("data/store"), folder.path().join("log")]);
    }
}
