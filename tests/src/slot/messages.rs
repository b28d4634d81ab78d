//! What members of the world send each other: the agreement's messages, statements, records.

use std::sync::Arc;

use veil_protocol_spec::{
    Blake3Digest, Slot, Wire,
    agreement::{AgreementMessage, Instance, Subject},
    scheduling::GroupSignature,
};

pub(super) const AGREEMENT: u8 = 0;
pub(super) const STATEMENT: u8 = 1;
pub(super) const ANSWER: u8 = 2;
pub(super) const RECORD: u8 = 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Signing,
    /// Of this step.
    Opening(u16),
}

impl Kind {
    pub(super) const fn number(self) -> u32 {
        match self {
            Self::Signing => 0,
            Self::Opening(step) => step as u32 + 1,
        }
    }

    pub(super) const fn phase(self) -> &'static str {
        match self {
            Self::Opening(_) => "opening",
            Self::Signing => "signing",
        }
    }
}

/// What stands for the group's signature: whoever has 2t+1 statements can make it.
pub(super) fn signature(of: Blake3Digest) -> GroupSignature {
    let mut bytes = [0; 65];
    bytes[..32].copy_from_slice(of.as_bytes());
    GroupSignature(bytes)
}

pub(super) fn encode(slot: Slot, kind: Kind, digest: Blake3Digest) -> Vec<u8> {
    [&slot.0.to_le_bytes()[..], &kind.number().to_le_bytes(), digest.as_bytes()].concat()
}

pub(super) fn decode(bytes: &[u8]) -> Option<(Slot, Kind, Blake3Digest)> {
    let (slot, rest) = bytes.split_first_chunk()?;
    let (kind, digest) = rest.split_first_chunk()?;
    let kind = match u32::from_le_bytes(*kind) {
        0 => Kind::Signing,
        step => Kind::Opening(u16::try_from(step - 1).ok()?),
    };
    Some((Slot(u64::from_le_bytes(*slot)), kind, Blake3Digest(digest.try_into().ok()?)))
}

/// For a reader of the event log.
pub(super) fn describe(bytes: &[u8]) -> String {
    match bytes.split_first() {
        Some((&(STATEMENT | ANSWER), bytes)) => match decode(bytes) {
            Some((slot, kind, _)) => format!("{kind:?} of slot {slot}"),
            None => "no statement".to_owned(),
        },
        _ => phase(bytes).to_owned(),
    }
}

pub(super) const fn of(instance: Instance) -> &'static str {
    match instance.subject {
        Subject::Manifest => "the agreement on the manifest",
        Subject::End => "the agreement on the end",
    }
}

/// In which phase of a slot a message is sent.
pub(super) fn phase(bytes: &[u8]) -> &'static str {
    match bytes.split_first() {
        Some((&AGREEMENT, _)) => match agreement_of(bytes) {
            Some(AgreementMessage::Vote(signed)) => of(signed.vote.instance),
            Some(AgreementMessage::Proposal(signed, _)) => of(signed.proposal.instance),
            Some(AgreementMessage::Ask { instance, .. }) => of(instance),
            Some(AgreementMessage::Decision(lock, _)) => of(lock.instance),
            Some(AgreementMessage::Polka(votes) | AgreementMessage::Round(votes)) => {
                votes.first().map_or("nothing", |vote| of(vote.vote.instance))
            }
            None => "nothing",
        },
        Some((&(STATEMENT | ANSWER), bytes)) => match decode(bytes) {
            Some((_, kind, _)) => kind.phase(),
            None => "nothing",
        },
        Some((&RECORD, _)) => "certificates",
        _ => "nothing",
    }
}

/// The agreement's part of a message.
pub(super) fn agreement_of(bytes: &[u8]) -> Option<AgreementMessage> {
    let (&AGREEMENT, bytes) = bytes.split_first()? else { return None };
    AgreementMessage::from_wire(bytes).ok()
}

/// A message of the agreement.
pub(super) fn agreement(message: &AgreementMessage) -> Arc<[u8]> {
    [&[AGREEMENT], &message.to_wire()[..]].concat().into()
}

/// The slot and the digest that a message's sender signs.
pub(super) fn signing_of(bytes: &[u8]) -> Option<(Slot, Blake3Digest)> {
    let (&(STATEMENT | ANSWER), bytes) = bytes.split_first()? else { return None };
    match decode(bytes)? {
        (slot, Kind::Signing, digest) => Some((slot, digest)),
        (_, Kind::Opening(_), _) => None,
    }
}
