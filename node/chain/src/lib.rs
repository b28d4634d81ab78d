//! The chain: one client for Veil's contracts, and a local chain for development.
//!
//! Source: `contracts/src`; EIP-712 for what identities sign, EIP-2098 for the form of signatures,
//! EIP-1559 for fees.
//!
//! # Parts
//! - [`Chain`]: a handle that clones cheaply. It reads, sends, and tells about new blocks.
//! - [`KeyPublication`], [`registration_digest`], [`abort_digest`]: what identities and groups sign.
//! - [`AccountKey`]: the Ethereum key that pays. [`Deployment`]: addresses as a file.
//! - [`anvil`]: a local chain as a child process.
//!
//! # Flow
//! [`Chain::connect`] checks chain id and interface versions of what the directory names. Reads are
//! repeated a bounded number of times when the network fails, and go to the next endpoint if there are
//! several. A transaction is first tried without being sent, so that a refusal costs nothing and names
//! its reason; then it is sent under the next nonce of its account, and followed until it has the
//! configured confirmations: sent again if it is dropped, with a higher fee if it is stuck, and
//! withdrawn if it takes too long.
//!
//! What is acted on is read at [`Chain::settled`] blocks, or comes from a [`Follower`], which tells of
//! events when they are seen, undone by a reorganisation, and settled.
//!
//! # Caveats
//! - Transactions of one account are numbered by its handle and the clones of it. Two processes
//!   with one key disturb each other; a nonce that the other one used is read again, a few times.
//!   Better give every process its own account.
//! - A block that is replaced after the configured depth is not undone: set `depth` and
//!   `confirmations` to what the chain deserves.

mod account;
mod address;
mod anchors;
pub mod anvil;
mod broadcast;
mod ceremonies;
mod certificate;
mod config;
mod connection;
mod contracts;
mod deploy;
mod disputes;
mod elections;
mod endpoints;
mod error;
mod events;
mod fault;
mod follow;
mod jobs;
mod key;
mod logs;
mod outgoing;
mod point;
mod policy;
mod refusal;
mod registrations;
mod registry;
mod rpc;
mod track;
mod transact;
mod typed;
mod types;
mod watch;

pub use config::ChainConfig;
pub use connection::Chain;
pub use contracts::Contracts;
pub use deploy::{DeployConfig, DeployOptions, Deployment};
pub use elections::{ElectedCommittee, Election, ElectionStatus};
pub use endpoints::{EndpointStatus, RpcUrls};
pub use error::ChainError;
pub use events::ChainEvent;
pub use follow::Follower;
pub use key::{AccountKey, AccountKeyError};
pub use point::InvalidPoint;
pub use policy::{ClusterImage, ImageStatus};
pub use refusal::Refusal;
pub use track::Update;
pub use typed::{
    CertificateVote, KeyPublication, abort_digest, absence_digest, registration_digest,
    verifying_shares_root,
};
pub use types::{
    Allowance, AnchoredCertificate, AttemptStatus, CeremonyAttempt, Cluster, ClusterSettings,
    Endorsements, Head, Mined, NodeRegistration, Proposal, PublishedKey, ReferenceString,
    RegisteredNode, Rights, SubmittedJob,
};
