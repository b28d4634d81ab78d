//! One service.

use std::fs;

use veil_protocol_spec::scheduling::{Name, StopSignal, UlimitKind};

use super::{
    Context, Service, deploy, network, sealed,
    values::{size, wrong},
    volumes, words,
};
use crate::{
    capabilities::capability,
    error::{ImportError, Pos},
    job::{Build, Health, Image, Job, Probe},
    links::{known_ports, ports_behind},
    quantity::{millicores, seconds, seconds_or_number},
    yaml::{Entry, Node},
};

/// Longest Dockerfile that is looked into for its ports.
const MAX_DOCKERFILE: u64 = 64 * 1024;

pub(super) fn read(
    context: &mut Context<'_>,
    name: &str,
    pos: Pos,
    node: &Node,
    job_name: String,
) -> Result<Service, ImportError> {
    let mut job = Job { name: job_name, service: name.to_owned(), replicas: 1, ..Job::default() };
    let mut service = Service { name: name.to_owned(), pos, ..Service::default() };
    // Without `restart` it does not start again.
    job.restart.mode = Some("never");
    network::networks(context, &mut job, &mut service, node)?;
    for entry in node.entries() {
        if !entry.value.is_null() {
            read_key(context, &mut job, &mut service, entry)?;
        }
    }
    if job.image.name.is_empty() && job.image.build.is_none() {
        context.report.note(format!("{name}: the file names no image"));
    }
    if node.get("ports").is_none() && node.get("expose").is_none() {
        service.listens.extend(known_ports(&job.image.name));
        // What its own check asks is there.
        if let Some(Health { probe: Probe::Command(words), .. }) = &job.health {
            let own = |word: &String| {
                let hosts = ["localhost", "127.0.0.1"];
                hosts.map(|host| ports_behind(word, host)).into_iter().flatten().collect::<Vec<_>>()
            };
            service.listens.extend(words.iter().flat_map(own));
        }
    }
    service.texts.extend(job.env.values().cloned());
    // `DB_HOST` and `DB_PORT` say together what `db:5432` says.
    for (name, host) in &job.env {
        let port = name.strip_suffix("HOST").and_then(|of| job.env.get(&format!("{of}PORT")));
        service.texts.extend(port.map(|port| format!("{host}:{port}")));
    }
    let commands = [&job.container.args, &job.container.entrypoint];
    service.texts.extend(commands.into_iter().flatten().flatten().cloned());
    let takes_in = |sealed: &crate::job::Sealed| match &sealed.from {
        crate::job::From::File(path) => context.folder.inside(path),
        crate::job::From::Variable(_) => None,
    };
    for inside in job.files.iter().filter_map(takes_in) {
        if let Ok(content) = context.folder.read(&inside)
            && let Ok(text) = String::from_utf8(content)
        {
            service.texts.push(text);
        }
    }
    volumes::check(context, &mut job, pos);
    context.found.jobs.push(job);
    Ok(service)
}

/// A command: a list, or one text.
fn command(key: &str, node: &Node) -> Result<Vec<String>, ImportError> {
    match node.as_text() {
        Some(text) => words::split(text)
            .ok_or_else(|| wrong(key, node, "a command with a quote that does not end")),
        None => node.list(key)?.iter().map(|word| word.str(key).map(str::to_owned)).collect(),
    }
}

fn read_key(
    context: &mut Context<'_>,
    job: &mut Job,
    service: &mut Service,
    entry: &Entry,
) -> Result<(), ImportError> {
    let Entry { key, pos, value } = entry;
    let (name, key) = (service.name.clone(), key.as_str());
    let name = name.as_str();
    match key {
        "image" => {
            let build = job.image.build.take();
            job.image = Image { build, ..Image::of(value.str(key)?) };
        }
        "build" => build(context, job, service, value)?,
        "command" => job.container.args = Some(command(key, value)?),
        "entrypoint" => job.container.entrypoint = Some(command(key, value)?),
        "user" => job.container.user = Some(value.str(key)?.to_owned()),
        "working_dir" => job.container.workdir = Some(value.str(key)?.to_owned()),
        "hostname" => hostname(context, job, service, value)?,
        "init" => job.container.init = value.as_bool().unwrap_or_default(),
        "read_only" => job.container.read_only = value.as_bool().unwrap_or_default(),
        "tmpfs" => volumes::tmpfs(context, job, value)?,
        "shm_size" => job.container.shm_size = Some(size(key, value)?),
        "pids_limit" => job.container.pids = value.as_number().filter(|n| (1..=65_536).contains(n)),
        "ulimits" => ulimits(context, job, value)?,
        "stop_signal" => stop_signal(context, job, value)?,
        "stop_grace_period" => {
            let time = seconds(value.str(key)?);
            let time = time.ok_or_else(|| wrong(key, value, "no time; write such as 30s or 1m"))?;
            if time > 300 {
                context.report.changed(name, key, *pos, "a job is killed after 5 minutes at most");
            }
            job.container.stop_timeout = Some(time.min(300));
        }
        "cap_add" | "cap_drop" => capabilities(context, job, key, value)?,
        "environment" => sealed::environment(job, value)?,
        "env_file" => sealed::env_files(context, job, value)?,
        "secrets" | "configs" => sealed::sealed(context, job, key, value)?,
        "volumes" => volumes::volumes(context, job, value)?,
        "ports" => network::ports(context, job, value)?,
        "expose" => network::expose(context, job, value)?,
        "links" => network::links(service, value)?,
        "depends_on" => depends_on(context, service, value)?,
        // Read before all others.
        "networks" | "network_mode" => {}
        "restart" => restart(context, job, value)?,
        "healthcheck" => health(context, job, value)?,
        "deploy" => deploy::read(context, job, value)?,
        "scale" => job.replicas = value.as_number().unwrap_or(1),
        "cpus" => {
            let cpu = millicores(value.str(key)?)
                .ok_or_else(|| wrong(key, value, "no number of CPUs"))?;
            job.resources.millicores = Some(cpu).filter(|cpu| *cpu > 0);
        }
        "cpu_quota" => {
            let period = 100_000.0;
            let quota = value.as_number().unwrap_or_default() as f64 / period * 1000.0;
            job.resources.millicores = Some(quota as u64).filter(|cpu| *cpu > 0);
        }
        "mem_limit" => job.resources.memory = Some(size(key, value)?),
        "mem_reservation" => {
            let reserved = size(key, value)?;
            job.resources.memory = job.resources.memory.or(Some(reserved));
            context.report.drop(name, key, *pos);
        }
        "gpus" => deploy::gpus(context, job, value),
        "platform" => {
            let mut parts = value.str(key)?.split('/');
            if let (Some("linux"), Some(architecture)) = (parts.next(), parts.next()) {
                job.allow.push(format!("veil/arch={architecture}"));
            } else {
                context.report.changed(name, key, *pos, "workers run Linux");
            }
        }
        "labels" => labels(context, name, value),
        "security_opt" => {
            for option in value.list(key)? {
                let text = option.as_text().unwrap_or_default();
                if text.replace('=', ":") == "no-new-privileges:true" || text == "no-new-privileges"
                {
                    context.report.drop(name, "security_opt.no-new-privileges", option.pos);
                } else {
                    let reason = "the engine's default profiles and no-new-privileges always hold";
                    context.report.changed(
                        name,
                        &format!("security_opt.{text}"),
                        option.pos,
                        reason,
                    );
                }
            }
        }
        "privileged" if value.as_bool() == Some(false) => {}
        "privileged" => {
            context.report.changed(name, key, *pos, "no container is privileged");
        }
        "stdin_open" if value.as_bool() == Some(false) => {}
        "stdin_open" => {
            context.report.changed(name, key, *pos, "the program's standard input is closed");
        }
        "sysctls" if has_default_backlog(value) => {
            context.report.drop(name, "sysctls.net.core.somaxconn", *pos);
        }
        "pid" | "ipc" | "uts" | "userns_mode" | "cgroup" | "devices" | "sysctls" => {
            context.report.changed(name, key, *pos, "containers get no part of the host");
        }
        key => context.report.drop(name, key, *pos),
    }
    Ok(())
}

/// Whether all that is set is how many connections may wait, and to no more than the kernel lets wait anyway.
fn has_default_backlog(value: &Node) -> bool {
    let named = sealed::pairs("sysctls", value).unwrap_or_default();
    let is_less = |value: &Option<String>| {
        value.as_ref().and_then(|value| value.parse().ok()).is_some_and(|most: u32| most <= 4096)
    };
    !named.is_empty()
        && named.iter().all(|(name, value)| name == "net.core.somaxconn" && is_less(value))
}

fn hostname(
    context: &mut Context<'_>,
    job: &mut Job,
    service: &mut Service,
    value: &Node,
) -> Result<(), ImportError> {
    let hostname = value.str("hostname")?;
    if hostname.parse::<Name>().is_ok() {
        job.container.hostname = Some(hostname.to_owned());
    } else {
        let reason = "a host's name is letters a-z, digits and dashes here";
        context.report.changed(&service.name, "hostname", value.pos, reason);
    }
    for names in service.networks.values_mut() {
        names.insert(hostname.to_owned());
    }
    Ok(())
}

fn labels(context: &mut Context<'_>, name: &str, value: &Node) {
    let mut texts: Vec<&str> = value.items().iter().filter_map(Node::as_text).collect();
    texts.extend(value.entries().iter().map(|entry| entry.key.as_str()));
    const PROXIES: &[&str] = &["traefik.", "caddy", "com.github.jrcs.letsencrypt", "nginx-proxy"];
    if texts.iter().any(|text| PROXIES.iter().any(|proxy| text.starts_with(proxy))) {
        let reason =
            "a proxy reads them from the engine's socket, which no job has: configure it by a file";
        context.report.changed(name, "labels", value.pos, reason);
    } else {
        context.report.drop(name, "labels", value.pos);
    }
}

fn build(
    context: &mut Context<'_>,
    job: &mut Job,
    service: &mut Service,
    value: &Node,
) -> Result<(), ImportError> {
    let text = |key: &str| value.text_at(&[key]).map(str::to_owned);
    let folder = value.as_text().map(str::to_owned).or_else(|| text("context"));
    let folder = folder.unwrap_or_else(|| ".".to_owned());
    let mut args = Vec::new();
    if let Some(node) = value.get("args") {
        for (name, given) in sealed::pairs("build.args", node)? {
            let given = given.or_else(|| context.variables.get(&name).map(str::to_owned));
            args.extend(given.map(|given| (name, given)));
        }
    }
    let path = context.folder.path(&folder);
    let dockerfile = text("dockerfile").map(|file| path.join(file));
    let inline = text("dockerfile_inline");
    let is_local = context.folder.inside(&folder).is_some();
    if is_local {
        let file = dockerfile.clone().unwrap_or_else(|| path.join("Dockerfile"));
        let small = fs::metadata(&file).is_ok_and(|file| file.len() <= MAX_DOCKERFILE);
        let written = small.then(|| fs::read_to_string(&file).ok()).flatten();
        let written = inline.clone().or(written).unwrap_or_default();
        service.listens.extend(exposed(&written));
    }
    let target = text("target");
    job.image.build = Some(Build { context: path, dockerfile, inline, target, args });
    Ok(())
}

/// Ports that a Dockerfile exposes.
fn exposed(dockerfile: &str) -> impl Iterator<Item = u16> {
    let lines = dockerfile.lines().filter_map(|line| {
        let (word, rest) = line.trim().split_once(char::is_whitespace)?;
        word.eq_ignore_ascii_case("EXPOSE").then_some(rest)
    });
    let words = lines.flat_map(str::split_whitespace);
    words.filter_map(|word| word.strip_suffix("/tcp").unwrap_or(word).parse().ok())
}

fn ulimits(context: &mut Context<'_>, job: &mut Job, value: &Node) -> Result<(), ImportError> {
    for Entry { key, pos, value } in value.map("ulimits")? {
        if UlimitKind::of_name(key).is_none() {
            context.report.changed(
                &job.service,
                &format!("ulimits.{key}"),
                *pos,
                "jobs do not have it",
            );
            continue;
        }
        let limit =
            |text: &str| if text == "-1" { "unlimited".to_owned() } else { text.to_owned() };
        let text = match value.as_text() {
            Some(text) => limit(text),
            None => {
                let soft = value.text_at(&["soft"]).or(value.text_at(&["hard"]));
                let hard = value.text_at(&["hard"]).or(soft);
                format!("{}:{}", limit(soft.unwrap_or("-1")), limit(hard.unwrap_or("-1")))
            }
        };
        job.container.ulimits.insert(key.clone(), text);
    }
    Ok(())
}

fn stop_signal(context: &mut Context<'_>, job: &mut Job, value: &Node) -> Result<(), ImportError> {
    let text = value.str("stop_signal")?;
    let named = match text {
        "1" => "SIGHUP".to_owned(),
        "2" => "SIGINT".to_owned(),
        "3" => "SIGQUIT".to_owned(),
        "9" => "SIGKILL".to_owned(),
        "15" => "SIGTERM".to_owned(),
        text if text.starts_with("SIG") => text.to_owned(),
        text => format!("SIG{text}"),
    };
    if StopSignal::of_name(&named).is_some() {
        job.container.stop_signal = Some(named);
    } else {
        context.report.changed(
            &job.service,
            "stop_signal",
            value.pos,
            "jobs do not have this signal",
        );
    }
    Ok(())
}

fn capabilities(
    context: &mut Context<'_>,
    job: &mut Job,
    key: &str,
    value: &Node,
) -> Result<(), ImportError> {
    for node in value.list(key)? {
        let text = node.str(key)?.to_ascii_uppercase();
        capability(context.report, job, key, text.trim_start_matches("CAP_"), node.pos);
    }
    Ok(())
}

fn depends_on(
    context: &mut Context<'_>,
    service: &mut Service,
    value: &Node,
) -> Result<(), ImportError> {
    for node in value.items() {
        service.after.push((node.str("depends_on")?.to_owned(), "running", node.pos));
    }
    for Entry { key, pos, value } in value.entries() {
        let is = match value.text_at(&["condition"]) {
            None | Some("service_started") => "running",
            Some("service_healthy") => "healthy",
            Some("service_completed_successfully") => "done",
            Some(other) => {
                let says = format!("the condition {other:?} is none of Compose");
                let key = "depends_on".to_owned();
                return Err(ImportError::Value { pos: value.pos, key, says });
            }
        };
        for entry in value.entries().iter().filter(|entry| entry.key != "condition") {
            context.report.drop(&service.name, &format!("depends_on.{}", entry.key), entry.pos);
        }
        let optional = value.get("required").and_then(Node::as_bool) == Some(false);
        let there = context.document.at(&["services", key]).is_some();
        if there || !optional {
            service.after.push((key.clone(), is, *pos));
        }
    }
    Ok(())
}

fn restart(context: &mut Context<'_>, job: &mut Job, value: &Node) -> Result<(), ImportError> {
    let text = value.str("restart")?;
    let (word, attempts) = text.split_once(':').map_or((text, None), |(word, n)| (word, Some(n)));
    job.restart.mode = match word {
        "always" | "unless-stopped" => Some("always"),
        "on-failure" => {
            job.restart.attempts = attempts.and_then(|n| n.parse().ok()).filter(|n| *n <= 1000);
            Some("on_failure")
        }
        "no" | "false" | "" => Some("never"),
        _ => {
            context.report.changed(&job.service, "restart", value.pos, "there is no such rule");
            Some("always")
        }
    };
    Ok(())
}

fn health(context: &mut Context<'_>, job: &mut Job, value: &Node) -> Result<(), ImportError> {
    if value.get("disable").and_then(Node::as_bool) == Some(true) {
        return Ok(());
    }
    let Some(test) = value.get("test") else { return Ok(()) };
    let shell = |text: &str| vec!["/bin/sh".to_owned(), "-c".to_owned(), text.to_owned()];
    let command = match test.as_text() {
        Some(text) => shell(text),
        None => {
            let words: Vec<String> = test
                .list("healthcheck.test")?
                .iter()
                .map(|word| word.str("healthcheck.test").map(str::to_owned))
                .collect::<Result<_, _>>()?;
            match words.split_first() {
                Some((first, rest)) if first == "CMD" => rest.to_vec(),
                Some((first, rest)) if first == "CMD-SHELL" => shell(&rest.join(" ")),
                Some((first, _)) if first == "NONE" => return Ok(()),
                _ => {
                    let says = "a list begins with CMD, CMD-SHELL or NONE".to_owned();
                    let key = "healthcheck.test".to_owned();
                    return Err(ImportError::Value { pos: test.pos, key, says });
                }
            }
        }
    };
    let time = |key: &str, default| match value.get(key) {
        None => Ok(default),
        Some(node) => seconds_or_number(node.as_text().unwrap_or_default()).ok_or_else(|| {
            wrong(&format!("healthcheck.{key}"), node, "no time; write such as 30s")
        }),
    };
    let health = Health {
        probe: Probe::Command(command),
        interval: time("interval", 30)?,
        timeout: time("timeout", 30)?,
        retries: value.get("retries").and_then(Node::as_number).unwrap_or(3),
        start_period: time("start_period", 0)?,
        restart: false,
    };
    for Entry { key, pos, .. } in value.entries() {
        let read = ["test", "interval", "timeout", "retries", "start_period", "disable"];
        if !read.contains(&key.as_str()) {
            context.report.drop(&job.service, &format!("healthcheck.{key}"), *pos);
        }
    }
    job.health = Some(health.fitting());
    Ok(())
}
