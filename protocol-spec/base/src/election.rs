//! How a committee is drawn from prevrandao: the twin of the contract's draw
//! (`ICommitteeElection`), by which anyone checks an election, or foresees what sealing gives.
//!
//! # Roles
//! Candidates are the members with enough stake, frozen on chain in the order of the registry before
//! the deciding block exists. Their weights are one plus the stake in gwei.
//!
//! # Steps
//! 1. The [`seed`] hashes prevrandao with chain, directory, cluster, epoch and round.
//! 2. For k = 0, 1, ...: `keccak256(seed, k)` modulo the weight that is left falls on a candidate. The
//!    bias of the remainder is below 2^-128, since weights add up to less than 2^96.
//! 3. That candidate leaves the draw; if its organisation has all the seats that it may have, the
//!    organisation's other candidates leave, too.
//!
//! # Security
//! The outcome depends on nothing that a caller can choose once prevrandao is known. A proposer of the
//! deciding block can withhold it and so choose between two outcomes.

use serde::{Deserialize, Serialize};

use crate::{
    abi::{Words, keccak},
    binding::ClusterScope,
    domain,
    ids::{Epoch, KeccakDigest, PeerIdHash},
};

/// First seven bytes of the Keccak-256 of an organisation's word, by which the chain tells
/// organisations apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct OrganisationTag(pub [u8; 7]);

impl OrganisationTag {
    /// The tag of an organisation's name in ASCII, padded with zeros to one word.
    #[must_use]
    pub fn of(word: &[u8; 32]) -> Self {
        let KeccakDigest([a, b, c, d, e, f, g, ..]) = keccak(word);
        Self([a, b, c, d, e, f, g])
    }
}

/// A member that may be drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Candidate {
    /// Hash of its peer id.
    pub peer: PeerIdHash,
    /// The organisation that runs it.
    pub organisation: OrganisationTag,
    /// One plus its active stake in gwei.
    pub weight: u64,
}

/// What the numbers of a draw are derived from.
#[must_use]
pub fn seed(
    prev_randao: &[u8; 32],
    scope: &ClusterScope,
    epoch: Epoch,
    round: u32,
) -> KeccakDigest {
    Words::purpose(domain::ELECTION)
        .bytes32(prev_randao)
        .uint(scope.chain_id.0)
        .address(&scope.contract)
        .bytes32(&scope.cluster.0)
        .uint(epoch.0)
        .uint(u64::from(round))
        .keccak()
}

/// Positions of the drawn candidates in the order of the draw, at most `count`: seats first, then
/// standbys. Fewer if no candidate is left.
///
/// `seats_per_organisation` is the limit for one organisation; 0 for none.
#[must_use]
pub fn draw(
    seed: &KeccakDigest,
    candidates: &[Candidate],
    count: usize,
    seats_per_organisation: usize,
) -> Vec<usize> {
    let mut left: Vec<(usize, &Candidate)> = candidates.iter().enumerate().collect();
    let mut drawn: Vec<(usize, &Candidate)> = Vec::new();
    while drawn.len() < count {
        let total = left.iter().map(|(_, candidate)| u128::from(candidate.weight)).sum();
        let number = Words::default().bytes32(seed.as_bytes()).uint(drawn.len() as u64).keccak();
        let Some(mut target) = remainder(&number, total) else { break };
        // The first candidate with `target` below the weights up to it.
        let chosen = left.iter().position(|(_, candidate)| {
            let weight = u128::from(candidate.weight);
            let hit = target < weight;
            target = target.saturating_sub(weight);
            hit
        });
        let Some(chosen) = chosen else { break };
        let (position, candidate) = left.remove(chosen);
        drawn.push((position, candidate));
        let own = |other: &&(usize, &Candidate)| other.1.organisation == candidate.organisation;
        if drawn.iter().filter(own).count() == seats_per_organisation {
            left.retain(|other| !own(&other));
        }
    }
    drawn.into_iter().map(|(position, _)| position).collect()
}

/// A 256-bit number modulo one below 2^120; none for zero.
fn remainder(number: &KeccakDigest, modulus: u128) -> Option<u128> {
    let step = |rest: u128, byte: &u8| ((rest << 8) | u128::from(*byte)).checked_rem(modulus);
    number.as_bytes().iter().try_fold(0, step)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;

    fn candidate(i: u8, organisation: u8, weight: u64) -> Candidate {
        let organisation = OrganisationTag([organisation; 7]);
        Candidate { peer: PeerIdHash([i; 32]), organisation, weight }
    }

    proptest! {
        /// No candidate twice, no organisation beyond its limit, and all seats filled that can be.
        #[test]
        fn a_draw_is_without_replacement_and_within_the_limits(
            random: [u8; 32],
            weights in proptest::collection::vec(1_u64..1 << 60, 0..20),
            count in 0_usize..20,
            limit in 0_usize..4,
        ) {
            let list: Vec<_> = (0..)
                .zip(&weights)
                .map(|(i, weight)| candidate(i, i / 3, *weight))
                .collect();
            let drawn = draw(&KeccakDigest(random), &list, count, limit);
            prop_assert_eq!(drawn.iter().collect::<BTreeSet<_>>().len(), drawn.len());
            let mut sizes = BTreeMap::<_, usize>::new();
            list.iter().for_each(|one| *sizes.entry(one.organisation).or_default() += 1);
            let bound = |size: &usize| if limit == 0 { *size } else { limit.min(*size) };
            let most: usize = sizes.values().map(bound).sum();
            prop_assert_eq!(drawn.len(), count.min(most));
            let mut seats = BTreeMap::<_, usize>::new();
            for position in drawn {
                *seats.entry(list[position].organisation).or_default() += 1;
            }
            prop_assert!(limit == 0 || seats.values().all(|seats| *seats <= limit));
        }
    }

    /// 4,000 draws of one seat among weights 1, 2, 3, 4: within five standard deviations.
    #[test]
    fn weights_are_chances() {
        let list: Vec<_> = (1..=4).map(|i| candidate(i, i, u64::from(i))).collect();
        let mut hits = [0_i64; 4];
        for i in 0..4000_u64 {
            let seed = Words::default().uint(i).keccak();
            hits[draw(&seed, &list, 1, 0)[0]] += 1;
        }
        for (expected, hits) in [400, 800, 1200, 1600].into_iter().zip(hits) {
            assert!((hits - expected).abs() < 160, "{hits} instead of {expected}");
        }
    }

    #[test]
    fn no_candidates_give_no_draw() {
        assert!(draw(&KeccakDigest([1; 32]), &[], 4, 0).is_empty());
        assert!(draw(&KeccakDigest([1; 32]), &[candidate(1, 1, 0)], 4, 0).is_empty());
    }
}
