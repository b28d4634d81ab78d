//! A whole network on one machine: local chain, contracts, members, workers, with the parts that a
//! real one has, and a job on it.
//!
//! # Flow
//! 1. [`Devnet::prepare`], or [`Devnet::resume`] for a folder with a network: the chain is started, contracts are deployed, every node gets a folder as
//!    an operator would make it, and is registered.
//! 2. [`Devnet::start_nodes`]: in this process, or each in its own.
//! 3. [`Devnet::make_key`]: the ceremony is proposed; the members hold it.
//! 4. [`Devnet::await_ready`], [`Devnet::submit`], [`Devnet::await_running`], [`Devnet::verify`].
//! 5. [`Devnet::end`]: nodes leave, containers are removed, the chain's state is written.
//!
//! # State
//! Everything is in one folder; `devnet.json` in it says where. Each node's folder serves by hand as
//! well, while the chain runs: `veil worker run --config DIR/worker-1/worker.toml`.
//!
//! # Caveats
//! - The accounts are those of Foundry's test phrase: everybody knows their keys.
//! - Nodes of one process share the expanded key set, and their memory cannot be told apart.
//! - All workers share one Docker engine and one host, so that what each offers is an invention.

mod error;
mod figures;
mod file;
mod files;
mod node;
mod placement;
mod progress;
mod resume;
mod wait;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use tokio_util::sync::CancellationToken;
use veil_keygen_ceremony::keyset::ParameterSet;
use veil_node_api::status::Role;
use veil_node_ceremony::{AttemptStatus, ChainCommitPoint, ProposeOptions, propose};
use veil_node_chain::{
    AccountKey, Allowance, Chain, ChainConfig, ChainError, ClusterSettings, NodeApproval,
    NodeRegistration,
    anvil::{Anvil, AnvilConfig},
};
use veil_node_config::job_file::JobFile;
use veil_node_containers::{Docker, Executor, Keep, Owner};
use veil_node_storage::{durable::write_new, keystore::new_identity};
use veil_protocol_spec::{
    Address, ClusterId, Committee, KeySetDigest, PeerIdHash, Wire,
    registry::Roles,
    scheduling::{ClusterPolicy, ClusterScope, Name},
};

pub use self::{
    error::DevnetError,
    figures::Figures,
    file::{DevnetFile, NodeEntry},
    node::Node,
    placement::{Place, Placed},
    progress::{Event, EventHandler},
};

use self::{
    files::{Addresses, NodeFiles, Shared, free_addresses, private_folder, write_operator},
    progress::StepTimer,
    wait::Polled,
};

/// Longest time between slots while work is pending.
const SLOT_MILLIS: u64 = 5_000;
/// For a node to answer after its start.
const NODE_START_TIMEOUT: Duration = Duration::from_secs(120);
/// For an attempt of the ceremony.
const CEREMONY_TIMEOUT: Duration = Duration::from_secs(1800);
/// For keys to be expanded and telemetry to arrive.
const READY_TIMEOUT: Duration = Duration::from_secs(900);
/// The chain's state in the folder.
const CHAIN_STATE: &str = "anvil.json";
/// Between blocks without transactions: periodic jobs go by the chain's clock.
const BLOCK_SECONDS: u64 = 10;
/// Accounts of the local chain: 0 is the admin's, 1 the operator's, the rest the nodes'.
const FIRST_NODE_ACCOUNT: usize = 2;
/// Whose all nodes are, by the admin's word.
const ORGANISATION: &str = "devnet";
/// For which each node's approval can be used: it registers at once.
const APPROVAL_SECONDS: u64 = 3600;

/// What is wanted.
#[derive(Clone, Debug)]
pub struct DevnetOptions {
    /// Size of the committee.
    pub committee: Committee,
    /// Number of workers.
    pub workers: usize,
    /// Name of the FHE parameter set.
    pub parameters: String,
    /// Each node as a process of its own.
    pub processes: bool,
    /// Port of the chain's RPC on 127.0.0.1; a free one if none is given.
    pub rpc_port: Option<u16>,
    /// The Docker engine.
    pub docker_socket: PathBuf,
    /// Names of folders that each worker lends to the operator's jobs.
    pub volumes: Vec<Name>,
}

/// A network, as far as it has come.
pub struct Devnet {
    options: DevnetOptions,
    folder: PathBuf,
    on_event: EventHandler,
    stop: CancellationToken,
    anvil: Anvil,
    admin: Chain,
    operator: Chain,
    cluster: ClusterId,
    nodes: Vec<Node>,
    steps: Vec<(&'static str, f64)>,
}

impl core::fmt::Debug for Devnet {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Devnet").field("folder", &self.folder).finish_non_exhaustive()
    }
}

impl Devnet {
    /// Step 1 of the [crate documentation](self). `folder` is new or empty; `stop` ends every wait.
    ///
    /// # Errors
    /// [`DevnetError`].
    pub async fn prepare(
        options: DevnetOptions,
        folder: &Path,
        on_event: EventHandler,
        stop: CancellationToken,
    ) -> Result<Self, DevnetError> {
        ParameterSet::by_name(&options.parameters, options.committee)
            .map_err(|error| DevnetError::Options(error.to_string()))?;
        // Without an engine there is nothing to end with: say so before anything is started.
        Docker::connect(&options.docker_socket).await?;
        private_folder(folder)?;
        let folder = folder.canonicalize().map_err(DevnetError::io(folder))?;
        if folder.join(CHAIN_STATE).exists() || folder.join("devnet.json").exists() {
            return Err(DevnetError::Options(format!(
                "{} holds a network that was not finished: choose an empty folder",
                folder.display()
            )));
        }
        let mut steps = Vec::new();

        let timer = StepTimer::start(&on_event, "chain");
        let state = Some(folder.join(CHAIN_STATE));
        let (port, block_seconds) = (options.rpc_port, Some(BLOCK_SECONDS));
        let anvil =
            Anvil::start(AnvilConfig { port, state, block_seconds, ..AnvilConfig::default() })
                .await?;
        steps.push(timer.done());

        let timer = StepTimer::start(&on_event, "contracts");
        let config = ChainConfig::new(anvil.url(), Address([0; 20])).with_key(account(&anvil, 0)?);
        let (admin, deployment) = Chain::deploy(config).await?;
        let file = folder.join("deployment.json");
        write_new(&file, 0o644, deployment.to_text().as_bytes())?;
        steps.push(timer.done());

        let timer = StepTimer::start(&on_event, "registration");
        let cluster = admin
            .register_cluster(&ClusterSettings {
                slot_millis: SLOT_MILLIS,
                policy: ClusterPolicy::default().to_wire(),
                ..ClusterSettings::new(options.committee)
            })
            .await?;
        let operator = admin.with_key(account(&anvil, 1)?);
        let submitter = operator.account().ok_or(ChainError::NoAccount)?;
        admin.set_allowance(cluster, submitter, Allowance::submit_freely()).await?;
        let files = node_files(&options, &folder, &anvil)?;
        let rpc = anvil.url();
        let contract = admin.contracts().directory;
        let shared = Shared { options: &options, rpc: &rpc, contract, cluster, submitter };
        for node in &files {
            node.write_secrets()?;
            node.write_config(&shared, &files)?;
            register(&admin, cluster, node).await?;
            on_event(Event::Detail(&node.name));
        }
        let ask = files.first().map(NodeFiles::admin_socket).unwrap_or_default();
        let operator_config =
            write_operator(&folder.join("operator"), &account(&anvil, 1)?, &shared, &ask)?;
        let nodes: Vec<_> = files
            .into_iter()
            .map(|files| {
                let shared_log = folder.join("devnet.log");
                let log = if options.processes { files.folder.join("log.txt") } else { shared_log };
                Node::new(files, log)
            })
            .collect();
        let entries: Result<Vec<_>, DevnetError> = nodes.iter().map(entry).collect();
        DevnetFile {
            rpc,
            chain_id: admin.chain_id(),
            contract,
            cluster,
            operator: operator_config,
            nodes: entries?,
        }
        .write(&folder)?;
        steps.push(timer.done());
        Ok(Self { options, folder, on_event, stop, anvil, admin, operator, cluster, nodes, steps })
    }

    /// The cluster.
    #[must_use]
    pub const fn scope(&self) -> ClusterScope {
        self.admin.scope(self.cluster)
    }

    /// The chain, with the admin's account.
    #[must_use]
    pub const fn chain(&self) -> &Chain {
        &self.admin
    }

    /// URL of the chain's RPC.
    #[must_use]
    pub fn rpc(&self) -> String {
        self.anvil.url()
    }

    /// The nodes: members, then workers.
    #[must_use]
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The short name of a peer.
    #[must_use]
    pub fn name_of(&self, peer: &PeerIdHash) -> String {
        let found = self.nodes.iter().find(|node| node.peer() == *peer);
        found.map_or_else(|| peer.to_string(), |node| node.name().to_owned())
    }

    /// Starts every node; processes one after the other, as each answers.
    ///
    /// # Errors
    /// [`DevnetError`].
    pub async fn start_nodes(&mut self) -> Result<(), DevnetError> {
        let timer = StepTimer::start(&self.on_event, "nodes");
        for i in 0..self.nodes.len() {
            self.nodes[i].start(self.options.processes)?;
            if self.options.processes {
                self.await_up().await?;
            }
        }
        self.await_up().await?;
        self.steps.push(timer.done());
        Ok(())
    }

    /// Waits until every started node answers.
    async fn await_up(&self) -> Result<(), DevnetError> {
        self.wait("starting the nodes", NODE_START_TIMEOUT, async || {
            Ok(self.outstanding(|_, _| true).await.map_or(Polled::Done(()), Polled::Outstanding))
        })
        .await
    }

    /// Starts one node that was stopped.
    ///
    /// # Errors
    /// [`DevnetError`], also if there is no node of that name.
    pub async fn start_node(&mut self, name: &str) -> Result<(), DevnetError> {
        let processes = self.options.processes;
        self.node_mut(name)?.start(processes)?;
        self.await_up().await
    }

    /// Stops one node, which leaves gracefully; its containers go on.
    ///
    /// # Errors
    /// [`DevnetError::Options`] if there is no node of that name.
    pub async fn stop_node(&mut self, name: &str) -> Result<(), DevnetError> {
        let node = self.node_mut(name)?;
        node.request_stop();
        node.stopped().await;
        node.freed().await;
        Ok(())
    }

    fn node_mut(&mut self, name: &str) -> Result<&mut Node, DevnetError> {
        let found = self.nodes.iter_mut().find(|node| node.name() == name);
        found.ok_or_else(|| DevnetError::Options(format!("there is no node {name}")))
    }

    /// Proposes the ceremony and waits until the members have published a key. A network that was
    /// taken up has its key.
    ///
    /// # Errors
    /// [`DevnetError`].
    pub async fn make_key(&mut self) -> Result<KeySetDigest, DevnetError> {
        if let Some(key) = self.admin.current_key(self.cluster).await? {
            return Ok(key.key_set);
        }
        let timer = StepTimer::start(&self.on_event, "ceremony");
        let commit_point = ChainCommitPoint::new(self.admin.clone(), self.cluster);
        let options = ProposeOptions {
            scope: self.scope(),
            committee: self.options.committee,
            parameters: self.options.parameters.clone(),
            duration: CEREMONY_TIMEOUT,
            attempts: 1,
            wait: true,
            poll: Duration::from_millis(500),
        };
        let held = propose(&commit_point, &options, |_| {});
        let watched = self.wait("the ceremony", CEREMONY_TIMEOUT * 3, async || {
            let at = self.outstanding(|node, _| node.role() == Role::Worker).await;
            Ok::<Polled<()>, _>(Polled::Outstanding(at.unwrap_or_default()))
        });
        let proposed = tokio::select! {
            proposed = held => proposed?,
            Err(error) = watched => return Err(error),
        };
        let AttemptStatus::Published { key_set, .. } = proposed.status else {
            let at = self.outstanding(|node, _| node.role() == Role::Worker).await;
            return Err(DevnetError::Options(format!(
                "the ceremony ended without a key ({}): {}; logs are in {}, causes in docs/failures.md",
                proposed.status.name(),
                at.unwrap_or_default(),
                self.folder.display()
            )));
        };
        self.steps.push(timer.done());
        Ok(key_set)
    }

    /// Waits until every node can use the key, sees all others, and every worker has sent telemetry.
    ///
    /// # Errors
    /// [`DevnetError`].
    pub async fn await_ready(&mut self, key_set: KeySetDigest) -> Result<(), DevnetError> {
        let timer = StepTimer::start(&self.on_event, "readiness");
        let others = self.nodes.iter().filter(|node| node.is_started()).count() - 1;
        self.wait("getting ready", READY_TIMEOUT, async || {
            let outstanding = self.outstanding(|node, status| {
                let sends = node.role() == Role::Member || status.traffic.telemetry_messages > 0;
                status.key_set == Some(key_set) && status.peers.alive >= others && sends
            });
            Ok(outstanding.await.map_or(Polled::Done(()), Polled::Outstanding))
        })
        .await?;
        self.steps.push(timer.done());
        Ok(())
    }

    /// Ends everything: nodes, their containers, the chain.
    ///
    /// # Errors
    /// [`DevnetError::Docker`] if containers may be left; the rest has ended even so.
    pub async fn end(mut self) -> Result<(), DevnetError> {
        self.nodes.iter().for_each(Node::request_stop);
        for node in &mut self.nodes {
            node.stopped().await;
        }
        let removed = self.remove_containers().await;
        let anvil = self.anvil;
        // It writes its state and is waited for.
        let _ = tokio::task::spawn_blocking(move || drop(anvil)).await;
        removed
    }

    async fn remove_containers(&self) -> Result<(), DevnetError> {
        let docker = Docker::connect(&self.options.docker_socket).await?;
        let workers = self.of_role(Role::Worker).map(async |node| {
            let owner = Owner { scope: self.scope(), worker: node.peer() };
            Executor::new(docker.clone(), owner).reconcile(&[], &Keep::NOTHING).await
        });
        for removed in futures::future::join_all(workers).await {
            for (replica, error) in removed?.failed {
                tracing::warn!(%replica, %error, "a container is left");
            }
        }
        Ok(())
    }
}

/// The key of an account of the local chain.
fn account(anvil: &Anvil, i: usize) -> Result<AccountKey, DevnetError> {
    let few = || DevnetError::Options("the local chain has too few accounts".to_owned());
    anvil.key(i).ok_or_else(few)
}

fn entry(node: &Node) -> Result<NodeEntry, DevnetError> {
    Ok(NodeEntry {
        name: node.name().to_owned(),
        role: node.role(),
        peer: node.peer(),
        peer_id: node.files.peer_id()?,
        config: node.files.config(),
        admin_socket: node.files.admin_socket(),
        api: node.files.api.map(|api| format!("https://{api}")),
        log: node.log.clone(),
    })
}

fn node_files(
    options: &DevnetOptions,
    folder: &Path,
    anvil: &Anvil,
) -> Result<Vec<NodeFiles>, DevnetError> {
    let members = (1..=options.committee.n()).map(|i| (Role::Member, format!("member-{i}")));
    let workers = (1..=options.workers).map(|i| (Role::Worker, format!("worker-{i}")));
    let addresses = free_addresses(options.committee.n() + options.workers)?;
    let named = members.chain(workers).zip(addresses).zip(FIRST_NODE_ACCOUNT..);
    let files = named.map(|(((role, name), Addresses { listen, api }), account)| NodeFiles {
        folder: folder.join(&name),
        name,
        role,
        identity: new_identity(),
        account: anvil.key(account), // more nodes than accounts: a worker can do without
        listen,
        api: Some(api),
    });
    Ok(files.collect())
}

/// Each node is admitted by the admin and registered under its own account, or the admin's
/// if it has none.
async fn register(admin: &Chain, cluster: ClusterId, node: &NodeFiles) -> Result<(), DevnetError> {
    let chain = match &node.account {
        Some(account) => admin.with_key(account.clone()),
        None => admin.clone(),
    };
    let member = node.role == Role::Member;
    let roles = Roles { worker: !member, member };
    let organisation = ORGANISATION.parse().ok();
    if let Some(account) = &node.account {
        let approval = NodeApproval {
            operator: account.address(),
            roles,
            organisation: organisation.clone(),
            valid_until: admin.time().await? + APPROVAL_SECONDS,
        };
        let peer = PeerIdHash::of(&node.identity.public());
        admin.approve_node(cluster, peer, &approval).await?;
    }
    let registration =
        NodeRegistration { cluster, roles, organisation, labels: Vec::new(), stake: 0 };
    chain.register_node(&registration, &node.identity).await?;
    Ok(())
}

/// The sample image that `cargo xtask setup --docker` noted, looked for above this program.
#[must_use]
pub fn sample_image() -> Option<String> {
    let program = std::env::current_exe().ok()?;
    let notes = program.ancestors().map(|folder| folder.join("setup/sample-image"));
    let note = notes.into_iter().find_map(|note| std::fs::read_to_string(note).ok())?;
    Some(note.trim().to_owned())
}

/// A job with softly separated replicas of an image.
///
/// # Errors
/// [`DevnetError::Job`] if `image` is not pinned by digest.
pub fn sample_job(image: &str, replicas: u16) -> Result<JobFile, DevnetError> {
    let image = toml::Value::from(image);
    Ok(JobFile::parse(&format!(
        "image = {image}\nreplicas = {replicas}\nanti_affinity = \"soft\"\n\
         [resources]\ncpu = \"100m\"\nmemory = \"64Mi\"\n"
    ))?)
}
