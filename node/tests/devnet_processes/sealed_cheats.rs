//! Operators whose clients deviate: one deals the key of what it seals wrongly, one encrypts less than it seals. Nobody else
//! is harmed, winners refuse, and the job is pending with the reason once t+1 workers have said so.

use std::{fs, path::Path};

use rand::{SeedableRng, rngs::StdRng};
use serde_json::Value;
use veil_committee_sealed::{
    channel,
    context::Context,
    seal::{SealerKey, seal},
};
use veil_keygen_ceremony::keyset::ParameterSet;
use veil_node_api::client::Client;
use veil_node_chain::Chain;
use veil_node_config::{AnyConfig, job_file::JobFile, process_environment};
use veil_node_core::lifecycle::account;
use veil_node_devnet::DevnetFile;
use veil_node_operator::submission::log_in;
use veil_protocol_spec::{
    Address, Blake3Digest,
    codec::Bytes,
    scheduling::{
        Binding, ClusterPolicy, CpuUnits, EncryptedRequest, JobSpec, MemoryUnits, ProofMetadata,
        ResourceRequest, Resources, Sealed, SealedContents, SealedRequest, SealedVariable,
        dominant,
    },
    sealing::{EncryptionKeys, SealingKeyAnnouncement, SealingRoster},
};
use veil_scheduler::{ReferenceString, encrypt_request, read_public_key};

use crate::network::{Network, json, reason, rows, until, veil};

/// What a client gets from the network before it seals.
struct Given {
    roster: SealingRoster,
    keys: EncryptionKeys,
    policy: ClusterPolicy,
    sealer: SealerKey,
}

impl Given {
    fn seal(&self, job: &JobSpec, contents: &SealedContents) -> JobSpec {
        let mut rng = StdRng::from_seed(*self.sealer.randomness(job, contents, &self.roster));
        let part = seal(job, contents, &self.roster, &self.sealer, &mut rng).unwrap();
        JobSpec { sealed: Sealed::Part(Box::new(part)), ..job.clone() }
    }
}

/// Submits what `client` makes of a job with two replicas, as the network's operator. Its digest, and whose it is.
fn submit(
    network: &Network,
    name: &str,
    client: impl FnOnce(JobSpec, &Given) -> JobSpec,
) -> (String, Address) {
    let image = veil_node_devnet::sample_image().unwrap();
    let text = format!(
        "name = \"{name}\"\nimage = \"{image}\"\nreplicas = 2\n\
         [container]\nentrypoint = [\"/bin/busybox\", \"sleep\", \"3600\"]\n\
         [resources]\ncpu = \"400m\"\nmemory = \"256Mi\"\n\
         [placement]\norganisations = \"any\"\nanti_affinity = \"hard\"\n"
    );
    let submitting = async {
        let file = DevnetFile::read(&network.folder).unwrap();
        let config = AnyConfig::load(&file.operator, &process_environment).unwrap();
        let key = account(config.chain()).unwrap();
        let chain = Chain::connect(config.chain().connection(key)).await.unwrap();
        let (cluster, operator) = (file.cluster, chain.account().unwrap());
        let socket = Client::of_socket(file.nodes[0].admin_socket.clone());
        let node = log_in(&chain, cluster, &socket, operator).await.unwrap();
        let nonce = chain.next_job_nonce(cluster, operator).await.unwrap();
        let job = JobFile::parse(&text).unwrap();
        let job = job.into_spec(chain.scope(cluster), operator, nonce).unwrap();
        let given = given(&chain, &node, &job).await;
        let job = client(job, &given);
        let digest = job.digest();
        let _: Value = node.post("/v1/jobs", &job).await.unwrap();
        chain.submit_job(cluster, digest, nonce, 10_000).await.unwrap();
        let _: Value = node.post("/v1/jobs", &job).await.unwrap();
        (digest.to_string(), operator)
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.unwrap().block_on(submitting)
}

/// From a member of each seat, so that the test knows to whom it deals.
async fn given(chain: &Chain, node: &Client, job: &JobSpec) -> Given {
    let cluster = job.scope.cluster;
    let key = chain.current_key(cluster).await.unwrap().unwrap();
    let binding = Binding { scope: job.scope, key_set: key.key_set, epoch: key.epoch };
    let committee = chain.cluster(cluster).await.unwrap().committee;
    let attempt = chain.ceremony_attempt(cluster, key.epoch, key.attempt).await.unwrap().unwrap();
    let identities = chain.identities(cluster, &attempt.roster).await.unwrap();
    let roster = loop {
        let announced: Vec<SealingKeyAnnouncement> = node.get("/v1/sealing-keys").await.unwrap();
        if announced.len() == committee.n() {
            break SealingRoster::new(binding, committee, &identities, &announced).unwrap();
        }
    };
    let keys = node.get("/v1/encryption-keys").await.unwrap();
    let policy = match &chain.cluster_policy(cluster).await.unwrap()[..] {
        [] => ClusterPolicy::default(),
        policy => ClusterPolicy::parse(policy).unwrap(),
    };
    Given { roster, keys, policy, sealer: SealerKey::from_signature(b"a client that deviates") }
}

/// The job is pending with the reason, has no place, and is not placed again while others are.
fn is_pending(network: &Network, job: &str) {
    reason(network, job, &["workers could not use its sealed part", "`veil job submit`"]);
    let places = || rows(network, job).into_iter().filter(|row| row["assigned"] == true).count();
    until("nobody has it any more", || (places() == 0).then_some(()));
    let placed = || {
        let lines = (1..=3).map(|i| network.log_since(&format!("worker-{i}"), 0));
        lines.map(|log| log.matches(&format!("a sealed part is not open job={job}")).count()).sum()
    };
    let before: usize = placed();
    let slot = network.last_slot("member-1").unwrap();
    for _ in 0..2 {
        let other = network.submit(1);
        until("another job is placed meanwhile", || network.running(&other, 1));
    }
    assert!(network.last_slot("member-1").unwrap() > slot);
    assert_eq!((places(), placed()), (0, before), "it is placed again");
}

#[test]
fn what_was_dealt_wrongly_is_pending_after_t_plus_1_workers_and_others_go_on() {
    let (network, _) = Network::start();
    let mut contents = SealedContents::default();
    contents.env = vec![SealedVariable { name: "DB".into(), value: "hunter2".into() }];
    // One member gets its share, and lists the job; the others get scalars of no polynomial.
    let (job, _) = submit(&network, "dealt-wrongly", |job, given| {
        let mut job = given.seal(&job, &contents);
        let Sealed::Part(mut part) = job.sealed.clone() else { panic!("it is sealed") };
        let context = Context::of(&job, &part, &job.operator);
        for ((member, key), share) in given.roster.keys().zip(&mut part.shares).skip(1) {
            assert_eq!(member, share.member);
            let info = context.dealt(&part.ciphertext.0, member);
            let (mut scalars, bound) = ([7; 64], context.as_bytes());
            (scalars[0], scalars[32]) = (0, 0);
            share.share = Bytes(channel::seal(key, &scalars, &info, bound, &[4; 32]).unwrap());
        }
        job.sealed = Sealed::Part(part);
        job
    });
    // That member lists it when it proposes, which it does in turn, in slots that other jobs bring about.
    let not_tried = || {
        let waits = |row: &Value| row["pending_because"] == "no slot has tried to place it yet";
        rows(&network, &job).iter().any(waits)
    };
    until("the job was tried", || {
        let other = network.submit(1);
        until("another job runs", || network.running(&other, 1));
        network.stop_job(&other);
        (!not_tried()).then_some(())
    });
    is_pending(&network, &job);
}

#[test]
fn an_operator_that_encrypts_less_than_it_seals_is_convicted_and_its_job_is_pending() {
    let (network, _) = Network::start();
    let mut sealed = None;
    let (job, operator) = submit(&network, "cheats", |job, given| {
        let ResourceRequest::Clear(limits) = job.request else { panic!("it is clear") };
        let seed = given.sealer.request_seed(job.nonce, &limits);
        let (opened, scale) = (SealedRequest { limits, seed }, given.policy.scale);
        // What the circuit counts with: as little as there is.
        let less = Resources { cpu: CpuUnits(1), memory: MemoryUnits(1), ..limits };
        let quantities = SealedRequest { limits: less, ..opened.clone() }.quantities(&scale);
        let quantities = quantities.unwrap();
        assert_ne!(quantities, opened.quantities(&scale).unwrap(), "in whole units of the scale");
        let parameters = ParameterSet::insecure_test();
        let public = read_public_key(&given.keys.public_key.0, parameters.pke()).unwrap();
        let string = &given.keys.reference_string.0;
        let string = ReferenceString::read(&string[..], *parameters.pke()).unwrap();
        let key_set = given.roster.binding().key_set;
        let metadata = ProofMetadata::for_request(&job.scope, &key_set, &job.operator, job.nonce);
        let randomness = opened.seed.randomness();
        let list = encrypt_request(&quantities, &randomness, &public, &string, &metadata);
        let (dominant, commitment) = (dominant(&quantities), opened.commitment(&metadata));
        let list = list.unwrap();
        let request = EncryptedRequest { key_set, scale, dominant, commitment, list };
        let mut contents = SealedContents::default();
        contents.request = Some(opened.clone());
        sealed = Some(opened);
        let job = JobSpec { request: ResourceRequest::Encrypted(request), ..job };
        given.seal(&job, &contents)
    });
    // Two winners keep evidence, each its own.
    let kept = |worker: &str| {
        let folder = network.folder.join(worker).join("data").join("wrong-requests");
        let file = folder.join(format!("{job}.json"));
        file.exists().then_some(file)
    };
    let workers = ["worker-1", "worker-2", "worker-3"];
    let files: Vec<_> = until("two workers have evidence", || {
        let files: Vec<_> = workers.into_iter().filter_map(kept).collect();
        (files.len() >= 2).then_some(files)
    });
    is_pending(&network, &job);
    // Whoever has the file learns who it was.
    let examine = |file: &Path| {
        let mut command = veil();
        command.args(["evidence", "request", "--json"]).arg(file).arg("--devnet");
        command.arg(&network.folder);
        let status = command.output().unwrap().status;
        (status.success(), json(&mut command))
    };
    for file in &files {
        let (convicts, judged) = examine(file);
        assert!(convicts, "{judged}");
        assert_eq!(judged["verdict"], "operator_deviates", "{judged}");
        assert_eq!(judged["job"], job.as_str());
        assert_eq!(judged["operator"].as_str().unwrap(), operator.to_string());
    }
    // Of a changed file nothing: a test beside the code flips each bit.
    let evidence = fs::read(&files[0]).unwrap();
    let own: Value = serde_json::from_slice(&evidence).unwrap();
    assert_eq!(own["opened"], serde_json::to_value(sealed.unwrap()).unwrap());
    let changed = network.folder.join("changed.json");
    for at in (1..evidence.len()).step_by(evidence.len() / 6) {
        let mut flipped = evidence.clone();
        flipped[at] ^= 1;
        fs::write(&changed, &flipped).unwrap();
        let (convicts, judged) = examine(&changed);
        assert!(!convicts, "byte {at}: {judged}");
    }
    // What is shown of a job that it is not of.
    let mut other = own;
    other["job"] = Blake3Digest([7; 32]).to_string().into();
    fs::write(&changed, other.to_string()).unwrap();
    let (convicts, judged) = examine(&changed);
    assert!(!convicts && judged["error"].is_string(), "{judged}");
}
