//! What a slot costs by the threshold circuit: look-ups (PBS), seconds, core-seconds (others use the machine as
//! well); and, under the same key and in the same run, by the circuit that opens nothing before the end, which is
//! that of commit f65180e, with its proofs and memory, and written with tfhe's stock API. The parameters are those
//! of a committee of four, the key is made by one party.
//!
//! A large slot is counted on numbers, which takes the same look-ups; what one costs is then measured in a
//! smaller slot.
//!
//! Exits with 1 if a decrypted outcome is not its cleartext twin's.

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, ValueEnum};
use peak_alloc::PeakAlloc;
use serde::Serialize;
use veil_benches::{
    auction::{AuctionFigures, run_stock_bids},
    failure::Failure,
    inputs::{Kept, ListFigures},
    keys::{Keys, NoiseOf},
    placement::{Bench, CircuitFigures, MAX_STOCK_NODES, Slot, StockFigures, run_stock},
    threshold::{ThresholdFigures, in_one_piece, thresholds_in_clear},
};
use veil_keygen_ceremony::keyset::ParameterSet;
use veil_protocol_spec::{
    Committee,
    scheduling::{SchedulingPolicy, Strength},
};
use veil_scheduler::EvaluationKey;

/// Counts what is allocated.
#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Apart {
    None,
    Soft,
    Hard,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Policy {
    Spread,
    Binpack,
    PriorityRoundRobin,
    Cost,
}

/// Cost of a slot under the parameters of a committee of four.
#[derive(Parser)]
struct Arguments {
    /// Workers.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=1024))]
    nodes: u16,
    /// Jobs in the slot; what a winner is promised is not free for the next.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=100))]
    jobs: u16,
    /// Replicas of each job.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    replicas: u16,
    /// Resources that each replica asks for: CPU, memory, disk, GPUs, from the first.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u8).range(2..=4))]
    resources: u8,
    /// How a worker is chosen.
    #[arg(long, value_enum, default_value = "spread")]
    policy: Policy,
    /// Anti-affinity across workers; soft if there are replicas, else none.
    #[arg(long, value_enum)]
    apart: Option<Apart>,
    /// Encrypt what the jobs ask for.
    #[arg(long)]
    encrypted_requests: bool,
    /// Parameters of the key: "production" or "insecure-test". Counts of look-ups are the same under
    /// both, times are not.
    #[arg(long, default_value = "production")]
    parameters: String,
    /// Leave out the circuit of f65180e and the stock API, which take minutes for large slots.
    #[arg(long)]
    no_baseline: bool,
    /// Largest number of workers times replicas of all jobs that is evaluated under a key; more are counted.
    #[arg(long, default_value_t = 1000)]
    most_measured: u32,
    /// Also measure the winner of so many encrypted bids of 16 bits.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=255))]
    bids: Option<u16>,
    /// Keep the encrypted lists in this directory and take them from there next time: runs with the
    /// same options then print the same output digest, whatever the number of threads.
    #[arg(long, value_name = "DIR")]
    inputs: Option<PathBuf>,
    /// Threads; all cores if it is not given.
    #[arg(long)]
    threads: Option<usize>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

impl Arguments {
    fn slot(&self) -> Slot {
        let apart = self.apart.unwrap_or(if self.replicas > 1 { Apart::Soft } else { Apart::None });
        Slot {
            nodes: self.nodes,
            jobs: self.jobs,
            replicas: self.replicas,
            policy: match self.policy {
                Policy::Spread => SchedulingPolicy::Spread,
                Policy::Binpack => SchedulingPolicy::BinPack,
                Policy::PriorityRoundRobin => SchedulingPolicy::PriorityRoundRobin,
                Policy::Cost => SchedulingPolicy::Cost,
            },
            apart: match apart {
                Apart::None => None,
                Apart::Soft => Some(Strength::Soft),
                Apart::Hard => Some(Strength::Hard),
            },
            encrypted_requests: self.encrypted_requests,
            resources: self.resources,
        }
    }
}

#[derive(Serialize)]
struct Figures {
    parameters: &'static str,
    nodes: u16,
    jobs: u16,
    replicas: u16,
    policy: SchedulingPolicy,
    resources: u8,
    encrypted_requests: bool,
    threads: usize,
    #[serde(flatten)]
    circuit: ThresholdFigures,
    /// Core-seconds of this circuit over those of f65180e's, expansion apart.
    ratio_vs_f65180e: Option<f64>,
    /// The same of look-ups.
    pbs_ratio_vs_f65180e: Option<f64>,
    /// Look-ups of f65180e's circuit.
    f65180e_pbs: Option<u64>,
    /// All figures of f65180e's circuit; absent if it was only counted.
    f65180e: Option<CircuitFigures>,
    stock: Option<StockFigures>,
    /// Core-seconds of the stock API over those of the circuit, expansion apart.
    ratio_vs_stock: Option<f64>,
    /// The same of look-ups.
    pbs_ratio_vs_stock: Option<f64>,
    bids: Option<u16>,
    /// The winner of the bids.
    auction: Option<AuctionFigures>,
    stock_auction: Option<StockFigures>,
    /// Core-seconds of the stock API over those of the auction.
    auction_ratio_vs_stock: Option<f64>,
}

/// What is measured of the circuits.
struct Circuits {
    threshold: ThresholdFigures,
    /// Look-ups and core-seconds.
    one_piece: Option<(u64, f64)>,
    one_piece_figures: Option<CircuitFigures>,
}

fn circuits(
    bench: &Bench<'_>,
    slot: &Slot,
    measured: bool,
    one_piece: bool,
) -> Result<Circuits, Failure> {
    let sample = if measured {
        *slot
    } else {
        Slot { nodes: slot.nodes.min(15), jobs: 1, replicas: 1, ..*slot }
    };
    let threshold = bench.run_thresholds(&sample)?;
    let figures = one_piece.then(|| bench.run(&sample)).transpose()?;
    if measured {
        let one_piece = figures.as_ref().map(|figures| (figures.pbs, figures.core_seconds));
        return Ok(Circuits { threshold, one_piece, one_piece_figures: figures });
    }
    if !(threshold.agrees_with_twin && figures.as_ref().is_none_or(|of| of.agrees_with_twin)) {
        return Err("the smaller slot is not placed as by the cleartext twin".into());
    }
    let one = |pbs: u64, core_seconds: f64| core_seconds / pbs.max(1) as f64;
    let in_all = |figures: CircuitFigures| {
        let pbs = in_one_piece(slot)?;
        Ok::<_, Failure>((pbs, pbs as f64 * one(figures.pbs, figures.core_seconds)))
    };
    Ok(Circuits {
        threshold: thresholds_in_clear(slot, one(threshold.pbs, threshold.core_seconds))?,
        one_piece: figures.map(in_all).transpose()?,
        one_piece_figures: None,
    })
}

fn measure(arguments: &Arguments) -> Result<Figures, Failure> {
    let slot = arguments.slot();
    let measured = slot.decisions() <= f64::from(arguments.most_measured);
    let parameters = ParameterSet::by_name(&arguments.parameters, Committee::new(4)?)?;
    let keys = Keys::generate(parameters, 1, NoiseOf::OneGroup)?;
    let baseline = !arguments.no_baseline;
    let with_stock = baseline && measured && usize::from(slot.nodes) <= MAX_STOCK_NODES;
    let stock = with_stock.then(|| run_stock(&slot, &keys)).transpose()?;
    let bids = arguments.bids.filter(|_| baseline);
    let stock_auction = bids.map(|bids| run_stock_bids(bids, &keys)).transpose()?;
    let Keys { parameters, clear, public_key, server_key, .. } = keys;
    let key = EvaluationKey::new(public_key.clone(), server_key)?;
    let kept = Kept::new(arguments.inputs.clone())?;
    let string = kept.reference_string(&parameters)?;
    let (clear, public_key) = (&clear, &public_key);
    let bench = Bench { clear, public_key, key: &key, string: &string, kept: &kept };
    let Circuits { threshold, one_piece, one_piece_figures } =
        circuits(&bench, &slot, measured, baseline)?;
    let auction = arguments.bids.map(|bids| bench.run_bids(bids)).transpose()?;
    Ok(Figures {
        parameters: parameters.name(),
        nodes: slot.nodes,
        jobs: slot.jobs,
        replicas: slot.replicas,
        policy: slot.policy,
        resources: slot.resources,
        encrypted_requests: slot.encrypted_requests,
        threads: rayon::current_num_threads(),
        ratio_vs_f65180e: one_piece.map(|(_, seconds)| threshold.core_seconds / seconds),
        pbs_ratio_vs_f65180e: one_piece.map(|(pbs, _)| threshold.pbs as f64 / pbs as f64),
        f65180e_pbs: one_piece.map(|(pbs, _)| pbs),
        f65180e: one_piece_figures,
        ratio_vs_stock: stock.map(|stock| stock.core_seconds / threshold.core_seconds),
        pbs_ratio_vs_stock: stock.map(|stock| stock.pbs as f64 / threshold.pbs as f64),
        bids: arguments.bids,
        auction_ratio_vs_stock: auction
            .as_ref()
            .zip(stock_auction)
            .map(|(auction, stock)| stock.core_seconds / auction.core_seconds),
        auction,
        stock_auction,
        circuit: threshold,
        stock,
    })
}

fn print_list(name: &str, list: &ListFigures) {
    let prove = list.prove_core_seconds.map_or_else(|| "-".to_owned(), |s| format!("{s:.2}"));
    println!(
        "{name} list {} bytes; core-seconds: prove {prove}, verify {:.2}, expand {:.2} ({} PBS)",
        list.bytes, list.verify_core_seconds, list.expand_core_seconds, list.pbs,
    );
}

fn print(figures: &Figures) {
    let Figures { nodes, jobs, replicas, resources, threads, circuit, .. } = figures;
    println!(
        "{jobs} jobs of {replicas} replicas by {:?} on {nodes} workers, {resources} resources, {} requests, \
         {threads} threads",
        figures.policy,
        if figures.encrypted_requests { "encrypted" } else { "public" },
    );
    if let Some(telemetry) = &circuit.telemetry {
        print_list("telemetry", telemetry);
    }
    println!(
        "{}: {:.2} core-seconds, {} PBS, {:.2} for each worker and replica, {} openings of one digit, {} in a \
         row, variance up to {}; {} more to expand all lists",
        if circuit.measured { "evaluated" } else { "counted" },
        circuit.core_seconds,
        circuit.pbs,
        circuit.pbs_per_node_job,
        circuit.openings,
        circuit.depth,
        circuit.largest_variance,
        circuit.pbs_expansion,
    );
    if let (Some(seconds), Some(squash)) = (circuit.seconds, circuit.squash_core_seconds) {
        println!("evaluate {seconds:.2} s, squash {squash:.2} core-seconds");
    }
    if let (Some(pbs), Some(ratio), Some(pbs_ratio)) =
        (figures.f65180e_pbs, figures.ratio_vs_f65180e, figures.pbs_ratio_vs_f65180e)
    {
        println!(
            "circuit of f65180e {pbs} PBS: this one takes {ratio:.3} of its core-seconds, {pbs_ratio:.3} of its PBS"
        );
    }
    if let Some(one_piece) = &figures.f65180e {
        print_one_piece(one_piece);
    }
    if let (Some(stock), Some(ratio), Some(pbs_ratio)) =
        (&figures.stock, figures.ratio_vs_stock, figures.pbs_ratio_vs_stock)
    {
        println!(
            "stock API {:.2} s, {:.2} core-seconds, {} PBS, {:.1} for each worker and replica: \
             {ratio:.1} times the core-seconds, {pbs_ratio:.1} times the PBS",
            stock.seconds, stock.core_seconds, stock.pbs, stock.pbs_per_node_job,
        );
    }
    if let (Some(bids), Some(auction)) = (figures.bids, &figures.auction) {
        print_list("bid", &auction.bid);
        println!(
            "winner of {bids} bids {:.2} s, {:.2} core-seconds, {} PBS, {} in a row, digest {}",
            auction.seconds,
            auction.core_seconds,
            auction.pbs,
            auction.depth,
            auction.output_digest,
        );
    }
    if let (Some(stock), Some(ratio)) = (&figures.stock_auction, figures.auction_ratio_vs_stock) {
        println!(
            "winner by the stock API {:.2} s, {:.2} core-seconds, {} PBS: {ratio:.1} times the \
             core-seconds",
            stock.seconds, stock.core_seconds, stock.pbs,
        );
    }
    if let Some(digest) = circuit.output_digest {
        println!("output digest {digest}");
    }
    println!("agrees with the cleartext twin: {}", circuit.agrees_with_twin);
}

/// The circuit of f65180e.
fn print_one_piece(circuit: &CircuitFigures) {
    circuit.request.iter().for_each(|request| print_list("request", request));
    println!(
        "  evaluate {:.2} s, {:.2} core-seconds, {:.1} PBS for each worker and replica, {:.2} of what it takes without \
         overhead, {} in a row; {} more to expand late",
        circuit.seconds,
        circuit.core_seconds,
        circuit.pbs_per_node_job,
        circuit.pbs_over_its_own_least,
        circuit.depth,
        circuit.pbs_of_late_expansion,
    );
    println!("  memory beyond the keys {} KiB a worker", circuit.memory_bytes_per_node >> 10);
    println!(
        "  squash {} blocks in {:.2} s, {:.2} core-seconds",
        circuit.squashed_blocks, circuit.squash_seconds, circuit.squash_core_seconds,
    );
    for capacity in &circuit.capacity {
        println!(
            "  a slot of {} s has time for {} workers x replicas",
            capacity.slot_seconds, capacity.node_jobs
        );
    }
    println!("  agrees with its cleartext twin: {}", circuit.agrees_with_twin);
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Some(threads) = arguments.threads {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build_global();
        if let Err(error) = pool {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    }
    let figures = match measure(&arguments) {
        Ok(figures) => figures,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    };
    if arguments.json {
        match serde_json::to_string_pretty(&figures) {
            Ok(json) => println!("{json}"),
            Err(error) => eprintln!("{error}"),
        }
    } else {
        print(&figures);
    }
    let stock = [figures.stock, figures.stock_auction].into_iter().flatten();
    let agree = figures.circuit.agrees_with_twin
        && figures.f65180e.is_none_or(|circuit| circuit.agrees_with_twin)
        && figures.auction.is_none_or(|auction| auction.agrees_with_twin)
        && stock.into_iter().all(|stock| stock.agrees_with_twin);
    if agree { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
