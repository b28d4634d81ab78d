//! Goes through slots of a simulated cluster, and says what happened.

use std::process::ExitCode;

use veil_committee_world::Conditions;
use veil_tests::slot::{SlotBehaviour, SlotPlan};

const USAGE: &str = "\
Goes through slots of a simulated cluster, with the cleartext twin in place of the circuit.

Usage: slot-world [--members N] [--workers N] [--jobs N] [--slots N] [--seed N]
                  [--behaviour NAME]... [--drop PERMILLE] [--absent J]... [--json]

  --members N       size of the committee: 4, 7, 10 or 13  [4]
  --workers N       workers                                [100]
  --jobs N          jobs that operators want at once       [20]
  --slots N         slots to go through                    [100]
  --seed N          of everything that is drawn            [1]
  --behaviour NAME  the next member, from the last one down, deviates so; see --list
  --drop PERMILLE   messages of 1000 that are lost         [0]
  --absent J        member J is never there
  --list            names of behaviours
  --json            one object on standard output

Exit codes: 0 every slot ended, 1 they did not or something was violated, 2 usage";

struct Arguments {
    plan: SlotPlan,
    seed: u64,
    json: bool,
}

fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Option<Arguments>, String> {
    let (mut members, mut seed, mut json) = (4, 1, false);
    let (mut behaviours, mut absent) = (Vec::new(), Vec::new());
    let mut plan = SlotPlan::new(4).workers(100).jobs(20).slots(100);
    plan.scenario.recorded = false;
    let mut drop = 0;
    while let Some(name) = arguments.next() {
        let mut value = || arguments.next().ok_or(format!("{name} needs a value"));
        fn number<T: std::str::FromStr>(name: &str, value: &str) -> Result<T, String> {
            value.parse().map_err(|_| format!("{name}: {value} is no number for it"))
        }
        match name.as_str() {
            "--members" => members = number(&name, &value()?)?,
            "--workers" => plan.scenario.workers = number(&name, &value()?)?,
            "--jobs" => plan.scenario.jobs = number(&name, &value()?)?,
            "--slots" => plan.scenario.slots = number(&name, &value()?)?,
            "--seed" => seed = number(&name, &value()?)?,
            "--drop" => drop = number(&name, &value()?)?,
            "--absent" => absent.push(number(&name, &value()?)?),
            "--behaviour" => {
                let name = value()?;
                let known = serde_json::from_value(serde_json::Value::String(name.clone()));
                behaviours.push(known.map_err(|_| format!("no behaviour {name}; see --list"))?);
            }
            "--json" => json = true,
            "--list" => {
                for behaviour in SlotBehaviour::ALL {
                    println!("{}", serde_json::json!(behaviour).as_str().unwrap_or_default());
                }
                return Ok(None);
            }
            "--help" | "-h" => {
                println!("{USAGE}");
                return Ok(None);
            }
            other => return Err(format!("unknown argument {other}; see --help")),
        }
    }
    if ![4, 7, 10, 13].contains(&members) {
        return Err(format!("--members: {members} is no size of a committee: 4, 7, 10 or 13"));
    }
    if plan.scenario.workers == 0 || plan.scenario.jobs == 0 {
        return Err("--workers and --jobs: at least 1".to_owned());
    }
    let mut plan = SlotPlan { scenario: plan.scenario, ..SlotPlan::new(members) };
    // A day for each thousand slots: whoever needs longer has halted.
    plan.scenario.limit = 86_400_000 * (1 + plan.scenario.slots / 1_000);
    for (behaviour, j) in behaviours.into_iter().zip((1..=members).rev()) {
        plan = plan.behaves(j, behaviour);
    }
    plan = absent.into_iter().fold(plan, SlotPlan::absent);
    plan = plan.network(Conditions { drop, ..Conditions::default() });
    Ok(Some(Arguments { plan, seed, json }))
}

/// The largest resident memory of this process so far, in bytes.
fn peak_rss_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib * 1024)
}

fn main() -> ExitCode {
    let Arguments { plan, seed, json } = match parse(std::env::args().skip(1)) {
        Ok(Some(arguments)) => arguments,
        Ok(None) => return ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("slot-world: {error}");
            return ExitCode::from(2);
        }
    };
    let (report, _) = plan.observe(seed);
    let good = !report.halted && report.violations.is_empty();
    let mut object = serde_json::json!(report);
    object["seed"] = seed.into();
    object["peak_rss_bytes"] = peak_rss_bytes().into();
    if json {
        println!("{object}");
    } else {
        println!("{object:#}");
    }
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
