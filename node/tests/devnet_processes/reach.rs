//! A job is reached from where nothing can be reached but an entry node and the chain: a network namespace that has only
//! a loopback interface, and there two ports that this process carries further.
//!
//! It needs root, for the namespace, beside what the other tests need.

use std::{
    env,
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
    thread,
    time::Duration,
};

use serde_json::Value;
use veil_node_config::{AnyConfig, process_environment};
use veil_node_devnet::DevnetFile;

use super::network::{Network, json, set_policy, until, veil};

/// The network's folder, for the process in the namespace.
const FOLDER: &str = "VEIL_TEST_FOLDER";
/// In every line that the job writes, and in no log of a node.
const MARK: &str = "only-for-its-operator";
const ENTRY: &str = "member-1";

/// What is carried into the namespace: a name of its socket, and the address that it leads to.
fn ways(folder: &Path) -> [(PathBuf, SocketAddr); 2] {
    let file = DevnetFile::read(folder).unwrap();
    let entry = file.nodes.into_iter().find(|node| node.name == ENTRY).unwrap();
    let address =
        |url: &str| url.trim_end_matches('/').rsplit_once('/').unwrap().1.parse().unwrap();
    let config = AnyConfig::load(&file.operator, &process_environment).unwrap();
    let rpc = config.chain().rpc.as_slice()[0].clone();
    let place = |name: &str| folder.with_file_name(name);
    [(place("api.sock"), address(&entry.api.unwrap())), (place("rpc.sock"), address(&rpc))]
}

/// Carries each connection on, until both ends are over.
fn carry<A, B>(one: A, other: B)
where
    A: Both,
    B: Both,
{
    let (mut from, mut to) = (one.again(), other.again());
    let there = thread::spawn(move || {
        let _ = io::copy(&mut from, &mut to);
        to.end();
    });
    let (mut from, mut to) = (other, one);
    let _ = io::copy(&mut from, &mut to);
    to.end();
    there.join().unwrap();
}

trait Both: io::Read + io::Write + Send + 'static {
    fn again(&self) -> Self;
    fn end(&self);
}

macro_rules! both {
    ($type:ty) => {
        impl Both for $type {
            fn again(&self) -> Self {
                self.try_clone().unwrap()
            }

            fn end(&self) {
                let _ = self.shutdown(Shutdown::Write);
            }
        }
    };
}

both!(TcpStream);
both!(UnixStream);

#[test]
fn a_job_is_reached_from_where_only_an_entry_node_is() {
    let (network, _) = Network::start();
    let image = veil_node_devnet::sample_image().unwrap();
    let script = format!(
        "busybox httpd -p 8080 -h /www; i=0; \
         while [ ! -e /tmp/end ]; do echo {MARK} $i; i=$((i+1)); sleep 0.2; done"
    );
    let job = network.submit_file(&format!(
        "name = \"reached\"\nimage = \"{image}\"\nreplicas = 2\n\
         [container]\nentrypoint = [\"/bin/busybox\", \"sh\", \"-c\", \"{script}\"]\n\
         user = \"65534:65534\"\ntmpfs = {{ \"/tmp\" = \"1Mi\" }}\n\
         [resources]\ncpu = \"100m\"\nmemory = \"64Mi\"\n[restart]\nmode = \"always\"\n\
         [placement]\nanti_affinity = \"hard\"\n\
         [[port]]\nname = \"http\"\ncontainer = 8080\nhost = \"none\"\n\
         [[port]]\nname = \"open\"\ncontainer = 8081\n"
    ));
    let workers = until("both replicas run", || network.running(&job, 2));
    // Beside a drained worker and the one that has the other replica, one is left, and is to do.
    set_policy(&network, "min_candidates = 1\n");
    for (socket, address) in ways(&network.folder) {
        let listener = UnixListener::bind(socket).unwrap();
        thread::spawn(move || {
            for connection in listener.incoming() {
                let connection = connection.unwrap();
                thread::spawn(move || {
                    carry(connection, TcpStream::connect(address).unwrap());
                });
            }
        });
    }
    let mut inside = Command::new("unshare");
    inside.arg("--net").arg(env::current_exe().unwrap());
    inside.args(["--ignored", "--exact", "reach::inside", "--nocapture"]);
    let ended = inside.env(FOLDER, &network.folder).status().unwrap();
    assert!(ended.success(), "what is above went wrong in a namespace of its own");

    // Followed, a log goes on where the replica goes.
    let mut command = veil();
    command.args(["job", "logs", "--follow", "--tail", "1", "reached/0", "--devnet"]);
    let mut following = Reading::start(command.arg(&network.folder));
    let before = following.number();
    let (first, second) = (following.number(), following.number());
    assert!(before < first && first < second, "{before} {first} {second}");
    let from = worker_of(&network, 0);
    network.give("drain", &from);
    until("replica 0 is elsewhere", || (worker_of(&network, 0) != from).then_some(()));
    let mut last = second;
    until("its log goes on there, from its beginning", || {
        let next = following.number();
        let is_new = next < last;
        last = next;
        is_new.then_some(())
    });
    network.stop_job(&job);
    assert!(following.ends(), "with the job");
    network.give("eligible", &from);
    assert!(workers.contains(&from));

    for node in ["member-1", "member-2", "worker-1", "worker-2", "worker-3"] {
        assert!(!network.log_since(node, 0).contains(MARK), "{node} has logged what a job wrote");
    }
}

fn worker_of(network: &Network, replica: u64) -> String {
    let mut command = veil();
    command.args(["job", "endpoints", &format!("reached/{replica}"), "--json", "--devnet"]);
    let found = json(command.arg(&network.folder));
    let worker = found["endpoints"][0]["worker"].as_str().unwrap_or_else(|| panic!("{found}"));
    let nodes = DevnetFile::read(&network.folder).unwrap().nodes;
    let mut workers = nodes.into_iter().filter(|node| node.name.starts_with("worker"));
    workers.find(|node| network.peer(&node.name) == worker).unwrap().name
}

/// A command whose lines are read as they come.
struct Reading(Child, BufReader<ChildStdout>);

impl Drop for Reading {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Reading {
    fn start(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        Self(child, output)
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        assert!(self.1.read_line(&mut line).unwrap() > 0, "it ended");
        line
    }

    /// That the job counts.
    fn number(&mut self) -> u64 {
        let line = self.line();
        line.trim_end().rsplit_once(' ').unwrap().1.parse().unwrap()
    }

    /// Whether it ends well, whatever it says before.
    fn ends(mut self) -> bool {
        io::copy(&mut self.1, &mut io::sink()).unwrap();
        self.0.wait().unwrap().success()
    }
}

/// What an operator does who has a way to an entry node and to the chain, and to nothing else.
#[test]
#[ignore = "runs in the namespace that the test above makes"]
fn inside() {
    let Some(folder) = env::var_os(FOLDER).map(PathBuf::from) else { return };
    let up = Command::new("ip").args(["link", "set", "lo", "up"]).status().unwrap();
    assert!(up.success());
    for (socket, address) in ways(&folder) {
        let listener = TcpListener::bind(address).unwrap();
        thread::spawn(move || {
            for connection in listener.incoming() {
                let (connection, socket) = (connection.unwrap(), socket.clone());
                thread::spawn(move || carry(connection, UnixStream::connect(socket).unwrap()));
            }
        });
    }
    let operator = DevnetFile::read(&folder).unwrap().operator;
    let entry = ways(&folder)[0].1;
    let job = |arguments: &[&str]| {
        let mut command = veil();
        command.args(["--node", &format!("https://{entry}"), "job"]);
        // Before what is for the command that runs elsewhere.
        let (verb, rest) = arguments.split_first().unwrap();
        command.arg(verb).arg("--config").arg(&operator).args(rest);
        command.env("VEIL_NODE_CA", folder.join(ENTRY).join("data/api-certificate.pem"));
        command
    };

    let found = json(&mut job(&["endpoints", "reached", "--json"]));
    let endpoints = found["endpoints"].as_array().unwrap_or_else(|| panic!("{found}"));
    assert_eq!(endpoints.len(), 2, "{found}");
    for endpoint in endpoints {
        assert_eq!(endpoint["running"], true, "{found}");
        let of = |name: &str| {
            let ports = endpoint["ports"].as_array().unwrap().iter();
            ports.clone().find(|port| port["name"] == name).unwrap()["published"].clone()
        };
        assert!(of("http").is_null(), "{found}");
        let published = of("open").as_str().unwrap().to_owned();
        let reached =
            TcpStream::connect_timeout(&published.parse().unwrap(), Duration::from_secs(2));
        assert!(reached.is_err(), "this namespace reaches a worker, at {published}");
    }

    let output = job(&["logs", "--tail", "2", "reached"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    for replica in 0..2 {
        let prefix = format!("{replica} | {MARK} ");
        assert_eq!(text.lines().filter(|line| line.starts_with(&prefix)).count(), 2, "{text}");
    }

    // A container that is started again is followed further, and counts anew.
    let mut following = Reading::start(&mut job(&["logs", "--follow", "--tail", "3", "reached/1"]));
    let begun = following.number();
    let ended = job(&["exec", "reached/1", "--", "/bin/busybox", "touch", "/tmp/end"]).status();
    assert_eq!(ended.unwrap().code(), Some(0));
    let mut last = begun;
    until("the log goes on after a restart", || {
        let next = following.number();
        let is_new = next < last;
        last = next;
        is_new.then_some(())
    });
    drop(following);

    let script = "cat; echo said; echo wrong >&2; exit 7";
    let mut command =
        job(&["exec", "--input", "reached/0", "--", "/bin/busybox", "sh", "-c", script]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut running = command.spawn().unwrap();
    running.stdin.take().unwrap().write_all(b"typed\n").unwrap();
    let ended = running.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(7));
    assert_eq!(String::from_utf8(ended.stdout).unwrap(), "typed\nsaid\n");
    let error = String::from_utf8(ended.stderr).unwrap();
    assert!(error.contains("wrong\n"), "{error}");
    let kept = json(&mut job(&["exec", "--json", "reached/0", "--", "/bin/busybox", "id", "-u"]));
    assert_eq!((&kept["exit_code"], &kept["stdout"]), (&0.into(), &"65534\n".into()), "{kept}");

    let mut forward =
        Reading::start(&mut job(&["forward", "--json", "reached", "0:http", "0:8080"]));
    let told: Value = serde_json::from_str(&forward.line()).unwrap();
    for forwarded in told["forwards"].as_array().unwrap() {
        let at = forwarded["listen"].as_str().unwrap();
        for _ in 0..20 {
            let mut connection = TcpStream::connect(at).unwrap();
            connection.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
            let mut page = String::new();
            connection.read_to_string(&mut page).unwrap();
            assert!(page.starts_with("HTTP/1.0 200") || page.starts_with("HTTP/1.1 200"), "{page}");
        }
    }

    // What cannot be has its reason.
    for (arguments, reason) in [
        (&["logs", "--json", "nothing"][..], "no job is called"),
        (&["logs", "--json", "reached/7"], "no replica of `reached` has a place"),
        (&["forward", "--json", "reached", "0:other"], "no port of this name"),
    ] {
        let refused = json(&mut job(arguments));
        assert!(refused["error"].as_str().unwrap().contains(reason), "{refused}");
    }
}
