//! Dependencies point one way, and only `node` does I/O.

use crate::step::{Failed, Step, root};

const NAME: &str = "layering";

/// Packages (and everything named after them, as in `libp2p-core`) that no protocol crate may have
/// among its normal dependencies, direct or not.
const IO: [&str; 4] = ["tokio", "libp2p", "alloy", "bollard"];

/// Folder of each protocol crate, lowest first, and the layers above it.
const LAYERS: [(&str, &[&str]); 4] = [
    (
        "protocol-spec",
        &["veil-committee", "veil-keygen-ceremony", "veil-scheduler", "veil-node", "veil-tests"],
    ),
    ("committee", &["veil-keygen-ceremony", "veil-scheduler", "veil-node", "veil-tests"]),
    ("keygen-ceremony", &["veil-scheduler", "veil-node", "veil-tests"]),
    ("scheduler", &["veil-committee", "veil-keygen-ceremony", "veil-node", "veil-tests"]),
];

pub(crate) fn check() -> Result<(), Failed> {
    for (folder, above) in LAYERS {
        if !root().join(folder).join("Cargo.toml").exists() {
            continue; // not there yet
        }
        let package = format!("veil-{folder}");
        let args = ["tree", "-p", &package, "-e", "normal", "--prefix", "none"];
        let tree = Step::cargo(NAME, &args).output()?;
        if let Some(found) = forbidden(&tree, above) {
            return Err(Failed::new(NAME, format!("{package} depends on {found}")));
        }
        println!("== {NAME}: {package} has no I/O and no upper layer beneath it");
    }
    Ok(())
}

/// The first package of `tree` (lines of `name version ...`) that is I/O or in a layer above.
fn forbidden<'a>(tree: &'a str, above: &[&str]) -> Option<&'a str> {
    tree.lines().filter_map(|line| line.split_whitespace().next()).find(|name| {
        let is_io = |io: &str| {
            name.strip_prefix(io).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
        };
        above.contains(name) || IO.into_iter().any(is_io)
    })
}

#[cfg(test)]
mod tests {
    use super::forbidden;

    #[test]
    fn io_and_upper_layers_are_found() {
        let above = ["veil-node"];
        let tree = "veil-committee v0.1.0 (/x)\nserde v1.0.0\ntokiox v1.0.0\n";
        assert_eq!(forbidden(tree, &above), None);
        for name in
            ["tokio", "tokio-util", "libp2p-core", "alloy-primitives", "bollard", "veil-node"]
        {
            assert_eq!(forbidden(&format!("{tree}{name} v1.0.0 (*)\n"), &above), Some(name));
        }
    }
}
