//! What a machine needs beyond a Rust tool chain.
//!
//! - rustfmt and clippy, for `cargo xtask check`;
//! - a C compiler (`cc`), for BLAKE3's assembly and as the linker;
//! - Node.js and npm, and with them forge, anvil, solc and OpenZeppelin's contracts, in
//!   `contracts/node_modules`.
//! - dpkg-shlibdeps and systemd-analyze, for `cargo xtask package`;
//! - promtool of Prometheus, which reads what is in `ops`;
//! - a Docker engine, a local registry and a sample image, see [`mod@containers`];
//! - for `cargo xtask podman` alone: Podman; for `cargo xtask demo --example` and the image and trial of `cargo xtask package` alone: mmdebstrap.
//!
//! Idempotent: it reports a tool that is installed, and does not touch it.

use crate::{
    containers::{self, Containers},
    contracts,
    failed::Failed,
    ops,
    step::{Step, is_root, probe},
};

const NAME: &str = "setup";

pub(crate) fn run() -> Result<Containers, Failed> {
    println!(
        "== {NAME}: checks for rustfmt, clippy, a C compiler, Node.js, the tools of the contracts, \
         a Docker engine and a registry; installs what is missing"
    );
    let mut missing = Vec::new();
    for (component, args) in
        [("rustfmt", ["fmt", "--version"]), ("clippy", ["clippy", "--version"])]
    {
        require(
            component,
            ("cargo", &args),
            &[("rustup", &["component", "add", component])],
            probe("rustup", &["--version"]).is_some(),
            &mut missing,
        )?;
    }
    require(
        "C compiler",
        ("cc", &["--version"]),
        &[
            ("apt-get", &["update"]),
            ("apt-get", &["install", "-y", "--no-install-recommends", "gcc", "libc6-dev"]),
        ],
        may_install(),
        &mut missing,
    )?;
    for (what, program, package) in [("Node.js", "node", "nodejs"), ("npm", "npm", "npm")] {
        require(
            what,
            (program, &["--version"]),
            &[
                ("apt-get", &["update"]),
                ("apt-get", &["install", "-y", "--no-install-recommends", package]),
            ],
            may_install(),
            &mut missing,
        )?;
    }
    for (what, program, package) in [
        ("Debian's packaging tools", "dpkg-shlibdeps", "dpkg-dev"),
        ("systemd's reader of units", "systemd-analyze", "systemd"),
    ] {
        let install = ["install", "-y", "--no-install-recommends", package];
        let install: [CommandLine<'_>; 2] = [("apt-get", &["update"]), ("apt-get", &install)];
        require(what, (program, &["--version"]), &install, may_install(), &mut missing)?;
    }
    ops::setup(may_install(), &mut missing)?;
    if missing.is_empty() {
        contracts::setup()?;
    }
    let containers = containers(missing)?;
    println!("== {NAME}: all tools are installed; next: cargo xtask test");
    Ok(containers)
}

/// The part of [`run`] that containers need. `missing` has the commands for what could not be
/// installed before.
pub(crate) fn containers(mut missing: Vec<String>) -> Result<Containers, Failed> {
    containers::install(may_install(), &mut missing)?;
    if missing.is_empty() {
        return containers::start();
    }
    let reason = format!("not allowed or not able to install; run:\n  {}", missing.join("\n  "));
    Err(Failed::new(NAME, reason))
}

/// What `cargo xtask podman` needs beside [`mod@containers`], and no other task does.
pub(crate) fn podman() -> Result<(), Failed> {
    let update: CommandLine<'_> = ("apt-get", &["update"]);
    let install = ["install", "-y", "--no-install-recommends"];
    let podman = [&install[..], &["podman", "netavark", "aardvark-dns", "catatonit"]].concat();
    let catatonit = [&install[..], &["catatonit"]].concat();
    let mut missing = Vec::new();
    for (what, program, packages) in
        [("Podman", "podman", podman), ("Podman's init", "catatonit", catatonit)]
    {
        let install = [update, ("apt-get", packages.as_slice())];
        require(what, (program, &["--version"]), &install, may_install(), &mut missing)?;
    }
    if missing.is_empty() {
        return Ok(());
    }
    let reason = format!("not allowed or not able to install; run:\n  {}", missing.join("\n  "));
    Err(Failed::new("podman", reason))
}

/// What the images of examples are made with.
pub(crate) fn mmdebstrap() -> Result<(), Failed> {
    let install: [CommandLine<'_>; 2] = [
        ("apt-get", &["update"]),
        ("apt-get", &["install", "-y", "--no-install-recommends", "mmdebstrap"]),
    ];
    let mut missing = Vec::new();
    let check: CommandLine<'_> = ("mmdebstrap", &["--version"]);
    require("mmdebstrap", check, &install, may_install(), &mut missing)?;
    if missing.is_empty() {
        return Ok(());
    }
    let reason = format!("not allowed or not able to install; run:\n  {}", missing.join("\n  "));
    Err(Failed::new(NAME, reason))
}

/// What `cargo xtask package --compose` needs beside what `--image` does, and the engine with the image that is run.
pub(crate) fn compose() -> Result<Containers, Failed> {
    let install: [CommandLine<'_>; 2] = [
        ("apt-get", &["update"]),
        ("apt-get", &["install", "-y", "--no-install-recommends", "docker-compose"]),
    ];
    let mut missing = Vec::new();
    let check: CommandLine<'_> = ("docker-compose", &["--version"]);
    require("docker-compose", check, &install, may_install(), &mut missing)?;
    containers(missing)
}

fn may_install() -> bool {
    is_root() && probe("apt-get", &["--version"]).is_some()
}

type CommandLine<'a> = (&'a str, &'a [&'a str]);

/// Reports `what` if `check` succeeds; else runs `install` if it may; else adds its commands to
/// `missing`.
fn require(
    what: &str,
    check: CommandLine<'_>,
    install: &[CommandLine<'_>],
    may_install: bool,
    missing: &mut Vec<String>,
) -> Result<(), Failed> {
    if let Some(version) = probe(check.0, check.1) {
        println!("{what}: {version}");
        return Ok(());
    }
    println!("{what}: missing (`{} {}` fails)", check.0, check.1.join(" "));
    if !may_install {
        missing.extend(install.iter().map(|(program, args)| {
            let sudo = if *program == "apt-get" { "sudo " } else { "" };
            format!("{sudo}{program} {}", args.join(" "))
        }));
        return Ok(());
    }
    for (program, args) in install {
        Step::new(NAME, program, args).run()?;
    }
    match probe(check.0, check.1) {
        Some(version) => println!("{what}: installed, {version}"),
        None => return Err(Failed::new(NAME, format!("{what} is still missing"))),
    }
    Ok(())
}
