//! What can fail between this node and the chain; every message says what to do next.

use alloy::{
    contract,
    transports::{RpcError, TransportError, TransportErrorKind},
};
use veil_node_chain_refusal::Refusal;
use veil_protocol_spec::{Address, ChainId, KeccakDigest, scheduling::BlockRef};

use crate::{
    address::DEPLOYER,
    batch::UnsignedBatch,
    fault::{Fault, NoEndpoint},
    point::InvalidPoint,
};

/// Why the chain could not be read or written.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say what the fields are")]
pub enum ChainError {
    /// No endpoint answers, although the request was repeated; `url` names them all.
    #[error(
        "the chain's RPC {url} does not answer ({detail}): check --rpc or VEIL_RPC_URL, and that the node behind it runs"
    )]
    Unreachable { url: String, detail: String },
    /// The text is not the URL of an RPC.
    #[error("{url} is not the URL of an RPC ({detail}): give one such as http://127.0.0.1:8545")]
    InvalidUrl { url: String, detail: String },
    /// The endpoint refused a request, without an error of the contracts.
    #[error("the chain's RPC refused {what}: {detail}")]
    Rpc { what: &'static str, detail: String },
    /// The endpoint serves another chain than the configured one.
    #[error(
        "the RPC {url} serves chain {found}, not {expected}: point VEIL_RPC_URL or --rpc at the right chain"
    )]
    WrongChain { url: String, expected: ChainId, found: ChainId },
    /// The configured address holds no directory.
    #[error(
        "there is no directory of Veil at 0x{address} on chain {chain}: check VEIL_CONTRACT_ADDRESS, or deploy one with `veil chain deploy`"
    )]
    NoDirectory { address: Address, chain: ChainId },
    /// The directory does not name a contract of the set.
    #[error(
        "the directory 0x{directory} names no {contract}: its owner publishes a complete set, or deploy one with `veil chain deploy`"
    )]
    Incomplete { directory: Address, contract: &'static str },
    /// A contract has another interface version than this build.
    #[error(
        "{contract} has interface version {found}; this build speaks {supported}: update the older side"
    )]
    Version { contract: &'static str, found: u16, supported: u16 },
    /// A contract refused.
    #[error("{0}")]
    Refused(#[from] Refusal),
    /// The handle has no account to send with.
    #[error(
        "this needs an account's key: set VEIL_CHAIN_KEY, or give a JSON keystore with --keystore and its passphrase; with --unsigned, say whose by --from"
    )]
    NoAccount,
    /// The timelock knows no such operation.
    #[error(
        "nothing was scheduled at the timelock as 0x{id}: `veil chain govern list` shows what was"
    )]
    NoOperation { id: KeccakDigest },
    /// The chain has no deterministic deployer.
    #[error(
        "chain {chain} has no deterministic deployer at 0x{}: put it there (its own repository says how), or deploy by a key, without --unsigned and --salt",
        DEPLOYER
    )]
    NoDeployer { chain: ChainId },
    /// Only the governor can put the set in force.
    #[error(
        "account 0x{account} has deployed the contracts, and 0x{governor} puts them in force: repeat the command with `--unsigned --from 0x{governor}`, and have that account carry out what it prints"
    )]
    NotGovernor { account: Address, governor: Address },
    /// What was asked for is written down for others to sign: nothing was sent, and nothing failed.
    #[error("{0}")]
    Unsigned(Box<UnsignedBatch>),
    /// The account cannot pay for gas and value.
    #[error("account 0x{account} cannot pay for the transaction ({detail}): fund it and repeat")]
    Funds { account: Address, detail: String },
    /// The network asks for more than is allowed. Nothing was sent.
    #[error(
        "a unit of gas costs {price} wei now, and {allowed} are allowed: nothing was sent; repeat later, or raise --max-fee-gwei (`chain.max_fee_gwei` of a node)"
    )]
    Fee { price: u64, allowed: u64 },
    /// A transaction is not in the chain at the deadline. It may still get there.
    #[error(
        "transaction 0x{transaction} is not in the chain after {seconds} s; it may still get there: check `veil chain status` before repeating"
    )]
    NotMined { transaction: KeccakDigest, seconds: u64 },
    /// A transaction was not in the chain at the deadline and never gets there: another one has its nonce.
    #[error(
        "transaction 0x{transaction} was not in the chain after {seconds} s and is withdrawn: nothing changed; repeat, with a longer --timeout if the chain is slow"
    )]
    Withdrawn { transaction: KeccakDigest, seconds: u64 },
    /// Another transaction of the account has the nonce.
    #[error(
        "transaction 0x{transaction} lost its place (nonce {nonce}) to another one of the same account: nothing changed; repeat, and give each program an account of its own"
    )]
    Displaced { transaction: KeccakDigest, nonce: u64 },
    /// The network dropped a transaction and does not accept it again.
    #[error(
        "transaction 0x{transaction} was dropped and is not accepted again ({detail}): nothing changed so far; repeat"
    )]
    Dropped { transaction: KeccakDigest, detail: String },
    /// A transaction is in the chain without effect, although its estimate succeeded. The reason is the
    /// contract's, if repeating the call gives one.
    #[error(
        "transaction 0x{transaction} had no effect, because the chain's state changed before it{}: check that state and repeat",
        .reason.as_ref().map(|reason| format!(" ({reason})")).unwrap_or_default()
    )]
    Reverted { transaction: KeccakDigest, reason: Option<Box<Refusal>> },
    /// The chain replaced a block that counted as settled.
    #[error(
        "block {} was replaced although it was deep enough to act on: raise chain.depth, and start again from an earlier block", .0.number
    )]
    DeepReorganisation(BlockRef),
    /// The contracts gave a value that this build does not know.
    #[error("the contracts gave {0}, which this build does not understand: update it")]
    Unexpected(&'static str),
    /// The block is not in the chain that the endpoint serves.
    #[error("block {} with hash {} is not in the chain seen here: the endpoint is behind, or the block was replaced", .0.number, .0.hash)]
    UnknownBlock(BlockRef),
    /// The chain would refuse a key or signature.
    #[error(transparent)]
    Point(#[from] InvalidPoint),
    /// A certificate or publication is of another chain or directory.
    #[error("this belongs to another chain or directory than the client is connected to")]
    OtherScope,
}

impl ChainError {
    /// Whether the same call may succeed later without any change.
    #[must_use]
    pub const fn is_transient(&self) -> bool {
        matches!(
            self,
            Self::Unreachable { .. }
                | Self::Fee { .. }
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
        // Waiting does not help if all serve another chain.
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
