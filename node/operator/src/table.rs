//! Tables of jobs and replicas.

use std::io::{self, Write};

use veil_node_api::{
    periodic::RunOutcome,
    status::{DoneStatus, JobStatus},
    versions::JobVersion,
};
use veil_node_terminal::table::{Column, Table};
use veil_protocol_spec::{
    PeerIdHash,
    scheduling::{JobType, Protocol, RolloutPhase, VersionOutcome, utc},
};

use crate::{
    history::numbered,
    plan::{JobPlan, Update},
    reach::endpoints::{Endpoint, Port},
    replicas::{Periodic, Rollout, Row},
};

fn short(text: &str) -> &str {
    text.get(..12).unwrap_or(text)
}

/// Replicas: where each is assigned, and what is seen of it; within `width` if there is one.
///
/// # Errors
/// Those of `out`.
pub fn write_rows(out: &mut dyn Write, rows: &[Row], width: Option<usize>) -> io::Result<()> {
    let mut table = Table::new([
        Column::Id("job"),
        Column::Number("replica"),
        Column::Number("version"),
        Column::Id("worker"),
        Column::Words("assigned"),
        Column::Prose("observed"),
        Column::Prose("because"),
    ]);
    for row in rows {
        let worker = row.worker_name.clone().or_else(|| row.worker.map(|peer| peer.to_string()));
        let observed = match (&row.observed, &row.done) {
            (Some(observed), _) => observed.state.clone(),
            (None, Some(done)) => exit(done),
            (None, None) if row.worker.is_some() => "not asked".to_owned(),
            (None, None) => "-".to_owned(),
        };
        let assigned = match (row.assigned, row.worker, &row.done) {
            (true, ..) => "yes",
            (false, Some(_), _) => "no",
            (false, None, None) => "pending",
            (false, None, Some(done)) if done.succeeded => "done",
            (false, None, Some(_)) => "failed",
        };
        table.row([
            row.job.to_string(),
            row.replica.to_string(),
            row.version.unwrap_or(1).to_string(),
            worker.unwrap_or_else(|| "-".to_owned()),
            assigned.to_owned(),
            observed,
            row.pending_because.clone().unwrap_or_default(),
        ]);
    }
    table.write(out, width)
}

/// Where replicas are reached, a line for each port.
///
/// # Errors
/// Those of `out`.
pub fn write_endpoints(
    out: &mut dyn Write,
    endpoints: &[Endpoint],
    name_of: &dyn Fn(&PeerIdHash) -> Option<String>,
    width: Option<usize>,
) -> io::Result<()> {
    let mut table = Table::new([
        Column::Id("job"),
        Column::Number("replica"),
        Column::Id("worker"),
        Column::Words("port"),
        Column::Words("published"),
        Column::Prose("state"),
    ]);
    for Endpoint { job, name, replica, worker, state, ports, .. } in endpoints {
        let mut row = |port: String, published: String| {
            table.row([
                name.clone().unwrap_or_else(|| job.to_string()),
                replica.to_string(),
                name_of(worker).unwrap_or_else(|| worker.to_string()),
                port,
                published,
                state.clone(),
            ]);
        };
        for Port { name, container, protocol, published } in ports {
            let datagrams = if *protocol == Protocol::Udp { "/udp" } else { "" };
            let port = format!("{} {container}{datagrams}", name.as_str());
            row(port, published.clone().unwrap_or_else(|| "-".to_owned()));
        }
        if ports.is_empty() {
            row("-".to_owned(), "-".to_owned());
        }
    }
    table.write(out, width)
}

/// How far updates are; nothing if there are none.
///
/// # Errors
/// Those of `out`.
pub fn write_rollouts(out: &mut dyn Write, rollouts: &[Rollout]) -> io::Result<()> {
    for Rollout { name, job, state, .. } in rollouts {
        let job = job.to_string();
        writeln!(out, "{}: {state}", name.as_deref().unwrap_or_else(|| short(&job)))?;
    }
    Ok(())
}

/// When periodic jobs were run, and will be; nothing if there are none.
///
/// # Errors
/// Those of `out`.
pub fn write_periodic(out: &mut dyn Write, jobs: &[Periodic]) -> io::Result<()> {
    for Periodic { name, job, times: periodic } in jobs {
        let digest = job.to_string();
        write!(out, "{}: ", name.as_deref().unwrap_or_else(|| short(&digest)))?;
        match (periodic.last_run, periodic.outcome) {
            (Some(time), Some(outcome)) => {
                let outcome = match outcome {
                    RunOutcome::UnderWay => "is under way",
                    RunOutcome::Succeeded => "has succeeded",
                    RunOutcome::Failed => "has failed",
                };
                write!(out, "the run of {} {outcome}", utc(time))?;
            }
            _ => write!(out, "not run yet")?,
        }
        if let Some(time) = periodic.left_out {
            write!(out, "; that of {} was left out", utc(time))?;
        }
        let next = periodic.next_run.map_or_else(|| "never".to_owned(), utc);
        writeln!(out, "; next {next}")?;
    }
    Ok(())
}

fn exit(done: &DoneStatus) -> String {
    let code = done.exit_code.map_or_else(|| "unknown".to_owned(), |code| code.to_string());
    let memory = if done.out_of_memory { ", out of memory" } else { "" };
    format!("exit code {code}{memory}")
}

/// The jobs that the chain has; within `width` if there is one.
///
/// # Errors
/// Those of `out`.
pub fn write_jobs(out: &mut dyn Write, jobs: &[JobStatus], width: Option<usize>) -> io::Result<()> {
    let mut table = Table::new([
        Column::Id("job"),
        Column::Words("name"),
        Column::Number("placed"),
        Column::Number("position"),
        Column::Words("withdrawn"),
        Column::Id("image"),
    ]);
    for job in jobs {
        let assigned = job.replicas.iter().filter(|replica| replica.worker.is_some()).count();
        let wanted = job.wanted.map_or_else(|| "?".to_owned(), |wanted| wanted.to_string());
        table.row([
            job.job.to_string(),
            job.name.clone().unwrap_or_else(|| "?".to_owned()),
            format!("{assigned}/{wanted}"),
            job.position.to_string(),
            if job.cancelled { "yes" } else { "no" }.to_owned(),
            job.image.clone().unwrap_or_else(|| "body not known here".to_owned()),
        ]);
    }
    table.write(out, width)
}

/// The versions of a job, and how far the wanted one is; within `width` if there is one.
///
/// # Errors
/// Those of `out`.
pub fn write_versions(
    out: &mut dyn Write,
    versions: &[JobVersion],
    width: Option<usize>,
) -> io::Result<()> {
    let mut table = Table::new([
        Column::Number("version"),
        Column::Id("job"),
        Column::Number("position"),
        Column::Number("placed"),
        Column::Prose("state"),
        Column::Id("image"),
    ]);
    for (number, of) in numbered(versions) {
        let wanted = if of.spec.kind == JobType::System {
            "each".to_owned()
        } else {
            of.spec.replicas.to_string()
        };
        table.row([
            number.map_or_else(|| "-".to_owned(), |number| number.to_string()),
            of.job.to_string(),
            of.position.to_string(),
            format!("{}/{wanted}", of.placed),
            version_state(of),
            of.spec.image.to_string(),
        ]);
    }
    table.write(out, width)
}

/// The same for programs.
#[must_use]
pub fn versions(versions: &[JobVersion]) -> Vec<serde_json::Value> {
    let numbered = numbered(versions).into_iter().map(|(number, of)| {
        let mut object = serde_json::to_value(of).unwrap_or_default();
        object["number"] = number.into();
        object["state"] = version_state(of).into();
        object
    });
    numbered.collect()
}

/// What has become of a version, in words.
#[must_use]
pub fn version_state(of: &JobVersion) -> String {
    if of.cancelled {
        return "withdrawn".to_owned();
    }
    let Some(version) = of.version else { return "not noted in a certificate".to_owned() };
    let what = match (version.outcome, version.rollout) {
        (VersionOutcome::Healthy, RolloutPhase::Rolling) if version.wanted => "comes back",
        (VersionOutcome::Healthy, _) => "healthy",
        (VersionOutcome::Rolling, _) => "is rolled out",
        (VersionOutcome::Failed, RolloutPhase::Halted) if version.wanted => "failed, stays so",
        (VersionOutcome::Failed, _) => "failed",
        (VersionOutcome::Superseded, _) => "superseded",
    };
    let wanted = if version.wanted { ", wanted" } else { "" };
    format!("{what}{wanted}")
}

/// What a job would cost and tell, and what speaks against it.
///
/// # Errors
/// Those of `out`.
pub fn write_plan(out: &mut dyn Write, plan: &JobPlan) -> io::Result<()> {
    let replicas = count(plan.replicas, "replica");
    let each =
        if plan.spec.kind == JobType::System { " (one on each worker that fits)" } else { "" };
    writeln!(out, "{replicas}{each} of job `{}`, digest {}", plan.name, plan.job)?;
    if let Some(Update { version, job, replicas }) = &plan.update {
        writeln!(
            out,
            "update     version {version} of `{}`; takes the place of job {job}, {}",
            plan.name,
            count(*replicas, "replica")
        )?;
    }
    if let Some(limits) = &plan.limits {
        writeln!(
            out,
            "each gets  cpu {}, memory {}, disk {}, gpus {}",
            limits.cpu, limits.memory, limits.disk, limits.gpus
        )?;
    }
    writeln!(
        out,
        "costs      a transaction; 1 job of the {} left today (UTC), {} bits of the {} left",
        plan.jobs_allowed.saturating_sub(plan.jobs_used),
        plan.leak_bits,
        plan.leak_bits_allowed.saturating_sub(plan.leak_bits_used)
    )?;
    if !plan.next_runs.is_empty() {
        let times: Vec<_> = plan.next_runs.iter().map(|time| utc(*time)).collect();
        writeln!(out, "runs at    {}, ...", times.join(", "))?;
    }
    writeln!(out, "may go to  {} of {} registered workers", plan.candidates, plan.workers)?;
    for told in &plan.tells {
        writeln!(out, "tells      {told}")?;
    }
    for obstacle in &plan.obstacles {
        let heading = if obstacle.forbids_submission() { "forbidden " } else { "would wait" };
        writeln!(out, "{heading} {obstacle}")?;
    }
    if plan.obstacles.is_empty() {
        writeln!(out, "nothing speaks against it")?;
    }
    Ok(())
}

fn count(number: u16, what: &str) -> String {
    if number == 1 { format!("1 {what}") } else { format!("{number} {what}s") }
}

#[cfg(test)]
mod tests {
    use veil_node_api::periodic::PeriodicStatus;
    use veil_protocol_spec::{Address, Blake3Digest, PeerIdHash, ReplicaIndex, Slot};

    use super::*;
    use crate::replicas;

    #[test]
    fn when_a_periodic_job_is_run_is_shown() {
        let line = |periodic, cancelled| {
            let job = JobStatus {
                job: Blake3Digest([1; 32]),
                position: 1,
                operator: Address([1; 20]),
                cancelled,
                name: Some("report".to_owned()),
                image: None,
                wanted: None,
                replicas: Vec::new(),
                version: None,
                periodic: Some(periodic),
                after: Vec::new(),
            };
            let mut out = Vec::new();
            write_periodic(&mut out, &replicas::periodic(&[&job])).unwrap();
            String::from_utf8(out).unwrap()
        };
        let new =
            PeriodicStatus { last_run: None, outcome: None, left_out: None, next_run: Some(60) };
        assert_eq!(line(new, false), "report: not run yet; next 1970-01-01T00:01:00Z\n");
        assert_eq!(line(new, true), "");
        let (last_run, outcome) = (Some(0), Some(RunOutcome::Failed));
        let failed = PeriodicStatus { last_run, outcome, left_out: Some(60), next_run: Some(120) };
        assert_eq!(
            line(failed, false),
            "report: the run of 1970-01-01T00:00:00Z has failed; that of 1970-01-01T00:01:00Z was left out; \
             next 1970-01-01T00:02:00Z\n"
        );
    }

    #[test]
    fn how_a_batch_replica_has_ended_is_shown() {
        let line = |exit_code: Option<i32>, out_of_memory| {
            let (succeeded, worker) = (exit_code == Some(0), PeerIdHash([2; 32]));
            let done = DoneStatus { succeeded, exit_code, out_of_memory, worker, slot: Slot(7) };
            let row = Row {
                job: Blake3Digest([1; 32]),
                replica: ReplicaIndex(0),
                worker: None,
                worker_name: None,
                assigned: false,
                observed: None,
                running: false,
                pending_because: None,
                done: Some(done),
                version: None,
            };
            let mut out = Vec::new();
            write_rows(&mut out, &[row], None).unwrap();
            String::from_utf8(out).unwrap().lines().nth(1).unwrap().to_owned()
        };
        for (code, out_of_memory, shown) in [
            (Some(0), false, "done      exit code 0"),
            (Some(3), false, "failed    exit code 3"),
            (Some(137), true, "failed    exit code 137, out of memory"),
            (None, false, "failed    exit code unknown"),
        ] {
            let line = line(code, out_of_memory);
            assert!(line.contains(shown), "{line}");
        }
    }
}
