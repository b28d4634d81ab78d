//! Transactions that others sign: a Safe's owners, a machine that keeps its key off the network.
//!
//! # Flow
//! 1. A handle that was made with a [`Draft`] has no account. Where another one would send, it writes the
//!    transaction down, once the contracts take it from the account that it is for, if one is named.
//! 2. What was asked for ends there, with [`ChainError::Unsigned`]: nothing after it may read what is not so yet.

use alloy::{network::TransactionBuilder, providers::Provider, rpc::types::TransactionRequest};

use crate::{
    address::{address, evm},
    batch::{Draft, UnsignedBatch, UnsignedCall},
    broadcast::is_about_funds,
    error::ChainError,
    rpc::Rpc,
};

impl Rpc {
    /// Writes a transaction down; gives [`ChainError::Unsigned`], or why the contracts would refuse it.
    pub(crate) async fn write_down(
        &self,
        draft: Draft,
        what: &'static str,
        request: TransactionRequest,
    ) -> ChainError {
        if let Some(from) = draft.from {
            let asked = request.clone().with_from(evm(from));
            match self.ask(what, || self.provider.estimate_gas(asked.clone())).await {
                Err(ChainError::Rpc { detail, .. }) if is_about_funds(&detail) => {
                    return ChainError::Funds { account: from, detail };
                }
                Err(error) => return error,
                Ok(_) => {}
            }
        }
        let Some(to) = request.to.and_then(|to| to.to().copied()) else {
            return ChainError::Unexpected("a transaction to nobody");
        };
        let call = UnsignedCall {
            what,
            to: address(to),
            value: request.value.unwrap_or_default(),
            data: request.input.input().map(|data| data.to_vec()).unwrap_or_default(),
        };
        self.unsigned(draft, vec![call], 0).await
    }

    /// Transactions that are asked for together.
    pub(crate) async fn unsigned(
        &self,
        draft: Draft,
        calls: Vec<UnsignedCall>,
        left: usize,
    ) -> ChainError {
        let created = match self.latest().await {
            Ok(block) => block.header.timestamp,
            Err(error) => return error,
        };
        let (chain_id, from) = (self.chain_id, draft.from);
        ChainError::Unsigned(Box::new(UnsignedBatch { chain_id, from, created, calls, left }))
    }
}
