//! Proven compact lists: what workers, operators and the policy's author encrypt, and its
//! expansion.
//!
//! # Layout, version 2
//! Messages of 4 bits; every list of the right length is a valid one, so no value can be out of
//! range once the proof holds (what a digit means beyond its range is fixed by [`Kind::table`]).
//!
//! | list | messages |
//! |---|---|
//! | telemetry | CPU, memory, disk, GPU: low and high digit each; latency class + 4 * price class; own priority |
//! | request | CPU, memory, disk, GPU: low and high digit each |
//! | weights | of price; of latency |
//! | bid | 4 digits, least significant first |
//!
//! High digits beyond 11 count as 11 (a quantity is at most 191), priorities beyond 3 as 3, weights
//! beyond 2 as 2. Version and kind are the last two bytes of the metadata that the proof binds
//! (after [`ProofMetadata::as_bytes`]): a list of another version or kind does not verify. All of
//! it is always there, whatever the circuit of the day uses: a list that left some out would have
//! another format, and would cost as much, since the work of a proof is in the dimension of the
//! key.
//!
//! # Flow
//! 1. Whoever encrypts calls [`encrypt`], [`encrypt_request`] or [`encrypt_weights`].
//! 2. A receiver verifies before it relays or stores: [`verify`], [`verify_request`],
//!    [`verify_weights`].
//! 3. An evaluator expands, once per message: CPU and memory are switched to the evaluation key and
//!    bootstrapped there, and split as the selection needs them, 8 look-ups in all, before the
//!    manifest is known; disk, GPU and the classes when a job asks for them.

use core::fmt;

use serde::{Deserialize, Serialize};
use tfhe::{
    Versionize,
    conformance::ParameterSetConformant,
    named::Named,
    safe_serialization::{safe_deserialize_conformant, safe_serialize},
    shortint::{
        self,
        ciphertext::{
            CompactCiphertextList, ProvenCompactCiphertextList,
            ProvenCompactCiphertextListConformanceParams,
        },
        parameters::ShortintCompactCiphertextListCastingMode,
    },
    zk::{CompactPkeProofConformanceParams, ZkComputeLoad, ZkVerificationOutcome},
};
use tfhe_versionable::VersionsDispatch;
use veil_protocol_spec::{
    Blake3Digest,
    scheduling::{ProofMetadata, ProvenList, Quantities, Reading, Weights},
};

use crate::{
    auction::EncryptedBid,
    circuit::SPLIT,
    fit::RequestDigits,
    key::EvaluationKey,
    lookup::{Circuit, Digit},
    reference_string::ReferenceString,
    rules::RESOURCES,
    score::{MAX_HIGH, View},
};

/// Version of the layout above.
pub const LAYOUT_VERSION: u8 = 2;
/// Positions of what follows the quantities in telemetry.
const CLASSES: usize = 2 * RESOURCES;
const PRIORITY: usize = CLASSES + 1;

/// What a list is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Telemetry = 0,
    Request = 1,
    Weights = 2,
    Bid = 3,
}

impl Kind {
    const fn messages(self) -> usize {
        match self {
            Self::Telemetry => PRIORITY + 1,
            Self::Request => 2 * RESOURCES,
            Self::Weights => 2,
            Self::Bid => 4,
        }
    }

    /// What a message means for the circuit.
    fn table(self, position: usize) -> fn(u64) -> u64 {
        match (self, position) {
            (Self::Telemetry, PRIORITY) => |x| x.min(3),
            (Self::Bid, _) => |x| x,
            (Self::Telemetry | Self::Request, _) if position % 2 == 1 => |x| x.min(MAX_HIGH as u64),
            (Self::Weights, _) => |x| x.min(2),
            _ => |x| x,
        }
    }
}

/// Low and high digit of each quantity.
fn digits(quantities: &Quantities) -> Vec<u64> {
    let of_one = |units: u8| [u64::from(units & 0xf), u64::from(units >> 4)];
    quantities.to_array().into_iter().flat_map(of_one).collect()
}

fn messages_of(reading: &Reading) -> Vec<u64> {
    let mut messages = digits(&reading.free);
    messages.push(u64::from(reading.latency.get() + 4 * reading.price.get()));
    messages.push(u64::from(reading.priority.get()));
    messages
}

#[derive(VersionsDispatch)]
#[allow(dead_code, reason = "tfhe-versionable reads the variants, nothing here does")]
enum ListVersions {
    V0(List),
}

/// tfhe's proven list under a name and a version of its own.
#[derive(Serialize, Deserialize, Versionize)]
#[versionize(ListVersions)]
struct List(ProvenCompactCiphertextList);

impl Named for List {
    const NAME: &'static str = "veil::ProvenList";
}

impl ParameterSetConformant for List {
    type ParameterSet = ProvenCompactCiphertextListConformanceParams;

    fn is_conformant(&self, shape: &Self::ParameterSet) -> bool {
        self.0.is_conformant(shape)
    }
}

/// Why a list cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ListError {
    /// tfhe did not encrypt.
    #[error("the list cannot be encrypted: {0}")]
    Encrypt(String),
    /// Truncated, no list of the layout, or made for other parameters.
    #[error("the list is malformed or made for other parameters: {0}")]
    Malformed(String),
    /// Forged, copied, replayed, or proven for another purpose, key, string or layout.
    #[error("the proof does not hold for this purpose, sender, number and key")]
    Proof,
    /// tfhe did not expand a list whose proof holds.
    #[error("the list cannot be expanded: {0}")]
    Expand(String),
}

fn metadata_bytes(metadata: &ProofMetadata, kind: Kind) -> Vec<u8> {
    [&metadata.as_bytes()[..], &[LAYOUT_VERSION, kind as u8]].concat()
}

/// Encrypts a worker's reading and proves the list well-formed.
///
/// # Errors
/// [`ListError::Encrypt`] if key and reference string do not fit each other.
pub fn encrypt(
    reading: &Reading,
    public_key: &tfhe::CompactPublicKey,
    reference_string: &ReferenceString,
    metadata: &ProofMetadata,
) -> Result<ProvenList, ListError> {
    seal(Kind::Telemetry, &messages_of(reading), public_key, reference_string, metadata)
}

/// Encrypts what a job asks for, in quantities of the cluster's scale. `metadata` is that of
/// [`ProofMetadata::for_request`].
///
/// # Errors
/// [`ListError::Encrypt`] if key and reference string do not fit each other.
pub fn encrypt_request(
    request: &Quantities,
    public_key: &tfhe::CompactPublicKey,
    reference_string: &ReferenceString,
    metadata: &ProofMetadata,
) -> Result<ProvenList, ListError> {
    seal(Kind::Request, &digits(request), public_key, reference_string, metadata)
}

/// Encrypts the weights of `cost`. `metadata` is that of [`ProofMetadata::for_weights`].
///
/// # Errors
/// [`ListError::Encrypt`] if key and reference string do not fit each other.
pub fn encrypt_weights(
    weights: &Weights,
    public_key: &tfhe::CompactPublicKey,
    reference_string: &ReferenceString,
    metadata: &ProofMetadata,
) -> Result<ProvenList, ListError> {
    let messages = [weights.price, weights.latency].map(|weight| u64::from(weight.get()));
    seal(Kind::Weights, &messages, public_key, reference_string, metadata)
}

/// Encrypts a bid. `metadata` is that of [`ProofMetadata::for_bid`].
///
/// # Errors
/// [`ListError::Encrypt`] if key and reference string do not fit each other.
pub fn encrypt_bid(
    bid: u16,
    public_key: &tfhe::CompactPublicKey,
    reference_string: &ReferenceString,
    metadata: &ProofMetadata,
) -> Result<ProvenList, ListError> {
    let messages = [0, 4, 8, 12].map(|shift| u64::from(bid >> shift & 0xf));
    seal(Kind::Bid, &messages, public_key, reference_string, metadata)
}

fn seal(
    kind: Kind,
    messages: &[u64],
    public_key: &tfhe::CompactPublicKey,
    reference_string: &ReferenceString,
    metadata: &ProofMetadata,
) -> Result<ProvenList, ListError> {
    let (public_key, _) = public_key.clone().into_raw_parts();
    let metadata = metadata_bytes(metadata, kind);
    // Proven once, verified by everybody: the prover does the work.
    let load = ZkComputeLoad::Proof;
    prove(messages, &public_key.into_raw_parts(), reference_string, &metadata, load)
}

fn prove(
    messages: &[u64],
    public_key: &shortint::CompactPublicKey,
    reference_string: &ReferenceString,
    metadata: &[u8],
    load: ZkComputeLoad,
) -> Result<ProvenList, ListError> {
    let failed = |error: String| ListError::Encrypt(error);
    let crs = reference_string.crs();
    let list = public_key
        .encrypt_and_prove_slice(messages, crs, metadata, load, 1 << 4)
        .map_err(|error| failed(error.to_string()))?;
    let mut bytes = Vec::new();
    safe_serialize(&List(list), &mut bytes, ProvenList::MAX_BYTES as u64)
        .map_err(|error| failed(error.to_string()))?;
    ProvenList::new(bytes).map_err(|error| failed(error.to_string()))
}

fn verified(
    kind: Kind,
    list: &ProvenList,
    metadata: &ProofMetadata,
    public_key: &shortint::CompactPublicKey,
    reference_string: &ReferenceString,
) -> Result<CompactCiphertextList, ListError> {
    let crs = reference_string.crs();
    let parameters = public_key.parameters();
    // A prover may leave most of the work to the verifiers; here it may not.
    let proof = CompactPkeProofConformanceParams::new(crs.scheme_version())
        .forbid_compute_load(ZkComputeLoad::Verify);
    let shape = ProvenCompactCiphertextListConformanceParams {
        encryption_lwe_dimension: parameters.encryption_lwe_dimension,
        message_modulus: parameters.message_modulus,
        carry_modulus: parameters.carry_modulus,
        ciphertext_modulus: parameters.ciphertext_modulus,
        expansion_kind: parameters.expansion_kind,
        max_lwe_count_per_compact_list: kind.messages(),
        total_expected_lwe_count: kind.messages(),
        zk_conformance_params: proof,
    };
    let bytes = list.as_bytes();
    let List(list) = safe_deserialize_conformant(bytes, ProvenList::MAX_BYTES as u64, &shape)
        .map_err(ListError::Malformed)?;
    let metadata = metadata_bytes(metadata, kind);
    if list.verify(crs, public_key, &metadata) == ZkVerificationOutcome::Invalid {
        return Err(ListError::Proof);
    }
    // tfhe takes a list that says it has 2 bits in each message for conformant too.
    let packed = |list: &CompactCiphertextList| list.degree.get() == (1 << 4) - 1;
    let list = list.into_raw_parts().pop().map(|(list, _)| list).filter(packed);
    list.ok_or_else(|| ListError::Malformed("its messages are not of 4 bits".to_owned()))
}

macro_rules! verify {
    ($($(#[$doc:meta])* $name:ident: $kind:expr;)*) => {$(
        $(#[$doc])*
        ///
        /// # Errors
        /// [`ListError::Malformed`] or [`ListError::Proof`].
        pub fn $name(
            list: &ProvenList,
            metadata: &ProofMetadata,
            public_key: &tfhe::CompactPublicKey,
            reference_string: &ReferenceString,
        ) -> Result<(), ListError> {
            let (public_key, _) = public_key.clone().into_raw_parts();
            verified($kind, list, metadata, &public_key.into_raw_parts(), reference_string).map(drop)
        }
    )*};
}

verify! {
    /// Checks the form and the proof of telemetry.
    verify: Kind::Telemetry;
    /// Checks the form and the proof of an encrypted request.
    verify_request: Kind::Request;
    /// Checks the form and the proof of encrypted weights.
    verify_weights: Kind::Weights;
    /// Checks the form and the proof of an encrypted bid.
    verify_bid: Kind::Bid;
}

/// [`verify`], then the switch to the evaluation key.
///
/// # Errors
/// As of [`verify`], or [`ListError::Expand`].
pub fn verify_and_expand(
    list: &ProvenList,
    metadata: &ProofMetadata,
    reference_string: &ReferenceString,
    key: &EvaluationKey,
) -> Result<EncryptedTelemetry, ListError> {
    let list = verified(Kind::Telemetry, list, metadata, key.public_key(), reference_string)?;
    EncryptedTelemetry::expand(list, key).map_err(ListError::Expand)
}

/// [`verify_request`], then the switch to the evaluation key.
///
/// # Errors
/// As of [`verify_request`], or [`ListError::Expand`].
pub fn verify_and_expand_request(
    list: &ProvenList,
    metadata: &ProofMetadata,
    reference_string: &ReferenceString,
    key: &EvaluationKey,
) -> Result<EncryptedQuantities, ListError> {
    let list = verified(Kind::Request, list, metadata, key.public_key(), reference_string)?;
    let all = (0..Kind::Request.messages()).collect::<Vec<_>>();
    let mut digits = cast(Kind::Request, &list, &all, key).map_err(ListError::Expand)?.into_iter();
    let mut next = || digits.next().ok_or_else(|| ListError::Expand(LOST.to_owned()));
    let mut pair = || Ok::<_, ListError>([next()?, next()?]);
    let digits = [pair()?, pair()?, pair()?, pair()?];
    Ok(EncryptedQuantities { key: key.id(), digits: RequestDigits::new(digits) })
}

/// [`verify_weights`], then the switch to the evaluation key.
///
/// # Errors
/// As of [`verify_weights`], or [`ListError::Expand`].
pub fn verify_and_expand_weights(
    list: &ProvenList,
    metadata: &ProofMetadata,
    reference_string: &ReferenceString,
    key: &EvaluationKey,
) -> Result<ExpandedWeights, ListError> {
    let list = verified(Kind::Weights, list, metadata, key.public_key(), reference_string)?;
    let digits = cast(Kind::Weights, &list, &[0, 1], key).map_err(ListError::Expand)?;
    let digits = digits.try_into().map_err(|_| ListError::Expand(LOST.to_owned()))?;
    Ok(ExpandedWeights { key: key.id(), digits })
}

/// [`verify_bid`], then the switch to the evaluation key, and the look-ups that every bid needs:
/// [`EncryptedBid::EXPANSION_LOOK_UPS`].
///
/// # Errors
/// As of [`verify_bid`], or [`ListError::Expand`].
pub fn verify_and_expand_bid(
    list: &ProvenList,
    metadata: &ProofMetadata,
    reference_string: &ReferenceString,
    key: &EvaluationKey,
) -> Result<EncryptedBid, ListError> {
    let list = verified(Kind::Bid, list, metadata, key.public_key(), reference_string)?;
    let digits = cast(Kind::Bid, &list, &[0, 1, 2, 3], key).map_err(ListError::Expand)?;
    let digits: [Digit; 4] = digits.try_into().map_err(|_| ListError::Expand(LOST.to_owned()))?;
    Ok(EncryptedBid::new(key.id(), digits, &Circuit::new(key)))
}

const LOST: &str = "tfhe lost a message";

/// The messages at `positions`, by one look-up each; fresh.
fn cast(
    kind: Kind,
    list: &CompactCiphertextList,
    positions: &[usize],
    key: &EvaluationKey,
) -> Result<Vec<Digit>, String> {
    let tables: Vec<_> = (0..kind.messages()).map(|position| kind.table(position)).collect();
    // A message without a function is left out.
    let functions: Vec<_> = tables
        .iter()
        .enumerate()
        .map(|(position, table)| {
            let table: &(dyn Fn(u64) -> u64 + Sync) = table;
            Some(if positions.contains(&position) { vec![table] } else { Vec::new() })
        })
        .collect();
    let casting_mode = ShortintCompactCiphertextListCastingMode::CastIfNecessary {
        casting_key: key.casting_key(),
        functions: Some(&functions),
    };
    let digits = list.expand(casting_mode).map_err(|error| error.to_string())?;
    Ok(digits.into_iter().map(Digit::fresh).collect())
}

/// A worker's reading under an evaluation key, from a list whose proof holds.
pub struct EncryptedTelemetry {
    key: Blake3Digest,
    list: CompactCiphertextList,
    /// Of the first resources, with what the selection needs of them.
    expanded: Vec<([Digit; 2], View)>,
}

impl EncryptedTelemetry {
    fn expand(list: CompactCiphertextList, key: &EvaluationKey) -> Result<Self, String> {
        let mut telemetry = Self { key: key.id(), list, expanded: Vec::new() };
        let circuit = Circuit::new(key);
        telemetry.expanded = (0..SPLIT)
            .map(|resource| {
                let digits = telemetry.quantity(resource, key)?;
                let view = View::new(&circuit, &digits);
                Ok((digits, view))
            })
            .collect::<Result<_, String>>()?;
        Ok(telemetry)
    }

    /// The [`EvaluationKey::id`] it was expanded under.
    #[must_use]
    pub const fn key(&self) -> Blake3Digest {
        self.key
    }

    /// The digits of a resource, least significant first; fresh.
    pub(crate) fn quantity(
        &self,
        resource: usize,
        key: &EvaluationKey,
    ) -> Result<[Digit; 2], String> {
        match self.expanded.get(resource) {
            Some((digits, _)) => Ok(digits.clone()),
            None => cast(Kind::Telemetry, &self.list, &[2 * resource, 2 * resource + 1], key)?
                .try_into()
                .map_err(|_| LOST.to_owned()),
        }
    }

    /// What the selection needs of a resource, if it is computed already.
    pub(crate) fn view(&self, resource: usize) -> Option<View> {
        self.expanded.get(resource).map(|(_, view)| view.clone())
    }

    /// Latency and price class in one digit.
    pub(crate) fn classes(&self, key: &EvaluationKey) -> Result<Digit, String> {
        self.one(CLASSES, key)
    }

    /// Own priority.
    pub(crate) fn priority(&self, key: &EvaluationKey) -> Result<Digit, String> {
        self.one(PRIORITY, key)
    }

    fn one(&self, position: usize, key: &EvaluationKey) -> Result<Digit, String> {
        let mut digits = cast(Kind::Telemetry, &self.list, &[position], key)?;
        digits.pop().ok_or_else(|| LOST.to_owned())
    }
}

/// An encrypted request under an evaluation key, from a list whose proof holds.
pub struct EncryptedQuantities {
    key: Blake3Digest,
    digits: RequestDigits,
}

impl EncryptedQuantities {
    /// The [`EvaluationKey::id`] it was expanded under.
    #[must_use]
    pub const fn key(&self) -> Blake3Digest {
        self.key
    }

    pub(crate) const fn digits(&self) -> &RequestDigits {
        &self.digits
    }
}

/// Encrypted weights under an evaluation key, from a list whose proof holds.
pub struct ExpandedWeights {
    key: Blake3Digest,
    digits: [Digit; 2],
}

impl ExpandedWeights {
    /// The [`EvaluationKey::id`] they were expanded under.
    #[must_use]
    pub const fn key(&self) -> Blake3Digest {
        self.key
    }

    pub(crate) const fn digits(&self) -> &[Digit; 2] {
        &self.digits
    }
}

macro_rules! opaque {
    ($($name:ident),*) => {$(
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "(under {})"), self.key)
            }
        }
    )*};
}

opaque!(EncryptedTelemetry, EncryptedQuantities, ExpandedWeights);

#[cfg(test)]
impl EncryptedTelemetry {
    /// Encrypted from a seed and without a proof, so that a test has the same bits every time.
    pub(crate) fn unproven(reading: &Reading, seed: u8, key: &EvaluationKey) -> Self {
        let list = key
            .public_key()
            .encrypt_iter_with_modulus_seeded(messages_of(reading).into_iter(), 1 << 4, &[seed; 16])
            .unwrap();
        Self::expand(list, key).unwrap()
    }
}

#[cfg(test)]
mod tests {
    use veil_keygen_ceremony::keyset::ParameterSet;
    use veil_protocol_spec::{Address, ChainId, ClusterId, KeySetDigest, PeerIdHash, scheduling};

    use super::*;

    #[test]
    fn only_lists_of_the_layout_are_looked_at() {
        let (_, key) = crate::tests::keys();
        let parameters = *ParameterSet::insecure_test().pke();
        let string = ReferenceString::generate_insecure(parameters).unwrap();
        let scope = scheduling::ClusterScope {
            chain_id: ChainId(1),
            contract: Address([1; 20]),
            cluster: ClusterId([2; 32]),
        };
        let metadata = ProofMetadata::new(&scope, &KeySetDigest([3; 32]), &PeerIdHash([4; 32]), 1);
        let check = |kind: Kind, messages: usize, load| {
            let bound = metadata_bytes(&metadata, Kind::Telemetry);
            let list = prove(&vec![7; messages], key.public_key(), &string, &bound, load).unwrap();
            verified(kind, &list, &metadata, key.public_key(), &string).map(drop)
        };
        let messages = Kind::Telemetry.messages();
        assert!(check(Kind::Telemetry, messages, ZkComputeLoad::Proof).is_ok());
        for (messages, load) in [
            (messages - 1, ZkComputeLoad::Proof),
            (messages + 1, ZkComputeLoad::Proof),
            (2 * messages, ZkComputeLoad::Proof),
            (messages, ZkComputeLoad::Verify),
        ] {
            let refused = check(Kind::Telemetry, messages, load);
            assert!(matches!(refused, Err(ListError::Malformed(_))), "{messages} {load:?}");
        }
        // A list of the right length that was proven for another purpose.
        let refused = check(Kind::Request, Kind::Request.messages(), ZkComputeLoad::Proof);
        assert!(matches!(refused, Err(ListError::Proof)));
    }

    #[test]
    fn digits_beyond_their_range_count_as_the_largest() {
        assert_eq!(Kind::Telemetry.table(1)(15), 11);
        assert_eq!(Kind::Telemetry.table(0)(15), 15);
        assert_eq!(Kind::Telemetry.table(CLASSES)(15), 15);
        assert_eq!(Kind::Telemetry.table(PRIORITY)(15), 3);
        assert_eq!(Kind::Request.table(7)(12), 11);
        assert_eq!(Kind::Weights.table(1)(3), 2);
    }
}
