//! What a replica looks like as a container.

use std::collections::HashMap;

use bollard::models::{
    ContainerCreateBody, ContainerSummary, HealthConfig, HostConfig, HostConfigLogConfig, Mount,
    ResourcesUlimits, RestartPolicy as EnginePolicy, RestartPolicyNameEnum,
};
use veil_protocol_spec::scheduling::{
    ContainerSettings, HealthCheck, HealthProbe, JobSpec, SealedContents, Ulimit,
};

use crate::{
    error::ReplicaError,
    gpu, hosts, labels,
    owner::Owner,
    place::{Place, Unshared},
    port,
    replica::{DesiredReplica, ReplicaId},
    volume::in_memory,
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

pub(crate) fn body(
    owner: &Owner,
    desired: &DesiredReplica,
    place: &Place,
) -> Result<ContainerCreateBody, ReplicaError> {
    let spec = &*desired.spec;
    let reserved = desired.limits()?;
    let container = &spec.container;
    let unless_empty = |list: &[String]| (!list.is_empty()).then(|| list.to_vec());
    // u16 units: at most 2^42 bytes and 2^23 millicores, both far within i64.
    let memory = reserved.memory.amount().cast_signed();
    let unless_none = |list: &Vec<Mount>| (!list.is_empty()).then(|| list.clone());
    let Unshared { ports, devices, links } = &place.unshared;
    let bindings = port::bindings(ports);
    let exposed: Vec<_> = bindings.keys().cloned().collect();
    let host = HostConfig {
        network_mode: Some(place.network.clone()),
        dns: unless_empty(&place.name_servers),
        extra_hosts: hosts::hosts(spec, *links),
        port_bindings: (!bindings.is_empty()).then_some(bindings),
        mounts: unless_none(&place.mounts),
        runtime: place.runtime.clone(),
        nano_cpus: Some(reserved.cpu.amount().cast_signed() * NANO_CPUS_PER_MILLICORE),
        memory: Some(memory),
        memory_swap: Some(memory), // memory and swap together: no swap
        pids_limit: Some(i64::from(container.pids)),
        ulimits: ulimits(container),
        shm_size: container.shm_size.map(|size| size.bytes().cast_signed()),
        tmpfs: tmpfs(container, &place.tmpfs),
        readonly_rootfs: Some(container.read_only),
        init: Some(container.init),
        privileged: Some(false),
        // Whatever the engine's own defaults are, the job has what its specification says.
        cap_drop: Some(vec!["ALL".to_owned()]),
        cap_add: Some(capabilities(container)),
        security_opt: Some(vec!["no-new-privileges:true".to_owned()]),
        // Only the worker starts a container again.
        restart_policy: Some(EnginePolicy {
            name: Some(RestartPolicyNameEnum::NO),
            ..EnginePolicy::default()
        }),
        publish_all_ports: Some(false),
        device_requests: gpu::request(devices),
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
        entrypoint: unless_empty(desired.command()),
        cmd: unless_empty(desired.args()),
        user: container.user.as_ref().map(ToString::to_string),
        working_dir: container.workdir.as_ref().map(ToString::to_string),
        hostname: container.hostname.as_ref().map(ToString::to_string),
        env: environment(spec, desired.contents.as_deref()),
        stop_signal: container.stop_signal.map(|signal| signal.name().to_owned()),
        stop_timeout: Some(i64::from(container.stop_timeout_seconds)),
        labels: Some(labels::of(owner, desired, &reserved, &place.unshared)),
        exposed_ports: (!exposed.is_empty()).then_some(exposed),
        healthcheck: Some(health_check(spec.health.as_ref())),
        host_config: Some(host),
        ..ContainerCreateBody::default()
    })
}

/// `NAME=value`, as engines take it.
fn environment(spec: &JobSpec, contents: Option<&SealedContents>) -> Option<Vec<String>> {
    let sealed = contents.into_iter().flat_map(|contents| &contents.env);
    let sealed = sealed.map(|one| format!("{}={}", one.name, one.value));
    let variables: Vec<_> = sealed.chain(hosts::variables(spec)).collect();
    (!variables.is_empty()).then_some(variables)
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

/// The job's folders in memory, with those that are volumes.
fn tmpfs(
    container: &ContainerSettings,
    volumes: &HashMap<String, String>,
) -> Option<HashMap<String, String>> {
    let user = container.user.as_ref();
    let own = container.tmpfs.iter();
    let own = own.map(|one| (one.path.to_string(), in_memory(one.size, false, user)));
    let mounts: HashMap<_, _> = own.chain(volumes.clone()).collect();
    (!mounts.is_empty()).then_some(mounts)
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
            Capability, CapabilityChange, ClusterScope, CpuUnits, JobSpec, Mebibytes, MemoryUnits,
            ResourceRequest, Resources, RestartMode, SealedVariable, StopSignal, Tmpfs, UlimitKind,
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
        let desired = DesiredReplica { replica: ReplicaIndex(0), spec, placement, contents: None };
        let place = Place { network: "veil-test".to_owned(), ..Place::default() };
        body(&owner, &desired, &place).unwrap()
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

    #[test]
    fn variables_are_as_engines_take_them() {
        let variable =
            |name: &str, value: &str| SealedVariable { name: name.into(), value: value.into() };
        let env = vec![variable("A", ""), variable("DB", "a=b c")];
        let mut contents = SealedContents::default();
        contents.env = env;
        let spec = crate::fake::replicas(1, 1)[0].spec.clone();
        let expected = Some(vec!["A=".to_owned(), "DB=a=b c".to_owned()]);
        assert_eq!(environment(&spec, Some(&contents)), expected);
        assert_eq!(environment(&spec, None), None);
    }

    #[test]
    fn the_engine_never_starts_a_container_by_itself() {
        for mode in [RestartMode::Never, RestartMode::OnFailure, RestartMode::Always] {
            let body = body_of(|spec| spec.restart.mode = mode);
            let policy = body.host_config.unwrap().restart_policy.unwrap();
            let expected = (Some(RestartPolicyNameEnum::NO), None);
            assert_eq!((policy.name, policy.maximum_retry_count), expected);
        }
    }
}
