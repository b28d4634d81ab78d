//! Arguments that the commands of `veil chain` share.

use std::{env, fs, path::PathBuf, time::Duration};

use clap::Args;
use veil_node_chain::{AccountKey, Chain, ChainConfig, Draft, RpcUrls};
use veil_node_config::parse_address;
use veil_node_terminal::waiting::{self, TRANSACTION};
use veil_protocol_spec::{Address, ChainId, ClusterId};
use zeroize::Zeroizing;

use crate::error::CommandError;

/// That others sign.
#[derive(Clone, Copy, Debug, Args)]
pub struct Drafting {
    /// Send nothing: print the transaction for others to sign, in the form of Safe's Transaction Builder. It needs no key.
    #[arg(long)]
    unsigned: bool,
    /// With --unsigned: the account that is going to send it, such as that of a Safe. The contracts are asked whether
    /// they take it from there, and what depends on the sender is made for it.
    #[arg(long = "from", value_name = "ADDRESS", requires = "unsigned", value_parser = parse_address)]
    sender: Option<Address>,
}

impl Drafting {
    /// What that means for a connection.
    #[must_use]
    pub fn draft(&self) -> Option<Draft> {
        self.unsigned.then_some(Draft { from: self.sender })
    }
}

/// How to reach the chain and who signs.
#[derive(Debug, Args)]
pub struct Connection {
    #[command(flatten)]
    reach: Reach,
    #[command(flatten)]
    drafting: Drafting,
}

/// How to reach the chain and who pays.
#[derive(Debug, Args)]
pub struct Reach {
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
    pub json: bool,
}

/// Where the contracts are.
#[derive(Debug, Args)]
pub struct Contract {
    /// Address of the directory contract, as `veil chain deploy` printed it.
    #[arg(long, env = "VEIL_CONTRACT_ADDRESS", value_name = "ADDRESS", value_parser = parse_address)]
    contract: Address,
}

/// Which cluster.
#[derive(Debug, Args)]
pub struct ClusterArgument {
    /// The cluster's id, as `veil chain cluster` printed it.
    #[arg(long, env = "VEIL_CLUSTER", value_name = "ID")]
    cluster: ClusterId,
}

/// Which cluster, and through which contracts and connection.
#[derive(Debug, Args)]
pub struct Where {
    /// Which cluster.
    #[command(flatten)]
    pub cluster: ClusterArgument,
    /// Where the contracts are.
    #[command(flatten)]
    pub contract: Contract,
    /// How to reach the chain, and who signs.
    #[command(flatten)]
    pub connection: Connection,
}

impl ClusterArgument {
    /// Its id.
    #[must_use]
    pub const fn id(&self) -> ClusterId {
        self.cluster
    }
}

impl Connection {
    /// Whether one JSON object is to be printed.
    #[must_use]
    pub const fn json(&self) -> bool {
        self.reach.json
    }

    /// With the account's key, unless others sign.
    pub(crate) fn config(&self, directory: Address) -> Result<ChainConfig, CommandError> {
        let draft = self.drafting.draft();
        let key = if draft.is_some() { None } else { self.reach.key()? };
        Ok(ChainConfig { key, draft, ..self.reach.config(directory) })
    }
}

impl Reach {
    fn config(&self, directory: Address) -> ChainConfig {
        ChainConfig {
            chain_id: self.chain_id.map(ChainId),
            confirmations: self.confirmations,
            depth: self.depth,
            max_fee_per_gas: u128::from(self.max_fee_gwei) * 1_000_000_000,
            deadline: Duration::from_secs(self.timeout),
            ..ChainConfig::new(self.rpc.clone(), directory)
        }
    }

    fn key(&self) -> Result<Option<AccountKey>, CommandError> {
        let Some(path) = &self.keystore else { return Ok(AccountKey::from_environment()?) };
        let passphrase = match &self.keystore_passphrase_file {
            Some(file) => {
                fs::read_to_string(file).map(Zeroizing::new).map_err(CommandError::file(file))?
            }
            None => Zeroizing::new(env::var("VEIL_CHAIN_PASSPHRASE").unwrap_or_default()),
        };
        let line = passphrase.trim_start_matches('\u{feff}').lines().next().unwrap_or_default();
        Ok(Some(AccountKey::from_keystore(path, line)?))
    }
}

impl Contract {
    /// For a command that reads.
    ///
    /// # Errors
    /// [`CommandError`].
    pub async fn connect(&self, connection: &Connection) -> Result<Chain, CommandError> {
        self.connect_with(connection.config(self.contract)?).await
    }

    /// For a command that cannot send.
    ///
    /// # Errors
    /// [`CommandError`].
    pub async fn connect_to_read(&self, reach: &Reach) -> Result<Chain, CommandError> {
        self.connect_with(reach.config(self.contract)).await
    }

    async fn connect_with(&self, config: ChainConfig) -> Result<Chain, CommandError> {
        waiting::on("connecting to the chain");
        let chain = Chain::connect(config).await?;
        waiting::on("reading the contracts");
        Ok(chain)
    }

    /// For a command that sends a transaction next.
    ///
    /// # Errors
    /// [`CommandError`].
    pub async fn connect_to_send(&self, connection: &Connection) -> Result<Chain, CommandError> {
        let chain = self.connect(connection).await?;
        let most = connection.reach.timeout;
        waiting::on(format_args!("{TRANSACTION}; it is withdrawn after {most} s (--timeout)"));
        Ok(chain)
    }
}
