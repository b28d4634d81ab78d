//! This member's share of the key in force, as it is read at each start.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use veil_committee::key_share::{KeyShare, test_ciphertext};
use veil_committee_sealed::backup::BackupHead;
use veil_keygen_ceremony::transcript::Transcript;
use veil_node_ceremony::FinishedKey;
use veil_node_storage::keystore::{Passphrase, read_key_share};
use veil_protocol_spec::{
    Blake3Digest, CodecError, Committee, KeySetDigest, Wire, ceremony::CeremonyParameters,
};

use crate::MemberError;

/// What the check of a key share needs of its ceremony is not there.
#[derive(Debug, thiserror::Error)]
pub enum OriginError {
    /// The file cannot be read.
    #[error("{path}: {source}")]
    Io {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is damaged.
    #[error(
        "{path}: {source}; no older copy of the data directory may take its place, since it would vote a second time: `veil share import` takes the share from a backup, in an empty data directory. Without one this seat stays empty until the next epoch"
    )]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        source: CodecError,
    },
}

/// What the backup said that the share in this folder was brought back from.
pub(crate) fn head_file(folder: &Path) -> PathBuf {
    folder.join("backup-head.bin")
}

/// The ceremony of a key, and the root that the share's test ciphertext follows from: by the transcript, or by what the
/// backup said that the share was brought back from.
pub(crate) fn origin(
    finished: &FinishedKey,
) -> Result<(CeremonyParameters, Blake3Digest), OriginError> {
    let (path, restored) = (finished.transcript_file(), head_file(&finished.folder));
    let is_restored = !path.exists() && restored.exists();
    let path = if is_restored { restored } else { path };
    let bytes = fs::read(&path).map_err(|source| OriginError::Io { path: path.clone(), source })?;
    let read = if is_restored {
        BackupHead::from_wire(&bytes).map(|head| (head.parameters, head.proof_root))
    } else {
        Transcript::from_wire(&bytes).map(|transcript| {
            let root = transcript.proof_root();
            (transcript.parameters, root)
        })
    };
    read.map_err(|source| OriginError::Damaged { path, source })
}

/// "A member proves at the end and at each start that its share is usable." It must be the one of this
/// member's seat in this ceremony, too: another one decrypts the test as well. Computes for a moment.
pub(crate) fn open(
    finished: &FinishedKey,
    passphrase: &Passphrase,
    committee: Committee,
    key_set: KeySetDigest,
) -> Result<KeyShare, MemberError> {
    let (parameters, proof_root) = origin(finished)?;
    let share = read_key_share(&finished.key_share_file(), passphrase)?;
    share.check_belongs(parameters.id(), committee, finished.participant, key_set)?;
    let test = test_ciphertext(&key_set, &proof_root, share.dimension());
    share.verify(&test)?;
    Ok(share)
}

#[cfg(test)]
pub(crate) mod tests {
    use veil_committee::key_share::KeyShareError;
    use veil_keygen_ceremony::keyset::ParameterSet;
    use veil_node_ceremony::offline::{archive, simulate};
    use veil_protocol_spec::{
        Attempt, Blake3Digest, Epoch, ParticipantIndex, publication::ReferenceString,
    };

    use super::*;

    pub(crate) const SEAT: u8 = 2;

    pub(crate) fn committee() -> Committee {
        Committee::new(4).unwrap()
    }

    fn share_file(folder: &Path, seat: u8) -> std::path::PathBuf {
        folder.join(format!("key-share-{seat}.age"))
    }

    /// What a finished ceremony leaves to the member of a seat.
    pub(crate) fn finished(folder: &Path, passphrase: &Passphrase) -> FinishedKey {
        archive::prepare(folder).unwrap();
        let options = simulate::Options {
            committee: committee(),
            params: ParameterSet::insecure_short(),
            seed: None,
            shares: archive::shares(folder),
            fault: None,
        };
        let made = simulate::run(&options, &|_, _, _| {}).unwrap();
        let key_set = made.members[0].key_set().unwrap();
        archive::write_finished(folder, &made, key_set, passphrase).unwrap();
        let outcome = made.endings[0].as_ref().unwrap();
        let digest = Blake3Digest([0; 32]);
        FinishedKey {
            epoch: Epoch(0),
            attempt: Attempt(0),
            participant: ParticipantIndex::new(SEAT).unwrap(),
            key_set: outcome.key_set,
            transcript_root: outcome.certificate.root,
            reference_string: ReferenceString { digest, file: digest, bytes: 0 },
            folder: folder.to_owned(),
        }
    }

    /// A share that is good in itself, and lies where it does not belong, would answer in another's place.
    #[test]
    fn a_share_of_another_seat_or_ceremony_is_refused_at_the_start() {
        let data = tempfile::tempdir().unwrap();
        let (here, there) = (data.path().join("here"), data.path().join("there"));
        let passphrase = Passphrase::random();
        let ours = finished(&here, &passphrase);
        let theirs = finished(&there, &passphrase);
        let opened = |key_set| match open(&ours, &passphrase, committee(), key_set) {
            Ok(share) => Ok(share.origin().participant.get()),
            Err(MemberError::KeyShare(error)) => Err(error),
            Err(error) => panic!("{error}"),
        };
        assert_eq!(opened(ours.key_set), Ok(SEAT));
        let other_key = opened(theirs.key_set);
        assert!(matches!(other_key, Err(KeyShareError::OtherKeySet { .. })), "{other_key:?}");
        let larger = open(&ours, &passphrase, Committee::new(7).unwrap(), ours.key_set);
        assert!(matches!(larger, Err(MemberError::KeyShare(KeyShareError::OtherMember { .. }))));

        let mine = ours.key_share_file();
        fs::copy(share_file(&here, 3), &mine).unwrap();
        let other_seat = opened(ours.key_set);
        assert!(matches!(other_seat, Err(KeyShareError::OtherMember { .. })), "{other_seat:?}");
        fs::copy(share_file(&there, SEAT), &mine).unwrap();
        let other = opened(ours.key_set);
        assert!(matches!(other, Err(KeyShareError::OtherCeremony { .. })), "{other:?}");
    }
}
