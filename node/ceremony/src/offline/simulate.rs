//! All members of a ceremony in one process, in the simulated world: each runs the machine that a real
//! member runs, computes everything itself, and talks to the others only in wire bytes. Members run
//! in parallel on all cores.

use std::{collections::BTreeMap, io, path::PathBuf, sync::Arc};

use rand::{RngCore, rngs::OsRng};
use serde::Serialize;
use veil_committee_machine::{Millis, Verdict, VerdictOf};
use veil_committee_world::{Host, Physics, Schedule, World};
use veil_keygen_ceremony::{
    keyset::ParameterSet,
    machine::{AbortReport, Ceremony, CeremonyEffect, CommitPoint, Outcome, Stage},
    seed::CeremonySeed,
    setup::{Setup, SetupError, Timing},
    transcript::{FinishCertificate, Transcript},
};
use veil_node_process::{Stopwatch, peak_rss_bytes};
use veil_protocol_spec::{
    Attempt, Committee, Epoch, ParticipantIndex,
    ceremony::{CeremonyParameters, Stream},
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
    /// How each ended: position j-1 is participant j.
    pub endings: Vec<Result<Outcome, Box<AbortReport>>>,
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

/// How far a simulation is; units are chunks computed and opened by all members.
#[derive(Clone, Debug)]
pub struct SimulationProgress {
    /// What participant 1 does.
    pub stage: String,
    /// Chunks done.
    pub done: u64,
    /// Chunks in all.
    pub total: u64,
}

/// Time a member waits for a round: virtual, so that only silence runs into it.
const TIMING: Timing = Timing { round: 600_000, retry: 5_000 };
/// When the commit point gives the attempt up.
const DEADLINE: Millis = 100 * TIMING.round;

/// Runs a ceremony to its end.
///
/// # Errors
/// [`SimulateError`]; how the ceremony itself ended is in the result.
pub fn run(
    options: &Options,
    progress: &dyn Fn(&SimulationProgress),
) -> Result<Simulation, SimulateError> {
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
    let identities: Vec<SecretIdentity> = committee
        .participants()
        .map(|j| {
            // A uniform value is no secret key with probability 2^-128.
            SecretIdentity::from_bytes(&random("identity", j.get()))
                .expect("a uniform 32-byte value is below the group order")
        })
        .collect();
    let parameters = CeremonyParameters {
        committee,
        parameters: options.params.name().to_owned(),
        parameters_digest: options.params.digest(),
        roster: identities.iter().map(SecretIdentity::public).collect(),
        epoch: Epoch(0),
        context: *random("context", 0),
    };
    let watch = Stopwatch::start();
    let setups: Vec<Arc<Setup>> = identities
        .iter()
        .map(|identity| {
            let params = options.params.clone();
            Setup::new(parameters.clone(), params, Attempt(0), identity, TIMING).map(Arc::new)
        })
        .collect::<Result<_, _>>()?;
    let plan = setups[0].plan().clone();
    let files = ShareFiles::create(&options.shares, committee, &plan)?;
    let seeds = committee.participants().map(|j| CeremonySeed::new(*random("seed", j.get())));
    let last = setups.last().filter(|_| committee.n() > 1);
    let fault = options.fault.filter(|fault| fault.in_ceremony());
    let misbehaviour = fault.zip(last).map(|(fault, last)| Misbehaviour {
        fault,
        me: last.participant(),
        victim: setups[0].participant(),
        identity: identities[committee.n() - 1].clone(),
        store: Box::new(files.reader()),
        forged_root: None,
    });
    let chunks = |stream| plan.of(stream).len() as u64;
    let host = Members {
        seeds: seeds.map(Some).collect(),
        setups,
        identities: &identities,
        files,
        misbehaviour,
        published: false,
        endings: vec![None; committee.n()],
        refused: Vec::new(),
        progress,
        chunks: [chunks(Stream::Bits), chunks(Stream::Bodies)],
        stages: Vec::new(),
        stage: "",
        stage_watch: Stopwatch::start(),
    };
    // Nothing takes virtual time, which passes when nobody has anything to do; an instant network
    // draws nothing. A member does four pieces of work before it looks at its messages again.
    let physics = Physics { pieces: 4, ..Physics::INSTANT };
    let mut world = World::new("simulate", host, committee, physics, Vec::new(), [0; 32]);
    world.schedule().event(DEADLINE, CommitPoint::Expired);
    world.run();
    let (cpu_seconds, wall_seconds) = (watch.cpu(), watch.wall());
    let bytes_sent = committee.participants().map(|j| world.traffic(j).bytes).collect();
    let members = committee.participants().filter_map(|j| world.take_machine(j)).collect();
    let (host, _) = world.end();
    let Members { endings, refused, stages, .. } = host;
    Ok(Simulation {
        members,
        parameters,
        endings: endings.into_iter().flatten().collect(),
        refused,
        stages,
        bytes_sent,
        cpu_seconds,
        wall_seconds,
        peak_rss_bytes: peak_rss_bytes(),
        identities,
    })
}

/// What surrounds the members' machines. Their memory is the disk of this process: nothing here
/// survives it.
struct Members<'a> {
    setups: Vec<Arc<Setup>>,
    identities: &'a [SecretIdentity],
    seeds: Vec<Option<CeremonySeed>>,
    files: Arc<ShareFiles>,
    /// Of the last member.
    misbehaviour: Option<Misbehaviour>,
    published: bool,
    endings: Vec<Option<Result<Outcome, Box<AbortReport>>>>,
    refused: Vec<(ParticipantIndex, String)>,
    progress: &'a dyn Fn(&SimulationProgress),
    /// Chunks of bits and of bodies, of each member.
    chunks: [u64; 2],
    stages: Vec<(String, StageTime)>,
    /// What participant 1 has been doing since the watch was started.
    stage: &'static str,
    stage_watch: Stopwatch,
}

impl Host for Members<'_> {
    type Machine = Ceremony;
    type Input = CommitPoint;
    type Event = CommitPoint;
    type Moment = ();

    fn boot(&mut self, j: ParticipantIndex, schedule: &mut Schedule<Self>) -> Option<Ceremony> {
        let seed = self.seeds[j.position()].take()?;
        let setup = Arc::clone(&self.setups[j.position()]);
        let identity = self.identities[j.position()].clone();
        let store = Box::new(self.files.member());
        Some(Ceremony::new(setup, identity, seed, store, schedule.now()))
    }

    fn input(machine: &mut Ceremony, decision: CommitPoint, _now: Millis) {
        machine.handle_commit_point(decision);
    }

    fn special(
        &mut self,
        j: ParticipantIndex,
        effect: CeremonyEffect,
        schedule: &mut Schedule<Self>,
    ) {
        match effect {
            // The commit point decides when nobody has anything else to do.
            CeremonyEffect::Publish(certificate) => {
                schedule.event(1, CommitPoint::Published(certificate));
            }
            CeremonyEffect::Complete(outcome) => self.endings[j.position()] = Some(Ok(*outcome)),
            CeremonyEffect::Abort(report) => self.endings[j.position()] = Some(Err(report)),
            CeremonyEffect::EraseSeed | CeremonyEffect::EraseKeyShare => {}
        }
    }

    fn occur(&mut self, decision: CommitPoint, schedule: &mut Schedule<Self>) {
        if !core::mem::replace(&mut self.published, true) {
            for setup in &self.setups {
                schedule.input(setup.participant(), 0, decision.clone());
            }
        }
    }

    fn leave(
        &mut self,
        from: ParticipantIndex,
        to: ParticipantIndex,
        bytes: &Arc<[u8]>,
        _now: Millis,
    ) -> Vec<Arc<[u8]>> {
        match &mut self.misbehaviour {
            Some(misbehaviour) if misbehaviour.me == from => {
                misbehaviour.replace(to, bytes).into_iter().collect()
            }
            _ => vec![Arc::clone(bytes)],
        }
    }

    fn verdict(
        &mut self,
        j: ParticipantIndex,
        _from: ParticipantIndex,
        verdict: VerdictOf<Ceremony>,
    ) {
        if let Verdict::Fault(fault) = verdict {
            self.refused.push((j, fault.to_string()));
        }
    }

    fn observe<'b>(&mut self, machines: impl Iterator<Item = &'b Ceremony>) {
        let (mut done, mut stage) = (0, None);
        for machine in machines {
            stage.get_or_insert(machine.stage().name());
            done += chunks_done(machine, self.chunks);
        }
        let Some(stage) = stage else { return };
        let before = core::mem::replace(&mut self.stage, stage);
        let watch = core::mem::replace(&mut self.stage_watch, Stopwatch::start());
        record(&mut self.stages, if before.is_empty() { stage } else { before }, &watch);
        let [bits, bodies] = self.chunks;
        let total = 2 * self.setups.len() as u64 * (bits + bodies);
        (self.progress)(&SimulationProgress { stage: stage.to_owned(), done, total });
    }

    fn is_over(&self) -> bool {
        self.endings.iter().all(Option::is_some)
    }
}

fn record(stages: &mut Vec<(String, StageTime)>, name: &str, watch: &Stopwatch) {
    let position = stages.iter().position(|(known, _)| known == name).unwrap_or_else(|| {
        stages.push((name.to_owned(), StageTime::default()));
        stages.len() - 1
    });
    let time = &mut stages[position].1;
    time.wall_seconds += watch.wall();
    time.cpu_seconds += watch.cpu();
}

/// Chunks that a member has computed and opened.
fn chunks_done(machine: &Ceremony, [bits, bodies]: [u64; 2]) -> u64 {
    let order: BTreeMap<&str, u64> = BTreeMap::from([
        ("bits-root", bits),
        ("bits-root-echo", bits),
        ("bodies-root", 2 * bits + bodies),
        ("bodies-root-echo", 2 * bits + bodies),
    ]);
    match machine.stage() {
        Stage::Produce(Stream::Bits, next) => u64::from(next),
        Stage::Open(Stream::Bits, next) => bits + u64::from(next),
        Stage::Produce(Stream::Bodies, next) => 2 * bits + u64::from(next),
        Stage::Open(Stream::Bodies, next) => 2 * bits + bodies + u64::from(next),
        Stage::Collect(round) if round < veil_protocol_spec::ceremony::Round::BitsRoot => 0,
        Stage::Collect(round) => order.get(round.name()).copied().unwrap_or(2 * (bits + bodies)),
        _ => 2 * (bits + bodies),
    }
}
