//! `cargo xtask mutate`: faults of the contracts, one at a time, and whether a test fails for each.
//!
//! The contracts and their tests are copied, so that nothing here changes, and compiled with dynamic linking of
//! tests, which compiles only the changed contract anew. That judges `new` and libraries too mildly, so that what
//! survives is run once more without. Gas and storage snapshots are written in the copy and count for nothing.
//!
//! What survives with a reason is in `contracts/mutants.json`: `file`, `operator`, `before`, `after` as printed,
//! and `reason`. Anything else that survives fails the command.

use std::{fs, path::Path, process::Command};

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{
    NAME, folder,
    mutants::{self, Mutant},
    native,
};
use crate::{failed::Failed, step::root};

/// Which faults are made.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Print one JSON object: `killed`, `invalid` (it does not compile), `survived`, `triaged`.
    #[arg(long)]
    json: bool,
    /// Only files whose path has this in it, such as `Disputes`.
    #[arg(long)]
    only: Option<String>,
    /// Every Nth fault only.
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    every: u32,
}

/// One that may survive.
#[derive(Deserialize)]
struct Known {
    file: String,
    operator: String,
    before: String,
    after: String,
    reason: String,
}

#[derive(Serialize)]
struct Triaged {
    #[serde(flatten)]
    mutant: Mutant,
    reason: String,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Killed,
    Invalid,
    Survived,
}

impl Known {
    fn is(&self, mutant: &Mutant) -> bool {
        (self.file == mutant.file && self.operator == mutant.operator)
            && (self.before == mutant.before && self.after == mutant.after)
    }
}

/// Makes each fault, and tells which survive.
pub(crate) fn run(options: &Options) -> Result<(), Failed> {
    let failed = |reason: String| Failed::new(NAME, reason);
    let forge = native("forge")
        .ok_or_else(|| failed("forge is not installed: run `cargo xtask setup`".to_owned()))?;
    let known = fs::read_to_string(folder().join("mutants.json"))
        .map_err(|error| failed(format!("contracts/mutants.json: {error}")))?;
    let known: Vec<Known> = serde_json::from_str(&known)
        .map_err(|error| failed(format!("contracts/mutants.json: {error}")))?;
    let copy = tempfile::tempdir().map_err(|error| failed(format!("a folder: {error}")))?;
    let contracts = copy_to(copy.path()).map_err(|error| failed(format!("the copy: {error}")))?;
    if judge(&forge, &contracts, true)? != Outcome::Survived {
        return Err(failed("the tests fail without any fault: `cargo xtask contracts`".to_owned()));
    }

    let (mut killed, mut invalid) = (0_usize, 0_usize);
    let (mut survived, mut triaged) = (Vec::new(), Vec::new());
    let every = options.every as usize;
    let wanted = |file: &str| options.only.as_ref().is_none_or(|only| file.contains(only.as_str()));
    for (mutant, source) in
        all()?.into_iter().filter(|(mutant, _)| wanted(&mutant.file)).step_by(every)
    {
        let place = contracts.join(&mutant.file);
        write(&place, &mutants::apply(&source, &mutant))?;
        let mut outcome = judge(&forge, &contracts, true)?;
        if outcome == Outcome::Survived {
            outcome = judge(&forge, &contracts, false)?;
        }
        write(&place, &source)?;
        let Mutant { file, line, operator, after, .. } = &mutant;
        let word = match outcome {
            Outcome::Killed => "killed",
            Outcome::Invalid => "invalid",
            Outcome::Survived => "SURVIVED",
        };
        eprintln!("{word:8} {file}:{line} {operator}: {after}");
        match outcome {
            Outcome::Killed => killed += 1,
            Outcome::Invalid => invalid += 1,
            Outcome::Survived => match known.iter().find(|known| known.is(&mutant)) {
                Some(known) => triaged.push(Triaged { mutant, reason: known.reason.clone() }),
                None => survived.push(mutant),
            },
        }
    }
    if options.json {
        let object = json!({
            "killed": killed, "invalid": invalid, "survived": survived, "triaged": triaged,
        });
        println!("{object:#}");
    } else {
        println!(
            "{killed} killed, {invalid} do not compile, {} survive with a reason, {} without",
            triaged.len(),
            survived.len()
        );
    }
    if survived.is_empty() {
        return Ok(());
    }
    Err(failed(format!(
        "{} faults make no test fail: add a test, or a reason to contracts/mutants.json",
        survived.len()
    )))
}

/// All faults of all sources but the interfaces, with the sources.
fn all() -> Result<Vec<(Mutant, String)>, Failed> {
    let mut found = Vec::new();
    for below in ["src", "src/libraries"] {
        let failed = |error| Failed::new(NAME, format!("contracts/{below}: {error}"));
        let entries = fs::read_dir(folder().join(below)).map_err(failed)?;
        let mut files: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
        files.sort();
        for path in files.iter().filter(|path| path.extension().is_some_and(|end| end == "sol")) {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let source = fs::read_to_string(path).map_err(failed)?;
            let mutants = mutants::of(&format!("{below}/{name}"), &source);
            found.extend(mutants.into_iter().map(|mutant| (mutant, source.clone())));
        }
    }
    Ok(found)
}

/// What the tests need, in a folder of the same shape.
fn copy_to(place: &Path) -> std::io::Result<std::path::PathBuf> {
    let contracts = place.join("contracts");
    for below in ["src", "src/interfaces", "src/libraries", "test", "bin", "snapshots"] {
        copy_files(&folder().join(below), &contracts.join(below))?;
    }
    copy_files(&root().join("protocol-spec/vectors"), &place.join("protocol-spec/vectors"))?;
    fs::copy(folder().join("foundry.toml"), contracts.join("foundry.toml"))?;
    let packages = fs::canonicalize(folder().join("node_modules"))?;
    std::os::unix::fs::symlink(packages, contracts.join("node_modules"))?;
    Ok(contracts)
}

/// The files of one folder, without what is below it.
fn copy_files(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)?.flatten() {
        if entry.file_type()?.is_file() {
            fs::copy(entry.path(), to.join(entry.file_name()))?;
        }
    }
    Ok(())
}

fn write(path: &Path, text: &str) -> Result<(), Failed> {
    fs::write(path, text).map_err(|error| Failed::new(NAME, format!("{}: {error}", path.display())))
}

/// Compiles, and runs the tests until one fails.
fn judge(forge: &str, contracts: &Path, linked: bool) -> Result<Outcome, Failed> {
    let run = |arguments: &[&str]| {
        let mut command = Command::new(forge);
        command.args(arguments).current_dir(contracts);
        command.env("FORGE_SNAPSHOT_CHECK", "false").env("FOUNDRY_DENY", "never");
        command.env("FOUNDRY_FUZZ_RUNS", "32").env("FOUNDRY_INVARIANT_RUNS", "8");
        if linked {
            command.env("FOUNDRY_DYNAMIC_TEST_LINKING", "true");
        }
        let output = command.output();
        output.map_err(|error| Failed::new(NAME, format!("{forge}: {error}")))
    };
    if !run(&["build", "--quiet"])?.status.success() {
        return Ok(Outcome::Invalid);
    }
    let passed = run(&["test", "--fail-fast", "--quiet"])?.status.success();
    Ok(if passed { Outcome::Survived } else { Outcome::Killed })
}
