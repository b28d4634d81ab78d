//! The circuits on ciphertexts, which every evaluator runs bit for bit alike.
//!
//! # Roles
//! Workers, operators and the policy's author encrypt; relays verify; committee members, and the
//! workers drawn as auditors, evaluate. The committee decrypts what it evaluated itself.
//!
//! # Flow
//! 1. A worker [`encrypt`]s its reading as a proven list; receivers [`verify`] it. Operators may
//!    [encrypt requests](encrypt_request), the policy's author [weights](encrypt_weights).
//! 2. Evaluators [`verify_and_expand`] each list once, and [`evaluate`] the locked manifest: they
//!    run the circuit of [`veil_scheduler_plan`] under their [`EvaluationKey`].
//! 3. A committee member [squashes](Outputs::squash) what it evaluated itself; nothing else is
//!    ever decrypted.
//! 4. Everybody [decodes](veil_scheduler_plan::outcome::decode) the decrypted digits into
//!    assignments.
//!
//! [`threshold`] is the circuit that asks about one replica at a time and is told what was opened: it takes a
//! third of the look-ups. Which of the two a slot is evaluated under its manifest says, as the cluster's policy wants
//! it, and [`slot`] evaluates either.
//!
//! Apart from slots, [`auction::winner`] gives the encrypted number of the highest of encrypted
//! bids.
//!
//! # State and restart
//! None: an evaluation that was interrupted starts again from the manifest and gives the same bits.
//!
//! # Determinism
//! The digest of the outputs is the same for every evaluator with the same [`circuit_id`],
//! whatever the number of threads: the order of operations on each ciphertext is fixed by the
//! plan, and threads only share out ciphertexts.
//!
//! # Failure probability
//! Stated in [`veil_scheduler_plan`], which counts the look-ups before anything is evaluated. The
//! first look-up of a list's expansion has the noise of the public key and of its switch.

pub mod auction;
mod encrypted;
mod evaluate;
mod expanded;
mod fingerprint;
mod key;
mod lists;
mod outputs;
mod public_key;
pub mod slot;
#[cfg(test)]
mod tests;
pub mod threshold;

pub use auction::EncryptedBid;
pub use evaluate::{EvaluateError, Inputs, evaluate};
pub use expanded::{
    EncryptedQuantities, EncryptedTelemetry, ExpandedWeights, verify_and_expand,
    verify_and_expand_bid, verify_and_expand_request, verify_and_expand_weights,
};
pub use fingerprint::{
    CIRCUIT_VERSION, THRESHOLD_CIRCUIT_VERSION, circuit_id, threshold_circuit_id,
};
pub use key::{Cancellation, EvaluationKey, KeyError};
pub use lists::{
    LAYOUT_VERSION, ListError, encrypt, encrypt_bid, encrypt_request, encrypt_weights,
    request_agrees, verify, verify_bid, verify_request, verify_weights,
};
pub use outputs::{Outputs, SquashError, SquashedOutputs};
pub use public_key::{InvalidPublicKey, read_public_key, write_public_key};
pub use veil_reference_string::{ReferenceString, ReferenceStringError};
