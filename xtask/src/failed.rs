//! A step that failed, and why.

use std::fmt;

/// A step that failed, and why.
#[derive(Debug)]
pub(crate) struct Failed {
    step: String,
    reason: String,
}

impl Failed {
    pub(crate) fn new(step: &str, reason: impl Into<String>) -> Self {
        Self { step: step.to_owned(), reason: reason.into() }
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "step `{}` failed: {}", self.step, self.reason)
    }
}
