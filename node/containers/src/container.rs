//! What a replica looks like as a container.

use std::collections::HashMap;

use bollard::models::{
    ContainerCreateBody, ContainerSummary, DeviceRequest, HealthConfig, HostConfig,
    HostConfigLogConfig, RestartPolicy as EnginePolicy, RestartPolicyNameEnum,
};
use veil_protocol_spec::scheduling::{
    GpuUnits, HealthCheck, HealthProbe, JobSpec, LeasePolicy, ResourceRequest, Resources,
    RestartPolicy,
};

use crate::{
    error::ReplicaError,
    labels,
    replica::{DesiredReplica, Owner, ReplicaId},
};

/// Enough for any ordinary server, and no fork bomb.
const MAX_PROCESSES: i64 = 512;
/// At the end of the name of a container that the worker has stopped.
const SUSPENDED: &str = "-suspended";
const NANOSECONDS_PER_SECOND: i64 = 1_000_000_000;
const NANO_CPUS_PER_MILLICORE: i64 = 1_000_000;

/// The same for the same replica on the same worker, so that the engine refuses a second one.
pub(crate) fn name(owner: &Owner, id: &ReplicaId) -> String {
    // The job's digest covers its cluster. `veil.job` has all of it.
    let (worker, job) = (owner.worker.to_string(), id.job.to_string());
    format!("veil-{:.8}-{job:.16}-{}", worker, id.replica)
}

/// The name of a replica's container that the worker has stopped and may start again. The engine keeps
/// a container's labels as they were made, so the name says it.
pub(crate) fn suspended_name(owner: &Owner, id: &ReplicaId) -> String {
    name(owner, id) + SUSPENDED
}

/// Whether it has the name of one that the worker has stopped.
pub(crate) fn is_suspended(container: &ContainerSummary) -> bool {
    let names = container.names.as_deref().unwrap_or_default();
    names.iter().any(|name| name.ends_with(SUSPENDED))
}

/// What the job asks for, in clear.
pub(crate) fn reserved(spec: &JobSpec) -> Result<Resources, ReplicaError> {
    match &spec.request {
        ResourceRequest::Clear(resources) => Ok(*resources),
        _ => Err(ReplicaError::Request),
    }
}

pub(crate) fn body(
    owner: &Owner,
    desired: &DesiredReplica,
) -> Result<ContainerCreateBody, ReplicaError> {
    let spec = &*desired.spec;
    let reserved = reserved(spec)?;
    let unless_empty = |list: &Vec<String>| (!list.is_empty()).then(|| list.clone());
    // u16 units: at most 2^42 bytes and 2^23 millicores, both far within i64.
    let memory = reserved.memory.amount().cast_signed();
    let host = HostConfig {
        nano_cpus: Some(reserved.cpu.amount().cast_signed() * NANO_CPUS_PER_MILLICORE),
        memory: Some(memory),
        memory_swap: Some(memory), // memory and swap together: no swap
        pids_limit: Some(MAX_PROCESSES),
        privileged: Some(false),
        cap_drop: Some(vec!["ALL".to_owned()]),
        security_opt: Some(vec!["no-new-privileges:true".to_owned()]),
        restart_policy: Some(restart_policy(spec)),
        publish_all_ports: Some(false),
        device_requests: gpus(reserved.gpu),
        log_config: Some(HostConfigLogConfig {
            typ: Some("local".to_owned()),
            config: Some(HashMap::from([
                ("max-size".to_owned(), "10m".to_owned()),
                ("max-file".to_owned(), "3".to_owned()),
            ])),
        }),
        ..HostConfig::default()
    };
    Ok(ContainerCreateBody {
        image: Some(spec.image.as_str().to_owned()),
        entrypoint: unless_empty(&spec.command),
        cmd: unless_empty(&spec.args),
        labels: Some(labels::of(owner, desired, &reserved)),
        healthcheck: Some(health_check(spec.health.as_ref())),
        host_config: Some(host),
        ..ContainerCreateBody::default()
    })
}

/// The engine picks devices through NVIDIA's container toolkit; without that it refuses by name.
fn gpus(count: GpuUnits) -> Option<Vec<DeviceRequest>> {
    (count.0 > 0).then(|| {
        vec![DeviceRequest {
            count: Some(i64::from(count.0)),
            capabilities: Some(vec![vec!["gpu".to_owned()]]),
            ..DeviceRequest::default()
        }]
    })
}

/// What the engine does by itself. It starts containers when the machine starts, long before the
/// worker knows whether an exclusive lease still holds: with such a lease, only the worker restarts.
fn restart_policy(spec: &JobSpec) -> EnginePolicy {
    let (name, retries) = match (spec.lease, spec.restart) {
        (LeasePolicy::Exclusive { .. }, _) | (_, RestartPolicy::Never) => {
            (RestartPolicyNameEnum::NO, None)
        }
        // To the engine, 0 would mean without end.
        (LeasePolicy::Keep, RestartPolicy::OnFailure { max_retries: 0 }) => {
            (RestartPolicyNameEnum::NO, None)
        }
        (LeasePolicy::Keep, RestartPolicy::OnFailure { max_retries }) => {
            (RestartPolicyNameEnum::ON_FAILURE, Some(i64::from(max_retries)))
        }
        (LeasePolicy::Keep, RestartPolicy::Always) => (RestartPolicyNameEnum::ALWAYS, None),
    };
    EnginePolicy { name: Some(name), maximum_retry_count: retries }
}

/// Whether an exited container is to be started again, after `restarts` of it.
pub(crate) fn starts_again(policy: RestartPolicy, exit_code: i64, restarts: u64) -> bool {
    match policy {
        RestartPolicy::Never => false,
        RestartPolicy::OnFailure { max_retries } => {
            exit_code != 0 && restarts < u64::from(max_retries)
        }
        RestartPolicy::Always => true,
    }
}

/// The engine runs commands; the worker itself connects to ports. The image's own check is
/// switched off: what counts as healthy is for the job to say.
fn health_check(check: Option<&HealthCheck>) -> HealthConfig {
    let seconds = |seconds: u16| Some(i64::from(seconds) * NANOSECONDS_PER_SECOND);
    match check {
        Some(HealthCheck {
            probe: HealthProbe::Command(command),
            interval_seconds,
            timeout_seconds,
            retries,
            start_period_seconds,
        }) => HealthConfig {
            test: Some([&["CMD".to_owned()], command.as_slice()].concat()),
            interval: seconds(*interval_seconds),
            timeout: seconds(*timeout_seconds),
            retries: Some(i64::from(*retries)),
            start_period: seconds(*start_period_seconds),
            start_interval: None,
        },
        _ => HealthConfig { test: Some(vec!["NONE".to_owned()]), ..HealthConfig::default() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exits_are_handled_by_policy() {
        let on_failure = RestartPolicy::OnFailure { max_retries: 2 };
        for (policy, exit_code, restarts, expected) in [
            (RestartPolicy::Never, 1, 0, false),
            (RestartPolicy::Always, 0, 1000, true),
            (on_failure, 0, 0, false),
            (on_failure, 137, 1, true),
            (on_failure, 137, 2, false),
        ] {
            assert_eq!(starts_again(policy, exit_code, restarts), expected, "{policy:?}");
        }
    }
}
