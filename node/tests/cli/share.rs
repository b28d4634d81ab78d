//! `veil share` without a cluster: keys, backups, and what is refused with which code.

use std::fs;

use veil_committee_sealed::{
    backup::{BackupHead, Lock, ShareBackup},
    channel::ChannelKey,
};
use veil_protocol_spec::{
    Attempt, Blake3Digest, Committee, Epoch, KeySetDigest, ParticipantIndex,
    ceremony::CeremonyParameters, identity::SecretIdentity, publication::ReferenceString,
};

use crate::{veil, veil_with};

fn head() -> BackupHead {
    let identity = |i| SecretIdentity::from_bytes(&[i; 32]).unwrap().public();
    BackupHead {
        parameters: CeremonyParameters {
            committee: Committee::new(4).unwrap(),
            parameters: "production".to_owned(),
            parameters_digest: Blake3Digest([5; 32]),
            roster: (1..=4).map(identity).collect(),
            epoch: Epoch(3),
            context: [6; 32],
        },
        attempt: Attempt(1),
        participant: ParticipantIndex::new(2).unwrap(),
        key_set: KeySetDigest([7; 32]),
        transcript_root: Blake3Digest([8; 32]),
        proof_root: Blake3Digest([9; 32]),
        reference_string: ReferenceString {
            digest: Blake3Digest([10; 32]),
            file: Blake3Digest([11; 32]),
            bytes: 7,
        },
    }
}

#[test]
fn a_backup_is_told_without_its_secret_and_refused_by_name_with_a_code() {
    let place = tempfile::tempdir().unwrap();
    let path = |name: &str| place.path().join(name).to_str().unwrap().to_owned();
    fs::write(path("passphrase"), "hunter2\n").unwrap();
    let with = [("VEIL_BACKUP_PASSPHRASE_FILE", &*path("passphrase"))];

    let made = veil_with(&with, &["share", "key", "--out", &path("key"), "--json"]);
    assert_eq!(made.code, 0, "{}", made.stderr);
    let recipient = made.json()["recipient"].as_str().unwrap().to_owned();
    let public = fs::read_to_string(path("key.pub")).unwrap();
    assert!(public.starts_with("veil-backup-key-1 "), "{public}");
    let again = veil_with(&with, &["share", "key", "--out", &path("key"), "--json"]);
    assert_eq!((again.code, again.json()["kind"].as_str()), (3, Some("keystore")));

    // A backup to another key, of what is no share.
    let key = ChannelKey::derive(&[1; 32]);
    let backup = ShareBackup::seal(head(), Lock::Key, key.public(), b"no share", &[2; 32]).unwrap();
    fs::write(path("share.backup"), backup.to_file()).unwrap();
    let told = veil(&["share", "check", &path("share.backup"), "--json"]);
    assert_eq!(told.code, 0, "{}", told.stderr);
    let told = told.json();
    assert_eq!((told["epoch"].as_u64(), told["attempt"].as_u64()), (Some(3), Some(1)), "{told}");
    assert_eq!((&told["sealed_to"], &told["proved"]), (&"key".into(), &false.into()));
    assert_ne!(told["recipient"], *recipient);
    let text = veil(&["share", "check", &path("share.backup")]).stdout;
    assert!(text.contains("participant    2") && text.contains("undamaged"), "{text}");

    let other = path("key");
    for (arguments, code, kind, says) in [
        (&["check", &*path("share.backup"), "--key", &other][..], 1, "backup", "another key"),
        (&["check", &path("share.backup")], 2, "usage", "--key"),
        (&["check", &path("nowhere")], 3, "files", "nowhere"),
        (&["check", &path("key.pub")], 1, "backup", "not a backup"),
        (&["check", &path("share.backup"), "--key", &path("key.pub")], 3, "keystore", "key.pub"),
    ] {
        let refused = veil_with(&with, &[&["share"][..], arguments, &["--json"]].concat());
        let object = refused.json();
        assert_eq!((refused.code, object["kind"].as_str()), (code, Some(kind)), "{object}");
        assert!(object["error"].as_str().unwrap().contains(says), "{object}");
        assert!(!object.to_string().contains("hunter2"));
    }
}

#[test]
fn a_member_without_a_share_and_a_backup_without_a_passphrase_are_named() {
    let place = tempfile::tempdir().unwrap();
    let path = |name: &str| place.path().join(name).to_str().unwrap().to_owned();
    fs::write(
        path("member.toml"),
        format!(
            "[node]\ndata_dir = \"data\"\npassphrase_command = [\"echo\", \"hunter2\"]\n\
             [network]\nlisten = [\"/ip4/127.0.0.1/tcp/1\"]\n[chain]\nrpc = \"http://127.0.0.1:1\"\n\
             contract = \"0x{}\"\ncluster = \"0x{}\"\n",
            "11".repeat(20),
            "22".repeat(32)
        ),
    )
    .unwrap();
    let export = |variables: &[(&str, &str)]| {
        let out = path("share.backup");
        let arguments =
            ["share", "export", "--config", &path("member.toml"), "--out", &out, "--json"];
        let refused = veil_with(variables, &arguments);
        let object = refused.json();
        assert!(!fs::exists(&out).unwrap());
        (refused.code, object["kind"].as_str().unwrap().to_owned(), object["error"].to_string())
    };
    let (code, kind, says) = export(&[]);
    assert!((code, &*kind) == (2, "usage") && says.contains("--backup-passphrase-file"), "{says}");
    let (code, kind, says) = export(&[("VEIL_BACKUP_PASSPHRASE", "of the backup")]);
    assert!((code, &*kind) == (1, "backup") && says.contains("holds no key share"), "{says}");
}
