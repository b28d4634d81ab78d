//! Which node a command asks, and how: options of every command.

use std::path::PathBuf;

use clap::Args;
use veil_node_api::{
    address::{InvalidNodeAddress, NodeAddress},
    client::Client,
};
use veil_node_config::{NodeAccess, process_environment};

use super::failure::Failure;

/// The variable in place of `--node`; not clap's, since it gives way to `--devnet`.
const NODE_VARIABLE: &str = "VEIL_NODE";

#[derive(Debug, Args)]
#[command(next_help_heading = "Asking a node")]
pub(super) struct Asking {
    /// The node to ask: https://HOST[:PORT], or the path of its admin socket. VEIL_NODE; otherwise the one that a
    /// configuration names.
    #[arg(long, global = true, value_name = "NODE")]
    node: Option<NodeAddress>,
    /// Certificates in PEM that the certificate of a node at https:// is checked by.
    #[arg(long, global = true, env = "VEIL_NODE_CA", value_name = "FILE")]
    node_ca: Option<PathBuf>,
    /// File whose first line is the token that a node at https:// is read with; what posts jobs logs in with the
    /// account's key.
    #[arg(long, global = true, env = "VEIL_NODE_TOKEN_FILE", value_name = "FILE")]
    node_token_file: Option<PathBuf>,
}

impl Asking {
    /// Whether `--node` was given.
    pub(super) const fn is_given(&self) -> bool {
        self.node.is_some()
    }

    /// The node that option or environment name, else the one of a configuration.
    pub(super) fn client(&self, configured: Option<NodeAccess>) -> Result<Client, Failure> {
        let named = match (&self.node, process_environment(NODE_VARIABLE)) {
            (Some(address), _) => Some(address.clone()),
            (None, Some(text)) => {
                let wrong =
                    |error: InvalidNodeAddress| Failure::usage(format!("{NODE_VARIABLE}: {error}"));
                Some(text.parse().map_err(wrong)?)
            }
            (None, None) => None,
        };
        let (found, ca, token) = match configured {
            Some(NodeAccess { address, ca, token_file }) => (Some(address), ca, token_file),
            None => (None, None, None),
        };
        let address = named.or(found);
        let address = address.ok_or_else(|| {
            Failure::usage(
                "which node? give --node, or --config or --devnet if the command has them",
            )
        })?;
        let (ca, token) = (self.node_ca.clone().or(ca), self.node_token_file.clone().or(token));
        Ok(Client::open(address, ca.as_deref(), token.as_deref())?)
    }
}
