//! The first of up to 15 members that reach a level, as one digit.
//!
//! Flags of four members, worth 1, 2, 4 and 8, are one digit, of which a look-up gives the lowest. Two
//! such digits are joined where their sum is in no table's way: that of the first four counts from above
//! those of the second, so that of v + w with v the first's, w goes if v is there.

use rayon::prelude::*;

use crate::circuit::{
    digit::{Digit, Value, sum},
    lookup::Circuit,
    table::Table,
};

/// Members whose flags one digit holds.
const QUAD: usize = 4;
/// Members of the first half.
const HALF: usize = 8;

/// 0 if no member is at `best` or above, else a digit that [`member`] reads. The members' differences from
/// `best` are -16 to 15.
pub(super) fn first<V: Value>(
    circuit: &Circuit<'_, V>,
    members: &[Digit<V>],
    best: &Digit<V>,
) -> Digit<V> {
    let halves: Vec<_> =
        members.par_chunks(HALF).map(|half| first_of_half(circuit, half, best)).collect();
    let mut halves = halves.into_iter();
    let front = halves.next().unwrap_or_else(|| unreachable!("a group has members"));
    let Some(back) = halves.next() else { return front };
    // 8 if the first half has it: then the second counts for nothing, else it counts from 9.
    let taken = circuit.any(&front, HALF as i64);
    let points = (0..HALF as i64)
        .flat_map(|p| [(p, if p > 0 { p + HALF as i64 } else { 0 }), (p + HALF as i64, 0)]);
    front.plus(&circuit.look_up(&back.plus(&taken), &Table::of_points(points)))
}

fn first_of_half<V: Value>(
    circuit: &Circuit<'_, V>,
    members: &[Digit<V>],
    best: &Digit<V>,
) -> Digit<V> {
    let quads: Vec<_> = members
        .par_chunks(QUAD)
        .map(|quad| {
            let flags: Vec<_> = quad
                .par_iter()
                .enumerate()
                .map(|(place, member)| {
                    let weight = 1 << place;
                    let below = circuit.scaled_if_negative(&member.minus(best), -weight);
                    below.plus_constant(weight)
                })
                .collect();
            sum(&flags).unwrap_or_else(|| unreachable!("a chunk has members"))
        })
        .collect();
    let (front, back) = match quads.as_slice() {
        [front] => return circuit.look_up(front, &Table::new(lowest)),
        [front, back] => (front, back),
        _ => unreachable!("a half has one or two quads"),
    };
    let others = (members.len() - QUAD) as i64;
    let above = Table::new(|x| if x > 0 { others + lowest(x) } else { 0 });
    let (front, back) = rayon::join(
        || circuit.look_up(front, &above),
        || circuit.look_up(back, &Table::new(lowest)),
    );
    // Of front + back: back if there is no front.
    let fronts = (1..=QUAD as i64).map(|place| others + place);
    let both = fronts.flat_map(|v| (0..=others).map(move |w| (v + w, 0)));
    let alone = (0..=others).map(|w| (w, w));
    let rest = circuit.look_up(&front.plus(&back), &Table::of_points(alone.chain(both)));
    front.plus(&rest)
}

/// 1 plus the position of the lowest bit, 0 of 0.
const fn lowest(x: i64) -> i64 {
    if x == 0 { 0 } else { x.trailing_zeros() as i64 + 1 }
}

/// Which of `count` members a digit of [`first`] names, from 0; `None` if it names none.
pub(super) fn member(count: usize, digit: u8) -> Option<usize> {
    let digit = usize::from(digit).checked_sub(1)?;
    let of_half = |count: usize, digit: usize| {
        let others = count.saturating_sub(QUAD);
        if digit < others { digit + QUAD } else { digit - others }
    };
    let member = if count <= HALF {
        of_half(count, digit)
    } else if digit < HALF {
        of_half(HALF, digit)
    } else {
        HALF + of_half(count - HALF, digit - HALF)
    };
    (digit < count && member < count).then_some(member)
}

/// The digit that names a member of `count`, from 0; 0 if there is none of that number.
pub(super) fn digit_of(count: usize, wanted: usize) -> u8 {
    (1..=count as u8).find(|digit| member(count, *digit) == Some(wanted)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every set of members at the level, of every number of members up to 15.
    #[test]
    fn the_first_member_is_named() {
        let circuit = Circuit::in_clear();
        for count in 1..=15usize {
            for set in 0..1u32 << count {
                if count > 10 && set % 37 > 1 && set.count_ones() > 2 {
                    continue;
                }
                let at = |place: usize| set >> place & 1 == 1;
                let members: Vec<_> = (0..count)
                    .map(|place| Digit::clear(0).plus_constant(if at(place) { 5 } else { -8 }))
                    .collect();
                let found = first(&circuit, &members, &Digit::clear(5)).steps() as u8;
                let expected = (0..count).find(|place| at(*place));
                assert_eq!(member(count, found), expected, "{set:b} of {count}");
                assert_eq!(found == 0, expected.is_none());
            }
            assert_eq!(member(count, count as u8 + 1), None);
            assert!((0..count).all(|m| member(count, digit_of(count, m)) == Some(m)));
            assert_eq!(digit_of(count, count), 0);
        }
    }
}
