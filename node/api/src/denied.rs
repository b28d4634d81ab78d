//! Why a caller is turned away, each reason with a word for programs.

use axum::{
    Json,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use veil_protocol_spec::{Address, ClusterId, registry::NotDelegated};

/// Why a login is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LoginError {
    /// Of another node, account or time, or of this node before it was restarted.
    #[error("the challenge is not this node's for this account; ask for a new one")]
    NotIssued,
    /// Too late.
    #[error("the challenge has expired; ask for a new one, and look at this machine's clock")]
    Expired,
    /// The challenge opened a session before.
    #[error("the challenge was answered before; ask for a new one")]
    Replayed,
    /// Too many others are logged in.
    #[error("too many sessions are open on this node; try again in some minutes")]
    Full,
}

/// Why a caller is turned away.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say what the fields are")]
pub enum Denied {
    /// Nothing says who asks.
    #[error("this address needs a token: give the node's read token, or log in")]
    NoToken,
    /// Nobody's.
    #[error("the token is neither this node's read token nor of an open session: log in again")]
    UnknownToken,
    /// A session that has ended.
    #[error("the token expired {seconds} s ago: log in again")]
    Expired { seconds: u64 },
    /// Token or login are for another cluster.
    #[error("this is for cluster 0x{given}, and the node is of cluster 0x{node}")]
    OtherCluster { given: ClusterId, node: ClusterId },
    /// The challenge.
    #[error(transparent)]
    Login(#[from] LoginError),
    /// Somebody else's signature, or one over something else.
    #[error(
        "the signature is not of account 0x{account}, over this challenge, this cluster and this node's certificate"
    )]
    Signature { account: Address },
    /// The chain does not know the account.
    #[error(
        "the chain grants account 0x{account} no right in this cluster; its admin runs `veil chain grant`"
    )]
    NoRight { account: Address },
    /// The account may not act for that operator, or no more.
    #[error(transparent)]
    Delegation(#[from] NotDelegated),
    /// The account may read and no more.
    #[error("the read token only reads: log in with the operator's key")]
    ReadOnly,
    /// It is another account's.
    #[error("this session is for operator 0x{session}, and the job is of 0x{job}")]
    OtherAccount { session: Address, job: Address },
    /// Not of the form that is asked for.
    #[error("malformed {0}")]
    Malformed(&'static str),
    /// The node cannot tell who asks, now.
    #[error("{0}")]
    NotNow(String),
}

impl Denied {
    /// The word for programs.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::NoToken => "no_token",
            Self::UnknownToken => "unknown_token",
            Self::Expired { .. } => "token_expired",
            Self::OtherCluster { .. } => "other_cluster",
            Self::Login(LoginError::NotIssued) => "challenge_not_issued",
            Self::Login(LoginError::Expired) => "challenge_expired",
            Self::Login(LoginError::Replayed) => "challenge_replayed",
            Self::Login(LoginError::Full) => "too_many_sessions",
            Self::Signature { .. } => "signature",
            Self::NoRight { .. } => "no_right",
            Self::Delegation(NotDelegated::Never { .. }) => "not_delegated",
            Self::Delegation(NotDelegated::Expired { .. }) => "delegation_expired",
            Self::Delegation(NotDelegated::Revoked { .. }) => "delegation_revoked",
            Self::ReadOnly => "read_only",
            Self::OtherAccount { .. } => "other_account",
            Self::Malformed(_) => "malformed",
            Self::NotNow(_) => "not_now",
        }
    }

    const fn code(&self) -> StatusCode {
        match self {
            Self::NoToken
            | Self::UnknownToken
            | Self::Expired { .. }
            | Self::OtherCluster { .. }
            | Self::Login(LoginError::NotIssued | LoginError::Expired | LoginError::Replayed)
            | Self::Signature { .. } => StatusCode::UNAUTHORIZED,
            Self::NoRight { .. }
            | Self::Delegation(_)
            | Self::ReadOnly
            | Self::OtherAccount { .. } => StatusCode::FORBIDDEN,
            Self::Malformed(_) => StatusCode::BAD_REQUEST,
            Self::Login(LoginError::Full) | Self::NotNow(_) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

impl IntoResponse for Denied {
    fn into_response(self) -> Response {
        let body = serde_json::json!({ "error": self.to_string(), "kind": self.kind() });
        (self.code(), Json(body)).into_response()
    }
}
