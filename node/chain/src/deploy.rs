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
    fee_pool::FeePool,
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
    /// Who proposes to the timelock and executes through it; the deployer if none is given.
    pub governor: Option<Address>,
    /// Who may pause new work; the governor if none is given.
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

    /// Deploys a directory and the set, and connects to it. The account owns nothing of it; unless there is another
    /// governor, it may propose to, and execute through, the timelock.
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
        let mut deployer = Deployer::new(&rpc, &account);
        let plan = Plan::of(&rpc, &options, account.address());
        let mut at = Vec::new();
        while let Some(code) = plan.next(&at) {
            at.push(deployer.create(code).await?);
        }
        let (timelock, contracts) =
            Plan::contracts(&at).ok_or(ChainError::Unexpected("a set without all contracts"))?;
        let publish = Directory::new(evm(contracts.directory), &rpc.provider)
            .publish(entries(&contracts))
            .into_transaction_request();
        deployer.send("the publication of the set", publish).await?;

        let (first_block, block) = deployer.blocks.unwrap_or_default();
        let deployment = Deployment {
            chain_id: rpc.chain_id,
            contracts,
            timelock,
            first_block,
            block,
            gas: deployer.gas,
        };
        Ok((Self::assemble(rpc, contracts, Some(key)), deployment))
    }
}

/// What a set is made of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) governor: EvmAddress,
    guardian: EvmAddress,
    /// Seconds of the timelock's delay.
    pub(crate) delay: u64,
    /// Blocks of the delay of an election.
    blocks: u64,
    /// Seconds of the window before an election.
    window: u64,
}

impl Plan {
    pub(crate) fn of(rpc: &Rpc, options: &DeployOptions, deployer: Address) -> Self {
        let or = |given: Option<u64>, local, elsewhere| {
            given.unwrap_or(if rpc.is_local() { local } else { elsewhere })
        };
        let governor = options.governor.unwrap_or(deployer);
        Self {
            governor: evm(governor),
            guardian: evm(options.guardian.unwrap_or(governor)),
            delay: or(options.timelock_delay, 0, DEFAULT_TIMELOCK_SECONDS),
            blocks: or(options.election_delay, 1, DEFAULT_ELECTION_BLOCKS),
            window: or(options.registration_window, 0, DEFAULT_WINDOW_SECONDS),
        }
    }

    /// The same with a timelock that has no delay yet.
    pub(crate) const fn without_delay(mut self) -> Self {
        self.delay = 0;
        self
    }

    /// The creation code of the contract that comes after those; `None` after the last.
    pub(crate) fn next(&self, at: &[EvmAddress]) -> Option<Bytes> {
        let (code, arguments) = match *at {
            [] => {
                let (delay, governor) = (U256::from(self.delay), vec![self.governor]);
                let roles = (delay, governor.clone(), governor, EvmAddress::ZERO);
                (&Timelock::BYTECODE, roles.abi_encode_params())
            }
            [timelock] => (&Directory::BYTECODE, (timelock, self.guardian).abi_encode_params()),
            [_, directory] => (&NodeRegistry::BYTECODE, directory.abi_encode()),
            [_, directory, registry] => {
                (&PolicyRegistry::BYTECODE, (directory, registry).abi_encode_params())
            }
            [_, directory, registry, _] => {
                let elects = (directory, registry, self.blocks, self.window);
                (&CommitteeElection::BYTECODE, elects.abi_encode_params())
            }
            [_, directory, registry, _, election] => {
                (&KeyCeremony::BYTECODE, (directory, registry, election).abi_encode_params())
            }
            [_, directory, registry, policies, _, _] => {
                (&JobBoard::BYTECODE, (directory, policies, registry).abi_encode_params())
            }
            [_, directory, registry, _, _, ceremony, _] => {
                (&AssignmentAnchor::BYTECODE, (directory, registry, ceremony).abi_encode_params())
            }
            [_, directory, registry, _, _, ceremony, _, anchor] => {
                let judges = (directory, registry, ceremony, anchor);
                (&Disputes::BYTECODE, judges.abi_encode_params())
            }
            [_, directory, registry, _, election, ceremony, _, anchor, _] => {
                let pays = (directory, registry, election, ceremony, anchor);
                (&FeePool::BYTECODE, pays.abi_encode_params())
            }
            _ => return None,
        };
        Some([code.as_ref(), &arguments].concat().into())
    }

    /// The timelock and the set, if all are there.
    pub(crate) fn contracts(at: &[EvmAddress]) -> Option<(Address, Contracts)> {
        // In the order in which they are made.
        let mut at = at.iter().copied().map(address);
        let timelock = at.next()?;
        let contracts = Contracts {
            directory: at.next()?,
            node_registry: at.next()?,
            policy_registry: at.next()?,
            committee_election: at.next()?,
            key_ceremony: at.next()?,
            job_board: at.next()?,
            assignment_anchor: at.next()?,
            disputes: at.next()?,
            fee_pool: at.next()?,
        };
        Some((timelock, contracts))
    }
}

/// What a directory publishes of a set.
pub(crate) fn entries(contracts: &Contracts) -> Vec<Entry> {
    let set = contracts.named().into_iter().filter(|(_, at)| *at != contracts.directory);
    set.map(|(name, at)| Entry { name: name_word(name), location: evm(at) }).collect()
}

/// Sends one transaction after the other.
pub(crate) struct Deployer<'a> {
    rpc: &'a Rpc,
    account: &'a Account,
    pub(crate) gas: u64,
    /// The blocks of the first and of the last transaction.
    pub(crate) blocks: Option<(u64, u64)>,
}

impl<'a> Deployer<'a> {
    pub(crate) const fn new(rpc: &'a Rpc, account: &'a Account) -> Self {
        Self { rpc, account, gas: 0, blocks: None }
    }

    async fn create(&mut self, code: Bytes) -> Result<EvmAddress, ChainError> {
        let request = TransactionRequest::default().with_deploy_code(code);
        let address = self.send("a deployment", request).await?;
        address.ok_or(ChainError::Unexpected("a deployment without an address"))
    }

    pub(crate) async fn send(
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
