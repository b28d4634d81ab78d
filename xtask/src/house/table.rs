//! The table of the house: one crate, one outside world; every arrow points down.
//!
//! There is no list of exceptions. A new dependency is a line here, with the reason in the commit.

/// The role of a crate, which decides what must not be in its dependency tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The protocol and its machines: no I/O.
    Protocol,
    /// I/O with one outside world. Builds without tfhe.
    Edge,
    /// Joins edges and protocol: what runs on a machine.
    Product,
    /// For development; no part of the product.
    Tool,
}

/// One crate.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    /// Crates of the workspace that it may depend on.
    pub(super) knows: &'static [&'static str],
    /// Its outside world: packages that only crates of the same world may depend on. A name stands for
    /// everything that starts with it, as in `libp2p-core`.
    pub(super) world: &'static [&'static str],
    /// Crates of the workspace that its tests may know beside whatever lies beneath.
    pub(super) tests: &'static [&'static str],
}

impl Row {
    const fn with_tests_of(mut self, tests: &'static [&'static str]) -> Self {
        self.tests = tests;
        self
    }
}

const NONE: &[&str] = &[];
const CHAIN: &[&str] = &["alloy", "reqwest", "rustls"];
const REGISTRY: &[&str] = &["reqwest", "rustls"];
const NETWORK: &[&str] = &["libp2p", "foca", "yamux"];
const CONTAINERS: &[&str] = &["bollard"];
const STORAGE: &[&str] = &["redb", "age"];
const HTTP: &[&str] = &["axum", "rcgen", "tokio-rustls"];
const AGREEMENT: &[&str] = &["arc-malachitebft"];
const PROOFS: &[&str] = &["ark", "tfhe-zk-pok"];
const THRESHOLD: &[&str] = &["frost"];
const COMMAND_LINE: &[&str] = &["clap", "clap_complete", "clap_mangen"];
const YAML: &[&str] = &["saphyr", "serde_yaml", "serde_norway"];
const TERMINAL: &[&str] = &["console", "indicatif"];

/// Packages that do I/O: none in the tree of a protocol crate.
pub(super) const IO: &[&str] =
    &["tokio", "libp2p", "alloy", "bollard", "axum", "hyper", "reqwest", "redb"];
/// The runtime in [`IO`]: agreement has it in its tree, because Malachite's core does
/// (`docs/adr/0006-agreement.md`). No protocol crate depends on it itself.
pub(super) const RUNTIME: &str = "tokio";
/// Homomorphic encryption, which takes minutes to compile.
pub(super) const FHE: &str = "tfhe";
/// Protocol crates that compute under encryption; all others build without [`FHE`].
pub(super) const UNDER_ENCRYPTION: &[&str] =
    &["veil-keygen-ceremony", "veil-reference-string", "veil-scheduler"];
/// The protocol crate that has Malachite's core beneath it.
pub(super) const AGREEMENT_CRATE: &str = "veil-committee-agreement";
/// What Malachite's core brings into that crate's tree: the runtime, which it does not start, and the
/// type of peer ids, which does no I/O.
pub(super) const BENEATH_AGREEMENT: &[&str] = &[RUNTIME, "libp2p-identity"];

/// Lines that the sources of a crate may have, without tests.
pub(super) const MOST_LINES: usize = 7_000;
/// The same for crates that everything could be put into.
pub(super) const MOST_LINES_OF: &[(&str, usize)] =
    &[("veil-node", 6_000), ("veil-node-core", 4_500)];
/// Crates that are test code as a whole, of any length.
pub(super) const TEST_CODE: &[&str] = &["veil-benches", "veil-tests"];

const fn row(
    kind: Kind,
    name: &'static str,
    world: &'static [&'static str],
    knows: &'static [&'static str],
) -> Row {
    Row { name, kind, knows, world, tests: &[] }
}

use Kind::{Edge, Product, Protocol, Tool};

/// The whole house, lowest first.
pub(super) const HOUSE: &[Row] = &[
    // One set of dependency features for every package; it has no code.
    row(Tool, "veil-workspace-hack", NONE, &[]),
    row(Protocol, "veil-protocol-spec-base", NONE, &["veil-workspace-hack"]),
    row(Protocol, "veil-protocol-spec-ceremony", NONE, &["veil-protocol-spec-base"]),
    row(Protocol, "veil-protocol-spec-job", NONE, &["veil-protocol-spec-base"]),
    row(
        Protocol,
        "veil-protocol-spec-reach",
        NONE,
        &["veil-protocol-spec-base", "veil-protocol-spec-job"],
    ),
    // Passes them on under their names of old: no other protocol crate needs a line for them.
    row(
        Protocol,
        "veil-protocol-spec",
        NONE,
        &[
            "veil-protocol-spec-base",
            "veil-protocol-spec-ceremony",
            "veil-protocol-spec-job",
            "veil-protocol-spec-reach",
            "veil-workspace-hack",
        ],
    ),
    row(Protocol, "veil-committee-machine", NONE, &["veil-protocol-spec"]),
    // Simulates its outside world: what it draws is a function of a seed.
    row(Protocol, "veil-committee-world", NONE, &["veil-committee-machine", "veil-protocol-spec"]),
    // Here and in the ceremony: tests run the machines in the one simulated world.
    row(Protocol, "veil-committee", THRESHOLD, &["veil-committee-machine", "veil-protocol-spec"])
        .with_tests_of(&["veil-committee-world"]),
    row(
        Protocol,
        "veil-committee-agreement",
        AGREEMENT,
        &["veil-committee-machine", "veil-protocol-spec"],
    ),
    row(
        Protocol,
        "veil-committee-slot",
        NONE,
        &["veil-committee-machine", "veil-protocol-spec", "veil-scheduler-plan"],
    ),
    // Its channels are those of the ceremony, too.
    row(Protocol, "veil-committee-sealed", NONE, &["veil-protocol-spec"]),
    // Made in the ceremony, used by the circuits: it is beneath both.
    row(Protocol, "veil-reference-string", PROOFS, &["veil-protocol-spec"]),
    row(
        Protocol,
        "veil-keygen-ceremony",
        NONE,
        &[
            "veil-committee",
            "veil-committee-machine",
            "veil-committee-sealed",
            "veil-protocol-spec",
            "veil-reference-string",
        ],
    )
    .with_tests_of(&["veil-committee-world"]),
    row(Protocol, "veil-scheduler-plan", NONE, &["veil-protocol-spec"]),
    // Its tests use keys that a ceremony made.
    row(
        Protocol,
        "veil-scheduler",
        NONE,
        &["veil-protocol-spec", "veil-reference-string", "veil-scheduler-plan"],
    )
    .with_tests_of(&["veil-keygen-ceremony"]),
    row(Edge, "veil-contracts", CHAIN, &[]),
    row(Edge, "veil-node-storage", STORAGE, &["veil-committee", "veil-protocol-spec"]),
    row(
        Edge,
        "veil-node-driver",
        NONE,
        &["veil-committee", "veil-committee-machine", "veil-node-storage", "veil-protocol-spec"],
    ),
    // The process's own clock and accounts: anything that runs may read them.
    row(Edge, "veil-node-process", NONE, &["veil-protocol-spec"]),
    row(Edge, "veil-node-api", HTTP, &["veil-node-process", "veil-protocol-spec"]),
    row(Edge, "veil-node-p2p", NETWORK, &["veil-node-process", "veil-protocol-spec"]),
    // Others' files, which are read without the chain that their keys are for.
    row(Edge, "veil-node-keystore", NONE, NONE),
    // What the contracts refuse, in words.
    row(Edge, "veil-node-chain-refusal", CHAIN, &["veil-contracts", "veil-protocol-spec"]),
    // Bytes that somebody else has read against those that were built.
    row(Edge, "veil-node-chain-deployed", CHAIN, &["veil-contracts", "veil-protocol-spec"]),
    row(
        Edge,
        "veil-node-chain",
        CHAIN,
        &[
            "veil-committee",
            "veil-contracts",
            "veil-node-chain-deployed",
            "veil-node-chain-refusal",
            "veil-node-keystore",
            "veil-protocol-spec",
        ],
    )
    .with_tests_of(&["veil-node-chain-fees"]),
    // What is paid on the chain and for it.
    row(
        Edge,
        "veil-node-chain-fees",
        CHAIN,
        &["veil-contracts", "veil-node-chain", "veil-protocol-spec"],
    ),
    // Sockets of this machine, and streams that somebody else opens: it is tested without engine and network.
    row(Edge, "veil-node-links", NONE, &["veil-protocol-spec"]),
    // With the rules of the kernel that its tests put in force, they use what listens behind them.
    row(Edge, "veil-node-containers", CONTAINERS, &["veil-node-process", "veil-protocol-spec"])
        .with_tests_of(&["veil-node-links"]),
    // Asked before an engine pulls, and by who allows an image: by the HTTP client of the chain.
    row(Edge, "veil-node-registry", REGISTRY, &["veil-protocol-spec"]),
    // YAML is read here and nowhere else: what a file may make of it is bounded in one place.
    row(Edge, "veil-node-import-yaml", YAML, NONE),
    // What others' files say of containers, for the command line alone. Its tests read with the job file's own parser
    // what it writes.
    row(Edge, "veil-node-import", NONE, &["veil-node-import-yaml", "veil-protocol-spec"])
        .with_tests_of(&["veil-node-config"]),
    // What a person reads, for whoever has something to show.
    row(Edge, "veil-node-terminal", TERMINAL, NONE),
    row(
        Product,
        "veil-node-config",
        NONE,
        &[
            "veil-committee-slot",
            "veil-node-api",
            "veil-node-chain",
            "veil-node-p2p",
            "veil-node-storage",
            "veil-protocol-spec",
        ],
    ),
    // What others have encrypted is verified beneath whoever fetches it. Its tests make keys as the ceremony's do.
    row(
        Product,
        "veil-node-proven",
        NONE,
        &["veil-node-storage", "veil-protocol-spec", "veil-scheduler"],
    )
    .with_tests_of(&["veil-keygen-ceremony"]),
    // What the contracts say, as values: whoever judges by it fetches nothing.
    row(
        Product,
        "veil-node-view",
        NONE,
        &[
            "veil-committee-slot",
            "veil-node-chain",
            "veil-node-p2p",
            "veil-protocol-spec",
            "veil-scheduler-plan",
        ],
    ),
    row(
        Product,
        "veil-node-core",
        HTTP,
        &[
            "veil-committee",
            "veil-committee-sealed",
            "veil-committee-slot",
            "veil-keygen-ceremony",
            "veil-node-api",
            "veil-node-chain",
            "veil-node-config",
            "veil-node-driver",
            "veil-node-p2p",
            "veil-node-process",
            "veil-node-proven",
            "veil-node-storage",
            "veil-node-view",
            "veil-protocol-spec",
            "veil-scheduler",
            "veil-scheduler-plan",
        ],
    )
    // The manifests of its states are those of the simulated world.
    .with_tests_of(&["veil-tests"]),
    // Sessions of operators with workers, both ends: what a worker knows and does is told to it.
    row(
        Product,
        "veil-node-reach",
        NONE,
        &[
            "veil-node-chain",
            "veil-node-containers",
            "veil-node-p2p",
            "veil-node-process",
            "veil-protocol-spec",
        ],
    )
    // Its figures go the whole way, through a node's socket.
    .with_tests_of(&["veil-node-api"]),
    row(
        Product,
        "veil-node-operator",
        NONE,
        &[
            "veil-committee",
            "veil-committee-sealed",
            "veil-committee-slot",
            "veil-keygen-ceremony",
            "veil-node-api",
            "veil-node-chain",
            "veil-node-config",
            "veil-node-core",
            "veil-node-reach",
            "veil-node-terminal",
            "veil-protocol-spec",
            // Requests are encrypted where they are known.
            "veil-scheduler",
        ],
    ),
    // Commands about authority, and the arguments of all that are about the chain.
    row(
        Product,
        "veil-node-chain-commands",
        COMMAND_LINE,
        &[
            "veil-node-api",
            "veil-node-chain",
            "veil-node-config",
            "veil-node-operator",
            "veil-node-storage",
            "veil-node-terminal",
            "veil-protocol-spec",
        ],
    ),
    row(
        Product,
        "veil-node-ceremony",
        NONE,
        &[
            "veil-committee",
            "veil-committee-machine",
            "veil-committee-world",
            "veil-keygen-ceremony",
            "veil-node-chain",
            "veil-node-driver",
            "veil-node-p2p",
            "veil-node-process",
            "veil-node-storage",
            "veil-protocol-spec",
            "veil-reference-string",
        ],
    )
    // Over real sockets, by the transport that the roles use.
    .with_tests_of(&["veil-node-core"]),
    row(
        Product,
        "veil-node-member",
        NONE,
        &[
            "veil-committee",
            "veil-committee-agreement",
            "veil-committee-machine",
            "veil-committee-sealed",
            "veil-committee-slot",
            "veil-keygen-ceremony",
            "veil-node-api",
            "veil-node-ceremony",
            "veil-node-chain",
            "veil-node-config",
            "veil-node-core",
            "veil-node-driver",
            "veil-node-p2p",
            "veil-node-process",
            "veil-node-storage",
            "veil-protocol-spec",
            "veil-scheduler",
            "veil-scheduler-plan",
        ],
    ),
    row(
        Product,
        "veil-node-worker",
        NONE,
        &[
            "veil-committee",
            "veil-committee-sealed",
            "veil-keygen-ceremony",
            "veil-node-api",
            "veil-node-chain",
            "veil-node-config",
            "veil-node-containers",
            "veil-node-core",
            "veil-node-links",
            "veil-node-p2p",
            "veil-node-process",
            "veil-node-reach",
            "veil-node-registry",
            "veil-node-storage",
            "veil-protocol-spec",
            "veil-scheduler",
            "veil-scheduler-plan",
        ],
    ),
    row(
        Product,
        "veil-node-devnet",
        NONE,
        &[
            "veil-keygen-ceremony",
            "veil-node-api",
            "veil-node-ceremony",
            "veil-node-chain",
            "veil-node-config",
            "veil-node-containers",
            "veil-node-core",
            "veil-node-member",
            "veil-node-operator",
            "veil-node-p2p",
            "veil-node-process",
            "veil-node-storage",
            "veil-node-worker",
            "veil-protocol-spec",
            "veil-scheduler",
        ],
    ),
    row(
        Product,
        "veil-node",
        COMMAND_LINE,
        &[
            "veil-committee",
            "veil-keygen-ceremony",
            "veil-node-api",
            "veil-node-ceremony",
            "veil-node-chain",
            "veil-node-chain-commands",
            "veil-node-chain-fees",
            "veil-node-config",
            "veil-node-containers",
            "veil-node-core",
            "veil-node-devnet",
            "veil-node-driver",
            "veil-node-import",
            "veil-node-member",
            "veil-node-operator",
            "veil-node-p2p",
            "veil-node-process",
            "veil-node-registry",
            "veil-node-storage",
            "veil-node-terminal",
            "veil-node-worker",
            "veil-protocol-spec",
        ],
    ),
    row(
        Tool,
        "veil-tests",
        NONE,
        &[
            "veil-committee",
            "veil-committee-agreement",
            "veil-committee-machine",
            "veil-committee-sealed",
            "veil-committee-slot",
            "veil-committee-world",
            "veil-keygen-ceremony",
            "veil-protocol-spec",
            "veil-reference-string",
            "veil-scheduler",
            "veil-scheduler-plan",
        ],
    ),
    // Its figures are printed by programs with a command line of their own.
    row(
        Tool,
        "veil-benches",
        COMMAND_LINE,
        &[
            "veil-committee",
            "veil-committee-machine",
            "veil-keygen-ceremony",
            "veil-node-process",
            "veil-protocol-spec",
            "veil-scheduler",
            "veil-scheduler-plan",
        ],
    ),
    row(Tool, "xtask", COMMAND_LINE, &[]),
];
