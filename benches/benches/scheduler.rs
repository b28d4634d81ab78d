//! The steps of a slot under the parameters and the keys of one committee of four, on all cores.
//! Read `elem/s` as lists, decisions (a replica on a worker), blocks or bids per second.
//!
//! Keys take about ten seconds to make and 2 GB to hold.

use std::{hint::black_box, time::Duration};

use criterion::{Criterion, Throughput};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha20Rng;
use tfhe::{set_server_key, unset_server_key};
use veil_benches::{
    baseline::{self, Apart, Request},
    keys::{Keys, NoiseOf},
};
use veil_keygen_ceremony::keyset::ParameterSet;
use veil_protocol_spec::Committee;

/// Workers in an iteration.
const WORKERS: usize = 4;

/// The stock API, which needs the server key to be set.
fn stock(c: &mut Criterion, name: &str, keys: &Keys) {
    set_server_key(keys.server_key.clone());
    let mut rng = ChaCha20Rng::seed_from_u64(1);
    let free: Vec<_> = (0..WORKERS).map(|_| [rng.gen_range(50..=255); 4]).collect();
    let free = baseline::encrypt(&free, &keys.public_key).expect("a list of four bytes");
    let job =
        baseline::Job { request: Request::Clear([10, 20, 30, 0]), replicas: 1, apart: Apart::No };
    let jobs = [job];
    let mut group = c.benchmark_group("baseline::place");
    group.throughput(Throughput::Elements(WORKERS as u64));
    group.bench_function(format!("{name} workers={WORKERS}"), |b| {
        b.iter(|| black_box(baseline::place(free.clone(), &jobs)));
    });
    group.finish();
    let bids: Vec<_> = (0..WORKERS).map(|_| rng.r#gen()).collect();
    let bids = baseline::encrypt_bids(&bids, &keys.public_key).expect("a list of bids");
    let mut group = c.benchmark_group("baseline::highest_bid");
    group.throughput(Throughput::Elements(WORKERS as u64));
    group.bench_function(format!("{name} bids={WORKERS}"), |b| {
        b.iter(|| black_box(baseline::highest_bid(&bids)));
    });
    group.finish();
    unset_server_key();
}

fn main() {
    let committee = Committee::new(4).expect("a committee of four exists");
    let keys = Keys::generate(ParameterSet::production(committee), 1, NoiseOf::OneGroup)
        .expect("the bodies are those of the parameters");
    let mut c = Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(5))
        .sample_size(10)
        .without_plots()
        .configure_from_args();
    stock(&mut c, &committee.to_string(), &keys);
    c.final_summary();
}
