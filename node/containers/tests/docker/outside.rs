//! What there is beyond the engine's networks: a host in a network namespace, with addresses that this machine
//! sends to it. Making one needs root, `ip` and `nft`, as a worker that filters does.

use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU8, Ordering},
};

use tempfile::TempDir;

/// The same program as in the sample image.
const BUSYBOX: &str = "/bin/busybox";
/// What its servers say.
pub(crate) const SAYS: &str = "hello";
/// Each test has one of its own.
static NEXT: AtomicU8 = AtomicU8::new(1);

/// A host with a public address, a private one, and that of a cloud's metadata.
pub(crate) struct Outside {
    name: String,
    pub(crate) public: String,
    pub(crate) private: String,
    pub(crate) metadata: String,
    /// Of this machine, on the way there.
    pub(crate) here: String,
    folder: TempDir,
    servers: Vec<Child>,
}

pub(crate) fn run(program: &str, args: &[&str]) {
    let output = Command::new(program).args(args).output();
    let output = output.unwrap_or_else(|error| panic!("these tests need {program}: {error}"));
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "these tests need root: {program} {args:?}: {words}");
}

impl Outside {
    pub(crate) fn new() -> Self {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        // Numbers of this run: others may run beside it.
        let run_id = std::process::id() % 200 + 1;
        let name = format!("vt{run_id}x{number}");
        let (near, far) = (format!("{name}n"), format!("{name}f"));
        let [here, public] = [1, 2].map(|last| format!("44.{run_id}.{number}.{last}"));
        let private = format!("10.{run_id}.{number}.2");
        let metadata = format!("169.254.{run_id}.{number}");
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("index.html"), SAYS).unwrap();
        let outside = Self { name, public, private, metadata, here, folder, servers: Vec::new() };
        let Self { name, public, private, metadata, here, .. } = &outside;
        run("ip", &["netns", "add", name]);
        run("ip", &["link", "add", &near, "type", "veth", "peer", "name", &far, "netns", name]);
        run("ip", &["addr", "add", &format!("{here}/24"), "dev", &near]);
        run("ip", &["link", "set", &near, "up"]);
        run("ip", &["-n", name, "addr", "add", &format!("{public}/24"), "dev", &far]);
        run("ip", &["-n", name, "link", "set", &far, "up"]);
        run("ip", &["-n", name, "route", "add", "default", "via", here]);
        for address in [private, metadata] {
            let address = format!("{address}/32");
            run("ip", &["-n", name, "addr", "add", &address, "dev", &far]);
            run("ip", &["route", "add", &address, "via", public]);
        }
        outside
    }

    /// Serves a page there, on every address.
    pub(crate) fn serve(&mut self, port: u16) {
        let port = port.to_string();
        let args = ["netns", "exec", &self.name, BUSYBOX, "httpd", "-f", "-p", &port, "-h"];
        let serving = Command::new("ip").args(args).arg(self.folder.path()).spawn();
        self.servers.push(serving.unwrap());
    }

    /// Serves a page on every address of this machine, on a port of its own.
    pub(crate) fn serve_here(&mut self) -> u16 {
        let free = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let args = ["httpd", "-f", "-p", &port.to_string(), "-h"];
        let serving = Command::new(BUSYBOX).args(args).arg(self.folder.path()).spawn();
        self.servers.push(serving.unwrap());
        port
    }

    /// What a server says to somebody out there, if it is reached.
    pub(crate) fn get(&self, url: &str) -> Option<String> {
        let wget = ["netns", "exec", &self.name, BUSYBOX, "timeout", "3", BUSYBOX, "wget", "-q"];
        let output =
            Command::new("ip").args(wget).args(["-O", "-", url]).stderr(Stdio::null()).output();
        let output = output.unwrap();
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        for server in &mut self.servers {
            let _ = server.kill();
            let _ = server.wait();
        }
        // The interfaces and routes go with it.
        let _ = Command::new("ip").args(["netns", "del", &self.name]).status();
        let _ = Command::new("ip").args(["link", "del", &format!("{}n", self.name)]).output();
    }
}

/// Whether a page is had from within a container, as a line of a script.
pub(crate) fn reaches(host: &str, port: u16) -> String {
    format!("timeout 3 /bin/busybox wget -q -O /dev/null http://{host}:{port}/")
}

/// The opposite.
pub(crate) fn fails(host: &str, port: u16) -> String {
    format!("! {}", reaches(host, port))
}

/// Whether a table of nftables is there.
pub(crate) fn has_table(name: &str) -> bool {
    let listed = Command::new("nft").args(["list", "table", "inet", name]).output();
    listed.is_ok_and(|output| output.status.success())
}

/// An interface of this machine.
pub(crate) fn has_interface(name: &str) -> bool {
    Path::new("/sys/class/net").join(name).exists()
}

/// Whether nothing passes through this machine that is not allowed by name.
pub(crate) fn is_forwarding_barred() -> bool {
    let listed = Command::new("iptables").args(["-S", "FORWARD"]).output();
    listed.is_ok_and(|output| output.stdout.starts_with(b"-P FORWARD DROP"))
}
