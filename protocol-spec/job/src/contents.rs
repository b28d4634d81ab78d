//! What is sealed in a job: environment, files, credentials of the image's registry.
//!
//! The operator checks it before it seals, and the winner checks it again after it has opened it: nobody in between can.

use core::fmt;

use serde::{Deserialize, Serialize};
use veil_protocol_spec_base::codec::{Bytes, Wire};
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::{
    container::ContainerPath, job::JobSpec, limits, names::VariableName, resources::ResourceRequest,
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
}

impl Zeroize for SealedContents {
    fn zeroize(&mut self) {
        self.env.zeroize();
        self.files.iter_mut().for_each(|file| file.content.0.zeroize());
        self.registry.zeroize();
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

impl fmt::Debug for SealedContents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SealedContents")
            .field("env", &self.env.len())
            .field("files", &self.files.len())
            .field("registry", &self.registry.is_some())
            .finish_non_exhaustive()
    }
}

impl Wire for SealedContents {
    const NAME: &'static str = "SealedContents";
    const MAX_BYTES: usize = limits::SEALED_BYTES;
}

/// Why contents cannot be sealed, or are not what a winner runs. Nothing secret is in the messages.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "each message says what its fields are")]
pub enum ContentsError {
    /// There is too much of it.
    #[error("env, secrets, files and credentials take {0} bytes together: at most {max}", max = limits::SEALED_BYTES)]
    TooLong(usize),
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
}

impl SealedContents {
    /// Whether nothing is in it, so that nothing need be sealed.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.env.is_empty() && self.files.is_empty() && self.registry.is_none()
    }

    /// Checks it against the job that it belongs to.
    ///
    /// # Errors
    /// [`ContentsError`].
    pub fn validate(&self, job: &JobSpec) -> Result<(), ContentsError> {
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
        for SealedFile { path, .. } in &self.files {
            if !path.is_mountable() {
                return Err(ContentsError::Mount(path.clone()));
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
mod tests {
    use veil_protocol_spec_base::codec::assert_wire;

    use super::*;
    use crate::arbitrary;

    fn contents() -> SealedContents {
        let variable =
            |name: &str, value: &str| SealedVariable { name: name.into(), value: value.into() };
        let file = |path: &str| SealedFile {
            path: path.parse().unwrap(),
            mode: FileMode::READ_ONLY,
            content: Bytes(b"hunter2".to_vec()),
        };
        SealedContents {
            env: vec![variable("DB", "postgres://hunter2"), variable("TZ", "Europe/Berlin")],
            files: vec![file("/etc/app.conf"), file("/run/secrets/db")],
            registry: Some(RegistryCredentials {
                username: "robot".into(),
                password: "hunter2".into(),
            }),
        }
    }

    #[test]
    fn contents_round_trip_and_print_nothing_of_themselves() {
        assert_wire(&contents());
        let printed = format!("{:?} {:?} {:?}", contents(), contents().env, contents().files);
        let printed = format!("{printed} {:?}", contents().registry);
        assert!(printed.contains("redacted") && printed.contains("DB"), "{printed}");
        assert!(!printed.contains("hunter2") && !printed.contains("robot"), "{printed}");
    }

    #[test]
    fn contents_that_no_container_can_have_are_refused_by_name() {
        let mut job = arbitrary::job();
        job.links = vec![arbitrary::link("db", 5432, "shop-db")];
        job.links[0].env = Some("ADDR".parse().unwrap());
        assert_eq!(contents().validate(&job), Ok(()));
        type Change = fn(&mut SealedContents);
        type Expected = fn(&ContentsError) -> bool;
        let cases: [(Change, Expected); 10] = [
            (|c| c.env[0].name = "ADDR".into(), |e| matches!(e, ContentsError::OfLink(_))),
            (|c| c.env[0].name.clear(), |e| matches!(e, ContentsError::VariableName(_))),
            (|c| c.env[0].name = "A=B".into(), |e| matches!(e, ContentsError::VariableName(_))),
            (|c| c.env[0].value = "a\0".into(), |e| matches!(e, ContentsError::VariableValue(_))),
            (|c| c.env.swap(0, 1), |e| matches!(e, ContentsError::Order(_))),
            (|c| c.files.swap(0, 1), |e| matches!(e, ContentsError::Order(_))),
            (
                |c| c.files[0].path = "/dev/mem".parse().unwrap(),
                |e| matches!(e, ContentsError::Mount(_)),
            ),
            (
                |c| c.files[1].path = "/tmp".parse().unwrap(),
                |e| matches!(e, ContentsError::MountedTwice(_)),
            ),
            (
                |c| c.registry.as_mut().unwrap().password.clear(),
                |e| matches!(e, ContentsError::Credentials),
            ),
            (
                |c| c.files[0].content = Bytes(vec![0; limits::SEALED_BYTES]),
                |e| matches!(e, ContentsError::TooLong(_)),
            ),
        ];
        for (i, (change, expected)) in cases.into_iter().enumerate() {
            let mut changed = contents();
            change(&mut changed);
            let error = changed.validate(&job).unwrap_err();
            assert!(expected(&error), "{i}: {error}");
            assert!(!error.to_string().contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn a_mode_is_of_files() {
        assert_eq!(FileMode::try_from(0o400).map(FileMode::bits), Ok(0o400));
        assert_eq!(FileMode::try_from(0o1777), Err(InvalidFileMode(0o1777)));
    }
}
