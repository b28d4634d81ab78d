//! Asking a node: through its Unix socket, or over TLS by its URL.
//!
//! An answer other than 2xx carries `{"error": ...}`; [`ClientError::Refused`] passes it on.

use core::fmt;
use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use async_recursion::async_recursion as boxed;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    client::conn::http1::SendRequest,
    http::request::Builder,
};
use hyper_util::rt::TokioIo;
use serde::{Serialize, de::DeserializeOwned};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
    task::JoinHandle,
};
use tokio_rustls::{TlsConnector, rustls::pki_types::ServerName};
use veil_protocol_spec::{Address, ClusterId, PeerIdHash, hex, read_hex};
use zeroize::Zeroizing;

use crate::{
    address::NodeAddress,
    gate::{Challenge, ChallengeRequest, LoggedIn, LoginRequest},
    relay,
    sessions::Login,
    tls::CertificateHash,
    trust::{Trust, TrustError},
};

/// Longest answer that is read.
const MAX_ANSWER_BYTES: usize = 8 << 20;
/// How long an answer may take.
const DEADLINE: Duration = Duration::from_secs(30);
/// Why a node cannot be asked.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say what the fields are")]
pub enum ClientError {
    /// Nobody listens on the socket.
    #[error("{socket}: {source}; is the process running, and is this its data directory?")]
    Socket { socket: PathBuf, source: io::Error },
    /// Nobody answers at the address, or its certificate is not trusted.
    #[error("{node}: {detail}")]
    Unreachable { node: NodeAddress, detail: String },
    /// There is nothing to check the node's certificate against.
    #[error(
        "{0}: which certificate is trusted? give --node-ca FILE (VEIL_NODE_CA): the node's own is `api-certificate.pem` in its data directory"
    )]
    NoTrust(NodeAddress),
    /// The trusted certificates.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// The file with the token.
    #[error("{path}: {detail}")]
    Token { path: PathBuf, detail: String },
    /// Not an answer.
    #[error("{node}: {detail}")]
    Broken { node: NodeAddress, detail: String },
    /// It does not let the caller do that. `kind` is a word of [`Denied`](crate::denied::Denied).
    #[error("{node}: {why}")]
    Denied { node: NodeAddress, kind: String, why: String },
    /// The key does not sign the login.
    #[error("{0}")]
    NotSigned(String),
    /// It says no.
    #[error("{0}")]
    Refused(String),
}

/// Signs a login at a node with this certificate, as EIP-712 `ApiLogin`: r, s and v.
pub type SignLogin<'a> =
    &'a (dyn Fn(&Login, &CertificateHash) -> Result<[u8; 65], String> + Send + Sync);

/// The token in a file.
fn first_line(path: &Path) -> Result<Zeroizing<String>, ClientError> {
    let failed = |detail: &dyn fmt::Display| ClientError::Token {
        path: path.to_owned(),
        detail: detail.to_string(),
    };
    let text = fs::read_to_string(path).map(Zeroizing::new).map_err(|error| failed(&error))?;
    match text.lines().next().map(str::trim) {
        // What a header can hold.
        Some(line) if !line.is_empty() && line.bytes().all(|byte| byte.is_ascii_graphic()) => {
            Ok(Zeroizing::new(line.to_owned()))
        }
        _ => Err(failed(&"its first line is no token")),
    }
}

/// One connection, over which several requests can go.
struct Link {
    sender: SendRequest<Full<Bytes>>,
    connection: JoinHandle<Result<(), hyper::Error>>,
    /// What the node showed, over TLS.
    certificate: Option<CertificateHash>,
}

impl Drop for Link {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

/// Asks one node.
#[derive(Clone)]
pub struct Client {
    address: NodeAddress,
    trust: Option<Trust>,
    token: Option<Arc<Zeroizing<String>>>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Client {
    /// Of a node's Unix socket.
    #[must_use]
    pub const fn of_socket(socket: PathBuf) -> Self {
        Self { address: NodeAddress::Socket(socket), trust: None, token: None }
    }

    /// Of a node at an address; a remote one needs certificates to trust, and a token for all but logging
    /// in.
    #[must_use]
    pub fn new(
        address: NodeAddress,
        trust: Option<Trust>,
        token: Option<Zeroizing<String>>,
    ) -> Self {
        Self { address, trust, token: token.map(Arc::new) }
    }

    /// Of a node at an address, with the certificates to trust and the token from files; neither is looked
    /// at for a socket.
    ///
    /// # Errors
    /// [`ClientError::Trust`], [`ClientError::Token`].
    pub fn open(
        address: NodeAddress,
        trust: Option<&Path>,
        token: Option<&Path>,
    ) -> Result<Self, ClientError> {
        if matches!(address, NodeAddress::Socket(_)) {
            return Ok(Self::new(address, None, None));
        }
        let trust = trust.map(Trust::load).transpose()?;
        Ok(Self::new(address, trust, token.map(first_line).transpose()?))
    }

    /// Whom it asks.
    #[must_use]
    pub const fn address(&self) -> &NodeAddress {
        &self.address
    }

    /// Logs an account in, for itself or for the operator that has delegated this to it; a client with the token
    /// of its session. Through a socket nobody needs one.
    ///
    /// # Errors
    /// [`ClientError`].
    #[boxed]
    pub async fn log_in<'a>(
        &'a self,
        account: Address,
        operator: Address,
        cluster: ClusterId,
        sign: SignLogin<'a>,
    ) -> Result<Self, ClientError> {
        if matches!(self.address, NodeAddress::Socket(_)) {
            return Ok(self.clone());
        }
        let logged_in: LoggedIn =
            self.in_time(self.challenge((account, operator), cluster, sign)).await?;
        Ok(Self { token: Some(Arc::new(logged_in.token.into())), ..self.clone() })
    }

    /// One connection for both: who signs has seen the certificate of whoever gets the signature.
    async fn challenge(
        &self,
        (account, operator): (Address, Address),
        cluster: ClusterId,
        sign: SignLogin<'_>,
    ) -> Result<LoggedIn, ClientError> {
        let mut link = self.connect().await?;
        let certificate =
            link.certificate.ok_or_else(|| self.broken(&"it has shown no certificate"))?;
        let body = self.write(&ChallengeRequest { account })?;
        let given = self.send(&mut link, Method::POST, "/v1/login/challenge", body).await?;
        let given: Challenge = self.read(&given)?;
        let mut challenge = [0; 32];
        read_hex(&given.challenge, &mut challenge).map_err(|error| self.broken(&error))?;
        let login = Login { account, operator, challenge, expires: given.expires };
        let signature = hex(&sign(&login, &certificate).map_err(ClientError::NotSigned)?);
        let Challenge { challenge, expires } = given;
        let operator = (operator != account).then_some(operator);
        let body = LoginRequest { account, operator, cluster, challenge, expires, signature };
        let opened = self.send(&mut link, Method::POST, "/v1/login", self.write(&body)?).await?;
        self.read(&opened)
    }

    /// Asks for `path`.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.read(&self.ask(Method::GET, path, Bytes::new()).await?)
    }

    /// Posts `body` to `path`.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, ClientError> {
        self.read(&self.ask(Method::POST, path, self.write(body)?).await?)
    }

    fn write(&self, body: &impl Serialize) -> Result<Bytes, ClientError> {
        Ok(serde_json::to_vec(body).map_err(|e| self.broken(&e))?.into())
    }

    fn read<T: DeserializeOwned>(&self, answer: &[u8]) -> Result<T, ClientError> {
        serde_json::from_slice(answer).map_err(|e| self.broken(&e))
    }

    fn broken(&self, detail: &dyn fmt::Display) -> ClientError {
        ClientError::Broken { node: self.address.clone(), detail: detail.to_string() }
    }

    async fn in_time<T>(
        &self,
        asking: impl Future<Output = Result<T, ClientError>> + Send,
    ) -> Result<T, ClientError> {
        let answer = tokio::time::timeout(DEADLINE, asking).await;
        answer.map_err(|_| self.broken(&"no answer in time"))?
    }

    #[boxed]
    async fn ask(&self, method: Method, path: &str, body: Bytes) -> Result<Bytes, ClientError> {
        let asking = async {
            let mut link = self.connect().await?;
            self.send(&mut link, method, path, body).await
        };
        self.in_time(asking).await
    }

    async fn connect(&self) -> Result<Link, ClientError> {
        match &self.address {
            NodeAddress::Socket(socket) => {
                let stream = UnixStream::connect(socket)
                    .await
                    .map_err(|source| ClientError::Socket { socket: socket.clone(), source })?;
                self.link(stream, None).await
            }
            NodeAddress::Remote { host, port } => {
                let Trust(trust) =
                    self.trust.clone().ok_or_else(|| ClientError::NoTrust(self.address.clone()))?;
                let unreachable = |detail: &dyn fmt::Display| ClientError::Unreachable {
                    node: self.address.clone(),
                    detail: detail.to_string(),
                };
                // An IPv6 address stands in brackets in a URL.
                let name = host.trim_start_matches('[').trim_end_matches(']');
                let stream =
                    TcpStream::connect((name, *port)).await.map_err(|e| unreachable(&e))?;
                let server = ServerName::try_from(name.to_owned()).map_err(|e| unreachable(&e))?;
                let stream = TlsConnector::from(trust).connect(server, stream).await;
                let stream = stream.map_err(|e| unreachable(&e))?;
                let shown = stream.get_ref().1.peer_certificates();
                let certificate = shown.and_then(<[_]>::first).map(CertificateHash::of);
                self.link(stream, certificate).await
            }
        }
    }

    async fn link(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        certificate: Option<CertificateHash>,
    ) -> Result<Link, ClientError> {
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|e| self.broken(&e))?;
        let connection = tokio::spawn(connection.with_upgrades());
        Ok(Link { sender, connection, certificate })
    }

    /// Sends a request; the body of the answer, if that is one of success.
    async fn send(
        &self,
        link: &mut Link,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<Bytes, ClientError> {
        let request = self.request(method, path).header("content-type", "application/json");
        let request = request.body(Full::new(body)).map_err(|e| self.broken(&e))?;
        let response = self.send_request(link, request).await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_ANSWER_BYTES).collect().await;
        let body = body.map_err(|e| self.broken(&e))?.to_bytes();
        if status.is_success() {
            return Ok(body);
        }
        Err(self.refusal(status, &body))
    }

    fn request(&self, method: Method, path: &str) -> Builder {
        let host = match &self.address {
            NodeAddress::Socket(_) => "veil",
            NodeAddress::Remote { host, .. } => host,
        };
        let request = Request::builder().method(method).uri(path).header("host", host);
        match &self.token {
            Some(token) => request.header("authorization", format!("Bearer {}", token.as_str())),
            None => request,
        }
    }

    async fn send_request(
        &self,
        link: &mut Link,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, ClientError> {
        link.sender.ready().await.map_err(|e| self.broken(&e))?;
        link.sender.send_request(request).await.map_err(|e| self.broken(&e))
    }

    /// A stream through the node to a worker.
    ///
    /// # Errors
    /// [`ClientError`].
    #[boxed]
    pub async fn reach(&self, worker: PeerIdHash) -> Result<Box<dyn relay::Bytes>, ClientError> {
        let path = relay::PATH.replace("{worker}", &worker.to_string());
        let asking = async {
            let mut link = self.connect().await?;
            let request = self
                .request(Method::GET, &path)
                .header("connection", "upgrade")
                .header("upgrade", relay::PROTOCOL);
            let request = request.body(Full::default()).map_err(|e| self.broken(&e))?;
            let response = self.send_request(&mut link, request).await?;
            let status = response.status();
            if status != StatusCode::SWITCHING_PROTOCOLS {
                let body = Limited::new(response.into_body(), MAX_ANSWER_BYTES).collect().await;
                return Err(self.refusal(status, &body.map_err(|e| self.broken(&e))?.to_bytes()));
            }
            let upgraded = hyper::upgrade::on(response).await.map_err(|e| self.broken(&e))?;
            Ok::<Box<dyn relay::Bytes>, _>(Box::new(TokioIo::new(upgraded)))
        };
        self.in_time(asking).await
    }

    fn refusal(&self, status: StatusCode, body: &[u8]) -> ClientError {
        let said: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
        let text = |key| said.get(key).and_then(serde_json::Value::as_str).map(str::to_owned);
        let why = text("error").unwrap_or_else(|| match body {
            [] => status.to_string(),
            body => String::from_utf8_lossy(body).into_owned(),
        });
        match text("kind") {
            Some(kind) => ClientError::Denied { node: self.address.clone(), kind, why },
            None => ClientError::Refused(why),
        }
    }
}
