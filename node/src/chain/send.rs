//! Sending: one account, one counter, no gaps.
//!
//! # Flow
//! 1. Estimate: the node executes the call on its newest state. A refusal ends here, by name.
//! 2. Under the account's lock: take the next nonce, sign, hand the bytes to the node. The same
//!    bytes are repeated while nobody answers; a node that has them already says so.
//! 3. Ask for the receipt until it has the confirmations or the deadline is past.
//!
//! # Caveats
//! If it stays unclear in step 2 whether the node took the bytes, the counter is read from the node
//! again before the next transaction.

use std::time::Duration;

use alloy::{
    consensus::TxEnvelope,
    eips::eip2718::Encodable2718,
    network::{EthereumWallet, NetworkTransactionBuilder, TransactionBuilder},
    primitives::B256,
    providers::Provider,
    rpc::types::{TransactionReceipt, TransactionRequest},
};
use tokio::{
    sync::Mutex,
    time::{Instant, sleep},
};
use tracing::debug;
use veil_protocol_spec::{Address, KeccakDigest};

use super::{
    AccountKey, Chain, ChainError, Mined,
    connection::{Rpc, evm},
};

/// The account of a handle and its clones.
pub(super) struct Account {
    key: AccountKey,
    wallet: EthereumWallet,
    /// The next nonce, if it is certain.
    next: Mutex<Option<u64>>,
}

impl Account {
    pub(super) fn new(key: AccountKey) -> Self {
        let wallet = EthereumWallet::from(key.0.clone());
        Self { key, wallet, next: Mutex::new(None) }
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
        let gas = self.estimate(rpc, what, &request).await?;
        let fees = rpc.ask("the fees", || rpc.provider.estimate_eip1559_fees()).await?;
        let request = request
            // Between estimate and inclusion the state may make it dearer.
            .with_gas_limit(gas + gas / 5)
            .with_max_fee_per_gas(fees.max_fee_per_gas)
            .with_max_priority_fee_per_gas(fees.max_priority_fee_per_gas);
        let hash = self.submit(rpc, what, request).await?;
        debug!(what, transaction = %hash, "sent");
        let receipt = await_receipt(rpc, hash).await?;
        if receipt.status() {
            Ok(receipt)
        } else {
            Err(ChainError::Reverted { transaction: KeccakDigest(hash.0) })
        }
    }

    async fn estimate(
        &self,
        rpc: &Rpc,
        what: &'static str,
        request: &TransactionRequest,
    ) -> Result<u64, ChainError> {
        rpc.ask(what, || rpc.provider.estimate_gas(request.clone())).await.map_err(|error| {
            match error {
                ChainError::Rpc { detail, .. } if is_about_funds(&detail) => {
                    ChainError::Funds { account: self.address(), detail }
                }
                other => other,
            }
        })
    }

    /// Signs under the next nonce and hands the bytes to the node. A nonce that somebody else used
    /// in the meantime is read again.
    async fn submit(
        &self,
        rpc: &Rpc,
        what: &'static str,
        request: TransactionRequest,
    ) -> Result<B256, ChainError> {
        let mut next = self.next.lock().await;
        let mut tries = 0;
        loop {
            tries += 1;
            // Cleared first: a caller that is cancelled in between leaves the counter uncertain.
            let nonce = match next.take() {
                Some(nonce) => nonce,
                None => self.nonce(rpc).await?,
            };
            let request = request.clone().with_nonce(nonce);
            let envelope: TxEnvelope = request.build(&self.wallet).await.map_err(|error| {
                ChainError::Rpc { what, detail: format!("it cannot be signed: {error}") }
            })?;
            let (hash, bytes) = (*envelope.tx_hash(), envelope.encoded_2718());
            let sent = rpc
                .ask(what, || async {
                    let sent = rpc.provider.send_raw_transaction(&bytes).await;
                    sent.map(|pending| *pending.tx_hash())
                })
                .await;
            match sent {
                Ok(_) => {}
                Err(ChainError::Rpc { detail, .. }) if is_known(&detail) => {}
                Err(ChainError::Rpc { detail, .. }) if is_taken(&detail) && tries < TRIES => {
                    continue;
                }
                Err(ChainError::Rpc { detail, .. }) if is_about_funds(&detail) => {
                    return Err(ChainError::Funds { account: self.address(), detail });
                }
                Err(error) => return Err(error),
            }
            *next = Some(nonce + 1);
            return Ok(hash);
        }
    }

    async fn nonce(&self, rpc: &Rpc) -> Result<u64, ChainError> {
        let address = evm(self.address());
        rpc.ask("the account's transaction count", || {
            rpc.provider.get_transaction_count(address).pending()
        })
        .await
    }
}

/// How many nonces are tried for a transaction.
const TRIES: usize = 4;

fn is_taken(detail: &str) -> bool {
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

async fn await_receipt(rpc: &Rpc, hash: B256) -> Result<TransactionReceipt, ChainError> {
    let start = Instant::now();
    let mut pause = Duration::from_millis(10);
    loop {
        let asked = rpc.ask("a receipt", || rpc.provider.get_transaction_receipt(hash)).await;
        // While nobody answers, the deadline below decides.
        let receipt = match asked {
            Ok(receipt) => receipt,
            Err(error) if error.is_transient() => None,
            Err(error) => return Err(error),
        };
        if let Some((block, receipt)) = receipt.and_then(|r| Some((r.block_number?, r))) {
            let last = rpc.ask("the last block", || rpc.provider.get_block_number()).await?;
            if last + 1 >= block + rpc.confirmations {
                return Ok(receipt);
            }
        }
        if start.elapsed() >= rpc.deadline {
            let transaction = KeccakDigest(hash.0);
            return Err(ChainError::NotMined { transaction, seconds: rpc.deadline.as_secs() });
        }
        sleep(pause).await;
        pause = (pause * 2).min(rpc.poll);
    }
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
