//! The contracts: their tools, their tests, and what the Rust side has of them.
//!
//! The compiler, forge and anvil come from npm, pinned by `contracts/package-lock.json`. What
//! `cargo build` needs of the contracts, `contracts/abi`, is checked in; here it is made anew and
//! compared, and so are the storage layouts, the gas figures in `contracts/snapshots`, and the page
//! that lists them. `VEIL_BLESS=1` writes all of it instead.

mod gas;
mod layout;

use std::{env, fs, path::PathBuf};

use serde_json::{Value, json};

use crate::step::{Failed, Step, probe, root};

const NAME: &str = "contracts";
/// What `contracts/bindings` is made from.
const CONTRACTS: [&str; 10] = [
    "Timelock",
    "Directory",
    "NodeRegistry",
    "PolicyRegistry",
    "CommitteeElection",
    "KeyCeremony",
    "JobBoard",
    "AssignmentAnchor",
    "Disputes",
    "CheckpointChannel",
];

fn folder() -> PathBuf {
    root().join("contracts")
}

/// The program itself; npm's script around it hides how it ended.
fn native(tool: &str) -> Option<String> {
    let packages = fs::read_dir(folder().join("node_modules/@foundry-rs")).ok()?;
    let prefix = format!("{tool}-");
    packages
        .flatten()
        .filter(|package| package.file_name().to_string_lossy().starts_with(&prefix))
        .map(|package| package.path().join("bin").join(tool))
        .find(|program| program.is_file())
        .map(|program| program.to_string_lossy().into_owned())
}

/// Installs forge, anvil, solc and OpenZeppelin's contracts beside the sources, if the ones there
/// are not those of the lock file. Needs npm.
pub(crate) fn setup() -> Result<(), Failed> {
    // It fails if a package is missing or has another version.
    let installed = probe("npm", &["ls", "--prefix", "contracts"]).is_some();
    let runs = |tool: &str| probe(&native(tool)?, &["--version"]);
    if let (true, Some(forge), Some(anvil)) = (installed, runs("forge"), runs("anvil")) {
        println!("contracts: {forge}; {anvil}");
        return Ok(());
    }
    println!("contracts: forge, anvil, solc or libraries missing; installs them in contracts/");
    // Nothing of the packages' own scripts has to run: the platform's package has the binaries.
    Step::new(NAME, "npm", &["ci", "--ignore-scripts"]).within("contracts").run()?;
    match (runs("forge"), runs("anvil")) {
        (Some(forge), Some(anvil)) => println!("contracts: installed, {forge}; {anvil}"),
        _ => {
            let reason = "forge or anvil does not run: package.json names the builds for Linux on \
                x86-64; on another platform name that one's";
            return Err(Failed::new(NAME, reason));
        }
    }
    Ok(())
}

/// Format, compilation without warnings, tests with gas figures, and what is checked in of all that.
pub(crate) fn test() -> Result<(), Failed> {
    let bless = env::var("VEIL_BLESS").is_ok_and(|value| value == "1");
    let forge = native("forge")
        .ok_or_else(|| Failed::new(NAME, "forge is not installed: run `cargo xtask setup`"))?;
    let step = |args: &[&str]| Step::new(NAME, &forge, args).within("contracts");
    if !bless {
        step(&["fmt", "--check"]).run()?;
    }
    step(&["build"]).run()?;
    let check = if bless { "false" } else { "true" };
    step(&["test"]).env("FORGE_SNAPSHOT_CHECK", check).run()?;
    for contract in CONTRACTS {
        let built = built(contract)?;
        let abi = json!({ "abi": built["abi"], "bytecode": built["bytecode"]["object"] });
        compare(&format!("abi/{contract}.json"), &format!("{abi:#}\n"), bless)?;
    }
    compare("storage.json", &format!("{:#}\n", layout::all()?), bless)?;
    compare("gas.md", &gas::page()?, bless)?;
    println!("== {NAME}: abi, storage.json and gas.md are those of the sources");
    Ok(())
}

/// What forge made of a contract.
fn built(contract: &str) -> Result<Value, Failed> {
    read(folder().join(format!("out/{contract}.sol/{contract}.json")))
}

fn read(path: PathBuf) -> Result<Value, Failed> {
    let failed = |reason: String| Failed::new(NAME, format!("{}: {reason}", path.display()));
    let text = fs::read_to_string(&path).map_err(|error| failed(error.to_string()))?;
    serde_json::from_str(&text).map_err(|error| failed(error.to_string()))
}

/// Compares a file in `contracts` with what it should be, or writes it.
fn compare(file: &str, expected: &str, bless: bool) -> Result<(), Failed> {
    let path = folder().join(file);
    if bless {
        return fs::write(&path, expected)
            .map_err(|error| Failed::new(NAME, format!("{}: {error}", path.display())));
    }
    if fs::read_to_string(&path).is_ok_and(|found| found == expected) {
        return Ok(());
    }
    let reason = format!(
        "contracts/{file} is not that of the sources: look at the change, then write it with \
         VEIL_BLESS=1 cargo xtask contracts"
    );
    Err(Failed::new(NAME, reason))
}
