//! Sending: one account, one counter, no gaps.
//!
//! # Flow
//! 1. Estimate: the node executes the call on its newest state. A refusal ends here, by name.
//! 2. Under the account's lock: take the next nonce, sign, hand the bytes to the node. A node that
//!    has them already says so.
//! 3. [`Outgoing`] follows the transaction until it has its confirmations, repeats it when the
//!    network forgot it, raises its fee when it is stuck, and withdraws it at the deadline.
//!
//! # Caveats
//! - A nonce that another process used for a transaction of its own leaves ours without effect: it is
//!   sent again under the next one, a few times.
//! - If it stays unclear in step 2 whether the node took the bytes, step 3 finds out.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use alloy::{
    consensus::TxEnvelope,
    eips::eip2718::Encodable2718,
    network::{EthereumWallet, NetworkTransactionBuilder, TransactionBuilder},
    primitives::B256,
    providers::{Provider, utils::Eip1559Estimation},
    rpc::types::{TransactionReceipt, TransactionRequest},
};
use tokio::sync::Mutex;
use tracing::{debug, warn};
use veil_protocol_spec::{Address, KeccakDigest};

use super::{
    AccountKey, Chain, ChainError, Mined, Refusal, connection::evm, outgoing::Outgoing, rpc::Rpc,
};

/// How many nonces are tried for a transaction.
const TRIES: usize = 4;

/// The account of a handle and its clones.
pub(super) struct Account {
    key: AccountKey,
    wallet: EthereumWallet,
    /// The next nonce, which is certain only while transactions are under way.
    next: Mutex<Option<u64>>,
    under_way: Arc<AtomicUsize>,
}

/// Counts a transaction as under way.
pub(super) struct UnderWay(Arc<AtomicUsize>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Account {
    pub(super) fn new(key: AccountKey) -> Self {
        let wallet = EthereumWallet::from(key.0.clone());
        Self { key, wallet, next: Mutex::new(None), under_way: Arc::default() }
    }

    pub(super) fn address(&self) -> Address {
        self.key.address()
    }

    /// Sends a transaction and waits for it.
    pub(super) async fn send(
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
                Err(ChainError::Displaced { nonce, .. }) if tries < TRIES => {
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

    async fn estimate(
        &self,
        rpc: &Rpc,
        what: &'static str,
        request: &TransactionRequest,
    ) -> Result<u64, ChainError> {
        let asked = rpc.ask(what, || rpc.provider.estimate_gas(request.clone()));
        asked.await.map_err(|error| self.funds(error))
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

    /// Step 2.
    async fn submit<'a>(
        &'a self,
        rpc: &'a Rpc,
        what: &'static str,
        request: TransactionRequest,
    ) -> Result<Outgoing<'a>, ChainError> {
        let fees = rpc.ask("the fees", || rpc.provider.estimate_eip1559_fees()).await?;
        let mut next = self.next.lock().await;
        let mut tries = 0;
        loop {
            tries += 1;
            // Cleared first: a caller that is cancelled in between leaves the counter uncertain.
            let certain = next.take().filter(|_| self.under_way.load(Ordering::Relaxed) > 0);
            let nonce = match certain {
                Some(nonce) => nonce,
                None => self.pending_count(rpc).await?,
            };
            let request = request.clone().with_nonce(nonce);
            let (hash, bytes) = self.sign(what, request.clone(), fees).await?;
            match broadcast(rpc, what, &bytes).await {
                Ok(()) => {}
                Err(error @ ChainError::Unreachable { .. }) => {
                    warn!(what, transaction = %hash, %error, "it is unclear whether it was taken");
                }
                Err(ChainError::Rpc { detail, .. }) if is_taken(&detail) && tries < TRIES => {
                    continue;
                }
                Err(error) => return Err(self.funds(error)),
            }
            debug!(what, transaction = %hash, nonce, "sent");
            *next = Some(nonce + 1);
            self.under_way.fetch_add(1, Ordering::Relaxed);
            let under_way = UnderWay(Arc::clone(&self.under_way));
            return Ok(Outgoing::new(
                (self, rpc, what),
                (request, nonce, fees),
                (hash, bytes),
                under_way,
            ));
        }
    }

    /// A signed transaction: its hash and its bytes.
    pub(super) async fn sign(
        &self,
        what: &'static str,
        request: TransactionRequest,
        fees: Eip1559Estimation,
    ) -> Result<(B256, Vec<u8>), ChainError> {
        let request = request
            .with_max_fee_per_gas(fees.max_fee_per_gas)
            .with_max_priority_fee_per_gas(fees.max_priority_fee_per_gas);
        let envelope: TxEnvelope = request.build(&self.wallet).await.map_err(|error| {
            ChainError::Rpc { what, detail: format!("it cannot be signed: {error}") }
        })?;
        Ok((*envelope.tx_hash(), envelope.encoded_2718()))
    }

    /// How many transactions of the account are in the chain or on their way.
    async fn pending_count(&self, rpc: &Rpc) -> Result<u64, ChainError> {
        let address = evm(self.address());
        rpc.ask("the account's transaction count", || {
            rpc.provider.get_transaction_count(address).pending()
        })
        .await
    }

    /// How many are in the chain.
    pub(super) async fn mined_count(&self, rpc: &Rpc) -> Result<u64, ChainError> {
        let address = evm(self.address());
        rpc.ask("the account's transaction count", || {
            rpc.provider.get_transaction_count(address).latest()
        })
        .await
    }

    /// Tells a lack of funds from other refusals.
    pub(super) fn funds(&self, error: ChainError) -> ChainError {
        match error {
            ChainError::Rpc { detail, .. } if is_about_funds(&detail) => {
                ChainError::Funds { account: self.address(), detail }
            }
            other => other,
        }
    }
}

/// Hands bytes to the node; the same bytes may be handed over again.
pub(super) async fn broadcast(
    rpc: &Rpc,
    what: &'static str,
    bytes: &[u8],
) -> Result<(), ChainError> {
    let sent =
        rpc.ask(what, || async { rpc.provider.send_raw_transaction(bytes).await.map(drop) }).await;
    match sent {
        Err(ChainError::Rpc { detail, .. }) if is_known(&detail) => Ok(()),
        sent => sent,
    }
}

/// Whether a node says that something else has the nonce.
pub(super) fn is_taken(detail: &str) -> bool {
    let detail = detail.to_lowercase();
    detail.contains("nonce too low") || detail.contains("replacement transaction underpriced")
}

fn is_known(detail: &str) -> bool {
    let detail = detail.to_lowercase();
    detail.contains("already known") || detail.contains("already imported")
}

fn is_about_funds(detail: &str) -> bool {
    detail.to_lowercase().contains("insufficient funds")
}

impl Chain {
    pub(super) async fn send(
        &self,
        what: &'static str,
        request: TransactionRequest,
    ) -> Result<TransactionReceipt, ChainError> {
        let account = self.account.as_ref().ok_or(ChainError::NoAccount)?;
        account.send(&self.rpc, what, request).await
    }
}

impl Mined {
    pub(super) fn from_receipt(receipt: &TransactionReceipt) -> Self {
        Self {
            transaction: KeccakDigest(receipt.transaction_hash.0),
            block: receipt.block_number.unwrap_or_default(),
            gas: receipt.gas_used,
        }
    }
}
