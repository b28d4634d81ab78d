//! Images that cannot be had, each for its reason, by the words of a real engine; and images that nobody
//! needs any more.

use std::time::{Duration, SystemTime};

use bollard::query_parameters::{CreateImageOptionsBuilder, RemoveImageOptions};
use futures::TryStreamExt as _;
use veil_node_containers::{Docker, Observed, ReplicaError};
use veil_protocol_spec::scheduling::JobSpec;

use crate::{
    common::{Worker, is_podman, replicas, socket, with_worker},
    registry::Registry,
};

/// The engine is shared, and outlives the test.
async fn remove_what_was_pulled(worker: &Worker) {
    assert_eq!(worker.reconcile(&[]).await.failed.len(), 0);
    let day = Duration::from_secs(86_400);
    worker.executor.collect_images(Duration::ZERO, SystemTime::now() + day).await.unwrap();
}

/// Why the replica of `spec` does not run.
async fn refusal(worker: &Worker, spec: JobSpec) -> String {
    let desired = replicas(spec, 1);
    let report = worker.reconcile(&desired).await;
    let (_, error) = &report.failed[0];
    assert_eq!(worker.containers().await, []);
    let observed = worker.executor.observe().await.unwrap();
    assert_eq!(observed[0].observed, Observed::Missing);
    assert!(observed[0].error.as_ref().unwrap().contains(&error.to_string()));
    if error.is_final() {
        let report = worker.reconcile(&desired).await;
        assert_eq!((report.waiting.len(), report.failed.len()), (1, 0), "{report:?}");
    }
    format!("{error:?}")
}

#[tokio::test]
async fn what_cannot_succeed_is_final_and_named() {
    with_worker(async |worker| {
        let registry = Registry::start().await;
        let arm64_only = registry.put_file(include_bytes!("../oci/made-index-arm64-only.json"));
        let attestation =
            registry.put_file(include_bytes!("../oci/made-attestation-manifest.json"));
        let with_attestation =
            registry.put_file(include_bytes!("../oci/made-index-with-attestation.json"));
        let (arm64, amd64) = (registry.put_image("arm64"), registry.put_image("amd64"));
        let nothing = format!("sha256:{}", "cd".repeat(32));
        let swapped = format!("sha256:{}", "ef".repeat(32));
        registry.put_as(
            &swapped,
            "application/vnd.oci.image.manifest.v1+json",
            include_bytes!("../oci/made-image-manifest-oci.json"),
        );
        // Podman asks for its configuration first, which this registry lacks.
        let no_image = if is_podman().await { "Pull" } else { "Attestation" };
        for (digest, expected) in [
            (arm64_only, "WrongPlatform"),
            // The engine pulls a single manifest of another platform without a word.
            (arm64, "WrongPlatform"),
            (attestation, no_image),
            // The index is understood; the registry lacks the image that it lists for amd64.
            (with_attestation, "NoSuchImage"),
            (nothing, "NoSuchImage"),
            (swapped, "WrongContent"),
        ] {
            let (before, spec) = (registry.manifests_asked_for(), registry.job(&digest));
            let error = refusal(worker, spec).await;
            assert!(error.starts_with(expected), "{expected}: {error}");
            let asked = registry.manifests_asked_for() - before;
            assert!(asked <= 2, "{expected}: {asked}");
        }
        // What is left of the test: an image that can be had, whose program cannot be run.
        let error = refusal(worker, registry.job(&amd64)).await;
        assert!(error.starts_with("Docker"), "{error}");
        remove_what_was_pulled(worker).await;
    })
    .await;
}

#[tokio::test]
async fn layers_that_the_engine_cannot_unpack_are_named() {
    with_worker(async |worker| {
        let facts = Docker::connect(&socket()).await.unwrap().facts().await.unwrap();
        let major: u32 = facts.version.split('.').next().unwrap().parse().unwrap();
        if facts.engine != "Docker" || major >= 23 {
            println!("skipped: {facts} unpacks zstd");
            return;
        }
        let registry = Registry::start().await;
        let zstd = registry.put_zstd(include_bytes!("../oci/made-manifest-zstd-layers.json"));
        let error = refusal(worker, registry.job(&zstd)).await;
        assert!(error.starts_with("Unreadable"), "{error}");
        assert!(error.contains(&facts.version), "{error}");
    })
    .await;
}

#[tokio::test]
async fn a_registry_that_limits_its_use_is_named_and_not_asked_again_at_once() {
    with_worker(async |worker| {
        if is_podman().await {
            println!("skipped: Podman asks again by itself, for longer than a pull may be silent");
            return;
        }
        let registry = Registry::start().await;
        let image = registry.put_image("amd64");
        registry.refuse(Some((429, "TOOMANYREQUESTS")));
        let desired = replicas(registry.job(&image), 2);
        let report = worker.reconcile(&desired).await;
        for (_, error) in &report.failed {
            assert!(matches!(**error, ReplicaError::Limited { .. }), "{error:?}");
        }
        // By HEAD and by GET.
        assert!(registry.manifests_asked_for() <= 2);
        for _ in 0..20 {
            assert_eq!(worker.reconcile(&desired).await.waiting.len(), 2);
        }
        assert!(registry.manifests_asked_for() <= 2);
    })
    .await;
}

#[tokio::test]
async fn images_that_the_worker_pulled_and_nobody_uses_are_removed() {
    with_worker(async |worker| {
        let registry = Registry::start().await;
        let (own, elses) = (registry.put_image("amd64"), registry.put_image("386"));
        let (own, elses) = (replicas(registry.job(&own), 1), replicas(registry.job(&elses), 1));
        let name = |of: &[veil_node_containers::DesiredReplica]| of[0].spec.image.clone();
        let options = CreateImageOptionsBuilder::new().from_image(name(&elses).as_str()).build();
        let pulling = worker.engine.create_image(Some(options), None, None);
        pulling.try_collect::<Vec<_>>().await.unwrap();
        // Neither has a program that could run: both images are asked for, and no container stays.
        assert_eq!(worker.reconcile(&[own.clone(), elses.clone()].concat()).await.failed.len(), 2);
        let week = Duration::from_secs(7 * 86_400);
        let collect = async |later| {
            worker.executor.collect_images(week, SystemTime::now() + later).await.unwrap()
        };
        assert_eq!(collect(2 * week).await, [], "both are to run");
        assert_eq!(worker.reconcile(&[]).await.failed.len(), 0);
        assert_eq!(collect(Duration::ZERO).await, [], "it was in use");
        assert_eq!(collect(4 * week).await, [name(&own)]);
        assert!(worker.engine.inspect_image(name(&own).as_str()).await.is_err());
        assert!(worker.engine.inspect_image(name(&elses).as_str()).await.is_ok());
        let options = None::<RemoveImageOptions>;
        worker.engine.remove_image(name(&elses).as_str(), options, None).await.unwrap();
    })
    .await;
}
