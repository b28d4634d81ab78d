//! What speaks against a job.

use serde::{Serialize, Serializer};
use veil_protocol_spec::{
    Blake3Digest,
    registry::NotDelegated,
    scheduling::{
        AntiAffinity, ClusterPolicy, FailureDomain, JobSpec, JobType, Label, Name, Organisation,
        RequestTooLarge, ResourceRequest, Strength, circle_of,
    },
};

/// What the chain says of a registered worker.
#[derive(Clone, Copy, Debug)]
pub struct Worker<'a> {
    /// Its labels.
    pub labels: &'a [Label],
    /// Its organisation, as the admin approved it.
    pub organisation: Option<&'a Organisation>,
}

impl Worker<'_> {
    /// Whether a job asks for nothing that these are not.
    #[must_use]
    pub fn fits(&self, job: &JobSpec) -> bool {
        let constraints = &job.constraints;
        constraints.are_met_by(self.labels) && constraints.organisations.contain(self.organisation)
    }
}

/// What speaks against a job.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "each message says what its fields are")]
pub enum Obstacle {
    /// No worker can have as much as it asks for.
    #[error(
        "no worker can offer what it asks for by the cluster's policy: {0}; ask for less, or raise the units \
         with `veil chain policy set`"
    )]
    TooLarge(RequestTooLarge),
    /// The cluster allows other images only.
    #[error(
        "the cluster does not allow the image with digest {digest}; whoever administers it allows one with \
         `veil chain image allow`"
    )]
    Image { digest: String },
    /// The cluster runs signed images only.
    #[error(
        "the cluster runs signed images only, and the image with digest {digest} is allowed without a \
         signature; whoever administers it allows it with one, with `veil chain image allow --key`"
    )]
    Unsigned { digest: String },
    /// The account may not submit.
    #[error(
        "this account may not submit jobs to this cluster: its admin says so with `veil chain grant`"
    )]
    Right,
    /// The account may not act for the operator.
    #[error(transparent)]
    Delegation(NotDelegated),
    /// The account has submitted as many jobs as it may.
    #[error("this account has submitted {used} of {allowed} jobs on this day (UTC)")]
    Quota { used: u32, allowed: u32 },
    /// The account's jobs would tell more than they may.
    #[error(
        "the job states {stated} bits; this account has stated {used} of {allowed} on this day (UTC): state fewer \
         (`--leak-bits`), or have the quota raised with `veil chain grant`"
    )]
    LeakBits { stated: u32, used: u32, allowed: u32 },
    /// Another job of the account has its name.
    #[error(
        "job {job} of this account has the name `{name}`, and this version does not support updates: stop that \
         one first (`veil job stop {job}`), or choose another name"
    )]
    Name { name: String, job: Blake3Digest },
    /// The account's jobs would wait for each other.
    #[error(
        "it would wait for itself, {path}, and none of these would ever start: take one of their [[after]] out"
    )]
    Circle { path: String },
    /// Too few workers are what it asks for. It waits until there are more.
    #[error(
        "{candidates} of {workers} registered workers have the labels, and are of the organisations, that it asks \
         for, and a slot lists it with {least} or more: ask for less, or wait for more workers"
    )]
    Candidates { candidates: usize, workers: usize, least: usize },
    /// Fewer places than replicas. Those that find none wait.
    #[error(
        "its {replicas} replicas are kept apart, and the workers that it asks for are {domains} failure \
         domains: ask for fewer replicas, or write anti_affinity = \"soft\""
    )]
    Domains { replicas: u16, domains: usize },
}

impl Obstacle {
    /// Whether a transaction would be for nothing: the rest may change while the job waits.
    #[must_use]
    pub const fn forbids_submission(&self) -> bool {
        !matches!(self, Self::Candidates { .. } | Self::Domains { .. })
    }

    /// What no worker can ever offer is not submitted: it would take its part of the account's quota and
    /// wait for ever.
    #[must_use]
    pub fn of_scale(job: &JobSpec, policy: &ClusterPolicy) -> Option<Self> {
        match &job.request {
            ResourceRequest::Clear(request) => {
                policy.scale.request(request).err().map(Self::TooLarge)
            }
            _ => None,
        }
    }

    /// Of what else its operator runs: `after` says for which jobs one of a name waits.
    #[must_use]
    pub fn of_circle(job: &JobSpec, after: impl Fn(&Name) -> Vec<Name>) -> Option<Self> {
        let own = || job.after.iter().map(|after| after.job.clone()).collect();
        let path =
            circle_of(&job.name, |name| if *name == job.name { own() } else { after(name) })?;
        let path: Vec<_> = path.into_iter().map(String::from).collect();
        Some(Self::Circle { path: path.join(" -> ") })
    }

    /// Of what a cluster's registered workers are.
    #[must_use]
    pub fn of_workers(
        job: &JobSpec,
        policy: &ClusterPolicy,
        workers: &[Worker<'_>],
    ) -> Option<Self> {
        let fit: Vec<_> = workers.iter().filter(|worker| worker.fits(job)).collect();
        let (candidates, workers) = (fit.len(), workers.len());
        let hard = match &job.constraints.anti_affinity {
            Some(AntiAffinity { strength: Strength::Hard, domain }) => Some(domain),
            _ => None,
        };
        let narrowed = candidates < workers || hard.is_some() || job.constraints.narrow();
        // Each worker's replica of a system job tells of that worker alone.
        let is_system = job.kind == JobType::System;
        let least = if narrowed && !is_system { policy.least_candidates(workers) } else { 1 };
        if candidates < least {
            return Some(Self::Candidates { candidates, workers, least });
        }
        let domains = match hard? {
            FailureDomain::Worker => candidates,
            FailureDomain::Label(key) => {
                let (mut values, mut alone) = (Vec::new(), 0);
                for worker in fit {
                    match worker.labels.iter().find(|label| label.key == *key) {
                        Some(value) => values.push(value),
                        None => alone += 1, // a domain of its own
                    }
                }
                values.sort();
                values.dedup();
                values.len() + alone
            }
        };
        let replicas = job.replicas;
        (domains < usize::from(replicas)).then_some(Self::Domains { replicas, domains })
    }
}

impl Serialize for Obstacle {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU16;

    use veil_node_config::job_file::JobFile;
    use veil_protocol_spec::scheduling::{Organisations, Priority, Scale};

    use super::*;

    fn job(top: &str) -> JobSpec {
        let text = format!(
            "image = \"localhost:5000/a@sha256:{}\"\n{top}\n[resources]\ncpu = 0.1\nmemory = \"64Mi\"\n",
            "ab".repeat(32)
        );
        JobFile::parse(&text).unwrap().check().unwrap()
    }

    fn of_labels(top: &str, workers: &[&[&str]]) -> Option<Obstacle> {
        let labels: Vec<Vec<Label>> = workers
            .iter()
            .map(|labels| labels.iter().map(|label| label.parse().unwrap()).collect())
            .collect();
        let workers: Vec<_> =
            labels.iter().map(|labels| Worker { labels, organisation: None }).collect();
        Obstacle::of_workers(&job(top), &ClusterPolicy::default(), &workers)
    }

    #[test]
    fn a_circle_of_jobs_that_wait_for_each_other_is_named() {
        let job = job("name = \"a\"\n[[after]]\njob = \"b\"");
        let circle = |of_b: &'static str| {
            let after = move |name: &Name| match name.as_str() {
                "b" => vec![of_b.parse().unwrap()],
                _ => Vec::new(),
            };
            Obstacle::of_circle(&job, after)
        };
        let circle_of_two = circle("a").unwrap();
        assert_eq!(circle_of_two, Obstacle::Circle { path: "a -> b -> a".to_owned() });
        assert!(circle_of_two.forbids_submission());
        assert_eq!(circle("c"), None);
    }

    #[test]
    fn organisations_leave_enough_candidates_or_it_is_said() {
        let (acme, zoo): (Organisation, Organisation) =
            ("Acme".parse().unwrap(), "Zoo".parse().unwrap());
        let of = |organisation| Worker { labels: &[], organisation };
        let workers = [of(Some(&acme)), of(Some(&acme)), of(Some(&zoo)), of(None)];
        let found = |organisations: &str| {
            let mut job = job("");
            let names = organisations.split(' ').map(|name| name.parse().unwrap()).collect();
            job.constraints.organisations = Organisations::Of(names);
            Obstacle::of_workers(&job, &ClusterPolicy::default(), &workers)
        };
        assert_eq!(found("Acme"), None);
        assert_eq!(found("Acme Zoo"), None);
        let few = |candidates| Some(Obstacle::Candidates { candidates, workers: 4, least: 2 });
        assert_eq!((found("Zoo"), found("Other")), (few(1), few(0)));
    }

    #[test]
    fn a_job_beyond_the_policys_scale_is_found() {
        let text = include_str!("../../config/tests/jobs/job-over-default-scale.toml");
        let large = JobFile::parse(text).unwrap().check().unwrap();
        let refused = Obstacle::of_scale(&large, &ClusterPolicy::default()).unwrap();
        assert!(refused.forbids_submission());
        assert!(refused.to_string().contains("ask for less"), "{refused}");
        let coarse = Scale { memory: NonZeroU16::new(8).unwrap(), ..Scale::default() };
        let policy = ClusterPolicy { scale: coarse, ..ClusterPolicy::default() };
        assert_eq!(Obstacle::of_scale(&large, &policy), None);
        assert_eq!(job("").priority, Priority(0));
    }

    #[test]
    fn labels_leave_enough_candidates_or_it_is_said() {
        let zone = "allow = [\"zone=a\"]";
        let two: [&[&str]; 4] = [&["zone=a"], &["zone=a"], &["zone=b"], &[]];
        assert_eq!(of_labels("", &[&[]]), None);
        assert_eq!(
            of_labels("", &[]),
            Some(Obstacle::Candidates { candidates: 0, workers: 0, least: 1 })
        );
        assert_eq!(of_labels(zone, &two), None);
        let few = Obstacle::Candidates { candidates: 1, workers: 3, least: 2 };
        assert!(!few.forbids_submission());
        assert_eq!(of_labels(zone, &two[1..]), Some(few));
        // Each replica of a system job tells of one worker, however few there are.
        let system = format!("type = \"system\"\n{zone}");
        assert_eq!(of_labels(&system, &two[1..]), None);
    }

    #[test]
    fn replicas_that_are_kept_apart_need_as_many_domains() {
        let workers: [&[&str]; 4] = [&["zone=a"], &["zone=a"], &["zone=b"], &[]];
        let apart = |more: &str| format!("replicas = 4\nanti_affinity = \"hard\"\n{more}");
        assert_eq!(of_labels(&apart(""), &workers), None);
        let domains = Obstacle::Domains { replicas: 4, domains: 3 };
        assert_eq!(of_labels(&apart("failure_domain = \"zone\""), &workers), Some(domains));
        let soft = apart("failure_domain = \"zone\"").replace("hard", "soft");
        assert_eq!(of_labels(&soft, &workers), None);
    }
}
