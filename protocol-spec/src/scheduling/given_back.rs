//! Replicas that a worker gives back to the committee.
//!
//! # Flow
//! 1. A worker *gives back* a replica that has its place there: its operator wants it gone, it stays unhealthy, or
//!    the worker is drained. The worker says so in its telemetry ([`GivenBack`]), until a certificate says that the
//!    replica has left.
//! 2. A manifest that names the telemetry lists it. From that slot's certificate on the replica wants another place,
//!    elsewhere ([`Returned`](super::Returned)). A replica of which no second container may run waits for 3.
//! 3. When the notice is over the worker stops the container for good, and says [that too](GivenBack::has_stopped).
//!    With the certificate of a manifest that lists this the replica has no place any more.
//!
//! # Caveats
//! A word holds for one placement ([`GivenBack::placed`]), and is not taken back: an old message says nothing of a
//! later place on the same worker.

use core::fmt;

use serde::{Deserialize, Serialize};

use super::binding::UnixMillis;
use crate::ids::{Blake3Digest, ReplicaIndex, Slot};

/// Why a worker gives a replica back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GiveBackReason {
    /// Its operator wants it.
    Evicted,
    /// The replica stays unhealthy, however often it is started again.
    Unhealthy,
    /// The registry says that the worker is drained.
    Drained,
    /// It was stopped for a drain that is over.
    DrainEnded,
    /// What is sealed in its job cannot be used: it does not open for the worker, or is not what it has to be.
    SealedPart,
}

impl GiveBackReason {
    /// Whether the worker is no candidate for the replica for a while.
    #[must_use]
    pub const fn keeps_away(self) -> bool {
        matches!(self, Self::Evicted | Self::Unhealthy | Self::SealedPart)
    }
}

/// What a worker's operator adds, for people: short, printable text of one line.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Note(String);

/// A text is no [`Note`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a reason has at most {} bytes, in one line of printable characters", Note::MAX_BYTES)]
pub struct InvalidNote;

impl Note {
    /// Longest text.
    pub const MAX_BYTES: usize = 80;

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Note {
    type Error = InvalidNote;

    fn try_from(text: String) -> Result<Self, InvalidNote> {
        let fits = text.len() <= Self::MAX_BYTES && !text.chars().any(char::is_control);
        if fits { Ok(Self(text)) } else { Err(InvalidNote) }
    }
}

impl From<Note> for String {
    fn from(note: Note) -> Self {
        note.0
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A worker's word that it gives a replica back.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GivenBack {
    /// [`JobSpec::digest`](super::JobSpec::digest).
    pub job: Blake3Digest,
    /// Which of the job's replicas.
    pub replica: ReplicaIndex,
    /// The slot that placed it there.
    pub placed: Slot,
    /// Why.
    pub reason: GiveBackReason,
    /// When the worker stops it; `None` if it runs until it runs elsewhere.
    pub until: Option<UnixMillis>,
    /// Whether the worker has stopped it and does not start it again.
    pub has_stopped: bool,
    /// What its operator says.
    pub note: Note,
}

impl GivenBack {
    /// Most bytes of its encoding.
    pub const MAX_BYTES: usize = 32 + 3 + 10 + 1 + (1 + 10) + 1 + (1 + Note::MAX_BYTES);

    /// What lists of it are ordered by.
    #[must_use]
    pub const fn key(&self) -> (Blake3Digest, ReplicaIndex) {
        (self.job, self.replica)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::encode;

    #[test]
    fn the_longest_one_is_as_long_as_lists_count_on() {
        let longest = GivenBack {
            job: Blake3Digest([9; 32]),
            replica: ReplicaIndex(u16::MAX),
            placed: Slot(u64::MAX),
            reason: GiveBackReason::SealedPart,
            until: Some(UnixMillis(u64::MAX)),
            has_stopped: true,
            note: "x".repeat(Note::MAX_BYTES).try_into().unwrap(),
        };
        assert_eq!(encode(&longest).len(), GivenBack::MAX_BYTES);
    }

    #[test]
    fn a_reason_is_one_short_line() {
        let note = |text: &str| Note::try_from(text.to_owned());
        assert_eq!(note("the power goes at 18:00").unwrap().as_str(), "the power goes at 18:00");
        for wrong in ["two\nlines", "\u{1b}[31m", &"x".repeat(81)] {
            assert_eq!(note(wrong), Err(InvalidNote), "{wrong}");
        }
    }
}
