//! What a member holds at each stage: its secrets are in the state and nowhere else, so a state that
//! is left, by the next step, by an abort or by a drop, erases them.

use std::{collections::BTreeMap, sync::Arc};

use tfhe::xof_key_set::CompressedXofKeySet;
use veil_committee::{
    frost::{
        EvmSuite,
        dkg::{Round1Secret, Round2Secret},
        keys::GroupKeyShare,
    },
    key_share::KeyShare,
    prf::SetKey,
};
use veil_committee_sealed::channel::ChannelKey;
use veil_protocol_spec::{
    Blake3Digest, ParticipantIndex,
    ceremony::{Round, Stream},
};
use veil_reference_string::First;
use zeroize::Zeroizing;

use super::interface::Stage;
use crate::{
    contributions::{KeyGroup, SplitKeys},
    engine::{BitStream, BodyOpener, BodyStream},
    keyset::Bodies,
    seed::CeremonySeed,
    shares::keys::MemberKeys,
};

/// From step 1 to the deals.
pub(super) struct Committed {
    pub(super) seed: CeremonySeed,
    pub(super) channel: ChannelKey,
    pub(super) frost: Round1Secret<EvmSuite>,
}

/// From step 3, until the others' deals are opened.
pub(super) struct Dealt {
    pub(super) seed: CeremonySeed,
    pub(super) channel: ChannelKey,
    pub(super) frost: Round2Secret<EvmSuite>,
}

/// From step 4: r_A and k_G of the groups that contain this member.
pub(super) struct Keyed {
    pub(super) keys: Vec<(KeyGroup, SetKey)>,
    pub(super) frost: GroupKeyShare<EvmSuite>,
    /// What this member's exponent of the reference string is made of, until it has contributed.
    pub(super) string: Option<Zeroizing<[u8; 32]>>,
}

/// How far the reference string is.
pub(super) struct Raised {
    /// Whose contribution comes next.
    pub(super) next: ParticipantIndex,
    /// The first powers that it raises.
    pub(super) first: First,
}

/// Steps 6 and 7.
pub(super) struct BitSecrets {
    pub(super) stream: Box<dyn BitStream>,
    pub(super) keys: SplitKeys,
    pub(super) frost: GroupKeyShare<EvmSuite>,
}

/// Step 8.
pub(super) struct BodySecrets {
    pub(super) stream: Box<dyn BodyStream>,
    pub(super) dec: MemberKeys,
    pub(super) frost: GroupKeyShare<EvmSuite>,
}

/// Steps 9 and 10.
pub(super) struct OpenerSecrets {
    pub(super) opener: Box<dyn BodyOpener>,
    pub(super) dec: MemberKeys,
    pub(super) frost: GroupKeyShare<EvmSuite>,
}

/// Step 11: the new key.
pub(super) struct NewKey {
    pub(super) key_set: Arc<CompressedXofKeySet>,
    pub(super) key_share: Arc<KeyShare>,
}

/// After FINISH. What a restart does not find in its records is missing.
#[derive(Default)]
pub(super) struct Finished {
    pub(super) key_set: Option<Arc<CompressedXofKeySet>>,
    pub(super) key_share: Option<Arc<KeyShare>>,
}

impl From<NewKey> for Finished {
    fn from(key: NewKey) -> Self {
        Self { key_set: Some(key.key_set), key_share: Some(key.key_share) }
    }
}

/// Digests of the chunks of this member's stream that are made.
#[derive(Default)]
pub(super) struct Produced(pub(super) Vec<Blake3Digest>);

impl Produced {
    /// The next chunk.
    pub(super) fn next(&self) -> u32 {
        self.0.len() as u32
    }
}

/// The chunks of the other members' streams that this member asks for.
#[derive(Default)]
pub(super) struct Window {
    /// The chunk that is opened next.
    pub(super) next: u32,
    /// Chunks from here on are not asked for yet.
    pub(super) requested: u32,
    /// Chunks that have arrived, by index and sender.
    arrived: BTreeMap<u32, BTreeMap<ParticipantIndex, Vec<u8>>>,
}

impl Window {
    pub(super) fn has(&self, index: u32, sender: ParticipantIndex) -> bool {
        self.arrived.get(&index).is_some_and(|chunks| chunks.contains_key(&sender))
    }

    pub(super) fn insert(&mut self, index: u32, sender: ParticipantIndex, bytes: Vec<u8>) {
        self.arrived.entry(index).or_default().insert(sender, bytes);
    }

    /// Whether this member asks for a chunk.
    pub(super) fn wants(&self, index: u32) -> bool {
        (self.next..self.requested).contains(&index)
    }

    /// Senders whose next chunk is here.
    pub(super) fn arrived(&self) -> usize {
        self.arrived.get(&self.next).map_or(0, BTreeMap::len)
    }

    /// Takes the next chunk of everybody, and moves on.
    pub(super) fn take_next(&mut self) -> BTreeMap<ParticipantIndex, Vec<u8>> {
        let chunks = self.arrived.remove(&self.next).unwrap_or_default();
        self.next += 1;
        chunks
    }
}

/// A [`Stage`] with what belongs to it.
pub(super) enum State {
    Commit(Box<Committed>),
    CommitEcho(Box<Committed>),
    Deal(Box<Dealt>),
    Confirm(Box<Keyed>),
    ConfirmEcho(Box<Keyed>),
    Raise(Box<Raised>, Box<Keyed>),
    ReferenceStringEcho(Box<Keyed>),
    CheckReferenceString(Box<Keyed>),
    ProduceBits(Produced, Box<BitSecrets>),
    BitsRoot(Box<BitSecrets>),
    BitsRootEcho(Box<BitSecrets>),
    OpenBits(Window, Box<BitSecrets>),
    ProduceBodies(Produced, Box<BodySecrets>),
    BodiesRoot(Box<OpenerSecrets>),
    BodiesRootEcho(Box<OpenerSecrets>),
    OpenBodies(Window, Bodies, Box<OpenerSecrets>),
    Assemble(Bodies, Box<OpenerSecrets>),
    Prove(NewKey),
    Finish(Finished),
    AwaitCommitPoint(Finished),
    Completed(Finished),
    /// Holds nothing; also what a step leaves behind that takes the state over.
    Aborted,
}

impl State {
    pub(super) fn stage(&self) -> Stage {
        match self {
            Self::Commit(_) => Stage::Collect(Round::Commit),
            Self::CommitEcho(_) => Stage::Collect(Round::CommitEcho),
            Self::Deal(_) => Stage::Collect(Round::Deal),
            Self::Confirm(_) => Stage::Collect(Round::Confirm),
            Self::ConfirmEcho(_) => Stage::Collect(Round::ConfirmEcho),
            Self::Raise(raised, _) => Stage::Raise(raised.next),
            Self::ReferenceStringEcho(_) => Stage::Collect(Round::ReferenceStringEcho),
            Self::CheckReferenceString(_) => Stage::CheckReferenceString,
            Self::ProduceBits(produced, _) => Stage::Produce(Stream::Bits, produced.next()),
            Self::BitsRoot(_) => Stage::Collect(Round::BitsRoot),
            Self::BitsRootEcho(_) => Stage::Collect(Round::BitsRootEcho),
            Self::OpenBits(window, _) => Stage::Open(Stream::Bits, window.next),
            Self::ProduceBodies(produced, _) => Stage::Produce(Stream::Bodies, produced.next()),
            Self::BodiesRoot(_) => Stage::Collect(Round::BodiesRoot),
            Self::BodiesRootEcho(_) => Stage::Collect(Round::BodiesRootEcho),
            Self::OpenBodies(window, ..) => Stage::Open(Stream::Bodies, window.next),
            Self::Assemble(..) => Stage::Assemble,
            Self::Prove(_) => Stage::Collect(Round::Prove),
            Self::Finish(_) => Stage::Collect(Round::Finish),
            Self::AwaitCommitPoint(_) => Stage::AwaitCommitPoint,
            Self::Completed(_) => Stage::Completed,
            Self::Aborted => Stage::Aborted,
        }
    }

    /// The chunks that are asked for, with their stream.
    pub(super) const fn window(&self) -> Option<(Stream, &Window)> {
        match self {
            Self::OpenBits(window, _) => Some((Stream::Bits, window)),
            Self::OpenBodies(window, ..) => Some((Stream::Bodies, window)),
            _ => None,
        }
    }

    pub(super) const fn window_mut(&mut self) -> Option<(Stream, &mut Window)> {
        match self {
            Self::OpenBits(window, _) => Some((Stream::Bits, window)),
            Self::OpenBodies(window, ..) => Some((Stream::Bodies, window)),
            _ => None,
        }
    }

    pub(super) const fn key_share(&self) -> Option<&Arc<KeyShare>> {
        match self {
            Self::Prove(key) => Some(&key.key_share),
            Self::Finish(key) | Self::AwaitCommitPoint(key) | Self::Completed(key) => {
                key.key_share.as_ref()
            }
            _ => None,
        }
    }

    pub(super) const fn key_set(&self) -> Option<&Arc<CompressedXofKeySet>> {
        match self {
            Self::Prove(key) => Some(&key.key_set),
            Self::Finish(key) | Self::AwaitCommitPoint(key) | Self::Completed(key) => {
                key.key_set.as_ref()
            }
            _ => None,
        }
    }
}
