//! What a member records once it has a share of a key.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use veil_node_storage::durable::{erase_file, replace};
use veil_protocol_spec::{
    Attempt, Blake3Digest, Epoch, KeySetDigest, ParticipantIndex, publication::ReferenceString,
};

/// The records of an attempt that goes on.
pub(crate) const JOURNAL: &str = "journal.redb";

/// A key that this member holds a share of, as recorded when the chain said that it is valid.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FinishedKey {
    /// The epoch.
    pub epoch: Epoch,
    /// The attempt that made it.
    pub attempt: Attempt,
    /// This participant.
    pub participant: ParticipantIndex,
    /// The key set.
    pub key_set: KeySetDigest,
    /// Root of the transcript.
    pub transcript_root: Blake3Digest,
    /// What telemetry proofs rest on.
    pub reference_string: ReferenceString,
    /// The attempt's folder.
    pub folder: PathBuf,
}

impl FinishedKey {
    fn file(data_dir: &Path, epoch: Epoch) -> PathBuf {
        data_dir.join("ceremony").join(format!("epoch-{epoch}.json"))
    }

    /// The epochs that this member has a key of, in this data directory.
    fn epochs(data_dir: &Path) -> impl Iterator<Item = Epoch> {
        let entries = fs::read_dir(data_dir.join("ceremony")).into_iter().flatten().flatten();
        entries.filter_map(|entry| {
            let name = entry.file_name();
            name.to_str()?.strip_prefix("epoch-")?.strip_suffix(".json")?.parse().ok().map(Epoch)
        })
    }

    /// Whether this member has finished a ceremony with this data directory.
    pub(crate) fn any(data_dir: &Path) -> bool {
        Self::epochs(data_dir).next().is_some()
    }

    /// The key of the last epoch that this member has one of.
    ///
    /// # Errors
    /// As of [`Self::load`].
    pub fn newest(data_dir: &Path) -> io::Result<Option<Self>> {
        Self::epochs(data_dir).max().map_or(Ok(None), |epoch| Self::load(data_dir, epoch))
    }

    /// Where the files of an attempt are.
    #[must_use]
    pub fn attempt_folder(data_dir: &Path, epoch: Epoch, attempt: Attempt) -> PathBuf {
        data_dir.join("ceremony").join(format!("epoch-{epoch}-attempt-{attempt}"))
    }

    /// The key of an epoch, if this member took part in its ceremony and saw it end.
    ///
    /// # Errors
    /// What the system says; `InvalidData` for a damaged file.
    pub fn load(data_dir: &Path, epoch: Epoch) -> io::Result<Option<Self>> {
        match fs::read(Self::file(data_dir, epoch)) {
            Ok(bytes) => {
                let mut key: Self = serde_json::from_slice(&bytes).map_err(io::Error::from)?;
                // The data directory may have moved since.
                key.folder = Self::attempt_folder(data_dir, key.epoch, key.attempt);
                Ok(Some(key))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Records it: from then on this member has the key.
    ///
    /// # Errors
    /// What the system says.
    pub fn save(&self, data_dir: &Path) -> io::Result<()> {
        let text = serde_json::to_vec_pretty(self).map_err(io::Error::from)?;
        replace(&Self::file(data_dir, self.epoch), &text)
    }

    /// Destroys the record of what was received, which holds the deals that were sealed to this member:
    /// whoever gets the identity key later opens them. Nothing is recomputed from it any more.
    pub(crate) fn erase_deals(&self) -> io::Result<()> {
        erase_file(&self.folder.join(JOURNAL))
    }

    /// The key set, `tfhe` safe serialization.
    #[must_use]
    pub fn key_set_file(&self) -> PathBuf {
        self.folder.join("keyset.bin")
    }

    /// The key share, encrypted.
    #[must_use]
    pub fn key_share_file(&self) -> PathBuf {
        self.folder.join(format!("key-share-{}.age", self.participant))
    }

    /// The transcript.
    #[must_use]
    pub fn transcript_file(&self) -> PathBuf {
        self.folder.join("transcript.bin")
    }

    /// The reference string.
    #[must_use]
    pub fn reference_string_file(&self) -> PathBuf {
        self.folder.join("reference-string.bin")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_key_is_found_and_a_data_directory_may_move() {
        let place = tempfile::tempdir().unwrap();
        let (before, after) = (place.path().join("before"), place.path().join("after"));
        fs::create_dir_all(before.join("ceremony")).unwrap();
        assert!(FinishedKey::newest(&before).unwrap().is_none() && !FinishedKey::any(&before));
        let digest = Blake3Digest([0; 32]);
        for (epoch, attempt) in [(9, 0), (10, 2), (2, 1)] {
            let (epoch, attempt) = (Epoch(epoch), Attempt(attempt));
            let key = FinishedKey {
                epoch,
                attempt,
                participant: ParticipantIndex::new(1).unwrap(),
                key_set: KeySetDigest([1; 32]),
                transcript_root: digest,
                reference_string: ReferenceString { digest, file: digest, bytes: 0 },
                folder: FinishedKey::attempt_folder(&before, epoch, attempt),
            };
            key.save(&before).unwrap();
        }
        fs::create_dir(before.join("ceremony/epoch-11-attempt-0")).unwrap();
        fs::rename(&before, &after).unwrap();
        let newest = FinishedKey::newest(&after).unwrap().unwrap();
        assert_eq!((newest.epoch, newest.attempt), (Epoch(10), Attempt(2)));
        assert_eq!(newest.folder, after.join("ceremony/epoch-10-attempt-2"));
    }
}
