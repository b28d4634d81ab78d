//! Commands in containers of the real engine, whose operator goes.
//!
//! `cargo xtask setup --docker` starts the engine and the registry with the sample image; without them these tests fail
//! and say so. They hold for a worker that is root, and for one that may use the engine's socket only.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::{
    env, fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::StreamExt as _;
use veil_node_containers::{DEFAULT_SOCKET, Docker, Executor, Owner};
use veil_node_reach::{Host, Ran};
use veil_protocol_spec::{Address, ChainId, ClusterId, PeerIdHash, scheduling::ClusterScope};

const SET_UP: &str = "these tests need a Docker engine and a registry: cargo xtask setup --docker";

fn socket() -> PathBuf {
    let host = env::var("DOCKER_HOST").ok();
    let host = host.as_deref().and_then(|host| host.strip_prefix("unix://")).map(PathBuf::from);
    env::var_os("VEIL_DOCKER_SOCKET").map(PathBuf::from).or(host).unwrap_or(DEFAULT_SOCKET.into())
}

/// What the engine's own command says.
fn docker(arguments: &[&str]) -> String {
    let said = Command::new("docker").args(arguments).output().expect(SET_UP);
    assert!(said.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&said.stderr));
    String::from_utf8(said.stdout).unwrap().trim().to_owned()
}

/// A container that does nothing, as long as it is wanted.
struct Idle(String);

impl Idle {
    fn start(more: &[&str]) -> Self {
        let note = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("setup/sample-image");
        let image = std::fs::read_to_string(&note).expect(SET_UP);
        // The image has no `kill`, which a worker that is not root needs.
        let bin = Path::new(env!("CARGO_TARGET_TMPDIR")).join("reach-bin");
        if !bin.exists() {
            fs::create_dir_all(&bin).unwrap();
            fs::write(bin.join("kill"), "#!/bin/busybox sh\nkill \"$@\"\n").unwrap();
            fs::set_permissions(bin.join("kill"), fs::Permissions::from_mode(0o755)).unwrap();
        }
        let mount = format!("{}:/usr/local/bin:ro", bin.display());
        let run = [&["run", "-d", "--rm", "-v", &mount], more].concat();
        let run = [&run[..], &["--entrypoint", "/bin/busybox", image.trim(), "sleep", "3600"]];
        Self(docker(&run.concat()))
    }

    /// Its processes, but for its own.
    fn others(&self) -> Vec<String> {
        let said = docker(&["top", &self.0, "-eo", "pid,args"]);
        let all = said.lines().skip(1).filter(|line| !line.contains("sleep 3600"));
        all.map(str::to_owned).collect()
    }

    fn until(&self, count: usize) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while self.others().len() != count {
            assert!(Instant::now() < deadline, "{count}: {:?}", self.others());
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

impl Drop for Idle {
    fn drop(&mut self) {
        let _ = Command::new("docker").args(["rm", "-f", &self.0]).output();
    }
}

async fn executor() -> Arc<Executor> {
    let docker =
        Docker::connect(&socket()).await.unwrap_or_else(|error| panic!("{SET_UP}\n{error}"));
    let (contract, cluster) = (Address([1; 20]), ClusterId([2; 32]));
    let scope = ClusterScope { chain_id: ChainId(31_337), contract, cluster };
    Arc::new(Executor::new(docker, Owner { scope, worker: PeerIdHash([9; 32]) }))
}

/// With what it has started, with and without a terminal, and one that does not listen; and nothing else does.
#[tokio::test]
async fn a_command_whose_operator_has_gone_ends() {
    let executor = executor().await;
    let begin = async |idle: &Idle, script: &str, terminal| {
        let command = ["/bin/busybox", "sh", "-c", script].map(str::to_owned).to_vec();
        Host::exec(&executor, &idle.0, command, true, terminal).await.unwrap()
    };
    for more in [&[][..], &["--user", "4321:4321"]] {
        let idle = Idle::start(more);
        let stays = begin(&idle, "sleep 2000; true", None).await;
        idle.until(2);
        for (script, terminal) in [
            ("sleep 1000 & sleep 1000; true", None),
            ("trap '' HUP; sleep 1000 & sleep 1000; true", None),
            ("sleep 1000 & sleep 1000; true", Some((24, 80))),
            ("trap '' HUP; sleep 1000 & sleep 1000; true", Some((24, 80))),
        ] {
            let Ran { command, output, .. } = begin(&idle, script, terminal).await;
            idle.until(5);
            command.end().await;
            assert_eq!(idle.others().len(), 2, "{more:?} {script}: {:?}", idle.others());
            assert!(output.collect::<Vec<_>>().await.len() < 3, "its output is over");
            // One that has ended is ended in vain.
            command.end().await;
        }
        stays.command.end().await;
        idle.until(0);
    }
}
