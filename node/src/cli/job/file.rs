//! `veil job init|validate`: job files, without any network.

use std::{
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
};

use clap::{Args, ValueEnum};
use serde_json::json;
use veil_node_config::job_file::{JobFile, JobFileError, problem::Problem, samples};
use veil_node_operator::plan::{Hides, Limits, tells};

use crate::cli::{
    failure::{Exit, Failure},
    output,
};

#[derive(Debug, Args)]
pub(in crate::cli) struct Init {
    /// Where to write it.
    #[arg(value_name = "FILE", default_value = "job.toml")]
    file: PathBuf,
    /// What kind of work the job is.
    #[arg(long = "type", value_enum, default_value = "service")]
    kind: Kind,
    /// Write over a file that is there.
    #[arg(long)]
    force: bool,
    /// Print one JSON object.
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Kind {
    Service,
    Batch,
    Periodic,
    System,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Validate {
    /// The job file.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Print one JSON object.
    #[arg(long)]
    pub(super) json: bool,
}

pub(super) fn init(arguments: &Init) -> Result<Exit, Failure> {
    let sample = match arguments.kind {
        Kind::Service => samples::SERVICE,
        Kind::Batch => samples::BATCH,
        Kind::Periodic => samples::PERIODIC,
        Kind::System => samples::SYSTEM,
    };
    let path = &arguments.file;
    let mut options = fs::File::options();
    options.write(true).truncate(arguments.force);
    if arguments.force {
        options.create(true)
    } else {
        options.create_new(true)
    };
    let written = options
        .open(path)
        .and_then(|mut file| std::io::Write::write_all(&mut file, sample.as_bytes()));
    written.map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => {
            let says = format!("{} exists; --force writes over it", path.display());
            Failure::new(Exit::Files, "files", says)
        }
        _ => Failure::file(path)(error),
    })?;
    if let Err(error) = JobFile::parse(sample)?.check() {
        output::note(format!("note: {error}"));
    }
    output::show(arguments.json, &json!({ "file": path }), |out| {
        writeln!(out, "{}: edit it, then `veil job validate {0}`", path.display())
    })?;
    Ok(Exit::Done)
}

/// Reads a job file. What is wrong with it begins with the file's name.
pub(super) fn read(path: &Path) -> Result<JobFile, Failure> {
    let text = fs::read_to_string(path).map_err(Failure::file(path))?;
    let job = JobFile::parse(&text).map_err(|error| named(path, error.into()))?;
    Ok(job.in_folder(folder_of(path)))
}

/// Where the files are that a job file names.
fn folder_of(path: &Path) -> PathBuf {
    path.parent().map(Path::to_owned).unwrap_or_default()
}

/// A failure that says which file it is about.
pub(super) fn named(path: &Path, failure: Failure) -> Failure {
    let message = failure.message.replace('\n', &format!("\n{}: ", path.display()));
    Failure { message: format!("{}: {message}", path.display()), ..failure }
}

/// What is wrong, for scripts.
fn refused(error: JobFileError) -> Result<Exit, Failure> {
    let problems: Vec<_> = match &error {
        JobFileError::Problems(problems) => problems.0.iter().map(problem).collect(),
        JobFileError::TooLong(_) | JobFileError::Job(_) | JobFileError::Source(_) => Vec::new(),
    };
    let Failure { exit, kind, message, .. } = error.into();
    let object = json!({ "valid": false, "error": message, "kind": kind, "problems": problems });
    output::show(true, &object, |_| Ok(()))?;
    Ok(exit)
}

fn problem(problem: &Problem) -> serde_json::Value {
    let Problem { line, column, key, reason } = problem;
    json!({ "line": line, "column": column, "key": key, "reason": reason.to_string() })
}

pub(super) fn validate(arguments: &Validate) -> Result<Exit, Failure> {
    let path = &arguments.file;
    let text = fs::read_to_string(path).map_err(Failure::file(path))?;
    let checked = JobFile::parse(&text).and_then(|file| {
        let file = file.in_folder(folder_of(path));
        let (job, _sealed) = (file.check()?, file.contents()?);
        Ok((job, file))
    });
    let (job, file) = match checked {
        Ok(checked) => checked,
        Err(error) if arguments.json => return refused(error),
        Err(error) => return Err(named(path, error.into())),
    };
    let limits = Limits::of(&job);
    let hides = Hides { limits: file.encrypts(), arguments: file.seals_arguments() };
    let tells: Vec<_> = tells(&job, None, hides).into_iter().chain(file.remarks()).collect();
    let name = file.is_named().then_some(&job.name);
    let object = json!({
        "valid": true,
        "name": name,
        "type": job.kind,
        "image": job.image,
        "replicas": job.replicas,
        "limits": limits,
        "encrypted": file.encrypts(),
        "tells": tells,
    });
    output::show(arguments.json, &object, |out| {
        writeln!(out, "{}: sound", path.display())?;
        tells.iter().try_for_each(|told| writeln!(out, "note: {told}"))
    })?;
    Ok(Exit::Done)
}
