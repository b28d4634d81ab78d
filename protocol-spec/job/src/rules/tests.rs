use proptest::prelude::*;
use veil_protocol_spec_base::{
    codec::{Bytes, CodecError, Wire, assert_wire},
    ids::{Blake3Digest, Epoch, KeySetDigest, ParticipantIndex, ShareCommitment},
};

use super::*;
use crate::{
    arbitrary::{everything, job, labels, link, port, tmpfs, volume},
    container::*,
    job::*,
    kind::*,
    labels::Label,
    links::*,
    network::*,
    proven::{ProofMetadata, ProvenList},
    quantities::Scale,
    request::*,
    resources::*,
    sealed::*,
    volume::OnLoss,
};

mod links;

const KEY_SET: KeySetDigest = KeySetDigest([0xde; 32]);

fn refused(change: impl FnOnce(&mut JobSpec)) -> JobError {
    let mut job = job();
    change(&mut job);
    let error = job.validate().unwrap_err();
    assert_eq!(JobSpec::parse(&job.to_wire()), Err(error.clone()));
    error
}

fn refused_health(change: impl FnOnce(&mut HealthCheck)) -> JobError {
    refused(|job| change(job.health.as_mut().unwrap()))
}

#[test]
fn a_sound_job_parses() {
    assert_eq!(job().validate(), Ok(()));
    assert_eq!(JobSpec::parse(&job().to_wire()), Ok(job()));
    assert_wire(&job());
    assert!(matches!(JobSpec::parse(&[1]), Err(JobError::Codec(_))));
}

#[test]
fn json_reads_back_and_refuses_unknown_fields() {
    let mut json = serde_json::to_value(job()).unwrap();
    assert_eq!(serde_json::from_value::<JobSpec>(json.clone()).unwrap(), job());
    json["environment"] = serde_json::json!({ "PASSWORD": "secret" });
    assert!(serde_json::from_value::<JobSpec>(json).is_err());
}

#[test]
fn replicas_and_request_are_bounded() {
    assert_eq!(refused(|j| j.replicas = 0), JobError::Replicas(0));
    assert_eq!(refused(|j| j.replicas = 1025), JobError::Replicas(1025));
    let request = |cpu, memory| {
        let (cpu, memory) = (CpuUnits(cpu), MemoryUnits(memory));
        ResourceRequest::Clear(Resources { cpu, memory, ..Resources::default() })
    };
    assert_eq!(refused(|j| j.request = request(0, 1)), JobError::EmptyRequest("CPU"));
    assert_eq!(refused(|j| j.request = request(1, 0)), JobError::EmptyRequest("memory"));
}

#[test]
fn what_nobody_does_is_refused_by_name() {
    let refused = everything().validate().unwrap_err();
    assert!(
        matches!(
            refused,
            JobError::Unsupported(unsupported::Unsupported { key: "periodic.overlap", .. })
        ),
        "{refused}"
    );
    assert!(refused.to_string().contains("jobs of their own"), "{refused}");
}

#[test]
fn a_type_has_its_own_rules() {
    let of = |kind: JobType| move |j: &mut JobSpec| j.kind = kind;
    let periodic = JobType::Periodic {
        cron: "0 4 * * *".parse().unwrap(),
        time_zone: TimeZone::default(),
        overlap: Overlap::Skip,
    };
    assert_eq!(refused(of(JobType::System)), JobError::SystemReplicas(3));
    a_system_job_goes_nowhere_else();
    for max_attempts in [0, 101] {
        assert_eq!(refused(of(JobType::Batch { max_attempts })), JobError::Attempts(max_attempts));
    }
    let batch = JobType::Batch { max_attempts: 1 };
    for kind in [batch.clone(), periodic.clone()] {
        assert_eq!(refused(of(kind)), JobError::RestartOfBatch);
    }
    let ends = |kind| {
        let mut job = job();
        (job.kind, job.restart.mode) = (kind, RestartMode::Never);
        job.validate()
    };
    assert_eq!(ends(batch), Ok(()));
    assert_eq!(ends(periodic), Ok(()));
    let with = |cron: &str, zone: &str, overlap| JobType::Periodic {
        cron: cron.parse().unwrap(),
        time_zone: zone.parse().unwrap(),
        overlap,
    };
    let unknown = ends(with("0 4 * * *", "Europe/Berlijn", Overlap::Skip)).unwrap_err();
    assert!(unknown.to_string().contains("`Europe/Berlijn`"), "{unknown}");
    let never = ends(with("0 4 31 2 *", "UTC", Overlap::Skip)).unwrap_err();
    assert!(never.to_string().contains("`0 4 31 2 *`"), "{never}");
    let replaces = with("0 4 * * *", "UTC", Overlap::Replace);
    assert_eq!(ends(replaces.clone()), Err(JobError::ReplacesExclusive));
    let mut keeps = job();
    (keeps.kind, keeps.restart.mode) = (replaces, RestartMode::Never);
    keeps.lease = LeasePolicy::Keep;
    assert_eq!(keeps.validate(), Ok(()));
    let both = ends(with("0 4 * * *", "UTC", Overlap::Allow)).unwrap_err();
    assert!(matches!(both, JobError::Unsupported(u) if u.key == "periodic.overlap"));
}

fn a_system_job_goes_nowhere_else() {
    let system = JobSpec { kind: JobType::System, replicas: 1, ..job() };
    let plain = JobSpec {
        lease: LeasePolicy::Keep,
        constraints: Constraints { anti_affinity: None, ..system.constraints.clone() },
        ..system
    };
    assert_eq!(plain.validate(), Ok(()));
    let exclusive = JobSpec { lease: LeasePolicy::Exclusive { seconds: 60 }, ..plain.clone() };
    let apart = job()
        .constraints
        .anti_affinity
        .unwrap_or(AntiAffinity { strength: Strength::Soft, domain: FailureDomain::Worker });
    let constraints = Constraints { anti_affinity: Some(apart), ..plain.constraints.clone() };
    let apart = JobSpec { constraints, ..plain.clone() };
    let mut moves = JobSpec { health: everything().health, ..plain };
    assert_eq!(moves.health.as_ref().map(|health| health.unhealthy), Some(Unhealthy::Reschedule));
    moves.restart.mode = RestartMode::Always;
    for (job, key) in [(exclusive, "lease"), (apart, "anti_affinity"), (moves, "unhealthy")] {
        let error = job.validate().unwrap_err();
        assert!(matches!(error, JobError::OfSystem(_)), "{error}");
        assert!(error.to_string().contains(key), "{error}");
    }
}

#[test]
fn container_settings_are_bounded_and_in_order() {
    let refused = |change: fn(&mut ContainerSettings)| refused(|j| change(&mut j.container));
    assert_eq!(refused(|c| c.pids = 0), JobError::Pids(0));
    assert_eq!(refused(|c| c.pids = 65_537), JobError::Pids(65_537));
    assert_eq!(refused(|c| c.stop_timeout_seconds = 301), JobError::StopTimeout(301));
    let order = |list, entry: &str| JobError::EntryOrder { list, entry: entry.to_owned() };
    assert_eq!(refused(|c| c.tmpfs.reverse()), order("tmpfs", "/run"));
    assert_eq!(refused(|c| c.ulimits.reverse()), order("ulimits", "core"));
    assert_eq!(refused(|c| c.capabilities.drop.reverse()), order("capabilities.drop", "MKNOD"));
    let twice = refused(|c| c.capabilities.add = vec![Capability::Kill; 2]);
    assert_eq!(twice, order("capabilities.add", "KILL"));
    assert!(matches!(refused(|c| c.ulimits[0].soft = 1), JobError::Ulimit(_)));
    assert_eq!(refused(|c| c.capabilities.drop_all = true), JobError::DroppedTwice);
    assert_eq!(
        refused(|c| c.capabilities.add = vec![Capability::NetRaw]),
        JobError::Capability(Capability::NetRaw)
    );
    let many = |c: &mut ContainerSettings| {
        c.tmpfs = (10..43).map(|i| tmpfs(&format!("/{i}"), 1)).collect();
    };
    assert_eq!(refused(many), JobError::TooManyEntries { list: "tmpfs", len: 33, max: 32 });
}

#[test]
fn what_is_mounted_has_a_place_of_its_own_and_fits() {
    let mebibytes = 513;
    let size = Mebibytes::covering(mebibytes << 20).unwrap();
    let memory = |what: &str| JobError::BeyondMemory { what: what.to_owned(), mebibytes: 513 };
    assert_eq!(refused(|j| j.container.shm_size = Some(size)), memory("shm_size"));
    assert_eq!(refused(|j| j.container.tmpfs = vec![tmpfs("/a", 513)]), memory("tmpfs `/a`"));
    let kind = VolumeKind::Tmpfs { size };
    assert_eq!(refused(|j| j.volumes = vec![volume("v", "/v", kind)]), memory("volume `v`"));
    let kind = VolumeKind::Ephemeral { size: Mebibytes::covering(1025 << 20).unwrap() };
    assert_eq!(
        refused(|j| j.volumes = vec![volume("v", "/v", kind)]),
        JobError::BeyondDisk { name: "v".to_owned(), mebibytes: 1025 }
    );
    for place in ["/", "/proc/1", "/dev/shm"] {
        let refused = refused(|j| j.container.tmpfs = vec![tmpfs(place, 1)]);
        assert_eq!(refused, JobError::Mount(place.parse().unwrap()));
    }
    let host = VolumeKind::Host { on_loss: OnLoss::Pending };
    assert_eq!(
        refused(|j| j.volumes = vec![volume("v", "/tmp", host)]),
        JobError::MountedTwice("/tmp".parse().unwrap())
    );
    assert_eq!(
        refused(|j| j.volumes = vec![volume("b", "/b", host), volume("a", "/a", host)]),
        JobError::EntryOrder { list: "volumes", entry: "a".to_owned() }
    );
}

#[test]
fn ports_are_different_ports() {
    let same = |place| JobError::SamePort("a".to_owned(), "b".to_owned(), place);
    let fixed = HostPort::Fixed(core::num::NonZeroU16::MIN);
    assert_eq!(refused(|j| j.ports = vec![port("a", 1), port("b", 1)]), same("container"));
    let [a, b] = [("a", 1), ("b", 2)].map(|(name, at)| Port { host: fixed, ..port(name, at) });
    assert_eq!(refused(|j| j.ports = vec![a.clone(), b.clone()]), same("host"));
    let other = Port { protocol: Protocol::Udp, ..b };
    let both = JobSpec { ports: vec![a, other], ..job() };
    assert_eq!(both.validate(), Ok(()));
    assert_eq!(
        refused(|j| j.ports = vec![port("b", 1), port("a", 2)]),
        JobError::EntryOrder { list: "ports", entry: "a".to_owned() }
    );
}

#[test]
fn restarts_updates_and_organisations_are_bounded() {
    let restart = JobError::Restart;
    assert_eq!(refused(|j| j.restart.attempts = Some(1001)), restart("number of attempts"));
    assert_eq!(refused(|j| j.restart.interval_seconds = 86_401), restart("interval"));
    assert_eq!(refused(|j| j.restart.delay_seconds = 3601), restart("delay"));
    let update = JobError::Update;
    assert_eq!(refused(|j| j.update.max_parallel = 0), update("number of replicas at once"));
    assert_eq!(refused(|j| j.update.min_healthy_seconds = 3601), update("healthy time"));
    assert_eq!(refused(|j| j.update.healthy_deadline_seconds = 9), update("deadline"));
    let nobody = Organisations::Of(Vec::new());
    assert_eq!(refused(|j| j.constraints.organisations = nobody), JobError::NoOrganisation);
    let never = |j: &mut JobSpec| {
        j.restart.mode = RestartMode::Never;
        j.health.as_mut().unwrap().unhealthy = Unhealthy::Restart;
    };
    assert_eq!(refused(never), JobError::UnhealthyRestart);
}

#[test]
fn an_older_version_is_refused_by_name() {
    let mut bytes = job().to_wire();
    bytes[0] = 2;
    let refused = JobSpec::parse(&bytes).unwrap_err().to_string();
    assert!(refused.contains("JobSpec has version 2; this build speaks 6"), "{refused}");
}

#[test]
fn the_longest_job_fits() {
    let mut longest = everything();
    let path = |i: usize| format!("/{i:02}{}", "p".repeat(252));
    let name = |i: usize| format!("{i:02}{}", "n".repeat(61));
    let label = |key: char, i: usize| {
        format!("{i:02}{}={}", key.to_string().repeat(61), "v".repeat(63)).parse().unwrap()
    };
    longest.command = vec!["c".repeat(4096)];
    longest.args = vec!["a".repeat(4096); 3];
    longest.constraints.allow = (0..limits::LABELS).map(|i| label('a', i)).collect();
    longest.constraints.deny = (0..limits::LABELS).map(|i| label('d', i)).collect();
    longest.constraints.organisations = Organisations::Of(
        (0..limits::ENTRIES).map(|i| format!("{i:032}").parse().unwrap()).collect(),
    );
    longest.container.tmpfs = (0..limits::ENTRIES).map(|i| tmpfs(&path(i), 512)).collect();
    longest.container.workdir = Some(path(0).parse().unwrap());
    longest.ports = (0..limits::PORTS).map(|i| port(&name(i), u16::MAX - i as u16)).collect();
    let kind = VolumeKind::Ephemeral { size: Mebibytes::covering(1 << 30).unwrap() };
    longest.volumes = (0..limits::ENTRIES).map(|i| volume(&name(i), &path(50 + i), kind)).collect();
    let host = |i: usize| format!("{}.{:02}{}", "h".repeat(63), i, "h".repeat(61));
    let variable = |i: usize| format!("{i:02}{}", "V".repeat(253)).parse().unwrap();
    longest.links = (0..limits::PORTS)
        .map(|i| Link {
            port: name(i).parse().unwrap(),
            env: Some(variable(i)),
            ..link(&host(i), u16::MAX, &name(i))
        })
        .collect();
    longest.after = (0..limits::ENTRIES)
        .map(|i| After { job: name(i).parse().unwrap(), is: Condition::Done })
        .collect();
    longest.health.as_mut().unwrap().probe =
        HealthProbe::Http { port: u16::MAX, path: format!("/{}", "h".repeat(1023)) };
    longest.request = ResourceRequest::Encrypted(EncryptedRequest {
        key_set: KEY_SET,
        scale: Scale::FINEST,
        dominant: Resource::Gpu,
        commitment: Blake3Digest([0xff; 32]),
        list: ProvenList::new(vec![0xff; ProvenList::MAX_BYTES]).unwrap(),
    });
    assert!(matches!(longest.validate(), Err(JobError::Unsupported(_))));
    assert_eq!(JobSpec::from_wire(&longest.to_wire()), Ok(longest));
}

#[test]
fn an_encrypted_request_is_bound_to_its_job() {
    assert_eq!(job().request_metadata(), None);
    let encrypted = |nonce| JobSpec {
        nonce,
        request: ResourceRequest::Encrypted(EncryptedRequest {
            key_set: KEY_SET,
            scale: Scale::FINEST,
            dominant: Resource::Memory,
            commitment: Blake3Digest([4; 32]),
            list: ProvenList::new(vec![3; ProvenList::MAX_BYTES]).unwrap(),
        }),
        ..job()
    };
    let job = encrypted(1);
    assert_eq!(JobSpec::parse(&job.to_wire()), Ok(job.clone()));
    assert_ne!(encrypted(2).request_metadata(), job.request_metadata());
    for of_another_purpose in [ProofMetadata::for_weights, ProofMetadata::for_bid] {
        assert_ne!(
            of_another_purpose(&job.scope, &KEY_SET, &job.operator, 1),
            job.request_metadata().unwrap()
        );
    }
}

#[test]
fn arguments_are_bounded() {
    assert_eq!(
        refused(|j| j.args = vec![String::new(); 65]),
        JobError::TooManyArguments { list: "args", len: 65 }
    );
    assert_eq!(
        refused(|j| j.args = vec!["a".into(), "b".repeat(4097)]),
        JobError::Argument { list: "args", index: 1 }
    );
    assert_eq!(
        refused(|j| j.command = vec!["a\0".into()]),
        JobError::Argument { list: "command", index: 0 }
    );
    assert_eq!(refused(|j| j.command = vec![String::new()]), JobError::EmptyProgram("command"));
    let mut longest = job();
    longest.command = vec!["a".repeat(4096)];
    longest.args = vec!["b".repeat(4096); 3];
    assert_eq!(JobSpec::parse(&longest.to_wire()), Ok(longest.clone()));
    longest.args.push("c".into());
    assert_eq!(longest.validate(), Err(JobError::ArgumentsTooLong(4 * 4096 + 1)));
}

#[test]
fn labels_are_ordered_and_free_of_contradiction() {
    let many: Vec<Label> = (10..43).map(|i| format!("k{i}=v").parse().unwrap()).collect();
    assert_eq!(
        refused(|j| j.constraints.deny = many),
        JobError::TooManyLabels { list: "deny", len: 33 }
    );
    for (wrong, label) in [(["b=1", "a=1"], "a=1"), (["b=1", "b=1"], "b=1")] {
        assert_eq!(
            refused(|j| j.constraints.allow = labels(&wrong)),
            JobError::LabelOrder { list: "allow", label: label.parse().unwrap() }
        );
    }
    assert_eq!(
        refused(|j| {
            j.constraints.allow = labels(&["a=1", "b=1"]);
            j.constraints.deny = labels(&["b=1", "c=1"]);
        }),
        JobError::Contradiction("b=1".parse().unwrap())
    );
}

#[test]
fn a_lease_has_a_sensible_length() {
    for seconds in [0, 29, 86_401] {
        let lease = LeasePolicy::Exclusive { seconds };
        assert_eq!(refused(|j| j.lease = lease), JobError::Lease(seconds));
    }
}

#[test]
fn health_checks_are_bounded() {
    let error = JobError::HealthCheck;
    assert_eq!(refused_health(|h| h.interval_seconds = 0), error("interval"));
    assert_eq!(refused_health(|h| h.interval_seconds = 3601), error("interval"));
    assert_eq!(refused_health(|h| h.timeout_seconds = 0), error("timeout"));
    assert_eq!(refused_health(|h| h.timeout_seconds = h.interval_seconds + 1), error("timeout"));
    assert_eq!(refused_health(|h| h.retries = 0), error("number of retries"));
    assert_eq!(refused_health(|h| h.start_period_seconds = 3601), error("start period"));
    let probe = |probe| refused_health(|h| h.probe = probe);
    assert_eq!(probe(HealthProbe::Tcp { port: 0 }), error("port"));
    assert_eq!(probe(HealthProbe::Command(vec![])), error("command (it is empty)"));
    assert_eq!(
        probe(HealthProbe::Command(vec![String::new()])),
        JobError::EmptyProgram("health command")
    );
    for path in ["", "health", "/a b", "/\u{e9}", "/\r\nHost: x"] {
        let http = HealthProbe::Http { port: 80, path: path.into() };
        assert_eq!(probe(http), error("path (begin with /, printable ASCII without spaces)"));
    }
}

#[test]
fn a_malformed_image_does_not_decode() {
    let bytes = job().to_wire();
    let at = bytes.windows(7).position(|w| w == b"@sha256").unwrap();
    let mut unpinned = bytes;
    unpinned[at] = b'x';
    assert_eq!(JobSpec::from_wire(&unpinned), Err(CodecError::Malformed { name: "JobSpec" }));
}

proptest! {
    #[test]
    fn round_trips(
        nonce: u64,
        replicas in limits::REPLICAS,
        priority: u8,
        cpu in 1u16..,
        memory in 8u16.., // its folder in memory takes as much
        disk: u16,
        gpu: u16,
        args in prop::collection::vec("[^\0]{0,40}", 0..8),
        seconds in limits::LEASE_SECONDS,
    ) {
        let job = JobSpec {
            nonce,
            replicas,
            priority: Priority(priority),
            request: ResourceRequest::Clear(Resources {
                cpu: CpuUnits(cpu),
                memory: MemoryUnits(memory),
                disk: DiskUnits(disk),
                gpu: GpuUnits(gpu),
            }),
            args,
            lease: LeasePolicy::Exclusive { seconds },
            ..job()
        };
        prop_assert_eq!(JobSpec::parse(&job.to_wire()), Ok(job.clone()));
        let again = JobSpec { nonce: nonce ^ 1, ..job.clone() };
        prop_assert_ne!(again.digest(), job.digest());
    }

    #[test]
    fn noise_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = JobSpec::parse(&bytes);
    }
}

/// A sealed part as it can be, of which nothing opens.
fn sealed_part() -> SealedPart {
    let share = |i| EncryptedShare {
        member: ParticipantIndex::new(i).unwrap(),
        share: Bytes(vec![i; ENCRYPTED_SHARE]),
    };
    SealedPart {
        key_set: KeySetDigest([1; 32]),
        epoch: Epoch(2),
        roster: Blake3Digest([3; 32]),
        tag: Blake3Digest([4; 32]),
        commitments: vec![ShareCommitment([2; 33]); 2],
        shares: (1..=3).map(share).collect(),
        ciphertext: Bytes(vec![7; SealedPart::PADDING + TAG]),
    }
}

#[test]
fn a_sealed_part_that_cannot_be_one_is_refused_with_its_job() {
    let sealed = |part| JobSpec { sealed: Sealed::Part(Box::new(part)), ..job() };
    assert_eq!(sealed(sealed_part()).validate(), Ok(()));
    let empty = SealedPart { ciphertext: Bytes::default(), ..sealed_part() };
    let refused = JobError::Sealed(SealedPartError::Ciphertext(0));
    assert_eq!(JobSpec::parse(&sealed(empty).to_wire()), Err(refused));
}

#[test]
fn the_longest_sealed_part_fits_into_a_job() {
    let share = |i| EncryptedShare {
        member: ParticipantIndex::new(i).unwrap(),
        share: Bytes(vec![0xff; ENCRYPTED_SHARE]),
    };
    let blocks = limits::SEALED_BYTES / SealedPart::PADDING + 1;
    let longest = SealedPart {
        epoch: Epoch(u64::MAX),
        commitments: vec![ShareCommitment([0xff; 33]); 5],
        shares: (1..=13).map(share).collect(),
        ciphertext: Bytes(vec![0xff; blocks * SealedPart::PADDING + TAG]),
        ..sealed_part()
    };
    assert_eq!(longest.validate(), Ok(()));
    let plain = job().to_wire().len();
    let sealed = JobSpec { sealed: Sealed::Part(Box::new(longest)), ..job() };
    assert!(sealed.to_wire().len() <= plain + SealedPart::MAX_BYTES);
    assert_eq!(JobSpec::parse(&sealed.to_wire()), Ok(sealed));
}

#[test]
fn the_public_digest_covers_all_but_the_sealed_part() {
    let plain = job();
    let sealed = JobSpec { sealed: Sealed::Part(Box::new(sealed_part())), ..plain.clone() };
    assert_eq!(sealed.public_digest(), plain.public_digest());
    assert_ne!(sealed.digest(), plain.digest());
    assert_ne!(sealed.template(), plain.template());
    let other = JobSpec { nonce: plain.nonce + 1, ..plain.clone() };
    assert_ne!(other.public_digest(), plain.public_digest());
    assert_ne!(plain.public_digest(), plain.digest(), "another purpose, another separator");
}
