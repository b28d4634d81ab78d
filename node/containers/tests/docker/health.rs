//! Health checks: by the engine for commands, at the worker's word on Podman; by the worker for ports.

use veil_node_containers::Observed;
use veil_protocol_spec::scheduling::{HealthCheck, HealthProbe, JobSpec, Unhealthy};

use crate::common::{job, replicas, with_worker};

fn with_probe(args: &[&str], probe: HealthProbe) -> JobSpec {
    JobSpec {
        health: Some(HealthCheck {
            probe,
            interval_seconds: 1,
            timeout_seconds: 1,
            retries: 2,
            start_period_seconds: 0,
            unhealthy: Unhealthy::Nothing,
        }),
        ..job(args)
    }
}

async fn comes_to(spec: JobSpec, expected: Observed) {
    with_worker(async |worker| {
        let desired = replicas(spec, 1);
        let report = worker.reconcile(&desired).await;
        assert_eq!(report.started.len(), 1, "{report:?}");
        worker.until_observed(expected).await;
    })
    .await;
}

/// No arguments: the image's own, a web server.
#[tokio::test]
async fn a_page_that_is_served_is_healthy() {
    let probe = HealthProbe::Http { port: 8080, path: "/".to_owned() };
    comes_to(with_probe(&[], probe), Observed::Running).await;
}

#[tokio::test]
async fn a_page_that_is_not_there_is_unhealthy() {
    let probe = HealthProbe::Http { port: 8080, path: "/missing".to_owned() };
    comes_to(with_probe(&[], probe), Observed::Unhealthy).await;
}

#[tokio::test]
async fn a_port_that_is_open_is_healthy() {
    comes_to(with_probe(&[], HealthProbe::Tcp { port: 8080 }), Observed::Running).await;
}

#[tokio::test]
async fn a_port_that_is_closed_is_unhealthy() {
    let spec = with_probe(&["sleep", "3600"], HealthProbe::Tcp { port: 8080 });
    comes_to(spec, Observed::Unhealthy).await;
}

#[tokio::test]
async fn commands_are_run_in_the_container_word_by_word() {
    for (command, expected) in
        [("test 'a  b' = 'a  b'", Observed::Running), ("test 'a  b' = 'a b'", Observed::Unhealthy)]
    {
        let command = ["/bin/busybox", "sh", "-c", command];
        let probe = HealthProbe::Command(command.map(str::to_owned).to_vec());
        comes_to(with_probe(&["sleep", "3600"], probe), expected).await;
    }
}

#[tokio::test]
async fn before_the_first_success_a_replica_counts_as_starting() {
    let mut spec = with_probe(&["sleep", "3600"], HealthProbe::Tcp { port: 8080 });
    if let Some(health) = &mut spec.health {
        health.start_period_seconds = 3600;
    }
    comes_to(spec, Observed::Starting).await;
}
