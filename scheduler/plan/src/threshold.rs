//! Placement by thresholds: a circuit that asks about one replica at a time and uses what was opened before.
//!
//! # Role
//! A [`Course`](course::Course) is the public side: it says what is asked next, given every digit that was
//! opened so far. [`choice::evaluate`] answers on digits, which are ciphertexts or numbers; each answer is
//! one digit of 4 bits, which is opened. [`twin::place`] decides the same on clear readings.
//!
//! # Why it is cheap
//! Winners are public as soon as they are opened. What they were promised is then a public number on the other
//! side of a comparison, free >= request + promised, and nothing is deducted under encryption. And what is
//! compared with public numbers only is compared with all of them at once: the blind rotation of a constant
//! polynomial by a digit holds \[digit >= k\] for every k ([`Rotated`](crate::circuit::rotated::Rotated)).
//!
//! # A question
//! 1. **Expansion**, once per message: each digit of free capacity is rotated, and the share digit is
//!    clamped: 2 look-ups a resource and one.
//! 2. **Fit** (`fit.rs`): with S = \[hi < r\] + \[hi < r + 1\] + \[lo < q\] of the high digit r and the low
//!    digit q of what is asked for, a resource lacks something iff S is 2 or 3. Two resources are one
//!    look-up of S + 4 S', each further one is one more; of an encrypted request 2 a resource and one.
//! 3. **Level**: x = score + 1, or at most 0 if the worker does not fit: linear. Its rotation holds
//!    \[x >= k\] for each of 8 levels: one look-up.
//! 4. **Best level**: candidates are in groups of 15, these again, up to one. For each group and level
//!    the OR: 8 look-ups for 15.
//! 5. **First of the best**: within the topmost group, the first member that reaches its best level, as
//!    one digit (`first.rs`). It is opened, and the same is asked within that member, down to a worker:
//!    one opening for up to 15 candidates, two up to 225, three up to 3,375. The winner's group is part of the
//!    winner's name.
//!
//! Whatever public rules say of candidates (labels, anti-affinity, the worker that held the replica) decides
//! who is asked about: candidates of a higher public level are asked about first, and those of the next one
//! only if none of them has room, which the winner's name tells as well.
//!
//! # Noise
//! No look-up sees more than the variance of 15 bootstraps: the flags of 15 members, of as many rotations. What is
//! read from one rotation is not independent, and is added up nowhere but for the two neighbours of step 2
//! ([`Rotated::below_both`](crate::circuit::rotated::Rotated::below_both)).
//!
//! # State and restart
//! A [`Course`](course::Course) is a function of the plan and of the opened digits. What
//! [`choice::Held`] keeps between the openings of one question can be computed again.

pub mod choice;
pub mod course;
mod first;
mod fit;
pub mod question;
pub mod reported;
#[cfg(test)]
mod tests;
pub mod twin;
