//! Probes: a job has one.

use crate::{
    error::ImportError,
    job::{Health, Job, Probe},
    report::Report,
    yaml::{Entry, Node},
};

pub(super) fn read(
    report: &mut Report,
    job: &mut Job,
    container: &Node,
) -> Result<(), ImportError> {
    let liveness = container.get("livenessProbe");
    let readiness = container.get("readinessProbe");
    let startup = container.get("startupProbe");
    let Some((node, key)) = liveness
        .map(|node| (node, "livenessProbe"))
        .or(readiness.map(|node| (node, "readinessProbe")))
        .or(startup.map(|node| (node, "startupProbe")))
    else {
        return Ok(());
    };
    let Some(mut health) = health(report, job, node, key)? else { return Ok(()) };
    health.restart =
        key != "readinessProbe" && !job.kind.ends() && job.restart.mode != Some("never");
    if let (Some(readiness), true) = (readiness, key == "livenessProbe") {
        report.drop(&job.service, "containers.readinessProbe", readiness.pos);
    }
    if let (Some(startup), true) = (startup, key != "startupProbe") {
        health.start_period = health.start_period.max(granted(startup));
        report.drop(&job.service, "containers.startupProbe", startup.pos);
    }
    job.health = Some(health.fitting());
    Ok(())
}

fn number(node: &Node, key: &str, default: u64) -> u64 {
    node.get(key).and_then(Node::as_number).unwrap_or(default)
}

/// Seconds until a container must have started.
fn granted(startup: &Node) -> u64 {
    let tries =
        number(startup, "failureThreshold", 3).saturating_mul(number(startup, "periodSeconds", 10));
    tries.saturating_add(number(startup, "initialDelaySeconds", 0))
}

fn health(
    report: &mut Report,
    job: &Job,
    node: &Node,
    key: &str,
) -> Result<Option<Health>, ImportError> {
    let mut probe = None;
    for Entry { key: field, pos, value } in node.map(key)? {
        let path = format!("containers.{key}.{field}");
        let port = |value: &Node| {
            let wrong = || ImportError::Value {
                pos: value.pos,
                key: path.clone(),
                says: "its port is none of the container".to_owned(),
            };
            value.text_at(&["port"]).and_then(|text| port_of(job, text)).ok_or_else(wrong)
        };
        match field.as_str() {
            "exec" => {
                let words = value.get("command").map_or(&[][..], Node::items);
                let words = words.iter().filter_map(Node::as_text).map(str::to_owned).collect();
                probe = Some(Probe::Command(words));
            }
            "tcpSocket" => probe = Some(Probe::Tcp(port(value)?)),
            "httpGet" => {
                let port = port(value)?;
                let path_there = value.text_at(&["path"]).unwrap_or("/");
                if value
                    .text_at(&["scheme"])
                    .is_some_and(|scheme| scheme.eq_ignore_ascii_case("https"))
                {
                    let reason = "a probe speaks HTTP without TLS: that the port accepts connections is probed";
                    report.changed(&job.service, &path, *pos, reason);
                    probe = Some(Probe::Tcp(port));
                } else {
                    for header in ["httpHeaders", "host"] {
                        if let Some(header) = value.get(header) {
                            report.changed(
                                &job.service,
                                &path,
                                header.pos,
                                "a probe has no headers of its own",
                            );
                        }
                    }
                    let path = if path_there.starts_with('/') {
                        path_there.to_owned()
                    } else {
                        format!("/{path_there}")
                    };
                    probe = Some(Probe::Http { port, path });
                }
            }
            "grpc" => {
                let reason =
                    "a probe does not speak gRPC: that the port accepts connections is probed";
                report.changed(&job.service, &path, *pos, reason);
                probe = Some(Probe::Tcp(port(value)?));
            }
            "successThreshold" => {
                report.drop(&job.service, "containers.probe.successThreshold", *pos)
            }
            "periodSeconds" | "timeoutSeconds" | "failureThreshold" | "initialDelaySeconds" => {}
            "terminationGracePeriodSeconds" => {
                report.changed(&job.service, &path, *pos, "a job has one `stop_timeout`");
            }
            _ => report.drop(&job.service, &path, *pos),
        }
    }
    Ok(probe.map(|probe| Health {
        probe,
        interval: number(node, "periodSeconds", 10),
        timeout: number(node, "timeoutSeconds", 1),
        retries: number(node, "failureThreshold", 3),
        start_period: if key == "startupProbe" {
            granted(node)
        } else {
            number(node, "initialDelaySeconds", 0)
        },
        restart: false,
    }))
}

/// A number, or the name of one of the container's ports.
pub(super) fn port_of(job: &Job, text: &str) -> Option<u16> {
    let named = job.ports.iter().find(|port| port.called.as_deref() == Some(text));
    named.map(|port| port.container).or_else(|| text.parse().ok()).filter(|port| *port != 0)
}
