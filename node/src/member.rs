//! A committee member at work.
