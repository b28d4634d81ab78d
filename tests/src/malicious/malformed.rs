//! Sends bytes that are no message, messages with the wrong form, and messages in other names.

use veil_protocol_spec::Blake3Digest;
use veil_protocol_spec::{
    ParticipantIndex, Wire,
    ceremony::{
        AbortReason, CeremonyMessage, ChunkId, Deal, Finish, MAX_CHUNK_BYTES, MAX_SIGNED_BYTES,
        Payload, Round, SignedMessage, Stream,
    },
    codec::Bytes,
};

use super::{Insider, Misbehaviour, wire};

pub(super) struct Malformed;

impl Misbehaviour for Malformed {
    fn own(&mut self, insider: &Insider, message: SignedMessage) -> Vec<Vec<u8>> {
        let mut out = garbage(&message);
        out.extend(misshapen(insider));
        out.extend(impersonations(insider, &message));
        out.extend(chunks(insider));
        out.push(wire(message));
        out
    }
}

/// Bytes that decode to nothing, or in a second spelling.
fn garbage(message: &SignedMessage) -> Vec<Vec<u8>> {
    let bytes = wire(message.clone());
    let mut out = vec![Vec::new(), vec![1], vec![0xff; 100]];
    for length in [1, 2, 40, bytes.len() / 2, bytes.len() - 1] {
        out.push(bytes[..length.min(bytes.len())].to_vec());
    }
    let mut other_version = bytes.clone();
    other_version[0] = 2;
    let mut trailing = bytes.clone();
    trailing.push(0);
    // Every field of the header, somewhere in the payload, and the signature.
    let flips = [1, 2, 20, 34, 35, 36, 37, 38, bytes.len() / 2, bytes.len() - 1];
    out.extend(flips.into_iter().map(|at| {
        let mut flipped = bytes.clone();
        flipped[at] ^= 1;
        flipped
    }));
    out.extend([other_version, trailing]);
    if message.header.round == Round::Commit {
        out.push(vec![1; MAX_CHUNK_BYTES + 129]);
    }
    out
}

/// Signed, but not what the round carries.
fn misshapen(insider: &Insider) -> Vec<Vec<u8>> {
    let sign = |round: Round, recipient, payload: Payload| {
        wire(SignedMessage::sign(insider.header(round, recipient), payload, &insider.identity))
    };
    let finish = || Payload::Finish(Finish { root: Blake3Digest([1; 32]) });
    let deal = || Payload::Deal(Deal { sealed: Bytes(vec![1; 10]) });
    let huge = Payload::Deal(Deal { sealed: Bytes(vec![1; MAX_SIGNED_BYTES + 1]) });
    vec![
        sign(Round::Commit, None, finish()),
        sign(Round::Finish, Some(insider.to), finish()),
        sign(Round::Deal, None, deal()),
        sign(Round::Confirm, None, deal()),
        sign(Round::Confirm, Some(insider.to), huge),
    ]
}

/// In the name of the receiver, of another member, and of nobody.
fn impersonations(insider: &Insider, message: &SignedMessage) -> Vec<Vec<u8>> {
    let to = insider.to;
    let stranger = ParticipantIndex::new(13).unwrap_or(to);
    let third = insider.setup.others().find(|j| *j != to).unwrap_or(to);
    let mut out = Vec::new();
    for sender in [to, third, stranger] {
        let mut header = message.header;
        header.sender = sender;
        out.push(wire(SignedMessage::sign(header, message.payload.clone(), &insider.identity)));
        let reason = AbortReason::Local { detail: "forged".to_owned() };
        let mut header = insider.header(Round::Abort, None);
        header.sender = sender;
        out.push(wire(SignedMessage::sign(header, Payload::Abort(reason), &insider.identity)));
        let request = CeremonyMessage::Request {
            ceremony: header.ceremony,
            attempt: header.attempt,
            round: message.header.round,
            sender,
        };
        out.push(request.to_wire());
    }
    out
}

/// Chunks that nobody asked for, and requests for chunks that cannot be.
fn chunks(insider: &Insider) -> Vec<Vec<u8>> {
    let to = insider.to;
    let header = insider.header(Round::BitsRoot, None);
    let id = |sender, index| ChunkId {
        ceremony: header.ceremony,
        attempt: header.attempt,
        stream: Stream::Bodies,
        sender,
        index,
    };
    let stranger = ParticipantIndex::new(13).unwrap_or(to);
    let mut out = Vec::new();
    for id in [id(to, 0), id(insider.me(), u32::MAX), id(stranger, 0), id(insider.me(), 0)] {
        out.push(CeremonyMessage::ChunkRequest(id).to_wire());
        out.push(CeremonyMessage::Chunk { id, bytes: Bytes(vec![7; 50]) }.to_wire());
    }
    out
}
