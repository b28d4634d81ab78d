//! A job with secrets on a network of processes: the winners open it, and start again without the committee.

use std::{
    fs,
    process::{Command, Stdio},
};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::network::{Network, json, until, veil};

const SECRET: &str = "hunter2-of-a-network";

#[test]
fn winners_open_what_is_sealed_and_start_again_without_the_committee() {
    let (network, _) = Network::start();
    let image = veil_node_devnet::sample_image().unwrap();
    let secret = network.folder.join("db-password.txt");
    fs::write(&secret, SECRET).unwrap();
    let file = |secret: &str| {
        // It runs only if it finds both, and the file on no disk. The script is public, so it compares them.
        let script = format!(
            "[ x$DB = x$(cat /run/secrets/db) ] && [ ${{#DB}} = {} ] && \
             grep -q ' /run/secrets/db tmpfs' /proc/mounts && exec sleep 3600",
            SECRET.len()
        );
        format!(
            "name = \"sealed\"\nimage = \"{image}\"\nreplicas = 2\n\
             [container]\nentrypoint = [\"/bin/busybox\", \"sh\", \"-c\", \"{script}\"]\n\
             [resources]\ncpu = \"100m\"\nmemory = \"64Mi\"\n[restart]\nmode = \"always\"\n\
             [placement]\norganisations = \"any\"\nanti_affinity = \"hard\"\n\
             [[secret]]\npath = \"/run/secrets/db\"\nfrom = {{ file = \"{secret}\" }}\n\
             [[secret]]\nenv = \"DB\"\nfrom = {{ file = \"{secret}\" }}\n"
        )
    };
    // What is missing is named, and the chain is told nothing.
    let path = network.folder.join("missing.toml");
    fs::write(&path, file("/nowhere/db-password.txt")).unwrap();
    let mut submit = veil();
    submit.args(["job", "submit", "--json"]).arg(&path).arg("--devnet").arg(&network.folder);
    let refused = json(&mut submit);
    assert!(refused["error"].as_str().unwrap().contains("/nowhere/db-password.txt"), "{refused}");

    // A member that is away is not needed, to seal or to open.
    network.hold("member-4");
    let job = network.submit_file(&file(secret.to_str().unwrap()));
    let running = until("both replicas run with their secrets", || network.running(&job, 2));
    network.signal_node("member-4", Signal::SIGCONT);

    // Whoever reads bodies, states and logs finds nothing of it.
    let status = json(veil().args(["job", "status", "--json", "--devnet"]).arg(&network.folder));
    let list = json(veil().args(["job", "list", "--json", "--devnet"]).arg(&network.folder));
    for said in [&status, &list] {
        assert!(!said.to_string().contains(SECRET), "{said}");
    }
    for node in ["member-1", "worker-1", "worker-2", "worker-3"] {
        assert!(!network.log_since(node, 0).contains(SECRET), "{node}");
        for file in files(&network.folder.join(node)) {
            let bytes = fs::read(&file).unwrap_or_default();
            let leaks = bytes.windows(SECRET.len()).any(|bytes| bytes == SECRET.as_bytes());
            assert!(!leaks, "{}", file.display());
        }
    }

    // As after a reboot: worker and container have ended, and what was in memory is gone. The worker starts its
    // container from what it has kept, while the committee is away.
    let worker = &running[0];
    let (container, peer) = (own(&network, worker, &job).unwrap().0, network.peer(worker));
    network.end(worker);
    let members = ["member-1", "member-2", "member-3", "member-4"];
    members.iter().for_each(|member| network.hold(member));
    assert!(Command::new("docker").args(["kill", &container]).status().unwrap().success());
    fs::remove_dir_all(format!("/dev/shm/veil-{peer}")).unwrap();
    let back = network.start_node(worker);
    until("it runs its replica again", || {
        let (again, runs) = own(&network, worker, &job)?;
        assert_eq!(again, container, "the same container, with its files laid out anew");
        runs.then_some(())
    });
    members.iter().for_each(|member| network.signal_node(member, Signal::SIGCONT));
    drop(back);
}

/// The container of a worker's own replica of the job, and whether it runs.
fn own(network: &Network, worker: &str, job: &str) -> Option<(String, bool)> {
    let mut command = veil();
    command.args(["worker", "status", "--json", "--config"]).arg(network.config(worker));
    let output = command.stderr(Stdio::null()).output().unwrap();
    let status: Value = serde_json::from_slice(&output.stdout).ok()?;
    let replicas = status["replicas"].as_array()?.iter().filter(|replica| replica["job"] == job);
    let observed = replicas.map(|replica| &replica["observed"]);
    observed
        .filter_map(|seen| Some((seen["container"].as_str()?.to_owned(), seen["running"] == true)))
        .next()
}

/// All files under a folder, but for sockets.
fn files(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let Ok(kind) = entry.file_type() else { continue };
        if kind.is_dir() {
            found.extend(files(&entry.path()));
        } else if kind.is_file() && entry.metadata().is_ok_and(|of| of.len() < 64 << 20) {
            found.push(entry.path());
        }
    }
    found
}
