//! A system job on a network of processes.

use nix::sys::signal::Signal;

use crate::network::{Network, json, until, veil};

const ALL: [&str; 3] = ["worker-1", "worker-2", "worker-3"];

#[test]
fn a_system_job_runs_once_on_each_worker_whatever_becomes_of_one() {
    let (network, placed) = Network::start();
    let web = placed["job"].as_str().unwrap();
    let image = veil_node_devnet::sample_image().unwrap();
    let job = network.submit_file(&format!(
        "image = \"{image}\"\ntype = \"system\"\n[resources]\ncpu = \"100m\"\nmemory = \"64Mi\"\n"
    ));
    let on = |workers: &[&str]| {
        let mut running = network.running(&job, workers.len())?;
        running.sort();
        (running == workers).then_some(())
    };
    until("it runs on each worker", || on(&ALL));

    // Drained, it ends there, and nobody else gets a second one.
    network.give("drain", "worker-3");
    until("the drained worker has stopped it", || on(&ALL[..2]));
    network.give("eligible", "worker-3");
    until("it runs there again", || on(&ALL));

    // Of a lost worker a service's replica goes elsewhere, and that of the system job does not.
    network.signal_node("worker-2", Signal::SIGKILL);
    until("the service runs without it", || {
        network.running(web, 3).filter(|workers| !workers.iter().any(|worker| worker == "worker-2"))
    });
    let status =
        json(veil().args(["job", "status", &job, "--json", "--devnet"]).arg(&network.folder));
    let assigned = status["replicas"].as_array().unwrap().iter();
    let mut assigned: Vec<_> = assigned
        .filter(|entry| entry["assigned"] == true)
        .map(|entry| entry["worker_name"].as_str().unwrap().to_owned())
        .collect();
    assigned.sort();
    assert_eq!(assigned, ALL, "{status}");
    let worker = network.start_node("worker-2");
    until("it runs there as before", || on(&ALL));
    drop(worker);
}
