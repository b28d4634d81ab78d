//! The operator's file, and telling the roles' files apart.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use veil_node_api::address::NodeAddress;

use super::{
    ChainSection, ConfigError, Environment, MemberConfig, WorkerConfig, anchor, finish_chain,
    parse, read,
};

/// `[operator]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OperatorSection {
    /// The node that is asked: its admin socket, or `https://HOST[:PORT]`.
    #[serde(deserialize_with = "node_address")]
    pub node: NodeAddress,
    /// Of a remote one: the certificates that its own is checked by, in PEM.
    #[serde(default)]
    pub node_ca: Option<PathBuf>,
    /// Of a remote one: first line: the token to read with.
    #[serde(default)]
    pub node_token_file: Option<PathBuf>,
}

fn node_address<'de, D: serde::Deserializer<'de>>(text: D) -> Result<NodeAddress, D::Error> {
    String::deserialize(text)?.parse().map_err(serde::de::Error::custom)
}

/// How a node is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeAccess {
    /// Where.
    pub address: NodeAddress,
    /// Of a remote one: the certificates that its own is checked by.
    pub ca: Option<PathBuf>,
    /// Of a remote one: the token to read with.
    pub token_file: Option<PathBuf>,
}

impl From<PathBuf> for NodeAccess {
    fn from(socket: PathBuf) -> Self {
        Self { address: NodeAddress::Socket(socket), ca: None, token_file: None }
    }
}

/// An operator's file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OperatorConfig {
    /// Whom to ask.
    pub operator: OperatorSection,
    /// Contracts.
    pub chain: ChainSection,
}

impl OperatorConfig {
    fn parse(file: &Path, text: &str, env: Environment<'_>) -> Result<Self, ConfigError> {
        let mut config: Self = parse(file, text)?;
        let folder = file.parent().unwrap_or_else(|| Path::new("."));
        let OperatorSection { node, node_ca, node_token_file } = &mut config.operator;
        [node_ca, node_token_file].into_iter().flatten().for_each(|file| anchor(folder, file));
        if let NodeAddress::Socket(socket) = node {
            anchor(folder, socket);
        }
        finish_chain(folder, env, &mut config.chain)?;
        Ok(config)
    }
}

/// A file of any role.
#[derive(Clone, Debug)]
pub enum AnyConfig {
    /// Of a member.
    Member(Box<MemberConfig>),
    /// Of a worker.
    Worker(Box<WorkerConfig>),
    /// Of an operator.
    Operator(Box<OperatorConfig>),
}

impl AnyConfig {
    /// Reads a file; the section that only one role has says whose it is, and one without such a
    /// section is a member's.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn load(file: &Path, env: Environment<'_>) -> Result<Self, ConfigError> {
        let text = read(file)?;
        let sections: toml::Table = parse(file, &text)?;
        if sections.contains_key("operator") {
            let config = OperatorConfig::parse(file, &text, env)?;
            return Ok(Self::Operator(Box::new(config)));
        }
        if sections.contains_key("worker") {
            return Ok(Self::Worker(Box::new(WorkerConfig::parse(file, &text, env)?)));
        }
        Ok(Self::Member(Box::new(MemberConfig::parse(file, &text, env)?)))
    }

    /// Whose it is.
    #[must_use]
    pub const fn role(&self) -> &'static str {
        match self {
            Self::Member(_) => "member",
            Self::Worker(_) => "worker",
            Self::Operator(_) => "operator",
        }
    }

    /// Contracts.
    #[must_use]
    pub const fn chain(&self) -> &ChainSection {
        match self {
            Self::Member(config) => &config.chain,
            Self::Worker(config) => &config.chain,
            Self::Operator(config) => &config.chain,
        }
    }

    /// How the node that it is about is asked.
    #[must_use]
    pub fn node(&self) -> NodeAccess {
        match self {
            Self::Member(config) => config.node.admin_socket().into(),
            Self::Worker(config) => config.node.admin_socket().into(),
            Self::Operator(config) => {
                let OperatorSection { node, node_ca, node_token_file } = config.operator.clone();
                NodeAccess { address: node, ca: node_ca, token_file: node_token_file }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{MEMBER_SAMPLE, OPERATOR_SAMPLE, WORKER_SAMPLE};

    #[test]
    fn a_file_says_whose_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("some.toml");
        let contract = format!("0x{}", "22".repeat(20));
        let env = |name: &str| (name == "VEIL_CONTRACT_ADDRESS").then(|| contract.clone());
        for (sample, role) in
            [(MEMBER_SAMPLE, "member"), (WORKER_SAMPLE, "worker"), (OPERATOR_SAMPLE, "operator")]
        {
            std::fs::write(&path, sample).unwrap();
            let config = AnyConfig::load(&path, &env).unwrap();
            assert_eq!(config.role(), role);
            assert_eq!(config.node(), folder.path().join("data/admin.sock").into());
            let unset = AnyConfig::load(&path, &|_| None);
            assert!(matches!(unset, Err(ConfigError::Value { key: "chain.contract", .. })));
        }
        let remote = OPERATOR_SAMPLE
            .replace("node = \"data/admin.sock\"", "node = \"https://node.example\"")
            .replace("#node_ca", "node_ca")
            .replace("#node_token_file", "node_token_file");
        std::fs::write(&path, remote).unwrap();
        let expected = NodeAccess {
            address: "https://node.example:4646".parse().unwrap(),
            ca: Some(folder.path().join("api-certificate.pem")),
            token_file: Some(folder.path().join("api-read-token")),
        };
        assert_eq!(AnyConfig::load(&path, &env).unwrap().node(), expected);
        std::fs::write(&path, OPERATOR_SAMPLE.replace("data/admin.sock", "http://node")).unwrap();
        let error = AnyConfig::load(&path, &env).unwrap_err().to_string();
        assert!(error.contains("over TLS"), "{error}");
        std::fs::write(&path, format!("{OPERATOR_SAMPLE}nonsense = 1\n")).unwrap();
        let error = AnyConfig::load(&path, &env).unwrap_err().to_string();
        assert!(error.contains("nonsense"), "{error}");
    }
}
