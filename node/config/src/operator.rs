//! The operator's file, and telling the roles' files apart.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{
    ChainSection, ConfigError, Environment, MemberConfig, WorkerConfig, anchor, finish_chain,
    parse, read,
};

/// `[operator]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OperatorSection {
    /// A node's admin socket.
    pub admin_socket: PathBuf,
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
        anchor(folder, &mut config.operator.admin_socket);
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

    /// The socket of the node that it is about.
    #[must_use]
    pub fn admin_socket(&self) -> PathBuf {
        match self {
            Self::Member(config) => config.node.admin_socket(),
            Self::Worker(config) => config.node.admin_socket(),
            Self::Operator(config) => config.operator.admin_socket.clone(),
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
            assert_eq!(config.admin_socket(), folder.path().join("data/admin.sock"));
            let unset = AnyConfig::load(&path, &|_| None);
            assert!(matches!(unset, Err(ConfigError::Value { key: "chain.contract", .. })));
        }
        std::fs::write(&path, format!("{OPERATOR_SAMPLE}nonsense = 1\n")).unwrap();
        let error = AnyConfig::load(&path, &env).unwrap_err().to_string();
        assert!(error.contains("nonsense"), "{error}");
    }
}
