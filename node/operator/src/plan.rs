//! What submitting a job would cost and tell, without a transaction.

use async_recursion::async_recursion as boxed;
use serde::Serialize;
use veil_committee_slot::demand::bits_to_state;
use veil_node_api::client::Client;
use veil_node_api::status::JobStatus;
use veil_node_chain::{Chain, ChainError, Rights};
use veil_node_config::job_file::{
    JobFile,
    quantity::Measure::{Bytes, Cpu},
};
use veil_protocol_spec::{
    Address, Blake3Digest, ClusterId,
    scheduling::{
        Egress, HostPort, JobSpec, JobType, LEAK_WINDOW_BLOCKS, Name, Organisation, Organisations,
        ResourceRequest, Schedule,
    },
};

use crate::{
    error::OperatorError,
    obstacle::{Obstacle, Worker},
    policy,
    sealing::{self, Hidden},
};

/// How many of a periodic job's next times a plan shows.
const SHOWN_RUNS: usize = 3;

/// What each replica is given: the request, rounded up to whole units.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Limits {
    /// Cores, as the job file writes them.
    pub cpu: String,
    /// As the job file writes it.
    pub memory: String,
    /// As the job file writes it.
    pub disk: String,
    /// Devices.
    pub gpus: u16,
}

impl Limits {
    /// Of a request in clear.
    #[must_use]
    pub fn of(job: &JobSpec) -> Option<Self> {
        match &job.request {
            ResourceRequest::Clear(request) => Some(Self {
                cpu: Cpu.format(request.cpu.amount()),
                memory: Bytes.format(request.memory.amount()),
                disk: Bytes.format(request.disk.amount()),
                gpus: request.gpu.0,
            }),
            _ => None,
        }
    }
}

/// A job that another one takes the place of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Update {
    /// The last job of the name.
    pub job: Blake3Digest,
    /// The number that the new version would have.
    pub version: u32,
    /// Replicas that the last one asks for.
    pub replicas: u16,
}

impl Update {
    /// Of `before`, the last job of its name; `jobs` is all that a node knows.
    fn of(before: &JobStatus, jobs: &[JobStatus], spec: &JobSpec) -> Self {
        let named = || {
            jobs.iter().filter(|job| {
                let same = job.name.as_deref() == Some(spec.name.as_str());
                job.operator == spec.operator && same
            })
        };
        let noted = named().filter_map(|job| Some((job.version?.number, job.position)));
        let (number, position) = noted.max().map_or((0, None), |(number, at)| (number, Some(at)));
        // Those that no slot has noted yet come after it.
        let open = named().filter(|job| !job.cancelled && job.version.is_none());
        let later = open.filter(|job| position.is_none_or(|at| job.position > at)).count();
        let later = u32::try_from(later).unwrap_or(u32::MAX);
        let version = number.saturating_add(later).saturating_add(1);
        Self { job: before.job, version, replicas: before.wanted.unwrap_or_default() }
    }
}

/// What submitting a job would cost and tell, as chain and node have it now.
#[derive(Clone, Debug, Serialize)]
pub struct JobPlan {
    /// The digest that would be submitted.
    pub job: Blake3Digest,
    /// The job's name.
    pub name: String,
    /// Whose job it is.
    pub operator: Address,
    /// The account's next nonce.
    pub nonce: u64,
    /// Replicas that it asks for.
    pub replicas: u16,
    /// What each of them is given.
    pub limits: Option<Limits>,
    /// Whether only winners, and the circuit, learn the limits.
    pub encrypted: bool,
    /// Bits that its submission would state.
    pub leak_bits: u32,
    /// Bits that the account has stated on this day (UTC), and may state.
    pub leak_bits_used: u32,
    /// See the former.
    pub leak_bits_allowed: u32,
    /// Jobs that the account has submitted on this day (UTC).
    pub jobs_used: u32,
    /// Jobs that it may submit on a day.
    pub jobs_allowed: u32,
    /// Whether the cluster allows the image.
    pub image_allowed: bool,
    /// Registered workers.
    pub workers: usize,
    /// Those whose labels and organisations the job asks for.
    pub candidates: usize,
    /// Whose workers it may go to.
    pub organisations: Organisations,
    /// What speaks against it.
    pub obstacles: Vec<Obstacle>,
    /// When a periodic job would be run next, in Unix seconds; of another one nothing.
    pub next_runs: Vec<u64>,
    /// What it would take the place of; nothing if the account runs no job of its name.
    pub update: Option<Update>,
    /// What it tells, and to whom.
    pub tells: Vec<String>,
    #[serde(skip)]
    pub(crate) spec: JobSpec,
}

impl JobPlan {
    /// Whether `submit` would submit it.
    #[must_use]
    pub fn can_be_submitted(&self) -> bool {
        !self.obstacles.iter().any(Obstacle::forbids_submission)
    }
}

/// Looks at the job as the chain and `node` have it now, as one of `operator`; submits nothing. It would state
/// `leak_bits`, or as many as [`bits_to_state`] says.
///
/// # Errors
/// [`OperatorError`] if there is no account, or chain or node do not answer, or the file breaks a rule.
#[boxed]
pub async fn look(
    chain: &Chain,
    cluster: ClusterId,
    node: &Client,
    operator: Address,
    file: JobFile,
    leak_bits: Option<u32>,
) -> Result<JobPlan, OperatorError> {
    let nonce = chain.next_job_nonce(cluster, operator).await?;
    let (hidden, remarks) = (Hidden::of(&file)?, file.remarks());
    let seals_arguments = file.seals_arguments();
    let clear = file.into_spec(chain.scope(cluster), operator, nonce)?;
    let limits = Limits::of(&clear);
    let spec = sealing::sealed(chain, cluster, node, clear, hidden).await?;
    let mut plan = look_at(chain, cluster, node, spec, leak_bits).await?;
    plan.limits = limits;
    plan.tells = tells(&plan.spec, Some(plan.leak_bits), Hides::of(&plan.spec, seals_arguments));
    plan.tells.extend(remarks);
    Ok(plan)
}

/// The same of a job that has its operator and nonce.
///
/// # Errors
/// [`OperatorError`] if there is no account, or chain or node do not answer.
#[boxed]
pub async fn look_at(
    chain: &Chain,
    cluster: ClusterId,
    node: &Client,
    spec: JobSpec,
    leak_bits: Option<u32>,
) -> Result<JobPlan, OperatorError> {
    let account = chain.account().ok_or(ChainError::NoAccount)?;
    let next_runs = next_runs(&spec.kind, chain.block().await?.1);
    let (operator, nonce) = (spec.operator, spec.nonce);
    let policy = policy::current(chain, cluster).await?;
    let nodes = chain.nodes(cluster).await?;
    let workers: Vec<_> = nodes.iter().filter(|node| node.roles.worker).collect();
    let known: Vec<_> = workers
        .iter()
        .map(|node| Worker { labels: &node.labels, organisation: node.organisation.as_ref() })
        .collect();
    let stated = leak_bits.unwrap_or_else(|| bits_to_state(&spec, workers.len()));
    let allowance = chain.allowance(cluster, operator).await?;
    let usage = chain.job_usage(cluster, operator).await?;
    let image = chain.image(cluster, spec.image.digest_bytes()).await?;
    let image_allowed = chain.is_image_allowed(cluster, spec.image.digest_bytes()).await?;
    let jobs: Vec<JobStatus> = node.get("/v1/jobs").await.map_err(OperatorError::Node)?;

    let mut obstacles: Vec<_> = Obstacle::of_scale(&spec, &policy).into_iter().collect();
    if account != operator {
        let delegation = chain.delegation(cluster, operator, account).await?;
        let refused = delegation.check(operator, account).err();
        obstacles.extend(refused.map(Obstacle::Delegation));
    }
    let digest = spec.image.digest_hex().to_owned();
    if !image_allowed {
        obstacles.push(Obstacle::Image { digest });
    } else if policy.image_signatures && image.approval.signature.is_none() {
        obstacles.push(Obstacle::Unsigned { digest });
    }
    if !allowance.rights.has(Rights::SUBMIT) {
        obstacles.push(Obstacle::Right);
    } else {
        let (used, allowed) = (usage.jobs, allowance.jobs_per_day);
        if used >= allowed {
            obstacles.push(Obstacle::Quota { used, allowed });
        }
        let (used, allowed) = (usage.leak_bits, allowance.leak_bits_per_day);
        if used.saturating_add(stated) > allowed {
            obstacles.push(Obstacle::LeakBits { stated, used, allowed });
        }
    }
    let same = |job: &&JobStatus| {
        job.operator == operator
            && !job.cancelled
            && job.name.as_deref() == Some(spec.name.as_str())
    };
    let before = jobs.iter().filter(same).max_by_key(|job| job.position);
    let update = before.map(|before| Update::of(before, &jobs, &spec));
    let after = |name: &Name| {
        let of = |job: &&JobStatus| job.operator == operator && !job.cancelled;
        let named = jobs.iter().filter(of).filter(|job| job.name.as_deref() == Some(name.as_str()));
        named.max_by_key(|job| job.position).map(|job| job.after.clone()).unwrap_or_default()
    };
    obstacles.extend(Obstacle::of_circle(&spec, after));
    obstacles.extend(Obstacle::of_workers(&spec, &policy, &known));
    let fitting = known.iter().filter(|worker| worker.fits(&spec)).count();
    let fitting = u16::try_from(fitting).unwrap_or(u16::MAX);
    Ok(JobPlan {
        job: spec.digest(),
        name: spec.name.to_string(),
        operator,
        nonce,
        replicas: if spec.kind == JobType::System { fitting } else { spec.replicas },
        limits: Limits::of(&spec),
        leak_bits: stated,
        leak_bits_used: usage.leak_bits,
        leak_bits_allowed: allowance.leak_bits_per_day,
        jobs_used: usage.jobs,
        jobs_allowed: allowance.jobs_per_day,
        image_allowed,
        workers: workers.len(),
        candidates: fitting.into(),
        organisations: spec.constraints.organisations.clone(),
        obstacles,
        next_runs,
        update,
        tells: tells(&spec, Some(stated), Hides::of(&spec, false)),
        encrypted: matches!(spec.request, ResourceRequest::Encrypted(_)),
        spec,
    })
}

/// The next times of a periodic job after `now`; nothing of a job of another type.
fn next_runs(kind: &JobType, now: u64) -> Vec<u64> {
    let JobType::Periodic { cron, time_zone, .. } = kind else { return Vec::new() };
    let Ok(schedule) = Schedule::new(cron, time_zone) else { return Vec::new() };
    std::iter::successors(schedule.next(now), |last| schedule.next(*last))
        .take(SHOWN_RUNS)
        .collect()
}

/// What of a job everybody else could read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hides {
    /// The limits: the request is encrypted.
    pub limits: bool,
    /// What the container runs.
    pub arguments: bool,
}

impl Hides {
    const fn of(body: &JobSpec, arguments: bool) -> Self {
        Self { limits: matches!(body.request, ResourceRequest::Encrypted(_)), arguments }
    }
}

/// What a job tells, and to whom; `leak_bits` as its submission would state them.
#[must_use]
pub fn tells(job: &JobSpec, leak_bits: Option<u32>, hides: Hides) -> Vec<String> {
    let arguments = if hides.arguments { "" } else { "arguments, " };
    let limits = if hides.limits { "" } else { "limits, " };
    let mut tells = vec![format!(
        "everybody reads its body: image, {arguments}{limits}labels; only whoever runs a worker that it is placed on \
         sees what it computes"
    )];
    if hides.limits {
        tells.push(
            "its limits are encrypted: the circuit computes on them, and each worker that it is placed on learns them. \
             Everybody sees which resource it takes most of, by the cluster's scale, and sizes of volumes and tmpfs"
                .to_owned(),
        );
    }
    if hides.arguments && job.health.is_some() {
        tells.push("its health check is in the public body, arguments or not".to_owned());
    }
    // "A job names organisations, or `any`, which `plan` says aloud."
    tells.push(match &job.constraints.organisations {
        Organisations::Any => "any organisation's workers may run it, also of those that nobody vouches for: \
             name the ones that you trust with what it computes, `organisations = [\"...\"]` under [placement]"
            .to_owned(),
        Organisations::Of(names) => {
            let names: Vec<_> = names.iter().map(Organisation::as_str).collect();
            format!(
                "only workers of {} run it, as the cluster's admin approved them",
                names.join(", ")
            )
        }
    });
    if job.sealed_part().is_some() {
        tells.push(
            "what is sealed in it is read by each worker that it is placed on, and by whoever runs that worker; \
             everybody sees that something is sealed, and its length in steps of 1 KiB"
                .to_owned(),
        );
    }
    if let Some(bits) = leak_bits {
        tells.push(format!(
            "where its replicas go may tell up to {bits} bits about others' load within {LEAK_WINDOW_BLOCKS} blocks"
        ));
    }
    if job.ports.iter().any(|port| port.host != HostPort::None) {
        tells.push("its ports are open to whoever reaches the worker's address".to_owned());
    }
    if job.egress == Egress::AllowPrivate {
        tells.push(
            "it reaches private addresses of the worker's network, on workers whose operators allow it"
                .to_owned(),
        );
    }
    if let ResourceRequest::Clear(request) = &job.request
        && request.disk.0 > 0
    {
        tells.push("its disk is reserved, and no engine keeps it from using more".to_owned());
    }
    tells
}

#[cfg(test)]
mod tests {
    use veil_node_api::versions::VersionStatus;
    use veil_node_config::job_file::samples;
    use veil_protocol_spec::scheduling::{RolloutPhase, VersionOutcome};

    use super::*;

    #[test]
    fn a_plan_says_aloud_whose_workers_may_run_the_job() {
        let mut job = JobFile::parse(samples::SERVICE).unwrap().check().unwrap();
        let says = |job: &JobSpec| tells(job, None, Hides::default()).join("\n");
        assert!(says(&job).contains("any organisation's workers may run it"), "{}", says(&job));
        job.constraints.organisations = Organisations::Of(vec!["Acme".parse().unwrap()]);
        assert!(says(&job).contains("only workers of Acme run it"), "{}", says(&job));
    }

    #[test]
    fn a_plan_says_what_is_hidden_and_what_is_not() {
        let job = JobFile::parse(samples::SERVICE).unwrap().check().unwrap();
        let says = |limits, arguments| tells(&job, None, Hides { limits, arguments }).join("\n");
        assert!(says(false, false).contains("image, arguments, limits, labels"));
        assert!(says(true, false).contains("image, arguments, labels"));
        assert!(says(true, false).contains("which resource it takes most of"));
        assert!(says(false, true).contains("image, limits, labels"));
        assert_eq!(says(false, true).contains("health check"), job.health.is_some());
    }

    #[test]
    fn a_plan_says_when_a_periodic_job_would_be_run() {
        let job = JobFile::parse(samples::PERIODIC).unwrap().check().unwrap();
        // 4:30 UTC each day, from 1970-01-01 12:00 on.
        let day = 86_400;
        let half_past_four = 4 * 3_600 + 1_800;
        let expected = [1, 2, 3].map(|days| days * day + half_past_four);
        assert_eq!(next_runs(&job.kind, day / 2), expected);
        assert_eq!(next_runs(&JobType::Service, 0), [0; 0]);
    }

    #[test]
    fn an_update_is_numbered_after_those_that_are_noted_and_those_that_are_not() {
        let spec = JobFile::parse(samples::SERVICE).unwrap().check().unwrap();
        let of = |position: u64, number: Option<u32>| JobStatus {
            job: Blake3Digest([position as u8; 32]),
            position,
            operator: spec.operator,
            cancelled: false,
            name: Some(spec.name.to_string()),
            image: None,
            wanted: Some(4),
            replicas: Vec::new(),
            version: number.map(|number| VersionStatus {
                number,
                outcome: VersionOutcome::Healthy,
                wanted: true,
                rollout: RolloutPhase::Settled,
                unproven: 0,
            }),
            periodic: None,
            after: Vec::new(),
        };
        let version = |jobs: &[JobStatus]| {
            let update = Update::of(jobs.last().unwrap(), jobs, &spec);
            (update.version, update.replicas)
        };
        assert_eq!(version(&[of(3, None)]), (2, 4));
        assert_eq!(version(&[of(3, None), of(5, None)]), (3, 4));
        assert_eq!(version(&[of(2, None), of(3, Some(1)), of(5, Some(2))]), (3, 4));
        assert_eq!(version(&[of(3, Some(6)), of(5, Some(7)), of(8, None)]), (9, 4));
        let other = JobStatus { name: Some("another".to_owned()), ..of(9, Some(40)) };
        assert_eq!(version(&[other, of(3, Some(1))]), (2, 4));
    }
}
