//! One announced and measured command.

use std::{
    env,
    ffi::OsStr,
    io,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use crate::{cost::Meter, failed::Failed};

/// The root of the workspace that cargo runs this for: checkouts that share a build directory may share
/// the binary too.
pub(crate) fn root() -> PathBuf {
    let here = env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    here.parent().map_or_else(|| here.clone(), Path::to_path_buf)
}

/// Where cargo builds.
pub(crate) fn target() -> PathBuf {
    root().join(env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into()))
}

/// A command in the workspace's root.
pub(crate) struct Step {
    name: &'static str,
    line: String,
    command: Command,
    is_quiet: bool,
}

impl Step {
    pub(crate) fn new(name: &'static str, program: &str, args: &[&str]) -> Self {
        Self::spawning(name, program, OsStr::new(program), args)
    }

    /// Runs the cargo that runs this, without the variables that describe this package: build scripts
    /// that read them (ring's) would run again, and cargo would compile everything above them again,
    /// each time that `cargo xtask test` follows a `cargo test`.
    pub(crate) fn cargo(name: &'static str, args: &[&str]) -> Self {
        let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut step = Self::spawning(name, "cargo", &cargo, args);
        let of_package = |key: &str| {
            ["CARGO_MANIFEST_", "CARGO_PKG_"].iter().any(|prefix| key.starts_with(prefix))
        };
        for (key, _) in env::vars_os().filter(|(key, _)| key.to_str().is_some_and(of_package)) {
            step.command.env_remove(key);
        }
        step
    }

    fn spawning(name: &'static str, shown: &str, program: &OsStr, args: &[&str]) -> Self {
        let mut command = Command::new(program);
        command.args(args).current_dir(root());
        Self { name, line: [&[shown], args].concat().join(" "), command, is_quiet: false }
    }

    pub(crate) fn env(mut self, key: &str, value: &str) -> Self {
        self.command.env(key, value);
        self.line = format!("{key}='{value}' {}", self.line);
        self
    }

    /// In a folder of the workspace.
    pub(crate) fn within(mut self, folder: &str) -> Self {
        self.command.current_dir(root().join(folder));
        self.line = format!("cd {folder} && {}", self.line);
        self
    }

    /// In a folder elsewhere.
    pub(crate) fn inside(mut self, folder: &Path) -> Self {
        self.command.current_dir(folder);
        self.line = format!("cd {} && {}", folder.display(), self.line);
        self
    }

    /// Announced only if it fails.
    pub(crate) const fn quiet(mut self) -> Self {
        self.is_quiet = true;
        self
    }

    /// Runs it, its output going to the terminal.
    pub(crate) fn run(self) -> Result<(), Failed> {
        self.finish(Stdio::inherit()).map(|_| ())
    }

    /// Runs it and returns what it prints on standard output.
    pub(crate) fn output(self) -> Result<String, Failed> {
        self.finish(Stdio::piped())
    }

    fn finish(mut self, stdout: Stdio) -> Result<String, Failed> {
        if !self.is_quiet {
            println!("\n== {}: {}", self.name, self.line);
        }
        let meter = Meter::start();
        let child = self.command.stdout(stdout).stderr(Stdio::inherit()).spawn();
        let output =
            child.and_then(Child::wait_with_output).map_err(|error| self.not_started(&error))?;
        let cost = meter.read();
        if !output.status.success() {
            let reason = format!("`{}` ended with {} after {cost}", self.line, output.status);
            return Err(Failed::new(self.name, reason));
        }
        if !self.is_quiet {
            println!("== {}: done in {cost}", self.name);
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn not_started(&self, error: &io::Error) -> Failed {
        Failed::new(self.name, format!("`{}` cannot be started: {error}", self.line))
    }
}

/// Whether this may install system packages and start services.
pub(crate) fn is_root() -> bool {
    probe("id", &["-u"]).as_deref() == Some("0")
}

/// The first line that `program args` prints, if it runs and succeeds.
pub(crate) fn probe(program: &str, args: &[&str]) -> Option<String> {
    let output = Command::new(program).args(args).current_dir(root()).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout);
    output.status.success().then(|| text.lines().next().unwrap_or_default().to_owned())
}
