//! The winner among encrypted contenders: a tournament up, the path of the winner down.
//!
//! # Up
//! Neighbours meet round by round. With borrows from the lowest digit up, one look-up per digit
//! compares them, the last one says whether the left one won; then each part of the better one is
//! chosen by one look-up. A choice is right + (left - right) * won: where digits have few values,
//! difference and selector fit into one table side by side (see [`super::lookup`]). So high digits
//! are kept as 3 * 4 and low ones as 4 * 4 values:
//!
//! | part | values | stands for |
//! |---|---|---|
//! | level | 0 to 7 | what decides before the score; 0 is infeasible; absent if there is only that |
//! | top | 0, 3, 6, 9 | 3 times the upper part of the high digit; without a level 3 more, and 0 is infeasible |
//! | mid | 0 to 2 | the lower part of the high digit |
//! | low | 2 * (0, 2, 4, 6) + (0 to 3) | the low digit, absent if it is the same for all |
//!
//! A match takes 6 look-ups with a score of two digits, in depth 3: 2 borrows and 4 choices, where
//! that of `top` without a level is a maximum and needs no selector. The left one wins a tie, so
//! the order of the contenders is the order of preference.
//!
//! # Down
//! 1 travels from the root to the winner's leaf, two rounds at a time: of a match and the one
//! below, one look-up gives both outcomes below. That is 2 look-ups for 3 matches.

use rayon::prelude::*;

use super::{
    digit::{Digit, Value},
    lookup::Circuit,
    table::Table,
    worker::Low,
};

/// What the selector is worth: where choices of 2, 3 and 4 values all find room.
const WON: i64 = 7;
/// A flag on its way down.
const FLAG: i64 = 4;
/// What a part may carry into a match: two of them, a selector and a borrow make 25.
const PART_VARIANCE: u32 = 12;
/// The same for `top` under a level: its selector is tripled.
const CHOSEN_TOP_VARIANCE: u32 = 8;

/// What contenders are compared by, see the module's table.
#[derive(Clone)]
pub(super) struct Contender<V> {
    pub(super) level: Option<Digit<V>>,
    pub(super) top: Digit<V>,
    pub(super) mid: Digit<V>,
    pub(super) low: Option<Low<V>>,
}

/// What the best contender must satisfy to win at all.
pub(super) enum Condition<'a, V> {
    /// That it is feasible.
    Feasible,
    /// That and a score of at least these two digits, the low one first: in clear.
    AtLeast([u8; 2]),
    /// The same, encrypted.
    AtLeastEncrypted(&'a [Digit<V>; 2]),
}

/// For each contender 1 if it won, else 0; all 0 if the best one does not satisfy `condition`.
pub(super) fn winner<V: Value>(
    circuit: &Circuit<'_, V>,
    contenders: Vec<Contender<V>>,
    condition: &Condition<'_, V>,
) -> Vec<Digit<V>> {
    // By round: who won each match, and how many played.
    let mut rounds: Vec<(Vec<Digit<V>>, usize)> = Vec::new();
    let mut playing = contenders;
    while playing.len() > 1 {
        let (count, last) = (playing.len(), playing.len() == 2);
        let playing_now: Vec<_> =
            playing.into_par_iter().map(|contender| prepare(circuit, contender)).collect();
        let scores_matter = !last || !matches!(condition, Condition::Feasible);
        let (mut better, won): (Vec<_>, Vec<_>) = playing_now
            .par_chunks_exact(2)
            .map(|pair| play(circuit, &pair[0], &pair[1], scores_matter))
            .unzip();
        better.extend(playing_now.into_iter().skip(count / 2 * 2));
        playing = better;
        rounds.push((won, count));
    }
    let Some(best) = playing.pop() else { return Vec::new() };
    let scale = if rounds.is_empty() { 1 } else { FLAG };
    let mut flags = vec![satisfies(circuit, &best, condition, scale)];
    if rounds.len() % 2 == 1
        && let Some((won, count)) = rounds.pop()
    {
        let scale = if rounds.is_empty() { 1 } else { FLAG };
        flags = one_round_down(circuit, &flags, &won, count, scale);
    }
    while let (Some(upper), Some(lower)) = (rounds.pop(), rounds.pop()) {
        let scale = if rounds.is_empty() { 1 } else { FLAG };
        flags = two_rounds_down(circuit, &flags, &upper, &lower, scale);
    }
    flags
}

/// `scale` if the best contender may win, else 0.
fn satisfies<V: Value>(
    circuit: &Circuit<'_, V>,
    best: &Contender<V>,
    condition: &Condition<'_, V>,
    scale: i64,
) -> Digit<V> {
    let feasible = best.level.as_ref().unwrap_or(&best.top);
    let needed: [Digit<V>; 2];
    let enough = match (condition, &best.low) {
        (Condition::AtLeast([low, high]), Some(own)) => {
            let borrow =
                (*low > 0).then(|| circuit.is_negative(&own.whole.plus_constant(-i64::from(*low))));
            (-i64::from(*high), borrow, None)
        }
        (Condition::AtLeastEncrypted(digits), Some(own)) => {
            needed = (*digits).clone();
            let own = circuit.refresh_above(PART_VARIANCE, own.whole.clone());
            (0, Some(circuit.is_negative(&own.minus(&needed[0]))), Some(needed[1].clone()))
        }
        (Condition::Feasible, _) | (_, None) => return circuit.any(feasible, scale),
    };
    let (constant, borrow, subtrahend) = enough;
    // A feasible score is 3 too high, an infeasible one 0 to 2: below any request.
    let mut rest = best.top.plus(&best.mid).plus_constant(constant - 3);
    for less in [borrow, subtrahend].into_iter().flatten() {
        rest = rest.minus(&less);
    }
    circuit.scaled_if_negative(&rest, -scale).plus_constant(scale)
}

/// Refreshes what has gathered too much noise over the rounds.
fn prepare<V: Value>(circuit: &Circuit<'_, V>, contender: Contender<V>) -> Contender<V> {
    let Contender { mut level, mut top, mut mid, mut low } = contender;
    if let Some(digit) = level.take() {
        level = Some(circuit.refresh_above(PART_VARIANCE, digit));
        top = circuit.refresh_above(CHOSEN_TOP_VARIANCE, top);
    }
    if top.variance() + mid.variance() > PART_VARIANCE {
        (top, mid) = rayon::join(|| circuit.refresh(&top), || circuit.refresh(&mid));
    }
    if low.as_ref().is_some_and(|low| low.whole.variance() > PART_VARIANCE)
        && let Some(Low { upper, lower, .. }) = low
    {
        let (upper, lower) = rayon::join(|| circuit.refresh(&upper), || circuit.refresh(&lower));
        low = Some(Low { whole: upper.times(2).plus(&lower), upper, lower });
    }
    Contender { level, top, mid, low }
}

/// The better one, and [`WON`] if it is the left one, else 0. If its score no longer matters, only
/// the part that says whether it is feasible is right.
fn play<V: Value>(
    circuit: &Circuit<'_, V>,
    left: &Contender<V>,
    right: &Contender<V>,
    score_matters: bool,
) -> (Contender<V>, Digit<V>) {
    let tops = left.top.minus(&right.top);
    let mids = left.mid.minus(&right.mid);
    let levels = left.level.as_ref().zip(right.level.as_ref());
    // Maxima need no selector: they run beside the comparison.
    let (won, best) = rayon::join(
        || {
            let lows = left.low.as_ref().zip(right.low.as_ref());
            let borrow = lows.map(|(a, b)| circuit.is_negative(&a.whole.minus(&b.whole)));
            let mut order = tops.plus(&mids);
            order = borrow.map_or(order.clone(), |borrow| order.minus(&borrow));
            if let Some((a, b)) = levels {
                order = a.minus(b).minus(&circuit.is_negative(&order));
            }
            circuit.scaled_if_negative(&order, -WON).plus_constant(WON)
        },
        || match levels {
            Some((a, b)) => b.plus(&circuit.look_up(&a.minus(b), &maximum(7, 1))),
            None => right.top.plus(&circuit.look_up(&tops, &maximum(4, 3))),
        },
    );
    if !score_matters {
        let better = match levels {
            Some(_) => Contender { level: Some(best), ..right.clone() },
            None => Contender { top: best, ..right.clone() },
        };
        return (better, won);
    }
    let choose = |difference: &Digit<V>, selector: &Digit<V>, table: &Table| {
        circuit.look_up(&difference.plus(selector), table)
    };
    let ((mid, top), low) = rayon::join(
        || {
            let mid = || right.mid.plus(&choose(&mids, &won, &choice(2, 1, WON)));
            let top = || right.top.plus(&choose(&tops, &won.times(3), &choice(3, 3, 3 * WON)));
            if levels.is_some() { rayon::join(mid, top) } else { (mid(), best.clone()) }
        },
        || {
            let (a, b) = left.low.as_ref().zip(right.low.as_ref())?;
            let (upper, lower) = rayon::join(
                || choose(&a.upper.minus(&b.upper), &won, &choice(3, 2, WON)),
                || choose(&a.lower.minus(&b.lower), &won, &choice(3, 1, WON)),
            );
            Some(Low {
                whole: b.whole.plus(&upper.times(2)).plus(&lower),
                upper: b.upper.plus(&upper),
                lower: b.lower.plus(&lower),
            })
        },
    );
    (Contender { level: levels.map(|_| best), top, mid, low }, won)
}

/// Of a difference of two digits in steps of `scale`: itself if it is positive, else 0.
fn maximum(most: i64, scale: i64) -> Table {
    Table::of_points((-most..=most).map(|d| (scale * d, scale * d.max(0))))
}

/// Of a difference in steps of `scale`: 0, or itself if it was moved up by `selector`.
fn choice(most: i64, scale: i64, selector: i64) -> Table {
    let differences = (-most..=most).map(|d| scale * d);
    Table::of_points(differences.flat_map(|d| [(d, 0), (d + selector, d)]))
}

/// From the winner's round to the one below: by one look-up each match's flag becomes those of its
/// two sides.
fn one_round_down<V: Value>(
    circuit: &Circuit<'_, V>,
    flags: &[Digit<V>],
    won: &[Digit<V>],
    count: usize,
    scale: i64,
) -> Vec<Digit<V>> {
    let mut below: Vec<_> = flags
        .par_iter()
        .zip(won)
        .flat_map_iter(|(flag, won)| sides(circuit, flag, won, scale))
        .collect();
    below.extend(bye(circuit, flags, won.len(), count, scale));
    below
}

/// The flag of the contender without an opponent, which has a bye.
fn bye<V: Value>(
    circuit: &Circuit<'_, V>,
    flags: &[Digit<V>],
    matches: usize,
    count: usize,
    scale: i64,
) -> Option<Digit<V>> {
    let flag = flags.get(matches).filter(|_| count % 2 == 1)?;
    Some(if scale == FLAG { flag.clone() } else { circuit.any(flag, scale) })
}

/// Left and right side of one match.
fn sides<V: Value>(
    circuit: &Circuit<'_, V>,
    flag: &Digit<V>,
    won: &Digit<V>,
    scale: i64,
) -> [Digit<V>; 2] {
    // Flag and outcome: 0, 4, 7 or 11; different modulo 8, so that the functions do not meet.
    let table = Table::of_points([(FLAG + WON, scale), (FLAG + 8, scale)]);
    circuit.look_up_two(&flag.plus(won), &table)
}

fn two_rounds_down<V: Value>(
    circuit: &Circuit<'_, V>,
    flags: &[Digit<V>],
    (upper, upper_count): &(Vec<Digit<V>>, usize),
    (lower, lower_count): &(Vec<Digit<V>>, usize),
    scale: i64,
) -> Vec<Digit<V>> {
    // Who played in the upper round, by position there: the match that it came from, the flag of
    // the match that it went on to, and which side it was.
    let mut below: Vec<_> = (0..*upper_count)
        .into_par_iter()
        .flat_map_iter(|player| {
            let (flag, after) = (&flags[player / 2], upper.get(player / 2));
            let is_left = player % 2 == 0;
            match (lower.get(player), after) {
                (Some(before), Some(after)) => {
                    let selector = flag.plus(&after.times(2)).plus(before);
                    circuit.look_up_two(&selector, &grandchildren(is_left, scale)).to_vec()
                }
                (Some(before), None) => sides(circuit, flag, before, scale).to_vec(),
                (None, Some(after)) => {
                    let point = if is_left { (FLAG + WON, scale) } else { (FLAG, scale) };
                    vec![circuit.look_up(&flag.plus(after), &Table::of_points([point]))]
                }
                (None, None) => {
                    vec![if scale == FLAG { flag.clone() } else { circuit.any(flag, scale) }]
                }
            }
        })
        .collect();
    debug_assert_eq!(below.len(), *lower_count);
    below.truncate(*lower_count);
    below
}

/// Of flag + 2 * outcome above + outcome below: the left and the right side of the match below, if
/// it is below the given side of the match above.
fn grandchildren(is_left: bool, scale: i64) -> Table {
    // All eight sums differ modulo 8, so each of the two functions has entries of its own.
    let above = if is_left { 2 * WON } else { 0 };
    let left = FLAG + above + WON;
    let right = FLAG + above + 8;
    Table::of_points([(left, scale), (right, scale)])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every number of contenders up to 40, against the obvious maximum; with and without a level,
    /// a low digit and a condition.
    #[test]
    fn the_first_of_the_best_wins() {
        let mut state = 1u64;
        let mut random = |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) % below
        };
        for count in 0..=40usize {
            for variant in 0..12 {
                let (with_level, with_low) = (variant % 2 == 1, variant % 3 > 0);
                let at_least =
                    (with_low && !with_level && variant > 5).then(|| [random(16), random(12)]);
                let spread = [2, 12, 12][variant % 3];
                let drawn: Vec<[u64; 3]> = (0..count)
                    .map(|_| [random(if with_level { 8 } else { 2 }), random(spread), random(16)])
                    .collect();
                let contenders = drawn.iter().map(|[level, high, low]| {
                    let (level, high, low) = (*level as u8, *high as u8, *low as u8);
                    let feasible = if with_level || level > 0 { 1 } else { 0 };
                    let raised = if with_level { 0 } else { 3 };
                    Contender {
                        level: with_level.then(|| Digit::clear(level)),
                        top: Digit::clear(feasible * (high / 3 * 3 + raised)),
                        mid: Digit::clear(high % 3),
                        low: with_low.then(|| Low {
                            whole: Digit::clear(low),
                            upper: Digit::clear(low / 4 * 2),
                            lower: Digit::clear(low % 4),
                        }),
                    }
                });
                let circuit = Circuit::in_clear();
                let condition = match at_least {
                    Some([low, high]) => Condition::AtLeast([low as u8, high as u8]),
                    None => Condition::Feasible,
                };
                let flags = winner(&circuit, contenders.collect(), &condition);
                let key =
                    |[level, high, low]: [u64; 3]| (level, high, if with_low { low } else { 0 });
                let best = drawn
                    .iter()
                    .enumerate()
                    .filter(|(_, drawn)| drawn[0] > 0)
                    .rev()
                    .max_by_key(|(_, drawn)| key(**drawn))
                    .filter(|(_, [_, high, low])| {
                        at_least.is_none_or(|[l, h]| 16 * high + low >= 16 * h + l)
                    })
                    .map(|(index, _)| index);
                let expected: Vec<_> = (0..count).map(|i| i64::from(Some(i) == best)).collect();
                let found: Vec<_> = flags.iter().map(|flag| flag.steps()).collect();
                assert_eq!(found, expected, "{count} contenders, variant {variant}");
            }
        }
    }
}
