//! What operators of the world want.

use std::{
    collections::{BTreeMap, BTreeSet},
    num::NonZeroU16,
    sync::Arc,
};

use rand::Rng;
use rand_chacha::ChaCha20Rng;
use veil_committee_slot::demand::{AllowedImages, JobDemand};
use veil_protocol_spec::{
    Address, Blake3Digest,
    scheduling::{
        ClusterPolicy, ClusterState, CpuUnits, DiskUnits, GpuUnits, HostPort, JobSpec, JobType,
        LeasePolicy, MemoryUnits, Overlap, Port, Priority, Protocol, ResourceRequest, Resources,
        RestartMode, RestartPolicy, Submission, UpdatePolicy,
    },
};

use super::{
    Demand, SlotScenario,
    periodic::{self, Periodic, Timed},
};
use crate::fixtures;

/// More memory than any worker of the world has.
const TOO_MUCH: u16 = 150;
/// How long an exclusive replica runs without contact.
const LEASE_SECONDS: u32 = 60;

/// What a program is told that is never healthy.
const BROKEN: &str = "breaks";
const PORT: NonZeroU16 = NonZeroU16::new(8_080).expect("not 0");

/// Who submits the jobs.
const OPERATOR: Address = Address([3; 20]);

const fn replaces(kind: &JobType) -> bool {
    matches!(kind, JobType::Periodic { overlap: Overlap::Replace, .. })
}

const fn submission(position: u64, job: Blake3Digest) -> Submission {
    Submission { position, job, operator: OPERATOR, leak_bits: 1_000_000, cancelled: false }
}

pub(super) struct Jobs {
    seed: u64,
    rng: ChaCha20Rng,
    demand: Demand,
    /// Jobs at once.
    wanted: usize,
    /// Most replicas of a job.
    replicas: u16,
    submitted: u64,
    submissions: Vec<Submission>,
    /// The same, shared by blocks and members.
    shared: Arc<Vec<Submission>>,
    /// Whose body is known.
    jobs: BTreeMap<Blake3Digest, JobSpec>,
    policy: ClusterPolicy,
    bodies: Arc<BTreeMap<Blake3Digest, JobDemand>>,
    /// How many of 256 jobs are periodic.
    share: u8,
    periodic: Periodic,
    /// Which job that is updated each one is a version of.
    lines: BTreeMap<Blake3Digest, usize>,
    /// Jobs that were submitted without a body.
    pub(super) bodiless: u64,
}

impl Jobs {
    pub(super) fn new(
        seed: u64,
        rng: ChaCha20Rng,
        scenario: &SlotScenario,
        policy: ClusterPolicy,
    ) -> Self {
        Self {
            seed,
            rng,
            demand: scenario.demand,
            wanted: usize::from(scenario.jobs),
            replicas: scenario.replicas.max(1),
            submitted: 0,
            submissions: Vec::new(),
            shared: Arc::default(),
            jobs: BTreeMap::new(),
            policy,
            bodies: Arc::default(),
            share: scenario.periodic,
            periodic: Periodic::default(),
            lines: BTreeMap::new(),
            bodiless: 0,
        }
    }

    pub(super) fn get(&self, job: &Blake3Digest) -> Option<&JobSpec> {
        self.jobs.get(job)
    }

    /// What the jobs want whose body is known, as of a block of that time, in Unix seconds.
    pub(super) fn bodies(&mut self, time: u64) -> Arc<BTreeMap<Blake3Digest, JobDemand>> {
        self.periodic.bodies(&self.bodies, &self.jobs, &self.policy, time)
    }

    /// The periodic jobs whose body is known, in order.
    pub(super) fn periodic(&self) -> impl Iterator<Item = (&Blake3Digest, &Timed)> {
        self.periodic.all()
    }

    pub(super) fn is_periodic(&self, job: &Blake3Digest) -> bool {
        self.periodic.get(job).is_some()
    }

    pub(super) fn submissions(&self) -> Arc<Vec<Submission>> {
        Arc::clone(&self.shared)
    }

    /// Whether replicas of a job end by themselves.
    pub(super) fn is_batch(&self, job: &Blake3Digest) -> bool {
        self.jobs.get(job).is_some_and(|job| job.kind.ends())
    }

    /// Whether each worker has a replica of a job.
    pub(super) fn is_system(&self, job: &Blake3Digest) -> bool {
        self.jobs.get(job).is_some_and(|job| job.kind == JobType::System)
    }

    /// Whether a replica of a job may get another place while it runs; not if no body is known.
    pub(super) fn moves_running(&self, job: &Blake3Digest) -> bool {
        self.bodies.get(job).is_some_and(|demand| !demand.stops_first())
    }

    /// What a replica of a job takes of CPU, memory, disk and GPU.
    pub(super) fn need(&self, job: &Blake3Digest) -> Option<[u64; 4]> {
        let ResourceRequest::Clear(of) = &self.jobs.get(job)?.request else { return None };
        Some([of.cpu.0.into(), of.memory.0.into(), of.disk.0.into(), of.gpu.0.into()])
    }

    /// For how many milliseconds a replica runs without contact, if it must not run twice.
    pub(super) fn lease(&self, job: &Blake3Digest) -> Option<u64> {
        match self.jobs.get(job)?.lease {
            LeasePolicy::Exclusive { seconds } => Some(u64::from(seconds) * 1_000),
            _ => None,
        }
    }

    /// Lets every job fit everywhere.
    #[cfg(test)]
    pub(super) fn shrink(&mut self) {
        for job in self.jobs.values_mut() {
            if let ResourceRequest::Clear(request) = &mut job.request {
                request.memory = MemoryUnits(1);
            }
        }
    }

    /// One step; `state` is the latest that anybody has.
    pub(super) fn tick(&mut self, state: &ClusterState) {
        let before = self.submitted;
        let active = self.submissions.iter().filter(|s| !s.cancelled).count();
        let mut changed = false;
        match self.demand {
            Demand::Unplaceable | Demand::Flood => {
                let wanted = if self.demand == Demand::Flood { self.wanted } else { 1 };
                for _ in active..wanted {
                    self.submit();
                }
            }
            Demand::Updates | Demand::System => {
                for line in 0..self.wanted {
                    let runs =
                        self.submissions.iter().any(|s| self.lines.get(&s.job) == Some(&line));
                    if !runs {
                        self.submit_version(line);
                    }
                }
                if self.rng.gen_ratio(1, 6) {
                    let line = self.rng.gen_range(0..self.wanted);
                    if self.rng.gen_ratio(1, 12) {
                        changed |= self.withdraw(line, |_| true);
                    } else {
                        self.submit_version(line);
                    }
                }
                // What runs nowhere and is not wanted any more needs not stay submitted.
                let newest: BTreeMap<_, _> = self
                    .submissions
                    .iter()
                    .filter_map(|s| Some((*self.lines.get(&s.job)?, s.position)))
                    .collect();
                let needed = |s: &Submission| {
                    let line = state.line_of(&s.job);
                    let fallback = line.and_then(|line| line.fallback());
                    state.replicas_of(s.job).next().is_some()
                        || line.is_none()
                        || fallback.is_some_and(|of| of.job == s.job)
                        || line.and_then(|line| line.target()).is_some_and(|of| of.job == s.job)
                };
                for line in 0..self.wanted {
                    let last = newest.get(&line).copied();
                    changed |= self.withdraw(line, |s| Some(s.position) != last && !needed(s));
                }
            }
            // Operators withdraw what has run for a while, and submit something else.
            Demand::Mixed if active >= self.wanted => {
                if self.rng.gen_ratio(1, 4) {
                    let k = self.rng.gen_range(0..self.submissions.len());
                    // What is run again and again stays longer.
                    let is_periodic = self.periodic.get(&self.submissions[k].job).is_some();
                    if !is_periodic || self.rng.gen_ratio(1, 8) {
                        self.submissions[k].cancelled = true;
                        changed = true;
                    }
                }
            }
            Demand::Mixed => {
                let burst = if self.submitted == 0 { self.wanted / 2 } else { 1 };
                for _ in 0..burst.max(1) {
                    self.submit();
                }
            }
        }
        if self.submissions.iter().any(|s| s.cancelled) {
            let placed = state.replicas().map(|(job, ..)| job);
            let done = state.done().map(|(job, ..)| job);
            let placed: BTreeSet<_> = placed.chain(done).collect();
            let before = self.submissions.len();
            self.submissions.retain(|s| !s.cancelled || placed.contains(&s.job));
            changed |= self.submissions.len() < before;
        }
        if changed || self.submitted > before {
            let wanted: BTreeSet<_> = self.submissions.iter().map(|s| s.job).collect();
            self.jobs.retain(|job, _| wanted.contains(job));
            self.lines.retain(|job, _| wanted.contains(job));
            let demand = |job| JobDemand::of(job, &self.policy, &AllowedImages::default(), 0);
            let bodies = self.jobs.iter().map(|(digest, job)| (*digest, demand(job)));
            self.bodies = Arc::new(bodies.collect());
            self.periodic.set(self.jobs.iter());
            self.shared = Arc::new(self.submissions.clone());
        }
    }

    /// Withdraws these versions of a line. Whether there were any.
    fn withdraw(&mut self, line: usize, which: impl Fn(&Submission) -> bool) -> bool {
        let mut some = false;
        for submission in self.submissions.iter_mut().filter(|s| !s.cancelled) {
            if self.lines.get(&submission.job) == Some(&line) && which(submission) {
                submission.cancelled = true;
                some = true;
            }
        }
        some
    }

    /// A version of a line: another number of replicas, or another program, every third of which is broken.
    fn submit_version(&mut self, line: usize) {
        self.submitted += 1;
        let position = self.submitted;
        let before = self.submissions.iter().rev().find(|s| self.lines.get(&s.job) == Some(&line));
        let before = before.and_then(|before| self.jobs.get(&before.job)).cloned();
        let may_scale = before.is_some() && self.demand != Demand::System;
        let scales = may_scale && self.rng.gen_ratio(1, 3);
        let mut job = before.unwrap_or_else(|| {
            let request = ResourceRequest::Clear(Resources {
                cpu: CpuUnits(1),
                memory: MemoryUnits(1),
                ..Resources::default()
            });
            let name = format!("app-{line}").parse().expect("a name");
            let image = format!("localhost:5000/app@sha256:{}", "ab".repeat(32));
            let image = image.parse().expect("an image's name");
            let new = JobSpec::new(fixtures::SCOPE, OPERATOR, position, name, image, request);
            if self.demand == Demand::System {
                JobSpec { kind: JobType::System, ..new }
            } else {
                JobSpec { replicas: self.replicas, ..new }
            }
        });
        job.nonce = position;
        if scales {
            job.replicas = self.rng.gen_range(1..=self.replicas);
        } else {
            let broken = position % 3 == 2;
            let program = if broken { BROKEN } else { "works" };
            job.args = vec![program.to_owned(), position.to_string()];
            job.update = UpdatePolicy {
                max_parallel: self.rng.gen_range(1..=2),
                auto_revert: !self.rng.gen_ratio(1, 5),
                ..UpdatePolicy::default()
            };
            // Every fourth line has a port that two versions cannot have at once.
            if line % 4 == 3 {
                job.ports = vec![Port {
                    name: "http".parse().expect("a name"),
                    container: PORT,
                    protocol: Protocol::Tcp,
                    host: HostPort::Fixed(PORT),
                }];
            }
        }
        let digest = job.digest();
        self.submissions.push(submission(position, digest));
        self.lines.insert(digest, line);
        self.jobs.insert(digest, job);
    }

    /// Whether replicas of a job are never healthy.
    pub(super) fn is_broken(&self, job: &Blake3Digest) -> bool {
        self.jobs.get(job).is_some_and(|job| job.args.first().is_some_and(|arg| arg == BROKEN))
    }

    fn submit(&mut self) {
        self.submitted += 1;
        let position = self.submitted;
        let mixed = self.demand == Demand::Mixed;
        // Every third job ends by itself; every fifth digest has no body anywhere; every seventh job fits
        // nowhere.
        if mixed && position % 5 == 2 {
            self.bodiless += 1;
            let job = Blake3Digest(fixtures::draw(self.seed, "no body", position));
            self.submissions.push(submission(position, job));
            return;
        }
        let (cpu, memory, disk, replicas) = match self.demand {
            Demand::Mixed => {
                let memory = self.rng.gen_range(1..24);
                let memory = if position % 7 == 3 { TOO_MUCH } else { memory };
                let (cpu, disk) = (self.rng.gen_range(1..8), self.rng.gen_range(0..10));
                (cpu, memory, disk, self.rng.gen_range(1..=self.replicas))
            }
            Demand::Unplaceable => (1, TOO_MUCH, 0, 1),
            Demand::Flood | Demand::Updates | Demand::System => (1, 1, 0, self.replicas),
        };
        let exclusive = mixed && self.rng.gen_ratio(1, 4);
        let batch = mixed && position % 3 == 1;
        let other = if batch { JobType::Batch { max_attempts: 1 } } else { JobType::Service };
        let periodic = periodic::kind(self.seed, position, self.share).filter(|_| mixed);
        let kind = periodic.unwrap_or(other);
        let ends = kind.ends();
        // "Never twice" and "in place of the one before" exclude each other.
        let exclusive = exclusive && !replaces(&kind);
        let job = JobSpec {
            kind,
            restart: RestartPolicy {
                mode: if ends { RestartMode::Never } else { RestartMode::Always },
                ..RestartPolicy::default()
            },
            replicas,
            priority: Priority(self.rng.gen_range(0..4)),
            lease: if exclusive {
                LeasePolicy::Exclusive { seconds: LEASE_SECONDS }
            } else {
                LeasePolicy::Keep
            },
            ..JobSpec::new(
                fixtures::SCOPE,
                OPERATOR,
                position,
                format!("app-{position}").parse().expect("a name"),
                format!("localhost:5000/app@sha256:{}", "ab".repeat(32))
                    .parse()
                    .expect("an image's name"),
                ResourceRequest::Clear(Resources {
                    cpu: CpuUnits(cpu),
                    memory: MemoryUnits(memory),
                    disk: DiskUnits(disk),
                    gpu: GpuUnits(0),
                }),
            )
        };
        let digest = job.digest();
        self.submissions.push(submission(position, digest));
        self.jobs.insert(digest, job);
    }
}
