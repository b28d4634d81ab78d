//! Files that import each other, directly or through others; [`super::imports`] says what counts.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
};

use super::{
    Violation,
    imports::{Import, imports},
};

pub(super) const CIRCLE: &str = "no-import-circle";

/// The circles among the files of each root file; paths are relative to `base`.
pub(super) fn check(roots: &[PathBuf], base: &Path) -> io::Result<Vec<Violation>> {
    let mut violations = Vec::new();
    for root in roots {
        let imports = imports(root)?;
        violations.extend(circles(&imports).iter().map(|circle| violation(circle, base)));
    }
    Ok(violations)
}

/// The imports that each circle consists of.
fn circles(imports: &BTreeSet<Import>) -> Vec<Vec<&Import>> {
    let mut next: BTreeMap<&Path, BTreeSet<&Path>> = BTreeMap::new();
    for import in imports {
        next.entry(&import.from).or_default().insert(&import.to);
    }
    let reached: BTreeMap<_, _> = next.keys().map(|from| (*from, reach(&next, from))).collect();
    let reaches =
        |from: &Path, to: &Path| reached.get(from).is_some_and(|reached| reached.contains(to));
    let mut circles: BTreeMap<&Path, Vec<&Import>> = BTreeMap::new();
    for import in imports.iter().filter(|import| reaches(&import.to, &import.from)) {
        // A circle is known by the first of its files.
        let first = reached.keys().find(|file| {
            **file == import.from || reaches(file, &import.from) && reaches(&import.from, file)
        });
        circles.entry(first.copied().unwrap_or(&import.from)).or_default().push(import);
    }
    circles.into_values().collect()
}

fn reach<'a>(next: &BTreeMap<&'a Path, BTreeSet<&'a Path>>, from: &Path) -> BTreeSet<&'a Path> {
    let mut reached = BTreeSet::new();
    let mut open = vec![from];
    while let Some(file) = open.pop() {
        for to in next.get(file).into_iter().flatten() {
            if reached.insert(*to) {
                open.push(to);
            }
        }
    }
    reached
}

fn violation(circle: &[&Import], base: &Path) -> Violation {
    let short = |path: &Path| path.strip_prefix(base).unwrap_or(path).display().to_string();
    let files: BTreeSet<_> = circle.iter().map(|import| short(&import.from)).collect();
    let mut names: BTreeMap<(String, usize, String), Vec<&str>> = BTreeMap::new();
    for import in circle {
        let key = (short(&import.from), import.line, short(&import.to));
        names.entry(key).or_default().push(&import.name);
    }
    let lines: Vec<_> = names
        .iter()
        .map(|((from, line, to), names)| {
            format!("\n    {from}:{line} imports {} of {to}", names.join(", "))
        })
        .collect();
    let files: Vec<_> = files.into_iter().collect();
    Violation::new(CIRCLE, format!("{} import each other:{}", files.join(", "), lines.concat()))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// The violations in a crate of these files.
    fn found(files: &[(&str, &str)]) -> Vec<String> {
        let folder = tempfile::tempdir().unwrap();
        for (name, source) in files {
            fs::write(folder.path().join(name), source).unwrap();
        }
        let violations = check(&[folder.path().join("lib.rs")], folder.path()).unwrap();
        assert!(violations.iter().all(|violation| violation.rule == CIRCLE));
        violations.into_iter().map(|violation| violation.what).collect()
    }

    #[test]
    fn two_files_that_import_each_other_are_a_circle() {
        let found = found(&[
            ("lib.rs", "mod a;\nmod b;\nmod c;"),
            ("a.rs", "use crate::b::{Y, Z};"),
            ("b.rs", "\nuse super::a::X;"),
            ("c.rs", "use crate::{a::X, b::Y};"),
        ]);
        let expected = "a.rs, b.rs import each other:\n    a.rs:1 imports Y, Z of b.rs\
                        \n    b.rs:2 imports X of a.rs";
        assert_eq!(found, [expected]);
    }

    #[test]
    fn circles_that_do_not_meet_are_told_apart() {
        let found = found(&[
            ("lib.rs", "mod a; mod b; mod c; mod d; mod e;"),
            ("a.rs", "use crate::b::X;"),
            ("b.rs", "use crate::c::X;"),
            ("c.rs", "use crate::a::X; use crate::d::X;"),
            ("d.rs", "use crate::e::X;"),
            ("e.rs", "use crate::d::X;"),
        ]);
        let first = |what: &String| what.split(" import").next().unwrap().to_owned();
        assert_eq!(found.iter().map(first).collect::<Vec<_>>(), ["a.rs, b.rs, c.rs", "d.rs, e.rs"]);
    }

    #[test]
    fn a_module_may_use_what_it_declares_and_be_used_by_it() {
        let found = found(&[
            ("lib.rs", "mod a; pub use a::X; pub struct Y;"),
            ("a.rs", "use crate::Y; pub struct X(Y);"),
        ]);
        assert!(found.is_empty(), "{found:?}");
    }
}
