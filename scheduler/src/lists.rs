//! Proven compact lists: what workers, operators, bidders and the policy's author encrypt.
//!
//! # Layout, version 3
//! Messages of 4 bits; every list of the right length is a valid one, so no value can be out of
//! range once the proof holds (what a digit means beyond its range is fixed by [`Kind::table`]).
//!
//! | list | messages |
//! |---|---|
//! | telemetry | CPU, memory, disk, GPU: low and high digit each; latency class + 4 * price class; own priority; the share that is free |
//! | request | CPU, memory, disk, GPU: low and high digit each |
//! | weights | of price; of latency |
//! | bid | 4 digits, least significant first |
//!
//! High digits beyond 11 count as 11 (a quantity is at most 191), priorities beyond 3 as 3, shares beyond 7 as
//! 7, weights beyond 2 as 2. Version and kind are the last two bytes of the metadata that the proof binds
//! (after [`ProofMetadata::as_bytes`]): a list of another version or kind does not verify. All of
//! it is always there, whatever the circuit of the day uses: a list that left some out would have
//! another format, and would cost as much, since the work of a proof is in the dimension of the
//! key.
//!
//! # Flow
//! 1. The sender calls [`encrypt`], [`encrypt_request`], [`encrypt_weights`] or
//!    [`encrypt_bid`]. A request is encrypted from a seed: who has that, and the quantities, sees whether the list is
//!    [theirs](request_agrees).
//! 2. A receiver verifies before it relays or stores: [`verify`], [`verify_request`],
//!    [`verify_weights`], [`verify_bid`].
//! 3. An evaluator expands, once per message ([`crate::verify_and_expand`]): CPU and memory are
//!    switched to the evaluation key and bootstrapped there, and split as the selection needs them,
//!    8 look-ups in all, before the manifest is known; disk, GPU and the classes when a job asks
//!    for them.

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
    },
    zk::{
        CompactPkeProofConformanceParams, CompactPkeZkScheme, ZkComputeLoad,
        ZkPkeV2SupportedHashConfig, ZkVerificationOutcome,
    },
};
use tfhe_versionable::VersionsDispatch;
use veil_protocol_spec::scheduling::{
    ProofMetadata, ProvenList, Quantities, Reading, Share, Weights,
};
use veil_reference_string::ReferenceString;
use veil_scheduler_plan::{circuit::worker::MAX_HIGH, rules::RESOURCES};

/// Messages are of 4 bits.
pub(crate) const MODULUS: u64 = 1 << 4;
/// Version of the layout above.
pub const LAYOUT_VERSION: u8 = 3;
/// Positions of what follows the quantities in telemetry.
pub(crate) const CLASSES: usize = 2 * RESOURCES;
pub(crate) const PRIORITY: usize = CLASSES + 1;
pub(crate) const SHARE: usize = PRIORITY + 1;

/// What a list is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Telemetry = 0,
    Request = 1,
    Weights = 2,
    Bid = 3,
}

impl Kind {
    pub(crate) const fn messages(self) -> usize {
        match self {
            Self::Telemetry => SHARE + 1,
            Self::Request => 2 * RESOURCES,
            Self::Weights => 2,
            Self::Bid => 4,
        }
    }

    /// What a message means for the circuit.
    pub(crate) fn table(self, position: usize) -> fn(u64) -> u64 {
        match (self, position) {
            (Self::Telemetry, PRIORITY) => |x| x.min(3),
            (Self::Telemetry, SHARE) => |x| x.min(Share::MAX.into()),
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

pub(crate) fn messages_of(reading: &Reading) -> Vec<u64> {
    let mut messages = digits(&reading.free);
    messages.push(u64::from(reading.latency.get() + 4 * reading.price.get()));
    messages.push(u64::from(reading.priority.get()));
    messages.push(u64::from(reading.share.get()));
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
    /// tfhe does not encrypt.
    #[error("the list cannot be encrypted: {0}")]
    Encrypt(String),
    /// The list is truncated, not of the layout, or made for other parameters.
    #[error("the list is malformed or made for other parameters: {0}")]
    Malformed(String),
    /// The proof is forged, copied, replayed, or for another purpose, key, string or layout.
    #[error("the proof does not hold for this purpose, sender, number and key")]
    Proof,
    /// tfhe does not expand a list whose proof holds.
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
/// [`ProofMetadata::for_request`]. The same `randomness` gives the same ciphertexts: it is used for this request and for
/// nothing else, and whoever learns it can [compare](request_agrees).
///
/// # Errors
/// [`ListError::Encrypt`] if key and reference string do not fit each other.
pub fn encrypt_request(
    request: &Quantities,
    randomness: &[u8; 32],
    public_key: &tfhe::CompactPublicKey,
    reference_string: &ReferenceString,
    metadata: &ProofMetadata,
) -> Result<ProvenList, ListError> {
    let (public_key, _) = public_key.clone().into_raw_parts();
    let crs = reference_string.crs();
    let metadata = metadata_bytes(metadata, Kind::Request);
    let load = ZkComputeLoad::Proof;
    let list = public_key.into_raw_parts().encrypt_and_prove_slice_seeded(
        &digits(request),
        crs,
        &metadata,
        load,
        MODULUS,
        randomness,
    );
    written(list)
}

/// Whether an encrypted request is that of these quantities, encrypted with this randomness: encrypts again, and compares
/// word by word. Its proof does not matter here: it was verified before the circuit took the list.
///
/// # Errors
/// [`ListError::Malformed`], [`ListError::Encrypt`].
pub fn request_agrees(
    list: &ProvenList,
    request: &Quantities,
    randomness: &[u8; 32],
    public_key: &tfhe::CompactPublicKey,
) -> Result<bool, ListError> {
    let (public_key, _) = public_key.clone().into_raw_parts();
    let public_key = public_key.into_raw_parts();
    let scheme = public_key.parameters().zk_scheme.try_into();
    let scheme = scheme.map_err(|()| ListError::Encrypt("the key has no proofs".to_owned()))?;
    let given = read(Kind::Request, list, &public_key, scheme)?;
    let given = only_list(given)?;
    let again = digits(request).into_iter();
    let again = public_key
        .encrypt_iter_with_modulus_seeded(again, MODULUS, randomness)
        .map_err(|error| ListError::Encrypt(error.to_string()))?;
    Ok(again == given)
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
    let crs = reference_string.crs();
    written(public_key.encrypt_and_prove_slice(messages, crs, metadata, load, MODULUS))
}

fn written(list: tfhe::Result<ProvenCompactCiphertextList>) -> Result<ProvenList, ListError> {
    let failed = |error: String| ListError::Encrypt(error);
    let list = list.map_err(|error| failed(error.to_string()))?;
    let mut bytes = Vec::new();
    safe_serialize(&List(list), &mut bytes, ProvenList::MAX_BYTES as u64)
        .map_err(|error| failed(error.to_string()))?;
    ProvenList::new(bytes).map_err(|error| failed(error.to_string()))
}

pub(crate) fn verified(
    kind: Kind,
    list: &ProvenList,
    metadata: &ProofMetadata,
    public_key: &shortint::CompactPublicKey,
    reference_string: &ReferenceString,
) -> Result<CompactCiphertextList, ListError> {
    let crs = reference_string.crs();
    let list = read(kind, list, public_key, crs.scheme_version())?;
    let metadata = metadata_bytes(metadata, kind);
    if list.verify(crs, public_key, &metadata) == ZkVerificationOutcome::Invalid {
        return Err(ListError::Proof);
    }
    only_list(list)
}

/// Decodes a list of that kind; nothing is verified.
fn read(
    kind: Kind,
    list: &ProvenList,
    public_key: &shortint::CompactPublicKey,
    scheme: CompactPkeZkScheme,
) -> Result<ProvenCompactCiphertextList, ListError> {
    let parameters = public_key.parameters();
    // A prover may leave most of the work to the verifiers; here it may not. Nor may it hash as older
    // versions did, which left out part of the statement.
    let proof = CompactPkeProofConformanceParams::new(scheme)
        .forbid_compute_load(ZkComputeLoad::Verify)
        .forbid_hash_config(ZkPkeV2SupportedHashConfig::V0_4_0)
        .forbid_hash_config(ZkPkeV2SupportedHashConfig::V0_7_0);
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
    Ok(list)
}

fn only_list(list: ProvenCompactCiphertextList) -> Result<CompactCiphertextList, ListError> {
    // tfhe takes a list that says it has 2 bits in each message for conformant too.
    let packed = |list: &CompactCiphertextList| list.degree.get() == MODULUS - 1;
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

#[cfg(test)]
mod tests {
    use tfhe::safe_serialization::safe_deserialize;
    use veil_keygen_ceremony::keyset::ParameterSet;
    use veil_protocol_spec::{Address, ChainId, ClusterId, KeySetDigest, PeerIdHash, scheduling};

    use super::*;

    /// What a list is proven under, and what its proof binds.
    fn proving() -> (ReferenceString, ProofMetadata) {
        let parameters = *ParameterSet::insecure_test().pke();
        let string = ReferenceString::generate_insecure(parameters).unwrap();
        let scope = scheduling::ClusterScope {
            chain_id: ChainId(1),
            contract: Address([1; 20]),
            cluster: ClusterId([2; 32]),
        };
        let metadata = ProofMetadata::new(&scope, &KeySetDigest([3; 32]), &PeerIdHash([4; 32]), 1);
        (string, metadata)
    }

    #[test]
    fn only_lists_of_the_layout_are_looked_at() {
        let (_, key) = crate::tests::keys();
        let (string, metadata) = proving();
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
    fn only_the_last_way_of_hashing_a_proof_is_looked_at() {
        let (_, key) = crate::tests::keys();
        let (string, metadata) = proving();
        let bound = metadata_bytes(&metadata, Kind::Telemetry);
        let messages = vec![7; Kind::Telemetry.messages()];
        let load = ZkComputeLoad::Proof;
        let list = prove(&messages, key.public_key(), &string, &bound, load).unwrap();
        let changed = |at: usize, to: u8| {
            let mut bytes = list.as_bytes().to_vec();
            bytes[at] = to;
            bytes
        };
        let decodes =
            |bytes: &[u8]| safe_deserialize::<List>(bytes, ProvenList::MAX_BYTES as u64).is_ok();
        // The way of hashing is the proof's last field, one of three.
        let newest = ZkPkeV2SupportedHashConfig::default() as u8;
        let len = list.as_bytes().len();
        let is_it = |at: &usize| {
            list.as_bytes()[*at] == newest
                && (0..newest).all(|older| decodes(&changed(*at, older)))
                && !decodes(&changed(*at, newest + 1))
        };
        let at = (len - 64..len).rev().find(is_it).unwrap();
        for older in 0..newest {
            let list = ProvenList::new(changed(at, older)).unwrap();
            let refused = verified(Kind::Telemetry, &list, &metadata, key.public_key(), &string);
            assert!(matches!(refused, Err(ListError::Malformed(_))), "{older}");
        }
    }

    /// What winners compare with, bit for bit, in every version that reads jobs of this one.
    #[test]
    fn the_encryption_of_a_request_is_pinned() {
        let (_, key) = crate::tests::keys();
        let request = Quantities::from_array([5, 8, 191, 0]).unwrap();
        let messages = digits(&request).into_iter();
        let list =
            key.public_key().encrypt_iter_with_modulus_seeded(messages, MODULUS, &[7; 32]).unwrap();
        let (list, ..) = list.into_raw_parts();
        let words: Vec<u8> = list.as_ref().iter().flat_map(|word| word.to_le_bytes()).collect();
        // Another digest is another encryption: winners of one build would refuse what operators with another submit. Raise
        // `LAYOUT_VERSION` with it.
        assert_eq!(blake3::hash(&words).to_string(), PINNED_REQUEST);
    }

    const PINNED_REQUEST: &str = "fef289bb30510e92670ce5b3802e8b8649fa5681c78c180ce27110394a9946c6";

    #[test]
    fn digits_beyond_their_range_count_as_the_largest() {
        assert_eq!(Kind::Telemetry.table(1)(15), 11);
        assert_eq!(Kind::Telemetry.table(0)(15), 15);
        assert_eq!(Kind::Telemetry.table(CLASSES)(15), 15);
        assert_eq!(Kind::Telemetry.table(PRIORITY)(15), 3);
        assert_eq!(Kind::Telemetry.table(SHARE)(15), 7);
        assert_eq!(Kind::Request.table(7)(12), 11);
        assert_eq!(Kind::Weights.table(1)(3), 2);
    }
}
