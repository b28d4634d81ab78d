//! The simulated network: when, how often and whether a message arrives.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha20Rng;
use serde::{Deserialize, Serialize};
use veil_committee_machine::Millis;
use veil_protocol_spec::{Committee, ParticipantIndex};

use crate::Mail;

/// An interval in which only members of one group reach each other, and only those of the first
/// group the commit point. A member of no group reaches nobody.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Partition {
    /// The groups.
    pub groups: Vec<Vec<ParticipantIndex>>,
    /// First millisecond.
    pub from: Millis,
    /// First millisecond after it.
    pub until: Millis,
}

impl Partition {
    /// Whether two members do not reach each other now.
    #[must_use]
    pub fn cuts(&self, a: ParticipantIndex, b: ParticipantIndex, now: Millis) -> bool {
        let together = self.groups.iter().any(|group| group.contains(&a) && group.contains(&b));
        (self.from..self.until).contains(&now) && !together
    }
}

/// How bad the network is. Chances are in thousandths.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Conditions {
    /// Each directed link has a latency of its own in this range.
    pub latency: (Millis, Millis),
    /// Chance that a message is lost.
    pub drop: u32,
    /// Chance that it arrives twice.
    pub duplicate: u32,
    /// Chance that it is held back, and for how long at most, so that later ones overtake it.
    pub reorder: (u32, Millis),
    /// Intervals of partition.
    pub partitions: Vec<Partition>,
}

impl Default for Conditions {
    fn default() -> Self {
        Self { latency: (5, 50), ..Self::INSTANT }
    }
}

impl Conditions {
    /// A network that takes no time and loses nothing.
    pub const INSTANT: Self =
        Self { latency: (0, 0), drop: 0, duplicate: 0, reorder: (0, 0), partitions: Vec::new() };
}

/// What one member put on the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Messages, one per recipient.
    pub messages: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Those that were lost by chance.
    pub lost: u64,
    /// Those that a partition cut off.
    pub cut: u64,
}

/// All directed links between the members, and from each of them to the commit point.
#[derive(Debug)]
pub(crate) struct Network {
    conditions: Conditions,
    rng: ChaCha20Rng,
    /// Latency from participant i to j at i n + j, positions from zero.
    latency: Vec<Millis>,
    /// What each member has sent so far.
    pub(crate) traffic: Vec<Traffic>,
}

impl Network {
    /// The network of a committee under the given conditions.
    pub(crate) fn new(committee: Committee, conditions: Conditions, seed: [u8; 32]) -> Self {
        let mut rng = ChaCha20Rng::from_seed(seed);
        let n = committee.n();
        let (least, most) = conditions.latency;
        let latency = (0..n * n).map(|_| rng.gen_range(least..=most.max(least))).collect();
        Self { conditions, rng, latency, traffic: vec![Traffic::default(); n] }
    }

    /// How long a message that leaves at this time is under way: it arrives never, once or twice.
    pub(crate) fn carry(&mut self, mail: &Mail, now: Millis) -> Vec<Millis> {
        let (from, to) = (mail.from, mail.to);
        let n = self.traffic.len();
        let traffic = &mut self.traffic[from.position()];
        traffic.messages += 1;
        traffic.bytes += mail.bytes.len() as u64;
        let copies = 1 + usize::from(self.chance(self.conditions.duplicate));
        let mut arrivals = Vec::with_capacity(copies);
        for _ in 0..copies {
            let latency = self.latency[from.position() * n + to.position()];
            let jitter = self.rng.gen_range(0..=latency / 4);
            let (permille, most) = self.conditions.reorder;
            let held = if self.chance(permille) { self.rng.gen_range(0..=most) } else { 0 };
            let lost = self.chance(self.conditions.drop);
            let cut = self.conditions.partitions.iter().any(|p| p.cuts(from, to, now));
            let traffic = &mut self.traffic[from.position()];
            traffic.lost += u64::from(lost);
            traffic.cut += u64::from(cut);
            if !lost && !cut {
                arrivals.push(latency + jitter + held);
            }
        }
        arrivals
    }

    fn chance(&mut self, permille: u32) -> bool {
        permille > 0 && self.rng.gen_range(0..1000) < permille
    }

    /// How long something is under way that a member brings to the commit point now, or the other way
    /// round. Nothing is lost on this way, but a member that is cut off waits.
    pub(crate) fn commit_point(&mut self, member: ParticipantIndex, now: Millis) -> Millis {
        let mut time = now;
        while let Some(cut) = self.conditions.partitions.iter().find(|p| {
            let reaches = p.groups.first().is_some_and(|group| group.contains(&member));
            (p.from..p.until).contains(&time) && !reaches
        }) {
            time = cut.until;
        }
        let (least, most) = self.conditions.latency;
        time - now + self.rng.gen_range(least..=most.max(least))
    }
}
