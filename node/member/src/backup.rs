//! `veil share export`, `import`, `check` and `key`: `protocol-spec/backup.md`.
//!
//! # Flow
//! - [`export`] reads the share of the newest key, proves it, seals it ([`Recipient`]).
//! - [`check`] reads a backup; with its secret ([`Unlock`]) it proves the share too.
//! - [`import`] proves it, compares it with the identity here and with the chain, and writes it behind a fence.
//!
//! # State
//! What [`import`] leaves is a data directory that has been fenced, as if its journals were lost: they are. In the attempt's
//! folder: the share, encrypted, and `backup-head.bin` in place of the transcript.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use rand::{RngCore, rngs::OsRng};
use veil_committee::key_share::{KeyShare, KeyShareError, test_ciphertext};
pub use veil_committee_sealed::backup::BackupHead;
use veil_committee_sealed::{
    backup::{BackupError, Lock, ShareBackup, key_of_passphrase, recipient},
    channel::{ChannelKey, PUBLIC_KEY},
};
use veil_node_ceremony::{FinishedKey, ceremony_context};
use veil_node_chain::{Chain, ChainError, PublishedKey};
use veil_node_config::MemberConfig;
use veil_node_core::lifecycle::{StartError, open_identity};
use veil_node_storage::{
    data_dir::{DataDir, DataDirError},
    durable::{WriteNewError, erase_file, replace, write_new},
    keystore::{
        KeystoreError, Passphrase, WORK_FACTOR, read_key_share, read_secret, write_key_share,
        write_secret,
    },
};
use veil_protocol_spec::{
    Attempt, Blake3Digest, Epoch, ParticipantIndex, PublicIdentity, Wire,
    ids::{hex, read_hex},
    scheduling::ClusterScope,
};
use zeroize::Zeroizing;

use crate::{
    fence::{self, FenceError},
    share::{OriginError, head_file, origin},
};

/// Why a share is not backed up, or not brought back. Nothing has changed then.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages name the fields")]
pub enum ShareError {
    /// The file.
    #[error("{path}: {source}")]
    Backup { path: PathBuf, source: BackupError },
    /// The share that it holds.
    #[error("{path}: the share does not fit what stands beside it, or does not work: {source}")]
    Share { path: PathBuf, source: KeyShareError },
    /// The share is of another attempt than the head says.
    #[error("{path}: the share is of epoch {epoch}, attempt {attempt}, and the backup says other")]
    Generation { path: PathBuf, epoch: Epoch, attempt: Attempt },
    /// A key was given that cannot open it.
    #[error("{0} is sealed to a passphrase: give it with --backup-passphrase-file, without --key")]
    NeedsPassphrase(PathBuf),
    /// A passphrase was given that cannot open it.
    #[error("{0} is sealed to a key: give the file of its secret with --key")]
    NeedsKey(PathBuf),
    /// A key file of another kind.
    #[error("{0} holds no key for backups: `veil share key` makes one")]
    NotAKey(PathBuf),
    /// There is nothing to back up.
    #[error(
        "{0} holds no key share: a backup is made of a member that has taken part in a ceremony that made a key"
    )]
    NoShare(PathBuf),
    /// It is the share of somebody else.
    #[error(
        "the backup is of participant {participant}, whose identity is {expected}; the one here is {found}: put that member's identity.age in its place first"
    )]
    OtherIdentity { participant: ParticipantIndex, expected: PublicIdentity, found: PublicIdentity },
    /// It is the share of another cluster.
    #[error(
        "the backup is of another cluster, contract or chain than the configuration names: correct `[chain]`, or take the backup of this cluster"
    )]
    OtherCluster,
    /// There is no key to have a share of.
    #[error("the chain publishes no key of this cluster: there is nothing to bring back")]
    NoKey,
    /// It would bring back what the committee does not use any more.
    #[error(
        "the backup is of epoch {epoch}, attempt {attempt}; the key in force is of epoch {now}, attempt {now_attempt}. Its share is not used any more: destroy the backup, and take one of the key in force; without it this seat stays empty until the next epoch"
    )]
    OldGeneration { epoch: Epoch, attempt: Attempt, now: Epoch, now_attempt: Attempt },
    /// It is of a key that the chain does not have.
    #[error(
        "the backup is of another key than the one that the chain publishes for epoch {0}: take the backup that was made after that ceremony"
    )]
    OtherKey(Epoch),
    /// A process uses the data directory.
    #[error(
        "the member runs, with {0}: a share is brought back only where none lives, else two would sign under one identity. To move a member, stop it for good first"
    )]
    Lives(PathBuf),
    /// The share is there.
    #[error(
        "{0} is there already: nothing is brought back over a share. Start the member; if its journals are lost, `veil committee fence` first"
    )]
    HasShare(PathBuf),
    /// An attempt is not decided.
    #[error(
        "{0} holds the records of this attempt, of which this member has not seen the end: start the member, which goes on with it"
    )]
    Undecided(PathBuf),
    /// The identity.
    #[error(transparent)]
    Identity(#[from] StartError),
    /// Secrets and their files.
    #[error(transparent)]
    Keystore(#[from] KeystoreError),
    /// The ceremony of the share.
    #[error(transparent)]
    Origin(#[from] OriginError),
    /// The fence.
    #[error(transparent)]
    Fence(#[from] FenceError),
    /// The chain.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// The data directory.
    #[error(transparent)]
    DataDir(DataDirError),
    /// A new file.
    #[error(transparent)]
    Write(#[from] WriteNewError),
    /// Another file.
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: io::Error },
}

fn io_error(path: &Path) -> impl FnOnce(io::Error) -> ShareError {
    let path = path.to_owned();
    move |source| ShareError::Io { path, source }
}

/// What a backup is sealed to.
#[derive(Debug)]
pub enum Recipient {
    /// Whoever knows the passphrase.
    Passphrase(Passphrase),
    /// Whoever has the secret of this public key.
    Key(Vec<u8>),
}

/// What opens a backup.
#[derive(Debug)]
pub enum Unlock {
    /// The passphrase.
    Passphrase(Passphrase),
    /// The key.
    Key(Box<ChannelKey>),
}

/// 32 random bytes.
fn random() -> Zeroizing<[u8; 32]> {
    let mut bytes = Zeroizing::new([0; 32]);
    OsRng.fill_bytes(&mut *bytes);
    bytes
}

/// First byte of a stored secret key, and first word of a public one.
const KEY_VERSION: u8 = 1;
const PUBLIC_KEY_PREFIX: &str = "veil-backup-key-1 ";

/// Makes a key that backups can be sealed to: the secret encrypted with a passphrase, the public key as a line of text.
/// Returns the digest by which a backup names it.
///
/// # Errors
/// [`ShareError`].
pub fn new_key(
    secret: &Path,
    public: &Path,
    passphrase: &Passphrase,
) -> Result<Blake3Digest, ShareError> {
    let seed = random();
    let key = ChannelKey::derive(&seed);
    let mut stored = Zeroizing::new(Vec::with_capacity(33));
    stored.push(KEY_VERSION);
    stored.extend_from_slice(&*seed);
    write_secret(secret, &stored, passphrase)?;
    let line = format!("{PUBLIC_KEY_PREFIX}{}\n", hex(key.public()));
    write_new(public, 0o644, line.as_bytes())?;
    Ok(recipient(key.public()))
}

/// The public key in a file of [`new_key`].
///
/// # Errors
/// [`ShareError::NotAKey`], [`ShareError::Io`].
pub fn read_public_key(path: &Path) -> Result<Vec<u8>, ShareError> {
    let text = fs::read_to_string(path).map_err(io_error(path))?;
    let mut bytes = vec![0; PUBLIC_KEY];
    let digits = text.trim().strip_prefix(PUBLIC_KEY_PREFIX);
    let read = digits.and_then(|digits| read_hex(digits, &mut bytes).ok());
    read.map(|()| bytes).ok_or_else(|| ShareError::NotAKey(path.to_owned()))
}

/// The secret key in a file of [`new_key`].
///
/// # Errors
/// [`ShareError::NotAKey`], [`ShareError::Keystore`].
pub fn read_key(path: &Path, passphrase: &Passphrase) -> Result<ChannelKey, ShareError> {
    let stored = read_secret(path, passphrase)?;
    match stored.split_first() {
        Some((&KEY_VERSION, seed)) => <&[u8; 32]>::try_from(seed).ok().map(ChannelKey::derive),
        _ => None,
    }
    .ok_or_else(|| ShareError::NotAKey(path.to_owned()))
}

/// Seals the share of the newest key of a member to a file that does not exist yet. The member may run.
///
/// # Errors
/// [`ShareError`].
pub fn export(
    config: &MemberConfig,
    passphrase: &Passphrase,
    to: &Recipient,
    file: &Path,
) -> Result<BackupHead, ShareError> {
    let data_dir = &config.node.data_dir;
    let finished = FinishedKey::newest(data_dir).map_err(io_error(&data_dir.join("ceremony")))?;
    let finished = finished.ok_or_else(|| ShareError::NoShare(data_dir.clone()))?;
    let (parameters, proof_root) = origin(&finished)?;
    let head = BackupHead {
        parameters,
        attempt: finished.attempt,
        participant: finished.participant,
        key_set: finished.key_set,
        transcript_root: finished.transcript_root,
        proof_root,
        reference_string: finished.reference_string,
    };
    let path = finished.key_share_file();
    let share = read_key_share(&path, passphrase)?;
    prove(&path, &head, &share)?;
    let sealed = |lock, public: &[u8]| {
        let sealed = ShareBackup::seal(head, lock, public, &share.to_bytes(), &random());
        sealed.map_err(|source| ShareError::Backup { path: file.to_owned(), source })
    };
    let backup = match to {
        Recipient::Passphrase(passphrase) => {
            let (salt, work) = (*random(), WORK_FACTOR);
            let key = key_of_passphrase(&*passphrase.stretch(&salt, work)?);
            sealed(Lock::Passphrase { salt, work }, key.public())?
        }
        Recipient::Key(public) => sealed(Lock::Key, public)?,
    };
    write_new(file, 0o600, &backup.to_file())?;
    Ok(backup.head)
}

/// What a backup says of itself.
#[derive(Clone, Debug)]
pub struct Described {
    /// What it is of.
    pub head: BackupHead,
    /// Whether a passphrase opens it.
    pub by_passphrase: bool,
    /// Digest of the key that it is sealed to.
    pub recipient: Blake3Digest,
}

/// Reads a backup; with its secret it is opened too, and its share proved.
///
/// # Errors
/// [`ShareError`].
pub fn check(file: &Path, unlock: Option<&Unlock>) -> Result<Described, ShareError> {
    let backup = read(file)?;
    if let Some(unlock) = unlock {
        open(file, &backup, unlock)?;
    }
    let by_passphrase = matches!(backup.lock, Lock::Passphrase { .. });
    Ok(Described { head: backup.head, by_passphrase, recipient: backup.recipient })
}

/// Steps 6 to 12 of `backup.md`.
///
/// # Errors
/// [`ShareError`].
pub async fn import(
    config: &MemberConfig,
    passphrase: &Passphrase,
    file: &Path,
    unlock: &Unlock,
) -> Result<BackupHead, ShareError> {
    let backup = read(file)?;
    let data = lock(&config.node.data_dir)?;
    let vacant = Vacancy::of(&data, &backup.head)?;
    let found = open_identity(&config.node, passphrase)?.public();
    check_identity(&backup.head, found)?;
    let chain = Chain::connect(config.chain.connection(None)).await?;
    let settled = chain.settled().await?;
    let key = chain.at(settled).current_key(config.chain.cluster).await?;
    check_in_force(&backup.head, &chain.scope(config.chain.cluster), key.as_ref())?;
    let share = open(file, &backup, unlock)?;
    vacant.fill(&data, &backup.head, &share, passphrase)?;
    Ok(backup.head)
}

fn read(file: &Path) -> Result<ShareBackup, ShareError> {
    let bytes = fs::read(file).map_err(io_error(file))?;
    ShareBackup::from_file(&bytes)
        .map_err(|source| ShareError::Backup { path: file.to_owned(), source })
}

/// "What opens must be a key share of the head's ceremony, and must decrypt the test ciphertext."
fn open(file: &Path, backup: &ShareBackup, unlock: &Unlock) -> Result<KeyShare, ShareError> {
    let path = || file.to_owned();
    let opened = match (&backup.lock, unlock) {
        (Lock::Key, Unlock::Key(key)) => backup.open(key),
        (Lock::Key, Unlock::Passphrase(_)) => return Err(ShareError::NeedsKey(path())),
        (Lock::Passphrase { .. }, Unlock::Key(_)) => {
            return Err(ShareError::NeedsPassphrase(path()));
        }
        (Lock::Passphrase { salt, work }, Unlock::Passphrase(passphrase)) => {
            backup.open(&key_of_passphrase(&*passphrase.stretch(salt, *work)?))
        }
    };
    let bytes = opened.map_err(|source| ShareError::Backup { path: path(), source })?;
    let share = KeyShare::from_bytes(&bytes);
    let share = share.map_err(|source| ShareError::Share { path: path(), source })?;
    prove(file, &backup.head, &share)?;
    Ok(share)
}

fn prove(path: &Path, head: &BackupHead, share: &KeyShare) -> Result<(), ShareError> {
    let wrong = |source| ShareError::Share { path: path.to_owned(), source };
    let BackupHead { parameters, attempt, participant, key_set, proof_root, .. } = head;
    share
        .check_belongs(parameters.id(), parameters.committee, *participant, *key_set)
        .map_err(wrong)?;
    let found = share.origin();
    if (found.epoch, found.attempt) != (parameters.epoch, *attempt) {
        let (epoch, attempt) = (found.epoch, found.attempt);
        return Err(ShareError::Generation { path: path.to_owned(), epoch, attempt });
    }
    let test = test_ciphertext(key_set, proof_root, share.dimension());
    share.verify(&test).map_err(wrong)
}

fn lock(data_dir: &Path) -> Result<DataDir, ShareError> {
    DataDir::lock(data_dir).map_err(|error| match error {
        DataDirError::InUse(path) => ShareError::Lives(path),
        error => ShareError::DataDir(error),
    })
}

/// "The identity on this machine must be that of the seat."
fn check_identity(head: &BackupHead, found: PublicIdentity) -> Result<(), ShareError> {
    match head.identity() {
        Some(&expected) if expected != found => {
            Err(ShareError::OtherIdentity { participant: head.participant, expected, found })
        }
        Some(_) => Ok(()),
        None => Err(ShareError::OtherCluster), // no ceremony has such a seat
    }
}

/// "By the chain, the share must be of the key in force."
fn check_in_force(
    head: &BackupHead,
    scope: &ClusterScope,
    key: Option<&PublishedKey>,
) -> Result<(), ShareError> {
    let (epoch, attempt) = (head.parameters.epoch, head.attempt);
    if head.parameters.context != ceremony_context(scope) {
        return Err(ShareError::OtherCluster);
    }
    let key = key.ok_or(ShareError::NoKey)?;
    let (now, now_attempt) = (key.epoch, key.attempt);
    if (epoch, attempt) < (now, now_attempt) {
        return Err(ShareError::OldGeneration { epoch, attempt, now, now_attempt });
    }
    let of = (epoch, attempt, head.key_set, head.transcript_root);
    if of != (now, now_attempt, key.key_set, key.transcript_root) {
        return Err(ShareError::OtherKey(now));
    }
    Ok(())
}

/// A place for a share in a data directory that has none.
struct Vacancy {
    folder: PathBuf,
}

impl Vacancy {
    /// "No process may use the data directory, and there may be no share of that epoch in it."
    fn of(data: &DataDir, head: &BackupHead) -> Result<Self, ShareError> {
        let committee = head.parameters.committee;
        if committee.n() <= committee.signing_threshold().get() {
            return Err(FenceError::Alone.into());
        }
        let (epoch, attempt) = (head.parameters.epoch, head.attempt);
        let found = FinishedKey::load(data.path(), epoch);
        if let Some(found) = found.map_err(io_error(&data.path().join("ceremony")))? {
            return Err(ShareError::HasShare(found.key_share_file()));
        }
        let folder = FinishedKey::attempt_folder(data.path(), epoch, attempt);
        // An import that was cut off is repeated.
        if folder.exists() && !head_file(&folder).exists() {
            return Err(ShareError::Undecided(folder));
        }
        Ok(Self { folder })
    }

    /// "In this order, each durable before the next."
    fn fill(
        self,
        data: &DataDir,
        head: &BackupHead,
        share: &KeyShare,
        passphrase: &Passphrase,
    ) -> Result<(), ShareError> {
        let Self { folder } = self;
        fence::raise_in(data)?;
        fs::create_dir_all(&folder).map_err(io_error(&folder))?;
        let path = head_file(&folder);
        replace(&path, &head.to_wire()).map_err(io_error(&path))?;
        let finished = FinishedKey {
            epoch: head.parameters.epoch,
            attempt: head.attempt,
            participant: head.participant,
            key_set: head.key_set,
            transcript_root: head.transcript_root,
            reference_string: head.reference_string,
            folder,
        };
        let path = finished.key_share_file();
        erase_file(&path).map_err(io_error(&path))?;
        write_key_share(&path, share, passphrase)?;
        finished.save(data.path()).map_err(io_error(data.path()))
    }
}

#[cfg(test)]
mod tests;
