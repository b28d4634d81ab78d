//! Security contexts.

use crate::{capabilities::capability, error::Pos, job::Job, report::Report, yaml::Node};

/// One key of a security context, of a pod or of a container.
pub(super) fn security(report: &mut Report, job: &mut Job, key: &str, pos: Pos, value: &Node) {
    let service = job.service.clone();
    let path = format!("securityContext.{key}");
    let is = |wanted: bool| value.as_bool() == Some(wanted);
    match key {
        "runAsUser" => {
            let group = job.container.user.as_deref().and_then(|user| user.split_once(':'));
            let group = group.map(|(_, group)| format!(":{group}")).unwrap_or_default();
            job.container.user = value.as_text().map(|user| format!("{user}{group}"));
        }
        "runAsGroup" => {
            let user = job.container.user.as_deref().unwrap_or("0");
            let user = user.split(':').next().unwrap_or("0");
            job.container.user = value.as_text().map(|group| format!("{user}:{group}"));
        }
        "readOnlyRootFilesystem" => job.container.read_only = is(true),
        "privileged" if is(true) => {
            report.changed(&service, &path, pos, "no container is privileged")
        }
        "allowPrivilegeEscalation" if is(true) => {
            report.changed(&service, &path, pos, "no-new-privileges always holds");
        }
        "seccompProfile" if value.text_at(&["type"]) != Some("RuntimeDefault") => {
            report.changed(&service, &path, pos, "the engine's default profile always holds");
        }
        "capabilities" => {
            for (list, key) in [("drop", "capabilities.drop"), ("add", "capabilities.add")] {
                for name in value.get(list).map_or(&[][..], Node::items) {
                    let text = name.as_text().unwrap_or_default().to_ascii_uppercase();
                    let text = text.trim_start_matches("CAP_");
                    capability(report, job, key, text, name.pos);
                }
            }
        }
        "supplementalGroups" | "sysctls" if value.items().is_empty() => {}
        _ => report.drop(&service, &path, pos),
    }
}
