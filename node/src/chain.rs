//! Access to the contracts.
