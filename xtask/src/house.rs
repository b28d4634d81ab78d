//! The rules of the house: which crate may know which, that no files import each other, how long files and crates may
//! be, that no text tells anybody to go back to an older data directory, and which licences and second versions
//! dependencies may have. Checking compiles nothing.
//!
//! Each rule has a name, which is printed with every violation. There is no list of exceptions.

mod circles;
mod dependencies;
mod imports;
mod layering;
mod length;
mod licence;
pub(crate) mod metadata;
mod roll_back;
mod size;
mod sources;
mod table;
mod tokens;

use std::{fs, path::PathBuf};

use self::{dependencies::Policy, metadata::Graph};
use crate::{failed::Failed, step::root};

const NAME: &str = "house";

/// What breaks a rule.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Violation {
    rule: &'static str,
    what: String,
}

impl Violation {
    const fn new(rule: &'static str, what: String) -> Self {
        Self { rule, what }
    }
}

/// Checks all rules, and prints every violation.
pub(crate) fn check() -> Result<(), Failed> {
    println!("\n== {NAME}: checks crates and files against the rules of CONTRIBUTING.md");
    let graph = Graph::read()?;
    let root = root();
    let unreadable = |error: std::io::Error| Failed::new(NAME, error.to_string());
    let deny = root.join("deny.toml");
    let deny = fs::read_to_string(&deny)
        .map_err(|error| Failed::new(NAME, format!("{}: {error}", deny.display())))?;
    let policy =
        Policy::parse(&deny).map_err(|error| Failed::new(NAME, format!("deny.toml: {error}")))?;
    let roots: Vec<PathBuf> =
        graph.members().flat_map(|(_, package)| package.roots.iter().map(PathBuf::from)).collect();
    let mut violations = layering::check(table::HOUSE, &graph);
    violations.extend(circles::check(&roots, &root).map_err(unreadable)?);
    violations.extend(length::check(&root, &root).map_err(unreadable)?);
    let crates =
        graph.members().map(|(_, package)| (package.name.as_str(), package.roots.as_slice()));
    violations.extend(size::check(crates).map_err(unreadable)?);
    violations.extend(roll_back::check(&root, &root).map_err(unreadable)?);
    violations.extend(dependencies::licences(&policy, &graph));
    violations.extend(dependencies::duplicates(&policy, &graph));
    for Violation { rule, what } in &violations {
        eprintln!("{rule}: {what}");
    }
    let mut rules: Vec<_> = violations.iter().map(|violation| violation.rule).collect();
    rules.dedup();
    if rules.is_empty() {
        println!(
            "== {NAME}: {} crates and {} packages keep the rules",
            graph.members().count(),
            graph.packages.len()
        );
        return Ok(());
    }
    Err(Failed::new(NAME, format!("broken rules: {} (see CONTRIBUTING.md)", rules.join(", "))))
}

/// The workspace's crate of this name, or in this folder.
pub(crate) fn package(given: &str) -> Result<String, Failed> {
    let graph = Graph::read()?;
    let of_folder = format!("veil-{}", given.trim_end_matches('/').replace('/', "-"));
    let names: Vec<_> = graph.members().map(|(_, package)| package.name.as_str()).collect();
    match names.iter().find(|name| **name == given || **name == of_folder) {
        Some(name) => Ok((*name).to_owned()),
        None => {
            let reason =
                format!("{given} is no crate of the workspace; these are: {}", names.join(", "));
            Err(Failed::new(NAME, reason))
        }
    }
}
