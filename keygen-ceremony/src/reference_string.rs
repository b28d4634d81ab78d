//! The reference string of an attempt: what each contribution is checked for, by members while they make it
//! and by outsiders in the transcript.
//!
//! Source: `reference-string.md` in `protocol-spec`. The arithmetic is in `veil-reference-string`.

use veil_protocol_spec::{
    Blake3Digest, ParticipantIndex,
    ceremony::{AbortReason, Contribution, Round},
};
use veil_reference_string::{First, Place, Powers, check_contribution};

use crate::setup::Setup;

/// What the first contribution raises has no digest.
const START: Blake3Digest = Blake3Digest([0; 32]);

/// Where one contribution stands: it raises `above`, the message before and its sender, if there is one.
#[derive(Clone, Copy)]
pub(crate) struct Link {
    pub(crate) sender: ParticipantIndex,
    pub(crate) above: Option<(ParticipantIndex, Blake3Digest)>,
}

impl Link {
    pub(crate) fn before(self) -> Blake3Digest {
        self.above.map_or(START, |(_, digest)| digest)
    }

    pub(crate) const fn place<'a>(self, setup: &'a Setup, before: &'a Blake3Digest) -> Place<'a> {
        Place { ceremony: &setup.id, attempt: setup.attempt, sender: self.sender, before }
    }

    /// Step 3: "checks the proof and the first powers at once".
    pub(crate) fn check(
        self,
        setup: &Setup,
        first: &First,
        contribution: &Contribution,
    ) -> Result<First, AbortReason> {
        let (sender, before) = (self.sender, self.before());
        if contribution.before != before {
            return Err(match self.above {
                Some((accused, _)) => {
                    let round = Round::ReferenceString;
                    AbortReason::EchoMismatch { accused, round, echoed_by: sender }
                }
                None => invalid(sender, "the first contribution raises no other"),
            });
        }
        let Contribution { powers, proof, .. } = contribution;
        let place = self.place(setup, &before);
        check_contribution(setup.string, place, first, &powers.0, &proof.0)
            .map_err(|refused| invalid(sender, refused))
    }
}

/// The powers of a contribution, each in its group.
pub(crate) fn read(
    setup: &Setup,
    sender: ParticipantIndex,
    contribution: &Contribution,
) -> Result<Powers, AbortReason> {
    Powers::read(setup.string, &contribution.powers.0).map_err(|refused| invalid(sender, refused))
}

/// Step 5: "structure and subgroups are checked once, of the last contribution, and one by one only if that
/// fails": then the first that fails is its sender's fault.
pub(crate) fn check_last(
    setup: &Setup,
    contributions: &[(ParticipantIndex, &Contribution)],
) -> Result<Powers, AbortReason> {
    let check = |(sender, contribution): &(ParticipantIndex, &Contribution)| {
        let powers = read(setup, *sender, contribution)?;
        powers.check().map_err(|refused| invalid(*sender, refused))?;
        Ok(powers)
    };
    let (last, before) = contributions
        .split_last()
        .ok_or_else(|| AbortReason::Local { detail: "nobody contributed".to_owned() })?;
    check(last).map_err(|last| before.iter().find_map(|one| check(one).err()).unwrap_or(last))
}

fn invalid(accused: ParticipantIndex, detail: impl ToString) -> AbortReason {
    let (round, detail) = (Round::ReferenceString, detail.to_string());
    AbortReason::InvalidMessage { accused, round, detail }
}
