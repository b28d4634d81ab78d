//! Committee sizes and the thresholds that follow from them.

use core::fmt;

use serde::{Deserialize, Serialize};

use crate::ids::ParticipantIndex;

/// A committee size that Veil runs: n = 3t+1 in {4, 7, 10, 13}, or n = 1, t = 0 (the "designated
/// decryptor", for development).
///
/// ```
/// use veil_protocol_spec_base::Committee;
/// let c = Committee::new(7).unwrap();
/// assert_eq!((c.n(), c.max_faulty().get(), c.signing_threshold().get()), (7, 2, 5));
/// assert!(Committee::new(5).is_err());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub struct Committee(u8);

/// The number of participants is not a supported size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a committee of {0} is not supported: choose 4, 7, 10 or 13 (n = 3t+1), or 1 for development"
)]
pub struct UnknownCommittee(pub u8);

/// Tolerated corruptions, t.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MaxFaulty(u8);

/// Shares that open a degree-t sharing, t+1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ReconstructionThreshold(u8);

/// A Byzantine quorum, 2t+1: FROST `min_signers`, manifest locks, and the points that fix a
/// polynomial of degree 2t.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SigningThreshold(u8);

macro_rules! getter {
    ($($t:ty),*) => {$(
        impl $t {
            /// The number itself.
            #[must_use]
            pub const fn get(self) -> usize {
                self.0 as usize
            }
        }
        impl fmt::Display for $t {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    )*};
}
getter!(MaxFaulty, ReconstructionThreshold, SigningThreshold);

impl Committee {
    /// Every supported size, smallest first.
    pub const ALL: [Self; 5] = [Self(1), Self(4), Self(7), Self(10), Self(13)];

    /// # Errors
    /// [`UnknownCommittee`] unless `n` is 1, 4, 7, 10 or 13.
    pub const fn new(n: u8) -> Result<Self, UnknownCommittee> {
        match n {
            1 | 4 | 7 | 10 | 13 => Ok(Self(n)),
            _ => Err(UnknownCommittee(n)),
        }
    }

    /// The number of participants.
    #[must_use]
    pub const fn n(self) -> usize {
        self.0 as usize
    }

    /// t, with n = 3t+1.
    #[must_use]
    pub const fn max_faulty(self) -> MaxFaulty {
        MaxFaulty((self.0 - 1) / 3)
    }

    /// t+1.
    #[must_use]
    pub const fn reconstruction_threshold(self) -> ReconstructionThreshold {
        ReconstructionThreshold(self.max_faulty().0 + 1)
    }

    /// 2t+1.
    #[must_use]
    pub const fn signing_threshold(self) -> SigningThreshold {
        SigningThreshold(2 * self.max_faulty().0 + 1)
    }

    /// The participants in ascending order.
    pub fn participants(
        self,
    ) -> impl DoubleEndedIterator<Item = ParticipantIndex> + ExactSizeIterator {
        (1..=self.0).map(ParticipantIndex::from_one_based)
    }

    /// Whose turn it is: turn 0 is the first participant's, and after the last one the first follows.
    #[must_use]
    pub const fn in_turn(self, turn: u64) -> ParticipantIndex {
        ParticipantIndex::from_one_based((turn % self.0 as u64) as u8 + 1)
    }

    /// Whether `index` is a participant of this committee.
    #[must_use]
    pub const fn contains(self, index: ParticipantIndex) -> bool {
        index.get() <= self.0
    }
}

impl TryFrom<u8> for Committee {
    type Error = UnknownCommittee;

    fn try_from(n: u8) -> Result<Self, Self::Error> {
        Self::new(n)
    }
}

impl From<Committee> for u8 {
    fn from(committee: Committee) -> Self {
        committee.0
    }
}

impl fmt::Display for Committee {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "n={} t={}", self.0, self.max_faulty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds_follow_from_n() {
        for committee in Committee::ALL {
            let t = committee.max_faulty().get();
            assert_eq!(committee.n(), 3 * t + 1);
            assert_eq!(committee.reconstruction_threshold().get(), t + 1);
            assert_eq!(committee.signing_threshold().get(), (committee.n() + t) / 2 + 1);
            assert_eq!(committee.participants().len(), committee.n());
        }
    }

    #[test]
    fn other_sizes_are_refused() {
        for n in (0..=u8::MAX).filter(|n| ![1, 4, 7, 10, 13].contains(n)) {
            assert_eq!(Committee::new(n), Err(UnknownCommittee(n)));
        }
    }
}
