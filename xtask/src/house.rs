//! The rules of the house, checked without compiling anything: which crate may know which, which files
//! import each other, how long they are, and under which licences and in how many versions
//! dependencies come.
//!
//! Every rule has a name, which is printed with what breaks it. There are no exceptions.

mod circles;
mod dependencies;
mod imports;
mod layering;
mod length;
mod licence;
mod metadata;
mod table;
mod tokens;

use std::{fs, path::PathBuf};

use self::{dependencies::Policy, metadata::Graph};
use crate::step::{Failed, root};

const NAME: &str = "house";

/// A rule, and what breaks it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Broken {
    rule: &'static str,
    what: String,
}

impl Broken {
    const fn new(rule: &'static str, what: String) -> Self {
        Self { rule, what }
    }
}

/// Checks all rules, and tells everything that breaks one.
pub(crate) fn check() -> Result<(), Failed> {
    println!("\n== {NAME}: crates and files against their rules");
    let graph = Graph::read()?;
    let root = root();
    let unreadable = |error: std::io::Error| Failed::new(NAME, error.to_string());
    let deny = root.join("deny.toml");
    let deny = fs::read_to_string(&deny)
        .map_err(|error| Failed::new(NAME, format!("{}: {error}", deny.display())))?;
    let policy = Policy::parse(&deny).map_err(|error| {
        Failed::new(NAME, format!("deny.toml is not what is read of it: {error}"))
    })?;
    let roots: Vec<PathBuf> =
        graph.members().flat_map(|(_, package)| package.roots.iter().map(PathBuf::from)).collect();
    let mut broken = layering::check(table::HOUSE, &graph);
    broken.extend(circles::check(&roots, &root).map_err(unreadable)?);
    broken.extend(length::check(&root, &root).map_err(unreadable)?);
    broken.extend(dependencies::licences(&policy, &graph));
    broken.extend(dependencies::duplicates(&policy, &graph));
    for Broken { rule, what } in &broken {
        eprintln!("{rule}: {what}");
    }
    let mut rules: Vec<_> = broken.iter().map(|broken| broken.rule).collect();
    rules.dedup();
    if rules.is_empty() {
        println!(
            "== {NAME}: {} crates and {} packages keep to the rules",
            graph.members().count(),
            graph.packages.len()
        );
        return Ok(());
    }
    Err(Failed::new(NAME, format!("broken: {} (see CONTRIBUTING.md)", rules.join(", "))))
}

/// The name of the crate of the workspace that is `given` by its name or by its folder.
pub(crate) fn package(given: &str) -> Result<String, Failed> {
    let graph = Graph::read()?;
    let of_folder = format!("veil-{}", given.trim_end_matches('/').replace('/', "-"));
    let names: Vec<_> = graph.members().map(|(_, package)| package.name.as_str()).collect();
    match names.iter().find(|name| **name == given || **name == of_folder) {
        Some(name) => Ok((*name).to_owned()),
        None => {
            let reason = format!("{given} is no crate; there are {}", names.join(", "));
            Err(Failed::new(NAME, reason))
        }
    }
}
