//! The cleartext twin: the decision of the circuit, written as one would write it without
//! encryption. Tests hold the two against each other; the simulator and `veil job plan` can use it
//! where capacities are known.

use veil_protocol_spec::scheduling::Resources;

use crate::{
    plan::{MAX_COUNT, Plan, room},
    telemetry::quantities,
};

/// The worker, as position in the manifest's telemetry, for every pending replica of the manifest,
/// in its order; `None` for pending. `free` is by position in the manifest's telemetry; a worker
/// that is missing there has nothing free.
#[must_use]
pub fn place(plan: &Plan, free: &[Resources]) -> Vec<Option<usize>> {
    let mut free: Vec<_> = free.iter().map(quantities).collect();
    free.resize(plan.workers, [0; 4]);
    let mut outcome = vec![None; plan.replicas];
    // Replicas of the current job placed in this slot, by worker.
    let mut placed = vec![0u16; plan.workers];
    for step in &plan.steps {
        let best = step
            .candidates
            .iter()
            .copied()
            .filter(|worker| {
                let fits = free[*worker].iter().zip(&step.request).all(|(free, need)| free >= need);
                fits && !(step.hard && placed[*worker] > 0)
            })
            .rev() // max_by_key takes the last of equals: make that the first in order
            .max_by_key(|worker| {
                let count = (step.running[*worker] + placed[*worker]).min(MAX_COUNT);
                let room = room(free[*worker][step.dominant], step.request[step.dominant]);
                (core::cmp::Reverse(count), room)
            });
        if let Some(worker) = best {
            placed[worker] += 1;
            for (free, need) in free[worker].iter_mut().zip(&step.request) {
                *free -= need;
            }
        }
        if step.last_of_job {
            placed.fill(0);
        }
        outcome[step.position] = best;
    }
    outcome
}
