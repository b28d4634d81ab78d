//! How to reach the contracts, and what to wait for.

use std::time::Duration;

use veil_protocol_spec::{Address, ChainId};

use crate::{batch::Draft, endpoints::RpcUrls, key::AccountKey};

/// How to reach the contracts.
#[derive(Clone, Debug)]
pub struct ChainConfig {
    /// JSON-RPC endpoints, all of one chain.
    pub rpc: RpcUrls,
    /// Address of the directory (`VEIL_CONTRACT_ADDRESS`).
    pub directory: Address,
    /// The chain that the endpoints have to serve; any if none is given.
    pub chain_id: Option<ChainId>,
    /// The account that sends transactions; reading needs none.
    pub key: Option<AccountKey>,
    /// In place of an account: transactions are written down for others to sign, and not sent.
    pub draft: Option<Draft>,
    /// Confirmations before a transaction counts: the number of blocks from its own to the last, 1 or
    /// more. If none is given: one more than `depth`.
    pub confirmations: Option<u64>,
    /// Blocks on top of a block before callers act on it, since it may be replaced until then. If none is
    /// given: 0 on a local chain (31337, 1337), 3 on others.
    pub depth: Option<u64>,
    /// How long to wait for a transaction.
    pub deadline: Duration,
    /// How long a transaction may wait before its fee is raised.
    pub stuck_after: Duration,
    /// The most that is paid for a unit of gas, in wei.
    pub max_fee_per_gas: u128,
    /// The interval between two requests for the last block.
    pub poll: Duration,
    /// The first block that is searched for events: that of the deployment, or any before it.
    pub first_block: u64,
    /// The most blocks whose events one request asks for; fewer if an endpoint refuses as many.
    pub log_range: u64,
}

impl ChainConfig {
    /// With the defaults: confirmations and depth by the chain, a deadline of 60 s, fees raised after 20 s
    /// up to 500 gwei, a request for the last block every 500 ms, events from the first block on in ranges
    /// of 5,000.
    #[must_use]
    pub fn new(rpc: impl Into<RpcUrls>, directory: Address) -> Self {
        Self {
            rpc: rpc.into(),
            directory,
            chain_id: None,
            key: None,
            draft: None,
            confirmations: None,
            depth: None,
            deadline: Duration::from_secs(60),
            stuck_after: Duration::from_secs(20),
            max_fee_per_gas: 500_000_000_000,
            poll: Duration::from_millis(500),
            first_block: 0,
            log_range: 5_000,
        }
    }

    /// The same with an account.
    #[must_use]
    pub fn with_key(mut self, key: AccountKey) -> Self {
        self.key = Some(key);
        self
    }
}
