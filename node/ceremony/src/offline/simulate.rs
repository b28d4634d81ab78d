//! All members of a ceremony in one process, over an in-memory network with virtual time: each runs
//! the machine that a real member runs, computes everything itself, and talks to the others only in
//! wire bytes. Members run in parallel on all cores.

use std::{collections::BTreeMap, io, path::PathBuf, sync::Arc};

use rand::{RngCore, rngs::OsRng};
use rayon::prelude::*;
use serde::Serialize;
use veil_committee_machine::{Effect, Machine, Millis, Verdict};
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

struct Member {
    machine: Ceremony,
    inbox: Vec<(ParticipantIndex, Arc<[u8]>)>,
    refused: Vec<String>,
    misbehaviour: Option<Misbehaviour>,
    busy: bool,
}

/// Pieces of work a member does before it looks at its messages again.
const PIECES: usize = 4;

impl Member {
    fn step(&mut self, now: Millis) {
        self.busy = !self.inbox.is_empty();
        for (from, bytes) in self.inbox.drain(..) {
            if let Verdict::Fault(fault) = self.machine.handle(from, &bytes, now) {
                self.refused.push(fault.to_string());
            }
        }
        for _ in 0..PIECES {
            if !self.machine.work(now) {
                break;
            }
            self.busy = true;
        }
    }
}

/// Time a member waits for a round: virtual, so that only silence runs into it.
const TIMING: Timing = Timing { round: 600_000, retry: 5_000 };

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
    let last = committee.n() - 1;
    let mut members: Vec<Member> = setups
        .iter()
        .zip(&identities)
        .enumerate()
        .map(|(i, (setup, identity))| {
            let seed = CeremonySeed::new(*random("seed", i as u8 + 1));
            let store = Box::new(files.member());
            let fault = options.fault.filter(|fault| i == last && fault.in_ceremony());
            Member {
                machine: Ceremony::new(Arc::clone(setup), identity.clone(), seed, store, 0),
                inbox: Vec::new(),
                refused: Vec::new(),
                misbehaviour: fault.map(|fault| Misbehaviour {
                    fault,
                    me: setup.participant(),
                    victim: setups[0].participant(),
                    identity: identity.clone(),
                    store: Box::new(files.reader()),
                    forged_root: None,
                }),
                busy: true,
            }
        })
        .collect();
    let chunks = |stream| plan.of(stream).len() as u64;
    let total = 2 * committee.n() as u64 * (chunks(Stream::Bits) + chunks(Stream::Bodies));
    let mut endings: Vec<Option<Result<Outcome, Box<AbortReport>>>> = vec![None; committee.n()];
    let mut bytes_sent = vec![0u64; committee.n()];
    let mut stages: Vec<(String, StageTime)> = Vec::new();
    let mut stage_watch = Stopwatch::start();
    let mut published: Option<Box<FinishCertificate>> = None;
    let mut now = 0;
    loop {
        let before = members[0].machine.stage().name();
        members.par_iter_mut().for_each(|member| member.step(now));
        for i in 0..members.len() {
            while let Some(effect) = members[i].machine.poll_effect() {
                let me = members[i].machine.participant();
                let effect = match &mut members[i].misbehaviour {
                    Some(misbehaviour) => misbehaviour.rewrite(effect),
                    None => Some(effect),
                };
                members[i].busy = true;
                match effect {
                    Some(Effect::Send { to, bytes }) => {
                        bytes_sent[i] += bytes.len() as u64;
                        members[to.position()].inbox.push((me, bytes));
                    }
                    Some(Effect::Broadcast(bytes)) => {
                        for (other, member) in members.iter_mut().enumerate() {
                            if other != i {
                                bytes_sent[i] += bytes.len() as u64;
                                member.inbox.push((me, Arc::clone(&bytes)));
                            }
                        }
                    }
                    Some(Effect::Special(effect)) => match effect {
                        CeremonyEffect::Publish(certificate) => published = Some(certificate),
                        CeremonyEffect::Complete(outcome) => endings[i] = Some(Ok(*outcome)),
                        CeremonyEffect::Abort(report) => endings[i] = Some(Err(report)),
                        CeremonyEffect::EraseSeed | CeremonyEffect::EraseKeyShare => {}
                    },
                    // The machines' memory is the disk of this process: nothing here survives it.
                    Some(Effect::Persist { .. }) | None => {}
                }
            }
        }
        record(&mut stages, before, &mut stage_watch);
        let done = members.iter().map(|member| chunks_done(&member.machine, &chunks)).sum();
        progress(&SimulationProgress {
            stage: members[0].machine.stage().name().to_owned(),
            done,
            total,
        });
        if endings.iter().all(Option::is_some) {
            break;
        }
        if members.iter().any(|member| member.busy || !member.inbox.is_empty()) {
            continue;
        }
        // Nobody has anything to do: the commit point decides, or time passes.
        if let Some(certificate) = published.take() {
            for member in &mut members {
                member.machine.handle_commit_point(CommitPoint::Published(certificate.clone()));
            }
        } else if let Some(at) =
            members.iter().filter_map(|member| member.machine.poll_timeout()).min()
        {
            now = now.max(at);
            members.iter_mut().for_each(|member| member.machine.handle_timeout(now));
            if now > 100 * TIMING.round {
                expire(&mut members);
            }
        } else {
            expire(&mut members);
        }
    }
    let (cpu_seconds, wall_seconds) = (watch.cpu(), watch.wall());
    let refused = members
        .iter_mut()
        .flat_map(|member| {
            let j = member.machine.participant();
            member.refused.drain(..).map(move |reason| (j, reason)).collect::<Vec<_>>()
        })
        .collect();
    Ok(Simulation {
        members: members.into_iter().map(|member| member.machine).collect(),
        identities,
        parameters,
        endings: endings.into_iter().flatten().collect(),
        refused,
        stages,
        bytes_sent,
        cpu_seconds,
        wall_seconds,
        peak_rss_bytes: peak_rss_bytes(),
    })
}

fn expire(members: &mut [Member]) {
    members.iter_mut().for_each(|member| member.machine.handle_commit_point(CommitPoint::Expired));
}

fn record(stages: &mut Vec<(String, StageTime)>, name: &str, watch: &mut Stopwatch) {
    let (wall, cpu) = (watch.wall(), watch.cpu());
    *watch = Stopwatch::start();
    let position = stages.iter().position(|(known, _)| known == name).unwrap_or_else(|| {
        stages.push((name.to_owned(), StageTime::default()));
        stages.len() - 1
    });
    let time = &mut stages[position].1;
    time.wall_seconds += wall;
    time.cpu_seconds += cpu;
}

/// Chunks that a member has computed and opened.
fn chunks_done(machine: &Ceremony, chunks: &impl Fn(Stream) -> u64) -> u64 {
    let (bits, bodies) = (chunks(Stream::Bits), chunks(Stream::Bodies));
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
