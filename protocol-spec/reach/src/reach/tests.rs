//! Messages, and what is signed.

use proptest::{collection::vec, option, prelude::*};

use veil_protocol_spec_base::{
    codec::assert_wire,
    ids::{ChainId, ClusterId},
};
use veil_protocol_spec_job::limits;

use super::*;

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
    let ports = vec![port; limits::PORTS];
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
