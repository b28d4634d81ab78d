//! What the circuit decides: its cleartext twin on quantised capacities.

use veil_protocol_spec::{
    Slot,
    scheduling::{
        Candidates, ClusterPolicy, CpuUnits, DiskUnits, GpuUnits, MemoryUnits, Reading,
        RequestTooLarge, ResourceRequest, Resources, Scale, SchedulingPolicy, Share, keccak,
    },
};
use veil_scheduler_plan::{
    cleartext::{self, Secrets},
    inputs::PublicInputs,
    plan::Plan,
    threshold::twin,
};

use super::{Amounts, Placement, Placer, View, Workload};
use crate::cluster::{job, manifest};

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// A policy of the circuit.
#[derive(Debug)]
pub struct Quantised {
    name: &'static str,
    policy: SchedulingPolicy,
    scale: Scale,
    candidates: Candidates,
    thresholds: bool,
}

impl Quantised {
    /// `policy` under a name of the reader's, in the finest scale in which every job of the workload
    /// can be stated, as an operator who knows the jobs would choose it.
    ///
    /// # Errors
    /// [`RequestTooLarge`] if no scale can state them.
    pub fn new(
        name: &'static str,
        policy: SchedulingPolicy,
        candidates: Candidates,
        workload: &Workload,
    ) -> Result<Self, RequestTooLarge> {
        let largest = workload.arrivals.iter().fold(Amounts::default(), |largest, arrival| {
            Amounts(core::array::from_fn(|i| largest.0[i].max(arrival.request.0[i])))
        });
        let scale = Scale::covering(&covering(&largest)?);
        Ok(Self { name, policy, scale, candidates, thresholds: false })
    }

    /// The same as the threshold circuit decides.
    #[must_use]
    pub const fn by_thresholds(self) -> Self {
        Self { thresholds: true, ..self }
    }
}

impl Placer for Quantised {
    fn name(&self) -> &'static str {
        self.name
    }

    fn place(&mut self, view: &View<'_>) -> Placement {
        // A job that no unit can count is no job for this cluster: it stays outside the manifest.
        let requests: Vec<_> = view.requests.iter().map(|one| covering(one).ok()).collect();
        let jobs: Vec<_> = requests
            .iter()
            .flatten()
            .zip(0..)
            .map(|(request, nonce)| {
                job(nonce, ResourceRequest::Clear(*request), 1, self.policy, None)
            })
            .collect();
        let mut manifest = manifest(view.capacity.len(), &jobs, view.slot + 1);
        let public = PublicInputs {
            policy: ClusterPolicy {
                scale: self.scale,
                min_candidates: 1,
                candidates: self.candidates,
                ..ClusterPolicy::default()
            },
            jobs: jobs.into_iter().map(|job| (job.digest(), job)).collect(),
            seed: keccak(&view.slot.to_le_bytes()),
            last_decided: Slot(view.slot),
            ..PublicInputs::default()
        };
        let failed = requests.iter().zip(view.failed).filter(|(request, _)| request.is_some());
        for (pending, (_, failed)) in manifest.pending.iter_mut().zip(failed) {
            pending.candidates = public.policy.sampling().of_try(*failed);
        }
        let plan = Plan::new(&manifest, &public)?;
        let readings: Vec<_> = view
            .free
            .iter()
            .zip(view.capacity)
            .map(|(free, capacity)| Reading {
                free: self.scale.free(&within(free)),
                share: Share::of([0, 1].map(|resource| (free.0[resource], capacity.0[resource]))),
                ..Reading::default()
            })
            .collect();
        let place = if self.thresholds { twin::place } else { cleartext::place };
        let placed = place(&plan, &readings, &Secrets::default());
        let mut placed = placed.into_iter();
        Ok(requests.iter().map(|request| request.and_then(|_| placed.next().flatten())).collect())
    }
}

fn covering(request: &Amounts) -> Result<Resources, RequestTooLarge> {
    let [cpu, memory, disk, gpu] = request.0;
    Ok(Resources {
        cpu: CpuUnits::covering(cpu)?,
        memory: MemoryUnits::covering(memory * MIB)?,
        disk: DiskUnits::covering(disk * GIB)?,
        gpu: GpuUnits::covering(gpu)?,
    })
}

fn within(free: &Amounts) -> Resources {
    let [cpu, memory, disk, gpu] = free.0;
    Resources {
        cpu: CpuUnits::within(cpu),
        memory: MemoryUnits::within(memory * MIB),
        disk: DiskUnits::within(disk * GIB),
        gpu: GpuUnits::within(gpu),
    }
}
