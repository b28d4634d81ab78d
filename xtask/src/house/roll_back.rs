//! That no text tells anybody to put an older copy of a data directory in its place: a member that goes on with
//! one votes, or signs, a second time (`protocol-spec/slot.md`, Restart).
//!
//! Texts are the strings and the documentation in Rust sources, which errors and `--help` are made of, and the
//! paragraphs and rows of Markdown. One that speaks of going back to earlier data says in the same breath what
//! that costs, or names the fence that has to be passed.

use std::{fs, io, path::Path};

use super::{Violation, sources::files, tokens::tokens};

pub(super) const ROLL_BACK: &str = "no-roll-back";

/// What goes back in time.
const BACK: [&str; 11] = [
    "restor",
    "backup",
    "back up",
    "backed up",
    "roll back",
    "rolls back",
    "rolled back",
    "rolling back",
    "older copy",
    "earlier copy",
    "former copy",
];
/// And must not.
const DATA: [&str; 7] =
    ["data director", "data folder", "data_dir", "journal", ".redb", "nonces", "volume"];
/// What has to be said of it.
const WARNINGS: [&str; 2] = ["second time", "fence"];

/// The texts beneath `folder` that tell somebody to go back; paths are relative to `base`.
pub(super) fn check(folder: &Path, base: &Path) -> io::Result<Vec<Violation>> {
    let mut violations = Vec::new();
    for path in files(folder, &["rs", "md"])? {
        let source = fs::read_to_string(&path)?;
        let is_rust = path.extension().is_some_and(|extension| extension == "rs");
        let texts = if is_rust { of_rust(&source) } else { of_markdown(&source) };
        for (line, text) in texts.into_iter().filter(|(_, text)| tells_to_go_back(text)) {
            let path = path.strip_prefix(base).unwrap_or(&path).display();
            let what = format!(
                "{path}:{line} speaks of earlier data and not of what it costs (\"votes a second time\"), nor of `veil committee fence`: {text}"
            );
            violations.push(Violation::new(ROLL_BACK, what));
        }
    }
    violations.sort();
    Ok(violations)
}

fn tells_to_go_back(text: &str) -> bool {
    let text = text.to_lowercase();
    let says = |words: &[&str]| words.iter().any(|word| text.contains(word));
    says(&BACK) && says(&DATA) && !says(&WARNINGS)
}

type Text = (usize, String);

/// Strings, and blocks of documentation.
fn of_rust(source: &str) -> Vec<Text> {
    let quoted = tokens(source).into_iter().filter(|token| token.text.contains('"'));
    let strings = quoted.map(|token| (token.line, flat(&token.text.replace("\\\n", " "))));
    let mut texts: Vec<_> = strings.collect();
    let documentation = |line: &str| {
        let line = line.trim_start();
        ["///", "//!"].into_iter().find_map(|mark| line.strip_prefix(mark)).map(str::to_owned)
    };
    texts.extend(blocks(source, documentation));
    texts
}

/// Paragraphs and rows.
fn of_markdown(source: &str) -> Vec<Text> {
    blocks(source, |line| Some(line.to_owned()))
}

/// Lines that belong together; an empty one and one that is none of them end a block, a row of a table is one.
fn blocks(source: &str, text_of: impl Fn(&str) -> Option<String>) -> Vec<Text> {
    let (mut texts, mut open) = (Vec::new(), None::<Text>);
    for (number, line) in (1..).zip(source.lines()) {
        let text = text_of(line).filter(|text| !text.trim().is_empty());
        let is_row = text.as_ref().is_some_and(|text| text.trim_start().starts_with('|'));
        if text.is_none() || is_row {
            texts.extend(open.take());
        }
        if let Some(text) = text {
            let (_, block) = open.get_or_insert_with(|| (number, String::new()));
            block.push_str(&text);
            block.push(' ');
        }
    }
    texts.extend(open);
    texts.into_iter().map(|(line, block)| (line, flat(&block))).collect()
}

fn flat(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{ROLL_BACK, check};

    /// In pieces, so that this file says it nowhere.
    fn advice() -> String {
        ["the journal is damaged:", "restore the data", "directory from a", "backup"].join(" ")
    }

    #[test]
    fn advice_to_go_back_is_found_wherever_it_is_given() {
        let folder = tempfile::tempdir().unwrap();
        let base = folder.path();
        let advice = advice();
        let broken = advice.replace(" data ", " data \\\n        ");
        let (journal, back) = ("journal", "restored");
        let warned = format!("{advice}; it would vote a second time");
        for (file, text) in [
            ("error.rs", format!("#[error(\n    \"{broken}\"\n)]\nstruct Damaged;\n")),
            ("raw.rs", format!("const TEXT: &str = r#\"{advice}\"#;\n")),
            ("help.rs", format!("/// {}\nstruct Arguments;\n", advice.replace(": ", ":\n/// "))),
            ("docs/failures.md", format!("| what | do |\n|---|---|\n| it | {advice} |\n")),
            ("docs/prose.md", format!("Fine.\n\n{}\n", advice.replace(": ", ":\n"))),
            ("warned.rs", format!("const TEXT: &str = \"{warned}\";\n")),
            ("docs/warned.md", format!("{}\n", warned.replace("; ", ";\n"))),
            ("docs/apart.md", format!("The {journal}.\n\nThe code was {back}.\n")),
            ("remark.rs", format!("// the {journal} was {back} here once\nfn f() {{}}\n")),
            ("target/error.rs", format!("const TEXT: &str = \"{advice}\";\n")),
        ] {
            fs::create_dir_all(base.join(file).parent().unwrap()).unwrap();
            fs::write(base.join(file), text).unwrap();
        }
        let found = check(base, base).unwrap();
        let places: Vec<_> = found.iter().filter_map(|one| one.what.split(' ').next()).collect();
        let expected =
            ["docs/failures.md:3", "docs/prose.md:3", "error.rs:2", "help.rs:1", "raw.rs:1"];
        assert_eq!(places, expected, "{found:#?}");
        assert!(found.iter().all(|one| one.rule == ROLL_BACK));
    }
}
