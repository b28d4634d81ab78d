//! System jobs, slot after slot.

use veil_protocol_spec::scheduling::{
    GiveBackReason, LEAK_WINDOW_BLOCKS, Note, RolloutPhase, UnixMillis, VersionTerms,
};

use super::{rules::Known, *};

mod events;

const LINE: JobLine = JobLine([7; 32]);

fn terms() -> VersionTerms {
    VersionTerms { replicas: 0, ..fixtures::terms(1) }
}

/// Job 1 is a system job; workers 1 to 4 are there.
fn known() -> Known {
    let mut known = Known::new(LeasePolicy::Keep);
    let demand = known.demands.get_mut(&job(1)).unwrap();
    (demand.replicas, demand.line, demand.terms) = (1, LINE, terms());
    known
}

/// Another version of it.
fn submit(known: &mut Known, position: u64, byte: u8, terms: VersionTerms) {
    known.submit(position, byte, 1, 0, 1);
    let demand = known.demands.get_mut(&job(byte)).unwrap();
    (demand.line, demand.terms) = (LINE, terms);
}

/// A slot in which each worker with room takes what is for it.
fn slot_with(known: &Known, state: &ClusterState, has_room: impl Fn(u8) -> bool) -> ClusterState {
    let manifest = known.manifest(state);
    assert_eq!(manifest.validate(committee()), Ok(()));
    let chosen = assignments(&manifest, |i| {
        let only = manifest.only(&manifest.pending[i]);
        only.filter(|worker| has_room(worker.0[0]))
    });
    state.follow(&record(state, manifest, chosen)).unwrap()
}

fn slot(known: &Known, state: &ClusterState) -> ClusterState {
    slot_with(known, state, |_| true)
}

fn started() -> (Known, ClusterState) {
    let known = known();
    let state = slot(&known, &ClusterState::default());
    (known, state)
}

/// Versions by worker.
fn places(state: &ClusterState) -> Vec<(u8, u8)> {
    let places = state.replicas().map(|(job, _, at)| (at.worker.0[0], job.0[0]));
    let mut places: Vec<_> = places.collect();
    places.sort_unstable();
    places
}

fn of_one(workers: &[u8]) -> Vec<(u8, u8)> {
    workers.iter().map(|worker| (*worker, 1)).collect()
}

/// For whom the next manifest lists a replica as pending.
fn asked(known: &Known, state: &ClusterState) -> Vec<u8> {
    let manifest = known.manifest(state);
    manifest.pending.iter().map(|pending| manifest.only(pending).unwrap().0[0]).collect()
}

fn is_quiet(known: &Known, state: &ClusterState) -> bool {
    let next = known.next(state);
    next.pending.is_empty() && next.leaving.is_empty() && next.given_back.is_empty()
}

fn index_at(state: &ClusterState, byte: u8) -> ReplicaIndex {
    state.replicas().find(|(.., at)| at.worker == worker(byte)).unwrap().1
}

/// What worker `byte` says of its replica.
fn word(state: &ClusterState, byte: u8, reason: GiveBackReason, has_stopped: bool) -> GivenBack {
    let found = state.replicas().find(|(.., at)| at.worker == worker(byte));
    let (job, replica, placement) = found.unwrap();
    let (until, note) = (Some(UnixMillis(9)), Note::default());
    GivenBack { job, replica, placed: placement.slot, reason, until, has_stopped, note }
}

fn says(known: &mut Known, byte: u8, word: GivenBack) {
    known.given_back = [(worker(byte), [word].into())].into();
}

#[test]
fn each_worker_that_may_run_it_has_one_and_whoever_comes_gets_one() {
    let mut known = known();
    known.telemetry.remove(&worker(4));
    known.unfit.insert(worker(2), Fit::Unfit);
    known.unfit.insert(worker(3), Fit::Closed);
    let state = slot(&known, &ClusterState::default());
    assert_eq!(places(&state), of_one(&[1]));
    assert!(is_quiet(&known, &state));
    known.telemetry.insert(worker(4));
    known.unfit.remove(&worker(3));
    assert_eq!(asked(&known, &state), [3, 4]);
    let state = slot(&known, &state);
    assert_eq!(places(&state), of_one(&[1, 3, 4]));
    // Its labels are changed: nobody else is disturbed.
    known.unfit.clear();
    let after = slot(&known, &state);
    assert_eq!(places(&after), of_one(&[1, 2, 3, 4]));
    assert!(state.replicas().all(|(job, replica, at)| after.placement(job, replica) == Some(at)));
    assert!(is_quiet(&known, &after));
}

#[test]
fn it_leaves_who_is_not_what_it_asks_for_or_has_left_the_registry() {
    for fit in [Fit::Unfit, Fit::Gone] {
        let (mut known, state) = started();
        known.unfit.insert(worker(2), fit);
        if fit == Fit::Gone {
            known.telemetry.remove(&worker(2));
        }
        let next = known.next(&state);
        let replica = index_at(&state, 2);
        assert_eq!(next.leaving, [LeavingReplica { job: job(1), replica }], "{fit:?}");
        assert_eq!((next.pending.len(), next.staying), (0, 3));
        let state = slot(&known, &state);
        assert_eq!(places(&state), of_one(&[1, 3, 4]));
        assert!(is_quiet(&known, &state));
        // It is what it was.
        known.unfit.clear();
        known.telemetry.insert(worker(2));
        assert_eq!(places(&slot(&known, &state)), of_one(&[1, 2, 3, 4]));
    }
    // One that is given nothing more keeps what it has.
    let (mut known, state) = started();
    known.unfit.insert(worker(2), Fit::Closed);
    assert!(is_quiet(&known, &state));
}

#[test]
fn a_lost_workers_replica_is_placed_nowhere_else_and_runs_when_it_is_back() {
    let (mut known, state) = started();
    known.lose(2, 100_000);
    assert!(is_quiet(&known, &state));
    let lost = slot(&known, &state);
    assert!(lost.lost_since(&worker(2)).is_some());
    assert!(lost.replicas().eq(state.replicas()));
    assert!(is_quiet(&known, &lost));
    known.returns(2);
    let back = slot(&known, &lost);
    assert!(is_quiet(&known, &back) && back.replicas().eq(state.replicas()));
    // It does not come back, and is taken out of the registry.
    known.unfit.insert(worker(2), Fit::Gone);
    known.telemetry.remove(&worker(2));
    assert_eq!(places(&slot(&known, &lost)), of_one(&[1, 3, 4]));
}

#[test]
fn without_room_it_waits_for_its_worker_under_its_index() {
    let known = known();
    let state = slot_with(&known, &ClusterState::default(), |byte| byte != 2);
    assert_eq!(places(&state), of_one(&[1, 3, 4]));
    let next = known.next(&state);
    assert_eq!((asked(&known, &state), next.failures), (vec![2], Some(1)));
    let replica = next.pending[0].replica;
    assert_eq!(state.last_place(job(1), replica), Some(worker(2)));
    let later = slot_with(&known, &state, |_| false);
    assert_eq!(known.next(&later).failures, Some(2), "less and less often");
    assert_eq!(known.next(&later).pending[0].replica, replica);
    let after = slot(&known, &later);
    assert_eq!(index_at(&after, 2), replica);
}

/// One bit for each try: whether that worker has room.
#[test]
fn a_try_is_charged_for_what_it_tells_of_one_worker() {
    let mut known = known();
    known.submissions[0].leak_bits = 4;
    let state = slot_with(&known, &ClusterState::default(), |_| false);
    assert_eq!(state.told(&job(1), 1).0, 4);
    let reason = known.next(&state).not_considered[&job(1)];
    assert!(matches!(reason, NotConsidered::LeakBits { told: 4, needed: 4, .. }), "{reason}");
    known.submissions[0].leak_bits = 8;
    assert_eq!(asked(&known, &state), [1, 2, 3, 4]);
}

#[test]
fn what_is_evicted_stops_and_does_not_come_back_soon() {
    let (mut known, state) = started();
    let replica = index_at(&state, 2);
    let notice = word(&state, 2, GiveBackReason::Evicted, false);
    says(&mut known, 2, notice);
    assert!(asked(&known, &state).is_empty());
    let state = slot(&known, &state);
    assert_eq!(places(&state), of_one(&[1, 2, 3, 4]), "until it has stopped");
    let stopped = word(&state, 2, GiveBackReason::Evicted, true);
    says(&mut known, 2, stopped);
    let state = slot(&known, &state);
    assert_eq!(places(&state), of_one(&[1, 3, 4]));
    known.given_back.clear();
    assert!(is_quiet(&known, &state), "no ping-pong");
    // Nor does another index get around that, nor an update.
    let mut updated = known.clone();
    submit(&mut updated, 9, 2, terms());
    let noted = slot(&updated, &state);
    assert!(!asked(&updated, &noted).contains(&2));
    // When it is forgotten it is as if it had not been.
    known.block += LEAK_WINDOW_BLOCKS;
    let state = slot(&known, &state);
    assert_eq!((places(&state), index_at(&state, 2)), (of_one(&[1, 2, 3, 4]), replica));
}

#[test]
fn a_drained_worker_gives_it_back_and_gets_it_again() {
    let (mut known, state) = started();
    known.draining.insert(worker(2));
    known.unfit.insert(worker(2), Fit::Closed);
    assert!(is_quiet(&known, &state), "it says when");
    let stopped = word(&state, 2, GiveBackReason::Drained, true);
    says(&mut known, 2, stopped);
    let state = slot(&known, &state);
    assert_eq!(places(&state), of_one(&[1, 3, 4]));
    known.given_back.clear();
    assert!(is_quiet(&known, &state));
    known.draining.clear();
    known.unfit.clear();
    let state = slot(&known, &state);
    assert_eq!(places(&state), of_one(&[1, 2, 3, 4]));
    // At once, if the drain is over before a certificate says what was stopped.
    let stopped = word(&state, 2, GiveBackReason::DrainEnded, true);
    says(&mut known, 2, stopped);
    assert_eq!(places(&slot(&known, &state)), of_one(&[1, 2, 3, 4]));
}

/// What all workers say of what was placed in an update.
fn all_say(known: &mut Known, state: &ClusterState, healthy: impl Fn(u8, u8) -> Option<bool>) {
    known.health.clear();
    for byte in (1..=4).filter(|byte| known.telemetry.contains(&worker(*byte))) {
        let said = state.unproven_at(worker(byte)).filter_map(|(job, replica, _)| {
            let healthy = healthy(job.0[0], byte)?;
            Some(ReplicaHealth { job, replica, healthy })
        });
        known.health.insert(worker(byte), said.collect());
    }
}

/// Slots until nothing is to be done.
fn until_quiet(
    known: &mut Known,
    mut state: ClusterState,
    healthy: impl Fn(u8, u8) -> Option<bool>,
    mut look: impl FnMut(&ClusterState),
) -> ClusterState {
    for _ in 0..60 {
        all_say(known, &state, &healthy);
        if is_quiet(known, &state) && known.next(&state).rollouts.is_empty() {
            return state;
        }
        state = slot(known, &state);
        look(&state);
    }
    panic!("it does not come to an end: {:?}", places(&state));
}

fn phase(state: &ClusterState) -> RolloutPhase {
    state.line(&LINE).unwrap().phase()
}

#[test]
fn an_update_goes_from_worker_to_worker() {
    for (max_parallel, stops_first) in [(1, false), (2, false), (1, true), (3, true)] {
        let (mut known, state) = started();
        submit(&mut known, 9, 2, VersionTerms { max_parallel, stops_first, ..terms() });
        let end = until_quiet(
            &mut known,
            state,
            |_, _| Some(true),
            |state| {
                let proven = |worker: u8| {
                    state.replicas().any(|(job, replica, at)| {
                        at.worker == self::worker(worker) && !state.is_unproven(job, replica)
                    })
                };
                let serving = (1..=4).filter(|worker| proven(*worker)).count();
                let least = if stops_first { 4 - usize::from(max_parallel) } else { 4 };
                assert!(serving >= least, "{max_parallel} {stops_first}: {:?}", places(state));
                // Never two of one version at a worker, nor two versions where both cannot run.
                let mut places = places(state);
                if stops_first {
                    places.iter_mut().for_each(|(_, version)| *version = 0);
                }
                assert!(places.windows(2).all(|two| two[0] != two[1]), "{places:?}");
            },
        );
        assert_eq!(places(&end), [(1, 2), (2, 2), (3, 2), (4, 2)]);
        assert_eq!(phase(&end), RolloutPhase::Settled);
    }
}

#[test]
fn an_update_that_breaks_reverts_on_every_worker() {
    for broken in 1..=4 {
        for stops_first in [false, true] {
            let (mut known, state) = started();
            submit(&mut known, 9, 2, VersionTerms { stops_first, ..terms() });
            let healthy = |version, worker| Some(version == 1 || worker != broken);
            let end = until_quiet(&mut known, state, healthy, |_| {});
            assert_eq!(places(&end), of_one(&[1, 2, 3, 4]), "{broken} {stops_first}");
        }
    }
}

#[test]
fn a_lost_worker_holds_an_update_up_on_no_other() {
    for stops_first in [false, true] {
        // Before the new version came, and while it was placed there.
        for before in [true, false] {
            let (mut known, state) = started();
            submit(&mut known, 9, 2, VersionTerms { stops_first, ..terms() });
            let mut state = slot(&known, &state);
            for _ in 0..if before { 0 } else { 1 + usize::from(stops_first) } {
                state = slot(&known, &state);
            }
            known.lose(1, 100_000);
            let state = slot(&known, &state);
            let state = until_quiet(&mut known, state, |_, _| Some(true), |_| {});
            let others: Vec<_> = places(&state).into_iter().filter(|(w, _)| *w != 1).collect();
            assert_eq!(others, [(2, 2), (3, 2), (4, 2)], "{stops_first} {before}");
            known.returns(1);
            let end = until_quiet(&mut known, state, |_, _| Some(true), |_| {});
            assert_eq!(places(&end), [(1, 2), (2, 2), (3, 2), (4, 2)], "{stops_first} {before}");
            assert_eq!(phase(&end), RolloutPhase::Settled);
        }
    }
}

/// An update on a worker that leaves between the old replica's end and the new one's place.
#[test]
fn nobody_waits_for_a_worker_that_has_left() {
    let (mut known, state) = started();
    submit(&mut known, 9, 2, VersionTerms { stops_first: true, ..terms() });
    let noted = slot(&known, &state);
    let left = slot(&known, &noted);
    let (replica, gone) = left.homes_of(job(2)).next().unwrap();
    known.unfit.insert(gone, Fit::Gone);
    known.telemetry.remove(&gone);
    assert!(known.next(&left).leaving.contains(&LeavingReplica { job: job(2), replica }));
    let end = until_quiet(&mut known, left, |_, _| Some(true), |_| {});
    assert_eq!((places(&end).len(), phase(&end)), (3, RolloutPhase::Settled));
    assert!(places(&end).iter().all(|(_, version)| *version == 2));
}

#[test]
fn a_service_becomes_a_system_job_and_one_a_service() {
    let (mut known, state) = started();
    submit(&mut known, 9, 2, fixtures::terms(2));
    known.demands.get_mut(&job(2)).unwrap().replicas = 2;
    let mut service = state;
    for _ in 0..10 {
        all_say(&mut known, &service, |_, _| Some(true));
        let manifest = known.manifest(&service);
        let chosen = assignments(&manifest, |i| Some(worker(2 + i as u8)));
        service = service.follow(&record(&service, manifest, chosen)).unwrap();
    }
    assert_eq!(service.replicas_of(job(2)).count(), 2);
    assert_eq!(service.replicas().count(), 2);
    submit(&mut known, 12, 3, terms());
    let end = until_quiet(&mut known, service, |_, _| Some(true), |_| {});
    assert_eq!(places(&end), [(1, 3), (2, 3), (3, 3), (4, 3)]);
}

/// A proposer that does not know the body can list nothing of it, and nobody objects; one that knows it is judged by
/// whoever gets it.
#[test]
fn what_a_proposer_cannot_know_is_no_objection_and_the_rest_is_compared() {
    let (mut known, state) = started();
    known.unfit.insert(worker(2), Fit::Unfit);
    let judged = |known: &Known, manifest: &Manifest| {
        let pending = manifest.pending.iter().map(|pending| pending.job).collect();
        let none = BTreeSet::new();
        known.judges(
            &state,
            Some(Judged {
                pending: &pending,
                done: &none,
                versions: &none,
                forgotten: &[],
                leaving: &manifest.leaving,
                runs: &manifest.runs,
                in_appeal: false,
            }),
        )
    };
    let mut ignorant = known.clone();
    ignorant.demands.clear();
    let written = ignorant.manifest(&state);
    assert_eq!(written.leaving, []);
    assert_eq!(judged(&known, &written).leaving, [], "no objection");
    let manifest = known.manifest(&state);
    assert_eq!(manifest.leaving.len(), 1);
    assert_eq!(judged(&known, &manifest).leaving, manifest.leaving);
    assert_eq!(judged(&ignorant, &manifest).unknown, [job(1)], "it gets the body first");
    // Of a worker that fits nothing leaves, whoever says so.
    let mut lie = manifest.clone();
    lie.leaving = vec![LeavingReplica { job: job(1), replica: index_at(&state, 3) }];
    assert_ne!(judged(&known, &lie).leaving, lie.leaving);
    lie.leaving = [lie.leaving, manifest.leaving.clone()].concat();
    lie.leaving.sort_unstable();
    assert_eq!(judged(&known, &lie).leaving, manifest.leaving);
}
