//! One member's contribution: its powers, and the proof that it knows by what it raised them.

use ark_ec::{AffineRepr, CurveGroup};
use ark_ff::{BigInt, PrimeField};
use veil_protocol_spec::{
    Attempt, Blake3Digest, CeremonyId, ParticipantIndex,
    domain::{self, hash_parts},
};
use zeroize::Zeroizing;

use crate::{
    curve::{Fr, G1Affine, G1Projective, G2Affine, G2Projective, Point},
    error::Refused,
    powers::Powers,
    size::Size,
};

/// Bytes of a number below the order of the groups.
const SCALAR: usize = 40;
/// Bytes of the challenge.
const CHALLENGE: usize = 32;
/// Length of a proof: challenge and response.
pub const PROOF_BYTES: usize = CHALLENGE + SCALAR;

/// What a contribution belongs to: a proof for one place says nothing in another.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// The ceremony.
    pub ceremony: &'a CeremonyId,
    /// Its attempt.
    pub attempt: Attempt,
    /// Who contributes.
    pub sender: ParticipantIndex,
    /// Digest of the contribution that this one raises.
    pub before: &'a Blake3Digest,
}

/// P_1 and Q_1 of some powers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct First(G1Affine, G2Affine);

impl First {
    /// Those that the first member raises.
    #[must_use]
    pub fn start() -> Self {
        Self(G1Affine::generator(), G2Affine::generator())
    }

    fn of(size: Size, powers: &[u8]) -> Result<Self, Refused> {
        let (given, expected) = (powers.len(), size.bytes());
        let refused = Refused::Length { given, expected };
        if given != expected {
            return Err(refused);
        }
        let second = size.first() * G1Affine::BYTES;
        let first = powers.get(..G1Affine::BYTES).ok_or(refused)?;
        let other = powers.get(second..second + G2Affine::BYTES).ok_or(refused)?;
        let first = G1Affine::read(first).ok_or(Refused::Point(0))?;
        Ok(Self(first, G2Affine::read(other).ok_or(Refused::Point(size.first()))?))
    }

    fn write(&self, out: &mut Vec<u8>) {
        self.0.write(out);
        self.1.write(out);
    }

    fn times(&self, scalar: &Fr) -> (G1Projective, G2Projective) {
        (self.0.times(scalar), self.1.times(scalar))
    }
}

/// What a member publishes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contribution {
    /// The raised powers.
    pub powers: Vec<u8>,
    /// That the member knows the exponent.
    pub proof: Vec<u8>,
}

impl Powers {
    /// Step 2: "member j raises the powers by its tau_j, proves tau_j, and erases it". Both the
    /// exponent and the proof's nonce are functions of `key`: after a restart the same bytes come out.
    #[must_use]
    pub fn contribute(&self, key: &[u8; 32], place: Place<'_>) -> Contribution {
        let tau = Zeroizing::new(exponent(key));
        let powers = self.raise(&tau).to_bytes();
        let proof = prove(key, place, &self.first(), &powers);
        Contribution { powers, proof }
    }

    /// P_1 and Q_1.
    #[must_use]
    pub fn first(&self) -> First {
        First(self.first[0], self.second[0])
    }
}

/// The proof that the first of these powers are those before, raised by the exponent of this key: a Schnorr
/// proof in both groups at once. It is about all of the powers, but says only of the first that they are right.
#[must_use]
pub fn prove(key: &[u8; 32], place: Place<'_>, before: &First, powers: &[u8]) -> Vec<u8> {
    let tau = Zeroizing::new(exponent(key));
    let statement = statement(place, before, powers);
    let nonce = Zeroizing::new(wide(domain::REFERENCE_STRING_SECRET, &[key, b"nonce", &statement]));
    let challenge = challenge(&statement, before.times(&nonce));
    let response = *nonce + scalar(&challenge) * *tau;
    let mut proof = challenge.to_vec();
    for limb in response.into_bigint().0 {
        proof.extend_from_slice(&limb.to_le_bytes());
    }
    proof
}

/// Step 3: "checks the proof and the first powers at once". `before` are the first powers that were to be raised.
///
/// # Errors
/// [`Refused`]; if there is none, these are the first powers that the next member raises.
pub fn check_contribution(
    size: Size,
    place: Place<'_>,
    before: &First,
    powers: &[u8],
    proof: &[u8],
) -> Result<First, Refused> {
    let after = First::of(size, powers)?;
    let (given, response) = proof.split_at_checked(CHALLENGE).ok_or(Refused::Proof)?;
    let response = read_scalar(response).ok_or(Refused::Proof)?;
    let mut bytes = [0; CHALLENGE];
    bytes.copy_from_slice(given);
    // R = z P - c P' in both groups.
    let (z, minus_c) = (before.times(&response), after.times(&-scalar(&bytes)));
    let nonces = (z.0 + minus_c.0, z.1 + minus_c.1);
    let expected = challenge(&statement(place, before, powers), nonces);
    (expected == bytes).then_some(after).ok_or(Refused::Proof)
}

/// tau_j, which is zero for no key but with a chance of 2^-298; then everybody refuses the contribution.
fn exponent(key: &[u8; 32]) -> Fr {
    wide(domain::REFERENCE_STRING_SECRET, &[key, b"exponent", &[]])
}

/// Everything that is proven something about.
fn statement(place: Place<'_>, before: &First, powers: &[u8]) -> [u8; 32] {
    let mut raised = Vec::new();
    before.write(&mut raised);
    hash_parts(
        domain::REFERENCE_STRING_STATEMENT,
        &[
            &place.ceremony.0,
            &place.attempt.0.to_le_bytes(),
            &[place.sender.get()],
            &place.before.0,
            &raised,
            powers,
        ],
    )
}

fn challenge(
    statement: &[u8; 32],
    (first, second): (G1Projective, G2Projective),
) -> [u8; CHALLENGE] {
    let mut nonces = Vec::new();
    First(first.into_affine(), second.into_affine()).write(&mut nonces);
    hash_parts(domain::REFERENCE_STRING_CHALLENGE, &[statement, &nonces])
}

fn scalar(challenge: &[u8; CHALLENGE]) -> Fr {
    Fr::from_le_bytes_mod_order(challenge)
}

/// `None` unless it is the one encoding of a number below the order.
fn read_scalar(bytes: &[u8]) -> Option<Fr> {
    if bytes.len() != SCALAR {
        return None;
    }
    let mut limbs = [0; SCALAR / 8];
    for (limb, bytes) in limbs.iter_mut().zip(bytes.chunks_exact(8)) {
        *limb = u64::from_le_bytes(bytes.try_into().ok()?);
    }
    Fr::from_bigint(BigInt::new(limbs))
}

/// A number below the order, uniform up to 2^-213.
fn wide(domain: &str, parts: &[&[u8]; 3]) -> Fr {
    let half =
        |half: u8| Zeroizing::new(hash_parts(domain, &[parts[0], parts[1], parts[2], &[half]]));
    let mut bytes = Zeroizing::new([0; 64]);
    bytes[..32].copy_from_slice(&*half(0));
    bytes[32..].copy_from_slice(&*half(1));
    Fr::from_le_bytes_mod_order(&*bytes)
}

#[cfg(test)]
mod tests;
