//! Kubernetes: pods of workloads become jobs, Services links, ConfigMaps and Secrets what is sealed.

mod container;
mod env;
mod objects;
mod pod;
mod probes;
mod security;
mod services;
mod volumes;

use std::collections::BTreeMap;

use crate::{
    Found,
    bounds::{MAX_JOBS, MAX_TEXT},
    error::{ImportError, Pos},
    job::{Kind, NewFile, name_like},
    quantity::seconds_or_number,
    report::Report,
    yaml::{Entry, Node},
};

use self::objects::Objects;

/// A pod that a workload makes, and how many of them.
struct Workload<'a> {
    /// As the report calls it.
    service: String,
    name: String,
    pos: Pos,
    replicas: u64,
    job: Kind,
    /// The object's own, or that of the job which a CronJob makes.
    spec: &'a Node,
    /// The pod's own `spec`.
    pod: &'a Node,
    /// What Services select by.
    labels: BTreeMap<String, String>,
    /// Claims that are made for each replica.
    templates: Vec<String>,
    /// Whether no two pods of one place ever run at once.
    at_most_one: bool,
}

/// A job, and what is needed to link it.
struct Made {
    /// Index in the list of jobs.
    job: usize,
    labels: BTreeMap<String, String>,
    namespace: String,
    /// The account that it has in the cluster.
    account: Option<String>,
    /// What its own part of the file says.
    texts: Vec<String>,
    pos: Pos,
}

/// What all workloads share while they are read.
struct Context<'a> {
    objects: &'a Objects<'a>,
    report: &'a mut Report,
    found: Found,
    made: Vec<Made>,
    /// Which workloads mount a claim or a path of the host.
    users: BTreeMap<String, Vec<(String, Pos)>>,
    /// Bytes that have been copied.
    copied: usize,
}

impl Context<'_> {
    /// Whether what is copied out of ConfigMaps and Secrets, once for each container that has it, is still bounded.
    fn counts(&mut self, bytes: usize) -> bool {
        self.copied = self.copied.saturating_add(bytes);
        self.copied <= MAX_TEXT
    }

    /// A file beside the job file; the name of the job is the folder's.
    fn file(&mut self, path: String, content: Vec<u8>, secret: bool) {
        if !self.counts(content.len()) {
            return;
        }
        let file = NewFile { path, content: content.into(), secret };
        if !self.found.files.contains(&file) {
            self.found.files.push(file);
        }
    }
}

pub(crate) fn read(documents: &[Node], report: &mut Report) -> Result<Found, ImportError> {
    let objects = objects::sort(documents, report)?;
    let mut context = Context {
        objects: &objects,
        report,
        found: Found::default(),
        made: Vec::new(),
        users: BTreeMap::new(),
        copied: 0,
    };
    let mut names: BTreeMap<&str, usize> = BTreeMap::new();
    for object in &objects.workloads {
        *names.entry(object.text_at(&["metadata", "name"]).unwrap_or_default()).or_default() += 1;
    }
    for object in &objects.workloads {
        let name = object.text_at(&["metadata", "name"]).unwrap_or_default();
        let twice = names.get(name).is_some_and(|count| *count > 1);
        let workload = workload(object, twice, context.report)?;
        pod::read(&mut context, object, &workload)?;
        if context.found.jobs.len() > MAX_JOBS {
            return Err(ImportError::TooMany { pos: object.pos });
        }
        if context.copied > MAX_TEXT {
            return Err(ImportError::TooLarge { pos: object.pos });
        }
    }
    let Context { mut found, made, users, .. } = context;
    for (what, users) in users {
        if users.iter().any(|(service, _)| Some(service) != users.first().map(|(first, _)| first)) {
            for (service, pos) in users {
                report.drop_as(&service, "volumes.shared", &format!("volumes.{what}"), pos);
            }
        }
    }
    services::connect(&objects, &made, &mut found.jobs, report)?;
    Ok(found)
}

/// The name of an object; one that has only a beginning gets that.
fn name_of(object: &Node) -> &str {
    let name = object.text_at(&["metadata", "name"]);
    let begun = || object.text_at(&["metadata", "generateName"]);
    name.or_else(begun).map_or("job", |name| name.trim_end_matches('-'))
}

fn workload<'a>(
    object: &'a Node,
    twice: bool,
    report: &mut Report,
) -> Result<Workload<'a>, ImportError> {
    let kind = object.text_at(&["kind"]).unwrap_or_default();
    let name = name_of(object);
    let service = if twice { format!("{name} ({kind})") } else { name.to_owned() };
    for Entry { key, pos, .. } in object.get("metadata").map_or(&[][..], Node::entries) {
        if key != "name" {
            report.drop(&service, &format!("metadata.{key}"), *pos);
        }
    }
    for Entry { key, pos, .. } in object.entries() {
        if !["apiVersion", "kind", "metadata", "spec"].contains(&key.as_str()) {
            report.drop(&service, key, *pos);
        }
    }
    let missing = |what: &str| ImportError::Value {
        pos: object.pos,
        key: format!("{kind}.{what}"),
        says: "it is missing".to_owned(),
    };
    let spec = object.get("spec").ok_or_else(|| missing("spec"))?;
    let (pod, meta, job_spec) = match kind {
        "Pod" => (Some(spec), object.get("metadata"), spec),
        "CronJob" => {
            let job = spec
                .at(&["jobTemplate", "spec"])
                .ok_or_else(|| missing("spec.jobTemplate.spec"))?;
            (job.at(&["template", "spec"]), job.at(&["template", "metadata"]), job)
        }
        _ => (spec.at(&["template", "spec"]), spec.at(&["template", "metadata"]), spec),
    };
    let pod = pod.ok_or_else(|| missing("spec.template.spec"))?;
    let labels = meta.and_then(|meta| meta.get("labels")).map_or(&[][..], Node::entries);
    let labels = labels
        .iter()
        .filter_map(|entry| Some((entry.key.clone(), entry.value.as_text()?.to_owned())));
    let mut workload = Workload {
        name: name_like(name),
        service,
        pos: object.pos,
        replicas: 1,
        job: Kind::Service,
        spec: job_spec,
        pod,
        labels: labels.collect(),
        templates: Vec::new(),
        at_most_one: false,
    };
    match kind {
        "Pod" => {}
        "Job" => batch(&mut workload, report)?,
        "CronJob" => {
            batch(&mut workload, report)?;
            periodic(&mut workload, spec, report)?;
        }
        "DaemonSet" => {
            workload.job = Kind::System;
            keys(&workload, spec, &["template"], report);
        }
        _ => {
            workload.replicas = replicas(&workload, spec, report)?;
            let recreates = spec.text_at(&["strategy", "type"]) == Some("Recreate");
            workload.at_most_one = recreates || kind == "StatefulSet";
            let claims = spec.get("volumeClaimTemplates").map_or(&[][..], Node::items);
            workload.templates = claims
                .iter()
                .filter_map(|claim| claim.text_at(&["metadata", "name"]))
                .map(str::to_owned)
                .collect();
            keys(&workload, spec, &["template", "replicas", "volumeClaimTemplates"], report);
        }
    }
    Ok(workload)
}

/// What a workload's `spec` says beside what is read.
fn keys(workload: &Workload<'_>, spec: &Node, read: &[&str], report: &mut Report) {
    for Entry { key, pos, value } in spec.entries() {
        if !read.contains(&key.as_str()) && !value.is_null() {
            report.drop(&workload.service, &format!("spec.{key}"), *pos);
        }
    }
}

fn replicas(workload: &Workload<'_>, spec: &Node, report: &mut Report) -> Result<u64, ImportError> {
    let Some(node) = spec.get("replicas") else { return Ok(1) };
    let wrong = || ImportError::Value {
        pos: node.pos,
        key: "spec.replicas".to_owned(),
        says: "it is a number".to_owned(),
    };
    let count = node.as_number().ok_or_else(wrong)?;
    if !(1..=1024).contains(&count) {
        let reason = "a job has 1 to 1024 replicas: do not submit it to have none";
        report.changed(&workload.service, "spec.replicas", node.pos, reason);
    }
    Ok(count.clamp(1, 1024))
}

fn batch(workload: &mut Workload<'_>, report: &mut Report) -> Result<(), ImportError> {
    let (spec, service) = (workload.spec, workload.service.clone());
    let number = |key: &str| spec.get(key).and_then(Node::as_number);
    let completions = number("completions").unwrap_or(1).clamp(1, 1024);
    let backoff = number("backoffLimit");
    workload.replicas = completions;
    workload.job = Kind::Batch { max_attempts: backoff.unwrap_or(6).min(99) + 1 };
    for Entry { key, pos, value } in spec.entries() {
        match key.as_str() {
            "template" | "completions" | "backoffLimit" => {}
            "parallelism" if value.as_number().is_some_and(|n| n < completions) => {
                let reason = "all replicas run at once, where there is room";
                report.changed(&service, "spec.parallelism", *pos, reason);
            }
            "completionMode" if value.as_text() == Some("Indexed") => {
                let reason = "a replica is not told its number";
                report.changed(&service, "spec.completionMode", *pos, reason);
            }
            "suspend" if value.as_bool() == Some(true) => {
                report.changed(
                    &service,
                    "spec.suspend",
                    *pos,
                    "do not submit the job before it is to run",
                );
            }
            key => report.drop(&service, &format!("spec.{key}"), *pos),
        }
    }
    Ok(())
}

fn periodic(
    workload: &mut Workload<'_>,
    spec: &Node,
    report: &mut Report,
) -> Result<(), ImportError> {
    let service = workload.service.clone();
    let mut cron = None;
    let (mut time_zone, mut overlap) = (None, None);
    for Entry { key, pos, value } in spec.entries() {
        match key.as_str() {
            "jobTemplate" => {}
            "schedule" => cron = Some(times(value)?),
            "timeZone" => time_zone = Some(value.str("spec.timeZone")?.to_owned()),
            "concurrencyPolicy" => match value.as_text() {
                Some("Forbid") => overlap = Some("skip"),
                Some("Replace") => overlap = Some("replace"),
                _ => {
                    overlap = Some("skip");
                    report.drop(&service, "spec.concurrencyPolicy", *pos);
                }
            },
            "suspend" if value.as_bool() == Some(true) => {
                report.changed(
                    &service,
                    "spec.suspend",
                    *pos,
                    "do not submit the job before it is to run",
                );
            }
            "startingDeadlineSeconds" if value.as_text().and_then(seconds_or_number).is_none() => {}
            key => report.drop(&service, &format!("spec.{key}"), *pos),
        }
    }
    if let Some(limit) =
        workload.spec.get("backoffLimit").filter(|limit| limit.as_number() != Some(0))
    {
        report.changed(
            &service,
            "spec.backoffLimit",
            limit.pos,
            "a run of a periodic job has one attempt",
        );
    }
    let cron = cron.ok_or_else(|| ImportError::Value {
        pos: workload.pos,
        key: "CronJob.spec.schedule".to_owned(),
        says: "it is missing".to_owned(),
    })?;
    workload.job = Kind::Periodic { cron, time_zone, overlap };
    Ok(())
}

/// Times as jobs write them: with numbers for names, and without words such as `@daily`.
fn times(node: &Node) -> Result<String, ImportError> {
    let text = node.str("spec.schedule")?;
    let text = match text.trim() {
        "@yearly" | "@annually" => "0 0 1 1 *",
        "@monthly" => "0 0 1 * *",
        "@weekly" => "0 0 * * 0",
        "@daily" | "@midnight" => "0 0 * * *",
        "@hourly" => "0 * * * *",
        text => text,
    };
    const MONTHS: [&str; 12] =
        ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
    const DAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
    let number = |field: usize, word: &str| {
        let names: &[&str] = match field {
            3 => &MONTHS,
            4 => &DAYS,
            _ => &[],
        };
        let lower = word.to_ascii_lowercase();
        match names.iter().position(|name| *name == lower) {
            Some(at) => (at + usize::from(field == 3)).to_string(),
            // Sunday has two numbers.
            None if field == 4 && word == "7" => "0".to_owned(),
            None if word == "?" => "*".to_owned(),
            None => match word.parse::<u8>() {
                Ok(number) => number.to_string(),
                Err(_) => word.to_owned(),
            },
        }
    };
    let field = |(field, text): (usize, &str)| {
        let mut out = String::new();
        let mut word = String::new();
        for c in text.chars() {
            if matches!(c, ',' | '-' | '/') {
                out += &number(field, &core::mem::take(&mut word));
                out.push(c);
            } else {
                word.push(c);
            }
        }
        out + &number(field, &word)
    };
    let fields: Vec<_> = text.split_whitespace().enumerate().map(field).collect();
    let cron = fields.join(" ");
    match cron.parse::<veil_protocol_spec::scheduling::Cron>() {
        Ok(_) => Ok(cron),
        Err(error) => Err(ImportError::Value {
            pos: node.pos,
            key: "spec.schedule".to_owned(),
            says: format!("{text:?}: {error}"),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_in_numbers() {
        let times = |text: &str| times(&Node::text(Pos::default(), text)).ok();
        for (text, cron) in [
            ("@daily", "0 0 * * *"),
            ("*/5  6-20 * jan,3 mon-fri", "*/5 6-20 * 1,3 1-5"),
            ("0 0 ? * 7", "0 0 * * 0"),
            ("00 04 * * *", "0 4 * * *"),
        ] {
            assert_eq!(times(text).as_deref(), Some(cron), "{text}");
        }
        assert_eq!((times("@reboot"), times("1 2 3")), (None, None));
    }
}
