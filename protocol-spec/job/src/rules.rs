//! The rules of a [`JobSpec`] that span its fields.

use core::fmt::Display;
use std::collections::BTreeSet;

use veil_protocol_spec_base::codec::Wire;

use crate::{
    container::{ContainerPath, ContainerSettings, Mebibytes},
    job::{JobSpec, Organisations},
    kind::{JobType, Overlap},
    lifecycle::{
        HealthCheck, HealthProbe, LeasePolicy, RestartMode, RestartPolicy, Unhealthy, UpdatePolicy,
    },
    limits,
    links::Link,
    network::{HostPort, Port},
    refusal::JobError,
    request::ResourceRequest,
    resources::Resources,
    schedule::Schedule,
    sealed::SealedPart,
    unsupported,
    volume::VolumeKind,
};

impl JobSpec {
    /// Decodes and [`validate`](Self::validate)s bytes from outside.
    ///
    /// # Errors
    /// [`JobError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, JobError> {
        let job = Self::from_wire(bytes)?;
        job.validate()?;
        Ok(job)
    }

    /// Applies every rule that the types do not enforce by themselves, and refuses what nobody does yet.
    ///
    /// # Errors
    /// The first broken rule, as [`JobError`].
    pub fn validate(&self) -> Result<(), JobError> {
        self.validate_kind()?;
        if let ResourceRequest::Clear(resources) = &self.request {
            if resources.cpu.0 == 0 {
                return Err(JobError::EmptyRequest("CPU"));
            }
            if resources.memory.0 == 0 {
                return Err(JobError::EmptyRequest("memory"));
            }
        }
        self.validate_arguments()?;
        self.validate_labels()?;
        if let Organisations::Of(organisations) = &self.constraints.organisations {
            if organisations.is_empty() {
                return Err(JobError::NoOrganisation);
            }
            ascending("organisations", organisations, |organisation| organisation)?;
        }
        validate_container(&self.container)?;
        self.validate_mounts()?;
        validate_ports(&self.ports)?;
        self.validate_links()?;
        match self.lease {
            LeasePolicy::Exclusive { seconds } if !limits::LEASE_SECONDS.contains(&seconds) => {
                return Err(JobError::Lease(seconds));
            }
            LeasePolicy::Exclusive { .. } | LeasePolicy::Keep => {}
        }
        validate_restart(&self.restart)?;
        if let Some(health) = &self.health {
            validate_health(health)?;
            if health.unhealthy == Unhealthy::Restart && self.restart.mode == RestartMode::Never {
                return Err(JobError::UnhealthyRestart);
            }
        }
        validate_update(&self.update)?;
        self.sealed_part().map_or(Ok(()), SealedPart::validate)?;
        unsupported::asked_by(self).next().map_or(Ok(()), |asked| Err(asked.into()))
    }

    fn validate_links(&self) -> Result<(), JobError> {
        ascending("links", &self.links, Link::address)?;
        ascending("after", &self.after, |after| &after.job)?;
        if self.after.iter().any(|after| after.job == self.name) {
            return Err(JobError::AfterItself);
        }
        let mut variables = BTreeSet::new();
        for link in &self.links {
            let own = self.container.hostname.as_ref();
            if own.is_some_and(|own| own.as_str() == link.host.as_str()) {
                return Err(JobError::LinkToItself(link.host.clone()));
            }
            if let Some(variable) = &link.env
                && !variables.insert(variable)
            {
                return Err(JobError::LinkVariable(variable.clone()));
            }
        }
        Ok(())
    }

    fn validate_kind(&self) -> Result<(), JobError> {
        if !limits::REPLICAS.contains(&self.replicas) {
            return Err(JobError::Replicas(self.replicas));
        }
        match &self.kind {
            JobType::System if self.replicas != 1 => Err(JobError::SystemReplicas(self.replicas)),
            JobType::System => self.validate_system(),
            JobType::Batch { max_attempts } if !limits::ATTEMPTS.contains(max_attempts) => {
                Err(JobError::Attempts(*max_attempts))
            }
            JobType::Batch { .. } | JobType::Periodic { .. }
                if self.restart.mode != RestartMode::Never =>
            {
                Err(JobError::RestartOfBatch)
            }
            JobType::Periodic { overlap: Overlap::Replace, .. }
                if self.lease != LeasePolicy::Keep =>
            {
                Err(JobError::ReplacesExclusive)
            }
            JobType::Periodic { cron, time_zone, .. } => {
                Schedule::new(cron, time_zone)?;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn validate_system(&self) -> Result<(), JobError> {
        let unhealthy = self.health.as_ref().map(|health| health.unhealthy);
        if self.lease != LeasePolicy::Keep {
            Err(JobError::OfSystem("leave `lease` out"))
        } else if unhealthy == Some(Unhealthy::Reschedule) {
            Err(JobError::OfSystem("write unhealthy = \"restart\" instead of \"reschedule\""))
        } else if self.constraints.anti_affinity.is_some() {
            Err(JobError::OfSystem("leave `anti_affinity` out"))
        } else {
            Ok(())
        }
    }

    /// What is mounted into the container: each on a place of its own, and no larger than what it counts as.
    fn validate_mounts(&self) -> Result<(), JobError> {
        ascending("volumes", &self.volumes, |volume| &volume.name)?;
        let clear = match &self.request {
            ResourceRequest::Clear(clear) => Some(clear),
            ResourceRequest::Encrypted(_) => None,
        };
        for volume in &self.volumes {
            match volume.kind {
                VolumeKind::Host { .. } => {}
                VolumeKind::Ephemeral { size } => {
                    if clear.is_some_and(|clear| size.bytes() > clear.disk.amount()) {
                        let (name, mebibytes) = (volume.name.to_string(), size.0.get());
                        return Err(JobError::BeyondDisk { name, mebibytes });
                    }
                }
                VolumeKind::Tmpfs { size } => {
                    within_memory(clear, size, || format!("volume `{}`", volume.name))?;
                }
            }
        }
        for tmpfs in &self.container.tmpfs {
            within_memory(clear, tmpfs.size, || format!("tmpfs `{}`", tmpfs.path))?;
        }
        if let Some(size) = self.container.shm_size {
            within_memory(clear, size, || "shm_size".to_owned())?;
        }
        let mut places: Vec<&ContainerPath> =
            self.container.tmpfs.iter().map(|t| &t.path).collect();
        places.extend(self.volumes.iter().map(|volume| &volume.mount));
        places.sort_unstable();
        if let Some(place) = places.iter().find(|place| !place.is_mountable()) {
            return Err(JobError::Mount((*place).clone()));
        }
        match places.iter().zip(places.iter().skip(1)).find(|(a, b)| a == b) {
            Some((place, _)) => Err(JobError::MountedTwice((*place).clone())),
            None => Ok(()),
        }
    }

    fn validate_arguments(&self) -> Result<(), JobError> {
        let health: &[String] = match &self.health {
            Some(HealthCheck { probe: HealthProbe::Command(command), .. }) => command,
            _ => &[],
        };
        let lists =
            [("command", &self.command[..]), ("args", &self.args), ("health command", health)];
        let mut total = 0;
        for (list, entries) in lists {
            if entries.len() > limits::ARGUMENTS {
                return Err(JobError::TooManyArguments { list, len: entries.len() });
            }
            for (index, entry) in entries.iter().enumerate() {
                if entry.len() > limits::ARGUMENT_BYTES || entry.contains('\0') {
                    return Err(JobError::Argument { list, index });
                }
                total += entry.len();
            }
            // An argument may be empty, a program may not.
            if list != "args" && entries.first().is_some_and(String::is_empty) {
                return Err(JobError::EmptyProgram(list));
            }
        }
        if total > limits::ALL_ARGUMENTS_BYTES {
            return Err(JobError::ArgumentsTooLong(total));
        }
        Ok(())
    }

    fn validate_labels(&self) -> Result<(), JobError> {
        let constraints = &self.constraints;
        for (list, labels) in [("allow", &constraints.allow), ("deny", &constraints.deny)] {
            if labels.len() > limits::LABELS {
                return Err(JobError::TooManyLabels { list, len: labels.len() });
            }
            let out_of_place = labels.iter().zip(labels.iter().skip(1)).find(|(a, b)| a >= b);
            if let Some((_, label)) = out_of_place {
                return Err(JobError::LabelOrder { list, label: label.clone() });
            }
        }
        match constraints.allow.iter().find(|label| constraints.deny.contains(label)) {
            Some(label) => Err(JobError::Contradiction(label.clone())),
            None => Ok(()),
        }
    }
}

fn validate_health(check: &HealthCheck) -> Result<(), JobError> {
    let range = |ok: bool, what| if ok { Ok(()) } else { Err(JobError::HealthCheck(what)) };
    range(limits::PROBE_SECONDS.contains(&check.interval_seconds), "interval")?;
    range((1..=check.interval_seconds).contains(&check.timeout_seconds), "timeout")?;
    range(limits::PROBE_RETRIES.contains(&check.retries), "number of retries")?;
    range(check.start_period_seconds <= *limits::PROBE_SECONDS.end(), "start period")?;
    match &check.probe {
        HealthProbe::Command(command) => range(!command.is_empty(), "command (it is empty)"),
        HealthProbe::Tcp { port } => range(*port != 0, "port"),
        HealthProbe::Http { port, path } => {
            range(*port != 0, "port")?;
            let valid = path.starts_with('/')
                && path.len() <= limits::PROBE_PATH_BYTES
                && path.bytes().all(|b| b.is_ascii_graphic());
            range(valid, "path (begin with /, printable ASCII without spaces)")
        }
    }
}

/// Checks that a list is strictly ascending by `key`, and not too long.
fn ascending<'a, T, K: Ord + Display>(
    list: &'static str,
    entries: &'a [T],
    key: impl Fn(&'a T) -> K,
) -> Result<(), JobError> {
    let max = if matches!(list, "ports" | "links") { limits::PORTS } else { limits::ENTRIES };
    if entries.len() > max {
        return Err(JobError::TooManyEntries { list, len: entries.len(), max });
    }
    let keys = || entries.iter().map(&key);
    match keys().zip(keys().skip(1)).find(|(a, b)| a >= b) {
        Some((_, entry)) => Err(JobError::EntryOrder { list, entry: entry.to_string() }),
        None => Ok(()),
    }
}

fn within_memory(
    request: Option<&Resources>,
    size: Mebibytes,
    what: impl FnOnce() -> String,
) -> Result<(), JobError> {
    if request.is_some_and(|request| size.bytes() > request.memory.amount()) {
        return Err(JobError::BeyondMemory { what: what(), mebibytes: size.0.get() });
    }
    Ok(())
}

fn validate_container(container: &ContainerSettings) -> Result<(), JobError> {
    ascending("tmpfs", &container.tmpfs, |tmpfs| &tmpfs.path)?;
    if !limits::PIDS.contains(&container.pids) {
        return Err(JobError::Pids(container.pids));
    }
    ascending("ulimits", &container.ulimits, |ulimit| &ulimit.kind)?;
    if let Some(wrong) = container.ulimits.iter().find(|ulimit| !ulimit.is_sound()) {
        return Err(JobError::Ulimit(*wrong));
    }
    if !limits::STOP_SECONDS.contains(&container.stop_timeout_seconds) {
        return Err(JobError::StopTimeout(container.stop_timeout_seconds));
    }
    let change = &container.capabilities;
    ascending("capabilities.drop", &change.drop, |capability| capability)?;
    ascending("capabilities.add", &change.add, |capability| capability)?;
    if change.drop_all && !change.drop.is_empty() {
        return Err(JobError::DroppedTwice);
    }
    match change.add.iter().find(|capability| change.drop.contains(capability)) {
        Some(capability) => Err(JobError::Capability(*capability)),
        None => Ok(()),
    }
}

fn validate_ports(ports: &[Port]) -> Result<(), JobError> {
    ascending("ports", ports, |port| &port.name)?;
    let same = |a: &Port, b: &Port, place| {
        Err(JobError::SamePort(a.name.to_string(), b.name.to_string(), place))
    };
    for (i, a) in ports.iter().enumerate() {
        for b in ports.iter().skip(i + 1).filter(|b| b.protocol == a.protocol) {
            if a.container == b.container {
                return same(a, b, "container");
            }
            if matches!((a.host, b.host), (HostPort::Fixed(x), HostPort::Fixed(y)) if x == y) {
                return same(a, b, "host");
            }
        }
    }
    Ok(())
}

fn validate_restart(restart: &RestartPolicy) -> Result<(), JobError> {
    let range = |ok: bool, what| if ok { Ok(()) } else { Err(JobError::Restart(what)) };
    range(restart.attempts.is_none_or(|n| limits::RESTARTS.contains(&n)), "number of attempts")?;
    range(limits::RESTART_INTERVAL_SECONDS.contains(&restart.interval_seconds), "interval")?;
    range(limits::RESTART_DELAY_SECONDS.contains(&restart.delay_seconds), "delay")
}

fn validate_update(update: &UpdatePolicy) -> Result<(), JobError> {
    let range = |ok: bool, what| if ok { Ok(()) } else { Err(JobError::Update(what)) };
    range(limits::REPLICAS.contains(&update.max_parallel), "number of replicas at once")?;
    range(limits::UPDATE_SECONDS.contains(&update.min_healthy_seconds), "healthy time")?;
    let deadline = update.min_healthy_seconds..=*limits::UPDATE_SECONDS.end();
    range(deadline.contains(&update.healthy_deadline_seconds), "deadline")
}

#[cfg(test)]
mod tests;
