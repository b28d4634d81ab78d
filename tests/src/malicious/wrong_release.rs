//! A member that gives its share of a sealed part to the wrong worker, at the wrong time, wrongly, or not at all.

use serde::{Deserialize, Serialize};
use veil_committee_machine::Millis;
use veil_committee_sealed::{
    channel,
    context::Context,
    member::{Known, SealingKey},
};
use veil_protocol_spec::{
    ParticipantIndex, PeerIdHash,
    codec::Bytes,
    scheduling::{ClusterState, JobSpec},
    sealing::{ShareAnswer, ShareRefusal, SignedShareRequest},
};

/// How a member deviates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WrongRelease {
    /// It answers nobody.
    Silent,
    /// It answers so much later.
    Late(Millis),
    /// It answers everybody, whatever is certified.
    Early,
    /// It answers with noise.
    Noise,
    /// It answers with a share of another polynomial, encrypted as it should be.
    OffPolynomial,
    /// It says that its share was dealt wrongly.
    SaysDealtWrongly,
    /// It says that the part is of another epoch.
    SaysElsewhere,
}

impl WrongRelease {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Silent,
        Self::Late(9_000),
        Self::Early,
        Self::Noise,
        Self::OffPolynomial,
        Self::SaysDealtWrongly,
        Self::SaysElsewhere,
    ];

    /// How much later than others it answers.
    #[must_use]
    pub const fn delay(self) -> Millis {
        match self {
            Self::Late(delay) => delay,
            _ => 0,
        }
    }

    /// What leaves in place of the right answer. `forged` makes a state that gives a worker the replica that it asks for.
    #[must_use]
    pub fn instead(
        self,
        (key, member): (&SealingKey, ParticipantIndex),
        asked: &SignedShareRequest,
        known: Known<'_>,
        forged: impl Fn(PeerIdHash) -> ClusterState,
        randomness: &[u8; 32],
    ) -> Option<ShareAnswer> {
        let released = |share| Some(ShareAnswer::Released { member, share: Bytes(share) });
        match self {
            Self::Silent => None,
            Self::Late(_) => Some(key.answer(asked, known, randomness)),
            Self::Early => {
                let state = forged(PeerIdHash::of(&asked.worker));
                Some(key.answer(asked, Known { state: &state, ..known }, randomness))
            }
            Self::Noise => released(vec![0x5a; 1_200]),
            Self::OffPolynomial => {
                released(off_polynomial(known.body?, asked, member, randomness)?)
            }
            Self::SaysDealtWrongly => Some(ShareAnswer::Refused(ShareRefusal::DealtWrongly)),
            Self::SaysElsewhere => Some(ShareAnswer::Refused(ShareRefusal::SealedElsewhere)),
        }
    }
}

fn off_polynomial(
    job: &JobSpec,
    asked: &SignedShareRequest,
    member: ParticipantIndex,
    randomness: &[u8; 32],
) -> Option<Vec<u8>> {
    let context = Context::of(job, job.sealed_part()?, &job.operator);
    let info = context.released(&asked.request, member);
    // Scalars below the order of the group.
    let mut scalars = [member.get(); 64];
    (scalars[0], scalars[32]) = (0, 0);
    channel::seal(&asked.request.key.0, &scalars, &info, context.as_bytes(), randomness).ok()
}
