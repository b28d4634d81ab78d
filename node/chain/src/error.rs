//! What can go wrong between this node and the chain; every message says what to do next.

use alloy::{
    contract,
    transports::{RpcError, TransportError, TransportErrorKind},
};
use veil_protocol_spec::{Address, ChainId, KeccakDigest, scheduling::BlockRef};

use crate::{
    fault::{Fault, NoEndpoint},
    point::InvalidPoint,
    refusal::Refusal,
};

/// Why the chain could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum ChainError {
    /// No endpoint answers, in spite of repetition.
    #[error(
        "the chain's RPC {url} does not answer ({detail}): check --rpc or VEIL_RPC_URL, and that the node behind it runs"
    )]
    Unreachable {
        /// Where; several are separated by commas.
        url: String,
        /// What each did.
        detail: String,
    },
    /// The address of the RPC is none.
    #[error("{url} is not the URL of an RPC ({detail}): give one such as http://127.0.0.1:8545")]
    InvalidUrl {
        /// What was given.
        url: String,
        /// What is wrong.
        detail: String,
    },
    /// An answer that says no, without a reason of the contracts.
    #[error("the chain's RPC refused {what}: {detail}")]
    Rpc {
        /// What was asked.
        what: &'static str,
        /// What it said.
        detail: String,
    },
    /// Another chain than expected.
    #[error(
        "the RPC {url} serves chain {found}, not {expected}: point VEIL_RPC_URL or --rpc at the right chain"
    )]
    WrongChain {
        /// The endpoint.
        url: String,
        /// Configured.
        expected: ChainId,
        /// Served.
        found: ChainId,
    },
    /// No directory at the configured address.
    #[error(
        "there is no directory of Veil at 0x{address} on chain {chain}: check VEIL_CONTRACT_ADDRESS, or deploy one with `veil chain deploy`"
    )]
    NoDirectory {
        /// Where it should be.
        address: Address,
        /// On which chain.
        chain: ChainId,
    },
    /// The directory does not name a contract.
    #[error(
        "the directory 0x{directory} names no {contract}: its owner publishes a complete set, or deploy one with `veil chain deploy`"
    )]
    Incomplete {
        /// Which directory.
        directory: Address,
        /// What is missing.
        contract: &'static str,
    },
    /// Contracts of another version.
    #[error(
        "{contract} has interface version {found}; this build speaks {supported}: update the older side"
    )]
    Version {
        /// Which contract.
        contract: &'static str,
        /// Its version.
        found: u16,
        /// Of this build.
        supported: u16,
    },
    /// A contract said no.
    #[error("{0}")]
    Refused(#[from] Refusal),
    /// Sending needs an account.
    #[error(
        "this needs an account's key: set VEIL_CHAIN_KEY, or give a JSON keystore with --keystore and its passphrase"
    )]
    NoAccount,
    /// Not enough to pay for gas.
    #[error("account 0x{account} cannot pay for the transaction ({detail}): fund it and repeat")]
    Funds {
        /// Which account.
        account: Address,
        /// What the node said.
        detail: String,
    },
    /// Sent, but not in the chain in time. It may still get there.
    #[error(
        "transaction 0x{transaction} is not in the chain after {seconds} s; it may still get there: look at `veil chain status` before repeating"
    )]
    NotMined {
        /// Its hash.
        transaction: KeccakDigest,
        /// How long was waited.
        seconds: u64,
    },
    /// Not in the chain in time, and certain never to get there.
    #[error(
        "transaction 0x{transaction} was not in the chain after {seconds} s and is withdrawn: nothing was done; repeat, with a longer --timeout if the chain is slow"
    )]
    Withdrawn {
        /// Its hash.
        transaction: KeccakDigest,
        /// How long was waited.
        seconds: u64,
    },
    /// Another transaction has its place.
    #[error(
        "transaction 0x{transaction} lost its place (nonce {nonce}) to another one of the same account: nothing was done; repeat, and give each program an account of its own"
    )]
    Displaced {
        /// Its hash.
        transaction: KeccakDigest,
        /// Its place among the account's.
        nonce: u64,
    },
    /// The network forgot it and does not take it again.
    #[error(
        "transaction 0x{transaction} was dropped and is not taken again ({detail}): nothing was done so far; repeat"
    )]
    Dropped {
        /// Its hash.
        transaction: KeccakDigest,
        /// What the node said.
        detail: String,
    },
    /// In the chain without effect, although it passed the trial.
    #[error(
        "transaction 0x{transaction} had no effect, since the chain's state changed in between{}: nothing was done; look at it and repeat",
        .reason.as_ref().map(|reason| format!(" ({reason})")).unwrap_or_default()
    )]
    Reverted {
        /// Its hash.
        transaction: KeccakDigest,
        /// The contract's reason, if it can be told afterwards.
        reason: Option<Box<Refusal>>,
    },
    /// The chain replaced a block that was taken for settled.
    #[error(
        "block {} was replaced although it was deep enough to act on: raise chain.depth, and start again from an earlier block", .0.number
    )]
    DeepReorganisation(BlockRef),
    /// The contracts gave a value that they never should.
    #[error("the contracts gave {0}, which this build does not understand: update it")]
    Unexpected(&'static str),
    /// A block that is not in this node's chain.
    #[error("block {} with hash {} is not in the chain seen here: the endpoint is behind, or the block was replaced", .0.number, .0.hash)]
    UnknownBlock(BlockRef),
    /// A key or signature that the chain would refuse.
    #[error(transparent)]
    Point(#[from] InvalidPoint),
    /// A text that does not fit.
    #[error("an organisation's name has at most 32 bytes of ASCII")]
    Organisation,
    /// A certificate or publication of another chain, directory or cluster.
    #[error("this belongs to another chain or directory than the client is connected to")]
    OtherScope,
}

impl ChainError {
    /// Whether it may work when tried again later, without any change.
    #[must_use]
    pub const fn is_transient(&self) -> bool {
        matches!(
            self,
            Self::Unreachable { .. }
                | Self::NotMined { .. }
                | Self::Withdrawn { .. }
                | Self::Displaced { .. }
                | Self::Dropped { .. }
                | Self::Reverted { reason: None, .. }
        )
    }

    /// The contract's reason, if one refused.
    #[must_use]
    pub fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::Refused(refusal) => Some(refusal),
            Self::Reverted { reason, .. } => reason.as_deref(),
            _ => None,
        }
    }

    pub(crate) fn transport(what: &'static str, error: &TransportError) -> Self {
        match error {
            RpcError::ErrorResp(payload) => match payload.as_revert_data() {
                Some(data) => Refusal::decode(&data).into(),
                None => Self::Rpc { what, detail: payload.message.to_string() },
            },
            RpcError::Transport(TransportErrorKind::Custom(custom)) => {
                match custom.downcast_ref::<NoEndpoint>() {
                    Some(NoEndpoint(faults)) => Self::no_endpoint(faults),
                    None => Self::Rpc { what, detail: root_cause(custom.as_ref()) },
                }
            }
            RpcError::DeserError { .. } | RpcError::NullResp => {
                Self::Rpc { what, detail: "an answer of another form than asked for".to_owned() }
            }
            other => Self::Rpc { what, detail: other.to_string() },
        }
    }

    fn no_endpoint(faults: &[(String, Fault)]) -> Self {
        // Waiting does not help if all are of another chain.
        let other_chain = |(_, fault): &(String, Fault)| matches!(fault, Fault::OtherChain { .. });
        if let Some((url, &Fault::OtherChain { expected, found })) = faults
            .first()
            .map(|(url, fault)| (url, fault))
            .filter(|_| faults.iter().all(other_chain))
        {
            return Self::WrongChain { url: url.clone(), expected, found };
        }
        let url = faults.iter().map(|(url, _)| url.as_str()).collect::<Vec<_>>().join(", ");
        let detail = match faults {
            [(_, fault)] => fault.to_string(),
            several => several
                .iter()
                .map(|(url, fault)| format!("{url}: {fault}"))
                .collect::<Vec<_>>()
                .join("; "),
        };
        Self::Unreachable { url, detail }
    }

    pub(crate) fn call(what: &'static str, error: &contract::Error) -> Self {
        match error {
            contract::Error::TransportError(error) => Self::transport(what, error),
            other => Self::Rpc { what, detail: other.to_string() },
        }
    }
}

/// The innermost error: "connection refused" rather than "error sending request".
pub(crate) fn root_cause(error: &dyn core::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
