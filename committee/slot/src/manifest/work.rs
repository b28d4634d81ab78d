//! Whether a slot is due.

/// Whether a slot would change anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// Nothing is to be done.
    Nothing,
    /// All that could be done was tried before: that often at least, with nothing changed since.
    Again(u8),
    /// Something is to be done now.
    Now,
}
