//! A stage that is left erases what it held, and an input that does not belong to a stage changes
//! nothing. Whole ceremonies, with faults, are in the `tests` crate.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    vec,
};

use veil_committee::prf::SetKey;
use veil_committee_machine::{Effect, Machine, Verdict};
use veil_committee_world::{End, Host, Physics, Schedule, World};
use veil_protocol_spec::{
    Attempt, Blake3Digest, Committee, Epoch, ParticipantIndex, Wire,
    ceremony::{
        AbortReason, CeremonyMessage, CeremonyParameters, ChunkId, Round, SignedMessage, Stream,
    },
    codec::Bytes,
    identity::SecretIdentity,
};
use zeroize::{ZeroizeOnDrop, Zeroizing};

use super::{
    Ceremony,
    interface::{CeremonyEffect, CommitPoint, Record, Stage},
    state::State,
};
use crate::{
    chunks::Chunk,
    engine::{BitStream, BodyOpener, BodyStream, OpenBitsError},
    keyset::{ParameterSet, Section, SectionBody},
    seed::CeremonySeed,
    setup::{Setup, Skip, Timing},
    shares::{bits::DeriveError, keys::StreamKeys, opening::InconsistentShares},
    store::MemoryStore,
    transcript::FinishCertificate,
};

const TIMING: Timing = Timing { round: 10_000, retry: 1_000 };

/// The members of a ceremony, until the first has come to a certain stage.
pub(crate) struct Members {
    committee: Committee,
    machines: vec::IntoIter<Ceremony>,
    is_reached: Box<dyn Fn(Stage) -> bool>,
}

impl Members {
    fn until(is_reached: impl Fn(Stage) -> bool + 'static) -> World<Self> {
        Self::of(Committee::ALL[1], is_reached)
    }

    fn of(committee: Committee, is_reached: impl Fn(Stage) -> bool + 'static) -> World<Self> {
        let params = ParameterSet::insecure_short();
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
        let machine = |(seed, identity): (u8, &SecretIdentity)| {
            let (parameters, params) = (parameters.clone(), params.clone());
            let setup = Setup::new(parameters, params, Attempt(0), identity, TIMING).unwrap();
            let store = Box::<MemoryStore>::default();
            let seed = CeremonySeed::new([seed; 32]);
            Ceremony::new(Arc::new(setup), identity.clone(), seed, store, 0)
        };
        let machines: Vec<_> = (100..).zip(&identities).map(machine).collect();
        let (machines, is_reached) = (machines.into_iter(), Box::new(is_reached));
        let host = Self { committee, machines, is_reached };
        World::new(host, committee, Physics::default(), Vec::new())
    }

    /// What all of a committee broadcast in an attempt without faults. Member j's identity has bytes j.
    pub(crate) fn honest(committee: Committee) -> (CeremonyParameters, Vec<SignedMessage>) {
        let mut ended = Self::of(committee, |now| now == Stage::Completed).run();
        assert_eq!(ended.end, End::Over);
        let first = ended.machines.swap_remove(0).unwrap();
        (first.setup.parameters.clone(), first.broadcasts().cloned().collect())
    }

    /// The first member when it has come to a stage.
    fn first_in(stage: Stage) -> Ceremony {
        let mut ended = Self::until(move |now| now == stage).run();
        assert_eq!(ended.end, End::Over, "{stage:?} is never entered");
        ended.machines.swap_remove(0).unwrap()
    }
}

impl Host for Members {
    type Machine = Ceremony;
    type Moment = ();

    /// Members start in order, and once.
    fn boot(&mut self, _: ParticipantIndex, _: &mut Schedule<Self>) -> Option<Ceremony> {
        self.machines.next()
    }

    fn special(&mut self, _: ParticipantIndex, effect: CeremonyEffect, world: &mut Schedule<Self>) {
        if let CeremonyEffect::Publish(certificate) = effect {
            for j in self.committee.participants() {
                let decision = CommitPoint::Published(certificate.clone());
                world.input(j, 0, |machine, _| machine.handle_commit_point(decision));
            }
        }
    }

    fn is_over<'a>(&mut self, mut machines: impl Iterator<Item = &'a Ceremony>) -> bool {
        machines.next().is_some_and(|first| (self.is_reached)(first.stage()))
    }
}

/// "Proves tau_j, and erases it": what it is made of is gone while the others contribute.
#[test]
fn the_exponents_key_is_erased_once_a_member_has_contributed() {
    let machine = Members::first_in(Stage::Raise(ParticipantIndex::new(2).unwrap()));
    let State::Raise(_, keyed) = &machine.state else { panic!("{:?}", machine.stage()) };
    assert!(keyed.string.is_none());
}

/// Stands in the place of shares, and counts how often it is dropped.
struct Probe(Arc<AtomicUsize>);

impl Drop for Probe {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl BitStream for Probe {
    fn chunk(&self, _: &Chunk) -> Vec<u8> {
        unreachable!("the stage is left")
    }
    fn open(&mut self, _: &Chunk, _: &[&[u8]]) -> Result<(), OpenBitsError> {
        unreachable!("the stage is left")
    }
    fn derive_keys(
        self: Box<Self>,
        _: &StreamKeys,
        _: &[u8; 32],
    ) -> Result<Box<dyn BodyStream>, DeriveError> {
        unreachable!("the stage is left")
    }
}

impl BodyStream for Probe {
    fn chunk(&self, _: &Chunk) -> Vec<u8> {
        unreachable!("the stage is left")
    }
    fn finish(self: Box<Self>) -> Box<dyn BodyOpener> {
        unreachable!("the stage is left")
    }
}

impl BodyOpener for Probe {
    fn open(
        &self,
        _: &Section,
        _: &Chunk,
        _: &[&[u8]],
        _: &mut SectionBody,
    ) -> Result<(), InconsistentShares> {
        unreachable!("the stage is left")
    }
    fn into_squash_share(self: Box<Self>) -> Zeroizing<Vec<u128>> {
        unreachable!("the stage is left")
    }
}

/// Puts a probe in the place of the stage's shares; `false` if it holds none.
fn plant(state: &mut State, dropped: &Arc<AtomicUsize>) -> bool {
    let probe = Box::new(Probe(Arc::clone(dropped)));
    match state {
        State::ProduceBits(_, secrets)
        | State::BitsRoot(secrets)
        | State::BitsRootEcho(secrets)
        | State::OpenBits(_, secrets) => secrets.stream = probe,
        State::ProduceBodies(_, secrets) => secrets.stream = probe,
        State::BodiesRoot(secrets)
        | State::BodiesRootEcho(secrets)
        | State::OpenBodies(_, _, secrets)
        | State::Assemble(_, secrets) => secrets.opener = probe,
        _ => return false,
    }
    true
}

#[test]
fn an_abort_and_a_drop_erase_the_shares_of_every_stage() {
    let streams = [Stream::Bits, Stream::Bodies];
    let stages = streams
        .iter()
        .flat_map(|stream| [Stage::Produce(*stream, 0), Stage::Produce(*stream, 1)])
        .chain(streams.iter().flat_map(|stream| [Stage::Open(*stream, 0), Stage::Open(*stream, 1)]))
        .chain(streams.iter().map(|stream| Stage::Collect(stream.root_round())))
        .chain([Stage::Collect(Round::BitsRootEcho), Stage::Collect(Round::BodiesRootEcho)])
        .chain([Stage::Assemble]);
    for stage in stages {
        for abort in [true, false] {
            let dropped = Arc::new(AtomicUsize::new(0));
            let mut first = Members::first_in(stage);
            assert!(plant(&mut first.state, &dropped), "{stage:?}");
            assert_eq!(dropped.load(Ordering::Relaxed), 0, "{stage:?}");
            if abort {
                first.handle_commit_point(CommitPoint::Expired);
                assert!(matches!(first.state, State::Aborted), "{stage:?}");
            } else {
                drop(first);
            }
            assert_eq!(dropped.load(Ordering::Relaxed), 1, "{stage:?}");
        }
    }
}

/// The attempt that expires after FINISH leaves no key share in the machine either.
#[test]
fn an_attempt_that_expires_gives_its_key_share_up() {
    for stage in [Stage::Collect(Round::Prove), Stage::Collect(Round::Finish)] {
        let mut first = Members::first_in(stage);
        let key_share = Arc::downgrade(first.key_share().unwrap());
        while first.poll_effect().is_some() {}
        first.handle_commit_point(CommitPoint::Expired);
        let effects: Vec<_> = core::iter::from_fn(|| first.poll_effect()).collect();
        let erases =
            |effect: &Effect<_, _>| matches!(effect, Effect::Special(CeremonyEffect::VoidKeyShare));
        assert!(effects.iter().any(erases), "{stage:?}");
        drop(effects);
        assert!(key_share.upgrade().is_none(), "{stage:?}");
        assert!(first.key_share().is_none() && first.key_set().is_none());
    }
}

/// A member whose ABORT is on disk ends the attempt after a restart as well: its host tells the chain, and
/// takes part in the next one.
#[test]
fn a_restart_after_an_abort_ends_the_attempt_again() {
    for stage in [Stage::Collect(Round::Deal), Stage::Collect(Round::Prove)] {
        let mut first = Members::first_in(stage);
        let records: Vec<_> = {
            let mut records: Vec<_> = first.broadcasts().cloned().collect();
            while first.poll_effect().is_some() {}
            first.abort(AbortReason::Expired);
            while let Some(effect) = first.poll_effect() {
                if let Effect::Persist { record: Record::Message(message), .. } = effect {
                    records.push(*message);
                }
            }
            records.into_iter().map(|message| Record::Message(Box::new(message))).collect()
        };
        let (setup, identity) = (Arc::clone(&first.setup), first.identity.clone());
        let store = Box::<MemoryStore>::default();
        let mut again = Ceremony::resume(setup, identity, None, store, records, 0).unwrap();
        assert_eq!(again.stage(), Stage::Aborted);
        let effects: Vec<_> = core::iter::from_fn(|| again.poll_effect()).collect();
        let [Effect::Broadcast(_), Effect::Special(CeremonyEffect::Abort(report))] = &effects[..]
        else {
            panic!("{stage:?}: {} effects", effects.len())
        };
        assert_eq!(report.reason, AbortReason::Expired);
        // Whatever comes from the chain later changes nothing.
        again.handle_commit_point(CommitPoint::Expired);
        assert!(again.poll_effect().is_none());
    }
}

/// What the early stages hold erases itself; the compiler checks it.
#[test]
fn seeds_and_keys_are_zeroized_on_drop() {
    const fn is_erased<T: ZeroizeOnDrop>() {}
    is_erased::<CeremonySeed>();
    is_erased::<SetKey>();
    is_erased::<Zeroizing<Vec<u128>>>();
}

/// At any time, so in every stage: nothing that belongs to another one has an effect.
#[test]
fn untimely_inputs_change_nothing() {
    let stages = Arc::new(Mutex::new(Vec::new()));
    let mut world = Members::until(|_| false);
    for at in 0..3_000 {
        let stages = Arc::clone(&stages);
        world.schedule().input(
            Committee::ALL[1].participants().next().unwrap(),
            at,
            move |machine, _| {
                refuse_untimely_inputs(machine);
                stages.lock().unwrap().push(machine.stage());
            },
        );
    }
    assert_eq!(world.run().end, End::Rest);
    let mut seen = stages.lock().unwrap();
    seen.dedup();
    assert!(seen.len() > 18 && seen.last() == Some(&Stage::Completed), "{seen:?}");
}

fn refuse_untimely_inputs(machine: &mut Ceremony) {
    let (stage, peer) = (machine.stage(), ParticipantIndex::new(2).unwrap());
    // A machine has effects from its construction.
    let pending = machine.effects.len();
    let (ceremony, attempt) = (machine.setup.id, machine.setup.attempt);
    let closed = match stage {
        Stage::Open(Stream::Bits, _) => Stream::Bodies,
        _ => Stream::Bits,
    };
    let id = |stream, index| ChunkId { ceremony, attempt, stream, sender: peer, index };
    let chunk = |id| CeremonyMessage::Chunk { id, bytes: Bytes(vec![1; 32]) };
    let mut given = |message: CeremonyMessage| machine.handle(peer, &message.to_wire(), 0);
    if !matches!(stage, Stage::Open(Stream::Bodies, _)) {
        assert_eq!(given(chunk(id(closed, 0))), Verdict::Skip(Skip::NotWanted), "{stage:?}");
    }
    let beyond = chunk(id(Stream::Bodies, u32::MAX));
    assert_eq!(given(beyond), Verdict::Skip(Skip::NotWanted), "{stage:?}");
    let unknown = CeremonyMessage::ChunkRequest(id(Stream::Bits, u32::MAX));
    assert_eq!(given(unknown), Verdict::Skip(Skip::NotHere), "{stage:?}");
    let sender = ParticipantIndex::new(3).unwrap();
    let abort = CeremonyMessage::Request { ceremony, attempt, round: Round::Abort, sender };
    assert_eq!(given(abort), Verdict::Skip(Skip::NotHere), "{stage:?}");
    machine.handle_timeout(0);
    let (root, signatures) = (Blake3Digest([1; 32]), Vec::new());
    let forged = FinishCertificate { ceremony, attempt, root, signatures };
    machine.handle_commit_point(CommitPoint::Published(Box::new(forged)));
    if machine.has_ended() {
        machine.handle_commit_point(CommitPoint::Expired);
        machine.abort(AbortReason::Expired);
        assert!(!machine.work(0));
    }
    assert_eq!(machine.effects.len(), pending, "{stage:?}");
    assert_eq!(machine.stage(), stage);
}

#[test]
fn a_trickle_of_chunks_does_not_stretch_an_attempt() {
    let mut member = Members::first_in(Stage::Open(Stream::Bodies, 0));
    let first = member.deadline.unwrap();
    let mut chunks = 0;
    loop {
        let at = member.deadline.unwrap();
        // A chunk in the last moment.
        member.prolong(Some(1), at - 1);
        if member.deadline == Some(at) {
            break;
        }
        chunks += 1;
        assert!(chunks < 100, "each chunk gains a round time");
    }
    let end = member.deadline.unwrap();
    assert!(first < end && end <= first + 3 * TIMING.round);
    member.handle_timeout(end);
    assert_eq!(member.stage(), Stage::Aborted);
}
