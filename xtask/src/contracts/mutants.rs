//! Small faults of Solidity sources: what `cargo xtask mutate` makes one at a time.
//!
//! Operators change what decides: comparisons, refusals, guards of functions, arithmetic, constants, what is
//! forgotten or counted. They go by the text that `forge fmt` gives, a statement a line or some lines; what no
//! longer compiles is left out when it is run.

use serde::Serialize;

/// One fault.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Mutant {
    /// From `contracts/`.
    pub(super) file: String,
    /// From 1.
    pub(super) line: usize,
    /// What kind of fault it is.
    pub(super) operator: &'static str,
    /// The line as it is, without what is around it.
    pub(super) before: String,
    /// The same with the fault; empty if it is gone.
    pub(super) after: String,
}

/// What is replaced, wherever it stands in code. Spaces are part of it, so that no `>=` is taken for `>`.
const REPLACED: [(&str, &str, &str); 16] = [
    ("comparison", " < ", " <= "),
    ("comparison", " <= ", " < "),
    ("comparison", " > ", " >= "),
    ("comparison", " >= ", " > "),
    ("comparison", " == ", " != "),
    ("comparison", " != ", " == "),
    ("condition", " && ", " || "),
    ("condition", " || ", " && "),
    ("arithmetic", " + ", " - "),
    ("arithmetic", " - ", " + "),
    ("arithmetic", " * ", " / "),
    ("arithmetic", " += ", " -= "),
    ("arithmetic", " -= ", " += "),
    ("negation", "(!", "("),
    ("answer", "return true;", "return false;"),
    ("answer", "return false;", "return true;"),
];

/// Modifiers that guard a function.
const GUARDS: [&str; 7] = [
    "whenNotPaused",
    "onlyGovernance",
    "onlyOwner",
    "onlyGuardian",
    "onlyContract(\"Disputes\")",
    "onlyAdmin(cluster)",
    "onlyWith(cluster, RIGHT_IMAGES)",
];

/// All faults of one file, in the order of its lines.
pub(super) fn of(file: &str, source: &str) -> Vec<Mutant> {
    let mut found = Vec::new();
    for (number, line) in source.lines().enumerate() {
        let text = line.trim();
        if !is_code(text) {
            continue;
        }
        let mut add = |operator, after: String| {
            let mutant = Mutant {
                file: file.to_owned(),
                line: number + 1,
                operator,
                before: text.to_owned(),
                after,
            };
            found.push(mutant);
        };
        for (operator, from, to) in REPLACED {
            for (at, _) in text.match_indices(from) {
                let (front, back) = (&text[..at], &text[at + from.len()..]);
                add(operator, format!("{front}{to}{back}"));
            }
        }
        for guard in GUARDS {
            // The body may begin behind it.
            if text.split(" {").next() == Some(guard) || text.contains(&format!(" {guard} ")) {
                add("guard", text.replacen(guard, "", 1).trim().to_owned());
            }
        }
        if let Some(at) = text.find("revert ").filter(|_| text.ends_with(';')) {
            add("refusal", text[..at].to_owned() + "{}");
        }
        if text.starts_with("delete ") && text.ends_with(';') {
            add("forgotten", String::new());
        }
        if text.contains(" constant ")
            && let Some(after) = doubled(text)
        {
            add("constant", after);
        }
    }
    found
}

/// The source with one fault.
pub(super) fn apply(source: &str, mutant: &Mutant) -> String {
    let change = |(number, line): (usize, &str)| {
        if number + 1 == mutant.line {
            line.replacen(&mutant.before, &mutant.after, 1)
        } else {
            line.to_owned()
        }
    };
    source.lines().enumerate().map(change).map(|line| line + "\n").collect()
}

fn is_code(text: &str) -> bool {
    let others = ["//", "/*", "*", "import ", "pragma ", "event ", "error "];
    !text.is_empty() && !others.iter().any(|start| text.starts_with(start))
}

/// A declaration of a constant with twice the number. What is no plain number stays.
fn doubled(text: &str) -> Option<String> {
    let (front, value) = text.split_once(" = ")?;
    let digits = value.find(|c: char| !c.is_ascii_digit() && c != '_').filter(|end| *end > 0)?;
    let (number, unit) = value.split_at(digits);
    let number: u64 = number.replace('_', "").parse().ok()?;
    // Of `0x...` only the zero is a number.
    (number > 0).then(|| format!("{front} = {}{unit}", number * 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: &str = "\
contract A {
    // a < b is a comment
    uint64 public constant PAUSE = 7 days;
    function f(uint256 a) external onlyGovernance {
        if (a >= 3 && !b) revert TooMuch(a);
        if (a == 4) {
            revert Four(
                a
            );
        }
        total += a;
        delete total;
    }
}
";

    fn faults(line: usize) -> Vec<(&'static str, String)> {
        let found = of("A.sol", SOURCE).into_iter().filter(|mutant| mutant.line == line);
        found.map(|mutant| (mutant.operator, mutant.after)).collect()
    }

    #[test]
    fn each_operator_makes_its_fault() {
        assert_eq!(faults(2), [], "a comment");
        assert_eq!(faults(3), [("constant", "uint64 public constant PAUSE = 14 days;".to_owned())]);
        assert_eq!(faults(4), [("guard", "function f(uint256 a) external  {".to_owned())]);
        let refusals = faults(5);
        let expected = [
            ("comparison", "if (a > 3 && !b) revert TooMuch(a);"),
            ("condition", "if (a >= 3 || !b) revert TooMuch(a);"),
            ("refusal", "if (a >= 3 && !b) {}"),
        ];
        assert_eq!(refusals, expected.map(|(operator, after)| (operator, after.to_owned())));
        assert_eq!(faults(11), [("arithmetic", "total -= a;".to_owned())]);
        assert_eq!(faults(12), [("forgotten", String::new())]);
    }

    #[test]
    fn one_line_of_the_source_changes() {
        for mutant in of("A.sol", SOURCE) {
            let changed = apply(SOURCE, &mutant);
            let pairs = SOURCE.lines().zip(changed.lines()).enumerate();
            let others = pairs.filter(|(_, (before, after))| before != after);
            let lines: Vec<_> = others.map(|(number, _)| number + 1).collect();
            assert_eq!(lines, [mutant.line], "{mutant:?}");
        }
    }
}
