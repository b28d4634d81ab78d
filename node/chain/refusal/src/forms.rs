//! What the registry packs into bits and words, in the protocol's types.

use alloy::primitives::B256;
use veil_protocol_spec::{registry::Roles, scheduling::Organisation};

/// The registry's bit for a worker.
const WORKER_BIT: u8 = 1;
/// The registry's bit for a member.
const MEMBER_BIT: u8 = 2;

/// Roles as the registry's bits.
#[must_use]
pub const fn role_bits(roles: Roles) -> u8 {
    roles.worker as u8 * WORKER_BIT + roles.member as u8 * MEMBER_BIT
}

/// Roles from the registry's bits; unknown ones are ignored.
#[must_use]
pub const fn roles_of(bits: u8) -> Roles {
    Roles { worker: bits & WORKER_BIT != 0, member: bits & MEMBER_BIT != 0 }
}

/// The organisation of a word; `None` for zero, and for what is no name: two words never give one name.
#[must_use]
pub fn organisation(word: &B256) -> Option<Organisation> {
    let end = word.iter().rposition(|byte| *byte != 0)? + 1;
    let name = word.get(..end)?.to_vec();
    String::from_utf8(name).ok()?.parse().ok()
}
