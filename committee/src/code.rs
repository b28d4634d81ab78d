//! The shares of a polynomial at the participants' points are a word of a Reed-Solomon code over
//! the Galois ring. [`Opening`] detects that a word of all n shares is not one (the masked open of
//! `ceremony.md` section 3); [`decode`] finds the value in spite of wrong and missing shares and says
//! whose were wrong (`decryption.md`).

use veil_protocol_spec::{Committee, ParticipantIndex};

use crate::{
    ring::{Element, Word},
    shamir::lagrange,
};

/// Opens values shared at a fixed degree from the shares of **all** participants, and checks that
/// they lie on one polynomial of that degree. With n >= 3t+1 and degree 2t the honest shares alone
/// fix the polynomial, so up to t wrong shares are always detected, and whether they are depends on
/// the errors only, not on the secret.
#[derive(Clone, Debug)]
pub struct Opening<W, const D: usize> {
    at_zero: Vec<Element<W, D>>,
    at_others: Vec<Vec<Element<W, D>>>,
}

/// The shares do not lie on one polynomial of the expected degree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the shares do not lie on one polynomial of the expected degree")]
pub struct Inconsistent;

impl<W: Word, const D: usize> Opening<W, D> {
    /// For polynomials of degree `degree` < n.
    #[must_use]
    pub fn new(committee: Committee, degree: usize) -> Self {
        let points: Vec<_> = committee.participants().map(Element::point).collect();
        let (fixing, others) = points.split_at(degree + 1);
        Self {
            at_zero: lagrange(fixing, Element::ZERO()),
            at_others: others.iter().map(|at| lagrange(fixing, *at)).collect(),
        }
    }

    /// The value at 0. `shares` are those of all participants in order.
    ///
    /// # Errors
    /// [`Inconsistent`] if they lie on no polynomial of the degree (or are not n).
    #[inline]
    pub fn open(&self, shares: &[Element<W, D>]) -> Result<Element<W, D>, Inconsistent> {
        if shares.len() != self.at_zero.len() + self.at_others.len() {
            return Err(Inconsistent);
        }
        let (fixing, others) = shares.split_at(self.at_zero.len());
        for (coefficients, share) in self.at_others.iter().zip(others) {
            if dot(coefficients, fixing) != *share {
                return Err(Inconsistent);
            }
        }
        Ok(dot(&self.at_zero, fixing))
    }
}

#[inline(always)]
fn dot<W: Word, const D: usize>(a: &[Element<W, D>], b: &[Element<W, D>]) -> Element<W, D> {
    let mut sum = Element::ZERO();
    for (x, y) in a.iter().zip(b) {
        sum += *x * *y;
    }
    sum
}

/// A value decoded from shares some of which may be wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decoded<W, const D: usize> {
    /// The polynomial's value at 0.
    pub value: Element<W, D>,
    /// Participants whose share was not on the polynomial, ascending.
    pub wrong: Vec<ParticipantIndex>,
}

/// Too few shares agree so far; more may still arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no 2t+1 = {needed} of the {received} shares received agree")]
pub struct NotYet {
    /// Shares that must agree, 2t+1.
    pub needed: usize,
    /// Distinct shares given.
    pub received: usize,
}

/// Finds the polynomial of degree t on which at least 2t+1 of the given shares lie. It is unique
/// and the right one: t+1 of them are honest. Shares may come in any order; of two by the same
/// participant the first counts.
///
/// The common case, all shares right, costs one interpolation and a check per further share. Errors
/// are located by lifting: the word modulo 2 is a Reed-Solomon word over the field of 2^D elements,
/// decoded by Berlekamp-Welch; positions it names are struck out; the codeword of the lifted
/// residue polynomial is subtracted, what remains on the other positions is even and is halved, and
/// so on for all k bits. An error that first shows in bit i is struck out at step i.
///
/// # Errors
/// [`NotYet`] when fewer than 2t+1 shares lie on one polynomial.
pub fn decode<W: Word, const D: usize>(
    committee: Committee,
    shares: &[(ParticipantIndex, Element<W, D>)],
) -> Result<Decoded<W, D>, NotYet> {
    let needed = committee.signing_threshold().get();
    let degree = committee.max_faulty().get();
    let mut distinct: Vec<(ParticipantIndex, Element<W, D>)> = Vec::with_capacity(shares.len());
    for share in shares {
        if committee.contains(share.0) && distinct.iter().all(|(j, _)| *j != share.0) {
            distinct.push(*share);
        }
    }
    let not_yet = NotYet { needed, received: distinct.len() };
    if distinct.len() < needed {
        return Err(not_yet);
    }
    agreeing_with(&distinct, &distinct[..=degree], needed)
        .or_else(|| {
            let trusted = locate(&distinct, degree)?;
            agreeing_with(&distinct, &trusted[..=degree], needed)
        })
        .ok_or(not_yet)
}

/// The polynomial through `fixing`, if at least `needed` of `shares` lie on it.
fn agreeing_with<W: Word, const D: usize>(
    shares: &[(ParticipantIndex, Element<W, D>)],
    fixing: &[(ParticipantIndex, Element<W, D>)],
    needed: usize,
) -> Option<Decoded<W, D>> {
    let points: Vec<_> = fixing.iter().map(|(j, _)| Element::point(*j)).collect();
    let values: Vec<_> = fixing.iter().map(|(_, share)| *share).collect();
    let mut wrong: Vec<_> = shares
        .iter()
        .filter(|(j, share)| dot(&lagrange(&points, Element::point(*j)), &values) != *share)
        .map(|(j, _)| *j)
        .collect();
    if shares.len() - wrong.len() < needed {
        return None;
    }
    wrong.sort_unstable();
    Some(Decoded { value: dot(&lagrange(&points, Element::ZERO()), &values), wrong })
}

/// The shares that no bit gives reason to distrust; at least degree+1 of them, or `None`.
fn locate<W: Word, const D: usize>(
    shares: &[(ParticipantIndex, Element<W, D>)],
    degree: usize,
) -> Option<Vec<(ParticipantIndex, Element<W, D>)>> {
    // What remains of each trusted share: its higher bits minus those of the polynomial so far.
    let mut trusted: Vec<(ParticipantIndex, Element<W, D>, Element<W, D>)> =
        shares.iter().map(|(j, share)| (*j, *share, *share)).collect();
    for _ in 0..W::BITS {
        let field = field::Field::<D>;
        let points: Vec<u8> = trusted.iter().map(|(j, ..)| j.get()).collect();
        let residues: Vec<u8> = trusted.iter().map(|(.., rest)| residue(rest)).collect();
        let polynomial = field.decode(&points, &residues, degree)?;
        // The digit of the polynomial at this bit, lifted with 0/1 coefficients.
        let lifted: Vec<Element<W, D>> =
            polynomial.iter().map(|c| Element::exceptional(*c)).collect();
        trusted.retain_mut(|(j, _, rest)| {
            let x = Element::point(*j);
            *rest -= lifted.iter().rev().fold(Element::ZERO(), |acc, c| acc * x + *c);
            let even = !rest.is_unit();
            *rest = rest.halve();
            even
        });
        if trusted.len() <= degree {
            return None;
        }
    }
    Some(trusted.into_iter().map(|(j, share, _)| (j, share)).collect())
}

/// Modulo 2, as bits.
fn residue<W: Word, const D: usize>(element: &Element<W, D>) -> u8 {
    element.0.iter().rev().fold(0, |bits, c| bits << 1 | (c.widen() & 1) as u8)
}

/// Reed-Solomon decoding over the residue field of 2^D elements.
mod field {
    pub(super) struct Field<const D: usize>;

    impl<const D: usize> Field<D> {
        fn mul(&self, a: u8, b: u8) -> u8 {
            let mut product = 0u8;
            let mut shifted = a;
            for bit in 0..D {
                if b >> bit & 1 == 1 {
                    product ^= shifted;
                }
                // times X: X^D = X + 1 modulo 2 (X = 0 for D = 1)
                let carry = shifted >> (D - 1) & 1 == 1;
                shifted = shifted << 1 & ((1 << D) - 1);
                if carry && D > 1 {
                    shifted ^= 0b11;
                }
            }
            product
        }

        fn inverse(&self, a: u8) -> Option<u8> {
            (1..1u8 << D).find(|b| self.mul(a, *b) == 1)
        }

        fn evaluate(&self, polynomial: &[u8], x: u8) -> u8 {
            polynomial.iter().rev().fold(0, |acc, c| self.mul(acc, x) ^ c)
        }

        /// Berlekamp-Welch: the polynomial of degree at most `degree` that differs from `values` in
        /// at most (len - degree - 1) / 2 of the `points`, coefficients of 1, X, .. first.
        pub(super) fn decode(
            &self,
            points: &[u8],
            values: &[u8],
            degree: usize,
        ) -> Option<Vec<u8>> {
            let most = points.len().checked_sub(degree + 1)? / 2;
            (0..=most).find_map(|errors| self.decode_exactly(points, values, degree, errors))
        }

        /// Solves Q(x) = y E(x) at all points, E monic of degree `errors`, deg Q <= degree+errors;
        /// the polynomial is Q / E.
        fn decode_exactly(
            &self,
            points: &[u8],
            values: &[u8],
            degree: usize,
            errors: usize,
        ) -> Option<Vec<u8>> {
            let unknowns_q = degree + errors + 1;
            let unknowns = unknowns_q + errors;
            let mut rows: Vec<Vec<u8>> = points
                .iter()
                .zip(values)
                .map(|(x, y)| {
                    let mut powers = vec![1u8; unknowns_q.max(errors + 1)];
                    for i in 1..powers.len() {
                        powers[i] = self.mul(powers[i - 1], *x);
                    }
                    let mut row: Vec<u8> = powers[..unknowns_q].to_vec();
                    row.extend(powers[..errors].iter().map(|p| self.mul(*y, *p)));
                    row.push(self.mul(*y, powers[errors]));
                    row
                })
                .collect();
            let solution = self.solve(&mut rows, unknowns)?;
            let (q, e) = solution.split_at(unknowns_q);
            let mut locator = e.to_vec();
            locator.push(1);
            let polynomial = self.divide(q, &locator)?;
            let wrong = points
                .iter()
                .zip(values)
                .filter(|(x, y)| self.evaluate(&polynomial, **x) != **y)
                .count();
            (wrong <= errors).then_some(polynomial)
        }

        /// Gaussian elimination; free unknowns are zero; `None` if there is no solution.
        fn solve(&self, rows: &mut [Vec<u8>], unknowns: usize) -> Option<Vec<u8>> {
            let mut pivots = Vec::new();
            let mut next = 0;
            for column in 0..unknowns {
                let Some(found) = (next..rows.len()).find(|r| rows[*r][column] != 0) else {
                    continue;
                };
                rows.swap(next, found);
                let scale = self.inverse(rows[next][column])?;
                rows[next].iter_mut().for_each(|v| *v = self.mul(*v, scale));
                let pivot = rows[next].clone();
                for (r, row) in rows.iter_mut().enumerate() {
                    let factor = row[column];
                    if r != next && factor != 0 {
                        row.iter_mut().zip(&pivot).for_each(|(v, p)| *v ^= self.mul(factor, *p));
                    }
                }
                pivots.push(column);
                next += 1;
            }
            if rows[next..].iter().any(|row| row[unknowns] != 0) {
                return None;
            }
            let mut solution = vec![0; unknowns];
            for (row, column) in rows.iter().zip(pivots) {
                solution[column] = row[unknowns];
            }
            Some(solution)
        }

        /// The quotient, if the monic divisor leaves no remainder.
        fn divide(&self, dividend: &[u8], divisor: &[u8]) -> Option<Vec<u8>> {
            let mut rest = dividend.to_vec();
            let steps = rest.len() + 1 - divisor.len();
            let mut quotient = vec![0; steps];
            for at in (0..steps).rev() {
                let factor = rest[at + divisor.len() - 1];
                quotient[at] = factor;
                for (i, d) in divisor.iter().enumerate() {
                    rest[at + i] ^= self.mul(factor, *d);
                }
            }
            rest.iter().all(|r| *r == 0).then_some(quotient)
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::{RngCore, SeedableRng, seq::SliceRandom};
    use rand_chacha::ChaCha20Rng;

    use super::*;
    use crate::{
        shamir::{random_element, share},
        with_degree,
    };

    /// A nonzero error; `even` ones vanish modulo 2^shift, which only lifting finds.
    fn error<const D: usize>(rng: &mut ChaCha20Rng) -> Element<u128, D> {
        let mut unit = random_element::<u128, D>(rng);
        unit.0[0] |= 1;
        unit.shift(*[0, 1, 64, 127].choose(rng).unwrap())
    }

    proptest! {
        #[test]
        fn t_wrong_shares_are_corrected_and_named(seed: u64, which in 0usize..5, missing in 0usize..5) {
            let committee = Committee::ALL[which];
            with_degree!(committee, D => {
                let mut rng = ChaCha20Rng::seed_from_u64(seed);
                let t = committee.max_faulty().get();
                let missing = missing.min(t);
                let secret = random_element::<u128, D>(&mut rng);
                let mut shares: Vec<_> =
                    committee.participants().zip(share(secret, t, committee, &mut rng)).collect();
                shares.shuffle(&mut rng);
                shares.truncate(committee.n() - missing);
                // With e wrong shares, 2t+1 right ones must be there.
                let mut wrong: Vec<_> = shares[..t - missing].iter().map(|(j, _)| *j).collect();
                for (_, share) in &mut shares[..t - missing] {
                    *share += error(&mut rng);
                }
                shares.shuffle(&mut rng);
                wrong.sort_unstable();
                prop_assert_eq!(decode(committee, &shares), Ok(Decoded { value: secret, wrong }));
            });
        }

        #[test]
        fn t_wrong_shares_of_degree_2t_are_always_detected(seed: u64, which in 1usize..5) {
            let committee = Committee::ALL[which];
            with_degree!(committee, D => {
                let mut rng = ChaCha20Rng::seed_from_u64(seed);
                let t = committee.max_faulty().get();
                let secret = random_element::<u128, D>(&mut rng);
                let mut shares = share(secret, 2 * t, committee, &mut rng);
                let opening = Opening::new(committee, 2 * t);
                prop_assert_eq!(opening.open(&shares), Ok(secret));
                let culprits = 1 + rng.next_u64() as usize % t;
                let start = rng.next_u64() as usize % committee.n();
                for i in 0..culprits {
                    shares[(start + i) % committee.n()] += error(&mut rng);
                }
                prop_assert_eq!(opening.open(&shares), Err(Inconsistent));
            });
        }
    }

    #[test]
    fn no_value_from_fewer_than_2t_plus_1_agreeing_shares() {
        let committee = Committee::new(7).unwrap();
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let secret = random_element::<u128, 3>(&mut rng);
        let mut shares: Vec<_> =
            committee.participants().zip(share(secret, 2, committee, &mut rng)).collect();
        let twice = [shares[0]; 7];
        assert_eq!(decode(committee, &twice), Err(NotYet { needed: 5, received: 1 }));
        assert!(decode(committee, &shares[..4]).is_err());
        for (_, share) in &mut shares[..3] {
            *share += error(&mut rng);
        }
        assert!(decode(committee, &shares).is_err());
    }
}
