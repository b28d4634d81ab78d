//! Key generation of the committee's signing key, as three typed steps.
//!
//! Source: Komlo and Goldberg, FROST (eprint 2020/852), figure 1, as implemented by
//! `frost_core::keys::dkg`; `ceremony.md`, section 6.
//!
//! # Roles
//! All n members are dealers and recipients. The ceremony carries the messages.
//!
//! # Messages
//! A round-1 package (public) goes to everybody; a round-2 package (secret) to one recipient each.
//!
//! # Flow
//! 1. [`Dkg::start`]: draw a polynomial of degree 2t, commit to it, prove knowledge of its
//!    constant term. Echo-broadcast the package.
//! 2. [`Round1Secret::receive`]: check the n-1 other packages; give each member its share.
//! 3. [`Round2Secret::finish`]: check the n-1 shares received; add them up.
//!
//! # State
//! Each step consumes the one before it. Nothing is persisted here: with the same generator the
//! steps repeat byte for byte, and the ceremony replays its seed.
//!
//! # Caveats
//! - The proof of knowledge names the dealer but not the ceremony, and nothing here sees whether
//!   all members got the same round-1 package: the ceremony signs each message with its id and
//!   attempt, and echoes round 1.
//! - Round-2 packages must travel encrypted. A bad one is a dispute between two members until it
//!   is shown together with its sender's signature; [`verify_round2`] then settles it.
//! - n = 1 has no one to share with: step 1 draws a plain Schnorr key, steps 2 and 3 expect no
//!   packages.

use core::{fmt, marker::PhantomData};
use std::collections::BTreeMap;

use frost_core::{
    Ciphersuite, Field, Group, SigningKey, VerifyingKey,
    keys::{PublicKeyPackage, SecretShare, SigningShare, dkg},
};
use rand::{CryptoRng, RngCore};
use serde::{Deserialize, Serialize};
use veil_protocol_spec::{Committee, ParticipantIndex, Wire};
use zeroize::Zeroizing;

use super::{
    EvmSuite,
    keys::{GroupKeyShare, GroupPublicKey, identifier, min_signers},
};

/// Packages by sender (or by recipient, where they are sent).
pub type Packages<T = Vec<u8>> = BTreeMap<ParticipantIndex, T>;

/// A round-2 package in clear: version byte, then the scalar.
pub type SecretPackage = Zeroizing<Vec<u8>>;

/// Longest accepted round-2 package.
const MAX_ROUND2_BYTES: usize = 64;
/// First byte of a round-2 package.
const ROUND2_VERSION: u8 = 1;

/// Why key generation did not yield a key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the messages name the fields")]
pub enum DkgError {
    /// The index is outside the committee.
    #[error("participant {index} is not in a committee of {committee}")]
    NotAMember { index: ParticipantIndex, committee: Committee },
    /// Packages of the round, 1 or 2, are outstanding.
    #[error("FROST round {round}: no package from {from:?} yet")]
    Missing { round: u8, from: Vec<ParticipantIndex> },
    /// A package from oneself or from outside the committee: a mistake of the caller.
    #[error("FROST round {round}: {from:?} may not send a package to this member")]
    Unexpected { round: u8, from: Vec<ParticipantIndex> },
    /// Packages are malformed, of the wrong degree, or without a valid proof of knowledge; all
    /// their senders are named.
    #[error("FROST round 1: invalid package from {culprits:?}")]
    InvalidRound1 { culprits: Vec<ParticipantIndex> },
    /// Shares are malformed, or not on the polynomial that their sender committed to; all their
    /// senders are named.
    #[error("FROST round 2: invalid share from {culprits:?}")]
    InvalidRound2 { culprits: Vec<ParticipantIndex> },
    /// A chance of 2^-250, or a defect: the sum of honest values has no encoding.
    #[error("FROST key generation failed without a culprit ({0}): start another attempt")]
    Degenerate(String),
}

impl DkgError {
    /// Members that are provably or, for round 2, allegedly at fault.
    #[must_use]
    pub fn culprits(&self) -> Vec<ParticipantIndex> {
        match self {
            Self::InvalidRound1 { culprits } | Self::InvalidRound2 { culprits } => culprits.clone(),
            Self::NotAMember { .. }
            | Self::Missing { .. }
            | Self::Unexpected { .. }
            | Self::Degenerate(_) => Vec::new(),
        }
    }
}

fn degenerate(error: &impl fmt::Display) -> DkgError {
    DkgError::Degenerate(error.to_string())
}

/// The content of a round-1 package.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(bound = "C: Ciphersuite")]
enum Round1Package<C: Ciphersuite> {
    /// Commitments to the 2t+1 coefficients and the proof of knowledge.
    Shared(dkg::round1::Package<C>),
    /// The key of a group of one. No other key can be cancelled by it, so it needs no proof.
    Solo(VerifyingKey<C>),
}

impl<C: Ciphersuite> Wire for Round1Package<C> {
    const NAME: &'static str = "FROST round-1 package";
    const MAX_BYTES: usize = 1024;
}

/// Entry point of key generation.
#[derive(Debug)]
pub struct Dkg<C: Ciphersuite = EvmSuite>(PhantomData<C>);

impl<C: Ciphersuite> Dkg<C> {
    /// Step 1. The bytes are the public round-1 package, for all other members.
    ///
    /// # Errors
    /// [`DkgError::NotAMember`].
    pub fn start<R: RngCore + CryptoRng>(
        committee: Committee,
        index: ParticipantIndex,
        rng: &mut R,
    ) -> Result<(Round1Secret<C>, Vec<u8>), DkgError> {
        check_member(committee, index)?;
        let (secret, package) = if committee.n() == 1 {
            let key = SigningKey::new(rng);
            let public = Round1Package::Solo(VerifyingKey::from(&key));
            let scalar = Zeroizing::new(key.serialize());
            (Secret::Solo(SigningShare::deserialize(&scalar).map_err(|e| degenerate(&e))?), public)
        } else {
            let (secret, package) =
                dkg::part1(identifier(index), committee.n() as u16, min_signers(committee), rng)
                    .map_err(|e| degenerate(&e))?;
            (Secret::Shared(secret), Round1Package::Shared(package))
        };
        Ok((Round1Secret { committee, index, secret }, package.to_wire()))
    }
}

enum Secret<C: Ciphersuite, P> {
    Shared(P),
    Solo(SigningShare<C>),
}

impl<C: Ciphersuite, P> Secret<C, P> {
    /// `SigningShare` is `Copy` and has no destructor of its own.
    fn erase(&mut self) {
        if let Self::Solo(share) = self {
            zeroize::Zeroize::zeroize(share);
        }
    }
}

/// A member between steps 1 and 2.
///
/// # Security
/// Holds the secret polynomial; zeroized on drop, never printed.
pub struct Round1Secret<C: Ciphersuite = EvmSuite> {
    committee: Committee,
    index: ParticipantIndex,
    secret: Secret<C, dkg::round1::SecretPackage<C>>,
}

/// A member between steps 2 and 3.
///
/// # Security
/// Holds its own point of its polynomial; zeroized on drop, never printed.
pub struct Round2Secret<C: Ciphersuite = EvmSuite> {
    committee: Committee,
    index: ParticipantIndex,
    secret: Secret<C, dkg::round2::SecretPackage<C>>,
    round1: Packages<dkg::round1::Package<C>>,
}

impl<C: Ciphersuite> Round1Secret<C> {
    /// Step 2: takes the round-1 packages of all other members, gives the round-2 package of each.
    ///
    /// # Errors
    /// [`DkgError::Missing`], [`DkgError::Unexpected`]; [`DkgError::InvalidRound1`] names every
    /// sender whose package fails, not only the first.
    pub fn receive(
        self,
        packages: &Packages,
    ) -> Result<(Round2Secret<C>, Packages<SecretPackage>), DkgError> {
        let (committee, index) = (self.committee, self.index);
        check_senders(committee, Some(index), 1, packages)?;
        let round1 = shared(read_round1(committee, packages)?);
        let (secret, outgoing) = match &self.secret {
            Secret::Solo(share) => (Secret::Solo(*share), BTreeMap::new()),
            Secret::Shared(polynomial) => {
                let (secret, outgoing) = dkg::part2(polynomial.clone(), &by_identifier(&round1))
                    .map_err(|e| degenerate(&e))?;
                (Secret::Shared(secret), outgoing)
            }
        };
        let outgoing = others(committee, index).filter_map(|to| {
            let package = outgoing.get(&identifier(to))?;
            let scalar = Zeroizing::new(package.signing_share().serialize());
            let mut bytes = Zeroizing::new(Vec::with_capacity(1 + scalar.len()));
            bytes.push(ROUND2_VERSION);
            bytes.extend_from_slice(&scalar);
            Some((to, bytes))
        });
        let outgoing = outgoing.collect();
        Ok((Round2Secret { committee, index, secret, round1 }, outgoing))
    }
}

impl<C: Ciphersuite> Round2Secret<C> {
    /// Step 3: takes the round-2 packages that all other members sent to this one.
    ///
    /// # Errors
    /// [`DkgError::Missing`], [`DkgError::Unexpected`]; [`DkgError::InvalidRound2`] names every
    /// sender whose share fails, not only the first.
    pub fn finish(self, packages: &Packages<SecretPackage>) -> Result<GroupKeyShare<C>, DkgError> {
        let (committee, index) = (self.committee, self.index);
        check_senders(committee, Some(index), 2, packages)?;
        let share = match &self.secret {
            Secret::Solo(share) => {
                let key = VerifyingKey::deserialize(&solo_bytes(*share)?);
                let public = key
                    .map_err(|e| degenerate(&e))
                    .and_then(|key| GroupPublicKey::solo(key).map_err(|e| degenerate(&e)))?;
                GroupKeyShare::from_parts(index, *share, public).map_err(|e| degenerate(&e))?
            }
            Secret::Shared(secret) => {
                let mut round2 = BTreeMap::new();
                let mut culprits = Vec::new();
                for (&from, bytes) in packages {
                    match self.round1.get(&from).and_then(|round1| open(round1, index, bytes)) {
                        Some(share) => {
                            let package = dkg::round2::Package::new(share);
                            round2.insert(identifier(from), package);
                        }
                        None => culprits.push(from),
                    }
                }
                if !culprits.is_empty() {
                    return Err(DkgError::InvalidRound2 { culprits });
                }
                let (key, public) = dkg::part3(secret, &by_identifier(&self.round1), &round2)
                    .map_err(|e| degenerate(&e))?;
                let public = GroupPublicKey::from_package(committee, public);
                let public = public.map_err(|e| degenerate(&e))?;
                GroupKeyShare::from_parts(index, *key.signing_share(), public)
                    .map_err(|e| degenerate(&e))?
            }
        };
        Ok(share)
    }
}

/// The group key that round-1 packages of all n members make, for those who check a transcript.
///
/// # Errors
/// As [`Round1Secret::receive`].
pub fn group_public_key<C: Ciphersuite>(
    committee: Committee,
    packages: &Packages,
) -> Result<GroupPublicKey<C>, DkgError> {
    check_senders(committee, None, 1, packages)?;
    let packages = read_round1::<C>(committee, packages)?;
    if let Some(Round1Package::Solo(key)) = packages.values().next() {
        return GroupPublicKey::solo(*key).map_err(|e| degenerate(&e));
    }
    let packages = shared(packages);
    let commitments = packages.iter().map(|(&i, package)| (identifier(i), package.commitment()));
    let package = PublicKeyPackage::from_dkg_commitments(&commitments.collect());
    let package = package.map_err(|e| degenerate(&e))?;
    GroupPublicKey::from_package(committee, package).map_err(|e| degenerate(&e))
}

/// Whether the round-2 package that `sender` gave `recipient` lies on the polynomial of the
/// sender's round-1 package. Settles a complaint once both are shown with signatures.
///
/// # Errors
/// [`DkgError::InvalidRound1`] or [`DkgError::InvalidRound2`] naming the sender;
/// [`DkgError::NotAMember`].
pub fn verify_round2<C: Ciphersuite>(
    committee: Committee,
    sender: ParticipantIndex,
    recipient: ParticipantIndex,
    round1: &[u8],
    round2: &[u8],
) -> Result<(), DkgError> {
    check_member(committee, sender)?;
    check_member(committee, recipient)?;
    let round1 = shared(read_round1::<C>(committee, &[(sender, round1.to_vec())].into())?);
    match round1.get(&sender).and_then(|round1| open(round1, recipient, round2)) {
        Some(_) => Ok(()),
        None => Err(DkgError::InvalidRound2 { culprits: vec![sender] }),
    }
}

fn check_member(committee: Committee, index: ParticipantIndex) -> Result<(), DkgError> {
    if committee.contains(index) { Ok(()) } else { Err(DkgError::NotAMember { index, committee }) }
}

fn others(committee: Committee, me: ParticipantIndex) -> impl Iterator<Item = ParticipantIndex> {
    committee.participants().filter(move |&i| i != me)
}

/// Exactly one package from every member but `me`.
fn check_senders<T>(
    committee: Committee,
    me: Option<ParticipantIndex>,
    round: u8,
    packages: &Packages<T>,
) -> Result<(), DkgError> {
    let expected = |i: ParticipantIndex| committee.contains(i) && Some(i) != me;
    let from: Vec<_> = packages.keys().copied().filter(|&i| !expected(i)).collect();
    if !from.is_empty() {
        return Err(DkgError::Unexpected { round, from });
    }
    let outstanding = |i: &ParticipantIndex| Some(*i) != me && !packages.contains_key(i);
    let from: Vec<_> = committee.participants().filter(outstanding).collect();
    if from.is_empty() { Ok(()) } else { Err(DkgError::Missing { round, from }) }
}

/// Parses and checks each package on its own, so that all culprits are named.
fn read_round1<C: Ciphersuite>(
    committee: Committee,
    packages: &Packages,
) -> Result<Packages<Round1Package<C>>, DkgError> {
    let mut valid = BTreeMap::new();
    let mut culprits = Vec::new();
    for (&from, bytes) in packages {
        match Round1Package::from_wire(bytes) {
            Ok(Round1Package::Shared(package)) if proof_holds(committee, from, &package) => {
                valid.insert(from, Round1Package::Shared(package));
            }
            Ok(Round1Package::Solo(key)) if committee.n() == 1 => {
                valid.insert(from, Round1Package::Solo(key));
            }
            Ok(_) | Err(_) => culprits.push(from),
        }
    }
    if culprits.is_empty() { Ok(valid) } else { Err(DkgError::InvalidRound1 { culprits }) }
}

/// Round 1, step 5 of the paper: "Upon receiving C_l, sigma_l from participants 1 <= l <= n,
/// l != i, participant P_i verifies sigma_l = (R_l, mu_l), aborting on failure". Also that the
/// polynomial has degree 2t: one of higher degree would raise the threshold for everybody.
///
/// `part2` stops at the first bad proof; run against a zero polynomial it checks a single one.
fn proof_holds<C: Ciphersuite>(
    committee: Committee,
    sender: ParticipantIndex,
    package: &dkg::round1::Package<C>,
) -> bool {
    let degree_2t = |coefficients: Vec<_>| coefficients.len() == min_signers(committee) as usize;
    if !package.commitment().serialize().is_ok_and(degree_2t) {
        return false;
    }
    let Some(verifier) = others(committee, sender).next() else { return false };
    let zero = <<C::Group as Group>::Field as Field>::zero();
    let zeros = vec![zero; min_signers(committee) as usize];
    let commitment = package.commitment().clone();
    let zero_polynomial = dkg::round1::SecretPackage::new(
        identifier(verifier),
        zeros,
        commitment,
        min_signers(committee),
        2,
    );
    dkg::part2(zero_polynomial, &[(identifier(sender), package.clone())].into()).is_ok()
}

/// Round 2, step 2 of the paper: "Each P_i verifies their shares by calculating
/// g^{f_l(i)} = prod_k phi_lk^{i^k mod q}, aborting if the check fails."
fn open<C: Ciphersuite>(
    round1: &dkg::round1::Package<C>,
    recipient: ParticipantIndex,
    bytes: &[u8],
) -> Option<SigningShare<C>> {
    let (&version, scalar) = bytes.split_first()?;
    if version != ROUND2_VERSION || bytes.len() > MAX_ROUND2_BYTES {
        return None;
    }
    let share = SigningShare::deserialize(scalar).ok()?;
    let claim = SecretShare::new(identifier(recipient), share, round1.commitment().clone());
    claim.verify().ok().map(|_| share)
}

fn shared<C: Ciphersuite>(
    packages: Packages<Round1Package<C>>,
) -> Packages<dkg::round1::Package<C>> {
    let only_shared = |(i, package)| match package {
        Round1Package::Shared(package) => Some((i, package)),
        Round1Package::Solo(_) => None,
    };
    packages.into_iter().filter_map(only_shared).collect()
}

fn by_identifier<C: Ciphersuite, T: Clone>(
    packages: &Packages<T>,
) -> BTreeMap<frost_core::Identifier<C>, T> {
    packages.iter().map(|(&i, package)| (identifier(i), package.clone())).collect()
}

fn solo_bytes<C: Ciphersuite>(share: SigningShare<C>) -> Result<Vec<u8>, DkgError> {
    frost_core::keys::VerifyingShare::from(share).serialize().map_err(|e| degenerate(&e))
}

macro_rules! redacted {
    ($($name:ident),*) => {$(
        impl<C: Ciphersuite> fmt::Debug for $name<C> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let (index, committee) = (self.index, self.committee);
                write!(f, concat!(stringify!($name), "(member {} of {}, <redacted>)"), index, committee)
            }
        }

        impl<C: Ciphersuite> Drop for $name<C> {
            fn drop(&mut self) {
                self.secret.erase();
            }
        }
    )*};
}
redacted!(Round1Secret, Round2Secret);

#[cfg(test)]
mod tests;
