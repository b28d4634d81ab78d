//! What a forward carries, and what `ssh -L` carries in the same run; how late a line of a log is:
//! `cargo test --release -p veil-node-reach figures -- --ignored --nocapture`.
//!
//! The way is the whole one: a client asks a node's Unix socket, the node opens a stream to a worker, over QUIC and over
//! TCP; all are in this process. `ssh -L` needs openssh-server; it is left out where there is none. Of each the CPU is
//! printed as well, of all processes that take part, and of both ends of the connection that is carried: it says the same
//! on a busy machine.

use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use tokio::{net::TcpListener, time::sleep};
use tokio_util::sync::CancellationToken;
use veil_node_api::{
    client::Client,
    relay::{self, Bytes as Carried, Leads, NoWay},
    socket,
};
use veil_node_p2p::{Directory, Network, NetworkConfig, Peer, StreamKind};
use veil_protocol_spec::{
    reach::{LogOutput, LogsWanted, PortWanted},
    registry::Roles,
};

use super::*;
use crate::{frame, splice};

/// Bytes of one run.
const LENGTH: u64 = 1 << 30;
/// Runs, of which the median counts.
const RUNS: usize = 5;
/// Lines of a log.
const LINES: u64 = 200;
/// The kernel counts the time of processes in hundredths of a second.
const TICKS: f64 = 100.0;
/// Where openssh-server has it.
const SSHD: &str = "/usr/sbin/sshd";

struct Entry(Network);

#[async_trait]
impl Leads for Entry {
    async fn lead(&self, worker: PeerIdHash) -> Result<Box<dyn Carried>, NoWay> {
        let opened = self.0.open_stream(worker, StreamKind::Reach).await;
        let stream = opened.map_err(|error| NoWay::Unreachable(error.to_string()))?;
        Ok(Box::new(stream))
    }
}

async fn network(
    byte: u8,
    listen: &str,
    directory: &watch::Sender<Arc<Directory>>,
    peers: &[&Network],
) -> Network {
    let mut config = NetworkConfig::new(secret(byte), scope(1));
    config.listen = vec![listen.parse().unwrap()];
    config.bootstrap = peers.iter().flat_map(|peer| peer.addresses()).collect();
    Network::start(config, directory.subscribe()).await.unwrap()
}

/// Sends so many bytes to whoever connects.
async fn source() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let piece = vec![7; 256 << 10];
        while let Ok((mut connection, _)) = listener.accept().await {
            for _ in 0..LENGTH / piece.len() as u64 {
                connection.write_all(&piece).await.unwrap();
            }
        }
    });
    address
}

/// Seconds of CPU that these processes have had, and those that they have begun.
fn cpu(of: &[u32]) -> f64 {
    let stat = |id: u32| {
        let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
        // What is before is the name, which may have spaces.
        let fields = stat.rsplit_once(')')?.1.split_whitespace();
        Some(fields.map(|field| field.parse().unwrap_or(0)).collect::<Vec<u64>>())
    };
    let all = fs::read_dir("/proc").unwrap().filter_map(|entry| {
        let id = entry.ok()?.file_name().to_str()?.parse().ok()?;
        Some((id, stat(id)?))
    });
    let all: Vec<(u32, Vec<u64>)> = all.collect();
    let mut family: BTreeSet<u64> = of.iter().map(|id| u64::from(*id)).collect();
    loop {
        let before = family.len();
        let children = all.iter().filter(|(_, stat)| family.contains(&stat[1]));
        let children: Vec<u64> = children.map(|(id, _)| u64::from(*id)).collect();
        family.extend(children);
        if family.len() == before {
            break;
        }
    }
    let of_family = all.iter().filter(|(id, _)| family.contains(&u64::from(*id)));
    of_family.map(|(_, stat)| stat[11] + stat[12]).sum::<u64>() as f64 / TICKS
}

/// What one run took.
struct Run {
    /// Mebibytes in a second.
    rate: f64,
    /// Seconds of CPU.
    cpu: f64,
}

/// Carries all through `address`; `ssh` are processes of this one, and have a part in it only `by_ssh`.
async fn carried(address: SocketAddr, ssh: &[u32], by_ssh: bool) -> Run {
    let spent = || cpu(&[std::process::id()]) - if by_ssh { 0.0 } else { cpu(ssh) };
    let (begun, before) = (Instant::now(), spent());
    let mut connection = TcpStream::connect(address).await.unwrap();
    let mut buffer = vec![0; 256 << 10];
    let mut all = 0;
    loop {
        match connection.read(&mut buffer).await.unwrap() {
            0 => break,
            read => all += read as u64,
        }
    }
    assert_eq!(all, LENGTH);
    let rate = (LENGTH >> 20) as f64 / begun.elapsed().as_secs_f64();
    Run { rate, cpu: spent() - before }
}

fn median(of: impl IntoIterator<Item = f64>) -> f64 {
    let mut of: Vec<f64> = of.into_iter().collect();
    of.sort_by(f64::total_cmp);
    of[of.len() / 2]
}

struct Sshd(Vec<Child>);

impl Drop for Sshd {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// `ssh -L` to `to`, by a server of its own, both with their defaults.
async fn ssh(folder: &Path, to: SocketAddr) -> Option<(Sshd, SocketAddr)> {
    if !Path::new(SSHD).exists() {
        println!("no {SSHD}: install openssh-server to compare with ssh -L");
        return None;
    }
    let free =
        async || TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let (server, local) = (free().await, free().await);
    let file = |name: &str| folder.join(name).display().to_string();
    for key in ["host", "user"] {
        run(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f", &file(key)]));
    }
    fs::copy(folder.join("user.pub"), folder.join("authorized")).unwrap();
    let _ = fs::create_dir("/run/sshd"); // there already is as good
    let mut sshd = Command::new(SSHD);
    sshd.args(["-D", "-e", "-f", "/dev/null", "-p", &server.to_string(), "-h", &file("host")]);
    sshd.args([
        "-o",
        &format!("AuthorizedKeysFile={}", file("authorized")),
        "-o",
        "StrictModes=no",
    ]);
    sshd.args(["-o", "ListenAddress=127.0.0.1", "-o", "PidFile=none"]);
    let server_process = sshd.stderr(Stdio::null()).spawn().unwrap();
    sleep(Duration::from_secs(1)).await;
    let mut ssh = Command::new("ssh");
    ssh.args([
        "-N",
        "-i",
        &file("user"),
        "-p",
        &server.to_string(),
        "-o",
        "StrictHostKeyChecking=no",
    ]);
    ssh.args(["-o", "UserKnownHostsFile=/dev/null", "-o", "BatchMode=yes"]);
    ssh.args(["-L", &format!("127.0.0.1:{local}:{to}"), "127.0.0.1"]);
    let client = ssh.stderr(Stdio::null()).spawn().unwrap();
    sleep(Duration::from_secs(2)).await;
    Some((Sshd(vec![server_process, client]), SocketAddr::from(([127, 0, 0, 1], local))))
}

/// A node with a socket, and the worker to which it leads.
struct Way {
    node: Client,
    host: Arc<TestHost>,
    stop: CancellationToken,
    _worker: Network,
}

impl Way {
    /// Over what `listen` says.
    async fn open(listen: &str, source: SocketAddr, folder: &Path) -> Self {
        let roles = Roles { worker: true, member: true };
        let peers = [1, 9].map(|byte| Peer { identity: secret(byte).public(), roles });
        let directory = watch::Sender::new(Arc::new(peers.into_iter().collect::<Directory>()));
        let worker = network(1, listen, &directory, &[]).await;
        let entry = network(9, listen, &directory, &[&worker]).await;
        let host = Arc::new(TestHost {
            listens: Some(source),
            runs: Mutex::new([("first".to_owned(), true, Vec::new())].into()),
            ..TestHost::default()
        });
        let world = TestWorld::new(Facts { now: 0, ..Facts::default() });
        let server = Server::new(world, host.clone(), secret(1), Metrics::default());
        tokio::spawn(server.run(worker.accept_streams(StreamKind::Reach)));
        let path = folder.join(format!("{}.sock", listen.replace('/', "-")));
        let router = relay::routes(Arc::new(Entry(entry))).into_router();
        let stop = CancellationToken::new();
        socket::serve(path.clone(), router, stop.clone()).await.unwrap();
        Self { node: Client::of_socket(path), host, stop, _worker: worker }
    }

    async fn reach(&self, action: Action) -> Reached {
        let stream = self.node.reach(peer(1)).await.unwrap();
        reach(stream, &signer(1), peer(1), (JOB, REPLICA), action).await.unwrap()
    }

    /// Where a forward listens.
    async fn forward(&self) -> SocketAddr {
        let forward = Action::Forward(PortWanted::Number(8080.try_into().unwrap()));
        let reached = self.reach(forward).await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let forwarded = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                let stream = reached.connect().await.unwrap();
                tokio::spawn(splice(connection, stream));
            }
        });
        forwarded
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "prints figures"]
async fn figures_of_a_forward_and_a_log() {
    let listens = source().await;
    let folder = std::env::temp_dir().join(format!("veil-reach-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let by_quic = Way::open("/ip4/127.0.0.1/udp/0/quic-v1", listens, &folder).await;
    let by_tcp = Way::open("/ip4/127.0.0.1/tcp/0", listens, &folder).await;
    let ssh = ssh(&folder, listens).await;
    let processes: Vec<u32> = ssh.iter().flat_map(|(ssh, _)| ssh.0.iter().map(Child::id)).collect();
    let mut ways = vec![
        ("by TCP", by_tcp.forward().await, Vec::new()),
        ("by QUIC", by_quic.forward().await, Vec::new()),
    ];
    ways.extend(ssh.as_ref().map(|(_, address)| ("ssh -L", *address, Vec::new())));
    // In turns.
    for _ in 0..RUNS {
        for (name, address, runs) in &mut ways {
            runs.push(carried(*address, &processes, *name == "ssh -L").await);
        }
    }
    let medians = |runs: &[Run]| {
        (median(runs.iter().map(|run| run.rate)), median(runs.iter().map(|run| run.cpu)))
    };
    for (name, _, runs) in &ways {
        let (rate, cpu) = medians(runs);
        let rates: Vec<_> = runs.iter().map(|run| run.rate).collect();
        let cpus: Vec<_> = runs.iter().map(|run| run.cpu).collect();
        println!("{name}: {rate:.0} MiB/s, the median of {rates:.0?};");
        println!("  {cpu:.2} s of CPU for a GiB, the median of {cpus:.2?}");
        if let Some((_, _, of_ssh)) = ways.get(2) {
            let (ssh_rate, ssh_cpu) = medians(of_ssh);
            let (rate, cpu) = (rate / ssh_rate, cpu / ssh_cpu);
            println!("  {rate:.2} of the rate of ssh -L, {cpu:.2} of its CPU");
        }
    }

    // From when a container has written a line until it is read at the other end.
    let (write, lines) = mpsc::channel(1);
    *by_quic.host.live.lock().unwrap() = Some(lines);
    let logs = Action::Logs(LogsWanted { follow: true, ..LogsWanted::default() });
    let reached = by_quic.reach(logs).await;
    let mut log = reached.open().await.unwrap();
    let (begun, mut late) = (Instant::now(), Vec::new());
    for _ in 0..LINES {
        sleep(Duration::from_millis(10)).await;
        let now = u64::try_from(begun.elapsed().as_nanos()).unwrap() + 1;
        write.send(line(now, "a line")).await.unwrap();
        let read = frame::read::<LogOutput>(&mut log).await.unwrap();
        let Some(LogOutput::Piece(piece)) = read else { panic!("{read:?}") };
        late.push((begun.elapsed().as_secs_f64() - piece.time as f64 / 1e9) * 1000.0);
    }
    let most = late.iter().copied().fold(0.0, f64::max);
    println!("a line of a log: after {:.1} ms, the median; {most:.1} ms at most", median(late));
    by_quic.stop.cancel();
    by_tcp.stop.cancel();
    drop(ssh);
    fs::remove_dir_all(folder).unwrap();
    assert!(most < 500.0, "{most} ms");
}
