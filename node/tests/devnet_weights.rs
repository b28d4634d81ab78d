//! A whole network in this process whose policy has encrypted weights, with the real chain and the real engine:
//! jobs by cost are placed by weights that no node has in clear, and wait while nobody has the ciphertexts. Insecure
//! parameters.
//!
//! It needs anvil, a Docker engine and the sample image (`cargo xtask setup`); without them it fails
//! and says so.

#![allow(clippy::unwrap_used, reason = "a failed helper fails the test")]

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use tracing_subscriber::fmt::MakeWriter;
use veil_node_api::{
    status::Status,
    weights::{PATH, WeightsFile, WeightsStatus, WeightsTaken},
};
use veil_node_config::{job_file::JobFile, policy_file};
use veil_node_devnet::{Devnet, Node, sample_job};
use veil_node_operator::new_policy;
use veil_protocol_spec::{
    Blake3Digest, Wire as _, hex,
    scheduling::{ClusterPolicy, EncryptedWeights, PolicyWeights, Weight, Weights},
};

use self::one_process::{image, until, with_network};

#[path = "support/one_process.rs"]
mod one_process;

/// The one that costs less than the others.
const CHEAP: &str = "worker-2";
/// Not the default's.
const POLICY: &str = "[weights]\nprice = 2\nlatency = 0\nencrypted = true\n";

fn by_cost(image: &str) -> JobFile {
    let image = toml::Value::from(image);
    JobFile::parse(&format!(
        "image = {image}\nreplicas = 1\n[placement]\npolicy = \"cost\"\n\
         [resources]\ncpu = \"100m\"\nmemory = \"64Mi\"\n"
    ))
    .unwrap()
}

/// Everything that the nodes log.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Log {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

fn node<'a>(devnet: &'a Devnet, name: &str) -> &'a Node {
    devnet.nodes().iter().find(|node| node.name() == name).unwrap()
}

/// What a node has of the lists that the chain names.
async fn held(node: &Node) -> Vec<WeightsStatus> {
    node.client().get(PATH).await.unwrap_or_default()
}

async fn has(devnet: &Devnet, name: &str, weights: Blake3Digest) -> bool {
    let status = held(node(devnet, name)).await;
    status.iter().any(|one| one.weights == weights && one.held)
}

/// Whether some file below has these bytes in it.
fn is_in_a_file(folder: &Path, needle: &[u8]) -> bool {
    // What a node replaces meanwhile may be gone.
    let Ok(entries) = fs::read_dir(folder) else { return false };
    entries.flatten().any(|entry| match (entry.path(), entry.file_type()) {
        (path, Ok(kind)) if kind.is_dir() => is_in_a_file(&path, needle),
        (path, Ok(kind)) if kind.is_file() => {
            fs::read(path).is_ok_and(|bytes| contains(&bytes, needle))
        }
        _ => false,
    })
}

fn contains(bytes: &[u8], needle: &[u8]) -> bool {
    bytes.windows(needle.len()).any(|window| window == needle)
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a worker whose telemetry misses a slot on a busy machine is no candidate, the cheap one too: run it alone"]
async fn jobs_are_placed_by_weights_that_no_node_sees() {
    let log = Log::default();
    let filter = tracing_subscriber::EnvFilter::new("info,veil=debug");
    let to = log.clone();
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).with_writer(to).init();
    let image = image();
    let folder = tempfile::Builder::new().prefix("veil-").tempdir().unwrap();
    with_network(folder.path(), async |devnet| {
        scenario(devnet, &image, folder.path(), &log).await;
    })
    .await;
}

async fn scenario(devnet: &mut Devnet, image: &str, folder: &Path, log: &Log) {
    for name in ["worker-1", "worker-3"] {
        let path = folder.join(name).join("worker.toml");
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains("#price = 0"), "{text}");
        fs::write(&path, text.replace("#price = 0", "price = 3")).unwrap();
    }
    devnet.start_nodes().await.unwrap();
    let key_set = devnet.make_key().await.unwrap();
    devnet.await_ready(key_set).await.unwrap();
    let (chain, cluster) = (devnet.chain().clone(), devnet.scope().cluster);
    // What the author has is nothing that a node reads.
    let authors = tempfile::tempdir().unwrap();
    let file = authors.path().join("policy.toml");
    let read = policy_file::parse(POLICY).unwrap();

    // A policy names what nobody has: jobs by cost wait, and say for what; others are placed.
    let nobodys = read.with_encrypted(Blake3Digest([7; 32]));
    chain.set_cluster_policy(cluster, &nobodys.to_wire()).await.unwrap();
    until("a node sees the policy", async || !held(node(devnet, "member-1")).await.is_empty())
        .await;
    let first = devnet.submit(by_cost(image)).await.unwrap();
    let other = devnet.submit(sample_job(image, 1).unwrap()).await.unwrap();
    devnet.await_running(other, 1).await.unwrap();
    until("a member says for what the job waits", async || {
        let Ok(status) = node(devnet, "member-1").status().await else { return false };
        let because = |status: &Status| {
            let own = status.replicas.iter().find(|replica| replica.job == first)?;
            own.pending_because.clone()
        };
        because(&status).is_some_and(|why| why.contains("no node has the encrypted weights"))
    })
    .await;

    // The author's weights. One worker is away.
    devnet.stop_node("worker-3").await.unwrap();
    let member = node(devnet, "member-1").client();
    let set = new_policy::set(&chain, cluster, &read, &file, Some(&member)).await.unwrap();
    let list = PathBuf::from(set["list"].as_str().unwrap());
    let bytes = fs::read(&list).unwrap();
    let encrypted = EncryptedWeights::from_wire(&bytes).unwrap();
    let weights = encrypted.digest();
    assert_eq!(set["weights"], weights.to_string());
    assert_eq!(Some(encrypted.author), chain.account());
    assert!(has(devnet, "member-1", weights).await, "it has said so");
    for name in ["member-2", "member-3", "member-4", "worker-1", CHEAP] {
        until("every node has them", async || has(devnet, name, weights).await).await;
    }
    let placed = devnet.await_running(first, 1).await.unwrap();
    assert_eq!(placed[0].worker, CHEAP, "two thirds of the guesses are wrong");
    let second = devnet.submit(by_cost(image)).await.unwrap();
    assert_eq!(devnet.await_running(second, 1).await.unwrap()[0].worker, CHEAP);

    // Whatever is not that list is not taken, and again it is.
    let give = async |list: &EncryptedWeights| {
        let file = WeightsFile { wire: hex(&list.to_wire()) };
        member.post::<WeightsTaken>(PATH, &file).await
    };
    let renumbered =
        EncryptedWeights { nonce: encrypted.nonce.wrapping_add(1), ..encrypted.clone() };
    let refused = give(&renumbered).await.unwrap_err().to_string();
    assert!(refused.contains("no policy that this node sees on chain names"), "{refused}");
    assert_eq!(give(&encrypted).await.unwrap().weights, weights);

    // A worker that comes later gets them from others, and a member that was stopped has them on disk.
    devnet.start_node("worker-3").await.unwrap();
    until("the late one has them", async || has(devnet, "worker-3", weights).await).await;
    devnet.stop_node("member-2").await.unwrap();
    devnet.start_node("member-2").await.unwrap();
    until("it has them again", async || has(devnet, "member-2", weights).await).await;
    let third = devnet.submit(by_cost(image)).await.unwrap();
    assert_eq!(devnet.await_running(third, 1).await.unwrap()[0].worker, CHEAP);

    // Nothing of a node has them in clear: no file, no log, no answer.
    let clear = Weights { price: Weight::new(2).unwrap(), latency: Weight::default() };
    let policy = read.with_encrypted(weights);
    let in_clear = ClusterPolicy { weights: PolicyWeights::Public(clear), ..policy }.to_wire();
    let debug = format!("{clear:?}").replace("Weights ", "");
    let json = serde_json::to_string(&clear).unwrap();
    // Within other messages a policy has no version of its own.
    let needles = [&in_clear[1..], debug.as_bytes(), json.as_bytes()];
    assert!(is_in_a_file(folder, &policy.to_wire()[1..]), "such a search finds what is there");
    assert!(is_in_a_file(folder, &bytes), "the list too");
    let logged = log.0.lock().unwrap().clone();
    assert!(contains(&logged, weights.to_string().as_bytes()), "the log is the nodes'");
    for needle in needles {
        assert!(!is_in_a_file(folder, needle), "{}", String::from_utf8_lossy(needle));
        assert!(!contains(&logged, needle), "{}", String::from_utf8_lossy(needle));
    }
    for node in devnet.nodes() {
        let status: serde_json::Value = node.client().get("/v1/status").await.unwrap();
        let of_policy: serde_json::Value = node.client().get(PATH).await.unwrap();
        let said = format!("{status}{of_policy}");
        assert!(!said.contains("\"price\""), "{said}");
    }
    devnet.verify_certificates().await.unwrap();
}
