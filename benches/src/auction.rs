//! The winner of encrypted bids of 16 bits, by the circuit and by the stock API.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha20Rng;
use serde::Serialize;
use tfhe::{
    get_pbs_count, integer::ciphertext::IntegerCiphertext as _, reset_pbs_count, set_server_key,
    unset_server_key,
};
use veil_node_process::Stopwatch;
use veil_protocol_spec::{Address, Blake3Digest, scheduling::ProofMetadata};
use veil_scheduler::{
    EncryptedBid, auction, circuit_id, encrypt_bid, verify_and_expand_bid, verify_bid,
};
use veil_scheduler_plan::cleartext;

use crate::{
    baseline::{self, MAX_NODES},
    cluster::binding,
    failure::Failure,
    inputs::{ListFigures, Lists},
    keys::Keys,
    placement::{Bench, StockFigures},
};

/// Different lists; with more bids they repeat, since proving is not what is measured.
const LISTS: usize = 8;

/// An auction by the circuit.
#[derive(Clone, Debug, Serialize)]
pub struct AuctionFigures {
    /// One bid.
    pub bid: ListFigures,
    /// Look-ups, without those that expand bids.
    pub pbs: u64,
    /// Look-ups for each bid.
    pub pbs_per_bid: f64,
    /// Most look-ups one after the other.
    pub depth: u32,
    /// Wall seconds of the decision.
    pub seconds: f64,
    /// Core-seconds of the decision.
    pub core_seconds: f64,
    /// Blocks that the committee decrypts.
    pub squashed_blocks: usize,
    /// The digest that evaluators compare.
    pub output_digest: Blake3Digest,
    /// Whether the decrypted winner is that of the cleartext twin.
    pub agrees_with_twin: bool,
}

/// `different` random bids, repeating.
fn bids(count: u16, different: usize) -> Vec<u16> {
    let mut rng = ChaCha20Rng::seed_from_u64(2);
    let drawn: Vec<u16> = (0..different).map(|_| rng.r#gen()).collect();
    drawn.into_iter().cycle().take(count.into()).collect()
}

/// The highest of random bids and its number, by the stock API. The server key of `keys` is in use
/// on this thread meanwhile.
///
/// # Errors
/// If there are more bids than the baseline can number, or tfhe fails.
pub fn run_stock_bids(count: u16, keys: &Keys) -> Result<StockFigures, Failure> {
    if usize::from(count) > MAX_NODES {
        return Err(format!("the baseline numbers {MAX_NODES} bids").into());
    }
    set_server_key(keys.server_key.clone());
    let result = stock_bids(&bids(count, count.into()), keys);
    unset_server_key();
    result
}

fn stock_bids(clear: &[u16], keys: &Keys) -> Result<StockFigures, Failure> {
    let bids = baseline::encrypt_bids(clear, &keys.public_key)?;
    reset_pbs_count();
    let watch = Stopwatch::start();
    let (highest, winner) = baseline::highest_bid(&bids);
    let (seconds, core_seconds, pbs) = (watch.wall(), watch.cpu(), get_pbs_count());
    let (highest, ..) = highest.into_raw_parts();
    let (winner, ..) = winner.into_raw_parts();
    let decrypt = |blocks| keys.decrypt_integer(blocks);
    let found = (decrypt(highest.blocks()) as u16, decrypt(winner.blocks()) as usize);
    Ok(StockFigures {
        pbs,
        pbs_per_node_job: pbs as f64 / clear.len().max(1) as f64,
        seconds,
        core_seconds,
        agrees_with_twin: found == baseline::clear::highest_bid(clear),
    })
}

impl Bench<'_> {
    /// Encrypts, verifies and expands different bids, with what one took.
    fn expanded_bids(&self, clear: &[u16]) -> Result<(Vec<EncryptedBid>, ListFigures), Failure> {
        let binding = binding();
        let metadata = |number: usize| {
            let bidder = Address([number as u8; 20]);
            ProofMetadata::for_bid(&binding.scope, &binding.key_set, &bidder, 1)
        };
        let (key, string) = (self.public_key, self.string);
        let Lists { expanded, figures, .. } = self.kept.lists(
            self.string,
            "bid",
            clear.len(),
            |number| encrypt_bid(clear[number], key, string, &metadata(number)),
            |number, list| verify_bid(list, &metadata(number), key, string),
            |number, list| verify_and_expand_bid(list, &metadata(number), string, self.key),
        )?;
        Ok((expanded, figures))
    }

    /// Random bids, expanded.
    ///
    /// # Errors
    /// The error of the first step that fails.
    pub fn prepare_bids(&self, count: u16) -> Result<Vec<EncryptedBid>, Failure> {
        Ok(self.expanded_bids(&bids(count, count.into()))?.0)
    }

    /// Encrypts and expands random bids, finds the winner, decrypts and compares.
    ///
    /// # Errors
    /// The error of the first step that fails.
    pub fn run_bids(&self, count: u16) -> Result<AuctionFigures, Failure> {
        let different = LISTS.min(count.into());
        let clear = bids(count, different);
        let (expanded, bid) = self.expanded_bids(&clear[..different])?;
        let bids: Vec<&EncryptedBid> = expanded.iter().cycle().take(count.into()).collect();
        let watch = Stopwatch::start();
        let (outputs, output_digest) = auction::winner(&circuit_id().fingerprint, &bids, self.key)?;
        let (seconds, core_seconds) = (watch.wall(), watch.cpu());
        let squashed = outputs.squash(self.key)?;
        let found = auction::decode(&self.decrypt(&squashed), bids.len());
        let pbs = outputs.cost().look_ups();
        Ok(AuctionFigures {
            bid,
            pbs,
            pbs_per_bid: pbs as f64 / f64::from(count),
            depth: outputs.cost().depth(),
            seconds,
            core_seconds,
            squashed_blocks: outputs.len(),
            output_digest,
            agrees_with_twin: found.ok() == cleartext::best_bid(&clear),
        })
    }
}
