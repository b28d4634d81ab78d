//! What a running process says of itself: the answer to `veil status` and `veil job status`, and what
//! the one-machine network reads its figures from. Field names are those of the JSON output,
//! documented in `docs/json.md`.

use std::{collections::BTreeMap, net::IpAddr, time::Instant};

use serde::{Deserialize, Serialize};
use veil_protocol_spec::{
    Address, Blake3Digest, Epoch, KeccakDigest, KeySetDigest, ParticipantIndex, PeerIdHash,
    ReplicaIndex, Slot,
    evidence::EvidenceKind,
    scheduling::{Done, Name, Protocol},
};

use crate::{periodic::PeriodicStatus, versions::VersionStatus};

/// Slots whose reports are kept.
pub const KEPT_SLOTS: usize = 64;

/// What a process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// A committee member.
    Member,
    /// A worker.
    Worker,
}

/// The steps of a slot, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// From work being pending until telemetry and registry allow a proposal.
    Collect,
    /// Verifying and expanding the telemetry that the manifest names; runs as telemetry arrives.
    VerifyProofs,
    /// Until 2t+1 members signed one manifest.
    Lock,
    /// Computing the placement on ciphertexts.
    Evaluate,
    /// Squashing the outputs' noise.
    Squash,
    /// Threshold decryption.
    Decrypt,
    /// Until 2t+1 members signed how the slot ends.
    End,
    /// The FROST signature.
    Sign,
    /// Until the containers run.
    Enforce,
    /// Until the root is on chain.
    Anchor,
}

impl Phase {
    /// All, in order.
    pub const ALL: [Self; 10] = [
        Self::Collect,
        Self::VerifyProofs,
        Self::Lock,
        Self::Evaluate,
        Self::Squash,
        Self::Decrypt,
        Self::End,
        Self::Sign,
        Self::Enforce,
        Self::Anchor,
    ];

    /// As in the JSON output.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Collect => "collect",
            Self::VerifyProofs => "verify_proofs",
            Self::Lock => "lock",
            Self::Evaluate => "evaluate",
            Self::Squash => "squash",
            Self::Decrypt => "decrypt",
            Self::End => "end",
            Self::Sign => "sign",
            Self::Enforce => "enforce",
            Self::Anchor => "anchor",
        }
    }
}

/// One slot as this process saw it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct SlotReport {
    /// Which.
    pub slot: Slot,
    /// The locked manifest, once there is one.
    pub manifest: Option<Blake3Digest>,
    /// Seconds in each phase that is over.
    pub phases: BTreeMap<Phase, f64>,
    /// Workers with telemetry in the manifest.
    pub candidates: usize,
    /// Replicas that got a place.
    pub assigned: usize,
    /// Replicas that did not.
    pub pending: usize,
    /// Members whose partial decryption was wrong.
    pub culprits: Vec<ParticipantIndex>,
    /// Nodes whose evaluation gave another digest than the certificate says.
    pub disagree: Vec<PeerIdHash>,
    /// The block of the transaction that anchored it or a later slot, if this process saw it.
    pub anchored_in_block: Option<u64>,
}

/// Times the phases of one slot; a phase ends when the next begins.
#[derive(Debug)]
pub struct SlotClock {
    report: SlotReport,
    since: Instant,
}

impl SlotClock {
    /// Begins with the first phase.
    #[must_use]
    pub fn start(slot: Slot) -> Self {
        Self { report: SlotReport { slot, ..SlotReport::default() }, since: Instant::now() }
    }

    /// `phase` is over, and the next begins.
    pub fn finish(&mut self, phase: Phase) {
        *self.report.phases.entry(phase).or_default() += self.since.elapsed().as_secs_f64();
        self.since = Instant::now();
    }

    /// `phase` took this long, beside the others.
    pub fn add(&mut self, phase: Phase, seconds: f64) {
        *self.report.phases.entry(phase).or_default() += seconds;
    }

    /// The next phase begins now; what passed since the last one ended counts nowhere.
    pub fn restart(&mut self) {
        self.since = Instant::now();
    }

    /// The rest of the report.
    pub fn report(&mut self) -> &mut SlotReport {
        &mut self.report
    }
}

/// What a container does, as the worker sees it; nothing is known of others' containers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observed {
    /// Docker's state, or why there is none.
    pub state: String,
    /// Whether it runs and, if there is a health check, is healthy.
    pub running: bool,
    /// Docker's id.
    pub container: Option<String>,
    /// How often it was started again.
    pub restarts: u64,
    /// With which code its last run ended, if that was seen.
    pub exit_code: Option<i64>,
    /// Whether that was for lack of memory.
    pub out_of_memory: bool,
    /// Where its ports are reached.
    pub endpoints: Vec<Endpoint>,
    /// Its links to other jobs, by address.
    pub links: Vec<LinkStatus>,
}

/// A link of a replica to another job of its operator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkStatus {
    /// Where the container finds it, such as `db:5432`.
    pub address: String,
    /// The job that it leads to.
    pub job: Name,
    /// The port of that job.
    pub port: Name,
    /// Why connections are refused, if they are.
    pub trouble: Option<String>,
    /// Connections that a replica of that job has taken since this process began.
    pub carried: u64,
    /// Connections that none has.
    pub failed: u64,
}

/// Where a port of a replica is reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// What the job calls the port.
    pub name: Name,
    /// The worker's address.
    pub host: IpAddr,
    /// The port there.
    pub port: u16,
    /// How packets reach it.
    pub protocol: Protocol,
}

/// A worker's engine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EngineStatus {
    /// Docker or Podman.
    pub name: String,
    /// Its own.
    pub version: String,
    /// What its images are for.
    pub os: String,
    /// In the words of images.
    pub architecture: String,
    /// Whether containers are kept from the worker's host and its network.
    pub filtered: bool,
}

/// How a replica of a batch job has ended for good, by the certificates.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DoneStatus {
    /// Whether it has done what it was for: with exit code 0.
    pub succeeded: bool,
    /// Of its last run; nothing if nobody saw it end.
    pub exit_code: Option<i32>,
    /// Whether it ended for lack of memory.
    pub out_of_memory: bool,
    /// Where it ran last.
    pub worker: PeerIdHash,
    /// The slot whose certificate says so.
    pub slot: Slot,
}

impl From<Done> for DoneStatus {
    fn from(Done { placement, slot, exit }: Done) -> Self {
        Self {
            succeeded: exit.is_success(),
            exit_code: exit.code,
            out_of_memory: exit.out_of_memory,
            worker: placement.worker,
            slot,
        }
    }
}

/// One replica: what the certificates say, and beside it what is seen.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ReplicaStatus {
    /// The job.
    pub job: Blake3Digest,
    /// Which of its replicas.
    pub replica: ReplicaIndex,
    /// Where it is assigned to; nowhere while pending, or when it is done.
    pub worker: Option<PeerIdHash>,
    /// Why it is pending, as far as that may be said.
    pub pending_because: Option<String>,
    /// Only of this process's own replicas.
    pub observed: Option<Observed>,
    /// Of a batch job, when it has ended for good.
    pub done: Option<DoneStatus>,
    /// The number of its version, if its job has had others.
    pub version: Option<u32>,
}

/// One submitted job.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct JobStatus {
    /// Digest of its specification.
    pub job: Blake3Digest,
    /// Place in the chain's order.
    pub position: u64,
    /// Who submitted it.
    pub operator: Address,
    /// Whether it was withdrawn.
    pub cancelled: bool,
    /// What its operator calls it; nothing while its body is not known here.
    pub name: Option<String>,
    /// What it runs; nothing while its body is not known here.
    pub image: Option<String>,
    /// Replicas wanted; nothing while its body is not known here. Of a system job, those that have a place or wait for
    /// one.
    pub wanted: Option<u16>,
    /// Its replicas.
    pub replicas: Vec<ReplicaStatus>,
    /// How it stands among the versions of its job; nothing if there are no others.
    pub version: Option<VersionStatus>,
    /// When it is run, if it is a periodic one whose body is known here.
    pub periodic: Option<PeriodicStatus>,
    /// The jobs that it waits for before it starts.
    pub after: Vec<Name>,
}

/// Evidence of a fault that a process keeps.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct EvidenceStatus {
    /// What it is asked for by.
    pub digest: Blake3Digest,
    /// What kind of fault.
    pub kind: EvidenceKind,
    /// The seat of the member at fault; nothing if the whole group is, or a node that is no member.
    pub participant: Option<ParticipantIndex>,
    /// The node at fault; nothing if the whole group is.
    pub peer: Option<PeerIdHash>,
    /// In which epoch.
    pub epoch: Epoch,
    /// In which slot; nothing where that is not known.
    pub slot: Option<Slot>,
    /// Its length.
    pub bytes: usize,
    /// The command that takes it to the chain, where a contract punishes it.
    pub command: Option<String>,
}

/// Evidence as it is handed out: its encoding in hexadecimal digits.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct EvidenceFile {
    /// Decodes as [`Evidence`](veil_protocol_spec::evidence::Evidence).
    pub wire: String,
}

/// A [`StateSnapshot`](veil_protocol_spec::snapshot::StateSnapshot): its encoding in hexadecimal digits.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SnapshotFile {
    /// Decodes as `StateSnapshot`.
    pub wire: String,
}

/// Bytes over the network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrafficStatus {
    /// Payload this process originated: telemetry only.
    pub telemetry_originated_bytes: u64,
    /// Telemetry messages originated.
    pub telemetry_messages: u64,
    /// Everything sent, relayed gossip included.
    pub sent_bytes: u64,
    /// Everything received.
    pub received_bytes: u64,
}

/// Peers by liveness.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerCounts {
    /// Registered, this process left out.
    pub registered: usize,
    /// Answering.
    pub alive: usize,
    /// Confirmed gone.
    pub down: usize,
}

/// An endpoint of the chain.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct EndpointStatus {
    /// Its URL without path and query, which may hold a provider's key.
    pub url: String,
    /// Whether its last request got an answer, or none was made yet.
    pub healthy: bool,
    /// What it did wrong at its last request.
    pub fault: Option<String>,
    /// Requests that it answered.
    pub answered: u64,
    /// Requests that it did not.
    pub failed: u64,
}

/// What the process knows of the chain.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ChainStatus {
    /// The block that it goes by.
    pub block: u64,
    /// The time of that block, in seconds of Unix time.
    pub block_time: u64,
    /// The slot whose certificate was anchored last, by that block; nothing before the first.
    pub anchored_slot: Option<Slot>,
    /// Where it asks, in the order of the configuration.
    pub endpoints: Vec<EndpointStatus>,
}

/// The whole answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Status {
    /// What it is.
    pub role: Role,
    /// Of the binary.
    pub version: String,
    /// libp2p peer id.
    pub peer_id: String,
    /// Its hash in the registry.
    pub peer: PeerIdHash,
    /// Where it listens.
    pub addresses: Vec<String>,
    /// What it does.
    pub stage: String,
    /// What or whom it waits for.
    pub waiting_for: Vec<String>,
    /// A worker's engine, once it has answered.
    pub engine: Option<EngineStatus>,
    /// A member's seat.
    pub participant: Option<ParticipantIndex>,
    /// The key set in force.
    pub key_set: Option<KeySetDigest>,
    /// Last certified slot.
    pub last_slot: Slot,
    /// Hash of the last certificate.
    pub certificate: Option<KeccakDigest>,
    /// The chain, once the process has joined its cluster.
    pub chain: Option<ChainStatus>,
    /// Others.
    pub peers: PeerCounts,
    /// Recent slots, oldest first.
    pub slots: Vec<SlotReport>,
    /// All replicas of the cluster.
    pub replicas: Vec<ReplicaStatus>,
    /// Network.
    pub traffic: TrafficStatus,
    /// How often something from peers was refused, by protocol and by reason.
    pub refusals: BTreeMap<String, BTreeMap<String, u64>>,
    /// Resident memory now, in bytes.
    pub rss_bytes: u64,
    /// Largest resident memory so far, in bytes.
    pub peak_rss_bytes: u64,
}

/// Whether a process can take part in its cluster; that it runs, its answer shows.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Readiness {
    /// It can.
    pub ready: bool,
    /// What it does.
    pub stage: String,
    /// What or whom it waits for.
    pub waiting_for: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_add_up_under_their_names() {
        let mut clock = SlotClock::start(Slot(3));
        clock.finish(Phase::Collect);
        clock.add(Phase::Anchor, 1.5);
        clock.add(Phase::Anchor, 0.5);
        let json = serde_json::to_value(clock.report()).unwrap();
        assert_eq!(json["slot"], 3);
        assert_eq!(json["phases"]["anchor"], 2.0);
        assert!(json["phases"]["collect"].as_f64().is_some());
        for phase in Phase::ALL {
            assert_eq!(serde_json::to_value(phase).unwrap(), phase.name());
        }
    }
}
