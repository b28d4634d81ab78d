//! The scheduler's decisions as one writes them at first with tfhe's high-level API: integers,
//! comparisons and `if_then_else`, one node after the other. tfhe uses all cores within each
//! operation. This is what the circuits are compared with, under the same keys and in the same run.
//!
//! # Rules
//! 1. A node is feasible if each of the four resources has at least what is requested.
//! 2. Its score is the CPU plus the memory that would be left; the highest wins, the last of equals.
//! 3. Replicas of one job: [`Apart::Soft`] prefers nodes without one, [`Apart::Hard`] excludes the
//!    others.
//! 4. A winner's capacity is reduced before the next decision.
//!
//! [`clear`] holds the same in clear.

use tfhe::{
    CompactCiphertextList, CompactPublicKey, Error, FheBool, FheUint8, FheUint16,
    prelude::{
        CastFrom as _, CiphertextList as _, FheEq as _, FheOrd as _, FheTrivialEncrypt as _,
        IfThenElse as _,
    },
};

/// CPU, memory, disk, GPU.
pub const RESOURCES: usize = 4;
/// Nodes that can be told apart by an index of 8 bits, with 0 for none.
pub const MAX_NODES: usize = 255;
/// Above every sum of two quantities.
const PREFERENCE: u16 = 512;

/// What each of a job's replicas needs.
pub enum Request {
    /// The quantities are public.
    Clear([u8; RESOURCES]),
    /// Only the operator knows the quantities.
    Encrypted(Box<[FheUint8; RESOURCES]>),
}

/// Whether replicas of one job share a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Apart {
    /// They may share one.
    No,
    /// They share one only if no other has room.
    Soft,
    /// They never share one.
    Hard,
}

/// A job as the baseline places it.
pub struct Job {
    /// What each replica needs.
    pub request: Request,
    /// The number of replicas.
    pub replicas: usize,
    /// Whether they share a node.
    pub apart: Apart,
}

/// Quantities of nodes, or one of requests, encrypted with the public key and expanded. It needs
/// the server key to be set, as everything below.
///
/// # Errors
/// tfhe's error if it does not encrypt or expand.
pub fn encrypt(
    rows: &[[u8; RESOURCES]],
    public_key: &CompactPublicKey,
) -> Result<Vec<[FheUint8; RESOURCES]>, Error> {
    rows.iter()
        .map(|row| {
            let mut builder = CompactCiphertextList::builder(public_key);
            builder.extend(row.iter().copied());
            let list = builder.build_packed().expand()?;
            let get = |index: usize| take::<FheUint8>(&list, index);
            Ok([get(0)?, get(1)?, get(2)?, get(3)?])
        })
        .collect()
}

/// Bids, encrypted with the public key and expanded.
///
/// # Errors
/// tfhe's error if it does not encrypt or expand.
pub fn encrypt_bids(bids: &[u16], public_key: &CompactPublicKey) -> Result<Vec<FheUint16>, Error> {
    let mut builder = CompactCiphertextList::builder(public_key);
    builder.extend(bids.iter().copied());
    let list = builder.build_packed().expand()?;
    (0..bids.len()).map(|index| take(&list, index)).collect()
}

fn take<T>(list: &tfhe::CompactCiphertextListExpander, index: usize) -> Result<T, Error>
where
    T: tfhe::HlExpandable + tfhe::prelude::Tagged,
{
    list.get(index)?.ok_or_else(|| Error::from(format!("the list has no value {index}")))
}

/// For each replica in turn 1 plus the winning node, or 0.
#[must_use]
pub fn place(mut free: Vec<[FheUint8; RESOURCES]>, jobs: &[Job]) -> Vec<FheUint8> {
    let decisions: usize = jobs.iter().map(|job| job.replicas).sum();
    let mut winners = Vec::with_capacity(decisions);
    for job in jobs {
        let mut taken: Vec<Option<FheBool>> = vec![None; free.len()];
        for replica in 0..job.replicas {
            let winner = choose(&free, job, &taken);
            let last_of_job = replica + 1 == job.replicas;
            let is_last = winners.len() + 1 == decisions;
            for (index, (free, taken)) in free.iter_mut().zip(&mut taken).enumerate() {
                if is_last {
                    break;
                }
                let won = winner.eq(number(index));
                free.iter_mut().enumerate().for_each(|(resource, free)| {
                    let left = job.request.leaves(free, resource);
                    *free = won.if_then_else(&left, free);
                });
                if job.apart != Apart::No && !last_of_job {
                    *taken = Some(taken.take().map_or_else(|| won.clone(), |before| before | &won));
                }
            }
            winners.push(winner);
        }
    }
    winners
}

fn choose(free: &[[FheUint8; RESOURCES]], job: &Job, taken: &[Option<FheBool>]) -> FheUint8 {
    let mut best_score = FheUint16::encrypt_trivial(0u16);
    let mut best = FheUint8::encrypt_trivial(0u8);
    for (index, (free, taken)) in free.iter().zip(taken).enumerate() {
        let mut fits = job.request.fits(free);
        let cpu = FheUint16::cast_from(job.request.leaves(&free[0], 0));
        let memory = FheUint16::cast_from(job.request.leaves(&free[1], 1));
        let mut score = cpu + memory;
        match (job.apart, taken) {
            (Apart::Hard, Some(taken)) => fits &= !taken,
            (Apart::Soft, Some(taken)) => {
                let preferred = &score + PREFERENCE;
                score = taken.if_then_else(&score, &preferred);
            }
            _ => {}
        }
        let better = fits & score.ge(&best_score);
        best_score = better.if_then_else(&score, &best_score);
        best = better.if_then_else(&FheUint8::encrypt_trivial(number(index)), &best);
    }
    best
}

impl Request {
    fn fits(&self, free: &[FheUint8; RESOURCES]) -> FheBool {
        let [cpu, memory, disk, gpu] = free;
        match self {
            Self::Clear([a, b, c, d]) => cpu.ge(*a) & memory.ge(*b) & disk.ge(*c) & gpu.ge(*d),
            Self::Encrypted(request) => {
                let [a, b, c, d] = &**request;
                cpu.ge(a) & memory.ge(b) & disk.ge(c) & gpu.ge(d)
            }
        }
    }

    fn leaves(&self, free: &FheUint8, resource: usize) -> FheUint8 {
        match self {
            Self::Clear(request) => free - request[resource],
            Self::Encrypted(request) => free - &request[resource],
        }
    }
}

/// What stands for a node among winners.
const fn number(index: usize) -> u8 {
    index as u8 + 1
}

/// The highest bid and 1 plus its position, the first of equals; 0 if all are 0.
#[must_use]
pub fn highest_bid(bids: &[FheUint16]) -> (FheUint16, FheUint8) {
    let mut highest = FheUint16::encrypt_trivial(0u16);
    let mut winner = FheUint8::encrypt_trivial(0u8);
    for (index, bid) in bids.iter().enumerate() {
        let higher = bid.gt(&highest);
        highest = higher.if_then_else(bid, &highest);
        winner = higher.if_then_else(&FheUint8::encrypt_trivial(number(index)), &winner);
    }
    (highest, winner)
}

/// The rules above on values in clear.
pub mod clear {
    use super::{Apart, PREFERENCE, RESOURCES};

    /// A job with a public request.
    pub struct Job {
        /// What each replica needs.
        pub request: [u8; RESOURCES],
        /// The number of replicas.
        pub replicas: usize,
        /// Whether they share a node.
        pub apart: Apart,
    }

    /// [`super::place`].
    #[must_use]
    pub fn place(mut free: Vec<[u8; RESOURCES]>, jobs: &[Job]) -> Vec<usize> {
        let mut winners = Vec::new();
        for job in jobs {
            let mut taken = vec![false; free.len()];
            for replica in 0..job.replicas {
                let mut best = (0, 0);
                for (index, free) in free.iter().enumerate() {
                    let fits = free.iter().zip(job.request).all(|(free, need)| *free >= need);
                    if !fits || job.apart == Apart::Hard && taken[index] {
                        continue;
                    }
                    let left = |r: usize| u16::from(free[r] - job.request[r]);
                    let mut score = left(0) + left(1);
                    if job.apart == Apart::Soft && replica > 0 && !taken[index] {
                        score += PREFERENCE;
                    }
                    if score >= best.0 {
                        best = (score, index + 1);
                    }
                }
                if let Some(index) = best.1.checked_sub(1) {
                    taken[index] = true;
                    for (free, need) in free[index].iter_mut().zip(job.request) {
                        *free -= need;
                    }
                }
                winners.push(best.1);
            }
        }
        winners
    }

    /// [`super::highest_bid`].
    #[must_use]
    pub fn highest_bid(bids: &[u16]) -> (u16, usize) {
        let mut best = (0, 0);
        for (index, bid) in bids.iter().enumerate() {
            if *bid > best.0 {
                best = (*bid, index + 1);
            }
        }
        best
    }
}

#[cfg(test)]
mod tests {
    use rand::{Rng as _, SeedableRng as _};
    use rand_chacha::ChaCha20Rng;
    use tfhe::{ServerKey, integer::ciphertext::IntegerCiphertext as _, set_server_key};
    use veil_keygen_ceremony::keyset::ParameterSet;

    use super::*;
    use crate::keys::{Keys, NoiseOf};

    fn keys() -> Keys {
        let keys = Keys::generate(ParameterSet::insecure_test(), 1, NoiseOf::OneGroup).unwrap();
        let server_key: ServerKey = keys.server_key.clone();
        set_server_key(server_key);
        keys
    }

    fn decrypt(keys: &Keys, number: &FheUint8) -> usize {
        let (blocks, ..) = number.clone().into_raw_parts();
        keys.decrypt_integer(blocks.blocks()) as usize
    }

    #[test]
    fn placements_are_those_in_clear() {
        let keys = keys();
        let seed = 7;
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        for (round, apart) in [Apart::No, Apart::Soft, Apart::Hard].into_iter().enumerate() {
            let free: Vec<[u8; RESOURCES]> = (0..4)
                .map(|_| [rng.gen_range(0..60), rng.gen_range(0..60), rng.r#gen(), 2])
                .collect();
            let requests = [[10, 20, 30, 1], [rng.gen_range(0..40), 5, 0, 0]];
            let clear_jobs: Vec<_> = requests
                .iter()
                .map(|request| clear::Job { request: *request, replicas: 2, apart })
                .collect();
            let expected = clear::place(free.clone(), &clear_jobs);
            let encrypted = round == 1;
            let jobs: Vec<_> = requests
                .iter()
                .map(|request| {
                    let request = if encrypted {
                        let mut row = encrypt(&[*request], &keys.public_key).unwrap();
                        Request::Encrypted(Box::new(row.remove(0)))
                    } else {
                        Request::Clear(*request)
                    };
                    Job { request, replicas: 2, apart }
                })
                .collect();
            let found = place(encrypt(&free, &keys.public_key).unwrap(), &jobs);
            let found: Vec<_> = found.iter().map(|winner| decrypt(&keys, winner)).collect();
            assert_eq!(found, expected, "seed {seed}, {apart:?}, {free:?}");
        }
    }

    #[test]
    fn nothing_is_chosen_where_nothing_fits() {
        let keys = keys();
        let free = encrypt(&[[9, 9, 9, 0], [255, 255, 255, 0]], &keys.public_key).unwrap();
        let job =
            |gpus| Job { request: Request::Clear([9, 9, 9, gpus]), replicas: 1, apart: Apart::No };
        let found = place(free, &[job(1), job(0)]);
        let found: Vec<_> = found.iter().map(|winner| decrypt(&keys, winner)).collect();
        assert_eq!(found, [0, 2]);
    }

    #[test]
    fn the_highest_bid_wins_and_the_first_of_equals() {
        let keys = keys();
        for bids in [vec![3, 700, 65_535, 65_535, 0], vec![0, 0], vec![1]] {
            let expected = clear::highest_bid(&bids);
            let (highest, winner) = highest_bid(&encrypt_bids(&bids, &keys.public_key).unwrap());
            let (blocks, ..) = highest.into_raw_parts();
            let found = (keys.decrypt_integer(blocks.blocks()) as u16, decrypt(&keys, &winner));
            assert_eq!(found, expected);
        }
    }
}
