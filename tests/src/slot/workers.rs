//! Workers, jobs and the chain: what the members of the world look at.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha20Rng;
use veil_committee_machine::Millis;
use veil_committee_slot::{
    manifest::TelemetryRef,
    pool::{KEPT, MAX_AHEAD, Refusal},
};
use veil_protocol_spec::{
    Address, Blake3Digest, KeccakDigest, ParticipantIndex, PeerIdHash, ReplicaIndex, Slot,
    scheduling::{
        ClusterPolicy, ClusterState, EndedReplica, GivenBack, Quantities, Reading, ReplicaHealth,
        Scale, Share, TelemetryEntry,
    },
};

use super::{
    SlotReport, SlotScenario, WorkerBehaviour,
    chain::Chain,
    given_back::{self, GiveBacks},
    health::{self, Health},
    jobs::Jobs,
    periodic::chain_time,
    runs::{self, Runs},
    sight::POLICY,
    telemetry::{Clock, Flaw, Sample},
    worker::{CAPACITY, GRACE, Gone, SAMPLES, Worker},
};
use crate::fixtures;

mod inputs;

/// Messages of a worker that floods, in one step of the world; members take one.
const FLOOD: u64 = 20;
/// For how long it is remembered that a worker was gone: a slot may begin with that and take long.
const NOT_LONG: Millis = 300_000;

/// A member that does not reach a worker of which others say that it is down.
#[derive(Clone, Copy)]
struct Unseen {
    since: Millis,
    until: Millis,
}

/// What a message of a worker lists.
type Lists = (Arc<[EndedReplica]>, Arc<[GivenBack]>, Arc<[ReplicaHealth]>);

pub(super) struct Surroundings {
    rng: ChaCha20Rng,
    scenario: SlotScenario,
    pub(super) workers: Vec<Worker>,
    by_id: BTreeMap<PeerIdHash, usize>,
    /// The members' clocks.
    clocks: Vec<Clock>,
    samples: BTreeMap<Blake3Digest, Sample>,
    /// Those that a manifest of the slot under way names: stored before it is voted for.
    bundle: BTreeMap<Blake3Digest, Sample>,
    unseen: BTreeMap<(usize, usize), Unseen>,
    registered: Arc<BTreeSet<PeerIdHash>>,
    pub(super) jobs: Jobs,
    pub(super) runs: Runs,
    pub(super) given_back: GiveBacks,
    health: Health,
    pub(super) chain: Chain,
    owners: Arc<BTreeMap<PeerIdHash, Address>>,
    policy: ClusterPolicy,
}

impl Surroundings {
    pub(super) fn new(
        seed: u64,
        mut rng: ChaCha20Rng,
        jobs: ChaCha20Rng,
        scenario: &SlotScenario,
        members: usize,
    ) -> Self {
        let count = usize::from(scenario.workers);
        let hostile = count * usize::from(scenario.hostile) / 256;
        let behaviour = |k: usize| {
            let as_one = scenario.hostile_as;
            let in_turn = WorkerBehaviour::ALL[k % WorkerBehaviour::ALL.len()];
            (k < hostile).then_some(as_one.unwrap_or(in_turn))
        };
        let clock = |rng: &mut ChaCha20Rng| draw_clock(rng, scenario.skew);
        let worker = |k: usize, rng: &mut ChaCha20Rng| {
            let behaviour = behaviour(k);
            let drawn = clock(rng);
            let id = PeerIdHash(fixtures::draw(seed, "worker", k as u64));
            let clock = behaviour.and_then(WorkerBehaviour::clock).map_or(drawn, Clock);
            Worker::new(id, behaviour, clock, rng.gen_range(0..SAMPLES))
        };
        let workers: Vec<_> = (0..count).map(|k| worker(k, &mut rng)).collect();
        let clocks = (0..members).map(|_| clock(&mut rng)).collect();
        let policy = ClusterPolicy {
            scale: Scale::FINEST,
            max_workers: scenario.max_workers,
            anchor_every: scenario.anchor_every,
            loss_grace_seconds: (GRACE / 1_000) as u32,
            circuit_from: scenario.thresholds_from,
            ..ClusterPolicy::default()
        };
        let owners = (0..).zip(&workers).map(|(k, of)| (of.id, owner(k))).collect();
        let mut this = Self {
            rng,
            by_id: workers.iter().enumerate().map(|(k, worker)| (worker.id, k)).collect(),
            registered: Arc::new(workers.iter().map(|worker| worker.id).collect()),
            workers,
            clocks,
            samples: BTreeMap::new(),
            bundle: BTreeMap::new(),
            unseen: BTreeMap::new(),
            jobs: Jobs::new(seed, jobs, scenario, policy),
            chain: Chain::new(seed),
            runs: Runs::default(),
            given_back: GiveBacks::new(
                ChaCha20Rng::from_seed(fixtures::draw(seed, "give backs", 0)),
                scenario.gives_back,
            ),
            owners: Arc::new(owners),
            health: Health::default(),
            policy,
            scenario: scenario.clone(),
        };
        this.mine(0);
        this
    }

    /// Whether no worker deviates.
    pub(super) fn is_honest(&self) -> bool {
        self.workers.iter().all(|worker| worker.behaviour.is_none())
    }

    pub(super) fn clock(&self, j: ParticipantIndex) -> Clock {
        self.clocks[j.position()]
    }

    pub(super) fn worker(&self, id: &PeerIdHash) -> Option<&Worker> {
        self.by_id.get(id).map(|k| &self.workers[*k])
    }

    /// One step of the world around the members; `state` is the latest that anybody has.
    pub(super) fn tick(&mut self, now: Millis, state: &ClusterState, report: &mut SlotReport) {
        self.jobs.tick(state);
        if self.scenario.demand != super::Demand::Unplaceable {
            self.come_and_go(now, report);
            self.step_clocks(report);
        }
        self.account(state);
        self.runs.tick(state, &self.jobs, now);
        self.given_back.tick(state, (&self.jobs, &self.runs), &self.workers, now, report);
        self.sample(now, state, report);
        self.mine(now);
    }

    fn mine(&mut self, now: Millis) {
        let (registered, draining) = (Arc::clone(&self.registered), self.given_back.draining());
        self.chain.mine(registered, self.jobs.submissions(), draining, chain_time(now));
    }

    /// Whose workers these are.
    pub(super) fn owners(&self) -> Arc<BTreeMap<PeerIdHash, Address>> {
        Arc::clone(&self.owners)
    }

    // ---- who is there ----------------------------------------------------------------------

    fn come_and_go(&mut self, now: Millis, report: &mut SlotReport) {
        let before: usize = self.workers.iter().filter(|w| w.unregistered.is_some()).count();
        for worker in &mut self.workers {
            if worker.gone.take_if(|gone| gone.until <= now).is_some() {
                worker.up_since = now;
            }
            if worker.unregistered.take_if(|gone| gone.until <= now).is_some() {
                worker.up_since = now;
            }
        }
        let outage = self.scenario.outage.filter(|o| o.at <= now && now < o.at + o.away);
        for worker in self.workers.iter_mut().take(outage.map_or(0, |o| o.workers.into())) {
            if worker.gone.is_none() {
                let until = now + outage.map_or(0, |o| o.away);
                worker.gone = Some(Gone { since: now, until, cut: false });
                report.count("worker lost in an outage");
            }
        }
        let away = self.workers.iter().filter(|w| w.gone_since().is_some()).count();
        if away * 5 < self.workers.len() && self.rng.gen_ratio(1, 20) {
            let k = self.rng.gen_range(0..self.workers.len());
            let until = now + self.rng.gen_range(5_000..200_000);
            let (leaves, cut) = (self.rng.gen_ratio(1, 8), self.rng.gen_ratio(1, 2));
            let worker = &mut self.workers[k];
            let gone = Gone { since: now, until, cut };
            if leaves {
                report.count("worker leaves the registry");
                worker.unregistered.get_or_insert(gone);
            } else {
                report.count(if cut { "worker cut off" } else { "worker dies" });
                worker.gone.get_or_insert(gone);
            }
        }
        for k in 0..self.workers.len() {
            match self.workers[k].behaviour {
                Some(WorkerBehaviour::Flap)
                    if self.workers[k].gone.is_none()
                        && self.workers[k].up_since + GRACE / 2 <= now =>
                {
                    report.worker_misbehaved(WorkerBehaviour::Flap);
                    let until = now + GRACE * 3 / 4;
                    self.workers[k].gone = Some(Gone { since: now, until, cut: false });
                }
                Some(WorkerBehaviour::Accuse) => self.accuse(now, report),
                _ => {}
            }
        }
        self.unseen.retain(|_, unseen| now < unseen.until + NOT_LONG);
        for worker in &mut self.workers {
            if worker.is_lost(now) {
                worker.lost_at = Some(now);
            }
        }
        let unregistered = self.workers.iter().filter(|w| w.unregistered.is_some()).count();
        if unregistered != before || unregistered > 0 {
            let there = self.workers.iter().filter(|w| w.unregistered.is_none());
            self.registered = Arc::new(there.map(|worker| worker.id).collect());
        }
    }

    /// A worker says of another that it is down. To a member that reaches the other this is hearsay; one
    /// that does not, because its own connection broke, has its own evidence.
    fn accuse(&mut self, now: Millis, report: &mut SlotReport) {
        report.worker_misbehaved(WorkerBehaviour::Accuse);
        if self.rng.gen_ratio(1, 10) {
            let at = (
                self.rng.gen_range(0..self.clocks.len()),
                self.rng.gen_range(0..self.workers.len()),
            );
            let until = now + self.rng.gen_range(5_000..60_000);
            if self.unseen.get(&at).is_none_or(|unseen| unseen.until <= now) {
                self.unseen.insert(at, Unseen { since: now, until });
            }
        }
    }

    fn step_clocks(&mut self, report: &mut SlotReport) {
        if self.scenario.skew == 0 || !self.rng.gen_ratio(1, 50) {
            return;
        }
        let clock = draw_clock(&mut self.rng, self.scenario.skew);
        let k = self.rng.gen_range(0..self.clocks.len() + self.workers.len());
        match self.clocks.get_mut(k) {
            Some(of_member) => {
                report.count("a member's clock steps");
                *of_member = clock;
            }
            None => {
                report.count("a worker's clock steps");
                let worker = &mut self.workers[k - self.clocks.len()];
                let fixed = worker.behaviour.and_then(WorkerBehaviour::clock);
                worker.clock = fixed.map_or(clock, Clock);
            }
        }
    }

    /// The workers of which members find by themselves that they are lost, and which members: all but
    /// those of a few workers do.
    pub(super) fn suspected(&self, now: Millis) -> Vec<(PeerIdHash, Option<usize>)> {
        let lost = self.workers.iter().filter(|worker| worker.is_lost(now));
        let by_all = lost.map(|worker| (worker.id, None));
        let suspects = |unseen: &Unseen| unseen.since + GRACE <= now && now < unseen.until;
        let unseen = self.unseen.iter().filter(|(_, unseen)| suspects(unseen));
        by_all.chain(unseen.map(|(&(j, k), _)| (self.workers[k].id, Some(j)))).collect()
    }

    /// Some workers that are there.
    pub(super) fn some_that_are_there(&self, most: usize) -> Vec<PeerIdHash> {
        let there = self.workers.iter().filter(|worker| worker.gone_since().is_none());
        there.take(most).map(|worker| worker.id).collect()
    }

    /// Whether a worker was gone for the grace, not long ago, as member `j` saw it itself.
    pub(super) fn was_lost_to(&self, j: ParticipantIndex, id: &PeerIdHash, now: Millis) -> bool {
        let Some(k) = self.by_id.get(id) else { return false };
        let unseen = self.unseen.get(&(j.position(), *k));
        self.workers[*k].lost_at.is_some_and(|at| at + NOT_LONG >= now)
            || unseen.is_some_and(|unseen| unseen.since + GRACE <= now.min(unseen.until))
    }

    /// Whether a worker that does what it should, and may be given the replica, has room for it.
    pub(super) fn has_room(
        &self,
        (job, replica): (Blake3Digest, ReplicaIndex),
        state: &ClusterState,
        now: Millis,
    ) -> bool {
        let Some(need) = self.jobs.need(&job) else { return false };
        let returned = state.returned_replica(job, replica).map(|of| of.placement.worker);
        let draining = self.given_back.draining();
        let may = |worker: &&Worker| returned != Some(worker.id) && !draining.contains(&worker.id);
        // Of workers whose clocks members refuse nothing is promised.
        self.scenario.skew <= MAX_AHEAD.0 / 2
            && self.workers.iter().filter(may).any(|worker| worker.has_room(&need, now))
    }

    /// A worker loses power and does not come back.
    #[cfg(test)]
    pub(super) fn lose(&mut self, k: usize, now: Millis) {
        self.workers[k].gone = Some(Gone { since: now, until: Millis::MAX, cut: false });
    }

    // ---- telemetry -------------------------------------------------------------------------

    /// What each worker has free.
    fn account(&mut self, state: &ClusterState) {
        let mut used: BTreeMap<usize, [u64; 4]> = BTreeMap::new();
        for (job, _, placement) in state.replicas() {
            let (Some(k), Some(need)) = (self.by_id.get(&placement.worker), self.jobs.need(&job))
            else {
                continue;
            };
            let used = used.entry(*k).or_default();
            used.iter_mut().zip(need).for_each(|(used, need)| *used += need);
        }
        for (k, worker) in self.workers.iter_mut().enumerate() {
            let used = used.get(&k).copied().unwrap_or_default();
            for ((free, capacity), used) in worker.free.iter_mut().zip(CAPACITY).zip(used) {
                *free = u64::from(capacity).saturating_sub(used) as u8;
            }
        }
    }

    fn sample(&mut self, now: Millis, state: &ClusterState, report: &mut SlotReport) {
        let mut booked: BTreeMap<PeerIdHash, Slot> = BTreeMap::new();
        for (_, _, placement) in state.replicas() {
            let slot = booked.entry(placement.worker).or_default();
            *slot = (*slot).max(placement.slot);
        }
        let last = state.last_slot();
        let ended = self.runs.ended(state, now);
        let fares = self.health.tick(state, &self.jobs, now);
        for k in 0..self.workers.len() {
            let worker = &self.workers[k];
            if worker.gone.is_some() {
                continue;
            }
            let before = worker.samples.back().map(|sample| &sample.telemetry);
            let ended = match worker.behaviour {
                Some(WorkerBehaviour::ClaimEnded) => runs::everything(state),
                _ => ended.get(&worker.id).cloned().unwrap_or_default(),
            };
            let given_back = match worker.behaviour {
                Some(WorkerBehaviour::GiveAllBack) => given_back::everything(state),
                _ => self.given_back.said(worker.id),
            };
            let health = match worker.behaviour {
                Some(WorkerBehaviour::ClaimEnded) => health::all_failed(state),
                _ => fares.get(&worker.id).cloned().unwrap_or_default(),
            };
            let is_news = before.is_some_and(|before| {
                (&before.ended, &before.given_back, &before.health)
                    != (&ended, &given_back, &health)
            });
            let known = before.map(|before| before.includes_slot);
            let owes = is_news || booked.get(&worker.id).copied() > known;
            let floods = worker.behaviour == Some(WorkerBehaviour::Flood);
            if owes || floods || now >= worker.next_sample {
                self.workers[k].next_sample = now + SAMPLES;
                self.send(k, last, (ended, given_back, health), now, report);
            }
        }
    }

    /// A worker's telemetry, as the worker behaves.
    fn send(
        &mut self,
        k: usize,
        last: Slot,
        (ended, given_back, health): Lists,
        now: Millis,
        report: &mut SlotReport,
    ) {
        use WorkerBehaviour as As;
        let Self { workers, clocks, samples, scenario, .. } = self;
        let worker = &mut workers[k];
        let behaviour = worker.behaviour;
        if let Some(behaviour) = behaviour.filter(|b| !matches!(b, As::Accuse | As::Flap)) {
            report.worker_misbehaved(behaviour);
        }
        let free = if behaviour == Some(As::Boast) { CAPACITY } else { worker.free };
        let reading = Reading {
            free: Quantities::from_array(free).expect("capacities are in range"),
            share: Share::of([0, 1].map(|of| (free[of].into(), CAPACITY[of].into()))),
            ..Reading::default()
        };
        let flaw = match behaviour {
            _ if worker.unregistered.is_some() => Some(Flaw::NotRegistered),
            Some(As::Forge) => Some(Flaw::Signature),
            Some(As::Repeat) if worker.sequence > 0 => Some(Flaw::Stale),
            _ => None,
        };
        if let Some(flaw) = flaw {
            let refusal = flaw.refusal(worker.id).to_string();
            return clocks.iter().for_each(|_| report.refuse("telemetry", &refusal));
        }
        if behaviour == Some(As::Flood) {
            report.add("telemetry: more often than at the least interval", FLOOD - 1);
        }
        let (id, clock) = (worker.id, worker.clock);
        let n = clocks.len();
        let groups: u64 = match behaviour {
            Some(As::Mute) => 0,
            Some(As::Split) => 2,
            _ => 1,
        };
        for group in 0..groups {
            worker.sequence += 1;
            let sequence = worker.sequence;
            let digest = {
                let mut hasher = blake3::Hasher::new();
                hasher.update(id.as_bytes()).update(&sequence.to_le_bytes()).update(&free);
                Blake3Digest(*hasher.finalize().as_bytes())
            };
            let telemetry = TelemetryRef {
                entry: TelemetryEntry { sender: id, digest },
                includes_slot: match behaviour {
                    Some(As::ClaimFuture) => Slot(last.0 + 1_000_000),
                    Some(As::IgnoreAssignments) => Slot(0),
                    _ => last,
                },
                sampled_at: clock.at(now),
                policy: match behaviour {
                    Some(As::OtherPolicy) => KeccakDigest([0x91; 32]),
                    _ => POLICY,
                },
                ended: Arc::clone(&ended),
                given_back: Arc::clone(&given_back),
                health: Arc::clone(&health),
                profile: Arc::default(),
            };
            let to = |j: usize| match behaviour {
                Some(As::Split) => j as u64 % 2 == group,
                Some(As::Whisper) => j as u64 == sequence % n as u64,
                _ => true,
            };
            let sent = (telemetry, reading);
            let loss = scenario.telemetry_loss;
            let refused = |refusal: Refusal| {
                report.refuse("telemetry", &refusal.to_string());
            };
            let sample = Sample::send(sent, clocks, to, loss, now, refused);
            samples.insert(digest, sample.clone());
            worker.samples.push_back(sample);
        }
        // Each group of members keeps as many.
        while worker.samples.len() > KEPT * groups.max(1) as usize {
            if let Some(old) = worker.samples.pop_front() {
                samples.remove(&old.telemetry.entry.digest);
            }
        }
    }

    /// What member `j` has of each worker that counts in the slot after `state`, and whether a worker
    /// that is there has sent nothing that does.
    pub(super) fn fresh(
        &self,
        j: ParticipantIndex,
        state: &ClusterState,
        now: Millis,
    ) -> (Vec<TelemetryRef>, bool) {
        let (clock, mut silent) = (self.clock(j), false);
        let mut fresh = Vec::with_capacity(self.workers.len());
        for worker in self.workers.iter().filter(|worker| worker.unregistered.is_none()) {
            let is_fresh = |sample: &&Sample| sample.is_fresh(j.position(), clock, now);
            let last =
                worker.samples.iter().rev().find(is_fresh).map(|sample| sample.telemetry.clone());
            match last.filter(|last| state.telemetry_counts(&worker.id, last.includes_slot)) {
                Some(last) => fresh.push(last),
                None => silent |= worker.gone.is_none(),
            }
        }
        (fresh, silent)
    }
}

/// Two workers have one operator.
fn owner(k: usize) -> Address {
    Address([k as u8 / 2 + 1; 20])
}

fn draw_clock(rng: &mut ChaCha20Rng, skew: Millis) -> Clock {
    let most = skew as i64;
    Clock(if most == 0 { 0 } else { rng.gen_range(-most..=most) })
}
