//! The winner of an auction: the highest of encrypted bids of 16 bits, the first of equals.
//!
//! # Digits
//! A bid arrives as a proven list of 4 digits of 4 bits ([`crate::encrypt_bid`]). It is compared by
//! five: the upper 4 bits, and 3 bits four times. Its expansion, before the auction closes, makes
//! these from the list, and of each a quarter: 15 look-ups, counted apart.
//!
//! # A match
//! 1. Borrows from the lowest digit up say who won: 5 look-ups, 4 in the first round, where the
//!    digits of the list are at hand. The left one wins a tie.
//! 2. One look-up chooses a digit. With s the scale of a digit, s * a + s * b plus or minus
//!    s * (a - b) is 2 * s times the winner's. The difference of 3 bits, moved up by 15 if the left
//!    one won, is where a negacyclic table can turn its sign; of the upper digit it is the absolute
//!    value, which needs no selector. So the scale doubles with every round, from 1/4 on, and a
//!    look-up brings it back where a comparison would not find it any more.
//! 3. The winner's number goes along. Two rounds are one digit of 2 bits: three outcomes, weighted
//!    1, 2 and 4, give it in one look-up; later rounds choose it in one.

use rayon::prelude::*;
use veil_protocol_spec::Blake3Digest;

use veil_scheduler_plan::{
    circuit::{
        digit::{Digit, Value},
        in_clear::Clear,
        lookup::Circuit,
        table::Table,
    },
    cost::Cost,
};

use crate::{
    encrypted::{Encrypted, EncryptedDigit},
    key::EvaluationKey,
    outputs::Outputs,
};

/// Most bids in an auction: numbers of two digits.
pub const MAX_BIDS: usize = 255;
/// The selector of the left one.
const WON: i64 = 15;
/// Digits of 3 bits.
const LOW: usize = 4;

/// Why there is no winner.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "each message says what its fields are")]
pub enum AuctionError {
    /// There is no bid.
    #[error("there is no bid to choose from")]
    NoBid,
    /// There are more bids than the circuit can number.
    #[error("{0} bids: an auction takes at most {MAX_BIDS}")]
    TooMany(usize),
    /// A bid, counted from 0, is expanded under another key set.
    #[error("bid {position} was expanded under key {found}, the evaluation key is {expected}")]
    OtherKey { position: usize, found: Blake3Digest, expected: Blake3Digest },
    /// Decrypted blocks are not the number of a bid.
    #[error("decrypted blocks {0:?} are no number of a bid: wrong request decrypted?")]
    NoSuchBid(Vec<u8>),
}

/// A bid under an evaluation key, from a list whose proof holds.
pub struct EncryptedBid {
    key: Blake3Digest,
    contender: Contender<Encrypted>,
}

impl core::fmt::Debug for EncryptedBid {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "EncryptedBid(under {})", self.key)
    }
}

impl EncryptedBid {
    /// Look-ups of an expansion, 4 of them the switch to the evaluation key.
    pub const EXPANSION_LOOK_UPS: u64 = 15;

    pub(crate) fn new(
        key: Blake3Digest,
        digits: [EncryptedDigit; 4],
        circuit: &Circuit<'_, Encrypted>,
    ) -> Self {
        Self { key, contender: Contender::new(digits, circuit) }
    }

    /// The [`EvaluationKey::id`] it was expanded under.
    #[must_use]
    pub const fn key(&self) -> Blake3Digest {
        self.key
    }
}

/// A digit of a bid, and the scale it has: a quarter doubled so often.
#[derive(Clone)]
struct Part<V> {
    scaled: Digit<V>,
    doublings: u32,
    /// In whole steps.
    whole: Digit<V>,
}

impl<V: Value> Part<V> {
    /// Eighths of a step that 1 is worth.
    const fn scale(&self) -> i64 {
        2 << self.doublings
    }

    /// A quarter of `whole`, which is itself taken over.
    fn quarter(circuit: &Circuit<'_, V>, whole: Digit<V>) -> Self {
        Self::of(circuit, whole, 0)
    }

    fn of(circuit: &Circuit<'_, V>, whole: Digit<V>, doublings: u32) -> Self {
        let scaled = circuit.look_up(&whole, &Table::eighths(|x| x * (2 << doublings)));
        Self { scaled, doublings, whole }
    }

    /// At a scale of a half or 1.
    fn scaled(scaled: Digit<V>, doublings: u32) -> Self {
        let whole = if doublings == 1 { scaled.times(2) } else { scaled.clone() };
        Self { scaled, doublings, whole }
    }

    /// Through a round without a match. `low` is 3 bits.
    fn pass(self, circuit: &Circuit<'_, V>, low: bool, last: bool) -> Self {
        match (self.doublings, low) {
            _ if last => self,
            (0, _) => {
                let of = Self::of(circuit, self.whole, 1);
                Self::scaled(of.scaled, 1)
            }
            (1, true) => Self::scaled(self.scaled.times(2), 2),
            _ => Self::quarter(circuit, self.whole),
        }
    }
}

#[derive(Clone)]
struct Contender<V> {
    /// Digits to compare instead of `parts`, the lowest first.
    leaf: Option<[Digit<V>; 4]>,
    /// The lowest first.
    parts: Vec<Part<V>>,
    /// Twice the digits of 2 bits of the position, the lowest first; absent if it is 0.
    index: Vec<Option<Digit<V>>>,
    /// The outcome of a round that is in no digit yet; absent if there was no match.
    outcome: Option<Digit<V>>,
}

impl<V: Value> Contender<V> {
    fn new(digits: [Digit<V>; 4], circuit: &Circuit<'_, V>) -> Self {
        let part = |digit: &Digit<V>, f: fn(i64) -> i64| circuit.look_up(digit, &Table::new(f));
        let [first, second, third, top] = &digits;
        let wholes = [
            part(first, |x| x & 7),
            part(first, |x| x >> 3).plus(&part(second, |x| (x & 3) << 1)),
            part(second, |x| x >> 2).plus(&part(third, |x| (x & 1) << 2)),
            part(third, |x| x >> 1),
            top.clone(),
        ];
        let parts = wholes.into_iter().map(|whole| Part::quarter(circuit, whole)).collect();
        Self { leaf: Some(digits), parts, index: Vec::new(), outcome: None }
    }

    fn pass(self, circuit: &Circuit<'_, V>, odd: bool, last: bool) -> Self {
        let Self { parts, mut index, outcome, .. } = self;
        let parts = parts
            .into_par_iter()
            .enumerate()
            .map(|(position, part)| part.pass(circuit, position < LOW, last))
            .collect();
        if odd {
            index.push(pair(circuit, [outcome.as_ref(), None, None]));
        }
        Self { leaf: None, parts, index, outcome: None }
    }
}

/// The number of the highest bid, from 1, the first of equals winning: two digits of 4 bits, the
/// least significant first, on all cores; with the digest that evaluators compare. `auction` names
/// what they agree on before: the auction, its bids in order, and the circuit.
///
/// # Errors
/// [`AuctionError`] if there are no bids, too many, or bids under another key.
pub fn winner(
    auction: &Blake3Digest,
    bids: &[&EncryptedBid],
    key: &EvaluationKey,
) -> Result<(Outputs, Blake3Digest), AuctionError> {
    let expected = key.id();
    let other = bids.iter().enumerate().find(|(_, bid)| bid.key != expected);
    if let Some((position, bid)) = other {
        return Err(AuctionError::OtherKey { position, found: bid.key, expected });
    }
    let circuit = Circuit::new(key);
    let contenders = bids.iter().map(|bid| bid.contender.clone()).collect();
    let digits = run(&circuit, contenders)?;
    let outputs = Outputs::new(expected, digits.into(), circuit.cost());
    let digest = outputs.digest_under(auction);
    Ok((outputs, digest))
}

/// The look-ups that the winner of `bids` bids takes, without those of the expansions.
///
/// # Errors
/// [`AuctionError`] if there are none or too many.
pub fn cost(bids: usize) -> Result<Cost, AuctionError> {
    if bids > MAX_BIDS {
        return Err(AuctionError::TooMany(bids));
    }
    let circuit = Circuit::in_clear();
    run(&circuit, (0..bids).map(|_| in_clear(0)).collect())?;
    Ok(circuit.cost())
}

fn in_clear(bid: u16) -> Contender<Clear> {
    let digits = [0, 4, 8, 12].map(|shift| Digit::clear((bid >> shift & 0xf) as u8));
    Contender::new(digits, &Circuit::in_clear())
}

/// The position, from 0, that decrypted blocks stand for, among `bids` bids.
///
/// # Errors
/// [`AuctionError::NoSuchBid`].
pub fn decode(blocks: &[u8], bids: usize) -> Result<usize, AuctionError> {
    let refused = || AuctionError::NoSuchBid(blocks.to_vec());
    let [low @ 0..=15, high @ 0..=15] = *blocks else { return Err(refused()) };
    let number = usize::from(high << 4 | low);
    number.checked_sub(1).filter(|position| *position < bids).ok_or_else(refused)
}

fn run<V: Value>(
    circuit: &Circuit<'_, V>,
    bids: Vec<Contender<V>>,
) -> Result<[Digit<V>; 2], AuctionError> {
    let any = bids.first().ok_or(AuctionError::NoBid)?.parts[LOW].whole.clone();
    if bids.len() > MAX_BIDS {
        return Err(AuctionError::TooMany(bids.len()));
    }
    let mut playing = bids;
    let mut odd = false;
    while playing.len() > 1 {
        let left = playing.len().div_ceil(2);
        playing = playing
            .par_chunks(2)
            .map(|pair| match pair {
                [a, b] => play(circuit, a, b, odd, left),
                _ => pair[0].clone().pass(circuit, odd, left == 2),
            })
            .collect();
        odd = !odd;
    }
    let Some(Contender { mut index, outcome, .. }) = playing.pop() else {
        return Err(AuctionError::NoBid);
    };
    if outcome.is_some() {
        index.push(pair(circuit, [outcome.as_ref(), None, None]));
    }
    let nibble = |position: usize| {
        let part = |position: usize, f: fn(i64) -> i64| {
            let digit = index.get(position)?.as_ref()?;
            Some(circuit.look_up(digit, &Table::new(f)))
        };
        match (part(position, |x| x / 2), part(position + 1, |x| 2 * x)) {
            (Some(low), Some(high)) => Some(low.plus(&high)),
            (low, high) => low.or(high),
        }
    };
    let low = nibble(0).unwrap_or_else(|| circuit.look_up(&any, &Table::new(|_| 0)));
    // From 1.
    let carry = circuit.look_up(&low, &Table::new(|x| (x + 1) >> 4));
    let low = circuit.look_up(&low, &Table::new(|x| (x + 1) & 0xf));
    let high = nibble(2).map_or_else(|| carry.clone(), |high| high.plus(&carry));
    circuit.output(&low);
    circuit.output(&high);
    Ok([low, high])
}

/// The better one; `left` is how many are left after this round.
fn play<V: Value>(
    circuit: &Circuit<'_, V>,
    a: &Contender<V>,
    b: &Contender<V>,
    odd: bool,
    left: usize,
) -> Contender<V> {
    let differences: Vec<_> =
        a.parts.iter().zip(&b.parts).map(|(a, b)| a.whole.minus(&b.whole)).collect();
    let compared: Vec<_> = match (&a.leaf, &b.leaf) {
        (Some(a), Some(b)) => a.iter().zip(b).map(|(a, b)| a.minus(b)).collect(),
        _ => differences.clone(),
    };
    let last = compared.len() - 1;
    let mut borrow: Option<Digit<V>> = None;
    for (position, difference) in compared.iter().enumerate() {
        let rest = borrow.map_or_else(|| difference.clone(), |borrow| difference.minus(&borrow));
        borrow = Some(if position < last {
            circuit.is_negative(&rest)
        } else {
            circuit.scaled_if_negative(&rest, -WON).plus_constant(WON)
        });
    }
    let won = borrow.unwrap_or_else(|| unreachable!("a bid has digits"));
    let parts = if left == 1 {
        Vec::new()
    } else {
        (0..=LOW)
            .into_par_iter()
            .map(|i| {
                let parts = [&a.parts[i], &b.parts[i]];
                choose_part(circuit, parts, &differences[i], &won, i < LOW, left == 2)
            })
            .collect()
    };
    let mut index: Vec<_> = (0..a.index.len())
        .into_par_iter()
        .map(|i| choose_index(circuit, [&a.index[i], &b.index[i]], &won))
        .collect();
    if odd {
        index.push(pair(circuit, [a.outcome.as_ref(), b.outcome.as_ref(), Some(&won)]));
    }
    Contender { leaf: None, parts, index, outcome: (!odd).then_some(won) }
}

fn choose_part<V: Value>(
    circuit: &Circuit<'_, V>,
    [a, b]: [&Part<V>; 2],
    difference: &Digit<V>,
    won: &Digit<V>,
    low: bool,
    last: bool,
) -> Part<V> {
    let scale = a.scale();
    let sum = a.scaled.plus(&b.scaled);
    if !low {
        // |d| - 8 turns its sign with d + 16.
        let larger = circuit.look_up(difference, &Table::eighths(|x| scale * (x - 8)));
        let scaled = sum.plus(&larger).plus_eighths(8 * scale);
        return match a.doublings {
            0 => Part::scaled(scaled, 1),
            _ if last => Part::scaled(scaled, 2),
            _ => Part::quarter(circuit, scaled),
        };
    }
    let points =
        (-7..=7).flat_map(|d| [(d, -scale * d - scale / 2), (d + WON, scale * d - scale / 2)]);
    let chosen = circuit.look_up(&difference.plus(won), &Table::of_points_in_eighths(points));
    let scaled = sum.plus(&chosen).plus_eighths(scale / 2);
    if a.doublings < 2 {
        return Part::scaled(scaled, a.doublings + 1);
    }
    // Twice the digit: between its values there is room for another function.
    let table = Table::eighths(|x| if x % 2 == 0 { 4 * x } else { x - 1 });
    let [whole, scaled] = circuit.look_up_two_apart(1, &scaled, &table);
    Part { scaled, doublings: 0, whole }
}

/// The index digit of the winner.
fn choose_index<V: Value>(
    circuit: &Circuit<'_, V>,
    pair: [&Option<Digit<V>>; 2],
    won: &Digit<V>,
) -> Option<Digit<V>> {
    let difference = match pair {
        [Some(a), Some(b)] => a.minus(b),
        [Some(a), None] => a.clone(),
        [None, Some(b)] => b.subtracted_from(0),
        [None, None] => return None,
    };
    let points = (-3..=3).map(|d| 2 * d).flat_map(|d| [(d, 0), (d + WON, d)]);
    let chosen = circuit.look_up(&difference.plus(won), &Table::of_points(points));
    Some(pair[1].as_ref().map_or_else(|| chosen.clone(), |b| b.plus(&chosen)))
}

/// Twice the digit of 2 bits that two rounds make: the outcomes on the left and on the right, and
/// that between them. A contender without a match is on the left.
fn pair<V: Value>(circuit: &Circuit<'_, V>, outcomes: [Option<&Digit<V>>; 3]) -> Option<Digit<V>> {
    let weights = [1, 2, 4];
    let mut sum: Option<Digit<V>> = None;
    for (outcome, weight) in outcomes.into_iter().zip(weights) {
        if let Some(outcome) = outcome {
            let weighted = outcome.times(weight);
            sum = Some(sum.map_or(weighted.clone(), |sum| sum.plus(&weighted)));
        }
    }
    let points = (0..8i64).filter_map(|bits| {
        let left_won = [0, 1, 2].map(|i| bits >> i & 1 == 1);
        // Where there was no match the left one won, and nothing was added.
        let possible = (0..3).all(|i| outcomes[i].is_some() || left_won[i]);
        let x: i64 =
            (0..3).filter(|i| outcomes[*i].is_some() && left_won[*i]).map(|i| WON << i).sum();
        let below = if left_won[2] { left_won[0] } else { left_won[1] };
        possible.then_some((x, 2 * (i64::from(!below) + 2 * i64::from(!left_won[2]))))
    });
    sum.map(|sum| circuit.look_up(&sum, &Table::of_points(points)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use veil_keygen_ceremony::keyset::ParameterSet;

    use veil_scheduler_plan::cleartext::best_bid;

    use super::*;

    fn assert_agrees(bids: &[u16]) {
        let circuit = Circuit::in_clear();
        let digits = run(&circuit, bids.iter().map(|bid| in_clear(*bid)).collect()).unwrap();
        let blocks = digits.map(|digit| digit.steps() as u8);
        assert_eq!(decode(&blocks, bids.len()).ok(), best_bid(bids), "{bids:?}");
        assert_eq!(circuit.cost(), cost(bids.len()).unwrap());
    }

    #[test]
    fn every_number_of_bids_has_its_winner() {
        for count in 1..=MAX_BIDS {
            for seed in 0..4u64 {
                let of = |i: usize| (i as u64 + 7 * seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
                let mask = [0xffff, 0x0003, 0x8008, 0x0e38][seed as usize];
                let bids: Vec<_> = (0..count).map(|i| (of(i) >> 40) as u16 & mask).collect();
                assert_agrees(&bids);
            }
        }
    }

    #[test]
    fn each_pair_of_digits_is_compared_and_carried() {
        for shift in [0, 3, 6, 9, 12] {
            for (a, b) in (0..16u32).flat_map(|a| (0..16).map(move |b| (a, b))) {
                let of = |x: u32| (x << shift) as u16;
                // Both meet in the first round, and in the third against what was carried there.
                assert_agrees(&[of(a), of(b)]);
                assert_agrees(&[0, of(a), 0, 0, of(b), 0, 0, 1, of(a), of(b)]);
            }
        }
    }

    #[test]
    fn look_ups_of_93_bids() {
        let cost = cost(93).unwrap();
        println!("{} look-ups, {} in a row", cost.look_ups(), cost.depth());
        assert!(cost.look_ups() <= 11 * 93, "{}", cost.look_ups());
        for members in [4, 7, 10, 13] {
            let committee = veil_protocol_spec::Committee::new(members).unwrap();
            let parameters = ParameterSet::production(committee);
            let worst = parameters.log2_p_fail_at(cost.largest_variance().into());
            let all = cost.log2_failure(|v| parameters.log2_p_fail_at(v));
            println!("n={members}: 2^{worst:.1} for the worst look-up, 2^{all:.1} for all");
            assert!(worst <= -128.0 && all <= -120.0, "n={members}: {worst} {all}");
        }
    }

    #[test]
    fn look_ups_of_an_expansion() {
        let circuit = Circuit::in_clear();
        Contender::new([0; 4].map(Digit::clear), &circuit);
        // One more for each digit of the list: the switch to the evaluation key.
        assert_eq!(circuit.cost().look_ups() + 4, EncryptedBid::EXPANSION_LOOK_UPS);
    }

    #[test]
    fn refusals() {
        assert_eq!(cost(0), Err(AuctionError::NoBid));
        assert_eq!(cost(256), Err(AuctionError::TooMany(256)));
        for blocks in [&[0, 0][..], &[4, 0], &[1], &[16, 0]] {
            assert_eq!(decode(blocks, 3), Err(AuctionError::NoSuchBid(blocks.to_vec())));
        }
    }

    proptest! {
        #[test]
        fn the_circuit_decides_as_its_twin(bids in proptest::collection::vec(any::<u16>(), 1..40)) {
            assert_agrees(&bids);
        }
    }
}
