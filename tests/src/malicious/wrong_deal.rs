//! An operator that deals the key of a sealed part wrongly, in envelopes that open.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use veil_committee_sealed::{channel, context::Context, member::SealingKey};
use veil_protocol_spec::{
    ParticipantIndex,
    codec::Bytes,
    scheduling::{JobSpec, SealedPart, Submission},
    sealing::SealingRoster,
};

/// What is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WrongDeal {
    /// These members get a share that is on another polynomial than the one committed to.
    OffPolynomial(BTreeSet<ParticipantIndex>),
    /// These members get something that is no share.
    Garbage(BTreeSet<ParticipantIndex>),
    /// All shares are right, and the key that they give does not open the ciphertext.
    OtherCiphertext,
}

impl WrongDeal {
    /// Whether a member's share is wrong.
    #[must_use]
    pub fn is_wrong_for(&self, member: ParticipantIndex) -> bool {
        match self {
            Self::OffPolynomial(members) | Self::Garbage(members) => members.contains(&member),
            Self::OtherCiphertext => false,
        }
    }

    /// Whether the ciphertext is the one that the key opens.
    #[must_use]
    pub const fn is_right_ciphertext(&self) -> bool {
        !matches!(self, Self::OtherCiphertext)
    }

    /// Deals wrongly what was sealed right in `job`. `members` tell what was dealt to them, which the dealer knows, too.
    ///
    /// # Panics
    /// If the part is not sealed to this roster: a mistake in a test.
    pub fn deal(
        &self,
        job: &JobSpec,
        part: &mut SealedPart,
        roster: &SealingRoster,
        members: &[SealingKey],
    ) {
        let listed = Submission {
            position: 0,
            job: job.digest(),
            operator: job.operator,
            leak_bits: 0,
            cancelled: false,
        };
        if !self.is_right_ciphertext() {
            part.ciphertext.0[0] ^= 1;
        }
        let context = Context::of(job, part, &job.operator);
        for (member, key) in roster.keys() {
            let bytes = match self {
                // Scalars below the order of the group.
                Self::OffPolynomial(_) if self.is_wrong_for(member) => {
                    let mut scalars = [member.get(); 64];
                    (scalars[0], scalars[32]) = (0, 0);
                    scalars.to_vec()
                }
                Self::Garbage(_) if self.is_wrong_for(member) => vec![0xff; 64],
                Self::OtherCiphertext => {
                    let share = members[member.position()].deal(job, &listed);
                    share.expect("it was dealt right").to_bytes().to_vec()
                }
                _ => continue,
            };
            let info = context.dealt(&part.ciphertext.0, member);
            let dealt = channel::seal(key, &bytes, &info, context.as_bytes(), &[4; 32]);
            let place = part.shares.iter_mut().find(|share| share.member == member);
            place.expect("it is sealed to this roster").share =
                Bytes(dealt.expect("the roster's keys are keys"));
        }
    }
}
