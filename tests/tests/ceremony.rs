//! The key ceremony when nobody misbehaves: one key, the same run for the same seed, nothing secret
//! left behind, a transcript that proves it.

#![allow(clippy::unwrap_used, reason = "a failed helper fails the test")]

use std::collections::{BTreeMap, HashMap, HashSet};

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha20Rng;
use veil_committee::{
    code::Opening,
    frost::{Dkg, EvmSuite},
    prf::SetKey,
    randomness::RandomShares,
    ring::Element,
    with_degree,
};
use veil_committee_world::When;
use veil_keygen_ceremony::{
    contributions::{Context, KeyGroup, SplitKeys, groups_of},
    keyset::{KeyName, Layout, ParameterSet},
    machine::{CommitPoint, Record, Stage},
    setup::Timing,
    shares::bits::{BitShares, KeyBits},
    store::ChunkStore,
    transcript::Transcript,
};
use veil_protocol_spec::{
    ParticipantIndex, Wire,
    ceremony::{Round, SignedMessage, Stream},
};
use veil_tests::{
    ceremony::{
        CeremonyPlan,
        Milestone::{Persisted, Sent, Stage as Entered},
    },
    fixtures,
    report::Report,
};

#[test]
fn all_members_complete_with_one_key() {
    for (n, seeds) in [(1, 3), (4, 10), (7, 3), (10, 1), (13, 1)] {
        for seed in 0..seeds {
            let report = CeremonyPlan::new(n).run(seed);
            let key_set = report.assert_completed();
            for member in &report.members {
                assert_eq!(member.stage, Stage::Completed);
                let share = member.key_share.as_ref().unwrap();
                assert_eq!(share.origin().key_set, key_set);
                assert_eq!(share.origin().participant, member.participant);
                assert!(member.verdicts.faults.is_empty(), "{report}");
            }
            let verified = report.transcript().unwrap();
            let verified = verified.verify(&mut report.members[0].disk.store.clone(), |_, _| {});
            assert_eq!(verified.unwrap().digest, key_set);
        }
    }
}

#[test]
fn the_seed_determines_the_run() {
    let plan = CeremonyPlan::new(4).crash(2, When::At(Entered(Stage::Assemble)), 500);
    let (a, b, c) = (plan.run(1), plan.run(1), plan.run(2));
    assert_eq!((a.trace(), a.assert_completed()), (b.trace(), b.assert_completed()));
    assert_ne!((a.trace(), a.assert_completed()), (c.trace(), c.assert_completed()));
    assert_ne!(a.trace(), CeremonyPlan::new(4).run(1).trace());
}

#[test]
fn plans_are_data() {
    let plan = CeremonyPlan::new(7).crash(3, When::At(Sent(Round::Prove)), None);
    assert_eq!(CeremonyPlan::from_json(&plan.to_json()).unwrap(), plan);
    assert!(CeremonyPlan::from_json(r#"{"committee":5}"#).is_err());
}

// ---- transcript ------------------------------------------------------------------------------

type Alter = fn(Vec<u8>, &mut ChaCha20Rng) -> Option<Vec<u8>>;

/// A store in which one chunk is altered, missing, or another one.
struct Altered<'a> {
    store: &'a mut dyn ChunkStore,
    at: (Stream, ParticipantIndex, u32),
    alter: Alter,
    rng: ChaCha20Rng,
}

impl ChunkStore for Altered<'_> {
    fn put(
        &mut self,
        _: Stream,
        _: ParticipantIndex,
        _: u32,
        _: &[u8],
    ) -> Result<(), veil_keygen_ceremony::store::StoreError> {
        unreachable!("verification only reads")
    }

    fn get(
        &mut self,
        stream: Stream,
        sender: ParticipantIndex,
        index: u32,
    ) -> Result<Option<Vec<u8>>, veil_keygen_ceremony::store::StoreError> {
        let bytes = self.store.get(stream, sender, index)?;
        if (stream, sender, index) == self.at {
            return Ok(bytes.and_then(|bytes| (self.alter)(bytes, &mut self.rng)));
        }
        Ok(bytes)
    }
}

fn verifies(transcript: &Transcript, store: &mut dyn ChunkStore) -> bool {
    transcript.verify(store, |_, _| {}).is_ok()
}

#[test]
fn the_transcript_of_every_member_verifies() {
    let report = CeremonyPlan::new(4).run(3);
    let key_set = report.assert_completed();
    let transcript = report.transcript().unwrap();
    for member in &report.members {
        let verified = transcript.verify(&mut member.disk.store.clone(), |_, _| {}).unwrap();
        assert_eq!(verified.digest, key_set);
        let Some(CommitPoint::Published(certificate)) = &report.decision else { panic!() };
        assert_eq!(verified.certificate, **certificate);
        let group = member.key_share.as_ref().unwrap().frost().unwrap().public().to_wire();
        assert_eq!(verified.frost_group, group);
        assert!(member.broadcasts.iter().eq(&transcript.messages));
    }
    let wire = Transcript::from_wire(&transcript.to_wire()).unwrap();
    assert!(verifies(&wire, &mut report.members[0].disk.store.clone()));
}

#[test]
fn a_transcript_with_any_byte_flipped_is_rejected() {
    let report = CeremonyPlan::new(4).run(4);
    let transcript = report.transcript().unwrap();
    let mut store = report.members[0].disk.store.clone();
    let mut rng = ChaCha20Rng::seed_from_u64(4);
    // Every message, at sampled positions; what no longer decodes is rejected before.
    for (i, message) in transcript.messages.iter().enumerate() {
        let bytes = message.to_wire();
        for _ in 0..6 {
            let mut flipped = bytes.clone();
            let at = rng.gen_range(0..bytes.len());
            flipped[at] ^= 1 << rng.gen_range(0..8);
            let Ok(message) = SignedMessage::from_wire(&flipped) else { continue };
            let mut altered = transcript.clone();
            altered.messages[i] = message;
            let position = format!("byte {at} of message {i}");
            assert!(!verifies(&altered, &mut store), "{position}");
        }
    }
    let mut shorter = transcript.clone();
    shorter.messages.pop();
    let mut longer = transcript.clone();
    longer.messages.push(transcript.messages[0].clone());
    let mut swapped = transcript.clone();
    swapped.messages.swap(0, 1);
    let mut other_attempt = transcript.clone();
    other_attempt.attempt.0 += 1;
    let mut other_epoch = transcript.clone();
    other_epoch.parameters.epoch.0 += 1;
    let mut other_context = transcript.clone();
    other_context.parameters.context[0] ^= 1;
    for altered in [shorter, longer, swapped, other_attempt, other_epoch, other_context] {
        assert!(!verifies(&altered, &mut store));
    }
}

#[test]
fn a_transcript_with_an_altered_chunk_is_rejected() {
    let report = CeremonyPlan::new(4).run(5);
    let transcript = report.transcript().unwrap();
    let setup = fixtures::setup(
        &report.parameters,
        report.attempt,
        &fixtures::identity(5, ParticipantIndex::new(1).unwrap()),
        Timing { round: 1, retry: 1 },
    );
    let mut store = report.members[0].disk.store.clone();
    let mut rng = ChaCha20Rng::seed_from_u64(5);
    let alterations: [Alter; 3] = [
        |mut bytes, rng| {
            let at = rng.gen_range(0..bytes.len());
            bytes[at] ^= 1 << rng.gen_range(0..8);
            Some(bytes)
        },
        |mut bytes, _| bytes.pop().map(|_| bytes),
        |_, _| None,
    ];
    for stream in [Stream::Bits, Stream::Bodies] {
        let chunks = setup.plan().of(stream).len() as u32;
        for alter in alterations.iter().cycle().take(12) {
            let sender = ParticipantIndex::new(rng.gen_range(1..=4)).unwrap();
            let at = (stream, sender, rng.gen_range(0..chunks));
            let rng = ChaCha20Rng::from_rng(&mut rng).unwrap();
            let mut altered = Altered { store: &mut store, at, alter: *alter, rng };
            assert!(!verifies(&transcript, &mut altered), "{at:?}");
        }
    }
}

// ---- secrets ---------------------------------------------------------------------------------

/// What nobody may see, with a name.
struct Secrets {
    known: HashMap<[u8; 32], String>,
    starts: HashSet<[u8; 8]>,
}

/// The keys that one member shares with others.
fn shared_keys(report: &Report, j: ParticipantIndex) -> Vec<(KeyGroup, SetKey)> {
    let context = Context { ceremony: report.parameters.id(), attempt: report.attempt };
    let key = |group: KeyGroup| {
        let seeds = group.members.iter().map(|i| fixtures::ceremony_seed(report.seed, i));
        let parts: Vec<_> = seeds.map(|seed| context.contribution(&seed, group)).collect();
        (group, context.shared_key(group, &parts))
    };
    groups_of(report.plan.committee, j).into_iter().map(key).collect()
}

/// What the name of a share of Q says that its owner keeps.
fn kept_by(j: ParticipantIndex) -> String {
    format!("share of a bit of {:?} of {j}", KeyName::Squash)
}

impl Secrets {
    /// Every member's seed, identity and contributions, what it derives from its seed, its shares
    /// of r and of every key bit, and its points of the others' FROST polynomials; every set's key
    /// with its `dkg` part, and every noise group's and zero group's.
    fn of(report: &Report) -> Self {
        let (id, attempt) = (report.parameters.id(), report.attempt);
        let (context, committee) = (Context { ceremony: id, attempt }, report.plan.committee);
        let mut known: Vec<(String, [u8; 32])> = Vec::new();
        let mut polynomials = Vec::new();
        for j in committee.participants() {
            let seed = fixtures::ceremony_seed(report.seed, j);
            known.push((format!("seed of {j}"), *seed.expose()));
            let identity = fixtures::identity(report.seed, j);
            known.push((format!("identity of {j}"), *identity.expose()));
            let frost = seed.derive(&id, attempt, "frost", b"");
            let mut rng = ChaCha20Rng::from_seed(frost);
            polynomials.push((j, Dkg::<EvmSuite>::start(committee, j, &mut rng).unwrap()));
            known.push((format!("what the polynomial of {j} is drawn from"), frost));
            let channel = seed.derive(&id, attempt, "channel", b"");
            known.push((format!("what the channel key of {j} is drawn from"), channel));
            for i in committee.participants().filter(|i| *i != j) {
                let sealing = seed.sealing(&id, attempt, i);
                known.push((format!("what seals the deal of {j} for {i}"), sealing));
            }
            let shared = shared_keys(report, j);
            for (group, key) in &shared {
                let mine = context.contribution(&seed, *group);
                known.push((format!("contribution of {j} to {group:?}"), *mine));
                known.push((format!("key of {group:?}"), *key.expose()));
            }
            for (set, key) in &SplitKeys::new(&shared).streams.dkg {
                known.push((format!("dkg key of {set:?}"), *key.expose()));
            }
        }
        let round1: Vec<_> =
            polynomials.iter().map(|(j, (_, package))| (*j, package.clone())).collect();
        for (j, (polynomial, _)) in polynomials {
            let others = round1.iter().filter(|(i, _)| *i != j).cloned().collect();
            for (i, point) in polynomial.receive(&others).unwrap().1 {
                let scalar = *point.last_chunk().unwrap();
                known.push((format!("point of the polynomial of {j} for {i}"), scalar));
            }
        }
        with_degree!(committee, D => known.extend(Self::shares::<D>(report)));
        let known: HashMap<_, _> = known.into_iter().map(|(name, secret)| (secret, name)).collect();
        let starts = known.keys().map(|secret| *secret.first_chunk().unwrap()).collect();
        Self { known, starts }
    }

    /// Shares of r and of the key bits: of each its first 32 bytes, as a share is stored.
    fn shares<const D: usize>(report: &Report) -> Vec<(String, [u8; 32])> {
        let committee = report.plan.committee;
        let layout = Layout::of(&ParameterSet::insecure_test());
        let count = layout.total_key_bits();
        let streams: Vec<_> = committee
            .participants()
            .map(|j| (j, SplitKeys::new(&shared_keys(report, j)).streams))
            .collect();
        let random: Vec<Vec<Element<u128, D>>> = streams
            .iter()
            .map(|(j, keys)| {
                let mut shares = vec![Element::ZERO(); count];
                RandomShares::new(committee, *j, &keys.dkg, "bits/random").fill(0, &mut shares);
                shares
            })
            .collect();
        let opening = Opening::new(committee, committee.max_faulty().get());
        let opened: Vec<_> = (0..count)
            .map(|i| opening.open(&random.iter().map(|r| r[i]).collect::<Vec<_>>()).unwrap())
            .map(|r| r * r + r)
            .collect();
        let start = |share: &Element<u128, D>| -> [u8; 32] {
            let bytes: Vec<u8> = share.0.iter().flat_map(|word| word.to_le_bytes()).collect();
            *bytes.first_chunk().unwrap()
        };
        let mut known = Vec::new();
        for ((j, keys), random) in streams.iter().zip(&random) {
            known.extend(random.iter().map(|r| (format!("share of r of {j}"), start(r))));
            let bits = BitShares::<D>::draw(committee, *j, keys, count).into_bits(&opened);
            let bits = KeyBits::new(&layout, bits.unwrap());
            for key in KeyName::ALL {
                let name = format!("share of a bit of {key:?} of {j}");
                known.extend(bits.of(key).iter().map(|share| (name.clone(), start(share))));
            }
        }
        known
    }

    /// The names of what is there, and how often.
    fn find(&self, bytes: &[u8]) -> BTreeMap<&str, usize> {
        let mut found = BTreeMap::new();
        for window in bytes.windows(32).filter_map(|window| window.first_chunk::<32>()) {
            if self.starts.contains(window.first_chunk::<8>().unwrap())
                && let Some(name) = self.known.get(window)
            {
                *found.entry(name.as_str()).or_default() += 1;
            }
        }
        found
    }
}

/// After FINISH nothing is left that, with the transcript, would recompute the erased shares: not
/// on a wire, and not on the disk of any member. "No member ever opens a key of an attempt that an
/// honest member finishes."
#[test]
fn no_secret_is_on_the_wire_or_left_on_a_disk() {
    let crash = When::At(Persisted(Round::Finish));
    let dimension = Layout::of(&ParameterSet::insecure_test()).bits_of(KeyName::Squash);
    for plan in
        [CeremonyPlan::new(4), CeremonyPlan::new(7), CeremonyPlan::new(4).crash(3, crash, 1_000)]
    {
        let report = plan.run(6);
        report.assert_completed();
        let secrets = Secrets::of(&report);
        for (sender, bytes) in &report.wire {
            assert_eq!(secrets.find(bytes), BTreeMap::new(), "sent by {sender}");
        }
        for member in &report.members {
            assert!(member.disk.seed.is_none());
            let mut key_shares = 0;
            for record in &member.disk.records {
                let (bytes, kept) = match record {
                    Record::Message(message) => (message.to_wire(), BTreeMap::new()),
                    Record::KeyShare(share) => {
                        key_shares += 1;
                        let bytes = share.to_bytes().to_vec();
                        // The search finds what is there.
                        let keys = SplitKeys::new(&shared_keys(&report, member.participant)).dec;
                        for (_, dec) in keys {
                            assert!(bytes.windows(32).any(|window| window == dec.expose()));
                        }
                        (bytes, BTreeMap::from([(kept_by(member.participant), dimension)]))
                    }
                    Record::KeySet(_) => continue, // public
                };
                let kept = kept.iter().map(|(name, count)| (name.as_str(), *count)).collect();
                assert_eq!(secrets.find(&bytes), kept, "on the disk of {}", member.participant);
            }
            assert_eq!(key_shares, 1);
        }
    }
}
