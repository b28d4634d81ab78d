//! Who asks: by the way the request came, or by its token.
//!
//! | caller | reads | job routes |
//! |---|---|---|
//! | of the Unix socket | yes | yes |
//! | with the read token | yes | no |
//! | with an operator's session | yes | for its own account |
//! | with a session of its delegate | yes | for that operator, while the chain says so |
//! | with neither, from afar | open routes only | no |

use core::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use axum::{
    Json,
    extract::{DefaultBodyLimit, Request, State},
    http::{HeaderMap, Method, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse as _, Response},
};
use serde::{Deserialize, Serialize};
use tokio::sync::{Semaphore, TryAcquireError};
use veil_node_process::unix_now;
use veil_protocol_spec::{
    Address, ClusterId, Wire as _, hex, read_hex, registry::Delegation, scheduling::JobSpec,
};

use crate::{
    denied::Denied,
    routes::Routes,
    sessions::{Login, Session, Sessions},
    tls::CertificateHash,
    token::{token_hash, why_not},
};

/// Bytes of a request's body, from who may ask: a job's, whose bytes have two digits each, and whose texts may be escaped.
const MAX_BODY_BYTES: usize = 2 << 20;
const _: () = assert!(2 * JobSpec::MAX_BYTES < MAX_BODY_BYTES, "the longest job must fit");
/// The same, from anybody.
const MAX_OPEN_BODY_BYTES: usize = 16 << 10;
/// Questions to the chain about accounts that log in.
const QUESTIONS_AT_ONCE: usize = 4;

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Caller {
    /// Whoever may open the Unix socket.
    Local,
    /// Whoever has the read token.
    Reader,
    /// An operator that has logged in.
    Operator(Address),
    /// A key that has logged in for the operator that has delegated this to it.
    Delegate {
        /// The key's account.
        key: Address,
        /// The operator.
        operator: Address,
    },
}

impl Caller {
    /// Whether it may do something with a job of `operator`.
    ///
    /// # Errors
    /// [`Denied`].
    pub fn acts_for(self, operator: Address) -> Result<(), Denied> {
        match self {
            Self::Local => Ok(()),
            Self::Reader => Err(Denied::ReadOnly),
            Self::Operator(session) | Self::Delegate { operator: session, .. }
                if session == operator =>
            {
                Ok(())
            }
            Self::Operator(session) | Self::Delegate { operator: session, .. } => {
                Err(Denied::OtherAccount { session, job: operator })
            }
        }
    }
}

/// The accounts of the cluster, as the chain knows them.
#[async_trait]
pub trait Accounts: Send + Sync + 'static {
    /// Who signed a login at a node with this certificate, in its cluster and on its chain; nobody if the
    /// signature is none.
    ///
    /// # Errors
    /// In words, if the node does not know yet which chain it is on.
    fn signer(
        &self,
        login: &Login,
        certificate: &CertificateHash,
        signature: &[u8; 65],
    ) -> Result<Option<Address>, String>;

    /// Whether the chain grants the account a right in the cluster.
    ///
    /// # Errors
    /// In words, if the chain does not say so.
    async fn has_rights(&self, account: Address) -> Result<bool, String>;

    /// What the operator's delegation to a key is worth now, by the chain.
    ///
    /// # Errors
    /// In words, if the chain does not say so.
    async fn delegation(&self, operator: Address, key: Address) -> Result<Delegation, String>;
}

/// What `POST /v1/login/challenge` takes.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChallengeRequest {
    /// Who wants to log in.
    pub account: Address,
}

/// What it answers.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Challenge {
    /// 64 hexadecimal digits.
    pub challenge: String,
    /// Unix time in seconds.
    pub expires: u64,
}

/// What `POST /v1/login` takes.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoginRequest {
    /// Who logs in.
    pub account: Address,
    /// For whom, if not for itself: an operator that has delegated this to the account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operator: Option<Address>,
    /// Where.
    pub cluster: ClusterId,
    /// As it was given.
    pub challenge: String,
    /// As it was given.
    pub expires: u64,
    /// Over the EIP-712 `ApiLogin`: 130 hexadecimal digits.
    pub signature: String,
}

/// What it answers.
#[derive(Clone, Serialize, Deserialize)]
pub struct LoggedIn {
    /// For the header `Authorization: Bearer`.
    pub token: String,
    /// Unix time in seconds.
    pub expires: u64,
}

impl fmt::Debug for LoggedIn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoggedIn").field("expires", &self.expires).finish_non_exhaustive()
    }
}

/// See the [module documentation](self).
pub struct Gate {
    accounts: Arc<dyn Accounts>,
    cluster: ClusterId,
    certificate: CertificateHash,
    read_token: [u8; 32],
    sessions: Mutex<Sessions>,
    /// Whoever makes keys can sign logins, and each costs a question to the chain: so many at once.
    questions: Semaphore,
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate").field("cluster", &self.cluster).finish_non_exhaustive()
    }
}

fn unix_seconds() -> u64 {
    unix_now().0 / 1000
}

/// Bytes of exactly `N`, from hexadecimal digits with or without `0x`.
fn from_hex<const N: usize>(text: &str, what: &'static str) -> Result<[u8; N], Denied> {
    let mut bytes = [0; N];
    read_hex(text, &mut bytes).map_err(|_| Denied::Malformed(what))?;
    Ok(bytes)
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ")
}

impl Gate {
    /// Of a node of `cluster` that shows this certificate. Lets in who has the read token of that
    /// [hash](token_hash), and operators that log in.
    #[must_use]
    pub fn new(
        accounts: Arc<dyn Accounts>,
        cluster: ClusterId,
        certificate: CertificateHash,
        read_token: [u8; 32],
    ) -> Arc<Self> {
        let sessions = Mutex::new(Sessions::new(cluster));
        let questions = Semaphore::new(QUESTIONS_AT_ONCE);
        Arc::new(Self { accounts, cluster, certificate, read_token, sessions, questions })
    }

    /// The `guarded` routes behind this gate; beside it the `open` ones, and those to log in by.
    #[must_use]
    pub fn guard(self: &Arc<Self>, guarded: Routes, open: Routes) -> Routes {
        let admit = middleware::from_fn_with_state(Arc::clone(self), admit);
        let logins = Routes::default()
            .post("/v1/login/challenge", challenge)
            .post("/v1/login", log_in)
            .delete("/v1/login", log_out)
            .with_state(Arc::clone(self));
        let open = open.merge(logins);
        let open = open.map(|router| router.layer(DefaultBodyLimit::max(MAX_OPEN_BODY_BYTES)));
        // Nothing of a long body is read before its sender is known.
        guarded
            .map(|router| router.layer(DefaultBodyLimit::max(MAX_BODY_BYTES)).layer(admit))
            .merge(open)
    }

    fn sessions(&self) -> MutexGuard<'_, Sessions> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn caller(&self, headers: &HeaderMap) -> Result<Caller, Denied> {
        let (token, now) = (bearer(headers).ok_or(Denied::NoToken)?, unix_seconds());
        // Compared as hashes, which takes the same time wherever they differ.
        if blake3::Hash::from(token_hash(token)) == self.read_token {
            return Ok(Caller::Reader);
        }
        match self.sessions().session(token, now) {
            Some(Session { account, operator, .. }) if account == operator => {
                Ok(Caller::Operator(account))
            }
            Some(Session { account: key, operator, .. }) => Ok(Caller::Delegate { key, operator }),
            None => Err(why_not(token, &self.cluster, now)),
        }
    }

    /// Who asks for this, if it may.
    async fn admitted(&self, headers: &HeaderMap, method: &Method) -> Result<Caller, Denied> {
        match self.caller(headers)? {
            Caller::Reader if method != Method::GET => Err(Denied::ReadOnly),
            // It may have been revoked since it logged in.
            Caller::Delegate { key, operator } if method != Method::GET => {
                self.delegated(operator, key).await?;
                Ok(Caller::Delegate { key, operator })
            }
            caller => Ok(caller),
        }
    }

    /// Until when the key may act for the operator.
    async fn delegated(&self, operator: Address, key: Address) -> Result<u64, Denied> {
        let question = self.questions.try_acquire().map_err(busy)?;
        let delegation = self.accounts.delegation(operator, key).await.map_err(Denied::NotNow)?;
        drop(question);
        Ok(delegation.check(operator, key)?)
    }

    async fn open(&self, asked: &LoginRequest) -> Result<LoggedIn, Denied> {
        let challenge = from_hex(&asked.challenge, "challenge")?;
        let signature = from_hex(&asked.signature, "signature")?;
        let LoginRequest { account, operator, cluster, expires, .. } = *asked;
        let operator = operator.unwrap_or(account);
        if cluster != self.cluster {
            return Err(Denied::OtherCluster { given: cluster, node: self.cluster });
        }
        let login = Login { account, operator, challenge, expires };
        self.sessions().check(&login, unix_seconds())?;
        let signer = self.accounts.signer(&login, &self.certificate, &signature);
        if signer.map_err(Denied::NotNow)? != Some(account) {
            return Err(Denied::Signature { account });
        }
        let until =
            if operator == account { None } else { Some(self.delegated(operator, account).await?) };
        let question = self.questions.try_acquire().map_err(busy)?;
        if !self.accounts.has_rights(operator).await.map_err(Denied::NotNow)? {
            return Err(Denied::NoRight { account: operator });
        }
        drop(question);
        let (token, expires) = self.sessions().open(&login, until, unix_seconds())?;
        Ok(LoggedIn { token: token.to_string(), expires })
    }
}

fn busy(_: TryAcquireError) -> Denied {
    Denied::NotNow("others are being let in; try again".to_owned())
}

async fn admit(State(gate): State<Arc<Gate>>, mut request: Request, next: Next) -> Response {
    // The request's body cannot be shared between threads, and is not needed yet.
    let (headers, method) = (request.headers().clone(), request.method().clone());
    match gate.admitted(&headers, &method).await {
        Ok(caller) => request.extensions_mut().insert(caller),
        Err(denied) => return denied.into_response(),
    };
    next.run(request).await
}

async fn challenge(
    State(gate): State<Arc<Gate>>,
    Json(ChallengeRequest { account }): Json<ChallengeRequest>,
) -> Json<Challenge> {
    let Login { challenge, expires, .. } = gate.sessions().challenge(account, unix_seconds());
    Json(Challenge { challenge: hex(&challenge), expires })
}

async fn log_in(
    State(gate): State<Arc<Gate>>,
    Json(asked): Json<LoginRequest>,
) -> Result<Json<LoggedIn>, Denied> {
    Ok(Json(gate.open(&asked).await?))
}

async fn log_out(State(gate): State<Arc<Gate>>, headers: HeaderMap) -> Result<StatusCode, Denied> {
    let token = bearer(&headers).ok_or(Denied::NoToken)?;
    if gate.sessions().close(token) {
        return Ok(StatusCode::NO_CONTENT);
    }
    Err(why_not(token, &gate.cluster, unix_seconds()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operator_acts_for_itself_and_a_reader_for_nobody() {
        let (mine, other) = (Address([1; 20]), Address([2; 20]));
        assert_eq!(Caller::Local.acts_for(other), Ok(()));
        assert_eq!(Caller::Operator(mine).acts_for(mine), Ok(()));
        let refused = Caller::Operator(mine).acts_for(other).unwrap_err();
        assert_eq!(refused, Denied::OtherAccount { session: mine, job: other });
        assert_eq!(Caller::Reader.acts_for(mine), Err(Denied::ReadOnly));
        let delegate = Caller::Delegate { key: other, operator: mine };
        assert_eq!(delegate.acts_for(mine), Ok(()));
        // Not even for itself: it has logged in for its operator.
        let refused = delegate.acts_for(other).unwrap_err();
        assert_eq!(refused, Denied::OtherAccount { session: mine, job: other });
    }
}
