//! A whole ceremony of production size, in this process.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use veil_committee::key_share::KeyShare;
use veil_keygen_ceremony::keyset::ParameterSet;
use veil_node_ceremony::offline::{
    archive,
    demonstrate::demonstrate,
    simulate::{Options, run},
};
use veil_node_storage::keystore::Passphrase;
use veil_protocol_spec::Committee;

#[test]
#[ignore = "production size: minutes"]
fn seven_members_make_a_working_key_and_a_verifiable_archive() {
    let folder = tempfile::tempdir().unwrap();
    let committee = Committee::new(7).unwrap();
    archive::prepare(folder.path()).unwrap();
    let options = Options {
        committee,
        params: ParameterSet::production(committee),
        seed: None,
        shares: archive::shares(folder.path()),
        fault: None,
    };
    let mut simulation = run(&options, &|_, _, _| {}).unwrap();
    let key_sets: Vec<_> = simulation
        .endings
        .iter()
        .map(|ending| ending.as_ref().map(|outcome| outcome.key_set))
        .collect();
    assert_eq!(key_sets.len(), 7);
    assert!(key_sets.iter().all(|key_set| key_set.is_ok() && *key_set == key_sets[0]));
    assert_eq!(simulation.refused, []);
    let certificate = simulation.certificate().unwrap().clone();
    certificate.verify(&simulation.parameters).unwrap();

    let key_set = simulation.members[0].key_set().cloned().unwrap();
    archive::write_finished(folder.path(), &simulation, &key_set, &Passphrase::random()).unwrap();
    let shares: Vec<Arc<KeyShare>> =
        simulation.members.iter().map(|member| member.key_share().cloned().unwrap()).collect();
    let digest = key_sets[0].as_ref().copied().unwrap();
    // Seven copies of the key set.
    simulation.members.clear();

    let shown = demonstrate(&key_set, &shares, &simulation.identities, None, &|_| {}).unwrap();
    assert!(shown.verified && shown.crafted_refused_by.len() == 6);
    assert_eq!(shown.decrypted_with, [5, 6, 7]);
    assert_eq!(shown.named, committee.participants().skip(5).collect::<Vec<_>>());

    drop(key_set);
    let mut last = (0, 1);
    let verified = archive::verify(folder.path(), |done, total| last = (done, total)).unwrap();
    let verified = verified.transcript;
    assert_eq!(verified.digest, digest);
    assert_eq!(verified.certificate, certificate);
    assert!(!verified.params.is_insecure());
    assert_eq!(last.0, last.1);
}
