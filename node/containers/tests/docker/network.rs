//! What containers reach, and what not.

use veil_node_containers::{DesiredReplica, Filter, Observed, ReplicaError, Terms};
use veil_protocol_spec::{
    Address,
    scheduling::{Egress, JobSpec},
};

use crate::{
    common::{SLEEP, Worker, is_podman, job, replicas, until, with_terms, with_worker},
    outside::{Outside, fails, has_interface, has_table, reaches, run},
};

/// A job whose program ends with the number of the first line that does not hold, or with 0.
fn checked(egress: Egress, lines: &[String]) -> JobSpec {
    let checks = lines.iter().zip(1..).map(|(line, number)| format!("{line} || exit {number}\n"));
    let script: String = checks.collect();
    JobSpec { egress, ..job(&["sh", "-c", &script]) }
}

async fn holds(worker: &Worker, others: &[DesiredReplica], spec: JobSpec) {
    let checking = replicas(spec, 1);
    let report = worker.reconcile(&[others, &checking].concat()).await;
    assert!(report.started.contains(&checking[0].id()), "{report:?}");
    until(async || {
        let observed = worker.executor.observe().await.unwrap();
        let seen = observed.iter().find(|seen| seen.id == checking[0].id()).unwrap().observed;
        match seen {
            Observed::Exited { code } => {
                assert_eq!(code, 0, "the line of this number does not hold");
                true
            }
            _ => false,
        }
    })
    .await;
}

fn table(worker: &Worker) -> String {
    let worker = worker.owner.worker.to_string();
    format!("veil_{worker:.16}_31337_c0c0c0c0_c1c1c1c1c1c1c1c1")
}

async fn bridge(worker: &Worker) -> String {
    let networks = worker.networks().await;
    assert_eq!(networks.len(), 1, "{networks:?}");
    networks[0].labels.as_ref().unwrap()["veil.bridge"].clone()
}

async fn address(worker: &Worker) -> String {
    let networks = worker.container().await.network_settings.unwrap().networks.unwrap();
    networks.into_values().find_map(|network| network.ip_address).unwrap()
}

#[tokio::test]
async fn a_container_reaches_public_addresses_and_neither_host_nor_metadata_nor_private_ranges() {
    with_worker(async |worker| {
        let mut outside = Outside::new();
        outside.serve(80);
        let port = outside.serve_here();
        let sleeping = replicas(job(&SLEEP), 1);
        assert_eq!(worker.reconcile(&sleeping).await.started.len(), 1);
        let gateway = worker.networks().await[0].ipam.clone().unwrap().config.unwrap()[0].clone();
        let lines = [
            reaches(&outside.public, 80),
            fails(&outside.private, 80),
            fails(&outside.metadata, 80),
            fails(&outside.here, port),
            fails(&gateway.gateway.unwrap(), port),
            reaches(&outside.public, 80),
        ];
        holds(worker, &sleeping, checked(Egress::Public, &lines)).await;
    })
    .await;
}

#[tokio::test]
async fn name_servers_are_asked_at_their_port_wherever_they_are() {
    let mut outside = Outside::new();
    let private = outside.private.parse().unwrap();
    with_terms(Terms { name_servers: vec![private], ..Terms::default() }, async |worker| {
        for port in [53, 80] {
            outside.serve(port);
        }
        let serving = replicas(job(&[]), 1);
        assert_eq!(worker.reconcile(&serving).await.started.len(), 1);
        let name = worker.container().await.name.unwrap().trim_start_matches('/').to_owned();
        // The engine's own resolver, within the container; of two, Podman has the container ask the given one.
        let asked = match is_podman().await {
            true => format!("grep -q 'nameserver {private}$' /etc/resolv.conf"),
            false => format!("nslookup {name} 127.0.0.11"),
        };
        let lines = [reaches(&outside.private, 53), fails(&outside.private, 80), asked];
        holds(worker, &serving, checked(Egress::Public, &lines)).await;
    })
    .await;
    with_worker(async |worker| {
        let serving = replicas(job(&[]), 1);
        assert_eq!(worker.reconcile(&serving).await.started.len(), 1);
        let name = worker.container().await.name.unwrap().trim_start_matches('/').to_owned();
        let lines = [format!("nslookup {name}")];
        holds(worker, &serving, checked(Egress::Public, &lines)).await;
    })
    .await;
}

#[tokio::test]
async fn containers_of_two_operators_do_not_meet_and_those_of_one_do() {
    let allowed = Terms { allow_private: true, ..Terms::default() };
    with_terms(allowed, async |worker| {
        let serving = replicas(job(&[]), 1);
        assert_eq!(worker.reconcile(&serving).await.started.len(), 1);
        let at = address(worker).await;
        holds(worker, &serving, checked(Egress::Public, &[reaches(&at, 8080)])).await;
        for egress in [Egress::Public, Egress::AllowPrivate, Egress::None] {
            let stranger =
                JobSpec { operator: Address([2; 20]), ..checked(egress, &[fails(&at, 8080)]) };
            holds(worker, &serving, stranger).await;
        }
        // Of another worker on the same machine.
        with_terms(Terms { allow_private: true, ..Terms::default() }, async |other| {
            holds(other, &[], checked(Egress::AllowPrivate, &[fails(&at, 8080)])).await;
        })
        .await;
    })
    .await;
}

#[tokio::test]
async fn private_ranges_need_the_word_of_the_workers_operator() {
    let mut outside = Outside::new();
    outside.serve(80);
    let port = outside.serve_here();
    let lines = [
        reaches(&outside.public, 80),
        reaches(&outside.private, 80),
        fails(&outside.metadata, 80),
        fails(&outside.here, port),
    ];
    let spec = checked(Egress::AllowPrivate, &lines);
    with_worker(async |worker| {
        let desired = replicas(spec.clone(), 1);
        let report = worker.reconcile(&desired).await;
        let (_, error) = &report.failed[0];
        assert!(matches!(**error, ReplicaError::PrivateEgress), "{error}");
        assert!(worker.containers().await.is_empty());
    })
    .await;
    with_terms(Terms { allow_private: true, ..Terms::default() }, async |worker| {
        holds(worker, &[], spec).await;
    })
    .await;
}

#[tokio::test]
async fn without_egress_nothing_is_reached() {
    let mut outside = Outside::new();
    outside.serve(80);
    for filter in [Filter::Enforced, Filter::Unfiltered] {
        with_terms(Terms { filter, ..Terms::default() }, async |worker| {
            let lines = [fails(&outside.public, 80), fails(&outside.private, 80)];
            holds(worker, &[], checked(Egress::None, &lines)).await;
        })
        .await;
    }
}

#[tokio::test]
async fn rules_that_somebody_has_removed_are_back_with_the_next_reconciliation() {
    with_worker(async |worker| {
        let desired = replicas(job(&SLEEP), 1);
        assert_eq!(worker.reconcile(&desired).await.started.len(), 1);
        assert!(has_table(&table(worker)));
        run("nft", &["delete", "table", "inet", &table(worker)]);
        assert!(worker.reconcile(&desired).await.is_unchanged());
        assert!(has_table(&table(worker)));
    })
    .await;
}

#[tokio::test]
async fn a_network_and_its_rules_go_with_the_last_container_that_has_it() {
    with_worker(async |worker| {
        let first = replicas(job(&SLEEP), 1);
        let stranger = JobSpec { operator: Address([2; 20]), ..job(&SLEEP) };
        let second = replicas(stranger, 1);
        let both = [first.clone(), second].concat();
        assert_eq!(worker.reconcile(&both).await.started.len(), 2);
        assert_eq!(worker.networks().await.len(), 2);
        assert_eq!(worker.reconcile(&first).await.stopped.len(), 1);
        let bridge = bridge(worker).await;
        assert!(has_interface(&bridge) && has_table(&table(worker)));
        // It does not run, but may.
        let id = worker.container().await.id.unwrap();
        worker.engine.kill_container(&id, None).await.unwrap();
        worker.until_observed(Observed::Exited { code: 137 }).await;
        assert!(worker.reconcile(&first).await.is_unchanged());
        // Podman makes it anew with the next container; the rules are by its name.
        assert!(has_table(&table(worker)));
        assert!(has_interface(&bridge) || is_podman().await);
        assert_eq!(worker.reconcile(&[]).await.stopped.len(), 1);
        assert!(worker.networks().await.is_empty());
        assert!(!has_interface(&bridge) && !has_table(&table(worker)));
    })
    .await;
}
