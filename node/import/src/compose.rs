//! Docker Compose: services become jobs.

mod deploy;
mod extends;
mod file;
mod include;
mod network;
mod sealed;
mod service;
mod values;
mod volumes;
mod words;

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    Found, Options,
    bounds::MAX_JOBS,
    error::{ImportError, Pos},
    folder::Folder,
    job::{Job, Kind, name_like, unlike},
    report::Report,
    variables::{Variables, read_file},
    yaml::{Entry, Node},
};

/// A service, as far as others depend on it.
#[derive(Debug, Default)]
struct Service {
    name: String,
    pos: Pos,
    /// Names under which it is reached, in each of its networks.
    networks: BTreeMap<String, BTreeSet<String>>,
    /// Services that it names, by which name, and until when it waits for them.
    after: Vec<(String, &'static str, Pos)>,
    /// Names by which it alone reaches others.
    aliases: Vec<(String, String)>,
    /// What its own part of the file says, and files that it takes in.
    texts: Vec<String>,
    /// Ports that its image is said to have.
    listens: BTreeSet<u16>,
}

/// What all services share while they are read.
struct Context<'a> {
    document: &'a Node,
    folder: &'a Folder,
    report: &'a mut Report,
    variables: &'a mut Variables,
    found: Found,
    /// Which services use a volume of the file.
    users: BTreeMap<String, Vec<(String, Pos)>>,
}

pub(crate) use self::sealed::{mode as file_mode, pairs as environment_pairs};

pub(crate) fn read(
    mut document: Node,
    folder: &Folder,
    options: &Options,
    report: &mut Report,
) -> Result<Found, ImportError> {
    let mut variables = Variables::new(options.environment.clone());
    if options.env_files.is_empty()
        && let Some(set) = read_file(&folder.path(".env"), &mut variables)?
    {
        variables.add(set);
    }
    for path in &options.env_files {
        let set = read_file(path, &mut variables)?;
        let set = set.ok_or_else(|| ImportError::Option {
            path: path.clone(),
            says: "there is no such file of variables".to_owned(),
        })?;
        variables.add(set);
    }
    variables.put_into(&mut document)?;
    include::resolve(&mut document, folder, &mut variables)?;
    let services = document.get("services").map_or(&[][..], Node::entries);
    if let Some(beyond) = services.get(MAX_JOBS) {
        return Err(ImportError::TooMany { pos: beyond.pos });
    }
    extends::resolve(&mut document, folder, &mut variables)?;

    let project =
        options.project.clone().or_else(|| document.text_at(&["name"]).map(str::to_owned));
    let project = project.or_else(|| folder.name()).unwrap_or_else(|| "job".to_owned());
    let mut context = Context {
        document: &document,
        folder,
        report,
        variables: &mut variables,
        found: Found::default(),
        users: BTreeMap::new(),
    };
    context.top()?;
    let mut services = Vec::new();
    let entries = document.get("services").map_or(Ok(&[][..]), |node| node.map("services"))?;
    for Entry { key, pos, value } in entries {
        value.map(&format!("services.{key}"))?;
        let taken = |name: &str| context.found.jobs.iter().any(|job| job.name == name);
        let name = unlike(&name_like(&format!("{project}-{key}")), taken);
        let service = service::read(&mut context, key, *pos, value, name)?;
        services.push(service);
    }
    context.shared_volumes();
    let Context { mut found, .. } = context;
    waits(&services, &mut found.jobs, report);
    network::connect(&services, &mut found.jobs, report);
    for name in &variables.unset {
        report.note(format!("variable {name} is not set: it is empty, as in Compose"));
    }
    Ok(found)
}

impl Context<'_> {
    /// Keys of the file that are of no service.
    fn top(&mut self) -> Result<(), ImportError> {
        for Entry { key, pos, .. } in self.document.map("")? {
            match key.as_str() {
                "name" | "services" | "networks" | "volumes" | "secrets" | "configs" => {}
                key => self.report.drop("", key, *pos),
            }
        }
        Ok(())
    }

    /// A volume that several services have.
    fn shared_volumes(&mut self) {
        for (volume, users) in core::mem::take(&mut self.users) {
            let names: BTreeSet<_> = users.iter().map(|(service, _)| service).collect();
            if names.len() > 1 {
                for (service, pos) in &users {
                    let key = format!("volumes.{volume}");
                    self.report.drop_as(service, "volumes.shared", &key, *pos);
                }
            }
        }
    }
}

/// `depends_on` becomes a start condition. What is waited for until it is done is a batch job.
fn waits(services: &[Service], jobs: &mut [Job], report: &mut Report) {
    let index = |name: &str| services.iter().position(|service| service.name == name);
    let all = services.iter().enumerate();
    let all: Vec<_> = all.flat_map(|(i, s)| s.after.iter().map(move |after| (i, after))).collect();
    for (i, (target, is, pos)) in all {
        let name = services.get(i).map(|service| service.name.as_str()).unwrap_or_default();
        let Some(j) = index(target) else {
            let reason = format!("there is no service `{target}` in the file");
            report.changed(name, "depends_on", *pos, reason);
            continue;
        };
        if *is == "done"
            && let Some(job) = jobs.get_mut(j)
            && !job.kind.ends()
        {
            let attempts = match job.restart.mode {
                Some("always" | "on_failure") => {
                    job.restart.attempts.unwrap_or(99).clamp(0, 99) + 1
                }
                _ => 1,
            };
            job.kind = Kind::Batch { max_attempts: attempts };
        }
        let target = jobs.get(j).map(|job| job.name.clone()).unwrap_or_default();
        if let Some(job) = jobs.get_mut(i).filter(|job| job.name != target)
            && !job.after.iter().any(|after| after.job == target)
        {
            job.after.push(crate::job::After { job: target, is });
        }
    }
}
