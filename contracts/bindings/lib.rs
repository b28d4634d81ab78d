//! Rust bindings of Veil's contracts.
