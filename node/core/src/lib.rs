//! What every node of a cluster does, whatever its role.
//!
//! # Roles
//! Committee members and workers start here and stop here; what only one of them does is in
//! `veil-node-member` and `veil-node-worker`.
//!
//! # Flow
//! 1. [`lifecycle`]: identity, data directory, admin socket.
//! 2. [`cluster`]: follows the chain, joins the network, answers peers that were away.
//! 3. [`epoch`]: what follows from the active key; [`follow`]: certificates; [`ingress`]: telemetry
//!    and jobs from gossip; [`evaluation`]: the circuit on the locked inputs;
//!    [`veil_node_proven`]: what is encrypted in jobs and in the policy; [`audit`]: what others say that it gives; [`evidence`](veil_node_storage::evidence): what shows that somebody broke the protocol.
//! 4. [`progress`](veil_node_api::progress) and [`report`]: how far the node is; [`api`]: what it answers; [`answering`]: where, and to whom;
//!    [`sync`]: what it answers to peers.
//!
//! # State and restart
//! Everything that outlives the process is in the stores of `veil-node-storage` below the data
//! directory, and in the files that [`epoch`] fetches once.

mod accounts;
pub mod answering;
pub mod api;
pub mod audit;
mod challenges;
pub mod cluster;
pub mod epoch;
pub mod evaluation;
pub mod follow;
pub mod ingress;
pub mod lifecycle;
mod pending;
mod relay;
pub mod report;
pub mod sealing;
mod slots;
pub mod sync;
