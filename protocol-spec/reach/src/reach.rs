//! How an operator reaches its job on the worker that runs it: `reach.md`.
//!
//! What is here travels in a session that only its two ends can read. Each message is a frame: its length, four bytes,
//! little-endian, then its encoding.

mod refusal;
#[cfg(test)]
mod tests;

use core::{net::IpAddr, num::NonZeroU16};

use serde::{Deserialize, Serialize};

use veil_protocol_spec_base::{
    abi::{Words, keccak},
    binding::ClusterScope,
    codec::{Bytes, Wire, encode},
    ids::{Address, Blake3Digest, KeccakDigest, PeerIdHash, ReplicaIndex, Signature},
};
use veil_protocol_spec_job::{names::Name, network::Protocol};

pub use self::refusal::Refusal;

/// EIP-712 type of a request: `contracts/bindings/typed.rs`.
const REQUEST_TYPE: &[u8] = b"ReachRequest(bytes32 cluster,bytes32 worker,bytes32 client,address account,address operator,bytes32 job,uint16 replica,string action,bytes32 details,uint64 expires)";

/// Longest time between a signature and its end, in seconds.
pub const MOST_SECONDS: u64 = 300;
/// Longest piece of a log, of input or of output in one frame.
pub const PIECE: usize = 32 << 10;
/// What the one that opens a stream writes first, so that the other finds the stream.
pub const BEGIN: u8 = 1;
/// Both ends say that they live as often as this, in seconds.
pub const BEAT_SECONDS: u64 = 15;
/// An end that has said nothing for so long, in seconds, is gone.
pub const SILENCE_SECONDS: u64 = 60;

/// Which lines of a log are wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogsWanted {
    /// Also those that are yet to be written, over restarts of the container.
    pub follow: bool,
    /// Only those after this time: nanoseconds of Unix time.
    pub since: Option<u64>,
    /// Of what is there already, only as many lines, the last.
    pub tail: Option<u32>,
}

/// The size of a terminal, in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TerminalSize {
    /// Lines.
    pub rows: u16,
    /// Characters of a line.
    pub columns: u16,
}

/// A command to be run in the container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExecWanted {
    /// The program, and its arguments.
    pub command: Vec<String>,
    /// Whether it reads what the operator types.
    pub input: bool,
    /// The terminal that it gets, if it gets one.
    pub terminal: Option<TerminalSize>,
}

/// A port of a replica.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PortWanted {
    /// By the name that the job gives it.
    Named(Name),
    /// Any of the container, whether or not the job says so.
    Number(NonZeroU16),
}

/// What the operator wants.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// To read what the container writes.
    Logs(LogsWanted),
    /// To run a command in it.
    Exec(ExecWanted),
    /// To open connections to a port of it.
    Forward(PortWanted),
    /// To know how it fares, and where its ports are published.
    Endpoints,
}

impl Action {
    /// The word that is signed, and counted.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Logs(_) => "logs",
            Self::Exec(_) => "exec",
            Self::Forward(_) => "forward",
            Self::Endpoints => "endpoints",
        }
    }
}

/// Step 3: what an operator asks of a worker, in one session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReachRequest {
    /// Chain, directory, cluster.
    pub scope: ClusterScope,
    /// The worker that is asked.
    pub worker: PeerIdHash,
    /// The identity that the operator's end has in the session; made for it.
    pub client: PeerIdHash,
    /// Who signs.
    pub account: Address,
    /// Whose job it is: the account, or one that has delegated this to it.
    pub operator: Address,
    /// The job.
    pub job: Blake3Digest,
    /// Which of its replicas.
    pub replica: ReplicaIndex,
    /// What is wanted of it.
    pub action: Action,
    /// Until when the request can be made, Unix time in seconds.
    pub expires: u64,
}

impl ReachRequest {
    /// The digest that the account signs: EIP-712, in the domain `Veil`, version `1`, of chain and directory.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        let message = Words::default()
            .bytes32(keccak(REQUEST_TYPE).as_bytes())
            .bytes32(self.scope.cluster.as_bytes())
            .bytes32(self.worker.as_bytes())
            .bytes32(self.client.as_bytes())
            .address(&self.account)
            .address(&self.operator)
            .bytes32(self.job.as_bytes())
            .uint(self.replica.0.into())
            .bytes32(keccak(self.action.name().as_bytes()).as_bytes())
            .bytes32(self.details().as_bytes())
            .uint(self.expires)
            .keccak();
        self.scope.typed_digest(&message)
    }

    /// What the signature says of the action beside its name.
    #[must_use]
    pub fn details(&self) -> KeccakDigest {
        keccak(&encode(&self.action))
    }
}

/// A signed [`ReachRequest`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignedReachRequest {
    /// What is asked.
    pub request: ReachRequest,
    /// By the account: r and s.
    pub signature: Signature,
    /// The recovery byte of the signature, 27 or 28.
    pub v: u8,
}

impl SignedReachRequest {
    /// With the signature r, s, v.
    #[must_use]
    pub fn new(request: ReachRequest, signature: &[u8; 65]) -> Self {
        let (first, last) = signature.split_at(64);
        let mut both = [0; 64];
        both.copy_from_slice(first);
        Self { request, signature: Signature(both), v: last.first().copied().unwrap_or_default() }
    }

    /// r, s, v.
    #[must_use]
    pub fn signature(&self) -> [u8; 65] {
        let mut all = [self.v; 65];
        all.split_at_mut(64).0.copy_from_slice(&self.signature.0);
        all
    }
}

impl Wire for SignedReachRequest {
    const NAME: &'static str = "SignedReachRequest";
    /// A command with all its arguments.
    const MAX_BYTES: usize = 32 << 10;
}

/// What either end says on the first stream of a session, after the request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Control {
    /// The worker: go on. On a stream of a forward: it is connected.
    Accepted,
    /// Either: it lives.
    Beat,
    /// The worker: not, or no more.
    Ended(Refusal),
}

impl Wire for Control {
    const NAME: &'static str = "Control";
    const MAX_BYTES: usize = 1024;
}

/// A piece of a log. A line that is longer than [`PIECE`], or than the engine's own pieces, comes as several, of which
/// only the last ends with a newline.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogPiece {
    /// When it was written, in nanoseconds of Unix time; 0 if the engine does not say.
    pub time: u64,
    /// Whether the program wrote it to its standard error.
    pub is_error: bool,
    /// What it wrote.
    pub bytes: Bytes,
}

/// What comes of a log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogOutput {
    /// What the container wrote.
    Piece(LogPiece),
    /// There is no more. The last message.
    End,
    /// It cannot be read, or no further. The last message.
    Failed(Refusal),
}

impl Wire for LogOutput {
    const NAME: &'static str = "LogOutput";
    const MAX_BYTES: usize = PIECE + 64;
    /// Nothing hashes it, and it is to be quick.
    const CHECK_CANONICAL: bool = false;
}

/// A port of a replica, as the job has it, and where it is published.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PortEndpoint {
    /// What the job calls it.
    pub name: Name,
    /// What the program listens on.
    pub container: NonZeroU16,
    /// How packets reach it.
    pub protocol: Protocol,
    /// The worker's announced address and the port there; nothing if only links and forwards lead to it, or the
    /// container is not there yet.
    pub published: Option<(IpAddr, u16)>,
}

/// How a replica fares, and its ports.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Endpoints {
    /// In the words of `veil job status`.
    pub state: String,
    /// Whether it runs, and passes its health check if it has one.
    pub running: bool,
    /// Each port of the job.
    pub ports: Vec<PortEndpoint>,
}

impl Wire for Endpoints {
    const NAME: &'static str = "Endpoints";
    const MAX_BYTES: usize = 32 << 10;
}

/// What goes to a command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExecInput {
    /// To its standard input.
    Bytes(Bytes),
    /// There is no more.
    End,
    /// The terminal has another size now.
    Size(TerminalSize),
}

impl Wire for ExecInput {
    const NAME: &'static str = "ExecInput";
    const MAX_BYTES: usize = PIECE + 64;
    const CHECK_CANONICAL: bool = false;
}

/// What comes of a command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExecOutput {
    /// Its standard output, or all that its terminal shows.
    Out(Bytes),
    /// Its standard error.
    Error(Bytes),
    /// It has ended, with this code. The last message.
    Exit(i32),
    /// It was not run, or it is not known how it ended. The last message.
    Failed(Refusal),
}

impl Wire for ExecOutput {
    const NAME: &'static str = "ExecOutput";
    const MAX_BYTES: usize = PIECE + 64;
    const CHECK_CANONICAL: bool = false;
}
