//! The chain: one client for Veil's contracts, and a local chain for development.
//!
//! Source: `contracts/src`; EIP-712 for what identities sign, EIP-2098 for the form of signatures,
//! EIP-1559 for fees, EIP-55 for addresses as text.
//!
//! # Role
//! The chain is this crate's outside world; only it and `veil-contracts` know alloy. What it reads and
//! writes is in the types of `veil-protocol-spec`.
//! - [`Chain`]: a handle that clones cheaply. It reads, sends, and reports new blocks.
//! - [`KeyPublication`], [`registration_digest`], [`abort_digest`], [`absence_digest`]: what identities
//!   and groups sign.
//! - [`Follower`]: the contracts' events in order, through reorganisations.
//! - [`AccountKey`]: the Ethereum key that pays. [`Deployment`]: where a set of contracts is, as text.
//! - [`Refusal`]: a contract's error as a sentence that names the next command.
//! - [`Draft`]: in place of a key, that transactions are written down for others to sign ([`UnsignedBatch`]).
//! - [`Decision`]: what governance alone can do. [`VerifiedDeployment`]: that contracts are those that were built.
//! - [`anvil`]: a local chain as a child process.
//!
//! # Flow
//! 1. [`Chain::connect`] checks chain id and interface versions of the contracts that the directory
//!    names.
//! 2. A read is repeated a bounded number of times while the network fails, and goes to the next endpoint
//!    if there are several.
//! 3. A transaction is first estimated, so that a refusal costs nothing and names its reason. Then it is
//!    sent under the next nonce of its account and followed until it has the configured confirmations:
//!    sent again if the network dropped it, with a higher fee if it is stuck, withdrawn at the deadline.
//! 4. Callers act on what they read at [`Chain::settled`] blocks, or on a [`Follower`]'s settled events.
//!
//! # State
//! In memory only, shared by the clones of a handle: the endpoints' health, the account's next nonce, the
//! registrations read so far. A [`Follower`] holds the blocks that may still be replaced.
//!
//! # Restart
//! Nothing is stored here. A caller stores [`Follower::position`] and follows on from it. A transaction
//! whose process ended may still get into the chain: read the contract before you repeat it.
//!
//! # Caveats
//! - Transactions of one account are numbered by its handle and the clones of it. Two processes with
//!   one key disturb each other; a nonce that the other one used is read again, a few times. Better
//!   give every process its own account.
//! - A block that is replaced after the configured depth is not undone: set `depth` and
//!   `confirmations` to what the chain deserves.
//!
//! # Example
//! ```no_run
//! use veil_node_chain::{Chain, ChainConfig, ChainError, Update};
//! use veil_protocol_spec::{Address, ClusterId};
//!
//! async fn print_settled_events(directory: Address, cluster: ClusterId) -> Result<(), ChainError> {
//!     let chain = Chain::connect(ChainConfig::new("http://127.0.0.1:8545", directory)).await?;
//!     println!("epoch {:?}", chain.current_epoch(cluster).await?);
//!     let mut follower = chain.follow(chain.settled().await?);
//!     loop {
//!         if let Update::Settled(event) = follower.next().await? {
//!             println!("{} of {} in block {}", event.name, event.contract, event.block.number);
//!         }
//!     }
//! }
//! ```

mod account;
mod address;
mod anchors;
pub mod anvil;
mod approvals;
mod batch;
mod broadcast;
mod ceremonies;
mod certificate;
mod chains;
mod config;
mod connection;
mod contracts;
mod delegates;
mod deploy;
mod deployed;
mod deterministic;
mod disputes;
mod elections;
mod endpoints;
mod error;
mod events;
mod fault;
mod follow;
mod govern;
mod jobs;
mod key;
mod logs;
mod outgoing;
mod point;
mod policy;
mod registrations;
mod registry;
mod rpc;
mod track;
mod transact;
mod typed;
mod types;
mod unsigned;
mod watch;

pub use address::DEPLOYER;
pub use batch::{Draft, UnsignedBatch, UnsignedCall};
pub use config::ChainConfig;
pub use connection::Chain;
pub use contracts::Contracts;
pub use deploy::{DeployConfig, DeployOptions, Deployment};
pub use deployed::{DeployedContract, VerifiedDeployment};
pub use disputes::Challenges;
pub use elections::{ElectedCommittee, Election, ElectionStatus, REDRAW_PRICE};
pub use endpoints::{EndpointStatus, RpcUrls};
pub use error::ChainError;
pub use events::ChainEvent;
pub use follow::Follower;
pub use govern::{Decision, GovernedCall, Operation, OperationState};
pub use key::{AccountKey, AccountKeyError};
pub use point::InvalidPoint;
pub use policy::{ClusterImage, ImageStatus};
pub use track::Update;
pub use typed::{
    KeyPublication, abort_digest, absence_digest, login_digest, registration_digest, signer_of,
    verifying_shares_root,
};
pub use types::{
    Allowance, AnchoredCertificate, AttemptStatus, CeremonyAttempt, Cluster, ClusterSettings,
    DelegatedKey, Endorsements, Head, JobUsage, Mined, NodeApproval, NodeRegistration, Proposal,
    PublishedKey, ReferenceString, RegisteredNode, Rights, SubmittedJob,
};
pub use veil_node_chain_deployed::InvalidDeployment;
pub use veil_node_chain_refusal::Refusal;
