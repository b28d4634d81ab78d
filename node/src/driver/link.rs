//! How bytes get to the other participants.

use std::{future::Future, sync::Arc};

use veil_protocol_spec::ParticipantIndex;

/// Bytes from a participant that the transport has authenticated.
pub type Inbound = (ParticipantIndex, Vec<u8>);

/// Carries bytes to participants; a cheap handle. What the others send comes through the bounded
/// channel that belongs to it.
pub trait Link: Clone + Send + Sync + 'static {
    /// Completes when the other side has taken the bytes, which is the flow control.
    fn send(
        &self,
        to: ParticipantIndex,
        bytes: Arc<[u8]>,
    ) -> impl Future<Output = Result<(), LinkError>> + Send;
}

/// Why bytes did not arrive, or may not have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// Not connected, no answer in time, the connection broke: worth another try.
    #[error("participant {to} cannot be reached: {detail}")]
    Unreachable {
        /// Whom.
        to: ParticipantIndex,
        /// What the transport said.
        detail: String,
    },
    /// The other side, or this one, refuses such a message: no use in trying again.
    #[error("the message to participant {to} was refused: {detail}")]
    Refused {
        /// Whom.
        to: ParticipantIndex,
        /// What the transport said.
        detail: String,
    },
}

impl LinkError {
    /// Whether another try may help.
    #[must_use]
    pub const fn is_transient(&self) -> bool {
        matches!(self, Self::Unreachable { .. })
    }
}
