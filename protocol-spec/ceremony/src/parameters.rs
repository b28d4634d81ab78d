//! What a ceremony is for.

use serde::{Deserialize, Serialize};

use veil_protocol_spec_base::{
    codec::Wire,
    committee::Committee,
    domain,
    ids::{Blake3Digest, CeremonyId, Epoch, ParticipantIndex, PublicIdentity},
};

/// What the members of a ceremony agreed on beforehand. Its digest is the [`CeremonyId`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CeremonyParameters {
    /// Size and thresholds.
    pub committee: Committee,
    /// Name of the FHE parameter set, for people.
    pub parameters: String,
    /// Digest of the FHE parameter set.
    pub parameters_digest: Blake3Digest,
    /// Identity of participant j at position j-1.
    pub roster: Vec<PublicIdentity>,
    /// The epoch that the key is for.
    pub epoch: Epoch,
    /// Digest of what else the ceremony belongs to (chain, contract, cluster); or random.
    pub context: [u8; 32],
}

/// Why a list of identities cannot be a roster.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "each message says what its fields are")]
pub enum RosterError {
    /// There are not n of them.
    #[error("a ceremony of {committee} needs {} identities, not {given}", committee.n())]
    Length { committee: Committee, given: usize },
    /// Two participants have one identity.
    #[error("participants {0} and {1} have the same identity")]
    Duplicate(ParticipantIndex, ParticipantIndex),
}

impl CeremonyParameters {
    /// # Errors
    /// [`RosterError`] unless there are n distinct identities.
    pub fn validate(&self) -> Result<(), RosterError> {
        if self.roster.len() != self.committee.n() {
            return Err(RosterError::Length {
                committee: self.committee,
                given: self.roster.len(),
            });
        }
        for (i, a) in self.committee.participants().zip(&self.roster) {
            for (j, b) in self.committee.participants().zip(&self.roster) {
                if i < j && a == b {
                    return Err(RosterError::Duplicate(i, j));
                }
            }
        }
        Ok(())
    }

    /// The ceremony's id.
    #[must_use]
    pub fn id(&self) -> CeremonyId {
        CeremonyId(domain::hash_parts(domain::CEREMONY_ID, &[&self.to_wire()]))
    }

    /// Identity of a participant; `None` outside the committee.
    #[must_use]
    pub fn identity(&self, participant: ParticipantIndex) -> Option<&PublicIdentity> {
        self.roster.get(participant.position())
    }
}

impl Wire for CeremonyParameters {
    const NAME: &'static str = "CeremonyParameters";
    const MAX_BYTES: usize = 4096;
}
