//! Reading events in bounded ranges: endpoints refuse ranges that are too long or hold too much.

use alloy::{
    providers::Provider,
    rpc::types::{Filter, Log},
};
use tracing::debug;

use crate::{error::ChainError, rpc::Rpc};

/// How many blocks one request asks for: half after a refusal, twice as many after an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Range {
    now: u64,
    most: u64,
}

impl Range {
    fn new(most: u64) -> Self {
        let most = most.max(1);
        Self { now: most, most }
    }

    /// After an answer.
    fn grow(&mut self) {
        self.now = self.now.saturating_mul(2).min(self.most);
    }

    /// After a refusal of `asked` blocks. Whether a request can ask for fewer.
    const fn shrink(&mut self, asked: u64) -> bool {
        self.now = if asked > 1 { asked / 2 } else { 1 };
        asked > 1
    }
}

impl Rpc {
    /// The range from the first block with events to the last block.
    pub(crate) async fn all_blocks(&self) -> Result<(u64, u64), ChainError> {
        let last = self.latest().await?.header.number;
        Ok((self.config.first_block.min(last), last))
    }

    /// All events of blocks `from` to `to`, oldest first.
    pub(crate) async fn logs(
        &self,
        what: &'static str,
        filter: &Filter,
        (from, to): (u64, u64),
    ) -> Result<Vec<Log>, ChainError> {
        let (mut start, mut range) = (from, Range::new(self.config.log_range));
        let mut logs = Vec::new();
        while start <= to {
            let end = to.min(start.saturating_add(range.now - 1));
            match self.range(what, filter, (start, end)).await {
                Ok(found) => {
                    logs.extend(found);
                    start = end + 1;
                    range.grow();
                }
                Err(error) => self.refused(error, &mut range, end - start + 1)?,
            }
        }
        Ok(logs)
    }

    /// The last event of blocks `from` to `to`, searched from the end.
    pub(crate) async fn last_log(
        &self,
        what: &'static str,
        filter: &Filter,
        (from, to): (u64, u64),
    ) -> Result<Option<Log>, ChainError> {
        let (mut end, mut range) = (to, Range::new(self.config.log_range));
        loop {
            let start = from.max((end + 1).saturating_sub(range.now));
            match self.range(what, filter, (start, end)).await {
                Ok(mut found) => {
                    if let Some(last) = found.pop() {
                        return Ok(Some(last));
                    }
                    if start <= from {
                        return Ok(None);
                    }
                    end = start - 1;
                    range.grow();
                }
                Err(error) => self.refused(error, &mut range, end - start + 1)?,
            }
        }
    }

    async fn range(
        &self,
        what: &'static str,
        filter: &Filter,
        (start, end): (u64, u64),
    ) -> Result<Vec<Log>, ChainError> {
        let filter = filter.clone().from_block(start).to_block(end);
        self.ask(what, || self.provider.get_logs(&filter)).await
    }

    /// Shrinks the range after a refusal, which may mean that the range was too long: endpoints have no
    /// common error for it.
    ///
    /// # Errors
    /// The error given, if it is not a refusal or the range cannot shrink.
    fn refused(&self, error: ChainError, range: &mut Range, asked: u64) -> Result<(), ChainError> {
        match error {
            ChainError::Rpc { what, detail } => {
                if !range.shrink(asked) {
                    return Err(ChainError::Rpc { what, detail });
                }
                debug!(what, detail, blocks = range.now, "asking for fewer blocks at once");
                Ok(())
            }
            other => Err(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_shrink_to_one_and_grow_to_the_most() {
        let mut range = Range::new(100);
        assert!(range.shrink(7));
        assert_eq!(range.now, 3);
        assert!(range.shrink(3) && !range.shrink(1));
        assert_eq!(range.now, 1);
        (0..10).for_each(|_| range.grow());
        assert_eq!(range, Range::new(100));
        assert_eq!(Range::new(0).now, 1);
    }
}
