//! A member's part in the key ceremony, between processes.
//!
//! # Roles
//! - the cluster's admin proposes an attempt on chain ([`propose`]);
//! - each member of its roster joins ([`join`]): checks, takes part, publishes;
//! - the chain ([`CommitPointChain`]) decides: published, aborted or expired.
//!
//! # Flow of [`join`]
//! 1. The proposal: for this cluster, this member and these parameters, and not out of date.
//! 2. Pre-flight ([`Preflight`]): everybody is reachable, runs the same build, has the same time, and
//!    room on disk and in memory. Left out when the attempt goes on after a restart.
//! 3. The ceremony's machine. Its seed is on disk, encrypted, before anything is sent.
//! 4. After FINISH: the reference string as a file, the signatures of all members under one publication, the
//!    new group's proof of possession, the publication.
//! 5. The chain's decision goes to the machine; the key is valid or its share is destroyed.
//!
//! # Restart
//! [`join`] again, with the same data directory, at any moment: it goes on where the records end.
//!
//! # State
//! `ceremony/epoch-<e>-attempt-<a>` in the data directory; [`FinishedKey`] in
//! `ceremony/epoch-<e>.json` once there is a key; `ceremony/status.json` for `status`.
//!
//! # Caveats
//! A member that is away longer than a round lasts makes the others abort: the next attempt has its
//! own number, and begins anew.

pub mod offline;

mod attempt;
mod commit_point;
mod error;
mod exchange;
mod finished;
mod folder;
mod host;
mod join;
pub mod journals;
mod on_chain;
mod options;
mod p2p_transport;
mod preflight;
mod propose;
mod publish;
mod reference_string;
pub mod show;
mod status;
#[cfg(test)]
mod tests;

pub use self::{
    commit_point::{AttemptStatus, CommitPointChain, CommitPointError, NewAttempt, Proposal},
    error::CeremonyError,
    finished::FinishedKey,
    join::join,
    on_chain::ChainCommitPoint,
    options::{CeremonyTiming, Member, MemberOptions, ceremony_context},
    p2p_transport::{P2pTransport, P2pTransports},
    preflight::{Needs, Preflight, PreflightFault, PreflightRow, build_fingerprint, own_facts},
    propose::{ProposeOptions, Proposed, abort, give_up_failed_attempt, propose},
    reference_string::ReferenceStringError,
    status::{
        CeremonyProgress, CeremonyStatus, Outstanding, read_status, status_file, unix_seconds,
    },
};
