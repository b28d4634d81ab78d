//! All members of a ceremony in one process, in the simulated world: each runs the machine that a real
//! member runs, computes everything itself, and talks to the others only in wire bytes. Members run
//! in parallel on all cores.

use std::{io, path::PathBuf, sync::Arc, vec};

use rand::{RngCore, rngs::OsRng};
use serde::Serialize;
use veil_committee_machine::{Millis, Verdict, VerdictOf};
use veil_committee_world::{Host, Mail, Physics, Schedule, World};
use veil_keygen_ceremony::{
    blame::{Proof, proven},
    keyset::ParameterSet,
    machine::{AbortReport, Ceremony, CeremonyEffect, CommitPoint, Outcome, Stage},
    seed::CeremonySeed,
    setup::{Setup, SetupError, Timing},
    transcript::{FinishCertificate, Transcript},
};
use veil_node_process::{Stopwatch, peak_rss_bytes};
use veil_protocol_spec::{
    Attempt, Committee, Epoch, ParticipantIndex,
    ceremony::{CeremonyParameters, Round, Stream},
    domain,
    identity::SecretIdentity,
};
use zeroize::Zeroizing;

use crate::offline::{
    misbehaviour::{FaultName, Misbehaviour},
    share_files::ShareFiles,
};

/// What to simulate.
#[derive(Clone, Debug)]
pub struct Options {
    /// Size and thresholds.
    pub committee: Committee,
    /// The FHE parameter set.
    pub params: ParameterSet,
    /// Makes the run reproducible, and the key known to whoever knows the seed.
    pub seed: Option<[u8; 32]>,
    /// Folder for the share streams.
    pub shares: PathBuf,
    /// Fault of the last participant.
    pub fault: Option<FaultName>,
}

/// Wall and CPU seconds of a stage, waiting included.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct StageTime {
    /// Wall seconds.
    pub wall_seconds: f64,
    /// CPU seconds of all members together.
    pub cpu_seconds: f64,
}

/// What came out.
pub struct Simulation {
    /// The members, each with its key share if it finished.
    pub members: Vec<Ceremony>,
    /// Their identities.
    pub identities: Vec<SecretIdentity>,
    /// What they agreed on beforehand.
    pub parameters: CeremonyParameters,
    /// The FHE parameter set.
    pub params: ParameterSet,
    /// How each ended: position j-1 is participant j.
    pub endings: Vec<Result<Outcome, Box<AbortReport>>>,
    /// After an ABORT: whom the members' messages prove to have deviated.
    pub proofs: Vec<Proof>,
    /// Messages that members refused, by receiver and reason.
    pub refused: Vec<(ParticipantIndex, String)>,
    /// Time of each stage, in order of first entry by participant 1.
    pub stages: Vec<(String, StageTime)>,
    /// Bytes each member sent.
    pub bytes_sent: Vec<u64>,
    /// CPU seconds of all members.
    pub cpu_seconds: f64,
    /// Wall seconds.
    pub wall_seconds: f64,
    /// Peak resident set at the end of the ceremony.
    pub peak_rss_bytes: u64,
}

impl Simulation {
    /// The certificate, if every member completed.
    #[must_use]
    pub fn certificate(&self) -> Option<&FinishCertificate> {
        let first = self.endings.first()?.as_ref().ok()?;
        self.endings.iter().all(Result::is_ok).then_some(&first.certificate)
    }

    /// What some stages took together.
    #[must_use]
    pub fn time_of(&self, stages: &[&str]) -> StageTime {
        let of = self.stages.iter().filter(|(name, _)| stages.contains(&name.as_str()));
        of.fold(StageTime::default(), |sum, (_, time)| StageTime {
            wall_seconds: sum.wall_seconds + time.wall_seconds,
            cpu_seconds: sum.cpu_seconds + time.cpu_seconds,
        })
    }

    /// The transcript as a member has it.
    #[must_use]
    pub fn transcript(&self, member: &Ceremony) -> Transcript {
        Transcript {
            parameters: self.parameters.clone(),
            attempt: Attempt(0),
            messages: member.broadcasts().cloned().collect(),
        }
    }
}

/// Why a simulation cannot run.
#[derive(Debug, thiserror::Error)]
pub enum SimulateError {
    /// The share streams cannot be stored.
    #[error("the share streams cannot be stored: {0}")]
    Shares(#[from] io::Error),
    /// The setup is wrong.
    #[error(transparent)]
    Setup(#[from] SetupError),
    /// A fault needs others that notice it.
    #[error("--fault needs at least 4 members")]
    FaultAlone,
}

/// How far a simulation is: what participant 1 does, and how many chunks of how many all members have
/// computed and opened.
pub type Progress<'a> = dyn Fn(&str, u64, u64) + 'a;

/// Time a member waits for a round: virtual, so that only silence runs into it.
const TIMING: Timing = Timing { round: 600_000, retry: 5_000 };
/// When the commit point gives the attempt up.
const DEADLINE: Millis = 100 * TIMING.round;

/// Runs a ceremony to its end.
///
/// # Errors
/// [`SimulateError`]; how the ceremony itself ended is in the result.
pub fn run(options: &Options, progress: &Progress<'_>) -> Result<Simulation, SimulateError> {
    let committee = options.committee;
    if options.fault.is_some() && committee.n() < 4 {
        return Err(SimulateError::FaultAlone);
    }
    let random = |purpose: &str, j: u8| -> Zeroizing<[u8; 32]> {
        let mut bytes = Zeroizing::new([0; 32]);
        match &options.seed {
            Some(seed) => {
                *bytes = domain::hash_parts(domain::SIMULATION, &[seed, purpose.as_bytes(), &[j]]);
            }
            None => OsRng.fill_bytes(&mut *bytes),
        }
        bytes
    };
    let identity = |j: ParticipantIndex| {
        // A uniform value is no secret key with probability 2^-128.
        SecretIdentity::from_bytes(&random("identity", j.get()))
            .expect("a uniform 32-byte value is below the group order")
    };
    let identities: Vec<SecretIdentity> = committee.participants().map(identity).collect();
    let parameters = CeremonyParameters {
        committee,
        parameters: options.params.name().to_owned(),
        parameters_digest: options.params.digest(),
        roster: identities.iter().map(SecretIdentity::public).collect(),
        epoch: Epoch(0),
        context: *random("context", 0),
    };
    let watch = Stopwatch::start();
    let setup = |identity| {
        let (parameters, params) = (parameters.clone(), options.params.clone());
        Setup::new(parameters, params, Attempt(0), identity, TIMING).map(Arc::new)
    };
    let setups: Vec<Arc<Setup>> = identities.iter().map(setup).collect::<Result<_, _>>()?;
    let plan = setups[0].plan().clone();
    let files = ShareFiles::create(&options.shares, committee, &plan)?;
    let machine = |(setup, identity): (&Arc<Setup>, &SecretIdentity)| {
        let seed = CeremonySeed::new(*random("seed", setup.participant().get()));
        Ceremony::new(Arc::clone(setup), identity.clone(), seed, Box::new(files.member()), 0)
    };
    let machines: Vec<Ceremony> = setups.iter().zip(&identities).map(machine).collect();
    let fault = options.fault.filter(|fault| fault.in_ceremony());
    let misbehaviour = fault.map(|fault| Misbehaviour {
        fault,
        me: setups[committee.n() - 1].participant(),
        victim: setups[0].participant(),
        identity: identities[committee.n() - 1].clone(),
        store: Box::new(files.reader()),
        forged_root: None,
    });
    let chunks = |stream| plan.of(stream).len() as u64;
    let host = Members {
        committee,
        stage: machines[0].stage().name(),
        machines: machines.into_iter(),
        misbehaviour,
        decided: false,
        endings: vec![None; committee.n()],
        refused: Vec::new(),
        progress,
        chunks: [chunks(Stream::Bits), chunks(Stream::Bodies)],
        stages: Vec::new(),
        stage_watch: Stopwatch::start(),
    };
    // Nothing takes virtual time, which passes when nobody has anything to do; an instant network
    // draws nothing. A member does four pieces of work before it looks at its messages again.
    let physics = Physics { pieces: 4, ..Physics::INSTANT };
    let mut world = World::new(host, committee, physics, Vec::new());
    world.schedule().event(None, DEADLINE, |members, world| {
        members.decide(&CommitPoint::Expired, world);
    });
    let ended = world.run();
    let (cpu_seconds, wall_seconds) = (watch.cpu(), watch.wall());
    let Members { endings, refused, stages, .. } = ended.host;
    let members: Vec<Ceremony> = ended.machines.into_iter().flatten().collect();
    let endings: Vec<_> = endings.into_iter().flatten().collect();
    let proofs = prove(&members, &endings, &parameters, &options.params)?;
    Ok(Simulation {
        members,
        parameters,
        params: options.params.clone(),
        endings,
        proofs,
        refused,
        stages,
        bytes_sent: ended.traffic.iter().map(|traffic| traffic.bytes).collect(),
        cpu_seconds,
        wall_seconds,
        peak_rss_bytes: peak_rss_bytes(),
        identities,
    })
}

/// Blame of a failed attempt, over what members hold of each other: a culprit shows nobody what it did not send.
fn prove(
    members: &[Ceremony],
    endings: &[Result<Outcome, Box<AbortReport>>],
    parameters: &CeremonyParameters,
    params: &ParameterSet,
) -> Result<Vec<Proof>, SetupError> {
    if endings.iter().all(Result::is_ok) {
        return Ok(Vec::new());
    }
    let messages = members.iter().zip(endings).flat_map(|(member, ending)| {
        let evidence = ending.as_ref().err().into_iter().flat_map(|report| &report.evidence);
        let all = member.broadcasts().chain(evidence);
        all.filter(|message| message.header.sender != member.participant())
    });
    let messages: Vec<_> = messages.collect();
    proven(parameters, params, Attempt(0), &messages)
}

/// What surrounds the members' machines. Their memory is the disk of this process: nothing here
/// survives it.
struct Members<'a> {
    committee: Committee,
    machines: vec::IntoIter<Ceremony>,
    /// Of the last member.
    misbehaviour: Option<Misbehaviour>,
    decided: bool,
    endings: Vec<Option<Result<Outcome, Box<AbortReport>>>>,
    refused: Vec<(ParticipantIndex, String)>,
    progress: &'a Progress<'a>,
    /// Chunks of bits and of bodies, of each member.
    chunks: [u64; 2],
    stages: Vec<(String, StageTime)>,
    /// What participant 1 has been doing since the watch was started.
    stage: &'static str,
    stage_watch: Stopwatch,
}

impl Host for Members<'_> {
    type Machine = Ceremony;
    type Moment = ();

    /// Members start in order, and once.
    fn boot(&mut self, _: ParticipantIndex, _: &mut Schedule<Self>) -> Option<Ceremony> {
        self.machines.next()
    }

    fn special(&mut self, j: ParticipantIndex, effect: CeremonyEffect, world: &mut Schedule<Self>) {
        match effect {
            // The commit point decides when nobody has anything else to do.
            CeremonyEffect::Publish(certificate) => {
                world.event(None, 1, |members, world| {
                    members.decide(&CommitPoint::Published(certificate), world);
                });
            }
            CeremonyEffect::Complete(outcome) => self.endings[j.position()] = Some(Ok(*outcome)),
            CeremonyEffect::Abort(report) => self.endings[j.position()] = Some(Err(report)),
            CeremonyEffect::EraseSeed | CeremonyEffect::VoidKeyShare => {}
        }
    }

    fn leave(&mut self, mail: Mail, world: &mut Schedule<Self>) {
        let bytes = match &mut self.misbehaviour {
            Some(misbehaviour) if misbehaviour.me == mail.from => {
                misbehaviour.replace(mail.to, &mail.bytes)
            }
            _ => Some(Arc::clone(&mail.bytes)),
        };
        if let Some(bytes) = bytes {
            world.post(Mail { bytes, ..mail }, 0);
        }
    }

    fn verdict(&mut self, mail: &Mail, verdict: VerdictOf<Ceremony>) {
        if let Verdict::Fault(fault) = verdict {
            self.refused.push((mail.to, fault.to_string()));
        }
    }

    fn is_over<'b>(&mut self, machines: impl Iterator<Item = &'b Ceremony>) -> bool {
        let now_in: Vec<Stage> = machines.map(Ceremony::stage).collect();
        let before = core::mem::replace(&mut self.stage, now_in[0].name());
        let watch = core::mem::replace(&mut self.stage_watch, Stopwatch::start());
        // No stage comes again.
        if self.stages.last().is_none_or(|(name, _)| name != before) {
            self.stages.push((before.to_owned(), StageTime::default()));
        }
        if let Some((_, time)) = self.stages.last_mut() {
            time.wall_seconds += watch.wall();
            time.cpu_seconds += watch.cpu();
        }
        let [bits, bodies] = self.chunks;
        let total = 2 * now_in.len() as u64 * (bits + bodies);
        let done = now_in.into_iter().map(|stage| chunks_done(stage, self.chunks)).sum();
        (self.progress)(self.stage, done, total);
        self.endings.iter().all(Option::is_some)
    }
}

impl Members<'_> {
    /// What comes first decides.
    fn decide(&mut self, decision: &CommitPoint, world: &mut Schedule<Self>) {
        if !core::mem::replace(&mut self.decided, true) {
            for j in self.committee.participants() {
                let decision = decision.clone();
                world.input(j, 0, |machine, _| machine.handle_commit_point(decision));
            }
        }
    }
}

/// Chunks that a member has computed and opened by then.
fn chunks_done(stage: Stage, [bits, bodies]: [u64; 2]) -> u64 {
    match stage {
        Stage::Collect(round) if round < Round::BitsRoot => 0,
        Stage::Raise(_) | Stage::CheckReferenceString => 0,
        Stage::Produce(Stream::Bits, next) => u64::from(next),
        Stage::Collect(Round::BitsRoot | Round::BitsRootEcho) => bits,
        Stage::Open(Stream::Bits, next) => bits + u64::from(next),
        Stage::Produce(Stream::Bodies, next) => 2 * bits + u64::from(next),
        Stage::Collect(Round::BodiesRoot | Round::BodiesRootEcho) => 2 * bits + bodies,
        Stage::Open(Stream::Bodies, next) => 2 * bits + bodies + u64::from(next),
        _ => 2 * (bits + bodies),
    }
}
