//! What keys, openings, circuits and placements cost, and how good the placements are.
//!
//! # Role
//! The criterion benches and the binaries that print figures share this crate: committees whose keys
//! are random, made by one party (timing depends on their sizes alone), a key set with its secret
//! side, made-up clusters, the stock baseline of the circuits, a meter of noise, and a simulator of
//! placement. Nothing of it is in the product.
//!
//! # Flow
//! - `benches/threshold.rs`, `threshold-figures`: [`decryptors`] of each committee open
//!   [`squashed_blocks`]. `ceremony-figures`: whole ceremonies.
//! - `benches/scheduler.rs`, `scheduler-figures`: [`keys`] make a key set, [`inputs`] prove lists,
//!   [`threshold`], [`placement`] and [`auction`] evaluate them beside the [`baseline`], and compare with
//!   the cleartext twins.
//! - `noise-figures`: [`noise`] compares measured with predicted variances.
//! - `placement-quality`: [`simulation`] places the same arrivals, of a simulated day or a trace, by exact and by
//!   quantised figures.
//!
//! # State and restart
//! [`inputs::Kept`] keeps a run's reference string and lists in a directory, which a later run reads
//! to evaluate the same bits. Everything else is made anew from fixed seeds.
//!
//! # Caveats
//! Seconds depend on the machine and on what else it does: compare figures of one run only.

pub mod auction;
pub mod baseline;
pub mod cluster;
pub mod failure;
pub mod inputs;
pub mod keys;
pub mod noise;
pub mod placement;
pub mod simulation;
pub mod threshold;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha20Rng;
use veil_committee::{
    decrypt::{PartialDecryptor, SquashedBlock},
    prf::SetKey,
    randomness::keys_of,
    ring::Element,
    shamir::{random_element, share},
    subsets::{MemberSet, key_sets},
    with_degree,
};
use veil_protocol_spec::{Committee, Epoch, KeySetDigest, ParticipantIndex};

/// Bits of the noise-squashing key Q, and words of a squashed block's mask.
pub const DIMENSION: usize = 4096;

/// Makes all work run on the calling thread, so that elapsed time is processor time and no hand-over
/// between threads is measured.
///
/// # Panics
/// On a second call, or after work was given to rayon.
pub fn single_threaded() {
    rayon::ThreadPoolBuilder::new()
        .num_threads(1)
        .use_current_thread()
        .build_global()
        .expect("no thread pool exists yet");
}

/// The committees that share a key among several participants.
pub fn committees() -> impl Iterator<Item = Committee> {
    Committee::ALL.into_iter().filter(|committee| committee.n() > 1)
}

/// Keys of the sets that contain a participant.
pub type MemberKeys = Vec<(MemberSet, SetKey)>;

fn random_keys(sets: &[MemberSet], rng: &mut ChaCha20Rng) -> Vec<SetKey> {
    sets.iter().map(|_| SetKey::new(rng.r#gen())).collect()
}

/// The participant that the benches time; all have equally many keys.
///
/// # Panics
/// Never: no committee is empty.
#[must_use]
pub fn member(committee: Committee) -> ParticipantIndex {
    committee.participants().next_back().expect("no committee is empty")
}

/// The keys that [`member`] shares with each of these sets that contains it.
#[must_use]
pub fn member_keys(committee: Committee, sets: &[MemberSet]) -> MemberKeys {
    let mut rng = ChaCha20Rng::seed_from_u64(1);
    keys_of(sets, member(committee), &random_keys(sets, &mut rng))
}

/// All participants of a committee with consistent shares of one key.
#[must_use]
pub fn decryptors(committee: Committee) -> Vec<PartialDecryptor> {
    let mut rng = ChaCha20Rng::seed_from_u64(2);
    let sets = key_sets(committee);
    let keys = random_keys(&sets, &mut rng);
    with_degree!(committee, D => {
        let degree = committee.max_faulty().get();
        let bits: Vec<_> = (0..DIMENSION)
            .map(|_| {
                let bit = Element::<u128, D>::constant(rng.gen_range(0..2));
                share(bit, degree, committee, &mut rng)
            })
            .collect();
        committee
            .participants()
            .map(|me| {
                let mine: Vec<_> = bits.iter().map(|shares| shares[me.position()]).collect();
                let keys = keys_of(&sets, me, &keys);
                PartialDecryptor::new(committee, me, &mine, &keys, &KeySetDigest([1; 32]), Epoch(0))
            })
            .collect()
    })
}

/// Blocks with random masks.
#[must_use]
pub fn squashed_blocks(count: usize) -> Vec<SquashedBlock> {
    let mut rng = ChaCha20Rng::seed_from_u64(3);
    (0..count)
        .map(|_| SquashedBlock {
            mask: (0..DIMENSION).map(|_| rng.r#gen()).collect(),
            body: rng.r#gen(),
        })
        .collect()
}

/// A word of all participants' shares of a random value on a polynomial of the given degree.
#[must_use]
pub fn codeword<const D: usize>(
    committee: Committee,
    degree: usize,
) -> Vec<(ParticipantIndex, Element<u128, D>)> {
    let mut rng = ChaCha20Rng::seed_from_u64(4);
    let secret = random_element(&mut rng);
    committee.participants().zip(share(secret, degree, committee, &mut rng)).collect()
}
