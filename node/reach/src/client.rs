//! The operator's side of sessions.

use std::{io, time::Duration};

use async_recursion::async_recursion as boxed;
use rand::RngCore as _;
use tokio::{
    io::{AsyncWriteExt as _, split},
    sync::watch,
    time::{interval, timeout},
};
use tokio_util::task::AbortOnDropHandle;
use veil_node_p2p::{ByteStream, Duplex, Session, SessionError};
use veil_node_process::unix_now;
use veil_protocol_spec::{
    Address, Blake3Digest, PeerIdHash, ReplicaIndex,
    identity::SecretIdentity,
    reach::{
        Action, BEAT_SECONDS, BEGIN, Control, ReachRequest, Refusal, SILENCE_SECONDS,
        SignedReachRequest,
    },
    scheduling::ClusterScope,
};

use crate::frame;

/// How long a request can be made.
const EXPIRES_SECONDS: u64 = 60;
/// For the worker's answer.
const ANSWER: Duration = Duration::from_secs(30);

/// Why a job is not reached, or no more.
#[derive(Clone, Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the sentence of a variant says what its fields are")]
pub enum ReachFailure {
    /// There is no session.
    #[error("no session with worker {worker}: {why}")]
    NoSession { worker: PeerIdHash, why: String },
    /// The account's key does not sign.
    #[error("the request cannot be signed: {0}")]
    NotSigned(String),
    /// The worker says no, or no more.
    #[error("worker {worker}: {refusal}")]
    Refused { worker: PeerIdHash, refusal: Refusal },
    /// The session has broken off.
    #[error("the session with worker {worker} is over: {why}")]
    Over { worker: PeerIdHash, why: String },
}

/// Who asks.
#[derive(Clone)]
pub struct Signer {
    /// Chain, directory, cluster.
    pub scope: ClusterScope,
    /// Whose key signs.
    pub account: Address,
    /// Whose job it is.
    pub operator: Address,
    /// Signs a digest: r, s and v.
    pub sign: std::sync::Arc<dyn Fn(&[u8; 32]) -> Result<[u8; 65], String> + Send + Sync>,
}

impl core::fmt::Debug for Signer {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Signer").field("account", &self.account).finish_non_exhaustive()
    }
}

/// A session in which the worker has accepted the request.
#[derive(Debug)]
pub struct Reached {
    worker: PeerIdHash,
    session: Session,
    over: watch::Receiver<Option<ReachFailure>>,
    _control: AbortOnDropHandle<()>,
}

/// Reaches a replica on `worker`, over a stream that leads there.
///
/// # Errors
/// [`ReachFailure`].
pub async fn reach(
    stream: impl Duplex + 'static,
    signer: &Signer,
    worker: PeerIdHash,
    replica: (Blake3Digest, ReplicaIndex),
    action: Action,
) -> Result<Reached, ReachFailure> {
    reach_over(ByteStream::new(stream), signer, worker, replica, action).await
}

/// An identity for one session.
fn new_identity() -> SecretIdentity {
    loop {
        let mut bytes = [0; 32];
        rand::rngs::OsRng.fill_bytes(&mut bytes);
        // All but one in 2^128 are keys.
        if let Ok(identity) = SecretIdentity::from_bytes(&bytes) {
            return identity;
        }
    }
}

#[boxed]
async fn reach_over(
    stream: ByteStream,
    signer: &Signer,
    worker: PeerIdHash,
    (job, replica): (Blake3Digest, ReplicaIndex),
    action: Action,
) -> Result<Reached, ReachFailure> {
    let none = |why: String| ReachFailure::NoSession { worker, why };
    let identity = new_identity();
    let session = Session::connect(stream, &signer.scope, &identity, worker).await;
    let session = session.map_err(|error| none(error.to_string()))?;
    let request = ReachRequest {
        scope: signer.scope,
        worker,
        client: PeerIdHash::of(&identity.public()),
        account: signer.account,
        operator: signer.operator,
        job,
        replica,
        action,
        expires: unix_now().0 / 1000 + EXPIRES_SECONDS,
    };
    let signature = (signer.sign)(&request.digest()).map_err(ReachFailure::NotSigned)?;
    let broken = |error: io::Error| none(error.to_string());
    let opened = session.opener.open().await;
    let mut control = opened.map_err(|error: SessionError| none(error.to_string()))?;
    let signed = SignedReachRequest::new(request, &signature);
    frame::send(&mut control, &signed).await.map_err(broken)?;
    let answer = timeout(ANSWER, frame::read::<Control>(&mut control)).await;
    match answer.map_err(|_| none("no answer in time".to_owned()))?.map_err(broken)? {
        Some(Control::Accepted) => {}
        Some(Control::Ended(refusal)) => return Err(ReachFailure::Refused { worker, refusal }),
        Some(Control::Beat) | None => return Err(none("the worker hung up".to_owned())),
    }
    let (ended, over) = watch::channel(None);
    let control = tokio::spawn(async move {
        let failure = keep(control, worker).await;
        ended.send_replace(Some(failure));
    });
    Ok(Reached { worker, session, over, _control: AbortOnDropHandle::new(control) })
}

/// Says that this end lives, and hears that the other does. Why that is over.
async fn keep(control: ByteStream, worker: PeerIdHash) -> ReachFailure {
    let over = |why: &str| ReachFailure::Over { worker, why: why.to_owned() };
    let (mut reading, mut writing) = split(control);
    let silence = Duration::from_secs(SILENCE_SECONDS);
    let hearing = async {
        loop {
            return match timeout(silence, frame::read(&mut reading)).await {
                Ok(Ok(Some(Control::Beat | Control::Accepted))) => continue,
                Ok(Ok(Some(Control::Ended(refusal)))) => ReachFailure::Refused { worker, refusal },
                Ok(Ok(None)) => over("it hung up"),
                Ok(Err(error)) => over(&error.to_string()),
                Err(_) => over("nothing was heard of it for a minute"),
            };
        }
    };
    let saying = async {
        let mut beat = interval(Duration::from_secs(BEAT_SECONDS));
        while frame::send(&mut writing, &Control::Beat).await.is_ok() {
            beat.tick().await;
        }
        // The other half hears why.
        std::future::pending::<ReachFailure>().await
    };
    tokio::select! {
        failure = hearing => failure,
        failure = saying => failure,
    }
}

impl Reached {
    /// A stream of what was asked for: the log, the command, or one connection.
    ///
    /// # Errors
    /// [`ReachFailure`]: why the session is over.
    #[boxed]
    pub async fn open(&self) -> Result<ByteStream, ReachFailure> {
        if self.is_over() {
            return Err(self.over().await);
        }
        let opened = async {
            let mut stream = self.session.opener.open().await.ok()?;
            stream.write_all(&[BEGIN]).await.ok()?;
            stream.flush().await.ok()?;
            Some(stream)
        };
        match opened.await {
            Some(stream) => Ok(stream),
            None => Err(self.over().await),
        }
    }

    /// A connection to the port that was asked for.
    ///
    /// # Errors
    /// [`ReachFailure`]; [`ReachFailure::Refused`] also if only this connection cannot be made.
    #[boxed]
    pub async fn connect(&self) -> Result<ByteStream, ReachFailure> {
        let mut stream = self.open().await?;
        let worker = self.worker;
        match frame::read::<Control>(&mut stream).await {
            Ok(Some(Control::Accepted)) => Ok(stream),
            Ok(Some(Control::Ended(refusal))) => Err(ReachFailure::Refused { worker, refusal }),
            Ok(_) | Err(_) => {
                let why = "the worker ended the connection".to_owned();
                Err(ReachFailure::Over { worker, why })
            }
        }
    }

    /// Whether the session is over.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.over.borrow().is_some()
    }

    /// Why the session is over; returns when it is.
    pub async fn over(&self) -> ReachFailure {
        let mut over = self.over.clone();
        let known = over.wait_for(Option::is_some).await;
        let known = known.ok().and_then(|known| known.clone());
        let why = "it broke off".to_owned();
        known.unwrap_or(ReachFailure::Over { worker: self.worker, why })
    }
}
