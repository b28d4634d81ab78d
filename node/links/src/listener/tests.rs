use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, duplex},
    time::sleep,
};
use veil_protocol_spec::{Blake3Digest, PeerIdHash, ReplicaIndex};

use super::*;

/// Replicas that answer with their worker's number, and can refuse.
struct Replicas {
    targets: Mutex<Result<Vec<Target>, Nowhere>>,
    refusing: Mutex<Vec<Target>>,
    asked: Mutex<Vec<u8>>,
    changed: watch::Sender<u64>,
}

impl Replicas {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            targets: Mutex::new(Err(Nowhere::NoJob("db".parse().unwrap()))),
            refusing: Mutex::default(),
            asked: Mutex::default(),
            changed: watch::channel(0).0,
        })
    }

    fn set(&self, targets: Result<Vec<Target>, Nowhere>) {
        *self.targets.lock().unwrap() = targets;
        self.changed.send_modify(|count| *count += 1);
    }

    fn refuse(&self, targets: &[Target]) {
        *self.refusing.lock().unwrap() = targets.to_vec();
    }
}

impl Directory for Replicas {
    fn targets(&self, of: &LinkOf) -> Result<Vec<Target>, Nowhere> {
        assert_eq!(of.link.job.as_str(), "db");
        self.targets.lock().unwrap().clone()
    }

    fn connect(
        &self,
        _: &LinkOf,
        to: Target,
    ) -> BoxFuture<'static, Result<Box<dyn Duplex>, LinkFailure>> {
        self.asked.lock().unwrap().push(to.worker.0[0]);
        let refuses = self.refusing.lock().unwrap().contains(&to);
        Box::pin(async move {
            if refuses {
                return Err(LinkFailure::Unreachable("no route".to_owned()));
            }
            let (here, mut there) = duplex(64);
            tokio::spawn(async move { there.write_all(&[to.worker.0[0]]).await });
            Ok(Box::new(here) as Box<dyn Duplex>)
        })
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }
}

fn end(replica: u16) -> LinkEnd {
    LinkEnd { job: Blake3Digest([1; 32]), replica: ReplicaIndex(replica) }
}

fn target(worker: u8) -> Target {
    Target { is_former: false, replica: end(worker.into()), worker: PeerIdHash([worker; 32]) }
}

fn of(replica: u16) -> LinkOf {
    let link = Link {
        host: "db".parse().unwrap(),
        listen: 5432.try_into().unwrap(),
        job: "db".parse().unwrap(),
        port: "pg".parse().unwrap(),
        env: None,
    };
    LinkOf { from: end(replica), operator: Address([3; 20]), link }
}

const AT: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(198, 18, 0, 32), 5432);

/// On the loopback interface, where no rule redirects.
fn listeners(replicas: &Arc<Replicas>) -> Listeners {
    let directory = Arc::clone(replicas) as Arc<dyn Directory>;
    Listeners { was_to: |_, at| at == AT, ..Listeners::new(directory) }
}

/// The worker that answers, or how the connection failed.
async fn ask(port: u16) -> Result<u8, io::ErrorKind> {
    let kind = |error: io::Error| error.kind();
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.map_err(kind)?;
    stream.read_u8().await.map_err(kind)
}

/// It opens and closes a moment after something has changed.
async fn until(mut holds: impl AsyncFnMut() -> bool) {
    for _ in 0..500 {
        if holds().await {
            return;
        }
        sleep(Duration::from_millis(10)).await;
    }
    panic!("it does not come to hold");
}

fn trouble(listeners: &Listeners) -> String {
    listeners.states()[0].trouble.clone().unwrap_or_default()
}

#[tokio::test]
async fn connections_go_to_the_replicas_in_turn() {
    let replicas = Replicas::new();
    replicas.set(Ok(vec![target(1), target(2), target(3)]));
    let listeners = listeners(&replicas);
    let port = listeners.listen(of(0), 0, "lo", AT).unwrap();
    assert_eq!(listeners.listen(of(0), 0, "lo", AT).unwrap(), port, "it is the same");
    until(async || ask(port).await.is_ok()).await;
    let mut answers = Vec::new();
    for _ in 0..6 {
        answers.push(ask(port).await.unwrap());
    }
    answers.sort_unstable();
    assert_eq!(answers, [1, 1, 2, 2, 3, 3]);
    let state = &listeners.states()[0];
    assert_eq!((state.trouble.clone(), state.carried, state.failed), (None, 7, 0));
}

#[tokio::test]
async fn a_link_that_leads_nowhere_refuses_at_once_and_says_why_until_it_does() {
    let replicas = Replicas::new();
    let listeners = listeners(&replicas);
    let port = listeners.listen(of(0), 0, "lo", AT).unwrap();
    until(async || trouble(&listeners).contains("submit it")).await;
    assert_eq!(ask(port).await, Err(io::ErrorKind::ConnectionRefused));
    replicas.set(Err(Nowhere::NotPlaced("db".parse().unwrap())));
    until(async || trouble(&listeners).contains("has a place yet")).await;
    assert_eq!(ask(port).await, Err(io::ErrorKind::ConnectionRefused));
    // It appears, and moves: the port stays.
    for worker in [1, 2] {
        replicas.set(Ok(vec![target(worker)]));
        until(async || ask(port).await == Ok(worker)).await;
    }
    replicas.set(Err(Nowhere::NoJob("db".parse().unwrap())));
    until(async || ask(port).await == Err(io::ErrorKind::ConnectionRefused)).await;
}

#[tokio::test]
async fn a_replica_that_refuses_is_passed_over_and_when_all_do_the_link_is_closed() {
    let replicas = Replicas::new();
    replicas.set(Ok(vec![target(1), target(2)]));
    replicas.refuse(&[target(1)]);
    let listeners = listeners(&replicas);
    let port = listeners.listen(of(0), 0, "lo", AT).unwrap();
    until(async || ask(port).await == Ok(2)).await;
    for _ in 0..5 {
        assert_eq!(ask(port).await, Ok(2), "the same connection goes to the next one");
    }
    let tried = |asked: &[u8]| asked.iter().filter(|worker| **worker == 1).count();
    assert_eq!(tried(&replicas.asked.lock().unwrap()), 1, "it pauses");
    replicas.refuse(&[target(1), target(2)]);
    until(async || ask(port).await == Err(io::ErrorKind::ConnectionRefused)).await;
    let says = trouble(&listeners);
    assert!(says.contains("none of the 2 replicas of `db`") && says.contains("no route"), "{says}");
    assert!(listeners.states()[0].failed > 0);
    // Without anybody telling.
    replicas.refuse(&[]);
    until(async || ask(port).await.is_ok()).await;
    assert_eq!(trouble(&listeners), "");
}

#[tokio::test]
async fn what_no_rule_has_redirected_is_dropped() {
    let replicas = Replicas::new();
    replicas.set(Ok(vec![target(1)]));
    let listeners = Listeners::new(Arc::clone(&replicas) as Arc<dyn Directory>);
    let port = listeners.listen(of(0), 0, "lo", AT).unwrap();
    until(async || TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.is_ok()).await;
    assert!(ask(port).await.is_err());
    assert!(replicas.asked.lock().unwrap().is_empty(), "nobody was asked");
}

#[tokio::test]
async fn only_its_own_interface_reaches_a_link() {
    let listeners = listeners(&Replicas::new());
    let refused = listeners.listen(of(0), 0, "no-such-bridge", AT).unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(19), "{refused}"); // ENODEV
    assert_eq!(listeners.states(), []);
}

#[tokio::test]
async fn the_links_of_a_container_end_with_it() {
    let replicas = Replicas::new();
    replicas.set(Ok(vec![target(1)]));
    let listeners = listeners(&replicas);
    let ports = [0, 1].map(|replica| listeners.listen(of(replica), 0, "lo", AT).unwrap());
    until(async || ask(ports[0]).await == Ok(1) && ask(ports[1]).await == Ok(1)).await;
    listeners.retain(|from| *from == end(1));
    until(async || ask(ports[0]).await == Err(io::ErrorKind::ConnectionRefused)).await;
    assert_eq!(ask(ports[1]).await, Ok(1));
}
