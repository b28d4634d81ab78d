//! Shared by this crate's tests: a committee whose key was dealt, ciphertexts under it, identities.

use rand::Rng;
use rand_chacha::ChaCha20Rng;
use veil_protocol_spec::{
    Committee, Epoch, KeySetDigest, ParticipantIndex, PublicIdentity, identity::SecretIdentity,
};

use crate::{
    decrypt::{LOG2_DELTA, LOG2_NOISE, PartialDecryptor, SquashedBlock},
    prf::SetKey,
    randomness::keys_of,
    ring::Element,
    shamir::share,
    subsets::{MemberSet, key_sets},
    with_degree,
};

pub(crate) const DIMENSION: usize = 64;
pub(crate) const KEY_SET: KeySetDigest = KeySetDigest([1; 32]);
pub(crate) const EPOCH: Epoch = Epoch(0);

pub(crate) fn index(j: u8) -> ParticipantIndex {
    ParticipantIndex::new(j).unwrap()
}

pub(crate) fn identity(j: ParticipantIndex) -> SecretIdentity {
    SecretIdentity::from_bytes(&[j.get(); 32]).unwrap()
}

pub(crate) fn roster(committee: Committee) -> Vec<PublicIdentity> {
    committee.participants().map(|j| identity(j).public()).collect()
}

/// Uniform bits.
pub(crate) fn secret_key(rng: &mut ChaCha20Rng) -> Vec<u128> {
    (0..DIMENSION).map(|_| rng.gen_range(0..2)).collect()
}

/// Each participant's shares of `key`, in order.
pub(crate) fn key_shares<const D: usize>(
    committee: Committee,
    key: &[u128],
    rng: &mut ChaCha20Rng,
) -> Vec<Vec<Element<u128, D>>> {
    let t = committee.max_faulty().get();
    let bits: Vec<_> =
        key.iter().map(|bit| share(Element::constant(*bit), t, committee, rng)).collect();
    committee.participants().map(|j| bits.iter().map(|s| s[j.position()]).collect()).collect()
}

/// Each participant's flooding keys, in order.
pub(crate) fn flooding_keys(
    committee: Committee,
    rng: &mut ChaCha20Rng,
) -> Vec<Vec<(MemberSet, SetKey)>> {
    let sets = key_sets(committee);
    let keys: Vec<_> = sets.iter().map(|_| SetKey::new(rng.r#gen())).collect();
    committee.participants().map(|j| keys_of(&sets, j, &keys)).collect()
}

pub(crate) fn members(
    committee: Committee,
    key: &[u128],
    rng: &mut ChaCha20Rng,
) -> Vec<PartialDecryptor> {
    let keys = flooding_keys(committee, rng);
    with_degree!(committee, D => {
        let shares = key_shares::<D>(committee, key, rng);
        committee
            .participants()
            .zip(shares.iter().zip(&keys))
            .map(|(j, (share, keys))| {
                PartialDecryptor::new(committee, j, share, keys, &KEY_SET, EPOCH)
            })
            .collect()
    })
}

pub(crate) fn encrypt(key: &[u128], message: u8, rng: &mut ChaCha20Rng) -> SquashedBlock {
    let mask: Vec<u128> = key.iter().map(|_| rng.r#gen()).collect();
    let noise = rng.gen_range(0..1u128 << LOG2_NOISE).wrapping_sub(1 << (LOG2_NOISE - 1));
    let product =
        mask.iter().zip(key).fold(0u128, |sum, (a, q)| sum.wrapping_add(a.wrapping_mul(*q)));
    let body = product.wrapping_add(u128::from(message) << LOG2_DELTA).wrapping_add(noise);
    SquashedBlock { mask, body }
}
