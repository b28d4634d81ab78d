//! `devnet.json`: where everything of a running one-machine network is, for commands with
//! `--devnet DIR`. Paths are absolute.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use veil_node_api::status::Role;
use veil_protocol_spec::{Address, ChainId, ClusterId, PeerIdHash};

use crate::DevnetError;

const FILE_NAME: &str = "devnet.json";

/// One node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeEntry {
    /// Short name, such as `worker-2`.
    pub name: String,
    /// What it is.
    pub role: Role,
    /// In the registry.
    pub peer: PeerIdHash,
    /// In libp2p.
    pub peer_id: String,
    /// Its configuration.
    pub config: PathBuf,
    /// Where it answers.
    pub admin_socket: PathBuf,
    /// Where it answers from afar.
    #[serde(default)]
    pub api: Option<String>,
    /// Where it logs.
    pub log: PathBuf,
}

/// The file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DevnetFile {
    /// JSON-RPC endpoint.
    pub rpc: String,
    /// Its chain.
    pub chain_id: ChainId,
    /// The directory contract.
    pub contract: Address,
    /// The cluster.
    pub cluster: ClusterId,
    /// Configuration of the operator, who may submit jobs.
    pub operator: PathBuf,
    /// Members, then workers.
    pub nodes: Vec<NodeEntry>,
}

impl DevnetFile {
    /// Writes it into `folder`.
    ///
    /// # Errors
    /// [`DevnetError::Io`].
    pub fn write(&self, folder: &Path) -> Result<(), DevnetError> {
        let path = folder.join(FILE_NAME);
        let text = serde_json::to_string_pretty(self).unwrap_or_default() + "\n";
        std::fs::write(&path, text).map_err(DevnetError::io(&path))
    }

    /// Reads the one in `folder`.
    ///
    /// # Errors
    /// [`DevnetError::Io`], also if it is not what [`Self::write`] writes.
    pub fn read(folder: &Path) -> Result<Self, DevnetError> {
        let path = folder.join(FILE_NAME);
        let text = std::fs::read_to_string(&path).map_err(DevnetError::io(&path))?;
        serde_json::from_str(&text).map_err(|error| DevnetError::io(&path)(error.into()))
    }

    /// The short name of a peer; its hash if it is none of these.
    #[must_use]
    pub fn name_of(&self, peer: &PeerIdHash) -> String {
        let found = self.nodes.iter().find(|node| node.peer == *peer);
        found.map_or_else(|| peer.to_string(), |node| node.name.clone())
    }
}
