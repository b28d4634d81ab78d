//! `docs/failures.md` and `docs/backup.md` against the code: what they quote of it is said there, and what they tell anybody
//! to run exists.

use std::{
    fs,
    path::{Path, PathBuf},
};

use clap::CommandFactory;

use super::Cli;

/// What is said by code of others.
const NOT_OURS: [&str; 1] = ["invalid peer certificate"];
/// How far apart two parts of one message may be, where what stands between is filled in.
const REACH: usize = 300;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn document(name: &str) -> String {
    fs::read_to_string(root().join("docs").join(name)).unwrap()
}

/// Every source file, its strings in one line: as the compiler joins them.
fn sources() -> Vec<String> {
    fn read(folder: &Path, found: &mut Vec<String>) {
        for entry in fs::read_dir(folder).unwrap().flatten() {
            let (path, name) = (entry.path(), entry.file_name());
            let name = name.to_string_lossy();
            if path.is_dir() && name != "tests" {
                read(&path, found);
            } else if name.ends_with(".rs") && !name.ends_with("tests.rs") {
                let text = fs::read_to_string(path).unwrap().replace("\\\"", "\"");
                let joined: String = text.split("\\\n").map(str::trim_start).collect();
                found.push(joined.split_whitespace().collect::<Vec<_>>().join(" "));
            }
        }
    }
    let mut found = Vec::new();
    for folder in ["committee", "keygen-ceremony", "node", "protocol-spec", "scheduler"] {
        read(&root().join(folder), &mut found);
    }
    found
}

/// What a quotation says for certain: without `...`, and without the letters that stand for numbers.
fn parts(quoted: &str) -> Vec<String> {
    let filled = |word: &str| word.starts_with("...") || word == "N" || word == "M";
    let words: Vec<&str> = quoted.split(' ').collect();
    let parts = words.split(|word| filled(word)).map(|words| words.join(" "));
    parts
        .map(|part| part.trim_matches(|c| c == '.' || c == ' ').to_owned())
        .filter(|p| !p.is_empty())
        .collect()
}

fn says(source: &str, parts: &[String]) -> bool {
    let Some((first, rest)) = parts.split_first() else { return false };
    source.match_indices(first.as_str()).any(|(at, _)| {
        let mut after = &source[at + first.len()..];
        rest.iter().all(|part| match after.find(part.as_str()) {
            Some(at) if at < REACH => {
                after = &after[at + part.len()..];
                true
            }
            _ => false,
        })
    })
}

/// `wrong_proof` is `WrongProof` in the code.
fn as_variant(word: &str) -> String {
    let capital = |part: &str| {
        let mut letters = part.chars();
        letters.next().into_iter().flat_map(char::to_uppercase).chain(letters).collect::<String>()
    };
    word.split('_').map(capital).collect()
}

fn code_spans(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

#[test]
fn what_the_failures_quote_is_said_by_the_code() {
    let (document, sources) = (document("failures.md"), sources());
    let mut quotations = 0;
    for row in document.lines().filter(|line| line.starts_with("| ")) {
        let cell = row[2..].split(" | ").next().unwrap();
        for quoted in code_spans(cell).filter(|quoted| !quoted.starts_with("veil ")) {
            quotations += 1;
            let wanted = parts(quoted);
            let variant = [as_variant(quoted)];
            let known =
                sources.iter().any(|source| says(source, &wanted) || says(source, &variant));
            assert!(known || NOT_OURS.contains(&quoted), "nothing says `{quoted}`");
        }
    }
    assert!(quotations > 80, "the tables are not found: {quotations}");
}

/// Follows the words of a command line down the tree of commands.
fn check_command(line: &str) {
    let tree = Cli::command();
    let mut at = &tree;
    for word in line.split_whitespace().skip(1) {
        if let Some(option) = word.strip_prefix("--") {
            let name = option.split('=').next().unwrap();
            let mut known = at.get_arguments().chain(tree.get_arguments());
            assert!(known.any(|known| known.get_long() == Some(name)), "`{line}`: no --{name}");
        } else if let Some(below) = at.find_subcommand(word) {
            at = below;
        } else {
            assert!(!at.has_subcommands(), "`{line}`: no command {word}");
        }
    }
}

#[test]
fn what_the_failures_and_the_runbook_tell_to_run_exists() {
    let mut commands = 0;
    for name in ["failures.md", "backup.md"] {
        let document = document(name);
        let (text, blocks): (Vec<_>, Vec<_>) =
            document.split("```").enumerate().partition(|(i, _)| i % 2 == 0);
        let spans = text.iter().flat_map(|(_, text)| code_spans(text));
        let lines = blocks.iter().flat_map(|(_, block)| block.lines().map(str::trim));
        let lines = lines.map(|line| line.split(" #").next().unwrap().trim());
        for line in spans.chain(lines).filter(|line| line.starts_with("veil ")) {
            commands += 1;
            check_command(&line.replace('\n', " "));
        }
    }
    assert!(commands > 50, "the commands are not found: {commands}");
}

/// What a contract refuses is said with the next command: that exists, too.
#[test]
fn what_refusals_of_contracts_tell_to_run_exists() {
    let mut commands = 0;
    let folder = root().join("node/chain/refusal/src");
    for file in fs::read_dir(folder).unwrap().flatten() {
        let text = fs::read_to_string(file.path()).unwrap();
        for span in code_spans(&text).filter(|span| span.starts_with("veil ")) {
            commands += 1;
            // What is filled in is no word of a command.
            check_command(span.split(" {").next().unwrap());
        }
    }
    assert!(commands > 40, "the sentences are not found: {commands}");
}

#[test]
fn every_kind_of_failure_begins_with_a_command() {
    let document = document("failures.md");
    for section in document.split("\n# ") {
        let before_table = section.split("\n|").next().unwrap();
        let has_command = code_spans(before_table).any(|span| span.starts_with("veil "));
        assert!(has_command, "{}", section.lines().next().unwrap());
    }
}
