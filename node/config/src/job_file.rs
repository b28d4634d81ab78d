//! A job as people write it: TOML, with quantities in usual units, turned into a [`JobSpec`].
//!
//! ```
//! use veil_node_config::job_file::JobFile;
//! let digest = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
//! let job = JobFile::parse(&format!(r#"
//!     image = "localhost:5000/tools/httpd@sha256:{digest}"
//!     replicas = 3
//!     anti_affinity = "soft"          # or "hard"
//!     [resources]
//!     cpu_millicores = 250
//!     memory_mib = 64
//! "#)).unwrap();
//! assert_eq!(job.replicas, 3);
//! ```

use serde::Deserialize;
use veil_protocol_spec::{
    Address,
    scheduling::{
        AntiAffinity, ClusterScope, Constraints, CpuUnits, DiskUnits, FailureDomain, GpuUnits,
        HealthCheck, ImageReference, JobError, JobSpec, Label, LabelKey, LatencyClass, LeasePolicy,
        MemoryUnits, Priority, RequestTooLarge, ResourceRequest, Resources, RestartPolicy,
        SchedulingPolicy, Strength,
    },
};

/// Why a job file is refused.
#[derive(Debug, thiserror::Error)]
pub enum JobFileError {
    /// Not the expected structure; names line and key.
    #[error("the job file: {0}")]
    Parse(String),
    /// More than can be asked for.
    #[error("resources: {0}")]
    Resources(#[from] RequestTooLarge),
    /// A failure domain alone says nothing.
    #[error("failure_domain needs anti_affinity = \"soft\" or \"hard\" beside it")]
    DomainWithoutStrength,
    /// A rule of job specifications.
    #[error(transparent)]
    Job(#[from] JobError),
}

/// What one replica needs; rounded up to the units of the scheduler.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileResources {
    /// Thousandths of a core.
    pub cpu_millicores: u64,
    /// Memory.
    pub memory_mib: u64,
    /// Disk beyond the image.
    #[serde(default)]
    pub disk_gib: u64,
    /// Devices.
    #[serde(default)]
    pub gpus: u64,
}

/// The file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JobFile {
    /// Pinned by digest.
    pub image: ImageReference,
    /// Replaces the image's entry point.
    #[serde(default)]
    pub command: Vec<String>,
    /// Arguments of the entry point.
    #[serde(default)]
    pub args: Vec<String>,
    /// How many run at once.
    #[serde(default = "one")]
    pub replicas: u16,
    /// What each needs.
    pub resources: FileResources,
    /// Higher is placed first.
    #[serde(default)]
    pub priority: Priority,
    /// How a worker is chosen.
    #[serde(default = "spread")]
    pub policy: SchedulingPolicy,
    /// Keeps replicas on different workers.
    #[serde(default)]
    pub anti_affinity: Option<Strength>,
    /// Keeps replicas on workers with different values of this label, instead of on different
    /// workers.
    #[serde(default)]
    pub failure_domain: Option<LabelKey>,
    /// Slowest latency class that will do: 0 (up to 5 ms) to 3 (any).
    #[serde(default)]
    pub max_latency: Option<LatencyClass>,
    /// A replica goes back to the worker that had it last, if it can.
    #[serde(default)]
    pub prefer_previous: bool,
    /// The worker must carry these.
    #[serde(default)]
    pub allow: Vec<Label>,
    /// The worker must carry none of these.
    #[serde(default)]
    pub deny: Vec<Label>,
    /// What a cut-off worker does.
    #[serde(default = "keep")]
    pub lease: LeasePolicy,
    /// What happens on exit.
    #[serde(default = "always")]
    pub restart: RestartPolicy,
    /// How to tell that it works.
    #[serde(default)]
    pub health: Option<HealthCheck>,
}

const fn one() -> u16 {
    1
}

const fn spread() -> SchedulingPolicy {
    SchedulingPolicy::Spread
}

const fn keep() -> LeasePolicy {
    LeasePolicy::Keep
}

const fn always() -> RestartPolicy {
    RestartPolicy::Always
}

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

impl JobFile {
    /// # Errors
    /// [`JobFileError::Parse`].
    pub fn parse(text: &str) -> Result<Self, JobFileError> {
        toml::from_str(text).map_err(|e| JobFileError::Parse(e.to_string()))
    }

    /// The job that `operator` submits with `nonce`.
    ///
    /// # Errors
    /// [`JobFileError`].
    pub fn into_spec(
        mut self,
        scope: ClusterScope,
        operator: Address,
        nonce: u64,
    ) -> Result<JobSpec, JobFileError> {
        self.allow.sort();
        self.deny.sort();
        let FileResources { cpu_millicores, memory_mib, disk_gib, gpus } = self.resources;
        let request = Resources {
            cpu: CpuUnits::covering(cpu_millicores)?,
            memory: MemoryUnits::covering(memory_mib.saturating_mul(MIB))?,
            disk: DiskUnits::covering(disk_gib.saturating_mul(GIB))?,
            gpu: GpuUnits::covering(gpus)?,
        };
        let domain = self.failure_domain.map_or(FailureDomain::Worker, FailureDomain::Label);
        let anti_affinity = match (self.anti_affinity, &domain) {
            (Some(strength), _) => Some(AntiAffinity { strength, domain }),
            (None, FailureDomain::Worker) => None,
            (None, FailureDomain::Label(_)) => return Err(JobFileError::DomainWithoutStrength),
        };
        let job = JobSpec {
            scope,
            operator,
            nonce,
            image: self.image,
            command: self.command,
            args: self.args,
            request: ResourceRequest::Clear(request),
            replicas: self.replicas,
            priority: self.priority,
            policy: self.policy,
            constraints: Constraints {
                allow: self.allow,
                deny: self.deny,
                anti_affinity,
                max_latency: self.max_latency,
                prefer_previous: self.prefer_previous,
            },
            lease: self.lease,
            restart: self.restart,
            health: self.health,
        };
        job.validate()?;
        Ok(job)
    }
}

#[cfg(test)]
mod tests {
    use veil_protocol_spec::{ChainId, ClusterId};

    use super::*;

    const DIGEST: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

    fn scope() -> ClusterScope {
        let (contract, cluster) = (Address([1; 20]), ClusterId([2; 32]));
        ClusterScope { chain_id: ChainId(31_337), contract, cluster }
    }

    fn file(more: &str) -> String {
        format!(
            "image = \"localhost:5000/a@sha256:{DIGEST}\"\n{more}\n[resources]\ncpu_millicores = 150\nmemory_mib = 65\n"
        )
    }

    #[test]
    fn quantities_are_rounded_up() {
        let job = JobFile::parse(&file("")).unwrap();
        let job = job.into_spec(scope(), Address([3; 20]), 7).unwrap();
        let ResourceRequest::Clear(request) = job.request else { panic!("{:?}", job.request) };
        assert_eq!((request.cpu, request.memory), (CpuUnits(2), MemoryUnits(2)));
        assert_eq!((job.replicas, job.nonce), (1, 7));
        assert_eq!(job.restart, RestartPolicy::Always);
    }

    #[test]
    fn constraints_reach_the_specification() {
        let text = "anti_affinity = \"hard\"\nfailure_domain = \"region\"\nmax_latency = 1\nprefer_previous = true\npolicy = \"cost\"";
        let job = JobFile::parse(&file(text)).unwrap();
        let job = job.into_spec(scope(), Address([3; 20]), 0).unwrap();
        let apart = job.constraints.anti_affinity.unwrap();
        assert_eq!(apart.domain, FailureDomain::Label("region".parse().unwrap()));
        assert_eq!(job.constraints.max_latency, LatencyClass::new(1).ok());
        assert!(job.constraints.prefer_previous && job.policy == SchedulingPolicy::Cost);
        let alone = JobFile::parse(&file("failure_domain = \"region\"")).unwrap();
        let refused = alone.into_spec(scope(), Address([3; 20]), 0);
        assert!(matches!(refused, Err(JobFileError::DomainWithoutStrength)));
        assert!(JobFile::parse(&file("max_latency = 4")).is_err());
    }

    #[test]
    fn the_error_names_the_key_or_the_rule() {
        let error = JobFile::parse(&file("replica = 2")).unwrap_err().to_string();
        assert!(error.contains("replica"), "{error}");
        let none = JobFile::parse(&file("replicas = 0")).unwrap();
        let error = none.into_spec(scope(), Address([3; 20]), 0).unwrap_err();
        assert!(matches!(error, JobFileError::Job(JobError::Replicas(0))), "{error}");
        let huge = file("").replace("cpu_millicores = 150", "cpu_millicores = 99999999");
        let error = JobFile::parse(&huge).unwrap().into_spec(scope(), Address([3; 20]), 0);
        assert!(matches!(error, Err(JobFileError::Resources(_))));
        let tag = file("").replace(&format!("@sha256:{DIGEST}"), ":latest");
        assert!(JobFile::parse(&tag).unwrap_err().to_string().contains("pinned"));
    }

    /// A job survives the way through JSON: it has the digest that was submitted.
    #[test]
    fn a_job_keeps_its_digest_through_json() {
        let (contract, cluster) = (Address([1; 20]), ClusterId([2; 32]));
        let scope = ClusterScope { chain_id: ChainId(31_337), contract, cluster };
        let digest = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
        let text = format!(
            "image = \"a/b@sha256:{digest}\"\nreplicas = 2\nanti_affinity = \"soft\"\n[resources]\ncpu_millicores = 1\nmemory_mib = 1\n"
        );
        let job = JobFile::parse(&text).unwrap().into_spec(scope, Address([3; 20]), 4).unwrap();
        let json = serde_json::to_string(&job).unwrap();
        let back: JobSpec = serde_json::from_str(&json).unwrap();
        assert_eq!((back.digest(), back), (job.digest(), job));
    }
}
