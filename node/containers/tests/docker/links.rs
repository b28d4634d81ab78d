//! Links of containers: found by name, carried by the worker, and out of reach for everybody else.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::future::BoxFuture;
use tokio::{
    io::AsyncReadExt as _,
    net::TcpStream,
    sync::watch,
    time::{sleep, timeout},
};
use veil_node_containers::{
    Carry, DesiredReplica, Docker, Executor, Filter, Keep, LinkPoint, Links, Observed,
    ReplicaError, ReplicaId, Terms,
};
use veil_node_links::{Directory, Duplex, LinkFailure, LinkOf, Listeners, Nowhere, Target};
use veil_protocol_spec::{
    Address, PeerIdHash,
    link::LinkEnd,
    scheduling::{Egress, JobSpec, Link},
};

use crate::{
    common::{SLEEP, Worker, job, replicas, socket, until, with_terms},
    outside::{fails, reaches, run},
};

/// Where `db` is, once it is there.
struct Ways {
    at: Mutex<Option<SocketAddr>>,
    changed: watch::Sender<u64>,
}

impl Ways {
    fn lead(&self, at: Option<SocketAddr>) {
        *self.at.lock().unwrap() = at;
        self.changed.send_modify(|count| *count += 1);
    }
}

impl Directory for Ways {
    fn targets(&self, of: &LinkOf) -> Result<Vec<Target>, Nowhere> {
        let db = Target { is_former: false, replica: of.from, worker: PeerIdHash([1; 32]) };
        let there = self.at.lock().unwrap().map(|_| vec![db]);
        there.ok_or_else(|| Nowhere::NoJob(of.link.job.clone()))
    }

    fn connect(
        &self,
        _: &LinkOf,
        _: Target,
    ) -> BoxFuture<'static, Result<Box<dyn Duplex>, LinkFailure>> {
        let at = self.at.lock().unwrap().unwrap();
        Box::pin(async move { Ok(Box::new(TcpStream::connect(at).await?) as Box<dyn Duplex>) })
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }
}

/// As a worker joins the two.
struct Carrier {
    listeners: Listeners,
    ports: Mutex<Vec<u16>>,
}

impl Carry for Carrier {
    fn listen(&self, point: &LinkPoint) -> std::io::Result<u16> {
        let LinkPoint { of, spec, index, bridge, at } = point;
        let from = LinkEnd { job: of.job, replica: of.replica };
        let of = LinkOf { from, operator: spec.operator, link: spec.links[*index].clone() };
        let port = self.listeners.listen(of, *index, bridge, *at)?;
        self.ports.lock().unwrap().push(port);
        Ok(port)
    }

    fn retain(&self, keep: &dyn Fn(&ReplicaId) -> bool) {
        self.listeners.retain(|from| keep(&ReplicaId { job: from.job, replica: from.replica }));
    }
}

async fn with_links(test: impl AsyncFnOnce(&Worker, &Ways, &Carrier)) {
    let ways = Arc::new(Ways { at: Mutex::default(), changed: watch::channel(0).0 });
    let listeners = Listeners::new(Arc::clone(&ways) as Arc<dyn Directory>);
    let carrier = Arc::new(Carrier { listeners, ports: Mutex::default() });
    let links = Links::by(Arc::clone(&carrier) as Arc<dyn Carry>);
    with_terms(Terms { links, ..Terms::default() }, async |worker| {
        test(worker, &ways, &carrier).await;
    })
    .await;
}

fn links() -> Vec<Link> {
    let link = |host: &str, listen: u16, env: Option<&str>| Link {
        host: host.parse().unwrap(),
        listen: listen.try_into().unwrap(),
        job: "db".parse().unwrap(),
        port: "http".parse().unwrap(),
        env: env.map(|env| env.parse().unwrap()),
    };
    // A number below 1024, which only root could listen on, and one that another name has, too.
    vec![link("db", 80, None), link("db", 5432, Some("DB")), link("my_db.shop", 80, None)]
}

/// A job with links, whose program ends with the number of the first line that does not hold.
fn checked(egress: Egress, lines: &[String]) -> JobSpec {
    let checks = lines.iter().zip(1..).map(|(line, number)| format!("{line} || exit {number}\n"));
    let script: String = checks.collect();
    JobSpec { egress, links: links(), ..job(&["sh", "-c", &script]) }
}

async fn ends_well(worker: &Worker, others: &[DesiredReplica], spec: JobSpec) {
    let checking = replicas(spec, 1);
    let report = worker.reconcile(&[others, &checking].concat()).await;
    assert!(report.started.contains(&checking[0].id()), "{report:?}");
    until(async || {
        let observed = worker.executor.observe().await.unwrap();
        match observed.iter().find(|seen| seen.id == checking[0].id()).unwrap().observed {
            Observed::Exited { code } => {
                assert_eq!(code, 0, "the line of this number does not hold");
                true
            }
            _ => false,
        }
    })
    .await;
}

/// The worker's only container by now.
async fn address(worker: &Worker) -> Ipv4Addr {
    let networks = worker.container().await.network_settings.unwrap().networks.unwrap();
    networks.into_values().find_map(|network| network.ip_address?.parse().ok()).unwrap()
}

/// `db` of another operator, in a network that no container of the first operator is in.
async fn db(worker: &Worker, ways: &Ways) -> Vec<DesiredReplica> {
    let serving = replicas(JobSpec { operator: Address([7; 20]), ..job(&[]) }, 1);
    assert_eq!(worker.reconcile(&serving).await.started.len(), 1);
    let at = SocketAddr::from((address(worker).await, 8080));
    until(async || TcpStream::connect(at).await.is_ok()).await;
    ways.lead(Some(at));
    serving
}

#[tokio::test]
async fn a_link_is_found_by_name_and_number_whatever_else_the_container_reaches() {
    with_links(async |worker, ways, _| {
        let db = db(worker, ways).await;
        for egress in [Egress::Public, Egress::None] {
            let lines = [
                "[ \"$DB\" = db:5432 ]".to_owned(),
                reaches("db", 80),
                reaches("db", 5432),
                reaches("my_db.shop", 80),
                // No number but those of its links.
                fails("my_db.shop", 5432),
                fails("db", 8080),
            ];
            ends_well(worker, &db, checked(egress, &lines)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn nobody_else_reaches_a_link() {
    with_links(async |worker, ways, carrier| {
        let db = db(worker, ways).await;
        let linked = replicas(JobSpec { links: links(), ..job(&SLEEP) }, 1);
        let both = [db.clone(), linked.clone()].concat();
        assert_eq!(worker.reconcile(&both).await.started.len(), 1);
        let mut ports = carrier.ports.lock().unwrap().clone();
        ports.truncate(1); // each that is not reached takes the time of a time-out
        let networks = worker.networks().await;
        let gateway = |operator: u8| {
            let operator = Address([operator; 20]).to_string();
            let of = networks
                .iter()
                .find(|one| one.labels.as_ref().unwrap()["veil.operator"] == operator);
            of.unwrap().ipam.clone().unwrap().config.unwrap()[0].gateway.clone().unwrap()
        };
        // Another operator's container: by the address of the link, and by the port of the machine.
        let mut lines: Vec<_> =
            (0..2).map(|host| fails(&format!("198.18.0.{}", 32 + host), 80)).collect();
        for port in &ports {
            lines.extend([1, 7].map(|operator| fails(&gateway(operator), *port)));
        }
        let stranger = JobSpec {
            links: Vec::new(),
            operator: Address([7; 20]),
            ..checked(Egress::Public, &lines)
        };
        ends_well(worker, &both, stranger).await;
        // A container of the operator itself does not get there but by the link's address.
        let lines: Vec<_> = ports.iter().map(|port| fails(&gateway(1), *port)).collect();
        ends_well(worker, &both, JobSpec { links: Vec::new(), ..checked(Egress::Public, &lines) })
            .await;
        // This machine, by all of its addresses: what gets so far is dropped before a byte is carried.
        for port in ports {
            for at in [gateway(1), gateway(7), "127.0.0.1".to_owned()] {
                let reached = async {
                    let mut stream = TcpStream::connect((at.as_str(), port)).await?;
                    let asked =
                        tokio::io::AsyncWriteExt::write_all(&mut stream, b"GET / HTTP/1.0\r\n\r\n")
                            .await;
                    asked?;
                    stream.read_u8().await
                };
                let reached = timeout(Duration::from_secs(3), reached).await;
                assert!(!matches!(reached, Ok(Ok(_))), "{at}:{port}");
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_link_that_leads_nowhere_refuses_at_once_and_leads_when_the_job_is_there() {
    with_links(async |worker, ways, carrier| {
        // It would take the time of a time-out if packets were dropped.
        let quick = "start=$(date +%s); ! /bin/busybox wget -T 30 -q -O /dev/null http://db:80/ && \
                     [ $(($(date +%s) - start)) -lt 3 ]";
        ends_well(worker, &[], checked(Egress::Public, &[quick.to_owned()])).await;
        let says = carrier.listeners.states()[0].trouble.clone().unwrap();
        assert!(says.contains("there is no job `db`"), "{says}");

        // One container over all of it, also over rules that are written anew.
        let waits = format!("until {}; do sleep 0.2; done", reaches("db", 80));
        let web = replicas(checked(Egress::Public, &[waits, "exec sleep 3600".to_owned()]), 1);
        assert_eq!(worker.reconcile(&web).await.started.len(), 1);
        let serving = replicas(JobSpec { operator: Address([7; 20]), ..job(&[]) }, 1);
        let both = [serving, web.clone()].concat();
        assert_eq!(worker.reconcile(&both).await.started.len(), 1);
        let seen = worker.containers().await;
        let serves = seen
            .iter()
            .find(|one| one.labels.as_ref().unwrap()["veil.job"] == both[0].id().job.to_string());
        let networks = serves.unwrap().network_settings.clone().unwrap().networks.unwrap();
        let ip: Ipv4Addr =
            networks.into_values().find_map(|network| network.ip_address?.parse().ok()).unwrap();
        ways.lead(Some(SocketAddr::from((ip, 8080))));
        until(async || carrier.listeners.states().iter().any(|link| link.carried > 0)).await;
        assert!(worker.reconcile(&both).await.is_unchanged());
    })
    .await;
}

// A command that is waited for must not hold up the listeners.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_starts_anew_finds_the_links_of_its_containers() {
    with_links(async |worker, ways, _| {
        let db = db(worker, ways).await;
        let web = replicas(JobSpec { links: links(), ..job(&SLEEP) }, 1);
        let both = [db.clone(), web.clone()].concat();
        assert_eq!(worker.reconcile(&both).await.started.len(), 1);
        // Another process of this worker, with listeners on other ports; the one before has ended.
        let again = Arc::new(Ways {
            at: Mutex::new(*ways.at.lock().unwrap()),
            changed: watch::channel(0).0,
        });
        let listeners = Listeners::new(again as Arc<dyn Directory>);
        let carrier = Arc::new(Carrier { listeners, ports: Mutex::default() });
        let links = Links::by(Arc::clone(&carrier) as Arc<dyn Carry>);
        let docker = Docker::connect(&socket()).await.unwrap();
        let executor = Executor::new(docker, worker.owner);
        let executor = executor.on(Terms { links, ..Terms::default() });
        let report = executor.reconcile(&both, &Keep::NOTHING).await.unwrap();
        assert!(report.is_unchanged(), "{report:?}");
        assert_eq!(carrier.listeners.states().len(), 3);
        let id = worker.containers().await;
        let web =
            id.iter().find(|one| one.labels.as_ref().unwrap().contains_key("veil.links")).unwrap();
        sleep(Duration::from_millis(200)).await;
        let wget =
            ["/bin/busybox", "timeout", "3", "/bin/busybox", "wget", "-q", "-O", "/dev/null"];
        let exec = ["exec", web.id.as_deref().unwrap()];
        run("docker", &[&exec[..], &wget, &["http://db:5432/"]].concat());
        assert_eq!(carrier.listeners.states().iter().map(|link| link.carried).sum::<u64>(), 1);
    })
    .await;
}

#[tokio::test]
async fn a_worker_that_does_not_filter_has_no_links_where_nothing_gets_out() {
    let terms = Terms { filter: Filter::Unfiltered, ..Terms::default() };
    with_terms(terms, async |worker| {
        let linked = JobSpec { links: links(), egress: Egress::None, ..job(&SLEEP) };
        let report = worker.reconcile(&replicas(linked, 1)).await;
        assert!(matches!(*report.failed[0].1, ReplicaError::UnfilteredLinks), "{report:?}");
        assert!(worker.containers().await.is_empty());
    })
    .await;
}
