//! Replicas that their workers give back.

use veil_protocol_spec::scheduling::{
    GiveBackReason, LEAK_WINDOW_BLOCKS, MAX_RETURNED_OF_OPERATOR, Note, UnixMillis,
};

use super::{rules::Known, *};

const LEASE: LeasePolicy = LeasePolicy::Exclusive { seconds: 60 };

/// A word of notice about a replica of job 1, for the place that it has.
fn word(state: &ClusterState, replica: u16, reason: GiveBackReason) -> GivenBack {
    let (job, replica) = (job(1), ReplicaIndex(replica));
    let placed = state.placement(job, replica).unwrap().slot;
    let (until, note) = (Some(UnixMillis(9)), Note::default());
    GivenBack { job, replica, placed, reason, until, has_stopped: false, note }
}

fn notice(state: &ClusterState, replica: u16) -> GivenBack {
    word(state, replica, GiveBackReason::Evicted)
}

fn stopped(of: GivenBack) -> GivenBack {
    GivenBack { has_stopped: true, ..of }
}

/// The replicas of job 1 are at workers 1 to 3.
fn placed(lease: LeasePolicy) -> (Known, ClusterState) {
    let known = Known::new(lease);
    let state = known.slot(&ClusterState::default(), |i| Some(i as u8 + 1));
    (known, state)
}

fn says(known: &mut Known, byte: u8, words: &[GivenBack]) {
    known.given_back = [(worker(byte), words.into())].into();
}

fn pending(next: &NextReplicas) -> Vec<u16> {
    next.pending.iter().map(|pending| pending.replica.0).collect()
}

fn place(state: &ClusterState, replica: u16) -> Option<PeerIdHash> {
    state.placement(job(1), ReplicaIndex(replica)).map(|placement| placement.worker)
}

/// Whom a manifest's replicas do not go to.
fn barred(known: &Known, state: &ClusterState) -> Vec<(u16, PeerIdHash)> {
    let manifest = known.manifest(state);
    state.barred(&manifest).map(|((_, replica), worker)| (replica.0, worker)).collect()
}

#[test]
fn an_evicted_replica_keeps_its_place_until_it_gets_another() {
    let (mut known, state) = placed(LeasePolicy::Keep);
    let word = notice(&state, 1);
    says(&mut known, 2, std::slice::from_ref(&word));
    let next = known.next(&state);
    assert_eq!((&next.given_back, pending(&next), next.failures), (&vec![word], vec![1], None));
    assert_eq!(barred(&known, &state), [(1, worker(2))]);
    // Nobody has room: it runs on, and is listed no more than anything else without room.
    let state = known.slot(&state, |_| None);
    assert_eq!(place(&state, 1), Some(worker(2)));
    let returned = state.returned_replica(job(1), ReplicaIndex(1)).unwrap();
    assert_eq!((returned.times, returned.until), (1, Some(UnixMillis(9))));
    assert!(state.is_given_back(job(1), ReplicaIndex(1)));
    let next = known.next(&state);
    assert_eq!((next.given_back.len(), pending(&next), next.failures), (0, vec![1], Some(1)));
    assert_eq!(barred(&known, &state), [(1, worker(2))], "the state remembers it");
    // The worker forgets its word: that changes nothing.
    known.given_back.clear();
    assert_eq!(pending(&known.next(&state)), [1]);
    let moved = known.slot(&state, |_| Some(4));
    assert_eq!((place(&moved, 1), pending(&known.next(&moved))), (Some(worker(4)), vec![]));
    assert!(!moved.is_given_back(job(1), ReplicaIndex(1)), "its new worker keeps it");
}

#[test]
fn what_has_stopped_has_no_place_any_more() {
    let (mut known, state) = placed(LeasePolicy::Keep);
    says(&mut known, 2, &[notice(&state, 1)]);
    let noticed = known.slot(&state, |_| None);
    let word = stopped(notice(&noticed, 1));
    says(&mut known, 2, std::slice::from_ref(&word));
    let next = known.next(&noticed);
    assert_eq!((&next.given_back, pending(&next)), (&vec![word], vec![1]));
    let manifest = known.manifest(&noticed);
    assert_eq!(noticed.running(&manifest).count(), 2, "it does not run on");
    let state = known.slot(&noticed, |_| None);
    assert_eq!((place(&state, 1), state.last_changed()), (None, state.last_slot()));
    assert_eq!(state.last_freed(), state.last_slot(), "there is room now");
    assert_eq!(barred(&known, &state), [(1, worker(2))]);
    assert_eq!(
        known.next(&state).given_back,
        [],
        "its worker repeats it until it has the certificate"
    );
    // Both words in one slot, and a place in the same.
    let (mut known, state) = placed(LeasePolicy::Keep);
    says(&mut known, 2, &[stopped(notice(&state, 1))]);
    let state = known.slot(&state, |_| Some(4));
    assert_eq!(place(&state, 1), Some(worker(4)));
    assert_eq!(state.returned().count(), 1);
}

/// "Never two at once": neither an exclusive replica nor the run of a batch job.
#[test]
fn what_must_not_run_twice_is_placed_only_after_it_has_stopped() {
    for is_batch in [false, true] {
        let (mut known, state) = placed(if is_batch { LeasePolicy::Keep } else { LEASE });
        known.demands.get_mut(&job(1)).unwrap().is_batch = is_batch;
        says(&mut known, 2, &[notice(&state, 1)]);
        let next = known.next(&state);
        assert_eq!((next.given_back.len(), pending(&next)), (1, vec![]), "certified, and no more");
        let state = known.slot(&state, |_| None);
        assert!(state.is_given_back(job(1), ReplicaIndex(1)));
        assert_eq!(pending(&known.next(&state)), []);
        says(&mut known, 2, &[stopped(notice(&state, 1))]);
        assert_eq!(pending(&known.next(&state)), [1]);
        let state = known.slot(&state, |_| Some(4));
        assert_eq!(place(&state, 1), Some(worker(4)));
    }
}

#[test]
fn a_drained_worker_gives_back_what_it_has_stopped() {
    let (mut known, state) = placed(LEASE);
    let word = word(&state, 1, GiveBackReason::Drained);
    says(&mut known, 2, &[stopped(word.clone())]);
    assert_eq!(known.next(&state).given_back, [], "the registry does not say that it is drained");
    known.draining.insert(worker(2));
    says(&mut known, 2, std::slice::from_ref(&word));
    let next = known.next(&state);
    assert_eq!((next.given_back.len(), pending(&next)), (0, vec![]), "it runs there");
    says(&mut known, 2, &[stopped(word)]);
    assert_eq!(pending(&known.next(&state)), [1]);
    let state = known.slot(&state, |_| None);
    assert_eq!((place(&state, 1), state.returned().count()), (None, 0));
    // When it may be given something again, it may be given this.
    known.draining.clear();
    assert_eq!(barred(&known, &state), []);
    let state = known.slot(&state, |_| Some(2));
    assert_eq!(place(&state, 1), Some(worker(2)));
}

/// The registry may say that a drain is over before a certificate says what the worker has stopped for it.
#[test]
fn what_was_stopped_for_a_drain_that_is_over_may_come_back_at_once() {
    let (mut known, state) = placed(LEASE);
    let word = word(&state, 1, GiveBackReason::DrainEnded);
    says(&mut known, 2, std::slice::from_ref(&word));
    assert_eq!(known.next(&state).given_back, [], "it runs there");
    says(&mut known, 2, &[stopped(word)]);
    assert_eq!(pending(&known.next(&state)), [1]);
    assert_eq!(barred(&known, &state), []);
    let nowhere = known.slot(&state, |_| None);
    assert_eq!(barred(&known, &nowhere), []);
    let state = known.slot(&state, |_| Some(2));
    assert_eq!(place(&state, 1), Some(worker(2)));
    assert_eq!(state.returned_replica(job(1), ReplicaIndex(1)).unwrap().times, 1, "it is counted");
}

#[test]
fn only_the_worker_that_has_a_replica_gives_it_back_and_only_for_that_place() {
    let (mut known, state) = placed(LeasePolicy::Keep);
    says(&mut known, 1, &[notice(&state, 1)]);
    assert_eq!(known.next(&state).given_back, [], "worker 2 has it");
    says(&mut known, 2, &[GivenBack { replica: ReplicaIndex(9), ..notice(&state, 1) }]);
    assert_eq!(known.next(&state).given_back, [], "nobody has it");
    let old = notice(&state, 1);
    says(&mut known, 2, &[stopped(old.clone())]);
    let away = known.slot(&state, |_| Some(4));
    says(&mut known, 4, &[stopped(notice(&away, 1))]);
    let back = known.slot(&away, |_| Some(2));
    assert_eq!(place(&back, 1), Some(worker(2)));
    says(&mut known, 2, &[stopped(old)]);
    assert_eq!(known.next(&back).given_back, [], "word of an earlier place is repeated");
    // What nobody wants any more leaves, and is not given back as well.
    says(&mut known, 2, &[stopped(notice(&back, 1))]);
    known.submissions[0].cancelled = true;
    let next = known.next(&back);
    assert_eq!((next.leaving.len(), next.given_back.len()), (3, 0));
    assert_eq!(known.slot(&back, |_| None).returned().count(), 0, "nothing of it is remembered");
}

/// "A job that is unhealthy everywhere does not cost a slot for ever."
#[test]
fn what_is_given_back_again_and_again_waits_longer_each_time() {
    let (mut known, mut state) = placed(LeasePolicy::Keep);
    let (mut last, mut others) = (None, 0_u16);
    for times in 1..=9_u8 {
        let at = place(&state, 1).unwrap().0[0];
        says(&mut known, at, &[stopped(word(&state, 1, GiveBackReason::Unhealthy))]);
        let next = known.next(&state);
        assert_eq!(next.given_back.len(), 1);
        // The first time at once; later when nothing else is to do, after as long a pause as failures make.
        assert_eq!(next.failures, (times > 1).then_some(times - 1));
        state = known.slot(&state, |_| None);
        assert_eq!(state.returned_replica(job(1), ReplicaIndex(1)).unwrap().times, times);
        if times > 1 {
            // Slots that other jobs are in do not take it along until it is due.
            let mut waited = 0;
            loop {
                others += 1;
                let mut digest = [0x50; 32];
                digest[..2].copy_from_slice(&others.to_le_bytes());
                let other = Blake3Digest(digest);
                let mut busy = known.clone();
                let line = JobLine(digest); // of a name of its own
                busy.demands.insert(other, JobDemand { line, ..three(&job(1)).unwrap() });
                let submission = submission(100 + u64::from(others), 50);
                busy.submissions.push(Submission { job: other, ..submission });
                let listed = busy.next(&state).pending;
                assert!(listed.iter().any(|pending| pending.job == other));
                if listed.iter().any(|pending| pending.job == job(1)) {
                    break;
                }
                state = busy.slot(&state, |_| None);
                waited += 1;
            }
            assert!(last.is_none_or(|last| waited >= last), "{waited} after {last:?}");
            last = Some(waited);
        }
        let to = if at == 4 { 3 } else { 4 };
        while place(&state, 1).is_none() {
            state = known.slot(&state, |_| Some(to));
        }
    }
    assert!(last > Some(10), "{last:?}");
    // After a day in which it stayed, everything is forgotten.
    known.given_back.clear();
    known.block += LEAK_WINDOW_BLOCKS;
    let at = place(&state, 1).unwrap().0[0];
    says(&mut known, at, &[notice(&state, 1)]);
    state = known.slot(&state, |_| None);
    assert_eq!(state.returned_replica(job(1), ReplicaIndex(1)).unwrap().times, 1);
}

/// Where an unhealthy replica was it may come back to, since it may be unhealthy everywhere; what an operator does
/// not want stays away for a day.
#[test]
fn how_long_a_worker_does_not_get_it_back_depends_on_why() {
    for (reason, returns) in [(GiveBackReason::Unhealthy, true), (GiveBackReason::Evicted, false)] {
        let (mut known, state) = placed(LeasePolicy::Keep);
        says(&mut known, 2, &[stopped(word(&state, 1, reason))]);
        let mut state = known.slot(&state, |_| None);
        assert_eq!(barred(&known, &state), [(1, worker(2))]);
        let mut voids = state.clone();
        for _ in 0..3 {
            voids = voids.follow(&void(&voids, known.manifest(&voids))).unwrap();
        }
        assert_eq!(barred(&known, &voids), [(1, worker(2))], "nothing was decided since");
        for _ in 0..3 {
            state = known.slot(&state, |_| None);
        }
        assert_eq!(barred(&known, &state).is_empty(), returns, "{reason:?}");
        known.block += LEAK_WINDOW_BLOCKS;
        assert_eq!(barred(&known, &state), []);
        let after = known.slot(&state, |_| None);
        assert_eq!(after.returned().count(), 0);
    }
}

/// A hostile operator keeps the committee busy with so many words in a day, and with no more.
#[test]
fn an_operator_gives_back_so_much_and_no_more() {
    let mut known = Known::new(LeasePolicy::Keep);
    known.submissions.clear();
    known.submit(1, 1, 1, 0, 400);
    known.owners = [1, 2].map(|byte| (worker(byte), Address([7; 20]))).into();
    known.owners.insert(worker(3), Address([8; 20]));
    let mut state = ClusterState::default();
    while !known.next(&state).pending.is_empty() {
        state = known.slot(&state, |i| Some(1 + (i % 3) as u8));
    }
    let words = |state: &ClusterState, byte| -> Vec<_> {
        let here = state.assigned_to(worker(byte));
        here.map(|(_, replica)| stopped(notice(state, replica.0))).collect()
    };
    let count = |state: &ClusterState, byte| words(state, byte).len();
    let (first, second) = (count(&state, 1), count(&state, 2));
    assert!(first + second > MAX_RETURNED_OF_OPERATOR);
    known.given_back = [1, 2, 3].map(|byte| (worker(byte), words(&state, byte).into())).into();
    let mut listed = 0;
    loop {
        let next = known.next(&state);
        if next.given_back.is_empty() {
            break;
        }
        listed += next.given_back.len();
        state = known.slot(&state, |_| None);
    }
    assert_eq!(count(&state, 1) + count(&state, 2), first + second - MAX_RETURNED_OF_OPERATOR);
    assert_eq!((count(&state, 3), listed), (0, MAX_RETURNED_OF_OPERATOR + 400 - first - second));
    // The others keep their places by the certificates, unless the worker is drained, which is on chain.
    let drained = |known: &Known, state: &ClusterState| -> Words {
        let word = |word| GivenBack { reason: GiveBackReason::Drained, ..word };
        let of = |byte| words(state, byte).into_iter().map(word).collect::<Vec<_>>();
        known.draining.iter().map(|worker| (*worker, of(worker.0[0]).into())).collect()
    };
    known.draining = [1, 2].map(worker).into();
    known.given_back = drained(&known, &state);
    assert!(!known.next(&state).given_back.is_empty());
}
