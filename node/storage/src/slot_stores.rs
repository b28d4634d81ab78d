//! What a member keeps of slots, besides certificates and journals.

use std::path::Path;

use crate::{
    archive::Archive,
    inputs::{InputStore, InputsError},
    retention::Retention,
};

/// The inputs of the slot under way, and what is kept of those that have ended. A worker votes for nothing and
/// signs nothing, so it has neither.
#[derive(Debug)]
pub struct SlotStores {
    /// Of ended slots.
    pub archive: Archive,
    /// Of the slot under way.
    pub inputs: InputStore,
}

impl SlotStores {
    /// Opens or makes their files in a data directory.
    ///
    /// # Errors
    /// [`InputsError`].
    pub fn open(data_dir: &Path, retention: Retention) -> Result<Self, InputsError> {
        let archive = Archive::open(&data_dir.join("archive.redb"), retention)?;
        let inputs = InputStore::open(&data_dir.join("inputs.redb"))?;
        Ok(Self { archive, inputs })
    }
}
