//! Batch jobs whose replicas end.

use veil_protocol_spec::scheduling::{MAX_DONE_OF_OPERATOR, ReplicaExit};

use super::{rules::Known, *};

fn ended(byte: u8, replica: u16, code: Option<i32>) -> EndedReplica {
    let exit = ReplicaExit { code, out_of_memory: false };
    EndedReplica { job: job(byte), replica: ReplicaIndex(replica), exit }
}

/// Job 1 is a batch job with three replicas, on workers 1 to 3.
fn batch() -> (Known, ClusterState) {
    let mut known = Known::new(LeasePolicy::Keep);
    known.demands.get_mut(&job(1)).unwrap().is_batch = true;
    let state = known.slot(&ClusterState::default(), |i| Some(i as u8 + 1));
    (known, state)
}

fn says(known: &mut Known, byte: u8, list: &[EndedReplica]) {
    known.ended.insert(worker(byte), list.into());
}

#[test]
fn a_batch_replica_that_has_ended_is_done_and_its_room_is_free() {
    let (mut known, state) = batch();
    says(&mut known, 2, &[ended(1, 1, Some(0))]);
    let next = known.next(&state);
    assert_eq!((&next.done, next.staying), (&vec![ended(1, 1, Some(0))], 2));
    assert!(next.pending.is_empty() && next.leaving.is_empty());
    let state = known.slot(&state, |_| None);
    assert_eq!((state.replicas().count(), state.last_freed()), (2, state.last_slot()));
    // Its worker repeats it until it has the certificate; nothing follows from that, nor from a restart of it.
    for listed in [&[ended(1, 1, Some(0))][..], &[]] {
        says(&mut known, 2, listed);
        let next = known.next(&state);
        assert_eq!((next.done.len(), next.pending.len(), next.staying), (0, 0, 2));
    }
    // A worker that is lost takes only what it had with it.
    known.lose(2, 0);
    assert_eq!(known.next(&state).pending, []);
    known.lose(1, 0);
    let again: Vec<_> = known.next(&state).pending.iter().map(|p| p.replica.0).collect();
    assert_eq!(again, [0]);
}

#[test]
fn only_the_worker_that_has_a_replica_says_that_it_has_ended() {
    let (mut known, state) = batch();
    says(&mut known, 1, &[ended(1, 1, Some(0))]);
    assert!(known.next(&state).done.is_empty(), "worker 2 has it");
    says(&mut known, 1, &[ended(1, 7, Some(0)), ended(2, 0, Some(0))]);
    assert!(known.next(&state).done.is_empty(), "nobody has these");
    says(&mut known, 1, &[ended(1, 0, Some(1))]);
    assert_eq!(known.next(&state).done, [ended(1, 0, Some(1))]);
    known.demands.get_mut(&job(1)).unwrap().is_batch = false;
    assert!(known.next(&state).done.is_empty(), "a service does not end");
}

/// It does not come back when its worker is drained, and it is not lost with its worker's word.
#[test]
fn what_has_ended_wants_no_other_place() {
    let (mut known, state) = batch();
    known.lose(2, 0);
    says(&mut known, 3, &[ended(1, 2, None)]);
    let next = known.next(&state);
    assert_eq!(next.pending.iter().map(|p| p.replica.0).collect::<Vec<_>>(), [1]);
    assert_eq!(next.done, [ended(1, 2, None)]);
}

#[test]
fn what_is_done_is_remembered_while_its_job_is_wanted() {
    let (mut known, state) = batch();
    says(&mut known, 2, &[ended(1, 1, Some(0))]);
    let state = known.slot(&state, |_| None);
    known.ended.clear();
    // Its image may be allowed again: the others leave then, and come back alone.
    let allowed = known.demands[&job(1)];
    let refused = Some(NotConsidered::Image);
    known.demands.insert(job(1), JobDemand { refused, ..allowed });
    let next = known.next(&state);
    assert_eq!(next.leaving.iter().map(|l| l.replica.0).collect::<Vec<_>>(), [0, 2]);
    let revoked = known.slot(&state, |_| None);
    known.demands.insert(job(1), allowed);
    let next = known.next(&revoked);
    assert_eq!(next.pending.iter().map(|p| p.replica.0).collect::<Vec<_>>(), [0, 2]);
    // Whoever withdraws the job has it forgotten.
    known.submissions[0].cancelled = true;
    let next = known.next(&state);
    assert_eq!(next.leaving.iter().map(|l| l.replica.0).collect::<Vec<_>>(), [0, 1, 2]);
    let state = known.slot(&state, |_| None);
    assert_eq!((state.replicas().count(), state.done().count()), (0, 0));
    assert!(known.next(&state).leaving.is_empty());
}

/// "A job that is not listed is no objection" in an appeal: its body may not have reached the proposer.
#[test]
fn a_judge_misses_what_the_telemetry_says_and_the_manifest_does_not() {
    let (mut known, state) = batch();
    says(&mut known, 1, &[ended(1, 0, Some(0))]);
    says(&mut known, 2, &[ended(1, 1, Some(3))]);
    let (listed, nothing) = ([job(1)].into(), BTreeSet::new());
    let judged = |known: &Known, done, in_appeal| {
        let pending = &BTreeSet::new();
        let next = known.judges(
            &state,
            Some(Judged {
                pending,
                done,
                versions: &BTreeSet::new(),
                forgotten: &[],
                runs: &[],
                leaving: &[],
                in_appeal,
            }),
        );
        (next.done.len(), next.unknown)
    };
    assert_eq!(judged(&known, &listed, false), (2, vec![]));
    assert_eq!(judged(&known, &nothing, false), (2, vec![]), "left out");
    assert_eq!(judged(&known, &listed, true), (2, vec![]), "each replica of a job that is listed");
    assert_eq!(judged(&known, &nothing, true), (0, vec![]));
    known.demands.clear();
    assert_eq!(judged(&known, &listed, true), (0, vec![job(1), job(1)]), "to be fetched");
    assert_eq!(judged(&known, &nothing, false), (0, vec![]));
    assert!(known.next(&state).done.is_empty(), "a proposer without the body");
}

/// An operator that never stops what is done uses up its own share and nobody else's.
#[test]
fn an_operator_cannot_have_all_that_is_remembered() {
    let mut known = Known::new(LeasePolicy::Keep);
    known.submissions.clear();
    let mut state = ClusterState::default();
    let per_job = 512;
    let jobs = MAX_DONE_OF_OPERATOR / usize::from(per_job) + 1;
    for k in 0..jobs {
        let byte = 10 + k as u8;
        known.submit(k as u64 + 1, byte, 1, 0, per_job);
        known.demands.get_mut(&job(byte)).unwrap().is_batch = true;
        while !known.next(&state).pending.is_empty() {
            state = known.slot(&state, |_| Some(1));
        }
        let list: Vec<_> = (0..per_job).map(|r| ended(byte, r, Some(0))).collect();
        says(&mut known, 1, &list);
        state = known.slot(&state, |_| None);
    }
    assert_eq!(state.done().count(), MAX_DONE_OF_OPERATOR);
    assert_eq!(state.replicas().count(), usize::from(per_job), "they keep their places");
    assert!(known.next(&state).done.is_empty());
    // Another operator's job ends all the same.
    known.submit(99, 99, 2, 0, 1);
    known.demands.get_mut(&job(99)).unwrap().is_batch = true;
    state = known.slot(&state, |_| Some(2));
    says(&mut known, 2, &[ended(99, 0, Some(0))]);
    assert_eq!(known.next(&state).done, [ended(99, 0, Some(0))]);
    // It stops a job that is done.
    known.submissions[0].cancelled = true;
    let state = known.slot(&state, |_| None);
    assert_eq!(known.next(&state).done.len(), usize::from(per_job));
}
