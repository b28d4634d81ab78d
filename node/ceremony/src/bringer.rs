//! Gets the reference string while a ceremony runs: participant 1 makes it, the others fetch it.

use std::{sync::Arc, time::Duration};

use backon::{BackoffBuilder, ExponentialBuilder};
use tokio::sync::watch;
use veil_keygen_ceremony::keyset::ParameterSet;
use veil_node_driver::Control;
use veil_protocol_spec::{PublicIdentity, publication::ReferenceString};

use crate::{
    exchange::Exchange,
    folder::AttemptFolder,
    host::ExchangeState,
    reference_string::{ReferenceStringError, ReferenceStringSource, check_origin},
};

/// Between two tries to get it: from the first pause to the longest.
const PAUSES: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(60)];

/// See the [module documentation](self).
pub(crate) struct Bringer {
    pub(crate) source: Arc<dyn ReferenceStringSource>,
    pub(crate) params: ParameterSet,
    pub(crate) folder: AttemptFolder,
    /// Participant 1; nothing if that is this member.
    pub(crate) first: Option<PublicIdentity>,
    pub(crate) exchange: Control<Exchange>,
    pub(crate) state: watch::Receiver<ExchangeState>,
}

impl Bringer {
    /// Tries until it is here, with growing pauses: whoever has it may be away for a while.
    pub(crate) async fn run(mut self, here: watch::Sender<Option<ReferenceString>>) {
        let mut pauses = ExponentialBuilder::default()
            .with_min_delay(PAUSES[0])
            .with_max_delay(PAUSES[1])
            .without_max_times()
            .with_jitter()
            .build();
        let reference = loop {
            match self.bring().await {
                Ok(Some(reference)) => break reference,
                Ok(None) => return,
                Err(error) => {
                    tracing::error!(%error, "no key can be published without it; trying again");
                    tokio::time::sleep(pauses.next().unwrap_or(PAUSES[1])).await;
                }
            }
        };
        if self.first.is_none() {
            let _ = self.exchange.with(move |exchange, _| exchange.announce(reference)).await;
        }
        here.send_replace(Some(reference));
        // The receivers are told of a string, never of its loss.
        here.closed().await;
    }

    /// Nothing if the exchange has ended.
    async fn bring(&mut self) -> Result<Option<ReferenceString>, ReferenceStringError> {
        let (origin, path) = (self.source.origin(), self.folder.reference_string());
        let reference = match self.first {
            None => {
                let made = self.source.make(&self.params, &path).await?;
                check_origin(&made, origin)?;
                made
            }
            Some(first) => {
                let Some(named) = self.named().await else { return Ok(None) };
                check_origin(&named, origin)?;
                self.source.fetch(&self.params, &named, &first, &path).await?;
                named
            }
        };
        let recorded = self.folder.name_reference_string(&reference);
        recorded.map_err(|error| ReferenceStringError(error.to_string()))?;
        Ok(Some(reference))
    }

    async fn named(&mut self) -> Option<ReferenceString> {
        // Named in a former life: whoever named it may have gone since.
        let recorded = self.folder.named_reference_string().unwrap_or_else(|error| {
            tracing::warn!(%error, "the reference string's name is asked for again");
            None
        });
        if recorded.is_some() {
            return recorded;
        }
        let _ = self.exchange.with(|exchange, now| exchange.ask_reference(now)).await;
        let named = self.state.wait_for(|state| state.reference.is_some()).await;
        named.ok().and_then(|state| state.reference)
    }
}
