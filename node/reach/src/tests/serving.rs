//! What is served in a session, and how it ends.

use std::time::Duration;

use tokio::{net::TcpListener, time::timeout};
use veil_protocol_spec::{
    codec::Bytes as Piece,
    reach::{
        Control, ExecInput, ExecOutput, ExecWanted, LogOutput, LogsWanted, PortWanted,
        ReachRequest, Refusal, SignedReachRequest, TerminalSize,
    },
};

use super::*;
use crate::frame;

/// Far more than anything here takes.
const LONG: Duration = Duration::from_secs(60);

async fn within<T>(waiting: impl Future<Output = T>) -> T {
    timeout(LONG, waiting).await.unwrap()
}

fn refusal(failure: &ReachFailure) -> &Refusal {
    match failure {
        ReachFailure::Refused { refusal, .. } => refusal,
        other => panic!("{other}"),
    }
}

fn follow() -> Action {
    Action::Logs(LogsWanted { follow: true, ..LogsWanted::default() })
}

async fn next(log: &mut ByteStream) -> Option<String> {
    match within(frame::read::<LogOutput>(log)).await.unwrap()? {
        LogOutput::Piece(piece) => Some(String::from_utf8(piece.bytes.0).unwrap()),
        LogOutput::End => None,
        LogOutput::Failed(refusal) => panic!("{refusal}"),
    }
}

fn runs(runs: impl IntoIterator<Item = (&'static str, bool, Vec<LogPart>)>) -> TestHost {
    let runs = runs.into_iter().map(|(started, on, log)| (started.to_owned(), on, log));
    TestHost { runs: Mutex::new(runs.collect()), ..TestHost::default() }
}

#[tokio::test]
async fn a_log_is_read_over_restarts_and_no_line_comes_twice() {
    const SECOND: u64 = 1_000_000_000;
    let host = runs([
        ("first", false, vec![line(5 * SECOND, "one"), line(5 * SECOND + 1, "two")]),
        // The engine takes whole seconds, so it tells the last ones again.
        ("second", true, vec![line(5 * SECOND + 1, "two"), line(9 * SECOND, "three")]),
    ]);
    let worker = Worker::start(host);
    let wanted = LogsWanted { follow: true, since: Some(5 * SECOND), tail: Some(10) };
    let reached = worker.reach(1, Action::Logs(wanted)).await.unwrap();
    let mut log = reached.open().await.unwrap();
    for expected in ["one\n", "two\n", "three\n"] {
        assert_eq!(next(&mut log).await.as_deref(), Some(expected));
    }
    assert_eq!(*worker.host.ranges.lock().unwrap(), [(4, Some(10)), (5, None)]);
    assert_eq!(Arc::strong_count(&worker.host.reading), 2);
    // Whoever hangs up leaves nothing behind.
    drop((log, reached));
    within(async {
        while Arc::strong_count(&worker.host.reading) > 1 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_log_that_is_not_followed_ends_and_a_missing_one_says_so() {
    let worker = Worker::start(runs([("first", true, vec![line(1, "one")])]));
    let logs = || Action::Logs(LogsWanted::default());
    let reached = worker.reach(1, logs()).await.unwrap();
    let mut log = reached.open().await.unwrap();
    assert_eq!(next(&mut log).await.as_deref(), Some("one\n"));
    assert_eq!(next(&mut log).await, None);
    worker.host.runs.lock().unwrap().clear();
    let mut log = reached.open().await.unwrap();
    let read = within(frame::read(&mut log)).await.unwrap();
    assert_eq!(read, Some(LogOutput::Failed(Refusal::NoContainer)));
}

#[tokio::test]
async fn a_session_ends_when_the_job_moves_or_stops_and_says_why() {
    for (change, expected) in [
        ((|facts| facts.place = Place::Elsewhere) as fn(&mut Facts), Refusal::NotHere),
        (|facts| facts.submission.as_mut().unwrap().cancelled = true, Refusal::Stopped),
    ] {
        let worker = Worker::start(runs([("first", true, vec![line(1, "one")])]));
        let reached = worker.reach(1, follow()).await.unwrap();
        let mut log = reached.open().await.unwrap();
        assert_eq!(next(&mut log).await.as_deref(), Some("one\n"));
        worker.world.0.send_modify(change);
        let failure = within(reached.over()).await;
        assert_eq!(refusal(&failure), &expected);
        assert!(matches!(within(frame::read::<LogOutput>(&mut log)).await, Ok(None) | Err(_)));
        assert_eq!(refusal(&reached.open().await.unwrap_err()), &expected);
        assert_eq!(worker.refused()[expected.name()], 1);
        let refused = worker.reach(1, follow()).await.unwrap_err();
        assert_eq!(refusal(&refused), &expected, "and none begins");
    }
}

#[tokio::test]
async fn whoever_is_not_let_in_is_told_why_and_counted() {
    let worker = Worker::start(runs([("first", true, Vec::new())]));
    worker.world.0.send_modify(|facts| facts.delegation = Ok(Delegation::Revoked(7)));
    let refused = worker.reach(2, follow()).await.unwrap_err();
    assert_eq!(refusal(&refused), &Refusal::NotDelegated);
    let other = reach(worker.stream().await, &signer(1), peer(2), (JOB, REPLICA), follow()).await;
    assert!(matches!(other, Err(ReachFailure::NoSession { .. })), "another is at the other end");
    assert_eq!(worker.refused()["not_delegated"], 1);
}

#[tokio::test]
async fn one_operator_has_so_many_sessions_on_a_worker_and_no_more() {
    let worker = Worker::start(runs([("first", true, Vec::new())]));
    let mut held = Vec::new();
    for _ in 0..16 {
        held.push(worker.reach(1, follow()).await.unwrap());
    }
    // Whichever of its keys asks.
    for by in [1, 2] {
        assert_eq!(refusal(&worker.reach(by, follow()).await.unwrap_err()), &Refusal::Busy);
    }
    assert_eq!(worker.refused()["busy"], 2);
    held.pop();
    // The worker hears of the end of one, and then takes another.
    let again = async {
        loop {
            match worker.reach(1, follow()).await {
                Ok(reached) => break reached,
                Err(failure) => assert_eq!(refusal(&failure), &Refusal::Busy),
            }
        }
    };
    within(again).await;
}

#[tokio::test(start_paused = true)]
async fn a_key_that_is_revoked_is_out_within_a_minute_and_a_silent_chain_ends_nothing() {
    let worker = Worker::start(runs([("first", true, Vec::new())]));
    let reached = worker.reach(2, follow()).await.unwrap();
    let say = |delegation| worker.world.0.send_modify(|facts| facts.delegation = delegation);
    say(Err("the chain is silent".to_owned()));
    tokio::time::sleep(Duration::from_secs(150)).await;
    assert!(!reached.is_over());
    say(Ok(Delegation::Revoked(7)));
    assert_eq!(refusal(&within(reached.over()).await), &Refusal::NotDelegated);
}

/// An entry node that replays what it has recorded has no session that the request is of.
#[tokio::test]
async fn a_request_of_another_session_is_refused() {
    let worker = Worker::start(runs([("first", true, Vec::new())]));
    let request = ReachRequest {
        scope: scope(1),
        worker: peer(1),
        client: peer(5),
        account: key(1).address(),
        operator: key(1).address(),
        job: JOB,
        replica: REPLICA,
        action: follow(),
        expires: veil_node_process::unix_now().0 / 1000 + 60,
    };
    let signature = key(1).sign(&request.digest()).unwrap();
    let signed = SignedReachRequest::new(request, &signature);
    for (by, expected) in [(6, Control::Ended(Refusal::OtherClient)), (5, Control::Accepted)] {
        let stream = worker.stream().await;
        let session =
            veil_node_p2p::Session::connect(stream, &scope(1), &secret(by), peer(1)).await.unwrap();
        let mut control = session.opener.open().await.unwrap();
        frame::send(&mut control, &signed).await.unwrap();
        assert_eq!(within(frame::read(&mut control)).await.unwrap(), Some(expected));
    }
    // Bytes that are no request end the session, too.
    let stream = worker.stream().await;
    let session =
        veil_node_p2p::Session::connect(stream, &scope(1), &secret(5), peer(1)).await.unwrap();
    let mut control = session.opener.open().await.unwrap();
    control.write_all(&u32::MAX.to_le_bytes()).await.unwrap();
    control.flush().await.unwrap();
    let answer = within(frame::read(&mut control)).await.unwrap();
    assert_eq!(answer, Some(Control::Ended(Refusal::Malformed)));
}

#[tokio::test]
async fn a_command_gets_what_is_typed_and_its_code_comes_back() {
    let worker = Worker::start(runs([("first", true, Vec::new())]));
    let terminal = Some(TerminalSize { rows: 24, columns: 80 });
    let command = vec!["sh".to_owned(), "-c".to_owned(), "cat".to_owned()];
    let exec = Action::Exec(ExecWanted { command: command.clone(), input: true, terminal });
    let reached = worker.reach(1, exec.clone()).await.unwrap();
    let mut stream = reached.open().await.unwrap();
    let size = TerminalSize { rows: 50, columns: 132 };
    for input in [ExecInput::Size(size), ExecInput::Bytes(Piece(b"hello".to_vec())), ExecInput::End]
    {
        frame::send(&mut stream, &input).await.unwrap();
    }
    for expected in [
        ExecOutput::Out(Piece(b"hello".to_vec())),
        ExecOutput::Error(Piece(b"over".to_vec())),
        ExecOutput::Exit(42),
    ] {
        assert_eq!(within(frame::read(&mut stream)).await.unwrap(), Some(expected));
    }
    assert_eq!(within(frame::read::<ExecOutput>(&mut stream)).await.unwrap(), None);
    assert_eq!(*worker.host.resized.lock().unwrap(), [(50, 132)]);
    assert_eq!(*worker.host.commands.lock().unwrap(), [command]);
    assert_eq!(*worker.host.ended.borrow(), 0, "it has ended by itself");
    // Where nothing runs nothing is run.
    worker.host.runs.lock().unwrap()[0].1 = false;
    let mut stream = reached.open().await.unwrap();
    let failed = within(frame::read(&mut stream)).await.unwrap();
    assert_eq!(failed, Some(ExecOutput::Failed(Refusal::NotRunning)));
    worker.world.0.send_modify(|facts| facts.exec = false);
    let refused = worker.reach(1, exec).await.unwrap_err();
    assert_eq!(refusal(&refused), &Refusal::ExecOff);
}

/// Whether the operator hangs up, or the job is not its worker's any more.
#[tokio::test]
async fn a_command_ends_with_the_session_that_began_it() {
    let worker = Worker::start(runs([("first", true, Vec::new())]));
    let command = vec!["cat".to_owned()];
    let exec = Action::Exec(ExecWanted { command, input: true, terminal: None });
    let mut ended = worker.host.ended.subscribe();
    for (times, hangs_up) in [(1, true), (2, false)] {
        let reached = worker.reach(1, exec.clone()).await.unwrap();
        let mut stream = reached.open().await.unwrap();
        frame::send(&mut stream, &ExecInput::Bytes(Piece(b"hello".to_vec()))).await.unwrap();
        let said = within(frame::read(&mut stream)).await.unwrap();
        assert_eq!(said, Some(ExecOutput::Out(Piece(b"hello".to_vec()))));
        if hangs_up {
            drop((stream, reached));
        } else {
            worker.world.0.send_modify(|facts| facts.place = Place::Elsewhere);
        }
        within(ended.wait_for(|ended| *ended == times)).await.unwrap();
    }
}

#[tokio::test]
async fn a_forward_carries_many_connections_and_their_ends() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let listens = Some(listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut connection, _)) = listener.accept().await {
            tokio::spawn(async move {
                // It speaks first, as many do.
                connection.write_all(b"220 ready\n").await.unwrap();
                let mut said = Vec::new();
                connection.read_to_end(&mut said).await.unwrap();
                said.reverse();
                connection.write_all(&said).await.unwrap();
            });
        }
    });
    let worker = Worker::start(TestHost { listens, ..runs([("first", true, Vec::new())]) });
    let forward = Action::Forward(PortWanted::Named("http".parse().unwrap()));
    let reached = worker.reach(1, forward).await.unwrap();
    let long: Vec<u8> = (0..1_000_000_u32).map(|i| i as u8).collect();
    let asked = (0..8).map(async |_| {
        let mut stream = reached.connect().await.unwrap();
        let mut first = [0; 10];
        stream.read_exact(&mut first).await.unwrap();
        assert_eq!(&first, b"220 ready\n");
        stream.write_all(&long).await.unwrap();
        rest(stream).await
    });
    let mut reversed = long.clone();
    reversed.reverse();
    for answer in within(futures::future::join_all(asked)).await {
        assert!(answer == reversed);
    }
}

#[tokio::test]
async fn one_connection_that_cannot_be_made_ends_no_session() {
    let worker = Worker::start(runs([("first", true, Vec::new())]));
    let forward = |name: &str| Action::Forward(PortWanted::Named(name.parse().unwrap()));
    let reached = worker.reach(1, forward("http")).await.unwrap();
    for _ in 0..2 {
        let refused = reached.connect().await.unwrap_err();
        assert_eq!(refusal(&refused), &Refusal::NothingListens);
    }
    let refused = worker.reach(1, forward("dns")).await.unwrap_err();
    assert_eq!(refusal(&refused), &Refusal::Datagrams);
    let reached = worker.reach(1, Action::Endpoints).await.unwrap();
    let mut stream = reached.open().await.unwrap();
    let said: Endpoints = within(frame::read(&mut stream)).await.unwrap().unwrap();
    assert_eq!((said.running, said.ports.len()), (true, 1));
}

/// Back-pressure from end to end: what nobody reads is not read from the program either.
#[tokio::test]
async fn what_is_not_read_is_not_sent() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let listens = Some(listener.local_addr().unwrap());
    let (sent, mut counting) = watch::channel(0_u64);
    tokio::spawn(async move {
        let (mut connection, _) = listener.accept().await.unwrap();
        let piece = vec![7; 64 << 10];
        while connection.write_all(&piece).await.is_ok() {
            sent.send_modify(|sent| *sent += piece.len() as u64);
        }
    });
    let worker = Worker::start(TestHost { listens, ..runs([("first", true, Vec::new())]) });
    let forward = Action::Forward(PortWanted::Number(8080.try_into().unwrap()));
    let reached = worker.reach(1, forward).await.unwrap();
    let mut stream = reached.connect().await.unwrap();
    // Until nothing more is taken for a while.
    while timeout(Duration::from_secs(2), counting.changed()).await.is_ok() {}
    let taken = *counting.borrow_and_update();
    assert!(taken < 64 << 20, "{taken} bytes wait somewhere");
    let mut some = vec![0; 8 << 20];
    within(stream.read_exact(&mut some)).await.unwrap();
    within(counting.wait_for(|now| *now > taken)).await.unwrap();
}
