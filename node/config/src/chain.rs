//! The section that says how to reach the contracts.

use std::path::PathBuf;

use serde::Deserialize;
use veil_node_chain::{AccountKey, ChainConfig, RpcUrls};
use veil_protocol_spec::{Address, ChainId, ClusterId};

/// `[chain]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChainSection {
    /// JSON-RPC endpoints.
    pub rpc: RpcUrls,
    /// The chain that they have to serve.
    #[serde(default)]
    pub chain_id: Option<u64>,
    /// Blocks on top of a block before what is in it is acted on.
    #[serde(default)]
    pub depth: Option<u64>,
    /// The most that is paid for a unit of gas.
    #[serde(default = "default_max_fee_gwei")]
    pub max_fee_gwei: u64,
    /// The block from which on events are looked for.
    #[serde(default)]
    pub first_block: u64,
    /// The directory contract.
    #[serde(deserialize_with = "super::address")]
    pub contract: Address,
    /// The cluster's id.
    pub cluster: ClusterId,
    /// Encrypted JSON keystore of the paying account.
    #[serde(default)]
    pub keystore: Option<PathBuf>,
    /// First line: the keystore's passphrase.
    #[serde(default)]
    pub keystore_passphrase_file: Option<PathBuf>,
    /// A program and its arguments, which prints the keystore's passphrase.
    #[serde(default)]
    pub keystore_passphrase_command: Option<Vec<String>>,
}

const fn default_max_fee_gwei() -> u64 {
    500
}

impl ChainSection {
    /// With the defaults and without an account.
    #[must_use]
    pub const fn new(rpc: RpcUrls, contract: Address, cluster: ClusterId) -> Self {
        Self {
            rpc,
            chain_id: None,
            depth: None,
            max_fee_gwei: default_max_fee_gwei(),
            first_block: 0,
            contract,
            cluster,
            keystore: None,
            keystore_passphrase_file: None,
            keystore_passphrase_command: None,
        }
    }

    /// How to connect. A transaction counts when it is as deep as what is acted on.
    #[must_use]
    pub fn connection(&self, key: Option<AccountKey>) -> ChainConfig {
        ChainConfig {
            chain_id: self.chain_id.map(ChainId),
            key,
            depth: self.depth,
            max_fee_per_gas: u128::from(self.max_fee_gwei) * 1_000_000_000,
            first_block: self.first_block,
            ..ChainConfig::new(self.rpc.clone(), self.contract)
        }
    }
}
