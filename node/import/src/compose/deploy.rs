//! `deploy`: how many replicas, where, and what they get.

use super::{
    Context,
    values::{size, wrong},
};
use crate::{
    error::ImportError,
    job::Job,
    quantity::{millicores, seconds},
    yaml::{Entry, Node},
};

pub(super) fn read(
    context: &mut Context<'_>,
    job: &mut Job,
    value: &Node,
) -> Result<(), ImportError> {
    for Entry { key, pos, value } in value.map("deploy")? {
        if value.is_null() {
            continue;
        }
        match key.as_str() {
            "mode" => match value.str("deploy.mode")? {
                "replicated" => {}
                "global" => job.kind = crate::job::Kind::System,
                "replicated-job" => job.kind = crate::job::Kind::Batch { max_attempts: 1 },
                other => {
                    let reason = format!("there is no mode `{other}` of jobs");
                    context.report.changed(&job.service, "deploy.mode", *pos, reason);
                }
            },
            "replicas" => {
                let count = value.as_number().filter(|n| (1..=1024).contains(n));
                match count {
                    Some(count) => job.replicas = count,
                    None => {
                        let reason = "a job has 1 to 1024 replicas";
                        context.report.changed(&job.service, "deploy.replicas", *pos, reason);
                    }
                }
            }
            "resources" => resources(context, job, value)?,
            "restart_policy" => restart(context, job, value)?,
            "update_config" => update(context, job, value)?,
            "placement" => placement(context, job, value)?,
            "endpoint_mode" if value.as_text() == Some("vip") => {
                context.report.drop(&job.service, "deploy.endpoint_mode", *pos);
            }
            "endpoint_mode" => {
                let reason = "links carry connections to each healthy replica in turn: names have no list of them";
                context.report.changed(&job.service, "deploy.endpoint_mode", *pos, reason);
            }
            key => context.report.drop(&job.service, &format!("deploy.{key}"), *pos),
        }
    }
    Ok(())
}

fn resources(context: &mut Context<'_>, job: &mut Job, value: &Node) -> Result<(), ImportError> {
    for part in ["limits", "reservations"] {
        for Entry { key, pos, value } in value.get(part).map_or(&[][..], Node::entries) {
            let path = format!("deploy.resources.{part}.{key}");
            match key.as_str() {
                "cpus" => {
                    let cpu = millicores(value.str(&path)?);
                    let cpu = cpu.ok_or_else(|| wrong(&path, value, "no number of CPUs"))?;
                    job.resources.millicores = job.resources.millicores.or(Some(cpu.max(1)));
                }
                "memory" => {
                    let bytes = size(&path, value)?;
                    job.resources.memory = job.resources.memory.or(Some(bytes));
                }
                "pids" => {
                    job.container.pids = value.as_number().filter(|n| (1..=65_536).contains(n))
                }
                "devices" => value.items().iter().for_each(|device| gpus(context, job, device)),
                _ => context.report.drop(&job.service, &path, *pos),
            }
        }
    }
    for Entry { key, pos, .. } in value.map("deploy.resources")? {
        if !["limits", "reservations"].contains(&key.as_str()) {
            context.report.drop(&job.service, &format!("deploy.resources.{key}"), *pos);
        }
    }
    if let (Some(_), Some(reserved)) = (value.get("limits"), value.get("reservations"))
        && (reserved.get("cpus").is_some() || reserved.get("memory").is_some())
    {
        context.report.drop(&job.service, "deploy.resources.reservations", reserved.pos);
    }
    Ok(())
}

/// A device that is reserved, or `gpus: all`.
pub(super) fn gpus(context: &mut Context<'_>, job: &mut Job, value: &Node) {
    let many = value.items();
    if !many.is_empty() {
        many.iter().for_each(|device| gpus(context, job, device));
        return;
    }
    let count = value.as_text().or_else(|| value.text_at(&["count"]));
    let ids = value.get("device_ids").map_or(0, |ids| ids.items().len()) as u64;
    let has_gpu = |node: &Node| node.items().iter().any(|one| one.as_text() == Some("gpu"));
    let driver = value.text_at(&["driver"]);
    let is_gpu = value.as_text().is_some()
        || driver == Some("nvidia")
        || value.get("capabilities").is_some_and(has_gpu);
    if !is_gpu {
        let reason = "of devices, only GPUs are given to jobs";
        context.report.changed(
            &job.service,
            "deploy.resources.reservations.devices",
            value.pos,
            reason,
        );
        return;
    }
    let wanted = match count {
        None | Some("all") if ids == 0 => {
            let reason = "a job says how many GPUs it wants: one is asked for";
            context.report.changed(&job.service, "gpus.count", value.pos, reason);
            1
        }
        None | Some("all") => ids,
        Some(count) => count.parse().unwrap_or(1),
    };
    job.resources.gpus += wanted;
}

fn restart(context: &mut Context<'_>, job: &mut Job, value: &Node) -> Result<(), ImportError> {
    // Of swarm: by default always.
    job.restart.mode = Some("always");
    for Entry { key, pos, value } in value.map("deploy.restart_policy")? {
        let path = format!("deploy.restart_policy.{key}");
        let time =
            |most: u64| seconds(value.as_text().unwrap_or_default()).map(|time| time.min(most));
        match key.as_str() {
            "condition" => {
                job.restart.mode = match value.str(&path)? {
                    "none" => Some("never"),
                    "on-failure" => Some("on_failure"),
                    _ => Some("always"),
                };
            }
            "delay" => job.restart.delay = time(3600),
            "window" => job.restart.interval = time(86_400),
            "max_attempts" => job.restart.attempts = value.as_number().filter(|n| *n <= 1000),
            _ => context.report.drop(&job.service, &path, *pos),
        }
    }
    Ok(())
}

fn update(context: &mut Context<'_>, job: &mut Job, value: &Node) -> Result<(), ImportError> {
    for Entry { key, pos, value } in value.map("deploy.update_config")? {
        let path = format!("deploy.update_config.{key}");
        match (key.as_str(), value.as_text()) {
            ("parallelism", _) => {
                job.update.max_parallel =
                    value.as_number().map(|n| if n == 0 { 1024 } else { n.min(1024) });
            }
            ("failure_action", Some("rollback")) => job.update.auto_revert = Some(true),
            ("failure_action", _) => job.update.auto_revert = Some(false),
            ("monitor", Some(text)) => {
                job.update.min_healthy = seconds(text).map(|time| time.min(300))
            }
            _ => context.report.drop(&job.service, &path, *pos),
        }
    }
    Ok(())
}

fn placement(context: &mut Context<'_>, job: &mut Job, value: &Node) -> Result<(), ImportError> {
    for Entry { key, pos, value } in value.map("deploy.placement")? {
        let path = format!("deploy.placement.{key}");
        match key.as_str() {
            "constraints" => {
                for node in value.list(&path)? {
                    let text = node.str(&path)?;
                    if !constraint(job, text) {
                        let reason = format!(
                            "`{text}`: only labels of workers can be asked for, `node.labels.KEY == VALUE`"
                        );
                        context.report.changed(&job.service, &path, node.pos, reason);
                    }
                }
            }
            "max_replicas_per_node" if value.as_number() == Some(1) => {
                job.anti_affinity = Some("hard")
            }
            _ => context.report.drop(&job.service, &path, *pos),
        }
    }
    Ok(())
}

fn constraint(job: &mut Job, text: &str) -> bool {
    let (both, list) = match text.split_once("==") {
        Some(both) => (both, &mut job.allow),
        None => match text.split_once("!=") {
            Some(both) => (both, &mut job.deny),
            None => return false,
        },
    };
    let (key, value) = (both.0.trim(), both.1.trim());
    let key = match key {
        "node.platform.arch" => "veil/arch",
        "node.platform.os" => "veil/os",
        key => match key.strip_prefix("node.labels.") {
            Some(key) => key,
            None => return false,
        },
    };
    let value = if value == "x86_64" { "amd64" } else { value };
    let label = format!("{key}={value}");
    let is_label = label.parse::<veil_protocol_spec::scheduling::Label>().is_ok();
    if is_label {
        list.push(label);
    }
    is_label
}
