//! How long it takes until a killed worker's replica runs elsewhere:
//! `cargo test --release -p veil-node --test devnet_processes -- --ignored --nocapture figures`.

use std::time::Instant;

use nix::sys::signal::Signal;

use super::network::{CERTIFIED, Network, until};

/// Kills, of which the median counts.
const RUNS: usize = 5;
/// A line of a member's log.
const LOST: &str = "this worker is lost";

/// Seconds from one moment of a failover to the next.
#[derive(Clone, Copy, Debug)]
struct Failover {
    /// From the kill until a member holds the worker for lost.
    detection: f64,
    /// Until the certificate of the slot that places the replica.
    slot: f64,
    /// Until its container runs.
    start: f64,
}

impl Failover {
    const fn total(&self) -> f64 {
        self.detection + self.slot + self.start
    }

    fn measure(network: &Network) -> Self {
        let job = network.submit(1);
        let before = until("the job runs", || network.running(&job, 1));
        let worker = before[0].as_str();
        let logged = network.logged("member-1");
        let since = |text: &str| network.log_since("member-1", logged).contains(text);
        let killed = Instant::now();
        network.signal_node(worker, Signal::SIGKILL);
        until("the worker is lost", || since(LOST).then_some(()));
        let detected = killed.elapsed();
        until("a slot is certified", || since(CERTIFIED).then_some(()));
        let certified = killed.elapsed();
        until("the replica runs elsewhere", || {
            network.running(&job, 1).filter(|now| now[0] != worker)
        });
        let running = killed.elapsed();
        let seconds =
            |from: std::time::Duration, to: std::time::Duration| (to - from).as_secs_f64();
        Self {
            detection: detected.as_secs_f64(),
            slot: seconds(detected, certified),
            start: seconds(certified, running),
        }
    }
}

#[test]
#[ignore = "prints figures, which need an idle machine"]
fn figures_of_a_failover() {
    let (network, _) = Network::start();
    let mut workers = Vec::new();
    let mut runs: Vec<_> = (0..RUNS)
        .map(|_| {
            let run = Failover::measure(&network);
            println!("{run:?}");
            for worker in ["worker-1", "worker-2", "worker-3"] {
                if network.pid(worker).is_none() {
                    workers.push(network.start_node(worker));
                }
            }
            run
        })
        .collect();
    runs.sort_by(|a, b| a.total().total_cmp(&b.total()));
    let median = runs[RUNS / 2];
    println!("median of {RUNS}: {:.1} s, of which {median:?}", median.total());
}
