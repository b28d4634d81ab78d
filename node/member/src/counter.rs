//! How many blocks this member has opened under the key: on disk, and for the others to ask.
//!
//! A member that lost its journals would count from zero, and open more than the key is good for. Before its
//! fence goes down it asks the others, and takes over what [`supported`] makes of their answers.

use std::path::Path;

use tokio::sync::watch;
use veil_node_ceremony::journals;
use veil_node_core::epoch::ActiveEpoch;
use veil_node_storage::journal::{Journal, JournalError};
use veil_protocol_spec::{Committee, decryption::DecryptionCounter};

/// The journal of the counter.
pub(crate) struct CounterJournal {
    journal: Journal,
    told: watch::Sender<Option<DecryptionCounter>>,
}

fn open(folder: &Path) -> Result<(Journal, DecryptionCounter), JournalError> {
    let path = folder.join(journals::DECRYPTION);
    let (journal, counters) = Journal::open::<DecryptionCounter>(&path)?;
    Ok((journal, counters.last().copied().unwrap_or_default()))
}

impl CounterJournal {
    /// The journal and what it says, which the others can ask for from here on.
    pub(crate) fn open(
        folder: &Path,
        epoch: &ActiveEpoch,
    ) -> Result<(Self, DecryptionCounter), JournalError> {
        let (journal, counter) = open(folder)?;
        let told = epoch.blocks_opened.clone();
        told.send_replace(Some(counter));
        Ok((Self { journal, told }, counter))
    }

    /// Stores the newest counter: it says all that those before it said.
    pub(crate) fn replace(&mut self, counter: &DecryptionCounter) -> Result<(), JournalError> {
        self.journal.replace(counter)?;
        self.told.send_replace(Some(*counter));
        Ok(())
    }
}

/// Takes over what others state, if it is more than what is stored.
pub(crate) fn raise(folder: &Path, stated: DecryptionCounter) -> Result<(), JournalError> {
    let (mut journal, stored) = open(folder)?;
    if stated > stored { journal.replace(&stated) } else { Ok(()) }
}

/// The largest counter that t+1 of the others reach, once 2t+1 have answered. "Of 2t+1 answers at most t are
/// false" (`decryption.md`, "Budget"): t liars can neither use up the key nor hide what the others opened.
pub(crate) fn supported(
    mut stated: Vec<DecryptionCounter>,
    committee: Committee,
) -> Option<DecryptionCounter> {
    if stated.len() < committee.signing_threshold().get() {
        return None;
    }
    stated.sort_unstable_by(|a, b| b.cmp(a));
    stated.get(committee.max_faulty().get()).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn supported_of(blocks: &[u64]) -> Option<u64> {
        let stated = blocks.iter().map(|&blocks| DecryptionCounter { blocks }).collect();
        supported(stated, Committee::new(4).unwrap()).map(|counter| counter.blocks)
    }

    #[test]
    fn a_liar_moves_the_counter_no_further_than_honest_members_do() {
        assert_eq!(supported_of(&[100, 90]), None, "too few have answered");
        assert_eq!(supported_of(&[100, 90, 95]), Some(95));
        assert_eq!(supported_of(&[u64::MAX, 90, 95]), Some(95));
        assert_eq!(supported_of(&[0, 90, 95]), Some(90));
    }

    #[test]
    fn a_lost_counter_is_raised_and_a_larger_one_stays() {
        let data = tempfile::tempdir().unwrap();
        let folder = journals::folder(data.path());
        journals::make(&folder).unwrap();
        for (stated, stored) in [(70, 70), (50, 70), (71, 71)] {
            raise(&folder, DecryptionCounter { blocks: stated }).unwrap();
            assert_eq!(open(&folder).unwrap().1.blocks, stored);
        }
    }
}
