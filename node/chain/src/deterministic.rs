//! Deploying through the deterministic deployer: for a contract account, which cannot create contracts itself, and for
//! whoever wants to go on after a failure.
//!
//! Source: EIP-1014; the deployer is <https://github.com/Arachnid/deterministic-deployment-proxy>, which is on most
//! chains at the same address.
//!
//! # Flow
//! 1. A contract's address follows from its creation code and a salt, so that what is there already is left out.
//! 2. Who deployed the directory is the deployer, which publishes nothing. The governor puts the set in force through
//!    the timelock, which begins without a delay, and in the same operation gets the one that it is to have.
//! 3. Once nothing is missing, the addresses are those that the directory names.
//!
//! # Restart
//! The same call with the same options and salt goes on where the last one ended.

use alloy::{
    primitives::{Address as EvmAddress, B256, Bytes, U256},
    providers::Provider,
    rpc::types::{Filter, TransactionRequest},
    sol_types::{SolCall, SolEvent},
};
use async_recursion::async_recursion as boxed;
use veil_contracts::{
    directory::Directory::{self, SetPublished},
    timelock::Timelock,
};
use veil_protocol_spec::Address;

use crate::{
    account::Account,
    address::{DEPLOYER, address, evm},
    batch::UnsignedCall,
    config::ChainConfig,
    connection::Chain,
    contracts::Contracts,
    deploy::{DeployOptions, Deployer, Deployment, Plan, entries},
    error::ChainError,
    rpc::Rpc,
};

/// Gas that one batch may take as a whole: three quarters of what a transaction may (EIP-7825), since a contract account
/// sends a batch as one.
const BATCH_GAS: usize = 12_500_000;

/// Something to be done, in order.
struct Step {
    what: &'static str,
    to: EvmAddress,
    data: Bytes,
    /// About, and rather too much.
    gas: usize,
    /// Whether only the governor can.
    governs: bool,
}

impl Chain {
    /// Deploys a directory and the set to addresses that follow from options and salt, and connects to it. What is on
    /// the chain already is left out. With a draft in place of a key, what is missing is written down for others to
    /// sign, a batch at a time; the governor is then whom the draft is for, if no other is given.
    ///
    /// # Errors
    /// [`ChainError`]; `Unsigned` as long as something is missing that others sign.
    #[boxed]
    pub async fn deploy_deterministic(
        config: ChainConfig,
        options: DeployOptions,
        salt: [u8; 32],
    ) -> Result<(Self, Deployment), ChainError> {
        let rpc = Rpc::connect(&config).await?;
        let sender = match (&config.key, config.draft) {
            (_, Some(draft)) => draft.from.or(options.governor),
            (Some(key), None) => Some(key.address()),
            (None, None) => None,
        };
        let sender = sender.ok_or(ChainError::NoAccount)?;
        let plan = Plan::of(&rpc, &options, sender);
        if rpc.code(DEPLOYER).await?.is_empty() {
            return Err(ChainError::NoDeployer { chain: rpc.chain_id });
        }
        let (timelock, contracts, mut steps) = rpc.missing(&plan, salt.into()).await?;

        let mut key = config.key;
        if let Some(draft) = config.draft.filter(|_| !steps.is_empty()) {
            let mut gas = 0;
            let fits = steps.iter().take_while(|step| {
                gas += step.gas;
                gas <= BATCH_GAS
            });
            let now = fits.count().max(1);
            let left = steps.len() - now;
            steps.truncate(now);
            let calls = steps.into_iter().map(Step::unsigned).collect();
            return Err(rpc.unsigned(draft, calls, left).await);
        }
        let (mut gas, mut first) = (0, None);
        if !steps.is_empty() {
            let own = key.take().ok_or(ChainError::NoAccount)?;
            let account = Account::new(own.clone());
            let mut deployer = Deployer::new(&rpc, &account);
            for Step { what, to, data, governs, .. } in steps {
                if governs && plan.governor != evm(sender) {
                    let governor = address(plan.governor);
                    return Err(ChainError::NotGovernor { account: sender, governor });
                }
                let request = TransactionRequest::default().to(to).input(data.into());
                deployer.send(what, request).await?;
            }
            gas = deployer.gas;
            first = deployer.blocks.map(|(first, _)| first);
            key = Some(own);
        }
        let found = rpc.contracts(contracts.directory).await?;
        if found != contracts {
            return Err(ChainError::Unexpected("another set than was deployed"));
        }
        let block = rpc.published_in(&contracts).await?;
        let deployment = Deployment {
            chain_id: rpc.chain_id,
            contracts,
            timelock,
            first_block: first.map_or(block, |first| first.min(block)),
            block,
            gas,
        };
        Ok((Self::assemble(rpc, contracts, key), deployment))
    }
}

impl Rpc {
    /// Where everything is going to be, and what is not there yet.
    async fn missing(
        &self,
        plan: &Plan,
        salt: B256,
    ) -> Result<(Address, Contracts, Vec<Step>), ChainError> {
        let deployer = evm(DEPLOYER);
        // The delay comes with the publication.
        let begins = plan.without_delay();
        let (mut at, mut steps) = (Vec::new(), Vec::new());
        while let Some(code) = begins.next(&at) {
            let there = deployer.create2_from_code(salt, &code);
            if self.code(address(there)).await?.is_empty() {
                let data: Bytes = [salt.as_slice(), &code].concat().into();
                let gas = 100_000 + 240 * data.len();
                let what = "the deployment of a contract";
                steps.push(Step { what, to: deployer, data, gas, governs: false });
            }
            at.push(there);
        }
        let (timelock, contracts) =
            Plan::contracts(&at).ok_or(ChainError::Unexpected("a set without all contracts"))?;
        let directory = evm(contracts.directory);
        if steps.is_empty() {
            let contract = Directory::new(directory, &self.provider);
            let version = || async { contract.currentVersion().call().await };
            if self.call("the directory's version", version).await? > 0 {
                return Ok((timelock, contracts, steps));
            }
        }
        let publish = Directory::publishCall { entries: entries(&contracts) }.abi_encode();
        let (mut targets, mut payloads) = (vec![directory], vec![Bytes::from(publish)]);
        if plan.delay > 0 {
            let raise = Timelock::updateDelayCall { newDelay: U256::from(plan.delay) };
            targets.push(evm(timelock));
            payloads.push(raise.abi_encode().into());
        }
        let values = vec![U256::ZERO; targets.len()];
        let contract = Timelock::new(evm(timelock), &self.provider);
        let scheduled = if steps.is_empty() {
            let parts = (targets.clone(), values.clone(), payloads.clone());
            let id = contract.hashOperationBatch(parts.0, parts.1, parts.2, B256::ZERO, salt);
            let id = self.call("an operation's id", || async { id.call().await }).await?;
            let is = || async { contract.isOperation(id).call().await };
            self.call("an operation", is).await?
        } else {
            false
        };
        let mut step = |what, data: Vec<u8>| {
            let (to, data) = (evm(timelock), data.into());
            steps.push(Step { what, to, data, gas: 1_000_000, governs: true });
        };
        if !scheduled {
            let schedule = Timelock::scheduleBatchCall {
                targets: targets.clone(),
                values: values.clone(),
                payloads: payloads.clone(),
                predecessor: B256::ZERO,
                salt,
                delay: U256::ZERO,
            };
            step("the scheduling of the set", schedule.abi_encode());
        }
        let predecessor = B256::ZERO;
        let execute = Timelock::executeBatchCall { targets, values, payloads, predecessor, salt };
        step("the publication of the set", execute.abi_encode());
        Ok((timelock, contracts, steps))
    }

    /// The code at an address at the last block.
    pub(crate) async fn code(&self, at: Address) -> Result<Bytes, ChainError> {
        self.ask("a contract's code", || self.provider.get_code_at(evm(at))).await
    }

    /// The block in which the first set came into force.
    async fn published_in(&self, contracts: &Contracts) -> Result<u64, ChainError> {
        let filter = Filter::new()
            .address(evm(contracts.directory))
            .event_signature(SetPublished::SIGNATURE_HASH)
            .topic1(B256::from(U256::ONE));
        let what = "the publication of the set";
        let found = self.last_log(what, &filter, self.all_blocks().await?).await?;
        let block = found.and_then(|log| log.block_number);
        block.ok_or(ChainError::Unexpected("a set without the event of its publication"))
    }
}

impl Step {
    fn unsigned(self) -> UnsignedCall {
        let Self { what, to, data, .. } = self;
        UnsignedCall { what, to: address(to), value: U256::ZERO, data: data.into() }
    }
}
