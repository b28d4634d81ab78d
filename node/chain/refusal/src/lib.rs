//! The contracts' custom errors as sentences with the next step.
//!
//! # Role
//! What a contract says when it refuses, for a person: [`Refusal`] decodes the data of a revert, and prints what
//! to do next. `veil-node-chain` makes calls and passes refusals on; it shares the registry's [`forms`].
//!
//! # Flow
//! 1. [`Refusal::decode`] tries the errors of all contracts.
//! 2. Its `Display` is a sentence of the module of that contract.
//!
//! # State and restart
//! None.

mod committees;
pub mod forms;
mod governance;
mod nodes;
mod words;
mod work;

use core::fmt;

use alloy::sol_types::SolInterface;
use veil_contracts::{
    assignment_anchor::AssignmentAnchor::AssignmentAnchorErrors as Anchor,
    committee_election::CommitteeElection::CommitteeElectionErrors as Election,
    directory::Directory::DirectoryErrors as Directory,
    disputes::Disputes::DisputesErrors as Disputes, fee_pool::FeePool::FeePoolErrors as Fees,
    job_board::JobBoard::JobBoardErrors as Jobs,
    key_ceremony::KeyCeremony::KeyCeremonyErrors as Ceremony,
    node_registry::NodeRegistry::NodeRegistryErrors as Registry,
    policy_registry::PolicyRegistry::PolicyRegistryErrors as Policy,
    timelock::Timelock::TimelockErrors as Timelock,
};
use veil_protocol_spec::hex;

use self::{
    committees::{ceremony, disputes, election},
    governance::{directory, policy, timelock},
    nodes::registry,
    work::{anchor, fees, jobs},
};

/// Why a contract refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The node registry.
    Registry(Registry),
    /// The ceremonies' commit point.
    Ceremony(Ceremony),
    /// The anchor.
    Anchor(Anchor),
    /// The job board.
    Jobs(Jobs),
    /// Policies, rights and images.
    Policy(Policy),
    /// Elections of committees.
    Election(Election),
    /// Disputes.
    Disputes(Disputes),
    /// The fee pool.
    Fees(Fees),
    /// The directory.
    Directory(Directory),
    /// Governance.
    Timelock(Timelock),
    /// An error that this build does not know: the first four bytes of the data, zeros if there are fewer.
    Unknown([u8; 4]),
}

impl Refusal {
    /// Decodes the data of a revert. Contracts that call one another pass errors on, so the errors of all
    /// contracts are tried. An error that several contracts have means the same in each; it is decoded as
    /// the first one's.
    #[must_use]
    pub fn decode(data: &[u8]) -> Self {
        fn read<E: SolInterface>(data: &[u8], wrap: impl Fn(E) -> Refusal) -> Option<Refusal> {
            E::abi_decode_validate(data).ok().map(wrap)
        }
        read(data, Self::Registry)
            .or_else(|| read(data, Self::Ceremony))
            .or_else(|| read(data, Self::Anchor))
            .or_else(|| read(data, Self::Jobs))
            .or_else(|| read(data, Self::Policy))
            .or_else(|| read(data, Self::Election))
            .or_else(|| read(data, Self::Disputes))
            .or_else(|| read(data, Self::Fees))
            .or_else(|| read(data, Self::Directory))
            .or_else(|| read(data, Self::Timelock))
            .unwrap_or_else(|| Self::Unknown(data.first_chunk().copied().unwrap_or_default()))
    }

    /// Whether a participant, the deadline or the publication has ended the attempt: the answer to a
    /// member that publishes or aborts too late.
    #[must_use]
    pub const fn is_attempt_over(&self) -> bool {
        matches!(
            self,
            Self::Ceremony(
                Ceremony::AttemptAborted(_)
                    | Ceremony::AttemptExpired(_)
                    | Ceremony::AttemptPublished(_)
            )
        )
    }

    /// Whether the certificate cannot be anchored on the head: it, a later one or another one of the same
    /// base is anchored already. If several members anchor at once, all but the first get this answer.
    #[must_use]
    pub const fn is_out_of_order(&self) -> bool {
        matches!(self, Self::Anchor(Anchor::SlotNotLater(_) | Anchor::WrongBase(_)))
    }

    /// Whether the deployment is confirmed already: by an earlier attempt whose answer did not arrive.
    #[must_use]
    pub const fn is_confirmed(&self) -> bool {
        matches!(self, Self::Anchor(Anchor::AlreadyConfirmed(_)))
    }
}

impl core::error::Error for Refusal {}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Self::Registry(error) => registry(error),
            Self::Ceremony(error) => ceremony(error),
            Self::Anchor(error) => anchor(error),
            Self::Jobs(error) => jobs(error),
            Self::Policy(error) => policy(error),
            Self::Election(error) => election(error),
            Self::Disputes(error) => disputes(error),
            Self::Fees(error) => fees(error),
            Self::Directory(error) => directory(error),
            Self::Timelock(error) => timelock(error),
            Self::Unknown(selector) => format!(
                "a contract refused for a reason this build does not know (0x{}): update it",
                hex(selector)
            ),
        };
        f.write_str(&text)
    }
}

#[cfg(test)]
mod tests {
    use alloy::json_abi::{ContractObject, Error};

    use super::*;

    macro_rules! interfaces {
        ($($name:literal),*) => {
            [$(($name, include_str!(concat!(
                env!("CARGO_MANIFEST_DIR"), "/../../../contracts/abi/", $name, ".json"
            )))),*]
        };
    }

    const INTERFACES: [(&str, &str); 9] = interfaces!(
        "AssignmentAnchor",
        "CommitteeElection",
        "Directory",
        "Disputes",
        "JobBoard",
        "KeyCeremony",
        "NodeRegistry",
        "PolicyRegistry",
        "Timelock"
    );

    /// A revert with this error, all of its arguments zero or empty.
    fn revert(error: &Error) -> Vec<u8> {
        let mut data = error.selector().to_vec();
        let (mut heads, mut tails) = (Vec::new(), Vec::new());
        for input in &error.inputs {
            let mut word = [0; 32];
            if input.ty.ends_with("[]") || input.ty == "bytes" || input.ty == "string" {
                // Where it begins: behind the heads and the lengths before, all of them zero.
                let at = 32 * error.inputs.len() + tails.len();
                word[24..].copy_from_slice(&(at as u64).to_be_bytes());
                tails.extend([0; 32]);
            }
            heads.extend(word);
        }
        data.extend(heads);
        data.extend(tails);
        data
    }

    #[test]
    fn every_error_of_the_contracts_has_a_sentence() {
        let mut errors = 0;
        for (contract, abi) in INTERFACES {
            let abi: ContractObject = serde_json::from_str(abi).unwrap();
            for error in abi.abi.unwrap().errors() {
                errors += 1;
                let refusal = Refusal::decode(&revert(error));
                let sentence = refusal.to_string();
                assert!(!matches!(refusal, Refusal::Unknown(_)), "{contract}.{}", error.name);
                assert!(sentence.contains(' ') && !sentence.contains(&error.name), "{sentence}");
            }
        }
        assert!(errors > 100, "{errors}");
    }
}
