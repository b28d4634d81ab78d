//! How long a source file may be. Vectors and generated files are not source files.

use std::{fs, io, path::Path};

use super::{Violation, sources::files};

pub(super) const LENGTH: &str = "file-length";
const MOST_LINES: usize = 500;
const SOURCES: [&str; 2] = ["rs", "sol"];

/// The source files beneath `folder` that are too long; paths are relative to `base`.
pub(super) fn check(folder: &Path, base: &Path) -> io::Result<Vec<Violation>> {
    let mut violations = Vec::new();
    for path in files(folder, &SOURCES)? {
        let lines = fs::read_to_string(&path)?.lines().count();
        if lines > MOST_LINES {
            let path = path.strip_prefix(base).unwrap_or(&path).display();
            let what = format!("{path} has {lines} lines; split it, {MOST_LINES} are allowed");
            violations.push(Violation::new(LENGTH, what));
        }
    }
    violations.sort();
    Ok(violations)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{LENGTH, check};

    #[test]
    fn long_files_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let base = folder.path();
        for (file, lines) in [
            ("a/long.rs", 501),
            ("a/fits.rs", 500),
            ("a/long.json", 501),
            ("Long.sol", 502),
            ("a/vectors/long.rs", 501),
            ("target/long.rs", 501),
            (".git/long.rs", 501),
        ] {
            fs::create_dir_all(base.join(file).parent().unwrap()).unwrap();
            fs::write(base.join(file), "\n".repeat(lines)).unwrap();
        }
        let found = check(base, base).unwrap();
        let found_texts: Vec<_> = found.iter().map(|violation| violation.what.as_str()).collect();
        let expected = [
            "Long.sol has 502 lines; split it, 500 are allowed",
            "a/long.rs has 501 lines; split it, 500 are allowed",
        ];
        assert_eq!(found_texts, expected);
        assert!(found.iter().all(|violation| violation.rule == LENGTH));
    }
}
