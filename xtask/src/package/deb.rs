//! The Debian package: laid out here, made by `dpkg-deb`. Its dependencies on libraries are what `dpkg-shlibdeps` finds.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use super::{NAME, cannot, read, write};
use crate::{
    failed::Failed,
    step::{Step, root},
};

/// Programs of the package, in its control folder.
const SCRIPTS: [&str; 3] = ["postinst", "prerm", "postrm"];
/// The roles, each with its unit and its configuration.
const ROLES: [&str; 2] = ["member", "worker"];
/// Files of the repository, and where they lie once installed.
const FILES: [(&str, &str); 8] = [
    ("ops/prometheus/alerts.yml", "usr/share/veil/prometheus/alerts.yml"),
    ("ops/prometheus/prometheus.yml", "usr/share/veil/prometheus/prometheus.yml"),
    ("ops/grafana/veil.json", "usr/share/veil/grafana/veil.json"),
    ("LICENSE", "usr/share/doc/veil/LICENSE"),
    ("NOTICE.md", "usr/share/doc/veil/NOTICE.md"),
    ("README.md", "usr/share/doc/veil/README.md"),
    ("CHANGELOG.md", "usr/share/doc/veil/CHANGELOG.md"),
    ("SECURITY.md", "usr/share/doc/veil/SECURITY.md"),
];
/// Shells, and where each looks for completions.
const COMPLETIONS: [(&str, &str); 3] = [
    ("bash", "usr/share/bash-completion/completions/veil"),
    ("zsh", "usr/share/zsh/vendor-completions/_veil"),
    ("fish", "usr/share/fish/vendor_completions.d/veil.fish"),
];
/// How much of the system a unit may be exposed to, by `systemd-analyze security`: 30 is 3.0.
const EXPOSURE: u32 = 30;

/// Where `out` has the files of the package, laid out.
fn staged(out: &Path) -> PathBuf {
    out.join("veil.files")
}

/// Makes the package of `binary`, as `version`.
pub(super) fn build(binary: &Path, version: &str, out: &Path) -> Result<PathBuf, Failed> {
    let stage = staged(out);
    let _ = fs::remove_dir_all(&stage); // of another run, if there was one
    lay_out(binary, &stage)?;
    let libraries = libraries(&stage)?;
    let architecture = Step::new(NAME, "dpkg", &["--print-architecture"]).quiet().output()?;
    let architecture = architecture.trim();
    let size = Step::new(NAME, "du", &["--summarize", "--block-size=1K", &stage.to_string_lossy()]);
    let size = size.quiet().output()?;
    let control = read(&root().join("ops/debian/control"))?
        .replace("@VERSION@", version)
        .replace("@ARCHITECTURE@", architecture)
        .replace("@SIZE@", size.split_whitespace().next().unwrap_or("0"))
        .replace("@LIBRARIES@", &libraries);
    let inside = stage.join("DEBIAN");
    write(&inside.join("control"), control.as_bytes())?;
    let configurations: String =
        ROLES.iter().map(|role| format!("/etc/veil/{role}.toml\n")).collect();
    write(&inside.join("conffiles"), configurations.as_bytes())?;
    for script in SCRIPTS {
        let path = inside.join(script);
        write(&path, read(&root().join("ops/debian").join(script))?.as_bytes())?;
        set_mode(&path, 0o755)?;
    }
    let package = out.join(format!("veil_{version}_{architecture}.deb"));
    let (from, to) = (stage.to_string_lossy(), package.to_string_lossy());
    // The fastest that Debian's older releases read too.
    let args = ["--root-owner-group", "-Zxz", "-z1", "--threads-max=0", "--build", &from, &to];
    Step::new(NAME, "dpkg-deb", &args).run()?;
    Ok(package)
}

fn lay_out(binary: &Path, stage: &Path) -> Result<(), Failed> {
    let installed = stage.join("usr/bin/veil");
    write(&installed, &fs::read(binary).map_err(|error| cannot("read", binary, &error))?)?;
    set_mode(&installed, 0o755)?;
    let veil = installed.to_string_lossy();
    let pages = stage.join("usr/share/man/man1");
    Step::new(NAME, &veil, &["man", &pages.to_string_lossy()]).quiet().output()?;
    let entries = fs::read_dir(&pages).map_err(|error| cannot("read", &pages, &error))?;
    for page in entries.flatten() {
        Step::new(NAME, "gzip", &["-9n", &page.path().to_string_lossy()]).quiet().run()?;
    }
    for (shell, file) in COMPLETIONS {
        let script = Step::new(NAME, &veil, &["completions", shell]).quiet().output()?;
        write(&stage.join(file), script.as_bytes())?;
    }
    for (from, to) in FILES {
        write(&stage.join(to), read(&root().join(from))?.as_bytes())?;
    }
    let documents = root().join("docs");
    let entries = fs::read_dir(&documents).map_err(|error| cannot("read", &documents, &error))?;
    for document in entries.flatten().filter(|entry| entry.path().is_file()) {
        let to = stage.join("usr/share/doc/veil").join(document.file_name());
        write(&to, read(&document.path())?.as_bytes())?;
    }
    let copyright = format!("{}\n{}", read(&root().join("NOTICE.md"))?, COPYRIGHT);
    write(&stage.join("usr/share/doc/veil/copyright"), copyright.as_bytes())?;
    for role in ROLES {
        let unit = format!("veil-{role}.service");
        let text = read(&root().join("ops/systemd").join(&unit))?;
        write(&stage.join("usr/lib/systemd/system").join(&unit), text.as_bytes())?;
        write(&stage.join(format!("etc/veil/{role}.toml")), configuration(role)?.as_bytes())?;
    }
    Ok(())
}

/// What Debian asks of every package's `copyright`.
const COPYRIGHT: &str = "On Debian systems the text of the Apache License 2.0 is in
/usr/share/common-licenses/Apache-2.0. What else was compiled into the binary, with the licence of each
part, is in veil-sbom.cdx.json, which is published beside this package.
";

/// The sample, with its data under `/var/lib` and passphrases that systemd hands over.
fn configuration(role: &str) -> Result<String, Failed> {
    let sample = read(&root().join("node/config/samples").join(format!("{role}.toml")))?;
    let data = format!("data_dir = \"/var/lib/veil/{role}\"");
    let identity = format!("#identity = \"/var/lib/veil/{role}/identity.age\"");
    [
        ("data_dir = \"data\"", data.as_str()),
        ("#identity = \"data/identity.age\"", &identity),
        ("passphrase_file = \"passphrase.txt\"", "#passphrase_file = \"passphrase.txt\""),
    ]
    .into_iter()
    .try_fold(sample, |text, (from, to)| {
        let line = format!("\n{from}\n");
        match text.matches(&line).count() {
            1 => Ok(text.replace(&line, &format!("\n{to}\n"))),
            found => {
                let reason = format!("the sample {role}.toml has the line `{from}` {found} times");
                Err(Failed::new(NAME, reason))
            }
        }
    })
}

/// Which packages have the libraries that the binary is linked with.
fn libraries(stage: &Path) -> Result<String, Failed> {
    // It reads `debian/control` of a source package, of which it needs no more than that it is there.
    let source = stage.with_extension("source");
    write(&source.join("debian/control"), b"Source: veil\n\nPackage: veil\nArchitecture: any\n")?;
    let binary = stage.join("usr/bin/veil");
    let found = Step::new(NAME, "dpkg-shlibdeps", &["-O", &binary.to_string_lossy()])
        .inside(&source)
        .quiet()
        .output();
    let _ = fs::remove_dir_all(&source); // nothing is read from it again
    let found = found?;
    let list = found.lines().find_map(|line| line.strip_prefix("shlibs:Depends="));
    list.map(str::to_owned)
        .ok_or_else(|| Failed::new(NAME, format!("dpkg-shlibdeps says `{found}`")))
}

fn set_mode(path: &Path, mode: u32) -> Result<(), Failed> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
        .map_err(|error| cannot("change", path, &error))
}

/// What every machine finds in it.
pub(super) fn check(package: &Path) -> Result<(), Failed> {
    let list = Step::new(NAME, "dpkg-deb", &["--contents", &package.to_string_lossy()]);
    let list = list.quiet().output()?;
    let expected = [
        "-rwxr-xr-x root/root ./usr/bin/veil",
        "-rw-r--r-- root/root ./etc/veil/member.toml",
        "-rw-r--r-- root/root ./etc/veil/worker.toml",
        "-rw-r--r-- root/root ./usr/lib/systemd/system/veil-member.service",
        "-rw-r--r-- root/root ./usr/lib/systemd/system/veil-worker.service",
        "-rw-r--r-- root/root ./usr/share/man/man1/veil-job-submit.1.gz",
        "-rw-r--r-- root/root ./usr/share/doc/veil/packages.md",
    ];
    for wanted in expected {
        let is_there = list.lines().any(|line| {
            let words: Vec<_> = line.split_whitespace().collect();
            matches!(words[..], [mode, owner, .., path] if format!("{mode} {owner} {path}") == wanted)
        });
        if !is_there {
            return Err(Failed::new(NAME, format!("{} lacks `{wanted}`", package.display())));
        }
    }
    Ok(())
}

/// The units, as systemd reads them on a machine on which the package is installed.
pub(super) fn check_units(out: &Path) -> Result<(), Failed> {
    let stage = staged(out);
    let units: Vec<_> = ROLES.iter().map(|role| format!("veil-{role}.service")).collect();
    for unit in &units {
        let root = format!("--root={}", stage.display());
        let args = ["verify", "--man=no", "--recursive-errors=no", &root, unit];
        Step::new(NAME, "systemd-analyze", &args).quiet().run()?;
        let limit = format!("--threshold={EXPOSURE}");
        let file = stage.join("usr/lib/systemd/system").join(unit);
        let args = ["security", "--offline=true", "--no-pager", &limit, &file.to_string_lossy()];
        Step::new(NAME, "systemd-analyze", &args).quiet().output()?;
    }
    Ok(())
}
