//! Building images with the engine's own command, and pushing them.
//!
//! The engine is asked by its command line, since a build is the client's work: it reads `.dockerignore`, packs the
//! folder and speaks with the builder that whoever imports has set up. What it prints goes to standard error.

use std::{
    io::{self, Write as _},
    process::{Command, Stdio},
};

use crate::job::{Build, Image, Job};

/// Why an image is not built.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "each message says what its fields are")]
pub enum BuildError {
    /// Nobody said where to push.
    #[error(
        "{service}: the file does not name the image that it builds: say where to push it, --push-to registry.example/team"
    )]
    NoName { service: String },
    /// The program does not start.
    #[error("{engine}: {source}; install it, or name another one with --engine")]
    NoEngine { engine: String, source: io::Error },
    /// It ends with another code than 0.
    #[error("{service}: `{engine} {step}` ended with {status}; what it says is above")]
    Failed { service: String, engine: String, step: &'static str, status: String },
    /// The registry has told no digest.
    #[error("{service}: the engine knows no digest of {reference} after it was pushed")]
    NoDigest { service: String, reference: String },
}

/// Builds, pushes, pins: with which program, and where to.
#[derive(Clone, Debug)]
pub struct Builder {
    /// `docker`, or a program that takes the same arguments.
    pub engine: String,
    /// A registry and a path, under which images are pushed; without it, under the names that the file gives them.
    pub push_to: Option<String>,
}

impl Builder {
    /// Builds the image of a job, if it is one that is built, and gives it the digest that the registry has.
    ///
    /// # Errors
    /// [`BuildError`].
    pub fn build(&self, job: &mut Job) -> Result<(), BuildError> {
        let Some(build) = job.image.build.clone() else { return Ok(()) };
        let reference = self.reference(job)?;
        self.run(
            &job.service,
            "build",
            &build_arguments(&build, &reference),
            build.inline.as_deref(),
        )?;
        self.run(&job.service, "push", core::slice::from_ref(&reference), None)?;
        let digest = self.digest(&job.service, &reference)?;
        job.image = Image { digest: Some(digest), build: Some(build), ..Image::of(&reference) };
        Ok(())
    }

    /// Under which name it is pushed.
    fn reference(&self, job: &Job) -> Result<String, BuildError> {
        let tag = job.image.tag.as_deref().unwrap_or("latest");
        let name = match (&self.push_to, job.image.name.as_str()) {
            (Some(place), name) => {
                let last = name.rsplit('/').next().filter(|last| !last.is_empty());
                format!("{}/{}", place.trim_end_matches('/'), last.unwrap_or(&job.name))
            }
            (None, "") => return Err(BuildError::NoName { service: job.service.clone() }),
            (None, name) => name.to_owned(),
        };
        Ok(format!("{name}:{tag}"))
    }

    fn run(
        &self,
        service: &str,
        step: &'static str,
        arguments: &[String],
        input: Option<&str>,
    ) -> Result<(), BuildError> {
        let failed = |source| BuildError::NoEngine { engine: self.engine.clone(), source };
        let mut command = Command::new(&self.engine);
        command.arg(step).args(arguments).stdout(io::stderr());
        command.stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() });
        let mut child = command.spawn().map_err(failed)?;
        if let (Some(input), Some(mut pipe)) = (input, child.stdin.take()) {
            // An engine that does not read it ends with an error of its own.
            let _ = pipe.write_all(input.as_bytes());
        }
        let status = child.wait().map_err(failed)?;
        if status.success() {
            return Ok(());
        }
        let (service, engine) = (service.to_owned(), self.engine.clone());
        Err(BuildError::Failed { service, engine, step, status: status.to_string() })
    }

    /// What the registry calls what was pushed.
    fn digest(&self, service: &str, reference: &str) -> Result<String, BuildError> {
        let failed = |source| BuildError::NoEngine { engine: self.engine.clone(), source };
        let mut command = Command::new(&self.engine);
        command.args([
            "image",
            "inspect",
            "--format",
            "{{range .RepoDigests}}{{println .}}{{end}}",
        ]);
        let output = command.arg(reference).stdin(Stdio::null()).stderr(Stdio::inherit()).output();
        let output = output.map_err(failed)?;
        let text = String::from_utf8_lossy(&output.stdout);
        let name = Image::of(reference).name;
        let own = text.lines().filter_map(|line| line.trim().split_once('@'));
        let mut own = own.filter(|(of, _)| *of == name || of.ends_with(&format!("/{name}")));
        own.next().map(|(_, digest)| digest.to_owned()).ok_or_else(|| BuildError::NoDigest {
            service: service.to_owned(),
            reference: reference.to_owned(),
        })
    }
}

fn build_arguments(build: &Build, reference: &str) -> Vec<String> {
    let mut arguments = vec!["--tag".to_owned(), reference.to_owned()];
    match (&build.inline, &build.dockerfile) {
        (Some(_), _) => arguments.extend(["--file".to_owned(), "-".to_owned()]),
        (None, Some(path)) => arguments.extend(["--file".to_owned(), path.display().to_string()]),
        (None, None) => {}
    }
    if let Some(target) = &build.target {
        arguments.extend(["--target".to_owned(), target.clone()]);
    }
    for (name, value) in &build.args {
        arguments.extend(["--build-arg".to_owned(), format!("{name}={value}")]);
    }
    // A context may be an address: `https://...`, which is no path of this machine.
    arguments.push(build.context.display().to_string());
    arguments
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn job(image: &str) -> Job {
        let build = Build {
            context: PathBuf::from("web"),
            dockerfile: None,
            inline: None,
            target: Some("prod".to_owned()),
            args: vec![("V".to_owned(), "1".to_owned())],
        };
        let image = Image { build: Some(build), ..Image::of(image) };
        Job { name: "shop-web".to_owned(), service: "web".to_owned(), image, ..Job::default() }
    }

    fn reference(push_to: Option<&str>, image: &str) -> Result<String, String> {
        let builder = Builder { engine: "docker".to_owned(), push_to: push_to.map(str::to_owned) };
        builder.reference(&job(image)).map_err(|error| error.to_string())
    }

    #[test]
    fn images_are_pushed_under_names_of_their_own() {
        assert_eq!(reference(None, "r.example/web:2").as_deref(), Ok("r.example/web:2"));
        assert_eq!(
            reference(Some("r.example/team/"), "").as_deref(),
            Ok("r.example/team/shop-web:latest")
        );
        assert_eq!(
            reference(Some("r.example:5000"), "a/web:2").as_deref(),
            Ok("r.example:5000/web:2")
        );
        assert!(reference(None, "").unwrap_err().contains("--push-to"));
    }

    #[test]
    fn an_engine_that_fails_is_named_with_its_step() {
        let builder = Builder { engine: "false".to_owned(), push_to: None };
        let error = builder.build(&mut job("r.example/web")).unwrap_err().to_string();
        assert!(error.contains("web: `false build` ended with"), "{error}");
        let builder = Builder { engine: "/nonexistent/docker".to_owned(), push_to: None };
        let error = builder.build(&mut job("r.example/web")).unwrap_err().to_string();
        assert!(error.contains("--engine"), "{error}");
    }

    #[test]
    fn what_is_built_is_pinned_by_the_digest_of_the_registry() {
        let folder = tempfile::tempdir().unwrap();
        let engine = folder.path().join("engine");
        let script = "#!/bin/sh\necho \"$@\" >> \"$0.log\"\n\
                      [ \"$1\" = image ] && echo other/x@sha256:00 && echo r.example/web@sha256:ab\nexit 0\n";
        std::fs::write(&engine, script).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&engine, mode).unwrap();
        let builder = Builder { engine: engine.display().to_string(), push_to: None };
        let mut job = job("r.example/web:2");
        builder.build(&mut job).unwrap();
        assert_eq!(job.image_text(), "r.example/web:2@sha256:ab");
        let log = std::fs::read_to_string(folder.path().join("engine.log")).unwrap();
        let expected =
            "build --tag r.example/web:2 --target prod --build-arg V=1 web\npush r.example/web:2\n";
        assert!(log.starts_with(expected), "{log}");
    }
}
