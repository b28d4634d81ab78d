//! Noise of the circuit's look-ups: for every variance that enters one, what tfhe's formulas predict
//! and what is measured on a generated key at each stage, and the failure probability of a slot
//! under every production profile. Exits with 1 if more noise is measured than predicted, or if a
//! look-up fails with more than 2^-128.

use std::{collections::BTreeMap, process::ExitCode};

use clap::Parser;
use serde::Serialize;
use veil_benches::{
    cluster::{job, manifest},
    keys::{Keys, NoiseOf, key_switch},
    noise::{Meter, Pool, Sample, Stages, list_input, weights},
};
use veil_keygen_ceremony::keyset::ParameterSet;
use veil_protocol_spec::{
    Committee,
    scheduling::{
        CpuUnits, DiskUnits, GpuUnits, MemoryUnits, ResourceRequest, Resources, SchedulingPolicy,
        Strength,
    },
};
use veil_scheduler_plan::{cost::Cost, inputs::PublicInputs, plan::Plan};

/// log2 of the failure probability that no look-up may exceed.
const LIMIT: f64 = -128.0;
/// Standard deviations of a measured variance within which it counts as the predicted one.
const TOLERANCE: f64 = 4.0;

/// Predicted and measured noise of look-ups.
#[derive(Parser)]
struct Arguments {
    /// Parameters of the key that is measured: "production" or "insecure-test".
    #[arg(long, default_value = "production")]
    parameters: String,
    /// Ciphertexts fresh from a bootstrap that inputs are combined from; half a minute for 2000 under
    /// production parameters.
    #[arg(long, default_value_t = 2000, value_parser = clap::value_parser!(u32).range(100..))]
    samples: u32,
    /// Workers of the slot whose failure probability is stated.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=1024))]
    nodes: u16,
    /// Jobs of that slot for each policy.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=64))]
    jobs: u16,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// Standard deviations as log2 of the torus.
#[derive(Clone, Copy, Serialize)]
struct Deviations {
    input: f64,
    key_switched: f64,
    modulus_switched: f64,
}

impl From<Stages> for Deviations {
    fn from(variances: Stages) -> Self {
        let [input, key_switched, modulus_switched] =
            variances.as_array().map(|variance| variance.log2() / 2.0);
        Self { input, key_switched, modulus_switched }
    }
}

/// Look-ups whose inputs have the same variance.
#[derive(Serialize)]
struct Kind {
    /// In variances of a bootstrap; `None` for the first look-up of a list.
    variance: Option<u32>,
    /// How many there are in the slot.
    look_ups: u64,
    samples: u64,
    log2_predicted: Deviations,
    log2_measured: Deviations,
    /// Measured over predicted variance of what the rotation sees.
    ratio: f64,
    /// Standard deviation of the ratio, for its number of samples.
    uncertainty: f64,
    /// Largest noise that a rotation saw, as a part of half an entry.
    largest: f64,
    agrees: bool,
}

/// A production profile.
#[derive(Serialize)]
struct Profile {
    members: u16,
    /// By variance: log2 of a look-up's failure probability.
    log2_look_up: BTreeMap<u32, f64>,
    /// Of the noisiest look-up of the circuit.
    log2_worst: f64,
    /// That any look-up or squashing of the slot fails.
    log2_slot: f64,
}

#[derive(Serialize)]
struct Figures {
    parameters: &'static str,
    noise_groups: u32,
    nodes: u16,
    jobs: u16,
    look_ups: u64,
    depth: u32,
    kinds: Vec<Kind>,
    profiles: Vec<Profile>,
    agrees: bool,
    below_limit: bool,
}

/// The slots whose look-ups are counted: each policy, alone, with soft and with hard anti-affinity.
fn costs(arguments: &Arguments) -> Result<Vec<Cost>, Box<dyn std::error::Error>> {
    let policies = [
        SchedulingPolicy::Spread,
        SchedulingPolicy::BinPack,
        SchedulingPolicy::PriorityRoundRobin,
        SchedulingPolicy::Cost,
    ];
    let request = Resources {
        cpu: CpuUnits(5),
        memory: MemoryUnits(8),
        disk: DiskUnits(4),
        gpu: GpuUnits(1),
    };
    let mut costs = Vec::new();
    for policy in policies {
        for (apart, replicas) in [(None, 1), (Some(Strength::Soft), 3), (Some(Strength::Hard), 3)] {
            let jobs: Vec<_> = (0..u64::from(arguments.jobs))
                .map(|nonce| {
                    let request = ResourceRequest::Clear(request);
                    job(nonce, request, replicas, policy, apart)
                })
                .collect();
            let manifest = manifest(arguments.nodes.into(), &jobs, 1);
            let public = PublicInputs {
                jobs: jobs.into_iter().map(|job| (job.digest(), job)).collect(),
                ..PublicInputs::default()
            };
            costs.push(Plan::new(&manifest, &public)?.cost());
        }
    }
    Ok(costs)
}

fn kind(
    variance: Option<u32>,
    look_ups: u64,
    predicted: Stages,
    sample: &Sample,
    half_entry: f64,
) -> Kind {
    let measured = sample.variance();
    let ratio = measured.modulus_switched / predicted.modulus_switched;
    let uncertainty = sample.uncertainty();
    Kind {
        variance,
        look_ups,
        samples: sample.count(),
        log2_predicted: predicted.into(),
        log2_measured: measured.into(),
        ratio,
        uncertainty,
        largest: sample.largest() / half_entry,
        agrees: ratio <= 1.0 + TOLERANCE * uncertainty,
    }
}

fn measure(arguments: &Arguments) -> Result<Figures, Box<dyn std::error::Error>> {
    let four = Committee::new(4)?;
    let parameters = ParameterSet::by_name(&arguments.parameters, four)?;
    let noise = NoiseOf::TwoGroups;
    let keys = Keys::generate(parameters, 1, noise)?;
    let samples = arguments.samples as usize;
    let first = keys.fresh_blocks(4 * rayon::current_num_threads())?;
    let public_key = keys.public_key.clone();
    let (keys, parts) = keys.with_parts(|key, from_public_key| {
        let lists = Keys::list_inputs(&public_key, from_public_key?, samples.min(1000));
        Some((key_switch(key)?.clone(), Pool::bootstrap(key, &first, samples), lists))
    });
    let (switch, pool, lists) = parts.ok_or("the key set has no switch from its public key")?;
    let lists = lists?;
    let compute = keys.parameters.compute();
    let meter = Meter::new(&keys.clear, &switch, compute.polynomial_size.0);
    let formulas = keys.parameters.look_up_noise_with(|component| keys.key_variance(component));
    // tfhe's formula leaves out that the body is rounded too: nothing beside 918 words of mask, but a
    // quarter of the whole beside the few of the test parameters.
    let body = (2.0 * compute.polynomial_size.0 as f64).powi(-2) / 12.0;
    let predict = |input: f64| Stages {
        input,
        key_switched: input + formulas.key_switch,
        modulus_switched: input + formulas.key_switch + formulas.modulus_switch + body,
    };
    let half_entry = 0.5 / (2 * compute.message_modulus.0 * compute.carry_modulus.0) as f64;

    let costs = costs(arguments)?;
    let mut by_variance = BTreeMap::new();
    for (variance, count) in
        costs.iter().flat_map(|cost| cost.by_variance().chain(cost.squashed_by_variance()))
    {
        *by_variance.entry(variance).or_insert(0) += count;
    }
    let mut sample = Sample::default();
    lists.iter().for_each(|input| sample.add(&meter.measure(input)));
    let list = list_input(&keys.parameters, |component| keys.key_variance(component));
    let mut kinds = vec![kind(None, 0, predict(list), &sample, half_entry)];
    for (variance, look_ups) in &by_variance {
        let mut sample = Sample::default();
        let weights = weights(*variance);
        pool.combinations(&weights).for_each(|input| sample.add(&meter.measure(&input)));
        let predicted = predict(f64::from(*variance) * formulas.bootstrap);
        kinds.push(kind(Some(*variance), *look_ups, predicted, &sample, half_entry));
    }

    let profiles: Vec<_> = Committee::ALL
        .into_iter()
        .filter(|committee| committee.n() > 1)
        .map(|committee| {
            let parameters = ParameterSet::production(committee);
            let log2_look_up: BTreeMap<_, _> = by_variance
                .keys()
                .map(|variance| (*variance, parameters.log2_p_fail_at(f64::from(*variance))))
                .collect();
            let failure = |cost: &Cost| cost.log2_failure(|v| parameters.log2_p_fail_at(v));
            Profile {
                members: committee.n() as u16,
                log2_worst: log2_look_up.values().copied().fold(f64::NEG_INFINITY, f64::max),
                log2_slot: costs.iter().map(failure).fold(f64::NEG_INFINITY, f64::max),
                log2_look_up,
            }
        })
        .collect();
    Ok(Figures {
        parameters: keys.parameters.name(),
        noise_groups: noise.groups(),
        nodes: arguments.nodes,
        jobs: arguments.jobs,
        look_ups: costs.iter().map(Cost::look_ups).max().unwrap_or(0),
        depth: costs.iter().map(Cost::depth).max().unwrap_or(0),
        agrees: kinds.iter().all(|kind| kind.agrees),
        below_limit: profiles.iter().all(|profile| profile.log2_worst <= LIMIT),
        kinds,
        profiles,
    })
}

fn print(figures: &Figures) {
    println!(
        "{} with the noise of {} groups; log2 of deviations, predicted / measured",
        figures.parameters, figures.noise_groups
    );
    println!(
        "{:>8} {:>9} {:>7} {:>15} {:>15} {:>15} {:>13} {:>7}",
        "variance",
        "look-ups",
        "samples",
        "input",
        "key switched",
        "mod. switched",
        "ratio",
        "largest"
    );
    for kind in &figures.kinds {
        let pair = |predicted: f64, measured: f64| format!("{predicted:.2} / {measured:.2}");
        let (predicted, measured) = (&kind.log2_predicted, &kind.log2_measured);
        println!(
            "{:>8} {:>9} {:>7} {:>15} {:>15} {:>15} {:>6.2} +-{:.2} {:>7.2}{}",
            kind.variance.map_or("list".to_owned(), |variance| variance.to_string()),
            kind.look_ups,
            kind.samples,
            pair(predicted.input, measured.input),
            pair(predicted.key_switched, measured.key_switched),
            pair(predicted.modulus_switched, measured.modulus_switched),
            kind.ratio,
            kind.uncertainty,
            kind.largest,
            if kind.agrees { "" } else { "  MORE THAN PREDICTED" },
        );
    }
    println!(
        "\nlog2 of failure; a slot is {} jobs on {} workers, at most {} look-ups",
        figures.jobs, figures.nodes, figures.look_ups
    );
    for profile in &figures.profiles {
        println!(
            "n={:<2} worst look-up {:.1}, slot {:.1}",
            profile.members, profile.log2_worst, profile.log2_slot
        );
    }
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
    if figures.agrees && figures.below_limit { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
