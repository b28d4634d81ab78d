//! How a worker reaches a job on another worker for a container of its own: `links.md`.
//!
//! # Flow
//! The worker opens a stream that only workers may open, whose connection shows who both ends are. It sends one
//! [`LinkRequest`] and gets one [`LinkAnswer`], each behind its length as two bytes, the higher first. After
//! [`LinkAnswer::Connected`] the bytes of the connection follow in both directions.
//!
//! # What is checked
//! Nothing in a request is believed: each end knows the certificates, and the bodies of jobs, by itself.

use serde::{Deserialize, Serialize};

use veil_protocol_spec_base::{
    codec::Wire,
    ids::{Blake3Digest, ReplicaIndex},
};
use veil_protocol_spec_job::names::Name;

/// A replica of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LinkEnd {
    /// [`JobSpec::digest`](veil_protocol_spec_job::job::JobSpec::digest).
    pub job: Blake3Digest,
    /// Which of the job's replicas.
    pub replica: ReplicaIndex,
}

/// What is wanted of a replica.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LinkWish {
    /// A connection to this port of it.
    Connect(Name),
    /// How it is.
    State,
}

/// The first message of a stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LinkRequest {
    /// A replica that the asking worker has.
    pub from: LinkEnd,
    /// A replica that the asked worker has.
    pub to: LinkEnd,
    /// What is wanted.
    pub wish: LinkWish,
}

impl Wire for LinkRequest {
    const NAME: &'static str = "LinkRequest";
    const MAX_BYTES: usize = 256;
}

/// What a worker says of a replica that it has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReplicaCondition {
    /// Its container runs.
    pub running: bool,
    /// It runs, is not being stopped, and is healthy as far as its job says how to tell.
    pub healthy: bool,
}

/// Why a worker carries no connection to a replica, or says nothing of it.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    thiserror::Error,
)]
#[serde(rename_all = "snake_case")]
pub enum LinkRefusal {
    /// By the newest certificate here, the asking worker does not have the replica that it asks for.
    #[error("its worker has no certificate that gives this worker the asking replica")]
    NotYours,
    /// By the newest certificate here, the replica is elsewhere.
    #[error("by the newest certificate of that worker the replica is not there")]
    NotHere,
    /// The body of one of the jobs is not known here.
    #[error("its worker does not have the bodies of both jobs yet")]
    NoBody,
    /// The jobs are two operators'.
    #[error("it is a job of another operator")]
    OtherOperator,
    /// The asking job's body has no link to this port, or does not wait for this job.
    #[error("the asking job's body names no such link")]
    NoLink,
    /// The job has no such port, or it is no TCP port.
    #[error("the job has no TCP port of that name")]
    NoPort,
    /// The replica does not run, or is being stopped.
    #[error("it does not run there yet")]
    NotRunning,
    /// It runs, and its health check fails.
    #[error("its health check does not succeed")]
    Unhealthy,
    /// The program does not take the connection.
    #[error("its program does not listen on that port")]
    NotListening,
    /// Too many connections at once.
    #[error("its worker carries as many connections as it can")]
    Busy,
}

impl LinkRefusal {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::NotYours,
        Self::NotHere,
        Self::NoBody,
        Self::OtherOperator,
        Self::NoLink,
        Self::NoPort,
        Self::NotRunning,
        Self::Unhealthy,
        Self::NotListening,
        Self::Busy,
    ];

    /// Name in counters.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::NotYours => "not_yours",
            Self::NotHere => "not_here",
            Self::NoBody => "no_body",
            Self::OtherOperator => "other_operator",
            Self::NoLink => "no_link",
            Self::NoPort => "no_port",
            Self::NotRunning => "not_running",
            Self::Unhealthy => "unhealthy",
            Self::NotListening => "not_listening",
            Self::Busy => "busy",
        }
    }
}

/// The answer to a [`LinkRequest`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LinkAnswer {
    /// What follows is the connection.
    Connected,
    /// How the replica is.
    State(ReplicaCondition),
    /// Why not.
    Refused(LinkRefusal),
}

impl Wire for LinkAnswer {
    const NAME: &'static str = "LinkAnswer";
    const MAX_BYTES: usize = 16;
}

#[cfg(test)]
mod tests {
    use veil_protocol_spec_base::codec::assert_wire;

    use super::*;

    fn end(byte: u8) -> LinkEnd {
        LinkEnd { job: Blake3Digest([byte; 32]), replica: ReplicaIndex(u16::MAX) }
    }

    #[test]
    fn requests_and_answers_round_trip_and_fit() {
        let longest: Name = "p".repeat(Name::MAX_BYTES).parse().unwrap();
        for wish in [LinkWish::Connect(longest), LinkWish::State] {
            assert_wire(&LinkRequest { from: end(1), to: end(2), wish });
        }
        let refusals = LinkRefusal::ALL.map(LinkAnswer::Refused);
        let state = LinkAnswer::State(ReplicaCondition { running: true, healthy: false });
        for answer in refusals.into_iter().chain([LinkAnswer::Connected, state]) {
            assert_wire(&answer);
        }
    }

    #[test]
    fn every_refusal_has_a_name_of_its_own() {
        let names: std::collections::BTreeSet<_> = LinkRefusal::ALL.map(LinkRefusal::name).into();
        assert_eq!(names.len(), LinkRefusal::ALL.len());
    }
}
