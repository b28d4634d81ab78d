use rand::SeedableRng;
use rand_chacha::ChaCha20Rng;

use super::*;

fn index(i: u8) -> ParticipantIndex {
    ParticipantIndex::new(i).unwrap()
}

fn committee(n: u8) -> Committee {
    Committee::new(n).unwrap()
}

struct Run {
    secrets: Packages<Round1Secret>,
    public: Packages,
}

fn start(n: u8, seed: u64) -> Run {
    let committee = committee(n);
    let (mut secrets, mut public) = (BTreeMap::new(), BTreeMap::new());
    for i in committee.participants() {
        let mut rng = ChaCha20Rng::seed_from_u64(seed * 100 + u64::from(i.get()));
        let (secret, package) = Dkg::<EvmSuite>::start(committee, i, &mut rng).unwrap();
        secrets.insert(i, secret);
        public.insert(i, package);
    }
    Run { secrets, public }
}

fn without<T: Clone>(packages: &Packages<T>, me: ParticipantIndex) -> Packages<T> {
    packages.iter().filter(|(i, _)| **i != me).map(|(i, p)| (*i, p.clone())).collect()
}

/// Step 2 of all members: their secrets, and the packages by recipient, then sender.
fn exchange(run: Run) -> (Packages<Round2Secret>, Packages<Packages<SecretPackage>>) {
    let mut inboxes: Packages<Packages<SecretPackage>> = BTreeMap::new();
    let mut secrets = BTreeMap::new();
    for (me, secret) in run.secrets {
        let (secret, outgoing) = secret.receive(&without(&run.public, me)).unwrap();
        secrets.insert(me, secret);
        inboxes.entry(me).or_default();
        for (to, package) in outgoing {
            inboxes.entry(to).or_default().insert(me, package);
        }
    }
    (secrets, inboxes)
}

#[test]
fn all_members_get_shares_of_one_key_and_a_replay_gets_the_same() {
    for n in [1, 4, 7] {
        let generate = || {
            let run = start(n, 1);
            let transcript: GroupPublicKey = group_public_key(committee(n), &run.public).unwrap();
            let (secrets, inboxes) = exchange(run);
            let shares = secrets.into_iter().map(|(me, secret)| {
                let share = secret.finish(&inboxes[&me]).unwrap();
                assert_eq!(share.public(), &transcript);
                assert_eq!(share.index(), me);
                share.to_secret_bytes().to_vec()
            });
            shares.collect::<Vec<_>>()
        };
        assert_eq!(generate(), generate());
    }
}

#[test]
fn every_bad_round_1_package_is_named() {
    let other = start(7, 2);
    let mut run = start(4, 1);
    let lower_degree = start(4, 3).public[&index(1)].clone();
    run.public.insert(index(1), vec![1, 2, 3]); // malformed
    run.public.insert(index(2), other.public[&index(2)].clone()); // degree 4 instead of 2
    run.public.insert(index(3), lower_degree); // member 1's proof in member 3's name
    let secret = run.secrets.remove(&index(4)).unwrap();
    let error = secret.receive(&without(&run.public, index(4))).unwrap_err();
    assert_eq!(error.culprits(), [index(1), index(2), index(3)]);
}

#[test]
fn a_second_spelling_of_a_round_1_package_is_refused() {
    let mut run = start(4, 1);
    run.public.get_mut(&index(2)).unwrap().push(0);
    let secret = run.secrets.remove(&index(1)).unwrap();
    let error = secret.receive(&without(&run.public, index(1))).unwrap_err();
    assert_eq!(error.culprits(), [index(2)]);
    run.public.insert(index(2), vec![1; 4096]);
    let error = group_public_key::<EvmSuite>(committee(4), &run.public).unwrap_err();
    assert_eq!(error.culprits(), [index(2)]);
}

#[test]
fn every_bad_round_2_package_is_named_and_proved() {
    let run = start(7, 1);
    let public = run.public.clone();
    let (mut secrets, mut inboxes) = exchange(run);
    let for_another = inboxes[&index(1)][&index(3)].clone();
    let inbox = inboxes.get_mut(&index(2)).unwrap();
    inbox.insert(index(3), for_another);
    inbox.get_mut(&index(5)).unwrap().push(0);
    inbox.get_mut(&index(6)).unwrap()[0] = 9;
    for (sender, package) in &*inbox {
        let verdict =
            verify_round2::<EvmSuite>(committee(7), *sender, index(2), &public[sender], package);
        assert_eq!(verdict.is_err(), [3, 5, 6].contains(&sender.get()), "{sender}");
    }
    let error = secrets.remove(&index(2)).unwrap().finish(&inboxes[&index(2)]).unwrap_err();
    assert_eq!(error, DkgError::InvalidRound2 { culprits: [3, 5, 6].map(index).to_vec() });
}

#[test]
fn outstanding_and_surplus_packages_are_named_and_nobody_is_blamed() {
    let mut run = start(4, 1);
    let secret = run.secrets.remove(&index(1)).unwrap();
    let error = secret.receive(&run.public).unwrap_err();
    assert_eq!(error, DkgError::Unexpected { round: 1, from: vec![index(1)] });
    assert!(error.culprits().is_empty());
    run.public.remove(&index(3));
    let secret = run.secrets.remove(&index(2)).unwrap();
    let error = secret.receive(&without(&run.public, index(2))).unwrap_err();
    assert_eq!(error, DkgError::Missing { round: 1, from: vec![index(3)] });
    let mut rng = ChaCha20Rng::seed_from_u64(0);
    let error = Dkg::<EvmSuite>::start(committee(4), index(5), &mut rng).unwrap_err();
    assert!(matches!(error, DkgError::NotAMember { .. }));
}

#[test]
fn a_stored_share_is_its_owners_only() {
    let (secrets, inboxes) = exchange(start(4, 1));
    let mut shares = secrets.into_iter().map(|(me, s)| s.finish(&inboxes[&me]).unwrap());
    let (one, two) = (shares.next().unwrap(), shares.next().unwrap());
    let bytes = one.to_secret_bytes();
    let read = |n, i, bytes: &[u8]| {
        GroupKeyShare::<EvmSuite>::from_secret_bytes(committee(n), index(i), bytes)
    };
    use crate::frost::KeyShareError::{Malformed, Mismatch, OtherMember};
    assert_eq!(read(4, 1, &bytes).unwrap().to_secret_bytes(), bytes);
    assert!(matches!(read(4, 2, &bytes).unwrap_err(), OtherMember { .. }));
    assert!(matches!(read(7, 1, &bytes).unwrap_err(), OtherMember { .. }));
    for len in 0..bytes.len() {
        assert!(read(4, 1, &bytes[..len]).is_err(), "{len}");
    }
    let mut swapped = bytes.to_vec();
    swapped[4..36].copy_from_slice(&two.to_secret_bytes()[4..36]);
    assert_eq!(read(4, 1, &swapped).unwrap_err(), Mismatch);
    swapped[0] = 2;
    assert_eq!(read(4, 1, &swapped).unwrap_err(), Malformed);
}

#[test]
fn printing_redacts() {
    let run = start(4, 1);
    let printed = format!("{:?}", run.secrets);
    assert!(printed.contains("redacted"));
    let (secrets, inboxes) = exchange(run);
    let mut printed = format!("{secrets:?}");
    let mut hidden = Vec::new();
    for (me, secret) in secrets {
        let share = secret.finish(&inboxes[&me]).unwrap();
        printed += &format!("{share:?}");
        hidden.extend(share.to_secret_bytes()[4..36].to_vec());
    }
    assert!(printed.contains("redacted"));
    for scalar in hidden.chunks(32) {
        let hex: String = scalar.iter().map(|byte| format!("{byte:02x}")).collect();
        assert!(!printed.contains(&hex) && !printed.contains(&format!("{scalar:?}")));
    }
}
