//! The folder that a ceremony leaves:
//!
//! | file | what |
//! |---|---|
//! | `ceremony.json` | summary for people and scripts; not part of what is verified |
//! | `transcript.bin` | every broadcast message of the attempt ([`Transcript`]) |
//! | `shares/bits-<j>.bin`, `shares/bodies-<j>.bin` | share streams of participant j |
//! | `keyset.bin` | the key set, `tfhe` safe serialization |
//! | `reference-string.bin` | the string of the telemetry proofs that the members made |
//! | `key-share-<j>.age` | key share of participant j, encrypted |
//! | `aborted/messages-<j>.bin` | after an ABORT: the messages participant j holds, as evidence |

use std::{
    fs::{self, File},
    io::{self, BufReader},
    path::{Path, PathBuf},
};

use tfhe::xof_key_set::CompressedXofKeySet;
use veil_keygen_ceremony::{
    chunks::ChunkPlan,
    keyset::{
        KeySetError, Layout, ParameterSet, key_set_size_limit, read_key_set_with_digest,
        write_key_set,
    },
    transcript::{Transcript, TranscriptError, Verified},
};
use veil_node_storage::{
    durable::{write_new, write_new_with},
    keystore::{KeystoreError, Passphrase, write_key_share},
};
use veil_protocol_spec::{Blake3Digest, CodecError, KeySetDigest, Wire, ceremony::Stream};
use veil_reference_string::Powers;

use crate::{
    offline::{
        demonstrate::{DemonstrateError, exercise_public},
        share_files::ShareFiles,
        simulate::Simulation,
    },
    reference_string::{file_of, keep},
};

/// The file of the reference string.
const REFERENCE_STRING: &str = "reference-string.bin";

/// Why a folder cannot be written or does not verify.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The folder is in use.
    #[error("{0} is not empty; nothing is overwritten: choose another folder")]
    NotEmpty(PathBuf),
    /// A file cannot be read or written.
    #[error("{path}: {source}")]
    Io {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A secret cannot be stored.
    #[error(transparent)]
    Keystore(#[from] KeystoreError),
    /// The transcript's bytes are damaged.
    #[error("{path}: {source}")]
    Codec {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        source: CodecError,
    },
    /// The transcript proves nothing.
    #[error(transparent)]
    Transcript(#[from] TranscriptError),
    /// The key set file is damaged or another one.
    #[error("{path}: {source}")]
    KeySet {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        source: KeySetError,
    },
    /// A share file has bytes that belong to no chunk.
    #[error("{path} has {found} bytes instead of {expected}")]
    Length {
        /// Which file.
        path: PathBuf,
        /// Bytes found.
        found: u64,
        /// Bytes of the stream.
        expected: u64,
    },
    /// The reference string cannot be made, or its file is another one.
    #[error("{path}: {reason}")]
    ReferenceString {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The key set does not work.
    #[error("the key set does not work: {0}")]
    Exercise(#[from] DemonstrateError),
}

impl ArchiveError {
    /// Whether the cause is the file system rather than the content.
    #[must_use]
    pub const fn is_io(&self) -> bool {
        matches!(self, Self::Io { .. } | Self::NotEmpty(_) | Self::Keystore(_))
    }
}

fn io_error(path: &Path) -> impl FnOnce(io::Error) -> ArchiveError {
    let path = path.to_owned();
    move |source| ArchiveError::Io { path, source }
}

/// Makes the folder, which must be empty if it exists.
///
/// # Errors
/// [`ArchiveError::NotEmpty`], [`ArchiveError::Io`].
pub fn prepare(folder: &Path) -> Result<(), ArchiveError> {
    fs::create_dir_all(folder).map_err(io_error(folder))?;
    match fs::read_dir(folder).map_err(io_error(folder))?.next() {
        Some(_) => Err(ArchiveError::NotEmpty(folder.to_owned())),
        None => Ok(()),
    }
}

/// Where the share streams are.
#[must_use]
pub fn shares(folder: &Path) -> PathBuf {
    folder.join("shares")
}

/// Writes what a finished simulation made, key shares first.
///
/// # Errors
/// [`ArchiveError`].
pub fn write_finished(
    folder: &Path,
    simulation: &Simulation,
    key_set: &CompressedXofKeySet,
    passphrase: &Passphrase,
) -> Result<(), ArchiveError> {
    for member in &simulation.members {
        if let Some(share) = member.key_share() {
            let path = folder.join(format!("key-share-{}.age", member.participant()));
            write_key_share(&path, share, passphrase)?;
        }
    }
    let path = folder.join("keyset.bin");
    write_new_with(&path, 0o644, |file| write_key_set(key_set, file).map_err(io::Error::other))
        .map_err(KeystoreError::from)?;
    let params = simulation.params.clone();
    if let Some(powers) = simulation.members[0].reference_string() {
        let path = folder.join(REFERENCE_STRING);
        keep(&params, &powers, &path).map_err(|error| ArchiveError::ReferenceString {
            path: path.clone(),
            reason: error.to_string(),
        })?;
    }
    let transcript = simulation.transcript(&simulation.members[0]);
    write_new(&folder.join("transcript.bin"), 0o644, &transcript.to_wire())
        .map_err(KeystoreError::from)?;
    Ok(())
}

/// Writes the evidence of an aborted simulation: the messages that each member holds.
///
/// # Errors
/// [`ArchiveError`].
pub fn write_aborted(folder: &Path, simulation: &Simulation) -> Result<(), ArchiveError> {
    let folder = folder.join("aborted");
    fs::create_dir_all(&folder).map_err(io_error(&folder))?;
    for member in &simulation.members {
        let path = folder.join(format!("messages-{}.bin", member.participant()));
        write_new(&path, 0o644, &simulation.transcript(member).to_wire())
            .map_err(KeystoreError::from)?;
    }
    Ok(())
}

/// What the folder of a finished ceremony proves.
pub struct VerifiedFolder {
    /// What its transcript proves.
    pub transcript: Verified,
    /// Digest of the reference string that all members made: what the chain must say as well.
    pub reference_string: Blake3Digest,
}

/// Verifies the folder of a finished ceremony.
///
/// # Errors
/// [`ArchiveError`] names the first thing that is wrong.
pub fn verify(
    folder: &Path,
    mut progress: impl FnMut(u32, u32),
) -> Result<VerifiedFolder, ArchiveError> {
    verify_with(folder, &mut progress)
}

fn verify_with(
    folder: &Path,
    progress: &mut dyn FnMut(u32, u32),
) -> Result<VerifiedFolder, ArchiveError> {
    let path = folder.join("transcript.bin");
    let file = File::open(&path).map_err(io_error(&path))?;
    let mut bytes = Vec::new();
    let limit = Transcript::MAX_BYTES as u64 + 1;
    io::Read::read_to_end(&mut io::Read::take(file, limit), &mut bytes).map_err(io_error(&path))?;
    let transcript =
        Transcript::from_wire(&bytes).map_err(|source| ArchiveError::Codec { path, source })?;
    let committee = transcript.parameters.committee;
    let params = ParameterSet::by_name(&transcript.parameters.parameters, committee)
        .map_err(|error| TranscriptError::Parameters(error.to_string()))?;
    let plan = ChunkPlan::new(committee, &params, &Layout::of(&params));
    let shares = shares(folder);
    for (stream, name) in [(Stream::Bits, "bits"), (Stream::Bodies, "bodies")] {
        for j in committee.participants() {
            let path = shares.join(format!("{name}-{j}.bin"));
            let found = fs::metadata(&path).map_err(io_error(&path))?.len();
            let expected = plan.stream_bytes(stream);
            if found != expected {
                return Err(ArchiveError::Length { path, found, expected });
            }
        }
    }
    let files = ShareFiles::open(&shares, committee, &plan).map_err(io_error(&shares))?;
    let verified = transcript.verify(&mut files.reader(), progress)?;
    check_key_set(folder, &params, &verified.digest)?;
    let reference_string = check_reference_string(folder, &params, &verified.reference_string)?;
    exercise_public(&verified.key_set)?;
    Ok(VerifiedFolder { transcript: verified, reference_string })
}

/// The file is a function of the powers that the transcript shows; gives the digest that is published.
fn check_reference_string(
    folder: &Path,
    params: &ParameterSet,
    powers: &Powers,
) -> Result<Blake3Digest, ArchiveError> {
    let path = folder.join(REFERENCE_STRING);
    let found = fs::read(&path).map_err(io_error(&path))?;
    let wrong = |reason: String| ArchiveError::ReferenceString { path: path.clone(), reason };
    let (digest, expected) = file_of(params, powers).map_err(|error| wrong(error.to_string()))?;
    if found != expected {
        return Err(wrong("it is not the string that the members made; fetch it again".to_owned()));
    }
    Ok(digest)
}

fn check_key_set(
    folder: &Path,
    params: &ParameterSet,
    digest: &KeySetDigest,
) -> Result<(), ArchiveError> {
    let path = folder.join("keyset.bin");
    let file = BufReader::new(File::open(&path).map_err(io_error(&path))?);
    read_key_set_with_digest(file, key_set_size_limit(params), params, digest)
        .map(drop)
        .map_err(|source| ArchiveError::KeySet { path, source })
}
