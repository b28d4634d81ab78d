//! The handle on the chain: connecting, checking, reading.

use std::{sync::Arc, time::Duration};

use alloy::{
    primitives::{Address as EvmAddress, B256},
    providers::Provider,
    rpc::types::BlockId,
};
use tokio::sync::watch;
use veil_contracts::directory::Directory;
use veil_protocol_spec::{
    Address, ChainId, ClusterId,
    scheduling::{BlockRef, ClusterScope},
};

use super::{
    AccountKey, ChainError, EndpointStatus, Refusal, RpcUrls,
    registrations::Registrations,
    rpc::{Rpc, reference},
    send::Account,
    watch::Watcher,
};

/// The interface version of the contracts that this build speaks.
pub(super) const INTERFACE_VERSION: u16 = 2;

/// How to reach the contracts.
#[derive(Clone, Debug)]
pub struct ChainConfig {
    /// JSON-RPC endpoints, all of one chain.
    pub rpc: RpcUrls,
    /// Address of the directory (`VEIL_CONTRACT_ADDRESS`).
    pub directory: Address,
    /// The chain expected; any if none is given.
    pub chain_id: Option<ChainId>,
    /// Who sends transactions; reading works without.
    pub key: Option<AccountKey>,
    /// Blocks on top of a transaction's own, itself included, before it counts: 1 or more. If none is
    /// given: one more than `depth`.
    pub confirmations: Option<u64>,
    /// Blocks on top of a block before what is in it is acted on, since it may be replaced until
    /// then. If none is given: 0 on a local chain (31337, 1337), 3 on others.
    pub depth: Option<u64>,
    /// How long to wait for a transaction.
    pub deadline: Duration,
    /// How long a transaction may wait before its fee is raised.
    pub stuck_after: Duration,
    /// The most that is paid for a unit of gas, in wei.
    pub max_fee_per_gas: u128,
    /// How often to ask for new blocks.
    pub poll: Duration,
    /// The block from which on events are looked for: that of the deployment, or any before it.
    pub first_block: u64,
    /// Blocks whose events are asked for at once; fewer if an endpoint gives less.
    pub log_range: u64,
}

impl ChainConfig {
    /// With the defaults: confirmations and depth by the chain, 60 s, fees raised after 20 s up to 500 gwei, asking twice
    /// a second, events from the first block on in ranges of 5,000.
    #[must_use]
    pub fn new(rpc: impl Into<RpcUrls>, directory: Address) -> Self {
        Self {
            rpc: rpc.into(),
            directory,
            chain_id: None,
            key: None,
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

/// Addresses of the set in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Contracts {
    /// The directory that names the others.
    pub directory: Address,
    /// Clusters, their nodes, and stake.
    pub node_registry: Address,
    /// Policies, rights, images.
    pub policy_registry: Address,
    /// Elections of committees.
    pub committee_election: Address,
    /// Ceremonies and keys.
    pub key_ceremony: Address,
    /// Job submissions.
    pub job_board: Address,
    /// Certificates.
    pub assignment_anchor: Address,
    /// Disputes and slashing.
    pub disputes: Address,
    /// Checkpoints of frequent slots.
    pub checkpoint_channel: Address,
}

impl Contracts {
    /// All of them with their names in the directory.
    #[must_use]
    pub const fn named(&self) -> [(&'static str, Address); 9] {
        [
            ("Directory", self.directory),
            ("NodeRegistry", self.node_registry),
            ("PolicyRegistry", self.policy_registry),
            ("CommitteeElection", self.committee_election),
            ("KeyCeremony", self.key_ceremony),
            ("JobBoard", self.job_board),
            ("AssignmentAnchor", self.assignment_anchor),
            ("Disputes", self.disputes),
            ("CheckpointChannel", self.checkpoint_channel),
        ]
    }
}

/// A handle on the contracts of one directory. Clones share the connection and the account's
/// transaction count.
#[derive(Clone)]
pub struct Chain {
    pub(super) rpc: Rpc,
    pub(super) contracts: Contracts,
    pub(super) account: Option<Arc<Account>>,
    pub(super) registrations: Arc<Registrations>,
    watcher: Arc<Watcher>,
}

impl core::fmt::Debug for Chain {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Chain")
            .field("rpc", &self.rpc.config.rpc)
            .field("chain_id", &self.rpc.chain_id)
            .field("directory", &self.contracts.directory)
            .finish_non_exhaustive()
    }
}

impl Chain {
    /// Connects and checks that the directory names contracts that this build speaks.
    ///
    /// # Errors
    /// [`ChainError`].
    pub async fn connect(config: ChainConfig) -> Result<Self, ChainError> {
        let rpc = Rpc::connect(&config).await?;
        let contracts = rpc.contracts(config.directory).await?;
        Ok(Self::assemble(rpc, contracts, config.key))
    }

    pub(super) fn assemble(rpc: Rpc, contracts: Contracts, key: Option<AccountKey>) -> Self {
        let account = key.map(|key| Arc::new(Account::new(key)));
        let watcher = Arc::new(Watcher::start(rpc.clone()));
        Self { rpc, contracts, account, registrations: Arc::default(), watcher }
    }

    /// The same connection with another account.
    #[must_use]
    pub fn with_key(&self, key: AccountKey) -> Self {
        Self { account: Some(Arc::new(Account::new(key))), ..self.clone() }
    }

    /// The same connection, reading the contracts as of one block, by its hash: nodes that read at
    /// the same block read the same.
    #[must_use]
    pub fn at(&self, block: BlockRef) -> Self {
        let mut reading = self.clone();
        reading.rpc.at = BlockId::hash(B256::from(block.hash.0));
        reading.rpc.at_block = Some(block);
        reading
    }

    /// Whether this node's chain holds the block.
    ///
    /// # Errors
    /// [`ChainError::UnknownBlock`] if it has another one of that number, or none yet.
    pub async fn check_block(&self, block: BlockRef) -> Result<(), ChainError> {
        let found = self.rpc.block(block.number).await?;
        if found.is_some_and(|found| reference(&found) == block) {
            Ok(())
        } else {
            Err(ChainError::UnknownBlock(block))
        }
    }

    /// The chain.
    #[must_use]
    pub const fn chain_id(&self) -> ChainId {
        self.rpc.chain_id
    }

    /// Where the contracts are.
    #[must_use]
    pub const fn contracts(&self) -> &Contracts {
        &self.contracts
    }

    /// What messages of this cluster name.
    #[must_use]
    pub const fn scope(&self, cluster: ClusterId) -> ClusterScope {
        ClusterScope { chain_id: self.rpc.chain_id, contract: self.contracts.directory, cluster }
    }

    /// Who sends this handle's transactions.
    #[must_use]
    pub fn account(&self) -> Option<Address> {
        self.account.as_ref().map(|account| account.address())
    }

    /// How the endpoints fare, in the order of configuration.
    #[must_use]
    pub fn endpoints(&self) -> Vec<EndpointStatus> {
        self.rpc.endpoints.status()
    }

    /// Blocks on top of a block before what is in it is acted on.
    #[must_use]
    pub fn depth(&self) -> u64 {
        self.rpc.depth()
    }

    /// The last block seen. It changes with every new block, and when the last one is replaced, for
    /// as long as a clone of this handle lives; what was read before may be out of date then.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<BlockRef> {
        self.watcher.subscribe()
    }

    /// The last block and its time (Unix, seconds).
    ///
    /// # Errors
    /// [`ChainError`].
    pub async fn block(&self) -> Result<(BlockRef, u64), ChainError> {
        let block = self.rpc.latest().await?;
        Ok((reference(&block), block.header.timestamp))
    }

    /// The last block that is deep enough to act on ([`ChainConfig::depth`]).
    ///
    /// # Errors
    /// [`ChainError`].
    pub async fn settled(&self) -> Result<BlockRef, ChainError> {
        let last = self.rpc.latest().await?;
        let depth = self.rpc.depth();
        if depth == 0 {
            return Ok(reference(&last));
        }
        let number = last.header.number.saturating_sub(depth);
        let found = self.rpc.block(number).await?;
        found.as_ref().map(reference).ok_or(ChainError::Unexpected("a chain with a gap"))
    }

    pub(super) fn check_scope(&self, scope: &ClusterScope) -> Result<(), ChainError> {
        if *scope == self.scope(scope.cluster) { Ok(()) } else { Err(ChainError::OtherScope) }
    }
}

pub(super) fn evm(address: Address) -> EvmAddress {
    EvmAddress::new(address.0)
}

/// A contract's name in the directory.
pub(super) fn name_word(name: &str) -> alloy::primitives::B256 {
    super::typed::organisation_word(name)
}

impl Rpc {
    async fn contracts(&self, directory: Address) -> Result<Contracts, ChainError> {
        let address = evm(directory);
        let code = self.ask("the directory", || self.provider.get_code_at(address)).await?;
        let none = || ChainError::NoDirectory { address: directory, chain: self.chain_id };
        if code.is_empty() {
            return Err(none());
        }
        let contract = Directory::new(address, &self.provider);
        let version = self
            .call("the directory", || async { contract.interfaceVersion().call().await })
            .await
            .map_err(|error| if error.is_transient() { error } else { none() })?;
        check_version("Directory", version)?;
        let find = |name| self.find(directory, name);
        Ok(Contracts {
            directory,
            node_registry: find("NodeRegistry").await?,
            policy_registry: find("PolicyRegistry").await?,
            committee_election: find("CommitteeElection").await?,
            key_ceremony: find("KeyCeremony").await?,
            job_board: find("JobBoard").await?,
            assignment_anchor: find("AssignmentAnchor").await?,
            disputes: find("Disputes").await?,
            checkpoint_channel: find("CheckpointChannel").await?,
        })
    }

    async fn find(&self, directory: Address, name: &'static str) -> Result<Address, ChainError> {
        let contract = Directory::new(evm(directory), &self.provider);
        let address = self
            .call(name, || async { contract.contractOf(name_word(name)).call().await })
            .await
            .map_err(|error| match error.refusal() {
                Some(Refusal::Directory(_)) => ChainError::Incomplete { directory, contract: name },
                // Some other contract, which does not know the question.
                Some(_) => ChainError::NoDirectory { address: directory, chain: self.chain_id },
                None => error,
            })?;
        // All contracts have this function in common.
        let contract = Directory::new(address, &self.provider);
        let version =
            self.call(name, || async { contract.interfaceVersion().call().await }).await?;
        check_version(name, version)?;
        Ok(Address(address.0.0))
    }
}

fn check_version(contract: &'static str, found: u16) -> Result<(), ChainError> {
    if found == INTERFACE_VERSION {
        Ok(())
    } else {
        Err(ChainError::Version { contract, found, supported: INTERFACE_VERSION })
    }
}
