//! Deploying the whole set, and the file that says where it is.

use std::path::Path;

use alloy::{
    network::TransactionBuilder,
    primitives::{Address as EvmAddress, Bytes},
    rpc::types::TransactionRequest,
    sol_types::SolValue,
};
use serde::{Deserialize, Serialize};
use veil_contracts::{
    assignment_anchor::AssignmentAnchor,
    directory::{Directory, IDirectory::Entry},
    job_board::JobBoard,
    key_ceremony::KeyCeremony,
    node_registry::NodeRegistry,
};
use veil_protocol_spec::{Address, ChainId};

use super::{
    Chain, ChainConfig, ChainError, Contracts,
    connection::{evm, name_word},
    rpc::Rpc,
    send::Account,
};
use crate::keystore::{KeystoreError, write_new};

/// How to reach the chain to deploy to; its `directory` is ignored, its `key` owns the directory.
pub type DeployConfig = ChainConfig;

/// Where a set is, as `veil chain deploy` writes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Deployment {
    /// The chain.
    pub chain_id: ChainId,
    /// `VEIL_CONTRACT_ADDRESS`.
    pub directory: String,
    /// Clusters and nodes.
    pub node_registry: String,
    /// Ceremonies and keys.
    pub key_ceremony: String,
    /// Job submissions.
    pub job_board: String,
    /// Certificates.
    pub assignment_anchor: String,
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
    /// Deploys a directory and the set, and connects to it.
    ///
    /// # Errors
    /// [`ChainError`]. What was deployed before it failed stays on the chain, unused.
    pub async fn deploy(config: DeployConfig) -> Result<(Self, Deployment), ChainError> {
        let rpc = Rpc::connect(&config).await?;
        let key = config.key.ok_or(ChainError::NoAccount)?;
        let account = Account::new(key.clone());
        let mut deployer = Deployer { rpc: &rpc, account: &account, gas: 0, block: 0 };

        let owner = evm(account.address());
        let directory = deployer.create(&Directory::BYTECODE, owner.abi_encode()).await?;
        let registry = deployer.create(&NodeRegistry::BYTECODE, directory.abi_encode()).await?;
        let uses_registry = (directory, registry).abi_encode_params();
        let ceremony = deployer.create(&KeyCeremony::BYTECODE, uses_registry.clone()).await?;
        let board = deployer.create(&JobBoard::BYTECODE, uses_registry).await?;
        let uses_both = (directory, registry, ceremony).abi_encode_params();
        let anchor = deployer.create(&AssignmentAnchor::BYTECODE, uses_both).await?;

        let named = [
            ("NodeRegistry", registry),
            ("KeyCeremony", ceremony),
            ("JobBoard", board),
            ("AssignmentAnchor", anchor),
        ];
        let entries = named.map(|(name, location)| Entry { name: name_word(name), location });
        let publish = Directory::new(directory, &rpc.provider)
            .publish(entries.to_vec())
            .into_transaction_request();
        deployer.send("the publication of the set", publish).await?;

        let (block, gas) = (deployer.block, deployer.gas);
        let contracts = Contracts {
            directory: ours(directory),
            node_registry: ours(registry),
            key_ceremony: ours(ceremony),
            job_board: ours(board),
            assignment_anchor: ours(anchor),
        };
        let text = |address: Address| evm(address).to_string();
        let deployment = Deployment {
            chain_id: rpc.chain_id,
            directory: text(contracts.directory),
            node_registry: text(contracts.node_registry),
            key_ceremony: text(contracts.key_ceremony),
            job_board: text(contracts.job_board),
            assignment_anchor: text(contracts.assignment_anchor),
            block,
            gas,
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
    block: u64,
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
        self.block = receipt.block_number.unwrap_or(self.block);
        Ok(receipt.contract_address)
    }
}
