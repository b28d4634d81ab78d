//! Serving on an address, over TLS.
//!
//! # Limits
//! Handshakes, request heads and idle connections have deadlines, and there is a limit of connections, of
//! all peers and of each: a peer that says nothing keeps nobody else out.

use std::{
    collections::HashMap,
    fs, io,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_recursion::async_recursion as boxed;
use axum::Router;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use sha2::{Digest, Sha256};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        self, ServerConfig,
        crypto::ring,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    },
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Longest time for a handshake, and for the head of a request.
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(10);
/// After an error of the listener: it is out of file descriptors, for instance.
const ACCEPT_PAUSE: Duration = Duration::from_millis(500);
/// Connections at once.
const MAX_CONNECTIONS: usize = 256;
/// Of them, from one address.
const MAX_OF_ONE_ADDRESS: usize = 32;

const NO_CERTIFICATE: &str = "holds no certificate in PEM";

/// Why there is nothing on the address.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say what the fields are")]
pub enum TlsError {
    /// Certificate or key cannot be read or written.
    #[error("{path}: {detail}")]
    File { path: PathBuf, detail: String },
    /// They do not fit together, or are of a kind that TLS does not take.
    #[error("certificate {certificate} with key {key}: {source}")]
    Identity { certificate: PathBuf, key: PathBuf, source: rustls::Error },
    /// No self-signed certificate can be made.
    #[error("no certificate can be made for {names:?}: {source}")]
    SelfSigned { names: Vec<String>, source: rcgen::Error },
    /// The address cannot be listened on.
    #[error("api.listen {address}: {source}")]
    Listen { address: SocketAddr, source: io::Error },
}

/// The files of a node's TLS identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The chain of certificates, the node's first, in PEM.
    pub certificate: PathBuf,
    /// Its key, in PEM.
    pub key: PathBuf,
}

/// SHA-256 of a certificate: what a login is bound to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CertificateHash(pub [u8; 32]);

impl CertificateHash {
    pub(crate) fn of(certificate: &CertificateDer<'_>) -> Self {
        Self(Sha256::digest(certificate).into())
    }
}

fn file_error(path: &Path) -> impl FnOnce(&dyn core::fmt::Display) -> TlsError {
    let path = path.to_owned();
    move |detail| TlsError::File { path, detail: detail.to_string() }
}

impl TlsFiles {
    /// `api-certificate.pem` and `api-key.pem` in a data directory; makes them, self-signed for these names,
    /// if they are not there. A client has to be given the certificate then.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn own(data_dir: &Path, names: Vec<String>) -> Result<Self, TlsError> {
        let files = Self {
            certificate: data_dir.join("api-certificate.pem"),
            key: data_dir.join("api-key.pem"),
        };
        if files.certificate.exists() && files.key.exists() {
            return Ok(files);
        }
        let made = rcgen::generate_simple_self_signed(names.clone());
        let made = made.map_err(|source| TlsError::SelfSigned { names, source })?;
        let key = zeroize::Zeroizing::new(made.key_pair.serialize_pem());
        write_private(&files.key, key.as_bytes()).map_err(|e| file_error(&files.key)(&e))?;
        let certificate = made.cert.pem();
        fs::write(&files.certificate, certificate)
            .map_err(|e| file_error(&files.certificate)(&e))?;
        Ok(files)
    }

    /// Of the certificate that the node shows.
    ///
    /// # Errors
    /// [`TlsError::File`].
    pub fn certificate_hash(&self) -> Result<CertificateHash, TlsError> {
        let chain = read_certificates(&self.certificate)?;
        let own = chain.first().map(CertificateHash::of);
        own.ok_or_else(|| file_error(&self.certificate)(&NO_CERTIFICATE))
    }

    fn load(&self) -> Result<ServerConfig, TlsError> {
        let chain = read_certificates(&self.certificate)?;
        let key = PrivateKeyDer::from_pem_file(&self.key);
        let key = key.map_err(|error| file_error(&self.key)(&error))?;
        let identity = |source| TlsError::Identity {
            certificate: self.certificate.clone(),
            key: self.key.clone(),
            source,
        };
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(identity)?
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .map_err(identity)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config)
    }
}

/// The certificates in a PEM file.
pub(crate) fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let failed = file_error(path);
    let read = || -> Result<Vec<_>, rustls::pki_types::pem::Error> {
        CertificateDer::pem_file_iter(path)?.collect()
    };
    match read() {
        Ok(chain) if chain.is_empty() => Err(failed(&NO_CERTIFICATE)),
        Ok(chain) => Ok(chain),
        Err(error) => Err(failed(&error)),
    }
}

/// Only its owner may read it, from the first byte on.
fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    use std::{io::Write, os::unix::fs::OpenOptionsExt};
    let mut file =
        fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// The connections of each address.
#[derive(Debug, Default)]
struct Open(Mutex<HashMap<IpAddr, usize>>);

struct Place {
    open: Arc<Open>,
    address: IpAddr,
}

impl Open {
    fn take(self: &Arc<Self>, address: IpAddr) -> Option<Place> {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let all: usize = open.values().sum();
        let of_one = open.get(&address).copied().unwrap_or_default();
        if all >= MAX_CONNECTIONS || of_one >= MAX_OF_ONE_ADDRESS {
            return None;
        }
        *open.entry(address).or_default() += 1;
        Some(Place { open: Arc::clone(self), address })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.open.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.address);
            }
        }
    }
}

/// Answers on an address until `stop`. The address that is listened on, and the task.
///
/// # Errors
/// [`TlsError`].
#[boxed]
pub async fn serve(
    address: SocketAddr,
    files: &TlsFiles,
    router: Router,
    stop: CancellationToken,
) -> Result<(SocketAddr, tokio::task::JoinHandle<()>), TlsError> {
    let acceptor = TlsAcceptor::from(Arc::new(files.load()?));
    let listen = |source| TlsError::Listen { address, source };
    let listener = TcpListener::bind(address).await.map_err(listen)?;
    let bound = listener.local_addr().map_err(listen)?;
    let serving = tokio::spawn(async move {
        let (open, connections) = (Arc::new(Open::default()), TaskTracker::new());
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = stop.cancelled() => break,
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "a connection to the API was not accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let Some(place) = open.take(peer.ip()) else {
                tracing::debug!(%peer, "too many connections to the API");
                continue;
            };
            let (acceptor, router, stop) = (acceptor.clone(), router.clone(), stop.clone());
            connections.spawn(async move {
                if let Err(error) = converse(stream, acceptor, router, stop).await {
                    tracing::debug!(%peer, %error, "a connection to the API ended");
                }
                drop(place);
            });
        }
        connections.close();
        connections.wait().await;
    });
    Ok((bound, serving))
}

async fn converse(
    stream: TcpStream,
    acceptor: TlsAcceptor,
    router: Router,
    stop: CancellationToken,
) -> Result<(), Box<dyn core::error::Error + Send + Sync>> {
    let stream = tokio::time::timeout(HANDSHAKE_DEADLINE, acceptor.accept(stream)).await??;
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HANDSHAKE_DEADLINE);
    // What is upgraded is no request any more: whoever upgrades it has limits of its own (`relay`).
    let serving = http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let serving = serving.with_upgrades();
    let mut serving = core::pin::pin!(serving);
    tokio::select! {
        served = serving.as_mut() => return Ok(served?),
        () = stop.cancelled() => serving.as_mut().graceful_shutdown(),
    }
    Ok(serving.await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_does_not_take_all_places() {
        let open = Arc::new(Open::default());
        let address = |n: u8| IpAddr::from([127, 0, 0, n]);
        let places: Vec<_> =
            (0..MAX_OF_ONE_ADDRESS).filter_map(|_| open.take(address(1))).collect();
        assert_eq!(places.len(), MAX_OF_ONE_ADDRESS);
        assert!(open.take(address(1)).is_none());
        let other = open.take(address(2));
        assert!(other.is_some());
        drop(places);
        assert!(open.take(address(1)).is_some());
        assert_eq!(open.0.lock().unwrap().len(), 1, "what is not open is forgotten");
    }

    #[test]
    fn a_certificate_is_made_once_and_its_key_is_private() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let files = TlsFiles::own(folder.path(), names.clone()).unwrap();
        let made = fs::read(&files.certificate).unwrap();
        assert_eq!(TlsFiles::own(folder.path(), names).unwrap(), files);
        assert_eq!(fs::read(&files.certificate).unwrap(), made);
        assert_eq!(fs::metadata(&files.key).unwrap().permissions().mode() & 0o777, 0o600);
        files.load().unwrap();
        fs::write(&files.certificate, "nothing").unwrap();
        let error = files.load().unwrap_err().to_string();
        assert!(error.contains("api-certificate.pem"), "{error}");
    }
}
