//! A pod: one job for each of its containers.

use super::{Context, Made, Workload, container, probes, security::security, volumes};
use crate::{
    error::ImportError,
    job::{After, Job, Kind, name_like, unlike},
    report::Report,
    yaml::{Entry, Node},
};

/// Seconds after which a replica stops that nobody reaches, where no two may run at once.
const EXCLUSIVE: u64 = 120;

pub(super) fn read(
    context: &mut Context<'_>,
    object: &Node,
    workload: &Workload<'_>,
) -> Result<(), ImportError> {
    let pod = workload.pod;
    let containers = pod.get("containers").map_or(&[][..], Node::items);
    let inits = pod.get("initContainers").map_or(&[][..], Node::items);
    if containers.is_empty() {
        let says = "a pod has a container".to_owned();
        return Err(ImportError::Value { pos: pod.pos, key: "containers".to_owned(), says });
    }
    let mut base = Job {
        service: workload.service.clone(),
        replicas: workload.replicas,
        kind: workload.job.clone(),
        ..Job::default()
    };
    base.container.stop_timeout = Some(30);
    base.exclusive = workload.at_most_one.then_some(EXCLUSIVE);
    keys(context.report, &mut base, pod)?;
    if workload.replicas > 1 && !workload.templates.is_empty() && base.kind == Kind::Service {
        // Each replica has a volume of its own, and replicas of one worker would share it.
        base.anti_affinity = Some("hard");
    }
    let host_network = pod.get("hostNetwork").and_then(Node::as_bool) == Some(true);
    if containers.len() > 1
        && let Some(second) = containers.get(1)
    {
        let reason = "one job is one container: each becomes a job, and they share neither addresses nor folders";
        context.report.changed(&workload.service, "containers", second.pos, reason);
    }
    let mut after = Vec::new();
    for init in inits {
        init_container(context, object, workload, &base, init, &mut after)?;
    }
    for node in containers {
        let name = match containers.len() {
            1 => workload.name.clone(),
            _ => {
                let own = node.text_at(&["name"]).unwrap_or("container");
                name_like(&format!("{}-{own}", workload.name))
            }
        };
        let mut job = Job { name: free(context, &name), after: after.clone(), ..base.clone() };
        container::read(context, object, workload, &mut job, node, host_network)?;
        probes::read(context.report, &mut job, node)?;
        push(context, workload, job);
    }
    volumes::unused(context, workload);
    Ok(())
}

fn free(context: &Context<'_>, name: &str) -> String {
    unlike(name, |name| context.found.jobs.iter().any(|job| job.name == name))
}

fn push(context: &mut Context<'_>, workload: &Workload<'_>, job: Job) {
    let mut texts: Vec<String> = job.env.values().cloned().collect();
    texts.extend(job.container.entrypoint.iter().chain(&job.container.args).flatten().cloned());
    let folder = format!("{}.files/", job.name);
    let own = context.found.files.iter().filter(|file| file.path.starts_with(&folder));
    texts.extend(own.filter_map(|file| String::from_utf8(file.content.to_vec()).ok()));
    context.made.push(Made {
        job: context.found.jobs.len(),
        labels: workload.labels.clone(),
        namespace: "default".to_owned(),
        account: workload.pod.text_at(&["serviceAccountName"]).map(str::to_owned),
        texts,
        pos: workload.pos,
    });
    context.found.jobs.push(job);
}

/// What runs before a pod's containers. If it leaves nothing in a folder that they share, it is a batch job that they
/// wait for.
fn init_container(
    context: &mut Context<'_>,
    object: &Node,
    workload: &Workload<'_>,
    base: &Job,
    node: &Node,
    after: &mut Vec<After>,
) -> Result<(), ImportError> {
    let own = node.text_at(&["name"]).unwrap_or("init");
    let ends_with_pod = volumes::ephemeral(workload.pod);
    let mounts = node.get("volumeMounts").map_or(&[][..], Node::items);
    let shares = mounts
        .iter()
        .filter_map(|mount| mount.text_at(&["name"]))
        .any(|name| ends_with_pod.contains(&name));
    let reason = if node.text_at(&["restartPolicy"]) == Some("Always") {
        Some(
            "one job is one container: what runs beside it is a job of its own, without its addresses and folders",
        )
    } else if shares {
        Some(
            "it leaves files for the pod in a folder that goes with it: do that in the entry point",
        )
    } else if matches!(base.kind, Kind::System | Kind::Periodic { .. }) {
        Some("nothing runs before each replica: do that in the entry point")
    } else {
        None
    };
    if let Some(reason) = reason {
        context.report.changed(
            &workload.service,
            &format!("initContainers.{own}"),
            node.pos,
            reason,
        );
        return Ok(());
    }
    let name = free(context, &name_like(&format!("{}-{own}", workload.name)));
    let mut job = Job {
        name: name.clone(),
        kind: Kind::Batch { max_attempts: 10 },
        replicas: 1,
        anti_affinity: None,
        exclusive: None,
        after: after.clone(),
        ..base.clone()
    };
    container::read(context, object, workload, &mut job, node, false)?;
    push(context, workload, job);
    context.report.note(format!(
        "{}: `{own}` runs once, before all replicas, and not before each",
        workload.service
    ));
    after.push(After { job: name, is: "done" });
    Ok(())
}

/// What the pod says for all of its containers.
fn keys(report: &mut Report, job: &mut Job, pod: &Node) -> Result<(), ImportError> {
    let service = job.service.clone();
    for Entry { key, pos, value } in pod.map("spec")? {
        if value.is_null() {
            continue;
        }
        match key.as_str() {
            "containers" | "initContainers" | "volumes" => {}
            "restartPolicy" => {
                job.restart.mode = match value.as_text() {
                    Some("Never") => Some("never"),
                    Some("OnFailure") => Some("on_failure"),
                    _ => None,
                };
            }
            "terminationGracePeriodSeconds" => {
                let time = value.as_number().unwrap_or(30);
                if time > 300 {
                    report.changed(&service, key, *pos, "a job is killed after 5 minutes at most");
                }
                job.container.stop_timeout = Some(time.min(300));
            }
            "hostname" => job.container.hostname = value.as_text().map(name_like),
            "nodeSelector" => {
                for entry in value.entries() {
                    node_label(report, job, &entry.key, &entry.value);
                }
            }
            "nodeName" => report.changed(
                &service,
                key,
                *pos,
                "workers are chosen by labels: `placement.allow`",
            ),
            "hostNetwork" | "hostPID" | "hostIPC" | "hostUsers"
                if value.as_bool() != Some(true) => {}
            "hostNetwork" | "hostPID" | "hostIPC" => {
                report.changed(&service, key, *pos, "containers get no part of the host");
            }
            "shareProcessNamespace"
                if pod.get("containers").map_or(0, |list| list.items().len()) > 1 =>
            {
                report.changed(&service, key, *pos, "one job is one container");
            }
            "securityContext" => {
                for Entry { key, pos, value } in value.entries() {
                    security(report, job, key, *pos, value);
                }
            }
            "affinity" => affinity(report, job, value),
            "topologySpreadConstraints" => spread(report, job, value),
            key => report.drop(&service, key, *pos),
        }
    }
    Ok(())
}

/// A label that a worker must have.
fn node_label(report: &mut Report, job: &mut Job, key: &str, value: &Node) {
    let text = value.as_text().unwrap_or_default();
    let label = match key {
        "kubernetes.io/os" | "beta.kubernetes.io/os" if text == "linux" => {
            report.drop_as(
                &job.service,
                "nodeSelector.kubernetes.io/os",
                &format!("nodeSelector.{key}"),
                value.pos,
            );
            return;
        }
        "kubernetes.io/arch" | "beta.kubernetes.io/arch" => format!("veil/arch={text}"),
        key => format!("{}={text}", key.to_ascii_lowercase()),
    };
    if key != "kubernetes.io/hostname"
        && label.parse::<veil_protocol_spec::scheduling::Label>().is_ok()
    {
        job.allow.push(label);
    } else {
        let reason = "no worker can have it as a label";
        report.changed(&job.service, &format!("nodeSelector.{key}"), value.pos, reason);
    }
}

fn affinity(report: &mut Report, job: &mut Job, value: &Node) {
    const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
    let service = job.service.clone();
    for Entry { key, pos, value } in value.entries() {
        let hard = value.get(REQUIRED);
        let path = format!("affinity.{key}");
        match key.as_str() {
            "podAntiAffinity" => {
                // Of its own replicas: what most write, and all that a job can say.
                if job.kind == Kind::Service && job.anti_affinity != Some("hard") {
                    job.anti_affinity = Some(if hard.is_some() { "hard" } else { "soft" });
                }
                let mut texts = Vec::new();
                value.texts(&mut texts);
                if texts.iter().any(|text| text.contains("zone") || text.contains("region")) {
                    report.changed(
                        &service,
                        &path,
                        *pos,
                        "say `failure_domain` with the label that workers have",
                    );
                }
            }
            "nodeAffinity" => {
                let terms = hard
                    .and_then(|hard| hard.get("nodeSelectorTerms"))
                    .map_or(&[][..], Node::items);
                if terms.len() > 1 || !terms.iter().all(|term| node_term(report, job, term)) {
                    report.changed(
                        &service,
                        &path,
                        *pos,
                        "of labels, only `In` and `NotIn` can be said, in one term",
                    );
                }
                if value.get("preferredDuringSchedulingIgnoredDuringExecution").is_some() {
                    report.drop(&service, "affinity.preferred", *pos);
                }
            }
            _ if hard.is_none() => report.drop_as(&service, "affinity.preferred", &path, *pos),
            _ => report.changed(&service, &path, *pos, "a job is not placed beside another one"),
        }
    }
}

fn node_term(report: &mut Report, job: &mut Job, term: &Node) -> bool {
    let expressions = term.get("matchExpressions").map_or(&[][..], Node::items);
    expressions.iter().all(|expression| {
        let key = expression.text_at(&["key"]).unwrap_or_default();
        let values = expression.get("values").map_or(&[][..], Node::items);
        match expression.text_at(&["operator"]) {
            Some("In") => {
                values.iter().for_each(|value| node_label(report, job, key, value));
                true
            }
            Some("NotIn") => {
                let labels = values.iter().filter_map(Node::as_text);
                let labels: Vec<_> = labels.map(|value| format!("{key}={value}")).collect();
                let sound = labels
                    .iter()
                    .all(|label| label.parse::<veil_protocol_spec::scheduling::Label>().is_ok());
                job.deny.extend(labels.into_iter().filter(|_| sound));
                sound
            }
            _ => false,
        }
    })
}

fn spread(report: &mut Report, job: &mut Job, value: &Node) {
    for node in value.items() {
        if node.text_at(&["whenUnsatisfiable"]) == Some("ScheduleAnyway") {
            report.drop(&job.service, "topologySpreadConstraints", node.pos);
        } else {
            let reason = "replicas are spread as there is room; `anti_affinity` keeps them apart";
            report.changed(
                &job.service,
                "topologySpreadConstraints.DoNotSchedule",
                node.pos,
                reason,
            );
        }
    }
}
