//! The slot: the machine that brings it to its end, what a manifest must say, the telemetry that it can name, and
//! when its certificate goes to the chain.
//!
//! # Roles
//! The [`machine`] of each member decides what its slot does next (`protocol-spec/slot.md`), and the one beside it
//! ([`anchor`]) which certificate is due on chain (`protocol-spec/anchoring.md`). The proposer of a round writes a
//! [manifest] from what it knows; the other members compare it with what they know. Both are functions of a
//! [`LocalView`](manifest::LocalView): no I/O, no clock.
//!
//! # Flow
//! 1. Telemetry that arrives is checked, verified and kept in a [`Pool`](pool::Pool). [`silence`] says whose a
//!    slot waits for.
//! 2. The proposer calls [`LocalView::propose`](manifest::LocalView::propose).
//! 3. Every other member calls [`LocalView::validate_facts`](manifest::LocalView::validate_facts),
//!    fetches what the manifest lists, calls
//!    [`LocalView::validate_lists`](manifest::LocalView::validate_lists), and votes by what they say.
//!
//! What a manifest lists is a rule of its own, since a node that decides nothing answers by it too why a
//! replica has no place: [`lists`], of what each job wants ([`demand`]), which workers may run a system job ([`fit`]) and when a replica is
//! tried ([`tries`]).
//!
//! What the slot's auditors state of it is compared with how it ended: [`audit`].
//!
//! # State and restart
//! The machine stores what it must know again in the slot under way. The pool is in memory only: workers
//! send telemetry again at an interval.

pub mod anchor;
pub mod audit;
pub mod demand;
pub mod fit;
#[cfg(test)]
mod fixtures;
pub mod judged;
pub mod lists;
pub mod machine;
pub mod manifest;
pub mod pool;
pub mod rollout;
pub mod silence;
pub mod tries;
pub mod waiting;

pub use self::machine::SlotMachine;
