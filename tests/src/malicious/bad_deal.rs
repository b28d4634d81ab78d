//! Deals one receiver something that does not fit what was committed to in step 1.

use std::collections::BTreeMap;

use rand::SeedableRng;
use rand_chacha::ChaCha20Rng;
use serde::{Deserialize, Serialize};
use veil_committee::frost::{EvmSuite, dkg::Dkg};
use veil_keygen_ceremony::{
    channel::seal,
    contributions::{Context, groups_of},
};
use veil_protocol_spec::{
    ParticipantIndex, Wire,
    ceremony::{CeremonyMessage, Commit, Deal, DealPlaintext, Payload, SignedMessage},
    codec::Bytes,
};

use super::{Insider, Misbehaviour, wire};

/// What is wrong with the deal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BadDeal {
    /// One contribution to a key set does not open its commitment.
    Contribution,
    /// One contribution is missing.
    Missing,
    /// The FROST share is not on the polynomial.
    FrostShare,
    /// It is no ciphertext for this receiver.
    Garbled,
}

pub(super) struct BadDealer {
    to: ParticipantIndex,
    wrong: BadDeal,
    commits: BTreeMap<ParticipantIndex, Commit>,
}

impl BadDealer {
    pub(super) const fn new(to: ParticipantIndex, wrong: BadDeal) -> Self {
        Self { to, wrong, commits: BTreeMap::new() }
    }

    /// The honest deal's plaintext, made anew from the seed.
    fn plaintext(&self, insider: &Insider) -> Option<DealPlaintext> {
        let (setup, seed, me) = (&insider.setup, &insider.seed, insider.me());
        let (ceremony, attempt) = (setup.parameters().id(), setup.attempt());
        let context = Context { ceremony, attempt };
        let contributions = groups_of(setup.committee(), me)
            .into_iter()
            .filter(|group| group.members.contains(self.to))
            .map(|group| *context.contribution(seed, group))
            .collect();
        let mut rng = ChaCha20Rng::from_seed(seed.derive(&ceremony, attempt, "frost", b""));
        let (frost, _) = Dkg::<EvmSuite>::start(setup.committee(), me, &mut rng).ok()?;
        let packages =
            self.commits.iter().map(|(j, commit)| (*j, commit.frost_round1.0.clone())).collect();
        let (_, shares) = frost.receive(&packages).ok()?;
        Some(DealPlaintext { contributions, frost_round2: shares.get(&self.to)?.to_vec() })
    }

    fn sealed(&self, insider: &Insider) -> Option<Vec<u8>> {
        let mut plaintext = self.plaintext(insider)?;
        match self.wrong {
            BadDeal::Contribution => plaintext.contributions.first_mut()?[0] ^= 1,
            BadDeal::Missing => drop(plaintext.contributions.pop()),
            BadDeal::FrostShare => *plaintext.frost_round2.last_mut()? ^= 1,
            BadDeal::Garbled => return Some(vec![0x5a; 2000]),
        }
        let setup = &insider.setup;
        let randomness = insider.seed.sealing(&setup.parameters().id(), setup.attempt(), self.to);
        let key = &self.commits.get(&self.to)?.channel_key.0;
        seal(key, &plaintext.to_wire(), &setup.deal_data(insider.me(), self.to), &randomness).ok()
    }
}

impl Misbehaviour for BadDealer {
    fn own(&mut self, insider: &Insider, message: SignedMessage) -> Vec<Vec<u8>> {
        if insider.to != self.to || !matches!(message.payload, Payload::Deal(_)) {
            return vec![wire(message)];
        }
        let sealed = self.sealed(insider).expect("the honest machine has just made this deal");
        let payload = Payload::Deal(Deal { sealed: Bytes(sealed) });
        vec![wire(insider.instead(&message, payload))]
    }

    fn hear(&mut self, message: &CeremonyMessage, _bytes: &[u8]) {
        if let CeremonyMessage::Signed(message) = message
            && let Payload::Commit(commit) = &message.payload
        {
            self.commits.entry(message.header.sender).or_insert_with(|| commit.clone());
        }
    }
}
