//! Goes through slots of a simulated cluster, and says what happened.

use std::process::ExitCode;

use serde::de::DeserializeOwned;
use veil_committee_world::Conditions;
use veil_tests::slot::{
    Demand, Outage, SlotBehaviour, SlotPlan, SlotReport, SlotScenario, WorkerBehaviour, coverage,
};

const USAGE: &str = "\
Goes through slots of a simulated cluster, with the cleartext twin in place of the circuit.

Usage: slot-world [OPTION]...

  --members N        size of the committee: 4, 7, 10 or 13  [4]
  --workers N        workers                                [100]
  --jobs N           jobs that operators want at once       [20]
  --replicas N       most replicas of a job                 [3]
  --slots N          slots to go through                    [100]
  --seed N           of everything that is drawn            [1]
  --demand NAME      mixed, updates, system, unplaceable, flood [mixed]
  --hours N          stop after N simulated hours
  --behaviour NAME   the next member, from the last one down, deviates so
  --hostile N        of 256 workers, one in each way        [0]
  --hostile-as NAME  they all deviate so
  --outage N         workers that lose power after a minute, for ten
  --skew MS          how far clocks are off at most         [0]
  --max-workers N    that the policy lets a slot consider   [1024]
  --thresholds-from BLOCK  from which block on slots are placed by thresholds, step by step  [0]
  --anchor-every N   slots                                  [4]
  --drop PERMILLE    messages of 1000 that are lost         [0]
  --absent J         member J is never there
  --periodic N       of 256 mixed jobs, so many are run at certain times [0]
  --gives-back       workers give replicas back, and are drained
  --most-memory MIB  that this process may hold             [256]
  --coverage         the fixed runs in which everything occurs, instead
  --drawn            a cluster that is drawn from the seed, with all that goes wrong in it, of at most as
                     many workers and jobs, instead
  --plan JSON        a plan as a test that fails prints it, instead
  --list             names of behaviours
  --json             one object on standard output, in one line

Exit codes: 0 every slot ended, 1 they did not, or something was violated or never occurred, 2 usage";

struct Arguments {
    /// `None`: the fixed runs.
    plan: Option<SlotPlan>,
    seed: u64,
    json: bool,
    /// Bytes that this process may hold.
    most_memory: u64,
}

/// MiB that the process may hold unless said: a thousand workers take a third of it, however many slots there are.
const MOST_MEMORY: u64 = 256;

fn number<T: std::str::FromStr>(name: &str, value: &str) -> Result<T, String> {
    value.parse().map_err(|_| format!("{name}: {value} is no number for it"))
}

fn named<T: DeserializeOwned>(name: &str, value: String) -> Result<T, String> {
    let text = value.clone();
    serde_json::from_value(value.into()).map_err(|_| format!("{name}: no {text}; see --list"))
}

fn list() {
    let names = SlotBehaviour::ALL.map(|behaviour| serde_json::json!(behaviour));
    let workers = WorkerBehaviour::ALL.map(|behaviour| serde_json::json!(behaviour));
    for (option, names) in [("--behaviour", &names[..]), ("--hostile-as", &workers)] {
        let names: Vec<_> = names.iter().filter_map(serde_json::Value::as_str).collect();
        println!("{option}: {}", names.join(" "));
    }
}

fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Option<Arguments>, String> {
    let (mut members, mut seed, mut json, mut all, mut drawn) = (4, 1, false, false, false);
    let (mut behaviours, mut absent) = (Vec::new(), Vec::new());
    let mut scenario = SlotPlan::new(4).workers(100).jobs(20).slots(100).scenario;
    scenario.recorded = false;
    let (mut drop, mut given, mut most_memory) = (0, None, MOST_MEMORY);
    while let Some(name) = arguments.next() {
        let mut value = || arguments.next().ok_or(format!("{name} needs a value"));
        match name.as_str() {
            "--members" => members = number(&name, &value()?)?,
            "--workers" => scenario.workers = number(&name, &value()?)?,
            "--jobs" => scenario.jobs = number(&name, &value()?)?,
            "--replicas" => scenario.replicas = number(&name, &value()?)?,
            "--slots" => scenario.slots = number(&name, &value()?)?,
            "--seed" => seed = number(&name, &value()?)?,
            "--demand" => scenario.demand = named::<Demand>(&name, value()?)?,
            "--hours" => {
                let hours: u64 = number(&name, &value()?)?;
                (scenario.until, scenario.slots) = (Some(hours * 3_600_000), u64::MAX);
            }
            "--hostile" => scenario.hostile = number(&name, &value()?)?,
            "--hostile-as" => scenario.hostile_as = Some(named(&name, value()?)?),
            "--outage" => {
                let workers = number(&name, &value()?)?;
                scenario.outage = Some(Outage { at: 60_000, workers, away: 600_000 });
            }
            "--skew" => scenario.skew = number(&name, &value()?)?,
            "--max-workers" => scenario.max_workers = number(&name, &value()?)?,
            "--thresholds-from" => scenario.thresholds_from = number(&name, &value()?)?,
            "--anchor-every" => scenario.anchor_every = number(&name, &value()?)?,
            "--drop" => drop = number(&name, &value()?)?,
            "--absent" => absent.push(number(&name, &value()?)?),
            "--behaviour" => behaviours.push(named(&name, value()?)?),
            "--periodic" => scenario.periodic = number(&name, &value()?)?,
            "--gives-back" => scenario.gives_back = true,
            "--most-memory" => most_memory = number(&name, &value()?)?,
            "--coverage" => all = true,
            "--drawn" => drawn = true,
            "--plan" => {
                let plan = SlotPlan::from_json(&value()?);
                given = Some(plan.map_err(|error| format!("{name}: {error}"))?);
            }
            "--json" => json = true,
            "--list" => {
                list();
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
    if scenario.workers == 0 || scenario.jobs == 0 || scenario.max_workers == 0 {
        return Err("--workers, --jobs and --max-workers: at least 1".to_owned());
    }
    // A day for each thousand slots: whoever needs longer has halted.
    let days = 1 + scenario.slots / 1_000;
    scenario.limit = scenario.until.map_or(days.saturating_mul(86_400_000), |until| 2 * until);
    let mut plan = SlotPlan { scenario, ..SlotPlan::new(members) };
    for (behaviour, j) in behaviours.into_iter().zip((1..=members).rev()) {
        plan = plan.behaves(j, behaviour);
    }
    plan = absent.into_iter().fold(plan, SlotPlan::absent);
    plan = plan.network(Conditions { drop, ..Conditions::default() });
    if drawn {
        let SlotScenario { workers, jobs, slots, limit, .. } = plan.scenario;
        plan = SlotPlan::drawn(seed, (workers, jobs)).slots(slots);
        (plan.scenario.limit, plan.scenario.recorded) = (limit, false);
    }
    let plan = (!all).then(|| given.unwrap_or(plan));
    Ok(Some(Arguments { plan, seed, json, most_memory: most_memory.saturating_mul(1 << 20) }))
}

/// The largest resident memory of this process so far, in bytes.
fn peak_rss_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib * 1024)
}

/// "Memory is bounded": whatever members, workers and operators send in a run.
fn check_memory(peak: Option<u64>, most: u64, report: &mut SlotReport) {
    if let Some(peak) = peak.filter(|peak| *peak > most) {
        report.violations.push(format!("this process has held {peak} bytes: at most {most}"));
    }
}

fn main() -> ExitCode {
    let Arguments { plan, seed, json, most_memory } = match parse(std::env::args().skip(1)) {
        Ok(Some(arguments)) => arguments,
        Ok(None) => return ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("slot-world: {error}");
            return ExitCode::from(2);
        }
    };
    let mut report = plan.as_ref().map_or_else(coverage::run, |plan| plan.observe(seed).0);
    let peak = peak_rss_bytes();
    check_memory(peak, most_memory, &mut report);
    let never = report.occurred.values().filter(|times| **times == 0).count();
    let good = !report.halted && report.violations.is_empty() && never == 0;
    let mut object = serde_json::json!(report);
    if plan.is_some() {
        object["seed"] = seed.into();
    }
    object["peak_rss_bytes"] = peak.into();
    if json {
        println!("{object}");
    } else {
        println!("{object:#}");
    }
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_that_holds_too_much_violates() {
        let held = peak_rss_bytes().expect("the kernel says how much");
        for (most, violations) in [(held - 1, 1), (held, 0)] {
            let mut report = SlotReport::default();
            check_memory(Some(held), most, &mut report);
            assert_eq!(report.violations.len(), violations, "{report:?}");
        }
        let arguments = |given: &[&str]| parse(given.iter().map(|one| (*one).to_owned()));
        let most = |given: &[&str]| arguments(given).expect("arguments").map(|of| of.most_memory);
        assert_eq!(most(&["--most-memory", "3"]), Some(3 << 20));
        assert_eq!(most(&[]), Some(MOST_MEMORY << 20));
    }
}
