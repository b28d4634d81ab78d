//! The winner among encrypted contenders: a tournament up, the path of the winner down.
//!
//! Neighbours meet round by round; the better one goes on and a digit says whether it was the left
//! one. Then 1 travels from the root to the winner's leaf. With N contenders this takes about 7 N
//! look-ups in depth 2 log N, or 3 N when there is no second key. The left one wins a tie, so the
//! order of the contenders is the order of preference.

use rayon::prelude::*;

use crate::{
    key::EvaluationKey,
    lookup::{Digit, Table},
};

/// What contenders are compared by, first `level`, then `room`; both 0 to 7.
#[derive(Clone)]
pub(crate) struct Contender {
    /// 0 if it must not win.
    pub(crate) level: Digit,
    /// Absent if it is 0 for all.
    pub(crate) room: Option<Digit>,
}

/// 8 in a digit: room for a flag above a value of 3 bits.
const FLAG: i64 = 8;
/// Differences of two values of 3 bits are moved up by this, to 0..=14.
const OFFSET: i64 = 7;
/// What the path's flag may have gathered before it is refreshed.
const FLAG_VARIANCE: u32 = 20;

struct Match {
    better: Contender,
    /// 8 if the left one won, else 0.
    left_won: Digit,
}

/// For each contender 1 if it won, else 0; all 0 if no level is above 0.
pub(crate) fn winner(key: &EvaluationKey, contenders: Vec<Contender>) -> Vec<Digit> {
    let mut rounds: Vec<Vec<Digit>> = Vec::new();
    let mut counts = Vec::new();
    let mut playing = contenders;
    while playing.len() > 1 {
        counts.push(playing.len());
        let last = playing.len() == 2;
        let matches: Vec<_> =
            playing.par_chunks_exact(2).map(|pair| play(key, &pair[0], &pair[1], last)).collect();
        let odd = playing.len() % 2 == 1;
        let bye = if odd { playing.pop() } else { None };
        let (better, left_won): (Vec<_>, Vec<_>) =
            matches.into_iter().map(|one| (one.better, one.left_won)).unzip();
        playing = better;
        playing.extend(bye);
        rounds.push(left_won);
    }
    let Some(best) = playing.pop() else { return Vec::new() };
    let mut flags = vec![key.look_up(&best.level, &Table::new(|level| i64::from(level > 0)))];
    for (left_won, count) in rounds.iter().zip(&counts).rev() {
        let mut below: Vec<_> = flags
            .par_iter()
            .zip(left_won)
            .flat_map_iter(|(flag, left_won)| {
                let flag = key.refresh_above(FLAG_VARIANCE, flag.clone());
                let both = flag.plus(left_won);
                let left = key.look_up(&both, &Table::new(|x| i64::from(x == FLAG + 1)));
                let right = flag.minus(&left);
                [left, right]
            })
            .collect();
        if count % 2 == 1 {
            below.extend(flags.pop());
        }
        flags = below;
    }
    flags
}

fn play(key: &EvaluationKey, left: &Contender, right: &Contender, last: bool) -> Match {
    let level = left.level.minus(&right.level);
    let (best_level, (left_won, room)) = rayon::join(
        || better(key, &level, &right.level),
        || match (&left.room, &right.room) {
            (Some(left_room), Some(right_room)) => {
                let room = left_room.minus(right_room);
                let (first, second) = rayon::join(
                    || key.look_up(&level, &Table::sign()),
                    || key.look_up(&room, &Table::sign()),
                );
                // -3 to 3; left wins from 0 on.
                let order = first.times(2).plus(&second).plus_constant(3);
                let left_won = key.look_up(&order, &Table::new(|x| if x >= 3 { FLAG } else { 0 }));
                // The winner of the last match needs no room any more.
                let room = (!last).then(|| choose(key, &left_won, left_room, right_room));
                (left_won, room)
            }
            _ => {
                let order = level.plus_constant(OFFSET);
                let table = Table::new(|x| if x >= OFFSET { FLAG } else { 0 });
                (key.look_up(&order, &table), None)
            }
        },
    );
    Match { better: Contender { level: best_level, room }, left_won }
}

/// right + max(left - right, 0), given the difference.
fn better(key: &EvaluationKey, difference: &Digit, right: &Digit) -> Digit {
    let excess = Table::new(|x| (x - OFFSET).max(0));
    right.plus(&key.look_up(&difference.plus_constant(OFFSET), &excess))
}

/// The larger of two digits of 3 bits.
pub(crate) fn larger(key: &EvaluationKey, left: &Digit, right: &Digit) -> Digit {
    better(key, &left.minus(right), right)
}

/// `left` if the flag is 8, `right` if it is 0.
fn choose(key: &EvaluationKey, left_won: &Digit, left: &Digit, right: &Digit) -> Digit {
    let (left, right) = rayon::join(
        || key.look_up(&left_won.plus(left), &Table::new(|x| (x - FLAG).max(0))),
        || key.look_up(&left_won.plus(right), &Table::new(|x| if x < FLAG { x } else { 0 })),
    );
    left.plus(&right)
}
