//! The numbered steps of `ceremony.md` that exchange messages. A step takes over what the stage held
//! and gives the next state; what it does not hand on is erased.

use std::collections::BTreeMap;

use rand::SeedableRng;
use rand_chacha::ChaCha20Rng;
use veil_committee::{
    frost::dkg::{Dkg, Packages},
    prf::SetKey,
};
use veil_committee_machine::Millis;
use veil_committee_sealed::channel::ChannelKey;
use veil_protocol_spec::{
    Blake3Digest, ParticipantIndex, Wire,
    ceremony::{AbortReason, Commit, Confirm, Deal, DealPlaintext, Echo, Payload, Round, Stream},
    codec::Bytes,
};
use zeroize::Zeroizing;

use super::{
    Ceremony,
    failure::{Failed, Failure},
    interface::Stage,
    state::{BitSecrets, Committed, Dealt, Keyed, State, Window},
};
use crate::{
    channel,
    contributions::{KeyGroup, SplitKeys, groups_of},
    engine::draw_bits,
    keyset::Bodies,
    seed::CeremonySeed,
};

/// After how many round times a member gives up; `None` if it waits for nobody. After FINISH it has no
/// deadline of its own: the commit point decides.
const fn patience(stage: Stage) -> Option<u64> {
    match stage {
        // Longer where the others may still wait for something that not all get (a deal, a chunk): they
        // are not to be blamed for that, and their own complaint is to come first.
        // So is who waits for the contribution before its own.
        Stage::Collect(Round::Confirm | Round::BodiesRoot | Round::Prove) | Stage::Raise(_) => {
            Some(2)
        }
        Stage::Collect(Round::Finish) => None,
        Stage::Collect(_) | Stage::Open(..) => Some(1),
        _ => None,
    }
}

/// Round times in which a stream is to be opened: its chunks prolong the deadline one by one, and one member
/// that sends them slowly would stretch the attempt without end.
const STREAM_ROUNDS: u64 = 4;

/// Whether something may be missing that is asked for again.
const fn asks_again(stage: Stage) -> bool {
    matches!(stage, Stage::Collect(_) | Stage::Raise(_) | Stage::Open(..))
}

impl Ceremony {
    pub(super) fn enter(&mut self, state: State, now: Millis) {
        self.state = state;
        let (stage, timing) = (self.stage(), self.setup.timing);
        self.stream_end = match stage {
            Stage::Open(..) => self.stream_end.or(Some(now + STREAM_ROUNDS * timing.round)),
            _ => None,
        };
        self.prolong(patience(stage), now);
        self.next_retry = asks_again(stage).then(|| now + timing.retry);
    }

    /// Waits for so many round times more, but no longer than a stream may take.
    pub(super) fn prolong(&mut self, rounds: Option<u64>, now: Millis) {
        let deadline = rounds.map(|rounds| now + rounds * self.setup.timing.round);
        self.deadline = deadline.map(|at| self.stream_end.map_or(at, |end| at.min(end)));
    }

    pub(super) fn start(&mut self, seed: CeremonySeed, now: Millis) -> Result<(), Failed> {
        let stage = Stage::Collect(Round::Commit);
        let state = self.commit(seed).map_err(|failure| failure.of(stage))?;
        self.enter(state, now);
        self.advance(now)
    }

    /// Goes through every step for which all messages are here. Computation is left to
    /// [`Self::compute`].
    pub(super) fn advance(&mut self, now: Millis) -> Result<(), Failed> {
        while let stage @ Stage::Collect(round) = self.stage()
            && self.log.is_complete(round, &self.setup)
        {
            let state = core::mem::replace(&mut self.state, State::Aborted);
            let next = self.step(state).map_err(|failure| failure.of(stage))?;
            self.enter(next, now);
            self.request_ahead().map_err(|failure| failure.of(self.stage()))?;
        }
        Ok(())
    }

    /// The step that follows a complete round.
    fn step(&mut self, state: State) -> Result<State, Failure> {
        Ok(match state {
            State::Commit(secrets) => {
                self.check_commits()?;
                self.echo(Round::Commit, Round::CommitEcho)?;
                State::CommitEcho(secrets)
            }
            State::CommitEcho(secrets) => {
                self.check_echo(Round::Commit, Round::CommitEcho)?;
                State::Deal(Box::new(self.deal(*secrets)?))
            }
            State::Deal(secrets) => State::Confirm(Box::new(self.confirm(*secrets)?)),
            State::Confirm(secrets) => {
                self.check_confirms(&secrets)?;
                self.echo(Round::Confirm, Round::ConfirmEcho)?;
                State::ConfirmEcho(secrets)
            }
            State::ConfirmEcho(secrets) => {
                self.check_echo(Round::Confirm, Round::ConfirmEcho)?;
                self.start_string(secrets)
            }
            State::ReferenceStringEcho(secrets) => {
                self.check_echo(Round::ReferenceString, Round::ReferenceStringEcho)?;
                State::CheckReferenceString(secrets)
            }
            State::BitsRoot(secrets) => {
                self.check_roots(Stream::Bits)?;
                self.echo(Round::BitsRoot, Round::BitsRootEcho)?;
                State::BitsRootEcho(secrets)
            }
            State::BitsRootEcho(secrets) => {
                self.check_echo(Round::BitsRoot, Round::BitsRootEcho)?;
                State::OpenBits(Window::default(), secrets)
            }
            State::BodiesRoot(secrets) => {
                self.check_roots(Stream::Bodies)?;
                self.echo(Round::BodiesRoot, Round::BodiesRootEcho)?;
                State::BodiesRootEcho(secrets)
            }
            State::BodiesRootEcho(secrets) => {
                self.check_echo(Round::BodiesRoot, Round::BodiesRootEcho)?;
                State::OpenBodies(Window::default(), Bodies::zeroed(&self.setup.layout), secrets)
            }
            State::Prove(key) => State::Finish(self.finish(key)?.into()),
            State::Finish(key) => {
                self.publish();
                State::AwaitCommitPoint(key)
            }
            // They wait for no round.
            state @ (State::Raise(..)
            | State::CheckReferenceString(_)
            | State::ProduceBits(..)
            | State::OpenBits(..)
            | State::ProduceBodies(..)
            | State::OpenBodies(..)
            | State::Assemble(..)
            | State::AwaitCommitPoint(_)
            | State::Completed(_)
            | State::Aborted) => state,
        })
    }

    /// Step 1: "each member broadcasts an ephemeral channel key, commitments to its contributions to
    /// every key set, noise group and zero group it is in, a commitment to its part of the public seed,
    /// and its FROST round-1 package".
    fn commit(&mut self, seed: CeremonySeed) -> Result<State, Failure> {
        let (id, attempt, me) = (self.setup.id, self.setup.attempt, self.setup.me);
        let derived = |purpose| Zeroizing::new(seed.derive(&id, attempt, purpose, b""));
        let channel = ChannelKey::derive(&derived("channel"));
        let context = self.setup.context();
        let contributions = groups_of(self.setup.committee(), me)
            .into_iter()
            .map(|group| context.commitment(me, group, &context.contribution(&seed, group)))
            .collect();
        let mut rng = ChaCha20Rng::from_seed(*derived("frost"));
        let (frost, frost_round1) =
            Dkg::start(self.setup.committee(), me, &mut rng).map_err(Failure::local)?;
        let commit = Commit {
            channel_key: Bytes(channel.public().to_vec()),
            contributions,
            public_seed: context.public_seed_commitment(me, &self.setup.public_seed_part(&seed)),
            frost_round1: Bytes(frost_round1),
        };
        self.send_own(Round::Commit, None, Payload::Commit(commit))?;
        Ok(State::Commit(Box::new(Committed { seed, channel, frost })))
    }

    fn check_commits(&self) -> Result<(), AbortReason> {
        for (accused, commit) in self.log.commits() {
            let expected = groups_of(self.setup.committee(), accused).len();
            if commit.contributions.len() != expected {
                let given = commit.contributions.len();
                let detail = format!("{given} commitments instead of {expected}");
                return Err(AbortReason::InvalidMessage { accused, round: Round::Commit, detail });
            }
        }
        Ok(())
    }

    /// Steps 2, 5, 7, 9: "each member broadcasts the digests of the n messages it received".
    pub(super) fn echo(&mut self, of: Round, echo: Round) -> Result<(), Failure> {
        let digests = self.log.of_round(of).map(|message| message.digest()).collect();
        self.send_own(echo, None, Payload::Echo(Echo { digests }))
    }

    fn check_echo(&self, of: Round, echo: Round) -> Result<(), AbortReason> {
        let digests: Vec<_> = self
            .log
            .of_round(of)
            .map(|message| (message.header.sender, message.digest()))
            .collect();
        for (echoed_by, echoed) in self.log.echoes(echo) {
            if echoed.digests.len() != digests.len() {
                let detail = format!("{} digests", echoed.digests.len());
                return Err(AbortReason::InvalidMessage {
                    accused: echoed_by,
                    round: echo,
                    detail,
                });
            }
            for ((accused, mine), theirs) in digests.iter().zip(&echoed.digests) {
                if mine != theirs {
                    let accused = *accused;
                    return Err(AbortReason::EchoMismatch { accused, round: of, echoed_by });
                }
            }
        }
        Ok(())
    }

    /// Step 3: "each member sends every other one, under its channel key, the contributions to all
    /// sets that contain both, and its FROST round-2 package".
    fn deal(&mut self, secrets: Committed) -> Result<Dealt, Failure> {
        let Committed { seed, channel, frost } = secrets;
        let me = self.setup.me;
        let packages: Packages = self
            .log
            .commits()
            .into_iter()
            .filter(|(j, _)| *j != me)
            .map(|(j, commit)| (j, commit.frost_round1.0.clone()))
            .collect();
        let (frost, shares) = frost.receive(&packages).map_err(|error| AbortReason::Frost {
            accused: error.culprits(),
            detail: error.to_string(),
        })?;
        let mut sealed = Vec::new();
        for (recipient, commit) in self.log.commits() {
            let Some(package) = shares.get(&recipient) else { continue };
            let bytes = self
                .setup
                .seal_deal(&seed, recipient, &commit.channel_key.0, package.to_vec())
                .map_err(|error| AbortReason::InvalidMessage {
                    accused: recipient,
                    round: Round::Commit,
                    detail: error.to_string(),
                })?;
            sealed.push((recipient, bytes));
        }
        for (recipient, bytes) in sealed {
            let deal = Deal { sealed: Bytes(bytes) };
            self.send_own(Round::Deal, Some(recipient), Payload::Deal(deal))?;
        }
        Ok(Dealt { seed, channel, frost })
    }

    /// Step 4: "each member checks the contributions against their commitments, computes
    /// r_A = KDF(all contributions, ceremony id, attempt, A) for each of its sets, and broadcasts
    /// H(r_A), its part of the public seed and the FROST group key; or it complains, by ABORT".
    fn confirm(&mut self, secrets: Dealt) -> Result<Keyed, Failure> {
        let Dealt { seed, channel, frost } = secrets;
        let context = self.setup.context();
        let dealt = self.open_deals(&channel)?;
        let keys = self.shared_keys(&seed, &dealt)?;
        let packages = dealt
            .iter()
            .map(|(j, plaintext)| (*j, Zeroizing::new(plaintext.frost_round2.clone())))
            .collect();
        let frost = frost.finish(&packages).map_err(|error| AbortReason::Frost {
            accused: error.culprits(),
            detail: error.to_string(),
        })?;
        let confirm = Confirm {
            keys: keys.iter().map(|(group, key)| context.confirmation(*group, key)).collect(),
            public_seed: self.setup.public_seed_part(&seed),
            frost_group: Bytes(frost.public().to_wire()),
        };
        self.send_own(Round::Confirm, None, Payload::Confirm(confirm))?;
        let (id, attempt) = (self.setup.id, self.setup.attempt);
        let string = Zeroizing::new(seed.derive(&id, attempt, "reference string", b""));
        Ok(Keyed { keys, frost, string: Some(string) })
    }

    fn open_deals(
        &self,
        key: &ChannelKey,
    ) -> Result<BTreeMap<ParticipantIndex, DealPlaintext>, AbortReason> {
        let mut dealt = BTreeMap::new();
        for (accused, deal) in self.log.deals() {
            let invalid = |detail: String| AbortReason::InvalidMessage {
                accused,
                round: Round::Deal,
                detail,
            };
            let aad = self.setup.deal_data(accused, self.setup.me);
            let plaintext = channel::open(key, &deal.sealed.0, &aad)
                .map_err(|error| invalid(error.to_string()))?;
            let plaintext =
                DealPlaintext::from_wire(&plaintext).map_err(|error| invalid(error.to_string()))?;
            dealt.insert(accused, plaintext);
        }
        Ok(dealt)
    }

    /// The keys of this member's groups, from everybody's contributions.
    fn shared_keys(
        &self,
        seed: &CeremonySeed,
        dealt: &BTreeMap<ParticipantIndex, DealPlaintext>,
    ) -> Result<Vec<(KeyGroup, SetKey)>, AbortReason> {
        let (committee, me) = (self.setup.committee(), self.setup.me);
        let context = self.setup.context();
        let mut contributions: BTreeMap<(KeyGroup, ParticipantIndex), Zeroizing<[u8; 32]>> =
            BTreeMap::new();
        for (sender, commit) in self.log.commits() {
            let Some(plaintext) = dealt.get(&sender) else { continue };
            let common: Vec<_> = groups_of(committee, sender)
                .into_iter()
                .zip(&commit.contributions)
                .filter(|(group, _)| group.members.contains(me))
                .collect();
            if common.len() != plaintext.contributions.len() {
                return Err(AbortReason::WrongContribution { accused: sender });
            }
            for ((group, commitment), contribution) in
                common.into_iter().zip(&plaintext.contributions)
            {
                if context.commitment(sender, group, contribution) != *commitment {
                    return Err(AbortReason::WrongContribution { accused: sender });
                }
                contributions.insert((group, sender), Zeroizing::new(*contribution));
            }
        }
        let mut key_of = |group: KeyGroup| {
            let part = |j| match j == me {
                true => Some(context.contribution(seed, group)),
                false => contributions.remove(&(group, j)),
            };
            let parts: Vec<_> = group.members.iter().filter_map(part).collect();
            (group, context.shared_key(group, &parts))
        };
        Ok(groups_of(committee, me).into_iter().map(&mut key_of).collect())
    }

    fn check_confirms(&self, secrets: &Keyed) -> Result<(), AbortReason> {
        let context = self.setup.context();
        let mine: BTreeMap<KeyGroup, Blake3Digest> = secrets
            .keys
            .iter()
            .map(|(group, key)| (*group, context.confirmation(*group, key)))
            .collect();
        let frost_group = secrets.frost.public().to_wire();
        let mut differ = Vec::new();
        let mut other_group = Vec::new();
        for ((j, confirm), (_, commit)) in self.log.confirms().into_iter().zip(self.log.commits()) {
            if context.public_seed_commitment(j, &confirm.public_seed) != commit.public_seed {
                return Err(AbortReason::WrongSeedReveal { accused: j });
            }
            let groups = groups_of(self.setup.committee(), j);
            let agrees = groups.len() == confirm.keys.len()
                && groups
                    .iter()
                    .zip(&confirm.keys)
                    .all(|(group, theirs)| mine.get(group).is_none_or(|mine| mine == theirs));
            if !agrees {
                differ.push(j);
            }
            if confirm.frost_group.0 != frost_group {
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
        Ok(())
    }

    /// Step 6: "for each key bit: \[r\] <- PRSS; locally r_j^2 + r_j; plus a fresh PRZS share".
    pub(super) fn draw_bits(&self, secrets: Keyed) -> BitSecrets {
        let Keyed { keys, frost, .. } = secrets;
        let keys = SplitKeys::new(&keys);
        BitSecrets { stream: draw_bits(&self.setup, &keys.streams), keys, frost }
    }

    fn check_roots(&self, stream: Stream) -> Result<(), AbortReason> {
        let (round, expected) = (stream.root_round(), self.setup.chunks(stream) as usize);
        for (accused, root) in self.log.roots(round) {
            if root.chunks.len() != expected {
                let detail = format!("{} chunks instead of {expected}", root.chunks.len());
                return Err(AbortReason::InvalidMessage { accused, round, detail });
            }
        }
        Ok(())
    }
}
