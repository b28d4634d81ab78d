//! The steps that compute (share streams, their opening, the key set), and what follows from them.

use std::{collections::BTreeMap, sync::Arc};

use veil_committee_machine::Millis;
use veil_protocol_spec::{
    Blake3Digest, ParticipantIndex,
    ceremony::{AbortReason, Finish, Payload, Prove, Round, SignedMessage, Stream, StreamRoot},
    codec::Bytes,
};

use super::{
    Ceremony,
    failure::Failure,
    interface::{CeremonyEffect, Record},
    state::{BitSecrets, BodySecrets, NewKey, OpenerSecrets, Produced, State, Window},
};
use crate::{
    chunks::Chunk,
    contributions::SplitKeys,
    engine::OpenBitsError,
    keyset::{Bodies, assemble, keyset_digest},
    proof,
    shares::{bits::DeriveError, opening::InconsistentShares},
    transcript::{FinishCertificate, transcript_root},
};

impl Ceremony {
    /// Does one bounded piece of computation, if there is any to do. Returns whether there may be
    /// more.
    pub(super) fn compute(&mut self, now: Millis) -> bool {
        let others = self.setup.committee().n() - 1;
        let ready = match &self.state {
            State::CheckReferenceString(_)
            | State::ProduceBits(..)
            | State::ProduceBodies(..)
            | State::Assemble(..) => true,
            State::Raise(raised, _) => self.can_raise(raised),
            State::OpenBits(window, _) | State::OpenBodies(window, ..) => {
                window.arrived() == others
            }
            _ => false,
        };
        if !ready {
            return false;
        }
        let stage = self.stage();
        let state = core::mem::replace(&mut self.state, State::Aborted);
        let computed = self.piece(state).map_err(|failure| failure.of(stage)).and_then(|next| {
            self.enter(next, now);
            self.request_ahead().map_err(|failure| failure.of(self.stage()))?;
            self.advance(now)
        });
        if let Err(failed) = computed {
            self.end(failed);
        }
        true
    }

    fn piece(&mut self, state: State) -> Result<State, Failure> {
        match state {
            State::Raise(raised, keyed) => self.raise(raised, keyed),
            State::CheckReferenceString(keyed) => self.check_string(keyed),
            State::ProduceBits(produced, secrets) => self.produce_bits(produced, secrets),
            State::OpenBits(window, secrets) => self.open_bits(window, secrets),
            State::ProduceBodies(produced, secrets) => self.produce_bodies(produced, secrets),
            State::OpenBodies(window, bodies, secrets) => self.open_bodies(window, bodies, secrets),
            State::Assemble(bodies, secrets) => self.assemble(bodies, *secrets).map(State::Prove),
            other => Ok(other),
        }
    }

    fn produce_bits(
        &mut self,
        produced: Produced,
        secrets: Box<BitSecrets>,
    ) -> Result<State, Failure> {
        let Some(chunk) = self.chunk(Stream::Bits, produced.next()) else {
            self.send_root(Stream::Bits, produced)?;
            return Ok(State::BitsRoot(secrets));
        };
        let bytes = secrets.stream.chunk(&chunk);
        Ok(State::ProduceBits(self.keep_own(Stream::Bits, produced, &bytes)?, secrets))
    }

    fn produce_bodies(
        &mut self,
        produced: Produced,
        secrets: Box<BodySecrets>,
    ) -> Result<State, Failure> {
        let Some(chunk) = self.chunk(Stream::Bodies, produced.next()) else {
            self.send_root(Stream::Bodies, produced)?;
            let BodySecrets { stream, dec, frost } = *secrets;
            let opener = stream.finish();
            return Ok(State::BodiesRoot(Box::new(OpenerSecrets { opener, dec, frost })));
        };
        let bytes = secrets.stream.chunk(&chunk);
        Ok(State::ProduceBodies(self.keep_own(Stream::Bodies, produced, &bytes)?, secrets))
    }

    fn chunk(&self, stream: Stream, index: u32) -> Option<Chunk> {
        self.setup.plan.of(stream).get(index as usize).copied()
    }

    fn send_root(&mut self, stream: Stream, produced: Produced) -> Result<(), Failure> {
        let root = StreamRoot { chunks: produced.0 };
        self.send_own(stream.root_round(), None, Payload::StreamRoot(root))
    }

    /// Stores a chunk of this member's stream.
    fn keep_own(
        &mut self,
        stream: Stream,
        mut produced: Produced,
        bytes: &[u8],
    ) -> Result<Produced, Failure> {
        let header = self.own_header(stream.root_round(), None);
        let index = produced.next();
        produced.0.push(StreamRoot::chunk_digest(&header, stream, index, bytes));
        self.store.put(stream, self.setup.me, index, bytes).map_err(Failure::local)?;
        Ok(produced)
    }

    /// Steps 7 and 9: "receivers interpolate from 2t+1 shares and check that all n shares lie on one
    /// polynomial of degree 2t".
    fn open_bits(
        &mut self,
        mut window: Window,
        mut secrets: Box<BitSecrets>,
    ) -> Result<State, Failure> {
        let (stream, index) = (Stream::Bits, window.next);
        let chunks = self.take_chunks(stream, &mut window)?;
        let shares: Vec<&[u8]> = chunks.values().map(Vec::as_slice).collect();
        let chunk = self.chunk(stream, index).ok_or_else(|| beyond(stream, index))?;
        secrets.stream.open(&chunk, &shares).map_err(|error| match error {
            OpenBitsError::Inconsistent(error) => inconsistent(stream, index, error),
            OpenBitsError::OutOfOrder { .. } => Failure::local(error),
        })?;
        if window.next < self.setup.chunks(stream) {
            return Ok(State::OpenBits(window, secrets));
        }
        let secrets = self.derive_keys(*secrets)?;
        Ok(State::ProduceBodies(Produced::default(), Box::new(secrets)))
    }

    fn open_bodies(
        &mut self,
        mut window: Window,
        mut bodies: Bodies,
        secrets: Box<OpenerSecrets>,
    ) -> Result<State, Failure> {
        let (stream, index) = (Stream::Bodies, window.next);
        let chunks = self.take_chunks(stream, &mut window)?;
        let shares: Vec<&[u8]> = chunks.values().map(Vec::as_slice).collect();
        let chunk = self.chunk(stream, index).ok_or_else(|| beyond(stream, index))?;
        let section = &self.setup.layout.sections[chunk.section];
        let opened =
            secrets.opener.open(section, &chunk, &shares, &mut bodies.sections[chunk.section]);
        opened.map_err(|error| inconsistent(stream, index, error))?;
        Ok(if window.next < self.setup.chunks(stream) {
            State::OpenBodies(window, bodies, secrets)
        } else {
            State::Assemble(bodies, secrets)
        })
    }

    /// The next chunk of every member, in order. The others' have arrived, as [`Self::compute`] has
    /// seen.
    fn take_chunks(
        &mut self,
        stream: Stream,
        window: &mut Window,
    ) -> Result<BTreeMap<ParticipantIndex, Vec<u8>>, Failure> {
        let (me, index) = (self.setup.me, window.next);
        let mut chunks = window.take_next();
        let own = self.store.get(stream, me, index).map_err(Failure::local)?;
        let gone = || Failure::local(format!("own chunk {index} is gone from the share store"));
        chunks.insert(me, own.ok_or_else(gone)?);
        Ok(chunks)
    }

    /// The public seed, from the parts that all members revealed.
    fn public_seed(&self) -> [u8; 32] {
        let parts: Vec<[u8; 32]> = self.log.confirms().iter().map(|(_, c)| c.public_seed).collect();
        self.setup.context().public_seed(&parts)
    }

    /// Step 8: "take the root x with even constant coefficient; \[b\] = (\[r\] - x) (-1 - 2x)^-1", then
    /// the shares of the public material.
    fn derive_keys(&self, secrets: BitSecrets) -> Result<BodySecrets, Failure> {
        let BitSecrets { stream, keys: SplitKeys { streams, dec }, frost } = secrets;
        match stream.derive_keys(&streams, &self.public_seed()) {
            Ok(stream) => Ok(BodySecrets { stream, dec, frost }),
            Err(DeriveError::NoRoot { bit }) => {
                let chunks = self.setup.plan.of(Stream::Bits);
                let index = chunks.iter().rposition(|chunk| chunk.start <= bit).unwrap_or(0);
                let element = bit - chunks.get(index).map_or(0, |chunk| chunk.start);
                Err(inconsistent(Stream::Bits, index as u32, InconsistentShares { element }))
            }
            Err(error @ DeriveError::NotOpened { .. }) => Err(Failure::local(error)),
        }
    }

    /// Step 10: "each member assembles the key set, erases its shares of s, S and p and every key but
    /// `dec`, and broadcasts the key set's digest and its partial decryption of the test ciphertext".
    fn assemble(&mut self, bodies: Bodies, secrets: OpenerSecrets) -> Result<NewKey, Failure> {
        let OpenerSecrets { opener, dec, frost } = secrets;
        let key_set = assemble(&self.setup.params, self.public_seed(), bodies)
            .map_err(|error| AbortReason::InvalidKeySet { detail: error.to_string() })?;
        let digest = keyset_digest(&key_set);
        let root = self.root_before(Round::Prove);
        let share = opener.into_squash_share();
        let key_share = proof::key_share(&self.setup, digest, &root, share, dec, &frost)
            .map_err(Failure::local)?;
        self.key_share_made = true;
        let prove = Prove { key_set: digest, test_share: Bytes(key_share.test_share().to_vec()) };
        self.send_own(Round::Prove, None, Payload::Prove(prove))?;
        Ok(NewKey { key_set: Arc::new(key_set), key_share: Arc::new(key_share) })
    }

    /// The root over everything broadcast before a round.
    fn root_before(&self, round: Round) -> Blake3Digest {
        let before = self.log.broadcasts().filter(|message| message.header.round < round);
        transcript_root(
            &self.setup.parameters,
            self.setup.attempt,
            before.map(SignedMessage::digest),
        )
    }

    /// Step 11: "when all n proofs fit, each member persists its key share and signs FINISH over the
    /// transcript's root; the seed is destroyed".
    pub(super) fn finish(&mut self, key: NewKey) -> Result<NewKey, Failure> {
        let proofs = self.log.proofs();
        let accused: Vec<_> = proofs
            .iter()
            .filter(|(_, proof)| proof.key_set != key.key_share.origin().key_set)
            .map(|(j, _)| *j)
            .collect();
        if !accused.is_empty() {
            let detail = "another key set digest".to_owned();
            return Err(AbortReason::WrongProof { accused, detail }.into());
        }
        let shares: Vec<_> = proofs.iter().map(|(j, p)| (*j, p.test_share.0.as_slice())).collect();
        proof::check(self.setup.committee(), &shares)?;
        let root = self.root_before(Round::Finish);
        self.persist(Record::KeySet(Arc::clone(&key.key_set)));
        self.persist(Record::KeyShare(Arc::clone(&key.key_share)));
        self.send_own(Round::Finish, None, Payload::Finish(Finish { root }))?;
        self.ask(CeremonyEffect::EraseSeed);
        Ok(key)
    }

    /// "A key is valid only with the FINISH signatures of all n members over one root": brings them
    /// to the commit point. If somebody finished another transcript, this attempt can make no key, and
    /// the commit point will say so.
    pub(super) fn publish(&mut self) {
        let finishes = self.log.finishes();
        let Some((_, first)) = finishes.first() else { return };
        let root = first.root;
        if finishes.iter().all(|(_, finish)| finish.root == root) {
            let signatures = self.log.of_round(Round::Finish).map(|m| m.signature).collect();
            let certificate = FinishCertificate {
                ceremony: self.setup.id,
                attempt: self.setup.attempt,
                root,
                signatures,
            };
            self.ask(CeremonyEffect::Publish(Box::new(certificate)));
        }
    }
}

const fn inconsistent(stream: Stream, index: u32, error: InconsistentShares) -> Failure {
    let element = error.element as u32;
    Failure::Abort(AbortReason::InconsistentShares { stream, index, element })
}

fn beyond(stream: Stream, index: u32) -> Failure {
    Failure::local(format!("the {stream:?} stream has no chunk {index}"))
}
