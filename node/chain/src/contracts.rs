//! The contracts of a set: one table of them, and finding them through the directory.

use alloy::providers::Provider;
use serde::{Serialize, Serializer};
use veil_contracts::directory::Directory;
use veil_node_chain_refusal::Refusal;
use veil_protocol_spec::Address;

use crate::{
    address::{address, evm, name_word},
    error::ChainError,
    rpc::Rpc,
};

/// The interface version of the contracts that this build speaks.
const INTERFACE_VERSION: u16 = 6;

/// Declares what depends on the list of contracts: their addresses, their names in the directory, their
/// interfaces.
macro_rules! contracts {
    ($($(#[$doc:meta])* $field:ident: $name:literal,)*) => {
        /// Addresses of the active set. As JSON: in the form of EIP-55.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
        pub struct Contracts {
            /// The directory that names the others.
            #[serde(serialize_with = "checksummed")]
            pub directory: Address,
            $($(#[$doc])* #[serde(serialize_with = "checksummed")] pub $field: Address,)*
        }

        /// Each contract's name and its checked-in interface, the directory first.
        pub(crate) const INTERFACES: &[(&str, &str)] = &[
            ("Directory", interface!("Directory")),
            $(($name, interface!($name)),)*
        ];

        impl Contracts {
            /// Each contract's name in the directory and its address, the directory first.
            #[must_use]
            pub const fn named(&self) -> [(&'static str, Address); INTERFACES.len()] {
                [("Directory", self.directory), $(($name, self.$field),)*]
            }

            /// Asks the directory for all others.
            async fn find(rpc: &Rpc, directory: Address) -> Result<Self, ChainError> {
                Ok(Self { directory, $($field: rpc.find(directory, $name).await?,)* })
            }
        }
    };
}

macro_rules! interface {
    ($name:literal) => {
        include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../contracts/abi/", $name, ".json"))
    };
}

contracts! {
    /// Clusters, their nodes, and stake.
    node_registry: "NodeRegistry",
    /// Policies, rights, images.
    policy_registry: "PolicyRegistry",
    /// Elections of committees.
    committee_election: "CommitteeElection",
    /// Ceremonies and keys.
    key_ceremony: "KeyCeremony",
    /// Job submissions.
    job_board: "JobBoard",
    /// Certificates.
    assignment_anchor: "AssignmentAnchor",
    /// Disputes and slashing.
    disputes: "Disputes",
    /// What steps on the chain cost and work earns.
    fee_pool: "FeePool",
}

/// Writes an address in the form of EIP-55, with `0x`.
pub(crate) fn checksummed<S: Serializer>(
    address: &Address,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&evm(*address))
}

impl Rpc {
    /// The set that a directory names, if this build speaks its interface.
    pub(crate) async fn contracts(&self, directory: Address) -> Result<Contracts, ChainError> {
        let at = evm(directory);
        let code = self.ask("the directory", || self.provider.get_code_at(at)).await?;
        let no_directory = || ChainError::NoDirectory { address: directory, chain: self.chain_id };
        if code.is_empty() {
            return Err(no_directory());
        }
        let contract = Directory::new(at, &self.provider);
        let version = self
            .call("the directory", || async { contract.interfaceVersion().call().await })
            .await
            .map_err(|error| if error.is_transient() { error } else { no_directory() })?;
        check_version("Directory", version)?;
        Contracts::find(self, directory).await
    }

    async fn find(&self, directory: Address, name: &'static str) -> Result<Address, ChainError> {
        let contract = Directory::new(evm(directory), &self.provider);
        let found = self
            .call(name, || async { contract.contractOf(name_word(name)).call().await })
            .await
            .map_err(|error| match error.refusal() {
                Some(Refusal::Directory(_)) => ChainError::Incomplete { directory, contract: name },
                // Another contract, which has no such function.
                Some(_) => ChainError::NoDirectory { address: directory, chain: self.chain_id },
                None => error,
            })?;
        // All contracts have this function in common.
        let contract = Directory::new(found, &self.provider);
        let version =
            self.call(name, || async { contract.interfaceVersion().call().await }).await?;
        check_version(name, version)?;
        Ok(address(found))
    }
}

fn check_version(contract: &'static str, found: u16) -> Result<(), ChainError> {
    if found == INTERFACE_VERSION {
        Ok(())
    } else {
        Err(ChainError::Version { contract, found, supported: INTERFACE_VERSION })
    }
}
