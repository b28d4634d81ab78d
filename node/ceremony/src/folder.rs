//! What a member has of an attempt on disk, in `ceremony/epoch-<e>-attempt-<a>` of its data
//! directory:
//!
//! | file | what |
//! |---|---|
//! | `parameters.bin` | what the members agreed on; another proposal under the same numbers is refused |
//! | `seed.age` | the seed, encrypted; destroyed at FINISH |
//! | `seed-erased` | says that the seed was destroyed |
//! | `journal.redb` | messages taken and sent, until the key is published |
//! | `shares/` | share streams of all members |
//! | `keyset.bin`, `key-share-<j>.age` | the key set; this member's share of the key, encrypted |
//! | `key-share-<j>.age.void`, `void-since` | the share of an attempt that made no key, until that is beyond doubt; the block in which it was seen |
//! | `publication.bin` | the one publication this member signed |
//! | `nonces.redb`, `restarts` | of the proof of possession |
//! | `reference-string.bin` | what telemetry proofs rest on |
//! | `transcript.bin` | every broadcast message, once the key is valid |
//! | `aborted/messages-<j>.bin` | after an abort: the messages this member holds, as evidence |
//! | `backup-head.bin` | of a share that was brought back: what its backup said of it, in place of the transcript |
//!
//! `veil ceremony verify` takes the folder of a completed attempt: a member has opened everybody's
//! streams, so nothing is missing.

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use rand::{RngCore, rngs::OsRng};
use tfhe::xof_key_set::CompressedXofKeySet;
use veil_committee::key_share::KeyShare;
use veil_keygen_ceremony::{keyset::write_key_set, seed::CeremonySeed, transcript::Transcript};
use veil_node_storage::{
    durable::{erase_file, rename_file, replace, write_new, write_new_with},
    keystore::{KeystoreError, Passphrase, read_secret, write_key_share, write_secret},
};
use veil_protocol_spec::{
    Attempt, Epoch, MAX_PARTICIPANTS, ParticipantIndex, Wire, ceremony::CeremonyParameters,
    publication::Publication,
};
use zeroize::Zeroizing;

use crate::{
    error::CeremonyError,
    finished::{FinishedKey, JOURNAL},
};

/// Blocks for which an attempt must have been over before a share of it is destroyed: a day of Ethereum's,
/// longer than any reorganisation that a chain survives.
pub(crate) const VOID_DEPTH: u64 = 7_200;

/// The files of one attempt.
#[derive(Clone, Debug)]
pub(crate) struct AttemptFolder {
    path: PathBuf,
    me: ParticipantIndex,
}

fn files(path: &Path) -> impl FnOnce(io::Error) -> CeremonyError {
    let path = path.to_owned();
    move |source| CeremonyError::Files { path, source }
}

impl AttemptFolder {
    pub(crate) fn of(
        data_dir: &Path,
        epoch: Epoch,
        attempt: Attempt,
        me: ParticipantIndex,
    ) -> Self {
        Self { path: FinishedKey::attempt_folder(data_dir, epoch, attempt), me }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn exists(&self) -> bool {
        self.path.is_dir()
    }

    /// Makes the folder, or checks that it belongs to the same proposal.
    pub(crate) fn prepare(&self, parameters: &CeremonyParameters) -> Result<(), CeremonyError> {
        fs::create_dir_all(&self.path).map_err(files(&self.path))?;
        let path = self.path.join("parameters.bin");
        match fs::read(&path) {
            Ok(bytes) if bytes == parameters.to_wire() => Ok(()),
            Ok(_) => Err(CeremonyError::OtherProposal(self.path.clone())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                write_new(&path, 0o644, &parameters.to_wire()).map_err(KeystoreError::from)?;
                Ok(())
            }
            Err(error) => Err(files(&path)(error)),
        }
    }

    pub(crate) fn journal(&self) -> PathBuf {
        self.path.join(JOURNAL)
    }

    pub(crate) fn nonces(&self) -> PathBuf {
        self.path.join("nonces.redb")
    }

    pub(crate) fn shares(&self) -> PathBuf {
        self.path.join("shares")
    }

    pub(crate) fn reference_string(&self) -> PathBuf {
        self.path.join("reference-string.bin")
    }

    fn seed_file(&self) -> PathBuf {
        self.path.join("seed.age")
    }

    fn key_share_file(&self) -> PathBuf {
        self.path.join(format!("key-share-{}.age", self.me))
    }

    /// "The seed is persisted before the first send": the stored one, or a fresh one from the
    /// operating system, stored.
    pub(crate) fn seed(&self, passphrase: &Passphrase) -> Result<CeremonySeed, CeremonyError> {
        if let Some(seed) = self.stored_seed(passphrase)? {
            return Ok(seed);
        }
        let mut bytes = Zeroizing::new([0; 32]);
        OsRng.fill_bytes(&mut *bytes);
        write_secret(&self.seed_file(), &*bytes, passphrase)?;
        Ok(CeremonySeed::new(*bytes))
    }

    pub(crate) fn stored_seed(
        &self,
        passphrase: &Passphrase,
    ) -> Result<Option<CeremonySeed>, CeremonyError> {
        let path = self.seed_file();
        if !path.exists() {
            return Ok(None);
        }
        let bytes = read_secret(&path, passphrase)?;
        let bytes: [u8; 32] = bytes.as_slice().try_into().map_err(|_| KeystoreError::Decrypt {
            path,
            detail: "it holds no ceremony seed".to_owned(),
        })?;
        Ok(Some(CeremonySeed::new(bytes)))
    }

    /// Leaves a mark, so that a lost journal does not make this member begin anew with other
    /// messages than it has sent.
    pub(crate) fn erase_seed(&self) -> io::Result<()> {
        replace(&self.erased_mark(), b"")?;
        erase_file(&self.seed_file())
    }

    pub(crate) fn seed_is_erased(&self) -> bool {
        self.erased_mark().exists()
    }

    fn erased_mark(&self) -> PathBuf {
        self.path.join("seed-erased")
    }

    fn void_key_share_file(&self) -> PathBuf {
        self.path.join(format!("key-share-{}.age.void", self.me))
    }

    fn void_since_file(&self) -> PathBuf {
        self.path.join("void-since")
    }

    /// The attempt made no key. Its share is worth nothing then, so that keeping it costs nothing, while
    /// a chain that changes its mind would have destroyed a share of a valid key.
    pub(crate) fn void_key_share(&self) -> io::Result<()> {
        rename_file(&self.key_share_file(), &self.void_key_share_file()).map(drop)
    }

    /// The attempt made the key after all: its share has its name again, unless there is one.
    pub(crate) fn restore_key_share(&self) -> io::Result<()> {
        if !self.key_share_file().exists() {
            let restored = rename_file(&self.void_key_share_file(), &self.key_share_file())?;
            if restored {
                tracing::warn!(path = %self.path.display(), "the chain has published the key of an attempt that it had ended; its share is used again");
            }
        }
        remove_file(&self.void_since_file())
    }

    /// Destroys a void share once the attempt has been over for [`VOID_DEPTH`] blocks. `block` is the last
    /// one that is settled; its chain says that the attempt made no key.
    pub(crate) fn erase_void_share(&self, block: u64) -> io::Result<()> {
        if !self.void_key_share_file().exists() {
            return Ok(());
        }
        let since = match fs::read_to_string(self.void_since_file()) {
            Ok(text) => text.trim().parse::<u64>().ok(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        match since {
            Some(since) if block >= since.saturating_add(VOID_DEPTH) => {
                erase_file(&self.void_key_share_file())?;
                remove_file(&self.void_since_file())
            }
            Some(_) => Ok(()),
            None => replace(&self.void_since_file(), block.to_string().as_bytes()),
        }
    }

    /// The key set goes to disk before FINISH is signed. One that is there is of a former life,
    /// which did not sign.
    pub(crate) fn write_key_set(&self, key_set: &CompressedXofKeySet) -> Result<(), KeystoreError> {
        let path = self.path.join("keyset.bin");
        remove(&path)?;
        write_new_with(&path, 0o644, |file| {
            let mut buffered = io::BufWriter::with_capacity(1 << 20, file);
            write_key_set(key_set, &mut buffered).map_err(io::Error::other)?;
            buffered.flush()
        })?;
        Ok(())
    }

    /// As [`Self::write_key_set`].
    pub(crate) fn write_key_share(
        &self,
        share: &KeyShare,
        passphrase: &Passphrase,
    ) -> Result<(), KeystoreError> {
        let path = self.key_share_file();
        remove(&path)?;
        write_key_share(&path, share, passphrase)
    }

    pub(crate) fn key_share(
        &self,
        passphrase: &Passphrase,
    ) -> Result<Option<KeyShare>, KeystoreError> {
        let path = self.key_share_file();
        if path.exists() {
            veil_node_storage::keystore::read_key_share(&path, passphrase).map(Some)
        } else {
            Ok(None)
        }
    }

    pub(crate) fn write_transcript(&self, transcript: &Transcript) -> Result<(), KeystoreError> {
        let path = self.path.join("transcript.bin");
        remove(&path)?;
        Ok(write_new(&path, 0o644, &transcript.to_wire())?)
    }

    pub(crate) fn write_evidence(&self, transcript: &Transcript) -> Result<(), KeystoreError> {
        let folder = self.path.join("aborted");
        let path = folder.join(format!("messages-{}.bin", self.me));
        fs::create_dir_all(&folder).map_err(|source| KeystoreError::Io { path: folder, source })?;
        remove(&path)?;
        Ok(write_new(&path, 0o644, &transcript.to_wire())?)
    }

    /// Records the publication that this member is about to sign; it signs no other in this attempt.
    pub(crate) fn bind_publication(&self, publication: &Publication) -> Result<(), CeremonyError> {
        let path = self.path.join("publication.bin");
        match fs::read(&path) {
            Ok(bytes) if bytes == publication.to_wire() => Ok(()),
            Ok(_) => Err(CeremonyError::OtherPublication(path)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                write_new(&path, 0o644, &publication.to_wire()).map_err(KeystoreError::from)?;
                Ok(())
            }
            Err(error) => Err(files(&path)(error)),
        }
    }

    /// Counts the lives of this member in the attempt.
    pub(crate) fn count_start(&self) -> Result<u32, CeremonyError> {
        let path = self.path.join("restarts");
        let starts = match fs::read_to_string(&path) {
            Ok(text) => text.trim().parse::<u32>().unwrap_or(u32::MAX / 2).saturating_add(1),
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            Err(error) => return Err(files(&path)(error)),
        };
        replace(&path, starts.to_string().as_bytes()).map_err(files(&path))?;
        Ok(starts)
    }

    /// After an attempt that made no key. Without the seed it can make none any more; the share, if
    /// FINISH was signed, is put out of use.
    pub(crate) fn give_up(&self) -> io::Result<()> {
        self.erase_seed()?;
        self.void_key_share()
    }

    pub(crate) fn open_shares(
        &self,
        setup: &veil_keygen_ceremony::setup::Setup,
    ) -> Result<crate::offline::share_files::MemberShareFiles, CeremonyError> {
        let folder = self.shares();
        let files_ = crate::offline::share_files::ShareFiles::open_or_create(
            &folder,
            setup.committee(),
            setup.plan(),
        )
        .map_err(files(&folder))?;
        // Chunks from before a restart count, since the machine compares what it reads with the
        // signed roots; its own it computes again.
        Ok(Arc::clone(&files_).reader())
    }
}

/// The attempts of which this member keeps a void share.
pub(crate) fn void_attempts(data_dir: &Path) -> io::Result<Vec<(Epoch, Attempt, AttemptFolder)>> {
    let folder = data_dir.join("ceremony");
    let entries = match fs::read_dir(&folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut void = Vec::new();
    for entry in entries {
        let name = entry?.file_name();
        let numbers = name.to_str().and_then(|name| {
            let (epoch, attempt) = name.strip_prefix("epoch-")?.split_once("-attempt-")?;
            Some((Epoch(epoch.parse().ok()?), Attempt(attempt.parse().ok()?)))
        });
        let Some((epoch, attempt)) = numbers else { continue };
        let seats = (1..=MAX_PARTICIPANTS as u8).filter_map(|j| ParticipantIndex::new(j).ok());
        let folders = seats.map(|me| AttemptFolder::of(data_dir, epoch, attempt, me));
        void.extend(
            folders
                .filter(|folder| folder.void_key_share_file().exists())
                .map(|folder| (epoch, attempt, folder)),
        );
    }
    Ok(void)
}

fn remove_file(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn remove(path: &Path) -> Result<(), KeystoreError> {
    remove_file(path).map_err(|source| KeystoreError::Io { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_void_share_can_come_back_until_it_has_been_void_for_long() {
        let data = tempfile::tempdir().unwrap();
        let me = ParticipantIndex::new(2).unwrap();
        let folder = AttemptFolder::of(data.path(), Epoch(0), Attempt(1), me);
        assert!(void_attempts(data.path()).unwrap().is_empty());
        fs::create_dir_all(folder.path()).unwrap();
        folder.void_key_share().unwrap(); // there is none
        let share = || fs::read(folder.key_share_file()).ok();
        fs::write(folder.key_share_file(), b"share").unwrap();
        folder.void_key_share().unwrap();
        assert_eq!(share(), None);
        let [(epoch, attempt, _)] = &void_attempts(data.path()).unwrap()[..] else { panic!() };
        assert_eq!((*epoch, *attempt), (Epoch(0), Attempt(1)));
        folder.erase_void_share(100).unwrap();
        folder.erase_void_share(100 + VOID_DEPTH - 1).unwrap();
        folder.restore_key_share().unwrap();
        assert_eq!(share().as_deref(), Some(&b"share"[..]));
        // Void again: it counts from then on.
        folder.void_key_share().unwrap();
        folder.erase_void_share(100 + VOID_DEPTH).unwrap();
        folder.erase_void_share(100 + 2 * VOID_DEPTH - 1).unwrap();
        assert_eq!(void_attempts(data.path()).unwrap().len(), 1);
        folder.erase_void_share(100 + 2 * VOID_DEPTH).unwrap();
        assert!(void_attempts(data.path()).unwrap().is_empty());
        folder.restore_key_share().unwrap();
        assert_eq!(share(), None);
    }
}
