//! The real engine, the real registry, and one worker per test.

use std::{
    env, io,
    panic::{AssertUnwindSafe, resume_unwind},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use bollard::{
    errors::Error,
    models::{ContainerCreateBody, ContainerInspectResponse, ContainerSummary, Network},
    query_parameters::{
        CreateContainerOptionsBuilder, ListContainersOptionsBuilder, ListNetworksOptionsBuilder,
        RemoveContainerOptionsBuilder,
    },
};
use futures::FutureExt as _;
use tokio::time::{Instant, sleep};
use veil_node_containers::{
    DEFAULT_SOCKET, Deadlines, DesiredReplica, Docker, Executor, Keep, Observed, Owner, Placement,
    ReconcileReport, Save, Terms,
};
use veil_protocol_spec::{
    Address, ChainId, ClusterId, KeccakDigest, PeerIdHash, ReplicaIndex, Slot,
    scheduling::{
        ClusterScope, CpuUnits, JobSpec, MemoryUnits, ResourceRequest, Resources, RestartMode,
        RestartPolicy,
    },
};

const SET_UP: &str = "these tests need a Docker engine and a registry: cargo xtask setup --docker";
/// No test needs nearly as long; it ends a test that hangs.
const PATIENCE: Duration = Duration::from_secs(600);
/// Label of what a test starts beside its worker, with the worker's name: of this test alone, on an
/// engine that other runs use too.
const BESIDE: &str = "veil.test.beside";
pub(crate) const SLEEP: [&str; 2] = ["sleep", "3600"];

pub(crate) fn socket() -> PathBuf {
    let host = env::var("DOCKER_HOST").ok();
    let host = host.as_deref().and_then(|host| host.strip_prefix("unix://")).map(PathBuf::from);
    env::var_os("VEIL_DOCKER_SOCKET").map(PathBuf::from).or(host).unwrap_or(DEFAULT_SOCKET.into())
}

/// The sample image by digest, as the set-up left it.
pub(crate) fn image() -> String {
    let note = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("setup/sample-image");
    std::fs::read_to_string(&note).unwrap_or_else(|error| {
        panic!("{SET_UP} ({}: {error})", note.display());
    })
}

/// A worker with an identity of its own on the shared engine.
pub(crate) struct Worker {
    pub(crate) engine: bollard::Docker,
    pub(crate) owner: Owner,
    pub(crate) executor: Executor,
}

impl Worker {
    async fn new(deadlines: Deadlines, terms: Terms) -> Self {
        let docker = Docker::connect_with(&socket(), deadlines)
            .await
            .unwrap_or_else(|error| panic!("{SET_UP}\n{error}"));
        let path = socket();
        let engine = bollard::Docker::connect_with_unix(
            path.to_str().unwrap(),
            60,
            bollard::API_DEFAULT_VERSION,
        );
        let engine = engine.unwrap().negotiate_version().await.unwrap();
        let owner = Owner { scope: scope(), worker: PeerIdHash(rand::random()) };
        Self { engine, owner, executor: Executor::new(docker, owner).on(terms) }
    }

    pub(crate) async fn reconcile(&self, desired: &[DesiredReplica]) -> ReconcileReport {
        self.executor.reconcile(desired, &Keep::NOTHING).await.unwrap()
    }

    /// The worker's containers, by asking the engine itself.
    pub(crate) async fn containers(&self) -> Vec<ContainerSummary> {
        self.labelled("veil.worker").await
    }

    async fn labelled(&self, label: &str) -> Vec<ContainerSummary> {
        let label = format!("{label}={}", self.owner.worker);
        let filters = [("label", vec![label])].into_iter().collect();
        let options = ListContainersOptionsBuilder::new().all(true).filters(&filters).build();
        asked(async || self.engine.list_containers(Some(options.clone())).await).await
    }

    /// The worker's networks, by asking the engine itself.
    pub(crate) async fn networks(&self) -> Vec<Network> {
        let label = format!("veil.worker={}", self.owner.worker);
        let filters = [("label", vec![label])].into_iter().collect();
        let options = ListNetworksOptionsBuilder::new().filters(&filters).build();
        self.engine.list_networks(Some(options)).await.unwrap()
    }

    /// The worker's only container.
    pub(crate) async fn container(&self) -> ContainerInspectResponse {
        let containers = self.containers().await;
        assert_eq!(containers.len(), 1, "{containers:?}");
        let id = containers[0].id.as_deref().unwrap();
        asked(async || self.engine.inspect_container(id, None).await).await
    }

    /// Makes a container that is not the worker's; it goes with the test.
    pub(crate) async fn create_beside(&self, name: Option<&str>) -> String {
        let options = name.map(|name| CreateContainerOptionsBuilder::new().name(name).build());
        let label = (BESIDE.to_owned(), self.owner.worker.to_string());
        let body = ContainerCreateBody {
            image: Some(image()),
            cmd: Some(SLEEP.map(str::to_owned).to_vec()),
            labels: Some([label].into()),
            ..ContainerCreateBody::default()
        };
        self.engine.create_container(options, body).await.unwrap().id
    }

    async fn remove_beside(&self) {
        for container in self.labelled(BESIDE).await {
            let remove = RemoveContainerOptionsBuilder::new().force(true).build();
            let id = container.id.unwrap();
            self.engine.remove_container(&id, Some(remove)).await.unwrap();
        }
    }

    /// What is observed of the worker's only replica.
    pub(crate) async fn observed(&self) -> Observed {
        let observed = self.executor.observe().await.unwrap();
        assert_eq!(observed.len(), 1, "{observed:?}");
        observed[0].observed
    }

    pub(crate) async fn until_observed(&self, expected: Observed) {
        until(async || self.observed().await == expected).await;
    }
}

/// What a worker's process leaves to the next.
#[derive(Clone, Default)]
pub(crate) struct Disk(Arc<Mutex<Vec<u8>>>);

impl Disk {
    /// A process of this worker.
    pub(crate) async fn executor(&self, owner: Owner) -> Executor {
        let (saved, disk) = (self.0.lock().unwrap().clone(), Arc::clone(&self.0));
        let docker = Docker::connect(&socket()).await.unwrap();
        let save: Save = Box::new(move |bytes| -> io::Result<()> {
            *disk.lock().unwrap() = bytes.to_vec();
            Ok(())
        });
        Executor::remembering(docker, owner, &saved, save)
    }
}

/// Runs `test` with a worker, and removes the worker's containers whatever happens.
pub(crate) async fn with_worker(test: impl AsyncFnOnce(&Worker)) {
    with_terms(Terms::default(), test).await;
}

pub(crate) async fn with_terms(terms: Terms, test: impl AsyncFnOnce(&Worker)) {
    let deadlines = Deadlines { grace: Duration::from_secs(1), ..Deadlines::default() };
    with(deadlines, terms, test).await;
}

pub(crate) async fn with_deadlines(deadlines: Deadlines, test: impl AsyncFnOnce(&Worker)) {
    with(deadlines, Terms::default(), test).await;
}

async fn with(deadlines: Deadlines, terms: Terms, test: impl AsyncFnOnce(&Worker)) {
    let worker = Worker::new(deadlines, terms).await;
    let result = AssertUnwindSafe(test(&worker)).catch_unwind().await;
    let cleaned = worker.executor.reconcile(&[], &Keep::NOTHING).await;
    worker.remove_beside().await;
    if let Err(panic) = result {
        resume_unwind(panic);
    }
    assert!(cleaned.unwrap().failed.is_empty());
    assert_eq!(worker.containers().await, []);
    assert_eq!(worker.networks().await, []);
}

/// Whether the engine is Podman.
pub(crate) async fn is_podman() -> bool {
    let docker =
        Docker::connect(&socket()).await.unwrap_or_else(|error| panic!("{SET_UP}\n{error}"));
    docker.facts().await.unwrap().engine == "Podman"
}

/// For a moment containers of Podman are in states that bollard cannot read.
async fn asked<T>(ask: impl AsyncFn() -> Result<T, Error>) -> T {
    let start = Instant::now();
    loop {
        match ask().await {
            Err(Error::JsonDataError { .. }) if start.elapsed() < PATIENCE => {
                sleep(Duration::from_millis(50)).await;
            }
            answer => return answer.unwrap(),
        }
    }
}

/// Asks until it holds; for what stays so, since between two looks anything may pass.
pub(crate) async fn until(holds: impl AsyncFn() -> bool) {
    let start = Instant::now();
    while !holds().await {
        assert!(start.elapsed() < PATIENCE, "it never came to that");
        sleep(Duration::from_millis(50)).await;
    }
}

pub(crate) fn scope() -> ClusterScope {
    ClusterScope {
        chain_id: ChainId(31_337),
        contract: Address([0xc0; 20]),
        cluster: ClusterId([0xc1; 32]),
    }
}

/// A job with the sample image that does what `args` say to busybox, and is never started again.
pub(crate) fn job(args: &[&str]) -> JobSpec {
    JobSpec {
        args: args.iter().map(|&arg| arg.to_owned()).collect(),
        replicas: 2,
        restart: RestartPolicy { mode: RestartMode::Never, ..RestartPolicy::default() },
        ..JobSpec::new(
            scope(),
            Address([1; 20]),
            rand::random(),
            "app".parse().unwrap(),
            image().parse().unwrap(),
            ResourceRequest::Clear(Resources {
                cpu: CpuUnits(2),
                memory: MemoryUnits(1),
                ..Resources::default()
            }),
        )
    }
}

/// The first `count` replicas of `job`.
pub(crate) fn replicas(job: JobSpec, count: u16) -> Vec<DesiredReplica> {
    job.validate().unwrap();
    let spec = Arc::new(job);
    let placement = Placement { slot: Slot(7), certificate: KeccakDigest([0xce; 32]) };
    (0..count)
        .map(|index| DesiredReplica {
            replica: ReplicaIndex(index),
            spec: Arc::clone(&spec),
            placement,
            contents: None,
        })
        .collect()
}
