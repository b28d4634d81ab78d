//! How many lines of source a crate may have, without its tests.
//!
//! # What counts
//! Every line of the `.rs` files in the crate's `src`, except:
//! - a test module: what follows `#[cfg(test)]` before `mod name {`, up to the end of its file, and files or folders
//!   that `#[cfg(test)]` before `mod name;` declares;
//! - test files: those in a folder `tests`, `tests.rs`, and those whose names end in `_tests.rs`.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
};

use super::{
    Violation,
    sources::files,
    table::{MOST_LINES, MOST_LINES_OF, TEST_CODE},
};

pub(super) const SIZE: &str = "crate-size";

/// The crates that are too long, of these: each with its name and its root files.
pub(super) fn check<'a>(
    crates: impl Iterator<Item = (&'a str, &'a [String])>,
) -> io::Result<Vec<Violation>> {
    let mut violations = Vec::new();
    for (name, roots) in crates.filter(|(name, _)| !TEST_CODE.contains(name)) {
        let sources = roots.iter().filter_map(|root| Path::new(root).parent());
        let sources: BTreeSet<_> = sources.filter(|folder| folder.ends_with("src")).collect();
        let mut lines = 0;
        for folder in sources {
            lines += count(folder)?;
        }
        let own = MOST_LINES_OF.iter().find(|(of, _)| *of == name);
        let most = own.map_or(MOST_LINES, |(_, most)| *most);
        if lines > most {
            let what = format!(
                "{name} has {lines} lines of source without tests, {most} are allowed; move what does not need the \
                 rest of it into the crate it belongs to, or one of its own"
            );
            violations.push(Violation::new(SIZE, what));
        }
    }
    violations.sort();
    Ok(violations)
}

/// The lines that count beneath a crate's `src`.
fn count(folder: &Path) -> io::Result<usize> {
    let (mut counted, mut tests) = (Vec::new(), BTreeSet::new());
    for path in files(folder, &["rs"])? {
        let source = Source::read(&path, &fs::read_to_string(&path)?);
        tests.extend(source.tests);
        counted.push((path, source.lines));
    }
    let is_test = |path: &Path| {
        let inside = path.strip_prefix(folder).unwrap_or(path);
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name == "tests.rs"
            || name.ends_with("_tests.rs")
            || inside.parent().is_some_and(|above| above.iter().any(|part| part == "tests"))
            || tests.iter().any(|test| path.starts_with(test))
    };
    Ok(counted.iter().filter(|(path, _)| !is_test(path)).map(|(_, lines)| lines).sum())
}

/// What one file comes to.
#[derive(Debug, Default, PartialEq, Eq)]
struct Source {
    /// The lines that count, if it is no test file.
    lines: usize,
    /// Files and folders of modules that are compiled for tests only.
    tests: Vec<PathBuf>,
}

impl Source {
    fn read(path: &Path, text: &str) -> Self {
        let lines: Vec<_> = text.lines().map(str::trim).collect();
        let (mut source, mut at) = (Self::default(), 0);
        while at < lines.len() {
            let attributes: Vec<_> =
                lines[at..].iter().take_while(|line| line.starts_with("#[")).collect();
            let item = lines.get(at + attributes.len()).and_then(|line| module(line));
            match item.filter(|_| attributes.contains(&&"#[cfg(test)]")) {
                Some(Module { is_file: false, .. }) => return source,
                Some(Module { name, .. }) => {
                    let given = attributes
                        .iter()
                        .find_map(|line| line.strip_prefix("#[path = \"")?.strip_suffix("\"]"));
                    source.tests.extend(declared(path, name, given));
                    at += attributes.len() + 1;
                }
                None => {
                    let step = attributes.len().max(1);
                    source.lines += step;
                    at += step;
                }
            }
        }
        source
    }
}

/// The module that a line begins.
struct Module<'a> {
    name: &'a str,
    /// Whether it is in a file of its own.
    is_file: bool,
}

fn module(line: &str) -> Option<Module<'_>> {
    let (visibility, name) = line.split_once("mod ")?;
    let is_visibility = visibility.is_empty() || visibility.starts_with("pub");
    let (is_file, name) = match name.strip_suffix(';') {
        Some(name) => (true, name),
        None => (false, name.strip_suffix(" {")?),
    };
    is_visibility.then_some(Module { name, is_file })
}

/// Where a module is that the file at `path` declares: its file, and the folder of its modules.
fn declared(path: &Path, name: &str, given: Option<&str>) -> Vec<PathBuf> {
    let folder = path.parent().unwrap_or(path);
    if let Some(given) = given {
        return vec![folder.join(given)];
    }
    let is_root = ["lib.rs", "main.rs"].iter().any(|root| path.ends_with(root));
    let modules = if is_root { folder.to_owned() } else { path.with_extension("") };
    vec![modules.join(format!("{name}.rs")), modules.join(name)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(base: &Path, file: &str, text: &str) {
        let path = base.join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    #[test]
    fn tests_do_not_count() {
        let folder = tempfile::tempdir().unwrap();
        let base = folder.path();
        for (file, text) in [
            ("lib.rs", "mod a;\n#[cfg(test)]\nmod fake;\n#[must_use]\nfn f() {}\n"), // 3
            ("a.rs", "\n\n#[cfg(test)]\n#[allow(x)]\nmod tests {\n}\n"),             // 2
            ("b.rs", "//\n#[cfg(test)]\npub(crate) mod samples;\nmod model;\n"),     // 2
            ("c.rs", "#[cfg(test)]\n#[path = \"odd.rs\"]\nmod tests;\nuse d;\n"),    // 1
            ("d.rs", "#[cfg(test)]\nfn f() {}\n#[cfg(not(test))]\nmod g {\n}\n"),    // 5
            ("fake.rs", "\n"),
            ("fake/more.rs", "\n"),
            ("b/samples.rs", "\n"),
            ("b/model.rs", "\n\n\n\n"), // 4
            ("odd.rs", "\n"),
            ("tests.rs", "\n"),
            ("a/tests/more.rs", "\n"),
            ("state_tests.rs", "\n"),
        ] {
            write(base, &format!("tests/src/{file}"), text);
        }
        // A folder `tests` above the crate is none of its own.
        assert_eq!(count(&base.join("tests/src")).unwrap(), 3 + 2 + 2 + 1 + 5 + 4);
    }

    #[test]
    fn long_crates_are_named_with_what_they_may_have() {
        let folder = tempfile::tempdir().unwrap();
        let base = folder.path();
        let names = ["veil-a", "veil-b", "veil-node", "veil-node-core", "veil-benches"];
        for (name, lines) in names.iter().zip([7_001, 7_000, 6_001, 4_501, 9_000]) {
            write(base, &format!("{name}/src/main.rs"), &"\n".repeat(lines));
            write(base, &format!("{name}/tests/main.rs"), &"\n".repeat(9_000));
        }
        let roots = names.map(|name| {
            let root = |file: &str| base.join(name).join(file).to_string_lossy().into_owned();
            [root("src/main.rs"), root("tests/main.rs")]
        });
        let crates = names.iter().zip(&roots).map(|(name, roots)| (*name, roots.as_slice()));
        let found = check(crates).unwrap();
        let told: Vec<_> =
            found.iter().map(|of| (of.rule, of.what.split(';').next().unwrap())).collect();
        let expected = [
            "veil-a has 7001 lines of source without tests, 7000 are allowed",
            "veil-node has 6001 lines of source without tests, 6000 are allowed",
            "veil-node-core has 4501 lines of source without tests, 4500 are allowed",
        ];
        assert_eq!(told, expected.map(|what| (SIZE, what)));
    }
}
