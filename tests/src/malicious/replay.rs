//! Sends again what it has heard: to members it was not for, in later rounds, and from other
//! attempts and ceremonies.

use std::collections::VecDeque;

use veil_committee_machine::{Effect, Machine as _};
use veil_keygen_ceremony::{machine::Ceremony, setup::Timing, store::MemoryStore};
use veil_protocol_spec::{
    Attempt,
    ceremony::{CeremonyMessage, CeremonyParameters, SignedMessage},
};

use super::{Behaviour, Insider, Misbehaviour, wire};
use crate::fixtures::{self, ATTEMPT};

/// Of the other attempts, which nobody waits for.
const TIMING: Timing = Timing { round: 10_000, retry: 300 };
/// Messages remembered.
const MEMORY: usize = 64;
/// Messages sent again with each of its own.
const REPEATED: usize = 6;

#[derive(Default)]
pub(super) struct Replay {
    heard: VecDeque<Vec<u8>>,
    sent: VecDeque<Vec<u8>>,
    turn: usize,
}

impl Misbehaviour for Replay {
    fn own(&mut self, insider: &Insider, message: SignedMessage) -> Vec<Vec<u8>> {
        let bytes = wire(message);
        let mut out = vec![bytes.clone()];
        for source in
            [insider.relics.as_slice(), self.heard.make_contiguous(), self.sent.make_contiguous()]
        {
            for i in 0..REPEATED.min(source.len()) {
                out.push(source[(self.turn + i) % source.len()].clone());
            }
        }
        self.turn += REPEATED;
        // Its own deals go to other recipients too.
        remember(&mut self.sent, &bytes);
        out
    }

    fn hear(&mut self, message: &CeremonyMessage, bytes: &[u8]) {
        if !matches!(message, CeremonyMessage::ChunkRequest(_)) {
            remember(&mut self.heard, bytes);
        }
    }
}

fn remember(memory: &mut VecDeque<Vec<u8>>, bytes: &[u8]) {
    if memory.len() == MEMORY {
        memory.pop_front();
    }
    memory.push_back(bytes.to_vec());
}

/// First messages of all members in another attempt and in another ceremony.
pub(crate) fn relics(
    behaviour: &Behaviour,
    seed: u64,
    parameters: &CeremonyParameters,
) -> Vec<Vec<u8>> {
    if *behaviour != Behaviour::Replay {
        return Vec::new();
    }
    let mut other = parameters.clone();
    other.context = fixtures::draw(seed, "other context", 0);
    let mut relics = Vec::new();
    for (parameters, attempt) in [(parameters, Attempt(0)), (&other, ATTEMPT)] {
        for j in parameters.committee.participants() {
            let identity = fixtures::identity(seed, j);
            let setup = fixtures::setup(parameters, attempt, &identity, TIMING);
            let seed = fixtures::ceremony_seed(seed, j);
            let store = Box::new(MemoryStore::default());
            let mut machine = Ceremony::new(setup, identity, seed, store, 0);
            while let Some(effect) = machine.poll_effect() {
                if let Effect::Broadcast(bytes) = effect {
                    relics.push(bytes.to_vec());
                }
            }
        }
    }
    relics
}
