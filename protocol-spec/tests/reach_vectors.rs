//! Vectors of what is said to reach a job. See the head of `vectors.rs`.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod support;

use serde_json::json;
use support::{compare, hex};
use veil_protocol_spec::{
    Address, Blake3Digest, ChainId, ClusterId, PeerIdHash, ReplicaIndex, Wire,
    codec::Bytes,
    reach::{
        Action, Control, Endpoints, ExecInput, ExecOutput, ExecWanted, LogOutput, LogPiece,
        LogsWanted, PortEndpoint, PortWanted, ReachRequest, Refusal, SignedReachRequest,
        TerminalSize,
    },
    scheduling::{ClusterScope, Protocol},
};

fn request(action: Action) -> ReachRequest {
    ReachRequest {
        scope: ClusterScope {
            chain_id: ChainId(31_337),
            contract: Address([0x11; 20]),
            cluster: ClusterId([0x22; 32]),
        },
        worker: PeerIdHash([0x33; 32]),
        client: PeerIdHash([0x44; 32]),
        account: Address([0x55; 20]),
        operator: Address([0x66; 20]),
        job: Blake3Digest([0x77; 32]),
        replica: ReplicaIndex(3),
        action,
        expires: 1_800_000_000,
    }
}

/// Encoding and what is signed.
fn vector(action: Action) -> serde_json::Value {
    let request = request(action);
    let digest = request.digest();
    let signed = SignedReachRequest::new(request, &[0x88; 65]);
    assert_eq!(SignedReachRequest::from_wire(&signed.to_wire()).as_ref(), Ok(&signed));
    json!({ "encoding": hex(&signed.to_wire()), "digest": hex(&digest) })
}

#[test]
fn reach() {
    let size = TerminalSize { rows: 24, columns: 80 };
    let command = vec!["sh".to_owned(), "-c".to_owned(), "id".to_owned()];
    let bytes = || Bytes(b"hello\n".to_vec());
    let piece = LogPiece { time: 1_795_806_798_849_905_699, is_error: true, bytes: bytes() };
    let endpoints = Endpoints {
        state: "running".to_owned(),
        running: true,
        ports: vec![PortEndpoint {
            name: "http".parse().unwrap(),
            container: 8080.try_into().unwrap(),
            protocol: Protocol::Tcp,
            published: Some(("192.0.2.1".parse().unwrap(), 20_001)),
        }],
    };
    compare(
        "reach.json",
        &json!({
            "request": {
                "logs": vector(Action::Logs(LogsWanted { follow: true, since: Some(7), tail: Some(10) })),
                "exec": vector(Action::Exec(ExecWanted { command, input: true, terminal: Some(size) })),
                "forward_named": vector(Action::Forward(PortWanted::Named("http".parse().unwrap()))),
                "forward_number": vector(Action::Forward(PortWanted::Number(8080.try_into().unwrap()))),
                "endpoints": vector(Action::Endpoints),
            },
            "control": {
                "accepted": hex(&Control::Accepted.to_wire()),
                "beat": hex(&Control::Beat.to_wire()),
                "ended": hex(&Control::Ended(Refusal::NotHere).to_wire()),
                "engine": hex(&Control::Ended(Refusal::engine(&"no such container")).to_wire()),
            },
            "log": {
                "piece": hex(&LogOutput::Piece(piece).to_wire()),
                "end": hex(&LogOutput::End.to_wire()),
                "failed": hex(&LogOutput::Failed(Refusal::NoContainer).to_wire()),
            },
            "exec": {
                "input": hex(&ExecInput::Bytes(bytes()).to_wire()),
                "input_end": hex(&ExecInput::End.to_wire()),
                "size": hex(&ExecInput::Size(size).to_wire()),
                "output": hex(&ExecOutput::Out(bytes()).to_wire()),
                "error": hex(&ExecOutput::Error(bytes()).to_wire()),
                "exit": hex(&ExecOutput::Exit(-1).to_wire()),
                "failed": hex(&ExecOutput::Failed(Refusal::NotRunning).to_wire()),
            },
            "endpoints": hex(&endpoints.to_wire()),
        }),
    );
}
