//! Deploying the whole set of contracts, and the record of where it is.

use alloy::{
    network::TransactionBuilder,
    primitives::{Address as EvmAddress, Bytes, U256},
    rpc::types::TransactionRequest,
    sol_types::SolValue,
};
use async_recursion::async_recursion as boxed;
use serde::Serialize;
use veil_contracts::{
    assignment_anchor::AssignmentAnchor,
    committee_election::CommitteeElection,
    directory::{Directory, IDirectory::Entry},
    disputes::Disputes,
    job_board::JobBoard,
    key_ceremony::KeyCeremony,
    node_registry::NodeRegistry,
    policy_registry::PolicyRegistry,
    timelock::Timelock,
};
use veil_protocol_spec::{Address, ChainId};

use crate::{
    account::Account,
    address::{address, evm, name_word},
    config::ChainConfig,
    connection::Chain,
    contracts::{Contracts, checksummed},
    error::ChainError,
    rpc::Rpc,
};

/// How to reach the chain to deploy to; its `directory` is ignored, its `key` owns the directory.
pub type DeployConfig = ChainConfig;

/// The options of a set. Only the timelock can change them later.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeployOptions {
    /// Seconds between a decision of governance and its effect. If none is given: 0 on a local chain, two
    /// days on others.
    pub timelock_delay: Option<u64>,
    /// Who may pause new work; the deployer if none is given.
    pub guardian: Option<Address>,
    /// Blocks between the request of an election and the block that decides it. If none is given: 1 on a
    /// local chain; on others 128, four epochs of Ethereum, since the proposers of the next two could
    /// foresee prevrandao (EIP-4399).
    pub election_delay: Option<u64>,
    /// Seconds that nodes have to come before an election's candidates can be frozen, counted from the cluster's
    /// registration or the key before. If none is given: 0 on a local chain, one day on others.
    pub registration_window: Option<u64>,
}

/// The timelock's delay on a chain that is not local: two days.
const DEFAULT_TIMELOCK_SECONDS: u64 = 2 * 24 * 3600;
/// The delay of an election on a chain that is not local: four epochs of Ethereum.
const DEFAULT_ELECTION_BLOCKS: u64 = 128;
/// The time to come before an election on a chain that is not local: one day.
const DEFAULT_WINDOW_SECONDS: u64 = 24 * 3600;

/// Where a set is: the record that `veil chain deploy` writes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Deployment {
    /// The chain.
    pub chain_id: ChainId,
    /// The contracts; the directory is `VEIL_CONTRACT_ADDRESS`.
    #[serde(flatten)]
    pub contracts: Contracts,
    /// The directory's owner: governance.
    #[serde(serialize_with = "checksummed")]
    pub timelock: Address,
    /// The block of the first transaction: a node's `chain.first_block`.
    pub first_block: u64,
    /// The block of the last transaction.
    pub block: u64,
    /// Gas of all transactions.
    pub gas: u64,
}

impl Deployment {
    /// The record as JSON, one field a line.
    #[must_use]
    pub fn to_text(&self) -> String {
        serde_json::to_string_pretty(self).expect("texts and numbers under names are JSON") + "\n"
    }
}

impl Chain {
    /// Deploys a directory and the set with the defaults of the chain, and connects to it.
    ///
    /// # Errors
    /// [`ChainError`].
    #[boxed]
    pub async fn deploy(config: DeployConfig) -> Result<(Self, Deployment), ChainError> {
        Self::deploy_with(config, DeployOptions::default()).await
    }

    /// Deploys a directory and the set, and connects to it. The account owns nothing of it; it may
    /// propose to, and execute through, the timelock.
    ///
    /// # Errors
    /// [`ChainError`]. What was deployed before it failed stays on the chain, unused.
    #[boxed]
    pub async fn deploy_with(
        config: DeployConfig,
        options: DeployOptions,
    ) -> Result<(Self, Deployment), ChainError> {
        let rpc = Rpc::connect(&config).await?;
        let key = config.key.ok_or(ChainError::NoAccount)?;
        let account = Account::new(key.clone());
        let mut deployer = Deployer { rpc: &rpc, account: &account, gas: 0, blocks: None };
        let local = rpc.is_local();
        let seconds =
            options.timelock_delay.unwrap_or(if local { 0 } else { DEFAULT_TIMELOCK_SECONDS });
        let blocks =
            options.election_delay.unwrap_or(if local { 1 } else { DEFAULT_ELECTION_BLOCKS });
        let window =
            options.registration_window.unwrap_or(if local { 0 } else { DEFAULT_WINDOW_SECONDS });

        let own = evm(account.address());
        let guardian = options.guardian.map_or(own, evm);
        let timelock = deployer
            .create(
                &Timelock::BYTECODE,
                (U256::from(seconds), vec![own], vec![own], EvmAddress::ZERO).abi_encode_params(),
            )
            .await?;
        let directory =
            deployer.create(&Directory::BYTECODE, (timelock, guardian).abi_encode_params()).await?;
        let registry = deployer.create(&NodeRegistry::BYTECODE, directory.abi_encode()).await?;
        let uses_registry = (directory, registry).abi_encode_params();
        let policies = deployer.create(&PolicyRegistry::BYTECODE, uses_registry).await?;
        let elects = (directory, registry, blocks, window).abi_encode_params();
        let election = deployer.create(&CommitteeElection::BYTECODE, elects).await?;
        let uses_both = (directory, registry, election).abi_encode_params();
        let ceremony = deployer.create(&KeyCeremony::BYTECODE, uses_both).await?;
        let with_policies = (directory, policies, registry).abi_encode_params();
        let with_registry = (directory, registry, ceremony).abi_encode_params();
        let board = deployer.create(&JobBoard::BYTECODE, with_policies).await?;
        let anchor = deployer.create(&AssignmentAnchor::BYTECODE, with_registry).await?;
        let judges = (directory, registry, ceremony, anchor).abi_encode_params();
        let disputes = deployer.create(&Disputes::BYTECODE, judges).await?;

        let contracts = Contracts {
            directory: address(directory),
            node_registry: address(registry),
            policy_registry: address(policies),
            committee_election: address(election),
            key_ceremony: address(ceremony),
            job_board: address(board),
            assignment_anchor: address(anchor),
            disputes: address(disputes),
        };
        let set = contracts.named().into_iter().filter(|(_, at)| *at != contracts.directory);
        let entry = |(name, at)| Entry { name: name_word(name), location: evm(at) };
        let publish = Directory::new(directory, &rpc.provider)
            .publish(set.map(entry).collect())
            .into_transaction_request();
        deployer.send("the publication of the set", publish).await?;

        let (first_block, block) = deployer.blocks.unwrap_or_default();
        let deployment = Deployment {
            chain_id: rpc.chain_id,
            contracts,
            timelock: address(timelock),
            first_block,
            block,
            gas: deployer.gas,
        };
        Ok((Self::assemble(rpc, contracts, Some(key)), deployment))
    }
}

struct Deployer<'a> {
    rpc: &'a Rpc,
    account: &'a Account,
    gas: u64,
    /// The blocks of the first and of the last transaction.
    blocks: Option<(u64, u64)>,
}

impl Deployer<'_> {
    async fn create(
        &mut self,
        bytecode: &Bytes,
        arguments: Vec<u8>,
    ) -> Result<EvmAddress, ChainError> {
        let code: Bytes = [bytecode.as_ref(), &arguments].concat().into();
        let request = TransactionRequest::default().with_deploy_code(code);
        let address = self.send("a deployment", request).await?;
        address.ok_or(ChainError::Unexpected("a deployment without an address"))
    }

    async fn send(
        &mut self,
        what: &'static str,
        request: TransactionRequest,
    ) -> Result<Option<EvmAddress>, ChainError> {
        let receipt = self.account.send(self.rpc, what, request).await?;
        self.gas += receipt.gas_used;
        if let Some(block) = receipt.block_number {
            self.blocks = Some((self.blocks.map_or(block, |(first, _)| first), block));
        }
        Ok(receipt.contract_address)
    }
}
