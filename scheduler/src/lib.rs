//! The FHE circuits every evaluator runs bit-identically, and their cleartext twin.
//!
//! # Flow
//! 1. A worker [`encrypt`]s its free capacity as a proven list; receivers [`verify`] it.
//! 2. Evaluators [`verify_and_expand`] each list once, and [`evaluate`] the locked manifest.
//! 3. A committee member [squashes](Outputs::squash) what it evaluated itself; nothing else is
//!    ever decrypted.
//! 4. Everybody [`decode`]s the decrypted blocks into assignments.
//!
//! The rules of placement are those of [`Plan`]; [`cleartext::place`] decides by them on clear
//! capacities.
//!
//! # Determinism
//! The digest of the outputs is the same for every evaluator with the same [`circuit_id`],
//! whatever the number of threads: the order of operations on each ciphertext is fixed by the
//! plan, and threads only share out ciphertexts.
//!
//! # Failure probability
//! Every look-up is a stock one of the 2_2 parameters: 16 entries, the key switch and bootstrap of
//! the key set, and an input whose noise is a linear combination of fresh ciphertexts. The stock
//! figure (2^-137 for n = 4, 2^-129 for n = 13, by `ParameterSet::log2_p_fail` of the key
//! generation crate) is for a combination of 2-norm 5, so variance 25; each digit carries its
//! variance, and a look-up with more than 25 is refused when the circuit is written. The largest
//! that occur:
//!
//! | look-up | combination | variance |
//! |---|---|---|
//! | deduction | s + 2 b + 4 b' with s refreshed above 5 | 25 |
//! | output | selections weighted 1, 2, 3 | 25 |
//! | borrow | digit after deductions, refreshed above 23, and a borrow | 25 |
//! | comparison of levels | two maxima of log2 N rounds | 2 + 2 log2 N <= 22 |
//!
//! Where the padding bit may be set (borrows and signs) the entries are as wide as elsewhere, and
//! there is no carry out of the torus: the margin is the same. A first look-up of a list has the
//! noise of the public key and of its switch, as in tfhe's own expansion. The noise of inputs is
//! taken as independent, which tfhe assumes too; a sum of selections that share an ancestor in the
//! tournament is not quite that. One slot makes about 35 look-ups per worker and replica: a
//! million of them fail with less than 2^-109 at n = 13 if every one is at the limit. A failure is
//! a wrong placement, refused by [`decode`] if it is no candidate; it is the same for every
//! evaluator. Issue 4 replaces the common bound by a figure for each look-up, checked on generated
//! keys.

mod circuit;
pub mod cleartext;
mod evaluate;
mod fingerprint;
mod key;
mod lookup;
mod outputs;
mod plan;
mod reference_string;
mod select;
mod telemetry;
#[cfg(test)]
mod tests;

pub use evaluate::{EvaluateError, Inputs, evaluate};
pub use fingerprint::{CIRCUIT_VERSION, circuit_id};
pub use key::{EvaluationKey, KeyError};
pub use outputs::{DecodeError, Outputs, SquashError, SquashedOutputs, decode};
pub use plan::{Plan, PlanError, PublicInputs};
pub use reference_string::{Origin, ReferenceString, ReferenceStringError};
pub use telemetry::{
    EncryptedTelemetry, LAYOUT_VERSION, TelemetryListError, encrypt, verify, verify_and_expand,
};
