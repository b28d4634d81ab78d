//! Tests: GPUs, on an engine that records what it is asked for, with a driver's stand-in.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
};

use serde_json::json;
use veil_protocol_spec::scheduling::{
    CpuUnits, GpuUnits, JobSpec, MemoryUnits, ResourceRequest, Resources,
};

use crate::{
    DesiredReplica, Executor, Filter, Gpu, Gpus, ReplicaError, Terms,
    fake::{Fake, observed, reconcile, replicas},
};

/// The first `count` replicas of job number `nonce`, with so many GPUs each.
fn with_gpus(nonce: u64, count: u16, gpus: u16) -> Vec<DesiredReplica> {
    let resources = Resources {
        cpu: CpuUnits(1),
        memory: MemoryUnits(1),
        gpu: GpuUnits(gpus),
        ..Resources::default()
    };
    let mut desired = replicas(nonce, count);
    for replica in &mut desired {
        let request = ResourceRequest::Clear(resources);
        replica.spec = Arc::new(JobSpec { request, ..JobSpec::clone(&replica.spec) });
    }
    desired
}

/// Ids, of which one that begins with `!` is of a device that somebody computes on, and `-` a broken one.
fn driver(ids: &Arc<Mutex<Vec<&'static str>>>) -> Gpus {
    let ids = Arc::clone(ids);
    let gpu = |&id: &&'static str| match id.strip_prefix('!') {
        _ if id == "-" => Gpu::default(),
        None => Gpu { id: id.to_owned(), is_sound: true, is_free: true },
        Some(id) => Gpu { id: id.to_owned(), is_sound: true, is_free: false },
    };
    Gpus::new(move || ids.lock().unwrap().iter().map(gpu).collect())
}

async fn worker(fake: &Fake, ids: &Arc<Mutex<Vec<&'static str>>>) -> Executor {
    let terms = Terms { filter: Filter::Unfiltered, gpus: driver(ids), ..Terms::default() };
    fake.worker_on(terms).await
}

/// The devices that a replica's container was made with, none of them by number.
fn given(fake: &Fake, replica: &DesiredReplica) -> BTreeSet<String> {
    let id = fake.container(replica);
    let devices = fake.state().containers[&id].devices.clone();
    let [request] = &devices.as_array().unwrap()[..] else { panic!("{devices}") };
    assert!(request["Count"].is_null(), "{request}");
    assert_eq!(request["Capabilities"], json!([["gpu"]]));
    let ids = request["DeviceIDs"].as_array().unwrap();
    ids.iter().map(|id| id.as_str().unwrap().to_owned()).collect()
}

#[tokio::test(start_paused = true)]
async fn no_device_is_given_twice() {
    let fake = Fake::default();
    let ids = Arc::new(Mutex::new(vec!["GPU-a", "GPU-b", "GPU-c", "GPU-d", "GPU-e"]));
    // Somebody else has one by its number, and one by its id.
    fake.run_foreign("one", json!([{ "Count": 1, "Capabilities": [["gpu"]] }]));
    fake.run_foreign("other", json!([{ "DeviceIDs": ["GPU-c"], "Capabilities": [["gpu"]] }]));
    let executor = worker(&fake, &ids).await;
    let desired = with_gpus(1, 2, 1);
    assert_eq!(reconcile(&executor, &desired).await.started.len(), 2);
    let all: BTreeSet<_> = desired.iter().flat_map(|one| given(&fake, one)).collect();
    assert_eq!(all.len(), 2, "{all:?}");
    assert!(!all.contains("GPU-a") && !all.contains("GPU-c"), "{all:?}");
    // The next process of the worker, too, knows what is given; one device is left.
    let executor = worker(&fake, &ids).await;
    let two = with_gpus(2, 1, 2);
    let report = reconcile(&executor, &[desired.clone(), two.clone()].concat()).await;
    let (_, error) = &report.failed[0];
    assert!(matches!(**error, ReplicaError::NoGpus { wanted: 2, free: 1, all: 5 }), "{error}");
    let last = with_gpus(3, 1, 1);
    let report = reconcile(&executor, &[desired, last.clone()].concat()).await;
    assert_eq!(report.started, [last[0].id()], "{report:?}");
    assert!(given(&fake, &last[0]).is_disjoint(&all));
    // What has stopped gives back what it had.
    assert_eq!(reconcile(&executor, &[]).await.stopped.len(), 3);
    assert_eq!(reconcile(&executor, &two).await.started.len(), 1);
}

/// It would leave the request out and start the container.
#[tokio::test(start_paused = true)]
async fn podman_is_asked_for_none_and_offers_none() {
    let fake = Fake::default();
    let ids = Arc::new(Mutex::new(vec!["GPU-a"]));
    let executor = worker(&fake, &ids).await;
    assert!(!executor.held().await.gives_no_gpus);
    fake.state().is_podman = true;
    let executor = worker(&fake, &ids).await;
    assert!(executor.held().await.gives_no_gpus);
    let (some, none) = (with_gpus(1, 1, 1), replicas(2, 1));
    let report = reconcile(&executor, &[some.clone(), none.clone()].concat()).await;
    assert_eq!(report.started, [none[0].id()], "{report:?}");
    let error = observed(&executor, &some[0]).await.error.unwrap();
    assert!(error.contains("Podman gives none"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn without_a_driver_nothing_that_wants_a_device_starts() {
    let fake = Fake::default();
    let executor = worker(&fake, &Arc::default()).await;
    let desired = [with_gpus(1, 1, 1), replicas(2, 1)].concat();
    let report = reconcile(&executor, &desired).await;
    assert_eq!(report.started, [desired[1].id()], "{report:?}");
    let error = observed(&executor, &desired[0]).await.error.unwrap();
    assert!(error.contains("asks for 1 GPUs; of the 0"), "{error}");
}

/// The worker's own container computes on its device, which stays its own; others' processes keep theirs.
#[tokio::test(start_paused = true)]
async fn a_device_that_fails_or_is_computed_on_elsewhere_is_not_given() {
    let fake = Fake::default();
    let ids = Arc::new(Mutex::new(vec!["-", "!GPU-b", "GPU-c", "GPU-d"]));
    // Somebody has the first three by number.
    fake.run_foreign("other", json!([{ "Count": 3, "Capabilities": [["gpu"]] }]));
    let executor = worker(&fake, &ids).await;
    let (one, more) = (with_gpus(1, 1, 1), with_gpus(2, 1, 1));
    let report = reconcile(&executor, &[one.clone(), more.clone()].concat()).await;
    assert_eq!(report.started.len(), 1, "{report:?}");
    let (_, error) = &report.failed[0];
    assert!(matches!(**error, ReplicaError::NoGpus { wanted: 1, free: 0, all: 3 }), "{error}");
    let (first, second) = if report.started[0] == one[0].id() { (one, more) } else { (more, one) };
    assert_eq!(given(&fake, &first[0]), ["GPU-d".to_owned()].into());
    *ids.lock().unwrap() = vec!["GPU-a", "!GPU-b", "GPU-c", "!GPU-d"];
    assert_eq!(executor.held().await.devices, ["GPU-d".to_owned()].into());
    fake.state().containers.remove("other");
    tokio::time::sleep(core::time::Duration::from_secs(700)).await;
    let both = [first, second.clone()].concat();
    assert_eq!(reconcile(&executor, &both).await.started.len(), 1);
    assert_eq!(given(&fake, &second[0]), ["GPU-a".to_owned()].into());
}
