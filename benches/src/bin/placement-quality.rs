//! How good placement on quantised capacities is: a day of arrivals run through the circuit's
//! policies (their cleartext twin), which ask a sample of the machines or all, and through exact best-fit and
//! least-loaded, side by side; or the machines and pods of a file. Exits
//! with 1 if a policy accepts less work than its exact counterpart by more than the tolerance.

use std::{path::PathBuf, process::ExitCode};

use clap::Parser;
use rayon::prelude::*;
use serde::Serialize;
use veil_benches::simulation::{
    BestFit, LeastLoaded, PlaceError, Placer, Quantised, Report, Workload, run,
};
use veil_protocol_spec::scheduling::{
    Candidates, RequestTooLarge,
    SchedulingPolicy::{self, BinPack, Spread},
};

/// By how much less work than exact placement is tolerated.
const TOLERANCE: f64 = 0.03;

/// Placement on quantised capacities against exact placement.
#[derive(Parser)]
struct Arguments {
    /// Days to simulate for each load.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=1000))]
    seeds: u64,
    /// Machines, of mixed sizes.
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=255))]
    machines: u16,
    /// What arrives, as a multiple of what the machines can do.
    #[arg(long, value_delimiter = ',', default_values_t = [0.8, 1.1])]
    loads: Vec<f64>,
    /// Machines and pods from a CSV file instead: its first line is
    /// `kind,cpu_milli,memory_mib,gpus,arrival,duration`, then one line for each `machine`, with the last two
    /// values empty, and each `pod`, which arrives after so many seconds and runs for so many.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["seeds", "machines", "loads"])]
    trace: Option<PathBuf>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Figures {
    machines: usize,
    tolerance: f64,
    comparisons: Vec<Comparison>,
    within_tolerance: bool,
}

/// One policy and its exact counterpart under one load.
#[derive(Serialize)]
struct Comparison {
    /// As a multiple of what the machines can do; null of a trace.
    load: Option<f64>,
    /// Accepted work, quantised over exact, all seeds together.
    accepted_work_ratio: f64,
    /// The same of the worst seed. A few long jobs are a percent of a day's work, so that one seed
    /// scatters.
    lowest_ratio: f64,
    exact: Vec<Report>,
    quantised: Vec<Report>,
}

impl Comparison {
    fn new(load: Option<f64>, exact: Vec<Report>, quantised: Vec<Report>) -> Self {
        let work =
            |reports: &[Report]| reports.iter().map(|report| report.accepted_work).sum::<f64>();
        let ratios = exact
            .iter()
            .zip(&quantised)
            .map(|(exact, ours)| ours.accepted_work / exact.accepted_work);
        Self {
            load,
            accepted_work_ratio: work(&quantised) / work(&exact),
            lowest_ratio: ratios.fold(f64::INFINITY, f64::min),
            exact,
            quantised,
        }
    }
}

type MakePlacer = fn(&Workload) -> Result<Box<dyn Placer>, RequestTooLarge>;

/// A policy's exact counterpart, and the policy.
const PAIRS: [(MakePlacer, MakePlacer); 6] = [
    (|_| Ok(Box::new(LeastLoaded)), |day| spread("spread", Candidates::Sample, day)),
    (|_| Ok(Box::new(LeastLoaded)), |day| spread("spread, all asked", Candidates::All, day)),
    (|_| Ok(Box::new(BestFit)), |day| bin_pack("binpack", Candidates::Sample, day)),
    (|_| Ok(Box::new(BestFit)), |day| bin_pack("binpack, all asked", Candidates::All, day)),
    (|_| Ok(Box::new(LeastLoaded)), |day| by_thresholds("spread, 8 levels", Spread, day)),
    (|_| Ok(Box::new(BestFit)), |day| by_thresholds("binpack, 8 levels", BinPack, day)),
];

fn spread(
    name: &'static str,
    candidates: Candidates,
    day: &Workload,
) -> Result<Box<dyn Placer>, RequestTooLarge> {
    Ok(Box::new(Quantised::new(name, SchedulingPolicy::Spread, candidates, day)?))
}

fn bin_pack(
    name: &'static str,
    candidates: Candidates,
    day: &Workload,
) -> Result<Box<dyn Placer>, RequestTooLarge> {
    Ok(Box::new(Quantised::new(name, SchedulingPolicy::BinPack, candidates, day)?))
}

fn by_thresholds(
    name: &'static str,
    policy: SchedulingPolicy,
    day: &Workload,
) -> Result<Box<dyn Placer>, RequestTooLarge> {
    Ok(Box::new(Quantised::new(name, policy, Candidates::Sample, day)?.by_thresholds()))
}

fn compare(
    load: Option<f64>,
    days: &[Workload],
    comparisons: &mut Vec<Comparison>,
) -> Result<(), PlaceError> {
    let all = |make: MakePlacer| -> Result<Vec<Report>, PlaceError> {
        days.par_iter().map(|day| Ok(run(day, make(day)?.as_mut())?)).collect()
    };
    for (exact, quantised) in PAIRS {
        comparisons.push(Comparison::new(load, all(exact)?, all(quantised)?));
    }
    Ok(())
}

fn measure(arguments: &Arguments) -> Result<Figures, PlaceError> {
    let mut comparisons = Vec::new();
    let mut machines = usize::from(arguments.machines);
    if let Some(path) = &arguments.trace {
        let named = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
        let text = std::fs::read_to_string(path).map_err(|error| named(&error))?;
        let trace = Workload::from_trace(&text).map_err(|error| named(&error))?;
        machines = trace.machines.len();
        compare(None, &[trace], &mut comparisons)?;
    } else {
        for load in &arguments.loads {
            let days: Vec<_> = (0..arguments.seeds)
                .into_par_iter()
                .map(|seed| Workload::synthetic(seed, machines, *load))
                .collect();
            compare(Some(*load), &days, &mut comparisons)?;
        }
    }
    let within_tolerance =
        comparisons.iter().all(|comparison| comparison.accepted_work_ratio >= 1.0 - TOLERANCE);
    Ok(Figures { machines, tolerance: TOLERANCE, comparisons, within_tolerance })
}

fn print(figures: &Figures) {
    for comparison in &figures.comparisons {
        match comparison.load {
            Some(load) => println!("load {load:.2}, means over {} days", comparison.exact.len()),
            None => println!("trace of {} machines", figures.machines),
        }
        println!(
            "{:20} {:>9} {:>9} {:>9} {:>10} {:>6} {:>7} {:>9} {:>7}",
            "policy",
            "accepted",
            "rejected",
            "work",
            "core-hours",
            "CPU",
            "memory",
            "imbalance",
            "wait"
        );
        for reports in [&comparison.exact, &comparison.quantised] {
            let mean = |field: fn(&Report) -> f64| {
                reports.iter().map(field).sum::<f64>() / reports.len().max(1) as f64
            };
            println!(
                "{:20} {:>9.0} {:>9.0} {:>9.3} {:>10.0} {:>6.3} {:>7.3} {:>9.3} {:>5.0} s",
                reports.first().map_or("", |report| report.policy),
                mean(|report| report.accepted as f64),
                mean(|report| report.rejected as f64),
                mean(|report| report.accepted_work),
                mean(|report| report.accepted_core_hours),
                mean(|report| report.cpu_utilisation),
                mean(|report| report.memory_utilisation),
                mean(|report| report.imbalance),
                mean(|report| report.wait_seconds),
            );
        }
        println!(
            "accepted work, quantised over exact: {:.4} (worst day {:.4})\n",
            comparison.accepted_work_ratio, comparison.lowest_ratio
        );
    }
    println!("within {} of exact placement: {}", figures.tolerance, figures.within_tolerance);
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
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
    if figures.within_tolerance { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
