//! Tests of the driver: order of effects, bounded queues, signing.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::sync::{Notify, mpsc};
use veil_committee_machine::{Effect, Machine, Millis, PersistId, Verdict};
use veil_protocol_spec::{Committee, ParticipantIndex};

use super::{
    memory::{MemoryNetwork, MemoryTransport, MemoryTransports},
    *,
};

mod full_disk;
mod signing;

fn seat(index: u8) -> ParticipantIndex {
    ParticipantIndex::new(index).unwrap()
}

fn config(index: u8) -> DriverConfig {
    let mut config = DriverConfig::new(Committee::new(4).unwrap(), seat(index));
    config.queues.pause = Duration::from_millis(5);
    config
}

/// Says what it is told to say; counts what it hears.
#[derive(Default)]
struct Parrot {
    effects: std::collections::VecDeque<Effect<u32, u32>>,
    heard: Vec<(ParticipantIndex, Vec<u8>)>,
    persisted: Vec<PersistId>,
    survives: bool,
    due: Option<Millis>,
    woken: Vec<Millis>,
    /// Pieces of work to do.
    pieces: u32,
}

impl Machine for Parrot {
    type Record = u32;
    type Special = u32;
    type Skip = ();
    type Fault = String;

    fn handle(
        &mut self,
        from: ParticipantIndex,
        bytes: &[u8],
        _now: Millis,
    ) -> Verdict<(), String> {
        self.heard.push((from, bytes.to_vec()));
        if bytes == b"lie" {
            return Verdict::Fault("caught".to_owned());
        }
        Verdict::Valid
    }

    fn handle_timeout(&mut self, now: Millis) {
        self.due = None;
        self.woken.push(now);
    }

    fn poll_timeout(&self) -> Option<Millis> {
        self.due
    }

    fn work(&mut self, _now: Millis) -> bool {
        self.pieces = self.pieces.saturating_sub(1);
        self.pieces > 0
    }

    fn poll_effect(&mut self) -> Option<Effect<u32, u32>> {
        self.effects.pop_front()
    }

    fn persisted(&mut self, id: PersistId) {
        self.persisted.push(id);
    }

    fn persist_failed(&mut self, _id: PersistId) -> bool {
        self.survives
    }
}

/// Everything that happens, in order.
type Log = Arc<Mutex<Vec<String>>>;

#[derive(Clone, Default)]
struct LoggingHost {
    log: Log,
    fails: bool,
}

impl Host<Parrot> for LoggingHost {
    fn persist(&mut self, records: &[u32]) -> Result<(), HostError> {
        if self.fails {
            return Err(HostError::new("the disk is full"));
        }
        self.log.lock().unwrap().push(format!("persist {records:?}"));
        Ok(())
    }

    fn carry_out(&mut self, effect: u32, _machine: &Parrot) -> Result<(), HostError> {
        self.log.lock().unwrap().push(format!("special {effect}"));
        Ok(())
    }

    fn faulted(&mut self, fault: String) {
        self.log.lock().unwrap().push(fault);
    }
}

/// Logs what is sent; optionally nobody is there.
#[derive(Clone, Default)]
struct LoggingTransport {
    log: Log,
    dead: Option<ParticipantIndex>,
    sent: Arc<Notify>,
}

impl Transport for LoggingTransport {
    async fn send(&self, to: ParticipantIndex, bytes: Arc<[u8]>) -> Result<(), TransportError> {
        if self.dead == Some(to) {
            return Err(TransportError::Unreachable { to, detail: "dead".to_owned() });
        }
        self.log.lock().unwrap().push(format!("send {to} {}", bytes[0]));
        self.sent.notify_one();
        Ok(())
    }
}

fn open(transports: &MemoryTransports) -> (MemoryTransport, mpsc::Receiver<Inbound>) {
    transports.open(Channel::Ceremony, &[])
}

fn send(to: u8, byte: u8) -> Effect<u32, u32> {
    Effect::Send { to: seat(to), bytes: vec![byte].into() }
}

const fn persist(id: u64, record: u32) -> Effect<u32, u32> {
    Effect::Persist { id: PersistId(id), record }
}

async fn in_time<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), future).await.expect("within a minute")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_is_durable_before_anything_after_it_happens() {
    let log = Log::default();
    let host = LoggingHost { log: Arc::clone(&log), fails: false };
    let transport = LoggingTransport { log: Arc::clone(&log), ..LoggingTransport::default() };
    let (_sender, incoming) = mpsc::channel(1);
    let machine = Parrot {
        effects: [
            persist(1, 10),
            persist(2, 20),
            send(2, 1),
            Effect::Special(5),
            persist(3, 30),
            Effect::Special(6),
        ]
        .into(),
        ..Parrot::default()
    };
    let driver = Driver::start(config(1), machine, host, transport, incoming);
    // A command is taken when the effects before it are done.
    driver.with(|_, _| ()).await.unwrap();
    let ended = driver.finish(Duration::from_secs(10)).await.unwrap();
    assert!(ended.error.is_none());
    assert_eq!(ended.machine.persisted, [1, 2, 3].map(PersistId));
    let log = log.lock().unwrap();
    let place = |what: &str| log.iter().position(|entry| entry == what).expect(what);
    assert_eq!(place("persist [10, 20]"), 0, "{log:?}");
    assert!(place("send 2 1") > 0 && place("special 5") < place("persist [30]"));
    assert!(place("persist [30]") < place("special 6"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_proof_against_whoever_is_caught_goes_to_the_host() {
    let log = Log::default();
    let host = LoggingHost { log: Arc::clone(&log), fails: false };
    let (sender, incoming) = mpsc::channel(2);
    let transport = LoggingTransport::default();
    let driver = Driver::start(config(1), Parrot::default(), host, transport, incoming);
    for said in [&b"truth"[..], b"lie"] {
        sender.send((seat(2), said.into())).await.unwrap();
    }
    let heard = async {
        while driver.with(|machine, _| machine.heard.len()).await.unwrap() < 2 {
            tokio::task::yield_now().await;
        }
    };
    in_time(heard).await;
    assert_eq!(*log.lock().unwrap(), ["caught"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_depends_on_a_lost_record_is_never_sent() {
    let log = Log::default();
    let transport = LoggingTransport { log: Arc::clone(&log), ..LoggingTransport::default() };
    let effects = [persist(0, 1), send(2, 1)];
    let host = LoggingHost { fails: true, ..LoggingHost::default() };
    let (_sender, incoming) = mpsc::channel(1);
    let machine = Parrot { effects: effects.into(), ..Parrot::default() };
    let driver = Driver::start(config(1), machine, host, transport, incoming);
    in_time(driver.ended()).await;
    assert_eq!(driver.with(|_, _| ()).await, Err(Stopped));
    let ended = driver.finish(Duration::from_secs(10)).await.unwrap();
    let error = ended.error.expect("it stopped by itself");
    assert!(matches!(error, DriverError::Persist(_)));
    assert!(error.to_string().contains("the disk is full"), "{error}");
    assert!(log.lock().unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_participant_holds_up_nobody_and_its_queue_is_bounded() {
    let network = MemoryNetwork::default();
    let mut config = config(1);
    config.queues.bytes = 4 << 20;
    // However long this takes, nothing is given up but for lack of room.
    config.queues.retries = 1000;
    let (transport, incoming) = open(&network.of(seat(1)));
    // Participant 2 is up, 3 and 4 are not.
    let (_, mut second) = open(&network.of(seat(2)));
    let driver =
        Driver::start(config, Parrot::default(), LoggingHost::default(), transport, incoming);
    const CHUNK: usize = 1 << 20;
    for i in 0..32u8 {
        driver
            .with(move |machine, _| {
                machine.effects.push_back(Effect::Broadcast(vec![i; CHUNK].into()));
            })
            .await
            .unwrap();
        // The acknowledgement is the flow control: this one is taken before the next one is made.
        let (from, bytes) = in_time(second.recv()).await.unwrap();
        assert_eq!((from, bytes.len()), (seat(1), CHUNK));
    }
    assert!(driver.dropped() >= 2 * (32 - 16), "{}", driver.dropped());
    let _ = driver.kill().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_message_waits_once() {
    let network = MemoryNetwork::default();
    let mut config = config(1);
    config.queues.in_flight = 1;
    config.queues.retries = 1000;
    let (transport, incoming) = open(&network.of(seat(1)));
    let driver =
        Driver::start(config, Parrot::default(), LoggingHost::default(), transport, incoming);
    for byte in [1, 2, 2, 3, 2, 3] {
        driver
            .with(move |machine, _| {
                machine.effects.push_back(send(2, byte));
            })
            .await
            .unwrap();
    }
    let (_, mut second) = open(&network.of(seat(2)));
    let ended = driver.finish(Duration::from_secs(60)).await.unwrap();
    assert!(ended.error.is_none());
    let mut heard = Vec::new();
    while let Ok((_, bytes)) = second.try_recv() {
        heard.push(bytes[0]);
    }
    assert_eq!(heard, [1, 2, 3]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_and_timeouts_are_taken_between_pieces_of_work() {
    let network = MemoryNetwork::default();
    let (transport, incoming) = open(&network.of(seat(1)));
    let machine = Parrot { pieces: u32::MAX, due: Some(1), ..Parrot::default() };
    let driver = Driver::start(config(1), machine, LoggingHost::default(), transport, incoming);
    let (other, _) = open(&network.of(seat(2)));
    other.send(seat(1), vec![9].into()).await.unwrap();
    in_time(async {
        loop {
            let (heard, woken, pieces) = driver
                .with(|machine, _| (machine.heard.len(), machine.woken.len(), machine.pieces))
                .await
                .unwrap();
            assert!(pieces > 0);
            if (heard, woken) == (1, 1) {
                return;
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
    let ended = driver.finish(Duration::ZERO).await.unwrap();
    assert_eq!(ended.machine.heard, [(seat(2), vec![9])]);
}
