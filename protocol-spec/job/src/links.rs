//! Other jobs of the same operator: which of them a container reaches, and which it waits for.
//!
//! Jobs are named, not identified: a name means whatever the operator runs under it at the moment, whichever
//! version, wherever it is. A job that does not exist yet may be named. Two operators' jobs of one name are two jobs.

use core::{fmt, num::NonZeroU16};
use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::names::{HostName, Name, VariableName};

/// A port of another job that the container reaches by a name and a number of its own.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Link {
    /// What the container calls it.
    pub host: HostName,
    /// The number that the container connects to. It is given, and not looked up in the other job: the container may
    /// be made before that job is known.
    pub listen: NonZeroU16,
    /// The job that it leads to.
    pub job: Name,
    /// The port of that job.
    pub port: Name,
    /// A variable that is set to [`Self::address`].
    pub env: Option<VariableName>,
}

/// Where a container finds a link. No two links of a job have the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LinkAddress<'a> {
    host: &'a HostName,
    listen: NonZeroU16,
}

impl fmt::Display for LinkAddress<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.listen)
    }
}

impl Link {
    /// Where the container finds it, such as `db:5432`.
    #[must_use]
    pub const fn address(&self) -> LinkAddress<'_> {
        LinkAddress { host: &self.host, listen: self.listen }
    }
}

/// What is to be known of another job before a container starts.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Condition {
    /// A replica of it runs.
    #[default]
    Running,
    /// A replica of it is healthy.
    Healthy,
    /// All of its replicas have ended with code 0.
    Done,
}

impl Condition {
    /// The word of the job file.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Healthy => "healthy",
            Self::Done => "done",
        }
    }
}

/// A start condition.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct After {
    /// The job that is waited for.
    pub job: Name,
    /// Until when.
    pub is: Condition,
}

impl fmt::Display for After {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to be {}", self.job, self.is.word())
    }
}

/// The names along which a job waits for itself, its own first and last; nothing if it does not. `after` says for which
/// jobs one waits.
#[must_use]
pub fn circle_of(name: &Name, after: impl Fn(&Name) -> Vec<Name>) -> Option<Vec<Name>> {
    let mut path = vec![name.clone()];
    let mut seen = BTreeSet::new();
    // Depth first; what was left once without coming back to `name` never does.
    let mut open = vec![after(name).into_iter()];
    while let Some(next) = open.last_mut() {
        match next.next() {
            Some(job) if job == *name => {
                path.push(job);
                return Some(path);
            }
            Some(job) if seen.insert(job.clone()) => {
                open.push(after(&job).into_iter());
                path.push(job);
            }
            Some(_) => {}
            None => {
                open.pop();
                path.pop();
            }
        }
    }
    None
}
