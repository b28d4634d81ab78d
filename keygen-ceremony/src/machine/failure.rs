//! Why a step of the ceremony ends the attempt for this member.

use veil_protocol_spec::ceremony::{AbortReason, Round};

use super::interface::{ResumeError, Stage};

/// Why a step was not completed.
pub(super) enum Failure {
    /// The attempt can make no key.
    Abort(AbortReason),
    /// A message came out differently than before the restart, and was not sent.
    Diverged(Round),
}

impl Failure {
    /// Nobody's fault but this member's.
    pub(super) fn local(error: impl ToString) -> Self {
        Self::Abort(AbortReason::Local { detail: error.to_string() })
    }

    /// What the member's report says.
    pub(super) fn reason(self) -> AbortReason {
        match self {
            Self::Abort(reason) => reason,
            Self::Diverged(round) => {
                AbortReason::Local { detail: ResumeError::Diverged(round).to_string() }
            }
        }
    }

    /// The failure of a stage.
    pub(super) const fn of(self, stage: Stage) -> Failed {
        Failed { stage, failure: self }
    }
}

impl From<AbortReason> for Failure {
    fn from(reason: AbortReason) -> Self {
        Self::Abort(reason)
    }
}

/// A failure and the stage in which it came.
pub(super) struct Failed {
    pub(super) stage: Stage,
    pub(super) failure: Failure,
}
