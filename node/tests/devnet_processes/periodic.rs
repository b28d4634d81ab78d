//! A job that is run every minute, by the chain's clock.

use std::collections::BTreeSet;

use serde_json::Value;

use super::network::{Network, json, until, veil};

/// What `veil job status` says of the job's times.
fn times(network: &Network, job: &str) -> Option<Value> {
    let mut command = veil();
    command.args(["job", "status", "--json", "--devnet"]).arg(&network.folder);
    let status = json(&mut command);
    status["periodic"].as_array()?.iter().find(|of| of["job"] == job).cloned()
}

#[test]
fn a_job_is_run_every_minute_each_time_in_a_new_container() {
    let (network, _) = Network::start();
    let image = veil_node_devnet::sample_image().unwrap();
    // Without clobbering: it fails if it finds what another run has written.
    let script = "set -C; : > /ran";
    let job = network.submit_file(&format!(
        "name = \"each-minute\"\nimage = \"{image}\"\ntype = \"periodic\"\n[periodic]\ncron = \"* * * * *\"\n\
         [container]\nuser = \"0\"\nentrypoint = [\"/bin/busybox\", \"sh\", \"-c\", \"{script}\"]\n\
         [resources]\ncpu = \"100m\"\nmemory = \"64Mi\"\n"
    ));
    let mut over = BTreeSet::new();
    until("two of its runs are over", || {
        let times = times(&network, &job)?;
        let run = times["last_run"].as_u64()?;
        assert_eq!(run % 60, 0, "{times}");
        assert!(times["next_run"].as_u64()? > run, "{times}");
        if times["outcome"] != "under_way" {
            assert_eq!(times["outcome"], "succeeded", "{times}");
            over.insert(run);
        }
        (over.len() == 2).then_some(())
    });
    let mut stop = veil();
    stop.args(["job", "stop", &job, "--json", "--devnet"]).arg(&network.folder);
    json(&mut stop);
    until("it is withdrawn", || times(&network, &job).is_none().then_some(()));
}
