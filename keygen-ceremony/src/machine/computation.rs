//! The steps that compute: share streams, their opening, the key set.

use super::*;

impl Ceremony {
    /// Does one bounded piece of computation, if there is any to do. Returns whether there may be
    /// more.
    pub fn work(&mut self, now: Millis) -> bool {
        match self.stage {
            Stage::Produce(stream, next) => {
                self.produce(stream, next, now);
                true
            }
            Stage::Open(stream, next) => {
                let n = self.setup.committee().n();
                if self.arrived.get(&next).map_or(0, BTreeMap::len) + 1 < n {
                    return false;
                }
                self.open_next(stream, next, now);
                true
            }
            Stage::Assemble => {
                self.assemble(now);
                true
            }
            _ => false,
        }
    }

    pub(super) fn produce(&mut self, stream: Stream, next: u32, now: Millis) {
        let Some(engine) = &self.engine else { return };
        if next == self.setup.chunks(stream) {
            let chunks = core::mem::take(&mut self.produced);
            let round = stream.root_round();
            self.say(round, None, Payload::StreamRoot(StreamRoot { chunks }));
            if stream == Stream::Bodies
                && let Some(engine) = &mut self.engine
            {
                engine.finish_bodies();
            }
            if self.stage != Stage::Aborted {
                self.enter(Stage::Collect(round), now);
                self.advance(now);
            }
            return;
        }
        let Some(chunk) = self.setup.plan.of(stream).get(next as usize) else { return };
        let bytes = match stream {
            Stream::Bits => engine.bits_chunk(chunk),
            Stream::Bodies => engine.bodies_chunk(chunk),
        };
        let header = Header {
            ceremony: self.setup.id,
            attempt: self.setup.attempt,
            round: stream.root_round(),
            sender: self.setup.me,
            recipient: None,
        };
        self.produced.push(StreamRoot::chunk_digest(&header, stream, next, &bytes));
        if let Err(error) = self.store.put(stream, self.setup.me, next, &bytes) {
            return self.abort(AbortReason::Local { detail: error.to_string() });
        }
        self.stage = Stage::Produce(stream, next + 1);
    }

    /// Steps 7 and 9: "receivers interpolate from 2t+1 shares and check that all n shares lie on one
    /// polynomial of degree 2t".
    pub(super) fn open_next(&mut self, stream: Stream, next: u32, now: Millis) {
        // Nothing arrives for n = 1; `work` has seen that all others' chunks are here.
        let mut chunks = self.arrived.remove(&next).unwrap_or_default();
        match self.store.get(stream, self.setup.me, next) {
            Ok(Some(own)) => chunks.insert(self.setup.me, own),
            Ok(None) => {
                let detail = format!("own chunk {next} is gone from the share store");
                return self.abort(AbortReason::Local { detail });
            }
            Err(error) => return self.abort(AbortReason::Local { detail: error.to_string() }),
        };
        let shares: Vec<&[u8]> = chunks.values().map(Vec::as_slice).collect();
        let setup = Arc::clone(&self.setup);
        let Some(chunk) = setup.plan.of(stream).get(next as usize) else { return };
        let Some(engine) = &mut self.engine else { return };
        let opened = match (stream, &mut self.bodies) {
            (Stream::Bits, _) => engine.open_bits(chunk, &shares),
            (Stream::Bodies, Some(bodies)) => {
                let section = &setup.layout.sections[chunk.section];
                engine.open_bodies(section, chunk, &shares, &mut bodies.sections[chunk.section])
            }
            (Stream::Bodies, None) => return,
        };
        if let Err(element) = opened {
            return self.abort(AbortReason::InconsistentShares {
                stream,
                index: next,
                element: element as u32,
            });
        }
        let next = next + 1;
        if next < setup.chunks(stream) {
            self.enter(Stage::Open(stream, next), now);
            self.request_ahead(stream, next);
        } else if stream == Stream::Bits {
            self.derive_keys(now);
        } else {
            self.enter(Stage::Assemble, now);
        }
    }

    /// The public seed, from the parts that all members revealed.
    fn public_seed(&self) -> [u8; 32] {
        let parts: Vec<[u8; 32]> = self.confirms().iter().map(|(_, c)| c.public_seed).collect();
        self.setup.context().public_seed(&parts)
    }

    /// Step 8: "take the root x with even constant coefficient; \[b\] = (\[r\] - x) (-1 - 2x)^-1", then
    /// the shares of the public material.
    pub(super) fn derive_keys(&mut self, now: Millis) {
        let public_seed = self.public_seed();
        let (Some(engine), Some(keys)) = (&mut self.engine, &self.keys) else { return };
        if let Err(bit) = engine.derive_keys(keys, &public_seed) {
            let chunks = self.setup.plan.of(Stream::Bits);
            let index = chunks.iter().rposition(|chunk| chunk.start <= bit).unwrap_or(0);
            return self.abort(AbortReason::InconsistentShares {
                stream: Stream::Bits,
                index: index as u32,
                element: (bit - chunks.get(index).map_or(0, |chunk| chunk.start)) as u32,
            });
        }
        self.produced.clear();
        self.enter(Stage::Produce(Stream::Bodies, 0), now);
    }

    /// Step 10: "each member assembles the key set, erases its shares of s, S and p and every key but
    /// `dec`, and broadcasts the key set's digest and its partial decryption of the test ciphertext".
    pub(super) fn assemble(&mut self, now: Millis) {
        let public_seed = self.public_seed();
        let Some(bodies) = self.bodies.take() else { return };
        let key_set = match assemble(&self.setup.params, public_seed, bodies) {
            Ok(key_set) => Arc::new(key_set),
            Err(error) => {
                return self.abort(AbortReason::InvalidKeySet { detail: error.to_string() });
            }
        };
        let digest = keyset_digest(&key_set);
        let (Some(mut engine), Some(keys), Some(group)) =
            (self.engine.take(), self.keys.take(), self.group.take())
        else {
            return;
        };
        let share = engine.take_squash_share();
        let root = self.root_before(Round::Prove);
        let key_share = proof::key_share(&self.setup, digest, &root, share, keys.dec, &group);
        let key_share = match key_share {
            Ok(key_share) => key_share,
            Err(error) => return self.abort(AbortReason::Local { detail: error.to_string() }),
        };
        let prove = Prove { key_set: digest, test_share: Bytes(key_share.test_share().to_vec()) };
        self.erase_secrets();
        self.key_set = Some(key_set);
        self.key_share = Some(Arc::new(key_share));
        self.say(Round::Prove, None, Payload::Prove(prove));
        if self.stage != Stage::Aborted {
            self.enter(Stage::Collect(Round::Prove), now);
            self.advance(now);
        }
    }

    /// The root over everything broadcast before a round.
    pub(super) fn root_before(&self, round: Round) -> Blake3Digest {
        let messages = self
            .broadcasts()
            .filter(|message| message.header.round < round)
            .map(SignedMessage::digest);
        transcript_root(&self.setup.parameters, self.setup.attempt, messages)
    }

    /// Step 11: "when all n proofs fit, each member persists its key share and signs FINISH over the
    /// transcript's root; the seed is destroyed".
    pub(super) fn after_prove(&mut self, now: Millis) -> Result<(), AbortReason> {
        let Some(key_share) = self.key_share.clone() else { return Ok(()) };
        let proofs = self.payloads(Round::Prove, |p| match p {
            Payload::Prove(prove) => Some(prove),
            _ => None,
        });
        let shares: Vec<_> = proofs.iter().map(|(j, p)| (*j, p.test_share.0.as_slice())).collect();
        let strangers: Vec<_> = proofs
            .iter()
            .filter(|(_, proof)| proof.key_set != key_share.origin().key_set)
            .map(|(j, _)| *j)
            .collect();
        if !strangers.is_empty() {
            let detail = "another key set digest".to_owned();
            return Err(AbortReason::WrongProof { accused: strangers, detail });
        }
        proof::check(self.setup.committee(), &shares)?;
        let root = self.root_before(Round::Finish);
        if let Some(key_set) = self.key_set.clone() {
            self.effects.push_back(Effect::Persist(Record::KeySet(key_set)));
        }
        self.effects.push_back(Effect::Persist(Record::KeyShare(key_share)));
        self.say(Round::Finish, None, Payload::Finish(Finish { root }));
        if self.stage != Stage::Aborted {
            self.seed = None;
            self.effects.push_back(Effect::EraseSeed);
            self.enter(Stage::Collect(Round::Finish), now);
        }
        Ok(())
    }

    pub(super) fn own_finish_root(&self) -> Option<Blake3Digest> {
        match &self.message(Round::Finish, self.setup.me)?.payload {
            Payload::Finish(finish) => Some(finish.root),
            _ => None,
        }
    }

    /// "A key is valid only with the FINISH signatures of all n members over one root": collect them
    /// and bring them to the commit point.
    pub(super) fn after_finish(&mut self) {
        let Some(root) = self.own_finish_root() else { return };
        let finishes = self.payloads(Round::Finish, |p| match p {
            Payload::Finish(finish) => Some(finish),
            _ => None,
        });
        if finishes.iter().any(|(_, finish)| finish.root != root) {
            // Somebody finished another transcript; this attempt can make no key. The commit point
            // will say so.
            self.stage = Stage::AwaitCommitPoint;
            self.next_retry = None;
            return;
        }
        let signatures = self
            .messages
            .get(&Round::Finish)
            .into_iter()
            .flatten()
            .map(|(_, message)| message.signature)
            .collect();
        let certificate = FinishCertificate {
            ceremony: self.setup.id,
            attempt: self.setup.attempt,
            root,
            signatures,
        };
        self.stage = Stage::AwaitCommitPoint;
        self.next_retry = None;
        self.effects.push_back(Effect::Publish(Box::new(certificate)));
    }
}
