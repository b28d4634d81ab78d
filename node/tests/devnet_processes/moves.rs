//! What takes a replica from its worker: it is evicted with a notice, it stays unhealthy, its worker is drained
//! until a deadline at which nobody can take it over. And what keeps it there: its data, also in an update; and
//! from all of them: its image.

use std::{
    collections::BTreeMap,
    fs,
    process::Command,
    time::{Duration, Instant},
};

use serde_json::Value;

use super::{
    images::Signed,
    network::{Guard, Network, json, reason, rows, set_policy, until, veil},
};

/// Of anvil's second account, whose jobs they are.
const OPERATOR: &str = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8";
const WORKERS: [&str; 3] = ["worker-1", "worker-2", "worker-3"];
/// Of a drain.
const DEADLINE: Duration = Duration::from_secs(20);
/// Between two ends of blocks.
const BLOCK: Duration = Duration::from_secs(1);

/// Where the only replica of a job runs.
fn place(network: &Network, job: &str) -> Option<String> {
    network.running(job, 1).map(|mut workers| workers.remove(0))
}

#[test]
fn what_is_given_back_moves_and_an_image_that_is_not_allowed_runs_nowhere() {
    let (network, _) = Network::start();
    let signed = Signed::push(&network);
    let guards = WORKERS.map(|worker| configure(&network, worker, &signed));
    // Of three workers, one that is left over is enough.
    set_policy(&network, "min_candidates = 1\n");
    let evicted = network.submit(1);
    let sick = submit_sick(&network);
    let apart = submit_apart(&network, "8080");
    until("three jobs run", || {
        place(&network, &evicted)?;
        place(&network, &sick)?;
        network.running(&apart, 3)
    });

    // Data stays where it is, and the replica of the next version goes there.
    let before = places(&network, &apart);
    let apart = submit_apart(&network, "8081");
    until("the next version runs", || network.running(&apart, 3));
    assert_eq!(places(&network, &apart), before);

    // What is unhealthy at one worker is healthy at another one.
    let ill = place(&network, &sick).unwrap();
    let [container]: [String; 1] = containers(&network, &ill, &sick).try_into().unwrap();
    let mut infect = Command::new("docker");
    infect.args(["exec", "--user", "0", &container, "/bin/busybox", "touch", "/sick"]);
    assert!(infect.status().unwrap().success());
    // Meanwhile another one is evicted.
    let from = place(&network, &evicted).unwrap();
    let mut evict = veil();
    evict.args(["worker", "evict", &format!("{evicted}/0"), "--notice", "1h"]);
    evict.args(["--reason", "the power goes", "--json", "--config"]).arg(network.config(&from));
    let told = json(&mut evict);
    assert!(told["evicted"][0]["until"].is_u64(), "{told}");
    // Long before its notice is over; its former worker would be the first choice otherwise.
    let second = until("it runs elsewhere", || place(&network, &evicted).filter(|at| *at != from));
    until("its former worker has removed it", || {
        containers(&network, &from, &evicted).is_empty().then_some(())
    });
    until("what was unhealthy is healthy elsewhere", || {
        place(&network, &sick).filter(|at| *at != ill)
    });
    until("the unhealthy one is removed", || {
        containers(&network, &ill, &sick).is_empty().then_some(())
    });

    // Only its former worker is left: others go there, it does not.
    let third = WORKERS.into_iter().find(|worker| *worker != from && *worker != second).unwrap();
    network.give("drain", third);
    network.give("drain", &second);
    reason(&network, &evicted, &["is drained"]);
    let other = network.submit(1);
    assert_eq!(until("another job runs", || place(&network, &other)), from);
    assert_eq!(place(&network, &evicted), Some(second.clone()));
    network.give("eligible", third);
    until("it runs at the third", || place(&network, &evicted).filter(|at| at == third));
    network.give("eligible", &second);

    // A replica stays with its data: nobody can take it over.
    assert_eq!(network.running(&apart, 3).map(|workers| workers.len()), Some(3));
    let since = Instant::now();
    let deadline = format!("{}s", DEADLINE.as_secs());
    network.give_with("drain", third, &["--deadline", &deadline]);
    reason(&network, &apart, &["is drained", "its data is in volume data"]);
    let stopped = until("it is stopped at the deadline", || {
        containers(&network, third, &apart).is_empty().then(|| since.elapsed())
    });
    assert!(stopped + BLOCK >= DEADLINE, "{stopped:?}");
    let assigned = || rows(&network, &apart).into_iter().filter(|row| row["assigned"] == true);
    until("it has no place any more", || (assigned().count() == 2).then_some(()));
    reason(&network, &apart, &["is drained", "its data is in volume data"]);
    network.give("eligible", third);
    until("it is back with its data", || network.running(&apart, 3));
    assert_eq!(places(&network, &apart), before);

    signed.is_what_the_chain_allows(&network, &evicted);
    drop(guards);
}

/// Unhealthy is where somebody makes a file.
fn submit_sick(network: &Network) -> String {
    let image = veil_node_devnet::sample_image().unwrap();
    network.submit_file(&format!(
        "image = \"{image}\"\nrestart = \"never\"\n[resources]\ncpu = \"100m\"\nmemory = \"64Mi\"\n\
         [health]\nprobe = {{ command = [\"/bin/busybox\", \"test\", \"!\", \"-e\", \"/sick\"] }}\n\
         interval = \"1s\"\ntimeout = \"1s\"\nretries = 1\nunhealthy = \"reschedule\"\n"
    ))
}

/// A replica for each worker, which has a folder of it.
fn submit_apart(network: &Network, port: &str) -> String {
    let image = veil_node_devnet::sample_image().unwrap();
    network.submit_file(&format!(
        "name = \"apart\"\nimage = \"{image}\"\nreplicas = 3\nanti_affinity = \"hard\"\n\
         [container]\nargs = [\"httpd\", \"-f\", \"-p\", \"{port}\", \"-h\", \"/www\"]\n\
         [resources]\ncpu = \"100m\"\nmemory = \"64Mi\"\n\
         [[volume]]\nname = \"data\"\nmount = \"/data\"\nkind = \"host\"\n\
         [update]\nmax_parallel = 3\nmin_healthy = \"1s\"\n"
    ))
}

/// Where each replica of a job is.
fn places(network: &Network, job: &str) -> BTreeMap<u64, String> {
    let place =
        |row: &Value| Some((row["replica"].as_u64()?, row["worker_name"].as_str()?.to_owned()));
    rows(network, job).iter().filter_map(place).collect()
}

/// Starts a worker again that lends a folder, and knows whose signatures of images count.
fn configure(network: &Network, worker: &str, signed: &Signed) -> Guard {
    let folder = network.folder.with_file_name(format!("lent-by-{worker}"));
    fs::create_dir(&folder).unwrap();
    let path = network.config(worker);
    let mut config: toml::Table = fs::read_to_string(&path).unwrap().parse().unwrap();
    let section = config.entry("worker").or_insert_with(|| toml::Table::new().into());
    let section = section.as_table_mut().unwrap();
    let volume: toml::Table = [("name", "data"), ("path", folder.to_str().unwrap())]
        .map(|(key, value)| (key.to_owned(), value.into()))
        .into_iter()
        .collect();
    section.insert("volume".to_owned(), vec![toml::Value::from(volume)].into());
    let accept: toml::Table =
        [("operators".to_owned(), vec![OPERATOR].into())].into_iter().collect();
    section.insert("accept".to_owned(), accept.into());
    section.insert("image_keys".to_owned(), vec![signed.key.clone()].into());
    fs::write(&path, config.to_string()).unwrap();
    network.end(worker);
    let guard = network.start_node(worker);
    until("the worker is back", || network.last_slot(worker));
    guard
}

/// Docker's ids of what a worker runs of a job, by the engine.
fn containers(network: &Network, worker: &str, job: &str) -> Vec<String> {
    let mut command = Command::new("docker");
    let worker = format!("label=veil.worker={}", network.peer(worker));
    command.args(["ps", "--quiet", "--filter", &format!("label=veil.job={job}")]);
    let output = command.args(["--filter", &worker]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}
