//! The operator's side of jobs: what submitting one would cost and tell, submitting, stopping, what is seen of
//! its replicas, and whether a placement is what the cluster decided.
//!
//! # Role
//! The command line and the one-machine network call this; nodes do not. The chain orders jobs and counts
//! quotas; a node takes the bodies. What speaks against a job ([`obstacle`]) is found once, by [`plan`], and both
//! `veil job plan` and [`submission::submit`] go by it.
//!
//! # Flow
//! 1. [`plan::look`] asks the chain and a node, and changes nothing.
//! 2. [`submission::submit`] looks, gives the body to a node, and then submits the digest.
//! 3. [`replicas::rows`] joins what certificates say and what workers see; [`table`] writes it for people.
//! 4. [`history`] says which versions of a job there were, and submits one of them again, or stops them.
//! 5. [`show`] writes for people what nodes and contracts say.
//! 6. [`reach`] leads to where replicas run.
//! 7. [`chain`] says what the contracts have of a cluster and its elections.
//! 8. [`new_policy`] sets a policy whose weights are encrypted.
//! 9. [`verify::Verifier`] checks a placement for somebody who trusts nothing but the chain.
//!
//! # State and restart
//! None. A submission that is cut off leaves either nothing on chain, or a digest whose body a node has:
//! [`submission::give_body`] gives it again.
//!
//! # Example
//! ```
//! use veil_node_config::job_file::{JobFile, samples};
//! use veil_node_operator::obstacle::Obstacle;
//! use veil_protocol_spec::scheduling::ClusterPolicy;
//!
//! let job = JobFile::parse(samples::SERVICE).unwrap().check().unwrap();
//! assert_eq!(Obstacle::of_scale(&job, &ClusterPolicy::default()), None);
//! ```

pub mod chain;
pub mod error;
pub mod figures;
pub mod history;
pub mod new_policy;
pub mod obstacle;
pub mod plan;
mod policy;
pub mod reach;
pub mod replicas;
pub mod request;
mod sealing;
pub mod show;
pub mod submission;
pub mod table;
pub mod verify;
