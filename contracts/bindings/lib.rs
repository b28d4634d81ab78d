//! Rust bindings of Veil's contracts, made from the checked-in `contracts/abi`, so that building
//! needs no Solidity compiler. `cargo xtask test` compiles the contracts and compares.
//!
//! # Role
//! What the chain's contracts offer, as types and calls; `veil-node-chain` calls them.
//!
//! Each contract has its own module, because the ones that share types would otherwise define them
//! twice. The documentation of what is in them is that of `contracts/src/interfaces`.
//!
//! # Flow, state and restart
//! None here: they are the contracts' own.

macro_rules! contracts {
    ($($(#[$doc:meta])* $module:ident: $contract:ident = $path:literal;)*) => {$(
        $(#[$doc])*
        #[allow(missing_docs, reason = "generated; documented in contracts/src/interfaces")]
        #[allow(clippy::all, clippy::unwrap_used, unreachable_pub, reason = "generated")]
        pub mod $module {
            // Cargo does not see what the macro reads; it sees this.
            const _: &str = include_str!(concat!("../", $path));
            alloy::sol!(
                #[sol(rpc, all_derives)]
                $contract,
                $path
            );
        }
    )*};
}

contracts! {
    /// Governance: the directory's owner.
    timelock: Timelock = "abi/Timelock.json";
    /// The contracts in force.
    directory: Directory = "abi/Directory.json";
    /// Clusters, their nodes, and the nodes' stake.
    node_registry: NodeRegistry = "abi/NodeRegistry.json";
    /// Policies, rights and images of clusters.
    policy_registry: PolicyRegistry = "abi/PolicyRegistry.json";
    /// Elections of committees.
    committee_election: CommitteeElection = "abi/CommitteeElection.json";
    /// The commit point of key ceremonies.
    key_ceremony: KeyCeremony = "abi/KeyCeremony.json";
    /// Ordered job submissions.
    job_board: JobBoard = "abi/JobBoard.json";
    /// The chain of assignment certificates.
    assignment_anchor: AssignmentAnchor = "abi/AssignmentAnchor.json";
    /// Disputes over what committees and their members signed.
    disputes: Disputes = "abi/Disputes.json";
    /// What steps on the chain cost and work earns.
    fee_pool: FeePool = "abi/FeePool.json";
}

pub mod typed;
