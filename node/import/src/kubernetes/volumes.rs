//! Volumes of a pod, and where its containers have them.

use super::{
    Context, Workload,
    env::{field, file_of},
};
use crate::{
    compose::file_mode,
    error::{ImportError, Pos},
    job::{From, Job, Sealed, Target, Volume, VolumeKind, name_like},
    quantity::Bytes,
    yaml::{Entry, Node},
};

/// Of a folder whose size the file does not say: on disk, and in memory.
const EPHEMERAL: u64 = 1 << 30;
const TMPFS: u64 = 64 << 20;

fn of_pod<'a>(pod: &'a Node, name: &str) -> Option<&'a Node> {
    let volumes = pod.get("volumes").map_or(&[][..], Node::items);
    volumes.iter().find(|volume| volume.text_at(&["name"]) == Some(name))
}

/// Volumes that begin and end with a pod.
pub(super) fn ephemeral(pod: &Node) -> Vec<&str> {
    let volumes = pod.get("volumes").map_or(&[][..], Node::items).iter();
    let ends = |volume: &&Node| {
        let is = |key: &str| volume.entries().iter().any(|entry| entry.key == key);
        is("emptyDir") || is("ephemeral")
    };
    volumes.filter(ends).filter_map(|volume| volume.text_at(&["name"])).collect()
}

/// Volumes of the pod that none of its containers has.
pub(super) fn unused(context: &mut Context<'_>, workload: &Workload<'_>) {
    let lists = ["containers", "initContainers"]
        .map(|key| workload.pod.get(key).map_or(&[][..], Node::items));
    let mounts = lists.into_iter().flatten();
    let mounts =
        mounts.flat_map(|container| container.get("volumeMounts").map_or(&[][..], Node::items));
    let used: Vec<_> = mounts.filter_map(|mount| mount.text_at(&["name"])).collect();
    for volume in workload.pod.get("volumes").map_or(&[][..], Node::items) {
        if volume.text_at(&["name"]).is_some_and(|name| !used.contains(&name)) {
            context.report.drop(&workload.service, "volumes.unused", volume.pos);
        }
    }
}

/// Where a container has a volume.
struct Place<'a> {
    path: String,
    sub_path: Option<&'a str>,
    read_only: bool,
    pos: Pos,
}

pub(super) fn mount(
    context: &mut Context<'_>,
    workload: &Workload<'_>,
    job: &mut Job,
    node: &Node,
) -> Result<(), ImportError> {
    let wrong = |says: &str| ImportError::Value {
        pos: node.pos,
        key: "volumeMounts".to_owned(),
        says: says.to_owned(),
    };
    let name = node.text_at(&["name"]).ok_or_else(|| wrong("`name` is missing"))?;
    let path = node.text_at(&["mountPath"]).ok_or_else(|| wrong("`mountPath` is missing"))?;
    let path = path.trim_end_matches('/').to_owned();
    let read_only = node.get("readOnly").and_then(Node::as_bool).unwrap_or_default();
    for Entry { key, pos, value } in node.entries() {
        match key.as_str() {
            "name" | "mountPath" | "readOnly" | "subPath" => {}
            "mountPropagation" if value.as_text() == Some("None") => {}
            key => {
                let reason = "a volume is mounted as it is, whole";
                context.report.changed(&job.service, &format!("volumeMounts.{key}"), *pos, reason);
            }
        }
    }
    let place = Place { path, sub_path: node.text_at(&["subPath"]), read_only, pos: node.pos };
    if job.mounts(&place.path) {
        context.report.changed(
            &job.service,
            "volumeMounts",
            node.pos,
            "two volumes have the same place",
        );
        return Ok(());
    }
    if workload.templates.iter().any(|template| template == name) {
        host(job, &format!("{name}-{}", workload.name), &place, format!("the claim `{name}`"));
        return Ok(());
    }
    let volume = of_pod(workload.pod, name);
    let volume = volume.ok_or_else(|| wrong(&format!("the pod has no volume `{name}`")))?;
    for Entry { key, pos, value } in volume.entries() {
        if key != "name" {
            one(context, workload, job, (key, *pos), value, &place)?;
        }
    }
    Ok(())
}

/// A host volume. A folder within one is a volume of its own.
fn host(job: &mut Job, name: &str, place: &Place<'_>, was: String) {
    let name = match place.sub_path {
        Some(sub_path) => format!("{name}-{sub_path}"),
        None => name.to_owned(),
    };
    job.add_volume(Volume {
        name: name_like(&name),
        mount: place.path.clone(),
        kind: VolumeKind::Host,
        read_only: place.read_only,
        was,
    });
}

fn one(
    context: &mut Context<'_>,
    workload: &Workload<'_>,
    job: &mut Job,
    (kind, pos): (&str, Pos),
    value: &Node,
    place: &Place<'_>,
) -> Result<(), ImportError> {
    let size = |keys: &[&str], default| match value.text_at(keys) {
        None => Ok(default),
        Some(text) => Bytes::Kubernetes.parse(text).ok_or_else(|| ImportError::Value {
            pos: value.pos,
            key: format!("volumes.{kind}"),
            says: format!("{text:?} is no size"),
        }),
    };
    let name = name_like(place.path.rsplit('/').next().unwrap_or("volume"));
    let mut folder = |kind| {
        let mount = place.path.clone();
        job.add_volume(Volume {
            name: name.clone(),
            mount,
            kind,
            read_only: place.read_only,
            was: String::new(),
        });
    };
    match kind {
        "emptyDir" if value.text_at(&["medium"]) == Some("Memory") => {
            let size = size(&["sizeLimit"], TMPFS)?.max(1 << 20);
            if place.path == "/dev/shm" {
                job.container.shm_size = Some(size);
            } else {
                folder(VolumeKind::Tmpfs(size));
            }
        }
        "emptyDir" => folder(VolumeKind::Ephemeral(size(&["sizeLimit"], EPHEMERAL)?.max(1 << 20))),
        "ephemeral" => {
            let keys = ["volumeClaimTemplate", "spec", "resources", "requests", "storage"];
            folder(VolumeKind::Ephemeral(size(&keys, EPHEMERAL)?.max(1 << 20)));
        }
        "persistentVolumeClaim" => {
            let claim = value.text_at(&["claimName"]).unwrap_or("claim");
            let users = context.users.entry(claim.to_owned()).or_default();
            users.push((job.service.clone(), place.pos));
            let read_only =
                place.read_only || value.get("readOnly").and_then(Node::as_bool) == Some(true);
            let place = Place { path: place.path.clone(), read_only, ..*place };
            host(job, claim, &place, format!("the claim `{claim}`"));
        }
        "hostPath" => host_path(context, job, value, place),
        "configMap" | "secret" => {
            let of =
                value.text_at(&["name"]).or(value.text_at(&["secretName"])).unwrap_or_default();
            sealed(context, job, (kind == "secret", of), value, place);
        }
        "projected" => {
            for source in value.get("sources").map_or(&[][..], Node::items) {
                for Entry { key, pos, value } in source.entries() {
                    let of = value.text_at(&["name"]).unwrap_or_default();
                    match key.as_str() {
                        "configMap" | "secret" => {
                            sealed(context, job, (key == "secret", of), value, place)
                        }
                        "downwardAPI" => downward(context, workload, job, value, place),
                        _ => {
                            let reason = "there is no cluster that a token would open";
                            context.report.changed(
                                &job.service,
                                &format!("volumes.projected.{key}"),
                                *pos,
                                reason,
                            );
                        }
                    }
                }
            }
        }
        "downwardAPI" => downward(context, workload, job, value, place),
        kind => {
            let reason =
                "a volume is a folder of the worker: let its operator mount what it is there";
            context.report.changed(&job.service, &format!("volumes.{kind}"), pos, reason);
        }
    }
    Ok(())
}

fn host_path(context: &mut Context<'_>, job: &mut Job, value: &Node, place: &Place<'_>) {
    let path = value.text_at(&["path"]).unwrap_or_default().trim_end_matches('/');
    let service = job.service.clone();
    let kernel = ["/proc", "/sys", "/dev"];
    let within = |folder: &str| path == folder || path.starts_with(&format!("{folder}/"));
    if path.ends_with(".sock") {
        context.report.changed(
            &service,
            "volumes.hostPath",
            value.pos,
            "no container gets the engine's socket",
        );
    } else if kernel.iter().any(|folder| within(folder)) || path.is_empty() {
        context.report.changed(
            &service,
            "volumes.hostPath",
            value.pos,
            "containers get no part of the host",
        );
    } else {
        if let Some(kind) = value.get("type") {
            context.report.drop(&service, "volumes.hostPath.type", kind.pos);
        }
        context.users.entry(path.to_owned()).or_default().push((service, place.pos));
        host(job, path, place, path.to_owned());
    }
}

/// Keys of a ConfigMap or Secret as files.
fn sealed(
    context: &mut Context<'_>,
    job: &mut Job,
    (is_secret, of): (bool, &str),
    value: &Node,
    place: &Place<'_>,
) {
    let mode = |node: &Node, key: &str| node.get(key).and_then(Node::as_text).and_then(file_mode);
    let default = mode(value, "defaultMode");
    let optional = value.get("optional").and_then(Node::as_bool) == Some(true);
    let data = context.objects.data(is_secret, of).cloned();
    let items = value.get("items").map_or(&[][..], Node::items);
    let chosen: Vec<(String, String, Option<u32>)> = if items.is_empty() {
        let keys = data.iter().flat_map(|data| data.keys());
        keys.map(|key| (key.clone(), key.clone(), default)).collect()
    } else {
        let item = |item: &Node| {
            let key = item.text_at(&["key"])?.to_owned();
            let path = item.text_at(&["path"]).unwrap_or(&key).to_owned();
            Some((key, path, mode(item, "mode").or(default)))
        };
        items.iter().filter_map(item).collect()
    };
    if chosen.is_empty() && !optional {
        match place.sub_path {
            // One key is named all the same.
            Some(sub_path) if data.is_none() => {
                file(context, job, (is_secret, of, sub_path), None, place.path.clone(), default);
            }
            // As any file that only a cluster has it is to be filled in: without it no job is submitted.
            None if data.is_none() => {
                let section = if is_secret { "[[secret]]" } else { "[[file]]" };
                job.fill_in.push(format!("a {section} for each key of `{of}`, in place of `KEY`"));
                let target = format!("{}/KEY", place.path);
                file(context, job, (is_secret, of, "KEY"), None, target, default);
            }
            _ => {
                let reason = format!("`{of}` has no key that is mounted there");
                let key = if is_secret { "volumes.secret" } else { "volumes.configMap" };
                context.report.changed(&job.service, key, value.pos, reason);
            }
        }
    }
    for (key, path, mode) in chosen {
        let content = data.as_ref().and_then(|data| data.get(&key)).cloned();
        if content.is_none() && optional {
            continue;
        }
        let target = match place.sub_path {
            Some(sub_path) if sub_path == path => place.path.clone(),
            Some(sub_path) => match path.strip_prefix(&format!("{sub_path}/")) {
                Some(rest) => format!("{}/{rest}", place.path),
                None => continue,
            },
            None => format!("{}/{path}", place.path),
        };
        file(context, job, (is_secret, of, &key), content, target, mode);
    }
}

fn file(
    context: &mut Context<'_>,
    job: &mut Job,
    (is_secret, of, key): (bool, &str, &str),
    content: Option<Vec<u8>>,
    target: String,
    mode: Option<u32>,
) {
    let path = file_of(job, of, key);
    match content {
        Some(content) => context.file(path.clone(), content, is_secret),
        None => job
            .fill_in
            .push(format!("{path}: the key `{key}` of `{of}`, which the file does not have")),
    }
    // The default of Kubernetes, 0644, is read by everybody and written by root, who has no write access here.
    let mode = mode.filter(|mode| *mode != 0o644).map(|mode| mode & 0o555);
    let sealed = Sealed { target: Target::Path { path: target, mode }, from: From::File(path) };
    if is_secret {
        job.secrets.push(sealed);
    } else {
        job.files.push(sealed);
    }
}

/// What the file itself says of the pod, as files.
fn downward(
    context: &mut Context<'_>,
    workload: &Workload<'_>,
    job: &mut Job,
    value: &Node,
    place: &Place<'_>,
) {
    for item in value.get("items").map_or(&[][..], Node::items) {
        let path = item.text_at(&["path"]).unwrap_or("item");
        let wanted = item.text_at(&["fieldRef", "fieldPath"]).unwrap_or_default();
        let content = match wanted {
            "metadata.labels" => {
                let lines = workload.labels.iter().map(|(key, value)| format!("{key}={value:?}\n"));
                Some(lines.collect::<String>())
            }
            wanted => field(workload.spec, wanted),
        };
        match content {
            Some(content) => {
                let target = format!("{}/{path}", place.path);
                let content = Some(content.into_bytes());
                file(context, job, (false, "pod", path), content, target, None);
            }
            None => {
                let reason = format!("a replica is not told `{wanted}`");
                context.report.changed(&job.service, "volumes.downwardAPI", item.pos, reason);
            }
        }
    }
}
