//! The blocks that a follower remembers since they may still be replaced, with their events.
//!
//! # Inputs
//! [`Track::extend`]: the next block. [`Track::undo`]: the last block is no longer in the chain.
//! [`Track::settle`]: all remembered blocks are deep enough.
//!
//! # Effects
//! [`Update`]s in the order in which they hold. Each event is `Seen`, and then either `Undone`, in
//! reverse order, or `Settled`. An event that is deep enough when it is read is `Settled` at once.

use std::collections::VecDeque;

use veil_protocol_spec::{KeccakDigest, scheduling::BlockRef};

/// What happened to an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Update<E> {
    /// It is in the chain, and may be undone.
    Seen(E),
    /// It is no longer in the chain: its block was replaced.
    Undone(E),
    /// It is deep enough to act on.
    Settled(E),
}

/// A block and the events in it.
#[derive(Clone, Debug)]
pub(crate) struct Block<E> {
    pub(crate) at: BlockRef,
    pub(crate) parent: KeccakDigest,
    pub(crate) events: Vec<E>,
}

/// See the [module documentation](self).
#[derive(Debug)]
pub(crate) struct Track<E> {
    depth: u64,
    settled: BlockRef,
    /// On top of `settled`, oldest first.
    recent: VecDeque<Block<E>>,
}

impl<E: Clone> Track<E> {
    /// Starts on top of a block that is never undone.
    pub(crate) const fn new(settled: BlockRef, depth: u64) -> Self {
        Self { depth, settled, recent: VecDeque::new() }
    }

    /// The last block that is deep enough.
    pub(crate) const fn settled(&self) -> BlockRef {
        self.settled
    }

    /// The last block.
    pub(crate) fn tip(&self) -> BlockRef {
        self.recent.back().map_or(self.settled, |block| block.at)
    }

    /// The block of a number, if it is remembered.
    pub(crate) fn at(&self, number: u64) -> Option<BlockRef> {
        let recent = self.recent.iter().map(|block| block.at);
        recent.chain([self.settled]).find(|block| block.number == number)
    }

    /// Accepts the next block.
    ///
    /// # Errors
    /// The block itself, if it is not on top of the last one.
    pub(crate) fn extend(&mut self, block: Block<E>) -> Result<Vec<Update<E>>, Block<E>> {
        let tip = self.tip();
        if block.parent != tip.hash || block.at.number != tip.number + 1 {
            return Err(block);
        }
        let mut updates = Vec::new();
        if self.depth > 0 {
            updates.extend(block.events.iter().cloned().map(Update::Seen));
        }
        self.recent.push_back(block);
        while self.recent.len() as u64 > self.depth {
            updates.extend(self.settle_first());
        }
        Ok(updates)
    }

    /// Removes the last block; `None` if only settled ones are left.
    pub(crate) fn undo(&mut self) -> Option<Vec<Update<E>>> {
        let block = self.recent.pop_back()?;
        Some(block.events.into_iter().rev().map(Update::Undone).collect())
    }

    /// Settles all remembered blocks, and then `to`, a later one.
    pub(crate) fn settle(&mut self, to: BlockRef) -> Vec<Update<E>> {
        let mut updates = Vec::new();
        while !self.recent.is_empty() {
            updates.extend(self.settle_first());
        }
        self.settled = to;
        updates
    }

    fn settle_first(&mut self) -> Vec<Update<E>> {
        let Some(block) = self.recent.pop_front() else { return Vec::new() };
        self.settled = block.at;
        block.events.into_iter().map(Update::Settled).collect()
    }
}

#[cfg(test)]
mod tests {
    use Update::{Seen, Settled, Undone};

    use super::*;

    fn at(number: u64, fork: u8) -> BlockRef {
        BlockRef { number, hash: KeccakDigest([fork ^ number as u8; 32]) }
    }

    /// Block `number` of a fork on top of `parent`, with two events.
    fn block(number: u64, fork: u8, parent: u8) -> Block<String> {
        let events = ["a", "b"].map(|name| format!("{number}{name}/{fork}")).to_vec();
        Block { at: at(number, fork), parent: at(number - 1, parent).hash, events }
    }

    fn texts(updates: Vec<Update<String>>) -> Vec<String> {
        let text = |update| match update {
            Seen(event) => format!("+{event}"),
            Undone(event) => format!("-{event}"),
            Settled(event) => format!("={event}"),
        };
        updates.into_iter().map(text).collect()
    }

    #[test]
    fn events_are_seen_then_settled() {
        let mut track = Track::new(at(10, 0), 2);
        assert_eq!(texts(track.extend(block(11, 0, 0)).unwrap()), ["+11a/0", "+11b/0"]);
        track.extend(block(12, 0, 0)).unwrap();
        let third = texts(track.extend(block(13, 0, 0)).unwrap());
        assert_eq!(third, ["+13a/0", "+13b/0", "=11a/0", "=11b/0"]);
        assert_eq!((track.settled(), track.tip()), (at(11, 0), at(13, 0)));
        assert_eq!(track.at(12), Some(at(12, 0)));
        assert_eq!(track.at(10), None);
    }

    #[test]
    fn replaced_events_are_undone_in_reverse_and_never_settled() {
        let mut track = Track::new(at(10, 0), 3);
        for number in 11..=13 {
            track.extend(block(number, 0, 0)).unwrap();
        }
        // 12 and 13 are replaced.
        assert!(track.extend(block(14, 64, 64)).is_err());
        assert_eq!(texts(track.undo().unwrap()), ["-13b/0", "-13a/0"]);
        assert_eq!(texts(track.undo().unwrap()), ["-12b/0", "-12a/0"]);
        let mut updates = Vec::new();
        updates.extend(texts(track.extend(block(12, 64, 0)).unwrap()));
        for number in 13..=16 {
            updates.extend(texts(track.extend(block(number, 64, 64)).unwrap()));
        }
        assert!(updates.contains(&"=11a/0".to_owned()) && updates.contains(&"=12a/64".to_owned()));
        assert!(!updates.iter().any(|text| text == "=12a/0" || text == "=13a/0"), "{updates:?}");
    }

    #[test]
    fn at_depth_zero_events_settle_at_once_and_cannot_be_undone() {
        let mut track = Track::new(at(10, 0), 0);
        assert_eq!(texts(track.extend(block(11, 0, 0)).unwrap()), ["=11a/0", "=11b/0"]);
        assert!(track.undo().is_none());
    }

    #[test]
    fn a_gap_is_no_next_block() {
        let mut track = Track::new(at(10, 0), 2);
        assert!(track.extend(block(12, 0, 0)).is_err());
        track.extend(block(11, 0, 0)).unwrap();
        assert_eq!(texts(track.settle(at(40, 0))), ["=11a/0", "=11b/0"]);
        assert_eq!(track.tip(), at(40, 0));
    }
}
