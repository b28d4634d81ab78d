//! Veil's types as Malachite wants them, and the conversions between the two.

use core::fmt;

use arc_malachitebft_core_types as bft;
use bft::{NilOrVal, Round, VoteType};
use veil_protocol_spec::{
    Blake3Digest, Committee, ParticipantIndex, PublicIdentity, Signature, Slot,
    agreement::{self, Instance, Subject},
};

/// Ties the types together; proposers take turns as [`agreement::proposer`] says.
#[derive(Clone, Debug)]
pub(super) struct Ctx {
    pub(super) committee: Committee,
}

/// A member as Malachite's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Member(pub(super) ParticipantIndex);

/// An instance as Malachite's height: twice the slot, and one more for the end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Height(pub(super) Instance);

/// A value's digest, as Malachite's value and as that value's id: the value itself is kept beside
/// the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ValueDigest(pub(super) Blake3Digest);

macro_rules! display_inner {
    ($($name:ty),*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    )*};
}
display_inner!(Member, Height, ValueDigest);

impl bft::Address for Member {}

impl Height {
    const fn of(number: u64) -> Self {
        let subject = if number.is_multiple_of(2) { Subject::Manifest } else { Subject::End };
        Self(Instance { slot: Slot(number / 2), subject })
    }
}

impl bft::Height for Height {
    const ZERO: Self = Self::of(0);
    const INITIAL: Self = Self::of(2);

    fn increment_by(&self, n: u64) -> Self {
        Self::of(self.as_u64().saturating_add(n))
    }

    fn decrement_by(&self, n: u64) -> Option<Self> {
        self.as_u64().checked_sub(n).map(Self::of)
    }

    fn as_u64(&self) -> u64 {
        let Instance { slot, subject } = self.0;
        slot.0.saturating_mul(2).saturating_add(subject as u64)
    }
}

impl bft::Value for ValueDigest {
    type Id = Self;

    fn id(&self) -> Self {
        *self
    }
}

/// A vote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ballot {
    pub(super) height: Height,
    pub(super) round: Round,
    pub(super) kind: VoteType,
    pub(super) value: NilOrVal<ValueDigest>,
    pub(super) voter: Member,
}

impl bft::Vote<Ctx> for Ballot {
    fn height(&self) -> Height {
        self.height
    }

    fn round(&self) -> Round {
        self.round
    }

    fn value(&self) -> &NilOrVal<ValueDigest> {
        &self.value
    }

    fn take_value(self) -> NilOrVal<ValueDigest> {
        self.value
    }

    fn vote_type(&self) -> VoteType {
        self.kind
    }

    fn validator_address(&self) -> &Member {
        &self.voter
    }

    fn extension(&self) -> Option<&bft::SignedExtension<Ctx>> {
        None
    }

    fn take_extension(&mut self) -> Option<bft::SignedExtension<Ctx>> {
        None
    }

    /// Votes have no extensions here: the engine runs with them disabled.
    fn extend(self, _: bft::SignedExtension<Ctx>) -> Self {
        self
    }
}

/// A proposal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Proposed {
    pub(super) height: Height,
    pub(super) round: Round,
    pub(super) value: ValueDigest,
    pub(super) locked_in: Round,
    pub(super) proposer: Member,
}

impl bft::Proposal<Ctx> for Proposed {
    fn height(&self) -> Height {
        self.height
    }

    fn round(&self) -> Round {
        self.round
    }

    fn value(&self) -> &ValueDigest {
        &self.value
    }

    fn take_value(self) -> ValueDigest {
        self.value
    }

    fn pol_round(&self) -> Round {
        self.locked_in
    }

    fn validator_address(&self) -> &Member {
        &self.proposer
    }
}

/// Values are not sent in parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum NoPart {}

impl bft::ProposalPart<Ctx> for NoPart {
    fn is_first(&self) -> bool {
        match *self {}
    }

    fn is_last(&self) -> bool {
        match *self {}
    }
}

/// A member with its key; every member has one vote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Voter {
    pub(super) member: Member,
    pub(super) identity: PublicIdentity,
}

impl bft::Validator<Ctx> for Voter {
    fn address(&self) -> &Member {
        &self.member
    }

    fn public_key(&self) -> &PublicIdentity {
        &self.identity
    }

    fn voting_power(&self) -> u64 {
        1
    }
}

/// All members in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Voters(pub(super) Vec<Voter>);

impl bft::ValidatorSet<Ctx> for Voters {
    fn count(&self) -> usize {
        self.0.len()
    }

    fn total_voting_power(&self) -> u64 {
        self.0.len() as u64
    }

    fn get_by_address(&self, member: &Member) -> Option<&Voter> {
        self.0.get(member.0.position())
    }

    fn get_by_index(&self, index: usize) -> Option<&Voter> {
        self.0.get(index)
    }
}

/// The members' identities. The engine never sees a secret key, and encodes nothing itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Identities;

/// Bytes of the wrong length.
#[derive(Debug)]
pub(super) struct WrongLength;

impl fmt::Display for WrongLength {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("wrong length")
    }
}

impl bft::SigningScheme for Identities {
    type DecodingError = WrongLength;
    type Signature = Signature;
    type PublicKey = PublicIdentity;
    type PrivateKey = ();

    fn decode_signature(bytes: &[u8]) -> Result<Signature, WrongLength> {
        bytes.try_into().map(Signature).map_err(|_| WrongLength)
    }

    fn encode_signature(signature: &Signature) -> Vec<u8> {
        signature.0.to_vec()
    }

    fn decode_public_key(bytes: &[u8]) -> Result<PublicIdentity, WrongLength> {
        bytes.try_into().map(PublicIdentity).map_err(|_| WrongLength)
    }

    fn encode_public_key(key: &PublicIdentity) -> Vec<u8> {
        key.0.to_vec()
    }
}

impl bft::Context for Ctx {
    type Address = Member;
    type Height = Height;
    type ProposalPart = NoPart;
    type Proposal = Proposed;
    type Validator = Voter;
    type ValidatorSet = Voters;
    type Timeouts = bft::LinearTimeouts;
    type Value = ValueDigest;
    type Vote = Ballot;
    type Extension = ();
    type SigningScheme = Identities;

    fn select_proposer<'a>(&self, voters: &'a Voters, height: Height, round: Round) -> &'a Voter {
        let round = round.as_u32().unwrap_or_default();
        let proposer = agreement::proposer(self.committee, height.0, round);
        &voters.0[proposer.position()]
    }

    fn new_proposal(
        &self,
        height: Height,
        round: Round,
        value: ValueDigest,
        locked_in: Round,
        proposer: Member,
    ) -> Proposed {
        Proposed { height, round, value, locked_in, proposer }
    }

    fn new_prevote(
        &self,
        height: Height,
        round: Round,
        value: NilOrVal<ValueDigest>,
        voter: Member,
    ) -> Ballot {
        Ballot { height, round, kind: VoteType::Prevote, value, voter }
    }

    fn new_precommit(
        &self,
        height: Height,
        round: Round,
        value: NilOrVal<ValueDigest>,
        voter: Member,
    ) -> Ballot {
        Ballot { height, round, kind: VoteType::Precommit, value, voter }
    }
}
