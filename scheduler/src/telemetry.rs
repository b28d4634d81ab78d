//! Telemetry as one proven compact list, and its expansion.
//!
//! # Layout, version 1
//! 16 messages of 4 bits, in this order: CPU, memory, disk, GPU; of each the u16 count of units
//! ([`veil_protocol_spec::scheduling::CpuUnits`] and its siblings), least significant 4 bits first. Every list
//! of 16 messages is a valid one, so no value can be out of range once the proof holds. The
//! version is the last byte of the metadata that the proof binds (after
//! [`ProofMetadata::as_bytes`]), and the variant number in the serialization: a list of another
//! version does not verify. All four resources are always there, whatever the circuit of the day
//! uses: a list that left some out would have another length and so another format, and would cost
//! as much. The work of a proof is in the dimension of the key: 8, 16 and 24 messages take the same
//! time within what is measurable (about 0.15 s to verify on two cores at production size).
//!
//! # Flow
//! 1. A worker calls [`encrypt`].
//! 2. A receiver calls [`verify`] before it relays or stores the list.
//! 3. An evaluator calls [`verify_and_expand`], once per message; CPU and memory are switched to
//!    the evaluation key and bootstrapped there (8 look-ups), disk and GPU when a job asks for
//!    them.

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
    scheduling::{ProofMetadata, ProvenList, Resources},
};

use crate::{key::EvaluationKey, lookup::Digit, reference_string::ReferenceString};

/// Version of the layout above.
pub const LAYOUT_VERSION: u8 = 1;
/// Messages of a list.
pub(crate) const MESSAGES: usize = RESOURCES * DIGITS;
/// CPU, memory, disk, GPU.
pub(crate) const RESOURCES: usize = 4;
/// Digits of 4 bits of a u16.
pub(crate) const DIGITS: usize = 4;
/// The first resources, which every job asks for.
const ALWAYS: usize = 2;

/// The resources in the order of the layout.
pub(crate) fn quantities(resources: &Resources) -> [u16; RESOURCES] {
    [resources.cpu.0, resources.memory.0, resources.disk.0, resources.gpu.0]
}

/// The digits of a quantity, least significant first.
pub(crate) fn digits(quantity: u16) -> [u8; DIGITS] {
    core::array::from_fn(|i| (quantity >> (4 * i)) as u8 & 0xf)
}

#[derive(VersionsDispatch)]
#[allow(dead_code, reason = "tfhe-versionable reads the variants, nothing here does")]
enum TelemetryListVersions {
    V0(TelemetryList),
}

/// tfhe's proven list under a name and a version of its own.
#[derive(Serialize, Deserialize, Versionize)]
#[versionize(TelemetryListVersions)]
struct TelemetryList(ProvenCompactCiphertextList);

impl Named for TelemetryList {
    const NAME: &'static str = "veil::TelemetryList";
}

impl ParameterSetConformant for TelemetryList {
    type ParameterSet = ProvenCompactCiphertextListConformanceParams;

    fn is_conformant(&self, shape: &Self::ParameterSet) -> bool {
        self.0.is_conformant(shape)
    }
}

/// Why telemetry cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryListError {
    /// tfhe did not encrypt.
    #[error("telemetry cannot be encrypted: {0}")]
    Encrypt(String),
    /// Truncated, no list of the layout, or made for other parameters.
    #[error("the telemetry list is malformed or made for other parameters: {0}")]
    Malformed(String),
    /// Forged, copied, replayed, or proven for another key, string or layout.
    #[error("the telemetry proof does not hold for this sender, sequence number and key")]
    Proof,
    /// tfhe did not expand a list whose proof holds.
    #[error("the telemetry list cannot be expanded: {0}")]
    Expand(String),
}

fn metadata_bytes(metadata: &ProofMetadata) -> Vec<u8> {
    [&metadata.as_bytes()[..], &[LAYOUT_VERSION]].concat()
}

/// Encrypts a worker's free capacity and proves the list well-formed.
///
/// # Errors
/// [`TelemetryListError::Encrypt`] if key and reference string do not fit each other.
pub fn encrypt(
    free: &Resources,
    public_key: &tfhe::CompactPublicKey,
    reference_string: &ReferenceString,
    metadata: &ProofMetadata,
) -> Result<ProvenList, TelemetryListError> {
    let (public_key, _) = public_key.clone().into_raw_parts();
    let messages: Vec<u64> = quantities(free).into_iter().flat_map(digits).map(u64::from).collect();
    let public_key = public_key.into_raw_parts();
    // Proven once, verified by everybody: the prover does the work.
    prove(&messages, &public_key, reference_string, metadata, ZkComputeLoad::Proof)
}

fn prove(
    messages: &[u64],
    public_key: &shortint::CompactPublicKey,
    reference_string: &ReferenceString,
    metadata: &ProofMetadata,
    load: ZkComputeLoad,
) -> Result<ProvenList, TelemetryListError> {
    let failed = |error: String| TelemetryListError::Encrypt(error);
    let crs = reference_string.crs();
    let list = public_key
        .encrypt_and_prove_slice(messages, crs, &metadata_bytes(metadata), load, 1 << 4)
        .map_err(|error| failed(error.to_string()))?;
    let mut bytes = Vec::new();
    safe_serialize(&TelemetryList(list), &mut bytes, ProvenList::MAX_BYTES as u64)
        .map_err(|error| failed(error.to_string()))?;
    ProvenList::new(bytes).map_err(|error| failed(error.to_string()))
}

fn verified(
    list: &ProvenList,
    metadata: &ProofMetadata,
    public_key: &shortint::CompactPublicKey,
    reference_string: &ReferenceString,
) -> Result<CompactCiphertextList, TelemetryListError> {
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
        max_lwe_count_per_compact_list: MESSAGES,
        total_expected_lwe_count: MESSAGES,
        zk_conformance_params: proof,
    };
    let bytes = list.as_bytes();
    let TelemetryList(list) =
        safe_deserialize_conformant(bytes, ProvenList::MAX_BYTES as u64, &shape)
            .map_err(TelemetryListError::Malformed)?;
    if list.verify(crs, public_key, &metadata_bytes(metadata)) == ZkVerificationOutcome::Invalid {
        return Err(TelemetryListError::Proof);
    }
    // tfhe takes a list that says it has 2 bits in each message for conformant too.
    let packed = |list: &CompactCiphertextList| list.degree.get() == (1 << 4) - 1;
    let list = list.into_raw_parts().pop().map(|(list, _)| list).filter(packed);
    list.ok_or_else(|| TelemetryListError::Malformed("its messages are not of 4 bits".to_owned()))
}

/// Checks a list's form and its proof.
///
/// # Errors
/// [`TelemetryListError::Malformed`] or [`TelemetryListError::Proof`].
pub fn verify(
    list: &ProvenList,
    metadata: &ProofMetadata,
    public_key: &tfhe::CompactPublicKey,
    reference_string: &ReferenceString,
) -> Result<(), TelemetryListError> {
    let (public_key, _) = public_key.clone().into_raw_parts();
    verified(list, metadata, &public_key.into_raw_parts(), reference_string).map(drop)
}

/// [`verify`], then the switch to the evaluation key.
///
/// # Errors
/// As of [`verify`].
pub fn verify_and_expand(
    list: &ProvenList,
    metadata: &ProofMetadata,
    reference_string: &ReferenceString,
    key: &EvaluationKey,
) -> Result<EncryptedTelemetry, TelemetryListError> {
    let list = verified(list, metadata, key.public_key(), reference_string)?;
    let mut telemetry = EncryptedTelemetry { key: key.id(), list, expanded: Vec::new() };
    telemetry.expanded = (0..ALWAYS)
        .map(|resource| telemetry.cast(resource, key))
        .collect::<Result<_, _>>()
        .map_err(TelemetryListError::Expand)?;
    Ok(telemetry)
}

/// A worker's free capacity under an evaluation key, from a list whose proof holds.
pub struct EncryptedTelemetry {
    key: Blake3Digest,
    list: CompactCiphertextList,
    expanded: Vec<[Digit; DIGITS]>,
}

impl EncryptedTelemetry {
    /// The [`EvaluationKey::id`] it was expanded under.
    #[must_use]
    pub const fn key(&self) -> Blake3Digest {
        self.key
    }

    /// The digits of a resource, least significant first; fresh.
    pub(crate) fn digits(
        &self,
        resource: usize,
        key: &EvaluationKey,
    ) -> Result<[Digit; DIGITS], String> {
        match self.expanded.get(resource) {
            Some(digits) => Ok(digits.clone()),
            None => self.cast(resource, key),
        }
    }

    fn cast(&self, resource: usize, key: &EvaluationKey) -> Result<[Digit; DIGITS], String> {
        let identity: &(dyn Fn(u64) -> u64 + Sync) = &|x| x;
        // A message without a function is left out.
        let functions: Vec<_> = (0..MESSAGES)
            .map(|i| Some(if i / DIGITS == resource { vec![identity] } else { Vec::new() }))
            .collect();
        let casting_mode = ShortintCompactCiphertextListCastingMode::CastIfNecessary {
            casting_key: key.casting_key(),
            functions: Some(&functions),
        };
        let digits = self.list.expand(casting_mode).map_err(|error| error.to_string())?;
        let digits: Vec<_> = digits.into_iter().map(Digit::fresh).collect();
        digits.try_into().map_err(|_| "tfhe lost a message".to_owned())
    }
}

#[cfg(test)]
impl EncryptedTelemetry {
    /// Encrypted from a seed and without a proof, so that a test has the same bits every time.
    pub(crate) fn unproven(free: &Resources, seed: u8, key: &EvaluationKey) -> Self {
        let messages = quantities(free).into_iter().flat_map(digits).map(u64::from);
        let list = key
            .public_key()
            .encrypt_iter_with_modulus_seeded(messages, 1 << 4, &[seed; 16])
            .unwrap();
        let mut telemetry = Self { key: key.id(), list, expanded: Vec::new() };
        telemetry.expanded = (0..ALWAYS).map(|r| telemetry.cast(r, key).unwrap()).collect();
        telemetry
    }
}

impl fmt::Debug for EncryptedTelemetry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EncryptedTelemetry(under {})", self.key)
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
        let check = |messages: usize, load| {
            let list =
                prove(&vec![7; messages], key.public_key(), &string, &metadata, load).unwrap();
            verified(&list, &metadata, key.public_key(), &string).map(drop)
        };
        assert!(check(MESSAGES, ZkComputeLoad::Proof).is_ok());
        for (messages, load) in [
            (MESSAGES - 1, ZkComputeLoad::Proof),
            (MESSAGES + 1, ZkComputeLoad::Proof),
            (2 * MESSAGES, ZkComputeLoad::Proof),
            (MESSAGES, ZkComputeLoad::Verify),
        ] {
            let refused = check(messages, load);
            assert!(
                matches!(refused, Err(TelemetryListError::Malformed(_))),
                "{messages} {load:?}"
            );
        }
    }
}
