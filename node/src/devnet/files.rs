//! The folder of a node: identity, passphrase, account, configuration; what an operator would make
//! by hand.

use std::{
    collections::HashSet,
    fs,
    net::{Ipv4Addr, TcpListener, UdpSocket},
    path::{Path, PathBuf},
};

use toml::Value;
use veil_node_p2p::{Multiaddr, peer_id};
use veil_node_storage::keystore::{Passphrase, write_identity};
use veil_protocol_spec::{Address, ClusterId, identity::SecretIdentity};

use super::{DevnetError, DevnetOptions};
use crate::{
    chain::AccountKey,
    config::{MEMBER_SAMPLE, OPERATOR_SAMPLE, WORKER_SAMPLE},
    status::Role,
};

/// Longest path of a Unix socket.
const SOCKET_PATH_BYTES: usize = 107;

/// Who a node is and where its things are.
#[derive(Debug)]
pub(super) struct NodeFiles {
    pub(super) name: String,
    pub(super) role: Role,
    pub(super) folder: PathBuf,
    pub(super) identity: SecretIdentity,
    pub(super) account: Option<AccountKey>,
    pub(super) port: u16,
}

/// What all nodes share.
pub(super) struct Shared<'a> {
    pub(super) options: &'a DevnetOptions,
    pub(super) rpc: &'a str,
    pub(super) contract: Address,
    pub(super) cluster: ClusterId,
}

impl NodeFiles {
    pub(super) fn config(&self) -> PathBuf {
        self.folder.join(match self.role {
            Role::Member => "member.toml",
            Role::Worker => "worker.toml",
        })
    }

    pub(super) fn passphrase(&self) -> PathBuf {
        self.folder.join("passphrase.txt")
    }

    pub(super) fn data_dir(&self) -> PathBuf {
        self.folder.join("data")
    }

    pub(super) fn admin_socket(&self) -> PathBuf {
        self.data_dir().join("admin.sock")
    }

    pub(super) fn peer_id(&self) -> Result<String, DevnetError> {
        let peer = peer_id(&self.identity.public());
        Ok(peer.map_err(|error| DevnetError::Options(error.to_string()))?.to_string())
    }

    fn listen(&self) -> [Multiaddr; 2] {
        use veil_node_p2p::multiaddr::Protocol::{Ip4, QuicV1, Tcp, Udp};
        let here = Multiaddr::empty().with(Ip4(Ipv4Addr::LOCALHOST));
        [here.clone().with(Udp(self.port)).with(QuicV1), here.with(Tcp(self.port))]
    }

    /// Makes the folder with the secrets in it.
    pub(super) fn write_secrets(&self) -> Result<(), DevnetError> {
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
    pub(super) fn write_config(
        &self,
        shared: &Shared<'_>,
        others: &[NodeFiles],
    ) -> Result<(), DevnetError> {
        let bootstrap: Result<Vec<_>, _> = others
            .iter()
            .filter(|other| other.role == Role::Member && other.name != self.name)
            .map(|other| {
                Ok::<_, DevnetError>(format!("{}/p2p/{}", other.listen()[0], other.peer_id()?))
            })
            .collect();
        let mut values = chain_values(shared, self.account.is_some());
        values.extend([
            ("node", "peer_id", Value::from(self.peer_id()?)),
            ("network", "listen", Value::from(self.listen().map(|a| a.to_string()).to_vec())),
            ("network", "bootstrap", Value::from(bootstrap?)),
        ]);
        let sample = match self.role {
            Role::Member => {
                values.extend([
                    ("committee", "insecure_reference_string", Value::from(true)),
                    ("committee", "parameters", Value::from(shared.options.parameters.clone())),
                ]);
                MEMBER_SAMPLE
            }
            Role::Worker => {
                let socket = shared.options.docker_socket.display().to_string();
                values.extend([
                    ("worker", "insecure_reference_string", Value::from(true)),
                    ("worker", "docker_socket", Value::from(socket)),
                    // One host carries all of it: the machine's load is the cluster's own.
                    ("worker.offer", "cpu_measure", Value::from("reservations")),
                ]);
                WORKER_SAMPLE
            }
        };
        write_filled(&self.config(), sample, &values)
    }
}

/// The operator's folder: who may submit jobs.
pub(super) fn write_operator(
    folder: &Path,
    account: &AccountKey,
    shared: &Shared<'_>,
    ask: &Path,
) -> Result<PathBuf, DevnetError> {
    private_folder(folder)?;
    Passphrase::random().write(&folder.join("passphrase.txt"))?;
    write_account(account, folder)?;
    let mut values = chain_values(shared, true);
    values.push(("operator", "admin_socket", Value::from(ask.display().to_string())));
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

pub(super) fn private_folder(folder: &Path) -> Result<(), DevnetError> {
    use std::os::unix::fs::DirBuilderExt;
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.map_err(DevnetError::io(folder))
}

/// Section, key, value.
type Setting = (&'static str, &'static str, Value);

fn write_filled(path: &Path, sample: &str, values: &[Setting]) -> Result<(), DevnetError> {
    let text = fill(sample, values).map_err(DevnetError::Options)?;
    fs::write(path, text).map_err(DevnetError::io(path))
}

/// Sets keys of a sample where they stand, comments and all; a key that it does not have is an
/// error.
fn fill(sample: &str, values: &[Setting]) -> Result<String, String> {
    let (mut section, mut set, mut filled) = ("", HashSet::new(), String::new());
    for line in sample.lines() {
        let name = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        section = name.unwrap_or(section);
        let key = line.strip_prefix('#').unwrap_or(line).split_once(" = ").map(|(key, _)| key);
        let found = values.iter().find(|(of, name, _)| *of == section && Some(*name) == key);
        match found {
            Some((of, name, value)) => {
                set.insert((*of, *name));
                filled += &format!("{name} = {value}\n");
            }
            None => {
                filled += line;
                filled.push('\n');
            }
        }
    }
    match values.iter().find(|(of, name, _)| !set.contains(&(*of, *name))) {
        Some((of, name, _)) => Err(format!("the sample has no key {of}.{name}")),
        None => Ok(filled),
    }
}

/// Ports of 127.0.0.1 that are free for UDP and TCP now. Another program may take one before its
/// node listens; the node says so then.
pub(super) fn free_ports(count: usize) -> Result<Vec<u16>, DevnetError> {
    let failed =
        |error: std::io::Error| DevnetError::Options(format!("no free port on 127.0.0.1: {error}"));
    let mut held = Vec::new();
    // Few ports are free for one protocol only, so that this ends soon.
    for _ in 0..count * 10 {
        if held.len() == count {
            break;
        }
        let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(failed)?;
        let port = tcp.local_addr().map_err(failed)?.port();
        if let Ok(udp) = UdpSocket::bind((Ipv4Addr::LOCALHOST, port)) {
            held.push((port, tcp, udp));
        }
    }
    if held.len() < count {
        return Err(DevnetError::Options(format!("fewer than {count} free ports on 127.0.0.1")));
    }
    Ok(held.into_iter().map(|(port, ..)| port).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_is_filled_in_where_its_keys_stand() {
        let sample = "# A key = something\n[a]\n#key = 1\n[b]\nkey = 2\n";
        let filled = fill(sample, &[("b", "key", Value::from("x"))]).unwrap();
        assert_eq!(filled, "# A key = something\n[a]\n#key = 1\n[b]\nkey = \"x\"\n");
        assert!(fill(sample, &[("a", "other", Value::from(1))]).unwrap_err().contains("a.other"));
    }

    #[test]
    fn ports_are_distinct() {
        let ports = free_ports(8).unwrap();
        assert_eq!(ports.iter().collect::<HashSet<_>>().len(), 8);
    }
}
