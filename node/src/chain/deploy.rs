//! Deploying the whole set, and the file that says where it is.

use std::path::Path;

use alloy::{
    network::TransactionBuilder,
    primitives::{Address as EvmAddress, Bytes, U256},
    rpc::types::TransactionRequest,
    sol_types::SolValue,
};
use serde::{Deserialize, Serialize};
use veil_contracts::{
    assignment_anchor::AssignmentAnchor,
    checkpoint_channel::CheckpointChannel,
    committee_election::CommitteeElection,
    directory::{Directory, IDirectory::Entry},
    disputes::Disputes,
    job_board::JobBoard,
    key_ceremony::KeyCeremony,
    node_registry::NodeRegistry,
    policy_registry::PolicyRegistry,
    timelock::Timelock,
};
use veil_node_storage::{durable::write_new, keystore::KeystoreError};
use veil_protocol_spec::{Address, ChainId};

use super::{
    Chain, ChainConfig, ChainError, Contracts,
    connection::{evm, name_word},
    rpc::Rpc,
    send::Account,
};

/// How to reach the chain to deploy to; its `directory` is ignored, its `key` owns the directory.
pub type DeployConfig = ChainConfig;

/// What a set is deployed with; it cannot be changed later, except by the timelock itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeployOptions {
    /// Seconds between a decision of governance and its effect. If none is given: none on a local
    /// chain, two days on others.
    pub timelock_delay: Option<u64>,
    /// Who may pause new work; the deployer if none is given.
    pub guardian: Option<Address>,
    /// Blocks between the request of an election and the block that decides it. If none is given: 1 on a
    /// local chain; on others 128, four epochs of Ethereum, since the proposers of the next two could
    /// foresee prevrandao (EIP-4399).
    pub election_delay: Option<u64>,
}

/// Two days.
const TIMELOCK_SECONDS: u64 = 2 * 24 * 3600;
/// Four epochs of Ethereum.
const ELECTION_BLOCKS: u64 = 128;

/// Where a set is, as `veil chain deploy` writes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Deployment {
    /// The chain.
    pub chain_id: ChainId,
    /// `VEIL_CONTRACT_ADDRESS`.
    pub directory: String,
    /// The directory's owner: governance.
    pub timelock: String,
    /// Clusters, nodes, stake.
    pub node_registry: String,
    /// Policies, rights, images.
    pub policy_registry: String,
    /// Elections.
    pub committee_election: String,
    /// Ceremonies and keys.
    pub key_ceremony: String,
    /// Job submissions.
    pub job_board: String,
    /// Certificates.
    pub assignment_anchor: String,
    /// Disputes.
    pub disputes: String,
    /// Checkpoints.
    pub checkpoint_channel: String,
    /// The block of the first transaction: `chain.first_block`.
    pub first_block: u64,
    /// The block of the last transaction.
    pub block: u64,
    /// Gas of all transactions.
    pub gas: u64,
}

impl Deployment {
    /// Writes it as JSON, not over an existing file.
    ///
    /// # Errors
    /// [`ChainError::File`].
    pub fn write(&self, path: &Path) -> Result<(), ChainError> {
        let text = serde_json::to_string_pretty(self).unwrap_or_default() + "\n";
        write_new(path, 0o644, text.as_bytes()).map_err(|error| ChainError::File {
            path: path.to_owned(),
            source: match error {
                KeystoreError::Io { source, .. } => source,
                other => std::io::Error::other(other.to_string()),
            },
        })
    }

    /// Reads what [`Self::write`] wrote.
    ///
    /// # Errors
    /// [`ChainError::File`].
    pub fn read(path: &Path) -> Result<Self, ChainError> {
        let file = |source| ChainError::File { path: path.to_owned(), source };
        let text = std::fs::read_to_string(path).map_err(file)?;
        serde_json::from_str(&text).map_err(|error| file(error.into()))
    }
}

impl Chain {
    /// Deploys a directory and the set with the defaults of the chain, and connects to it.
    ///
    /// # Errors
    /// [`ChainError`].
    pub async fn deploy(config: DeployConfig) -> Result<(Self, Deployment), ChainError> {
        Self::deploy_with(config, DeployOptions::default()).await
    }

    /// Deploys a directory and the set, and connects to it. The account owns nothing of it; it may
    /// propose to, and execute through, the timelock.
    ///
    /// # Errors
    /// [`ChainError`]. What was deployed before it failed stays on the chain, unused.
    pub async fn deploy_with(
        config: DeployConfig,
        options: DeployOptions,
    ) -> Result<(Self, Deployment), ChainError> {
        let rpc = Rpc::connect(&config).await?;
        let key = config.key.ok_or(ChainError::NoAccount)?;
        let account = Account::new(key.clone());
        let mut deployer = Deployer { rpc: &rpc, account: &account, gas: 0, blocks: None };
        let local = rpc.is_local();
        let seconds = options.timelock_delay.unwrap_or(if local { 0 } else { TIMELOCK_SECONDS });
        let blocks = options.election_delay.unwrap_or(if local { 1 } else { ELECTION_BLOCKS });

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
        let uses_registry = (directory, registry, blocks).abi_encode_params();
        let election = deployer.create(&CommitteeElection::BYTECODE, uses_registry).await?;
        let uses_both = (directory, registry, election).abi_encode_params();
        let ceremony = deployer.create(&KeyCeremony::BYTECODE, uses_both).await?;
        let with_policies = (directory, policies, ceremony).abi_encode_params();
        let with_registry = (directory, registry, ceremony).abi_encode_params();
        let board = deployer.create(&JobBoard::BYTECODE, with_policies.clone()).await?;
        let anchor = deployer.create(&AssignmentAnchor::BYTECODE, with_registry.clone()).await?;
        let disputes = deployer.create(&Disputes::BYTECODE, with_registry).await?;
        let channel = deployer.create(&CheckpointChannel::BYTECODE, with_policies).await?;

        let contracts = Contracts {
            directory: ours(directory),
            node_registry: ours(registry),
            policy_registry: ours(policies),
            committee_election: ours(election),
            key_ceremony: ours(ceremony),
            job_board: ours(board),
            assignment_anchor: ours(anchor),
            disputes: ours(disputes),
            checkpoint_channel: ours(channel),
        };
        let set = contracts.named().into_iter().filter(|(_, at)| *at != contracts.directory);
        let entry = |(name, at)| Entry { name: name_word(name), location: evm(at) };
        let publish = Directory::new(directory, &rpc.provider)
            .publish(set.map(entry).collect())
            .into_transaction_request();
        deployer.send("the publication of the set", publish).await?;

        let text = |address: Address| evm(address).to_string();
        let (first_block, block) = deployer.blocks.unwrap_or_default();
        let deployment = Deployment {
            chain_id: rpc.chain_id,
            directory: text(contracts.directory),
            timelock: timelock.to_string(),
            node_registry: text(contracts.node_registry),
            policy_registry: text(contracts.policy_registry),
            committee_election: text(contracts.committee_election),
            key_ceremony: text(contracts.key_ceremony),
            job_board: text(contracts.job_board),
            assignment_anchor: text(contracts.assignment_anchor),
            disputes: text(contracts.disputes),
            checkpoint_channel: text(contracts.checkpoint_channel),
            first_block,
            block,
            gas: deployer.gas,
        };
        Ok((Self::assemble(rpc, contracts, Some(key)), deployment))
    }
}

fn ours(address: EvmAddress) -> Address {
    Address(address.0.0)
}

struct Deployer<'a> {
    rpc: &'a Rpc,
    account: &'a Account,
    gas: u64,
    /// Of the first and of the last transaction.
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
