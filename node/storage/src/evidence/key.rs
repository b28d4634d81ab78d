//! Keys of the evidence store: in the order of kind, culprit, epoch, place.

use veil_protocol_spec::{
    Blake3Digest, Epoch, ParticipantIndex, PeerIdHash, Slot, decryption::RequestId,
    evidence::EvidenceKind,
};

use super::verdict::{Culprit, Place, Verdict};

/// Kind, what the culprit is, who it is.
const CULPRIT_BYTES: usize = 1 + 1 + 32;
/// And epoch, what the place is, which.
const KEY_BYTES: usize = CULPRIT_BYTES + 8 + 1 + 32;

pub(super) struct EvidenceKey([u8; KEY_BYTES]);

impl EvidenceKey {
    pub(super) fn of(verdict: &Verdict) -> Self {
        let mut bytes = [0; KEY_BYTES];
        bytes[0] = verdict.kind as u8;
        let (culprit, rest) = bytes[1..].split_at_mut(CULPRIT_BYTES - 1);
        match verdict.culprit {
            Culprit::Group => {}
            Culprit::Member(member) => (culprit[0], culprit[1]) = (1, member.get()),
            Culprit::Node(peer) => {
                culprit[0] = 2;
                culprit[1..].copy_from_slice(&peer.0);
            }
        }
        let (epoch, place) = rest.split_at_mut(8);
        epoch.copy_from_slice(&verdict.epoch.0.to_be_bytes());
        match verdict.place {
            Place::Slot(slot) => place[1..9].copy_from_slice(&slot.0.to_be_bytes()),
            Place::Request(request) => {
                place[0] = 1;
                place[1..].copy_from_slice(&request.0.0);
            }
        }
        Self(bytes)
    }

    pub(super) fn parse(bytes: &[u8]) -> Option<Verdict> {
        let bytes: &[u8; KEY_BYTES] = bytes.try_into().ok()?;
        let kind = *EvidenceKind::ALL.get(usize::from(bytes[0]))?;
        let (culprit, rest) = bytes[1..].split_at(CULPRIT_BYTES - 1);
        let culprit = match culprit[0] {
            0 => Culprit::Group,
            1 => Culprit::Member(ParticipantIndex::new(culprit[1]).ok()?),
            _ => Culprit::Node(PeerIdHash(culprit[1..].try_into().ok()?)),
        };
        let (epoch, place) = rest.split_at(8);
        let epoch = Epoch(u64::from_be_bytes(epoch.try_into().ok()?));
        let place = match place[0] {
            0 => Place::Slot(Slot(u64::from_be_bytes(place[1..9].try_into().ok()?))),
            _ => Place::Request(RequestId(Blake3Digest(place[1..].try_into().ok()?))),
        };
        Some(Verdict { kind, culprit, epoch, place })
    }

    pub(super) const fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// First and last key of the same kind and culprit.
    pub(super) fn of_culprit(&self) -> ([u8; KEY_BYTES], [u8; KEY_BYTES]) {
        self.sharing(CULPRIT_BYTES)
    }

    /// First and last key of the same kind.
    pub(super) fn of_kind(&self) -> ([u8; KEY_BYTES], [u8; KEY_BYTES]) {
        self.sharing(1)
    }

    fn sharing(&self, prefix: usize) -> ([u8; KEY_BYTES], [u8; KEY_BYTES]) {
        let (mut first, mut last) = (self.0, self.0);
        first[prefix..].fill(0);
        last[prefix..].fill(0xff);
        (first, last)
    }
}

const VOTE_BYTES: usize = 8 + 8 + 1;

pub(super) fn vote_key(epoch: Epoch, slot: Slot, member: ParticipantIndex) -> [u8; VOTE_BYTES] {
    let mut key = [0; VOTE_BYTES];
    key[..8].copy_from_slice(&epoch.0.to_be_bytes());
    key[8..16].copy_from_slice(&slot.0.to_be_bytes());
    key[16] = member.get();
    key
}

/// First and last key of the slots from `first` to `last`.
pub(super) fn vote_slots(
    epoch: Epoch,
    first: Slot,
    last: Slot,
) -> ([u8; VOTE_BYTES], [u8; VOTE_BYTES]) {
    let mut keys = [[0; VOTE_BYTES]; 2];
    for (key, slot) in keys.iter_mut().zip([first, last]) {
        key[..8].copy_from_slice(&epoch.0.to_be_bytes());
        key[8..16].copy_from_slice(&slot.0.to_be_bytes());
    }
    keys[1][16] = u8::MAX;
    (keys[0], keys[1])
}
