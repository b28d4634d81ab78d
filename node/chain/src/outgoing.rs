//! A transaction in flight, until its outcome is certain.
//!
//! # Flow
//! 1. Read the receipt of each version of it. One with enough confirmations ends the wait; after a
//!    reorganisation that removes it the wait goes on.
//! 2. While there is no receipt, ask whether the network still has it. If the network dropped it, send the
//!    same bytes again, unless another transaction has used its nonce.
//! 3. If it waits longer than configured, replace it by a version with a higher fee under the same nonce
//!    (EIP-1559: both fees rise by an eighth, or to the present price), up to the fee allowed.
//! 4. At the deadline, replace it by a transaction to the account itself. One of the two gets into the
//!    chain, and the outcome is certain.
//!
//! # Caveats
//! If in step 4 neither gets into the chain in time, the outcome stays open: [`ChainError::NotMined`].

use std::time::Duration;

use alloy::{
    network::TransactionBuilder,
    primitives::{B256, U256},
    providers::{Provider, utils::Eip1559Estimation},
    rpc::types::{TransactionReceipt, TransactionRequest},
};
use tokio::time::{Instant, sleep};
use tracing::{info, warn};
use veil_protocol_spec::KeccakDigest;

use crate::{
    account::{Account, InFlight},
    address::evm,
    broadcast::{broadcast, is_taken},
    error::ChainError,
    rpc::Rpc,
};

/// Gas of a transaction that does nothing: the intrinsic gas.
const INTRINSIC_GAS: u64 = 21_000;
/// Longest wait for a withdrawal.
const WITHDRAWAL_TIMEOUT: Duration = Duration::from_secs(30);
/// First interval between two polls; it doubles up to the configured one.
const FIRST_POLL_INTERVAL: Duration = Duration::from_millis(10);
/// Every how many polls the network is asked whether it still has the transaction.
const POLLS_PER_CHECK: u32 = 4;

/// See the [module documentation](self).
pub(crate) struct Outgoing<'a> {
    account: &'a Account,
    rpc: &'a Rpc,
    what: &'static str,
    /// The request without fees.
    request: TransactionRequest,
    nonce: u64,
    fees: Eip1559Estimation,
    /// The hashes of all versions, the newest last.
    versions: Vec<B256>,
    /// The bytes of the newest version.
    bytes: Vec<u8>,
    /// When the newest version was sent.
    since: Instant,
    /// The hash of the version that does nothing.
    withdrawal: Option<B256>,
    _in_flight: InFlight,
}

/// What the chain has of a transaction.
enum Found {
    Nothing,
    /// A receipt with too few confirmations.
    Shallow,
    Confirmed(Box<TransactionReceipt>),
}

impl<'a> Outgoing<'a> {
    pub(crate) fn new(
        (account, rpc, what): (&'a Account, &'a Rpc, &'static str),
        (request, nonce, fees): (TransactionRequest, u64, Eip1559Estimation),
        (hash, bytes): (B256, Vec<u8>),
        in_flight: InFlight,
    ) -> Self {
        Self {
            account,
            rpc,
            what,
            request,
            nonce,
            fees,
            versions: vec![hash],
            bytes,
            since: Instant::now(),
            withdrawal: None,
            _in_flight: in_flight,
        }
    }

    /// Waits for the receipt; it may be that of a revert.
    ///
    /// # Errors
    /// [`ChainError`]. `Displaced` and `Withdrawn`: certainly without effect.
    pub(crate) async fn included(mut self) -> Result<TransactionReceipt, ChainError> {
        let deadline = self.rpc.config.deadline;
        if let Some(receipt) = self.follow(deadline).await? {
            return Ok(receipt);
        }
        // Step 4.
        let transaction = self.newest();
        let seconds = deadline.as_secs();
        if let Err(error) = self.withdraw().await {
            warn!(what = self.what, %transaction, %error, "the transaction cannot be withdrawn");
        }
        match self.follow(deadline.min(WITHDRAWAL_TIMEOUT)).await? {
            Some(receipt) if Some(receipt.transaction_hash) == self.withdrawal => {
                Err(ChainError::Withdrawn { transaction, seconds })
            }
            Some(receipt) => Ok(receipt),
            None => Err(ChainError::NotMined { transaction, seconds }),
        }
    }

    fn newest(&self) -> KeccakDigest {
        KeccakDigest(self.versions.last().copied().unwrap_or_default().0)
    }

    /// Steps 1 to 3 for at most `patience`, also while no endpoint answers.
    async fn follow(
        &mut self,
        patience: Duration,
    ) -> Result<Option<TransactionReceipt>, ChainError> {
        let start = Instant::now();
        let (mut interval, mut polls) = (FIRST_POLL_INTERVAL, 0_u32);
        loop {
            polls += 1;
            match self.poll(polls.is_multiple_of(POLLS_PER_CHECK)).await {
                Ok(Some(receipt)) => return Ok(Some(receipt)),
                Ok(None) | Err(ChainError::Unreachable { .. }) => {}
                Err(error) => return Err(error),
            }
            if start.elapsed() >= patience {
                return Ok(None);
            }
            sleep(interval).await;
            interval = (interval * 2).min(self.rpc.config.poll);
        }
    }

    /// Steps 1 to 3 once. The network is asked whether it has the transaction only if `check`.
    async fn poll(&mut self, check: bool) -> Result<Option<TransactionReceipt>, ChainError> {
        match self.find().await? {
            Found::Confirmed(receipt) => return Ok(Some(*receipt)),
            Found::Shallow => {}
            Found::Nothing => self.keep_alive(check).await?,
        }
        Ok(None)
    }

    /// Step 1.
    async fn find(&self) -> Result<Found, ChainError> {
        let rpc = self.rpc;
        for hash in self.versions.iter().rev() {
            let asked =
                rpc.ask("a receipt", || rpc.provider.get_transaction_receipt(*hash)).await?;
            let Some((block, receipt)) = asked.and_then(|found| Some((found.block_number?, found)))
            else {
                continue;
            };
            let last = rpc.ask("the last block", || rpc.provider.get_block_number()).await?;
            return Ok(if last + 1 >= block + rpc.confirmations() {
                Found::Confirmed(Box::new(receipt))
            } else {
                Found::Shallow
            });
        }
        Ok(Found::Nothing)
    }

    /// Steps 2 and 3.
    async fn keep_alive(&mut self, check: bool) -> Result<(), ChainError> {
        if check {
            self.check_known().await?;
        }
        if self.since.elapsed() >= self.rpc.config.stuck_after {
            self.raise().await?;
        }
        Ok(())
    }

    async fn check_known(&mut self) -> Result<(), ChainError> {
        let rpc = self.rpc;
        let Some(newest) = self.versions.last() else { return Ok(()) };
        let known = rpc.ask("a transaction", || rpc.provider.get_transaction_by_hash(*newest));
        if known.await?.is_some() {
            return Ok(());
        }
        let transaction = self.newest();
        if self.account.mined_count(rpc).await? > self.nonce {
            // The transaction may have got there since step 1.
            return match self.find().await? {
                Found::Nothing => Err(ChainError::Displaced { transaction, nonce: self.nonce }),
                _ => Ok(()),
            };
        }
        info!(what = self.what, %transaction, "the network dropped the transaction; sending it again");
        let refused = match broadcast(rpc, self.what, &self.bytes).await {
            Ok(()) => return Ok(()),
            // The network has another version of it, or another transaction: the next poll finds out.
            Err(ChainError::Rpc { detail, .. }) if is_taken(&detail) => return Ok(()),
            Err(error) => match self.account.explain(error) {
                ChainError::Rpc { detail, .. } => detail,
                other => return Err(other),
            },
        };
        // The refusal may mean that it is too cheap by now.
        match self.raise().await {
            Ok(true) => Ok(()),
            Ok(false) | Err(ChainError::Rpc { .. }) => {
                Err(ChainError::Dropped { transaction, detail: refused })
            }
            Err(error) => Err(error),
        }
    }

    /// Step 3. Whether the fee could be raised.
    async fn raise(&mut self) -> Result<bool, ChainError> {
        self.since = Instant::now();
        let Some(fees) = self.higher_fees().await? else {
            let allowed = self.rpc.config.max_fee_per_gas;
            warn!(what = self.what, transaction = %self.newest(), allowed, "stuck, and the present price exceeds the fee allowed");
            return Ok(false);
        };
        let before = self.newest();
        self.replace(self.request.clone(), fees).await?;
        info!(what = self.what, %before, now = %self.newest(), max_fee = fees.max_fee_per_gas, "stuck; raised its fee");
        Ok(true)
    }

    /// Step 4.
    async fn withdraw(&mut self) -> Result<(), ChainError> {
        let Some(fees) = self.higher_fees().await? else { return Ok(()) };
        let own = evm(self.account.address());
        let nothing = TransactionRequest::default()
            .with_from(own)
            .with_to(own)
            .with_value(U256::ZERO)
            .with_chain_id(self.rpc.chain_id.0)
            .with_nonce(self.nonce)
            .with_gas_limit(INTRINSIC_GAS);
        self.replace(nothing.clone(), fees).await?;
        self.withdrawal = self.versions.last().copied();
        // From now on step 3 raises the fee of the withdrawal.
        self.request = nothing;
        Ok(())
    }

    async fn replace(
        &mut self,
        request: TransactionRequest,
        fees: Eip1559Estimation,
    ) -> Result<(), ChainError> {
        let (hash, bytes) = self.account.sign(self.what, request, fees).await?;
        match broadcast(self.rpc, self.what, &bytes).await {
            // A version was mined meanwhile, or the raise was too small: the next poll finds out.
            Err(ChainError::Rpc { detail, .. }) if is_taken(&detail) => return Ok(()),
            sent => sent.map_err(|error| self.account.explain(error))?,
        }
        (self.fees, self.bytes, self.since) = (fees, bytes, Instant::now());
        self.versions.push(hash);
        Ok(())
    }

    /// Fees high enough for a replacement, if they are allowed.
    async fn higher_fees(&self) -> Result<Option<Eip1559Estimation>, ChainError> {
        let rpc = self.rpc;
        let now = rpc.ask("the fees", || rpc.provider.estimate_eip1559_fees()).await?;
        let fees = raised(self.fees, now);
        Ok((fees.max_fee_per_gas <= rpc.config.max_fee_per_gas).then_some(fees))
    }
}

/// An eighth more, or the present price: nodes accept a replacement from a tenth more on.
fn raised(before: Eip1559Estimation, now: Eip1559Estimation) -> Eip1559Estimation {
    let more = |fee: u128| fee + fee / 8 + 1;
    let max_priority_fee_per_gas =
        more(before.max_priority_fee_per_gas).max(now.max_priority_fee_per_gas);
    Eip1559Estimation {
        max_fee_per_gas: more(before.max_fee_per_gas)
            .max(now.max_fee_per_gas)
            .max(max_priority_fee_per_gas),
        max_priority_fee_per_gas,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_raise_is_enough_for_a_replacement_and_for_the_present_price() {
        let fees = |max_fee_per_gas, max_priority_fee_per_gas| Eip1559Estimation {
            max_fee_per_gas,
            max_priority_fee_per_gas,
        };
        let shown = |f: Eip1559Estimation| (f.max_fee_per_gas, f.max_priority_fee_per_gas);
        assert_eq!(shown(raised(fees(800, 80), fees(500, 50))), (901, 91));
        assert_eq!(shown(raised(fees(800, 80), fees(5000, 50))), (5000, 91));
        assert_eq!(shown(raised(fees(0, 0), fees(0, 7))), (7, 7));
    }
}
