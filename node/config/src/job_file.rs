//! A job as people write it: TOML, with quantities in people's units, turned into a [`JobSpec`].
//!
//! `docs/jobs.md` describes every key; [`keys::KEYS`] lists them. A file is read whole: [`JobFile::parse`]
//! says everything that is wrong with it at once, each with line, column, key and what to write.
//!
//! ```
//! use veil_node_config::job_file::JobFile;
//! let digest = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
//! let job = JobFile::parse(&format!(r#"
//!     name = "web"
//!     image = "localhost:5000/tools/httpd:2.4@sha256:{digest}"
//!     replicas = 3
//!     [resources]
//!     cpu = "250m"
//!     memory = "64Mi"
//!     [placement]
//!     anti_affinity = "soft"          # or "hard"
//! "#)).unwrap();
//! assert_eq!(job.replicas(), 3);
//! ```

mod container;
mod document;
pub mod keys;
mod lifecycle;
mod network;
mod placement;
pub mod problem;
pub mod quantity;
pub mod samples;
mod sealed;
mod values;

use std::path::PathBuf;

use veil_protocol_spec::{
    Address, ChainId, ClusterId,
    scheduling::{
        ClusterScope, JobError, JobSpec, JobType, Name, ResourceRequest, SealedArguments,
        SealedContents, TaggedImage, limits,
    },
};

pub use self::sealed::SourceError;

use self::{
    document::Reader,
    problem::Problems,
    sealed::Sources,
    values::{boolean, parsed, whole},
};

/// Why a job file is refused.
#[derive(Debug, thiserror::Error)]
pub enum JobFileError {
    /// It is longer than any job.
    #[error("a job file of {0} bytes: at most {max} are read", max = JobFile::MAX_BYTES)]
    TooLong(usize),
    /// Lines of it are wrong.
    #[error("{0}")]
    Problems(Problems),
    /// A rule of job specifications is broken.
    #[error(transparent)]
    Job(#[from] JobError),
    /// What is to be sealed cannot be.
    #[error(transparent)]
    Source(#[from] SourceError),
}

/// A job that says everything but whose it is and where.
#[derive(Clone, Debug)]
pub struct JobFile {
    name: Option<Name>,
    /// In no cluster, of nobody, until it is submitted.
    job: JobSpec,
    sources: Sources,
    /// Whether only winners learn what the container runs.
    seals_arguments: bool,
    /// Whether only winners, and the circuit, learn the limits.
    encrypts: bool,
    /// What the files in `sources` are relative to.
    folder: PathBuf,
}

/// Where a job is that is in no cluster.
const NOWHERE: ClusterScope =
    ClusterScope { chain_id: ChainId(0), contract: Address([0; 20]), cluster: ClusterId([0; 32]) };

impl JobFile {
    /// Longest file that is read.
    pub const MAX_BYTES: usize = 256 * 1024;

    /// Reads a file; with or without the mark U+FEFF at its beginning, and with any ends of lines.
    ///
    /// # Errors
    /// [`JobFileError::Problems`] with all that is wrong, or [`JobFileError::TooLong`].
    pub fn parse(text: &str) -> Result<Self, JobFileError> {
        if text.len() > Self::MAX_BYTES {
            return Err(JobFileError::TooLong(text.len()));
        }
        document::read(text, read).map_err(JobFileError::Problems)
    }

    /// The same, with files that are to be sealed relative to `folder`: the job file's own.
    #[must_use]
    pub fn in_folder(self, folder: PathBuf) -> Self {
        Self { folder, ..self }
    }

    /// Whether part of it is to be sealed.
    #[must_use]
    pub const fn seals(&self) -> bool {
        self.encrypts || self.seals_arguments || !self.sources.is_empty()
    }

    /// Whether its request is to be encrypted, so that its limits are sealed, too.
    #[must_use]
    pub const fn encrypts(&self) -> bool {
        self.encrypts
    }

    /// Whether the arguments of its container are to be sealed.
    #[must_use]
    pub const fn seals_arguments(&self) -> bool {
        self.seals_arguments
    }

    /// Reads what is to be sealed, and checks it; the limits of a request that is to be encrypted are not in it, since
    /// they are sealed with what they are encrypted with.
    ///
    /// # Errors
    /// [`SourceError`]: nothing of what was read is in it.
    pub fn contents(&self) -> Result<SealedContents, SourceError> {
        let mut contents = self.sources.contents(&self.folder, &self.job.image)?;
        if self.seals_arguments {
            let (command, args) = (self.job.command.clone(), self.job.args.clone());
            contents.arguments = Some(SealedArguments { command, args });
        }
        contents.fits(&self.job)?;
        Ok(contents)
    }

    /// What whoever writes the file should know of what is sealed.
    #[must_use]
    pub fn remarks(&self) -> Vec<String> {
        match self.sources.variables() {
            0 => Vec::new(),
            count => vec![format!(
                "its {count} variables lie in clear in the state of the engine of each worker that it is placed on, as \
                 long as there is the container: a [[secret]] with `path` is a file in memory instead"
            )],
        }
    }

    /// How many replicas it asks for.
    #[must_use]
    pub const fn replicas(&self) -> u16 {
        self.job.replicas
    }

    /// The job as its winners run it, if it keeps the rules of job specifications: in no cluster and of nobody, to be
    /// looked at.
    ///
    /// # Errors
    /// [`JobFileError::Job`].
    pub fn check(&self) -> Result<JobSpec, JobFileError> {
        self.clone().into_spec(NOWHERE, Address([0; 20]), 0)
    }

    /// The job that `operator` submits with `nonce`, as its winners run it: what is to be sealed or encrypted of it is
    /// in clear. A job without a name gets one from its image and the nonce, which no other job of the operator has.
    ///
    /// # Errors
    /// [`JobFileError::Job`].
    pub fn into_spec(
        self,
        scope: ClusterScope,
        operator: Address,
        nonce: u64,
    ) -> Result<JobSpec, JobFileError> {
        let name = self.name.unwrap_or_else(|| name_of(&self.job, nonce));
        let job = JobSpec { scope, operator, nonce, name, ..self.job };
        job.validate()?;
        Ok(job)
    }

    /// Whether the file gives the job a name.
    #[must_use]
    pub const fn is_named(&self) -> bool {
        self.name.is_some()
    }
}

fn name_of(job: &JobSpec, nonce: u64) -> Name {
    let last = job.image.name().rsplit('/').next().unwrap_or_default();
    // An image's name has a letter or digit.
    Name::resembling(last, &format!("-{nonce}")).unwrap_or_else(|| job.name.clone())
}

fn read(reader: &mut Reader<'_>) -> Option<JobFile> {
    let root = reader.root();
    let name = reader.top("name", parsed);
    reader.require(root, "image", "image = \"registry.example/app:1.0@sha256:...\"");
    let image = reader.top("image", parsed::<TaggedImage>);
    let kind = lifecycle::kind(reader);
    let replicas = reader.top("replicas", |value| whole(value, limits::REPLICAS));
    let resources = placement::resources(reader);
    let encrypts = reader.top("resources.encrypted", boolean).unwrap_or_default();
    let container = container::read(reader);
    let (command, args) = (container::entrypoint(reader), container::args(reader));
    let seals_arguments = container::sealed(reader);
    let (ports, volumes) = (network::ports(reader), network::volumes(reader));
    let egress = network::egress(reader);
    let (links, after) = (network::links(reader), network::after(reader));
    let (policy, priority) = (placement::policy(reader), placement::priority(reader));
    let constraints = placement::constraints(reader);
    let lease = lifecycle::lease(reader);
    let restart = lifecycle::restart(reader, kind.as_ref().unwrap_or(&JobType::Service));
    let (health, update) = (lifecycle::health(reader), lifecycle::update(reader));
    let sources = Sources::read(reader);
    if encrypts || seals_arguments || !sources.is_empty() {
        // "A job with secrets names organisations, or `any`."
        let example =
            "organisations = [\"Acme\"], whose workers may read what is sealed, or \"any\"";
        reader.require(root, "placement.organisations", example);
    }

    let TaggedImage { image, tag } = image?;
    let (placeholder, request) = ("job".parse().ok()?, ResourceRequest::Clear(resources?));
    let job = JobSpec {
        kind: kind?,
        tag,
        command,
        args,
        container,
        ports,
        egress,
        links,
        after,
        volumes,
        replicas: replicas.unwrap_or(1),
        priority,
        policy,
        constraints,
        lease,
        restart,
        health,
        update,
        ..JobSpec::new(NOWHERE, Address([0; 20]), 0, placeholder, image, request)
    };
    let folder = PathBuf::new();
    Some(JobFile { name, job, sources, seals_arguments, encrypts, folder })
}

#[cfg(test)]
mod tests;
