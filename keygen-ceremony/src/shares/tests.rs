//! All members' streams, opened, against a key set that one party makes.

mod hiding;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha20Rng;
use veil_committee::{
    code::Opening,
    prf::SetKey,
    randomness::keys_of,
    ring::Element,
    subsets::{MemberSet, NoiseGroups, key_sets, zero_groups},
    with_degree,
};
use veil_protocol_spec::{Committee, ceremony::Stream};
use zeroize::Zeroizing;

use super::{
    bits::{BitShares, KeyBits},
    bodies::BodyShares,
    keys::{MemberKeys, StreamKeys},
    opening::{BodyOpening, open_bits},
};
use crate::{
    chunks::ChunkPlan,
    keyset::{
        Bodies, KeyName, Layout, ParameterSet, SectionBody,
        reference::{ClearKeys, noiseless_bodies},
    },
};

fn random_keys(count: usize, rng: &mut ChaCha20Rng) -> Vec<SetKey> {
    (0..count).map(|_| SetKey::new(rng.r#gen())).collect()
}

/// All members' computation, opened; the key bits are opened too and the bodies are compared,
/// noise aside, with those of the same key made by one party.
fn opened_bodies_encrypt_the_shared_key<const D: usize>(committee: Committee) {
    let params = ParameterSet::insecure_test();
    let layout = Layout::of(&params);
    let plan = ChunkPlan::new(committee, &params, &layout);
    let mut rng = ChaCha20Rng::seed_from_u64(committee.n() as u64);
    let public_seed: [u8; 32] = rng.r#gen();
    let (sets, groups) = (key_sets(committee), NoiseGroups::of(committee));
    let zero_sets = zero_groups(committee);
    let set_keys = random_keys(sets.len(), &mut rng);
    let group_keys = random_keys(groups.groups().len(), &mut rng);
    let zero_keys = random_keys(zero_sets.len(), &mut rng);
    let keys: Vec<_> = committee
        .participants()
        .map(|me| StreamKeys {
            dkg: keys_of(&sets, me, &set_keys),
            noise: keys_of(groups.groups(), me, &group_keys),
            zero: keys_of(&zero_sets, me, &zero_keys),
        })
        .collect();
    let bits = layout.total_key_bits();
    let drawn: Vec<_> = committee
        .participants()
        .zip(&keys)
        .map(|(me, keys)| BitShares::<D>::draw(committee, me, keys, bits))
        .collect();
    let opening = Opening::new(committee, 2 * committee.max_faulty().get());
    let mut opened = Vec::new();
    for chunk in plan.of(Stream::Bits) {
        let bytes: Vec<_> = drawn.iter().map(|shares| shares.chunk(chunk)).collect();
        assert!(bytes.iter().all(|b| b.len() == chunk.bytes));
        let views: Vec<_> = bytes.iter().map(Vec::as_slice).collect();
        open_bits(&opening, chunk, &views, &mut opened).unwrap();
    }
    let members: Vec<_> = drawn
        .into_iter()
        .map(|shares| KeyBits::new(&layout, shares.into_bits(&opened).unwrap()))
        .collect();
    let degree_t = Opening::<u128, D>::new(committee, committee.max_faulty().get());
    let clear = KeyName::ALL.map(|key| {
        let bits: Vec<u8> = (0..layout.bits_of(key))
            .map(|i| {
                let shares: Vec<_> = members.iter().map(|m| m.of(key)[i]).collect();
                let bit = degree_t.open(&shares).unwrap();
                assert!(bit == Element::ZERO() || bit == Element::ONE(), "{bit:?}");
                bit.0[0] as u8
            })
            .collect();
        assert!(bits.contains(&0) && bits.contains(&1));
        Zeroizing::new(bits)
    });
    let producers: Vec<_> = committee
        .participants()
        .zip(&keys)
        .zip(&members)
        .map(|((me, keys), bits)| {
            BodyShares::new(committee, me, &params, &layout, bits, keys, &public_seed)
        })
        .collect();
    let opening = BodyOpening::<D>::new(committee);
    let mut bodies = Bodies::zeroed(&layout);
    for chunk in plan.of(Stream::Bodies) {
        let bytes: Vec<_> = producers.iter().map(|shares| shares.chunk(chunk)).collect();
        assert!(bytes.iter().all(|b| b.len() == chunk.bytes));
        let views: Vec<_> = bytes.iter().map(Vec::as_slice).collect();
        let section = &layout.sections[chunk.section];
        opening.open(section, chunk, &views, &mut bodies.sections[chunk.section]).unwrap();
    }
    let exact = noiseless_bodies(&layout, &public_seed, &ClearKeys::from_bits(clear));
    for ((ours, exact), section) in
        bodies.sections.iter().zip(&exact.sections).zip(&layout.sections)
    {
        let noise: Vec<i128> = match (ours, exact) {
            (SectionBody::W64(a), SectionBody::W64(b)) => {
                a.iter().zip(b).map(|(a, b)| i128::from(a.wrapping_sub(*b) as i64)).collect()
            }
            (SectionBody::W128(a), SectionBody::W128(b)) => {
                a.iter().zip(b).map(|(a, b)| a.wrapping_sub(*b) as i128).collect()
            }
            _ => panic!("widths differ"),
        };
        // M groups, each uniform in [-B, B]: the total variance is M B (B+1) / 3.
        let bound = i128::from(params.group_bound(section.component, groups.missed()));
        let m = groups.groups().len() as i128;
        assert!(noise.iter().all(|e| e.abs() <= m * bound), "{:?}", section.component);
        let variance = noise.iter().map(|e| (e * e) as f64).sum::<f64>() / noise.len() as f64;
        let declared = (m * bound * (bound + 1)) as f64 / 3.0;
        // Six standard deviations of the estimate, for the kurtosis of a sum of uniforms.
        let tolerance = 6.0 * (2.0 / noise.len() as f64).sqrt();
        assert!(
            (variance / declared - 1.0).abs() < tolerance,
            "{:?} {committee}: variance {variance}, declared {declared}",
            section.component
        );
    }
}

/// Whatever changes a byte of what a member publishes changes the protocol: every other member would take
/// it for wrong.
#[test]
fn the_streams_of_a_member_are_what_they_were() {
    let committee = Committee::new(4).unwrap();
    let me = committee.participants().next().unwrap();
    let params = ParameterSet::insecure_test();
    let layout = Layout::of(&params);
    let plan = ChunkPlan::new(committee, &params, &layout);
    let keys = |sets: &[MemberSet], purpose: u8| -> MemberKeys {
        let all: Vec<_> = (0..sets.len() as u8).map(|i| SetKey::new([purpose + i; 32])).collect();
        keys_of(sets, me, &all)
    };
    let keys = StreamKeys {
        dkg: keys(&key_sets(committee), 0),
        noise: keys(NoiseGroups::of(committee).groups(), 64),
        zero: keys(&zero_groups(committee), 128),
    };
    let mut hasher = blake3::Hasher::new();
    let drawn = BitShares::<3>::draw(committee, me, &keys, layout.total_key_bits());
    for chunk in plan.of(Stream::Bits) {
        hasher.update(&drawn.chunk(chunk));
    }
    // As if every v were that of r = 0.
    let bits = drawn.into_bits(&vec![Element::ZERO(); layout.total_key_bits()]).unwrap();
    let bits = KeyBits::new(&layout, bits);
    let bodies = BodyShares::new(committee, me, &params, &layout, &bits, &keys, &[7; 32]);
    for chunk in plan.of(Stream::Bodies) {
        hasher.update(&bodies.chunk(chunk));
    }
    assert_eq!(
        hasher.finalize().to_hex().as_str(),
        "229fe588e8e4171a2bb2efc2eaeaa779cbba70bd94a6623514715f6880ba9b14"
    );
}

#[test]
fn opened_bodies_encrypt_the_shared_key_under_every_committee() {
    for committee in Committee::ALL {
        with_degree!(committee, D => opened_bodies_encrypt_the_shared_key::<D>(committee));
    }
}
