//! What a container says about itself.

use std::{collections::HashMap, time::Duration};

use veil_protocol_spec::{
    ReplicaIndex, Slot,
    scheduling::{
        ContainerSettings, CpuUnits, DiskUnits, GpuUnits, LeasePolicy, MemoryUnits, Resources,
    },
};

use crate::{
    owner::Owner,
    place::Unshared,
    replica::{DesiredReplica, ReplicaId},
};

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

/// Published ports, where there are such.
const PORTS: &str = "veil.ports";
/// Ids of GPUs, where there are such.
const GPUS: &str = "veil.gpus";
/// The block of addresses of its links, where there are such.
const LINKS: &str = "veil.links";
/// Seconds between the stop signal and the kill, if the job says another number than the default.
const STOP: &str = "veil.stop";

/// Chain, contract and cluster: the same worker may serve clusters of one name on two chains.
fn cluster(owner: &Owner) -> String {
    let scope = &owner.scope;
    format!("{}/{}/{}", scope.chain_id, scope.contract, scope.cluster)
}

/// The labels that only what is `owner`'s carries.
pub(crate) fn of_owner(owner: &Owner) -> [(&'static str, String); 2] {
    [(CLUSTER, cluster(owner)), (WORKER, owner.worker.to_string())]
}

/// The worker's containers, whatever their cluster, as a filter of events: of two labels Podman takes either there.
pub(crate) fn of_worker(owner: &Owner) -> HashMap<String, Vec<String>> {
    HashMap::from([("label".to_owned(), vec![format!("{WORKER}={}", owner.worker)])])
}

/// The same as a filter.
pub(crate) fn filter(owner: &Owner) -> HashMap<String, Vec<String>> {
    let labels = of_owner(owner).map(|(key, value)| format!("{key}={value}"));
    HashMap::from([("label".to_owned(), labels.to_vec())])
}

pub(crate) fn of(
    owner: &Owner,
    desired: &DesiredReplica,
    reserved: &Resources,
    unshared: &Unshared,
) -> HashMap<String, String> {
    let Resources { cpu, memory, disk, gpu } = reserved;
    let id = desired.id();
    let lease = match desired.spec.lease {
        LeasePolicy::Keep => None,
        LeasePolicy::Exclusive { seconds } => Some((LEASE, seconds.to_string())),
    };
    let ports: Vec<_> = unshared.ports.iter().map(ToString::to_string).collect();
    let ports = (!ports.is_empty()).then(|| (PORTS, ports.join(",")));
    let devices = &unshared.devices;
    let devices = (!devices.is_empty()).then(|| (GPUS, devices.join(",")));
    let links = unshared.links.map(|block| (LINKS, block.to_string()));
    let stop = desired.spec.container.stop_timeout_seconds;
    let stop = (stop != ContainerSettings::DEFAULT_STOP_SECONDS).then(|| (STOP, stop.to_string()));
    [
        (JOB, id.job.to_string()),
        (REPLICA, id.replica.to_string()),
        (SLOT, desired.placement.slot.to_string()),
        (CERTIFICATE, desired.placement.certificate.to_string()),
        (RESERVED, format!("{},{},{},{}", cpu.0, memory.0, disk.0, gpu.0)),
    ]
    .into_iter()
    .chain(of_owner(owner))
    .chain(lease)
    .chain(ports)
    .chain(devices)
    .chain(links)
    .chain(stop)
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
    /// What nobody else can have meanwhile.
    pub(crate) unshared: Unshared,
}

/// How long it may take to stop, if its job says so.
pub(crate) fn stop_time(labels: Option<&HashMap<String, String>>) -> Option<Duration> {
    labels?.get(STOP)?.parse().ok().map(Duration::from_secs)
}

/// The GPUs of a container of whatever worker.
pub(crate) fn devices(labels: &HashMap<String, String>) -> Option<Vec<String>> {
    Some(labels.get(GPUS)?.split(',').map(str::to_owned).collect())
}

/// Whether it is no worker's.
pub(crate) fn is_foreign(labels: Option<&HashMap<String, String>>) -> bool {
    labels.is_none_or(|labels| !labels.contains_key(WORKER))
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
    let ports = match labels.get(PORTS) {
        Some(ports) => ports.split(',').map(|one| one.parse().ok()).collect::<Option<_>>()?,
        None => Vec::new(),
    };
    let links = match labels.get(LINKS) {
        Some(block) => Some(block.parse().ok()?),
        None => None,
    };
    let unshared = Unshared { ports, devices: devices(labels).unwrap_or_default(), links };
    Some(Labels { id, slot, lease, reserved, unshared })
}
