//! The systemd units of `ops/systemd`: what they start joins a network, as the user and with the capabilities that they give
//! it. systemd itself is not asked: `cargo xtask package` has it read the units.
//!
//! It needs root, to become another user, and setpriv of util-linux.

use std::{
    ffi::OsString,
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown},
    path::Path,
    process::{Child, Command, Stdio},
};

use crate::network::{Network, until};

/// A user that is nobody here.
const USER: u32 = 61_942;

struct Unit(String);

impl Unit {
    fn of(role: &str) -> Self {
        let units = Path::new(env!("CARGO_MANIFEST_DIR")).join("../ops/systemd");
        Self(fs::read_to_string(units.join(format!("veil-{role}.service"))).unwrap())
    }

    /// The value of a setting; none if it is empty or not there.
    fn get(&self, key: &str) -> Option<&str> {
        let mut values =
            self.0.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        values.next_back().filter(|value| !value.is_empty())
    }

    /// Such as `-all,+net_admin`.
    fn capabilities(&self, key: &str) -> String {
        let named = self.get(key).unwrap_or_default().split_whitespace();
        let added = named.map(|name| format!(",+{}", name.strip_prefix("CAP_").unwrap()));
        format!("-all{}", added.collect::<String>()).to_lowercase()
    }

    /// What it starts, with `binary` for the installed one and `config` for the one under `/etc`.
    fn command(&self, binary: &Path, config: &Path) -> Command {
        assert_eq!(self.get("User"), Some("veil"));
        assert_eq!(self.get("NoNewPrivileges"), Some("yes"));
        let groups = match self.get("SupplementaryGroups") {
            None => "--clear-groups".to_owned(),
            Some(group) => {
                assert_eq!(group, "docker");
                let socket = fs::metadata("/var/run/docker.sock").unwrap();
                // Where no such group was made the socket is root's.
                format!("--groups={}", socket.gid())
            }
        };
        let mut command = Command::new("setpriv");
        command.args([format!("--reuid={USER}"), format!("--regid={USER}"), groups]);
        command.arg(format!("--bounding-set={}", self.capabilities("CapabilityBoundingSet")));
        let ambient = self.capabilities("AmbientCapabilities");
        command.args([format!("--inh-caps={ambient}"), format!("--ambient-caps={ambient}")]);
        command.args(["--no-new-privs", "--"]);
        let words = self.get("ExecStart").unwrap().split_whitespace();
        command.args(words.map(|word| match word {
            "/usr/bin/veil" => binary.as_os_str().to_owned(),
            path if path.starts_with("/etc/veil/") => config.as_os_str().to_owned(),
            word => OsString::from(word),
        }));
        command.env_clear().current_dir("/");
        command
    }
}

struct Started(Child);

impl Drop for Started {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Gives a folder and what is in it to [`USER`].
fn give(path: &Path) {
    chown(path, Some(USER), Some(USER)).unwrap();
    if path.is_dir() {
        fs::read_dir(path).unwrap().flatten().for_each(|entry| give(&entry.path()));
    }
}

/// Ends a node of the network and starts it again as its unit does.
fn as_unit(network: &Network, node: &str, role: &str, binary: &Path) -> Started {
    network.end(node);
    let folder = network.folder.join(node);
    give(&folder);
    let log = fs::File::create(folder.join("unit.txt")).unwrap();
    let mut command = Unit::of(role).command(binary, &network.config(node));
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap();
    let started = Started(child);
    until("it is that user", || {
        let status = fs::read_to_string(format!("/proc/{}/status", started.0.id())).ok()?;
        status.contains(&format!("Uid:\t{USER}\t{USER}\t{USER}\t{USER}\n")).then_some(())
    });
    started
}

#[test]
fn what_the_units_start_joins_as_their_user() {
    let (network, placed) = Network::start();
    // That user may enter the folders above, as it may enter /etc and /var/lib.
    for folder in network.folder.ancestors().take(2) {
        fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let binary = network.folder.join("veil");
    fs::copy(env!("CARGO_BIN_EXE_veil"), &binary).unwrap();

    let member = as_unit(&network, "member-4", "member", &binary);
    let worker = placed["replicas"][0]["worker"].as_str().unwrap();
    let kept = network.containers(worker);
    let started = as_unit(&network, worker, "worker", &binary);

    // More replicas than there are workers: some are the worker's, which starts none without the rules for its containers.
    let job = network.submit(6);
    until("a replica runs there", || {
        network.running(&job, 6).filter(|workers| workers.iter().any(|of| of == worker))
    });
    let now = network.containers(worker);
    assert!(!kept.is_empty() && kept.iter().all(|id| now.contains(id)), "what ran before runs on");
    until("the member has every certificate", || {
        (network.last_slot("member-4")? == network.last_slot("member-1")?).then_some(())
    });
    drop((member, started));
}

#[test]
fn a_unit_has_the_capabilities_that_it_may_have_and_its_own_configuration() {
    for role in ["member", "worker"] {
        let unit = Unit::of(role);
        let of = |key| unit.capabilities(key);
        assert_eq!(of("CapabilityBoundingSet"), of("AmbientCapabilities"), "{role}");
        let ends = format!(" run --config /etc/veil/{role}.toml");
        assert!(unit.get("ExecStart").unwrap().ends_with(&ends), "{role}");
    }
}
