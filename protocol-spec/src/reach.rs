//! How an operator reaches its job on the worker that runs it: `reach.md`.
//!
//! What is here travels in a session that only its two ends can read. Each message is a frame: its length, four bytes,
//! little-endian, then its encoding.

use core::{net::IpAddr, num::NonZeroU16};

use serde::{Deserialize, Serialize};

use crate::{
    codec::{Bytes, Wire, encode},
    ids::{Address, Blake3Digest, KeccakDigest, PeerIdHash, ReplicaIndex, Signature},
    scheduling::{
        ClusterScope, Name, Protocol,
        abi::{Words, keccak},
    },
};

/// EIP-712 type of the signing domain: `contracts/src/VeilContract.sol`.
const DOMAIN_TYPE: &[u8] =
    b"EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)";
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
        let domain = Words::default()
            .bytes32(keccak(DOMAIN_TYPE).as_bytes())
            .bytes32(keccak(b"Veil").as_bytes())
            .bytes32(keccak(b"1").as_bytes())
            .uint(self.scope.chain_id.0)
            .address(&self.scope.contract)
            .keccak();
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
        keccak(&[&[0x19, 0x01], &domain.0[..], &message.0[..]].concat()).0
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

/// Why a worker does not let somebody reach a job, or no more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// Step 4.
    #[error("the request is for another cluster than the worker's; check --cluster and --contract")]
    OtherCluster,
    /// Step 4.
    #[error("the request is for another worker")]
    OtherWorker,
    /// Step 4.
    #[error("the request is of another session")]
    OtherClient,
    /// Step 4.
    #[error("the request has expired; look at this machine's clock")]
    Expired,
    /// Step 4.
    #[error(
        "the request would hold for longer than {MOST_SECONDS} s; look at this machine's clock"
    )]
    TooLong,
    /// Step 4.
    #[error("the signature is not by the account that the request names")]
    Signature,
    /// Step 4.
    #[error("the chain lists no such job, as far as the worker has read it")]
    UnknownJob,
    /// Step 4.
    #[error("the job is another operator's")]
    OtherOperator,
    /// Step 4.
    #[error(
        "the operator has delegated nothing to this key, or no more; it runs `veil operator delegate`"
    )]
    NotDelegated,
    /// Step 4.
    #[error("the job was stopped")]
    Stopped,
    /// Step 4.
    #[error(
        "the newest certificate places this replica elsewhere, or nowhere; see `veil job status`"
    )]
    NotHere,
    /// Step 4.
    #[error("this worker lets nobody run commands: its operator sets `exec = true` under [worker]")]
    ExecOff,
    /// Step 5.
    #[error("there is no container of this replica now; see `veil job status`")]
    NoContainer,
    /// Step 5.
    #[error("the container does not run now; see `veil job status`")]
    NotRunning,
    /// Step 5.
    #[error("the job has no port of this name")]
    NoPort,
    /// Step 5.
    #[error("the port is one for datagrams, which are not forwarded")]
    Datagrams,
    /// Step 5.
    #[error("nothing listens on the port, at the container's own address")]
    NothingListens,
    /// Step 4.
    #[error("too many sessions are open on this worker; try again")]
    Busy,
    /// Step 4.
    #[error("the worker cannot tell now; try again")]
    NotNow,
    /// Step 5: the engine, in words.
    #[error("the worker's engine: {0}")]
    Engine(String),
    /// Not of the form that is asked for.
    #[error("the worker does not understand the request; is it of another version?")]
    Malformed,
}

impl Refusal {
    /// Longest text of an engine.
    pub const MAX_TEXT: usize = 512;

    /// The engine's words, cut.
    #[must_use]
    pub fn engine(said: &impl ToString) -> Self {
        let mut text = said.to_string();
        text.truncate(text.floor_char_boundary(Self::MAX_TEXT));
        Self::Engine(text)
    }

    /// The word of counters, and for programs.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::OtherCluster => "other_cluster",
            Self::OtherWorker => "other_worker",
            Self::OtherClient => "other_client",
            Self::Expired => "expired",
            Self::TooLong => "too_long",
            Self::Signature => "signature",
            Self::UnknownJob => "unknown_job",
            Self::OtherOperator => "other_operator",
            Self::NotDelegated => "not_delegated",
            Self::Stopped => "stopped",
            Self::NotHere => "not_here",
            Self::ExecOff => "exec_off",
            Self::NoContainer => "no_container",
            Self::NotRunning => "not_running",
            Self::NoPort => "no_port",
            Self::Datagrams => "datagrams",
            Self::NothingListens => "nothing_listens",
            Self::Busy => "busy",
            Self::NotNow => "not_now",
            Self::Engine(_) => "engine",
            Self::Malformed => "malformed",
        }
    }
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

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, option, prelude::*};

    use super::*;
    use crate::{
        ids::{ChainId, ClusterId},
        scheduling::arbitrary::assert_wire,
    };

    fn actions() -> impl Strategy<Value = Action> {
        let logs = (any::<bool>(), option::of(any::<u64>()), option::of(any::<u32>()));
        let size = (any::<u16>(), any::<u16>());
        prop_oneof![
            logs.prop_map(|(follow, since, tail)| Action::Logs(LogsWanted { follow, since, tail })),
            (vec(".{0,20}", 1..8), any::<bool>(), option::of(size)).prop_map(
                |(command, input, size)| {
                    let terminal = size.map(|(rows, columns)| TerminalSize { rows, columns });
                    Action::Exec(ExecWanted { command, input, terminal })
                }
            ),
            (1..=u16::MAX).prop_map(|port| {
                Action::Forward(PortWanted::Number(NonZeroU16::new(port).unwrap()))
            }),
            Just(Action::Forward(PortWanted::Named("http".parse().unwrap()))),
            Just(Action::Endpoints),
        ]
    }

    fn request(action: Action, bytes: [u8; 7], numbers: (u16, u64)) -> ReachRequest {
        let [chain, contract, cluster, worker, client, account, job] = bytes;
        ReachRequest {
            scope: ClusterScope {
                chain_id: ChainId(chain.into()),
                contract: Address([contract; 20]),
                cluster: ClusterId([cluster; 32]),
            },
            worker: PeerIdHash([worker; 32]),
            client: PeerIdHash([client; 32]),
            account: Address([account; 20]),
            operator: Address([account ^ 1; 20]),
            job: Blake3Digest([job; 32]),
            replica: ReplicaIndex(numbers.0),
            action,
            expires: numbers.1,
        }
    }

    proptest! {
        #[test]
        fn only_the_exact_bytes_decode(
            action in actions(), bytes: [u8; 7], numbers: (u16, u64), signature in vec(any::<u8>(), 65),
        ) {
            let signature: [u8; 65] = signature.try_into().unwrap();
            let signed = SignedReachRequest::new(request(action, bytes, numbers), &signature);
            assert_eq!(signed.signature(), signature);
            assert_wire(&signed);
        }

        /// Whatever differs between two requests, their digests do.
        #[test]
        fn every_field_is_signed(
            actions in (actions(), actions()), bytes: [u8; 7], numbers: (u16, u64), which in 0..9_usize,
        ) {
            let one = request(actions.0.clone(), bytes, numbers);
            let (mut others, mut other_numbers) = (bytes, numbers);
            match which {
                0..7 => others[which] ^= 2,
                7 => other_numbers.0 ^= 1,
                _ => other_numbers.1 ^= 1,
            }
            assert_ne!(one.digest(), request(actions.0.clone(), others, other_numbers).digest());
            let acted = request(actions.1.clone(), bytes, numbers);
            assert_eq!(one.digest() == acted.digest(), actions.0 == actions.1);
            let mut operated = one.clone();
            operated.operator.0[0] ^= 1;
            assert_ne!(one.digest(), operated.digest());
        }
    }

    #[test]
    fn the_longest_of_each_fits() {
        let bytes = Bytes(vec![7; PIECE]);
        let piece = LogPiece { time: u64::MAX, is_error: true, bytes: bytes.clone() };
        let piece = LogOutput::Piece(piece);
        assert_eq!(LogOutput::from_wire(&piece.to_wire()), Ok(piece));
        for output in
            [ExecOutput::Out(bytes.clone()), ExecOutput::Failed(Refusal::engine(&"ä".repeat(600)))]
        {
            assert_eq!(ExecOutput::from_wire(&output.to_wire()), Ok(output));
        }
        let input = ExecInput::Bytes(bytes);
        assert_eq!(ExecInput::from_wire(&input.to_wire()), Ok(input));
        assert_wire(&Control::Ended(Refusal::engine(&"ä".repeat(600))));
        assert_wire(&Control::Beat);
        let port = PortEndpoint {
            name: "n".repeat(63).parse().unwrap(),
            container: NonZeroU16::MAX,
            protocol: Protocol::Udp,
            published: Some((IpAddr::from([0xff; 16]), u16::MAX)),
        };
        // As many as a job may have.
        let ports = vec![port; crate::scheduling::limits::ENTRIES];
        let endpoints = Endpoints { state: "x".repeat(8 << 10), running: true, ports };
        assert_eq!(Endpoints::from_wire(&endpoints.to_wire()), Ok(endpoints));
    }

    #[test]
    fn each_refusal_has_a_name_of_its_own() {
        use Refusal::*;
        let all = [
            OtherCluster,
            OtherWorker,
            OtherClient,
            Expired,
            TooLong,
            Signature,
            UnknownJob,
            OtherOperator,
            NotDelegated,
            Stopped,
            NotHere,
            ExecOff,
            NoContainer,
            NotRunning,
            NoPort,
            Datagrams,
            NothingListens,
            Busy,
            NotNow,
            Engine(String::new()),
            Malformed,
        ];
        let names: std::collections::BTreeSet<_> = all.iter().map(Refusal::name).collect();
        assert_eq!(names.len(), all.len());
    }
}
