//! The phases of a slot at a member: moments at which a plan may let it crash.

use core::fmt;

use serde::{Deserialize, Serialize};
use veil_committee_slot::machine::SlotStage;

/// What a member does in a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Nothing is to be placed.
    Ready,
    /// What has no place is tried again later.
    BackingOff,
    /// Telemetry is awaited.
    Collecting,
    /// The members agree on the manifest.
    AgreeingOnManifest,
    /// The manifest is being evaluated.
    Evaluating,
    /// The outcome is being opened.
    Opening,
    /// The members agree on how the slot ends.
    AgreeingOnEnd,
    /// The certificate is being signed.
    Signing,
}

impl Phase {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Ready,
        Self::BackingOff,
        Self::Collecting,
        Self::AgreeingOnManifest,
        Self::Evaluating,
        Self::Opening,
        Self::AgreeingOnEnd,
        Self::Signing,
    ];

    /// Whether the slot has begun for the member.
    pub(super) const fn is_under_way(self) -> bool {
        !matches!(self, Self::Ready | Self::BackingOff | Self::Collecting)
    }
}

impl From<SlotStage> for Phase {
    fn from(stage: SlotStage) -> Self {
        match stage {
            SlotStage::Ready => Self::Ready,
            SlotStage::BackingOff => Self::BackingOff,
            SlotStage::Collecting => Self::Collecting,
            SlotStage::AgreeingOnManifest => Self::AgreeingOnManifest,
            SlotStage::Evaluating => Self::Evaluating,
            SlotStage::Opening => Self::Opening,
            SlotStage::AgreeingOnEnd => Self::AgreeingOnEnd,
            SlotStage::Signing => Self::Signing,
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}
