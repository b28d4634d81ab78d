//! Workers, jobs and the chain: what the members of the world look at.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use rand::Rng;
use rand_chacha::ChaCha20Rng;
use veil_committee_machine::Millis;
use veil_committee_slot::manifest::TelemetryRef;
use veil_protocol_spec::{
    Address, Blake3Digest, KeccakDigest, PeerIdHash, Slot,
    scheduling::{
        BlockRef, ClusterPolicy, ClusterState, Constraints, CpuUnits, DiskUnits, GpuUnits, JobSpec,
        LeasePolicy, Manifest, MemoryUnits, Priority, Quantities, Reading, ResourceRequest,
        Resources, RestartPolicy, Scale, SchedulingPolicy, Submission, TelemetryEntry, UnixMillis,
    },
};
use veil_scheduler_plan::{
    cleartext::{Secrets, place},
    inputs::{PlanError, PublicInputs},
    outcome::encode,
    plan::Plan,
};

use super::sight::{ChainView, POLICY};
use crate::fixtures;

/// When the world begins, by the wall clocks in it.
const EPOCH: u64 = 1_700_000_000_000;
/// Between two samples of a worker.
const SAMPLES: Millis = 30_000;
/// Samples kept of a worker.
const KEPT_SAMPLES: usize = 4;
/// How old a sample may be.
pub(super) const MAX_AGE: Millis = 120_000;
/// Blocks whose view is kept.
const KEPT_BLOCKS: usize = 64;
/// What a worker has, of each resource.
const CAPACITY: [u8; 4] = [64, 96, 120, 0];

/// The wall clock of the world.
pub(super) const fn wall(now: Millis) -> UnixMillis {
    UnixMillis(EPOCH + now)
}

/// One message of a worker: what members compare, and what only the worker knows.
#[derive(Clone, Copy)]
pub(super) struct Sample {
    pub(super) telemetry: TelemetryRef,
    reading: Reading,
    at: Millis,
}

pub(super) struct Worker {
    pub(super) id: PeerIdHash,
    samples: Vec<Sample>,
    /// Since when it is gone.
    pub(super) down_since: Option<Millis>,
    comes_back: Millis,
    next_sample: Millis,
}

pub(super) struct Surroundings {
    seed: u64,
    rng: ChaCha20Rng,
    pub(super) workers: Vec<Worker>,
    by_digest: BTreeMap<Blake3Digest, Sample>,
    jobs: BTreeMap<Blake3Digest, JobSpec>,
    pub(super) bodies: Arc<BTreeMap<Blake3Digest, u16>>,
    wanted: usize,
    submitted: u64,
    submissions: Vec<Submission>,
    blocks: BTreeMap<u64, Arc<ChainView>>,
    policy: ClusterPolicy,
    /// Jobs that were submitted without a body.
    pub(super) bodiless: u64,
}

impl Surroundings {
    pub(super) fn new(seed: u64, mut rng: ChaCha20Rng, workers: usize, wanted: usize) -> Self {
        let worker = |k: usize, rng: &mut ChaCha20Rng| Worker {
            id: PeerIdHash(fixtures::draw(seed, "worker", k as u64)),
            samples: Vec::new(),
            down_since: None,
            comes_back: 0,
            next_sample: rng.gen_range(0..SAMPLES),
        };
        let workers = (0..workers).map(|k| worker(k, &mut rng)).collect();
        let scale = Scale::FINEST;
        let mut this = Self {
            seed,
            rng,
            workers,
            by_digest: BTreeMap::new(),
            jobs: BTreeMap::new(),
            bodies: Arc::default(),
            wanted,
            submitted: 0,
            submissions: Vec::new(),
            blocks: BTreeMap::new(),
            policy: ClusterPolicy { scale, ..ClusterPolicy::default() },
            bodiless: 0,
        };
        this.mine();
        this
    }

    /// One step of the world around the members; `state` is the latest that anybody has.
    pub(super) fn tick(&mut self, now: Millis, state: &ClusterState) {
        self.submit(state);
        self.lose(now);
        self.sample(now, state);
        self.mine();
    }

    fn submit(&mut self, state: &ClusterState) {
        let placed: BTreeSet<_> = state.replicas().map(|(job, ..)| job).collect();
        self.submissions.retain(|s| !s.cancelled || placed.contains(&s.job));
        let active = self.submissions.iter().filter(|s| !s.cancelled).count();
        // Operators withdraw what has run for a while, and submit something else.
        if active >= self.wanted && self.rng.gen_ratio(1, 4) {
            let k = self.rng.gen_range(0..self.submissions.len());
            self.submissions[k].cancelled = true;
        } else if active < self.wanted {
            let first = self.submitted == 0;
            let burst = if first { self.wanted / 2 } else { 1 };
            for _ in 0..burst.max(1) {
                self.submit_one();
            }
        }
        let wanted: BTreeSet<_> = self.submissions.iter().map(|s| s.job).collect();
        self.jobs.retain(|job, _| wanted.contains(job));
        let bodies = self.jobs.iter().map(|(digest, job)| (*digest, job.replicas));
        self.bodies = Arc::new(bodies.collect());
    }

    fn submit_one(&mut self) {
        self.submitted += 1;
        let position = self.submitted;
        // Every fifth digest has no body anywhere; every seventh job fits nowhere.
        if position % 5 == 2 {
            self.bodiless += 1;
            let job = Blake3Digest(fixtures::draw(self.seed, "no body", position));
            self.submissions.push(Submission { position, job, cancelled: false });
            return;
        }
        let memory = if position % 7 == 3 { 150 } else { self.rng.gen_range(1..24) };
        let exclusive = self.rng.gen_ratio(1, 4);
        let job = JobSpec {
            request: ResourceRequest::Clear(Resources {
                cpu: CpuUnits(self.rng.gen_range(1..8)),
                memory: MemoryUnits(memory),
                disk: DiskUnits(self.rng.gen_range(0..10)),
                gpu: GpuUnits(0),
            }),
            replicas: self.rng.gen_range(1..4),
            policy: SchedulingPolicy::Spread,
            scope: fixtures::SCOPE,
            operator: Address([3; 20]),
            nonce: position,
            image: format!("localhost:5000/app@sha256:{}", "ab".repeat(32))
                .parse()
                .expect("an image's name"),
            command: Vec::new(),
            args: Vec::new(),
            priority: Priority(self.rng.gen_range(0..4)),
            constraints: Constraints::default(),
            lease: if exclusive {
                LeasePolicy::Exclusive { seconds: 60 }
            } else {
                LeasePolicy::Keep
            },
            restart: RestartPolicy::Always,
            health: None,
        };
        let digest = job.digest();
        self.submissions.push(Submission { position, job: digest, cancelled: false });
        self.jobs.insert(digest, job);
    }

    fn lose(&mut self, now: Millis) {
        let back =
            self.workers.iter_mut().filter(|w| w.down_since.is_some() && w.comes_back <= now);
        back.for_each(|worker| worker.down_since = None);
        let down = self.workers.iter().filter(|w| w.down_since.is_some()).count();
        if down * 5 < self.workers.len() && self.rng.gen_ratio(1, 20) {
            let k = self.rng.gen_range(0..self.workers.len());
            let away = self.rng.gen_range(5_000..200_000);
            let worker = &mut self.workers[k];
            if worker.down_since.is_none() {
                (worker.down_since, worker.comes_back) = (Some(now), now + away);
            }
        }
    }

    fn sample(&mut self, now: Millis, state: &ClusterState) {
        let mut used: BTreeMap<PeerIdHash, [u64; 4]> = BTreeMap::new();
        let mut booked: BTreeMap<PeerIdHash, Slot> = BTreeMap::new();
        for (job, _, placement) in state.replicas() {
            let slot = booked.entry(placement.worker).or_default();
            *slot = (*slot).max(placement.slot);
            let Some(ResourceRequest::Clear(request)) = self.jobs.get(&job).map(|job| &job.request)
            else {
                continue;
            };
            let used = used.entry(placement.worker).or_default();
            let need = [request.cpu.0, request.memory.0, request.disk.0, request.gpu.0];
            used.iter_mut().zip(need).for_each(|(used, need)| *used += u64::from(need));
        }
        let last = state.last_slot();
        for worker in self.workers.iter_mut().filter(|worker| worker.down_since.is_none()) {
            let known = worker.samples.last().map(|sample| sample.telemetry.includes_slot);
            let owes = booked.get(&worker.id).copied() > known;
            if now < worker.next_sample && !owes {
                continue;
            }
            worker.next_sample = now + SAMPLES;
            let used = used.get(&worker.id).copied().unwrap_or_default();
            let free = |k: usize| u64::from(CAPACITY[k]).saturating_sub(used[k]) as u8;
            let free = [free(0), free(1), free(2), free(3)];
            let reading = Reading {
                free: Quantities::from_array(free).expect("capacities are in range"),
                ..Reading::default()
            };
            let digest = {
                let mut hasher = blake3::Hasher::new();
                hasher.update(worker.id.as_bytes()).update(&now.to_le_bytes()).update(&free);
                Blake3Digest(*hasher.finalize().as_bytes())
            };
            let telemetry = TelemetryRef {
                entry: TelemetryEntry { sender: worker.id, digest },
                includes_slot: last,
                sampled_at: wall(now),
                policy: POLICY,
            };
            let sample = Sample { telemetry, reading, at: now };
            self.by_digest.insert(digest, sample);
            worker.samples.push(sample);
            if worker.samples.len() > KEPT_SAMPLES {
                let old = worker.samples.remove(0);
                self.by_digest.remove(&old.telemetry.entry.digest);
            }
        }
    }

    fn mine(&mut self) {
        let number = self.blocks.last_key_value().map_or(1, |(number, _)| number + 1);
        let hash = KeccakDigest(fixtures::draw(self.seed, "block", number));
        let view = ChainView {
            block: BlockRef { number, hash },
            workers: self.workers.iter().map(|worker| worker.id).collect(),
            submissions: self.submissions.clone(),
        };
        self.blocks.insert(number, Arc::new(view));
        while self.blocks.len() > KEPT_BLOCKS {
            self.blocks.pop_first();
        }
    }

    pub(super) fn head(&self) -> Arc<ChainView> {
        let head = self.blocks.last_key_value().map(|(_, view)| Arc::clone(view));
        head.expect("there is a block from the start")
    }

    pub(super) fn at(&self, block: BlockRef) -> Option<Arc<ChainView>> {
        self.blocks.get(&block.number).filter(|view| view.block == block).cloned()
    }

    /// What has arrived at member number `j`: each worker's last message that is not under way to it
    /// any more, nor lost on its way.
    pub(super) fn arrived(&self, j: u8, now: Millis, lost_permille: u8) -> Vec<TelemetryRef> {
        let arrived = |sample: &&Sample| {
            let digest = sample.telemetry.entry.digest.0;
            let luck = digest[usize::from(j) % 32];
            let latency = Millis::from(digest[(usize::from(j) + 7) % 32]) * 4;
            luck >= lost_permille && sample.at + latency <= now && now < sample.at + MAX_AGE
        };
        let last = |worker: &Worker| {
            worker.samples.iter().rev().find(arrived).map(|sample| sample.telemetry)
        };
        self.workers.iter().filter_map(last).collect()
    }

    /// A message that anybody has.
    pub(super) fn fetched(&self, entry: &TelemetryEntry) -> Option<TelemetryRef> {
        self.by_digest.get(&entry.digest).map(|sample| sample.telemetry)
    }

    pub(super) fn public(&self, manifest: &Manifest, state: &ClusterState) -> PublicInputs {
        let pending = manifest.pending.iter();
        PublicInputs {
            policy: self.policy,
            jobs: pending.filter_map(|p| Some((p.job, self.jobs.get(&p.job)?.clone()))).collect(),
            previous: state.previous(manifest).collect(),
            seed: state.seed(),
            last_decided: state.last_decided(),
            ..PublicInputs::default()
        }
    }

    /// The outcome by the cleartext twin, as digits.
    pub(super) fn twin(
        &self,
        manifest: &Manifest,
        public: &PublicInputs,
    ) -> Result<Vec<u8>, PlanError> {
        let plan = Plan::new(manifest, public)?;
        let reading = |entry: &TelemetryEntry| {
            self.by_digest.get(&entry.digest).map(|sample| sample.reading).unwrap_or_default()
        };
        let readings: Vec<_> = manifest.telemetry.iter().map(reading).collect();
        Ok(encode(&plan, &place(&plan, &readings, &Secrets::default())))
    }
}
