//! Backups of key shares: what they refuse, and known answers, in `protocol-spec/vectors/backup.json`. A difference means
//! that this build would not open what another one made: raise `ShareBackup`'s version, or put it right. `VEIL_BLESS=1`
//! rewrites the file.
#![allow(clippy::unwrap_used)]

use std::{env, fs, path::PathBuf};

use serde_json::{Value, json};
use veil_committee_sealed::{
    backup::{BackupError, BackupHead, Lock, MAGIC, ShareBackup, key_of_passphrase, recipient},
    channel::ChannelKey,
};
use veil_protocol_spec::{
    Attempt, Blake3Digest, Committee, Epoch, KeySetDigest, ParticipantIndex, Wire,
    ceremony::CeremonyParameters, identity::SecretIdentity, publication::ReferenceString,
};

/// What a key share's bytes stand for here.
const SHARE: &[u8] = b"veil key share, of participant 3";

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn head() -> BackupHead {
    let identity = |i| SecretIdentity::from_bytes(&[i; 32]).unwrap().public();
    BackupHead {
        parameters: CeremonyParameters {
            committee: Committee::new(4).unwrap(),
            parameters: "vector".to_owned(),
            parameters_digest: Blake3Digest([5; 32]),
            roster: (1..=4).map(identity).collect(),
            epoch: Epoch(1),
            context: [6; 32],
        },
        attempt: Attempt(2),
        participant: ParticipantIndex::new(3).unwrap(),
        key_set: KeySetDigest([7; 32]),
        transcript_root: Blake3Digest([8; 32]),
        proof_root: Blake3Digest([9; 32]),
        reference_string: ReferenceString {
            digest: Blake3Digest([10; 32]),
            file: Blake3Digest([11; 32]),
            bytes: 70_000,
        },
    }
}

/// Beside the byte-wise key: what a passphrase was stretched to.
fn by_passphrase() -> (ShareBackup, ChannelKey) {
    let key = key_of_passphrase(&[12; 32]);
    let lock = Lock::Passphrase { salt: [13; 32], work: 18 };
    (ShareBackup::seal(head(), lock, key.public(), SHARE, &[14; 32]).unwrap(), key)
}

fn by_key() -> (ShareBackup, ChannelKey) {
    let key = ChannelKey::derive(&[15; 32]);
    (ShareBackup::seal(head(), Lock::Key, key.public(), SHARE, &[16; 32]).unwrap(), key)
}

#[test]
fn known_answers() {
    let one = |(backup, key): (ShareBackup, ChannelKey)| {
        assert_eq!(backup.open(&key).unwrap().as_slice(), SHARE);
        let file = backup.to_file();
        assert_eq!(ShareBackup::from_file(&file), Ok(backup.clone()));
        json!({ "recipient": recipient(key.public()).to_string(), "file": hex(&file) })
    };
    let found = json!({
        "share": hex(SHARE),
        "head": hex(&head().to_wire()),
        "passphrase": one(by_passphrase()),
        "key": one(by_key()),
    });
    let path =
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../protocol-spec/vectors/backup.json");
    if env::var_os("VEIL_BLESS").is_some() {
        fs::write(&path, format!("{found:#}\n")).unwrap();
    }
    let expected: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    assert_eq!(found, expected, "see the module: VEIL_BLESS=1 rewrites {}", path.display());
}

#[test]
fn only_its_secret_opens_it_and_the_refusal_says_what_was_tried() {
    let ((closed, passphrase), (sealed, key)) = (by_passphrase(), by_key());
    let wrong = key_of_passphrase(&[99; 32]);
    assert_eq!(closed.open(&wrong).unwrap_err(), BackupError::OtherPassphrase);
    assert_eq!(sealed.open(&passphrase).unwrap_err(), BackupError::OtherKey);
    assert_eq!(closed.open(&key).unwrap_err(), BackupError::OtherPassphrase);
    let none = ShareBackup::seal(head(), Lock::Key, b"short", SHARE, &[0; 32]);
    assert_eq!(none.unwrap_err(), BackupError::PublicKey);
}

/// "Everything that is not sealed is bound to what is": who moves a share to another seat, generation or key by its head,
/// or weakens its lock, is found out when it is opened.
#[test]
fn nothing_beside_what_is_sealed_can_be_exchanged() {
    let (backup, key) = by_passphrase();
    let changed = |change: &dyn Fn(&mut ShareBackup)| {
        let mut other = backup.clone();
        change(&mut other);
        assert_ne!(other, backup);
        // The checksum is no secret: whoever changes a file makes it fit.
        let read = ShareBackup::from_file(&other.to_file()).unwrap();
        assert_eq!(read.open(&key).unwrap_err(), BackupError::Altered);
    };
    changed(&|backup| backup.head.participant = ParticipantIndex::new(2).unwrap());
    changed(&|backup| backup.head.attempt = Attempt(3));
    changed(&|backup| backup.head.parameters.epoch = Epoch(2));
    changed(&|backup| backup.head.parameters.context = [0; 32]);
    changed(&|backup| backup.head.parameters.roster.swap(0, 1));
    changed(&|backup| backup.head.key_set = KeySetDigest([0; 32]));
    changed(&|backup| backup.head.transcript_root = Blake3Digest([0; 32]));
    changed(&|backup| backup.head.proof_root = Blake3Digest([0; 32]));
    changed(&|backup| backup.head.reference_string.digest = Blake3Digest([0; 32]));
    changed(&|backup| backup.lock = Lock::Passphrase { salt: [13; 32], work: 10 });
    changed(&|backup| backup.lock = Lock::Key);
    changed(&|backup| backup.sealed.0[40] ^= 1);
    changed(&|backup| *backup.sealed.0.last_mut().unwrap() ^= 1);
    changed(&|backup| backup.sealed.0.truncate(7));
}

#[test]
fn every_flipped_byte_and_every_cut_is_refused_by_name() {
    let (backup, _) = by_passphrase();
    let file = backup.to_file();
    for at in 0..file.len() {
        let mut damaged = file.clone();
        damaged[at] ^= 1;
        let refused = ShareBackup::from_file(&damaged).unwrap_err();
        let expected = match at {
            _ if at < MAGIC.len() => matches!(refused, BackupError::NotABackup),
            // The length.
            _ if at < MAGIC.len() + 4 => {
                matches!(refused, BackupError::Truncated { .. } | BackupError::TooLong { .. })
            }
            _ => refused == BackupError::Checksum,
        };
        assert!(expected, "byte {at}: {refused:?}");
    }
    assert_eq!(ShareBackup::from_file(&[]), Err(BackupError::NotABackup));
    for len in 1..file.len() {
        let refused = ShareBackup::from_file(&file[..len]).unwrap_err();
        assert!(matches!(refused, BackupError::Truncated { .. }), "{len}: {refused:?}");
    }
    let longer = [&file[..], &[0]].concat();
    assert!(matches!(ShareBackup::from_file(&longer), Err(BackupError::TooLong { .. })));
    assert_eq!(ShareBackup::from_file(b"age-encryption.org/v1"), Err(BackupError::NotABackup));
}

#[test]
fn another_version_is_named() {
    let (backup, _) = by_key();
    let mut body = backup.to_wire();
    body[0] = 3;
    assert!(matches!(
        ShareBackup::from_wire(&body),
        Err(veil_protocol_spec::CodecError::Version { version: 3, supported: 2, .. })
    ));
}
