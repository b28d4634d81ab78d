//! Jobs that say something in every field.

use core::num::NonZeroU16;

use veil_protocol_spec::{Address, ChainId, ClusterId, scheduling::*};

/// Says something in every field.
pub(crate) fn job() -> JobSpec {
    let image = format!("registry.example.org/team/app@sha256:{}", "6a".repeat(32));
    let request = ResourceRequest::Clear(Resources {
        cpu: CpuUnits::covering(1500).unwrap(),
        memory: MemoryUnits::covering(1 << 30).unwrap(),
        disk: DiskUnits::covering(5_000_000_000).unwrap(),
        gpu: GpuUnits::covering(1).unwrap(),
    });
    let scope = ClusterScope {
        chain_id: ChainId(31_337),
        contract: Address([0x11; 20]),
        cluster: ClusterId([0x22; 32]),
    };
    let size = Mebibytes::covering(64 << 20).unwrap();
    let port = |name: &str, container, protocol, host| Port {
        name: name.parse().unwrap(),
        container: NonZeroU16::new(container).unwrap(),
        protocol,
        host,
    };
    let link = |host: &str, listen, job: &str, port: &str, env: Option<&str>| Link {
        host: host.parse().unwrap(),
        listen: NonZeroU16::new(listen).unwrap(),
        job: job.parse().unwrap(),
        port: port.parse().unwrap(),
        env: env.map(|env| env.parse().unwrap()),
    };
    let volume = |name: &str, kind| Volume {
        name: name.parse().unwrap(),
        mount: format!("/mnt/{name}").parse().unwrap(),
        kind,
        read_only: name == "cache",
    };
    JobSpec {
        kind: JobType::Batch { max_attempts: 3 },
        tag: Some("1.4".to_owned().try_into().unwrap()),
        command: vec!["/bin/app".into()],
        args: vec!["--workers".into(), "4".into()],
        container: ContainerSettings {
            user: Some("101:101".parse().unwrap()),
            workdir: Some("/srv".parse().unwrap()),
            hostname: Some("app".parse().unwrap()),
            init: true,
            read_only: true,
            tmpfs: vec![Tmpfs { path: "/tmp".parse().unwrap(), size }],
            shm_size: Some(size),
            pids: 1024,
            ulimits: vec![Ulimit { kind: UlimitKind::Nofile, soft: 1024, hard: 65_536 }],
            stop_signal: Some(StopSignal::Quit),
            stop_timeout_seconds: 30,
            capabilities: CapabilityChange {
                drop_all: false,
                drop: vec![Capability::NetRaw],
                add: vec![Capability::Chown, Capability::Setuid],
            },
        },
        ports: vec![
            port("dns", 53, Protocol::Udp, HostPort::None),
            port("http", 8080, Protocol::Tcp, HostPort::Dynamic),
            port("https", 8443, Protocol::Tcp, HostPort::Fixed(NonZeroU16::new(443).unwrap())),
        ],
        egress: Egress::AllowPrivate,
        links: vec![
            link("cache", 6379, "shop-cache", "redis", None),
            link("db.shop", 5432, "shop-db", "pg", Some("DATABASE_ADDR")),
        ],
        after: vec![
            After { job: "migrate".parse().unwrap(), is: Condition::Done },
            After { job: "shop-db".parse().unwrap(), is: Condition::Healthy },
        ],
        volumes: vec![
            volume("cache", VolumeKind::Tmpfs { size }),
            volume("data", VolumeKind::Host { on_loss: OnLoss::Empty }),
            volume("scratch", VolumeKind::Ephemeral { size }),
        ],
        replicas: 2,
        priority: Priority(100),
        policy: SchedulingPolicy::BinPack,
        constraints: Constraints {
            allow: vec!["zone=eu-1".parse().unwrap(), "zone=eu-2".parse().unwrap()],
            deny: vec!["class=spot".parse().unwrap()],
            anti_affinity: Some(AntiAffinity {
                strength: Strength::Soft,
                domain: FailureDomain::Label("zone".parse().unwrap()),
            }),
            max_latency: Some(LatencyClass::new(2).unwrap()),
            prefer_previous: true,
            organisations: Organisations::Of(vec!["Acme".parse().unwrap()]),
        },
        lease: LeasePolicy::Exclusive { seconds: 300 },
        restart: RestartPolicy {
            mode: RestartMode::Never,
            attempts: Some(5),
            interval_seconds: 600,
            delay_seconds: 15,
        },
        health: Some(HealthCheck {
            probe: HealthProbe::Http { port: 8080, path: "/healthz".into() },
            interval_seconds: 10,
            timeout_seconds: 2,
            retries: 3,
            start_period_seconds: 30,
            unhealthy: Unhealthy::Reschedule,
        }),
        update: UpdatePolicy {
            max_parallel: 2,
            min_healthy_seconds: 20,
            healthy_deadline_seconds: 200,
            auto_revert: false,
        },
        ..JobSpec::new(
            scope,
            Address([0x55; 20]),
            9,
            "app".parse().unwrap(),
            image.parse().unwrap(),
            request,
        )
    }
}

/// The other types, which have a spelling of their own.
pub(crate) fn periodic_job() -> JobSpec {
    JobSpec {
        kind: JobType::Periodic {
            cron: "30 4 * * 1-5".parse().unwrap(),
            time_zone: "Europe/Berlin".parse().unwrap(),
            overlap: Overlap::Replace,
        },
        lease: LeasePolicy::Keep,
        ..job()
    }
}
