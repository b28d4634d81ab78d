//! Why a job is refused.

use veil_protocol_spec_base::codec::CodecError;

use crate::{
    container::{Capability, ContainerPath, Ulimit},
    labels::Label,
    limits,
    names::{HostName, VariableName},
    schedule::ScheduleError,
    sealed::SealedPartError,
    unsupported::Unsupported,
};

/// Why a job is refused. Every message says what to change.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "each message says what its fields are")]
pub enum JobError {
    /// The bytes are not a job.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// There are no replicas, or too many.
    #[error("{0} replicas: ask for {min} to {max}", min = limits::REPLICAS.start(), max = limits::REPLICAS.end())]
    Replicas(u16),
    /// A system job names a number of replicas.
    #[error("{0} replicas of a system job: each worker runs one, so leave `replicas` out")]
    SystemReplicas(u16),
    /// A system job asks for what only replicas have that may go elsewhere.
    #[error(
        "a system job has a replica on each worker that may run it, and none goes elsewhere: {0}"
    )]
    OfSystem(&'static str),
    /// A batch job's runs are none, or too many.
    #[error("max_attempts is {0}: {min} to {max} are possible", min = limits::ATTEMPTS.start(), max = limits::ATTEMPTS.end())]
    Attempts(u16),
    /// A job that is to end starts again by itself.
    #[error(
        "a batch or periodic job ends, so its restart mode is \"never\": what has failed is run again as \
         `max_attempts` says"
    )]
    RestartOfBatch,
    /// A run of an exclusive job would begin while the one before may run on a worker that nobody reaches.
    #[error(
        "overlap = \"replace\" begins a run while the one before may still run, which `lease = {{ exclusive = ... }}` \
         rules out: write overlap = \"skip\", or leave `lease` out"
    )]
    ReplacesExclusive,
    /// The job asks for no CPU, or for no memory.
    #[error("request at least one unit of {0}: without it the replica could go anywhere")]
    EmptyRequest(&'static str),
    /// A list (`command`, `args` or `health command`) has too many entries.
    #[error("`{list}` has {len} entries: at most {max}", max = limits::ARGUMENTS)]
    TooManyArguments { list: &'static str, len: usize },
    /// An entry, counted from 0, is too long, or has a NUL, which no program can be given.
    #[error("entry {index} of `{list}` is longer than {max} bytes or has a NUL", max = limits::ARGUMENT_BYTES)]
    Argument { list: &'static str, index: usize },
    /// The program's name is empty.
    #[error("`{0}` begins with an empty program name")]
    EmptyProgram(&'static str),
    /// All entries together are too long.
    #[error("command, args and health check take {0} bytes: at most {max}", max = limits::ALL_ARGUMENTS_BYTES)]
    ArgumentsTooLong(usize),
    /// `allow` or `deny` has too many labels.
    #[error("`{list}` names {len} labels: at most {max}", max = limits::LABELS)]
    TooManyLabels { list: &'static str, len: usize },
    /// `allow` or `deny` is not strictly ascending, so the same constraints would have several
    /// digests; `label` is the first that is not above its predecessor.
    #[error("`{list}` must be sorted without duplicates; `{label}` is out of place")]
    LabelOrder { list: &'static str, label: Label },
    /// No worker can have and not have one label.
    #[error("label `{0}` is both allowed and denied")]
    Contradiction(Label),
    /// Another list has too many entries.
    #[error("`{list}` has {len} entries: at most {max}")]
    TooManyEntries { list: &'static str, len: usize, max: usize },
    /// Another list is not strictly ascending, so the same job would have several digests; `entry` is the
    /// first that is not above its predecessor.
    #[error("`{list}` must be sorted without duplicates; `{entry}` is out of place")]
    EntryOrder { list: &'static str, entry: String },
    /// The list of organisations is empty.
    #[error("`organisations` names nobody: name one at least, or leave it out for any")]
    NoOrganisation,
    /// More or fewer processes than a container may have.
    #[error("pids is {0}: {min} to {max} are possible", min = limits::PIDS.start(), max = limits::PIDS.end())]
    Pids(u32),
    /// The container would take too long to stop.
    #[error("stop_timeout is {0} s: at most {max} s are possible", max = limits::STOP_SECONDS.end())]
    StopTimeout(u16),
    /// A limit of processes cannot be.
    #[error(
        "ulimit {kind} = {soft}:{hard}: the soft limit is at most the hard one, -1 means none, and open files \
         have a hard limit of at most {max}",
        kind = .0.kind, soft = .0.soft, hard = .0.hard, max = Ulimit::MAX_OPEN_FILES
    )]
    Ulimit(Ulimit),
    /// A capability is added and dropped.
    #[error("capability {0} is both added and dropped")]
    Capability(Capability),
    /// All capabilities are dropped, and some again.
    #[error("all capabilities are dropped: name no others to drop")]
    DroppedTwice,
    /// Something in memory is larger than the memory.
    #[error(
        "{what} of {mebibytes} MiB is more than the memory that the job asks for, which it counts as"
    )]
    BeyondMemory { what: String, mebibytes: u32 },
    /// Something on disk is larger than the disk.
    #[error(
        "volume `{name}` of {mebibytes} MiB is more than the disk that the job asks for, which it counts as"
    )]
    BeyondDisk { name: String, mebibytes: u32 },
    /// Nothing may be mounted there.
    #[error("nothing can be mounted on `{0}`: choose a folder outside /proc, /sys and /dev")]
    Mount(ContainerPath),
    /// Two mounts have one place.
    #[error("`{0}` is mounted twice")]
    MountedTwice(ContainerPath),
    /// Two ports are one.
    #[error("ports `{0}` and `{1}` are the same port of the {2}")]
    SamePort(String, String, &'static str),
    /// A link has the name that the container has itself.
    #[error("link `{0}`: the container is called `{0}` itself; give the link another `host`")]
    LinkToItself(HostName),
    /// Two links set one variable.
    #[error("two links set the variable `{0}`")]
    LinkVariable(VariableName),
    /// A job waits for itself.
    #[error("`after` names the job itself, so it would never start: name another job")]
    AfterItself,
    /// A number of the restart policy is out of range.
    #[error("the restart policy's {0} is out of range")]
    Restart(&'static str),
    /// What is unhealthy should start again, and nothing starts again.
    #[error("`unhealthy = \"restart\"` needs a restart mode other than \"never\"")]
    UnhealthyRestart,
    /// A number of the update rules is out of range.
    #[error("the update's {0} is out of range")]
    Update(&'static str),
    /// The lease is too short or too long.
    #[error("an exclusive lease of {0} s: {min} to {max} s are possible", min = limits::LEASE_SECONDS.start(), max = limits::LEASE_SECONDS.end())]
    Lease(u32),
    /// A number of the health check is out of range.
    #[error("the health check's {0} is out of range")]
    HealthCheck(&'static str),
    /// A periodic job has no times.
    #[error(transparent)]
    Schedule(#[from] ScheduleError),
    /// The sealed part cannot be one.
    #[error(transparent)]
    Sealed(#[from] SealedPartError),
    /// The job is sound, and nobody does what it asks for.
    #[error(transparent)]
    Unsupported(#[from] Unsupported),
}
