//! The numbered steps of `ceremony.md` that exchange messages.

use super::*;

impl Ceremony {
    pub(super) fn enter(&mut self, stage: Stage, now: Millis) {
        self.stage = stage;
        let waits = match stage {
            // After FINISH there is no deadline of one's own: the commit point decides.
            Stage::Collect(round) => (round != Round::Finish, true),
            Stage::Open(..) => (true, true),
            _ => (false, false),
        };
        // Longer where the others may still wait for something that not all get (a deal, a chunk): they
        // are not to be blamed for that, and their own complaint is to come first.
        let rounds = match stage {
            Stage::Collect(Round::Confirm | Round::BodiesRoot | Round::Prove) => 2,
            _ => 1,
        };
        self.deadline = waits.0.then(|| now + rounds * self.setup.timing.round);
        self.next_retry = waits.1.then(|| now + self.setup.timing.retry);
    }

    /// Step 1: "each member broadcasts an ephemeral channel key, commitments to its contributions to
    /// every key set and noise group it is in, a commitment to its part of the public seed, and its
    /// FROST round-1 package".
    pub(super) fn start(&mut self, now: Millis) {
        self.enter(Stage::Collect(Round::Commit), now);
        let Some(seed) = self.seed.clone() else { return };
        let (id, attempt, me) = (self.setup.id, self.setup.attempt, self.setup.me);
        let channel = ChannelKey::derive(&seed.derive(&id, attempt, "channel", b""));
        let context = self.setup.context();
        let contributions = self
            .slots
            .iter()
            .map(|slot| context.commitment(me, *slot, &context.contribution(&seed, *slot)))
            .collect();
        let mut rng = ChaCha20Rng::from_seed(seed.derive(&id, attempt, "frost", b""));
        let (frost, frost_round1) = match Dkg::start(self.setup.committee(), me, &mut rng) {
            Ok(started) => started,
            Err(error) => return self.fail(AbortReason::Local { detail: error.to_string() }),
        };
        let commit = Commit {
            channel_key: Bytes(channel.public().to_vec()),
            contributions,
            public_seed: context.public_seed_commitment(me, &self.setup.public_seed_part(&seed)),
            frost_round1: Bytes(frost_round1),
        };
        self.channel = Some(channel);
        self.frost = Frost::Round1(Box::new(frost));
        self.say(Round::Commit, None, Payload::Commit(commit));
        self.advance(now);
    }

    /// Goes through every step for which all messages are there. Computation is left to
    /// [`Self::work`].
    pub(super) fn advance(&mut self, now: Millis) {
        while let Stage::Collect(round) = self.stage {
            if !self.complete_round(round) {
                return;
            }
            let result = match round {
                Round::Commit => self.after_commit(now),
                Round::CommitEcho => self.check_echo(round).and_then(|()| self.deal(now)),
                Round::Deal => self.after_deal(now),
                Round::Confirm => self.after_confirm(now),
                Round::ConfirmEcho => self.check_echo(round).map(|()| self.draw_bits(now)),
                Round::BitsRoot | Round::BodiesRoot => self.after_root(round, now),
                Round::BitsRootEcho => {
                    self.check_echo(round).map(|()| self.open(Stream::Bits, now))
                }
                Round::BodiesRootEcho => {
                    self.check_echo(round).map(|()| self.open(Stream::Bodies, now))
                }
                Round::Prove => self.after_prove(now),
                Round::Finish => {
                    self.after_finish();
                    return;
                }
                Round::Abort => return,
            };
            if let Err(reason) = result {
                return self.abort(reason);
            }
        }
    }

    pub(super) fn message(&self, round: Round, sender: ParticipantIndex) -> Option<&SignedMessage> {
        self.messages.get(&round).and_then(|by_sender| by_sender.get(&sender))
    }

    pub(super) fn complete_round(&self, round: Round) -> bool {
        let own_needed = round != Round::Deal;
        self.setup
            .committee()
            .participants()
            .filter(|j| own_needed || *j != self.setup.me)
            .all(|j| self.message(round, j).is_some())
    }

    /// The payloads of a complete round in order of participants.
    pub(super) fn payloads<T>(
        &self,
        round: Round,
        pick: impl Fn(&Payload) -> Option<&T>,
    ) -> Vec<(ParticipantIndex, &T)> {
        self.messages
            .get(&round)
            .into_iter()
            .flatten()
            .filter_map(|(j, message)| pick(&message.payload).map(|payload| (*j, payload)))
            .collect()
    }

    pub(super) fn commits(&self) -> Vec<(ParticipantIndex, &Commit)> {
        self.payloads(Round::Commit, |p| match p {
            Payload::Commit(commit) => Some(commit),
            _ => None,
        })
    }

    /// Steps 2, 5, 7, 9: "each member broadcasts the digests of the n messages it received".
    pub(super) fn echo(&mut self, of: Round, echo: Round, now: Millis) {
        let digests =
            self.messages.get(&of).into_iter().flatten().map(|(_, m)| m.digest()).collect();
        self.say(echo, None, Payload::Echo(Echo { digests }));
        if self.stage != Stage::Aborted {
            self.enter(Stage::Collect(echo), now);
        }
    }

    pub(super) fn check_echo(&self, round: Round) -> Result<(), AbortReason> {
        let Some(of) = round.echoes() else { return Ok(()) };
        let digests: Vec<_> = self
            .messages
            .get(&of)
            .into_iter()
            .flatten()
            .map(|(j, message)| (*j, message.digest()))
            .collect();
        let echoes = self.payloads(round, |p| match p {
            Payload::Echo(echo) => Some(echo),
            _ => None,
        });
        for (echoed_by, echo) in echoes {
            if echo.digests.len() != digests.len() {
                let detail = format!("{} digests", echo.digests.len());
                return Err(AbortReason::InvalidMessage { accused: echoed_by, round, detail });
            }
            for ((accused, mine), theirs) in digests.iter().zip(&echo.digests) {
                if mine != theirs {
                    let accused = *accused;
                    return Err(AbortReason::EchoMismatch { accused, round: of, echoed_by });
                }
            }
        }
        Ok(())
    }

    pub(super) fn after_commit(&mut self, now: Millis) -> Result<(), AbortReason> {
        for (accused, commit) in self.commits() {
            let expected = slots_of(self.setup.committee(), accused).len();
            if commit.contributions.len() != expected {
                let given = commit.contributions.len();
                let detail = format!("{given} commitments instead of {expected}");
                return Err(AbortReason::InvalidMessage { accused, round: Round::Commit, detail });
            }
        }
        self.echo(Round::Commit, Round::CommitEcho, now);
        Ok(())
    }

    /// Step 3: "each member sends every other one, under its channel key, the contributions to all
    /// sets that contain both, and its FROST round-2 package".
    pub(super) fn deal(&mut self, now: Millis) -> Result<(), AbortReason> {
        let Some(seed) = self.seed.clone() else { return Ok(()) };
        let Frost::Round1(frost) = core::mem::replace(&mut self.frost, Frost::None) else {
            return Ok(());
        };
        let packages: Packages = self
            .commits()
            .into_iter()
            .filter(|(j, _)| *j != self.setup.me)
            .map(|(j, commit)| (j, commit.frost_round1.0.clone()))
            .collect();
        let (frost, shares) = frost.receive(&packages).map_err(|error| AbortReason::Frost {
            accused: error.culprits(),
            detail: error.to_string(),
        })?;
        let mut sealed = Vec::new();
        for (recipient, commit) in self.commits() {
            if recipient == self.setup.me {
                continue;
            }
            let package = shares.get(&recipient).map(|p| p.to_vec()).unwrap_or_default();
            let bytes = self
                .setup
                .seal_deal(&seed, recipient, &commit.channel_key.0, package)
                .map_err(|error| AbortReason::InvalidMessage {
                    accused: recipient,
                    round: Round::Commit,
                    detail: error.to_string(),
                })?;
            sealed.push((recipient, bytes));
        }
        self.frost = Frost::Round2(Box::new(frost));
        for (recipient, bytes) in sealed {
            self.say(Round::Deal, Some(recipient), Payload::Deal(Deal { sealed: Bytes(bytes) }));
        }
        if self.stage != Stage::Aborted {
            self.enter(Stage::Collect(Round::Deal), now);
        }
        Ok(())
    }

    /// Step 4: "each member checks the contributions against their commitments, computes
    /// r_A = KDF(all contributions, ceremony id, attempt, A) for each of its sets, and broadcasts
    /// H(r_A), its part of the public seed and the FROST group key; or it complains, by ABORT".
    pub(super) fn after_deal(&mut self, now: Millis) -> Result<(), AbortReason> {
        let context = self.setup.context();
        let (Some(seed), Some(channel)) = (self.seed.clone(), self.channel.take()) else {
            return Ok(());
        };
        let deals = self.payloads(Round::Deal, |p| match p {
            Payload::Deal(deal) => Some(deal),
            _ => None,
        });
        let mut dealt = BTreeMap::new();
        for (accused, deal) in deals {
            let invalid = |detail: String| AbortReason::InvalidMessage {
                accused,
                round: Round::Deal,
                detail,
            };
            let aad = self.setup.deal_data(accused, self.setup.me);
            let plaintext =
                channel.open(&deal.sealed.0, &aad).map_err(|error| invalid(error.to_string()))?;
            let plaintext =
                DealPlaintext::from_wire(&plaintext).map_err(|error| invalid(error.to_string()))?;
            dealt.insert(accused, plaintext);
        }
        let mut contributions: BTreeMap<(Slot, ParticipantIndex), Zeroizing<[u8; 32]>> =
            BTreeMap::new();
        for (sender, commit) in self.commits() {
            let Some(plaintext) = dealt.get(&sender) else { continue };
            let slots = slots_of(self.setup.committee(), sender);
            let common: Vec<_> = slots
                .into_iter()
                .zip(&commit.contributions)
                .filter(|(slot, _)| slot.members.contains(self.setup.me))
                .collect();
            if common.len() != plaintext.contributions.len() {
                return Err(AbortReason::WrongContribution { accused: sender });
            }
            for ((slot, commitment), contribution) in
                common.into_iter().zip(&plaintext.contributions)
            {
                if context.commitment(sender, slot, contribution) != *commitment {
                    return Err(AbortReason::WrongContribution { accused: sender });
                }
                contributions.insert((slot, sender), Zeroizing::new(*contribution));
            }
        }
        let slot_keys: Vec<(Slot, SetKey)> = self
            .slots
            .iter()
            .map(|slot| {
                let parts: Vec<_> = slot
                    .members
                    .iter()
                    .filter_map(|j| {
                        if j == self.setup.me {
                            Some(context.contribution(&seed, *slot))
                        } else {
                            contributions.remove(&(*slot, j))
                        }
                    })
                    .collect();
                (*slot, context.slot_key(*slot, &parts))
            })
            .collect();
        let Frost::Round2(frost) = core::mem::replace(&mut self.frost, Frost::None) else {
            return Ok(());
        };
        let packages = dealt
            .iter()
            .map(|(j, plaintext)| (*j, Zeroizing::new(plaintext.frost_round2.clone())))
            .collect();
        let group = frost.finish(&packages).map_err(|error| AbortReason::Frost {
            accused: error.culprits(),
            detail: error.to_string(),
        })?;
        let confirm = Confirm {
            keys: slot_keys.iter().map(|(slot, key)| context.confirmation(*slot, key)).collect(),
            public_seed: self.setup.public_seed_part(&seed),
            frost_group: Bytes(group.public().to_wire()),
        };
        self.group = Some(Arc::new(group));
        self.slot_keys = slot_keys;
        self.say(Round::Confirm, None, Payload::Confirm(confirm));
        if self.stage != Stage::Aborted {
            self.enter(Stage::Collect(Round::Confirm), now);
        }
        Ok(())
    }

    pub(super) fn confirms(&self) -> Vec<(ParticipantIndex, &Confirm)> {
        self.payloads(Round::Confirm, |p| match p {
            Payload::Confirm(confirm) => Some(confirm),
            _ => None,
        })
    }

    pub(super) fn after_confirm(&mut self, now: Millis) -> Result<(), AbortReason> {
        let context = self.setup.context();
        let mine: BTreeMap<Slot, Blake3Digest> = self
            .slot_keys
            .iter()
            .map(|(slot, key)| (*slot, context.confirmation(*slot, key)))
            .collect();
        let group = self.group.as_ref().map(|group| group.public().to_wire()).unwrap_or_default();
        let mut differ = Vec::new();
        let mut other_group = Vec::new();
        for ((j, confirm), (_, commit)) in self.confirms().into_iter().zip(self.commits()) {
            if context.public_seed_commitment(j, &confirm.public_seed) != commit.public_seed {
                return Err(AbortReason::WrongSeedReveal { accused: j });
            }
            let slots = slots_of(self.setup.committee(), j);
            let agrees = slots.len() == confirm.keys.len()
                && slots
                    .iter()
                    .zip(&confirm.keys)
                    .all(|(slot, theirs)| mine.get(slot).is_none_or(|mine| mine == theirs));
            if !agrees {
                differ.push(j);
            }
            if confirm.frost_group.0 != group {
                other_group.push(j);
            }
        }
        if !differ.is_empty() {
            return Err(AbortReason::KeyMismatch { with: differ });
        }
        if !other_group.is_empty() {
            let detail = "they computed another group key".to_owned();
            return Err(AbortReason::Frost { accused: other_group, detail });
        }
        self.echo(Round::Confirm, Round::ConfirmEcho, now);
        Ok(())
    }

    /// Step 6: "for each key bit: \[r\] <- PRSS; locally r_j^2 + r_j; plus a fresh PRZS share".
    pub(super) fn draw_bits(&mut self, now: Millis) {
        let keys = SplitKeys::new(&self.slot_keys);
        self.slot_keys.clear();
        let setup = &self.setup;
        self.engine =
            Some(engine(setup.committee(), setup.me, &setup.params, &setup.layout, &keys));
        self.keys = Some(keys);
        self.produced.clear();
        self.enter(Stage::Produce(Stream::Bits, 0), now);
    }

    pub(super) fn after_root(&mut self, round: Round, now: Millis) -> Result<(), AbortReason> {
        let (stream, echo) = match round {
            Round::BitsRoot => (Stream::Bits, Round::BitsRootEcho),
            _ => (Stream::Bodies, Round::BodiesRootEcho),
        };
        let expected = self.setup.chunks(stream) as usize;
        for (accused, root) in self.roots(round) {
            if root.chunks.len() != expected {
                let detail = format!("{} chunks instead of {expected}", root.chunks.len());
                return Err(AbortReason::InvalidMessage { accused, round, detail });
            }
        }
        self.echo(round, echo, now);
        Ok(())
    }

    pub(super) fn roots(&self, round: Round) -> Vec<(ParticipantIndex, &StreamRoot)> {
        self.payloads(round, |p| match p {
            Payload::StreamRoot(root) => Some(root),
            _ => None,
        })
    }

    pub(super) fn open(&mut self, stream: Stream, now: Millis) {
        if stream == Stream::Bodies {
            self.bodies = Some(Bodies::zeroed(&self.setup.layout));
        }
        self.arrived.clear();
        self.requested = 0;
        self.enter(Stage::Open(stream, 0), now);
        self.request_ahead(stream, 0);
    }

    /// Looks for the chunks of the window in the store, and asks their senders for the rest.
    pub(super) fn request_ahead(&mut self, stream: Stream, next: u32) {
        let until = (next + WINDOW).min(self.setup.chunks(stream));
        while self.requested < until {
            let index = self.requested;
            self.requested += 1;
            for sender in self.setup.others().collect::<Vec<_>>() {
                match self.load_chunk(stream, sender, index) {
                    Ok(Some(bytes)) => {
                        self.arrived.entry(index).or_default().insert(sender, bytes);
                    }
                    Ok(None) => self.request_chunk(stream, sender, index, sender),
                    Err(error) => {
                        return self.abort(AbortReason::Local { detail: error.to_string() });
                    }
                }
            }
        }
    }

    /// A chunk from the store, if it is there and is the one that the sender's root names.
    pub(super) fn load_chunk(
        &mut self,
        stream: Stream,
        sender: ParticipantIndex,
        index: u32,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        let found = self.store.get(stream, sender, index)?;
        Ok(found.filter(|bytes| self.chunk_matches(stream, sender, index, bytes)))
    }

    pub(super) fn chunk_matches(
        &self,
        stream: Stream,
        sender: ParticipantIndex,
        index: u32,
        bytes: &[u8],
    ) -> bool {
        let Some(message) = self.message(stream.root_round(), sender) else { return false };
        let Payload::StreamRoot(root) = &message.payload else { return false };
        let length = self.setup.plan.of(stream).get(index as usize).map(|chunk| chunk.bytes);
        length == Some(bytes.len())
            && root.chunks.get(index as usize)
                == Some(&StreamRoot::chunk_digest(&message.header, stream, index, bytes))
    }
}
