//! Values shared by the unit tests of this crate.

use core::num::NonZeroU16;

use veil_protocol_spec_base::{
    binding::ClusterScope,
    ids::{Address, ChainId, ClusterId},
};

use crate::{
    container::*, job::*, kind::*, labels::Label, lifecycle::*, links::*, names::Organisation,
    network::*, quantities::LatencyClass, request::*, resources::*, volume::*,
};

pub(crate) fn labels(texts: &[&str]) -> Vec<Label> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

/// A sound job.
pub(crate) fn job() -> JobSpec {
    let scope = ClusterScope {
        chain_id: ChainId(31_337),
        contract: Address([0xc0; 20]),
        cluster: ClusterId([0xc1; 32]),
    };
    let image = format!("localhost:5000/app@sha256:{}", "ab".repeat(32)).parse().unwrap();
    let request = ResourceRequest::Clear(Resources {
        cpu: CpuUnits(5),
        memory: MemoryUnits(8),
        disk: DiskUnits(1),
        gpu: GpuUnits(0),
    });
    JobSpec {
        tag: Some("1.4".to_owned().try_into().unwrap()),
        command: vec!["/bin/app".into()],
        args: vec!["--port".into(), "8080".into()],
        container: ContainerSettings {
            user: Some("101:101".parse().unwrap()),
            workdir: Some("/srv".parse().unwrap()),
            hostname: Some("app".parse().unwrap()),
            init: true,
            read_only: true,
            tmpfs: vec![tmpfs("/run", 1), tmpfs("/tmp", 512)],
            shm_size: Mebibytes::covering(128 << 20),
            pids: 1024,
            ulimits: vec![
                Ulimit { kind: UlimitKind::Core, soft: 0, hard: 0 },
                Ulimit { kind: UlimitKind::Nofile, soft: 1024, hard: 65_536 },
            ],
            stop_signal: Some(StopSignal::Quit),
            capabilities: CapabilityChange {
                drop: vec![Capability::Mknod, Capability::NetRaw],
                add: vec![Capability::Chown],
                drop_all: false,
            },
            ..ContainerSettings::default()
        },
        replicas: 3,
        priority: Priority(10),
        constraints: Constraints {
            allow: labels(&["zone=eu-1", "zone=eu-2"]),
            deny: labels(&["class=spot"]),
            anti_affinity: Some(AntiAffinity {
                strength: Strength::Hard,
                domain: FailureDomain::Label("zone".parse().unwrap()),
            }),
            max_latency: Some(LatencyClass::new(2).unwrap()),
            prefer_previous: true,
            organisations: Organisations::Any,
        },
        lease: LeasePolicy::Exclusive { seconds: 120 },
        restart: RestartPolicy {
            mode: RestartMode::OnFailure,
            attempts: Some(3),
            ..RestartPolicy::default()
        },
        health: Some(HealthCheck {
            probe: HealthProbe::Http { port: 8080, path: "/healthz".into() },
            interval_seconds: 10,
            timeout_seconds: 2,
            retries: 3,
            start_period_seconds: 30,
            unhealthy: Unhealthy::Nothing,
        }),
        ..JobSpec::new(scope, Address([0x0a; 20]), 1, "app".parse().unwrap(), image, request)
    }
}

pub(crate) fn tmpfs(path: &str, mebibytes: u64) -> Tmpfs {
    let size = Mebibytes::covering(mebibytes << 20).unwrap();
    Tmpfs { path: path.parse().unwrap(), size }
}

pub(crate) fn port(name: &str, container: u16) -> Port {
    Port {
        name: name.parse().unwrap(),
        container: NonZeroU16::new(container).unwrap(),
        protocol: Protocol::Tcp,
        host: HostPort::Dynamic,
    }
}

/// To a job of that name.
pub(crate) fn link(host: &str, listen: u16, job: &str) -> Link {
    Link {
        host: host.parse().unwrap(),
        listen: NonZeroU16::new(listen).unwrap(),
        job: job.parse().unwrap(),
        port: "pg".parse().unwrap(),
        env: None,
    }
}

pub(crate) fn volume(name: &str, mount: &str, kind: VolumeKind) -> Volume {
    Volume { name: name.parse().unwrap(), mount: mount.parse().unwrap(), kind, read_only: false }
}

/// A job by the rules that asks for whatever nobody does.
pub(crate) fn everything() -> JobSpec {
    let mut all = job();
    all.kind = JobType::Periodic {
        cron: "0 4 * * *".parse().unwrap(),
        time_zone: TimeZone::default(),
        overlap: Overlap::Allow,
    };
    all.ports = vec![
        port("http", 80),
        Port { host: HostPort::Fixed(NonZeroU16::MIN), ..port("https", 443) },
        Port { host: HostPort::None, protocol: Protocol::Udp, ..port("quic", 443) },
    ];
    let size = Mebibytes::covering(1 << 29).unwrap();
    all.volumes = vec![
        volume("cache", "/cache", VolumeKind::Tmpfs { size }),
        volume("data", "/data", VolumeKind::Host { on_loss: OnLoss::Empty }),
        volume("scratch", "/scratch", VolumeKind::Ephemeral { size }),
    ];
    all.egress = Egress::None;
    let env = Some("DATABASE_ADDR".parse().unwrap());
    all.links = vec![Link { env, ..link("db", 5432, "shop-db") }, link("db", 5433, "shop-db")];
    let after = |job: &str, is| After { job: job.parse().unwrap(), is };
    all.after = vec![after("migrate", Condition::Done), after("shop-db", Condition::Healthy)];
    all.constraints.organisations =
        Organisations::Of(["Acme", "Zoo"].map(|o| o.parse::<Organisation>().unwrap()).to_vec());
    all.health.as_mut().unwrap().unhealthy = Unhealthy::Reschedule;
    all.restart = RestartPolicy {
        mode: RestartMode::Never,
        attempts: Some(3),
        interval_seconds: 600,
        delay_seconds: 15,
    };
    all.update.max_parallel = 2;
    all.container.stop_timeout_seconds = 30;
    all
}
