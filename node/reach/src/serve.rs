//! The worker's side of sessions.

use std::{
    collections::HashMap,
    io,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, ReadHalf, split},
    sync::mpsc,
    task::JoinSet,
    time::{interval, sleep, timeout},
};
use veil_node_containers::ReplicaId;
use veil_node_p2p::{ByteStream, IncomingStream, Session};
use veil_node_process::metrics::Metrics;
use veil_protocol_spec::{
    Address,
    identity::SecretIdentity,
    reach::{
        Action, BEAT_SECONDS, Control, ReachRequest, Refusal, SILENCE_SECONDS, SignedReachRequest,
    },
};

use crate::{
    authorise::{self, World},
    exec, forward, frame,
    host::Host,
    logs,
};

/// For the request, once there is a session.
const OPENING: Duration = Duration::from_secs(10);
/// For the answer, which may take a question to the chain.
const AUTHORISING: Duration = Duration::from_secs(20);
/// For the first byte of a stream.
const BEGINNING: Duration = Duration::from_secs(10);
/// For the last words of a session to be read.
const FAREWELL: Duration = Duration::from_secs(2);
/// How often it is asked whether a key may still act for its operator.
const DELEGATION: Duration = Duration::from_secs(60);
/// Sessions of one operator at once: each may hold 32 MiB that nobody reads.
const SESSIONS: usize = 16;
/// Streams of one session that are served at once: connections, if it is a forward.
const STREAMS: usize = 96;

const BEAT: Duration = Duration::from_secs(BEAT_SECONDS);
const SILENCE: Duration = Duration::from_secs(SILENCE_SECONDS);

/// A worker that lets operators reach their jobs.
pub struct Server {
    world: Arc<dyn World>,
    host: Arc<dyn Host>,
    identity: SecretIdentity,
    metrics: Metrics,
    /// Sessions by operator.
    open: Mutex<HashMap<Address, usize>>,
}

impl core::fmt::Debug for Server {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Server").field("me", &self.world.me()).finish_non_exhaustive()
    }
}

/// One of an operator's sessions, as long as it lives.
struct Held<'a> {
    server: &'a Server,
    operator: Address,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        let mut open = self.server.open();
        if let Some(count) = open.get_mut(&self.operator) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.operator);
            }
        }
    }
}

impl Server {
    /// Counts what it refuses in `metrics`.
    #[must_use]
    pub fn new(
        world: Arc<dyn World>,
        host: Arc<dyn Host>,
        identity: SecretIdentity,
        metrics: Metrics,
    ) -> Arc<Self> {
        Arc::new(Self { world, host, identity, metrics, open: Mutex::default() })
    }

    fn open(&self) -> MutexGuard<'_, HashMap<Address, usize>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hold(&self, operator: Address) -> Result<Held<'_>, Refusal> {
        let mut open = self.open();
        let count = open.entry(operator).or_default();
        if *count >= SESSIONS {
            return Err(Refusal::Busy);
        }
        *count += 1;
        Ok(Held { server: self, operator })
    }

    /// Serves the sessions that come, until no more can; all end when this is dropped.
    pub async fn run(self: Arc<Self>, mut streams: mpsc::Receiver<IncomingStream>) {
        let mut sessions = JoinSet::new();
        loop {
            tokio::select! {
                incoming = streams.recv() => {
                    let Some(IncomingStream { from, stream }) = incoming else { return };
                    let server = Arc::clone(&self);
                    sessions.spawn(async move {
                        if let Err(error) = server.session(stream).await {
                            tracing::debug!(%from, %error, "a session broke");
                        }
                    });
                }
                Some(_) = sessions.join_next(), if !sessions.is_empty() => {}
            }
        }
    }

    fn count(&self, name: &'static str) {
        self.metrics.refuse("reach", name);
    }

    /// One session, from its handshake to its end.
    async fn session(&self, stream: ByteStream) -> io::Result<()> {
        let shaken = Session::accept(stream, &self.world.scope(), &self.identity).await;
        let mut session = shaken.map_err(|error| {
            self.count("handshake");
            io::Error::other(error.to_string())
        })?;
        let mut control =
            timeout(OPENING, session.incoming.recv()).await?.ok_or(io::ErrorKind::UnexpectedEof)?;
        let read = timeout(OPENING, frame::read::<SignedReachRequest>(&mut control)).await?;
        let signed = match read {
            Ok(Some(signed)) => signed,
            Ok(None) => return Ok(()),
            Err(error) => {
                self.refuse(control, Refusal::Malformed).await;
                return Err(error);
            }
        };
        let authorising = timeout(AUTHORISING, self.admit(&session, &signed)).await;
        let (_held, port) = match authorising.unwrap_or(Err(Refusal::NotNow)) {
            Ok(admitted) => admitted,
            Err(refusal) => {
                self.refuse(control, refusal).await;
                return Ok(());
            }
        };
        let ReachRequest { job, replica, action, account, .. } = &signed.request;
        tracing::info!(%job, %replica, account = %account, action = action.name(), "a job is reached");
        frame::send(&mut control, &Control::Accepted).await?;
        let (reading, mut writing) = split(control);
        let mut beat = interval(BEAT);
        let ended = {
            let mut watching = pin!(self.watch(&signed.request));
            let mut hearing = pin!(hear(reading));
            let mut serving = pin!(self.serve(&mut session, &signed.request, port));
            loop {
                tokio::select! {
                    refusal = &mut watching => break Some(refusal),
                    () = &mut hearing => break None,
                    () = &mut serving => break None,
                    _ = beat.tick() => {
                        timeout(SILENCE, frame::send(&mut writing, &Control::Beat)).await??;
                    }
                }
            }
        };
        if let Some(refusal) = ended {
            self.count(refusal.name());
            let said = timeout(FAREWELL, async {
                frame::send(&mut writing, &Control::Ended(refusal)).await?;
                writing.shutdown().await?;
                // The other end hangs up once it has read why.
                while session.incoming.recv().await.is_some() {}
                Ok::<_, io::Error>(())
            });
            let _ = said.await; // it has gone, or does not listen
        }
        Ok(())
    }

    async fn refuse(&self, mut control: ByteStream, refusal: Refusal) {
        self.count(refusal.name());
        let said = timeout(FAREWELL, async {
            frame::send(&mut control, &Control::Ended(refusal)).await?;
            control.shutdown().await?;
            // The other end hangs up once it has read why.
            control.read_u8().await
        });
        let _ = said.await; // it has gone, or does not listen
    }

    /// Step 4.
    async fn admit(
        &self,
        session: &Session,
        signed: &SignedReachRequest,
    ) -> Result<(Held<'_>, u16), Refusal> {
        let world = &*self.world;
        authorise::authorise(world, session.peer, signed).await?;
        let port = match &signed.request.action {
            Action::Forward(port) => authorise::port(world, &signed.request.job, port)?,
            Action::Logs(_) | Action::Exec(_) | Action::Endpoints => 0,
        };
        Ok((self.hold(signed.request.operator)?, port))
    }

    /// Step 6: returns once the request would not be accepted any more.
    async fn watch(&self, request: &ReachRequest) -> Refusal {
        let world = &*self.world;
        let placed = async {
            loop {
                let mut changed = pin!(world.changed());
                // What changes from now on is not missed.
                if futures::poll!(&mut changed).is_ready() {
                    continue;
                }
                if let Err(refusal) = authorise::stays(world, request) {
                    return refusal;
                }
                changed.await;
            }
        };
        let delegated = async {
            loop {
                sleep(DELEGATION).await;
                match authorise::acts(world, request).await {
                    // That the chain does not answer is no reason to end what it once allowed.
                    Ok(()) | Err(Refusal::NotNow) => {}
                    Err(refusal) => return refusal,
                }
            }
        };
        tokio::select! {
            refusal = placed => refusal,
            refusal = delegated => refusal,
        }
    }

    /// Step 5: serves the streams that the other end opens, until the session is over.
    async fn serve(&self, session: &mut Session, request: &ReachRequest, port: u16) {
        let id = ReplicaId { job: request.job, replica: request.replica };
        let mut streams = JoinSet::new();
        while let Some(mut stream) = session.incoming.recv().await {
            while streams.try_join_next().is_some() {}
            if streams.len() >= STREAMS {
                self.count("too_many_streams");
                continue;
            }
            let (world, host) = (Arc::clone(&self.world), Arc::clone(&self.host));
            let action = request.action.clone();
            streams.spawn(async move {
                timeout(BEGINNING, exec::begun(&mut stream)).await??;
                match action {
                    Action::Logs(wanted) => logs::send(&*world, &*host, id, wanted, stream).await,
                    Action::Exec(wanted) => exec::run(&*host, id, wanted, stream).await,
                    Action::Forward(_) => forward::carry(&*host, id, port, stream).await,
                    Action::Endpoints => {
                        let endpoints = world.endpoints(&id.job, id.replica);
                        frame::write(&mut stream, &endpoints).await?;
                        stream.shutdown().await
                    }
                }
            });
        }
    }
}

/// Returns when the other end has said nothing for too long, or its last.
pub(crate) async fn hear(mut from: ReadHalf<ByteStream>) {
    while let Ok(Ok(Some(Control::Beat))) = timeout(SILENCE, frame::read(&mut from)).await {}
}
