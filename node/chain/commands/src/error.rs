//! Why a command did not do its work.

use std::{
    io,
    path::{Path, PathBuf},
};

use veil_node_api::client::ClientError;
use veil_node_chain::{AccountKeyError, ChainError, InvalidDeployment};
use veil_node_storage::durable::WriteNewError;
use veil_protocol_spec::Slot;

/// Why a command did not do its work; every message says what to do next.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say what the fields are")]
pub enum CommandError {
    /// The chain.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// The account's key.
    #[error(transparent)]
    Key(#[from] AccountKeyError),
    /// The contracts are others than were built.
    #[error(transparent)]
    Deployment(#[from] InvalidDeployment),
    /// The node that was asked.
    #[error(transparent)]
    Node(#[from] ClientError),
    /// A file that was to be written.
    #[error(transparent)]
    Write(#[from] WriteNewError),
    /// A file that was to be read.
    #[error("{}: {source}", .path.display())]
    File { path: PathBuf, source: io::Error },
    /// The deployment file is there.
    #[error("{} exists already: give another --out, or use that deployment", .0.display())]
    Exists(PathBuf),
    /// Nobody whose account it would be.
    #[error("nobody signs: give --keystore, or set VEIL_CHAIN_KEY; with --unsigned, give --from")]
    NobodySigns,
    /// The node's records do not lead to an anchored certificate.
    #[error(
        "the certificates of slots {from} to {to} that the node keeps are no chain: ask another one with --node, such as a member of that time"
    )]
    NoChain { from: Slot, to: Slot },
    /// The slot is too new.
    #[error(
        "slot {slot} is after the last one anchored: challenge it once a certificate of it, or of a later slot, is anchored"
    )]
    NotYet { slot: Slot },
    /// Data that is no hexadecimal text.
    #[error("{0} is not hexadecimal text: give --data 0x...")]
    Data(String),
}

impl CommandError {
    pub(crate) fn file(path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::File { path: path.to_owned(), source }
    }
}
