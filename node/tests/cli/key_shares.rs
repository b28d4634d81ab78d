//! The key shares that a ceremony leaves, as a node reads them.

use std::{fs, path::Path};

use serde_json::Value;
use veil_committee::key_share::{KeyShare, KeyShareError};
use veil_node_storage::keystore::{KeystoreError, Passphrase, read_key_share, write_secret};
use veil_protocol_spec::ParticipantIndex;

use crate::finished;

fn key_share(folder: &Path, j: u8) -> KeyShare {
    let passphrase = Passphrase::from_file(&folder.join("passphrase.txt")).unwrap();
    read_key_share(&folder.join(format!("key-share-{j}.age")), &passphrase).unwrap()
}

#[test]
fn a_damaged_key_share_is_refused() {
    let (_place, folder, _) = finished();
    let path = folder.join("key-share-2.age");
    let passphrase = Passphrase::from_file(&folder.join("passphrase.txt")).unwrap();
    let wrong = Passphrase::new("something else".to_owned());
    assert!(matches!(read_key_share(&path, &wrong), Err(KeystoreError::Decrypt { .. })));
    let missing = read_key_share(&folder.join("key-share-5.age"), &passphrase);
    assert!(matches!(missing, Err(KeystoreError::Io { .. })));

    let share = key_share(&folder, 2);
    let intact = fs::read(&path).unwrap();
    for at in [0, intact.len() / 2, intact.len() - 1] {
        let mut damaged = intact.clone();
        damaged[at] ^= 1;
        fs::write(&path, damaged).unwrap();
        let read = read_key_share(&path, &passphrase);
        assert!(matches!(read, Err(KeystoreError::Decrypt { .. })), "byte {at}");
    }
    fs::write(&path, &intact[..intact.len() - 1]).unwrap();
    let read = read_key_share(&path, &passphrase);
    assert!(matches!(read, Err(KeystoreError::Decrypt { .. })));

    // Damaged before it was encrypted.
    let mut bytes = share.to_bytes().to_vec();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    let path = folder.join("damaged.age");
    write_secret(&path, &bytes, &passphrase).unwrap();
    let read = read_key_share(&path, &passphrase);
    assert!(
        matches!(
            read,
            Err(KeystoreError::KeyShare { ref source, .. }) if *source == KeyShareError::Checksum
        ),
        "{read:?}"
    );
    let path = folder.join("other.age");
    write_secret(&path, b"not a key share at all", &passphrase).unwrap();
    let read = read_key_share(&path, &passphrase);
    assert!(
        matches!(
            read,
            Err(KeystoreError::KeyShare { ref source, .. })
                if *source == KeyShareError::NotAKeyShare
        ),
        "{read:?}"
    );
}

#[test]
fn a_key_share_of_another_ceremony_does_not_belong() {
    let ((_p1, here, report), (_p2, there, _)) = (finished(), finished());
    let (ours, theirs) = (key_share(&here, 2), key_share(&there, 2));
    let expected = *ours.origin();
    assert_eq!(Value::String(expected.ceremony.to_string()), report["ceremony_id"]);
    assert_eq!(Value::String(expected.key_set.to_string()), report["keyset_digest"]);
    let (committee, me) = (expected.committee, ParticipantIndex::new(2).unwrap());
    let check =
        |share: &KeyShare| share.check_belongs(expected.ceremony, committee, me, expected.key_set);
    assert_eq!(check(&ours), Ok(()));
    let found = theirs.origin().ceremony;
    assert_eq!(
        check(&theirs),
        Err(KeyShareError::OtherCeremony { expected: expected.ceremony, found })
    );
    assert_eq!(
        check(&key_share(&here, 3)),
        Err(KeyShareError::OtherMember {
            committee,
            participant: me,
            found_committee: committee,
            found_participant: ParticipantIndex::new(3).unwrap(),
        })
    );
    let other = theirs.origin().key_set;
    assert_eq!(
        ours.check_belongs(expected.ceremony, committee, me, other),
        Err(KeyShareError::OtherKeySet { expected: other, found: expected.key_set })
    );
}
