//! Lists under an evaluation key: what the circuits compute on.
//!
//! A list is expanded once, after its proof was verified: each message is switched to the evaluation
//! key and bootstrapped there.

use core::fmt;

use rayon::prelude::*;
use tfhe::{
    core_crypto::prelude::{
        ContiguousEntityContainer, LweCiphertext, LweCiphertextList,
        expand_lwe_compact_ciphertext_list, keyswitch_lwe_ciphertext,
    },
    shortint::{
        Ciphertext,
        atomic_pattern::AtomicPattern as _,
        ciphertext::{CompactCiphertextList, Degree, NoiseLevel},
    },
};
use veil_protocol_spec::{
    Blake3Digest,
    scheduling::{ProofMetadata, ProvenList},
};
use veil_reference_string::ReferenceString;
use veil_scheduler_plan::circuit::{
    digit::Digit,
    lookup::Circuit,
    worker::{RequestDigits, SPLIT, View},
};

use crate::{
    auction::EncryptedBid,
    encrypted::{Encrypted, EncryptedDigit},
    key::EvaluationKey,
    lists::{CLASSES, Kind, ListError, MODULUS, PRIORITY, verified},
};

/// [`verify`](crate::verify), then the switch to the evaluation key.
///
/// # Errors
/// As of [`verify`](crate::verify), or [`ListError::Expand`].
pub fn verify_and_expand(
    list: &ProvenList,
    metadata: &ProofMetadata,
    reference_string: &ReferenceString,
    key: &EvaluationKey,
) -> Result<EncryptedTelemetry, ListError> {
    let list = verified(Kind::Telemetry, list, metadata, key.public_key(), reference_string)?;
    EncryptedTelemetry::expand(list, key).map_err(ListError::Expand)
}

/// [`verify_request`](crate::verify_request), then the switch to the evaluation key.
///
/// # Errors
/// As of [`verify_request`](crate::verify_request), or [`ListError::Expand`].
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

/// [`verify_weights`](crate::verify_weights), then the switch to the evaluation key.
///
/// # Errors
/// As of [`verify_weights`](crate::verify_weights), or [`ListError::Expand`].
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

/// [`verify_bid`](crate::verify_bid), then the switch to the evaluation key, and the look-ups that every bid needs:
/// [`EncryptedBid::EXPANSION_LOOK_UPS`].
///
/// # Errors
/// As of [`verify_bid`](crate::verify_bid), or [`ListError::Expand`].
pub fn verify_and_expand_bid(
    list: &ProvenList,
    metadata: &ProofMetadata,
    reference_string: &ReferenceString,
    key: &EvaluationKey,
) -> Result<EncryptedBid, ListError> {
    let list = verified(Kind::Bid, list, metadata, key.public_key(), reference_string)?;
    let digits = cast(Kind::Bid, &list, &[0, 1, 2, 3], key).map_err(ListError::Expand)?;
    let digits: [EncryptedDigit; 4] =
        digits.try_into().map_err(|_| ListError::Expand(LOST.to_owned()))?;
    Ok(EncryptedBid::new(key.id(), digits, &Circuit::new(key)))
}

pub(crate) const LOST: &str = "tfhe lost a message";

/// The messages at `positions` as they were encrypted, on the evaluation key: with the noise of the public key
/// and of its switch, a thousandth of a bootstrap's.
pub(crate) fn switched(
    list: &CompactCiphertextList,
    positions: &[usize],
    key: &EvaluationKey,
) -> Result<Vec<EncryptedDigit>, String> {
    let (list, server_key, switch) = (&list.ct_list, key.server_key(), key.public_key_switch());
    let modulus = list.ciphertext_modulus();
    let count = list.lwe_ciphertext_count();
    let mut all = LweCiphertextList::new(0, list.lwe_size(), count, modulus);
    expand_lwe_compact_ciphertext_list(&mut all, list);
    let switched = |position: &usize| {
        if *position >= count.0 {
            return Err(LOST.to_owned());
        }
        let mut output = LweCiphertext::new(0, switch.output_lwe_size(), modulus);
        keyswitch_lwe_ciphertext(switch, &all.get(*position), &mut output);
        let ciphertext = Ciphertext::new(
            output,
            Degree::new(MODULUS - 1),
            NoiseLevel::UNKNOWN,
            server_key.message_modulus,
            server_key.carry_modulus,
            server_key.atomic_pattern.kind(),
        );
        Ok(Digit::fresh(Encrypted(ciphertext)))
    };
    positions.par_iter().map(switched).collect()
}

/// The messages at `positions`, by one look-up each; fresh.
pub(crate) fn cast(
    kind: Kind,
    list: &CompactCiphertextList,
    positions: &[usize],
    key: &EvaluationKey,
) -> Result<Vec<EncryptedDigit>, String> {
    let server_key = key.server_key();
    let digits = switched(list, positions, key)?;
    let look_up = |(digit, position): (&EncryptedDigit, &usize)| {
        let table = server_key.generate_lookup_table(kind.table(*position));
        Digit::fresh(Encrypted(server_key.apply_lookup_table(&digit.value().0, &table)))
    };
    Ok(digits.par_iter().zip(positions).map(look_up).collect())
}

/// A worker's reading under an evaluation key, from a list whose proof holds.
pub struct EncryptedTelemetry {
    key: Blake3Digest,
    list: CompactCiphertextList,
    /// Of the first resources, with what the selection needs of them.
    expanded: Vec<([EncryptedDigit; 2], View<Encrypted>)>,
}

impl EncryptedTelemetry {
    pub(crate) fn expand(list: CompactCiphertextList, key: &EvaluationKey) -> Result<Self, String> {
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
    ) -> Result<[EncryptedDigit; 2], String> {
        match self.expanded.get(resource) {
            Some((digits, _)) => Ok(digits.clone()),
            None => cast(Kind::Telemetry, &self.list, &[2 * resource, 2 * resource + 1], key)?
                .try_into()
                .map_err(|_| LOST.to_owned()),
        }
    }

    /// What the selection needs of a resource, if it is computed already.
    pub(crate) fn view(&self, resource: usize) -> Option<View<Encrypted>> {
        self.expanded.get(resource).map(|(_, view)| view.clone())
    }

    /// Latency and price class in one digit.
    pub(crate) fn classes(&self, key: &EvaluationKey) -> Result<EncryptedDigit, String> {
        self.one(CLASSES, key)
    }

    /// Own priority.
    pub(crate) fn priority(&self, key: &EvaluationKey) -> Result<EncryptedDigit, String> {
        self.one(PRIORITY, key)
    }

    fn one(&self, position: usize, key: &EvaluationKey) -> Result<EncryptedDigit, String> {
        let mut digits = cast(Kind::Telemetry, &self.list, &[position], key)?;
        digits.pop().ok_or_else(|| LOST.to_owned())
    }
}

/// An encrypted request under an evaluation key, from a list whose proof holds.
pub struct EncryptedQuantities {
    key: Blake3Digest,
    digits: RequestDigits<Encrypted>,
}

impl EncryptedQuantities {
    /// The [`EvaluationKey::id`] it was expanded under.
    #[must_use]
    pub const fn key(&self) -> Blake3Digest {
        self.key
    }

    pub(crate) const fn digits(&self) -> &RequestDigits<Encrypted> {
        &self.digits
    }
}

/// Encrypted weights under an evaluation key, from a list whose proof holds.
pub struct ExpandedWeights {
    key: Blake3Digest,
    digits: [EncryptedDigit; 2],
}

impl ExpandedWeights {
    /// The [`EvaluationKey::id`] they were expanded under.
    #[must_use]
    pub const fn key(&self) -> Blake3Digest {
        self.key
    }

    pub(crate) const fn digits(&self) -> &[EncryptedDigit; 2] {
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
    pub(crate) fn unproven(
        reading: &veil_protocol_spec::scheduling::Reading,
        seed: u8,
        key: &EvaluationKey,
    ) -> Self {
        let list = key
            .public_key()
            .encrypt_iter_with_modulus_seeded(
                crate::lists::messages_of(reading).into_iter(),
                1 << 4,
                &[seed; 16],
            )
            .unwrap();
        Self::expand(list, key).unwrap()
    }
}
