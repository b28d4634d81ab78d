//! `veil devnet --processes` as a user runs it, insecure parameters: each node is a process, and
//! `kill -9` is what happens to a worker that runs a replica and to a member in the middle of a slot.
//!
//! The test waits for nothing that passes: what it waits for stays. A slot is held by stopping (SIGSTOP) members
//! without which it cannot go on. That a member dies after any other step of a slot is in `tests/tests/slots.rs`, where
//! the steps are events of a simulated world.
//!
//! It needs anvil, a Docker engine and the sample image (`cargo xtask setup`); without them it fails
//! and says so.

#![allow(clippy::unwrap_used, reason = "a failed helper fails the test")]

mod backup;
mod figures;
mod images;
mod links;
mod moves;
mod network;
mod official;
mod periodic;
mod prometheus;
mod reach;
mod sealed;
mod sealed_cheats;
mod system;
mod units;
mod updates;

use std::{process::Stdio, thread::sleep, time::Duration};

use nix::sys::signal::Signal;
use serde_json::Value;

use self::network::{NOWHERE, Network, json, until, veil};

/// Shorter than the grace after which a worker is lost.
const PAUSE: Duration = Duration::from_secs(10);

#[test]
fn killed_processes_neither_stop_placement_nor_double_it() {
    let (mut network, placed) = Network::start();
    let web = placed["job"].as_str().unwrap();

    // Who can open no socket reads through the address of a node.
    let seen = json(&mut network.at_address("member-1", &["job", "status"]));
    let assigned = |entry: &&Value| entry["job"] == web && entry["assigned"] == true;
    assert_eq!(seen["replicas"].as_array().unwrap().iter().filter(assigned).count(), 3, "{seen}");

    // Whoever doubts a slot takes its certificate, and those after it, from a node to the chain.
    let challenge = network.challenge("member-1");
    assert_eq!(challenge["id"], 0, "{challenge}");

    // All that follows happens beside a job whose body nobody has, and one that fits nowhere.
    network.submit_without_body();
    let misfit = network.submit_sized(1, NOWHERE);
    let first = network.submit(1);
    until("a job runs that was submitted after them", || network.running(&first, 1));

    // A worker that is paused for a while loses nothing: neither it nor the others touch a container.
    let paused = placed["replicas"][1]["worker"].as_str().unwrap();
    let before = network.containers(paused);
    assert!(!before.is_empty());
    network.hold(paused);
    sleep(PAUSE);
    network.signal_node(paused, Signal::SIGCONT);
    sleep(PAUSE);
    assert_eq!(network.containers(paused), before);
    assert_eq!(network.running(web, 3).map(|workers| workers.len()), Some(3));

    // A worker dies: its replica runs elsewhere.
    let lost = placed["replicas"][0]["worker"].as_str().unwrap();
    network.signal_node(lost, Signal::SIGKILL);
    let moved = until("the replica runs on another worker", || {
        network.running(web, 3).filter(|workers| workers.iter().all(|worker| worker != lost))
    });
    // Its return changes nothing.
    let back = network.start_node(lost);
    until("the worker is back, without the replica", || {
        let mut command = veil();
        command.args(["worker", "status", "--json", "--config"]).arg(network.config(lost));
        let output = command.stderr(Stdio::null()).output().unwrap();
        let status: Value = serde_json::from_slice(&output.stdout).ok()?;
        let known: Vec<_> =
            status["replicas"].as_array()?.iter().filter(|r| r["job"] == web).collect();
        (known.len() == 3 && known.iter().all(|r| r["observed"].is_null())).then_some(())
    });
    assert_eq!(network.running(web, 3).unwrap(), moved);

    // A worker is drained: its replicas run elsewhere, and no container ends before its replacement runs.
    let drained = &moved[0];
    let (moved, fewest) = network.fewest_containers(web, || {
        network.give("drain", drained);
        until("the worker is drained", || {
            network.running(web, 3).filter(|workers| !workers.contains(drained))
        })
    });
    assert_eq!(moved.len(), 3);
    assert!(fewest >= 3, "{fewest} containers ran for a moment");
    network.give("eligible", drained);

    // A member dies in a slot, which goes on without it.
    let second = network.hold_in_a_slot();
    network.end("member-2");
    network.signal_node("member-3", Signal::SIGCONT);
    network.signal_node("member-4", Signal::SIGCONT);
    until("the second job runs", || network.running(&second, 1));
    // It returns and catches up with a slot that was certified without it.
    let member = network.start_node("member-2");
    let third = network.submit(1);
    until("the third job runs", || network.running(&third, 1));
    until("the member that was away has every certificate", || {
        (network.last_slot("member-2")? == network.last_slot("member-1")?).then_some(())
    });

    // Every slot is counted once, by the members that were there all the time.
    until("member-1 has counted its slots", || {
        let counted = network.metrics("member-1");
        let slots = |of| counted[&format!("veil_slots_total{{outcome=\"{of}\"}}")];
        (slots("placed") > 0 && slots("placed") + slots("void") == network.last_slot("member-1")?)
            .then_some(())
    });
    // Who is honest is refused only where somebody is not ready yet.
    for node in ["member-1", "member-2", "member-3", "member-4", "worker-1", "worker-2", "worker-3"]
    {
        let mut counted = network.metrics(node);
        counted.retain(|name, _| name.starts_with("veil_refusals_total"));
        for fault in ["malformed", "signature", "too_long"] {
            let reason = format!("reason=\"{fault}\"");
            assert!(!counted.keys().any(|name| name.contains(&reason)), "{node}: {counted:?}");
        }
    }

    // What fits nowhere waits, and says why.
    let mut status = veil();
    status.args(["job", "status", &misfit, "--json", "--devnet"]).arg(&network.folder);
    let waits = json(&mut status);
    let replicas = waits["replicas"].as_array().unwrap();
    assert!(replicas.iter().any(|replica| replica["pending_because"].is_string()), "{waits}");

    // Told to end, it ends everything that it started.
    drop((back, member));
    network.signal(Signal::SIGTERM);
    assert!(network.child.wait().unwrap().success());
    assert_eq!(network.pid("member-1"), None);
}
