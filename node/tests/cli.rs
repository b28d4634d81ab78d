//! The `veil` binary from outside: exit codes, JSON, and what it leaves on disk. Insecure parameters
//! throughout.

#![allow(clippy::unwrap_used, reason = "a failed helper fails the test")]

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;
use tempfile::TempDir;
use veil_node_ceremony::offline::archive::{self, ArchiveError};
use veil_node_storage::keystore::{Passphrase, read_key_share};

#[path = "cli/closed_pipe.rs"]
mod closed_pipe;
#[path = "support/idle_worker.rs"]
mod idle_worker;
#[path = "cli/import.rs"]
mod import;
#[path = "cli/key_shares.rs"]
mod key_shares;
#[path = "cli/share.rs"]
mod share;
#[path = "cli/shell.rs"]
mod shell;
#[path = "cli/terminal.rs"]
mod terminal;

const SEED: &str = "5eed5eed5eed5eed5eed5eed5eed5eed5eed5eed5eed5eed5eed5eed5eed5eed";
const OTHER_SEED: &str = "5eed5eed5eed5eed5eed5eed5eed5eed5eed5eed5eed5eed5eed5eed5eed5eee";

/// What a run of the binary said.
struct Said {
    code: i32,
    stdout: String,
    stderr: String,
}

impl Said {
    /// Standard output, which is one JSON object and nothing else.
    fn json(&self) -> Value {
        let value: Value = serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("{error}: {:?} {}", self.stdout, self.stderr));
        assert!(value.is_object(), "{value}");
        value
    }
}

/// Every variable that the binary reads.
const VARIABLES: &[&str] = &[
    "VEIL_MEMBERS",
    "VEIL_PARAMETERS",
    "VEIL_OUT",
    "VEIL_PASSPHRASE_FILE",
    "VEIL_PASSPHRASE",
    "VEIL_BACKUP_PASSPHRASE_FILE",
    "VEIL_BACKUP_PASSPHRASE",
];

fn veil(arguments: &[&str]) -> Said {
    veil_with(&[], arguments)
}

fn veil_with(variables: &[(&str, &str)], arguments: &[&str]) -> Said {
    let mut command = Command::new(env!("CARGO_BIN_EXE_veil"));
    for variable in VARIABLES {
        command.env_remove(variable);
    }
    let output = command.envs(variables.iter().copied()).args(arguments).output().unwrap();
    Said {
        code: output.status.code().unwrap(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// `veil ceremony simulate --json` without the comparison.
fn simulate(members: usize, more: &[&str]) -> Said {
    let members = members.to_string();
    let mut arguments = vec!["ceremony", "simulate", "--members", &members];
    arguments.extend(["--parameters", "insecure-short", "--no-comparison", "--json"]);
    arguments.extend(more);
    veil(&arguments)
}

fn verify(folder: &Path) -> Said {
    veil(&["ceremony", "verify", folder.to_str().unwrap(), "--json"])
}

/// The folder of a finished ceremony of four, and its report.
fn finished() -> (TempDir, PathBuf, Value) {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join("out");
    let said = simulate(4, &["--out", folder.to_str().unwrap()]);
    assert_eq!(said.code, 0, "{} {}", said.stdout, said.stderr);
    let report = said.json();
    (place, folder, report)
}

fn has_keys(report: &Value, keys: &[&str]) {
    for key in keys {
        assert!(report.get(key).is_some(), "{key} is missing from {report}");
    }
}

/// All files below a folder.
fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            let content = fs::read(&path).unwrap();
            found.insert(path, content);
        }
    }
    found
}

/// Keys of the report of every ceremony, finished or not.
const REPORT: &[&str] = &[
    "outcome",
    "members",
    "max_faulty",
    "parameters",
    "insecure",
    "security_bits",
    "log2_p_fail",
    "ceremony_id",
    "keyset_digest",
    "transcript_root",
    "rounds",
    "wall_seconds",
    "cpu_seconds_per_member",
    "reference_string_cpu_seconds",
    "reference_string_wall_seconds",
    "bytes_sent_per_member",
    "key_body_bytes",
    "ratio_traffic",
    "peak_rss_bytes",
    "peak_rss_limit_bytes",
    "refused",
    "verified",
];

#[test]
fn a_simulation_leaves_a_folder_that_verifies() {
    let (_place, folder, report) = finished();
    has_keys(&report, REPORT);
    has_keys(&report, &["culprits", "proof"]);
    assert_eq!(report["outcome"], "completed");
    assert_eq!(report["verified"], true);
    assert_eq!(report["insecure"], true);
    assert_eq!((&report["members"], &report["max_faulty"]), (&4.into(), &1.into()));
    assert_eq!(report["proof"]["decrypted_with"], serde_json::json!([3, 4]));
    assert_eq!(report["proof"]["crafted_refused_by"], serde_json::json!([1, 2, 3]));
    assert_eq!(report["refused"], serde_json::json!([]));
    for round in ["commit", "compute-bodies", "open-bodies", "prove", "finish"] {
        has_keys(&report["rounds"][round], &["wall_seconds", "cpu_seconds"]);
    }
    let summary: Value =
        serde_json::from_slice(&fs::read(folder.join("ceremony.json")).unwrap()).unwrap();
    assert_eq!(summary, report);

    let said = verify(&folder);
    assert_eq!(said.code, 0, "{}", said.stdout);
    let verified = said.json();
    has_keys(&verified, &["attempt", "insecure", "reference_string_digest"]);
    assert_eq!(verified["verified"], true);
    for key in ["keyset_digest", "transcript_root", "ceremony_id", "members", "parameters"] {
        assert_eq!(verified[key], report[key], "{key}");
    }
    let text = veil(&["ceremony", "verify", folder.to_str().unwrap()]);
    assert_eq!(text.code, 0);
    assert!(text.stdout.contains(report["keyset_digest"].as_str().unwrap()), "{}", text.stdout);
}

#[test]
fn verification_needs_no_secret() {
    let (_place, folder, _) = finished();
    for j in 1..=4 {
        fs::remove_file(folder.join(format!("key-share-{j}.age"))).unwrap();
    }
    fs::remove_file(folder.join("passphrase.txt")).unwrap();
    fs::remove_file(folder.join("ceremony.json")).unwrap();
    assert_eq!(verify(&folder).code, 0);
}

#[test]
fn the_comparison_is_part_of_the_report() {
    let said = veil(&["ceremony", "simulate", "--parameters", "insecure-short", "--json"]);
    assert_eq!(said.code, 0, "{}", said.stdout);
    let report = said.json();
    assert_eq!(report["members"], 4);
    has_keys(&report, &["stock_cpu_seconds", "stock_wall_seconds", "ratio_cpu_per_member"]);
}

#[test]
fn committees_of_every_size_make_a_working_key() {
    for (members, max_faulty) in [(1, 0), (7, 2), (10, 3), (13, 4)] {
        let said = simulate(members, &[]);
        assert_eq!(said.code, 0, "{} {}", said.stdout, said.stderr);
        let report = said.json();
        has_keys(&report, REPORT);
        assert_eq!(report["verified"], true, "{report}");
        assert_eq!(report["members"], members);
        assert_eq!(report["max_faulty"], max_faulty);
        let counts: Vec<_> = (2 * max_faulty + 1..=members).collect();
        assert_eq!(report["proof"]["decrypted_with"], serde_json::json!(counts));
    }
}

/// A fault that no key survives: where participant 1 notices it, whom it accuses, and whom signed messages prove
/// to have done it.
fn aborted_by(fault: &str, stage: &str, accused: &[u8], proven: &[u8]) {
    let place = tempfile::tempdir().unwrap();
    let said = simulate(4, &["--fault", fault, "--out", place.path().to_str().unwrap()]);
    assert_eq!(said.code, 1, "{fault}: {}", said.stdout);
    let report = said.json();
    has_keys(&report, REPORT);
    has_keys(&report, &["aborts", "detected"]);
    assert_eq!(report["outcome"], "aborted", "{report}");
    assert_eq!(report["verified"], false);
    assert_eq!(report["keyset_digest"], Value::Null);
    assert_eq!(report["detected"]["stage"], stage, "{report}");
    assert_eq!(report["detected"]["accused"], serde_json::json!(accused));
    assert_eq!(report["culprits"], serde_json::json!(proven));
    let proofs = report["proofs"].as_array().unwrap();
    assert_eq!(proofs.is_empty(), proven.is_empty(), "{report}");
    for proof in proofs {
        has_keys(proof, &["culprit", "misdeed", "round", "messages"]);
    }
    has_keys(&report["detected"], &["by", "message"]);
    for abort in report["aborts"].as_array().unwrap() {
        has_keys(
            abort,
            &["participant", "detected_in", "reason", "message", "accused", "evidence"],
        );
    }
    // Evidence is left, a key is not.
    for j in 1..=4 {
        assert!(place.path().join(format!("aborted/messages-{j}.bin")).is_file());
        assert!(!place.path().join(format!("key-share-{j}.age")).exists());
    }
    assert!(!place.path().join("keyset.bin").exists());
    assert!(place.path().join("ceremony.json").is_file());
}

#[test]
fn a_wrong_body_share_aborts_when_bodies_are_opened() {
    aborted_by("wrong-body-share", "open-bodies", &[], &[]);
}

#[test]
fn a_wrong_secret_bit_share_aborts_when_bits_are_opened() {
    aborted_by("wrong-secret-bit-share", "open-bits", &[], &[]);
}

#[test]
fn a_wrong_contribution_to_the_reference_string_is_accused() {
    aborted_by("wrong-reference-string", "reference-string", &[4], &[4]);
}

#[test]
fn a_silent_member_is_accused_in_the_first_round() {
    aborted_by("silent", "commit", &[4], &[]);
}

/// A fault that a ceremony survives.
fn completed_despite(fault: &str) -> Value {
    let said = simulate(4, &["--fault", fault]);
    assert_eq!(said.code, 0, "{fault}: {}", said.stdout);
    let report = said.json();
    assert_eq!(report["outcome"], "completed", "{report}");
    assert_eq!(report["verified"], true, "{report}");
    report
}

#[test]
fn a_bad_share_to_one_is_repaired() {
    let report = completed_despite("bad-share-to-one");
    let refused = report["refused"].as_array().unwrap();
    // Chunk 0 of the bodies, from its sender and once more from the sender when asked again.
    assert!(!refused.is_empty() && refused.len() <= 2, "{report}");
    for refusal in refused {
        assert_eq!(refusal["by"], 1, "{report}");
        assert!(refusal["why"].as_str().unwrap().contains("participant 4"), "{report}");
    }
    assert_eq!(report["culprits"], serde_json::json!([]));
}

#[test]
fn a_wrong_partial_decryption_names_the_culprit() {
    let report = completed_despite("wrong-partial-decryption");
    assert_eq!(report["culprits"], serde_json::json!([4]));
    // With t = 2 two lie in the run that is part of every proof; only one has the fault.
    let said = simulate(7, &["--fault", "wrong-partial-decryption"]);
    let report = said.json();
    assert_eq!(report["proof"]["named"], serde_json::json!([6, 7]));
    assert_eq!(report["culprits"], serde_json::json!([7]));
}

#[test]
fn a_crafted_ciphertext_is_refused() {
    let report = completed_despite("crafted-ciphertext");
    assert_eq!(report["proof"]["crafted_refused_by"], serde_json::json!([1, 2, 3]));
    assert_eq!(report["culprits"], serde_json::json!([]));
}

#[test]
fn damaged_files_do_not_verify() {
    let (_place, folder, _) = finished();
    for name in ["transcript.bin", "keyset.bin", "shares/bits-1.bin", "shares/bodies-4.bin"] {
        let path = folder.join(name);
        let intact = fs::read(&path).unwrap();
        let mut flipped = intact.clone();
        flipped[intact.len() / 2] ^= 1;
        let truncated = intact[..intact.len() - 1].to_vec();
        let lengthened = [intact.as_slice(), &[0]].concat();
        for (damage, content) in [
            ("flipped", flipped),
            ("truncated", truncated),
            ("lengthened", lengthened),
            ("emptied", Vec::new()),
        ] {
            fs::write(&path, content).unwrap();
            let said = verify(&folder);
            assert_eq!(said.code, 1, "{name} {damage}: {}", said.stdout);
            let report = said.json();
            assert_eq!(report["verified"], false);
            has_keys(&report, &["error"]);
        }
        fs::write(&path, &intact).unwrap();
    }
    let said = verify(&folder);
    assert_eq!(said.code, 0, "intact again, but: {}", said.stdout);
    fs::remove_file(folder.join("shares/bits-2.bin")).unwrap();
    assert_eq!(verify(&folder).code, 3);
    assert_eq!(verify(&folder.join("nowhere")).code, 3);
}

#[test]
fn every_byte_of_the_transcript_counts() {
    let (_place, folder, _) = finished();
    let path = folder.join("transcript.bin");
    let mut bytes = fs::read(&path).unwrap();
    // A step without a common factor with anything in the format; the last message too.
    let positions: Vec<_> = (0..bytes.len()).step_by(307).chain([bytes.len() - 1]).collect();
    for at in positions {
        for bit in [0x01, 0x80] {
            bytes[at] ^= bit;
            fs::write(&path, &bytes).unwrap();
            match archive::verify(&folder, |_, _| ()) {
                Err(ArchiveError::Codec { .. } | ArchiveError::Transcript(_)) => {}
                Err(error) if !error.is_io() => {}
                Err(error) => panic!("byte {at}: {error}"),
                Ok(_) => panic!("byte {at} does not count"),
            }
            bytes[at] ^= bit;
        }
    }
}

#[test]
fn wrong_arguments_are_refused() {
    for members in ["0", "2", "5", "16", "four"] {
        let said = veil(&["ceremony", "simulate", "--members", members]);
        assert_eq!(said.code, 2, "{members}: {}", said.stderr);
    }
    let said = veil(&["ceremony", "simulate", "--parameters", "nonsense", "--json"]);
    assert_eq!(said.code, 2);
    let report = said.json();
    assert_eq!(report["kind"], "usage");
    assert!(report["error"].as_str().unwrap().contains("nonsense"), "{report}");
    // Those of another committee.
    let said = veil(&["ceremony", "simulate", "--members", "7", "--parameters", "production-n4"]);
    assert_eq!(said.code, 2);
    for more in [["--fault", "laziness"], ["--seed", "5eed"]] {
        assert_eq!(simulate(4, &more).code, 2, "{more:?}");
    }
    // A fault needs others that notice it.
    assert_eq!(simulate(1, &["--fault", "silent"]).code, 2);
    assert_eq!(veil(&["ceremony", "verify"]).code, 2);
}

#[test]
fn nothing_is_overwritten() {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().to_str().unwrap();
    fs::write(place.path().join("keyset.bin"), b"precious").unwrap();
    let before = files(place.path());
    let said = simulate(4, &["--out", folder]);
    assert_eq!(said.code, 3, "{}", said.stdout);
    assert_eq!(said.json()["kind"], "files");
    assert_eq!(files(place.path()), before);

    let (_place, folder, _) = finished();
    let before = files(&folder);
    assert_eq!(simulate(4, &["--out", folder.to_str().unwrap()]).code, 3);
    assert_eq!(files(&folder), before);
    // Where no folder can be.
    let file = folder.join("keyset.bin");
    assert_eq!(simulate(4, &["--out", file.to_str().unwrap()]).code, 3);
    assert_eq!(files(&folder), before);
}

#[test]
fn a_given_passphrase_is_used_and_not_stored() {
    let place = tempfile::tempdir().unwrap();
    let (folder, file) = (place.path().join("out"), place.path().join("passphrase"));
    let arguments =
        ["--out", folder.to_str().unwrap(), "--passphrase-file", file.to_str().unwrap()];
    assert_eq!(simulate(1, &arguments).code, 3, "there is no such file");
    fs::write(&file, "\n").unwrap();
    assert_eq!(simulate(1, &arguments).code, 3, "the file is empty");
    assert!(!folder.exists());
    fs::write(&file, "correct horse\n").unwrap();
    assert_eq!(simulate(1, &arguments).code, 0);
    assert!(!folder.join("passphrase.txt").exists());
    let passphrase = Passphrase::new("correct horse".to_owned());
    read_key_share(&folder.join("key-share-1.age"), &passphrase).unwrap();
}

#[test]
fn settings_come_from_the_environment() {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join("out");
    let variables = [
        ("VEIL_MEMBERS", "1"),
        ("VEIL_PARAMETERS", "insecure-short"),
        ("VEIL_OUT", folder.to_str().unwrap()),
        ("VEIL_PASSPHRASE", "correct horse"),
    ];
    let said = veil_with(&variables, &["ceremony", "simulate", "--no-comparison", "--json"]);
    assert_eq!(said.code, 0, "{}", said.stdout);
    assert_eq!(said.json()["members"], 1);
    assert!(!folder.join("passphrase.txt").exists());
    let passphrase = Passphrase::new("correct horse".to_owned());
    read_key_share(&folder.join("key-share-1.age"), &passphrase).unwrap();
}

/// As in a service file that passes on what it does not have: `VEIL_RPC_URL=${RPC}`.
#[test]
fn a_variable_that_is_set_to_nothing_is_not_set() {
    let names = ["VEIL_RPC_URL", "VEIL_CHAIN_ID", "VEIL_CONFIRMATIONS", "VEIL_CONTRACT_ADDRESS"];
    let names = names.into_iter().chain(["VEIL_CHAIN_KEYSTORE", "VEIL_CHAIN_KEY", "VEIL_CLUSTER"]);
    let empty: Vec<_> = names.map(|name| (name, "")).collect();
    for arguments in [&["chain", "status"][..], &["identity", "show"], &["chain", "elect", "show"]]
    {
        let (unset, set) = (veil(arguments), veil_with(&empty, arguments));
        assert_eq!((set.code, &set.stdout), (unset.code, &unset.stdout), "{arguments:?}");
        assert_eq!(set.stderr, unset.stderr, "{arguments:?}");
    }
}

#[test]
fn a_seed_repeats_the_key() {
    let digest = |seed: &[&str]| {
        let report = simulate(4, seed).json();
        assert_eq!(report["verified"], true);
        report["keyset_digest"].as_str().unwrap().to_owned()
    };
    let first = digest(&["--seed", SEED]);
    assert_eq!(digest(&["--seed", SEED]), first);
    assert_ne!(digest(&["--seed", OTHER_SEED]), first);
    assert_ne!(digest(&[]), digest(&[]));
}
