//! The rules of a [`JobSpec`] that span its fields.

use crate::{
    job::{HealthCheck, HealthProbe, JobError, JobSpec, LeasePolicy, limits},
    resources::ResourceRequest,
};

impl JobSpec {
    /// Applies every rule that the types do not enforce by themselves.
    ///
    /// # Errors
    /// The first broken rule, as [`JobError`].
    pub fn validate(&self) -> Result<(), JobError> {
        if !limits::REPLICAS.contains(&self.replicas) {
            return Err(JobError::Replicas(self.replicas));
        }
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
        match self.lease {
            LeasePolicy::Exclusive { seconds } if !limits::LEASE_SECONDS.contains(&seconds) => {
                return Err(JobError::Lease(seconds));
            }
            LeasePolicy::Exclusive { .. } | LeasePolicy::Keep => {}
        }
        self.health.as_ref().map_or(Ok(()), validate_health)
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use veil_protocol_spec_base::{
        codec::{CodecError, Wire, assert_wire},
        ids::KeySetDigest,
    };

    use super::*;
    use crate::{
        arbitrary::{job, labels},
        job::*,
        labels::Label,
        proven::{ProofMetadata, ProvenList},
        resources::*,
    };

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
    fn an_encrypted_request_is_bound_to_its_job() {
        assert_eq!(job().request_metadata(), None);
        let encrypted = |nonce| JobSpec {
            nonce,
            request: ResourceRequest::Encrypted(EncryptedRequest {
                key_set: KEY_SET,
                dominant: Resource::Memory,
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
        assert_eq!(
            refused_health(|h| h.timeout_seconds = h.interval_seconds + 1),
            error("timeout")
        );
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
            memory in 1u16..,
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
}
