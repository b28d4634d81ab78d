//! The inputs of the manifests of the slot under way, so that evaluating one needs nobody.
//!
//! "Before a member votes for a manifest, and before it proposes one, it stores the bodies of the pending jobs,
//! the telemetry, and policy and labels as of the block." (`slot.md`, 3) After a lock nothing needs the chain,
//! or what peers have in memory.
//!
//! # Flow
//! 1. [`InputStore::keep`], before a member votes for a manifest or proposes it.
//! 2. [`InputStore::bundle`], [`InputStore::job`], [`InputStore::telemetry`]: for the evaluation, before
//!    and after a restart, and for peers that ask.
//! 3. [`InputStore::prune`], when the slot is certified: what the certified manifest names goes to the
//!    [`Archive`], what others of the slot named is forgotten.
//!
//! # State and restart
//! One redb file, read entry by entry: opening it reads nothing. What several manifests name is stored
//! once. Whoever reads an entry compares it with the digest that it asked for.

use std::path::{Path, PathBuf};

use redb::{Database, ReadableDatabase, TableDefinition};
use veil_protocol_spec::{
    Blake3Digest, CodecError, Slot, Wire,
    inputs::InputBundle,
    scheduling::{JobSpec, Telemetry, UnixMillis},
};

use crate::{
    archive::{Archive, ArchiveError, Kind},
    database,
};

/// An entry's kind and digest.
type Key = (u8, [u8; 32]);

/// The latest slot whose manifests name an entry, and the entry.
const ENTRIES: TableDefinition<'_, Key, (u64, &[u8])> = TableDefinition::new("inputs v1");
/// The entries that a manifest names, by the slot and the manifest's digest.
const NAMED: TableDefinition<'_, (u64, [u8; 32]), &[u8]> = TableDefinition::new("named v1");
const KEY_BYTES: usize = 33;

/// Inputs are not kept, or not found again.
#[derive(Debug, thiserror::Error)]
pub enum InputsError {
    /// The file cannot be read or written.
    #[error("the stored inputs {path}: {detail}")]
    Storage {
        /// Which file.
        path: PathBuf,
        /// What the storage said.
        detail: String,
    },
    /// An entry is of another version, or damaged.
    #[error("the stored inputs {path}: {source}; what is missing is fetched again")]
    Entry {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        source: CodecError,
    },
    /// The archive.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
}

/// See the [module documentation](self).
pub struct InputStore {
    path: PathBuf,
    database: Database,
}

impl core::fmt::Debug for InputStore {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("InputStore").field("path", &self.path).finish_non_exhaustive()
    }
}

impl InputStore {
    /// Opens or makes the file.
    ///
    /// # Errors
    /// [`InputsError::Storage`].
    pub fn open(path: &Path) -> Result<Self, InputsError> {
        let open = || -> Result<Database, redb::Error> {
            let database = database::open(path)?;
            let writing = database::begin_write(&database)?;
            writing.open_table(ENTRIES)?;
            writing.open_table(NAMED)?;
            writing.commit()?;
            Ok(database)
        };
        let storage = |error: redb::Error| InputsError::Storage {
            path: path.to_owned(),
            detail: error.to_string(),
        };
        Ok(Self { path: path.to_owned(), database: open().map_err(storage)? })
    }

    fn storage(&self, error: redb::Error) -> InputsError {
        InputsError::Storage { path: self.path.clone(), detail: error.to_string() }
    }

    /// Stores all that a manifest needs, durably. Waits for the disk.
    ///
    /// # Errors
    /// [`InputsError::Storage`].
    pub fn keep<'a>(
        &self,
        bundle: &InputBundle,
        jobs: impl IntoIterator<Item = &'a JobSpec>,
        telemetry: impl IntoIterator<Item = &'a Telemetry>,
    ) -> Result<(), InputsError> {
        let jobs = jobs.into_iter().map(|job| (Kind::Job, job.digest(), job.to_wire()));
        let telemetry = telemetry
            .into_iter()
            .map(|message| (Kind::Telemetry, message.body.digest(), message.to_wire()));
        let own = [(Kind::Inputs, bundle.manifest, bundle.to_wire())];
        let entries = jobs.chain(telemetry).chain(own).collect();
        self.store(bundle, entries).map_err(|error| self.storage(error))
    }

    fn store(
        &self,
        bundle: &InputBundle,
        entries: Vec<(Kind, Blake3Digest, Vec<u8>)>,
    ) -> Result<(), redb::Error> {
        let InputBundle { slot, manifest, .. } = bundle;
        let writing = database::begin_write(&self.database)?;
        {
            let mut table = writing.open_table(ENTRIES)?;
            let mut keys = Vec::with_capacity(entries.len() * KEY_BYTES);
            for (kind, digest, bytes) in &entries {
                table.insert((*kind as u8, digest.0), (slot.0, bytes.as_slice()))?;
                keys.push(*kind as u8);
                keys.extend_from_slice(&digest.0);
            }
            writing.open_table(NAMED)?.insert((slot.0, manifest.0), keys.as_slice())?;
        }
        writing.commit()?;
        Ok(())
    }

    fn get<T: Wire>(&self, kind: Kind, digest: &Blake3Digest) -> Result<Option<T>, InputsError> {
        let bytes = self.bytes((kind as u8, digest.0)).map_err(|error| self.storage(error))?;
        let decoded = bytes.map(|bytes| T::from_wire(&bytes)).transpose();
        decoded.map_err(|source| InputsError::Entry { path: self.path.clone(), source })
    }

    fn bytes(&self, key: Key) -> Result<Option<Vec<u8>>, redb::Error> {
        let table = self.database.begin_read()?.open_table(ENTRIES)?;
        Ok(table.get(key)?.map(|entry| entry.value().1.to_vec()))
    }

    /// What was kept for a manifest, by its digest.
    ///
    /// # Errors
    /// [`InputsError`].
    pub fn bundle(&self, manifest: &Blake3Digest) -> Result<Option<InputBundle>, InputsError> {
        self.get(Kind::Inputs, manifest)
    }

    /// The body of a job, by its digest.
    ///
    /// # Errors
    /// [`InputsError`].
    pub fn job(&self, digest: &Blake3Digest) -> Result<Option<JobSpec>, InputsError> {
        let found = self.get::<JobSpec>(Kind::Job, digest)?;
        Ok(found.filter(|job| job.digest() == *digest))
    }

    /// A telemetry message, by its digest.
    ///
    /// # Errors
    /// [`InputsError`].
    pub fn telemetry(&self, digest: &Blake3Digest) -> Result<Option<Telemetry>, InputsError> {
        let found = self.get::<Telemetry>(Kind::Telemetry, digest)?;
        Ok(found.filter(|message| message.body.digest() == *digest))
    }

    /// Forgets what is named by manifests of slots up to `through` only. What a manifest named that
    /// `certified` says was certified goes to the archive before. Waits for the disk.
    ///
    /// # Errors
    /// [`InputsError`]; then it is still here.
    pub fn prune(
        &self,
        through: Slot,
        certified: impl Fn(Slot) -> Option<Blake3Digest>,
        archive: &Archive,
        now: UnixMillis,
    ) -> Result<(), InputsError> {
        for (slot, manifest, keys) in self.named(through).map_err(|error| self.storage(error))? {
            if certified(slot) == Some(manifest) {
                self.archive(slot, &keys, archive, now)?;
            }
        }
        self.forget(through).map_err(|error| self.storage(error))
    }

    fn named(&self, through: Slot) -> Result<Vec<(Slot, Blake3Digest, Vec<Key>)>, redb::Error> {
        let table = self.database.begin_read()?.open_table(NAMED)?;
        let all = (0, [0; 32])..=(through.0, [0xff; 32]);
        let manifests = table.range(all)?.map(|entry| {
            let (key, keys) = entry?;
            let (slot, manifest) = key.value();
            let (keys, _) = keys.value().as_chunks::<KEY_BYTES>();
            let keys = keys.iter().map(|[kind, digest @ ..]| (*kind, *digest)).collect();
            Ok((Slot(slot), Blake3Digest(manifest), keys))
        });
        manifests.collect()
    }

    fn archive(
        &self,
        slot: Slot,
        keys: &[Key],
        archive: &Archive,
        now: UnixMillis,
    ) -> Result<(), InputsError> {
        for kind in [Kind::Inputs, Kind::Job, Kind::Telemetry] {
            let of_kind = keys.iter().filter(|(of, _)| *of == kind as u8);
            let entries = of_kind.map(|key| self.bytes(*key)).collect::<Result<Vec<_>, _>>();
            let entries = entries.map_err(|error| self.storage(error))?;
            let numbered = (0..).zip(entries.iter().flatten().map(Vec::as_slice));
            archive.put(slot, kind, numbered, now)?;
        }
        Ok(())
    }

    fn forget(&self, through: Slot) -> Result<(), redb::Error> {
        let writing = database::begin_write(&self.database)?;
        {
            let all = (0, [0; 32])..=(through.0, [0xff; 32]);
            writing.open_table(NAMED)?.retain_in(all, |_, _| false)?;
            writing.open_table(ENTRIES)?.retain(|_, (slot, _)| slot > through.0)?;
        }
        writing.commit()?;
        Ok(())
    }
}
