//! The committee's signatures: FROST over secp256k1 with Keccak, verified on chain for about 4,000
//! gas.
//!
//! Source: FROST (eprint 2020/852, RFC 9591) as implemented by `frost-core`; ROAST (eprint
//! 2022/550); `ceremony.md`, section 6.
//!
//! # Roles
//! All n members generate the key; 2t+1 of them sign, collected by one of them. A Byzantine quorum
//! rather than t+1: two signatures for one slot then need t+1 members that signed twice.
//!
//! # Modules
//! 1. [`dkg`]: key generation, three typed steps, driven by the ceremony.
//! 2. [`keys`]: [`GroupPublicKey`], [`GroupKeyShare`], [`GroupSignature`].
//! 3. [`wire`]: messages, nonce records, evidence.
//! 4. [`session`]: what the machines of one session share; verdicts; conviction.
//! 5. [`sign`]: the machine of a signer; [`coordinator`]: the machine that collects; [`effect`]: how
//!    they end.
//! 6. [`signing`]: the machine of a member, made of these two. This is the one to run.
//!
//! The machines have no I/O ([`Machine`](veil_committee_machine::Machine)). The one exception is the
//! signers' nonces, which come from the operating system and never from a seed.
//!
//! The ciphersuite is a type parameter everywhere, [`EvmSuite`] by default.
//!
//! # Caveats
//! - Nothing here knows what a message stands for: a member authorises a digest only after it has
//!   recomputed what the digest binds.
//! - Evidence is signed over BLAKE3. Contracts that are to judge it need it restated over Keccak.
//!
//! ```
//! use rand::SeedableRng;
//! use veil_committee::frost::{EvmSuite, dkg::{Dkg, Packages}};
//! use veil_protocol_spec::Committee;
//!
//! let alone = Committee::new(1).unwrap();
//! let me = alone.participants().next().unwrap();
//! let mut rng = rand_chacha::ChaCha20Rng::seed_from_u64(7);
//! let (secret, _package) = Dkg::<EvmSuite>::start(alone, me, &mut rng).unwrap();
//! let (secret, _none) = secret.receive(&Packages::new()).unwrap();
//! let share = secret.finish(&Packages::new()).unwrap();
//! assert_eq!(share.public().verifying_key_bytes().len(), 33);
//! ```

mod certificate;
pub mod coordinator;
pub mod dkg;
pub mod effect;
pub mod keys;
pub mod session;
pub mod sign;
pub mod signing;
pub mod wire;

/// FROST(secp256k1, Keccak-256), the ciphersuite that the contracts verify.
pub use frost_secp256k1_evm::Secp256K1Keccak256 as EvmSuite;

pub use certificate::GroupVerifyingKey;
pub use coordinator::{Coordinator, Timing};
pub use dkg::{Dkg, DkgError};
pub use effect::{Completion, SessionEffect, SigningError, coordinator_at};
pub use keys::{
    GroupKeyShare, GroupPublicKey, GroupSignature, InvalidGroupSignature, KeyShareError,
};
pub use session::{Fault, SessionContext, SessionVerdict, Skip};
pub use sign::SigningSession;
pub use signing::{SigningEffect, SigningMachine, SigningSchedule};
pub use wire::{Evidence, NonceRecord, Purpose, SignedMessage, SigningContext, SigningKeyId};
