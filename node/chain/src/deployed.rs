//! Whether what is on the chain is what this build deploys.

use alloy::primitives::U256;
use async_recursion::async_recursion as boxed;
use serde::Serialize;
use veil_contracts::directory::Directory;
use veil_node_chain_deployed::{InvalidDeployment, Set, check};
use veil_protocol_spec::Address;

use crate::{
    address::{address, evm},
    connection::Chain,
    contracts::checksummed,
    error::ChainError,
};

/// A contract that is as built.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DeployedContract {
    /// Its name in the directory, `Directory`, or `Timelock`.
    pub name: &'static str,
    /// Where.
    #[serde(serialize_with = "checksummed")]
    pub address: Address,
    /// Length of its code.
    pub code_bytes: usize,
}

/// A deployment that is as built.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct VerifiedDeployment {
    /// All contracts, the timelock last.
    pub contracts: Vec<DeployedContract>,
    /// The version of the set.
    pub set_version: u64,
    /// Seconds between a decision of governance and its effect.
    pub timelock_delay: u64,
    /// Blocks between the request of an election and the block that decides it.
    pub election_delay: u64,
    /// Seconds that nodes have to come before an election's candidates can be frozen.
    pub registration_window: u64,
    /// Who may pause new work.
    #[serde(serialize_with = "checksummed")]
    pub guardian: Address,
}

impl Chain {
    /// Compares what is on the chain with what this build deploys.
    ///
    /// # Errors
    /// [`ChainError`]; the first difference inside.
    #[boxed]
    pub async fn verify_deployment(
        &self,
    ) -> Result<Result<VerifiedDeployment, InvalidDeployment>, ChainError> {
        let contracts = *self.contracts();
        let directory = Directory::new(evm(contracts.directory), &self.rpc.provider);
        let version = || async { directory.currentVersion().call().await };
        let version = self.rpc.call("the directory's version", version).await?;
        let owner = || async { directory.owner().call().await };
        let timelock = address(self.rpc.call("the directory's owner", owner).await?);
        let guardian = || async { directory.guardian().call().await };
        let guardian = address(self.rpc.call("the guardian", guardian).await?);

        let named = contracts.named();
        let set = Set { named: &named, version };
        let mut verified = Vec::new();
        let (mut blocks, mut window) = (0, 0);
        for (name, at) in named.into_iter().chain([("Timelock", timelock)]) {
            let found = self.rpc.code(at).await?;
            let values = match check(&set, (name, at), &found) {
                Ok(values) => values,
                Err(difference) => return Ok(Err(difference)),
            };
            if let ("CommitteeElection", [_, _, _, delay, seconds]) = (name, &values[..]) {
                [blocks, window] =
                    [delay, seconds].map(|word| U256::from_be_bytes(word.0).saturating_to());
            }
            verified.push(DeployedContract { name, address: at, code_bytes: found.len() });
        }
        Ok(Ok(VerifiedDeployment {
            contracts: verified,
            set_version: version,
            timelock_delay: self.timelock_delay(timelock).await?,
            election_delay: blocks,
            registration_window: window,
            guardian,
        }))
    }
}
