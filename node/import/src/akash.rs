//! Akash's stack definition language: services become jobs, with what their profile says.

use std::collections::BTreeMap;

use crate::{
    Found, Options,
    bounds::MAX_JOBS,
    compose::environment_pairs,
    error::{ImportError, Pos},
    folder::Folder,
    job::{From, Host, Image, Job, NewFile, Port, Volume, VolumeKind, name_like, unlike},
    links::{self, Server},
    quantity::{Bytes, millicores},
    report::Report,
    yaml::{Entry, Node},
};

/// Of a GPU whose model the file names.
const GPU_LABEL: &str = "gpu";

/// A port of `to`, for the services that it is for; all that exist are found later.
struct Reach {
    job: usize,
    /// Whether others than people reach it.
    services: Vec<(String, Pos)>,
    listen: u16,
    container: u16,
}

pub(crate) fn read(
    document: &Node,
    folder: &Folder,
    options: &Options,
    report: &mut Report,
) -> Result<Found, ImportError> {
    let project = options.project.clone().or_else(|| folder.name());
    let project = project.unwrap_or_else(|| "job".to_owned());
    for Entry { key, pos, .. } in document.map("")? {
        if !["services", "profiles", "deployment"].contains(&key.as_str()) {
            report.drop("", key, *pos);
        }
    }
    let mut found = Found::default();
    let mut reach = Vec::new();
    let entries = document.get("services").map_or(Ok(&[][..]), |node| node.map("services"))?;
    for Entry { key, pos, value } in entries {
        if found.jobs.len() >= MAX_JOBS {
            return Err(ImportError::TooMany { pos: *pos });
        }
        let taken = |name: &str| found.jobs.iter().any(|job| job.name == name);
        let name = unlike(&name_like(&format!("{project}-{key}")), taken);
        let mut job = Job { name, service: key.clone(), replicas: 1, ..Job::default() };
        let placed = placed(document, key);
        let places = document.at(&["deployment", key]).map_or(&[][..], Node::entries);
        if let Some(second) = places.get(1) {
            let reason = format!("a job is of one placement: it is that of `{key}` in the first");
            report.changed(key, "deployment", second.pos, reason);
        }
        if placed.is_none() {
            report.changed(
                key,
                "deployment",
                *pos,
                "the file deploys it nowhere, and says nothing of what it needs",
            );
        }
        // First what it asks for: where a volume is, its mount says.
        let volumes = match &placed {
            Some(placed) => compute(document, placed, &mut job, report)?,
            None => BTreeMap::new(),
        };
        let index = found.jobs.len();
        service(&mut job, value, &volumes, index, &mut reach, &mut found.files, report)?;
        found.jobs.push(job);
    }
    connect(&mut found.jobs, &reach, report);
    Ok(found)
}

/// Where a service is deployed: placement, profile, how many.
struct Placed<'a> {
    profile: &'a str,
    count: u64,
    placement: &'a str,
}

fn placed<'a>(document: &'a Node, service: &str) -> Option<Placed<'a>> {
    let first = document.at(&["deployment", service])?.entries().first()?;
    let profile = first.value.text_at(&["profile"])?;
    let count = first.value.get("count").and_then(Node::as_number).unwrap_or(1);
    Some(Placed { profile, count, placement: &first.key })
}

/// Storage that a profile has: size by name, and whether it stays.
type Storage = BTreeMap<String, (u64, bool)>;

fn compute(
    document: &Node,
    placed: &Placed<'_>,
    job: &mut Job,
    report: &mut Report,
) -> Result<Storage, ImportError> {
    job.replicas = placed.count.clamp(1, 1024);
    placement(document, placed.placement, job, report)?;
    let mut storage = Storage::new();
    let path = ["profiles", "compute", placed.profile, "resources"];
    let Some(resources) = document.at(&path) else {
        let reason = format!("there is no compute profile `{}`", placed.profile);
        report.changed(&job.service, "profiles.compute", Pos::default(), reason);
        return Ok(storage);
    };
    for Entry { key, pos, value } in resources.map("resources")? {
        match key.as_str() {
            "cpu" => {
                if let Some(architecture) = value.text_at(&["attributes", "arch"]) {
                    job.allow.push(format!("veil/arch={architecture}"));
                }
                let units = value.text_at(&["units"]).and_then(millicores);
                job.resources.millicores = Some(units.ok_or_else(|| {
                    wrong(
                        "profiles.compute.cpu",
                        value,
                        "`units` is a number of CPUs, such as 0.5 or 500m",
                    )
                })?);
            }
            "memory" => job.resources.memory = Some(size("profiles.compute.memory", value)?),
            "storage" => {
                let one = [value.clone()];
                for volume in if value.as_list().is_some() { value.items() } else { &one } {
                    let bytes = size("profiles.compute.storage", volume)?;
                    let stays = volume.at(&["attributes", "persistent"]).and_then(Node::as_bool)
                        == Some(true);
                    let ram = volume.text_at(&["attributes", "class"]) == Some("ram");
                    if let Some(class) = volume.at(&["attributes", "class"]).filter(|_| !ram) {
                        report.drop(&job.service, "profiles.compute.storage.class", class.pos);
                    }
                    match volume.text_at(&["name"]) {
                        Some(name) if name != "default" => {
                            // In memory: marked by a size of none on disk.
                            let name = if ram { format!("{name}\0ram") } else { name.to_owned() };
                            storage.insert(name, (bytes, stays));
                        }
                        _ => job.resources.disk += bytes,
                    }
                }
            }
            "gpu" => gpu(value, job, report)?,
            "id" => {}
            key => report.drop(&job.service, &format!("profiles.compute.{key}"), *pos),
        }
    }
    Ok(storage)
}

fn size(key: &str, node: &Node) -> Result<u64, ImportError> {
    let bytes = node.text_at(&["size"]).and_then(|text| Bytes::Kubernetes.parse(text));
    bytes.ok_or_else(|| wrong(key, node, "`size` is a number of bytes, such as 512Mi"))
}

fn wrong(key: &str, node: &Node, says: &str) -> ImportError {
    ImportError::Value { pos: node.pos, key: key.to_owned(), says: says.to_owned() }
}

/// Devices, and their models as labels: one of them will do.
fn gpu(node: &Node, job: &mut Job, report: &mut Report) -> Result<(), ImportError> {
    job.resources.gpus = node.get("units").and_then(Node::as_number).unwrap_or(0);
    for Entry { key: vendor, pos, value } in
        node.at(&["attributes", "vendor"]).map_or(&[][..], Node::entries)
    {
        if vendor != "nvidia" {
            report.drop(&job.service, "profiles.compute.gpu.vendor", *pos);
        }
        for model in value.items() {
            if let Some(name) = model.text_at(&["model"]).filter(|name| *name != "*") {
                let label = format!("{GPU_LABEL}={name}");
                if label.parse::<veil_protocol_spec::scheduling::Label>().is_ok() {
                    job.allow.push(label);
                } else {
                    report.changed(
                        &job.service,
                        "profiles.compute.gpu.model",
                        model.pos,
                        "it is no label",
                    );
                }
            }
            for key in ["ram", "interface"] {
                if let Some(value) = model.get(key) {
                    report.drop(&job.service, &format!("profiles.compute.gpu.{key}"), value.pos);
                }
            }
        }
    }
    job.allow.sort();
    job.allow.dedup();
    Ok(())
}

fn placement(
    document: &Node,
    placement: &str,
    job: &mut Job,
    report: &mut Report,
) -> Result<(), ImportError> {
    let Some(node) = document.at(&["profiles", "placement", placement]) else { return Ok(()) };
    for Entry { key, pos, .. } in node.map("profiles.placement")? {
        report.drop(&job.service, &format!("profiles.placement.{key}"), *pos);
    }
    Ok(())
}

fn service(
    job: &mut Job,
    node: &Node,
    storage: &Storage,
    index: usize,
    reach: &mut Vec<Reach>,
    files: &mut Vec<NewFile>,
    report: &mut Report,
) -> Result<(), ImportError> {
    for Entry { key, pos, value } in node.map(&format!("services.{}", job.service))? {
        if value.is_null() {
            continue;
        }
        match key.as_str() {
            "image" => job.image = Image::of(value.str("image")?),
            "command" => job.container.entrypoint = Some(words("command", value)?),
            "args" => job.container.args = Some(words("args", value)?),
            "env" => {
                for (name, value) in environment_pairs("env", value)? {
                    job.env.insert(name, value.unwrap_or_default());
                }
            }
            "expose" => {
                for port in value.list("expose")? {
                    expose(job, port, index, reach, report)?;
                }
            }
            "params" => params(job, value, storage, report)?,
            "credentials" => {
                let text = |key: &str| value.text_at(&[key]).unwrap_or_default();
                let path = format!("{}.files/registry-password", job.name);
                let content = text("password").as_bytes().to_vec().into();
                files.push(NewFile { path: path.clone(), content, secret: true });
                job.registry = Some((text("username").to_owned(), From::File(path)));
            }
            key => report.drop(&job.service, key, *pos),
        }
    }
    Ok(())
}

fn words(key: &str, node: &Node) -> Result<Vec<String>, ImportError> {
    match node.as_text() {
        Some(text) => Ok(vec![text.to_owned()]),
        None => node.list(key)?.iter().map(|word| word.str(key).map(str::to_owned)).collect(),
    }
}

fn expose(
    job: &mut Job,
    node: &Node,
    index: usize,
    reach: &mut Vec<Reach>,
    report: &mut Report,
) -> Result<(), ImportError> {
    let number = |key: &str| -> Result<Option<u16>, ImportError> {
        let Some(value) = node.get(key) else { return Ok(None) };
        let number = value.as_text().and_then(|text| text.parse().ok()).filter(|port| *port != 0);
        number
            .map(Some)
            .ok_or_else(|| wrong(&format!("expose.{key}"), value, "a port is 1 to 65535"))
    };
    let container = number("port")?.ok_or_else(|| wrong("expose", node, "`port` is missing"))?;
    let listen = number("as")?.unwrap_or(container);
    let udp = node.text_at(&["proto"]).is_some_and(|proto| proto.eq_ignore_ascii_case("udp"));
    let (mut global, mut leased) = (false, false);
    let mut services = Vec::new();
    for to in node.get("to").map_or(&[][..], Node::items) {
        global |= to.get("global").and_then(Node::as_bool) == Some(true);
        if let Some(ip) = to.get("ip") {
            leased = true;
            report.drop(&job.service, "expose.ip", ip.pos);
        }
        if let Some(service) = to.get("service") {
            services.push((service.str("expose.to.service")?.to_owned(), service.pos));
        }
    }
    for Entry { key, pos, .. } in node.map("expose")? {
        if !["port", "as", "proto", "to"].contains(&key.as_str()) {
            report.drop(&job.service, &format!("expose.{key}"), *pos);
        }
    }
    let host = match (global, leased) {
        (true, true) => Host::Number(listen),
        (true, false) => Host::Dynamic,
        (false, _) => Host::None,
    };
    if job.add_port(Port { container, udp, host, called: None }).is_err() {
        let reason = format!("port {container} has one number on the worker's address");
        report.changed(&job.service, "expose", node.pos, reason);
    }
    if udp && !services.is_empty() {
        report.drop(&job.service, "expose.udp", node.pos);
    } else if !services.is_empty() {
        reach.push(Reach { job: index, services, listen, container });
    }
    Ok(())
}

fn params(
    job: &mut Job,
    node: &Node,
    storage: &Storage,
    report: &mut Report,
) -> Result<(), ImportError> {
    for Entry { key, pos, value } in node.map("params")? {
        if key != "storage" {
            report.drop(&job.service, &format!("params.{key}"), *pos);
            continue;
        }
        for Entry { key: name, pos, value } in value.map("params.storage")? {
            let Some(mount) = value.text_at(&["mount"]) else { continue };
            let read_only = value.get("readOnly").and_then(Node::as_bool).unwrap_or_default();
            let in_memory = storage.get(&format!("{name}\0ram"));
            let Some(&(bytes, stays)) = storage.get(name).or(in_memory) else {
                let reason = format!("its profile has no storage `{name}`");
                report.changed(&job.service, "params.storage", *pos, reason);
                continue;
            };
            let (kind, volume) = match (in_memory.is_some(), stays) {
                (true, _) if mount == "/dev/shm" => {
                    job.container.shm_size = Some(bytes);
                    continue;
                }
                (true, _) => (VolumeKind::Tmpfs(bytes), name_like(name)),
                (false, true) => {
                    report.drop(&job.service, "profiles.compute.storage.size", *pos);
                    // A volume of this name is every job's that says it: the job's name makes it its own.
                    (VolumeKind::Host, name_like(&format!("{}-{name}", job.name)))
                }
                (false, false) => {
                    job.resources.disk = job.resources.disk.saturating_add(bytes);
                    (VolumeKind::Ephemeral(bytes), name_like(name))
                }
            };
            let was = format!("the storage `{name}`");
            job.add_volume(Volume { name: volume, mount: mount.to_owned(), kind, read_only, was });
        }
    }
    Ok(())
}

fn connect(jobs: &mut [Job], reach: &[Reach], report: &mut Report) {
    for Reach { job: to, services, listen, container } in reach {
        let host = jobs.get(*to).map(|job| job.service.clone()).unwrap_or_default();
        let server = Server { hosts: [host.clone()].into(), ports: [(*listen, *container)].into() };
        for (service, pos) in services {
            match jobs.iter().position(|job| job.service == *service) {
                Some(from) => {
                    let left = links::link(jobs, from, *to, &server);
                    links::left_out(report, service, *pos, left);
                }
                None => {
                    let reason = format!("there is no service `{service}`");
                    report.changed(&host, "expose.to.service", *pos, reason);
                }
            }
        }
    }
}
