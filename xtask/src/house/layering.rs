//! The dependencies of crates, against the table of the house.
//!
//! - [`UNLISTED`]: each crate of the workspace has a row, and each row has a crate.
//! - [`ARROW`]: a crate depends on the crates that its row names, and on no other of the workspace.
//!   Its tests may know whatever lies beneath it, and what its row names for them.
//! - [`WORLD`]: a package of an outside world is a dependency only of crates of that world; of tests
//!   only where the world lies beneath.
//! - [`PURE`]: no I/O in the tree of a protocol crate, its tests' dependencies included, and no runtime
//!   among its own dependencies.
//! - [`FHE_FREE`]: no tfhe in the tree of a crate that has no use for it, its tests' included.

use std::collections::BTreeSet;

use super::{
    Violation,
    metadata::{Graph, Kind, Package},
    table::{
        AGREEMENT_CRATE, BENEATH_AGREEMENT, FHE, IO, Kind as Role, RUNTIME, Row, UNDER_ENCRYPTION,
    },
};

pub(super) const UNLISTED: &str = "crate-in-table";
pub(super) const ARROW: &str = "one-direction";
pub(super) const WORLD: &str = "one-outside-world";
pub(super) const PURE: &str = "no-io-beneath-protocol";
pub(super) const FHE_FREE: &str = "no-tfhe-beneath";

/// Everything in `graph` that `house` does not allow.
pub(super) fn check(house: &[Row], graph: &Graph) -> Vec<Violation> {
    let mut violations = Vec::new();
    for row in house {
        if !graph.members().any(|(_, package)| package.name == row.name) {
            violations
                .push(Violation::new(UNLISTED, format!("{} has a row, and is no crate", row.name)));
        }
    }
    for (id, package) in graph.members() {
        match house.iter().find(|row| row.name == package.name) {
            Some(row) => {
                arrows(house, graph, row, package, &mut violations);
                trees(graph, row, id, &mut violations);
            }
            None => {
                violations.push(Violation::new(UNLISTED, format!("{} has no row", package.name)))
            }
        }
    }
    violations
}

/// The rules on direct dependencies.
fn arrows(
    house: &[Row],
    graph: &Graph,
    row: &Row,
    package: &Package,
    violations: &mut Vec<Violation>,
) {
    let beneath = beneath(house, row);
    for edge in &package.edges {
        let name = graph.name(&edge.to);
        let for_tests = if edge.kind == Kind::Dev { "in its tests " } else { "" };
        let is_ours = graph.packages.get(&edge.to).is_some_and(|package| package.is_member);
        let may_know = row.knows.contains(&name)
            || edge.kind == Kind::Dev
                && (beneath.contains(name) || row.tests.contains(&name) || name == row.name);
        if is_ours && !may_know {
            let what = format!("{} {for_tests}depends on {name}", row.name);
            violations.push(Violation::new(ARROW, what));
        }
        let owners: Vec<_> = house.iter().filter(|row| is_of(row.world, name)).collect();
        let owns = |name: &str| owners.iter().any(|row| row.name == name);
        let reaches = edge.kind == Kind::Dev && beneath.iter().any(|name| owns(name));
        if !owners.is_empty() && !owns(row.name) && !reaches {
            let owners: Vec<_> = owners.iter().map(|row| row.name).collect();
            let what = format!(
                "{} {for_tests}depends on {name}, which is for {} only",
                row.name,
                owners.join(", ")
            );
            violations.push(Violation::new(WORLD, what));
        }
        if row.kind == Role::Protocol && is_of(&[RUNTIME], name) {
            violations
                .push(Violation::new(PURE, format!("{} {for_tests}depends on {name}", row.name)));
        }
    }
}

/// The rules on direct and indirect dependencies.
fn trees(graph: &Graph, row: &Row, id: &str, violations: &mut Vec<Violation>) {
    let above = graph.reach(id, |_| true);
    let agreement = row.name == AGREEMENT_CRATE;
    let mut forbid = |rule, forbidden: &[&str]| {
        let is_forbidden =
            |name| is_of(forbidden, name) && !(agreement && is_of(BENEATH_AGREEMENT, name));
        // One path is enough: the next run finds the next one.
        if let Some(found) = above.keys().find(|id| is_forbidden(graph.name(id))) {
            let mut path = vec![graph.name(found)];
            let mut at = found;
            while let Some(next) = above.get(at) {
                path.push(graph.name(next));
                at = next;
            }
            path.reverse();
            violations.push(Violation::new(rule, path.join(" -> ")));
        }
    };
    if row.kind == Role::Protocol {
        forbid(PURE, IO);
    }
    let computes = UNDER_ENCRYPTION.contains(&row.name);
    if matches!(row.kind, Role::Protocol | Role::Edge) && !computes {
        forbid(FHE_FREE, &[FHE]);
    }
}

/// Every crate that `row` reaches in the table.
fn beneath(house: &[Row], row: &Row) -> BTreeSet<&'static str> {
    let mut names = BTreeSet::new();
    let mut open = row.knows.to_vec();
    while let Some(name) = open.pop() {
        if names.insert(name) {
            open.extend(house.iter().filter(|row| row.name == name).flat_map(|row| row.knows));
        }
    }
    names
}

/// Whether `package` is one of `names`, or named after one.
fn is_of(names: &[&str], package: &str) -> bool {
    names.iter().any(|name| {
        package.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::house::{metadata::tests::graph, table::HOUSE};

    /// Packages that keep the rules.
    const VALID: &[(&str, &[&str], &[&str])] = &[
        ("veil-protocol-spec", &["serde"], &["proptest"]),
        ("veil-committee", &["veil-protocol-spec", "frost-core"], &[]),
        ("veil-committee-agreement", &["veil-protocol-spec", "arc-malachitebft-core"], &[]),
        ("arc-malachitebft-core", &["tokio"], &[]),
        ("veil-scheduler-plan", &["veil-protocol-spec"], &[]),
        ("veil-scheduler", &["veil-scheduler-plan", "tfhe"], &["veil-protocol-spec"]),
        ("veil-contracts", &["alloy"], &[]),
        ("veil-node-chain", &["veil-contracts", "alloy-primitives", "tokio"], &[]),
        ("veil-node-containers", &["veil-protocol-spec", "bollard", "tokio"], &[]),
        ("veil-node-core", &["veil-scheduler", "veil-node-chain", "axum"], &["alloy"]),
    ];

    /// The violations when `extra` is added to [`VALID`].
    fn rules(extra: &[(&str, &[&str], &[&str])]) -> Vec<(&'static str, String)> {
        let graph = graph(&[VALID, extra].concat());
        check(HOUSE, &graph)
            .into_iter()
            .filter(|violation| !violation.what.ends_with("is no crate")) // the packages are a part of the house
            .map(|violation| (violation.rule, violation.what))
            .collect()
    }

    fn one(extra: (&str, &[&str], &[&str])) -> (&'static str, String) {
        let mut found = rules(&[extra]);
        assert_eq!(found.len(), 1, "{found:?}");
        found.remove(0)
    }

    #[test]
    fn valid_packages_break_no_rule() {
        assert_eq!(rules(&[]), []);
    }

    #[test]
    fn another_world_is_refused() {
        let (rule, what) = one(("veil-node-containers", &["libp2p"], &[]));
        assert_eq!(rule, WORLD);
        assert_eq!(what, "veil-node-containers depends on libp2p, which is for veil-node-p2p only");
    }

    #[test]
    fn tests_know_what_lies_beneath_and_no_more() {
        let (rule, what) = one(("veil-node-containers", &[], &["alloy"]));
        assert_eq!((rule, what.contains("in its tests depends on alloy")), (WORLD, true), "{what}");
        let (rule, what) = one(("veil-node-containers", &[], &["veil-node-chain"]));
        assert_eq!(rule, ARROW, "{what}");
        assert_eq!(rules(&[("veil-node-core", &[], &["veil-contracts"])]), []);
        assert_eq!(rules(&[("veil-scheduler", &[], &["veil-keygen-ceremony"])]), []);
    }

    #[test]
    fn arrows_point_down() {
        let (rule, what) = one(("veil-protocol-spec", &["veil-committee"], &[]));
        assert_eq!((rule, what.as_str()), (ARROW, "veil-protocol-spec depends on veil-committee"));
        let (rule, _) = one(("veil-node-core", &["veil-node-containers"], &[]));
        assert_eq!(rule, ARROW);
    }

    #[test]
    fn protocol_crates_have_no_io_in_their_trees() {
        let found =
            rules(&[("veil-committee", &["helper"], &[]), ("helper", &["hyper-util"], &[])]);
        assert_eq!(found, [(PURE, "veil-committee -> helper -> hyper-util".to_owned())]);
        let (rule, what) = one(("veil-committee-agreement", &["tokio-util"], &[]));
        assert_eq!((rule, what.as_str()), (PURE, "veil-committee-agreement depends on tokio-util"));
    }

    #[test]
    fn only_what_computes_under_encryption_has_tfhe() {
        let (rule, what) = one(("veil-node-containers", &[], &["tfhe-csprng"]));
        let expected = (FHE_FREE, "veil-node-containers -> tfhe-csprng");
        assert_eq!((rule, what.as_str()), expected);
    }

    #[test]
    fn crates_and_rows_are_one_to_one() {
        let (rule, what) = one(("veil-attic", &[], &[]));
        assert_eq!((rule, what.as_str()), (UNLISTED, "veil-attic has no row"));
        let row = HOUSE.iter().find(|row| row.name == "veil-protocol-spec").unwrap();
        let violations = check(&[*row], &Graph::default());
        assert_eq!(violations[0].what, "veil-protocol-spec has a row, and is no crate");
    }

    #[test]
    fn the_table_has_no_circle() {
        for row in HOUSE {
            assert!(!beneath(HOUSE, row).contains(row.name), "{}", row.name);
            let known = |name: &str| HOUSE.iter().any(|row| row.name == name);
            assert!(row.knows.iter().all(|name| known(name)), "{}", row.name);
        }
    }
}
