//! Shamir sharing over a Galois ring: secret at 0, participant j's share at alpha_j.

use rand::RngCore;
use veil_protocol_spec::{Committee, ParticipantIndex};

use crate::{
    ring::{Element, Word},
    subsets::MemberSet,
};

/// A uniform ring element.
pub fn random_element<W: Word, const D: usize>(rng: &mut impl RngCore) -> Element<W, D> {
    Element(core::array::from_fn(|_| {
        W::truncate(u128::from(rng.next_u64()) | u128::from(rng.next_u64()) << 64)
    }))
}

/// Shares of `secret` for all participants on a uniform polynomial of the given degree, in order.
///
/// In the ceremony nobody deals: this is for tests, the designated decryptor and resharing.
pub fn share<W: Word, const D: usize>(
    secret: Element<W, D>,
    degree: usize,
    committee: Committee,
    rng: &mut impl RngCore,
) -> Vec<Element<W, D>> {
    let coefficients: Vec<_> = (0..degree).map(|_| random_element(rng)).collect();
    committee
        .participants()
        .map(|j| {
            let x = Element::point(j);
            let masked = coefficients.iter().rev().fold(Element::ZERO(), |acc, &c| (acc + c) * x);
            secret + masked
        })
        .collect()
}

/// Lagrange coefficients l_j with f(`at`) = sum l_j f(points_j) for every f of degree below
/// `points.len()`.
///
/// # Panics
/// If two points are equal modulo 2; exceptional points never are.
#[must_use]
pub fn lagrange<W: Word, const D: usize>(
    points: &[Element<W, D>],
    at: Element<W, D>,
) -> Vec<Element<W, D>> {
    points
        .iter()
        .enumerate()
        .map(|(j, &x_j)| {
            let others = points.iter().enumerate().filter(|(i, _)| *i != j);
            let (numerator, denominator) = others
                .fold((Element::ONE(), Element::ONE()), |(num, den), (_, &x_i)| {
                    (num * (at - x_i), den * (x_j - x_i))
                });
            numerator * denominator.inverse().expect("points are distinct modulo 2")
        })
        .collect()
}

/// The value at 0 of the polynomial through the given shares.
#[must_use]
pub fn interpolate<W: Word, const D: usize>(
    shares: &[(ParticipantIndex, Element<W, D>)],
) -> Element<W, D> {
    let points: Vec<_> = shares.iter().map(|(j, _)| Element::point(*j)).collect();
    lagrange(&points, Element::ZERO()).into_iter().zip(shares).map(|(l, (_, s))| l * *s).sum()
}

/// The product of x - alpha_i over every participant i outside `members`.
fn outside<W: Word, const D: usize>(
    committee: Committee,
    members: MemberSet,
    x: Element<W, D>,
) -> Element<W, D> {
    let others = committee.participants().filter(|i| !members.contains(*i));
    others.fold(Element::ONE(), |product, i| product * (x - Element::point(i)))
}

/// The polynomial with value 1 at 0 and value 0 at every participant outside `members`, evaluated
/// at participant `at`: f_A of `ceremony.md` section 2 (and f_G), degree n - |members|.
#[must_use]
pub fn indicator<W: Word, const D: usize>(
    committee: Committee,
    members: MemberSet,
    at: ParticipantIndex,
) -> Element<W, D> {
    let at_zero = outside(committee, members, Element::ZERO());
    let scale: Element<W, D> = at_zero.inverse().expect("participants' points are units");
    outside(committee, members, Element::point(at)) * scale
}

/// x times the product of x - alpha_i over every participant i outside `members`, at alpha_`at`: z_G
/// of `ceremony.md` section 2. It is zero at 0 and at every participant outside; its degree is
/// n + 1 - |members|.
#[must_use]
pub fn vanishing<W: Word, const D: usize>(
    committee: Committee,
    members: MemberSet,
    at: ParticipantIndex,
) -> Element<W, D> {
    let x = Element::point(at);
    x * outside(committee, members, x)
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand_chacha::ChaCha20Rng;

    use super::*;
    use crate::with_degree;

    #[test]
    fn any_degree_plus_one_shares_give_the_secret() {
        for committee in Committee::ALL {
            with_degree!(committee, D => {
                let mut rng = ChaCha20Rng::seed_from_u64(committee.n() as u64);
                let t = committee.max_faulty().get();
                for degree in [t, 2 * t] {
                    let secret = random_element::<u128, D>(&mut rng);
                    let shares: Vec<_> = committee
                        .participants()
                        .zip(share(secret, degree, committee, &mut rng))
                        .collect();
                    for window in shares.windows(degree + 1) {
                        assert_eq!(interpolate(window), secret);
                    }
                    if degree > 0 {
                        assert_ne!(interpolate(&shares[..degree]), secret);
                    }
                }
            });
        }
    }
}
