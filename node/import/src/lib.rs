//! What files of others say of containers, as job files: Docker Compose, Kubernetes objects, Akash's SDL.
//!
//! [`read`] takes a file's text and the folder that it lies in, and returns [`Job`]s, each of which
//! [`file_text`](Job::file_text) writes as a job file, and everything that is in no job file
//! ([`report::Dropped`]). A key that is not used counts as changed behaviour unless [`harmless`] lists it;
//! `docs/import.md` has the same lists, and a test compares them.
//!
//! # What a file can do here
//! It is read, and so are files beside it; nothing is run, and no network is asked, except by [`build`], which its
//! caller calls. Aliases, variables and files that extend others meet limits before memory does, and every refusal
//! says where in the file it is. A file takes contents only from its own folder and those beneath: what lies
//! elsewhere, such as a secret by its absolute path, is named in the job file, and read when the job is submitted.
//!
//! ```
//! use std::path::Path;
//! let text = "services:\n  web:\n    image: nginx:1.27\n    ports: [\"8080:80\"]\n";
//! let options = veil_node_import::Options { project: Some("shop".to_owned()), ..Default::default() };
//! let import = veil_node_import::read(text, Path::new("."), Path::new("."), &options).unwrap();
//! assert_eq!(import.jobs[0].name, "shop-web");
//! assert!(import.expressible["web"]);
//! ```

mod akash;
pub mod build;
mod capabilities;
mod compose;
mod folder;
pub mod harmless;
mod job;
mod kubernetes;
mod links;
mod quantity;
mod render;
pub mod report;
mod variables;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

pub use self::{
    harmless::Format,
    job::{Build, Image, Job, NewFile},
};
pub use veil_node_import_yaml::{bounds::MAX_BYTES, error};

use veil_node_import_yaml::{bounds, node as yaml};

use self::{
    error::ImportError,
    folder::Folder,
    report::{Dropped, Report},
    yaml::Node,
};

/// What the file does not say.
#[derive(Clone, Debug)]
pub struct Options {
    /// What jobs of Compose and Akash are named after; otherwise the file's `name`, or its folder.
    pub project: Option<String>,
    /// Only these services, if there are some.
    pub services: Vec<String>,
    /// Organisations whose workers may read what is sealed; `any` alone for all.
    pub organisations: Vec<String>,
    /// CPU of a service that asks for none.
    pub millicores: u64,
    /// Memory of a service that asks for none.
    pub memory: u64,
    /// Variables of the environment, which Compose files may name.
    pub environment: BTreeMap<String, String>,
    /// Files of variables, in place of `.env`.
    pub env_files: Vec<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            project: None,
            services: Vec::new(),
            organisations: Vec::new(),
            millicores: 500,
            memory: 512 << 20,
            environment: BTreeMap::new(),
            env_files: Vec::new(),
        }
    }
}

/// What a file becomes.
#[derive(Debug)]
pub struct Import {
    /// What the file was.
    pub format: Format,
    /// The jobs, in the order of the file.
    pub jobs: Vec<Job>,
    /// Files that belong beside the job files.
    pub files: Vec<NewFile>,
    /// What is in no job file.
    pub dropped: Vec<Dropped>,
    /// Services, and whether their jobs do all that the file says.
    pub expressible: BTreeMap<String, bool>,
    /// What whoever imports should know.
    pub notes: Vec<String>,
}

/// Reads a file that lies in `folder`, for job files that are to lie in `out`.
///
/// # Errors
/// [`ImportError`], with line and column.
pub fn read(
    text: &str,
    folder: &Path,
    out: &Path,
    options: &Options,
) -> Result<Import, ImportError> {
    if text.len() > MAX_BYTES {
        return Err(ImportError::TooLong(text.len()));
    }
    let documents = yaml::read(text)?;
    let folder = Folder::new(folder, out);
    let format = format_of(&documents)?;
    let mut report = Report::new(format);
    let mut found = match format {
        Format::Kubernetes => kubernetes::read(&documents, &mut report)?,
        Format::Compose => {
            let document = one(documents, "Compose")?;
            compose::read(document, &folder, options, &mut report)?
        }
        Format::Akash => akash::read(&one(documents, "Akash")?, &folder, options, &mut report)?,
    };
    if found.jobs.is_empty() {
        return Err(ImportError::Nothing);
    }
    for job in &mut found.jobs {
        job.organisations = options.organisations.clone();
    }
    choose(&mut found, options, &mut report)?;
    let services = found.jobs.iter().map(|job| &job.service);
    let expressible = report.expressible(services);
    Ok(Import {
        format,
        expressible,
        jobs: found.jobs,
        files: found.files,
        dropped: report.dropped,
        notes: report.notes,
    })
}

/// What a format's reader has found.
#[derive(Debug, Default)]
struct Found {
    jobs: Vec<Job>,
    files: Vec<NewFile>,
}

fn format_of(documents: &[Node]) -> Result<Format, ImportError> {
    let has = |key: &str| documents.iter().any(|document| document.get(key).is_some());
    if has("apiVersion") || has("kind") {
        Ok(Format::Kubernetes)
    } else if has("services") && has("deployment") {
        Ok(Format::Akash)
    } else if has("services") || has("include") {
        Ok(Format::Compose)
    } else {
        Err(ImportError::Format)
    }
}

fn one(documents: Vec<Node>, format: &'static str) -> Result<Node, ImportError> {
    let mut documents = documents.into_iter();
    match (documents.next(), documents.next()) {
        (_, Some(second)) => Err(ImportError::Documents { pos: second.pos, format }),
        (Some(one), None) => Ok(one),
        (None, None) => Err(ImportError::Nothing),
    }
}

/// Leaves the services that were asked for, and what belongs to them.
fn choose(found: &mut Found, options: &Options, report: &mut Report) -> Result<(), ImportError> {
    if options.services.is_empty() {
        return Ok(());
    }
    for name in &options.services {
        if !found.jobs.iter().any(|job| job.service == *name) {
            let mut known: Vec<_> = found.jobs.iter().map(|job| job.service.as_str()).collect();
            known.dedup();
            return Err(ImportError::NoService { name: name.clone(), known: known.join(", ") });
        }
    }
    let wanted = |service: &String| options.services.contains(service);
    found.jobs.retain(|job| wanted(&job.service));
    report.dropped.retain(|dropped| wanted(&dropped.service));
    let belongs = |file: &NewFile| {
        found.jobs.iter().any(|job| file.path.starts_with(&format!("{}.files/", job.name)))
    };
    found.files.retain(belongs);
    Ok(())
}
