//! The share streams of an attempt as files: `bits-<participant>.bin` and
//! `bodies-<participant>.bin`, chunks one after the other.
//!
//! Members that run in one process share the files, since a chunk that matches its signed root is
//! the same for all; each has its own notion of which chunks it holds.

use std::{
    collections::HashSet,
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use veil_keygen_ceremony::{
    chunks::ChunkPlan,
    store::{ChunkStore, StoreError},
};
use veil_protocol_spec::{Committee, ParticipantIndex, ceremony::Stream};

/// The files of one attempt.
#[derive(Debug)]
pub struct ShareFiles {
    folder: PathBuf,
    plan: ChunkPlan,
    /// By stream, then participant.
    files: Vec<Vec<File>>,
}

const STREAMS: [(Stream, &str); 2] = [(Stream::Bits, "bits"), (Stream::Bodies, "bodies")];

impl ShareFiles {
    /// Makes new files in a folder, which is created.
    ///
    /// # Errors
    /// Whatever the system says; `AlreadyExists` if there are such files.
    pub fn create(folder: &Path, committee: Committee, plan: &ChunkPlan) -> io::Result<Arc<Self>> {
        fs::create_dir_all(folder)?;
        Self::with_options(
            folder,
            committee,
            plan,
            OpenOptions::new().read(true).write(true).create_new(true),
        )
    }

    /// Opens the files of an attempt that goes on after a restart, or makes them.
    ///
    /// # Errors
    /// Whatever the system says.
    pub fn open_or_create(
        folder: &Path,
        committee: Committee,
        plan: &ChunkPlan,
    ) -> io::Result<Arc<Self>> {
        fs::create_dir_all(folder)?;
        Self::with_options(
            folder,
            committee,
            plan,
            OpenOptions::new().read(true).write(true).create(true).truncate(false),
        )
    }

    /// Opens the files of a finished attempt.
    ///
    /// # Errors
    /// Whatever the system says.
    pub fn open(folder: &Path, committee: Committee, plan: &ChunkPlan) -> io::Result<Arc<Self>> {
        Self::with_options(folder, committee, plan, OpenOptions::new().read(true))
    }

    fn with_options(
        folder: &Path,
        committee: Committee,
        plan: &ChunkPlan,
        options: &OpenOptions,
    ) -> io::Result<Arc<Self>> {
        let file = |name: &str, j: ParticipantIndex| {
            let path = folder.join(format!("{name}-{j}.bin"));
            options.open(&path).map_err(|error| {
                io::Error::new(error.kind(), format!("{}: {error}", path.display()))
            })
        };
        let files = STREAMS
            .iter()
            .map(|(_, name)| committee.participants().map(|j| file(name, j)).collect())
            .collect::<io::Result<_>>()?;
        Ok(Arc::new(Self { folder: folder.to_owned(), plan: plan.clone(), files }))
    }

    /// One member's view: it holds nothing yet.
    #[must_use]
    pub fn member(self: &Arc<Self>) -> MemberShareFiles {
        MemberShareFiles { files: Arc::clone(self), held: Some(HashSet::new()) }
    }

    /// A reader's view: it holds whatever the files do.
    #[must_use]
    pub fn reader(self: &Arc<Self>) -> MemberShareFiles {
        MemberShareFiles { files: Arc::clone(self), held: None }
    }

    fn place(&self, stream: Stream, sender: ParticipantIndex, index: u32) -> Option<Place<'_>> {
        let files = &self.files[usize::from(stream == Stream::Bodies)];
        let chunks = self.plan.of(stream);
        let chunk = chunks.get(index as usize)?;
        let offset = chunks[..index as usize].iter().map(|chunk| chunk.bytes as u64).sum();
        Some(Place { file: files.get(sender.position())?, offset, bytes: chunk.bytes })
    }

    fn error(&self, error: &io::Error) -> StoreError {
        StoreError(format!("{}: {error}", self.folder.display()))
    }
}

struct Place<'a> {
    file: &'a File,
    offset: u64,
    bytes: usize,
}

/// [`ShareFiles`] as one member sees them.
#[derive(Debug)]
pub struct MemberShareFiles {
    files: Arc<ShareFiles>,
    held: Option<HashSet<(Stream, ParticipantIndex, u32)>>,
}

impl ChunkStore for MemberShareFiles {
    fn put(
        &mut self,
        stream: Stream,
        sender: ParticipantIndex,
        index: u32,
        bytes: &[u8],
    ) -> Result<(), StoreError> {
        let place = self
            .files
            .place(stream, sender, index)
            .filter(|place| place.bytes == bytes.len())
            .ok_or_else(|| StoreError(format!("there is no chunk {index} of that length")))?;
        // Another member of this process may have written the same bytes already.
        let mut there = vec![0; bytes.len()];
        let same = place.file.read_exact_at(&mut there, place.offset).is_ok() && there == bytes;
        if !same {
            place.file.write_all_at(bytes, place.offset).map_err(|e| self.files.error(&e))?;
        }
        if let Some(held) = &mut self.held {
            held.insert((stream, sender, index));
        }
        Ok(())
    }

    fn get(
        &mut self,
        stream: Stream,
        sender: ParticipantIndex,
        index: u32,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        if self.held.as_ref().is_some_and(|held| !held.contains(&(stream, sender, index))) {
            return Ok(None);
        }
        let Some(place) = self.files.place(stream, sender, index) else { return Ok(None) };
        let mut bytes = vec![0; place.bytes];
        match place.file.read_exact_at(&mut bytes, place.offset) {
            Ok(()) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
            Err(error) => Err(self.files.error(&error)),
        }
    }
}
