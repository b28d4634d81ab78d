//! Where a process answers: on its admin socket and, if that is configured, from afar over TLS.
//!
//! # State
//! The read token and, unless they are configured, certificate and key: files in the data directory.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use async_recursion::async_recursion as boxed;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use veil_node_api::{
    gate::Gate,
    routes::Routes,
    socket::{self, SocketError},
    tls::{self, CertificateHash, TlsError, TlsFiles},
    token::{Token, new_read_token, token_hash},
};
use veil_node_config::{ApiSection, NodeSection};
use veil_node_storage::durable::{WriteNewError, write_new};
use veil_protocol_spec::ClusterId;

use crate::{accounts::ChainAccounts, api, report::Reporter};

/// Why a process does not answer.
#[derive(Debug, thiserror::Error)]
pub enum AnsweringError {
    /// The admin socket.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// The address.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The read token.
    #[error("{path}: {source}")]
    ReadToken {
        /// Its file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The read token cannot be written.
    #[error(transparent)]
    Write(#[from] WriteNewError),
    /// Whoever guesses it could read.
    #[error(
        "{0}: the read token is shorter than {MIN_TOKEN} characters; without the file the node makes one"
    )]
    ShortToken(PathBuf),
}

/// Least length of a read token.
const MIN_TOKEN: usize = 32;

/// A process that answers.
pub(crate) struct Answering {
    stop: CancellationToken,
    serving: Vec<JoinHandle<()>>,
}

impl Answering {
    /// Answers from now on, and by `own` on the socket only.
    #[boxed]
    pub(crate) async fn start(
        node: &NodeSection,
        api: Option<&ApiSection>,
        cluster: ClusterId,
        (reporter, own): (Reporter, Routes),
    ) -> Result<Self, AnsweringError> {
        let stop = CancellationToken::new();
        let routes = api::read_and_post(reporter.clone()).merge(api::open()).merge(own);
        let mut serving = Vec::new();
        serving.push(socket::serve(node.admin_socket(), routes.into_router(), stop.clone()).await?);
        let mut answering = Self { stop, serving };
        if let Some(api) = api
            && let Err(error) =
                answering.serve_from_afar(api, &node.data_dir, cluster, reporter).await
        {
            answering.end().await;
            return Err(error);
        }
        Ok(answering)
    }

    async fn serve_from_afar(
        &mut self,
        section: &ApiSection,
        data_dir: &Path,
        cluster: ClusterId,
        reporter: Reporter,
    ) -> Result<(), AnsweringError> {
        let files = match (&section.certificate, &section.key) {
            (Some(certificate), Some(key)) => {
                TlsFiles { certificate: certificate.clone(), key: key.clone() }
            }
            _ => TlsFiles::own(data_dir, section.certificate_names())?,
        };
        let token = match &section.read_token_file {
            Some(path) => read_token(path)?,
            None => own_token(&data_dir.join("api-read-token"), &cluster)?,
        };
        let shown = files.certificate_hash()?;
        let router = from_afar(reporter, cluster, shown, token_hash(&token)).into_router();
        let (address, serving) =
            tls::serve(section.listen, &files, router, self.stop.clone()).await?;
        tracing::info!(%address, certificate = %files.certificate.display(), "answering from afar");
        self.serving.push(serving);
        Ok(())
    }

    /// Answers what was asked, and nothing more.
    pub(crate) async fn end(self) {
        self.stop.cancel();
        for serving in self.serving {
            let _ = serving.await; // only a panic in a handler could make it fail
        }
    }
}

/// What is answered over TLS.
pub(crate) fn from_afar(
    reporter: Reporter,
    cluster: ClusterId,
    certificate: CertificateHash,
    read_token: [u8; 32],
) -> Routes {
    let accounts = Arc::new(ChainAccounts(reporter.clone()));
    let gate = Gate::new(accounts, cluster, certificate, read_token);
    gate.guard(api::read_and_post(reporter), api::open())
}

fn read_token(path: &Path) -> Result<Token, AnsweringError> {
    let text = fs::read_to_string(path).map(Token::new);
    let text =
        text.map_err(|source| AnsweringError::ReadToken { path: path.to_owned(), source })?;
    let token = text.lines().next().unwrap_or_default().trim();
    if token.len() < MIN_TOKEN {
        return Err(AnsweringError::ShortToken(path.to_owned()));
    }
    Ok(Token::new(token.to_owned()))
}

fn own_token(path: &Path, cluster: &ClusterId) -> Result<Token, AnsweringError> {
    if !path.exists() {
        let token = new_read_token(cluster);
        let line = Token::new(format!("{}\n", token.as_str()));
        write_new(path, 0o600, line.as_bytes())?;
    }
    read_token(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_token_is_made_once_and_a_short_one_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("api-read-token");
        let cluster = ClusterId([1; 32]);
        let made = own_token(&path, &cluster).unwrap();
        assert_eq!(own_token(&path, &cluster).unwrap(), made);
        fs::write(&path, "secret\n").unwrap();
        let refused = own_token(&path, &cluster).unwrap_err();
        assert!(matches!(refused, AnsweringError::ShortToken(_)), "{refused}");
        assert!(!refused.to_string().contains("secret"), "{refused}");
    }
}
