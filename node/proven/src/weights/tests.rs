use std::{sync::OnceLock, time::Duration};

use rand::{SeedableRng as _, rngs::StdRng};
use tfhe::CompactPublicKey;
use veil_keygen_ceremony::keyset::{Layout, ParameterSet, assemble, reference};
use veil_protocol_spec::{
    Address, ChainId, ClusterId, Epoch, PeerIdHash,
    scheduling::{ClusterScope, ProofMetadata, ProvenList, Reading, Weight, Weights},
};
use veil_scheduler::{encrypt, encrypt_weights};

use super::*;

/// Insecure keys, made from key bits in clear.
struct Keys {
    public: CompactPublicKey,
    evaluation: EvaluationKey,
    string: ReferenceString,
}

impl Keys {
    fn get() -> &'static Self {
        static KEYS: OnceLock<Keys> = OnceLock::new();
        KEYS.get_or_init(|| {
            let parameters = ParameterSet::insecure_test();
            let layout = Layout::of(&parameters);
            let clear = reference::ClearKeys::random(&layout, &mut StdRng::seed_from_u64(1));
            let bodies = reference::bodies(&parameters, &layout, &[1; 32], &clear, &[2; 32]);
            let key_set = assemble(&parameters, [1; 32], bodies).unwrap();
            let (public, server_key) = key_set.decompress().into_raw_parts();
            let evaluation = EvaluationKey::new(public.clone(), server_key).unwrap();
            let string = ReferenceString::generate_insecure(*parameters.pke()).unwrap();
            Self { public, evaluation, string }
        })
    }

    fn under<'a>(&'a self, binding: &'a Binding) -> Under<'a> {
        Under { binding, key: Some(&self.evaluation), string: &self.string }
    }
}

fn binding() -> Binding {
    let scope = ClusterScope {
        chain_id: ChainId(31_337),
        contract: Address([1; 20]),
        cluster: ClusterId([2; 32]),
    };
    Binding { scope, key_set: KeySetDigest([3; 32]), epoch: Epoch(1) }
}

fn list(nonce: u64) -> EncryptedWeights {
    let Binding { scope, key_set, .. } = binding();
    let author = Address([9; 20]);
    let metadata = ProofMetadata::for_weights(&scope, &key_set, &author, nonce);
    let weights = Weights { price: Weight::new(2).unwrap(), latency: Weight::default() };
    let Keys { public, string, .. } = Keys::get();
    let list = encrypt_weights(&weights, public, string, &metadata).unwrap();
    EncryptedWeights { scope, key_set, author, nonce, list }
}

/// What comes of a list that a policy names as it is.
fn named_as_it_is(list: &EncryptedWeights) -> Result<(), WeightsRefusal> {
    let folder = tempfile::tempdir().unwrap();
    let lists = PolicyWeightLists::new(folder.path());
    let taken = lists.take(list.digest(), list, Keys::get().under(&binding()));
    assert_eq!(lists.kept(&list.digest()).is_some(), taken.is_ok(), "kept if it is taken");
    taken.map(drop)
}

#[test]
fn what_is_not_the_authors_for_this_cluster_and_key_is_refused_by_name() {
    let good = list(1);
    assert_eq!(named_as_it_is(&good), Ok(()));
    let other_cluster = ClusterScope { cluster: ClusterId([8; 32]), ..good.scope };
    let other_cluster = EncryptedWeights { scope: other_cluster, ..good.clone() };
    assert_eq!(
        named_as_it_is(&other_cluster),
        Err(WeightsRefusal::Cluster(other_cluster.digest()))
    );
    let other_key = EncryptedWeights { key_set: KeySetDigest([8; 32]), ..good.clone() };
    assert!(matches!(named_as_it_is(&other_key), Err(WeightsRefusal::KeySet { .. })));
    // Somebody else's list under one's own name, and an old one under another number: the proof binds both.
    let unproven = |refused: Result<(), WeightsRefusal>| {
        let Err(WeightsRefusal::List { reason, .. }) = refused else { panic!("{refused:?}") };
        assert_eq!(reason, ListError::Proof.to_string());
    };
    unproven(named_as_it_is(&EncryptedWeights { author: Address([8; 20]), ..good.clone() }));
    unproven(named_as_it_is(&EncryptedWeights { nonce: 2, ..good.clone() }));
    // Another kind of list under the right binding.
    let reading = Reading::default();
    let Keys { public, string, .. } = Keys::get();
    let telemetry = encrypt(&reading, public, string, &good.proof_metadata()).unwrap();
    let telemetry = EncryptedWeights { list: telemetry, ..good.clone() };
    assert!(matches!(named_as_it_is(&telemetry), Err(WeightsRefusal::List { .. })));
    let sender = ProofMetadata::new(&good.scope, &good.key_set, &PeerIdHash([9; 32]), 1);
    let weights = Weights::default();
    let of_a_worker = encrypt_weights(&weights, public, string, &sender).unwrap();
    unproven(named_as_it_is(&EncryptedWeights { list: of_a_worker, ..good }));
}

#[test]
fn a_flipped_byte_is_never_taken() {
    let good = list(1);
    let bytes = good.list.as_bytes();
    for at in (0..bytes.len()).step_by(bytes.len() / 24 + 1) {
        let mut changed = bytes.to_vec();
        changed[at] ^= 1;
        let changed = EncryptedWeights { list: ProvenList::new(changed).unwrap(), ..good.clone() };
        // Under its own name, and under that of the list that it was.
        assert!(named_as_it_is(&changed).is_err(), "byte {at}");
        let folder = tempfile::tempdir().unwrap();
        let lists = PolicyWeightLists::new(folder.path());
        let found = changed.digest();
        let named = good.digest();
        let refused = lists.take(named, &changed, Keys::get().under(&binding())).unwrap_err();
        assert_eq!(refused, WeightsRefusal::Other { named, found });
    }
    assert!(ProvenList::new(vec![1; ProvenList::MAX_BYTES + 1]).is_err());
    let mut longer = good.to_wire();
    longer.resize(EncryptedWeights::MAX_BYTES + 1, 0);
    assert!(EncryptedWeights::from_wire(&longer).is_err());
}

/// Looked at before anything is verified: a peer costs others no proof by what was not asked for.
#[test]
fn what_a_peer_answers_is_what_was_asked_for_or_counts_against_it() {
    let (good, other) = (list(1), list(2));
    let named = good.digest();
    assert_eq!(answered(named, None), Ok(None));
    assert_eq!(answered(named, Some(good.clone().into())), Ok(Some(good.into())));
    let refused = answered(named, Some(other.clone().into())).unwrap_err();
    assert_eq!(refused, WeightsRefusal::Other { named, found: other.digest() });
    assert_eq!(refused.name(), "other_weights");
}

#[test]
fn a_wrong_list_does_not_keep_the_right_one_out_and_a_named_one_that_is_bad_stays_bad() {
    let folder = tempfile::tempdir().unwrap();
    let lists = PolicyWeightLists::new(folder.path());
    let (good, other) = (list(1), list(2));
    let (named, binding) = (good.digest(), binding());
    let under = Keys::get().under(&binding);
    assert_eq!(lists.why_not(&named), Some(WeightsRefusal::Missing(named)));
    assert!(lists.take(named, &other, under).is_err());
    assert_eq!(lists.why_not(&named), Some(WeightsRefusal::Missing(named)));
    assert!(lists.take(named, &good, under).is_ok());
    assert!(lists.has(&named));
    assert_eq!(lists.why_not(&named), None);

    let bad = EncryptedWeights { nonce: 7, ..good.clone() };
    let named = bad.digest();
    assert!(matches!(lists.take(named, &bad, under), Err(WeightsRefusal::List { .. })));
    assert!(matches!(lists.why_not(&named), Some(WeightsRefusal::List { .. })));
    assert!(!lists.has(&named));
    // A light worker's key takes none.
    let light = Under { key: None, ..under };
    let fresh = PolicyWeightLists::new(folder.path());
    assert_eq!(fresh.take(good.digest(), &good, light).unwrap_err(), WeightsRefusal::Light);
}

#[test]
fn after_a_restart_the_list_is_there_unless_somebody_wrote_to_it() {
    let folder = tempfile::tempdir().unwrap();
    let (good, binding) = (list(1), binding());
    let named = good.digest();
    let under = Keys::get().under(&binding);
    PolicyWeightLists::new(folder.path()).take(named, &good, under).unwrap();
    let again = PolicyWeightLists::new(folder.path());
    assert!(!again.has(&named), "it is verified again");
    let kept = again.kept(&named).unwrap();
    assert_eq!(kept, good);
    assert!(again.take(named, &kept, under).is_ok());

    fs::write(again.path(&named), list(2).to_wire()).unwrap();
    let again = PolicyWeightLists::new(folder.path());
    assert_eq!(again.kept(&named), None, "another list under its name");
    fs::write(again.path(&named), b"no list").unwrap();
    assert_eq!(again.kept(&named), None);
    // Peers bring it once more.
    assert!(again.take(named, &good, under).is_ok());
    assert_eq!(again.kept(&named), Some(good));
}

#[test]
fn what_the_chain_names_stays_and_of_the_rest_the_newest() {
    let folder = tempfile::tempdir().unwrap();
    let lists = PolicyWeightLists::new(folder.path());
    lists.forget(&[]).unwrap();
    let count = u64::try_from(EARLIER).unwrap() + 4;
    let (good, now) = (list(1), SystemTime::now());
    let all: Vec<_> = (0..count)
        .map(|nonce| {
            let list = EncryptedWeights { nonce, ..good.clone() };
            lists.keep(&list.digest(), &list).unwrap();
            let file = fs::File::options().write(true).open(lists.path(&list.digest())).unwrap();
            file.set_modified(now - Duration::from_secs(1000 - nonce)).unwrap();
            list.digest()
        })
        .collect();
    // The oldest of all is in force.
    lists.forget(&all[..1]).unwrap();
    let kept: Vec<_> = all.iter().map(|named| lists.kept(named).is_some()).collect();
    let expected: Vec<_> = (0..count).map(|nonce| nonce == 0 || nonce >= 4).collect();
    assert_eq!(kept, expected);
}
