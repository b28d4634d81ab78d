//! What operators install: a Debian package, a container image, a bill of materials, and what each is by SHA-256.
//!
//! # Flow
//! 1. The binary is built, stripped, and asked for its manual pages and completions.
//! 2. [`deb`] lays everything out as it lies on a machine, and makes the package with Debian's own tools.
//! 3. [`sbom`] writes what was compiled into the binary, from what cargo resolves.
//! 4. [`image`] builds images from Debian packages and that one: of a node, which is saved, and of `ops/compose`.
//! 5. [`compose`] runs that cluster.
//! 6. [`trial`] installs, upgrades, removes and purges the package in a Debian of its own.
//!
//! Needs Linux with dpkg; `strip` of binutils, which comes with gcc.

mod compose;
mod deb;
mod image;
mod sbom;
mod trial;

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use clap::Args;
use serde::Serialize;
use serde_json::json;

use crate::{
    contracts,
    failed::Failed,
    setup,
    step::{Step, target},
};

const NAME: &str = "package";
/// Of all packages of the workspace, this one.
const VERSION: &str = env!("CARGO_PKG_VERSION");

#[derive(Args)]
pub(crate) struct Options {
    /// Where the artefacts go. Default: `packages` in the build folder.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Also build the container image, and that of `ops/compose`, from Debian packages; takes root, a container engine and
    /// mmdebstrap.
    #[arg(long)]
    image: bool,
    /// Also install, upgrade, remove and purge the package in a Debian of its own; takes root and mmdebstrap.
    #[arg(long)]
    trial: bool,
    /// Also start the cluster of `ops/compose`, from images made here, until Prometheus has figures of a placement; takes
    /// docker-compose beside what --image takes.
    #[arg(long)]
    compose: bool,
    /// Print one object at the end: the artefacts, each with its SHA-256.
    #[arg(long)]
    json: bool,
}

/// A file that operators are given.
#[derive(Debug, Serialize)]
struct Artefact {
    kind: &'static str,
    file: String,
    bytes: u64,
    sha256: String,
}

impl Artefact {
    fn of(kind: &'static str, path: &Path) -> Result<Self, Failed> {
        let metadata = fs::metadata(path).map_err(|error| cannot("read", path, &error))?;
        let shown = path.to_string_lossy().into_owned();
        let line = Step::new(NAME, "sha256sum", &["--binary", &shown]).quiet().output()?;
        let sha256 = line.split_whitespace().next().unwrap_or_default().trim_start_matches('\\');
        Ok(Self { kind, bytes: metadata.len(), sha256: sha256.to_owned(), file: shown })
    }
}

/// Makes all of it.
pub(crate) fn run(options: &Options) -> Result<(), Failed> {
    let out = options.out.clone().unwrap_or_else(|| target().join("packages"));
    let out = std::path::absolute(&out).map_err(|error| cannot("find", &out, &error))?;
    let is_image = options.image || options.compose;
    if is_image || options.trial {
        setup::mmdebstrap()?;
    }
    if is_image {
        contracts::setup()?; // anvil is one of its tools
    }
    let binary = build(&out)?;
    let package = deb::build(&binary, VERSION, &out)?;
    let mut made = vec![
        Artefact::of("debian_package", &package)?,
        Artefact::of("bill_of_materials", &sbom::write_into(&out)?)?,
    ];
    if is_image {
        made.push(Artefact::of("image", &image::build(&package, VERSION, &out)?)?);
    }
    if options.trial {
        trial::run(&binary, &package, &out)?;
    }
    if options.compose {
        compose::run(&setup::compose()?)?;
    }
    let sums: String =
        made.iter().map(|of| format!("{}  {}\n", of.sha256, file_name(&of.file))).collect();
    write(&out.join("SHA256SUMS"), sums.as_bytes())?;
    if options.json {
        println!("{}", json!({ "version": VERSION, "artefacts": made }));
    } else {
        for Artefact { kind, file, bytes, sha256 } in &made {
            println!("{kind}: {file}\n   {bytes} bytes, SHA-256 {sha256}");
        }
    }
    Ok(())
}

/// What every run of the tests does of it: the package's files from the binary that was tested anyway, and the units as
/// systemd reads them.
pub(crate) fn test() -> Result<(), Failed> {
    let out = target().join("packages");
    let binary = build(&out)?;
    let package = deb::build(&binary, VERSION, &out)?;
    deb::check(&package)?;
    deb::check_units(&out)?;
    sbom::write_into(&out).map(drop)
}

/// The binary as it is installed: without what only debuggers read.
fn build(out: &Path) -> Result<PathBuf, Failed> {
    Step::cargo(NAME, &["build", "--release", "--bin", "veil"]).run()?;
    fs::create_dir_all(out).map_err(|error| cannot("create", out, &error))?;
    let (built, stripped) = (target().join("release/veil"), out.join("veil"));
    let args = ["-o", &stripped.to_string_lossy(), &built.to_string_lossy()];
    Step::new(NAME, "strip", &args).run()?;
    Ok(stripped)
}

fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

fn cannot(what: &str, path: &Path, error: &dyn std::fmt::Display) -> Failed {
    Failed::new(NAME, format!("cannot {what} {}: {error}", path.display()))
}

/// Writes a file, and the folders above it.
fn write(path: &Path, contents: &[u8]) -> Result<(), Failed> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(|error| cannot("create", folder, &error))?;
    }
    fs::write(path, contents).map_err(|error| cannot("write", path, &error))
}

fn read(path: &Path) -> Result<String, Failed> {
    fs::read_to_string(path).map_err(|error| cannot("read", path, &error))
}
