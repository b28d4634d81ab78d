//! Handing signed transactions to the network. What a node says against them is text without a standard:
//! the words of the common nodes are here.

use alloy::providers::Provider;

use crate::{error::ChainError, rpc::Rpc};

/// Hands a transaction's bytes to the node; the same bytes may be handed over again.
///
/// # Errors
/// [`ChainError`]; an `Rpc` error for which [`is_taken`] holds if another transaction has the nonce.
pub(crate) async fn broadcast(
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

/// Whether a node says that another transaction has the nonce.
pub(crate) fn is_taken(detail: &str) -> bool {
    says(
        detail,
        &[
            "nonce too low",                       // geth, Erigon, Reth, Besu
            "oldnonce",                            // Nethermind
            "replacement transaction underpriced", // geth, Erigon, Reth
            "replacementnotallowed",               // Nethermind
            "gas price bump too low",              // Besu
        ],
    )
}

/// Whether a node says that it has these bytes.
fn is_known(detail: &str) -> bool {
    // geth and Reth, Nethermind, Besu, OpenEthereum.
    says(detail, &["already known", "alreadyknown", "known transaction", "already imported"])
}

/// Whether it says that the account has too little.
pub(crate) fn is_about_funds(detail: &str) -> bool {
    // geth and others, Nethermind, Besu.
    says(
        detail,
        &["insufficient funds", "insufficientfunds", "upfront cost exceeds account balance"],
    )
}

fn says(detail: &str, words: &[&str]) -> bool {
    let detail = detail.to_lowercase();
    words.iter().any(|word| detail.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_say_the_same_in_their_own_words() {
        for (is, words) in [
            (
                is_known as fn(&str) -> bool,
                &["already known", "AlreadyKnown", "Known transaction"][..],
            ),
            (is_taken, &["nonce too low", "OldNonce, Current nonce: 1, nonce of rejected tx: 0"]),
            (is_taken, &["ReplacementNotAllowed", "Transaction gas price bump too low"]),
            (is_about_funds, &["insufficient funds for gas * price + value"]),
            (is_about_funds, &["Upfront cost exceeds account balance"]),
            (is_about_funds, &["InsufficientFunds, Account balance: 0"]),
        ] {
            for word in words {
                assert!(is(word), "{word}");
                let held = [is_known as fn(&str) -> bool, is_taken, is_about_funds];
                assert_eq!(held.iter().filter(|is| is(word)).count(), 1, "{word}");
            }
        }
        assert!(!is_known("unknown block") && !is_taken("nonce too high"));
    }
}
