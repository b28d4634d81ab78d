//! What an executor remembers over restarts of its process, because the engine does not: how often and when it
//! has started a container again, how often it has run batch replicas, and which images it has brought to the engine.
//!
//! Without the record nothing breaks: restarts are counted anew, and images that were pulled before stay. But a
//! batch replica whose container is gone as well is run again.

use std::{collections::BTreeMap, io};

use serde::{Deserialize, Serialize};
use veil_protocol_spec::{
    Blake3Digest, ReplicaIndex, Slot,
    scheduling::{EndedReplica, ImageReference, ReplicaExit},
};

use crate::{
    observe::Exit,
    replica::ReplicaId,
    runs::{AllRuns, Runs},
};

/// Images in the record. What is beyond is not collected.
const MAX_IMAGES: usize = 1024;

/// Writes the record to where the next process finds it.
pub type Save = Box<dyn Fn(&[u8]) -> io::Result<()> + Send + Sync>;

/// Restarts of one replica by this worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Restarts {
    pub(crate) job: Blake3Digest,
    pub(crate) replica: ReplicaIndex,
    /// What placed it here.
    pub(crate) slot: Slot,
    /// Since it was placed here.
    pub(crate) count: u64,
    /// Since the interval began in which the job counts them.
    pub(crate) in_interval: u64,
    /// Milliseconds of Unix time.
    pub(crate) interval_began: u64,
    /// Runs in a row that ended soon, the one that goes on included.
    pub(crate) short_runs: u32,
    /// Whether this worker stops the run that goes on for its bad health.
    pub(crate) was_unhealthy: bool,
    pub(crate) last_exit: Exit,
}

impl Restarts {
    /// None yet.
    pub(crate) const fn new(id: ReplicaId, slot: Slot, last_exit: Exit) -> Self {
        let ReplicaId { job, replica } = id;
        Self {
            job,
            replica,
            slot,
            count: 0,
            in_interval: 0,
            interval_began: 0,
            short_runs: 0,
            was_unhealthy: false,
            last_exit,
        }
    }

    const fn id(&self) -> ReplicaId {
        ReplicaId { job: self.job, replica: self.replica }
    }
}

/// An image that this worker has pulled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Pulled {
    image: ImageReference,
    /// Seconds of Unix time.
    last_used: u64,
}

/// Numbers are of this version; another is not read.
const VERSION: u32 = 2;

#[derive(Serialize, Deserialize)]
struct Stored {
    version: u32,
    restarts: Vec<Restarts>,
    /// Not there before there were batch jobs.
    #[serde(default)]
    runs: Vec<Runs>,
    images: Vec<Pulled>,
}

/// See the [module documentation](self).
#[derive(Default)]
pub(crate) struct Record {
    restarts: BTreeMap<ReplicaId, Restarts>,
    runs: AllRuns,
    /// When each was last used.
    images: BTreeMap<ImageReference, u64>,
    save: Option<Save>,
}

impl Record {
    /// What an earlier process saved, and where this one saves. What cannot be read is as if it were not
    /// there.
    pub(crate) fn open(stored: &[u8], save: Save) -> Self {
        let stored = match serde_json::from_slice::<Stored>(stored) {
            Ok(stored) if stored.version == VERSION => Some(stored),
            Ok(Stored { version, .. }) => {
                tracing::warn!(
                    version,
                    "the record of containers is of another version; begun anew"
                );
                None
            }
            Err(_) if stored.is_empty() => None,
            Err(error) => {
                tracing::warn!(%error, "the record of containers cannot be read; begun anew");
                None
            }
        };
        let Some(Stored { restarts, runs, images, .. }) = stored else {
            return Self { save: Some(save), ..Self::default() };
        };
        Self {
            restarts: restarts.into_iter().map(|of| (of.id(), of)).collect(),
            runs: AllRuns::restore(runs),
            images: images.into_iter().map(|of| (of.image, of.last_used)).collect(),
            save: Some(save),
        }
    }

    fn save(&self) {
        let Some(save) = &self.save else { return };
        let images = self.images.iter();
        let stored = Stored {
            version: VERSION,
            restarts: self.restarts.values().copied().collect(),
            runs: self.runs.stored(),
            images: images
                .map(|(image, at)| Pulled { image: image.clone(), last_used: *at })
                .collect(),
        };
        let saved = serde_json::to_vec(&stored).map_err(io::Error::other);
        if let Err(error) = saved.and_then(|bytes| save(&bytes)) {
            tracing::warn!(%error, "the record of containers is not on disk; after a restart of this process restarts are counted anew, and batch jobs whose containers are gone run again");
        }
    }

    pub(crate) fn restarts(&self, id: &ReplicaId) -> Option<Restarts> {
        self.restarts.get(id).copied()
    }

    /// What is known of the replica's restarts now.
    pub(crate) fn restarted(&mut self, of: Restarts) {
        self.restarts.insert(of.id(), of);
        self.save();
    }

    /// Drops replicas that are over: of slots up to `as_of`, and not among those that are `wanted`.
    pub(crate) fn retain_replicas(&mut self, as_of: Slot, wanted: impl Fn(&ReplicaId) -> bool) {
        let before = self.restarts.len();
        self.restarts.retain(|id, of| of.slot > as_of || wanted(id));
        if self.runs.retain(as_of, &wanted) || self.restarts.len() != before {
            self.save();
        }
    }

    pub(crate) fn begun(&self, id: &ReplicaId, slot: Slot) -> u16 {
        self.runs.begun(id, slot)
    }

    pub(crate) fn begun_ever(&self, id: &ReplicaId) -> u16 {
        self.runs.begun_ever(id)
    }

    pub(crate) fn has_ended(&self, id: &ReplicaId, slot: Slot) -> bool {
        self.runs.has_ended(id, slot)
    }

    pub(crate) fn ended(&self, counts: impl Fn(&ReplicaId, Slot) -> bool) -> Vec<EndedReplica> {
        self.runs.ended(counts)
    }

    /// So many runs of a batch replica were begun.
    pub(crate) fn begin(&mut self, id: ReplicaId, slot: Slot, begun: u16) {
        self.runs.begin(id, slot, begun);
        self.save();
    }

    /// A batch replica is not run again.
    pub(crate) fn end(&mut self, id: ReplicaId, slot: Slot, exit: ReplicaExit) {
        self.runs.end(id, slot, exit);
        self.save();
    }

    pub(crate) fn images(&self) -> impl Iterator<Item = (&ImageReference, u64)> {
        self.images.iter().map(|(image, at)| (image, *at))
    }

    /// This worker has pulled it, or knows that it is in use.
    pub(crate) fn used(&mut self, image: &ImageReference, at: u64) {
        if self.images.contains_key(image) || self.images.len() < MAX_IMAGES {
            self.images.insert(image.clone(), at);
            self.save();
        }
    }

    /// It is gone, or somebody else's by now.
    pub(crate) fn forget(&mut self, image: &ImageReference) {
        if self.images.remove(image).is_some() {
            self.save();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    const OOM: Exit = Exit { code: 137, out_of_memory: true };

    fn id(replica: u16) -> ReplicaId {
        ReplicaId { job: Blake3Digest([1; 32]), replica: ReplicaIndex(replica) }
    }

    #[test]
    fn the_next_process_knows_what_this_one_counted() {
        let disk = Arc::new(Mutex::new(Vec::new()));
        let open = || {
            let stored = disk.lock().unwrap().clone();
            let disk = Arc::clone(&disk);
            Record::open(
                &stored,
                Box::new(move |bytes| {
                    *disk.lock().unwrap() = bytes.to_vec();
                    Ok(())
                }),
            )
        };
        let image: ImageReference = format!("app@sha256:{}", "ab".repeat(32)).parse().unwrap();
        let mut record = open();
        record.restarted(Restarts { count: 4, ..Restarts::new(id(0), Slot(7), OOM) });
        record.restarted(Restarts::new(id(1), Slot(9), OOM));
        record.used(&image, 5);
        record.begin(id(2), Slot(7), 3);
        record.end(id(3), Slot(7), ReplicaExit::default());

        let mut record = open();
        assert_eq!((record.begun(&id(2), Slot(7)), record.has_ended(&id(3), Slot(7))), (3, true));
        let of = record.restarts(&id(0)).unwrap();
        assert_eq!((of.count, of.last_exit), (4, OOM));
        assert_eq!(record.images().collect::<Vec<_>>(), [(&image, 5)]);
        // Before it has caught up, a worker knows of no slot and wants nothing.
        record.retain_replicas(Slot(0), |_| false);
        assert!(record.restarts(&id(0)).is_some());
        record.retain_replicas(Slot(8), |_| false);
        record.forget(&image);
        let record = open();
        assert!(record.restarts(&id(0)).is_none() && record.restarts(&id(1)).is_some());
        assert_eq!(record.images().count(), 0);
        assert_eq!((record.begun_ever(&id(2)), record.has_ended(&id(3), Slot(7))), (0, false));
    }

    #[test]
    fn a_record_from_before_there_were_batch_jobs_is_read() {
        let stored = br#"{"version":1,"restarts":[],"images":[]}"#;
        let record = Record::open(stored, Box::new(|_| Ok(())));
        assert_eq!(record.ended(|_, _| true), []);
    }

    #[test]
    fn what_cannot_be_read_is_begun_anew() {
        for stored in [&b""[..], b"nonsense", br#"{"version":1,"restarts":[],"images":[]}"#] {
            let record = Record::open(stored, Box::new(|_| Err(io::Error::other("full"))));
            assert_eq!((record.restarts.len(), record.images.len()), (0, 0));
            record.save(); // says so, and goes on
        }
    }
}
