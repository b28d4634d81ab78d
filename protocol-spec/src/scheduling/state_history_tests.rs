//! What a certificate commits to, and what a record repeats.

use super::*;
use crate::snapshot::StateSnapshot;

/// What a later slot depends on, and what a node that did not follow the slots before must be told.
#[test]
fn a_certificate_commits_to_the_whole_state() {
    type Change = fn(&mut ClusterState);

    let (before, _) = placed();
    let before = super::done::one_done(&before);
    let next = manifest(&before, pending(5, 1, 1..2), vec![], &[2]);
    let nowhere = assignments(&next, |_| None);
    assert_eq!((before.lost().count(), next.pending.len()), (0, 1));
    let state = before.apply(&next, &nowhere).unwrap();
    let snapshot = StateSnapshot { record: record(&before, next, nowhere), state };
    assert_wire(&snapshot);
    let followed = before.follow(&snapshot.record).unwrap();
    assert_eq!(snapshot.clone().certified(), Ok(followed));
    let changes: [Change; 20] = [
        |s| s.last_slot = Slot(5),
        |s| s.last_certificate.0[0] ^= 1,
        |s| s.base.0[0] ^= 1,
        |s| s.block += 1,
        |s| s.decided.0 = Slot(1),
        |s| s.decided.1.0[0] ^= 1,
        |s| s.changed = Slot(1),
        |s| s.replicas.retain(|(_, replica), _| *replica != ReplicaIndex(0)),
        |s| s.done.clear(),
        |s| s.done.values_mut().for_each(|done| done.exit.code = Some(0)),
        |s| s.done.values_mut().for_each(|done| done.slot = Slot(5)),
        |s| s.booked.clear(),
        |s| s.lost.clear(),
        |s| s.tries.tried.clear(),
        |s| s.tries.tried.values_mut().for_each(|tried| tried.failed += 1),
        |s| s.tries.told.clear(),
        |s| s.tries.known.clear(),
        |s| s.tries.freed = Slot(1),
        |s| s.tries.policy = None,
        |s| s.tries.draw = Some(Draw { block: POLICY, jobs_seen: 1 }),
    ];
    for (i, change) in changes.into_iter().enumerate() {
        let mut other = snapshot.clone();
        change(&mut other.state);
        assert!(other.certified().is_err(), "change {i}");
    }
}

/// "Slot record at 100 workers with 8,000 running replicas and one change: under 20 KB."
#[test]
fn a_record_holds_what_changed_and_not_what_runs() {
    let mut state = ClusterState::default();
    for i in 0..8000u16 {
        let placement = Placement { worker: worker((i % 100) as u8), slot: Slot(1) };
        state.replicas.insert((job(1), ReplicaIndex(i)), placement);
    }
    let workers = (0..100).map(|w| (worker(w), Blake3Digest([w; 32])));
    let mut next = manifest(&state, pending(6, 2, 0..1), vec![], &[]);
    next.telemetry = workers.map(|(sender, digest)| TelemetryEntry { sender, digest }).collect();
    let assignments = assignments(&next, |_| Some(worker(7)));
    let mut record = record(&state, next, assignments);
    let votes = (1..=9).map(|i| (ParticipantIndex::new(i).unwrap(), Signature([9; 64])));
    record.lock.votes = votes.collect();
    let bytes = record.to_wire().len();
    println!(
        "slot record at 100 workers with 8,000 running replicas and one change: {bytes} bytes"
    );
    assert!(bytes < 20_000, "{bytes}");
    assert_eq!(state.follow(&record).unwrap().replicas().count(), 8001);
}

#[test]
fn the_root_is_the_one_of_the_leaves() {
    let (state, _) = placed();
    let purpose = |text: &str| {
        let bytes = keccak(text.as_bytes());
        Words::default().bytes32(bytes.as_bytes())
    };
    let leaf = |words: Words| keccak(words.keccak().as_bytes());
    let replicas = (0..3u8).map(|i| {
        let words = purpose("veil v2 state replica leaf").bytes32(&[1; 32]).uint(i.into()).uint(0);
        leaf(words.bytes32(&[i + 1; 32]).uint(2).uint(0))
    });
    let of_worker =
        |text: &str, worker: u8, slot| leaf(purpose(text).bytes32(&[worker; 32]).uint(slot));
    let workers = (1..=3u8).map(|worker| of_worker("veil v1 state worker leaf", worker, 2));
    // Replica 1 has its place on a worker that is lost, and gets no other.
    let next = manifest(&state, pending(5, 1, 1..2), vec![], &[2]);
    let after = state.apply(&next, &assignments(&next, |_| None)).unwrap();
    let lost = of_worker("veil v1 state lost worker leaf", 2, 4);
    let tried = keccak(&crate::codec::encode(&after.tries));
    let tries = leaf(purpose("veil v1 state tries leaf").bytes32(tried.as_bytes()));
    let history = purpose("veil v1 state history leaf").uint(2);
    let history = leaf(history.bytes32(state.last_certificate().as_bytes()).uint(2));
    let leaves = replicas.chain(workers).chain([lost, tries, history]);
    assert_eq!(after.state_root(), MerkleTree::new(leaves.collect()).root());
}
