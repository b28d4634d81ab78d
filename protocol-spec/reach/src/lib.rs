//! Jobs, reached where they run.
//!
//! # Role
//! Messages of streams that no committee sees: between an operator and a worker ([`reach`]), and between two workers
//! ([`link`]).
//!
//! # Flow, state and restart
//! None: these are values and functions of them.
//!
//! # Example
//! ```
//! use veil_protocol_spec_reach::reach::PortWanted;
//!
//! let port = PortWanted::Named("http".parse().unwrap());
//! assert_ne!(port, PortWanted::Number(80.try_into().unwrap()));
//! ```

pub mod link;
pub mod reach;
