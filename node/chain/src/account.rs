//! An account that sends: its key, and the nonces of its transactions.
//!
//! # State
//! The next nonce. It counts only while transactions of this handle are in flight; otherwise the
//! account's transaction count is read from the chain, since other programs may use the account.

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
    rpc::types::TransactionRequest,
};
use tokio::sync::{Mutex, MutexGuard};
use veil_protocol_spec::Address;

use crate::{
    address::evm, broadcast::is_about_funds, error::ChainError, key::AccountKey, rpc::Rpc,
};

/// The account of a handle and its clones.
pub(crate) struct Account {
    key: AccountKey,
    wallet: EthereumWallet,
    /// The next nonce; none if it has to be read from the chain.
    next: Mutex<Option<u64>>,
    in_flight: Arc<AtomicUsize>,
}

/// A nonce that no other transaction of the handle gets while this is held. If it is dropped, the next
/// nonce is read from the chain.
pub(crate) struct Reservation<'a> {
    nonce: u64,
    next: MutexGuard<'a, Option<u64>>,
    in_flight: &'a Arc<AtomicUsize>,
}

/// Counts a transaction as in flight until it is dropped.
pub(crate) struct InFlight(Arc<AtomicUsize>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Reservation<'_> {
    pub(crate) const fn nonce(&self) -> u64 {
        self.nonce
    }

    /// A transaction under this nonce was handed to the network.
    pub(crate) fn used(mut self) -> InFlight {
        *self.next = Some(self.nonce + 1);
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        InFlight(Arc::clone(self.in_flight))
    }
}

impl Account {
    pub(crate) fn new(key: AccountKey) -> Self {
        let wallet = EthereumWallet::from(key.0.clone());
        Self { key, wallet, next: Mutex::new(None), in_flight: Arc::default() }
    }

    pub(crate) const fn key(&self) -> &AccountKey {
        &self.key
    }

    pub(crate) fn address(&self) -> Address {
        self.key.address()
    }

    /// Waits until no other transaction is being submitted, and reserves the next nonce.
    ///
    /// # Errors
    /// [`ChainError`] if the transaction count cannot be read.
    pub(crate) async fn reserve_nonce(&self, rpc: &Rpc) -> Result<Reservation<'_>, ChainError> {
        let mut next = self.next.lock().await;
        // Cleared first: a caller that is cancelled in between leaves the counter uncertain.
        let certain = next.take().filter(|_| self.in_flight.load(Ordering::Relaxed) > 0);
        let nonce = match certain {
            Some(nonce) => nonce,
            None => self.pending_count(rpc).await?,
        };
        Ok(Reservation { nonce, next, in_flight: &self.in_flight })
    }

    /// Signs a transaction; gives its hash and its bytes.
    ///
    /// # Errors
    /// [`ChainError::Rpc`] for a request that lacks a field.
    pub(crate) async fn sign(
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

    /// How many transactions of the account are in the chain or wait for it.
    async fn pending_count(&self, rpc: &Rpc) -> Result<u64, ChainError> {
        let address = evm(self.address());
        rpc.ask("the account's transaction count", || {
            rpc.provider.get_transaction_count(address).pending()
        })
        .await
    }

    /// How many transactions of the account are in the chain.
    pub(crate) async fn mined_count(&self, rpc: &Rpc) -> Result<u64, ChainError> {
        let address = evm(self.address());
        rpc.ask("the account's transaction count", || {
            rpc.provider.get_transaction_count(address).latest()
        })
        .await
    }

    /// Turns a refusal for lack of funds into [`ChainError::Funds`]; passes other errors on.
    pub(crate) fn explain(&self, error: ChainError) -> ChainError {
        match error {
            ChainError::Rpc { detail, .. } if is_about_funds(&detail) => {
                ChainError::Funds { account: self.address(), detail }
            }
            other => other,
        }
    }
}
