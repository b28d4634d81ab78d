//! Ports on the worker's address.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};

use veil_node_containers::{Endpoint, Filter, Observed, ReplicaError, Terms};
use veil_protocol_spec::scheduling::{
    Egress, HostPort, JobSpec, Port, Protocol, RestartMode, RestartPolicy,
};

use crate::{
    common::{SLEEP, Worker, is_podman, job, replicas, until, with_terms, with_worker},
    outside::{Outside, fails, is_forwarding_barred},
};

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

fn port(name: &str, container: u16, protocol: Protocol, host: HostPort) -> Port {
    Port { name: name.parse().unwrap(), container: container.try_into().unwrap(), protocol, host }
}

/// The sample's web server.
fn web(host: HostPort) -> JobSpec {
    JobSpec { ports: vec![port("http", 8080, Protocol::Tcp, host)], ..job(&[]) }
}

async fn endpoints(worker: &Worker) -> Vec<Endpoint> {
    let mut observed = worker.executor.observe().await.unwrap();
    assert_eq!(observed.len(), 1, "{observed:?}");
    observed.remove(0).endpoints
}

async fn answers(at: SocketAddr) -> bool {
    tokio::net::TcpStream::connect(at).await.is_ok()
}

/// A port that nobody has at the moment.
fn free_port() -> u16 {
    TcpListener::bind((LOOPBACK, 0)).unwrap().local_addr().unwrap().port()
}

#[tokio::test]
async fn a_port_that_the_worker_chose_leads_in_and_is_kept_over_restarts() {
    with_worker(async |worker| {
        let restart = RestartPolicy { mode: RestartMode::Always, ..RestartPolicy::default() };
        let desired = replicas(JobSpec { restart, ..web(HostPort::Dynamic) }, 2);
        let report = worker.reconcile(&desired[..1]).await;
        assert_eq!(report.started.len(), 1, "{report:?}");
        let before = endpoints(worker).await;
        let [Endpoint { name, host, port, protocol }] = &before[..] else { panic!("{before:?}") };
        assert_eq!((name.as_str(), *protocol), ("http", Protocol::Tcp));
        assert!(Terms::default().dynamic_ports.contains(port) && host.is_unspecified());
        let at = SocketAddr::new(LOOPBACK, *port);
        until(async || answers(at).await).await;
        let id = worker.container().await.id.unwrap();
        worker.engine.kill_container(&id, None).await.unwrap();
        until(async || worker.reconcile(&desired[..1]).await.restarted.len() == 1).await;
        assert_eq!(endpoints(worker).await, before);
        until(async || answers(at).await).await;
        // Another replica has another number.
        assert_eq!(worker.reconcile(&desired).await.started.len(), 1);
        let observed = worker.executor.observe().await.unwrap();
        assert_ne!(observed[0].endpoints, observed[1].endpoints);
    })
    .await;
}

#[tokio::test]
async fn a_port_on_all_addresses_is_said_to_be_at_the_announced_one() {
    let announced_address = Some(IpAddr::from([192, 0, 2, 7]));
    for publish_address in [Terms::default().publish_address, LOOPBACK] {
        let terms = Terms { publish_address, announced_address, ..Terms::default() };
        with_terms(terms, async |worker| {
            let _ = worker.reconcile(&replicas(web(HostPort::Dynamic), 1)).await;
            let said = endpoints(worker).await[0].host;
            let is_on_all = publish_address.is_unspecified();
            assert_eq!(said, announced_address.filter(|_| is_on_all).unwrap_or(LOOPBACK));
        })
        .await;
    }
}

#[tokio::test]
async fn a_port_in_use_is_the_trouble_of_that_replica_and_is_tried_again() {
    let at_loopback = Terms { publish_address: LOOPBACK, ..Terms::default() };
    with_terms(at_loopback, async |worker| {
        let listener = TcpListener::bind((LOOPBACK, 0)).unwrap();
        let used = listener.local_addr().unwrap().port();
        let fixed = HostPort::Fixed(used.try_into().unwrap());
        let (taken, other) = (replicas(web(fixed), 1), replicas(job(&SLEEP), 1));
        let both = [taken.clone(), other.clone()].concat();
        let report = worker.reconcile(&both).await;
        assert_eq!(report.started, [other[0].id()], "{report:?}");
        let (id, error) = &report.failed[0];
        assert_eq!(*id, taken[0].id());
        assert!(matches!(**error, ReplicaError::PortInUse { .. }), "{error}");
        let report = worker.reconcile(&both).await;
        assert_eq!((report.waiting, report.failed.len()), (vec![*id], 0), "it waits");
        assert_eq!(worker.containers().await.len(), 1, "nothing half done");
        drop(listener);
        until(async || worker.reconcile(&both).await.started == [*id]).await;
        // The engine's own list says so, too.
        let again = [both, replicas(web(fixed), 1)].concat();
        let report = worker.reconcile(&again).await;
        let (_, error) = &report.failed[0];
        assert!(matches!(**error, ReplicaError::PortInUse { .. }), "{error}");
    })
    .await;
}

#[tokio::test]
async fn datagrams_have_ports_of_their_own() {
    let at_loopback = Terms { publish_address: LOOPBACK, ..Terms::default() };
    with_terms(at_loopback, async |worker| {
        let number = free_port();
        let fixed = HostPort::Fixed(number.try_into().unwrap());
        let ports = vec![
            port("both", 8080, Protocol::Tcp, fixed),
            port("datagrams", 8080, Protocol::Udp, fixed),
            port("inner", 9000, Protocol::Tcp, HostPort::None),
        ];
        let desired = replicas(JobSpec { ports, ..job(&SLEEP) }, 1);
        let report = worker.reconcile(&desired).await;
        assert_eq!(report.started.len(), 1, "{report:?}");
        let at: Vec<_> = endpoints(worker).await.iter().map(|at| (at.port, at.protocol)).collect();
        assert_eq!(at, [(number, Protocol::Tcp), (number, Protocol::Udp)]);
        assert!(UdpSocket::bind((LOOPBACK, number)).is_err());
        assert!(TcpListener::bind((LOOPBACK, number)).is_err());
    })
    .await;
}

#[tokio::test]
async fn without_egress_a_published_port_answers_and_leads_nowhere_else() {
    let mut outside = Outside::new();
    outside.serve(80);
    let out = fails(&outside.public, 80);
    let script = format!("{out} || exit 1; exec /bin/busybox httpd -f -p 8080 -h /www");
    let spec = JobSpec {
        egress: Egress::None,
        ports: vec![port("http", 8080, Protocol::Tcp, HostPort::Dynamic)],
        ..job(&["sh", "-c", &script])
    };
    with_worker(async |worker| {
        let desired = replicas(spec.clone(), 1);
        let report = worker.reconcile(&desired).await;
        assert_eq!(report.started.len(), 1, "{report:?}");
        let port = endpoints(worker).await[0].port;
        let url = format!("http://{}:{port}/", outside.here);
        // As a Docker engine on the same machine does it: Podman opens nothing to others then.
        let is_shut = is_podman().await && is_forwarding_barred();
        if is_shut {
            println!("asked from this machine only: Docker, or a firewall, bars Podman's ports");
        }
        until(async || {
            assert_eq!(worker.observed().await, Observed::Running);
            match is_shut {
                true => answers(SocketAddr::new(LOOPBACK, port)).await,
                false => outside.get(&url).is_some(),
            }
        })
        .await;
    })
    .await;
    // Without rules a way in is a way out.
    with_terms(Terms { filter: Filter::Unfiltered, ..Terms::default() }, async |worker| {
        let report = worker.reconcile(&replicas(spec, 1)).await;
        let (_, error) = &report.failed[0];
        assert!(matches!(**error, ReplicaError::NoWayOut), "{error}");
    })
    .await;
}
