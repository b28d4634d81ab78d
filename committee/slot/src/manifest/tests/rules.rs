//! Which block a manifest names, and what it says of lost workers.

use veil_protocol_spec::{
    ReplicaIndex,
    scheduling::{GiveBackReason, Note, ReplicaExit, SAMPLE},
};

use veil_scheduler_plan::cost::{most_pairs, pairs_of};

use super::*;

/// Finding M2: a proposer could name any block, however old, and with it withdrawn jobs and old policies.
#[test]
fn a_manifest_names_a_settled_block_that_is_neither_old_nor_before_the_last() {
    let mut known = known();
    let first = local_view(&known).propose(member(2));
    let validate = |known: &Known, settled, max_block_age, number| {
        let block = BlockRef { number, hash: KeccakDigest([9; 32]) };
        let view = LocalView { block, settled, max_block_age, ..local_view(known) };
        view.validate_facts(&view.propose(member(2)), member(2))
    };
    let refused = |block, first, last| Err(InvalidManifest::Block { block, first, last });
    assert_eq!(validate(&known, 9, MAX_BLOCK_AGE, 9), Ok(()));
    assert_eq!(validate(&known, 8, MAX_BLOCK_AGE, 9), refused(9, 0, 8), "not settled here");
    assert_eq!(validate(&known, 9 + MAX_BLOCK_AGE, MAX_BLOCK_AGE, 9), Ok(()));
    let old = validate(&known, 10 + MAX_BLOCK_AGE, MAX_BLOCK_AGE, 9);
    assert_eq!(old, refused(9, 10, 10 + MAX_BLOCK_AGE));
    // How far this member's chain is by now is no objection in an appeal.
    assert_eq!(validate(&known, 10 + MAX_BLOCK_AGE, u64::MAX, 9), Ok(()));
    known.state = after(&known, &first);
    assert_eq!(validate(&known, 20, MAX_BLOCK_AGE, 9), Ok(()), "a slot may come before a block");
    assert_eq!(validate(&known, 20, u64::MAX, 8), refused(8, 9, 20));
    let earlier = BlockRef { number: 8, hash: KeccakDigest([9; 32]) };
    assert!(!LocalView { block: earlier, ..local_view(&known) }.is_current());
}

/// A worker that sends one message to the proposer and another to the others, or a member with a wrong clock,
/// must not stop 2t+1 members that agree.
#[test]
fn an_appeal_leaves_out_what_depends_on_a_members_clock_and_on_what_reached_it() {
    let known = known();
    let manifest = local_view(&known).propose(member(2));
    let fetched =
        |entry: &TelemetryEntry| (1..=3).map(candidate).find(|candidate| candidate.entry == *entry);
    let judged = |view: &LocalView<'_>| judge(view, &manifest, member(2), fetched);
    // It has another message of worker 3, and one of worker 4 that the proposer lacks.
    let mut other = known.clone();
    other.fresh[2].entry.digest = Blake3Digest([0x33; 32]);
    other.workers.insert(worker(4));
    other.fresh.push(candidate(4));
    assert_eq!(judged(&local_view(&other)), Err(InvalidManifest::LeftOut(worker(4))));
    assert_eq!(judged(&local_view(&other).in_appeal()), Ok(()));
    // Its clock is fast.
    let fast = LocalView { not_before: UnixMillis(NOW.0 + 1), ..local_view(&known) };
    let too_old = InvalidManifest::Telemetry { worker: worker(1), reason: "it is too old" };
    assert_eq!(judged(&fast), Err(too_old));
    assert_eq!(judged(&fast.in_appeal()), Ok(()));
    // Its chain has gone on since.
    let late = LocalView { settled: 10 + MAX_BLOCK_AGE, ..local_view(&known) };
    assert!(matches!(judged(&late), Err(InvalidManifest::Block { .. })));
    assert_eq!(judged(&late.in_appeal()), Ok(()));
    // What all see alike is an objection in an appeal, too.
    let policy = KeccakDigest([1; 32]);
    let view = LocalView { policy, ..local_view(&known) }.in_appeal();
    assert_eq!(judged(&view), Err(InvalidManifest::Differs("policy")));
    let mut left = known.clone();
    left.workers.remove(&worker(3));
    let reason = "it is not a registered worker";
    let refused = InvalidManifest::Telemetry { worker: worker(3), reason };
    assert_eq!(judged(&local_view(&left).in_appeal()), Err(refused));
}

/// Finding B1, from suspicions to lists: first the loss is certified, then the lease is waited for, by
/// times of which one honest member signs one.
#[test]
fn an_exclusive_replica_is_listed_when_one_honest_member_knows_that_its_lease_is_over() {
    let mut known = known();
    known.fresh.truncate(1);
    let first = local_view(&known).propose(member(2));
    known.state = after(&known, &first);
    known.fresh = [2, 3].map(candidate).to_vec();
    fn view(known: &Known) -> LocalView<'_> {
        LocalView { jobs: &exclusive, ..local_view(known) }
    }
    let validated = |known: &Known, manifest: &Manifest| {
        judge(&view(known), manifest, member(2), |entry| {
            (1..=3).map(candidate).find(|c| c.entry == *entry)
        })
    };
    assert_eq!(view(&known).work(), Work::Nothing);
    let suspected = |known: &mut Known, lost_for: [u32; 3]| {
        let slot = Slot(known.state.last_slot().0 + 1);
        for (j, lost_for) in [1, 3, 4].into_iter().zip(lost_for) {
            let suspicion = Suspicion { binding: binding(), slot, worker: worker(1), lost_for };
            let signed = suspicion.sign(member(j), &secret(j));
            known.suspicions.entry(worker(1)).or_default().insert(member(j), signed);
        }
    };
    suspected(&mut known, [0; 3]);
    assert_eq!(view(&known).work(), Work::Now, "that it is lost is to be certified");
    let loss = view(&known).propose(member(2));
    assert_eq!((loss.pending.len(), loss.leaving.len()), (0, 0));
    assert_eq!(known.state.running(&loss).count(), 2);
    assert_eq!(validated(&known, &loss), Ok(()));
    known.state = after(&known, &loss);
    assert_eq!(known.state.lost_since(&worker(1)), Some(Slot(2)));

    let wait = wait_seconds(LeasePolicy::Exclusive { seconds: 60 }).unwrap();
    for early in [[0; 3], [wait - 1; 3], [u32::MAX, 0, 0]] {
        suspected(&mut known, early);
        assert_eq!(view(&known).work(), Work::Nothing, "{early:?}");
    }
    // t members may say what they like; with one honest member it is due, whoever is silent.
    suspected(&mut known, [u32::MAX, wait, 0]);
    assert_eq!(view(&known).work(), Work::Now);
    let due = view(&known).propose(member(2));
    assert_eq!((due.pending.len(), due.lost[0].lost_for()), (2, wait));
    assert!(known.state.running(&due).all(|running| running.state == ReplicaState::Draining));
    assert_eq!(validated(&known, &due), Ok(()));
    // A proposer cannot list them with suspicions that say less.
    let mut early = due.clone();
    early.lost[0].suspicions = [1, 4].map(|j| known.suspicions[&worker(1)][&member(j)]).to_vec();
    let differs = InvalidManifest::Differs("list of pending replicas");
    assert_eq!(validated(&known, &early), Err(differs));
    // Nor change what they say.
    let mut forged = due;
    forged.lost[0].suspicions[1].lost_for = u32::MAX;
    let refused = InvalidManifest::Suspicion { worker: worker(1), member: member(3) };
    assert_eq!(validated(&known, &forged), Err(refused));
    // It is back, and knows that it counted as lost: one slot takes that back.
    known.suspicions.clear();
    known.fresh = [candidate(2), TelemetryRef { includes_slot: Slot(2), ..candidate(1) }].to_vec();
    assert_eq!(view(&known).work(), Work::Now);
    let back = view(&known).propose(member(2));
    assert_eq!((back.pending.len(), back.telemetry.len()), (0, 2));
    known.state = after(&known, &back);
    assert_eq!(known.state.lost_since(&worker(1)), None);
    assert_eq!(known.state.assigned_to(worker(1)).count(), 2);
}

/// Section 6, 7 of the scheduler's review: one job of 1,024 replicas stopped everybody's placement for hours.
#[test]
fn a_manifest_that_costs_too_much_is_refused_before_anything_is_fetched() {
    let mut known = known();
    let workers: Vec<_> = (1..=200).collect();
    known.workers = workers.iter().copied().map(worker).collect();
    known.fresh = workers.iter().copied().map(candidate).collect();
    known.submissions[0].leak_bits = u32::MAX;
    let many = |job: &Blake3Digest| two(job).map(|demand| JobDemand { replicas: 1024, ..demand });
    let view = LocalView { jobs: &many, max_workers: 1024, ..local_view(&known) };
    let most = most_pairs(0) / pairs_of(SAMPLE.into());
    let good = view.propose(member(2));
    assert_eq!((good.pending.len(), good.telemetry.len()), (most, 200));
    let knows_nothing = LocalView { jobs: &|_| None, fresh: &[], ..view };
    assert_eq!(knows_nothing.validate_facts(&good, member(2)), Ok(()));
    let mut costly = good;
    let last = costly.pending[most - 1];
    let replica = veil_protocol_spec::ReplicaIndex(last.replica.0 + 1);
    costly.pending.push(PendingReplica { replica, ..last });
    let (found, most) = ((most + 1) * pairs_of(SAMPLE.into()), most_pairs(0));
    let refused = InvalidManifest::TooCostly { found, most };
    assert_eq!(knows_nothing.validate_facts(&costly, member(2)), Err(refused));
    // Nor does a proposer choose how many are asked.
    for candidates in [0, 1, SAMPLE - 1, SAMPLE + 1, u16::MAX] {
        costly.pending.truncate(3);
        costly.pending[1].candidates = candidates;
        let refused = knows_nothing.validate_facts(&costly, member(2));
        assert_eq!(refused, Err(InvalidManifest::Differs("number of candidates")));
    }
}

/// Locked, it would have ended void, or, before slots could, the cluster.
#[test]
fn what_could_not_be_evaluated_is_refused() {
    let known = known();
    let manifest = local_view(&known).propose(member(2));
    let planned = |view: &LocalView<'_>, manifest: &Manifest, plan| {
        let found = |entry: &TelemetryEntry| (1..=3).map(candidate).find(|c| c.entry == *entry);
        view.validate_lists(manifest, || plan, found)
    };
    let error = PlanError::TooManyWorkers { found: 3, max: 2 };
    let refused = Err(InvalidManifest::Unplannable(error.clone()));
    assert_eq!(planned(&local_view(&known), &manifest, Err(error.clone())), refused);
    assert_eq!(planned(&local_view(&known).in_appeal(), &manifest, Err(error.clone())), refused);
    assert_eq!(planned(&local_view(&known), &manifest, Ok(())), Ok(()));
    // Without workers nothing is evaluated, and all stays pending.
    let nobody = Known { fresh: Vec::new(), ..known };
    let manifest = local_view(&nobody).propose(member(2));
    assert_eq!(planned(&local_view(&nobody), &manifest, Err(error)), Ok(()));
}

/// A judge goes by the telemetry that the manifest names, and by nothing else.
#[test]
fn what_is_given_back_is_what_the_telemetry_says() {
    let mut known = known();
    let first = local_view(&known).propose(member(2));
    known.state = after(&known, &first);
    let placed = known.state.placement(JOB, ReplicaIndex(0)).unwrap();
    assert_eq!((placed.worker, local_view(&known).work()), (worker(1), Work::Nothing));
    for of in &mut known.fresh {
        of.includes_slot = Slot(1);
    }
    let silent = known.clone();
    let word = GivenBack {
        job: JOB,
        replica: ReplicaIndex(0),
        placed: placed.slot,
        reason: GiveBackReason::Evicted,
        until: Some(UnixMillis(NOW.0 + 600_000)),
        has_stopped: false,
        note: Note::default(),
    };
    known.fresh[0].given_back = [word.clone()].into();
    assert_eq!(local_view(&known).work(), Work::Now);
    let manifest = local_view(&known).propose(member(2));
    assert_eq!(manifest.given_back, [word]);
    assert_eq!(manifest.pending.iter().map(|p| p.replica.0).collect::<Vec<_>>(), [0]);
    let judged = |view: &LocalView<'_>, manifest: &Manifest, of: &Known| {
        judge(view, manifest, member(2), |entry| {
            of.fresh.iter().find(|candidate| candidate.entry == *entry).cloned()
        })
    };
    assert_eq!(judged(&local_view(&known), &manifest, &known), Ok(()));
    assert_eq!(judged(&local_view(&known).in_appeal(), &manifest, &known), Ok(()));
    // A message that says nothing of it; word that is left out or changed: in an appeal too, since the messages are
    // there to compare with.
    let differs = |what| Err(InvalidManifest::Differs(what));
    let list = "list of replicas that are given back";
    assert_eq!(
        judged(&local_view(&silent), &manifest, &silent),
        differs("list of pending replicas")
    );
    let mut other = manifest.clone();
    other.given_back[0].has_stopped = true;
    assert_eq!(judged(&local_view(&known), &other, &known), differs(list));
    assert_eq!(judged(&local_view(&known).in_appeal(), &other, &known), differs(list));
    other.given_back.clear();
    assert_eq!(judged(&local_view(&known).in_appeal(), &other, &known), differs(list));
    // Of a place that it has not, which nobody needs to fetch anything for.
    let mut other = manifest.clone();
    other.given_back[0].placed = Slot(7);
    assert_eq!(local_view(&known).validate_facts(&other, member(2)), differs(list));
    known.state = after(&known, &manifest);
    assert_eq!(known.state.returned().count(), 1);
}

#[test]
fn what_is_done_is_what_the_telemetry_says() {
    let mut known = known();
    let first = local_view(&known).propose(member(2));
    known.state = after(&known, &first);
    fn batch(job: &Blake3Digest) -> Option<JobDemand> {
        two(job).map(|demand| JobDemand { is_batch: true, ..demand })
    }
    fn view(known: &Known) -> LocalView<'_> {
        LocalView { jobs: &batch, ..local_view(known) }
    }
    let exit = ReplicaExit { code: Some(3), out_of_memory: false };
    let ended = EndedReplica { job: JOB, replica: ReplicaIndex(0), exit };
    let placed = known.state.placement(JOB, ReplicaIndex(0)).unwrap().worker;
    assert_eq!((placed, view(&known).work()), (worker(1), Work::Nothing));
    for of in &mut known.fresh {
        of.includes_slot = Slot(1);
    }
    let silent = known.clone();
    known.fresh[0].ended = [ended].into();
    assert_eq!(view(&known).work(), Work::Now);
    let manifest = view(&known).propose(member(2));
    assert_eq!((manifest.done.as_slice(), manifest.pending.len()), (&[ended][..], 0));
    let judged = |view: &LocalView<'_>, manifest: &Manifest, of: &Known| {
        judge(view, manifest, member(2), |entry| {
            of.fresh.iter().find(|candidate| candidate.entry == *entry).cloned()
        })
    };
    assert_eq!(judged(&view(&known), &manifest, &known), Ok(()));
    assert_eq!(judged(&view(&known).in_appeal(), &manifest, &known), Ok(()));
    let differs = || Err(InvalidManifest::Differs("list of replicas that are done"));
    // The message says nothing of it, or something else.
    assert_eq!(judged(&view(&silent), &manifest, &silent), differs());
    assert_eq!(judged(&view(&silent).in_appeal(), &manifest, &silent), differs());
    let mut other = manifest.clone();
    other.done[0].exit.code = Some(0);
    assert_eq!(judged(&view(&known), &other, &known), differs());
    // It is left out: no objection in an appeal, where its body may not have reached the proposer.
    other.done.clear();
    assert_eq!(judged(&view(&known), &other, &known), differs());
    assert_eq!(judged(&view(&known).in_appeal(), &other, &known), Ok(()));
    known.state = after(&known, &manifest);
    assert!(known.state.is_done(JOB, ReplicaIndex(0)));
    assert_eq!(view(&known).work(), Work::Nothing, "it is done");
}
