//! Arguments that the commands of `veil chain` share.

use std::{env, fs, path::PathBuf, time::Duration};

use clap::Args;
use veil_node_chain::{AccountKey, Chain, ChainConfig, RpcUrls};
use veil_node_terminal::waiting;
use veil_protocol_spec::{Address, ChainId, ClusterId};
use zeroize::Zeroizing;

pub(super) use veil_node_config::parse_address;

use crate::cli::{failure::Failure, run::TRANSACTION};

/// How to reach the chain and who pays.
#[derive(Debug, Args)]
pub(in crate::cli) struct Connection {
    /// JSON-RPC endpoints of the chain, separated by commas; the next is used when one fails.
    #[arg(long, env = "VEIL_RPC_URL", default_value = "http://127.0.0.1:8545", value_name = "URL")]
    rpc: RpcUrls,
    /// The chain id expected; any if not given.
    #[arg(long, env = "VEIL_CHAIN_ID", value_name = "N")]
    chain_id: Option<u64>,
    /// Encrypted JSON keystore of the account; VEIL_CHAIN_KEY may hold the key instead. There is no
    /// flag for the key: other users of the machine could read it.
    #[arg(long, env = "VEIL_CHAIN_KEYSTORE", value_name = "FILE")]
    keystore: Option<PathBuf>,
    /// File whose first line is the keystore's passphrase; VEIL_CHAIN_PASSPHRASE may hold it instead.
    #[arg(long, env = "VEIL_CHAIN_PASSPHRASE_FILE", value_name = "FILE")]
    keystore_passphrase_file: Option<PathBuf>,
    /// Blocks until a transaction counts, its own included; one more than --depth if not given.
    #[arg(long, env = "VEIL_CONFIRMATIONS", value_name = "N")]
    confirmations: Option<u64>,
    /// Blocks on top of a block before what is in it is acted on; if not given, 0 on a local chain
    /// and 3 on others.
    #[arg(long, env = "VEIL_CHAIN_DEPTH", value_name = "N")]
    depth: Option<u64>,
    /// The most to pay for a unit of gas.
    #[arg(long, default_value = "500", value_name = "GWEI")]
    max_fee_gwei: u64,
    /// Seconds to wait for a transaction; then it is withdrawn.
    #[arg(long, default_value = "120", value_name = "S")]
    timeout: u64,
    /// Print one JSON object.
    #[arg(long)]
    pub(super) json: bool,
}

/// Where the contracts are.
#[derive(Debug, Args)]
pub(in crate::cli) struct Contract {
    /// Address of the directory contract, as `veil chain deploy` printed it.
    #[arg(long, env = "VEIL_CONTRACT_ADDRESS", value_name = "ADDRESS", value_parser = parse_address)]
    contract: Address,
}

/// Which cluster.
#[derive(Debug, Args)]
pub(super) struct ClusterArgument {
    /// The cluster's id, as `veil chain cluster` printed it.
    #[arg(long, env = "VEIL_CLUSTER", value_name = "ID")]
    cluster: ClusterId,
}

/// Which cluster, and through which contracts and connection.
#[derive(Debug, Args)]
pub(super) struct Where {
    #[command(flatten)]
    pub(super) cluster: ClusterArgument,
    #[command(flatten)]
    pub(super) contract: Contract,
    #[command(flatten)]
    pub(super) connection: Connection,
}

impl ClusterArgument {
    pub(super) const fn id(&self) -> ClusterId {
        self.cluster
    }
}

impl Connection {
    pub(super) fn config(&self, directory: Address) -> Result<ChainConfig, Failure> {
        Ok(ChainConfig {
            chain_id: self.chain_id.map(ChainId),
            key: self.key()?,
            confirmations: self.confirmations,
            depth: self.depth,
            max_fee_per_gas: u128::from(self.max_fee_gwei) * 1_000_000_000,
            deadline: Duration::from_secs(self.timeout),
            ..ChainConfig::new(self.rpc.clone(), directory)
        })
    }

    fn key(&self) -> Result<Option<AccountKey>, Failure> {
        let Some(path) = &self.keystore else { return Ok(AccountKey::from_environment()?) };
        let passphrase = match &self.keystore_passphrase_file {
            Some(file) => {
                fs::read_to_string(file).map(Zeroizing::new).map_err(Failure::file(file))?
            }
            None => Zeroizing::new(env::var("VEIL_CHAIN_PASSPHRASE").unwrap_or_default()),
        };
        let line = passphrase.trim_start_matches('\u{feff}').lines().next().unwrap_or_default();
        Ok(Some(AccountKey::from_keystore(path, line)?))
    }
}

impl Contract {
    pub(super) async fn connect(&self, connection: &Connection) -> Result<Chain, Failure> {
        waiting::on("connecting to the chain");
        let chain = Chain::connect(connection.config(self.contract)?).await?;
        waiting::on("reading the contracts");
        Ok(chain)
    }

    /// For a command that sends a transaction next.
    pub(super) async fn connect_to_send(&self, connection: &Connection) -> Result<Chain, Failure> {
        let chain = self.connect(connection).await?;
        let most = connection.timeout;
        waiting::on(format_args!("{TRANSACTION}; it is withdrawn after {most} s (--timeout)"));
        Ok(chain)
    }
}
