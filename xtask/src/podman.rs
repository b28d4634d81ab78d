//! The containers' tests on Podman: a service of its own, whose folder, containers and socket vanish with it.
//!
//! Root, as the tests themselves are. Podman is installed if it is missing; the registry and the sample image are those
//! of `cargo xtask setup --docker`.

use std::{
    env,
    fs::{self, File},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{self, Child, Command},
    thread::sleep,
    time::{Duration, Instant},
};

use crate::{
    failed::Failed,
    setup,
    step::{Step, probe},
};

const NAME: &str = "podman";
/// How long the service may take to listen.
const READY: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(100);

/// Whether it is there to be tested.
pub(crate) fn is_installed() -> bool {
    probe("podman", &["--version"]).is_some()
}

/// Runs the containers' tests on Podman.
pub(crate) fn test() -> Result<(), Failed> {
    setup::podman()?;
    let service = Service::start()?;
    let socket = format!("unix://{}", service.socket().display());
    ["veil-node-containers", "veil-node-reach"].into_iter().try_for_each(|package| {
        let package = ["test", "--release", "--package", package, "--test", "docker"];
        // Two at a time: more, and the service takes longer for a call than a worker waits.
        Step::cargo(NAME, &[&package[..], &["--", "--test-threads=2"]].concat())
            .env("DOCKER_HOST", &socket)
            .run()
    })
}

/// Podman behind a socket, until it is dropped.
struct Service {
    folder: PathBuf,
    child: Option<Child>,
}

impl Service {
    fn start() -> Result<Self, Failed> {
        let folder = env::temp_dir().join(format!("veil-podman-{}", process::id()));
        let mut service = Self { folder, child: None };
        let folder = &service.folder;
        fs::create_dir_all(folder).map_err(|error| cannot("create", folder, &error))?;
        for (file, text) in [
            ("containers.conf", engine_settings(folder)),
            ("registries.conf", REGISTRIES.to_owned()),
        ] {
            let path = folder.join(file);
            fs::write(&path, text).map_err(|error| cannot("write", &path, &error))?;
        }
        let log = folder.join("service.log");
        let log = File::create(&log).map_err(|error| cannot("create", &log, &error))?;
        let address = format!("unix://{}", service.socket().display());
        let child =
            service.podman(&["system", "service", "--time=0", &address]).stderr(log).spawn();
        service.child = Some(child.map_err(|error| Failed::new(NAME, error.to_string()))?);
        let since = Instant::now();
        while UnixStream::connect(service.socket()).is_err() {
            if since.elapsed() > READY {
                let said = fs::read_to_string(service.folder.join("service.log"));
                let reason = format!("it does not listen: {}", said.unwrap_or_default());
                return Err(Failed::new(NAME, reason));
            }
            sleep(POLL);
        }
        Ok(service)
    }

    fn socket(&self) -> PathBuf {
        self.folder.join("podman.sock")
    }

    /// Apart from whatever else Podman has on this machine.
    fn podman(&self, args: &[&str]) -> Command {
        let mut command = Command::new("podman");
        command
            .arg("--root")
            .arg(self.folder.join("root"))
            .arg("--runroot")
            .arg(self.folder.join("run"))
            .args(args)
            // Its monitors leave a file where they were started.
            .current_dir(&self.folder)
            .env("CONTAINERS_CONF", self.folder.join("containers.conf"))
            .env("CONTAINERS_REGISTRIES_CONF", self.folder.join("registries.conf"))
            .env("TMPDIR", &self.folder);
        command
    }
}

/// Tests remove what they make; what a broken one leaves goes here.
impl Drop for Service {
    fn drop(&mut self) {
        for args in [&["rm", "--all", "--force"][..], &["network", "prune", "--force"]] {
            let _ = self.podman(args).output();
        }
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        let _ = Command::new("umount").arg(self.folder.join("root/overlay")).output();
        if let Err(error) = fs::remove_dir_all(&self.folder) {
            eprintln!("{NAME}: {} is left: {error}", self.folder.display());
        }
    }
}

fn cannot(what: &str, path: &Path, error: &std::io::Error) -> Failed {
    Failed::new(NAME, format!("cannot {what} {}: {error}", path.display()))
}

/// As Docker has it of itself: registries of this machine may have no TLS.
const REGISTRIES: &str = r#"
unqualified-search-registries = []
short-name-mode = "disabled"
[[registry]]
location = "127.0.0.1"
insecure = true
[[registry]]
location = "localhost"
insecure = true
"#;

fn engine_settings(folder: &Path) -> String {
    let limits = ulimits();
    // Podman's own choice, crun, refuses cgroups of both versions at once.
    let runtime = probe("runc", &["--version"]).map_or("", |_| "runtime = \"runc\"\n");
    let networks = folder.join("networks");
    format!(
        "[containers]\ndefault_ulimits = [{limits}]\n[network]\nnetwork_backend = \"netavark\"\n\
         network_config_dir = \"{}\"\n[engine]\n{runtime}cgroup_manager = \"cgroupfs\"\n\
         events_logger = \"file\"\n",
        networks.display()
    )
}

/// What containers get whose job says nothing, at most what Podman has left to itself: it may not be allowed to
/// raise limits, as root of a container or a small machine is not. At its start it lowers its own to these.
fn ulimits() -> String {
    let own = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let pid_max = fs::read_to_string("/proc/sys/kernel/pid_max").unwrap_or_default();
    let pid_max = pid_max.trim().parse().unwrap_or(PROCESSES);
    let limit = |(kind, name, most): (&str, &str, u64)| {
        let hard = own.lines().find_map(|line| line.strip_prefix(kind)?.split_whitespace().nth(1));
        let limit = hard.and_then(|hard| hard.parse().ok()).unwrap_or(u64::MAX).min(most);
        format!("\"{name}={limit}:{limit}\"")
    };
    let limits = [("Max open files", "nofile", OPEN_FILES), ("Max processes", "nproc", pid_max)];
    limits.map(limit).join(", ")
}

const OPEN_FILES: u64 = 1 << 20;
/// If the kernel does not say.
const PROCESSES: u64 = 1 << 15;
