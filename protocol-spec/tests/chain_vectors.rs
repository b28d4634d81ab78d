//! Known-answer vectors of what this crate and the contracts both compute: forge reads the same
//! files (`contracts/test`). `VEIL_BLESS=1 cargo test --release -p veil-protocol-spec --test
//! chain_vectors` writes them anew.
#![allow(clippy::unwrap_used)] // helpers of tests

mod support;

use serde_json::json;
use veil_protocol_spec::{
    Address, ChainId, ClusterId, Epoch, KeccakDigest, PeerIdHash, Slot,
    election::{Candidate, OrganisationTag, draw, seed},
    scheduling::{CertificateVote, ClusterScope, ImagePart, ImageParts, PartKind},
};

use support::compare;

fn hex(bytes: &[u8]) -> String {
    format!("0x{}", support::hex(bytes))
}

/// Numbers that look like any, the same each time.
fn number(name: &str, i: u64) -> [u8; 32] {
    blake3::derive_key("veil v1 test vectors", &[name.as_bytes(), &i.to_be_bytes()].concat())
}

fn small(name: &str, i: u64, below: u64) -> u64 {
    let [a, b, c, d, ..] = number(name, i);
    u64::from(u32::from_be_bytes([a, b, c, d])) % below
}

#[test]
fn elections() {
    let scope = ClusterScope {
        chain_id: ChainId(31_337),
        contract: Address([0x11; 20]),
        cluster: ClusterId([0x22; 32]),
    };
    // Candidates, organisations, draws, limit.
    let sizes =
        [(1, 1, 1, 0), (4, 4, 4, 0), (10, 10, 6, 0), (32, 8, 9, 2), (128, 40, 17, 1), (9, 2, 9, 3)];
    let cases: Vec<_> = (0_u64..)
        .zip(sizes)
        .map(|(case, (count, organisations, draws, limit))| {
            let random = number("prevrandao", case);
            let (epoch, round) = (Epoch(case), 1 + case as u32 % 3);
            let candidates: Vec<_> = (0..count)
                .map(|i| {
                    let organisation = small("organisation", case * 1000 + i, organisations);
                    let [_, tag @ ..] = organisation.to_be_bytes();
                    Candidate {
                        peer: PeerIdHash(number("peer", case * 1000 + i)),
                        organisation: OrganisationTag(tag),
                        weight: 1 + small("weight", case * 1000 + i, 1 << 31) * 1_000,
                    }
                })
                .collect();
            let seed = seed(&random, &scope, epoch, round);
            let tag = |one: &Candidate| {
                one.organisation.0.iter().fold(0_u64, |n, b| n << 8 | u64::from(*b))
            };
            json!({
                "epoch": epoch.0,
                "round": round,
                "prevrandao": hex(&random),
                "seed": hex(seed.as_bytes()),
                "peers": candidates.iter().map(|one| hex(&one.peer.0)).collect::<Vec<_>>(),
                "organisations": candidates.iter().map(tag).collect::<Vec<_>>(),
                "weights": candidates.iter().map(|one| one.weight).collect::<Vec<_>>(),
                "draws": draws,
                "limit": limit,
                "drawn": draw(&seed, &candidates, draws, limit),
            })
        })
        .collect();
    let directory = [&[0; 12][..], &scope.contract.0].concat();
    compare(
        "election.json",
        &json!({
            "chain_id": scope.chain_id.0,
            "directory": hex(&directory),
            "cluster": hex(&scope.cluster.0),
            "count": cases.len(),
            "cases": cases,
        }),
    );
}

#[test]
fn images() {
    let part = |kind, i| ImagePart { kind, digest: number("part", i) };
    let parts = ImageParts::new(vec![
        part(PartKind::Config, 0),
        part(PartKind::Layer, 1),
        part(PartKind::Layer, 2),
        part(PartKind::Signature, 3),
        part(PartKind::Signature, 4),
    ])
    .unwrap();
    let tree = parts.tree();
    let text = |digest: &KeccakDigest| hex(digest.as_bytes());
    let listed: Vec<_> = parts
        .as_slice()
        .iter()
        .enumerate()
        .map(|(i, part)| {
            json!({
                "kind": part.kind as u8,
                "digest": hex(&part.digest),
                "leaf": text(&part.leaf()),
                "proof": tree.proof(i).unwrap().iter().map(text).collect::<Vec<_>>(),
            })
        })
        .collect();
    compare(
        "images.json",
        &json!({
            "manifest": hex(&number("manifest", 0)),
            "root": text(&tree.root()),
            "parts": listed,
        }),
    );
}

#[test]
fn votes() {
    let cases: Vec<_> = (0..4)
        .map(|i| {
            let contract = number("directory", i);
            let vote = CertificateVote {
                scope: ClusterScope {
                    chain_id: ChainId(1 + small("chain", i, 1 << 31)),
                    contract: Address(contract[..20].try_into().unwrap()),
                    cluster: ClusterId(number("cluster", i)),
                },
                epoch: Epoch(i),
                slot: Slot(u64::MAX - i),
                certificate: KeccakDigest(number("certificate", i)),
            };
            let directory = [&[0; 12][..], &vote.scope.contract.0].concat();
            json!({
                "chain_id": vote.scope.chain_id.0,
                "directory": hex(&directory),
                "cluster": hex(&vote.scope.cluster.0),
                "epoch": vote.epoch.0,
                "slot": vote.slot.0.to_string(),
                "certificate": hex(&vote.certificate.0),
                "digest": hex(&vote.digest()),
            })
        })
        .collect();
    compare("votes.json", &json!({ "count": cases.len(), "cases": cases }));
}
