//! Why an operator's command fails.

use std::{
    io,
    path::{Path, PathBuf},
};

use veil_committee_sealed::seal::SealError;
use veil_node_api::client::ClientError;
use veil_node_chain::{AccountKeyError, ChainError};
use veil_node_config::{job_file::JobFileError, policy_file::PolicyFileError};
use veil_protocol_spec::{
    Address, Blake3Digest, CodecError, scheduling::PolicyError, sealing::RosterError,
};

use crate::obstacle::Obstacle;

/// Why a job is not submitted or stopped.
#[derive(Debug, thiserror::Error)]
pub enum OperatorError {
    /// The chain.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// The account's key.
    #[error(transparent)]
    Account(#[from] AccountKeyError),
    /// The job file.
    #[error(transparent)]
    Job(#[from] JobFileError),
    /// There is nobody to seal to.
    #[error(
        "this is to be encrypted for the committee, and the chain names none yet: `veil ceremony status` shows how far its \
         ceremony is"
    )]
    NoCommittee,
    /// The node does not say which keys there are.
    #[error("the node does not say what to seal to, and nothing was submitted: {0}")]
    SealingKeys(ClientError),
    /// The node gives a key that is not the cluster's.
    #[error(
        "the node's public key is not the one that the committee's members state, so nothing was encrypted or submitted: \
         ask another node"
    )]
    OtherPublicKey,
    /// The node gives a reference string that is not the cluster's.
    #[error(
        "the node's reference string is not the one on chain, so nothing was encrypted or submitted: ask another node"
    )]
    OtherReferenceString,
    /// A request or weights cannot be encrypted.
    #[error("it is not encrypted, and nothing was submitted: {0}")]
    Encrypt(String),
    /// A file.
    #[error("{path}: {source}")]
    #[allow(missing_docs, reason = "the message says what its fields are")]
    File { path: PathBuf, source: io::Error },
    /// The file is no list of weights.
    #[error("{path} holds no encrypted weights: {source}")]
    #[allow(missing_docs, reason = "the message says what its fields are")]
    List { path: PathBuf, source: CodecError },
    /// The policy file.
    #[error(transparent)]
    PolicyFile(#[from] PolicyFileError),
    /// The node does not say what it has of the policy.
    #[error("the node does not say which of the policy's weights it has: {0}")]
    Weights(ClientError),
    /// The chain names the list, or will, and no node has it.
    #[error(
        "no node has the policy's weights yet, so no job is placed by cost: {source}; `veil chain policy give --list {path}` \
         hands them over once more"
    )]
    #[allow(missing_docs, reason = "the message says what its fields are")]
    NotGiven { path: PathBuf, source: Box<ClientError> },
    /// The node does not see that the chain names the list.
    #[error(
        "the node sees no policy that names the weights {weights}: does the chain (`veil chain policy get`), and does the \
         node follow the chain (`veil status`)? Then repeat `veil chain policy give --list {path}`"
    )]
    #[allow(missing_docs, reason = "the message says what its fields are")]
    NotNamed { path: PathBuf, weights: Blake3Digest },
    /// Its body cannot be made again.
    #[error(
        "the chain lists no submission with nonce {nonce} of what this file gives now: it was another file, or other \
         members answered when it was sealed. Repeat while all members answer; else stop the job that has no body \
         (`veil job list`, `veil job stop`), and submit the file without --nonce"
    )]
    NotSealedAgain {
        /// The nonce that was given.
        nonce: u64,
    },
    /// The keys do not hold.
    #[error("the job is not sealed, and nothing was submitted: {0}; ask another node")]
    Roster(#[from] RosterError),
    /// It cannot be sealed.
    #[error("the job is not sealed, and nothing was submitted: {0}")]
    Seal(#[from] SealError),
    /// What was sealed once is bound to one submission.
    #[error(
        "part of version {0} is sealed, for that submission only, and only its winners can open it: submit the file of \
         that version again with `veil job submit`"
    )]
    SealedVersion(Blake3Digest),
    /// The node does not let the account in.
    #[error(transparent)]
    Login(ClientError),
    /// The node that should say what is known of jobs.
    #[error("the node does not say which jobs run, and nothing was submitted: {0}")]
    Node(ClientError),
    /// No node has the body, so the chain was told nothing.
    #[error("no node took the job's body, so nothing was submitted: {0}")]
    NotSubmitted(ClientError),
    /// It could not run, so the chain was told nothing.
    #[error("the job is not submitted: {0}")]
    Obstacle(#[from] Obstacle),
    /// Nobody can tell what fits.
    #[error("the job is not submitted: the cluster's policy: {0}")]
    Policy(#[from] PolicyError),
    /// The chain lists the job, and no node has its body.
    #[error(
        "job {job} is submitted on chain, but no node has its body: {source}; repeat with the same file and `--nonce {nonce}`"
    )]
    Body {
        /// Which.
        job: Blake3Digest,
        /// Its nonce.
        nonce: u64,
        /// Why the node did not take it.
        source: Box<ClientError>,
    },
    /// A node that does not say what versions there are.
    #[error("the node does not say which versions of the job there are: {0}")]
    Versions(ClientError),
    /// There is no such version.
    #[error("{}", no_version(.to, .known))]
    NoVersion {
        /// What was asked for.
        to: Option<u32>,
        /// Which there are.
        known: Vec<u32>,
    },
    /// Nothing is called so.
    #[error(
        "no job is called `{0}`, and no digest begins so; `veil job list` shows those there are"
    )]
    NotFound(String),
    /// More than one job is.
    #[error("`{0}` is more than one job: give the digest of one, which `veil job list` shows")]
    Ambiguous(String),
    /// Somebody else's job.
    #[error("job {job} is of operator {operator}, not of this account")]
    OtherOperator {
        /// Which.
        job: Blake3Digest,
        /// Whose.
        operator: Address,
    },
    /// Nothing to stop.
    #[error(
        "the chain lists no running job {0} of this operator; `veil job list` shows them, and a delegated key \
         says whose they are with --for"
    )]
    NoSuchJob(Blake3Digest),
}

impl OperatorError {
    /// What the system says of a file.
    pub(crate) fn file(path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::File { path: path.to_owned(), source }
    }
}

fn no_version(to: &Option<u32>, known: &[u32]) -> String {
    let wanted = match to {
        Some(number) => format!("there is no version {number} to go back to"),
        None => "no version before the wanted one was wholly healthy".to_owned(),
    };
    let known: Vec<_> = known.iter().map(u32::to_string).collect();
    let known = if known.is_empty() {
        "none is known".to_owned()
    } else {
        format!("known are {}, and `--to` names one", known.join(", "))
    };
    format!("{wanted}; {known}: `veil job history` shows them")
}
