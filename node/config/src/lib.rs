//! The files that operators write: configurations, one for each role, and their environment twins; a
//! cluster's [policy](policy_file), [jobs](job_file).
//!
//! The samples in `samples/` list every key with its meaning and default; `veil config sample` prints
//! them. A file is parsed whole or refused: unknown keys are
//! errors that name the key, and so is a value that cannot be meant. What an environment variable
//! says wins over the file.

pub mod docker_login;
pub mod job_file;
pub mod offer;
pub mod policy_file;

mod accept;
mod api;
mod chain;
mod committee;
mod network;
mod operator;
mod passphrase;
mod worker;

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde::Deserialize;
use veil_committee_slot::pool::MIN_INTERVAL;
use veil_node_p2p::Multiaddr;
use veil_node_storage::retention::Retention;
use veil_protocol_spec::Address;

pub use self::{
    api::ApiSection,
    chain::ChainSection,
    committee::CommitteeSection,
    network::{NetworkSection, SwimSection},
    operator::{AnyConfig, NodeAccess, OperatorConfig, OperatorSection},
    passphrase::backup_passphrase,
    worker::{EgressFilter, OfferSection, VolumeSection, WorkerSection},
};

/// The commented sample for a committee member.
pub const MEMBER_SAMPLE: &str = include_str!("../samples/member.toml");
/// The commented sample for a worker.
pub const WORKER_SAMPLE: &str = include_str!("../samples/worker.toml");
/// The commented sample for an operator.
pub const OPERATOR_SAMPLE: &str = include_str!("../samples/operator.toml");

/// Why a configuration is refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error(
        "{path}: {source}; `veil config sample --role member|worker|operator` prints one to start from"
    )]
    Read {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Not the expected structure; names line and key.
    #[error("{path}: {detail}")]
    Parse {
        /// Which file.
        path: PathBuf,
        /// Line, key and reason.
        detail: String,
    },
    /// A value out of range.
    #[error("`{key}`: {reason}")]
    Value {
        /// The key, dotted.
        key: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// An environment variable that does not parse.
    #[error("environment variable {variable}: {reason}")]
    Environment {
        /// Which.
        variable: &'static str,
        /// What is wrong with it.
        reason: String,
    },
}

/// `[node]`: what every role needs.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeSection {
    /// Where keys, journals and the key set live.
    pub data_dir: PathBuf,
    /// The identity file; `identity.age` in the data directory by default.
    #[serde(default)]
    pub identity: Option<PathBuf>,
    /// First line: the passphrase.
    #[serde(default)]
    pub passphrase_file: Option<PathBuf>,
    /// A program and its arguments, which prints the passphrase.
    #[serde(default)]
    pub passphrase_command: Option<Vec<String>>,
    /// The libp2p peer id that the identity must have.
    #[serde(default)]
    pub peer_id: Option<String>,
    /// For how many days records of ended slots are kept.
    #[serde(default = "default_archive_days")]
    pub archive_days: u32,
    /// How many bytes of them at most, in the ledger and in a member's archive each.
    #[serde(default = "default_archive_bytes")]
    pub archive_bytes: u64,
}

fn default_archive_days() -> u32 {
    Retention::default().days
}

fn default_archive_bytes() -> u64 {
    Retention::default().bytes
}

impl NodeSection {
    /// How long records of ended slots are kept.
    #[must_use]
    pub const fn retention(&self) -> Retention {
        Retention { days: self.archive_days, bytes: self.archive_bytes }
    }

    /// Where the identity is.
    #[must_use]
    pub fn identity_file(&self) -> PathBuf {
        self.identity.clone().unwrap_or_else(|| self.data_dir.join("identity.age"))
    }

    /// The socket on which the running process answers the command line.
    #[must_use]
    pub fn admin_socket(&self) -> PathBuf {
        self.data_dir.join("admin.sock")
    }
}

/// A committee member's file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MemberConfig {
    /// What every role needs.
    pub node: NodeSection,
    /// Peers.
    pub network: NetworkSection,
    /// Contracts.
    pub chain: ChainSection,
    /// Answering from afar; only through the admin socket without it.
    #[serde(default)]
    pub api: Option<ApiSection>,
    /// The member's own.
    #[serde(default)]
    pub committee: CommitteeSection,
}

/// A worker's file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorkerConfig {
    /// What every role needs.
    pub node: NodeSection,
    /// Peers.
    pub network: NetworkSection,
    /// Contracts.
    pub chain: ChainSection,
    /// Answering from afar; only through the admin socket without it.
    #[serde(default)]
    pub api: Option<ApiSection>,
    /// The worker's own.
    #[serde(default)]
    pub worker: WorkerSection,
}

/// Looks up an environment variable; a parameter, so that tests need not change the process's own.
pub type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// The process's environment.
#[must_use]
pub fn process_environment(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn from_env<T>(
    env: Environment<'_>,
    variable: &'static str,
    parse: impl FnOnce(&str) -> Result<T, String>,
) -> Result<Option<T>, ConfigError> {
    let reason = |reason| ConfigError::Environment { variable, reason };
    env(variable).map(|value| parse(&value).map_err(reason)).transpose()
}

fn override_with<T>(
    target: &mut T,
    env: Environment<'_>,
    variable: &'static str,
    parse: impl FnOnce(&str) -> Result<T, String>,
) -> Result<(), ConfigError> {
    if let Some(value) = from_env(env, variable, parse)? {
        *target = value;
    }
    Ok(())
}

#[allow(clippy::unnecessary_wraps, reason = "the shape of a parser")]
fn path(value: &str) -> Result<PathBuf, String> {
    Ok(PathBuf::from(value))
}

fn multiaddrs(value: &str) -> Result<Vec<Multiaddr>, String> {
    value.split(',').map(|one| one.trim().parse().map_err(|e| format!("{one}: {e}"))).collect()
}

/// In any case of its letters: checksummed addresses mix them.
pub fn parse_address(text: &str) -> Result<Address, String> {
    text.to_lowercase().parse().map_err(|error| format!("{text}: {error}"))
}

fn address<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Address, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse_address(&text).map_err(serde::de::Error::custom)
}

/// Relative to the configuration file's folder.
fn anchor(folder: &Path, path: &mut PathBuf) {
    if path.is_relative() {
        *path = folder.join(&*path);
    }
}

fn parse<T: serde::de::DeserializeOwned>(file: &Path, text: &str) -> Result<T, ConfigError> {
    toml::from_str(text)
        .map_err(|e| ConfigError::Parse { path: file.to_owned(), detail: e.to_string() })
}

fn read(file: &Path) -> Result<String, ConfigError> {
    fs::read_to_string(file).map_err(|source| ConfigError::Read { path: file.to_owned(), source })
}

fn finish_chain(
    folder: &Path,
    env: Environment<'_>,
    chain: &mut ChainSection,
) -> Result<(), ConfigError> {
    let files = [chain.keystore.as_mut(), chain.keystore_passphrase_file.as_mut()];
    files.into_iter().flatten().for_each(|file| anchor(folder, file));
    chain.check_passphrase()?;
    override_with(&mut chain.rpc, env, "VEIL_RPC_URL", |v| Ok(v.into()))?;
    override_with(&mut chain.contract, env, "VEIL_CONTRACT_ADDRESS", parse_address)?;
    if chain.contract.0 == [0; 20] {
        return Err(ConfigError::Value {
            key: "chain.contract",
            reason: "the directory contract's address; `veil chain deploy` prints it".to_owned(),
        });
    }
    Ok(())
}

fn finish_common(
    folder: &Path,
    env: Environment<'_>,
    node: &mut NodeSection,
    network: &mut NetworkSection,
    chain: &mut ChainSection,
) -> Result<(), ConfigError> {
    let files = [Some(&mut node.data_dir), node.identity.as_mut(), node.passphrase_file.as_mut()];
    files.into_iter().flatten().for_each(|file| anchor(folder, file));
    at_least("node.archive_days", node.archive_days.into(), 1)?;
    node.check_passphrase()?;
    override_with(&mut node.passphrase_file, env, "VEIL_PASSPHRASE_FILE", |v| path(v).map(Some))?;
    override_with(&mut node.peer_id, env, "VEIL_NODE_PEERID", |v| Ok(Some(v.to_owned())))?;
    override_with(&mut network.announce, env, "VEIL_LIBP2P_ANNOUNCE", multiaddrs)?;
    override_with(&mut network.bootstrap, env, "VEIL_LIBP2P_BOOTSTRAP", multiaddrs)?;
    network.check()?;
    finish_chain(folder, env, chain)
}

fn at_least(key: &'static str, value: u64, least: u64) -> Result<(), ConfigError> {
    if value < least {
        return Err(ConfigError::Value { key, reason: format!("must be at least {least}") });
    }
    Ok(())
}

impl MemberConfig {
    /// Reads a file and applies the environment.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn load(file: &Path, env: Environment<'_>) -> Result<Self, ConfigError> {
        Self::parse(file, &read(file)?, env)
    }

    /// The same from the text of `file`.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn parse(file: &Path, text: &str, env: Environment<'_>) -> Result<Self, ConfigError> {
        let mut config: Self = parse(file, text)?;
        let folder = file.parent().unwrap_or_else(|| Path::new("."));
        let Self { node, network, chain, api, committee } = &mut config;
        finish_common(folder, env, node, network, chain)?;
        api.as_mut().map_or(Ok(()), |api| api.finish(folder))?;
        at_least("committee.telemetry_max_age_seconds", committee.telemetry_max_age_seconds, 1)?;
        at_least("committee.propose_timeout_seconds", committee.propose_timeout_seconds, 1)?;
        at_least("committee.void_timeout_seconds", committee.void_timeout_seconds, 1)?;
        committee.check_threads()?;
        Ok(config)
    }
}

impl WorkerConfig {
    /// Reads a file and applies the environment.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn load(file: &Path, env: Environment<'_>) -> Result<Self, ConfigError> {
        Self::parse(file, &read(file)?, env)
    }

    /// The same from the text of `file`.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn parse(file: &Path, text: &str, env: Environment<'_>) -> Result<Self, ConfigError> {
        let mut config: Self = parse(file, text)?;
        let folder = file.parent().unwrap_or_else(|| Path::new("."));
        let Self { node, network, chain, api, worker } = &mut config;
        finish_common(folder, env, node, network, chain)?;
        api.as_mut().map_or(Ok(()), |api| api.finish(folder))?;
        worker.choose_socket(folder, env)?;
        worker.check(&node.data_dir)?;
        let files = worker.key_set.as_mut().into_iter().chain(&mut worker.image_keys);
        files.for_each(|file| anchor(folder, file));
        override_with(&mut worker.key_set, env, "VEIL_ZAMA_PUBLICKEY_FILE", |v| path(v).map(Some))?;
        let least = MIN_INTERVAL.0.div_ceil(1000); // of messages that are sent faster, some are refused
        at_least("worker.telemetry_interval_seconds", worker.telemetry_interval_seconds, least)?;
        if worker.light && worker.key_set.is_some() {
            return Err(ConfigError::Value {
                key: "worker.key_set",
                reason: "a light worker holds no key set: leave it out, or `worker.light`"
                    .to_owned(),
            });
        }
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::offer::Offer;

    const NOTHING: Environment<'static> = &|_| None;

    fn with_contract(sample: &str) -> String {
        sample.replace(
            "0x0000000000000000000000000000000000000000\"",
            &format!("0x{}\"", "11".repeat(20)),
        )
    }

    fn member(text: &str, env: Environment<'_>) -> Result<MemberConfig, ConfigError> {
        MemberConfig::parse(Path::new("/etc/veil/member.toml"), text, env)
    }

    fn worker(text: &str, env: Environment<'_>) -> Result<WorkerConfig, ConfigError> {
        WorkerConfig::parse(Path::new("/etc/veil/worker.toml"), text, env)
    }

    /// What a comment shows as a default is the default: with all of them taken in, nothing changes.
    #[test]
    fn the_samples_parse_with_and_without_their_commented_keys() {
        let uncommented = |sample: &str| {
            let lines = sample.lines().map(|line| match line.strip_prefix('#') {
                Some(key) if key.starts_with(|c: char| c == '[' || c.is_ascii_lowercase()) => key,
                _ => line,
            });
            lines
                .collect::<Vec<_>>()
                .join("\n")
                .replace("16Uiu2HAm...", "16Uiu2HAmPLe7Mzm8TsYUubgCAW1aJoeFScxrLj8ppHFivPo97bUZ")
                // A command takes the place of its file.
                .replace("\npassphrase_file", "\n#")
                .replace("\nkeystore_passphrase_file", "\n#")
        };
        let sample = with_contract(MEMBER_SAMPLE);
        let (short, mut long) =
            (member(&sample, NOTHING).unwrap(), member(&uncommented(&sample), NOTHING).unwrap());
        // Its default is the machine's.
        assert!(long.committee.evaluation_threads.take().is_some());
        assert_eq!(format!("{:?}", short.committee), format!("{:?}", long.committee));
        assert_eq!(short.network.swim, long.network.swim);
        assert_eq!(short.node.identity_file(), long.node.identity_file());
        assert_eq!(short.node.retention(), long.node.retention());
        let sample = with_contract(WORKER_SAMPLE);
        let (short, long) =
            (worker(&sample, NOTHING).unwrap(), worker(&uncommented(&sample), NOTHING).unwrap());
        assert!(short.api.is_none() && long.api.is_some());
        assert_eq!(short.worker.docker_socket, long.worker.docker_socket);
        assert_eq!(short.worker.telemetry_interval(), long.worker.telemetry_interval());
        assert_eq!(long.worker.key_set, Some(PathBuf::from("/etc/veil/keyset.bin")));
        assert!(!short.worker.light && !long.worker.light);
        assert_eq!(long.worker.offer.memory_mib, Some(8192));
        assert_eq!(short.worker.offer.offer(), Offer::default());
        let (default, long) = (Offer::default(), long.worker.offer.offer());
        assert_eq!((long.reserve, long.cpu_measure), (default.reserve, default.cpu_measure));
        assert_eq!((long.memory_bytes, long.disk_bytes), (8 << 30, 100 << 30));
    }

    #[test]
    fn unknown_keys_are_refused_by_name() {
        let text =
            with_contract(WORKER_SAMPLE).replace("[worker.offer]", "nonsense = 1\n[worker.offer]");
        let error = worker(&text, NOTHING).unwrap_err().to_string();
        assert!(error.contains("nonsense"), "{error}");
        let text = format!("{}\n[commitee]\n", with_contract(MEMBER_SAMPLE));
        let error = member(&text, NOTHING).unwrap_err().to_string();
        assert!(error.contains("commitee"), "{error}");
    }

    #[test]
    fn the_environment_wins_and_is_checked() {
        let env = |name: &str| {
            Some(match name {
                "VEIL_CONTRACT_ADDRESS" => format!("0x{}", "Ab".repeat(20)),
                "VEIL_LIBP2P_BOOTSTRAP" => "/ip4/10.0.0.1/tcp/1, /ip4/10.0.0.2/tcp/2".to_owned(),
                "VEIL_ZAMA_PUBLICKEY_FILE" => "/keys/set.bin".to_owned(),
                "VEIL_NODE_PEERID" => "16Uiu2".to_owned(),
                "VEIL_DOCKER_SOCKET" => "/run/docker.sock".to_owned(),
                _ => return None,
            })
        };
        // The address in the file is the zero one, which alone would be refused.
        let config = worker(WORKER_SAMPLE, &env).unwrap();
        assert_eq!(config.chain.contract, Address([0xab; 20]));
        assert_eq!(config.network.bootstrap.len(), 2);
        assert_eq!(config.worker.key_set, Some(PathBuf::from("/keys/set.bin")));
        assert_eq!(config.node.peer_id.as_deref(), Some("16Uiu2"));
        assert_eq!(config.worker.docker_socket, PathBuf::from("/run/docker.sock"));
        let broken = |name: &str| (name == "VEIL_LIBP2P_BOOTSTRAP").then(|| "nowhere".to_owned());
        assert!(matches!(
            worker(&with_contract(WORKER_SAMPLE), &broken),
            Err(ConfigError::Environment { variable: "VEIL_LIBP2P_BOOTSTRAP", .. })
        ));
    }

    #[test]
    fn values_that_cannot_be_meant_are_refused() {
        assert!(matches!(
            member(MEMBER_SAMPLE, NOTHING),
            Err(ConfigError::Value { key: "chain.contract", .. })
        ));
        let none = with_contract(MEMBER_SAMPLE).replace(
            r#"listen = ["/ip4/0.0.0.0/udp/4001/quic-v1", "/ip4/0.0.0.0/tcp/4001"]"#,
            "listen = []",
        );
        assert!(matches!(
            member(&none, NOTHING),
            Err(ConfigError::Value { key: "network.listen", .. })
        ));
        let light = with_contract(WORKER_SAMPLE)
            .replace("#light = false", "light = true")
            .replace("#key_set", "key_set");
        assert!(matches!(
            worker(&light, NOTHING),
            Err(ConfigError::Value { key: "worker.key_set", .. })
        ));
        let zero = with_contract(WORKER_SAMPLE)
            .replace("#telemetry_interval_seconds = 30", "telemetry_interval_seconds = 0");
        assert!(matches!(
            worker(&zero, NOTHING),
            Err(ConfigError::Value { key: "worker.telemetry_interval_seconds", .. })
        ));
    }

    #[test]
    fn paths_are_relative_to_the_file() {
        let config = member(&with_contract(MEMBER_SAMPLE), NOTHING).unwrap();
        assert_eq!(config.node.data_dir, PathBuf::from("/etc/veil/data"));
        assert_eq!(config.node.admin_socket(), PathBuf::from("/etc/veil/data/admin.sock"));
    }
}
