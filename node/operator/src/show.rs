//! What nodes and contracts say, for a person.

use std::io::{self, Write};

use serde_json::Value;
use veil_node_api::status::{ChainStatus, EngineStatus, EvidenceStatus, Status};
use veil_node_terminal::table::{Column, Table};
use veil_protocol_spec::scheduling::utc;

/// A time in words, of nanoseconds of Unix time: such as `2026-11-28T04:30:00.000000001Z`.
#[must_use]
pub fn nanoseconds(time: u64) -> String {
    let seconds = utc(time / 1_000_000_000);
    format!("{}.{:09}Z", seconds.trim_end_matches('Z'), time % 1_000_000_000)
}

/// What a running member or worker says of itself; within `width` if there is one.
///
/// # Errors
/// Those of `out`.
pub fn write_status(out: &mut dyn Write, status: &Status, width: Option<usize>) -> io::Result<()> {
    writeln!(out, "{:?} {}, {}", status.role, status.peer_id, status.stage)?;
    for waited in &status.waiting_for {
        writeln!(out, "  waiting for {waited}")?;
    }
    if let Some(key_set) = &status.key_set {
        writeln!(out, "key set {key_set}")?;
    }
    if let Some(EngineStatus { name, version, os, architecture, filtered }) = &status.engine {
        let open = ", UNFILTERED: containers reach this host and its network";
        let open = if *filtered { "" } else { open };
        writeln!(out, "engine {name} {version} on {os}/{architecture}{open}")?;
    }
    if let Some(seat) = status.participant {
        writeln!(out, "seat {seat}")?;
    }
    let peers = &status.peers;
    writeln!(out, "{} of {} peers answer, {} are down", peers.alive, peers.registered, peers.down)?;
    for (protocol, reasons) in &status.refusals {
        let reasons: Vec<_> =
            reasons.iter().map(|(name, count)| format!("{name} {count}")).collect();
        writeln!(out, "refused from peers, {protocol}: {}", reasons.join(", "))?;
    }
    write!(out, "last certified slot {}", status.last_slot)?;
    match status.chain.as_ref().and_then(|chain| chain.anchored_slot) {
        Some(slot) => writeln!(out, ", on chain up to slot {slot}")?,
        None => writeln!(out)?,
    }
    if let Some(ChainStatus { block, block_time, endpoints, .. }) = &status.chain {
        writeln!(out, "chain at block {block} of {}", utc(*block_time))?;
        for endpoint in endpoints {
            if let Some(fault) = &endpoint.fault {
                writeln!(out, "  {}: {fault}", endpoint.url)?;
            }
        }
    }
    if status.replicas.is_empty() {
        return Ok(());
    }
    let mut replicas = Table::new([
        Column::Id("job"),
        Column::Number("replica"),
        Column::Id("worker"),
        Column::Prose("state"),
    ]);
    for replica in &status.replicas {
        let state = match (&replica.pending_because, &replica.done) {
            (None, _) if replica.worker.is_some() => "assigned".to_owned(),
            (Some(because), _) if replica.worker.is_some() => format!("assigned, {because}"),
            (Some(because), _) => format!("pending: {because}"),
            (None, Some(done)) if done.succeeded => "done".to_owned(),
            (None, Some(done)) => match done.exit_code {
                Some(code) => format!("failed with exit code {code}"),
                None => "ended, nobody knows how".to_owned(),
            },
            (None, None) => "on no worker".to_owned(),
        };
        let observed = replica.observed.as_ref();
        let observed = observed.map_or_else(String::new, |seen| format!(", {} here", seen.state));
        replicas.row([
            replica.job.to_string(),
            replica.replica.to_string(),
            replica.worker.map_or_else(|| "-".to_owned(), |worker| worker.to_string()),
            format!("{state}{observed}"),
        ]);
    }
    replicas.write(out, width)
}

/// What a node keeps of faults; within `width` if there is one.
///
/// # Errors
/// Those of `out`.
pub fn write_evidence(
    out: &mut dyn Write,
    kept: &[EvidenceStatus],
    width: Option<usize>,
) -> io::Result<()> {
    if kept.is_empty() {
        return writeln!(out, "no evidence of a fault is kept");
    }
    let mut table = Table::new([
        Column::Id("evidence"),
        Column::Words("kind"),
        Column::Id("by"),
        Column::Words("slot"),
    ]);
    for one in kept {
        let culprit = match (one.participant, &one.peer) {
            (Some(member), _) => format!("participant {member}"),
            (None, Some(peer)) => peer.to_string(),
            (None, None) => "the committee's group".to_owned(),
        };
        let slot = one.slot.map_or_else(|| "unknown".to_owned(), |slot| slot.to_string());
        table.row([one.digest.to_string(), one.kind.name().to_owned(), culprit, slot]);
    }
    table.write(out, width)?;
    let commands = kept.iter().filter_map(|one| one.command.as_ref());
    commands.into_iter().try_for_each(|command| writeln!(out, "to the chain: {command}"))
}

/// The report for a person: a line per value, lists and objects indented. Nothing in it is shortened: it is where
/// addresses and peers are copied from.
///
/// # Errors
/// Those of `out`.
pub fn write_report(out: &mut dyn Write, report: &Value, indent: usize) -> io::Result<()> {
    for (key, value) in report.as_object().into_iter().flatten() {
        let name = format!("{:indent$}{}", "", key.replace('_', " "));
        match value {
            Value::Null => writeln!(out, "{name:24} -")?,
            Value::String(text) => writeln!(out, "{name:24} {text}")?,
            Value::Object(_) => {
                writeln!(out, "{name}")?;
                write_report(out, value, indent + 2)?;
            }
            Value::Array(items) if items.iter().any(Value::is_object) => {
                for (item, i) in items.iter().zip(1..) {
                    writeln!(out, "{name} {i}")?;
                    write_report(out, item, indent + 2)?;
                }
            }
            Value::Array(items) => {
                let items: Vec<_> = items.iter().filter_map(Value::as_str).collect();
                writeln!(out, "{name:24} {}", items.join(", "))?;
            }
            other => writeln!(out, "{name:24} {other}")?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_report_has_a_line_for_each_value() {
        let node = json!({ "peer": "0xab", "roles": ["worker", "member"], "seat": null });
        let report = json!({ "block": 7, "cluster": { "id": "0xcd", "nodes": [node] } });
        let mut out = Vec::new();
        write_report(&mut out, &report, 0).unwrap();
        let expected = "\
block                    7
cluster
  id                     0xcd
  nodes 1
    peer                 0xab
    roles                worker, member
    seat                 -
";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn evidence_names_who_is_at_fault_and_what_to_do() {
        let mut out = Vec::new();
        write_evidence(&mut out, &[], None).unwrap();
        assert_eq!(out, b"no evidence of a fault is kept\n");
        let one: EvidenceStatus = serde_json::from_value(json!({
            "digest": "ab".repeat(32), "kind": "two_partials", "participant": 3, "peer": null,
            "epoch": 0, "slot": 7, "bytes": 100, "command": "veil evidence report abab",
        }))
        .unwrap();
        out.clear();
        write_evidence(&mut out, &[one], Some(60)).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(text.contains("two_partials  participant 3"), "{text}");
        assert!(text.ends_with("to the chain: veil evidence report abab\n"), "{text}");
        assert!(text.lines().all(|line| line.len() <= 60), "{text}");
    }
}
