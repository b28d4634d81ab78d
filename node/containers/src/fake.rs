//! An engine in memory, for tests with a clock of their own: what it is asked is counted, and what it is told
//! to ignore it never answers.

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use http_body_util::{BodyExt as _, Full};
use hyper::{
    Method, Request, Response,
    body::{Bytes, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use veil_protocol_spec::{
    Address, ChainId, ClusterId, KeccakDigest, PeerIdHash, ReplicaIndex, Slot,
    scheduling::{ClusterScope, CpuUnits, JobSpec, MemoryUnits, ResourceRequest, Resources},
};

use crate::{
    DesiredReplica, Executor, Filter, Keep, Observed, ObservedReplica, Owner, Placement,
    ReconcileReport, Terms,
    engine::{Deadlines, Docker},
    transport::{Connection, Dial},
};

/// How long a call takes.
const WORK: Duration = Duration::from_millis(5);

#[derive(Clone, Debug)]
pub(crate) struct Container {
    pub(crate) name: String,
    labels: Value,
    image: String,
    network: String,
    /// GPUs that it was made with.
    pub(crate) devices: Value,
    /// In Docker's words.
    pub(crate) state: &'static str,
    pub(crate) exit_code: i64,
    pub(crate) out_of_memory: bool,
    pub(crate) restarts: u64,
    /// By its own health check.
    pub(crate) unhealthy: bool,
    pub(crate) since: Instant,
}

/// What it answers to a pull: a status, headers and a body.
pub(crate) type Pull = (u16, Vec<(&'static str, &'static str)>, Value);

#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) containers: BTreeMap<String, Container>,
    /// What they were made of, by name.
    pub(crate) networks: BTreeMap<String, Value>,
    /// By reference, with their architectures.
    pub(crate) images: BTreeMap<String, String>,
    /// What a pull is answered with; without it, the image is there afterwards.
    pub(crate) pull: Option<Pull>,
    /// Whom its registry serves, by name; without it everybody.
    pub(crate) accepts: Option<&'static str>,
    /// Who has asked it, those without a name too.
    pub(crate) pulls: Vec<Option<String>>,
    /// It never answers what contains one of these.
    pub(crate) ignores: BTreeSet<String>,
    /// Whether it calls itself Podman.
    pub(crate) is_podman: bool,
    /// Processes of each container.
    pub(crate) processes: u64,
    pub(crate) calls: Vec<(Instant, String)>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Fake {
    state: Arc<Mutex<State>>,
}

impl Fake {
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// A worker on this engine, whose networks are none of this machine's.
    pub(crate) async fn worker(&self) -> Executor {
        self.worker_on(Terms { filter: Filter::Unfiltered, ..Terms::default() }).await
    }

    pub(crate) async fn worker_on(&self, terms: Terms) -> Executor {
        let docker = Docker::over(self.dial(), Deadlines::default()).await.unwrap();
        Executor::new(docker, owner()).on(terms)
    }

    fn dial(&self) -> Dial {
        let fake = self.clone();
        Arc::new(move || {
            let fake = fake.clone();
            Box::pin(async move {
                let (near, far) = tokio::io::duplex(64 << 10);
                let serve = service_fn(move |request| fake.clone().answer(request));
                let serving = http1::Builder::new().serve_connection(TokioIo::new(far), serve);
                tokio::spawn(serving);
                let near: Box<dyn Connection> = Box::new(near);
                Ok(near)
            })
        })
    }

    pub(crate) fn ignore(&self, call: &str) {
        self.state().ignores.insert(call.to_owned());
    }

    pub(crate) fn change(&self, container: &str, change: impl FnOnce(&mut Container)) {
        change(self.state().containers.get_mut(container).unwrap());
    }

    /// Calls since `since` that contain `part`.
    pub(crate) fn calls(&self, since: Instant, part: &str) -> usize {
        let state = self.state();
        let later = state.calls.iter().filter(|(at, call)| *at >= since && call.contains(part));
        later.count()
    }

    /// Makes a container of somebody else's run.
    pub(crate) fn run_foreign(&self, name: &str, devices: Value) {
        let container = Container {
            name: name.to_owned(),
            labels: json!({}),
            image: "somebody/elses".to_owned(),
            network: "bridge".to_owned(),
            devices,
            state: "running",
            exit_code: 0,
            out_of_memory: false,
            restarts: 0,
            unhealthy: false,
            since: Instant::now(),
        };
        self.state().containers.insert(name.to_owned(), container);
    }

    /// The id of a replica's container.
    pub(crate) fn container(&self, replica: &DesiredReplica) -> String {
        let name = crate::container::name(&owner(), &replica.id());
        let state = self.state();
        state.containers.iter().find(|(_, container)| container.name == name).unwrap().0.clone()
    }

    async fn answer(self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
        let (head, body) = request.into_parts();
        let path = head.uri.path().split_once("/v1.41").map_or(head.uri.path(), |(_, path)| path);
        let call = format!("{} {path}?{}", head.method, head.uri.query().unwrap_or_default());
        self.state().calls.push((Instant::now(), call.clone()));
        let ignored = self.state().ignores.iter().any(|part| call.contains(part));
        if ignored {
            std::future::pending::<()>().await;
        }
        sleep(WORK).await;
        let body = body.collect().await.unwrap().to_bytes();
        let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
        let parts: Vec<_> = path.trim_start_matches('/').split('/').collect();
        let query = head.uri.query().unwrap_or_default();
        let (status, headers, answer) = if parts == ["images", "create"] {
            let by = head.headers.get("x-registry-auth").map(|by| user(by.as_bytes()));
            self.state().pull(by, query)
        } else {
            self.state().answer(&head.method, &parts, query, &body)
        };
        let mut response = Response::builder().status(status);
        for (name, value) in headers {
            response = response.header(name, value);
        }
        let bytes = if answer.is_null() { Vec::new() } else { answer.to_string().into_bytes() };
        Ok(response.body(Full::new(Bytes::from(bytes))).unwrap())
    }
}

/// Who asks an engine to pull, as engines are told.
fn user(header: &[u8]) -> String {
    let said = header.iter().filter(|byte| **byte != b'=').copied().collect::<Vec<_>>();
    let said = URL_SAFE_NO_PAD.decode(said).unwrap();
    let said: Value = serde_json::from_slice(&said).unwrap();
    said["username"].as_str().unwrap_or_default().to_owned()
}

impl State {
    fn pull(&mut self, by: Option<String>, query: &str) -> Pull {
        let by = by.filter(|by| !by.is_empty());
        let is_accepted = self.accepts.is_none_or(|accepted| by.as_deref() == Some(accepted));
        self.pulls.push(by);
        if !is_accepted {
            let says = "unauthorized: authentication required";
            return (401, Vec::new(), json!({ "message": says }));
        }
        let image = query.split('&').find_map(|one| one.strip_prefix("fromImage="));
        let image = image.unwrap().replace("%2F", "/").replace("%3A", ":");
        self.pull.clone().unwrap_or_else(|| {
            self.images.insert(image.replace("%40", "@"), "amd64".to_owned());
            (200, Vec::new(), json!({ "status": "done" }))
        })
    }

    fn answer(&mut self, method: &Method, parts: &[&str], query: &str, body: &Value) -> Pull {
        let with = |status, answer| (status, Vec::new(), answer);
        let missing = || with(404, json!({ "message": "no such thing" }));
        let get = *method == Method::GET;
        match parts {
            ["_ping"] => with(200, json!("OK")),
            ["version"] => {
                let (engine, version) = if self.is_podman {
                    ("Podman Engine", "4.3.1")
                } else {
                    ("Engine", "20.10.24")
                };
                let engine = json!([{ "Name": engine, "Version": version }]);
                let of = json!({ "ApiVersion": "1.41", "Version": version, "Os": "linux", "Arch": "amd64",
                                 "Components": engine });
                with(200, of)
            }
            ["containers", "json"] => {
                let list = self.containers.iter().map(|(id, container)| container.line(id));
                with(200, list.collect())
            }
            ["containers", "create"] => {
                let name = query.split('&').find_map(|one| one.strip_prefix("name=")).unwrap();
                if self.containers.values().any(|container| container.name == name) {
                    return with(409, json!({ "message": "the name is taken" }));
                }
                let id = format!("c{:063}", self.containers.len());
                let container = Container {
                    name: name.to_owned(),
                    labels: body["Labels"].clone(),
                    image: body["Image"].as_str().unwrap().to_owned(),
                    network: body["HostConfig"]["NetworkMode"].as_str().unwrap().to_owned(),
                    devices: body["HostConfig"]["DeviceRequests"].clone(),
                    state: "created",
                    exit_code: 0,
                    out_of_memory: false,
                    restarts: 0,
                    unhealthy: false,
                    since: Instant::now(),
                };
                self.containers.insert(id.clone(), container);
                with(201, json!({ "Id": id, "Warnings": [] }))
            }
            ["containers", id, rest @ ..] => {
                let found = self.containers.iter_mut().find(|(i, of)| i == id || of.name == *id);
                let Some((id, container)) = found else { return missing() };
                match rest {
                    ["json"] => with(200, container.inspect(id)),
                    ["stats"] => with(200, stats(self.processes)),
                    ["start"] => {
                        (container.state, container.since) = ("running", Instant::now());
                        container.restarts = 0;
                        with(204, Value::Null)
                    }
                    ["stop"] => {
                        (container.state, container.since) = ("exited", Instant::now());
                        with(204, Value::Null)
                    }
                    [] => {
                        let id = id.clone();
                        self.containers.remove(&id);
                        with(204, Value::Null)
                    }
                    _ => missing(),
                }
            }
            ["networks"] => with(200, self.networks.values().cloned().collect()),
            ["networks", "create"] => {
                let name = body["Name"].as_str().unwrap().to_owned();
                self.networks.insert(name.clone(), body.clone());
                with(201, json!({ "Id": name, "Warning": "" }))
            }
            ["networks", name] if *method == Method::DELETE => match self.networks.remove(*name) {
                Some(_) => with(204, Value::Null),
                None => missing(),
            },
            ["images", name @ .., "json"] if get => {
                let name = name.join("/");
                let Some(architecture) = self.images.get(&name) else { return missing() };
                let digests = [&name];
                with(
                    200,
                    json!({ "Id": name, "RepoDigests": digests, "Os": "linux", "Architecture": architecture }),
                )
            }
            ["images", name @ ..] if *method == Method::DELETE => {
                match self.images.remove(&name.join("/")) {
                    Some(_) => with(200, json!([])),
                    None => missing(),
                }
            }
            _ => missing(),
        }
    }
}

impl Container {
    fn line(&self, id: &str) -> Value {
        let age = match self.since.elapsed().as_secs() {
            0 => "Less than a second".to_owned(),
            seconds @ 1..60 => format!("{seconds} seconds"),
            seconds => format!("{} minutes", seconds / 60),
        };
        let status = match self.state {
            "running" if self.unhealthy => format!("Up {age} (unhealthy)"),
            "running" => format!("Up {age}"),
            state => format!("{state} ({}) {age} ago", self.exit_code),
        };
        json!({
            "Id": id, "Names": [format!("/{}", self.name)], "Image": self.image, "ImageID": self.image,
            "Labels": self.labels, "State": self.state, "Status": status,
            "NetworkSettings": { "Networks": { &self.network: {} } },
        })
    }

    fn inspect(&self, id: &str) -> Value {
        let health = self.unhealthy.then(|| json!({ "Status": "unhealthy" }));
        json!({
            "Id": id,
            "RestartCount": self.restarts,
            "State": {
                "Status": self.state, "ExitCode": self.exit_code, "OOMKilled": self.out_of_memory,
                "Running": self.state == "running", "Health": health,
            },
            "HostConfig": { "DeviceRequests": self.devices },
        })
    }
}

fn stats(processes: u64) -> Value {
    json!({
        "pids_stats": { "current": processes, "limit": 512 },
        "cpu_stats": { "cpu_usage": { "total_usage": 1_000_000_000 } },
        "memory_stats": { "usage": 1 << 20 },
    })
}

pub(crate) fn owner() -> Owner {
    let scope = ClusterScope {
        chain_id: ChainId(1),
        contract: Address([1; 20]),
        cluster: ClusterId([2; 32]),
    };
    Owner { scope, worker: PeerIdHash([3; 32]) }
}

/// The first `count` replicas of the job number `nonce`.
pub(crate) fn replicas(nonce: u64, count: u16) -> Vec<DesiredReplica> {
    let request = ResourceRequest::Clear(Resources {
        cpu: CpuUnits(1),
        memory: MemoryUnits(1),
        ..Resources::default()
    });
    let image = format!("localhost:5000/app@sha256:{}", "ab".repeat(32)).parse().unwrap();
    let name = "app".parse().unwrap();
    let spec = JobSpec::new(owner().scope, Address([3; 20]), nonce, name, image, request);
    let spec = Arc::new(JobSpec { replicas: count, ..spec });
    let placement = Placement { slot: Slot(7), certificate: KeccakDigest([7; 32]) };
    (0..count)
        .map(|index| DesiredReplica {
            replica: ReplicaIndex(index),
            spec: Arc::clone(&spec),
            placement,
            contents: None,
        })
        .collect()
}

pub(crate) async fn reconcile(worker: &Executor, desired: &[DesiredReplica]) -> ReconcileReport {
    worker.reconcile(desired, &Keep::NOTHING).await.unwrap()
}

/// What is observed of one replica.
pub(crate) async fn observed(worker: &Executor, of: &DesiredReplica) -> ObservedReplica {
    let all = worker.observe().await.unwrap();
    all.into_iter().find(|replica| replica.id == of.id()).unwrap()
}

/// Of each replica.
pub(crate) async fn states(worker: &Executor) -> Vec<Observed> {
    worker.observe().await.unwrap().iter().map(|replica| replica.observed).collect()
}
