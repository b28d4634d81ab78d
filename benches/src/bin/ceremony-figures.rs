//! Processor time of one production-size member in a key ceremony, against recorded peers: the other
//! members' chunks are made outside the measurement. The bits stream is measured whole; of each
//! section of the bodies stream a few chunks are, and the time is extrapolated by bytes. `--json`
//! prints it for machines.
//!
//! Not counted: the rounds before the streams (key contributions, FROST), signatures, encoding,
//! network, disk, and the final test decryption.

use std::process::ExitCode;

use clap::{Parser, builder::PossibleValuesParser};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha20Rng;
use serde::Serialize;
use tfhe::{
    Tag, core_crypto::prelude::NormalizedHammingWeightBound, xof_key_set::CompressedXofKeySet,
};
use veil_benches::member;
use veil_committee::{
    code::Opening,
    prf::SetKey,
    randomness::keys_of,
    subsets::{MemberSet, NoiseGroups, key_sets, zero_groups},
    with_degree,
};
use veil_keygen_ceremony::{
    chunks::{Chunk, ChunkPlan},
    keyset::{Bodies, Layout, ParameterSet, SectionBody, assemble, keyset_digest},
    shares::{
        bits::{BitShares, KeyBits},
        bodies::BodyShares,
        keys::StreamKeys,
        opening::{BodyOpening, open_bits},
    },
};
use veil_node_process::{Stopwatch, peak_rss_bytes};
use veil_protocol_spec::{
    Attempt, CeremonyId, Committee, ParticipantIndex,
    ceremony::{Header, Stream, StreamRoot},
};

/// Chunks measured of each section that has more; evenly spread. A chunk of 13 members takes 40
/// times as long as one of 4.
const fn sample_size(committee: Committee) -> usize {
    match committee.n() {
        4 => 64,
        7 => 32,
        10 => 16,
        _ => 8,
    }
}

/// One member's work in a production-size key ceremony, sampled and extrapolated.
#[derive(Parser)]
struct Arguments {
    /// Size of the committee.
    #[arg(long, default_value = "13", value_parser = PossibleValuesParser::new(["4", "7", "10", "13"]))]
    members: String,
    /// Skip making a key set with stock tfhe for comparison.
    #[arg(long)]
    no_comparison: bool,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// CPU seconds of one member for a stream, or a section of one.
#[derive(Clone, Copy, Default, Serialize)]
struct Work {
    /// Computing its own shares.
    produce: f64,
    /// Hashing its own chunks and those of all peers.
    hash: f64,
    /// Opening all members' chunks.
    open: f64,
}

impl Work {
    fn scaled(self, factor: f64) -> Self {
        let Self { produce, hash, open } = self;
        Self { produce: produce * factor, hash: hash * factor, open: open * factor }
    }

    fn total(self) -> f64 {
        self.produce + self.hash + self.open
    }
}

/// A part of a stream: what was measured and what that means for all of it.
#[derive(Serialize)]
struct Part {
    name: &'static str,
    chunks: usize,
    chunks_sampled: usize,
    bytes: u64,
    bytes_sampled: u64,
    cpu_seconds_sampled: Work,
    cpu_seconds: Work,
}

impl Part {
    fn new(name: &'static str, all: &[Chunk], sampled: &[Chunk], work: Work) -> Self {
        let bytes_of = |chunks: &[Chunk]| chunks.iter().map(|chunk| chunk.bytes as u64).sum();
        let (bytes, bytes_sampled): (u64, u64) = (bytes_of(all), bytes_of(sampled));
        Self {
            name,
            chunks: all.len(),
            chunks_sampled: sampled.len(),
            bytes,
            bytes_sampled,
            cpu_seconds_sampled: work,
            cpu_seconds: work.scaled(bytes as f64 / bytes_sampled as f64),
        }
    }
}

/// Work that is done once and measured whole, in CPU seconds.
#[derive(Default, Serialize)]
struct Once {
    /// Drawing shares of random elements for the key bits.
    draw_bits: f64,
    /// Turning them into shares of bits.
    derive_bits: f64,
    /// Preparing the bodies: transformed key shares.
    prepare_bodies: f64,
    /// Assembling the key set and its digest.
    assemble: f64,
}

impl Once {
    fn total(&self) -> f64 {
        self.draw_bits + self.derive_bits + self.prepare_bodies + self.assemble
    }
}

/// Bytes that one member expands from shared keys, computed.
#[derive(Serialize)]
struct PrfBytes {
    random: u64,
    zero: u64,
    noise: u64,
}

impl PrfBytes {
    /// Each AES block is 16 bytes: one per set or group and coefficient.
    fn of(committee: Committee, degree: usize, layout: &Layout, plan: &ChunkPlan) -> Self {
        let me = member(committee);
        let with_me = |sets: &[MemberSet]| sets.iter().filter(|set| set.contains(me)).count();
        let (sets, zeros) = (with_me(&key_sets(committee)), with_me(&zero_groups(committee)));
        let noise = with_me(NoiseGroups::of(committee).groups());
        let elements: usize = plan.of(Stream::Bodies).iter().map(|chunk| chunk.elements).sum();
        let (bits, element) = (layout.total_key_bits(), degree * 16);
        Self {
            random: (sets * element * bits) as u64,
            zero: (zeros * element * (bits + elements)) as u64,
            noise: (noise * element * elements) as u64,
        }
    }

    const fn total(&self) -> u64 {
        self.random + self.zero + self.noise
    }
}

#[derive(Serialize)]
struct Comparison {
    stock_cpu_seconds: f64,
    ratio_cpu_per_member: f64,
}

#[derive(Serialize)]
struct Figures {
    members: usize,
    max_faulty: usize,
    parameters: &'static str,
    /// Always true: most of `parts` are sampled.
    extrapolated: bool,
    cpu_seconds_per_member: f64,
    once: Once,
    parts: Vec<Part>,
    prf_bytes_per_member: u64,
    prf_bytes: PrfBytes,
    stream_bytes: u64,
    traffic_bytes_per_member: u64,
    ratio_traffic: f64,
    /// Of this process, which holds all members' shares, before the comparison.
    peak_rss_bytes: u64,
    #[serde(flatten)]
    comparison: Option<Comparison>,
}

/// Runs `op` and adds the CPU time of the whole process to `sum`.
fn timed<T>(sum: &mut f64, op: impl FnOnce() -> T) -> T {
    let watch = Stopwatch::start();
    let result = op();
    *sum += watch.cpu();
    result
}

/// The keys that every participant draws its streams from.
fn all_keys(committee: Committee, rng: &mut ChaCha20Rng) -> Vec<StreamKeys> {
    let (sets, family) = (key_sets(committee), NoiseGroups::of(committee));
    let zeros = zero_groups(committee);
    let mut random =
        |count: usize| -> Vec<SetKey> { (0..count).map(|_| SetKey::new(rng.r#gen())).collect() };
    let (set_keys, group_keys) = (random(sets.len()), random(family.groups().len()));
    let zero_keys = random(zeros.len());
    committee
        .participants()
        .map(|j| StreamKeys {
            dkg: keys_of(&sets, j, &set_keys),
            noise: keys_of(family.groups(), j, &group_keys),
            zero: keys_of(&zeros, j, &zero_keys),
        })
        .collect()
}

/// Hashes a chunk of every member, as its receiver does.
fn hash_all(committee: Committee, stream: Stream, index: usize, chunks: &[Vec<u8>]) {
    for (sender, bytes) in committee.participants().zip(chunks) {
        let header = Header {
            ceremony: CeremonyId([1; 32]),
            attempt: Attempt(0),
            round: stream.root_round(),
            sender,
            recipient: None,
        };
        std::hint::black_box(StreamRoot::chunk_digest(&header, stream, index as u32, bytes));
    }
}

/// All members' chunks; only the time of `me` counts.
fn produce_all<T>(
    members: &[(ParticipantIndex, T)],
    me: ParticipantIndex,
    produce: &mut f64,
    chunk: impl Fn(&T) -> Vec<u8>,
) -> Vec<Vec<u8>> {
    members
        .iter()
        .map(|(j, shares)| if *j == me { timed(produce, || chunk(shares)) } else { chunk(shares) })
        .collect()
}

/// The whole bits stream: every member's shares of the key bits.
fn bits<const D: usize>(
    committee: Committee,
    layout: &Layout,
    plan: &ChunkPlan,
    keys: &[StreamKeys],
    once: &mut Once,
) -> Result<(Part, Vec<KeyBits<D>>), String> {
    let (me, count) = (member(committee), layout.total_key_bits());
    let mut ignored = 0.0;
    let drawn: Vec<_> = committee
        .participants()
        .zip(keys)
        .map(|(j, keys)| {
            let sum = if j == me { &mut once.draw_bits } else { &mut ignored };
            (j, timed(sum, || BitShares::<D>::draw(committee, j, keys, count)))
        })
        .collect();
    let opening = Opening::new(committee, 2 * committee.max_faulty().get());
    let (mut work, mut opened) = (Work::default(), Vec::with_capacity(count));
    let chunks = plan.of(Stream::Bits);
    for (index, chunk) in chunks.iter().enumerate() {
        let bytes = produce_all(&drawn, me, &mut work.produce, |shares| shares.chunk(chunk));
        timed(&mut work.hash, || hash_all(committee, Stream::Bits, index, &bytes));
        let views: Vec<_> = bytes.iter().map(Vec::as_slice).collect();
        timed(&mut work.open, || open_bits(&opening, chunk, &views, &mut opened))
            .map_err(|error| format!("chunk {index} of the bits: {error}"))?;
    }
    let bits = drawn
        .into_iter()
        .map(|(j, shares)| {
            let sum = if j == me { &mut once.derive_bits } else { &mut ignored };
            let shares =
                timed(sum, || shares.into_bits(&opened)).map_err(|error| error.to_string())?;
            Ok(KeyBits::new(layout, shares))
        })
        .collect::<Result<_, String>>()?;
    Ok((Part::new("bits", chunks, chunks, work), bits))
}

/// A sample of one section of the bodies stream, opened into `body`.
fn section<const D: usize>(
    committee: Committee,
    layout: &Layout,
    plan: &ChunkPlan,
    members: &[(ParticipantIndex, BodyShares<D>)],
    (position, body): (usize, &mut SectionBody),
) -> Result<Part, String> {
    let (me, section) = (member(committee), &layout.sections[position]);
    let (indexes, all): (Vec<_>, Vec<Chunk>) = plan
        .of(Stream::Bodies)
        .iter()
        .enumerate()
        .filter(|(_, chunk)| chunk.section == position)
        .map(|(index, chunk)| (index, *chunk))
        .unzip();
    let count = all.len().min(sample_size(committee));
    // The middles of `count` equal pieces.
    let sample: Vec<usize> = (0..count).map(|i| (2 * i + 1) * all.len() / (2 * count)).collect();
    let opening = BodyOpening::<D>::new(committee);
    let mut work = Work::default();
    for i in &sample {
        let (index, chunk) = (indexes[*i], &all[*i]);
        let bytes = produce_all(members, me, &mut work.produce, |shares| shares.chunk(chunk));
        timed(&mut work.hash, || hash_all(committee, Stream::Bodies, index, &bytes));
        let views: Vec<_> = bytes.iter().map(Vec::as_slice).collect();
        timed(&mut work.open, || opening.open(section, chunk, &views, body))
            .map_err(|error| format!("chunk {index} of the {}: {error}", section.component))?;
    }
    let sampled: Vec<Chunk> = sample.iter().map(|i| all[*i]).collect();
    Ok(Part::new(section.component.name(), &all, &sampled, work))
}

fn measure<const D: usize>(committee: Committee) -> Result<Figures, String> {
    let params = ParameterSet::production(committee);
    let layout = Layout::of(&params);
    let plan = ChunkPlan::new(committee, &params, &layout);
    let mut rng = ChaCha20Rng::seed_from_u64(5);
    let keys = all_keys(committee, &mut rng);
    let public_seed: [u8; 32] = rng.r#gen();
    let mut once = Once::default();
    eprintln!("bits");
    let (part, bits) = bits::<D>(committee, &layout, &plan, &keys, &mut once)?;
    let mut parts = vec![part];
    let (me, mut ignored) = (member(committee), 0.0);
    let members: Vec<_> = committee
        .participants()
        .zip(&keys)
        .zip(&bits)
        .map(|((j, keys), bits)| {
            let sum = if j == me { &mut once.prepare_bodies } else { &mut ignored };
            let new = || BodyShares::new(committee, j, &params, &layout, bits, keys, &public_seed);
            (j, timed(sum, new))
        })
        .collect();
    let mut bodies = Bodies::zeroed(&layout);
    for (position, body) in bodies.sections.iter_mut().enumerate() {
        eprintln!("{}", layout.sections[position].component);
        parts.push(section(committee, &layout, &plan, &members, (position, body))?);
    }
    drop(members);
    // Untouched zeros are no memory at all: most of the bodies would not be read.
    for body in &mut bodies.sections {
        match body {
            SectionBody::W64(words) => words.fill(1),
            SectionBody::W128(words) => words.fill(1),
        }
    }
    eprintln!("assemble");
    timed(&mut once.assemble, || {
        assemble(&params, public_seed, bodies)
            .map(|key_set| std::hint::black_box(keyset_digest(&key_set)))
    })
    .map_err(|error| error.to_string())?;
    let stream_bytes = plan.stream_bytes(Stream::Bits) + plan.stream_bytes(Stream::Bodies);
    let peers = (committee.n() - 1) as u64;
    let prf_bytes = PrfBytes::of(committee, D, &layout, &plan);
    Ok(Figures {
        members: committee.n(),
        max_faulty: committee.max_faulty().get(),
        parameters: params.name(),
        extrapolated: true,
        cpu_seconds_per_member: once.total()
            + parts.iter().map(|part| part.cpu_seconds.total()).sum::<f64>(),
        once,
        parts,
        prf_bytes_per_member: prf_bytes.total(),
        prf_bytes,
        stream_bytes,
        traffic_bytes_per_member: stream_bytes * peers,
        ratio_traffic: stream_bytes as f64 / layout.body_bytes() as f64,
        peak_rss_bytes: peak_rss_bytes(),
        comparison: None,
    })
}

/// CPU time of stock tfhe for a key set of the same shape.
fn compare(committee: Committee, cpu_per_member: f64) -> Result<Comparison, String> {
    let config = ParameterSet::production(committee).config();
    let bound = NormalizedHammingWeightBound::new(1.0).ok_or("1 is no Hamming weight bound")?;
    let mut stock_cpu_seconds = 0.0;
    timed(&mut stock_cpu_seconds, || {
        CompressedXofKeySet::generate(config, vec![1; 32], 128, bound, Tag::default()).map(drop)
    })
    .map_err(|error| error.to_string())?;
    let ratio_cpu_per_member = cpu_per_member / stock_cpu_seconds;
    Ok(Comparison { stock_cpu_seconds, ratio_cpu_per_member })
}

fn print(figures: &Figures) {
    let gb = |bytes: u64| bytes as f64 / 1e9;
    println!("n={} t={} {}", figures.members, figures.max_faulty, figures.parameters);
    println!("CPU seconds of one member; parts are EXTRAPOLATED from the chunks sampled");
    println!("part                  sampled  chunks   produce     hash     open    total");
    for part in &figures.parts {
        let Work { produce, hash, open } = part.cpu_seconds;
        println!(
            "{:20} {:8} {:7} {produce:9.3} {hash:8.3} {open:8.3} {:8.3}",
            part.name,
            part.chunks_sampled,
            part.chunks,
            part.cpu_seconds.total()
        );
    }
    let Once { draw_bits, derive_bits, prepare_bodies, assemble } = figures.once;
    println!("draw bits             {draw_bits:8.3}");
    println!("derive bits           {derive_bits:8.3}");
    println!("prepare bodies        {prepare_bodies:8.3}");
    println!("assemble and digest   {assemble:8.3}");
    println!("all                   {:8.3}", figures.cpu_seconds_per_member);
    let PrfBytes { random, zero, noise } = figures.prf_bytes;
    println!(
        "PRF                   {:8.3} GB (PRSS {:.3}, PRZS {:.3}, noise {:.3})",
        gb(figures.prf_bytes_per_member),
        gb(random),
        gb(zero),
        gb(noise)
    );
    println!(
        "sent                  {:8.3} GB ({:.4} of the bodies, for each peer)",
        gb(figures.traffic_bytes_per_member),
        figures.ratio_traffic
    );
    println!("peak memory           {:8.3} GB", gb(figures.peak_rss_bytes));
    if let Some(Comparison { stock_cpu_seconds, ratio_cpu_per_member }) = figures.comparison {
        println!("stock tfhe            {stock_cpu_seconds:8.3} CPU seconds");
        println!("ratio to stock        {ratio_cpu_per_member:8.3}");
    }
}

fn run(arguments: &Arguments) -> Result<(), String> {
    let members: u8 = arguments.members.parse().map_err(|error| format!("{error}"))?;
    let committee = Committee::new(members).map_err(|error| error.to_string())?;
    let mut figures = with_degree!(committee, D => measure::<D>(committee)?);
    if !arguments.no_comparison {
        eprintln!("stock tfhe");
        figures.comparison = Some(compare(committee, figures.cpu_seconds_per_member)?);
    }
    if arguments.json {
        println!("{}", serde_json::json!(figures));
    } else {
        print(&figures);
    }
    Ok(())
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
