//! The container images: files of Debian by mmdebstrap, the package, a Dockerfile of `ops`.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{NAME, cannot, read};
use crate::{
    containers,
    failed::Failed,
    step::{Step, root},
};

/// What is made: the node, and the cluster of `ops/compose`, which is for looking at.
const IMAGES: [Image; 2] = [
    Image {
        name: "veil",
        folder: "ops/image",
        // What the package depends on or recommends, and is not in every Debian.
        included: "adduser,ca-certificates,libgcc-s1,nftables",
        files: &[],
    },
    Image {
        name: "veil-compose",
        folder: "ops/compose",
        included: "adduser,ca-certificates,jq,libgcc-s1,nftables,prometheus",
        files: &[
            ("ops/compose/cluster", "cluster"),
            ("contracts/node_modules/@foundry-rs/anvil-linux-amd64/bin/anvil", "anvil"),
        ],
    },
];

struct Image {
    name: &'static str,
    /// Where its Dockerfile is.
    folder: &'static str,
    /// Packages of Debian.
    included: &'static str,
    /// Files of the repository that its Dockerfile copies.
    files: &'static [(&'static str, &'static str)],
}

/// Builds the images of `package`, and saves that of a node into a file that `docker load` takes.
pub(super) fn build(package: &Path, version: &str, out: &Path) -> Result<PathBuf, Failed> {
    let [node, _] = IMAGES.each_ref().map(|image| format!("{}:{version}", image.name));
    for image in &IMAGES {
        image.build(package, version, out)?;
    }
    let saved = out.join(format!("veil-image_{version}.tar"));
    let args = ["save", "--output", &saved.to_string_lossy(), &node];
    containers::docker(NAME, &args)?.run()?;
    Ok(saved)
}

impl Image {
    fn build(&self, package: &Path, version: &str, out: &Path) -> Result<(), Failed> {
        let context = out.join("image").join(self.name);
        debian(&context.join("base.tar"), self.included)?;
        let dockerfile = root().join(self.folder).join("Dockerfile");
        let of_repository = self.files.iter().map(|&(from, to)| (root().join(from), to));
        let files = [(dockerfile, "Dockerfile"), (package.to_owned(), "veil.deb")];
        for (from, to) in files.into_iter().chain(of_repository) {
            let to = context.join(to);
            fs::copy(&from, &to).map_err(|error| cannot("copy", &from, &error))?;
        }
        let (tag, latest) = (format!("{}:{version}", self.name), format!("{}:latest", self.name));
        let folder = context.to_string_lossy();
        let args = ["build", "--quiet", "--tag", &tag, "--tag", &latest, &folder];
        containers::docker(NAME, &args)?.run()
    }
}

/// The files of a small Debian with `included`, into an archive or a folder: that of this machine, from its own sources, so
/// that a mirror chosen here is used.
pub(super) fn debian(to: &Path, included: &str) -> Result<(), Failed> {
    if let Some(folder) = to.parent() {
        fs::create_dir_all(folder).map_err(|error| cannot("create", folder, &error))?;
    }
    let release = read(Path::new("/etc/os-release"))?;
    let name = release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    let name =
        name.ok_or_else(|| Failed::new(NAME, "/etc/os-release names no VERSION_CODENAME"))?;
    let sources =
        Step::new(NAME, "find", &["/etc/apt", "-name", "*.sources", "-o", "-name", "sources.list"]);
    let sources = sources.quiet().output()?;
    let (included, to) = (format!("--include={included}"), to.to_string_lossy());
    let mut args = vec!["--quiet", "--mode=root", "--variant=essential", &included];
    args.extend([
        "--dpkgopt=path-exclude=/usr/share/doc/*",
        "--dpkgopt=path-exclude=/usr/share/locale/*",
        // The package's own documents stay.
        "--dpkgopt=path-include=/usr/share/doc/veil/*",
    ]);
    args.extend([name.trim_matches('"'), &*to]);
    args.extend(sources.lines());
    Step::new(NAME, "mmdebstrap", &args).run()
}
