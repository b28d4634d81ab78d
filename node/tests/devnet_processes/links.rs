//! Links between jobs on a network of processes: over the workers' network, after a move, before there is the other
//! job; and a job that waits for another.

use std::process::Command;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::network::{Network, reason, rows, set_policy, until, veil};

const WORKERS: [&str; 3] = ["worker-1", "worker-2", "worker-3"];

fn file(name: &str, replicas: u16, arguments: &str, more: &str) -> String {
    let image = veil_node_devnet::sample_image().unwrap();
    format!(
        "name = \"{name}\"\nimage = \"{image}\"\nreplicas = {replicas}\n{arguments}\n\
         [resources]\ncpu = \"100m\"\nmemory = \"64Mi\"\n{more}\n"
    )
}

/// What a worker says of its own replicas of a job.
fn own(network: &Network, worker: &str, job: &str) -> Option<Value> {
    let mut command = veil();
    command.args(["worker", "status", "--json", "--config"]).arg(network.config(worker));
    let status: Value = serde_json::from_slice(&command.output().unwrap().stdout).ok()?;
    let own = |replica: &&Value| replica["job"] == job && !replica["observed"].is_null();
    Some(status["replicas"].as_array()?.iter().find(own)?["observed"].clone())
}

/// Whether a page is had in a container.
fn reaches(container: &str, url: &str) -> bool {
    let mut command = Command::new("docker");
    command.args(["exec", container, "/bin/busybox", "timeout", "5", "/bin/busybox", "wget", "-q"]);
    command.args(["-O", "/dev/null", url]).output().unwrap().status.success()
}

#[test]
fn links_lead_to_the_other_job_wherever_it_is_and_follow_it() {
    let (network, _) = Network::start();
    // One on each worker: whichever has `shop-db`, two of them are elsewhere.
    let link = "[placement]\nanti_affinity = \"hard\"\n\
                [[link]]\njob = \"shop-db\"\nport = \"http\"\nhost = \"db\"\nlisten = 80\nenv = \"DB\"\n";
    let sleep = "args = [\"sleep\", \"3600\"]";
    let web = network.submit_file(&file("shop-web", 3, sleep, link));
    // The last one has one candidate left, of which the answer would tell too much.
    reason(&network, &web, &["1 workers can take it and the policy asks for 2"]);
    set_policy(&network, "min_candidates = 1\n");
    until("it runs before there is the job that it links to", || network.running(&web, 3));
    let containers = WORKERS.map(|worker| {
        let seen = until("its link says that there is no such job", || {
            let seen = own(&network, worker, &web)?;
            seen["links"][0]["trouble"].as_str()?.contains("no job `shop-db`").then_some(seen)
        });
        assert_eq!(seen["links"][0]["address"], "db:80", "{seen}");
        let container = seen["container"].as_str().unwrap().to_owned();
        assert!(!reaches(&container, "http://db/"));
        container
    });
    let waits = "[[after]]\njob = \"shop-db\"\nis = \"healthy\"\n";
    let late = network.submit_file(&file("shop-late", 1, sleep, waits));
    reason(&network, &late, &["waits for shop-db to be healthy", "there is no job"]);

    // Published nowhere.
    let port = "[[port]]\nname = \"http\"\ncontainer = 8080\nhost = \"none\"\n\
                [health]\nprobe = { tcp = { port = 8080 } }\ninterval = \"1s\"\n";
    let db = network.submit_file(&file("shop-db", 1, "", port));
    let first = until("it runs", || network.running(&db, 1)).remove(0);
    for container in &containers {
        until("the link leads there", || reaches(container, "http://db/").then_some(()));
    }
    until("what waited for it runs", || network.running(&late, 1));

    // Its worker dies, and with it one of the three; for the others nothing has to start anew.
    network.signal_node(&first, Signal::SIGKILL);
    let second = until("it runs elsewhere", || {
        network.running(&db, 1).map(|mut at| at.remove(0)).filter(|at| *at != first)
    });
    let others = WORKERS.into_iter().zip(&containers).filter(|(worker, _)| *worker != first);
    for (worker, container) in others {
        until("the link follows it", || reaches(container, "http://db/").then_some(()));
        let seen = own(&network, worker, &web).unwrap();
        assert_eq!(seen["container"], container.as_str(), "{seen}");
        assert!(seen["links"][0]["carried"].as_u64() >= Some(1), "{seen}");
    }
    assert_ne!(first, second);

    // It is stopped: refused, with the reason.
    network.stop_job(&db);
    let (worker, container) =
        WORKERS.into_iter().zip(&containers).find(|(worker, _)| *worker != first).unwrap();
    until("its link says so again", || {
        let seen = own(&network, worker, &web)?;
        seen["links"][0]["trouble"].as_str()?.contains("no job `shop-db`").then_some(())
    });
    assert!(!reaches(container, "http://db/"));
    // What has started stays, and what was placed anew since waits again.
    until("it runs or waits", || {
        let rows = rows(&network, &late);
        let state =
            |row: &Value| row["observed"]["state"].as_str().map(|said| said.contains("waits for"));
        rows.iter().all(|row| row["running"] == true || state(row) == Some(true)).then_some(())
    });
}
