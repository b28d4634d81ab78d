//! What this worker finds out of itself: "architecture and engine facts are labels that the worker sets itself".

use veil_node_containers::EngineFacts;
use veil_protocol_spec::scheduling::{Label, Profile};

/// By what the engine says of itself.
pub(crate) fn facts(facts: &EngineFacts) -> Vec<Label> {
    let engine = facts.engine.to_lowercase();
    let said = [
        ("arch", &facts.architecture),
        ("engine", &engine),
        ("engine-version", &facts.version),
        ("os", &facts.os),
    ];
    said.into_iter().filter_map(|(key, value)| label(key, value)).collect()
}

/// What a label cannot carry becomes a dash; `None` if nothing is left.
fn label(key: &str, value: &str) -> Option<Label> {
    let allowed = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' };
    let value: String = value.chars().map(allowed).take(63).collect();
    let value = value.trim_matches(|c: char| !c.is_ascii_alphanumeric());
    format!("{}{key}={value}", Profile::PREFIX).parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_engine_is_told_in_labels() {
        let facts = EngineFacts {
            os: "linux".to_owned(),
            architecture: "amd64".to_owned(),
            engine: "Docker".to_owned(),
            version: "20.10.24+dfsg1".to_owned(),
        };
        let facts = super::facts(&facts);
        let labels: Vec<_> = facts.iter().map(ToString::to_string).collect();
        let expected = [
            "veil/arch=amd64",
            "veil/engine=docker",
            "veil/engine-version=20.10.24-dfsg1",
            "veil/os=linux",
        ];
        assert_eq!(labels, expected);
        assert_eq!(Profile { facts, ..Profile::default() }.validate(), Ok(()));
        assert_eq!(label("arch", ""), None);
    }
}
