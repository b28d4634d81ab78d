//! A worker at work.
