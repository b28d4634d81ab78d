//! What is sealed in a job: environment, files, credentials of the image's registry; and, if asked, its arguments and
//! the limits of an encrypted request.
//!
//! The operator checks it before it seals, and the winner checks it again after it has opened it: nobody in between can.

use core::fmt;

use serde::{Deserialize, Serialize};
use veil_protocol_spec_base::codec::{Bytes, Wire};
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::{
    container::ContainerPath, job::JobSpec, limits, names::VariableName, opened::SealedRequest,
    refusal::JobError, request::ResourceRequest, resources::Resources,
};

/// A variable of the environment.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Zeroize)]
#[serde(deny_unknown_fields)]
pub struct SealedVariable {
    /// Its name.
    pub name: String,
    /// What it says.
    pub value: String,
}

/// Permissions of a file in a container: 0 to 0777.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, Zeroize)]
#[serde(try_from = "u16", into = "u16")]
pub struct FileMode(u16);

/// A number is no file's permissions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a mode of {0:#o}: 0000 to 0777 are possible")]
pub struct InvalidFileMode(u16);

impl FileMode {
    /// Everybody in the container reads it: the process there need not be root.
    pub const READ_ONLY: Self = Self(0o444);

    /// The bits.
    #[must_use]
    pub const fn bits(self) -> u32 {
        self.0 as u32
    }
}

impl TryFrom<u16> for FileMode {
    type Error = InvalidFileMode;

    fn try_from(bits: u16) -> Result<Self, InvalidFileMode> {
        if bits <= 0o777 { Ok(Self(bits)) } else { Err(InvalidFileMode(bits)) }
    }
}

impl From<FileMode> for u16 {
    fn from(mode: FileMode) -> Self {
        mode.0
    }
}

/// A file that the container finds on a tmpfs.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SealedFile {
    /// Where it is.
    pub path: ContainerPath,
    /// Who may read it there.
    pub mode: FileMode,
    /// What is in it.
    pub content: Bytes,
}

/// What the worker says to the registry of the job's image.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Zeroize)]
#[serde(deny_unknown_fields)]
pub struct RegistryCredentials {
    /// The account.
    pub username: String,
    /// Its password or token.
    pub password: String,
}

/// What the container runs, of a body that says nothing of it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Zeroize)]
#[serde(deny_unknown_fields)]
pub struct SealedArguments {
    /// As [`JobSpec::command`].
    pub command: Vec<String>,
    /// As [`JobSpec::args`].
    pub args: Vec<String>,
}

/// What is sealed.
///
/// # Security
/// Secret as a whole: prints how much there is and nothing of it, and is zeroized on drop.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SealedContents {
    /// Variables, by name, strictly ascending. The worker's engine keeps them in clear as long as there is the
    /// container.
    pub env: Vec<SealedVariable>,
    /// Files, by path, strictly ascending.
    pub files: Vec<SealedFile>,
    /// For the pull of the image.
    pub registry: Option<RegistryCredentials>,
    /// In place of the body's, which has none then.
    pub arguments: Option<SealedArguments>,
    /// Behind the body's encrypted request.
    pub request: Option<SealedRequest>,
}

impl Zeroize for SealedContents {
    fn zeroize(&mut self) {
        self.env.zeroize();
        self.files.iter_mut().for_each(|file| file.content.0.zeroize());
        self.registry.zeroize();
        self.arguments.zeroize();
        self.request = None; // its seed is zeroized on drop
    }
}

impl Drop for SealedContents {
    fn drop(&mut self) {
        self.zeroize();
    }
}

impl ZeroizeOnDrop for SealedContents {}

macro_rules! redacted {
    ($($name:ident: $shown:ident;)*) => {$(
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({:?}, <redacted>)"), self.$shown)
            }
        }
    )*};
}

redacted! {
    SealedVariable: name;
    SealedFile: path;
}

impl fmt::Debug for RegistryCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RegistryCredentials(<redacted>)")
    }
}

impl fmt::Debug for SealedArguments {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SealedArguments(<redacted>)")
    }
}

impl fmt::Debug for SealedContents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SealedContents")
            .field("env", &self.env.len())
            .field("files", &self.files.len())
            .field("registry", &self.registry.is_some())
            .field("arguments", &self.arguments.is_some())
            .field("request", &self.request.is_some())
            .finish_non_exhaustive()
    }
}

impl Wire for SealedContents {
    const NAME: &'static str = "SealedContents";
    // Version 1 had no arguments, and no limits of an encrypted request; version 2 at most 64 KiB.
    const VERSION: u8 = 3;
    const MAX_BYTES: usize = limits::SEALED_BYTES;
}

/// Why contents cannot be sealed, or are not what a winner runs. Nothing secret is in the messages.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "each message says what its fields are")]
pub enum ContentsError {
    /// There is too much of it.
    #[error("what is sealed takes {0} bytes together: at most {max}", max = limits::SEALED_BYTES)]
    TooLong(usize),
    /// More than programs are started with.
    #[error(
        "the variables have {0} bytes together: at most {max}; put what is long into a file",
        max = limits::SEALED_VARIABLES_BYTES
    )]
    LongVariables(usize),
    /// One file is larger than any may be.
    #[error("the file {path} has {len} bytes: at most {max}", max = limits::SEALED_FILE_BYTES)]
    LongFile { path: ContainerPath, len: usize },
    /// A list has too many entries.
    #[error("{len} entries of `{list}`: at most {max}", max = limits::SEALED_ENTRIES)]
    TooMany { list: &'static str, len: usize },
    /// A name that no environment has.
    #[error(
        "`{0}` is no variable's name: 1 to {max} bytes without `=`, spaces or control characters",
        max = limits::VARIABLE_NAME_BYTES
    )]
    VariableName(String),
    /// A link sets it.
    #[error("the variable `{0}` is set by a [[link]], too: take it out of one of them")]
    OfLink(String),
    /// A value that no environment can hold.
    #[error("the value of variable `{0}` has a NUL, which no program can be given")]
    VariableValue(String),
    /// Two entries are one, or the same contents would have two spellings.
    #[error("`{0}` is there twice, or out of order")]
    Order(String),
    /// Nothing may be mounted there.
    #[error("no file can be put on `{0}`: choose a path outside /proc, /sys and /dev")]
    Mount(ContainerPath),
    /// The place is a volume's or a tmpfs folder's.
    #[error("`{0}` is a file and a folder that the job mounts: choose another path")]
    MountedTwice(ContainerPath),
    /// Credentials of nobody.
    #[error("registry credentials need a user name and a password")]
    Credentials,
    /// The files take more than the memory that the job may use, which they count as.
    #[error("the files take {0} bytes of memory, and the job asks for less")]
    BeyondMemory(usize),
    /// The body has arguments, and so has the sealed part.
    #[error("the arguments are sealed, and the public body has some too: seal the job again")]
    ArgumentsTwice,
    /// The body's request is in clear, and there are sealed limits.
    #[error("limits are sealed for a request in clear: seal the job again")]
    ClearRequest,
    /// The body's request is encrypted, and nothing says what it is.
    #[error("the request is encrypted, and its limits are not sealed: seal the job again")]
    NoLimits,
    /// The body commits to other limits, or another seed.
    #[error("the sealed limits are not those that the body commits to: seal the job again")]
    OtherLimits,
    /// The limits are beyond the scale that the request is encrypted in.
    #[error(
        "the sealed limits are beyond what the cluster's scale can count, so they are not what is encrypted: seal the job \
         again"
    )]
    TooLarge,
    /// With the limits and arguments that are sealed, the job breaks a rule.
    #[error("with what is sealed in it: {0}")]
    Job(#[from] Box<JobError>),
}

impl SealedContents {
    /// Whether nothing is in it, so that nothing need be sealed.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.env.is_empty()
            && self.files.is_empty()
            && self.registry.is_none()
            && self.arguments.is_none()
            && self.request.is_none()
    }

    /// The body that goes with it, of a job that says everything: without the arguments that are sealed. An encrypted
    /// request takes the place of the clear one besides.
    #[must_use]
    pub fn public(&self, job: JobSpec) -> JobSpec {
        match self.arguments {
            Some(_) => JobSpec { command: Vec::new(), args: Vec::new(), ..job },
            None => job,
        }
    }

    /// The job as its winner runs it: with the arguments and limits that are sealed.
    #[must_use]
    pub fn applied(&self, job: &JobSpec) -> JobSpec {
        let mut applied = job.clone();
        if let Some(SealedArguments { command, args }) = &self.arguments {
            (applied.command, applied.args) = (command.clone(), args.clone());
        }
        if let Some(limits) = self.limits(job) {
            applied.request = ResourceRequest::Clear(limits);
        }
        applied
    }

    /// What each replica gets; `None` if the request is encrypted and nothing says what it is.
    #[must_use]
    pub fn limits(&self, job: &JobSpec) -> Option<Resources> {
        match &job.request {
            ResourceRequest::Clear(clear) => Some(*clear),
            ResourceRequest::Encrypted(_) => Some(self.request.as_ref()?.limits),
        }
    }

    /// Checks it against the body that it belongs to. Whether the encrypted request is that of the sealed limits is the
    /// winner's to find out besides: it takes the key of the cluster.
    ///
    /// # Errors
    /// [`ContentsError`].
    pub fn validate(&self, job: &JobSpec) -> Result<(), ContentsError> {
        if self.arguments.is_some() && !(job.command.is_empty() && job.args.is_empty()) {
            return Err(ContentsError::ArgumentsTwice);
        }
        match (&job.request, &self.request) {
            (ResourceRequest::Clear(_), None) => {}
            (ResourceRequest::Clear(_), Some(_)) => return Err(ContentsError::ClearRequest),
            (ResourceRequest::Encrypted(_), None) => return Err(ContentsError::NoLimits),
            (ResourceRequest::Encrypted(encrypted), Some(sealed)) => {
                if !sealed.is_committed_to(job) {
                    return Err(ContentsError::OtherLimits);
                }
                sealed.quantities(&encrypted.scale).map_err(|_| ContentsError::TooLarge)?;
            }
        }
        let applied = self.applied(job);
        applied.validate().map_err(Box::new)?;
        self.fits(&applied)
    }

    /// Checks it against the job as its winner runs it.
    ///
    /// # Errors
    /// [`ContentsError`].
    pub fn fits(&self, job: &JobSpec) -> Result<(), ContentsError> {
        for (list, len) in [("env", self.env.len()), ("files", self.files.len())] {
            if len > limits::SEALED_ENTRIES {
                return Err(ContentsError::TooMany { list, len });
            }
        }
        for SealedVariable { name, value } in &self.env {
            if !VariableName::is_one(name) {
                return Err(ContentsError::VariableName(name.clone()));
            }
            let mut of_links = job.links.iter().filter_map(|link| link.env.as_ref());
            if of_links.any(|of_link| of_link.as_str() == name) {
                return Err(ContentsError::OfLink(name.clone()));
            }
            if value.contains('\0') {
                return Err(ContentsError::VariableValue(name.clone()));
            }
        }
        ascending(self.env.iter().map(|variable| &variable.name))?;
        ascending(self.files.iter().map(|file| &file.path))?;
        let variables = self.env.iter().map(|variable| variable.name.len() + variable.value.len());
        let variables = variables.sum();
        if variables > limits::SEALED_VARIABLES_BYTES {
            return Err(ContentsError::LongVariables(variables));
        }
        for SealedFile { path, content, .. } in &self.files {
            if !path.is_mountable() {
                return Err(ContentsError::Mount(path.clone()));
            }
            let len = content.0.len();
            if len > limits::SEALED_FILE_BYTES {
                return Err(ContentsError::LongFile { path: path.clone(), len });
            }
            let folders = job.container.tmpfs.iter().map(|tmpfs| &tmpfs.path);
            let mut folders = folders.chain(job.volumes.iter().map(|volume| &volume.mount));
            if folders.any(|folder| folder == path) {
                return Err(ContentsError::MountedTwice(path.clone()));
            }
        }
        let bytes: usize = self.files.iter().map(|file| file.content.0.len()).sum();
        if let ResourceRequest::Clear(clear) = &job.request
            && bytes as u64 > clear.memory.amount()
        {
            return Err(ContentsError::BeyondMemory(bytes));
        }
        if let Some(RegistryCredentials { username, password }) = &self.registry
            && (username.is_empty() || password.is_empty())
        {
            return Err(ContentsError::Credentials);
        }
        let mut encoded = self.to_wire();
        let len = encoded.len();
        encoded.zeroize();
        if len > limits::SEALED_BYTES { Err(ContentsError::TooLong(len)) } else { Ok(()) }
    }
}

fn ascending<T: Ord + fmt::Display>(
    entries: impl Iterator<Item = T> + Clone,
) -> Result<(), ContentsError> {
    match entries.clone().zip(entries.skip(1)).find(|(a, b)| a >= b) {
        Some((_, entry)) => Err(ContentsError::Order(entry.to_string())),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
