//! What a member is told at construction: who takes part, under which parameters, how long it waits.

use veil_committee_machine::Millis;
use veil_committee_sealed::channel::ChannelError;
use veil_protocol_spec::{
    Attempt, Blake3Digest, CeremonyId, Committee, ParticipantIndex, Wire,
    ceremony::{CeremonyParameters, DealPlaintext, RosterError, Stream},
    identity::SecretIdentity,
};
use veil_reference_string::Size;
use zeroize::Zeroizing;

use crate::{
    channel::seal,
    chunks::ChunkPlan,
    contributions::{Context, groups_of},
    keyset::{Layout, ParameterSet},
    seed::CeremonySeed,
};

/// How long a member waits. Virtual or real, the round time must cover what the slowest member
/// computes within a round: its whole share stream before `bits-root` and `bodies-root`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// For the messages of a round, or for progress within a stream.
    pub round: Millis,
    /// Before it asks again for what is missing.
    pub retry: Millis,
}

/// Why a message is left aside. Nobody is to blame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Skip {
    /// Seen before.
    Duplicate,
    /// Of another ceremony.
    OtherCeremony,
    /// Of an earlier or later attempt.
    OtherAttempt,
    /// Meant for another participant.
    NotForMe,
    /// A chunk that this member does not ask for now.
    NotWanted,
    /// A request for something that this member does not have.
    NotHere,
    /// The attempt has ended for this member.
    Done,
}

/// One participant's view of one attempt, all public.
#[derive(Clone, Debug)]
pub struct Setup {
    pub(crate) parameters: CeremonyParameters,
    pub(crate) id: CeremonyId,
    pub(crate) attempt: Attempt,
    pub(crate) me: ParticipantIndex,
    pub(crate) params: ParameterSet,
    pub(crate) layout: Layout,
    pub(crate) plan: ChunkPlan,
    pub(crate) string: Size,
    pub(crate) timing: Timing,
}

/// Why a member cannot take part in an attempt.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SetupError {
    /// The roster does not have n distinct identities.
    #[error(transparent)]
    Roster(#[from] RosterError),
    /// The ceremony was called for another parameter set.
    #[error(
        "the ceremony is for parameters {called} ({digest}), which are not those of this build under that name; all members must run the same version"
    )]
    Parameters {
        /// Name of the parameter set in the ceremony's parameters.
        called: String,
        /// Digest of the parameter set in the ceremony's parameters.
        digest: Blake3Digest,
    },
    /// This identity is not on the roster.
    #[error("this identity is not on the ceremony's roster")]
    NotAMember,
}

impl Setup {
    /// Checks and completes what the members agreed on.
    ///
    /// # Errors
    /// [`SetupError`].
    pub fn new(
        parameters: CeremonyParameters,
        params: ParameterSet,
        attempt: Attempt,
        identity: &SecretIdentity,
        timing: Timing,
    ) -> Result<Self, SetupError> {
        let public = identity.public();
        let me = parameters
            .committee
            .participants()
            .zip(&parameters.roster)
            .find(|(_, identity)| **identity == public)
            .map(|(j, _)| j)
            .ok_or(SetupError::NotAMember)?;
        Self::for_participant(parameters, params, attempt, me, timing)
    }

    pub(crate) fn for_participant(
        parameters: CeremonyParameters,
        params: ParameterSet,
        attempt: Attempt,
        me: ParticipantIndex,
        timing: Timing,
    ) -> Result<Self, SetupError> {
        parameters.validate()?;
        if parameters.parameters_digest != params.digest() {
            return Err(SetupError::Parameters {
                called: parameters.parameters,
                digest: parameters.parameters_digest,
            });
        }
        let layout = Layout::of(&params);
        let plan = ChunkPlan::new(parameters.committee, &params, &layout);
        let string = params.reference_string();
        let id = parameters.id();
        Ok(Self { id, parameters, attempt, me, params, layout, plan, string, timing })
    }

    /// Size and thresholds of the committee.
    #[must_use]
    pub const fn committee(&self) -> Committee {
        self.parameters.committee
    }

    /// The participant whose setup this is.
    #[must_use]
    pub const fn participant(&self) -> ParticipantIndex {
        self.me
    }

    /// What the members agreed on.
    #[must_use]
    pub const fn parameters(&self) -> &CeremonyParameters {
        &self.parameters
    }

    /// The FHE parameter set.
    #[must_use]
    pub const fn parameter_set(&self) -> &ParameterSet {
        &self.params
    }

    /// The attempt that the member takes part in.
    #[must_use]
    pub const fn attempt(&self) -> Attempt {
        self.attempt
    }

    /// How streams are cut into chunks.
    #[must_use]
    pub const fn plan(&self) -> &ChunkPlan {
        &self.plan
    }

    /// All participants but this one, ascending.
    pub fn others(&self) -> impl Iterator<Item = ParticipantIndex> + use<> {
        let me = self.me;
        self.committee().participants().filter(move |j| *j != me)
    }

    pub(crate) const fn context(&self) -> Context {
        Context { ceremony: self.id, attempt: self.attempt }
    }

    pub(crate) fn chunks(&self, stream: Stream) -> u32 {
        self.plan.of(stream).len() as u32
    }

    pub(crate) fn check(&self, ceremony: &CeremonyId, attempt: Attempt) -> Result<(), Skip> {
        if *ceremony != self.id {
            return Err(Skip::OtherCeremony);
        }
        if attempt != self.attempt {
            return Err(Skip::OtherAttempt);
        }
        Ok(())
    }

    pub(crate) fn public_seed_part(&self, seed: &CeremonySeed) -> [u8; 32] {
        seed.derive(&self.id, self.attempt, "public seed", b"")
    }

    /// What binds a deal to its place: ceremony, attempt, sender, recipient.
    #[must_use]
    pub fn deal_data(&self, sender: ParticipantIndex, recipient: ParticipantIndex) -> Vec<u8> {
        let mut data = self.id.0.to_vec();
        data.extend_from_slice(&self.attempt.0.to_le_bytes());
        data.extend_from_slice(&[sender.get(), recipient.get()]);
        data
    }

    /// The deal for one recipient, sealed: contributions to all key groups that contain both, and the
    /// recipient's FROST round-2 package.
    ///
    /// # Errors
    /// [`ChannelError::PublicKey`] if `channel_key` is not an encapsulation key.
    pub fn seal_deal(
        &self,
        seed: &CeremonySeed,
        recipient: ParticipantIndex,
        channel_key: &[u8],
        frost_round2: Vec<u8>,
    ) -> Result<Vec<u8>, ChannelError> {
        let context = self.context();
        let contributions = groups_of(self.committee(), self.me)
            .into_iter()
            .filter(|group| group.members.contains(recipient))
            .map(|group| *context.contribution(seed, group))
            .collect();
        let plaintext = Zeroizing::new(DealPlaintext { contributions, frost_round2 }.to_wire());
        let randomness = Zeroizing::new(seed.sealing(&self.id, self.attempt, recipient));
        seal(channel_key, &plaintext, &self.deal_data(self.me, recipient), &randomness)
    }
}
