use proptest::prelude::*;
use veil_protocol_spec::scheduling::{Candidates, SchedulingPolicy};

use super::*;

fn machine(cores: u64) -> Amounts {
    Amounts([cores * 1000, cores * 4096, 100, 0])
}

fn arrival(at: u64, seconds: u64, cores: u64) -> Arrival {
    Arrival { at, seconds, request: Amounts([cores * 1000, cores * 1024, 1, 0]) }
}

fn workload(machines: &[u64], arrivals: Vec<Arrival>) -> Workload {
    Workload {
        machines: machines.iter().map(|cores| machine(*cores)).collect(),
        arrivals,
        slot_seconds: 60,
        batch: 8,
        patience: 120,
        seconds: 86_400,
    }
}

/// Chooses the first machine, with or without room.
struct First;

impl Placer for First {
    fn name(&self) -> &'static str {
        "first"
    }

    fn place(&mut self, view: &View<'_>) -> Placement {
        Ok(vec![Some(0); view.requests.len()])
    }
}

struct Undecided;

impl Placer for Undecided {
    fn name(&self) -> &'static str {
        "undecided"
    }

    fn place(&mut self, _: &View<'_>) -> Placement {
        Err("no opinion".into())
    }
}

fn spread(day: &Workload) -> Quantised {
    let candidates = Candidates::Sample;
    Quantised::new("spread", SchedulingPolicy::Spread, candidates, day).unwrap()
}

#[test]
fn a_placer_that_breaks_a_capacity_is_found() {
    let one = workload(&[4, 64], vec![arrival(0, 600, 3), arrival(0, 600, 2)]);
    let error = run(&one, &mut First).unwrap_err();
    assert!(matches!(error, SimulationError::Overcommitted { slot: 0, machine: 0 }), "{error}");
    let error = run(&one, &mut Undecided).unwrap_err();
    assert!(matches!(error, SimulationError::Placer { slot: 0, .. }), "{error}");
}

#[test]
fn capacity_returns_when_a_job_ends() {
    // Each job fills the machine; the second begins in the slot in which the first ends.
    let day = workload(&[4], vec![arrival(0, 120, 4), arrival(60, 600, 4)]);
    let report = run(&day, &mut First).unwrap_err();
    assert!(matches!(report, SimulationError::Overcommitted { slot: 1, machine: 0 }));
    let report = run(&day, &mut BestFit).unwrap();
    assert_eq!((report.accepted, report.rejected, report.waiting), (2, 0, 0));
    assert!((report.wait_seconds - 30.0).abs() < 1e-9, "0 and 60 seconds");
    let core_hours = 4.0 * (120.0 + 600.0) / 3600.0;
    assert!((report.accepted_core_hours - core_hours).abs() < 1e-9);
    // 720 of 86,400 seconds with all cores and a quarter of the memory in use.
    assert!((report.cpu_utilisation - 720.0 / 86_400.0).abs() < 1e-9);
    assert!((report.memory_utilisation - 180.0 / 86_400.0).abs() < 1e-9);
    assert!((report.accepted_work - 0.625 * 720.0 / 3600.0).abs() < 1e-9);
}

#[test]
fn a_job_that_waits_for_too_long_is_rejected() {
    let day =
        workload(&[4], vec![arrival(0, 80_000, 4), arrival(1, 60, 1), arrival(86_350, 60, 9)]);
    let report = run(&day, &mut LeastLoaded).unwrap();
    // The last one comes after the last slot.
    assert_eq!((report.accepted, report.rejected, report.waiting), (1, 1, 1));
}

#[test]
fn the_two_policies_choose_opposite_machines() {
    let view = |free: &[Amounts], placer: &mut dyn Placer| {
        let capacity = [machine(8), machine(8)];
        let requests = [Amounts([1000, 1024, 0, 0])];
        let view = View { slot: 0, capacity: &capacity, free, requests: &requests, failed: &[0] };
        placer.place(&view).unwrap()
    };
    let free = [machine(8), machine(4)];
    assert_eq!(view(&free, &mut BestFit), [Some(1)]);
    assert_eq!(view(&free, &mut LeastLoaded), [Some(0)]);
    let full = [machine(0), machine(0)];
    assert_eq!(view(&full, &mut BestFit), [None]);
    assert_eq!(view(&full, &mut LeastLoaded), [None]);
}

#[test]
fn a_day_is_determined_by_its_seed() {
    let day = |seed| Workload::synthetic(seed, 4, 0.5);
    assert_eq!(day(1).arrivals, day(1).arrivals);
    assert_ne!(day(1).arrivals, day(2).arrivals);
    let run = |seed| {
        let mut placer = spread(&day(seed));
        format!("{:?}", run(&day(seed), &mut placer).unwrap())
    };
    assert_eq!(run(1), run(1));
}

/// Of twenty machines only one has room. The first tries ask fifteen each, then all are asked.
#[test]
fn a_job_that_few_machines_have_room_for_finds_one() {
    let mut machines = [2; 20];
    machines[7] = 64;
    for first in 0..20 {
        let day = workload(&machines, vec![arrival(first * 60, 60, 4)]);
        let report = run(&day, &mut spread(&day)).unwrap();
        assert_eq!(report.accepted, 1, "the wider sample is of all twenty");
    }
    let day = |candidates| {
        let jobs = (0..400).map(|at| arrival(at * 60, 60, 4)).collect();
        let day = workload(&machines, jobs);
        let mut placer =
            Quantised::new("spread", SchedulingPolicy::Spread, candidates, &day).unwrap();
        run(&day, &mut placer).unwrap().wait_seconds
    };
    // A quarter of the samples misses it: a slot each, and two at most.
    assert!((5.0..40.0).contains(&day(Candidates::Sample)), "{}", day(Candidates::Sample));
    assert!(day(Candidates::All) < 1e-9);
}

#[test]
fn a_trace_is_read_and_what_is_wrong_is_named() {
    let text = format!(
        "{HEADER}\nmachine,64000,262144,4,,\npod,4000,8192,1,90,3600\n\n pod, 500, 1024, 0, 30, 60\n"
    );
    let day = Workload::from_trace(&text).unwrap();
    assert_eq!(day.machines, [Amounts([64_000, 262_144, 0, 4])]);
    let (later, first) = (Amounts([4000, 8192, 0, 1]), Amounts([500, 1024, 0, 0]));
    assert_eq!(
        day.arrivals,
        [
            Arrival { at: 30, seconds: 60, request: first },
            Arrival { at: 90, seconds: 3600, request: later }
        ]
    );
    let report = run(&day, &mut spread(&day)).unwrap();
    assert_eq!((report.accepted, report.rejected, report.waiting), (2, 0, 0));
    let machine = "machine,1,1,0,,";
    for (text, named) in [
        ("a,b\n".to_owned(), "first line is `a,b`"),
        (String::new(), "first line is ``"),
        (format!("{HEADER}\n"), "0 machines: 1 to 1024"),
        (format!("{HEADER}\n{}", [machine; 1025].join("\n")), "1025 machines"),
        (format!("{HEADER}\n{machine}"), "no pod"),
        (format!("{HEADER}\nnode,1,1,0,,"), "line 2 is of kind `node`"),
        (format!("{HEADER}\n{machine}\npod,1,1,0,1"), "line 3 has 5 values"),
        (format!("{HEADER}\nmachine,0,1,0,,"), "line 2, cpu_milli = `0`"),
        (format!("{HEADER}\nmachine,1,-1,0,,"), "memory_mib = `-1`"),
        (format!("{HEADER}\nmachine,1,1,0.5,,"), "gpus = `0.5`"),
        (format!("{HEADER}\n{machine}\npod,1,1,0,,5"), "arrival = ``"),
        (format!("{HEADER}\n{machine}\npod,1,1,0,5,0"), "duration = `0`"),
        (format!("{HEADER}\n{machine}\npod,1,1,0,99999999999,1"), "line 3, arrival"),
    ] {
        let refused = Workload::from_trace(&text).unwrap_err().to_string();
        assert!(refused.contains(named), "{named}: {refused}");
    }
}

#[test]
fn sizes_and_durations_are_heavy_tailed() {
    let Workload { arrivals, machines, .. } = Workload::synthetic(3, 16, 1.0);
    let total: u64 = machines.iter().map(|machine| machine.0[0]).sum();
    let mut work: Vec<u64> = arrivals.iter().map(|a| a.request.0[0] * a.seconds).collect();
    work.sort_unstable();
    let sum: u64 = work.iter().sum();
    let largest: u64 = work[work.len() * 9 / 10..].iter().sum();
    assert!(largest * 2 > sum, "a tenth of the jobs does more than half of the work");
    assert!(sum <= total * 86_400 * 11 / 10, "what is offered is what was asked for");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    /// Work is conserved: every job is placed, rejected or waiting; and no placer takes more than
    /// there is.
    #[test]
    fn nothing_is_lost_and_nothing_overcommitted(seed: u64, load in 0.2f64..2.0) {
        let day = Workload::synthetic(seed, 5, load);
        let mut placers: [Box<dyn Placer>; 3] = [
            Box::new(BestFit),
            Box::new(LeastLoaded),
            Box::new(spread(&day)),
        ];
        for placer in &mut placers {
            let report = run(&day, placer.as_mut()).unwrap();
            prop_assert_eq!(report.accepted + report.rejected + report.waiting, report.arrived);
            prop_assert!((0.0..=1.0).contains(&report.cpu_utilisation));
            prop_assert!((0.0..=1.0).contains(&report.memory_utilisation));
            let offered: f64 = day.arrivals.iter().map(|a| {
                a.request.0[0] as f64 / 1000.0 * a.seconds as f64 / 3600.0
            }).sum();
            prop_assert!(report.accepted_core_hours <= offered * (1.0 + 1e-9));
        }
    }
}
