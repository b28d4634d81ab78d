//! Workers that cannot use what is sealed in a job: `sealed.md`, step 10. The committee is of four, so t+1 is two.

use proptest::prelude::*;
use veil_protocol_spec::scheduling::{GiveBackReason, LEAK_WINDOW_BLOCKS, Note, UnixMillis};

use super::{rules::Known, *};

/// Job 1 has a sealed part, and its replicas are at workers 1 to 3.
fn placed() -> (Known, ClusterState) {
    let mut known = Known::new(LeasePolicy::Keep);
    known.demands.get_mut(&job(1)).unwrap().is_sealed = true;
    let state = known.slot(&ClusterState::default(), |i| Some(i as u8 + 1));
    (known, state)
}

/// The word of a replica's worker, for the place that it has.
fn word(state: &ClusterState, replica: u16, reason: GiveBackReason) -> (u8, GivenBack) {
    let (job, replica) = (job(1), ReplicaIndex(replica));
    let placement = state.placement(job, replica).unwrap();
    let (placed, until, note) = (placement.slot, Some(UnixMillis(9)), Note::default());
    let word = GivenBack { job, replica, placed, reason, until, has_stopped: true, note };
    (placement.worker.0[0], word)
}

/// These replicas' workers cannot use what is sealed.
fn cannot(known: &mut Known, state: &ClusterState, replicas: &[u16]) {
    let mut words: BTreeMap<PeerIdHash, Vec<GivenBack>> = BTreeMap::new();
    for replica in replicas {
        let (at, word) = word(state, *replica, GiveBackReason::SealedPart);
        words.entry(worker(at)).or_default().push(word);
    }
    known.given_back = words.into_iter().map(|(worker, words)| (worker, words.into())).collect();
}

fn refused(known: &Known, state: &ClusterState) -> Option<NotConsidered> {
    known.next(state).not_considered.get(&job(1)).copied()
}

const CLOSED: Option<NotConsidered> = Some(NotConsidered::SealedPart { workers: 2, needed: 2 });

fn pending(known: &Known, state: &ClusterState) -> Vec<u16> {
    known.next(state).pending.iter().map(|pending| pending.replica.0).collect()
}

#[test]
fn a_job_whose_part_t_plus_1_workers_cannot_use_is_pending_and_not_placed_again() {
    let (mut known, state) = placed();
    cannot(&mut known, &state, &[0]);
    assert_eq!((refused(&known, &state), pending(&known, &state)), (None, vec![0]));
    // One word alone has it placed elsewhere, and not at that worker.
    let manifest = known.manifest(&state);
    let barred: Vec<_> = state.barred(&manifest).collect();
    assert_eq!(barred, [((job(1), ReplicaIndex(0)), worker(1))]);
    let state = known.slot(&state, |_| Some(4));
    cannot(&mut known, &state, &[0]);
    assert_eq!((refused(&known, &state), pending(&known, &state)), (CLOSED, vec![]));
    assert_eq!(known.next(&state).given_back.len(), 1, "the word itself is certified");
    let state = known.slot(&state, |_| panic!("nothing is pending"));
    // The certified state says so: whoever follows the certificates comes to the same.
    known.given_back.clear();
    for _ in 0..100 {
        assert_eq!((refused(&known, &state), pending(&known, &state)), (CLOSED, vec![]));
    }
    assert_eq!(state.placement(job(1), ReplicaIndex(0)), None);
    assert_eq!(state.replicas_of(job(1)).count(), 2, "what has opened it runs on");
    // A new candidate or another policy is no reason to try it.
    known.telemetry.insert(worker(9));
    assert_eq!((refused(&known, &state), pending(&known, &state)), (CLOSED, vec![]));
    let text = CLOSED.unwrap().to_string();
    assert!(text.contains("2 workers could not use its sealed part"), "{text}");
    assert!(text.contains("`veil job submit`"), "the next command: {text}");
    // Another job of the same operator waits for nothing.
    known.submit(8, 2, 1, 0, 1);
    let listed: Vec<_> = known.next(&state).pending.iter().map(|of| of.job).collect();
    assert_eq!(listed, [job(2)]);
    // It is tried again after a day, in blocks.
    known.block += LEAK_WINDOW_BLOCKS - 1;
    assert_eq!(refused(&known, &state), CLOSED);
    known.block += 1;
    assert_eq!(refused(&known, &state), None);
    assert!(pending(&known, &state).contains(&0));
}

#[test]
fn words_of_one_slot_count_together() {
    let (mut known, state) = placed();
    cannot(&mut known, &state, &[0, 2]);
    assert_eq!((refused(&known, &state), pending(&known, &state)), (CLOSED, vec![]));
    let next = known.slot(&state, |_| None);
    assert_eq!(next.replicas_of(job(1)).collect::<Vec<_>>(), [ReplicaIndex(1)]);
}

/// t workers that lie: one.
#[test]
fn a_lying_worker_makes_no_job_pending_and_gets_none_of_it_again() {
    let (mut known, state) = placed();
    cannot(&mut known, &state, &[0]);
    let state = known.slot(&state, |_| None);
    // Another replica leaves its worker for another reason: it does not go to the one that lies either.
    let (at, evicted) = word(&state, 1, GiveBackReason::Evicted);
    known.given_back = [(worker(at), [evicted].into())].into();
    assert_eq!((refused(&known, &state), pending(&known, &state)), (None, vec![0, 1]));
    let manifest = known.manifest(&state);
    let barred: BTreeSet<_> =
        state.barred(&manifest).map(|((_, replica), worker)| (replica.0, worker)).collect();
    assert_eq!(barred, [(0, worker(1)), (1, worker(1)), (1, worker(2))].into());
    let state = known.slot(&state, |_| Some(4));
    known.given_back.clear();
    assert_eq!((refused(&known, &state), pending(&known, &state)), (None, vec![]));
    assert_eq!(state.closed_to(&[], (state.last_slot(), 1), job(1)), [worker(1)].into());
}

#[test]
fn what_one_worker_says_of_several_replicas_counts_once() {
    let mut known = Known::new(LeasePolicy::Keep);
    known.demands.get_mut(&job(1)).unwrap().is_sealed = true;
    let state = known.slot(&ClusterState::default(), |_| Some(1));
    cannot(&mut known, &state, &[0, 1, 2]);
    assert_eq!((refused(&known, &state), pending(&known, &state)), (None, vec![0, 1, 2]));
    let state = known.slot(&state, |_| None);
    assert_eq!(refused(&known, &state), None);
    // None of them goes back to it.
    known.given_back.clear();
    let manifest = known.manifest(&state);
    assert!(!manifest.pending.is_empty());
    assert!(state.barred(&manifest).all(|(_, barred)| barred == worker(1)));
    assert_eq!(state.barred(&manifest).count(), manifest.pending.len());
}

#[test]
fn who_has_not_the_place_or_says_something_else_does_not_count() {
    let (mut known, state) = placed();
    // Of a place that is another's.
    let (_, word_of_one) = word(&state, 0, GiveBackReason::SealedPart);
    known.given_back = [(worker(2), [word_of_one.clone()].into())].into();
    assert_eq!(known.next(&state).given_back, []);
    // Of an earlier one.
    let earlier = GivenBack { placed: Slot(0), ..word_of_one };
    known.given_back = [(worker(1), [earlier].into())].into();
    assert_eq!(known.next(&state).given_back, []);
    // For another reason.
    let words = [0, 1].map(|replica| word(&state, replica, GiveBackReason::Evicted));
    known.given_back = words.into_iter().map(|(at, word)| (worker(at), [word].into())).collect();
    assert_eq!((known.next(&state).given_back.len(), refused(&known, &state)), (2, None));
    // Of a job that has nothing sealed.
    known.demands.get_mut(&job(1)).unwrap().is_sealed = false;
    cannot(&mut known, &state, &[0, 1]);
    assert_eq!((known.next(&state).given_back.len(), refused(&known, &state)), (2, None));
}

proptest! {
    /// Whatever workers say in whatever order, a job is closed exactly if two different ones have said it.
    #[test]
    fn it_takes_t_plus_1_different_workers(
        rounds in prop::collection::vec((0_u16..3, any::<bool>(), 1_u8..=4), 1..12),
    ) {
        let (mut known, mut state) = placed();
        let mut said = BTreeSet::new();
        for (replica, is_closed, next) in rounds {
            known.given_back.clear();
            if state.placement(job(1), ReplicaIndex(replica)).is_some() {
                let reason =
                    if is_closed { GiveBackReason::SealedPart } else { GiveBackReason::Evicted };
                let (at, word) = word(&state, replica, reason);
                known.given_back = [(worker(at), [word].into())].into();
                said.extend(is_closed.then_some(at));
            }
            state = known.slot(&state, |_| Some(next));
            known.given_back.clear();
            let closed_to = state.closed_to(&[], (state.last_slot(), known.block), job(1));
            prop_assert_eq!(closed_to, said.iter().copied().map(worker).collect());
            let lacks = state.replicas_of(job(1)).count() < 3;
            prop_assert_eq!(refused(&known, &state).is_some(), lacks && said.len() > 1);
        }
    }
}
