//! What a signed message belongs to.

use serde::{Deserialize, Serialize};

use super::round::Round;
use veil_protocol_spec_base::ids::{Attempt, CeremonyId, ParticipantIndex};

/// What a signed message belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Header {
    /// The ceremony that it belongs to.
    pub ceremony: CeremonyId,
    /// The attempt that it belongs to.
    pub attempt: Attempt,
    /// The round that it is sent in.
    pub round: Round,
    /// The participant that signed it.
    pub sender: ParticipantIndex,
    /// The participant that it is for; `None` for a broadcast. Only deals have one.
    pub recipient: Option<ParticipantIndex>,
}
