//! `type`, `restart`, `[health]`, `[update]`, `lease`: what becomes of a replica.

use veil_protocol_spec::scheduling::{
    Cron, HealthCheck, HealthProbe, JobType, LeasePolicy, Overlap, RestartMode, RestartPolicy,
    Schedule, ScheduleError, TimeZone, Unhealthy, UpdatePolicy, limits,
};

use super::{
    document::{Parsed, Reader, Value},
    problem::Reason,
    values::{boolean, made_of, parsed, refused, seconds, text, texts, whole, word},
};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Type {
    Service,
    Batch,
    Periodic,
    System,
}

/// `type`, with the section that belongs to it. `None` if that lacks something.
pub(super) fn kind(reader: &mut Reader<'_>) -> Option<JobType> {
    let types = [
        ("service", Type::Service),
        ("batch", Type::Batch),
        ("periodic", Type::Periodic),
        ("system", Type::System),
    ];
    let kind = match reader.has(reader.root(), "type") {
        true => reader.top("type", |value| word(value, &types))?,
        false => Type::Service,
    };
    let root = reader.root();
    if kind != Type::Batch {
        reader.refuse(root, &["batch.max_attempts"], "type = \"batch\"");
    }
    if kind != Type::Periodic {
        let keys = ["periodic.cron", "periodic.time_zone", "periodic.overlap"];
        reader.refuse(root, &keys, "type = \"periodic\"");
    }
    match kind {
        Type::Service => Some(JobType::Service),
        Type::System => Some(JobType::System),
        Type::Batch => {
            let attempts = reader.top("batch.max_attempts", |value| whole(value, limits::ATTEMPTS));
            Some(JobType::Batch { max_attempts: attempts.unwrap_or(1) })
        }
        Type::Periodic => {
            reader.require(root, "periodic.cron", "[periodic] cron = \"30 4 * * *\"");
            let words =
                [("skip", Overlap::Skip), ("allow", Overlap::Allow), ("replace", Overlap::Replace)];
            let overlap = reader.top("periodic.overlap", |value| word(value, &words));
            let time_zone = reader.top("periodic.time_zone", time_zone);
            Some(JobType::Periodic {
                cron: reader.top("periodic.cron", cron)?,
                time_zone: time_zone.unwrap_or_default(),
                overlap: overlap.unwrap_or_default(),
            })
        }
    }
}

/// Times of which there are some.
fn cron(value: &Value<'_>) -> Parsed<Cron> {
    let cron = parsed(value)?;
    exists(value, Schedule::new(&cron, &TimeZone::default()))?;
    Ok(cron)
}

/// A zone that the database has.
fn time_zone(value: &Value<'_>) -> Parsed<TimeZone> {
    let zone = made_of(value)?;
    exists(value, Schedule::every_minute(&zone))?;
    Ok(zone)
}

fn exists(value: &Value<'_>, found: Result<Schedule, ScheduleError>) -> Parsed<()> {
    found.map(|_| ()).or_else(|error| refused(value, Reason::Value(error.to_string())))
}

/// `restart = "always"`, or a section.
pub(super) fn restart(reader: &mut Reader<'_>, kind: &JobType) -> RestartPolicy {
    let modes = [
        ("never", RestartMode::Never),
        ("on_failure", RestartMode::OnFailure),
        ("always", RestartMode::Always),
    ];
    let default = if kind.ends() { RestartMode::Never } else { RestartMode::default() };
    let mode = reader.top("restart", |value| word(value, &modes)).unwrap_or(default);
    if mode == RestartMode::Never {
        let keys = ["restart.attempts", "restart.interval", "restart.delay"];
        reader.refuse(reader.root(), &keys, "mode = \"on_failure\" or \"always\"");
        return RestartPolicy { mode, ..RestartPolicy::default() };
    }
    let interval = |value: &_| seconds(value, limits::RESTART_INTERVAL_SECONDS);
    let delay = |value: &_| seconds(value, limits::RESTART_DELAY_SECONDS);
    RestartPolicy {
        mode,
        attempts: reader.top("restart.attempts", |value| whole(value, limits::RESTARTS)),
        interval_seconds: reader.top("restart.interval", interval).unwrap_or_default(),
        delay_seconds: reader.top("restart.delay", delay).unwrap_or_default(),
    }
}

fn port(value: &Value<'_>) -> Parsed<u16> {
    whole(value, 1..=u16::MAX)
}

/// The one way of probing that is given.
fn probe(reader: &mut Reader<'_>) -> Option<HealthProbe> {
    let command = reader.top("health.probe.command", texts).map(HealthProbe::Command);
    let tcp = reader.top("health.probe.tcp.port", port).map(|port| HealthProbe::Tcp { port });
    let path = reader.top("health.probe.http.path", |value| text(value).map(str::to_owned));
    let root = reader.root();
    if path.is_some() {
        reader.require(root, "health.probe.http.port", "port = 8080");
    }
    let http = reader.top("health.probe.http.port", port);
    let path = path.unwrap_or_else(|| "/".to_owned());
    let http = http.map(|port| HealthProbe::Http { port, path });
    if command.is_some() {
        let keys = ["health.probe.tcp.port", "health.probe.http.port"];
        reader.refuse(root, &keys, "no other probe beside it");
    } else if tcp.is_some() {
        reader.refuse(root, &["health.probe.http.port"], "no other probe beside it");
    }
    command.or(tcp).or(http)
}

/// `[health]`, if it is there.
pub(super) fn health(reader: &mut Reader<'_>) -> Option<HealthCheck> {
    let probe = probe(reader);
    let interval = |value: &_| seconds(value, limits::PROBE_SECONDS);
    let start = |value: &_| seconds(value, 0..=*limits::PROBE_SECONDS.end());
    let words = [
        ("nothing", Unhealthy::Nothing),
        ("restart", Unhealthy::Restart),
        ("reschedule", Unhealthy::Reschedule),
    ];
    let interval_seconds = reader.top("health.interval", interval).unwrap_or(10);
    let timeout_seconds = reader.top("health.timeout", interval).unwrap_or(interval_seconds.min(5));
    let retries = reader.top("health.retries", |value| whole(value, limits::PROBE_RETRIES));
    let start_period_seconds = reader.top("health.start_period", start).unwrap_or(0);
    let unhealthy = reader.top("health.unhealthy", |value| word(value, &words)).unwrap_or_default();
    let root = reader.root();
    let Some(probe) = probe else {
        if reader.has(root, "health") {
            let example = "probe = { http = { port = 8080, path = \"/healthz\" } }";
            let probes = ["health.probe.command", "health.probe.tcp", "health.probe.http"];
            if !probes.into_iter().any(|path| reader.has(root, path)) {
                reader.require(root, "health.probe", example);
            }
        }
        return None;
    };
    Some(HealthCheck {
        probe,
        interval_seconds,
        timeout_seconds,
        retries: retries.unwrap_or(3),
        start_period_seconds,
        unhealthy,
    })
}

/// `[update]`.
pub(super) fn update(reader: &mut Reader<'_>) -> UpdatePolicy {
    let default = UpdatePolicy::default();
    let time = |value: &_| seconds(value, limits::UPDATE_SECONDS);
    UpdatePolicy {
        max_parallel: reader
            .top("update.max_parallel", |value| whole(value, limits::REPLICAS))
            .unwrap_or(default.max_parallel),
        min_healthy_seconds: reader
            .top("update.min_healthy", time)
            .unwrap_or(default.min_healthy_seconds),
        healthy_deadline_seconds: reader
            .top("update.healthy_deadline", time)
            .unwrap_or(default.healthy_deadline_seconds),
        auto_revert: reader.top("update.auto_revert", boolean).unwrap_or(default.auto_revert),
    }
}

/// `lease = "keep"`, or `[lease] exclusive = "2m"`.
pub(super) fn lease(reader: &mut Reader<'_>) -> LeasePolicy {
    let root = reader.root();
    let lease = reader.get_as(root, "lease", |path, value| match path {
        "lease" => word(value, &[("keep", LeasePolicy::Keep)]).or_else(|refusal| {
            if value.get_ref().as_str() != Some("exclusive") {
                return Err(refusal);
            }
            let form = "say for how long: lease = { exclusive = \"2m\" }".to_owned();
            refused(value, super::problem::Reason::Value(form))
        }),
        _ => Ok(LeasePolicy::Exclusive { seconds: seconds(value, limits::LEASE_SECONDS)? }),
    });
    lease.unwrap_or_default()
}
