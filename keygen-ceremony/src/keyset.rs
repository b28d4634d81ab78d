//! The public key material as tfhe consumes it: which words it is made of, in which order, under
//! which parameters, and how opened words become a `tfhe` key set.
//!
//! Sources: the threshold key generation of eprint 2025/699 (section 7 and appendix B) and the
//! generation order at the top of `high_level_api/xof_key_set/mod.rs` in tfhe 1.8.2. Section
//! numbers in this module refer to `ceremony.md`.
//!
//! Flow, from parameters to a key set:
//!
//! 1. [`ParameterSet`] names everything public about the keys, and the noise of each component.
//! 2. [`Layout`] lists the sections of the key set in mask-stream order; a row of a section is
//!    `<mask, key> + gadget + noise`, and [`Section::gadget`] says which gadget.
//! 3. [`MaskStream`] expands the public seed into the masks, at any position.
//! 4. The ceremony (or [`mod@reference`], in tests) computes the bodies and fills [`Bodies`].
//! 5. [`assemble`] moves them into a `tfhe::xof_key_set::CompressedXofKeySet`, whose
//!    [`keyset_digest`] goes on chain; [`write_key_set`] and [`read_key_set`] store it.
//! 6. [`squashed_blocks`] takes apart the ciphertexts that the committee decrypts.
//!
//! ```
//! use veil_keygen_ceremony::keyset::{Layout, ParameterSet, assemble, keyset_digest, reference};
//!
//! let params = ParameterSet::insecure_test();
//! let layout = Layout::of(&params);
//! let keys = reference::ClearKeys::random(&layout, &mut rand::rngs::OsRng);
//! let bodies = reference::bodies(&params, &layout, &[1; 32], &keys, &[2; 32]);
//! let key_set = assemble(&params, [1; 32], bodies)?;
//! println!("{} bodies, digest {}", layout.body_bytes(), keyset_digest(&key_set));
//! # Ok::<(), veil_keygen_ceremony::keyset::AssembleError>(())
//! ```

mod assemble;
mod layout;
mod mask;
pub mod noise;
mod parameters;
pub mod reference;
mod squashed;
mod store;

pub use assemble::{AssembleError, Bodies, SectionBody, assemble};
pub use layout::{Gadget, KeyName, Layout, Section, SectionKind, Width};
pub use mask::{MaskStream, PUBLIC_SEPARATOR, public_xof_seed};
pub use parameters::{Component, NoiseFamily, ParameterSet, UnknownParameters};
pub use squashed::{DecodeError, SquashedNoise, decode_block, decode_blocks, squashed_blocks};
pub use store::{
    KeySetError, key_set_size_limit, keyset_digest, read_key_set, read_key_set_with_digest,
    write_key_set,
};
