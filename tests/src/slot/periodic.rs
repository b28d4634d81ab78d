//! Periodic jobs of the world: at which times they are run, and what members make of them as of a block.

use std::{collections::BTreeMap, sync::Arc};

use veil_committee_machine::Millis;
use veil_committee_slot::demand::{AllowedImages, JobDemand};
use veil_protocol_spec::{
    Blake3Digest,
    scheduling::{ClusterPolicy, JobSpec, JobType, Overlap, Schedule},
};

use crate::fixtures;

/// The chain's time at the beginning of the world, in Unix seconds: 2026-10-25T00:40:30Z. Berlin's clocks are put back at
/// 01:00.
const START: u64 = 1_792_888_830;

/// When the jobs are run: every minute, some minutes of each hour, one hour of the day that comes twice.
const TIMES: [(&str, &str); 6] = [
    ("* * * * *", "UTC"),
    ("*/2 * * * *", "America/Havana"),
    ("* * * * *", "Asia/Kathmandu"),
    ("*/3 * * * *", "Europe/Berlin"),
    ("* 2 * * *", "Europe/Berlin"),
    ("0-9,30-59/4 * * * *", "UTC"),
];

/// The chain's time, in Unix seconds.
pub(super) const fn chain_time(now: Millis) -> u64 {
    START + now / 1_000
}

/// What the `position`th job is, if it is among the share of 256 that are periodic. It follows from the seed and from
/// nothing that is drawn besides, so that the other jobs of a run are the same with and without.
pub(super) fn kind(seed: u64, position: u64, share: u8) -> Option<JobType> {
    let drawn = fixtures::draw(seed, "periodic job", position);
    let (cron, zone) = TIMES[usize::from(drawn[1]) % TIMES.len()];
    (drawn[0] < share).then(|| JobType::Periodic {
        cron: cron.parse().expect("times"),
        time_zone: zone.parse().expect("a zone"),
        overlap: if drawn[2].is_multiple_of(2) { Overlap::Skip } else { Overlap::Replace },
    })
}

/// When one job is run.
pub(super) struct Timed {
    pub(super) schedule: Schedule,
    pub(super) overlap: Overlap,
}

/// The periodic jobs whose body is known.
#[derive(Default)]
pub(super) struct Periodic {
    timed: BTreeMap<Blake3Digest, Timed>,
    /// What all jobs want as of a time: the same for all members.
    as_of: Option<(u64, Arc<BTreeMap<Blake3Digest, JobDemand>>)>,
}

impl Periodic {
    /// These jobs are wanted now.
    pub(super) fn set<'a>(&mut self, jobs: impl Iterator<Item = (&'a Blake3Digest, &'a JobSpec)>) {
        let mut before = core::mem::take(&mut self.timed);
        for (digest, job) in jobs {
            let JobType::Periodic { cron, time_zone, overlap } = &job.kind else { continue };
            let new = || Timed {
                schedule: Schedule::new(cron, time_zone).expect("a schedule"),
                overlap: *overlap,
            };
            self.timed.insert(*digest, before.remove(digest).unwrap_or_else(new));
        }
        self.as_of = None;
    }

    pub(super) fn get(&self, job: &Blake3Digest) -> Option<&Timed> {
        self.timed.get(job)
    }

    /// Those jobs, in order.
    pub(super) fn all(&self) -> impl Iterator<Item = (&Blake3Digest, &Timed)> {
        self.timed.iter()
    }

    /// What `jobs` want as of a block of that time, of which `lasting` says what does not depend on it.
    pub(super) fn bodies(
        &mut self,
        lasting: &Arc<BTreeMap<Blake3Digest, JobDemand>>,
        jobs: &BTreeMap<Blake3Digest, JobSpec>,
        policy: &ClusterPolicy,
        time: u64,
    ) -> Arc<BTreeMap<Blake3Digest, JobDemand>> {
        if self.timed.is_empty() {
            return Arc::clone(lasting);
        }
        if let Some((_, known)) = self.as_of.as_ref().filter(|(of, _)| *of == time) {
            return Arc::clone(known);
        }
        let mut bodies = (**lasting).clone();
        for job in self.timed.keys() {
            let demand = |spec| JobDemand::of(spec, policy, &AllowedImages::default(), time);
            bodies.extend(jobs.get(job).map(|spec| (*job, demand(spec))));
        }
        let bodies = Arc::new(bodies);
        self.as_of = Some((time, Arc::clone(&bodies)));
        bodies
    }
}
