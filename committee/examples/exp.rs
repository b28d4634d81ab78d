#![allow(missing_docs, clippy::all, unused)]
use rand::{Rng, SeedableRng};
use std::time::Instant;
use veil_committee::{decrypt::*, prf::*, randomness::*, ring::*, subsets::*};
use veil_protocol_spec::*;


fn min_ns(mut f: impl FnMut(), reps: usize) -> f64 {
    let mut best = f64::MAX;
    for _ in 0..reps {
        let t = Instant::now();
        f();
        best = best.min(t.elapsed().as_nanos() as f64);
    }
    best
}
#[cfg(any())]
fn ipn<const D: usize>() {
    let mut rng = rand_chacha::ChaCha20Rng::seed_from_u64(1);
    let words: Vec<[u128; D]> = (0..4096).map(|_| core::array::from_fn(|_| rng.r#gen())).collect();
    let planes: Vec<Vec<u128>> = (0..D).map(|c| words.iter().map(|w| w[c]).collect()).collect();
    let sv = ip::SecretVectors::<D>::new(&words);
    let masks: Vec<Vec<u128>> = (0..16).map(|_| (0..4096).map(|_| rng.r#gen()).collect()).collect();
    let mut out = vec![[0u128; D]; 16];
    let base = min_ns(|| for (o, m) in out.iter_mut().zip(&masks) {
        for (o, p) in o.iter_mut().zip(&planes) { *o = m.iter().zip(p).fold(0, |s: u128, (x, y)| s.wrapping_add(x.wrapping_mul(*y))); }
    }, 300) / 16.;
    let expect = out.clone();
    let new = min_ns(|| for (o, m) in out.iter_mut().zip(&masks) { *o = sv.inner_products(0, m); }, 300) / 16.;
    assert_eq!(out, expect);
    println!("D={D} inner product: base {base:.0} ns, split {new:.0} ns");
}
fn main() {
    println!("{:?}", pulp::Arch::new());


    let mut rng = rand_chacha::ChaCha20Rng::seed_from_u64(1);
    let blocks: Vec<SquashedBlock> = (0..16).map(|_| SquashedBlock { mask: (0..4096).map(|_| rng.r#gen()).collect(), body: 1 }).collect();
    println!("digest {:.0} ns", min_ns(|| for b in &blocks { std::hint::black_box(b.digest()); }, 300) / 16.);
    let prf = Prf::new(&SetKey::new([1; 32]), "x");
    for count in [1, 4, 12, 16, 48, 64] {
        let d = vec![[5u8; 32]; count];
        let mut o = vec![[0u128; 2]; count];
        println!("of_digests {count}: {:.1} ns each", min_ns(|| for _ in 0..100 { prf.of_digests(&d, &mut o) }, 300) / count as f64 / 100.);
    }
    for count in [12, 48, 63, 64, 192, 256, 1024] {
        let mut o = vec![0u128; count];
        println!("fill {count}: {:.2} ns each", min_ns(|| for i in 0..100 { prf.fill(i, &mut o) }, 300) / count as f64 / 100.);
    }
    for n in [4, 7, 10, 13] {
        let c = Committee::new(n).unwrap();
        veil_committee::with_degree!(c, D => {
            let sets = key_sets(c);
            let keys: Vec<_> = sets.iter().map(|_| SetKey::new(rng.r#gen())).collect();
            let me = c.participants().next_back().unwrap();
            let mine = keys_of(&sets, me, &keys);
            let share: Vec<Element<u128, D>> = (0..4096).map(|_| Element(core::array::from_fn(|_| rng.r#gen()))).collect();
            let dec = PartialDecryptor::new(c, me, &share, &mine, &KeySetDigest([1; 32]), Epoch(0));
            let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
            pool.install(|| {
                let b16 = min_ns(|| { std::hint::black_box(dec.partial(&blocks).unwrap()); }, 100) / 16.;
                let b1 = min_ns(|| { std::hint::black_box(dec.partial(&blocks[..1]).unwrap()); }, 100);
                let many: Vec<_> = blocks.iter().cycle().take(64).cloned().collect();
                let b64 = min_ns(|| { std::hint::black_box(dec.partial(&many).unwrap()); }, 50) / 64.;
                println!("n={n} 64 blocks {b64:.0}");
                println!("n={n} partial: {b16:.0} ns/block of 16, {b1:.0} ns one");
            });
            let z = ZeroShares::<u128, D>::new(c, me, &mine, "z");
            let z64 = ZeroShares::<u64, D>::new(c, me, &mine, "z");
            let mut out = vec![Element::ZERO(); 256];
            let mut out64 = vec![Element::ZERO(); 256];
            let reps = if n == 13 { 10 } else { 50 };
            let sets = mine.len() as f64;
            let p = min_ns(|| z.add_to(0, &mut out), reps) / 256.;
            let p64 = min_ns(|| z64.add_to(0, &mut out64), reps) / 256.;
            println!("n={n} przs u128 {p:.0} ns/element ({:.1}/set) u64 {p64:.0} ({:.1}/set)", p / sets, p64 / sets);
            let groups = NoiseGroups::of(c);
            let gk: Vec<_> = groups.groups().iter().map(|_| SetKey::new(rng.r#gen())).collect();
            let gm = keys_of(groups.groups(), me, &gk);
            let nz = NoiseShares::<u128, D>::new(c, me, &gm, "n", 1 << 40);
            let p = min_ns(|| nz.add_to(0, 1 << 20, &mut out), reps) / 256.;
            println!("n={n} noise u128 {p:.0} ns/element ({:.1}/group)", p / gm.len() as f64);
            let r = RandomShares::<u128, D>::new(c, me, &mine, "r");
            let p = min_ns(|| r.fill(0, &mut out), reps) / 256.;
            println!("n={n} prss u128 {p:.0} ns/element ({:.1}/set)", p / sets);
        });
    }
}
