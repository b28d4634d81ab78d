//! The contracts: their tools, their tests, and the files that the Rust side takes from them.
//!
//! The compiler, forge and anvil come from npm, pinned by `contracts/package-lock.json`. The bindings
//! are made from `contracts/abi`, which is checked in, so that `cargo build` needs no compiler of
//! contracts. [`test()`] makes it again and compares, and does the same with the storage layouts, the gas
//! figures in `contracts/snapshots`, and the page that lists them. `VEIL_BLESS=1` writes them instead.

mod gas;
mod layout;
mod mutants;
pub(crate) mod mutate;

use std::{env, fs, path::PathBuf};

use serde_json::{Value, json};

use crate::{
    failed::Failed,
    step::{Step, probe, root},
};

const NAME: &str = "contracts";
/// The contracts that have bindings.
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
    "FeePool",
];

fn folder() -> PathBuf {
    root().join("contracts")
}

/// Path of the program itself: npm's script around it hides its exit code.
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

/// Installs the forge, anvil, solc and OpenZeppelin contracts of the lock file beside the sources,
/// unless they are installed. Needs npm.
pub(crate) fn setup() -> Result<(), Failed> {
    // `npm ls` fails if a package is missing or has another version.
    let installed = probe("npm", &["ls", "--prefix", "contracts"]).is_some();
    let runs = |tool: &str| probe(&native(tool)?, &["--version"]);
    if let (true, Some(forge), Some(anvil)) = (installed, runs("forge"), runs("anvil")) {
        println!("contracts: {forge}; {anvil}");
        return Ok(());
    }
    println!("contracts: forge, anvil, solc or libraries missing; installs them in contracts/");
    // The packages' own scripts need not run: the platform's package has the binaries.
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

/// Checks the format, compiles, tests with gas figures, and compares the files that are checked in.
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
    let files = CONTRACTS.map(|contract| (contract, format!("abi/{contract}.json")));
    // What Rust's tests deploy beside them.
    let multisig = ("Multisig", "test/multisig.json".to_owned());
    for (contract, file) in files.into_iter().chain([multisig]) {
        let built = built(contract)?;
        let abi = json!({ "abi": built["abi"], "bytecode": built["bytecode"]["object"] });
        compare(&file, &format!("{abi:#}\n"), bless)?;
    }
    compare("storage.json", &format!("{:#}\n", layout::all()?), bless)?;
    compare("gas.md", &gas::page()?, bless)?;
    println!("== {NAME}: abi, storage.json and gas.md match the sources");
    Ok(())
}

/// The artifact that forge compiled of a contract.
fn built(contract: &str) -> Result<Value, Failed> {
    read(folder().join(format!("out/{contract}.sol/{contract}.json")))
}

fn read(path: PathBuf) -> Result<Value, Failed> {
    let failed = |reason: String| Failed::new(NAME, format!("{}: {reason}", path.display()));
    let text = fs::read_to_string(&path).map_err(|error| failed(error.to_string()))?;
    serde_json::from_str(&text).map_err(|error| failed(error.to_string()))
}

/// Compares a file in `contracts` with what is expected, or writes it.
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
        "contracts/{file} differs from what the sources give: review the change, then write it with \
         VEIL_BLESS=1 cargo xtask contracts"
    );
    Err(Failed::new(NAME, reason))
}
