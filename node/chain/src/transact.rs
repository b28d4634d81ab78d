//! Sending a transaction and waiting for it.
//!
//! # Flow
//! 1. Estimate: the node executes the call on its newest state. A refusal ends here, by name.
//! 2. Reserve the account's next nonce, sign, hand the bytes to the node. A node that has them already
//!    says so.
//! 3. [`Outgoing`] follows the transaction until it has its confirmations: it sends it again when the
//!    network dropped it, raises its fee when it is stuck, and withdraws it at the deadline.
//!
//! # Caveats
//! - A nonce that another process used for a transaction of its own leaves ours without effect: it is
//!   sent again under the next one, [`MAX_NONCES`] times.
//! - If it stays unclear in step 2 whether the node accepted the bytes, step 3 finds out.

use alloy::{
    network::TransactionBuilder,
    primitives::Bytes,
    providers::{Provider, utils::Eip1559Estimation},
    rpc::types::{TransactionReceipt, TransactionRequest},
};
use async_recursion::async_recursion as boxed;
use tracing::{debug, warn};
use veil_node_chain_refusal::Refusal;
use veil_protocol_spec::KeccakDigest;

use crate::{
    account::Account,
    address::evm,
    broadcast::{broadcast, is_taken},
    connection::Chain,
    error::ChainError,
    outgoing::Outgoing,
    rpc::Rpc,
    types::Mined,
};

/// How many nonces are tried for a transaction.
const MAX_NONCES: usize = 4;

impl Account {
    /// Sends a transaction and waits for its confirmations. `what` names it in errors.
    ///
    /// # Errors
    /// [`ChainError`].
    pub(crate) async fn send(
        &self,
        rpc: &Rpc,
        what: &'static str,
        request: TransactionRequest,
    ) -> Result<TransactionReceipt, ChainError> {
        let request = request.with_from(evm(self.address())).with_chain_id(rpc.chain_id.0);
        let mut tries = 0;
        let receipt = loop {
            tries += 1;
            let gas = self.estimate(rpc, what, &request).await?;
            // Between estimate and inclusion the state may make it dearer.
            let request = request.clone().with_gas_limit(gas + gas / 5);
            match self.submit(rpc, what, request).await?.included().await {
                Err(ChainError::Displaced { nonce, .. }) if tries < MAX_NONCES => {
                    debug!(what, nonce, "another transaction has this nonce; sending again");
                }
                ended => break ended?,
            }
        };
        if receipt.status() {
            return Ok(receipt);
        }
        let transaction = KeccakDigest(receipt.transaction_hash.0);
        let reason = self.reason(rpc, request, &receipt).await.map(Box::new);
        Err(ChainError::Reverted { transaction, reason })
    }

    /// Step 1.
    async fn estimate(
        &self,
        rpc: &Rpc,
        what: &'static str,
        request: &TransactionRequest,
    ) -> Result<u64, ChainError> {
        let asked = rpc.ask(what, || rpc.provider.estimate_gas(request.clone()));
        asked.await.map_err(|error| self.explain(error))
    }

    /// Step 2.
    async fn submit<'a>(
        &'a self,
        rpc: &'a Rpc,
        what: &'static str,
        request: TransactionRequest,
    ) -> Result<Outgoing<'a>, ChainError> {
        let fees = rpc.ask("the fees", || rpc.provider.estimate_eip1559_fees()).await?;
        let fees = allowed(fees, rpc.config.max_fee_per_gas)?;
        let mut tries = 0;
        loop {
            tries += 1;
            let reserved = self.reserve_nonce(rpc).await?;
            let nonce = reserved.nonce();
            let request = request.clone().with_nonce(nonce);
            let (hash, bytes) = self.sign(what, request.clone(), fees).await?;
            match broadcast(rpc, what, &bytes).await {
                Ok(()) => {}
                Err(error @ ChainError::Unreachable { .. }) => {
                    warn!(what, transaction = %hash, %error, "the node may or may not have accepted it");
                }
                Err(ChainError::Rpc { detail, .. }) if is_taken(&detail) && tries < MAX_NONCES => {
                    continue;
                }
                Err(error) => return Err(self.explain(error)),
            }
            debug!(what, transaction = %hash, nonce, "sent");
            return Ok(Outgoing::new(
                (self, rpc, what),
                (request, nonce, fees),
                (hash, bytes),
                reserved.used(),
            ));
        }
    }

    /// Why a transaction had no effect, by repeating its call on the state that it left.
    async fn reason(
        &self,
        rpc: &Rpc,
        request: TransactionRequest,
        receipt: &TransactionReceipt,
    ) -> Option<Refusal> {
        let block = receipt.block_number?.into();
        let asked = rpc.ask("a reason", || rpc.provider.call(request.clone()).block(block));
        match asked.await {
            Err(ChainError::Refused(refusal)) => Some(refusal),
            _ => None,
        }
    }
}

impl Chain {
    /// Sends a transaction by the handle's account and waits for its confirmations.
    ///
    /// # Errors
    /// [`ChainError`]; `NoAccount` if the handle has none, `Unsigned` if it writes down what others sign.
    pub(crate) async fn send(
        &self,
        what: &'static str,
        request: TransactionRequest,
    ) -> Result<TransactionReceipt, ChainError> {
        if let Some(draft) = self.rpc.config.draft {
            return Err(self.rpc.write_down(draft, what, request).await);
        }
        let account = self.account.as_ref().ok_or(ChainError::NoAccount)?;
        account.send(&self.rpc, what, request).await
    }

    /// What a contract of the set answers to a call that changes nothing.
    ///
    /// # Errors
    /// [`ChainError`].
    #[boxed]
    pub async fn view(
        &self,
        what: &'static str,
        request: TransactionRequest,
    ) -> Result<Bytes, ChainError> {
        let call = || self.rpc.provider.call(request.clone()).block(self.rpc.at);
        self.rpc.ask(what, call).await
    }

    /// Sends a transaction by the handle's account and waits for its confirmations; its events are not needed.
    ///
    /// # Errors
    /// [`ChainError`]; `NoAccount` if the handle has none.
    #[boxed]
    pub async fn transact(
        &self,
        what: &'static str,
        request: TransactionRequest,
    ) -> Result<Mined, ChainError> {
        let receipt = self.send(what, request).await?;
        Ok(Mined {
            transaction: KeccakDigest(receipt.transaction_hash.0),
            block: receipt.block_number.unwrap_or_default(),
            gas: receipt.gas_used,
        })
    }
}

/// Fees that are no more than what is allowed: less than is estimated to be enough for some blocks to come, as long as
/// it is enough for the next one.
fn allowed(fees: Eip1559Estimation, most: u128) -> Result<Eip1559Estimation, ChainError> {
    let Eip1559Estimation { max_fee_per_gas, max_priority_fee_per_gas: tip } = fees;
    // The estimate is twice the base fee, and the tip.
    let price = (max_fee_per_gas.saturating_sub(tip) / 2).saturating_add(tip);
    if price > most {
        let [price, allowed] = [price, most].map(|fee| u64::try_from(fee).unwrap_or(u64::MAX));
        return Err(ChainError::Fee { price, allowed });
    }
    Ok(Eip1559Estimation { max_fee_per_gas: max_fee_per_gas.min(most), ..fees })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_fee_exceeds_what_is_allowed() {
        let fees = |max_fee_per_gas, max_priority_fee_per_gas| Eip1559Estimation {
            max_fee_per_gas,
            max_priority_fee_per_gas,
        };
        // A base fee of 40 and a tip of 2.
        for (most, sent) in
            [(100, Some(82)), (82, Some(82)), (60, Some(60)), (42, Some(42)), (41, None)]
        {
            match (allowed(fees(82, 2), most), sent) {
                (Ok(found), Some(sent)) => {
                    assert_eq!((found.max_fee_per_gas, found.max_priority_fee_per_gas), (sent, 2));
                }
                (Err(ChainError::Fee { price: 42, allowed }), None) => {
                    assert_eq!(u128::from(allowed), most);
                }
                (found, _) => panic!("{most}: {found:?}"),
            }
        }
    }
}
