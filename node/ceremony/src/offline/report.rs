//! What a ceremony on one machine came to: for programs, and for a person.

use std::{
    collections::BTreeSet,
    io::{self, Write},
};

use serde::Serialize;
use serde_json::{Value, json};
use tfhe::{
    Tag, core_crypto::prelude::NormalizedHammingWeightBound, xof_key_set::CompressedXofKeySet,
};
use veil_keygen_ceremony::keyset::{Layout, ParameterSet};
use veil_node_process::Stopwatch;

use super::simulate::Simulation;

/// The stock key set beside the ceremony's, in one run.
#[derive(Clone, Copy, Debug, Serialize)]
struct Comparison {
    stock_cpu_seconds: f64,
    stock_wall_seconds: f64,
    ratio_cpu_per_member: f64,
}

/// The stages in which the reference string is made and checked. Participant 1 raises it at once when it has
/// the last echo of step 5, which takes next to nothing by itself.
const STRING_STAGES: [&str; 4] =
    ["confirm-echo", "reference-string", "reference-string-echo", "check-reference-string"];

/// A ceremony in figures, as `docs/json.md` lists them.
#[must_use]
pub fn describe(simulation: &Simulation, params: &ParameterSet) -> Value {
    let committee = simulation.parameters.committee;
    let n = committee.n() as u64;
    let layout = Layout::of(params);
    let body_bytes = layout.body_bytes();
    let most_sent = simulation.bytes_sent.iter().copied().max().unwrap_or(0);
    let certificate = simulation.certificate();
    let key_set = simulation.endings.first().and_then(|e| e.as_ref().ok()).map(|o| o.key_set);
    // The string is made by one after another, and hardly depends on the key: its figures are its own.
    let string = simulation.time_of(&STRING_STAGES);
    let stages: serde_json::Map<String, Value> =
        simulation.stages.iter().map(|(name, time)| (name.clone(), json!(time))).collect();
    json!({
        "outcome": "completed",
        "members": n,
        "max_faulty": committee.max_faulty().get(),
        "parameters": params.name(),
        "insecure": params.is_insecure(),
        "security_bits": params.security_bits(),
        "log2_p_fail": params.log2_p_fail(),
        "ceremony_id": simulation.parameters.id(),
        "keyset_digest": key_set,
        "transcript_root": certificate.map(|c| c.root),
        "rounds": stages,
        "wall_seconds": simulation.wall_seconds,
        "cpu_seconds_per_member": (simulation.cpu_seconds - string.cpu_seconds) / n as f64,
        "reference_string_cpu_seconds": string.cpu_seconds / n as f64,
        "reference_string_wall_seconds": string.wall_seconds,
        "bytes_sent_per_member": most_sent,
        "key_body_bytes": body_bytes,
        "ratio_traffic": if n > 1 { Some(most_sent as f64 / (body_bytes * (n - 1)) as f64) } else { None },
        "peak_rss_bytes": simulation.peak_rss_bytes,
        "peak_rss_limit_bytes": n * (body_bytes + (256 << 20)),
        "refused": simulation.refused.iter().map(|(j, why)| json!({ "by": j, "why": why })).collect::<Vec<_>>(),
    })
}

/// What an attempt that made no key adds.
pub fn abort(report: &mut Value, simulation: &Simulation) {
    report["outcome"] = json!("aborted");
    report["verified"] = json!(false);
    report["aborts"] = aborts(simulation);
    report["detected"] = detected(&report["aborts"]);
    let culprits: BTreeSet<_> = simulation.proofs.iter().map(|proof| proof.culprit).collect();
    report["culprits"] = json!(culprits);
    report["proofs"] = proofs(simulation);
}

fn proofs(simulation: &Simulation) -> Value {
    let proofs = simulation.proofs.iter();
    proofs
        .map(|proof| {
            json!({
                "culprit": proof.culprit,
                "misdeed": proof.misdeed,
                "round": proof.round,
                "messages": proof.messages.len(),
            })
        })
        .collect()
}

fn aborts(simulation: &Simulation) -> Value {
    let participants = simulation.parameters.committee.participants();
    participants
        .zip(&simulation.endings)
        .filter_map(|(j, ending)| {
            let report = ending.as_ref().err()?;
            Some(json!({
                "participant": j,
                "detected_in": report.stage.name(),
                "reason": report.reason,
                "message": report.reason.to_string(),
                "accused": report.reason.accused(),
                "evidence": report.evidence.len(),
            }))
        })
        .collect()
}

/// The first report by a member that saw the cause itself.
fn detected(aborts: &Value) -> Value {
    aborts
        .as_array()
        .into_iter()
        .flatten()
        .find(|abort| abort["reason"].get("peer_aborted").is_none())
        .map_or(Value::Null, |abort| {
            json!({
                "by": abort["participant"],
                "stage": abort["detected_in"],
                "message": abort["message"],
                "accused": abort["accused"],
            })
        })
}

/// Makes the same key material with stock tfhe, alone, and compares.
pub fn compare(report: &mut Value, params: &ParameterSet) {
    let made = stock(params, report["cpu_seconds_per_member"].as_f64());
    if let (Some(report), Value::Object(more)) = (report.as_object_mut(), json!(made)) {
        report.extend(more);
    }
}

fn stock(params: &ParameterSet, cpu_per_member: Option<f64>) -> Option<Comparison> {
    let watch = Stopwatch::start();
    let bound = NormalizedHammingWeightBound::new(1.0)?;
    let made =
        CompressedXofKeySet::generate(params.config(), vec![1; 32], 128, bound, Tag::default());
    let (stock_cpu_seconds, stock_wall_seconds) = (watch.cpu(), watch.wall());
    drop(made.ok()?);
    let ratio_cpu_per_member = cpu_per_member? / stock_cpu_seconds;
    Some(Comparison { stock_cpu_seconds, stock_wall_seconds, ratio_cpu_per_member })
}

/// For a person.
///
/// # Errors
/// What the writer says.
pub fn write(out: &mut dyn Write, report: &Value) -> io::Result<()> {
    let text = |key: &str| match &report[key] {
        Value::String(text) => text.clone(),
        Value::Null => "-".to_owned(),
        other => other.to_string(),
    };
    writeln!(out, "outcome          {}", text("outcome"))?;
    writeln!(out, "committee        n={} t={}", text("members"), text("max_faulty"))?;
    writeln!(
        out,
        "parameters       {} ({} bits, p_fail 2^{})",
        text("parameters"),
        text("security_bits"),
        text("log2_p_fail")
    )?;
    writeln!(out, "key set          {}", text("keyset_digest"))?;
    writeln!(out, "CPU per member   {} s", text("cpu_seconds_per_member"))?;
    writeln!(out, "  of stock tfhe  {}", text("ratio_cpu_per_member"))?;
    writeln!(
        out,
        "reference string {} s, CPU {} s",
        text("reference_string_wall_seconds"),
        text("reference_string_cpu_seconds")
    )?;
    writeln!(out, "sent per member  {} bytes", text("bytes_sent_per_member"))?;
    writeln!(out, "peak memory      {} bytes", text("peak_rss_bytes"))?;
    if let Some(stages) = report["rounds"].as_object() {
        for (name, time) in stages {
            writeln!(out, "  {name:20} {:8.3} s", time["wall_seconds"].as_f64().unwrap_or(0.0))?;
        }
    }
    for abort in report["aborts"].as_array().into_iter().flatten() {
        writeln!(out, "participant {}: {}", abort["participant"], abort["message"])?;
    }
    writeln!(out, "verified         {}", text("verified"))?;
    if !report["error"].is_null() {
        writeln!(out, "error            {}", text("error"))?;
    }
    if report["culprits"].as_array().is_some_and(|culprits| !culprits.is_empty()) {
        writeln!(out, "culprits         {}", report["culprits"])?;
    }
    Ok(())
}
