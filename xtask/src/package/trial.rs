//! The package on a machine: a Debian of its own, in a folder, in which it is installed, upgraded, removed and purged.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use super::{NAME, VERSION, cannot, deb, image::debian, read, write};
use crate::{failed::Failed, step::Step};

/// The package depends on them, or asks for them while it is installed.
const INCLUDED: &str = "adduser,libgcc-s1";
/// A file that no purge may take unasked.
const KEY: &str = "var/lib/veil/member/share.age";

/// A Debian in a folder, gone when it is dropped.
struct Machine {
    root: PathBuf,
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.root); // the next run begins with that
    }
}

impl Machine {
    /// Runs a program of it.
    fn run(&self, program: &[&str]) -> Result<String, Failed> {
        let root = self.root.to_string_lossy();
        Step::new(NAME, "chroot", &[&[&*root], program].concat())
            .env("DEBIAN_FRONTEND", "noninteractive")
            .output()
    }

    fn install(&self, package: &Path) -> Result<(), Failed> {
        let inside = self.path("tmp/veil.deb");
        fs::copy(package, &inside).map_err(|error| cannot("write", &inside, &error))?;
        // What an administrator changed stays.
        self.run(&["dpkg", "--force-confold", "--install", "/tmp/veil.deb"]).map(drop)
    }

    /// The configuration of a role with the two lines that nobody else can know, and where it is.
    fn filled_in(&self, role: &str) -> Result<String, Failed> {
        let text = read(&self.path(&format!("etc/veil/{role}.toml")))?;
        let lines = text.lines().map(|line| match line.split_once(" = ") {
            Some((key @ ("contract" | "cluster"), zero)) => {
                format!("{key} = {}\n", zero.replacen("0\"", "1\"", 1))
            }
            _ => format!("{line}\n"),
        });
        let at = format!("/tmp/{role}.toml");
        write(&self.path(at.trim_start_matches('/')), lines.collect::<String>().as_bytes())?;
        Ok(at)
    }

    fn path(&self, of: &str) -> PathBuf {
        self.root.join(of)
    }

    fn holds(&self, is: bool, path: &str, when: &str) -> Result<(), Failed> {
        let word = if is { "gone" } else { "still there" };
        match self.path(path).exists() == is {
            true => Ok(()),
            false => Err(Failed::new(NAME, format!("/{path} is {word} {when}"))),
        }
    }
}

/// Installs, upgrades, removes, purges.
pub(super) fn run(binary: &Path, package: &Path, out: &Path) -> Result<(), Failed> {
    let machine = Machine { root: out.join("machine") };
    let _ = fs::remove_dir_all(&machine.root); // of a run that was cut off
    debian(&machine.root, INCLUDED)?;

    machine.install(package)?;
    let version = machine.run(&["veil", "--version"])?;
    if version.trim() != format!("veil {VERSION}") {
        return Err(Failed::new(NAME, format!("the installed program says `{version}`")));
    }
    let state = machine.path("var/lib/veil/member");
    let metadata = fs::metadata(&state).map_err(|error| cannot("read", &state, &error))?;
    if metadata.permissions().mode() & 0o777 != 0o700 || metadata.uid() == 0 {
        return Err(Failed::new(NAME, format!("{} is open to others", state.display())));
    }
    for role in ["member", "worker"] {
        machine.run(&["veil", "config", "check", &machine.filled_in(role)?])?;
    }

    // What the administrator and the node wrote outlives an upgrade.
    let configuration = machine.path("etc/veil/member.toml");
    let changed = format!("{}\n# changed here\n", read(&configuration)?);
    write(&configuration, changed.as_bytes())?;
    write(&machine.path(KEY), b"a share")?;
    let newer = deb::build(binary, &format!("{VERSION}+1"), &out.join("newer"))?;
    machine.install(&newer)?;
    let status = machine.run(&["dpkg-query", "--show", "--showformat=${Version}", "veil"])?;
    if status.trim() != format!("{VERSION}+1") || read(&configuration)? != changed {
        return Err(Failed::new(NAME, "the upgrade did not keep to what was there"));
    }
    machine.holds(true, KEY, "after the upgrade")?;

    machine.run(&["dpkg", "--remove", "veil"])?;
    machine.holds(false, "usr/bin/veil", "after the removal")?;
    machine.holds(true, "etc/veil/member.toml", "after the removal")?;
    machine.run(&["dpkg", "--purge", "veil"])?;
    machine.holds(false, "etc/veil/member.toml", "after the purge")?;
    machine.holds(true, KEY, "after the purge: it takes no keys")?;

    machine.install(package)?;
    machine.run(&["env", "VEIL_PURGE_DATA=yes", "dpkg", "--purge", "veil"])?;
    machine.holds(false, KEY, "after a purge of the data too")
}
