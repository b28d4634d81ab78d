//! Exports and imports between two data directories; what the chain says is given.

use veil_node_ceremony::journals;
use veil_node_config::MemberConfig;
use veil_protocol_spec::{
    Address, ChainId, ClusterId, KeccakDigest, identity::SecretIdentity, publication,
    scheduling::ReferenceStringOrigin,
};

use super::*;
use crate::{
    fence::check_journals,
    share::{
        self,
        tests::{SEAT, committee, finished},
    },
};

const SCOPE: ClusterScope = ClusterScope {
    chain_id: ChainId(31_337),
    contract: Address([0x11; 20]),
    cluster: ClusterId([0x22; 32]),
};

fn config(data_dir: &Path) -> MemberConfig {
    let text = format!(
        "[node]\ndata_dir = {data_dir:?}\n[network]\nlisten = [\"/ip4/127.0.0.1/tcp/1\"]\n\
         [chain]\nrpc = \"http://127.0.0.1:1\"\ncontract = \"{}\"\ncluster = \"0x{}\"\n",
        format_args!("0x{}", "11".repeat(20)),
        "22".repeat(32)
    );
    MemberConfig::parse(Path::new("member.toml"), &text, &|_| None).unwrap()
}

/// A member that has taken part in a ceremony.
struct Member {
    place: tempfile::TempDir,
    own: Passphrase,
    finished: FinishedKey,
}

impl Member {
    fn new() -> Self {
        let place = tempfile::tempdir().unwrap();
        let own = Passphrase::random();
        let data = place.path().join("data");
        fs::create_dir_all(data.join("ceremony")).unwrap();
        let folder = FinishedKey::attempt_folder(&data, Epoch(0), Attempt(0));
        let finished = finished(&folder, &own);
        finished.save(&data).unwrap();
        Self { place, own, finished }
    }

    fn data(&self) -> PathBuf {
        self.place.path().join("data")
    }

    fn export(&self, to: &Recipient, name: &str) -> PathBuf {
        let file = self.place.path().join(name);
        export(&config(&self.data()), &self.own, to, &file).unwrap();
        file
    }
}

/// All files under a folder, with their contents.
fn contents(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap().flatten() {
        if entry.path().is_dir() {
            found.extend(contents(&entry.path()));
        } else {
            found.push((entry.path(), fs::read(entry.path()).unwrap()));
        }
    }
    found.sort();
    found
}

/// What [`import`] does beside asking the chain and the identity.
fn bring_back(
    data_dir: &Path,
    own: &Passphrase,
    file: &Path,
    unlock: &Unlock,
) -> Result<(), ShareError> {
    let backup = read(file)?;
    let data = lock(data_dir)?;
    let vacant = Vacancy::of(&data, &backup.head)?;
    let share = open(file, &backup, unlock)?;
    vacant.fill(&data, &backup.head, &share, own)
}

#[test]
fn a_share_goes_to_a_passphrase_and_comes_back_behind_a_fence() {
    let member = Member::new();
    let passphrase = Passphrase::new("correct horse".to_owned());
    let file = member.export(&Recipient::Passphrase(passphrase.clone()), "share.backup");
    let unlock = Unlock::Passphrase(passphrase);

    // What it is of is told without any secret, and nothing of the share stands in it.
    let described = check(&file, None).unwrap();
    assert!(described.by_passphrase);
    assert_eq!(described.head.key_set, member.finished.key_set);
    assert_eq!(check(&file, Some(&unlock)).unwrap().head, described.head);
    let share = share::open(&member.finished, &member.own, committee(), described.head.key_set);
    let plain = share.unwrap().to_bytes();
    let bytes = fs::read(&file).unwrap();
    assert!(!bytes.windows(64).any(|window| window == &plain[plain.len() / 2..][..64]));
    assert!(!format!("{unlock:?}").contains("correct horse"));
    let mode = std::os::unix::fs::MetadataExt::mode(&fs::metadata(&file).unwrap());
    assert_eq!(mode & 0o777, 0o600);

    // Where the member lives, or its share is, nothing is brought back, and nothing changes.
    let before = contents(&member.data());
    let living = DataDir::lock(&member.data()).unwrap();
    let refused = bring_back(&member.data(), &member.own, &file, &unlock);
    assert!(matches!(refused, Err(ShareError::Lives(_))), "{refused:?}");
    drop(living);
    let refused = bring_back(&member.data(), &member.own, &file, &unlock);
    assert!(matches!(refused, Err(ShareError::HasShare(_))), "{refused:?}");
    let mut after = contents(&member.data());
    after.retain(|(path, _)| !path.ends_with("lock"));
    assert_eq!(before, after);

    // An empty directory, and another passphrase of its own.
    let own = Passphrase::random();
    let empty = tempfile::tempdir().unwrap();
    bring_back(empty.path(), &own, &file, &unlock).unwrap();
    let restored = FinishedKey::load(empty.path(), Epoch(0)).unwrap().unwrap();
    share::open(&restored, &own, committee(), restored.key_set).unwrap();
    let folder = journals::folder(empty.path());
    assert_eq!(fs::read_to_string(folder.join("fence")).unwrap(), "pending");
    check_journals(&folder).unwrap();
    let again = bring_back(empty.path(), &own, &file, &unlock);
    assert!(matches!(again, Err(ShareError::HasShare(_))), "{again:?}");

    // A backup of what was brought back is as good.
    let second = empty.path().join("second.backup");
    let to = Recipient::Passphrase(Passphrase::new("other".to_owned()));
    export(&config(empty.path()), &own, &to, &second).unwrap();
    assert_eq!(check(&second, None).unwrap().head, described.head);
}

#[test]
fn a_share_goes_to_a_key_and_only_that_key_opens_it() {
    let member = Member::new();
    let keys = member.place.path().join("keys");
    fs::create_dir(&keys).unwrap();
    let (secret, public) = (keys.join("key"), keys.join("key.pub"));
    let of_key = Passphrase::random();
    let named = new_key(&secret, &public, &of_key).unwrap();
    let again = new_key(&secret, &public, &of_key);
    assert!(matches!(again, Err(ShareError::Keystore(KeystoreError::Exists(_)))), "{again:?}");

    let file = member.export(&Recipient::Key(read_public_key(&public).unwrap()), "share.backup");
    let described = check(&file, None).unwrap();
    assert!(!described.by_passphrase && described.recipient == named);
    check(&file, Some(&Unlock::Key(Box::new(read_key(&secret, &of_key).unwrap())))).unwrap();

    let refused = check(&file, Some(&Unlock::Passphrase(Passphrase::random()))).unwrap_err();
    assert!(matches!(refused, ShareError::NeedsKey(_)), "{refused:?}");
    let other = Unlock::Key(Box::new(ChannelKey::derive(&[1; 32])));
    let refused = check(&file, Some(&other)).unwrap_err();
    let is_other = matches!(refused, ShareError::Backup { source: BackupError::OtherKey, .. });
    assert!(is_other, "{refused:?}");
    let wrong = read_key(&secret, &Passphrase::random()).unwrap_err();
    assert!(matches!(wrong, ShareError::Keystore(KeystoreError::Decrypt { .. })), "{wrong:?}");
    for (path, text) in [(&public, "veil-backup-key-1 00"), (&public, "something else")] {
        fs::write(path, text).unwrap();
        let refused = read_public_key(path).unwrap_err();
        assert!(matches!(refused, ShareError::NotAKey(_)), "{refused:?}");
    }
}

#[test]
fn a_damaged_foreign_or_wrong_backup_leaves_an_empty_directory_empty() {
    let (member, other) = (Member::new(), Member::new());
    let passphrase = Passphrase::new("correct horse".to_owned());
    let to = Recipient::Passphrase(passphrase.clone());
    let unlock = Unlock::Passphrase(passphrase);
    let file = member.export(&to, "share.backup");
    let intact = fs::read(&file).unwrap();
    let empty = tempfile::tempdir().unwrap();
    let refused = |file: &Path, unlock: &Unlock| {
        let error = bring_back(empty.path(), &member.own, file, unlock).unwrap_err();
        let left: Vec<_> = contents(empty.path()).into_iter().map(|(path, _)| path).collect();
        assert!(left.iter().all(|path| path.ends_with("lock")), "{left:?}");
        error.to_string()
    };
    for (damage, says) in [
        (&(|bytes: &mut Vec<u8>| bytes.truncate(40)) as &dyn Fn(&mut Vec<u8>), "cut off"),
        (&|bytes| bytes.truncate(bytes.len() - 1), "cut off"),
        (&|bytes| bytes.push(0), "ends after"),
        (&|bytes| bytes[0] ^= 1, "not a backup"),
        (&|bytes| bytes[200] ^= 1, "damaged"),
        (&|bytes| *bytes.last_mut().unwrap() ^= 1, "damaged"),
    ] {
        let mut bytes = intact.clone();
        damage(&mut bytes);
        fs::write(&file, bytes).unwrap();
        let said = refused(&file, &unlock);
        assert!(said.contains(says) && said.contains("share.backup"), "{said}");
    }
    fs::write(&file, &intact).unwrap();
    let said = refused(&file, &Unlock::Passphrase(Passphrase::random()));
    assert!(said.contains("does not open with this passphrase"), "{said}");

    // The head of one member's backup before the share of another's: it opens, and is not what it says.
    let mut moved = ShareBackup::from_file(&intact).unwrap();
    let key = ChannelKey::derive(&[7; 32]);
    let theirs = other.finished.key_share_file();
    let theirs = read_key_share(&theirs, &other.own).unwrap().to_bytes();
    moved = ShareBackup::seal(moved.head, Lock::Key, key.public(), &theirs, &[9; 32]).unwrap();
    fs::write(&file, moved.to_file()).unwrap();
    let said = refused(&file, &Unlock::Key(Box::new(key)));
    assert!(said.contains("does not fit"), "{said}");
}

#[test]
fn an_import_that_was_cut_off_is_repeated_and_a_ceremony_under_way_is_left_alone() {
    let member = Member::new();
    let passphrase = Passphrase::new("correct horse".to_owned());
    let file = member.export(&Recipient::Passphrase(passphrase.clone()), "share.backup");
    let unlock = Unlock::Passphrase(passphrase);
    let place = tempfile::tempdir().unwrap();
    let folder = FinishedKey::attempt_folder(place.path(), Epoch(0), Attempt(0));
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("seed.age"), "of an attempt under way").unwrap();
    let refused = bring_back(place.path(), &member.own, &file, &unlock);
    assert!(matches!(refused, Err(ShareError::Undecided(_))), "{refused:?}");
    fs::remove_file(folder.join("seed.age")).unwrap();

    // A crash after the share, before the record of the key.
    fs::write(head_file(&folder), "cut off").unwrap();
    fs::write(folder.join(format!("key-share-{SEAT}.age")), "cut off").unwrap();
    bring_back(place.path(), &member.own, &file, &unlock).unwrap();
    let restored = FinishedKey::load(place.path(), Epoch(0)).unwrap().unwrap();
    share::open(&restored, &member.own, committee(), restored.key_set).unwrap();
}

fn head() -> BackupHead {
    let identity = |i| SecretIdentity::from_bytes(&[i; 32]).unwrap().public();
    BackupHead {
        parameters: veil_protocol_spec::ceremony::CeremonyParameters {
            committee: committee(),
            parameters: "production".to_owned(),
            parameters_digest: Blake3Digest([5; 32]),
            roster: (1..=4).map(identity).collect(),
            epoch: Epoch(3),
            context: ceremony_context(&SCOPE),
        },
        attempt: Attempt(1),
        participant: ParticipantIndex::new(SEAT).unwrap(),
        key_set: veil_protocol_spec::KeySetDigest([7; 32]),
        transcript_root: Blake3Digest([8; 32]),
        proof_root: Blake3Digest([9; 32]),
        reference_string: publication::ReferenceString {
            digest: Blake3Digest([10; 32]),
            file: Blake3Digest([11; 32]),
            bytes: 7,
        },
    }
}

/// As the chain publishes the key of [`head`].
fn published(head: &BackupHead) -> PublishedKey {
    PublishedKey {
        epoch: head.parameters.epoch,
        attempt: head.attempt,
        group_key: PublicIdentity([2; 33]),
        verifying_shares_root: KeccakDigest([0; 32]),
        key_set: head.key_set,
        transcript_root: head.transcript_root,
        reference_string: veil_node_chain::ReferenceString {
            digest: head.reference_string.digest,
            origin: ReferenceStringOrigin::Committee,
        },
        published_at: 0,
    }
}

#[test]
fn only_the_share_of_the_key_in_force_of_this_cluster_is_brought_back() {
    let head = head();
    let key = published(&head);
    let judged =
        |key: Option<&PublishedKey>, scope: &ClusterScope| check_in_force(&head, scope, key);
    assert!(judged(Some(&key), &SCOPE).is_ok());
    assert!(matches!(judged(None, &SCOPE), Err(ShareError::NoKey)));
    for scope in [
        ClusterScope { chain_id: ChainId(1), ..SCOPE },
        ClusterScope { contract: Address([3; 20]), ..SCOPE },
        ClusterScope { cluster: ClusterId([3; 32]), ..SCOPE },
    ] {
        assert!(matches!(judged(Some(&key), &scope), Err(ShareError::OtherCluster)));
    }
    // The committee has gone on: by an epoch, or by an attempt of this one.
    for later in [
        PublishedKey { epoch: Epoch(4), attempt: Attempt(0), ..key },
        PublishedKey { attempt: Attempt(2), ..key },
    ] {
        let refused = judged(Some(&later), &SCOPE).unwrap_err();
        assert!(matches!(refused, ShareError::OldGeneration { .. }), "{refused:?}");
        assert!(refused.to_string().contains("epoch 3, attempt 1"), "{refused}");
    }
    for other in [
        PublishedKey { epoch: Epoch(2), ..key },
        PublishedKey { key_set: veil_protocol_spec::KeySetDigest([0; 32]), ..key },
        PublishedKey { transcript_root: Blake3Digest([0; 32]), ..key },
    ] {
        let refused = judged(Some(&other), &SCOPE).unwrap_err();
        assert!(matches!(refused, ShareError::OtherKey(_)), "{refused:?}");
    }
}

#[test]
fn only_the_member_itself_brings_its_share_back() {
    let mut head = head();
    let identity = |i| SecretIdentity::from_bytes(&[i; 32]).unwrap().public();
    assert!(check_identity(&head, identity(SEAT)).is_ok());
    let refused = check_identity(&head, identity(3)).unwrap_err();
    assert!(matches!(refused, ShareError::OtherIdentity { .. }), "{refused:?}");
    head.parameters.roster.truncate(1);
    assert!(matches!(check_identity(&head, identity(SEAT)), Err(ShareError::OtherCluster)));
    // Nobody could say what it has signed.
    head.parameters.committee = veil_protocol_spec::Committee::new(1).unwrap();
    let place = tempfile::tempdir().unwrap();
    let data = DataDir::lock(place.path()).unwrap();
    let refused = Vacancy::of(&data, &head).err().unwrap();
    assert!(matches!(refused, ShareError::Fence(FenceError::Alone)), "{refused:?}");
}

#[test]
fn a_member_without_a_key_has_nothing_to_export() {
    let place = tempfile::tempdir().unwrap();
    let to = Recipient::Passphrase(Passphrase::random());
    let file = place.path().join("share.backup");
    let refused = export(&config(place.path()), &Passphrase::random(), &to, &file).unwrap_err();
    assert!(matches!(refused, ShareError::NoShare(_)), "{refused:?}");
    assert!(!file.exists());
}
