//! The key ceremony between processes.
