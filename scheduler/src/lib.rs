//! The FHE circuits every evaluator runs bit-identically, and their cleartext twin.
//!
//! # Flow
//! 1. A worker [`encrypt`]s its reading as a proven list; receivers [`verify`] it. Operators may
//!    [encrypt requests](encrypt_request), the policy's author [weights](encrypt_weights).
//! 2. Evaluators [`verify_and_expand`] each list once, and [`evaluate`] the locked manifest.
//! 3. A committee member [squashes](Outputs::squash) what it evaluated itself; nothing else is
//!    ever decrypted.
//! 4. Everybody [`decode`]s the decrypted blocks into assignments.
//!
//! The rules of placement are those of [`Plan`]; [`cleartext::place`] decides by them on clear
//! readings.
//!
//! Apart from slots, [`auction::winner`] gives the encrypted number of the highest of encrypted bids.
//!
//! # Determinism
//! The digest of the outputs is the same for every evaluator with the same [`circuit_id`],
//! whatever the number of threads: the order of operations on each ciphertext is fixed by the
//! plan, and threads only share out ciphertexts.
//!
//! # Failure probability
//! Every look-up has entries of the stock width and an input whose noise is a linear combination of
//! fresh ciphertexts, of at most the variance that the parameters were made for (2-norm 5, so 25):
//! 2^-136 for n = 4 and 2^-129 for n = 13 or better, by `ParameterSet::log2_p_fail_at` of the key
//! generation crate. Each digit carries its variance, and a look-up with more than 25 is refused
//! when the circuit is written. [`Plan::cost`] counts the look-ups of a slot by variance before
//! anything is evaluated, and [`Ledger::log2_failure`] is the union bound over all of them.
//!
//! Packing, many-output look-ups and the use of the padding bit do not change the margin: entries
//! are as wide as elsewhere, and there is no carry out of the torus. A first look-up of a list has
//! the noise of the public key and of its switch, as in tfhe's own expansion. The noise of inputs
//! is taken as independent, which tfhe assumes too; digits that share an ancestor are not quite
//! that. A failure is a wrong placement, refused by [`decode`] if it is no candidate; it is the
//! same for every evaluator.

pub mod auction;
mod bound;
mod circuit;
pub mod cleartext;
mod evaluate;
mod expanded;
mod fingerprint;
mod fit;
mod key;
mod ledger;
mod lists;
mod lookup;
mod outputs;
mod plan;
mod reference_string;
mod rules;
mod score;
mod select;
#[cfg(test)]
mod tests;

pub use auction::EncryptedBid;
pub use evaluate::{EvaluateError, Inputs, evaluate};
pub use expanded::{
    EncryptedQuantities, EncryptedTelemetry, ExpandedWeights, verify_and_expand,
    verify_and_expand_bid, verify_and_expand_request, verify_and_expand_weights,
};
pub use fingerprint::{CIRCUIT_VERSION, circuit_id};
pub use key::{EvaluationKey, KeyError};
pub use ledger::Ledger;
pub use lists::{
    LAYOUT_VERSION, ListError, encrypt, encrypt_bid, encrypt_request, encrypt_weights, verify,
    verify_bid, verify_request, verify_weights,
};
pub use outputs::{DecodeError, Outputs, SquashError, SquashedOutputs, decode};
pub use plan::{Plan, PlanError, PublicInputs, Refusal};
pub use reference_string::{Origin, ReferenceString, ReferenceStringError};
