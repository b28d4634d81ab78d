//! Operators reach the jobs that run here: what this worker knows of the cluster, for [`veil_node_reach`].

use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::watch;
use veil_node_api::progress::Progress;
use veil_node_chain::Chain;
use veil_node_containers::Executor;
use veil_node_core::{
    cluster::{Cluster, View, Views},
    epoch::ActiveEpoch,
};
use veil_node_p2p::StreamKind;
use veil_node_process::unix_now;
use veil_node_reach::{Place, Server, World};
use veil_node_storage::jobs::Jobs;
use veil_protocol_spec::{
    Address, Blake3Digest, PeerIdHash, ReplicaIndex,
    reach::{Endpoints, PortEndpoint},
    registry::Delegation,
    scheduling::{ClusterScope, ClusterState, JobSpec, Name, Port, Submission},
};

/// Longest description of a state, such as the engine's words for a failure.
const MAX_STATE: usize = 4 << 10;

/// What the newest certificate and the last view say.
struct Known {
    scope: ClusterScope,
    me: PeerIdHash,
    chain: Chain,
    views: Views,
    states: watch::Receiver<Arc<ClusterState>>,
    jobs: Arc<Jobs>,
    progress: Arc<Progress>,
    exec: bool,
}

/// Serves sessions until it is dropped.
pub(crate) fn serve(
    cluster: &Cluster,
    epoch: &ActiveEpoch,
    executor: &Arc<Executor>,
    (progress, exec): (&Arc<Progress>, bool),
) -> impl Future<Output = ()> + use<> {
    let known = Known {
        scope: cluster.scope,
        me: cluster.me,
        chain: cluster.chain.clone(),
        views: cluster.views.clone(),
        states: epoch.ledger.subscribe(),
        jobs: Arc::clone(&cluster.jobs),
        progress: Arc::clone(progress),
        exec,
    };
    let network = &cluster.network;
    let streams = network.accept_streams(StreamKind::Reach);
    let (host, identity) = (Arc::new(Arc::clone(executor)), cluster.identity.clone());
    let server = Server::new(Arc::new(known), host, identity, network.metrics().clone());
    server.run(streams)
}

#[async_trait]
impl World for Known {
    fn scope(&self) -> ClusterScope {
        self.scope
    }

    fn me(&self) -> PeerIdHash {
        self.me
    }

    fn now(&self) -> u64 {
        unix_now().0 / 1000
    }

    fn submission(&self, job: &Blake3Digest) -> Option<Submission> {
        let view: Arc<View> = self.views.current();
        view.submissions.iter().find(|submission| submission.job == *job).copied()
    }

    fn place(&self, job: Blake3Digest, replica: ReplicaIndex) -> Place {
        place(&self.states.borrow(), self.me, job, replica)
    }

    fn port(&self, job: &Blake3Digest, name: &Name) -> Option<Port> {
        let port = |body: &JobSpec| body.ports.iter().find(|port| port.name == *name).cloned();
        self.jobs.read(job, port).flatten()
    }

    fn endpoints(&self, job: &Blake3Digest, replica: ReplicaIndex) -> Endpoints {
        let observed = self.progress.seen(&(*job, replica)).unwrap_or_default();
        let published = |name: &Name| {
            let endpoint = observed.endpoints.iter().find(|endpoint| endpoint.name == *name)?;
            Some((endpoint.host, endpoint.port))
        };
        let ports = |body: &JobSpec| {
            let endpoint = |port: &Port| PortEndpoint {
                name: port.name.clone(),
                container: port.container,
                protocol: port.protocol,
                published: published(&port.name),
            };
            body.ports.iter().map(endpoint).collect()
        };
        let ports = self.jobs.read(job, ports).unwrap_or_default();
        let mut state = observed.state;
        state.truncate(state.floor_char_boundary(MAX_STATE));
        Endpoints { state, running: observed.running, ports }
    }

    fn allows_exec(&self) -> bool {
        self.exec
    }

    async fn delegation(&self, operator: Address, key: Address) -> Result<Delegation, String> {
        let asked = self.chain.delegation(self.scope.cluster, operator, key).await;
        asked.map_err(|error| error.to_string())
    }

    async fn changed(&self) {
        let (mut views, mut states) = (self.views.subscribe(), self.states.clone());
        views.mark_unchanged();
        states.mark_unchanged();
        tokio::select! {
            _ = views.changed() => {}
            _ = states.changed() => {}
        }
    }
}

/// Where a state has a replica, from `me`.
fn place(state: &ClusterState, me: PeerIdHash, job: Blake3Digest, replica: ReplicaIndex) -> Place {
    let is_mine = |worker: PeerIdHash| worker == me;
    match (state.placement(job, replica), state.done_replica(job, replica)) {
        (Some(placed), _) if is_mine(placed.worker) => Place::Here,
        (None, Some(done)) if is_mine(done.placement.worker) => Place::EndedHere,
        _ => Place::Elsewhere,
    }
}
