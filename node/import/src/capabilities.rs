//! Capabilities, which Compose and Kubernetes name alike.

use veil_protocol_spec::scheduling::Capability;

use crate::{error::Pos, job::Job, report::Report};

/// One capability, added or dropped.
pub(crate) fn capability(report: &mut Report, job: &mut Job, key: &str, name: &str, pos: Pos) {
    let adds = key.ends_with("add");
    let known = Capability::of_name(name).is_some();
    match (adds, name) {
        (true, name) if known => {
            if !job.container.cap_add.iter().any(|own| own == name) {
                job.container.cap_add.push(name.to_owned());
            }
        }
        (true, name) => {
            let reason = "a job has at most the capabilities that Docker gives by default";
            report.changed(&job.service, &format!("{key}.{name}"), pos, reason);
        }
        (false, "ALL") => job.container.cap_drop = vec!["ALL".to_owned()],
        // What it has not is dropped already.
        (false, name) => {
            if known && !job.container.cap_drop.iter().any(|own| own == name || own == "ALL") {
                job.container.cap_drop.push(name.to_owned());
            }
        }
    }
}
