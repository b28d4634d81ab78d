//! Evidence that counts, and evidence that shows nothing.

use std::collections::BTreeMap;

use veil_committee_sealed::seal::SealerKey;
use veil_protocol_spec::scheduling::{CpuUnits, GpuUnits, Resources, Scale, dominant};
use veil_scheduler::encrypt_request;

use super::*;
use crate::sealing::tests::{Cluster, cluster, job, limits};

/// An operator that encrypts `shown` and seals `sealed`, with everything else as it should be: proof, commitment, seed.
fn submitted(
    of: &Cluster,
    nonce: u64,
    shown: Resources,
    sealed: Resources,
) -> (JobSpec, SealedRequest) {
    let clear = job(nonce);
    let seed = SealerKey::from_signature(b"the operator's").request_seed(nonce, &sealed);
    let opened = SealedRequest { limits: sealed, seed };
    let (scale, key_set) = (Scale::default(), of.key.key_set());
    let quantities = SealedRequest { limits: shown, ..opened.clone() }.quantities(&scale).unwrap();
    let metadata = of.metadata(&clear);
    let randomness = opened.seed.randomness();
    let list =
        encrypt_request(&quantities, &randomness, &of.public, &of.string, &metadata).unwrap();
    let (dominant, commitment) = (dominant(&quantities), opened.commitment(&metadata));
    let request = EncryptedRequest { key_set, scale, dominant, commitment, list };
    (JobSpec { request: ResourceRequest::Encrypted(request), ..clear }, opened)
}

fn verdict(of: &Cluster, body: &JobSpec, opened: &SealedRequest) -> Verdict {
    match committed(body, opened) {
        Ok((request, quantities)) => {
            compared(&request.list, &quantities, &opened.seed.randomness(), &of.public).unwrap()
        }
        Err(verdict) => verdict,
    }
}

/// Less than the job's own, in whole units of the scale.
fn small() -> Resources {
    Resources { cpu: CpuUnits(1), ..limits(&job(4)) }
}

#[test]
fn an_operator_that_encrypts_less_than_it_seals_is_convicted_and_an_honest_one_never() {
    let of = cluster();
    let own = limits(&job(4));
    let (honest, opened) = submitted(&of, 4, own, own);
    assert_eq!(verdict(&of, &honest, &opened), Verdict::RequestAgrees);
    let (cheating, opened) = submitted(&of, 4, small(), own);
    assert_eq!(verdict(&of, &cheating, &opened), Verdict::OperatorDeviates);
    // A worker that shows other limits or another seed than the body commits to shows nothing, of either.
    for body in [&honest, &cheating] {
        let other = SealedRequest { limits: small(), ..opened.clone() };
        assert_eq!(verdict(&of, body, &other), Verdict::NotCommitted);
        let seed = SealerKey::from_signature(b"the worker's").request_seed(4, &own);
        assert_eq!(verdict(&of, body, &SealedRequest { limits: own, seed }), Verdict::NotCommitted);
    }
    // What was committed to in another submission.
    let (later, of_later) = submitted(&of, 5, own, own);
    assert_eq!(verdict(&of, &later, &opened), Verdict::NotCommitted);
    assert_eq!(verdict(&of, &honest, &of_later), Verdict::NotCommitted);
    assert_eq!(verdict(&of, &job(4), &opened), Verdict::NotCommitted, "nothing is encrypted");
}

#[test]
fn limits_beyond_the_scale_that_are_committed_to_are_no_lists() {
    let of = cluster();
    let own = limits(&job(4));
    let beyond = Resources { gpu: GpuUnits(192), ..own };
    let (body, opened) = submitted(&of, 4, own, beyond);
    assert_eq!(verdict(&of, &body, &opened), Verdict::OperatorDeviates);
}

/// The file that a worker writes, with one bit changed, convicts nobody: it is no file, of no job that the node knows, or
/// shows what the body does not commit to.
#[test]
fn evidence_of_which_a_bit_is_flipped_shows_nothing() {
    let of = cluster();
    let (body, opened) = submitted(&of, 4, small(), limits(&job(4)));
    let bodies: BTreeMap<_, _> = [(body.digest(), &body)].into();
    let evidence = WrongRequest { job: body.digest(), opened };
    let file = serde_json::to_vec(&evidence).unwrap();
    let judged = |file: &[u8]| -> Option<Verdict> {
        let WrongRequest { job, opened } = serde_json::from_slice(file).ok()?;
        Some(verdict(&of, bodies.get(&job)?, &opened))
    };
    assert_eq!(judged(&file), Some(Verdict::OperatorDeviates));
    let (mut refused, mut not_committed) = (0, 0);
    for at in 0..file.len() * 8 {
        let mut flipped = file.clone();
        flipped[at / 8] ^= 1 << (at % 8);
        match judged(&flipped) {
            None => refused += 1,
            Some(Verdict::NotCommitted) => not_committed += 1,
            // A digit of another case is the same digit.
            Some(Verdict::OperatorDeviates) => {
                let same: WrongRequest = serde_json::from_slice(&flipped).unwrap();
                assert_eq!(same, evidence, "bit {at}");
            }
            Some(Verdict::RequestAgrees) => panic!("bit {at}"),
        }
    }
    assert!(refused > 0 && not_committed > 0, "{refused} {not_committed}");
}
