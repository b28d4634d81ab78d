//! Auctions on proven, encrypted bids.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod harness;

use harness::{Keys, binding, metadata};
use veil_keygen_ceremony::keyset::ParameterSet;
use veil_protocol_spec::{
    Address, Blake3Digest, Committee,
    scheduling::{Binding, ProofMetadata},
};
use veil_scheduler::{
    EncryptedBid, ListError,
    auction::{self, AuctionError},
    encrypt_bid, verify_and_expand_bid, verify_bid,
};
use veil_scheduler_plan::cleartext;

const AUCTION: Blake3Digest = Blake3Digest([7; 32]);

fn for_bid(bidder: u8) -> ProofMetadata {
    let Binding { scope, key_set, .. } = binding();
    ProofMetadata::for_bid(&scope, &key_set, &Address([bidder; 20]), 1)
}

fn expanded(keys: &Keys, bids: &[u16]) -> Vec<EncryptedBid> {
    (0..)
        .zip(bids)
        .map(|(bidder, bid)| {
            let (metadata, string) = (for_bid(bidder), &keys.reference_string);
            let list = encrypt_bid(*bid, &keys.public_key, string, &metadata).unwrap();
            verify_bid(&list, &metadata, &keys.public_key, string).unwrap();
            verify_and_expand_bid(&list, &metadata, string, &keys.evaluation).unwrap()
        })
        .collect()
}

/// The winner among the first `counts` bids.
fn assert_agrees(keys: &Keys, bids: &[u16], counts: &[usize]) {
    let encrypted = expanded(keys, bids);
    for count in counts {
        let bids = &bids[..*count];
        let encrypted: Vec<_> = encrypted.iter().take(*count).collect();
        let (outputs, _) = auction::winner(&AUCTION, &encrypted, &keys.evaluation).unwrap();
        assert_eq!(outputs.cost(), &auction::cost(*count).unwrap());
        let winner = auction::decode(&keys.decrypt(&outputs), *count).unwrap();
        assert_eq!(Some(winner), cleartext::best_bid(bids), "{bids:?}");
    }
}

#[test]
fn the_highest_bid_wins_and_the_first_of_equals() {
    // A bid alone, a tie, each round with and without a match, more than 16.
    let bids = [0, 0, 0x0fff, 0x8fff, 0x9000, 0x8fff, 0x9000, 9, 2, 6, 0x9001, 3, 5, 65_534];
    let bids = [&bids[..], &[7, 9, 65_535, 65_535]].concat();
    assert_agrees(Keys::test(), &bids, &[1, 2, 5, 7, 18]);
}

#[test]
fn under_the_parameters_of_a_committee_of_four() {
    let keys = Keys::new(ParameterSet::production(Committee::new(4).unwrap()), 1);
    assert_agrees(&keys, &[0x1234, 0xfedc, 0xfedd, 0x0fff, 0xfedd], &[5]);
}

#[test]
fn threads_do_not_change_the_digest() {
    let keys = Keys::test();
    let bids = expanded(keys, &[5, 1, 70, 70, 900]);
    let bids: Vec<_> = bids.iter().collect();
    let digest = |threads, auction: &Blake3Digest| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| auction::winner(auction, &bids, &keys.evaluation)).unwrap().1
    };
    assert_eq!(digest(1, &AUCTION), digest(2, &AUCTION));
    assert_ne!(digest(1, &AUCTION), digest(1, &Blake3Digest([8; 32])));
}

#[test]
fn bids_of_others_and_under_other_keys_are_refused() {
    let keys = Keys::test();
    let string = &keys.reference_string;
    let list = encrypt_bid(9, &keys.public_key, string, &for_bid(1)).unwrap();
    // Copied by another bidder; replayed as telemetry's.
    for metadata in [for_bid(2), metadata(1)] {
        let refused = verify_and_expand_bid(&list, &metadata, string, &keys.evaluation);
        assert!(matches!(refused, Err(ListError::Proof)), "{refused:?}");
    }
    // Of another length.
    let telemetry = veil_scheduler::verify(&list, &for_bid(1), &keys.public_key, string);
    assert!(matches!(telemetry, Err(ListError::Malformed(_))), "{telemetry:?}");

    let other = Keys::new(ParameterSet::insecure_test(), 2);
    let bids = [expanded(keys, &[1]), expanded(&other, &[2])];
    let bids: Vec<_> = bids.iter().flatten().collect();
    let refused = auction::winner(&AUCTION, &bids, &keys.evaluation);
    let (expected, found) = (keys.evaluation.id(), other.evaluation.id());
    let error = AuctionError::OtherKey { position: 1, found, expected };
    assert_eq!(refused.map(drop), Err(error));
}
