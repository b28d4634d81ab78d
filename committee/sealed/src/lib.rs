//! Sealed bodies of jobs: what only certified winners of a replica open. The text is `protocol-spec/sealed.md`. And
//! backups of key shares, which go through the same channel: `protocol-spec/backup.md`.
//!
//! # Role
//! - [`channel`]: HPKE to one recipient, hybrid of X25519 and ML-KEM-768.
//! - [`sharing`]: a secret, its shares, and commitments that each share is checked against.
//! - [`context`]: what a sealed part is bound to.
//! - [`seal`]: the operator. [`member`]: who holds a share and releases it. [`open`]: the winner.
//! - [`keep`]: what a worker keeps of it, so that it starts again without asking anybody.
//! - [`backup`]: a member's key share, sealed to a passphrase or to a key that is kept elsewhere.
//!
//! # Flow
//! 1. The operator checks the members' announced keys and [seals](seal::seal).
//! 2. Each member [checks its share](member::SealingKey::deal) before it considers the job.
//! 3. A worker that the newest certificate assigns a replica to [asks](open::Opening::request) every member.
//! 4. A member [releases](member::SealingKey::answer) its share, encrypted to the key of that question.
//! 5. The worker [takes](open::Opening::take) shares until t+1 are right, opens, and checks what it finds.
//!
//! # State and restart
//! None here. A member derives its key from its key share; a worker's ephemeral key lives as long as its question; what
//! it has opened is [kept](keep::Keeper) encrypted under its identity.

pub mod backup;
pub mod channel;
pub mod context;
pub mod keep;
pub mod member;
pub mod open;
pub mod seal;
pub mod sharing;

#[cfg(test)]
mod tests;
