//! What the agreement decides, one instance after the other, and who proposes in each.

use core::fmt;

use serde::{Deserialize, Serialize};

use crate::{
    committee::Committee,
    ids::{ParticipantIndex, Slot},
};

/// What an instance of the agreement decides.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
pub enum Subject {
    /// The slot's [`Manifest`](crate::scheduling::Manifest): what goes into it.
    #[default]
    Manifest,
    /// How the slot ends: a [`SlotEnd`](super::SlotEnd).
    End,
}

/// One instance of the agreement. It is named in every vote, proposal, lock and equivocation, so
/// that nothing that is said in one counts in another. A member goes through them in this order and
/// may leave some out.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
pub struct Instance {
    /// The slot, from 1.
    pub slot: Slot,
    /// What is decided of it.
    pub subject: Subject,
}

impl Instance {
    /// The instance that decides a slot's manifest.
    #[must_use]
    pub const fn manifest(slot: Slot) -> Self {
        Self { slot, subject: Subject::Manifest }
    }

    /// The instance that decides how a slot ends.
    #[must_use]
    pub const fn end(slot: Slot) -> Self {
        Self { slot, subject: Subject::End }
    }

    /// Slot and subject as one part of a digest.
    pub(super) fn to_bytes(self) -> [u8; 9] {
        let mut bytes = [self.subject as u8; 9];
        bytes[..8].copy_from_slice(&self.slot.0.to_le_bytes());
        bytes
    }
}

impl fmt::Display for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.subject {
            Subject::Manifest => write!(f, "the manifest of slot {}", self.slot),
            Subject::End => write!(f, "the end of slot {}", self.slot),
        }
    }
}

/// Who proposes: members take turns by slot and round. The turns of an end are one further, so that
/// one faulty member does not open both instances of a slot.
#[must_use]
pub fn proposer(committee: Committee, instance: Instance, round: u32) -> ParticipantIndex {
    let n = committee.n() as u64;
    let Instance { slot, subject } = instance;
    committee.in_turn(slot.0 % n + u64::from(round) % n + subject as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_take_turns() {
        let committee = Committee::new(4).unwrap();
        let turns = |instance| {
            let turns = (0..6).map(|round| proposer(committee, instance, round).get());
            turns.collect::<Vec<_>>()
        };
        assert_eq!(turns(Instance::manifest(Slot(6))), [3, 4, 1, 2, 3, 4]);
        assert_eq!(turns(Instance::end(Slot(6))), [4, 1, 2, 3, 4, 1]);
        assert_eq!(turns(Instance::manifest(Slot(7)))[0], 4);
        let one = Committee::new(1).unwrap();
        assert_eq!(proposer(one, Instance::end(Slot(u64::MAX)), u32::MAX).get(), 1);
    }

    #[test]
    fn instances_are_ordered_by_slot_then_subject() {
        let order = [
            Instance::default(),
            Instance::manifest(Slot(1)),
            Instance::end(Slot(1)),
            Instance::manifest(Slot(2)),
        ];
        assert!(order.is_sorted_by(|a, b| a < b));
        assert_eq!(Instance::end(Slot(3)).to_string(), "the end of slot 3");
        assert_eq!(Instance::manifest(Slot(258)).to_bytes(), [2, 1, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(Instance::end(Slot(258)).to_bytes(), [2, 1, 0, 0, 0, 0, 0, 0, 1]);
    }
}
