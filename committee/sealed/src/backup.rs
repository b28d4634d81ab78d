//! A backup of a member's key share: `protocol-spec/backup.md`.
//!
//! # Roles
//! A member seals its share to a passphrase or to a public key; whoever has the secret opens it again. What the backup is
//! of stands beside it, unsealed and bound to it: so it can be told, and refused, without the secret.
//!
//! # Flow
//! 1. [`ShareBackup::seal`] to a [`ChannelKey`]'s public key; [`Lock`] says where its secret comes from.
//! 2. [`ShareBackup::to_file`], [`ShareBackup::from_file`].
//! 3. [`ShareBackup::open`].
//!
//! # Caveats
//! Bytes go in and come out: whether they are the key share that the head names is for the caller, who can read them.

use serde::{Deserialize, Serialize};
use veil_protocol_spec::{
    Attempt, Blake3Digest, CodecError, KeySetDigest, ParticipantIndex, PublicIdentity, Wire,
    ceremony::CeremonyParameters,
    codec::{Bytes, encode},
    domain::{
        SHARE_BACKUP, SHARE_BACKUP_FILE, SHARE_BACKUP_PASSPHRASE, SHARE_BACKUP_RECIPIENT,
        hash_parts,
    },
    publication::ReferenceString,
};
use zeroize::Zeroizing;

use crate::channel::{self, ChannelError, ChannelKey};

/// First bytes of every file.
pub const MAGIC: &[u8; 17] = b"veil share backup";
/// Magic and length.
const HEAD: usize = MAGIC.len() + 4;
const CHECKSUM: usize = 32;
/// A key share has at most 4 MiB.
const MAX_FILE_BYTES: usize = HEAD + ShareBackup::MAX_BYTES + CHECKSUM;

/// What a backup is of. Nothing in it is secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BackupHead {
    /// Of the ceremony that made the share: cluster, epoch, committee with its identities.
    pub parameters: CeremonyParameters,
    /// The attempt that made it. Epoch and attempt are the share's generation.
    pub attempt: Attempt,
    /// The member whose share it is.
    pub participant: ParticipantIndex,
    /// The key that it is a share of.
    pub key_set: KeySetDigest,
    /// Root of the ceremony's transcript, as the chain has it.
    pub transcript_root: Blake3Digest,
    /// Root of the transcript up to the proofs: what the share's test ciphertext follows from.
    pub proof_root: Blake3Digest,
    /// What telemetry proofs rest on.
    pub reference_string: ReferenceString,
}

impl Wire for BackupHead {
    const NAME: &'static str = "BackupHead";
    const VERSION: u8 = 2;
    const MAX_BYTES: usize = 4096;
}

impl BackupHead {
    /// The identity of the member whose share it is, if there is such a seat.
    #[must_use]
    pub fn identity(&self) -> Option<&PublicIdentity> {
        self.parameters.roster.get(self.participant.position())
    }
}

/// Where the secret comes from that opens a backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Lock {
    /// It is a key of its own, kept elsewhere.
    Key,
    /// It is derived from a passphrase: scrypt with r = 8, p = 1, N = 2^`work`.
    Passphrase {
        /// Random, of this backup.
        salt: [u8; 32],
        /// log2 of N.
        work: u8,
    },
}

/// A sealed key share.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShareBackup {
    /// What it is of.
    pub head: BackupHead,
    /// What opens it.
    pub lock: Lock,
    /// Digest of the public key that it is sealed to.
    pub recipient: Blake3Digest,
    /// The key share, sealed.
    pub sealed: Bytes,
}

impl Wire for ShareBackup {
    const NAME: &'static str = "share backup";
    const VERSION: u8 = 2;
    const MAX_BYTES: usize = (4 << 20) + 8192;
}

/// Why bytes are no backup, or do not open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the messages name the fields")]
pub enum BackupError {
    /// The file is something else.
    #[error("not a backup of a key share: it does not begin with \"veil share backup\"")]
    NotABackup,
    /// The end is missing.
    #[error("the backup is cut off: {given} of {expected} bytes; take another copy of it")]
    Truncated { given: usize, expected: usize },
    /// Something follows it.
    #[error("{given} bytes, but the backup ends after {expected}; take another copy of it")]
    TooLong { given: usize, expected: usize },
    /// Bits have changed.
    #[error("the backup is damaged: its checksum is wrong; take another copy of it")]
    Checksum,
    /// Of another version, or of no possible form.
    #[error("the backup cannot be read: {0}")]
    Codec(#[from] CodecError),
    /// It was sealed to something else.
    #[error(
        "the backup is sealed to another key: `veil share check FILE` says to which, and whether a passphrase opens it"
    )]
    OtherKey,
    /// The passphrase gives another key.
    #[error("the backup does not open with this passphrase")]
    OtherPassphrase,
    /// The key fits, and what is sealed or what stands beside it was changed.
    #[error(
        "the backup was altered after it was sealed: its key fits, its contents do not; take another copy of it, and ask who could change this one"
    )]
    Altered,
    /// It is to be sealed to what is no key.
    #[error("the public key that the backup is to be sealed to is none")]
    PublicKey,
}

/// The digest by which a public key is told.
#[must_use]
pub fn recipient(public_key: &[u8]) -> Blake3Digest {
    Blake3Digest(hash_parts(SHARE_BACKUP_RECIPIENT, &[public_key]))
}

/// The key of what a passphrase was stretched to: steps 2 and 3 of `backup.md`.
#[must_use]
pub fn key_of_passphrase(stretched: &[u8; 32]) -> ChannelKey {
    let seed = Zeroizing::new(hash_parts(SHARE_BACKUP_PASSPHRASE, &[stretched]));
    ChannelKey::derive(&seed)
}

impl ShareBackup {
    /// Seals the stored form of a key share. `randomness` is used for nothing else.
    ///
    /// # Errors
    /// [`BackupError::PublicKey`].
    pub fn seal(
        head: BackupHead,
        lock: Lock,
        public_key: &[u8],
        share: &[u8],
        randomness: &[u8; 32],
    ) -> Result<Self, BackupError> {
        let recipient = recipient(public_key);
        let bound = bound(&head, &lock, &recipient);
        let sealed = channel::seal(public_key, share, SHARE_BACKUP.as_bytes(), &bound, randomness);
        let sealed = Bytes(sealed.map_err(|_: ChannelError| BackupError::PublicKey)?);
        Ok(Self { head, lock, recipient, sealed })
    }

    /// The stored form of the key share.
    ///
    /// # Errors
    /// [`BackupError::OtherKey`], [`BackupError::OtherPassphrase`], [`BackupError::Altered`].
    pub fn open(&self, key: &ChannelKey) -> Result<Zeroizing<Vec<u8>>, BackupError> {
        if recipient(key.public()) != self.recipient {
            return Err(match self.lock {
                Lock::Key => BackupError::OtherKey,
                Lock::Passphrase { .. } => BackupError::OtherPassphrase,
            });
        }
        let bound = bound(&self.head, &self.lock, &self.recipient);
        let opened = key.open(&self.sealed.0, SHARE_BACKUP.as_bytes(), &bound);
        opened.map_err(|_| BackupError::Altered)
    }

    /// The bytes of its file.
    #[must_use]
    pub fn to_file(&self) -> Vec<u8> {
        let body = self.to_wire();
        let length = HEAD + body.len() + CHECKSUM;
        let mut file = MAGIC.to_vec();
        file.extend_from_slice(&(length as u32).to_le_bytes());
        file.extend_from_slice(&body);
        let checksum = hash_parts(SHARE_BACKUP_FILE, &[&file]);
        file.extend_from_slice(&checksum);
        file
    }

    /// Reads a file: what it is, its length, its checksum, then its parts.
    ///
    /// # Errors
    /// [`BackupError`] up to [`BackupError::Codec`].
    pub fn from_file(bytes: &[u8]) -> Result<Self, BackupError> {
        let given = bytes.len();
        if given > MAX_FILE_BYTES {
            return Err(BackupError::TooLong { given, expected: MAX_FILE_BYTES });
        }
        if given == 0 || !bytes.starts_with(&MAGIC[..given.min(MAGIC.len())]) {
            return Err(BackupError::NotABackup);
        }
        let least = HEAD + CHECKSUM;
        let truncated = BackupError::Truncated { given, expected: least };
        let length = bytes.get(MAGIC.len()..).and_then(<[u8]>::first_chunk).ok_or(truncated)?;
        let expected = (u32::from_le_bytes(*length) as usize).max(least);
        if given < expected {
            return Err(BackupError::Truncated { given, expected });
        }
        if given > expected {
            return Err(BackupError::TooLong { given, expected });
        }
        let (content, checksum) = bytes.split_at(given - CHECKSUM);
        if hash_parts(SHARE_BACKUP_FILE, &[content]) != checksum {
            return Err(BackupError::Checksum);
        }
        Ok(Self::from_wire(&content[HEAD..])?)
    }
}

/// "Everything that is not sealed is bound to what is." (`backup.md`, step 4)
fn bound(head: &BackupHead, lock: &Lock, recipient: &Blake3Digest) -> [u8; 32] {
    hash_parts(SHARE_BACKUP, &[&head.to_wire(), &encode(lock), recipient.as_bytes()])
}
