//! Threshold arithmetic, one thread. Read `elem/s` of a group as ring elements, words or blocks per
//! second, as its function says.

use std::{hint::black_box, time::Duration};

use criterion::{BenchmarkGroup, Criterion, Throughput, measurement::WallTime};
use rand::SeedableRng;
use rand_chacha::ChaCha20Rng;
use veil_benches::{codeword, committees, decryptors, member, member_keys, squashed_blocks};
use veil_committee::{
    code::{Opening, decode},
    decrypt::combine,
    randomness::{NoiseShares, RandomShares, ZeroShares},
    ring::{Element, Word},
    shamir::random_element,
    subsets::{NoiseGroups, key_sets, zero_groups},
    with_degree,
};
use veil_keygen_ceremony::ntt::{NttWord, multiply_accumulate, normalize};
use veil_protocol_spec::Committee;

/// Elements made or opened per iteration.
const ELEMENTS: usize = 256;
/// Blocks decrypted per iteration.
const BLOCKS: usize = 16;
/// Coefficients of the key's polynomials.
const POLYNOMIAL: usize = 2048;

type Group<'a> = BenchmarkGroup<'a, WallTime>;

/// A group of benches whose iterations handle `elements` each.
fn group<'a>(c: &'a mut Criterion, name: &str, elements: usize) -> Group<'a> {
    let mut group = c.benchmark_group(name);
    group.throughput(Throughput::Elements(elements as u64));
    group
}

/// Times `op` for every committee.
fn per_committee<F: FnMut()>(
    c: &mut Criterion,
    name: &str,
    elements: usize,
    prepare: impl Fn(Committee) -> F,
) {
    let mut group = group(c, name, elements);
    for committee in committees() {
        let mut op = prepare(committee);
        group.bench_function(committee.to_string(), |b| b.iter(&mut op));
    }
}

/// Products of ring elements.
fn ring(c: &mut Criterion) {
    fn products<W: Word, const D: usize>(c: &mut Criterion) {
        let mut rng = ChaCha20Rng::seed_from_u64(5);
        let factors: Vec<_> = (0..ELEMENTS).map(|_| random_element::<W, D>(&mut rng)).collect();
        let mut products = factors.clone();
        group(c, &format!("ring::mul_u{}", W::BITS), ELEMENTS)
            .bench_function(format!("d={D}"), |b| {
                b.iter(|| products.iter_mut().zip(&factors).for_each(|(p, f)| *p = *p * *f))
            });
    }
    products::<u64, 3>(c);
    products::<u64, 4>(c);
    products::<u128, 3>(c);
    products::<u128, 4>(c);
}

/// Shares derived without a message, per ring element modulo 2^128.
fn randomness(c: &mut Criterion) {
    per_committee(c, "randomness::prss", ELEMENTS, |committee| {
        with_degree!(committee, D => {
            let sets = member_keys(committee, &key_sets(committee));
            let random = RandomShares::<u128, D>::new(committee, member(committee), &sets, "");
            let mut out = vec![Element::ZERO(); ELEMENTS];
            Box::new(move || random.fill(0, &mut out)) as Box<dyn FnMut()>
        })
    });
    per_committee(c, "randomness::przs", ELEMENTS, |committee| {
        with_degree!(committee, D => {
            let groups = member_keys(committee, &zero_groups(committee));
            let zeros = ZeroShares::<u128, D>::new(committee, member(committee), &groups, "");
            let mut out = vec![Element::ZERO(); ELEMENTS];
            Box::new(move || zeros.add_to(0, &mut out)) as Box<dyn FnMut()>
        })
    });
    per_committee(c, "randomness::noise", ELEMENTS, |committee| {
        with_degree!(committee, D => {
            let groups = member_keys(committee, NoiseGroups::of(committee).groups());
            let me = member(committee);
            let noise = NoiseShares::<u128, D>::new(committee, me, &groups, "", 1 << 30);
            let mut out = vec![Element::ZERO(); ELEMENTS];
            Box::new(move || noise.add_to(0, ELEMENTS as u64, &mut out)) as Box<dyn FnMut()>
        })
    });
}

/// Opening shares of all (degree 2t) and decoding in spite of wrong ones (degree t), per element.
fn code(c: &mut Criterion) {
    per_committee(c, "code::masked_open", 1, |committee| {
        with_degree!(committee, D => {
            let degree = 2 * committee.max_faulty().get();
            let opening = Opening::<u128, D>::new(committee, degree);
            let shares: Vec<_> = codeword(committee, degree).into_iter().map(|(_, s)| s).collect();
            Box::new(move || {
                let _ = black_box(opening.open(black_box(&shares)));
            }) as Box<dyn FnMut()>
        })
    });
    for (name, with_errors) in [("code::decode", false), ("code::decode_t_errors", true)] {
        per_committee(c, name, 1, |committee| {
            with_degree!(committee, D => {
                let degree = committee.max_faulty().get();
                let mut shares = codeword::<D>(committee, degree);
                if with_errors {
                    shares.iter_mut().take(degree).for_each(|(_, share)| share.0[0] ^= 2);
                }
                Box::new(move || drop(black_box(decode(committee, black_box(&shares)))))
                    as Box<dyn FnMut()>
            })
        });
    }
}

/// The three steps of an exact polynomial product, per coefficient.
fn ntt(c: &mut Criterion) {
    fn steps<W: NttWord>(c: &mut Criterion) {
        let mut rng = ChaCha20Rng::seed_from_u64(6);
        let plan = W::plan(POLYNOMIAL).expect("a power of two");
        let mut words: Vec<W> =
            (0..POLYNOMIAL).map(|_| random_element::<W, 1>(&mut rng).0[0]).collect();
        let mut spectrum = vec![0; W::PRIMES * POLYNOMIAL];
        W::forward(&plan, &words, &mut spectrum);
        normalize::<W>(&plan, &mut spectrum);
        let mut sum = spectrum.clone();
        let size = format!("N={POLYNOMIAL}");
        let name = |step: &str| format!("ntt::{step}_u{}", W::BITS);
        group(c, &name("multiply_accumulate"), POLYNOMIAL).bench_function(&size, |b| {
            b.iter(|| multiply_accumulate::<W>(&plan, &mut sum, &spectrum, &spectrum));
        });
        group(c, &name("inverse"), POLYNOMIAL)
            .bench_function(&size, |b| b.iter(|| W::inverse(&plan, &mut sum, &mut words)));
        group(c, &name("forward"), POLYNOMIAL)
            .bench_function(&size, |b| b.iter(|| W::forward(&plan, &words, &mut spectrum)));
    }
    steps::<u64>(c);
    steps::<u128>(c);
}

/// A member's part in decrypting, per block of 4 bits.
fn decryption(c: &mut Criterion) {
    let blocks = squashed_blocks(BLOCKS);
    let (one, all) = (&blocks[..1], &blocks[..]);
    for (name, blocks) in [("decrypt::partial_single", one), ("decrypt::partial", all)] {
        per_committee(c, name, blocks.len(), |committee| {
            let member = decryptors(committee).swap_remove(0);
            move || drop(black_box(member.partial(blocks)))
        });
    }
    for (name, with_culprits) in
        [("decrypt::combine", false), ("decrypt::combine_t_culprits", true)]
    {
        per_committee(c, name, BLOCKS, |committee| {
            let mut partials: Vec<_> = decryptors(committee)
                .iter()
                .map(|m| (m.participant(), m.partial(&blocks).expect("blocks of the dimension")))
                .collect();
            if with_culprits {
                let culprits = partials.iter_mut().take(committee.max_faulty().get());
                culprits.flat_map(|(_, bytes)| bytes).for_each(|byte| *byte ^= 2);
            }
            move || {
                let views: Vec<_> = partials.iter().map(|(j, b)| (*j, b.as_slice())).collect();
                drop(black_box(combine(committee, &views, BLOCKS)));
            }
        });
    }
}

fn main() {
    veil_benches::single_threaded();
    let mut c = Criterion::default()
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(600))
        .sample_size(20)
        .without_plots()
        .configure_from_args();
    ring(&mut c);
    randomness(&mut c);
    code(&mut c);
    ntt(&mut c);
    decryption(&mut c);
    c.final_summary();
}
