//! Which members share which keys: the sets A of PRSS, the groups of PRZS, and the noise groups.

use core::fmt;

use veil_protocol_spec::{Committee, ParticipantIndex};

/// Bits that are no set of a committee's participants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{bits:#06x} is no set of participants of a committee of {committee}")]
pub struct InvalidMemberSet {
    /// The bits.
    pub bits: u16,
    /// The committee.
    pub committee: Committee,
}

/// A set of participants; bit j-1 stands for participant j.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MemberSet(u16);

impl MemberSet {
    /// The set of the given 0-based positions.
    fn of_positions(positions: impl IntoIterator<Item = usize>) -> Self {
        Self(positions.into_iter().fold(0, |bits, p| bits | 1 << p))
    }

    /// The set whose [`bits`](Self::bits) these are.
    ///
    /// # Errors
    /// [`InvalidMemberSet`] if it is empty or has a member outside the committee.
    pub const fn from_bits(bits: u16, committee: Committee) -> Result<Self, InvalidMemberSet> {
        if bits == 0 || bits >> committee.n() != 0 {
            return Err(InvalidMemberSet { bits, committee });
        }
        Ok(Self(bits))
    }

    /// Bit j-1 stands for participant j.
    #[must_use]
    pub const fn bits(self) -> u16 {
        self.0
    }

    /// Whether participant j is in the set.
    #[must_use]
    pub const fn contains(self, j: ParticipantIndex) -> bool {
        self.0 >> j.position() & 1 == 1
    }

    /// Number of members.
    #[must_use]
    #[allow(clippy::len_without_is_empty, reason = "no set here is empty")]
    pub const fn len(self) -> usize {
        self.0.count_ones() as usize
    }

    /// Members in ascending order.
    pub fn iter(self) -> impl Iterator<Item = ParticipantIndex> {
        (1..=16u8)
            .filter(move |j| self.0 >> (j - 1) & 1 == 1)
            .filter_map(|j| ParticipantIndex::new(j).ok())
    }
}

impl fmt::Debug for MemberSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter().map(ParticipantIndex::get)).finish()
    }
}

/// All sets A of n-t participants, in ascending order of their bits: C(n, t) of them. Every t
/// members miss one of these keys.
#[must_use]
pub fn key_sets(committee: Committee) -> Vec<MemberSet> {
    let n = committee.n();
    let size = n - committee.max_faulty().get();
    (0..1u32 << n)
        .filter(|bits| bits.count_ones() as usize == size)
        .map(|bits| MemberSet(bits as u16))
        .collect()
}

/// The images of `bases` under x -> factor x + shift modulo n, for every factor and every shift.
fn orbits(n: usize, bases: &[&[usize]], factors: &[usize]) -> Vec<MemberSet> {
    let mut groups = Vec::new();
    for base in bases {
        for factor in factors {
            for shift in 0..n {
                let image = base.iter().map(|x| (factor * x + shift) % n);
                groups.push(MemberSet::of_positions(image));
            }
        }
    }
    groups
}

/// The groups of t+2 members whose zero sharings are enough, `ceremony.md` section 2, in ascending
/// order of their bits: for every t members, the groups disjoint from them span everything that a
/// polynomial of degree 2t has left once its value at 0 and at t points is fixed. None if t = 0:
/// nothing is hidden from anybody then.
#[must_use]
pub fn zero_groups(committee: Committee) -> Vec<MemberSet> {
    let n = committee.n();
    let mut groups = match n {
        4 => orbits(n, &[&[0, 1, 2]], &[1]),
        7 => orbits(n, &[&[0, 1, 2, 4]], &[1, 6]),
        10 => {
            let evens = orbits(n, &[&[0, 2, 4, 6, 8]], &[1]);
            [evens, orbits(n, &[&[0, 1, 2, 4, 5]], &[1, 3, 7, 9])].concat()
        }
        13 => {
            let bases: [&[usize]; 2] = [&[0, 1, 2, 3, 4, 5], &[0, 1, 2, 4, 6, 8]];
            orbits(n, &bases, &[1, 3, 4, 9, 10, 12])
        }
        _ => Vec::new(),
    };
    groups.sort_unstable();
    groups.dedup(); // different maps can have the same image
    groups
}

/// A family of noise groups, `ceremony.md` section 2: every t members entirely miss at least `r` of
/// them, so that the groups that are honest throughout reach the noise that security needs when
/// each draws variance sigma^2 / r.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoiseGroups {
    groups: Vec<MemberSet>,
    missed: u32,
}

impl NoiseGroups {
    /// The multi-cover family of a committee.
    #[must_use]
    pub fn of(committee: Committee) -> Self {
        let n = committee.n();
        let (groups, missed) = match n {
            4 => (vec![MemberSet::of_positions([0, 1]), MemberSet::of_positions([2, 3])], 1),
            7 => (orbits(n, &[&[0, 1, 3]], &[1]), 2),
            10 => (orbits(n, &[&[0, 1, 2, 6], &[0, 1, 3, 4], &[0, 2, 4, 7]], &[1]), 5),
            13 => {
                (orbits(n, &[&[0, 1, 2, 3, 4], &[0, 1, 2, 6, 9], &[0, 1, 2, 7, 8]], &[1, 3, 9]), 11)
            }
            // One group per (n-t)-subset is always valid; here it is the one member.
            _ => (key_sets(committee), 1),
        };
        Self { groups, missed }
    }

    /// The groups, M of them.
    #[must_use]
    pub fn groups(&self) -> &[MemberSet] {
        &self.groups
    }

    /// r: groups that any t members entirely miss.
    #[must_use]
    pub const fn missed(&self) -> u32 {
        self.missed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ring::Element, shamir::vanishing, with_degree};

    #[test]
    fn key_sets_are_counted() {
        let counts: Vec<_> = Committee::ALL.iter().map(|c| key_sets(*c).len()).collect();
        assert_eq!(counts, [1, 4, 21, 120, 715]);
    }

    /// The rank over the residue field, by elimination with units as pivots: what is left below and
    /// beside them is zero modulo 2.
    fn rank<const D: usize>(mut rows: Vec<Vec<Element<u64, D>>>) -> usize {
        let columns = rows.first().map_or(0, Vec::len);
        let mut rank = 0;
        for column in 0..columns {
            let below = rows[rank..].iter().position(|row| row[column].inverse().is_some());
            let Some(found) = below else { continue };
            rows.swap(rank, rank + found);
            let (pivots, others) = rows.split_at_mut(rank + 1);
            let pivot = &pivots[rank];
            let inverse = pivot[column].inverse().unwrap();
            for row in others {
                let factor = row[column] * inverse;
                row.iter_mut().zip(pivot).for_each(|(x, &y)| *x -= factor * y);
            }
            rank += 1;
        }
        rank
    }

    /// Whether, for every t corrupted members, the zero sharings of groups of honest ones alone are
    /// uniform among the polynomials of degree 2t that vanish at 0 and at the corrupted points: t
    /// of them are independent modulo 2, so that their coefficients have a unit determinant.
    fn hides<const D: usize>(committee: Committee, groups: &[MemberSet]) -> bool {
        let (n, t) = (committee.n(), committee.max_faulty().get());
        let shares = |group: &MemberSet| -> Vec<Element<u64, D>> {
            committee.participants().map(|j| vanishing(committee, *group, j)).collect()
        };
        (0..1u16 << n).filter(|bits| bits.count_ones() as usize == t).all(|corrupted| {
            let honest = groups.iter().filter(|group| group.bits() & corrupted == 0);
            rank(honest.map(shares).collect()) == t
        })
    }

    /// The claim of the table of zero groups in `ceremony.md` section 2, checked exhaustively.
    #[test]
    fn zero_groups_of_honest_members_span_what_no_t_members_know() {
        let expected = [(0, 0), (4, 3), (14, 8), (42, 21), (117, 54)];
        for (committee, (all, of_each)) in Committee::ALL.into_iter().zip(expected) {
            let groups = zero_groups(committee);
            assert_eq!(groups.len(), all);
            assert!(groups.iter().all(|g| g.len() == committee.max_faulty().get() + 2));
            assert!(groups.windows(2).all(|pair| pair[0] < pair[1]));
            for j in committee.participants() {
                assert_eq!(groups.iter().filter(|g| g.contains(j)).count(), of_each, "{j}");
            }
            with_degree!(committee, D => {
                assert!(hides::<D>(committee, &groups), "{committee}");
                // Not if a family is thinned out: the test can fail.
                let half: Vec<_> = groups.iter().copied().step_by(2).collect();
                assert!(half.is_empty() || !hides::<D>(committee, &half), "{committee}");
            });
        }
    }

    #[test]
    fn bits_are_a_set_only_within_the_committee() {
        for committee in Committee::ALL {
            for set in key_sets(committee) {
                assert_eq!(MemberSet::from_bits(set.bits(), committee), Ok(set));
            }
            for bits in [0, 1 << committee.n(), u16::MAX] {
                let refused = InvalidMemberSet { bits, committee };
                assert_eq!(MemberSet::from_bits(bits, committee), Err(refused));
            }
        }
    }

    /// The claim of the table in `ceremony.md` section 2, checked exhaustively.
    #[test]
    fn every_t_members_miss_r_noise_groups() {
        let expected = [(1, 1), (2, 1), (7, 2), (30, 5), (117, 11)];
        for (committee, (m, r)) in Committee::ALL.into_iter().zip(expected) {
            let (n, t) = (committee.n(), committee.max_faulty().get());
            let family = NoiseGroups::of(committee);
            assert_eq!((family.groups().len(), family.missed()), (m, r));
            for group in family.groups() {
                assert!(group.len() >= (t + 1).max(n - 2 * t) && group.len() <= n - t, "{group:?}");
            }
            let fewest = (0..1u16 << n)
                .filter(|bits| bits.count_ones() as usize == t)
                .map(|bits| family.groups().iter().filter(|g| g.bits() & bits == 0).count())
                .min();
            assert_eq!(fewest, Some(r as usize), "{committee}");
        }
    }
}
