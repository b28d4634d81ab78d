//! The keys that the share streams are drawn from.

use veil_committee::{prf::SetKey, subsets::MemberSet};

/// Keys of the sets or groups that contain one participant.
pub type MemberKeys = Vec<(MemberSet, SetKey)>;

/// What one participant draws its share streams from.
///
/// # Security
/// The keys are zeroized on drop.
pub struct StreamKeys {
    /// Of the key sets, for the ceremony only: random elements.
    pub dkg: MemberKeys,
    /// Of the noise groups: key-generation noise.
    pub noise: MemberKeys,
    /// Of the zero groups: what every opening is masked with.
    pub zero: MemberKeys,
}
