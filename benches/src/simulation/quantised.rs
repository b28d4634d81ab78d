//! What the circuit decides: its cleartext twin on quantised capacities.

use std::collections::BTreeMap;

use veil_protocol_spec::scheduling::{
    CpuUnits, DiskUnits, GpuUnits, MemoryUnits, RequestTooLarge, ResourceRequest, Resources,
    SchedulingPolicy,
};
use veil_scheduler::{Plan, PublicInputs, cleartext};

use super::{Amounts, Placement, Placer, View};
use crate::cluster::{job, manifest};

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// A policy of the circuit.
#[derive(Debug)]
pub struct Quantised {
    name: &'static str,
    policy: SchedulingPolicy,
}

impl Quantised {
    /// `policy` under a name of the reader's.
    #[must_use]
    pub const fn new(name: &'static str, policy: SchedulingPolicy) -> Self {
        Self { name, policy }
    }
}

impl Placer for Quantised {
    fn name(&self) -> &'static str {
        self.name
    }

    fn place(&mut self, view: &View<'_>) -> Placement {
        // A job that no unit can count is no job for this cluster: it stays outside the manifest.
        let requests: Vec<_> = view.requests.iter().map(|request| covering(request).ok()).collect();
        let jobs: Vec<_> = requests
            .iter()
            .flatten()
            .zip(0..)
            .map(|(request, nonce)| {
                job(nonce, ResourceRequest::Clear(*request), 1, self.policy, None)
            })
            .collect();
        let manifest = manifest(view.capacity.len(), &jobs, view.slot + 1);
        let public = PublicInputs {
            jobs: jobs.into_iter().map(|job| (job.digest(), job)).collect(),
            labels: BTreeMap::new(),
        };
        let plan = Plan::new(&manifest, &public)?;
        let free: Vec<_> = view.free.iter().map(within).collect();
        let mut placed = cleartext::place(&plan, &free).into_iter();
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
