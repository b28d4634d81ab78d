//! Which package depends on which, from `cargo metadata`.
//!
//! # Flow
//! 1. `cargo metadata` lists packages and resolved dependencies, for the platform of [`PLATFORM`] only.
//! 2. Optional dependencies that no enabled feature asks for are dropped: Cargo.lock lists them, but no
//!    build compiles them.
//! 3. Packages that no member of the workspace reaches then are dropped too.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use crate::{failed::Failed, step::Step};

const NAME: &str = "metadata";
/// What Veil is built for. Packages for other platforms need not be downloaded.
const PLATFORM: &str = "x86_64-unknown-linux-gnu";

/// Why a package is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Normal,
    Build,
    /// For tests and benches.
    Dev,
}

/// A dependency.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Edge {
    /// Key of the package in [`Graph::packages`].
    pub(crate) to: String,
    pub(crate) kind: Kind,
}

/// A package of the workspace or of a registry.
#[derive(Clone, Debug, Default)]
pub(crate) struct Package {
    pub(crate) name: String,
    pub(crate) version: String,
    /// An SPDX expression, or the older form with a slash.
    pub(crate) licence: Option<String>,
    pub(crate) edges: BTreeSet<Edge>,
    /// The root file of each library, program, test and bench.
    pub(crate) roots: Vec<String>,
    pub(crate) is_member: bool,
}

/// All packages that the workspace may compile.
#[derive(Debug, Default)]
pub(crate) struct Graph {
    /// By the id that cargo gives them.
    pub(crate) packages: BTreeMap<String, Package>,
}

impl Graph {
    pub(crate) fn read() -> Result<Self, Failed> {
        let args = ["metadata", "--format-version", "1", "--filter-platform", PLATFORM];
        let text = Step::cargo(NAME, &args).quiet().output()?;
        Self::parse(&text).map_err(|error| Failed::new(NAME, error.to_string()))
    }

    fn parse(text: &str) -> Result<Self, serde_json::Error> {
        let metadata: Metadata = serde_json::from_str(text)?;
        let members: BTreeSet<_> = metadata.workspace_members.into_iter().collect();
        let listed: BTreeMap<_, _> =
            metadata.packages.into_iter().map(|package| (package.id.clone(), package)).collect();
        let mut graph = Self::default();
        for node in metadata.resolve.nodes {
            let Some(package) = listed.get(&node.id) else { continue };
            let is_member = members.contains(&node.id);
            let name_of = |id: &str| listed.get(id).map_or("", |package| package.name.as_str());
            let edges = node
                .deps
                .iter()
                .filter(|dep| package.asks_for(dep, name_of(&dep.pkg), &node.features, is_member))
                .flat_map(|dep| {
                    dep.dep_kinds
                        .iter()
                        .map(|found| Edge { to: dep.pkg.clone(), kind: found.kind() })
                })
                .filter(|edge| is_member || edge.kind != Kind::Dev);
            graph.packages.insert(
                node.id.clone(),
                Package {
                    name: package.name.clone(),
                    version: package.version.clone(),
                    licence: package.license.clone(),
                    edges: edges.collect(),
                    roots: package.targets.iter().map(|target| target.src_path.clone()).collect(),
                    is_member,
                },
            );
        }
        let reached: BTreeSet<_> = members
            .iter()
            .flat_map(|member| graph.reach(member, |_| true).into_keys())
            .chain(members.iter().cloned())
            .collect();
        graph.packages.retain(|id, _| reached.contains(id));
        Ok(graph)
    }

    pub(crate) fn members(&self) -> impl Iterator<Item = (&String, &Package)> {
        self.packages.iter().filter(|(_, package)| package.is_member)
    }

    pub(crate) fn name(&self, id: &str) -> &str {
        self.packages.get(id).map_or("", |package| package.name.as_str())
    }

    /// Every package beneath `from`, each with the one above it on a shortest path. `follow` decides which
    /// edges of `from` count; those of others count unless they are for tests.
    pub(crate) fn reach(
        &self,
        from: &str,
        follow: impl Fn(Kind) -> bool,
    ) -> BTreeMap<String, String> {
        let mut above = BTreeMap::new();
        let mut level = vec![from.to_owned()];
        while !level.is_empty() {
            let mut next = Vec::new();
            for id in level {
                for edge in self.packages.get(&id).into_iter().flat_map(|package| &package.edges) {
                    let counts =
                        if id == from { follow(edge.kind) } else { edge.kind != Kind::Dev };
                    if counts && edge.to != from && !above.contains_key(&edge.to) {
                        above.insert(edge.to.clone(), id.clone());
                        next.push(edge.to.clone());
                    }
                }
            }
            level = next;
        }
        above
    }
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Listed>,
    workspace_members: Vec<String>,
    resolve: Resolve,
}

#[derive(Deserialize)]
struct Listed {
    id: String,
    name: String,
    version: String,
    license: Option<String>,
    dependencies: Vec<Declared>,
    features: BTreeMap<String, Vec<String>>,
    targets: Vec<Target>,
}

impl Listed {
    /// Whether `dep`, a package called `name`, is compiled for this one with these features.
    fn asks_for(&self, dep: &Dep, name: &str, features: &[String], is_member: bool) -> bool {
        let declared = self.dependencies.iter().filter(|declared| {
            let renamed =
                declared.rename.as_ref().is_none_or(|rename| rename.replace('-', "_") == dep.name);
            // Packages for other packages' tests are not compiled.
            declared.name == name && renamed && (is_member || declared.kind() != Kind::Dev)
        });
        let asked = |alias: &str| {
            let (explicit, with_feature) = (format!("dep:{alias}"), format!("{alias}/"));
            features
                .iter()
                .filter_map(|feature| self.features.get(feature))
                .flatten()
                .any(|value| *value == explicit || value.starts_with(&with_feature))
        };
        declared.into_iter().any(|declared| {
            !declared.optional || asked(declared.rename.as_ref().unwrap_or(&declared.name))
        })
    }
}

#[derive(Deserialize)]
struct Declared {
    name: String,
    rename: Option<String>,
    kind: Option<String>,
    optional: bool,
}

impl Declared {
    fn kind(&self) -> Kind {
        kind(self.kind.as_deref())
    }
}

#[derive(Deserialize)]
struct Target {
    src_path: String,
}

#[derive(Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Deserialize)]
struct Node {
    id: String,
    deps: Vec<Dep>,
    features: Vec<String>,
}

#[derive(Deserialize)]
struct Dep {
    name: String,
    pkg: String,
    dep_kinds: Vec<DepKind>,
}

#[derive(Deserialize)]
struct DepKind {
    kind: Option<String>,
}

impl DepKind {
    fn kind(&self) -> Kind {
        kind(self.kind.as_deref())
    }
}

fn kind(name: Option<&str>) -> Kind {
    match name {
        Some("dev") => Kind::Dev,
        Some("build") => Kind::Build,
        _ => Kind::Normal,
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::{Edge, Graph, Kind, Package};

    /// A graph of members (`veil-...`) and others: each with its normal and its test dependencies.
    pub(in crate::house) fn graph(packages: &[(&str, &[&str], &[&str])]) -> Graph {
        let mut graph = Graph::default();
        let package = |name: &str| Package {
            name: name.to_owned(),
            version: "1.0.0".to_owned(),
            is_member: name.starts_with("veil-"),
            ..Package::default()
        };
        for (name, normal, dev) in packages {
            let of = |names: &[&str], kind| {
                names.iter().map(|to| Edge { to: (*to).to_owned(), kind }).collect::<Vec<_>>()
            };
            for other in normal.iter().chain(*dev) {
                graph.packages.entry((*other).to_owned()).or_insert_with(|| package(other));
            }
            let this = graph.packages.entry((*name).to_owned()).or_insert_with(|| package(name));
            this.edges.extend(of(normal, Kind::Normal));
            this.edges.extend(of(dev, Kind::Dev));
        }
        graph
    }

    #[test]
    fn optional_packages_count_if_a_feature_asks_for_them() {
        let text = |features: &str| {
            format!(
                r#"{{
                "packages": [
                    {{"id": "m", "name": "m", "version": "1.0.0", "license": "MIT", "features": {{}},
                      "targets": [{{"src_path": "/m/src/lib.rs"}}],
                      "dependencies": [{{"name": "a", "rename": null, "kind": null, "optional": false}}]}},
                    {{"id": "a", "name": "a", "version": "1.0.0", "license": null, "targets": [],
                      "features": {{"on": ["dep:b-2"], "weak": ["b-2?/std"]}},
                      "dependencies": [{{"name": "b", "rename": "b-2", "kind": null, "optional": true}},
                                       {{"name": "c", "rename": null, "kind": "dev", "optional": false}}]}},
                    {{"id": "b", "name": "b", "version": "2.0.0", "license": null, "targets": [],
                      "features": {{}}, "dependencies": []}},
                    {{"id": "c", "name": "c", "version": "2.0.0", "license": null, "targets": [],
                      "features": {{}}, "dependencies": []}}
                ],
                "workspace_members": ["m"],
                "resolve": {{"nodes": [
                    {{"id": "m", "features": [], "deps": [
                        {{"name": "a", "pkg": "a", "dep_kinds": [{{"kind": null}}]}}]}},
                    {{"id": "a", "features": [{features}], "deps": [
                        {{"name": "b_2", "pkg": "b", "dep_kinds": [{{"kind": null}}]}},
                        {{"name": "c", "pkg": "c", "dep_kinds": [{{"kind": "dev"}}]}}]}},
                    {{"id": "b", "features": [], "deps": []}},
                    {{"id": "c", "features": [], "deps": []}}
                ]}}
            }}"#
            )
        };
        let names = |features| {
            let graph = Graph::parse(&text(features)).unwrap();
            graph.packages.into_keys().collect::<Vec<_>>()
        };
        assert_eq!(names(""), ["a", "m"]);
        assert_eq!(names(r#""weak""#), ["a", "m"]);
        assert_eq!(names(r#""on""#), ["a", "b", "m"]);
    }

    #[test]
    fn tests_of_packages_beneath_are_not_reached() {
        let graph = graph(&[("veil-a", &["b"], &["c"]), ("b", &["d"], &["e"])]);
        let names = |follow: fn(Kind) -> bool| {
            graph.reach("veil-a", follow).into_keys().collect::<Vec<_>>()
        };
        assert_eq!(names(|kind| kind != Kind::Dev), ["b", "d"]);
        assert_eq!(names(|_| true), ["b", "c", "d"]);
    }
}
