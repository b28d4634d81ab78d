//! The handle on the chain: connecting, checking, reading.

use std::{future::Future, sync::Arc, time::Duration};

use alloy::{
    primitives::Address as EvmAddress,
    providers::{DynProvider, Provider, ProviderBuilder},
    rpc::types::{BlockId, BlockNumberOrTag},
    transports::http::reqwest::{Client, Url},
};
use backon::{ExponentialBuilder, Retryable};
use tokio::sync::watch;
use veil_contracts::directory::Directory;
use veil_protocol_spec::{
    Address, ChainId, ClusterId, KeccakDigest,
    scheduling::{BlockRef, ClusterScope},
};

use super::{AccountKey, ChainError, Refusal, send::Account, watch::Watcher};

/// The interface version of the contracts that this build speaks.
pub(super) const INTERFACE_VERSION: u16 = 1;

/// How to reach the contracts.
#[derive(Clone, Debug)]
pub struct ChainConfig {
    /// URL of a JSON-RPC endpoint.
    pub rpc: String,
    /// Address of the directory (`VEIL_CONTRACT_ADDRESS`).
    pub directory: Address,
    /// The chain expected; any if none is given.
    pub chain_id: Option<ChainId>,
    /// Who sends transactions; reading works without.
    pub key: Option<AccountKey>,
    /// Blocks on top of a transaction's own, itself included, before it counts: 1 or more.
    pub confirmations: u64,
    /// How long to wait for a transaction.
    pub deadline: Duration,
    /// How often to ask for new blocks.
    pub poll: Duration,
}

impl ChainConfig {
    /// With the defaults: one confirmation, 60 s, asking twice a second.
    #[must_use]
    pub fn new(rpc: impl Into<String>, directory: Address) -> Self {
        Self {
            rpc: rpc.into(),
            directory,
            chain_id: None,
            key: None,
            confirmations: 1,
            deadline: Duration::from_secs(60),
            poll: Duration::from_millis(500),
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
    /// Clusters and nodes.
    pub node_registry: Address,
    /// Ceremonies and keys.
    pub key_ceremony: Address,
    /// Job submissions.
    pub job_board: Address,
    /// Certificates.
    pub assignment_anchor: Address,
}

/// A handle on the contracts of one directory. Clones share the connection and the account's
/// transaction count.
#[derive(Clone)]
pub struct Chain {
    pub(super) rpc: Rpc,
    pub(super) contracts: Contracts,
    pub(super) account: Option<Arc<Account>>,
    watcher: Arc<Watcher>,
}

/// The connection without contracts.
#[derive(Clone)]
pub(super) struct Rpc {
    pub(super) url: Arc<str>,
    pub(super) provider: DynProvider,
    pub(super) chain_id: ChainId,
    pub(super) confirmations: u64,
    pub(super) deadline: Duration,
    pub(super) poll: Duration,
    /// The block that contracts are read at.
    pub(super) at: BlockId,
}

impl core::fmt::Debug for Chain {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Chain")
            .field("url", &self.rpc.url)
            .field("chain_id", &self.rpc.chain_id)
            .field("directory", &self.contracts.directory)
            .finish_non_exhaustive()
    }
}

/// How long one request may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// How often a request is repeated when the network fails.
const RETRIES: usize = 4;

impl Rpc {
    pub(super) async fn connect(config: &ChainConfig) -> Result<Self, ChainError> {
        let invalid = |detail: String| ChainError::InvalidUrl { url: config.rpc.clone(), detail };
        let url: Url =
            config.rpc.parse().map_err(|error| invalid(format!("not a URL: {error}")))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(invalid("only http and https are spoken".to_owned()));
        }
        let mut client = Client::builder().timeout(REQUEST_TIMEOUT);
        // A proxy is for the world outside.
        if matches!(url.host_str(), Some("localhost" | "127.0.0.1" | "[::1]")) {
            client = client.no_proxy();
        }
        let client = client.build().map_err(|error| invalid(error.to_string()))?;
        let provider = ProviderBuilder::new()
            .disable_recommended_fillers()
            .connect_reqwest(client, url)
            .erased();
        let mut rpc = Self {
            url: config.rpc.as_str().into(),
            provider,
            chain_id: ChainId(0),
            confirmations: config.confirmations.max(1),
            deadline: config.deadline,
            poll: config.poll,
            at: BlockId::latest(),
        };
        let found = rpc.ask("the chain id", || rpc.provider.get_chain_id()).await?;
        rpc.chain_id = ChainId(found);
        match config.chain_id {
            Some(expected) if expected != rpc.chain_id => {
                Err(ChainError::WrongChain { expected, found: rpc.chain_id })
            }
            _ => Ok(rpc),
        }
    }

    /// Repeats a request a bounded number of times while nobody answers.
    pub(super) async fn ask<T, F>(
        &self,
        what: &'static str,
        request: impl Fn() -> F,
    ) -> Result<T, ChainError>
    where
        F: IntoFuture<Output = Result<T, alloy::transports::TransportError>>,
    {
        self.repeat(|| async {
            request().await.map_err(|error| ChainError::transport(&self.url, what, &error))
        })
        .await
    }

    /// The same for a call of a contract.
    pub(super) async fn call<T, F>(
        &self,
        what: &'static str,
        call: impl Fn() -> F,
    ) -> Result<T, ChainError>
    where
        F: Future<Output = Result<T, alloy::contract::Error>>,
    {
        self.repeat(|| async {
            call().await.map_err(|error| ChainError::call(&self.url, what, &error))
        })
        .await
    }

    async fn repeat<T, F>(&self, mut request: impl FnMut() -> F) -> Result<T, ChainError>
    where
        F: Future<Output = Result<T, ChainError>>,
    {
        let backoff = ExponentialBuilder::default()
            .with_min_delay(Duration::from_millis(100))
            .with_max_delay(Duration::from_secs(2))
            .with_max_times(RETRIES)
            .with_jitter();
        (|| request())
            .retry(backoff)
            .when(|error| matches!(error, ChainError::Unreachable { .. }))
            .await
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
        Self { rpc, contracts, account, watcher }
    }

    /// The same connection with another account.
    #[must_use]
    pub fn with_key(&self, key: AccountKey) -> Self {
        Self { account: Some(Arc::new(Account::new(key))), ..self.clone() }
    }

    /// The same connection, reading the contracts as of one block: nodes that read at the same block
    /// read the same.
    #[must_use]
    pub fn at(&self, block: u64) -> Self {
        let mut reading = self.clone();
        reading.rpc.at = BlockId::number(block);
        reading
    }

    /// Whether this node's chain holds the block.
    ///
    /// # Errors
    /// [`ChainError::UnknownBlock`] if it has another one of that number, or none yet.
    pub async fn check_block(&self, block: BlockRef) -> Result<(), ChainError> {
        let number = BlockNumberOrTag::Number(block.number);
        let found = self
            .rpc
            .ask("a block", || self.rpc.provider.get_block_by_number(number))
            .await?
            .map(|found| found.header.hash.0);
        if found == Some(block.hash.0) { Ok(()) } else { Err(ChainError::UnknownBlock(block)) }
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

    /// Number of the last block seen. It changes with every new block, for as long as a clone of
    /// this handle lives; what was read before may be out of date then.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.watcher.subscribe()
    }

    /// The last block and its time (Unix, seconds).
    ///
    /// # Errors
    /// [`ChainError`].
    pub async fn block(&self) -> Result<(BlockRef, u64), ChainError> {
        let block = self
            .rpc
            .ask("the last block", || {
                self.rpc.provider.get_block_by_number(BlockNumberOrTag::Latest)
            })
            .await?
            .ok_or(ChainError::Unexpected("no last block"))?;
        let header = &block.header;
        let reference = BlockRef { number: header.number, hash: KeccakDigest(header.hash.0) };
        Ok((reference, header.timestamp))
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
        let [node_registry, key_ceremony, job_board, assignment_anchor] = [
            self.find(directory, "NodeRegistry").await?,
            self.find(directory, "KeyCeremony").await?,
            self.find(directory, "JobBoard").await?,
            self.find(directory, "AssignmentAnchor").await?,
        ];
        Ok(Contracts { directory, node_registry, key_ceremony, job_board, assignment_anchor })
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
