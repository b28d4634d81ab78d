//! What a replica looks like as a container.

use std::collections::HashMap;

use bollard::models::{
    ContainerCreateBody, ContainerSummary, DeviceRequest, HealthConfig, HostConfig,
    HostConfigLogConfig, ResourcesUlimits, RestartPolicy as EnginePolicy, RestartPolicyNameEnum,
};
use veil_protocol_spec::scheduling::{
    ContainerSettings, GpuUnits, HealthCheck, HealthProbe, JobSpec, LeasePolicy, Mebibytes,
    ResourceRequest, Resources, RestartMode, RestartPolicy, Ulimit, User,
};

use crate::{
    error::ReplicaError,
    labels,
    replica::{DesiredReplica, Owner, ReplicaId},
};

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
    let container = &spec.container;
    let unless_empty = |list: &Vec<String>| (!list.is_empty()).then(|| list.clone());
    // u16 units: at most 2^42 bytes and 2^23 millicores, both far within i64.
    let memory = reserved.memory.amount().cast_signed();
    let host = HostConfig {
        nano_cpus: Some(reserved.cpu.amount().cast_signed() * NANO_CPUS_PER_MILLICORE),
        memory: Some(memory),
        memory_swap: Some(memory), // memory and swap together: no swap
        pids_limit: Some(i64::from(container.pids)),
        ulimits: ulimits(container),
        shm_size: container.shm_size.map(|size| size.bytes().cast_signed()),
        tmpfs: tmpfs(container),
        readonly_rootfs: Some(container.read_only),
        init: Some(container.init),
        privileged: Some(false),
        // Whatever the engine's own defaults are, the job has what its specification says.
        cap_drop: Some(vec!["ALL".to_owned()]),
        cap_add: Some(capabilities(container)),
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
        user: container.user.as_ref().map(ToString::to_string),
        working_dir: container.workdir.as_ref().map(ToString::to_string),
        hostname: container.hostname.as_ref().map(ToString::to_string),
        stop_signal: container.stop_signal.map(|signal| signal.name().to_owned()),
        stop_timeout: Some(i64::from(container.stop_timeout_seconds)),
        labels: Some(labels::of(owner, desired, &reserved)),
        healthcheck: Some(health_check(spec.health.as_ref())),
        host_config: Some(host),
        ..ContainerCreateBody::default()
    })
}

fn capabilities(container: &ContainerSettings) -> Vec<String> {
    container.capabilities.effective().iter().map(|one| format!("CAP_{one}")).collect()
}

fn ulimits(container: &ContainerSettings) -> Option<Vec<ResourcesUlimits>> {
    let limit = |ulimit: &Ulimit| ResourcesUlimits {
        name: Some(ulimit.kind.name().to_owned()),
        soft: Some(ulimit.soft),
        hard: Some(ulimit.hard),
    };
    let limits: Vec<_> = container.ulimits.iter().map(limit).collect();
    (!limits.is_empty()).then_some(limits)
}

/// As `docker run --tmpfs` mounts them: no programs, no set-id bits, no devices. Whoever the program runs as is to
/// write there, but runtimes give a folder that the image has its mode back; so it belongs to the job's user, if
/// that is a number.
fn tmpfs(container: &ContainerSettings) -> Option<HashMap<String, String>> {
    let user = container.user.as_ref().map_or("", User::as_str);
    let (user, group) = user.split_once(':').unwrap_or((user, ""));
    let owner: String = [("uid", user), ("gid", group)]
        .into_iter()
        .filter(|(_, id)| !id.is_empty() && id.bytes().all(|b| b.is_ascii_digit()))
        .map(|(key, id)| format!(",{key}={id}"))
        .collect();
    let options =
        |size: Mebibytes| format!("rw,noexec,nosuid,nodev,mode=1777,size={}{owner}", size.bytes());
    let mounts: HashMap<_, _> =
        container.tmpfs.iter().map(|one| (one.path.to_string(), options(one.size))).collect();
    (!mounts.is_empty()).then_some(mounts)
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
    let RestartPolicy { mode, attempts, .. } = spec.restart;
    let (name, retries) = match (spec.lease, mode, attempts) {
        (LeasePolicy::Exclusive { .. }, ..) | (_, RestartMode::Never, _) => {
            (RestartPolicyNameEnum::NO, None)
        }
        // To the engine, 0 would mean without end.
        (LeasePolicy::Keep, RestartMode::OnFailure, Some(0)) => (RestartPolicyNameEnum::NO, None),
        (LeasePolicy::Keep, RestartMode::OnFailure, attempts) => {
            (RestartPolicyNameEnum::ON_FAILURE, attempts.map(i64::from))
        }
        (LeasePolicy::Keep, RestartMode::Always, _) => (RestartPolicyNameEnum::ALWAYS, None),
    };
    EnginePolicy { name: Some(name), maximum_retry_count: retries }
}

/// Whether an exited container is to be started again, after `restarts` of it.
pub(crate) fn starts_again(policy: RestartPolicy, exit_code: i64, restarts: u64) -> bool {
    let wanted = match policy.mode {
        RestartMode::Never => false,
        RestartMode::OnFailure => exit_code != 0,
        RestartMode::Always => true,
    };
    wanted && policy.attempts.is_none_or(|attempts| restarts < u64::from(attempts))
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
            ..
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
    use std::sync::Arc;

    use veil_protocol_spec::{
        Address, ChainId, ClusterId, KeccakDigest, PeerIdHash, ReplicaIndex, Slot,
        scheduling::{
            Capability, CapabilityChange, ClusterScope, CpuUnits, MemoryUnits, StopSignal, Tmpfs,
            UlimitKind,
        },
    };

    use super::*;
    use crate::replica::Placement;

    const SCOPE: ClusterScope = ClusterScope {
        chain_id: ChainId(1),
        contract: Address([1; 20]),
        cluster: ClusterId([2; 32]),
    };

    fn body_of(change: impl FnOnce(&mut JobSpec)) -> ContainerCreateBody {
        let image = format!("localhost:5000/app@sha256:{}", "ab".repeat(32));
        let request = ResourceRequest::Clear(Resources {
            cpu: CpuUnits(2),
            memory: MemoryUnits(8),
            ..Resources::default()
        });
        let (operator, name) = (Address([3; 20]), "app".parse().unwrap());
        let mut spec = JobSpec::new(SCOPE, operator, 0, name, image.parse().unwrap(), request);
        change(&mut spec);
        assert_eq!(spec.validate(), Ok(()));
        let owner = Owner { scope: SCOPE, worker: PeerIdHash([4; 32]) };
        let placement = Placement { slot: Slot(1), certificate: KeccakDigest([5; 32]) };
        let spec = Arc::new(spec);
        body(&owner, &DesiredReplica { replica: ReplicaIndex(0), spec, placement }).unwrap()
    }

    #[test]
    fn a_job_that_says_nothing_gets_dockers_defaults() {
        let body = body_of(|_| {});
        let host = body.host_config.unwrap();
        assert_eq!(host.cap_drop, Some(vec!["ALL".to_owned()]));
        let added = host.cap_add.unwrap();
        assert_eq!(added.len(), Capability::ALL.len());
        assert!(
            added.contains(&"CAP_CHOWN".to_owned()) && added.contains(&"CAP_SETUID".to_owned())
        );
        assert_eq!(host.security_opt, Some(vec!["no-new-privileges:true".to_owned()]));
        assert_eq!((host.privileged, host.readonly_rootfs), (Some(false), Some(false)));
        assert_eq!((host.init, host.pids_limit), (Some(false), Some(512)));
        assert_eq!((host.tmpfs, host.ulimits, host.shm_size), (None, None, None));
        assert_eq!((body.user, body.working_dir, body.hostname), (None, None, None));
        assert_eq!((body.stop_signal, body.stop_timeout), (None, Some(10)));
    }

    #[test]
    fn settings_reach_the_engine() {
        let body = body_of(|spec| {
            let size = Mebibytes::covering(64 << 20).unwrap();
            spec.container = ContainerSettings {
                user: Some("101:101".parse().unwrap()),
                workdir: Some("/srv".parse().unwrap()),
                hostname: Some("web".parse().unwrap()),
                init: true,
                read_only: true,
                tmpfs: vec![Tmpfs { path: "/tmp".parse().unwrap(), size }],
                shm_size: Some(size),
                pids: 2000,
                ulimits: vec![Ulimit { kind: UlimitKind::Nofile, soft: 1024, hard: 65_536 }],
                stop_signal: Some(StopSignal::Quit),
                capabilities: CapabilityChange {
                    drop_all: true,
                    add: vec![Capability::NetBindService],
                    drop: Vec::new(),
                },
                ..ContainerSettings::default()
            };
        });
        let host = body.host_config.unwrap();
        assert_eq!(host.cap_add, Some(vec!["CAP_NET_BIND_SERVICE".to_owned()]));
        assert_eq!((host.init, host.readonly_rootfs), (Some(true), Some(true)));
        assert_eq!((host.pids_limit, host.shm_size), (Some(2000), Some(64 << 20)));
        let mounts = HashMap::from([(
            "/tmp".to_owned(),
            "rw,noexec,nosuid,nodev,mode=1777,size=67108864,uid=101,gid=101".to_owned(),
        )]);
        assert_eq!(host.tmpfs, Some(mounts));
        let ulimit = host.ulimits.unwrap().remove(0);
        assert_eq!(ulimit.name.as_deref(), Some("nofile"));
        assert_eq!((ulimit.soft, ulimit.hard), (Some(1024), Some(65_536)));
        assert_eq!(body.user.as_deref(), Some("101:101"));
        assert_eq!(body.working_dir.as_deref(), Some("/srv"));
        assert_eq!(body.hostname.as_deref(), Some("web"));
        assert_eq!(body.stop_signal.as_deref(), Some("SIGQUIT"));
    }

    fn policy(mode: RestartMode, attempts: Option<u16>) -> RestartPolicy {
        RestartPolicy { mode, attempts, ..RestartPolicy::default() }
    }

    #[test]
    fn exits_are_handled_by_policy() {
        let on_failure = policy(RestartMode::OnFailure, Some(2));
        for (policy, exit_code, restarts, expected) in [
            (policy(RestartMode::Never, None), 1, 0, false),
            (policy(RestartMode::Always, None), 0, 1000, true),
            (policy(RestartMode::OnFailure, None), 1, 1000, true),
            (on_failure, 0, 0, false),
            (on_failure, 137, 1, true),
            (on_failure, 137, 2, false),
        ] {
            assert_eq!(starts_again(policy, exit_code, restarts), expected, "{policy:?}");
        }
    }

    #[test]
    fn the_engine_restarts_by_itself_unless_the_lease_forbids_it() {
        use RestartPolicyNameEnum::{ALWAYS, NO, ON_FAILURE};

        let engine = |lease, mode, attempts| {
            let body = body_of(|spec| {
                (spec.lease, spec.restart) = (lease, policy(mode, attempts));
            });
            let policy = body.host_config.unwrap().restart_policy.unwrap();
            (policy.name.unwrap(), policy.maximum_retry_count)
        };
        let keep = LeasePolicy::Keep;
        assert_eq!(engine(keep, RestartMode::Always, None), (ALWAYS, None));
        assert_eq!(engine(keep, RestartMode::Never, None), (NO, None));
        assert_eq!(engine(keep, RestartMode::OnFailure, None), (ON_FAILURE, None));
        assert_eq!(engine(keep, RestartMode::OnFailure, Some(2)), (ON_FAILURE, Some(2)));
        assert_eq!(engine(keep, RestartMode::OnFailure, Some(0)), (NO, None));
        let exclusive = LeasePolicy::Exclusive { seconds: 60 };
        assert_eq!(engine(exclusive, RestartMode::Always, None), (NO, None));
    }
}
