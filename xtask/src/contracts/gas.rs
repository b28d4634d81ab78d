//! The page that lists gas against the figures that the contracts were designed for.

use std::fmt::Write as _;

use serde_json::Value;

use super::{NAME, folder, read};
use crate::failed::Failed;

/// Snapshot file, entry, and the most that it may cost.
const LIMITS: [(&str, &str, u64); 10] = [
    ("FrostVerifier", "verify", 4_200),
    ("AssignmentAnchor", "anchor, later", 55_000),
    ("NodeRegistry", "register", 90_000),
    ("CommitteeElection", "seal, 7 and 2 of 32", 190_000),
    ("CommitteeElection", "seal, 13 and 4 of 128", 600_000),
    ("KeyCeremony", "publish, 4 members", 260_000),
    ("KeyCeremony", "activate", 90_000),
    ("AssignmentAnchor", "confirmation", 70_000),
    ("FeePool", "claim, first", 90_000),
    ("FeePool", "claim, later", 90_000),
];

/// Measured without a limit, for those who pay it.
const OTHERS: [(&str, &str); 16] = [
    ("NodeRegistry", "register, admitted member"),
    ("AssignmentAnchor", "anchor, first"),
    ("AssignmentAnchor", "anchor, second to 64th"),
    ("CommitteeElection", "request, 7 and 2 of 32"),
    ("CommitteeElection", "request, 13 and 4 of 128"),
    ("JobBoard", "submit, first"),
    ("JobBoard", "submit, later"),
    ("JobBoard", "submit, by a delegate"),
    ("JobBoard", "delegate"),
    ("Disputes", "report of a wrong share"),
    ("FeePool", "anchor, later"),
    ("FeePool", "anchor, later, of an empty pool"),
    ("FeePool", "confirmation"),
    ("FeePool", "seal, 4 and 2 of 6"),
    ("FeePool", "publish, 4 members"),
    ("FeePool", "activate"),
];

const HEAD: &str = "# Gas

Written by `VEIL_BLESS=1 cargo xtask contracts` from `snapshots/`, and compared by `cargo xtask contracts`;
not to be edited. Whole transactions with cold storage and calldata (solc's optimiser, no `via_ir`),
except the verification of a FROST signature, which is the library's call alone. `register` is without a
transfer of stake; the 64 places for the hashes of recent certificates are filled by the first 64 anchors,
and `anchor, later` comes after these; an election's `seal` has the proof of prevrandao and the draw; keys are published for
4 members. What `FeePool` has beside `AssignmentAnchor` and `KeyCeremony` is the same step through the pool, which pays
it back: the difference is what that costs. A claim proves a replica in a state of a thousand leaves; the first one of
an assignment fills a place in storage, and one to an operator that is owed nothing another one, as the first refund of an
account does: 17,100 more.

";

/// The page. Fails if a limit is exceeded.
pub(super) fn page() -> Result<String, Failed> {
    let mut text = String::from(HEAD);
    text.push_str("| what | gas | limit |\n|---|---:|---:|\n");
    let mut exceeded = Vec::new();
    for (file, entry, limit) in LIMITS {
        let gas = figure(file, entry)?;
        _ = writeln!(text, "| `{file}`: {entry} | {} | {} |", grouped(gas), grouped(limit));
        if gas > limit {
            exceeded.push(format!("{file}, {entry}: {gas} instead of at most {limit}"));
        }
    }
    for (file, entry) in OTHERS {
        _ = writeln!(text, "| `{file}`: {entry} | {} | |", grouped(figure(file, entry)?));
    }
    if exceeded.is_empty() {
        return Ok(text);
    }
    Err(Failed::new(NAME, format!("gas limits are exceeded: {}", exceeded.join("; "))))
}

fn figure(file: &str, entry: &str) -> Result<u64, Failed> {
    let path = folder().join(format!("snapshots/{file}.json"));
    let snapshot = read(path)?;
    let gas = snapshot.get(entry).and_then(Value::as_str).and_then(|gas| gas.parse().ok());
    gas.ok_or_else(|| Failed::new(NAME, format!("snapshots/{file}.json has no gas of '{entry}'")))
}

/// With commas between thousands.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let first = digits.len() % 3;
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i != 0 && i % 3 == first {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::grouped;

    #[test]
    fn thousands_are_grouped() {
        let cases = [(0, "0"), (999, "999"), (4_200, "4,200"), (49_986, "49,986")];
        for (number, text) in cases {
            assert_eq!(grouped(number), text);
        }
        assert_eq!(grouped(1_234_567), "1,234,567");
    }
}
