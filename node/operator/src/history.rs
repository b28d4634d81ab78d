//! Versions of a job: which there were, going back to one, and stopping all of them.

use std::collections::BTreeSet;

use async_recursion::async_recursion as boxed;
use veil_node_api::{client::Client, status::JobStatus, versions::JobVersion};
use veil_node_chain::Chain;
use veil_protocol_spec::{Address, Blake3Digest, ClusterId, scheduling::VersionOutcome};

use crate::{
    error::OperatorError,
    plan,
    submission::{Submitted, submit_planned},
};

/// The newest version of the job that is meant, by its name or the first digits of a version's digest.
///
/// # Errors
/// [`OperatorError::NotFound`], [`OperatorError::Ambiguous`].
pub fn find(jobs: &[JobStatus], wanted: &str) -> Result<Blake3Digest, OperatorError> {
    let named: Vec<_> = jobs.iter().filter(|job| job.name.as_deref() == Some(wanted)).collect();
    let digits = wanted.trim_start_matches("0x");
    let found = if named.is_empty() {
        jobs.iter().filter(|job| job.job.to_string().starts_with(digits)).collect()
    } else {
        named
    };
    let newest = found.iter().max_by_key(|job| job.position);
    let newest = newest.ok_or_else(|| OperatorError::NotFound(wanted.to_owned()))?;
    let same = |job: &JobStatus| (job.operator, &job.name) == (newest.operator, &newest.name);
    if found.iter().all(|job| same(job)) {
        Ok(newest.job)
    } else {
        Err(OperatorError::Ambiguous(wanted.to_owned()))
    }
}

/// As [`find`], among the jobs that `operator` can stop: its own that are not withdrawn.
///
/// # Errors
/// As of [`find`].
pub fn find_own(
    jobs: &[JobStatus],
    operator: Address,
    wanted: &str,
) -> Result<Blake3Digest, OperatorError> {
    let own = jobs.iter().filter(|job| job.operator == operator && !job.cancelled);
    find(&own.cloned().collect::<Vec<_>>(), wanted)
}

/// The versions of a job that `node` knows, oldest first; `job` is any of them.
///
/// # Errors
/// [`OperatorError::Versions`].
#[boxed]
pub async fn versions(node: &Client, job: Blake3Digest) -> Result<Vec<JobVersion>, OperatorError> {
    let path = format!("/v1/jobs/{job}/versions");
    node.get(&path).await.map_err(OperatorError::Versions)
}

/// The number of each version: that of the certificates, or, as long as none of them names any, its place.
#[must_use]
pub fn numbered(versions: &[JobVersion]) -> Vec<(Option<u32>, &JobVersion)> {
    let is_noted = versions.iter().any(|of| of.version.is_some());
    (1..)
        .zip(versions)
        .map(|(place, of)| {
            let noted = of.version.map(|version| version.number);
            (if is_noted { noted } else { Some(place) }, of)
        })
        .collect()
}

/// The version to go back to: number `to`, or the last one that was wholly healthy before the wanted one.
///
/// # Errors
/// [`OperatorError::NoVersion`].
pub fn choose(versions: &[JobVersion], to: Option<u32>) -> Result<&JobVersion, OperatorError> {
    let numbered = numbered(versions);
    let known = || numbered.iter().filter_map(|(number, _)| *number).collect();
    let chosen = match to {
        Some(_) => numbered.iter().find(|(number, _)| *number == to),
        None => {
            let wanted = versions.iter().rposition(|of| of.version.is_some_and(|v| v.wanted));
            let last = wanted.unwrap_or(versions.len().saturating_sub(1));
            let healthy = |of: &JobVersion| {
                of.version.is_none_or(|version| version.outcome == VersionOutcome::Healthy)
            };
            numbered.iter().take(last).rev().find(|(number, of)| number.is_some() && healthy(of))
        }
    };
    chosen.map(|(_, of)| *of).ok_or_else(|| OperatorError::NoVersion { to, known: known() })
}

/// Submits a version of a job of `operator` again, as the newest.
///
/// # Errors
/// [`OperatorError`].
#[boxed]
pub async fn revert(
    chain: &Chain,
    cluster: ClusterId,
    node: &Client,
    operator: Address,
    version: &JobVersion,
    leak_bits: Option<u32>,
) -> Result<Submitted, OperatorError> {
    let mut spec = version.spec.clone();
    if spec.operator != operator {
        return Err(OperatorError::OtherOperator { job: version.job, operator: spec.operator });
    }
    if spec.sealed_part().is_some() {
        return Err(OperatorError::SealedVersion(version.job));
    }
    spec.nonce = chain.next_job_nonce(cluster, operator).await?;
    let plan = plan::look_at(chain, cluster, node, spec, leak_bits).await?;
    submit_planned(chain, cluster, node, plan).await
}

/// Cancels every submission by `operator`, which is this account or has delegated this to it, or by anybody if this
/// account is the cluster's admin, of the job, and of the other versions of it that `node` knows, the newest first:
/// with that one all are withdrawn. Returns their number.
///
/// # Errors
/// [`OperatorError`].
#[boxed]
pub async fn stop(
    chain: &Chain,
    cluster: ClusterId,
    node: Option<&Client>,
    operator: Address,
    job: Blake3Digest,
) -> Result<usize, OperatorError> {
    let account = chain.account();
    // The cluster's admin may cancel anybody's.
    let is_direct =
        account == Some(operator) || account == Some(chain.cluster(cluster).await?.admin);
    let mut jobs = BTreeSet::from([job]);
    if let Some(node) = node {
        // A node that does not know the job's body knows no other version either.
        if let Ok(versions) = versions(node, job).await {
            jobs.extend(versions.iter().map(|version| version.job));
        }
    }
    let submitted = chain.jobs(cluster, 0).await?;
    let own = |one: &&veil_node_chain::SubmittedJob| {
        jobs.contains(&one.digest) && one.operator == operator && !one.cancelled
    };
    let mut stopped = 0;
    for one in submitted.iter().rev().filter(own) {
        if is_direct {
            chain.cancel_job(cluster, one.position).await?;
        } else {
            chain.cancel_job_for_operator(cluster, one.position).await?;
        }
        stopped += 1;
    }
    if stopped == 0 { Err(OperatorError::NoSuchJob(job)) } else { Ok(stopped) }
}

#[cfg(test)]
mod tests {
    use veil_node_api::versions::VersionStatus;
    use veil_node_config::job_file::{JobFile, samples};
    use veil_protocol_spec::scheduling::RolloutPhase;

    use super::*;

    fn version(position: u64, noted: Option<(u32, VersionOutcome, bool)>) -> JobVersion {
        let spec = JobFile::parse(samples::SERVICE).unwrap().check().unwrap();
        let version = noted.map(|(number, outcome, wanted)| VersionStatus {
            number,
            outcome,
            wanted,
            rollout: RolloutPhase::Settled,
            unproven: 0,
        });
        let job = Blake3Digest([position as u8; 32]);
        JobVersion { job, position, cancelled: false, version, placed: 0, spec }
    }

    #[test]
    fn going_back_is_to_the_last_version_that_was_healthy() {
        use VersionOutcome::{Failed, Healthy, Superseded};
        let noted =
            |position, number, outcome, wanted| version(position, Some((number, outcome, wanted)));
        let versions = [
            version(1, None),
            noted(2, 5, Healthy, false),
            noted(4, 6, Superseded, false),
            noted(7, 7, Healthy, true),
            noted(9, 8, Failed, false),
        ];
        let chosen = |to| choose(&versions, to).map(|of| of.position).ok();
        assert_eq!((chosen(None), chosen(Some(6)), chosen(Some(8))), (Some(2), Some(4), Some(9)));
        let refused = choose(&versions, Some(4)).unwrap_err().to_string();
        assert!(refused.contains("5, 6, 7, 8"), "{refused}");
        assert!(choose(&versions[3..4], None).is_err(), "there is none before");
        // Before a slot has noted them.
        let new = [version(1, None), version(3, None)];
        assert_eq!(choose(&new, None).map(|of| of.position).ok(), Some(1));
        assert_eq!(choose(&new, Some(2)).map(|of| of.position).ok(), Some(3));
    }

    fn job(position: u8, operator: u8, name: &str) -> JobStatus {
        JobStatus {
            job: Blake3Digest([position; 32]),
            position: position.into(),
            operator: Address([operator; 20]),
            cancelled: false,
            name: Some(name.to_owned()),
            image: None,
            wanted: None,
            replicas: Vec::new(),
            version: None,
            periodic: None,
            after: Vec::new(),
        }
    }

    #[test]
    fn a_job_is_found_by_name_or_digits() {
        let jobs =
            [job(0x11, 1, "web"), job(0x12, 1, "web"), job(0x21, 1, "db"), job(0x22, 2, "db")];
        let found = |wanted: &str| find(&jobs, wanted).map(|job| job.0[0]).ok();
        assert_eq!(
            (found("web"), found("0x11"), found("12")),
            (Some(0x12), Some(0x11), Some(0x12))
        );
        assert_eq!((found("1"), found("21")), (Some(0x12), Some(0x21)), "both are one job");
        assert_eq!((found("db"), found("2"), found("cache")), (None, None, None));

        let mut jobs = jobs;
        jobs[1].cancelled = true;
        let own = |operator, wanted: &str| {
            find_own(&jobs, Address([operator; 20]), wanted).map(|job| job.0[0]).ok()
        };
        assert_eq!(
            (own(1, "web"), own(1, "db"), own(2, "db")),
            (Some(0x11), Some(0x21), Some(0x22))
        );
        assert_eq!((own(1, "12"), own(2, "web"), own(1, "2")), (None, None, Some(0x21)));
    }
}
