//! Clusters that are drawn: how large they are, and what goes wrong in them. All of it follows from the seed.

use rand::{Rng, SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha20Rng;
use veil_committee_machine::Millis;
use veil_committee_world::{Conditions, Partition, When};
use veil_protocol_spec::ParticipantIndex;

use super::{Demand, Outage, Phase, SlotBehaviour, SlotPlan};
use crate::fixtures;

/// When what is drawn has begun to go wrong.
const BY: Millis = 90_000;

impl SlotPlan {
    /// A cluster of at most so many workers and jobs, small ones as often as large ones. At most t members deviate
    /// or are never there; any member crashes, after any effect, in any phase or at any time; the network
    /// is bad, and cut in two for a while; workers deviate, lose power, give replicas back; clocks differ; some jobs are periodic.
    #[must_use]
    pub fn drawn(seed: u64, (workers, jobs): (u16, u16)) -> Self {
        let rng = &mut ChaCha20Rng::from_seed(fixtures::draw(seed, "slot plan", 0));
        let n = *[4, 4, 7].choose(rng).expect("it is not empty");
        let mut plan = Self::new(n).slots(12);
        let scenario = &mut plan.scenario;
        scenario.workers = up_to(workers, rng);
        scenario.jobs = up_to(jobs, rng);
        scenario.replicas = rng.gen_range(1..=4);
        scenario.hostile = if rng.gen_ratio(1, 2) { rng.gen_range(0..64) } else { 0 };
        scenario.skew = *[0, 0, 10_000, 40_000].choose(rng).expect("it is not empty");
        scenario.gives_back = rng.gen_ratio(1, 2);
        scenario.store = rng.gen_range(1..100);
        scenario.telemetry_loss = rng.gen_range(0..8);
        if rng.gen_ratio(1, 4) {
            scenario.demand = Demand::Updates;
        }
        if rng.gen_ratio(1, 2) {
            scenario.periodic = rng.gen_range(1..=255);
        }
        if rng.gen_ratio(1, 2) {
            let workers = rng.gen_range(1..=scenario.workers);
            let (at, away) = (rng.gen_range(0..BY), rng.gen_range(10_000..300_000));
            scenario.outage = Some(Outage { at, workers, away });
        }
        plan.conditions = conditions(n, rng);
        let mut members: Vec<u8> = (1..=n).collect();
        members.shuffle(rng);
        let disturbed = rng.gen_range(0..=plan.committee.max_faulty().get());
        for &j in &members[..disturbed] {
            plan = match SlotBehaviour::ALL.choose(rng) {
                Some(behaviour) if rng.gen_ratio(4, 5) => plan.behaves(j, *behaviour),
                _ => plan.absent(j),
            };
        }
        for _ in 0..rng.gen_range(0..=2 * n) {
            let at = match rng.gen_range(0..3) {
                0 => When::AfterEffects(rng.gen_range(0..400)),
                1 => When::Time(rng.gen_range(0..BY)),
                _ => When::At(*Phase::ALL.choose(rng).expect("there are phases")),
            };
            plan = plan.crash(rng.gen_range(1..=n), at, rng.gen_range(500..20_000_u64));
        }
        plan
    }
}

/// As likely between 1 and 2 as between half of the most and the most.
fn up_to(most: u16, rng: &mut ChaCha20Rng) -> u16 {
    let most = most.max(1);
    let halvings = rng.gen_range(0..=most.ilog2());
    rng.gen_range(1..=most >> halvings)
}

fn conditions(n: u8, rng: &mut ChaCha20Rng) -> Conditions {
    let latency = if rng.gen_ratio(1, 4) { (50, 400) } else { (5, 50) };
    let mut conditions = Conditions { latency, ..Conditions::default() };
    if rng.gen_ratio(1, 2) {
        conditions.drop = rng.gen_range(0..80);
        conditions.duplicate = 100;
        conditions.reorder = (200, 800);
    }
    if rng.gen_ratio(1, 3) {
        let mut members: Vec<_> = (1..=n).filter_map(|j| ParticipantIndex::new(j).ok()).collect();
        members.shuffle(rng);
        let apart = members.split_off(rng.gen_range(1..members.len()));
        let from = rng.gen_range(0..BY);
        let until = from + rng.gen_range(1_000..60_000);
        conditions.partitions = vec![Partition { groups: vec![members, apart], from, until }];
    }
    conditions
}
