//! What a container says about itself.

use std::{collections::HashMap, time::Duration};

use veil_protocol_spec::{
    ReplicaIndex, Slot,
    scheduling::{CpuUnits, DiskUnits, GpuUnits, LeasePolicy, MemoryUnits, Resources},
};

use crate::replica::{DesiredReplica, Owner, ReplicaId};

const CLUSTER: &str = "veil.cluster";
const WORKER: &str = "veil.worker";
const JOB: &str = "veil.job";
const REPLICA: &str = "veil.replica";
const SLOT: &str = "veil.slot";
const CERTIFICATE: &str = "veil.certificate";
/// Seconds of an exclusive lease.
const LEASE: &str = "veil.lease";
/// Reserved units: CPU, memory, disk, GPU.
const RESERVED: &str = "veil.reserved";

/// Chain, contract and cluster: the same worker may serve clusters of one name on two chains.
fn cluster(owner: &Owner) -> String {
    let scope = &owner.scope;
    format!("{}/{}/{}", scope.chain_id, scope.contract, scope.cluster)
}

/// The labels that only `owner`'s containers carry, as a filter.
pub(crate) fn filter(owner: &Owner) -> HashMap<String, Vec<String>> {
    let labels =
        vec![format!("{CLUSTER}={}", cluster(owner)), format!("{WORKER}={}", owner.worker)];
    HashMap::from([("label".to_owned(), labels)])
}

pub(crate) fn of(
    owner: &Owner,
    desired: &DesiredReplica,
    reserved: &Resources,
) -> HashMap<String, String> {
    let Resources { cpu, memory, disk, gpu } = reserved;
    let id = desired.id();
    let lease = match desired.spec.lease {
        LeasePolicy::Keep => None,
        LeasePolicy::Exclusive { seconds } => Some((LEASE, seconds.to_string())),
    };
    [
        (CLUSTER, cluster(owner)),
        (WORKER, owner.worker.to_string()),
        (JOB, id.job.to_string()),
        (REPLICA, id.replica.to_string()),
        (SLOT, desired.placement.slot.to_string()),
        (CERTIFICATE, desired.placement.certificate.to_string()),
        (RESERVED, format!("{},{},{},{}", cpu.0, memory.0, disk.0, gpu.0)),
    ]
    .into_iter()
    .chain(lease)
    .map(|(key, value)| (key.to_owned(), value))
    .collect()
}

/// What a container of this worker says about itself.
pub(crate) struct Labels {
    pub(crate) id: ReplicaId,
    /// The slot that placed it.
    pub(crate) slot: Slot,
    /// How long it may run out of contact, if its lease is exclusive.
    pub(crate) lease: Option<Duration>,
    /// What it holds of the machine.
    pub(crate) reserved: Resources,
}

/// None if the labels are not what [`of`] writes.
pub(crate) fn read(labels: &HashMap<String, String>) -> Option<Labels> {
    let id = ReplicaId {
        job: labels.get(JOB)?.parse().ok()?,
        replica: ReplicaIndex(labels.get(REPLICA)?.parse().ok()?),
    };
    let slot = Slot(labels.get(SLOT)?.parse().ok()?);
    let lease = match labels.get(LEASE) {
        Some(seconds) => Some(Duration::from_secs(seconds.parse().ok()?)),
        None => None,
    };
    let mut units = labels.get(RESERVED)?.split(',').map(str::parse);
    let mut next = || units.next()?.ok();
    let reserved = Resources {
        cpu: CpuUnits(next()?),
        memory: MemoryUnits(next()?),
        disk: DiskUnits(next()?),
        gpu: GpuUnits(next()?),
    };
    Some(Labels { id, slot, lease, reserved })
}
