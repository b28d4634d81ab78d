//! Licences and versions of dependencies, against the lists of `deny.toml`, which `cargo deny check`
//! reads too.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use super::{Violation, licence, metadata::Graph};

pub(super) const LICENCE: &str = "licence";
pub(super) const VERSIONS: &str = "one-version";

/// What is read of `deny.toml`.
#[derive(Debug, Deserialize)]
pub(super) struct Policy {
    licenses: Licences,
    bans: Bans,
}

#[derive(Debug, Deserialize)]
struct Licences {
    allow: Vec<String>,
    #[serde(default)]
    exceptions: Vec<Exception>,
}

/// A licence that only one package may have.
#[derive(Debug, Deserialize)]
struct Exception {
    #[serde(rename = "crate")]
    package: String,
    allow: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Bans {
    /// Versions that come beside another one of the same package.
    #[serde(default)]
    skip: Vec<Skip>,
}

#[derive(Debug, Deserialize)]
struct Skip {
    /// `name@version`.
    #[serde(rename = "crate")]
    package: String,
}

impl Policy {
    pub(super) fn parse(text: &str) -> Result<Self, toml::de::Error> {
        toml::from_str(text)
    }
}

/// Packages whose licence is not allowed.
pub(super) fn licences(policy: &Policy, graph: &Graph) -> Vec<Violation> {
    let mut violations = Vec::new();
    for package in graph.packages.values().filter(|package| !package.is_member) {
        let expression = package.licence.as_deref().unwrap_or_default();
        let allowed = |name: &str| {
            let is_it = |licence: &String| licence == name;
            let exceptions =
                policy.licenses.exceptions.iter().filter(|found| found.package == package.name);
            policy.licenses.allow.iter().any(is_it)
                || exceptions.flat_map(|found| &found.allow).any(is_it)
        };
        if !licence::is_met(expression, &allowed) {
            let what = format!(
                "{} {} has the licence `{expression}`, which deny.toml does not allow",
                package.name, package.version
            );
            violations.push(Violation::new(LICENCE, what));
        }
    }
    violations
}

/// Packages with several versions of which more than one is not listed, and listed versions that are no
/// second version any more: the list grows on purpose only, and has to shrink.
pub(super) fn duplicates(policy: &Policy, graph: &Graph) -> Vec<Violation> {
    let mut versions: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for package in graph.packages.values() {
        versions.entry(&package.name).or_default().insert(&package.version);
    }
    let listed: BTreeSet<_> = policy
        .bans
        .skip
        .iter()
        .map(|skip| skip.package.split_once('@').unwrap_or((&skip.package, "")))
        .collect();
    let mut violations = Vec::new();
    for (name, versions) in &versions {
        let others: Vec<_> =
            versions.iter().filter(|version| !listed.contains(&(*name, **version))).collect();
        if others.len() > 1 {
            let what = format!(
                "{name} has the versions {}: avoid one (`cargo tree -i {name}@<version>` shows what \
                 needs it), or list it in deny.toml",
                versions.iter().copied().collect::<Vec<_>>().join(", ")
            );
            violations.push(Violation::new(VERSIONS, what));
        }
    }
    for (name, version) in listed {
        let is_second = versions
            .get(name)
            .is_some_and(|versions| versions.contains(version) && versions.len() > 1);
        if !is_second {
            let what = format!("{name}@{version} is no second version: remove it from deny.toml");
            violations.push(Violation::new(VERSIONS, what));
        }
    }
    violations
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::house::metadata::Package;

    const POLICY: &str = r#"
        [licenses]
        allow = ["MIT", "Apache-2.0"]
        exceptions = [{ crate = "tfhe", allow = ["BSD-3-Clause-Clear"] }]
        [bans]
        skip = [{ crate = "rand@0.8.0", reason = "tfhe" }]
    "#;

    fn graph(packages: &[(&str, &str, &str)]) -> Graph {
        let package = |(name, version, licence): &(&str, &str, &str)| {
            let package = Package {
                name: (*name).to_owned(),
                version: (*version).to_owned(),
                licence: Some((*licence).to_owned()),
                ..Package::default()
            };
            (format!("{name}@{version}"), package)
        };
        Graph { packages: packages.iter().map(package).collect() }
    }

    #[test]
    fn licences_that_are_not_allowed_are_refused() {
        let policy = Policy::parse(POLICY).unwrap();
        let sound = graph(&[("a", "1.0.0", "MIT/X"), ("tfhe", "1.0.0", "BSD-3-Clause-Clear")]);
        assert_eq!(licences(&policy, &sound), []);
        let unsound = graph(&[("a", "1.0.0", "BSD-3-Clause-Clear"), ("b", "1.0.0", "")]);
        let violations = licences(&policy, &unsound);
        assert_eq!(violations.len(), 2);
        assert!(violations.iter().all(|violation| violation.rule == LICENCE));
    }

    #[test]
    fn second_versions_are_listed_or_refused() {
        let policy = Policy::parse(POLICY).unwrap();
        let versions = |versions: &[(&str, &str)]| {
            let packages: Vec<_> =
                versions.iter().map(|(name, version)| (*name, *version, "MIT")).collect();
            let violations = duplicates(&policy, &graph(&packages));
            assert!(violations.iter().all(|violation| violation.rule == VERSIONS));
            violations.len()
        };
        assert_eq!(versions(&[("rand", "0.8.0"), ("rand", "0.9.0")]), 0);
        assert_eq!(versions(&[("rand", "0.8.0"), ("rand", "0.9.0"), ("rand", "0.10.0")]), 1);
        assert_eq!(
            versions(&[("rand", "0.8.0"), ("rand", "0.9.0"), ("a", "1.0.0"), ("a", "2.0.0")]),
            1
        );
        // Listed, and alone or gone.
        assert_eq!(versions(&[("rand", "0.8.0")]), 1);
        assert_eq!(versions(&[("rand", "0.9.0")]), 1);
    }
}
