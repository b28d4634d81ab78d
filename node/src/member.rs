//! A committee member at work.

pub mod proposal;
