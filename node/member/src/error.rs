//! Why a slot does not go on.

use veil_committee::decryption::AuthoriseError;
use veil_node_core::evaluation::EvaluationError;
use veil_node_driver::Stopped;
use veil_node_storage::ledger::LedgerError;
use veil_protocol_spec::scheduling::StateError;
use veil_scheduler::SquashError;
use veil_scheduler_plan::outcome::DecodeError;

/// Why a slot does not go on; it is tried again.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SlotError {
    #[error(transparent)]
    Stopped(#[from] Stopped),
    #[error("agreement cannot start: {0}")]
    Start(String),
    #[error(transparent)]
    Evaluation(#[from] EvaluationError),
    #[error(transparent)]
    Squash(#[from] SquashError),
    #[error("decryption is refused: {0}")]
    Refused(#[from] AuthoriseError),
    #[error(transparent)]
    Decode(#[from] DecodeError),
    #[error(transparent)]
    State(#[from] StateError),
    #[error("signing: {0}")]
    Signing(#[from] veil_committee::frost::SigningError),
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    #[error("a computation ended early")]
    Interrupted,
}

impl From<tokio::task::JoinError> for SlotError {
    fn from(_: tokio::task::JoinError) -> Self {
        Self::Interrupted
    }
}
