//! The folder of a node: identity, passphrase, account, configuration; what an operator would make
//! by hand.

use std::{
    collections::HashSet,
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket},
    ops::Range,
    path::{Path, PathBuf},
};

use rand::Rng as _;
use toml::Value;
use veil_node_api::status::Role;
use veil_node_chain::AccountKey;
use veil_node_config::{MEMBER_SAMPLE, OPERATOR_SAMPLE, WORKER_SAMPLE};
use veil_node_p2p::peer_id;
use veil_node_storage::keystore::{Passphrase, write_identity};
use veil_protocol_spec::{Address, ClusterId, identity::SecretIdentity, scheduling::Name};

use crate::{DevnetError, DevnetOptions};

/// Below the ports that Linux, BSD and macOS give to outgoing connections.
const NODE_PORTS: Range<u16> = 20_000..32_000;
/// Longest path of a Unix socket.
const SOCKET_PATH_BYTES: usize = 107;

/// Who a node is and where its things are.
#[derive(Debug)]
pub(crate) struct NodeFiles {
    pub(crate) name: String,
    pub(crate) role: Role,
    pub(crate) folder: PathBuf,
    pub(crate) identity: SecretIdentity,
    pub(crate) account: Option<AccountKey>,
    /// Multiaddresses, the one that others bootstrap from first.
    pub(crate) listen: Vec<String>,
    /// Where it answers from afar.
    pub(crate) api: Option<SocketAddr>,
}

/// Where a node can listen.
pub(crate) struct Addresses {
    pub(crate) listen: Vec<String>,
    pub(crate) api: SocketAddr,
}

/// What all nodes share.
pub(crate) struct Shared<'a> {
    pub(crate) options: &'a DevnetOptions,
    pub(crate) rpc: &'a str,
    pub(crate) contract: Address,
    pub(crate) cluster: ClusterId,
    /// Whose jobs are run.
    pub(crate) submitter: Address,
}

impl NodeFiles {
    pub(crate) fn config(&self) -> PathBuf {
        self.folder.join(match self.role {
            Role::Member => "member.toml",
            Role::Worker => "worker.toml",
        })
    }

    pub(crate) fn passphrase(&self) -> PathBuf {
        self.folder.join("passphrase.txt")
    }

    pub(crate) fn data_dir(&self) -> PathBuf {
        self.folder.join("data")
    }

    pub(crate) fn admin_socket(&self) -> PathBuf {
        self.data_dir().join("admin.sock")
    }

    pub(crate) fn peer_id(&self) -> Result<String, DevnetError> {
        let peer = peer_id(&self.identity.public());
        Ok(peer.map_err(|error| DevnetError::Options(error.to_string()))?.to_string())
    }

    /// Makes the folder with the secrets in it.
    pub(crate) fn write_secrets(&self) -> Result<(), DevnetError> {
        let socket = self.admin_socket();
        if socket.as_os_str().len() > SOCKET_PATH_BYTES {
            return Err(DevnetError::Options(format!(
                "{} is too long for a Unix socket: choose a folder with a shorter path",
                socket.display()
            )));
        }
        private_folder(&self.folder)?;
        private_folder(&self.data_dir())?;
        let passphrase = Passphrase::random();
        passphrase.write(&self.passphrase())?;
        let path = self.data_dir().join("identity.age");
        write_identity(&path, &self.identity, &passphrase)?;
        match &self.account {
            Some(account) => write_account(account, &self.folder),
            None => Ok(()),
        }
    }

    /// Writes the configuration: the sample, filled in.
    pub(crate) fn write_config(
        &self,
        shared: &Shared<'_>,
        others: &[NodeFiles],
    ) -> Result<(), DevnetError> {
        let mut bootstrap = Vec::new();
        for other in others {
            if other.role == Role::Member && other.name != self.name {
                let peer = other.peer_id()?;
                bootstrap.extend(other.listen.first().map(|at| format!("{at}/p2p/{peer}")));
            }
        }
        let mut values = chain_values(shared, self.account.is_some());
        values.extend([
            ("node", "peer_id", Value::from(self.peer_id()?)),
            ("network", "listen", Value::from(self.listen.clone())),
            ("network", "bootstrap", Value::from(bootstrap)),
        ]);
        values.extend(self.api.map(|api| ("api", "listen", Value::from(api.to_string()))));
        let sample = match self.role {
            Role::Member => {
                let parameters = Value::from(shared.options.parameters.clone());
                values.push(("committee", "parameters", parameters));
                MEMBER_SAMPLE
            }
            Role::Worker => {
                let socket = shared.options.docker_socket.display().to_string();
                values.extend([
                    ("worker", "docker_socket", Value::from(socket)),
                    // Whoever develops owns all of it.
                    ("worker", "exec", Value::from(true)),
                    // Rules need rights that who develops may not have.
                    ("worker", "egress", Value::from("unfiltered")),
                    // One host carries all of it: the machine's load is the cluster's own.
                    ("worker.offer", "cpu_measure", Value::from("reservations")),
                ]);
                if !shared.options.volumes.is_empty() {
                    // A worker that lends folders says to whom.
                    let submitter = vec![format!("0x{}", shared.submitter)];
                    values.push(("worker.accept", "operators", Value::from(submitter)));
                }
                WORKER_SAMPLE
            }
        };
        let mut text = fill(sample, &values).map_err(DevnetError::Options)?;
        if self.role == Role::Worker {
            text += &self.lent(&shared.options.volumes)?;
        }
        write(&self.config(), &text)
    }

    /// Makes a folder for each name, and returns the tables of the configuration that lend them.
    fn lent(&self, volumes: &[Name]) -> Result<String, DevnetError> {
        let mut tables = String::new();
        for name in volumes {
            let path = self.folder.join("volumes").join(name.as_str());
            private_folder(&path)?;
            let path = Value::from(path.display().to_string());
            tables += &format!("\n[[worker.volume]]\nname = \"{name}\"\npath = {path}\n");
        }
        Ok(tables)
    }
}

/// The operator's folder: who may submit jobs.
pub(crate) fn write_operator(
    folder: &Path,
    account: &AccountKey,
    shared: &Shared<'_>,
    ask: &Path,
) -> Result<PathBuf, DevnetError> {
    private_folder(folder)?;
    Passphrase::random().write(&folder.join("passphrase.txt"))?;
    write_account(account, folder)?;
    let mut values = chain_values(shared, true);
    values.push(("operator", "node", Value::from(ask.display().to_string())));
    let path = folder.join("operator.toml");
    write_filled(&path, OPERATOR_SAMPLE, &values)?;
    Ok(path)
}

fn chain_values(shared: &Shared<'_>, account: bool) -> Vec<Setting> {
    let mut values = vec![
        ("chain", "rpc", Value::from(shared.rpc)),
        ("chain", "contract", Value::from(format!("0x{}", shared.contract))),
        ("chain", "cluster", Value::from(format!("0x{}", shared.cluster))),
    ];
    if account {
        values.extend([
            ("chain", "keystore", Value::from("account.json")),
            ("chain", "keystore_passphrase_file", Value::from("passphrase.txt")),
        ]);
    }
    values
}

fn write_account(account: &AccountKey, folder: &Path) -> Result<(), DevnetError> {
    let path = folder.join("passphrase.txt");
    let text = fs::read_to_string(&path).map(zeroize::Zeroizing::new);
    let text = text.map_err(DevnetError::io(&path))?;
    Ok(account.write_keystore(&folder.join("account.json"), text.trim())?)
}

pub(crate) fn private_folder(folder: &Path) -> Result<(), DevnetError> {
    use std::os::unix::fs::DirBuilderExt;
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.map_err(DevnetError::io(folder))
}

/// Section, key, value.
type Setting = (&'static str, &'static str, Value);

fn write_filled(path: &Path, sample: &str, values: &[Setting]) -> Result<(), DevnetError> {
    write(path, &fill(sample, values).map_err(DevnetError::Options)?)
}

fn write(path: &Path, text: &str) -> Result<(), DevnetError> {
    fs::write(path, text).map_err(DevnetError::io(path))
}

/// Sets keys of a sample where they stand, comments and all, also in a section that is commented out; a key
/// that it does not have is an error.
fn fill(sample: &str, values: &[Setting]) -> Result<String, String> {
    let (mut section, mut set, mut filled) = ("", HashSet::new(), String::new());
    for line in sample.lines() {
        let bare = line.strip_prefix('#').unwrap_or(line);
        let name = bare.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        section = name.unwrap_or(section);
        let key = bare.split_once(" = ").map(|(key, _)| key);
        let is_set = |name: &str| values.iter().any(|(of, ..)| *of == name);
        let found = values.iter().find(|(of, name, _)| *of == section && Some(*name) == key);
        match found {
            Some((of, name, value)) => {
                set.insert((*of, *name));
                filled += &format!("{name} = {value}\n");
            }
            None => {
                filled += if name.is_some_and(is_set) { bare } else { line };
                filled.push('\n');
            }
        }
    }
    match values.iter().find(|(of, name, _)| !set.contains(&(*of, *name))) {
        Some((of, name, _)) => Err(format!("the sample has no key {of}.{name}")),
        None => Ok(filled),
    }
}

/// Where so many nodes can listen, each over QUIC and TCP and for its API: addresses that are free now.
///
/// Nodes listen some time after this, and again after a restart, so that no other program, another
/// network above all, should take a port meanwhile. Each network therefore has a loopback address of
/// its own, where the system has more than one, and ports that the system gives to nobody by itself.
pub(crate) fn free_addresses(count: usize) -> Result<Vec<Addresses>, DevnetError> {
    let own = Ipv4Addr::new(127, octet(), octet(), octet());
    let host = match UdpSocket::bind((own, 0)) {
        Ok(_) => own,
        Err(_) => Ipv4Addr::LOCALHOST,
    };
    let is_free = |port: &u16| {
        let at = (host, *port);
        TcpListener::bind(at).is_ok() && UdpSocket::bind(at).is_ok()
    };
    let first = rand::thread_rng().gen_range(NODE_PORTS);
    let ports = (first..NODE_PORTS.end).chain(NODE_PORTS.start..first);
    let free: Vec<_> = ports.filter(is_free).take(2 * count).collect();
    if free.len() < 2 * count {
        return Err(DevnetError::Options(format!("fewer than {} free ports on {host}", 2 * count)));
    }
    let (listen, api) = free.split_at(count);
    let addresses = listen.iter().zip(api).map(|(port, api)| Addresses {
        listen: vec![format!("/ip4/{host}/udp/{port}/quic-v1"), format!("/ip4/{host}/tcp/{port}")],
        api: (host, *api).into(),
    });
    Ok(addresses.collect())
}

/// Of an address that is neither a network's first nor its last.
fn octet() -> u8 {
    rand::thread_rng().gen_range(1..255)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_is_filled_in_where_its_keys_stand() {
        let sample = "# A key = something\n[a]\n#key = 1\n[b]\nkey = 2\n";
        let filled = fill(sample, &[("b", "key", Value::from("x"))]).unwrap();
        assert_eq!(filled, "# A key = something\n[a]\n#key = 1\n[b]\nkey = \"x\"\n");
        let optional = "#[a]\n#key = 1\n#other = 2\n";
        let filled = fill(optional, &[("a", "key", Value::from("x"))]).unwrap();
        assert_eq!(filled, "[a]\nkey = \"x\"\n#other = 2\n");
        assert_eq!(fill(optional, &[]).unwrap(), optional);
        assert!(fill(sample, &[("a", "other", Value::from(1))]).unwrap_err().contains("a.other"));
    }

    #[test]
    fn networks_listen_at_addresses_of_their_own() {
        let networks: Vec<_> = (0..8).flat_map(|_| free_addresses(17).unwrap()).collect();
        let listen = networks.iter().flat_map(|addresses| addresses.listen.clone());
        let api = networks
            .iter()
            .map(|addresses| format!("/ip4/{}/tcp/{}", addresses.api.ip(), addresses.api.port()));
        assert_eq!(listen.chain(api).collect::<HashSet<_>>().len(), 8 * 17 * 3);
    }
}
