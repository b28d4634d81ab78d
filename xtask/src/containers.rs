//! The container engine, the local registry and the sample image.
//!
//! - [`install`] installs what is missing (as root, with apt-get); [`start`] starts `dockerd` if no
//!   engine answers and a registry on loopback if none answers, then builds and pushes the sample
//!   image.
//! - Idempotent: a service that answers is used as it is. Both services outlive this command; their
//!   logs and the registry's data are in `setup` in the target directory.
//! - `setup/sample-image` holds the image's reference by digest, for tests and [`crate::demo`].
//!
//! `DOCKER_HOST` or its twin `VEIL_DOCKER_SOCKET` chooses the engine; this starts none then.
//! `VEIL_REGISTRY` (`127.0.0.1:<port>`) chooses the registry's address. Engines accept a registry
//! in 127.0.0.0/8 without TLS, so that it needs no configuration.

use std::{
    env,
    fs::{self, File},
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use crate::{
    failed::Failed,
    step::{Step, is_root, probe, root, target},
};

const NAME: &str = "containers";
const REPOSITORY: &str = "veil-demo/web";
const BUSYBOX: &str = "/bin/busybox";
/// How long a service may take to answer once started.
const READY: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(100);

/// The engine to run on, and the image to run.
pub(crate) struct Containers {
    /// The sample image by digest.
    pub(crate) image: String,
    /// The engine's socket, if it was chosen.
    pub(crate) socket: Option<String>,
}

/// A program, the arguments on which it succeeds, and the Debian package that has it.
type Program<'a> = (&'a str, &'a [&'a str], &'a str);

/// Installs the programs that are missing if it may, or adds the command that would to `missing`.
pub(crate) fn install(may_install: bool, missing: &mut Vec<String>) -> Result<(), Failed> {
    println!(
        "== {NAME}: checks for a Docker engine, a registry on loopback and a static busybox; \
         installs and starts what is missing"
    );
    let host = docker_host()?;
    let mut needed: Vec<Program<'_>> = vec![
        ("docker", &["--version"], "docker.io"),
        (BUSYBOX, &["true"], "busybox-static"),
        // What a worker filters by, and what its tests build hosts of.
        ("nft", &["--version"], "nftables"),
        ("ip", &["-V"], "iproute2"),
    ];
    if host.is_none() && (Engine { host }).version().is_none() {
        needed.push(("dockerd", &["--version"], "docker.io"));
    }
    if !candidates()?.iter().any(|at| registry_at(*at) == Found::Registry) {
        needed.push(("docker-registry", &["--version"], "docker-registry"));
    }
    let is_missing = |program: &Program<'_>| probe(program.0, program.1).is_none();
    let mut packages: Vec<_> =
        needed.iter().filter(|program| is_missing(program)).map(|program| program.2).collect();
    packages.sort_unstable();
    packages.dedup();
    if packages.is_empty() {
        return Ok(());
    }
    let list = packages.join(" ");
    if !may_install {
        missing.push(format!("sudo apt-get update && sudo apt-get install -y {list}"));
        return Ok(());
    }
    println!("{NAME}: installs {list}");
    let apt = |args: &[&str]| {
        Step::new(NAME, "apt-get", &[&["-o", "DPkg::Lock::Timeout=120"], args].concat())
            .env("DEBIAN_FRONTEND", "noninteractive")
            .run()
    };
    apt(&["update"])?;
    apt(&[&["install", "-y"], packages.as_slice()].concat())?;
    if is_missing(&("docker", &["--version"], "")) {
        apt(&["install", "-y", "docker-cli"])?; // part of docker.io until Debian 12
    }
    match needed.iter().find(|program| is_missing(program)) {
        Some((program, _, package)) => {
            Err(Failed::new(NAME, format!("{program} is still missing after installing {package}")))
        }
        None => Ok(()),
    }
}

/// Starts the services that do not answer, then builds and pushes the sample image.
pub(crate) fn start() -> Result<Containers, Failed> {
    let host = docker_host()?;
    let engine = Engine { host: host.clone() };
    engine.start_if_silent()?;
    let registry = start_registry(&candidates()?)?;
    let image = engine.publish_sample(registry)?;
    let record = folder()?.join("sample-image");
    write(&record, &image)?;
    println!("== {NAME}: sample image {image}\n   recorded in {}", record.display());
    let socket = host.and_then(|host| host.strip_prefix("unix://").map(str::to_owned));
    Ok(Containers { image, socket })
}

/// A command for the engine that the environment chooses, or the one of this machine.
pub(crate) fn docker(name: &'static str, args: &[&str]) -> Result<Step, Failed> {
    let engine = Engine { host: docker_host()? };
    engine.start_if_silent()?;
    Ok(engine.docker(name, args))
}

/// `setup` in the target directory.
fn folder() -> Result<PathBuf, Failed> {
    let folder = target().join("setup");
    fs::create_dir_all(&folder).map_err(|error| cannot("create", &folder, &error))?;
    Ok(folder)
}

fn cannot(what: &str, path: &Path, error: &std::io::Error) -> Failed {
    Failed::new(NAME, format!("cannot {what} {}: {error}", path.display()))
}

fn write(path: &Path, text: &str) -> Result<(), Failed> {
    fs::write(path, text).map_err(|error| cannot("write", path, &error))
}

/// The engine that the environment chooses, in the form that the Docker client takes.
fn docker_host() -> Result<Option<String>, Failed> {
    let given = |name| env::var(name).ok().filter(|value| !value.is_empty());
    let socket = given("VEIL_DOCKER_SOCKET").map(|path| format!("unix://{path}"));
    match (given("DOCKER_HOST"), socket) {
        (Some(host), Some(socket)) if host != socket => Err(Failed::new(
            NAME,
            format!("DOCKER_HOST says {host} and VEIL_DOCKER_SOCKET {socket}; unset one"),
        )),
        (host, socket) => Ok(socket.or(host)),
    }
}

struct Engine {
    host: Option<String>,
}

impl Engine {
    fn version(&self) -> Option<String> {
        let mut command = Command::new("docker");
        command.args(["version", "--format", "{{.Server.Version}}"]);
        if let Some(host) = &self.host {
            command.env("DOCKER_HOST", host);
        }
        let output = command.output().ok()?;
        let version = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        (output.status.success() && !version.is_empty()).then_some(version)
    }

    fn start_if_silent(&self) -> Result<(), Failed> {
        if let Some(version) = self.version() {
            println!("Docker engine: answers, version {version}");
            return Ok(());
        }
        if let Some(host) = &self.host {
            return Err(Failed::new(
                NAME,
                format!(
                    "no engine answers at {host}; start it, or unset DOCKER_HOST and \
                     VEIL_DOCKER_SOCKET to have one set up here"
                ),
            ));
        }
        if !is_root() {
            return Err(Failed::new(
                NAME,
                "no engine answers, and starting one needs root; run `sudo dockerd`, or this as \
                 root; if one runs, you may have to be in the group `docker`",
            ));
        }
        let mut service = Service::start("dockerd", &[], "dockerd")?;
        let version = service.wait(|| self.version())?;
        println!("Docker engine: started, version {version}");
        service.print_how_to_stop();
        Ok(())
    }

    fn docker(&self, name: &'static str, args: &[&str]) -> Step {
        let step = Step::new(name, "docker", args).env("DOCKER_BUILDKIT", "0"); // no plugin needed
        match &self.host {
            Some(host) => step.env("DOCKER_HOST", host),
            None => step,
        }
    }

    /// Builds the sample image, pushes it, and returns its reference by digest.
    fn publish_sample(&self, registry: SocketAddr) -> Result<String, Failed> {
        let context = folder()?.join("web");
        let from = root().join("demo/web");
        fs::create_dir_all(context.join("www"))
            .map_err(|error| cannot("create", &context, &error))?;
        for file in ["Dockerfile", "www/index.html"] {
            copy(&from.join(file), &context.join(file))?;
        }
        copy(Path::new(BUSYBOX), &context.join("busybox"))?;
        let name = format!("{registry}/{REPOSITORY}");
        self.docker(NAME, &["build", "--quiet", "--tag", &name, &context.to_string_lossy()])
            .run()?;
        self.docker(NAME, &["push", "--quiet", &name]).run()?;
        let format = "{{join .RepoDigests \" \"}}";
        let digests =
            self.docker(NAME, &["image", "inspect", "--format", format, &name]).output()?;
        let pinned = format!("{name}@sha256:");
        let image = digests.split_whitespace().find(|digest| digest.starts_with(&pinned));
        image.map(str::to_owned).ok_or_else(|| {
            Failed::new(NAME, format!("the engine knows no digest of {name} after the push"))
        })
    }
}

/// Copies contents and mode only if they differ: a new modification time makes a new image.
fn copy(from: &Path, to: &Path) -> Result<(), Failed> {
    let contents = fs::read(from).map_err(|error| cannot("read", from, &error))?;
    if fs::read(to).is_ok_and(|there| there == contents) {
        return Ok(());
    }
    fs::copy(from, to).map(|_| ()).map_err(|error| cannot("write", to, &error))
}

/// What answers at an address.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Found {
    Registry,
    Other,
    Silent,
}

/// The addresses to try for the registry, in this order.
fn candidates() -> Result<Vec<SocketAddr>, Failed> {
    let Ok(given) = env::var("VEIL_REGISTRY") else {
        return Ok((5000..5010).map(|port| SocketAddr::from(([127, 0, 0, 1], port))).collect());
    };
    match given.parse::<SocketAddr>() {
        Ok(address) if address.is_ipv4() && address.ip().is_loopback() => Ok(vec![address]),
        _ => Err(Failed::new(
            NAME,
            format!("VEIL_REGISTRY is `{given}`; it must be 127.0.0.1:<port>"),
        )),
    }
}

fn registry_at(address: SocketAddr) -> Found {
    let Ok(mut stream) = TcpStream::connect_timeout(&address, Duration::from_secs(2)) else {
        return Found::Silent;
    };
    let deadline = Some(Duration::from_secs(2));
    let mut answer = [0; 512];
    let answered = stream
        .set_read_timeout(deadline)
        .and_then(|()| stream.write_all(b"GET /v2/ HTTP/1.0\r\nHost: localhost\r\n\r\n"))
        .and_then(|()| stream.read(&mut answer));
    let head = answered.map(|len| String::from_utf8_lossy(&answer[..len]).to_lowercase());
    // A registry that asks for a password answers 401, and is not usable here.
    let usable = head.is_ok_and(|head| {
        head.lines().next().is_some_and(|status| status.contains(" 200"))
            && head.contains("docker-distribution-api-version")
    });
    if usable { Found::Registry } else { Found::Other }
}

/// A registry that answers at one of `candidates`, started if there is none.
fn start_registry(candidates: &[SocketAddr]) -> Result<SocketAddr, Failed> {
    let found: Vec<_> = candidates.iter().map(|at| (*at, registry_at(*at))).collect();
    let first = |what| found.iter().find(|(_, found)| *found == what).map(|(at, _)| *at);
    if let Some(address) = first(Found::Registry) {
        println!("registry: answers at {address}");
        return Ok(address);
    }
    let address = first(Found::Silent).ok_or_else(|| {
        Failed::new(
            NAME,
            "another service has each of the ports tried; name a free one with \
             VEIL_REGISTRY=127.0.0.1:<port>",
        )
    })?;
    let folder = folder()?;
    let name = format!("registry-{}", address.port()); // another one may run
    let config = folder.join(&name).with_extension("yml");
    let data = folder.join("registry");
    let text = format!(
        "version: 0.1\nlog: {{level: warn}}\nhttp: {{addr: '{address}'}}\n\
         storage: {{filesystem: {{rootdirectory: {:?}}}}}\n",
        data.to_string_lossy()
    );
    write(&config, &text)?;
    let args = ["serve", &config.to_string_lossy()];
    let mut service = Service::start("docker-registry", &args, &name)?;
    service.wait(|| (registry_at(address) == Found::Registry).then_some(()))?;
    println!("registry: started at {address}");
    service.print_how_to_stop();
    Ok(address)
}

/// A background process, which outlives this one.
struct Service {
    program: &'static str,
    log: PathBuf,
    child: Child,
}

impl Service {
    fn start(program: &'static str, args: &[&str], name: &str) -> Result<Self, Failed> {
        let path = folder()?.join(name).with_extension("log");
        let log = File::create(&path).map_err(|error| cannot("write", &path, &error))?;
        let errors = log.try_clone().map_err(|error| cannot("write", &path, &error))?;
        println!("\n== {NAME}: {program} {}", args.join(" "));
        let child = Command::new(program)
            .args(args)
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            .process_group(0) // Ctrl-C is for this command only
            .spawn()
            .map_err(|error| Failed::new(NAME, format!("{program} cannot be started: {error}")))?;
        Ok(Self { program, log: path, child })
    }

    /// Polls `ready` until it answers, the process ends, or [`READY`] has passed.
    fn wait<T>(&mut self, ready: impl Fn() -> Option<T>) -> Result<T, Failed> {
        let start = Instant::now();
        let reason = loop {
            if let Some(answer) = ready() {
                return Ok(answer);
            }
            match self.child.try_wait() {
                Ok(None) if start.elapsed() < READY => sleep(POLL),
                Ok(None) => break format!("does not answer after {} s", READY.as_secs()),
                Ok(Some(status)) => break format!("ended with {status}"),
                Err(error) => break format!("is lost: {error}"),
            }
        };
        let _ = self.child.kill();
        let _ = self.child.wait();
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let from = log.lines().count().saturating_sub(15);
        let tail: Vec<_> = log.lines().skip(from).collect();
        let reason =
            format!("{} {reason}; {} ends:\n{}", self.program, self.log.display(), tail.join("\n"));
        Err(Failed::new(NAME, reason))
    }

    fn print_how_to_stop(&self) {
        println!(
            "   it keeps running; stop it with `kill {}`; log: {}",
            self.child.id(),
            self.log.display()
        );
    }
}
