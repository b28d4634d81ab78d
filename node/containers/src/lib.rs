//! Containers: what is assigned is made to run, what is not is stopped.
//!
//! # Role
//! Stands between the worker, which knows what is assigned, and the Docker engine, which knows what
//! runs.
//!
//! # Flow
//! 1. [`Docker::connect`] finds the engine behind a socket.
//! 2. [`Executor::reconcile`] takes the replicas that the last certificate places on this worker and
//!    makes the engine match: stops what is not desired, pulls by digest, creates, starts, and starts
//!    again what has exited, as the job's restart policy says. It is called at the start, after every
//!    certificate, and at an interval; what already matches is left alone, and what has failed waits for
//!    longer and longer.
//! 3. [`Executor::observe`] says what really runs, apart from what is claimed.
//! 4. [`Executor::held`] says what the containers hold of the machine, for telemetry.
//! 5. Out of contact with the committee, [`lapsed`] says what has to stop. What is stopped so is not
//!    removed; it is started again when it is desired again.
//! 6. [`Executor::collect_images`] removes images that nobody needs any more.
//! 7. [`Executor::find`], [`Executor::logs`], [`Executor::exec`] and [`Executor::connect`] reach a replica's container
//!    from outside.
//!
//! # When the engine does not answer
//! Every call has a deadline ([`Deadlines`]). What concerns one container is that replica's error and holds
//! up no other. When the engine does not even list its containers, nothing is changed.
//!
//! # State and restart
//! The labels of the containers are the state: a container belongs to the worker and cluster in its
//! labels, and is never touched by others. What is not desired is removed only if the worker knows that it
//! is over ([`Keep`]). So several workers can share one engine, and a restarted
//! worker knows its containers. A container's name follows from the replica, so that the engine
//! itself refuses a second one. Restarts, and the images that this worker
//! pulled, are in a record that its user keeps ([`Save`]). In memory are only the last desired set, errors
//! with their pauses, what the engine last said, and the results of probes: a restart begins with the first
//! reconciliation.
//!
//! # How containers are confined
//! CPU and memory limits as requested, no swap beyond, at most 512 processes, all capabilities
//! dropped but the job's, no new privileges, log files bounded. The root file system stays
//! writable unless the job says otherwise, because most images need it; it vanishes with the container.
//!
//! Networks are made for each operator of jobs. Rules in the kernel keep containers from this host, from
//! metadata, from private ranges and from each other's operators; without them nothing starts, unless the
//! worker's operator says so ([`Terms`]). Because an engine would start containers before there are rules, and
//! before a lease is known to hold, only the worker starts them again ([`Executor::listen`] and
//! [`Executor::wake`] tell when).
//!
//! A container that has links to other jobs gets addresses for them that the kernel leads to this worker's machine,
//! to a port that only the container's own network reaches ([`Carry`]).
//!
//! # Caveats
//! - Disk is not limited, nor are volumes on it unless the engine has quotas: most file systems do not. It
//!   counts in placement only.
//! - An exclusive lease is enforced by the worker. If the worker's process dies and the engine
//!   lives, the container lives too, until the worker is back. What ends meanwhile is not started again.
//! - No passwords for registries yet: images are pulled as anybody can.
//! - A command without arguments replaces the image's own arguments too; that is how engines do it.

mod again;
mod allot;
#[cfg(test)]
mod approvals;
mod approve;
mod batch;
mod carry;
mod collect;
mod command;
mod container;
#[cfg(test)]
mod devices;
mod engine;
mod error;
mod executor;
mod facts;
#[cfg(test)]
mod fake;
mod firewall;
mod gone;
mod gpu;
mod guard;
mod held;
mod hosts;
mod image;
mod keep;
mod labels;
mod lease;
mod links;
mod look;
mod measure;
mod network;
mod observe;
mod owner;
mod pause;
mod place;
mod podman;
mod port;
mod probe;
mod pull;
mod reach;
mod reconcile;
mod record;
mod refusal;
mod replica;
mod report;
mod restart;
mod runs;
mod sealed;
mod states;
mod suspend;
mod terms;
mod transport;
#[cfg(test)]
mod trouble;
mod usage;
mod volume;
mod wake;
mod watch;

pub use self::{
    approve::Approve,
    carry::{Carry, LinkPoint, Links},
    engine::{DEFAULT_SOCKET, Deadlines, Docker},
    error::{DockerError, ReplicaError},
    executor::Executor,
    facts::EngineFacts,
    firewall::FirewallError,
    gpu::{Gpu, Gpus},
    held::Held,
    keep::Keep,
    lease::lapsed,
    observe::{Exit, Observed, ObservedReplica},
    owner::Owner,
    port::Endpoint,
    reach::{
        CommandOutput, Found, LogPart, LogParts, LogRange, ReachError, Running, RunningCommand,
    },
    record::Save,
    replica::{DesiredReplica, Placement, ReplicaId},
    report::ReconcileReport,
    terms::{Filter, HostVolume, Terms},
};
