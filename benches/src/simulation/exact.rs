//! What an orchestrator does that sees everything: exact capacities and requests.

use super::{Amounts, Placement, Placer, View};

/// Takes the machine that is left with the smallest share of itself.
#[derive(Debug)]
pub struct BestFit;

/// Takes the machine that is left with the largest share of itself.
#[derive(Debug)]
pub struct LeastLoaded;

impl Placer for BestFit {
    fn name(&self) -> &'static str {
        "exact best-fit"
    }

    fn place(&mut self, view: &View<'_>) -> Placement {
        Ok(place(view, |left, capacity| -spare(left, capacity)))
    }
}

impl Placer for LeastLoaded {
    fn name(&self) -> &'static str {
        "exact least-loaded"
    }

    fn place(&mut self, view: &View<'_>) -> Placement {
        Ok(place(view, spare))
    }
}

/// The smaller of the two shares.
fn spare(left: &Amounts, capacity: &Amounts) -> f64 {
    let [cpu, memory] = left.shares(capacity);
    cpu.min(memory)
}

/// The first machine with the highest score, for each request in turn.
fn place(view: &View<'_>, score: impl Fn(&Amounts, &Amounts) -> f64) -> Vec<Option<usize>> {
    let mut free = view.free.to_vec();
    let choose = |request: &Amounts| {
        let mut best: Option<(f64, usize, Amounts)> = None;
        for (machine, (free, capacity)) in free.iter().zip(view.capacity).enumerate() {
            let Some(left) = free.without(request) else { continue };
            let score = score(&left, capacity);
            if best.is_none_or(|(highest, ..)| score > highest) {
                best = Some((score, machine, left));
            }
        }
        let (_, machine, left) = best?;
        free[machine] = left;
        Some(machine)
    };
    view.requests.iter().map(choose).collect()
}
