//! All members of a ceremony in one loop, without faults: they finish with one key set, the
//! transcript verifies, and the key works. Faults are the business of the `tests` crate.
#![allow(clippy::unwrap_used)]

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
};

use veil_committee_machine::{Effect, Machine};
use veil_keygen_ceremony::{
    keyset::ParameterSet,
    machine::{Ceremony, CeremonyEffect, CommitPoint, Outcome, Stage},
    seed::CeremonySeed,
    setup::{Setup, Timing},
    store::{ChunkStore, MemoryStore, StoreError},
    transcript::Transcript,
};
use veil_protocol_spec::{
    Attempt, Committee, Epoch, ParticipantIndex, Wire,
    ceremony::{CeremonyParameters, SignedMessage, Stream},
    identity::SecretIdentity,
};

#[derive(Clone, Default)]
struct Shared(Arc<Mutex<MemoryStore>>);

impl ChunkStore for Shared {
    fn put(
        &mut self,
        stream: Stream,
        sender: ParticipantIndex,
        index: u32,
        bytes: &[u8],
    ) -> Result<(), StoreError> {
        self.0.lock().unwrap().put(stream, sender, index, bytes)
    }

    fn get(
        &mut self,
        stream: Stream,
        sender: ParticipantIndex,
        index: u32,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        self.0.lock().unwrap().get(stream, sender, index)
    }
}

struct Run {
    members: Vec<Ceremony>,
    outcomes: Vec<Option<Outcome>>,
    store: Shared,
    parameters: CeremonyParameters,
}

fn run(committee: Committee) -> Run {
    let params = ParameterSet::insecure_test();
    let identities: Vec<_> = committee
        .participants()
        .map(|j| SecretIdentity::from_bytes(&[j.get(); 32]).unwrap())
        .collect();
    let parameters = CeremonyParameters {
        committee,
        parameters: params.name().to_owned(),
        parameters_digest: params.digest(),
        roster: identities.iter().map(SecretIdentity::public).collect(),
        epoch: Epoch(0),
        context: [7; 32],
    };
    let first = Shared::default();
    let mut members: Vec<Ceremony> = identities
        .iter()
        .enumerate()
        .map(|(i, identity)| {
            let timing = Timing { round: 10_000, retry: 1_000 };
            let setup =
                Setup::new(parameters.clone(), params.clone(), Attempt(0), identity, timing)
                    .unwrap();
            let store: Box<dyn ChunkStore> =
                if i == 0 { Box::new(first.clone()) } else { Box::<MemoryStore>::default() };
            let seed = CeremonySeed::new([i as u8 + 100; 32]);
            Ceremony::new(Arc::new(setup), identity.clone(), seed, store, 0)
        })
        .collect();
    let mut outcomes: Vec<Option<Outcome>> = vec![None; members.len()];
    let mut queue: VecDeque<(ParticipantIndex, ParticipantIndex, Arc<[u8]>)> = VecDeque::new();
    let mut certificate = None;
    loop {
        let mut busy = false;
        for member in &mut members {
            let me = member.participant();
            busy |= member.work(0);
            while let Some(effect) = member.poll_effect() {
                match effect {
                    Effect::Send { to, bytes } => queue.push_back((me, to, bytes)),
                    Effect::Broadcast(bytes) => queue.extend(
                        committee
                            .participants()
                            .filter(|j| *j != me)
                            .map(|to| (me, to, Arc::clone(&bytes))),
                    ),
                    Effect::Special(CeremonyEffect::Publish(published)) => {
                        certificate = Some(published);
                    }
                    Effect::Special(CeremonyEffect::Complete(outcome)) => {
                        outcomes[me.position()] = Some(*outcome);
                    }
                    Effect::Special(CeremonyEffect::Abort(report)) => {
                        panic!("participant {me}: {report:?}");
                    }
                    Effect::Persist { .. }
                    | Effect::Special(CeremonyEffect::EraseSeed | CeremonyEffect::EraseKeyShare) => {
                    }
                }
            }
        }
        if let Some((from, to, bytes)) = queue.pop_front() {
            let _ = members[to.position()].handle(from, &bytes, 0);
        } else if !busy {
            match certificate.take() {
                Some(published) => members.iter_mut().for_each(|member| {
                    member.handle_commit_point(CommitPoint::Published(published.clone()));
                }),
                None => break,
            }
        }
    }
    Run { members, outcomes, store: first, parameters }
}

fn transcript(run: &Run) -> Transcript {
    let messages: Vec<SignedMessage> = run.members[0].broadcasts().cloned().collect();
    Transcript { parameters: run.parameters.clone(), attempt: Attempt(0), messages }
}

#[test]
fn every_committee_finishes_with_one_key_set_and_a_transcript_that_verifies() {
    for committee in Committee::ALL {
        let run = run(committee);
        assert!(run.members.iter().all(|member| member.stage() == Stage::Completed));
        let outcome = run.outcomes[0].clone().unwrap();
        for other in run.outcomes.iter().flatten() {
            assert_eq!(other.key_set, outcome.key_set);
            assert_eq!(other.certificate, outcome.certificate);
        }
        let transcript = transcript(&run);
        let decoded = Transcript::from_wire(&transcript.to_wire()).unwrap();
        assert_eq!(decoded, transcript);
        let verified = decoded.verify(&mut run.store.clone(), |_, _| {}).unwrap();
        assert_eq!(verified.digest, outcome.key_set);
        assert_eq!(verified.certificate, outcome.certificate);
    }
}
