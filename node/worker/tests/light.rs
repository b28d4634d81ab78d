//! What the key material costs a light worker, at production size:
//! `cargo test --release -p veil-node-worker --test light -- --ignored --nocapture`.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::{env, fs, path::Path, process::Command};

use tfhe::{ClientKey, CompactPublicKey};
use veil_keygen_ceremony::keyset::ParameterSet;
use veil_node_process::{Stopwatch, peak_rss_bytes};
use veil_protocol_spec::{
    Address, ChainId, ClusterId, Committee, KeySetDigest, PeerIdHash,
    scheduling::{ClusterScope, ProofMetadata, Reading},
};
use veil_scheduler::{ReferenceString, encrypt, read_public_key, verify, write_public_key};

/// Names the folder with the files to the process that is measured.
const FOLDER: &str = "VEIL_LIGHT_FIGURE_FOLDER";
const REPORTS: u32 = 3;
/// "Runs in 0.4 GB": this, and as much again for network, ledger and containers. 65 MiB were measured.
const MOST_BYTES: u64 = 200 << 20;

fn production() -> ParameterSet {
    ParameterSet::production(Committee::new(4).unwrap())
}

/// As after a ceremony: files of the compact public key and the reference string.
fn make(folder: &Path) {
    let parameters = production();
    let public = CompactPublicKey::new(&ClientKey::generate(parameters.config()));
    fs::write(folder.join("public-key"), write_public_key(&public).unwrap()).unwrap();
    let string = ReferenceString::generate_insecure(*parameters.pke()).unwrap();
    string.write(fs::File::create(folder.join("reference-string")).unwrap()).unwrap();
}

/// What a light worker does with them.
fn measure(folder: &Path) {
    let parameters = production();
    let bytes = fs::read(folder.join("public-key")).unwrap();
    let public = read_public_key(&bytes, parameters.pke()).unwrap();
    let file = fs::File::open(folder.join("reference-string")).unwrap();
    let string = ReferenceString::read(file, *parameters.pke()).unwrap();
    let scope = ClusterScope {
        chain_id: ChainId(1),
        contract: Address([1; 20]),
        cluster: ClusterId([2; 32]),
    };
    let watch = Stopwatch::start();
    for sequence in 0..REPORTS {
        let (key_set, me) = (KeySetDigest([3; 32]), PeerIdHash([4; 32]));
        let metadata = ProofMetadata::new(&scope, &key_set, &me, sequence.into());
        let list = encrypt(&Reading::default(), &public, &string, &metadata).unwrap();
        verify(&list, &metadata, &public, &string).unwrap();
    }
    let (peak, seconds) = (peak_rss_bytes(), watch.cpu() / f64::from(REPORTS));
    println!("peak of {} MiB; {seconds:.2} CPU seconds a report, with its check", peak >> 20);
    assert!(peak < MOST_BYTES, "{peak} bytes");
}

#[test]
#[ignore = "a figure at production size"]
fn a_light_worker_needs_little_memory() {
    if let Some(folder) = env::var_os(FOLDER) {
        return measure(Path::new(&folder));
    }
    let folder = tempfile::tempdir().unwrap();
    make(folder.path());
    // In a process of its own, so that making the files does not count.
    let measured = Command::new(env::current_exe().unwrap())
        .args(["--exact", "a_light_worker_needs_little_memory", "--ignored", "--nocapture"])
        .env(FOLDER, folder.path())
        .output()
        .unwrap();
    print!("{}", String::from_utf8_lossy(&measured.stdout));
    assert!(measured.status.success(), "{}", String::from_utf8_lossy(&measured.stderr));
}
