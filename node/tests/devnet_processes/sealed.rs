//! A job with secrets on a network of processes: the winners open it, and start again without the committee.

use std::{
    fs,
    process::{Command, Stdio},
};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::network::{Network, json, rows, until, veil};

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

/// What a clear request for 300 millicores, 1088 MiB and 2 GiB looks like: as the units of its encoding, after the tag of
/// requests in clear; and as people, job files, labels and JSON say it.
const LIMITS: [&[u8]; 6] =
    [&[0, 3, 17, 2, 0], b"3,17,2,0", b"1140850688", b"1088Mi", b"300 millicores", b"\"memory\":17"];

/// "A job with encrypted requests is placed on a devnet; no file, log or message of a node that did not win holds its limits
/// in clear."
#[test]
fn limits_of_an_encrypted_request_are_read_by_winners_only() {
    let (network, _) = Network::start();
    let image = veil_node_devnet::sample_image().unwrap();
    let file = |replicas: u16| {
        format!(
            "name = \"hidden\"\nimage = \"{image}\"\nreplicas = {replicas}\n\
             [container]\nsealed = true\nentrypoint = [\"/bin/busybox\", \"sh\", \"-c\", \
             \"exec sleep 3601 # {SECRET}\"]\n\
             [resources]\ncpu = \"300m\"\nmemory = \"1088Mi\"\ndisk = \"2Gi\"\nencrypted = true\n\
             [restart]\nmode = \"always\"\n[placement]\norganisations = \"any\"\nanti_affinity = \"hard\"\n"
        )
    };
    let path = network.folder.join("hidden.toml");
    fs::write(&path, file(1)).unwrap();
    let of_file = |verb: &str, more: &[&str]| {
        let mut command = veil();
        command.args(["job", verb, "--json"]).arg(&path).args(more);
        json(command.arg("--devnet").arg(&network.folder))
    };
    // Whoever plans it sees the limits, and what is told.
    let plan = of_file("plan", &[]);
    assert_eq!((&plan["encrypted"], &plan["limits"]["memory"]), (&true.into(), &"1088Mi".into()));
    assert!(plan["tells"].to_string().contains("its limits are encrypted"), "{plan}");
    let nonce = plan["nonce"].to_string();
    // In one batch with one in clear.
    let job = network.submit_file(&file(1));
    let clear = network.submit(1);
    let winner = until("it runs", || network.running(&job, 1)).remove(0);
    until("the other runs, too", || network.running(&clear, 1));

    // The winner's engine got the limits and the arguments that are sealed.
    let (container, _) = own(&network, &winner, &job).unwrap();
    let format = "{{.HostConfig.Memory}} {{.HostConfig.NanoCpus}} {{json .Config.Entrypoint}}";
    let output = Command::new("docker").args(["inspect", "--format", format, &container]).output();
    let inspected = String::from_utf8(output.unwrap().stdout).unwrap();
    assert!(inspected.starts_with("1140850688 300000000 "), "{inspected}");
    assert!(inspected.contains(SECRET), "{inspected}");

    // The body can be given again: what is sealed is sealed to the same bytes.
    // The same members must answer, and a busy one may be late.
    until("the same body is given again", || {
        (of_file("submit", &["--nonce", &nonce])["job"] == job.as_str()).then_some(())
    });

    // All others hold nothing of it.
    let status = json(veil().args(["job", "status", "--json", "--devnet"]).arg(&network.folder));
    let list = json(veil().args(["job", "list", "--json", "--devnet"]).arg(&network.folder));
    let is_in = |bytes: &[u8], one: &[u8]| bytes.windows(one.len()).any(|found| found == one);
    let secrets: Vec<&[u8]> = LIMITS.into_iter().chain([SECRET.as_bytes()]).collect();
    for said in [&status, &list] {
        let said = said.to_string();
        assert!(!secrets.iter().any(|one| is_in(said.as_bytes(), one)), "{said}");
    }
    let members = (1..=4).map(|i| format!("member-{i}"));
    let workers = (1..=3).map(|i| format!("worker-{i}")).filter(|worker| *worker != winner);
    for node in members.chain(workers) {
        let log = network.log_since(&node, 0);
        for one in &secrets {
            assert!(!is_in(log.as_bytes(), one), "{node}: {}", String::from_utf8_lossy(one));
        }
        for file in files(&network.folder.join(&node)) {
            // Keys are random bytes, and megabytes of them.
            let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if name.starts_with("keyset-") || name.starts_with("reference-string-") {
                continue;
            }
            let bytes = fs::read(&file).unwrap_or_default();
            for one in &secrets {
                let leaks = is_in(&bytes, one);
                assert!(!leaks, "{}: {}", file.display(), String::from_utf8_lossy(one));
            }
        }
    }

    // Scaling restarts nothing, although the new version is sealed and encrypted anew.
    let scaled = network.submit_file(&file(2));
    assert_ne!(scaled, job);
    until("two replicas run", || {
        let placed = [&job, &scaled].map(|job| rows(&network, job));
        let running = |rows: &[Value]| rows.iter().filter(|row| row["running"] == true).count();
        (running(&placed[0]) + running(&placed[1]) == 2).then_some(())
    });
    assert_eq!(own(&network, &winner, &job).unwrap(), (container, true), "it was left alone");
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
