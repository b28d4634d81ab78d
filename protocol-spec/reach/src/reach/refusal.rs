//! Why a worker does not let somebody reach a job: each reason has a name.

use serde::{Deserialize, Serialize};

use super::MOST_SECONDS;

/// Why a worker does not let somebody reach a job, or no more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// Step 4.
    #[error("the request is for another cluster than the worker's; check --cluster and --contract")]
    OtherCluster,
    /// Step 4.
    #[error("the request is for another worker")]
    OtherWorker,
    /// Step 4.
    #[error("the request is of another session")]
    OtherClient,
    /// Step 4.
    #[error("the request has expired; look at this machine's clock")]
    Expired,
    /// Step 4.
    #[error(
        "the request would hold for longer than {MOST_SECONDS} s; look at this machine's clock"
    )]
    TooLong,
    /// Step 4.
    #[error("the signature is not by the account that the request names")]
    Signature,
    /// Step 4.
    #[error("the chain lists no such job, as far as the worker has read it")]
    UnknownJob,
    /// Step 4.
    #[error("the job is another operator's")]
    OtherOperator,
    /// Step 4.
    #[error(
        "the operator has delegated nothing to this key, or no more; it runs `veil operator delegate`"
    )]
    NotDelegated,
    /// Step 4.
    #[error("the job was stopped")]
    Stopped,
    /// Step 4.
    #[error(
        "the newest certificate places this replica elsewhere, or nowhere; see `veil job status`"
    )]
    NotHere,
    /// Step 4.
    #[error("this worker lets nobody run commands: its operator sets `exec = true` under [worker]")]
    ExecOff,
    /// Step 5.
    #[error("there is no container of this replica now; see `veil job status`")]
    NoContainer,
    /// Step 5.
    #[error("the container does not run now; see `veil job status`")]
    NotRunning,
    /// Step 5.
    #[error("the job has no port of this name")]
    NoPort,
    /// Step 5.
    #[error("the port is one for datagrams, which are not forwarded")]
    Datagrams,
    /// Step 5.
    #[error("nothing listens on the port, at the container's own address")]
    NothingListens,
    /// Step 4.
    #[error("too many sessions are open on this worker; try again")]
    Busy,
    /// Step 4.
    #[error("the worker cannot tell now; try again")]
    NotNow,
    /// Step 5: the engine, in words.
    #[error("the worker's engine: {0}")]
    Engine(String),
    /// Not of the form that is asked for.
    #[error("the worker does not understand the request; is it of another version?")]
    Malformed,
}

impl Refusal {
    /// Longest text of an engine.
    pub const MAX_TEXT: usize = 512;

    /// The engine's words, cut.
    #[must_use]
    pub fn engine(said: &impl ToString) -> Self {
        let mut text = said.to_string();
        text.truncate(text.floor_char_boundary(Self::MAX_TEXT));
        Self::Engine(text)
    }

    /// The word of counters, and for programs.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::OtherCluster => "other_cluster",
            Self::OtherWorker => "other_worker",
            Self::OtherClient => "other_client",
            Self::Expired => "expired",
            Self::TooLong => "too_long",
            Self::Signature => "signature",
            Self::UnknownJob => "unknown_job",
            Self::OtherOperator => "other_operator",
            Self::NotDelegated => "not_delegated",
            Self::Stopped => "stopped",
            Self::NotHere => "not_here",
            Self::ExecOff => "exec_off",
            Self::NoContainer => "no_container",
            Self::NotRunning => "not_running",
            Self::NoPort => "no_port",
            Self::Datagrams => "datagrams",
            Self::NothingListens => "nothing_listens",
            Self::Busy => "busy",
            Self::NotNow => "not_now",
            Self::Engine(_) => "engine",
            Self::Malformed => "malformed",
        }
    }
}
