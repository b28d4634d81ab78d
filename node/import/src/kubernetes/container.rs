//! One container.

use super::{Context, Workload, env, security::security, volumes};
use crate::{
    error::ImportError,
    job::{Host, Image, Job, Port},
    quantity::{Bytes, millicores},
    report::Report,
    yaml::{Entry, Node},
};

pub(super) fn read(
    context: &mut Context<'_>,
    object: &Node,
    workload: &Workload<'_>,
    job: &mut Job,
    node: &Node,
    host_network: bool,
) -> Result<(), ImportError> {
    let service = job.service.clone();
    for entry in node.get("ports").map_or(&[][..], Node::items) {
        port(context.report, job, entry, host_network)?;
    }
    if let Some(node) = node.get("resources") {
        resources(context.report, job, node)?;
    }
    env::read(context, object, job, node)?;
    for Entry { key, pos, value } in node.map("containers")? {
        if value.is_null() {
            continue;
        }
        match key.as_str() {
            // Read before, or by others.
            "ports" | "resources" | "env" | "envFrom" | "livenessProbe" | "readinessProbe"
            | "startupProbe" => {}
            "restartPolicy" => {}
            "name" => {}
            "image" => job.image = Image::of(value.str("containers.image")?),
            "command" => {
                job.container.entrypoint = Some(env::words(context.report, job, "command", value)?)
            }
            "args" => job.container.args = Some(env::words(context.report, job, "args", value)?),
            "workingDir" => job.container.workdir = value.as_text().map(str::to_owned),
            "imagePullPolicy" => context.report.drop(&service, "containers.image.pullPolicy", *pos),
            "volumeMounts" => {
                for mount in value.list("volumeMounts")? {
                    volumes::mount(context, workload, job, mount)?;
                }
            }
            "securityContext" => {
                for Entry { key, pos, value } in value.entries() {
                    security(context.report, job, key, *pos, value);
                }
            }
            "stdin" if value.as_bool() != Some(true) => {}
            "stdin" => {
                context.report.changed(
                    &service,
                    "containers.stdin",
                    *pos,
                    "the program's standard input is closed",
                );
            }
            key => context.report.drop(&service, &format!("containers.{key}"), *pos),
        }
    }
    Ok(())
}

fn port(
    report: &mut Report,
    job: &mut Job,
    node: &Node,
    host_network: bool,
) -> Result<(), ImportError> {
    let wrong = |says: &str| ImportError::Value {
        pos: node.pos,
        key: "containers.ports".to_owned(),
        says: says.to_owned(),
    };
    let number =
        |key: &str| node.get(key).and_then(Node::as_text).and_then(|text| text.parse::<u16>().ok());
    let container = number("containerPort").filter(|port| *port != 0);
    let container = container.ok_or_else(|| wrong("`containerPort` is 1 to 65535"))?;
    let udp = match node.text_at(&["protocol"]) {
        None | Some("TCP") => false,
        Some("UDP") => true,
        Some(_) => {
            report.changed(
                &job.service,
                "containers.ports.protocol",
                node.pos,
                "ports are of TCP or UDP",
            );
            return Ok(());
        }
    };
    let host = match number("hostPort").filter(|port| *port != 0) {
        Some(number) => Host::Number(number),
        None if host_network => Host::Number(container),
        None => Host::None,
    };
    let called = node.text_at(&["name"]).map(str::to_owned);
    if job.add_port(Port { container, udp, host, called }).is_err() {
        let reason = format!("port {container} has one number on the worker's address");
        report.changed(&job.service, "containers.ports", node.pos, reason);
    }
    Ok(())
}

/// Limits, or what is requested where there are none.
fn resources(report: &mut Report, job: &mut Job, node: &Node) -> Result<(), ImportError> {
    let (limits, requests) = (node.get("limits"), node.get("requests"));
    for part in [limits, requests].into_iter().flatten() {
        for Entry { key, pos, value } in part.map("resources")? {
            let text = value.as_text().unwrap_or_default();
            let wrong = || ImportError::Value {
                pos: value.pos,
                key: format!("containers.resources.{key}"),
                says: format!("{text:?} is no quantity"),
            };
            let bytes = || Bytes::Kubernetes.parse(text).ok_or_else(wrong);
            let own = &mut job.resources;
            match key.as_str() {
                "cpu" => {
                    let cpu = millicores(text).ok_or_else(wrong)?;
                    own.millicores = own.millicores.or(Some(cpu.max(1)));
                }
                "memory" => {
                    let bytes = bytes()?;
                    own.memory = own.memory.or(Some(bytes));
                }
                "ephemeral-storage" => own.disk = own.disk.max(bytes()?),
                "nvidia.com/gpu" | "amd.com/gpu" => {
                    own.gpus = own.gpus.max(text.parse().map_err(|_| wrong())?)
                }
                _ => {
                    let reason = "workers have CPU, memory, disk and GPUs";
                    report.changed(
                        &job.service,
                        &format!("containers.resources.{key}"),
                        *pos,
                        reason,
                    );
                }
            }
        }
    }
    if let (Some(_), Some(requests)) = (limits, requests) {
        report.drop(&job.service, "containers.resources.requests", requests.pos);
    }
    if let Some(claims) = node.get("claims") {
        report.changed(
            &job.service,
            "containers.resources.claims",
            claims.pos,
            "workers lend no devices but GPUs",
        );
    }
    Ok(())
}
