//! `docs/jobs.md` says everything that a job file can say, and nothing else.
#![allow(clippy::unwrap_used, reason = "tests")]

use veil_node_config::job_file::{JobFile, keys::KEYS};

const DOCUMENT: &str = include_str!("../../../docs/jobs.md");

const IMAGE: &str =
    "image = \"a@sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08\"\n";
const RESOURCES: &str = "\n[resources]\ncpu = 1\nmemory = \"1Gi\"\n";

#[test]
fn every_key_is_described() {
    for key in KEYS {
        let named = format!("`{}`", key.path);
        assert!(DOCUMENT.contains(&named), "docs/jobs.md does not describe {named}");
        for alias in key.aliases {
            let name = alias.rsplit('.').next().unwrap();
            let documented = DOCUMENT.contains(name) || name.ends_with("_seconds");
            assert!(documented, "docs/jobs.md does not name {alias}");
        }
    }
}

#[test]
fn only_keys_are_described() {
    let rows = DOCUMENT.lines().filter(|line| line.starts_with("| `"));
    let first = rows.map(|row| row.split('|').nth(1).unwrap());
    for cell in first {
        for named in cell.split(',') {
            let path = named.trim().trim_matches('`');
            assert!(KEYS.iter().any(|key| key.path == path), "docs/jobs.md describes {path}");
        }
    }
}

#[test]
fn every_example_parses() {
    let examples =
        DOCUMENT.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let mut count = 0;
    for example in examples {
        let mut text = String::new();
        if !example.contains("image = ") {
            text += IMAGE;
        }
        text += example;
        if !example.contains("[resources]") {
            text += RESOURCES;
        }
        JobFile::parse(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
        count += 1;
    }
    assert!(count >= 12);
}
