//! Taking up a network that was kept: the chain with everything on it, the nodes with their folders.

use std::path::{Path, PathBuf};

use tokio_util::sync::CancellationToken;
use veil_node_api::status::Role;
use veil_node_chain::{
    Chain, ChainConfig,
    anvil::{Anvil, AnvilConfig},
};
use veil_node_config::{MemberConfig, WorkerConfig};
use veil_node_containers::Docker;
use veil_node_storage::keystore::{Passphrase, read_identity};

use crate::{
    CHAIN_STATE, Devnet, DevnetError, DevnetFile, DevnetOptions, Event, EventHandler,
    FIRST_NODE_ACCOUNT, Node, NodeEntry, account, files::NodeFiles, progress::StepTimer,
};

impl Devnet {
    /// Whether a folder holds a network.
    #[must_use]
    pub fn is_kept(folder: &Path) -> bool {
        folder.join(CHAIN_STATE).exists() && DevnetFile::read(folder).is_ok()
    }

    /// In place of [`Self::prepare`], for a folder in which a network was ended: starts its chain with
    /// the state that it had, and knows its nodes.
    ///
    /// # Errors
    /// [`DevnetError`]; `Options` if another network is asked for than is in the folder.
    pub async fn resume(
        options: DevnetOptions,
        folder: &Path,
        on_event: EventHandler,
        stop: CancellationToken,
    ) -> Result<Self, DevnetError> {
        Docker::connect(&options.docker_socket).await?;
        let folder = folder.canonicalize().map_err(DevnetError::io(folder))?;
        let file = DevnetFile::read(&folder)?;
        let port = check(&options, &file)?;
        let mut steps = Vec::new();

        let timer = StepTimer::start(&on_event, "chain");
        let state = Some(folder.join(CHAIN_STATE));
        let anvil =
            Anvil::start(AnvilConfig { port: Some(port), state, ..AnvilConfig::default() }).await?;
        let config = ChainConfig::new(anvil.url(), file.contract).with_key(account(&anvil, 0)?);
        let admin = Chain::connect(config).await?;
        let operator = admin.with_key(account(&anvil, 1)?);
        steps.push(timer.done());

        let timer = StepTimer::start(&on_event, "identities");
        let mut nodes = Vec::new();
        for (entry, i) in file.nodes.iter().zip(FIRST_NODE_ACCOUNT..) {
            let mut files = node_files(entry.clone()).await?;
            files.account = anvil.key(i);
            on_event(Event::Detail(&files.name));
            nodes.push(Node::new(files, entry.log.clone()));
        }
        steps.push(timer.done());
        let cluster = file.cluster;
        Ok(Self { options, folder, on_event, stop, anvil, admin, operator, cluster, nodes, steps })
    }
}

/// Whether the options fit what is there; the port of the chain's RPC, which is in the nodes'
/// configurations.
fn check(options: &DevnetOptions, file: &DevnetFile) -> Result<u16, DevnetError> {
    let refuse = |reason: String| Err(DevnetError::Options(reason));
    let of_role = |role| file.nodes.iter().filter(|node| node.role == role).count();
    let (members, workers) = (of_role(Role::Member), of_role(Role::Worker));
    if (members, workers) != (options.committee.n(), options.workers) {
        return refuse(format!(
            "the folder holds a network of {members} members and {workers} workers: give --members {members} --workers {workers}, or another folder"
        ));
    }
    let member = file.nodes.iter().find(|node| node.role == Role::Member);
    if let Some(member) = member {
        let parameters = MemberConfig::load(&member.config, &|_| None)?.committee.parameters;
        if parameters != options.parameters {
            return refuse(format!(
                "the folder holds a network with parameters {parameters}: give --parameters {parameters}, or another folder"
            ));
        }
    }
    let port = file.rpc.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
    match (port, options.rpc_port) {
        (None, _) => refuse(format!("{} names no port on this machine", file.rpc)),
        (Some(port), Some(other)) if port != other => refuse(format!(
            "the folder's network has its chain at port {port}: leave --rpc-port out"
        )),
        (Some(port), _) => Ok(port),
    }
}

/// A node's folder as it was written.
async fn node_files(entry: NodeEntry) -> Result<NodeFiles, DevnetError> {
    let config = entry.config.clone();
    let (network, api) = match entry.role {
        Role::Member => {
            let MemberConfig { network, api, .. } = MemberConfig::load(&config, &|_| None)?;
            (network, api)
        }
        Role::Worker => {
            let WorkerConfig { network, api, .. } = WorkerConfig::load(&config, &|_| None)?;
            (network, api)
        }
    };
    let folder = config.parent().map(Path::to_owned).unwrap_or_default();
    let files: (PathBuf, PathBuf) =
        (folder.join("passphrase.txt"), folder.join("data").join("identity.age"));
    // The passphrase is stretched for a second or so.
    let opened = tokio::task::spawn_blocking(move || {
        read_identity(&files.1, &Passphrase::from_file(&files.0)?)
    });
    let identity = opened.await.map_err(|_| DevnetError::Interrupted)??;
    Ok(NodeFiles {
        name: entry.name,
        role: entry.role,
        folder,
        identity,
        account: None,
        listen: network.listen.iter().map(ToString::to_string).collect(),
        api: api.map(|api| api.listen),
    })
}
