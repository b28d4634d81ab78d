//! The objects of a file, by what they are for.

use std::collections::BTreeMap;

use base64::{Engine as _, engine::general_purpose::STANDARD};

use crate::{error::ImportError, report::Report, yaml::Node};

/// Kinds that make pods.
const WORKLOADS: &[&str] = &[
    "CronJob",
    "DaemonSet",
    "Deployment",
    "Job",
    "Pod",
    "ReplicaSet",
    "ReplicationController",
    "StatefulSet",
];
/// Kinds that say something of pods that others make; whose they are is found later.
const RULES: &[&str] =
    &["ClusterRoleBinding", "HorizontalPodAutoscaler", "Ingress", "NetworkPolicy", "RoleBinding"];

/// A value of a ConfigMap or a Secret, by its key.
pub(super) type Data = BTreeMap<String, Vec<u8>>;

/// The objects of a file.
#[derive(Default)]
pub(super) struct Objects<'a> {
    pub(super) workloads: Vec<&'a Node>,
    pub(super) services: Vec<&'a Node>,
    pub(super) rules: Vec<&'a Node>,
    pub(super) configs: BTreeMap<String, Data>,
    pub(super) secrets: BTreeMap<String, Data>,
}

impl Objects<'_> {
    /// What a ConfigMap or Secret holds.
    pub(super) fn data(&self, is_secret: bool, name: &str) -> Option<&Data> {
        if is_secret { self.secrets.get(name) } else { self.configs.get(name) }
    }
}

pub(super) fn sort<'a>(
    documents: &'a [Node],
    report: &mut Report,
) -> Result<Objects<'a>, ImportError> {
    let mut objects = Objects::default();
    for document in documents {
        let kind = document.text_at(&["kind"]).unwrap_or_default();
        if kind.ends_with("List") && document.get("items").is_some() {
            for item in document.get("items").map_or(&[][..], Node::items) {
                one(item, &mut objects, report)?;
            }
        } else {
            one(document, &mut objects, report)?;
        }
    }
    Ok(objects)
}

fn one<'a>(
    object: &'a Node,
    objects: &mut Objects<'a>,
    report: &mut Report,
) -> Result<(), ImportError> {
    let kind = object.get("kind").ok_or_else(|| ImportError::Value {
        pos: object.pos,
        key: "kind".to_owned(),
        says: "it is missing: each document is a Kubernetes object here".to_owned(),
    })?;
    let name = || object.text_at(&["metadata", "name"]).unwrap_or_default().to_owned();
    match kind.str("kind")? {
        kind if WORKLOADS.contains(&kind) => objects.workloads.push(object),
        kind if RULES.contains(&kind) => objects.rules.push(object),
        "Service" => objects.services.push(object),
        "ConfigMap" => {
            objects.configs.insert(name(), data(object, &["data"], &["binaryData"])?);
        }
        "Secret" => {
            objects.secrets.insert(name(), data(object, &["stringData"], &["data"])?);
        }
        kind => report.drop("", kind, object.pos),
    }
    Ok(())
}

/// Texts as they are, and others in base64.
fn data(object: &Node, texts: &[&str], encoded: &[&str]) -> Result<Data, ImportError> {
    let mut all = Data::new();
    let of = |key: &str| object.get(key).map_or(&[][..], Node::entries);
    for entry in encoded.iter().flat_map(|key| of(key)) {
        let text: String = entry.value.as_text().unwrap_or_default().split_whitespace().collect();
        let bytes = STANDARD.decode(text).map_err(|_| ImportError::Value {
            pos: entry.value.pos,
            // The value may be secret: it is not shown.
            key: format!("data.{}", entry.key),
            says: "it is no base64".to_owned(),
        })?;
        all.insert(entry.key.clone(), bytes);
    }
    for entry in texts.iter().flat_map(|key| of(key)) {
        let text = entry.value.as_text().unwrap_or_default();
        all.insert(entry.key.clone(), text.as_bytes().to_vec());
    }
    Ok(all)
}

/// Whether labels have all that a selector asks for.
pub(super) fn selects(selector: &Node, labels: &BTreeMap<String, String>) -> bool {
    let wanted = selector.entries();
    !wanted.is_empty()
        && wanted
            .iter()
            .all(|entry| labels.get(&entry.key).map(String::as_str) == entry.value.as_text())
}
