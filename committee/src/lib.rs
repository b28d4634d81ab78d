//! Threshold logic of a committee, without I/O: no clock, no socket, and no entropy of its own
//! except FROST nonces.
//!
//! # Roles
//! The n = 3t+1 **members** of a committee hold shares of the FHE key and of a FROST signing key. A
//! **host** owns a member's machines, brings messages and time, and stores their records; see
//! [`veil_committee_machine`].
//!
//! # Flow
//! 1. The key ceremony (`veil-keygen-ceremony`) makes both keys; a member keeps a
//!    [`KeyShare`](key_share::KeyShare).
//! 2. For each slot the members decrypt what they all recomputed
//!    ([`Decryptor`](decryption::Decryptor)): each sends its share, and 2t+1 that agree open it.
//! 3. They sign the outcome ([`SigningMachine`](frost::signing::SigningMachine)): one of them
//!    collects the shares of 2t+1.
//!
//! Members whose shares are wrong are named with evidence that convinces third parties.
//!
//! # State and restart
//! A machine is made again from the key share and its records: the count of decrypted blocks, and
//! the spent signing nonces. Each machine's documentation says what it sends again and what it never
//! does.
//!
//! # Modules
//! - [`ring`]: the Galois rings GR(2^64, d) and GR(2^128, d); [`shamir`]: sharing over them;
//!   [`code`]: the Reed-Solomon code of the shares, with error detection and location.
//! - [`subsets`]: replicated-key sets and noise groups; [`prf`]: what their keys expand to;
//!   [`randomness`]: PRSS, PRZS and noise shares.
//! - [`decrypt`]: partial decryption with noise flooding, and combining with the culprits named;
//!   [`decryption`]: the sans-io machine around it, which decrypts only what it recomputed.
//! - [`key_share`]: what a member keeps of the key ceremony, and its form on disk.
//! - [`frost`]: the committee's signatures.

pub mod code;
pub mod decrypt;
pub mod decryption;
pub mod frost;
pub mod key_share;
pub mod prf;
pub mod randomness;
pub mod ring;
pub mod shamir;
pub mod subsets;
#[cfg(test)]
mod testing;
