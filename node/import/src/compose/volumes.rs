//! Volumes, binds and folders in memory.

use std::collections::BTreeMap;

use super::{Context, values::size};
use crate::{
    error::{ImportError, Pos},
    folder::{Found, MAX_FILE},
    job::{From, Job, Sealed, Target, Volume, VolumeKind, name_like},
    quantity::Bytes,
    yaml::{Entry, Node},
};

/// Of a folder in memory whose size the file does not say.
pub(crate) const TMPFS: u64 = 64 << 20;
/// Of a volume without a name.
pub(crate) const EPHEMERAL: u64 = 1 << 30;

/// Ends of names that files have and folders have not.
const FILES: &[&str] = &[
    "acl",
    "cfg",
    "cnf",
    "conf",
    "config",
    "crt",
    "css",
    "env",
    "html",
    "ini",
    "js",
    "json",
    "key",
    "lua",
    "pem",
    "php",
    "properties",
    "py",
    "rb",
    "sh",
    "sql",
    "toml",
    "txt",
    "vcl",
    "xml",
    "yaml",
    "yml",
];

/// A mount of a service.
#[derive(Debug, Default)]
struct Mount<'a> {
    source: Option<&'a str>,
    target: &'a str,
    read_only: bool,
}

pub(super) fn tmpfs(
    context: &mut Context<'_>,
    job: &mut Job,
    value: &Node,
) -> Result<(), ImportError> {
    let one = [value.clone()];
    for node in if value.as_list().is_some() { value.items() } else { &one } {
        let text = node.str("tmpfs")?;
        let (path, options) = text.split_once(':').unwrap_or((text, ""));
        let mut size = TMPFS;
        for option in options.split(',').filter(|option| !option.is_empty()) {
            match option.split_once('=') {
                Some(("size", text)) => size = Bytes::Compose.parse(text).unwrap_or(TMPFS),
                Some(("mode" | "uid" | "gid", _)) | None if option != "exec" => {}
                _ => {
                    let reason = "no program runs from a folder in memory";
                    context.report.changed(&job.service, "tmpfs", node.pos, reason);
                }
            }
        }
        job.container.tmpfs.insert(tidy(path), size.max(1 << 20));
    }
    Ok(())
}

/// Without a slash at the end.
fn tidy(path: &str) -> String {
    let path = path.trim_end_matches('/');
    if path.is_empty() { "/".to_owned() } else { path.to_owned() }
}

pub(super) fn volumes(
    context: &mut Context<'_>,
    job: &mut Job,
    value: &Node,
) -> Result<(), ImportError> {
    for node in value.list("volumes")? {
        match node.as_text() {
            Some(text) => {
                let mut parts = text.split(':');
                let (first, second, options) = (parts.next(), parts.next(), parts.next());
                let mount = match (first, second) {
                    (Some(source), Some(target)) => {
                        let options = options.unwrap_or_default().split(',');
                        let mut mount = Mount { source: Some(source), target, read_only: false };
                        for option in options {
                            match option {
                                "ro" => mount.read_only = true,
                                "z" | "Z" => {
                                    context.report.drop(&job.service, "volumes.selinux", node.pos)
                                }
                                "cached" | "delegated" | "consistent" => {
                                    context.report.drop(
                                        &job.service,
                                        "volumes.consistency",
                                        node.pos,
                                    );
                                }
                                _ => {}
                            }
                        }
                        mount
                    }
                    (target, _) => Mount { target: target.unwrap_or_default(), ..Mount::default() },
                };
                one(context, job, &mount, node.pos)?;
            }
            None => long(context, job, node)?,
        }
    }
    Ok(())
}

fn long(context: &mut Context<'_>, job: &mut Job, node: &Node) -> Result<(), ImportError> {
    let target = node.text_at(&["target"]).unwrap_or_default();
    let read_only = node.get("read_only").and_then(Node::as_bool).unwrap_or_default();
    for Entry { key, pos, .. } in node.map("volumes")? {
        if !["type", "source", "target", "read_only", "tmpfs", "volume"].contains(&key.as_str()) {
            context.report.drop(&job.service, &format!("volumes.{key}"), *pos);
        }
    }
    if let Some(subpath) = node.at(&["volume", "subpath"]) {
        context.report.changed(
            &job.service,
            "volumes.volume.subpath",
            subpath.pos,
            "a volume is mounted whole",
        );
    }
    match node.text_at(&["type"]) {
        Some("tmpfs") => {
            let given = node.at(&["tmpfs", "size"]).map(|node| size("volumes.tmpfs.size", node));
            let size = given.transpose()?.unwrap_or(TMPFS);
            job.container.tmpfs.insert(tidy(target), size.max(1 << 20));
            Ok(())
        }
        Some("volume" | "bind") | None => {
            let mount = Mount { source: node.text_at(&["source"]), target, read_only };
            one(context, job, &mount, node.pos)
        }
        Some(other) => {
            context.report.changed(
                &job.service,
                &format!("volumes.{other}"),
                node.pos,
                "jobs have no such mounts",
            );
            Ok(())
        }
    }
}

fn one(
    context: &mut Context<'_>,
    job: &mut Job,
    mount: &Mount<'_>,
    pos: Pos,
) -> Result<(), ImportError> {
    let target = tidy(mount.target);
    if !target.starts_with('/') {
        let says = format!("{:?} is no path in the container", mount.target);
        return Err(ImportError::Value { pos, key: "volumes".to_owned(), says });
    }
    let source = match mount.source {
        Some(source) => source,
        None => {
            let name = name_like(&target);
            let was = format!("a volume without a name at {target}");
            let kind = VolumeKind::Ephemeral(EPHEMERAL);
            job.add_volume(Volume { name, mount: target, kind, read_only: false, was });
            return Ok(());
        }
    };
    if source.starts_with(['/', '.', '~']) || source.contains('/') {
        bind(context, job, source, target, mount.read_only, pos)
    } else {
        named(context, job, source, target, mount.read_only, pos);
        Ok(())
    }
}

fn host_volume(job: &mut Job, name: &str, mount: String, read_only: bool, was: String) {
    let name = name_like(name);
    job.add_volume(Volume { name, mount, kind: VolumeKind::Host, read_only, was });
}

/// A volume of the file.
fn named(
    context: &mut Context<'_>,
    job: &mut Job,
    name: &str,
    target: String,
    read_only: bool,
    pos: Pos,
) {
    let defined = context.document.at(&["volumes", name]);
    let options = |key: &str| defined.and_then(|node| node.text_at(&["driver_opts", key]));
    let kind = options("type");
    if kind == Some("tmpfs") {
        let given = options("o").and_then(|o| o.split(',').find_map(|o| o.strip_prefix("size=")));
        let size = given.and_then(|text| Bytes::Compose.parse(text)).unwrap_or(TMPFS);
        job.container.tmpfs.insert(target, size.max(1 << 20));
        return;
    }
    for Entry { key, pos, value } in defined.map_or(&[][..], Node::entries) {
        let shown = format!("volumes.{name}.{key}");
        match (key.as_str(), value.as_text()) {
            ("name", _) | ("driver", Some("local")) => {}
            ("driver_opts", _) if matches!(kind, None | Some("none" | "bind")) => {}
            ("driver_opts" | "driver", _) => {
                let reason =
                    "a volume is a folder of the worker: let its operator mount what it is there";
                context.report.changed(&job.service, &shown, *pos, reason);
            }
            (key, _) => {
                context.report.drop_as(&job.service, &format!("volumes.*.{key}"), &shown, *pos);
            }
        }
    }
    context.users.entry(name.to_owned()).or_default().push((job.service.clone(), pos));
    let given = defined.and_then(|node| node.text_at(&["name"]));
    let external = defined.and_then(|node| node.get("external")).is_some();
    // As in Compose, a volume is the project's, unless it has a name of its own.
    let own = match given {
        Some(given) => given.to_owned(),
        None if external => name.to_owned(),
        None => format!("{}-{name}", project_of(job)),
    };
    let was = match options("device") {
        Some(device) => format!("the volume `{name}`, {device}"),
        None => format!("the volume `{name}`"),
    };
    host_volume(job, &own, target, read_only, was);
}

/// A file or folder of this machine.
fn bind(
    context: &mut Context<'_>,
    job: &mut Job,
    source: &str,
    target: String,
    read_only: bool,
    pos: Pos,
) -> Result<(), ImportError> {
    let service = job.service.clone();
    if source.ends_with("docker.sock") || source.ends_with("podman.sock") || source == "/var/run" {
        context.report.changed(&service, "volumes", pos, "no container gets the engine's socket");
        return Ok(());
    }
    if matches!(source, "/etc/localtime" | "/etc/timezone") {
        context.report.drop(&service, "volumes.localtime", pos);
        return Ok(());
    }
    let kernel = ["/proc", "/sys", "/dev"];
    if source == "/"
        || kernel
            .iter()
            .any(|folder| source == *folder || source.starts_with(&format!("{folder}/")))
    {
        context.report.changed(&service, "volumes", pos, "containers get no part of the host");
        return Ok(());
    }
    let inside = context.folder.inside(source);
    let found = inside.as_deref().map_or(Found::Other, |inside| context.folder.look(inside));
    let room = MAX_FILE.saturating_sub(sealed_bytes(context, job));
    match (found, inside) {
        (Found::File { bytes }, Some(inside)) if bytes <= room => {
            seal(context, job, &inside, target);
            return Ok(());
        }
        (Found::Folder { files: Some(files) }, Some(inside))
            if !files.is_empty() && files.values().sum::<u64>() <= room =>
        {
            for file in files.keys() {
                let (file, place) = (format!("{inside}/{file}"), format!("{target}/{file}"));
                seal(context, job, file.trim_start_matches('/'), place);
            }
            if !read_only {
                context.report.drop(&service, "volumes.sealed-folder", pos);
            }
            return Ok(());
        }
        // Whoever has the file puts it there.
        (Found::Nothing, Some(inside)) if looks_like_a_file(&inside) => {
            seal(context, job, &inside, target);
            job.fill_in.push(format!("{inside}, which is to be sealed and is not there"));
            return Ok(());
        }
        _ => {}
    }
    // What lies beside the file is the project's: no other project has it.
    let name = match context.folder.inside(source) {
        Some(_) => format!("{}-folder-{}", project_of(job), name_like(source)),
        None => source.to_owned(),
    };
    context.users.entry(source.to_owned()).or_default().push((service.clone(), pos));
    context.report.drop(&service, "volumes.bind", pos);
    host_volume(job, &name, target, read_only, source.to_owned());
    Ok(())
}

/// What the job's name begins with.
fn project_of(job: &Job) -> &str {
    let own = format!("-{}", name_like(&job.service));
    job.name.strip_suffix(&own).unwrap_or(&job.name)
}

fn looks_like_a_file(path: &str) -> bool {
    let last = path.rsplit('/').next().unwrap_or(path);
    let is_named = last.rsplit_once('.').is_some_and(|(_, end)| FILES.contains(&end));
    is_named || matches!(last, "Caddyfile" | "Dockerfile" | "Corefile")
}

fn sealed_bytes(context: &Context<'_>, job: &Job) -> u64 {
    let file = |sealed: &Sealed| match &sealed.from {
        From::File(path) => {
            std::fs::metadata(context.folder.path(path)).map_or(0, |file| file.len())
        }
        From::Variable(_) => 0,
    };
    job.files.iter().chain(&job.secrets).map(file).sum()
}

fn seal(context: &Context<'_>, job: &mut Job, inside: &str, target: String) {
    let from = From::File(context.folder.written(inside));
    // A script that is mounted may be run.
    let runs =
        inside.rsplit('/').next().is_some_and(|name| name.ends_with(".sh") || !name.contains('.'));
    let mode = (runs && is_program(context, inside)).then_some(0o555);
    job.files.push(Sealed { target: Target::Path { path: target, mode }, from });
}

fn is_program(context: &Context<'_>, inside: &str) -> bool {
    context.folder.read(inside).is_ok_and(|content| content.starts_with(b"#!"))
}

/// Two mounts at one place are one: the later one holds, as in Compose.
pub(super) fn check(context: &mut Context<'_>, job: &mut Job, pos: Pos) {
    let mut last: BTreeMap<String, usize> = BTreeMap::new();
    for (i, volume) in job.volumes.iter().enumerate() {
        last.insert(volume.mount.clone(), i);
    }
    let mut i = 0;
    job.volumes.retain(|volume| {
        i += 1;
        last.get(&volume.mount) == Some(&(i - 1))
    });
    let (tmpfs, volumes) = (&job.container.tmpfs, &job.volumes);
    let is_folder =
        |path: &str| tmpfs.contains_key(path) || volumes.iter().any(|volume| volume.mount == path);
    let is_twice =
        |sealed: &Sealed| matches!(&sealed.target, Target::Path { path, .. } if is_folder(path));
    if job.files.iter().chain(&job.secrets).any(is_twice) {
        context.report.changed(
            &job.service,
            "volumes",
            pos,
            "a file and a folder have the same place",
        );
        job.files.retain(|sealed| !is_twice(sealed));
        job.secrets.retain(|sealed| !is_twice(sealed));
    }
}
