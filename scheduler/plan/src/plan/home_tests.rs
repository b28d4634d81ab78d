//! What workers say of themselves, and replicas that stay where their volume is.

#![allow(clippy::unwrap_used, reason = "a test that unwraps has failed")]

use veil_protocol_spec::{Address, PeerIdHash, ReplicaIndex, scheduling::*};

use super::{
    tests::{job, orders, slot},
    *,
};
use crate::unfit::{OnChain, Unfit};

fn worker(number: u8) -> PeerIdHash {
    PeerIdHash([number; 32])
}

fn host_volume(on_loss: OnLoss) -> Volume {
    Volume {
        name: "data".parse().unwrap(),
        mount: "/data".parse().unwrap(),
        kind: VolumeKind::Host { on_loss },
        read_only: false,
    }
}

/// A job of `replicas` with a volume that workers 1 to 4 of 7 offer.
fn with_volume(on_loss: OnLoss, replicas: u16) -> (Manifest, PublicInputs) {
    let spec = JobSpec { volumes: vec![host_volume(on_loss)], ..job(SchedulingPolicy::Spread) };
    let (manifest, mut public) = slot(&spec, replicas);
    for number in 1..=4 {
        let volumes = vec!["data".parse().unwrap()];
        public.profiles.insert(worker(number), Profile { volumes, ..Profile::default() });
    }
    (manifest, public)
}

fn sorted(mut workers: Vec<usize>) -> Vec<usize> {
    workers.sort_unstable();
    workers
}

#[test]
fn a_replica_stays_where_its_volume_is() {
    for on_loss in [OnLoss::Pending, OnLoss::Empty] {
        let (manifest, mut public) = with_volume(on_loss, 3);
        let job = manifest.pending[0].job;
        // One had its place at worker 2, one at a worker that sent no telemetry, one nowhere.
        public.previous.insert((job, ReplicaIndex(0)), worker(2));
        public.previous.insert((job, ReplicaIndex(1)), worker(99));
        let orders: Vec<_> = orders(&manifest, &public).into_iter().map(sorted).collect();
        let elsewhere = if on_loss == OnLoss::Empty { vec![0, 1, 2, 3] } else { vec![] };
        assert_eq!(orders, [vec![1], elsewhere, vec![0, 1, 2, 3]], "{on_loss:?}");
    }
}

/// The answer about a replica that has a home tells of that worker alone: no minimum is asked for.
#[test]
fn a_replica_goes_home_though_too_few_offer_its_volume() {
    let (manifest, mut public) = with_volume(OnLoss::Pending, 2);
    let job = manifest.pending[0].job;
    (2..=4).for_each(|number| drop(public.profiles.remove(&worker(number))));
    public.previous.insert((job, ReplicaIndex(1)), worker(1));
    assert_eq!(orders(&manifest, &public), [vec![], vec![0]]);
    let plan = Plan::new(&manifest, &public).unwrap();
    let refusal = &plan.refusals()[&job];
    let JobRefusal::TooFewCandidates { found: 1, min: 3, unfit } = refusal else {
        panic!("{refusal}")
    };
    assert_eq!(unfit.of(Unfit::Volume), 6);
    assert!(refusal.to_string().contains("6 for want of a volume"), "{refusal}");
    // A home that is drained, or offers the volume no more, is none.
    public.profiles.clear();
    assert_eq!(orders(&manifest, &public), [vec![], vec![]]);
}

/// One replica of a system job for each worker, under indices beyond the job's number of replicas.
#[test]
fn a_replica_of_a_system_job_is_for_its_worker_however_few_fit() {
    let spec = JobSpec { kind: JobType::System, replicas: 1, ..job(SchedulingPolicy::Spread) };
    let mut labelled = spec.clone();
    labelled.constraints.allow = vec!["gpu=a100".parse().unwrap()];
    let (mut manifest, mut public) = slot(&labelled, 7);
    manifest.pending.iter_mut().zip(0..).for_each(|(pending, at)| pending.only = Some(at));
    public.labels.insert(worker(2), labelled.constraints.allow.clone());
    // Only worker 2 may run it: the others' answers are public, and no minimum is asked for.
    let one: Vec<Vec<usize>> = vec![vec![], vec![1], vec![], vec![], vec![], vec![], vec![]];
    assert_eq!(orders(&manifest, &public), one);
    let plan = Plan::new(&manifest, &public).unwrap();
    assert_eq!((plan.refusals().len(), plan.output_digits()), (0, 1));
    public.closed.insert(worker(2));
    assert_eq!(orders(&manifest, &public).concat(), [0; 0]);
    public.closed.clear();
    // Who gave it back does not get it.
    let (job, replica) = (manifest.pending[1].job, manifest.pending[1].replica);
    public.barred.insert(((job, replica), worker(2)));
    assert_eq!(orders(&manifest, &public).concat(), [0; 0]);
    // Each is for a worker, and one of another job for none.
    manifest.pending[1].only = None;
    let error = Plan::new(&manifest, &public).unwrap_err();
    assert_eq!(error, PlanError::OneWorker { job, replica });
    let (mut manifest, public) = slot(&super::tests::job(SchedulingPolicy::Spread), 1);
    manifest.pending[0].only = Some(0);
    assert!(matches!(Plan::new(&manifest, &public), Err(PlanError::OneWorker { .. })));
}

#[test]
fn what_a_worker_accepts_and_says_is_matched() {
    let plain = job(SchedulingPolicy::Spread);
    let lacks = |spec: &JobSpec, profile: &Profile| Unfit::of(spec, OnChain::default(), profile);
    let nothing = Profile::default();
    assert_eq!(lacks(&plain, &nothing), None);
    let by = |accepts| Profile { accepts, ..Profile::default() };
    let others = by(Accepts { operators: Some(vec![Address([9; 20])]), ..Accepts::default() });
    assert_eq!(lacks(&plain, &others), Some(Unfit::Operator));
    let own = by(Accepts { operators: Some(vec![plain.operator]), ..Accepts::default() });
    assert_eq!(lacks(&plain, &own), None);
    let images = |text: &str| {
        by(Accepts { images: Some(vec![text.parse().unwrap()]), ..Accepts::default() })
    };
    assert_eq!(lacks(&plain, &images("localhost:5000")), None);
    assert_eq!(lacks(&plain, &images("docker.io")), Some(Unfit::Image));
    let wide = JobSpec { egress: Egress::AllowPrivate, ..plain.clone() };
    assert_eq!(lacks(&wide, &nothing), Some(Unfit::Egress));
    let keeps = JobSpec { volumes: vec![host_volume(OnLoss::Empty)], ..plain.clone() };
    assert_eq!(lacks(&keeps, &nothing), Some(Unfit::Volume));
    // A fact is a label like one on chain, and the chain's comes with it.
    let mut arm = plain.clone();
    arm.constraints.allow = vec!["veil/arch=arm64".parse().unwrap(), "zone=a".parse().unwrap()];
    let facts = vec!["veil/arch=arm64".parse().unwrap()];
    let says = Profile { facts, ..Profile::default() };
    let zone = ["zone=a".parse().unwrap()];
    let chain = OnChain { labels: &zone, ..OnChain::default() };
    assert_eq!(Unfit::of(&arm, chain, &says), None);
    assert_eq!(Unfit::of(&arm, chain, &nothing), Some(Unfit::Labels));
    assert_eq!(lacks(&arm, &says), Some(Unfit::Labels));
}

#[test]
fn only_workers_of_the_organisations_that_a_job_names_are_candidates() {
    let acme: Organisation = "Acme".parse().unwrap();
    let zoo: Organisation = "Zoo".parse().unwrap();
    let mut spec = job(SchedulingPolicy::Spread);
    spec.constraints.organisations = Organisations::Of(vec![acme.clone()]);
    let (manifest, mut public) = slot(&spec, 1);
    public.policy.min_candidates = 1;
    for (number, organisation) in [(1, &acme), (2, &zoo), (4, &acme)] {
        public.organisations.insert(worker(number), organisation.clone());
    }
    // Worker 3 says of itself what the chain does not say.
    let facts = vec!["organisation=Acme".parse().unwrap()];
    public.profiles.insert(worker(3), Profile { facts, ..Profile::default() });
    let named: Vec<_> = orders(&manifest, &public).into_iter().map(sorted).collect();
    assert_eq!(named, [vec![0, 3]]);
    // They narrow the candidates as labels do.
    public.policy.min_candidates = 0;
    let plan = Plan::new(&manifest, &public).unwrap();
    let refusal = &plan.refusals()[&manifest.pending[0].job];
    let JobRefusal::TooFewCandidates { found: 2, min: 3, unfit } = refusal else {
        panic!("{refusal}")
    };
    assert_eq!(unfit.of(Unfit::Organisation), 5);
    assert!(refusal.to_string().contains("5 by organisation"), "{refusal}");
}

#[test]
fn a_worker_takes_the_jobs_of_organisations_that_it_names() {
    let acme: Organisation = "Acme".parse().unwrap();
    let spec = job(SchedulingPolicy::Spread);
    let (manifest, mut public) = slot(&spec, 1);
    public.policy.min_candidates = 1;
    for number in 1..=5 {
        let organisations = Some(vec![acme.clone()]);
        let accepts = Accepts { organisations, ..Accepts::default() };
        public.profiles.insert(worker(number), Profile { accepts, ..Profile::default() });
    }
    let candidates = |public: &PublicInputs| sorted(orders(&manifest, public).remove(0));
    assert_eq!(candidates(&public), [5, 6]);
    public.submitters.insert(Address([9; 20]), vec![acme.clone()]);
    assert_eq!(candidates(&public), [5, 6], "it is another account's");
    public.submitters.insert(spec.operator, vec!["Aaa".parse().unwrap(), acme]);
    assert_eq!(candidates(&public), [0, 1, 2, 3, 4, 5, 6]);
}

/// Only that replica, and only from that worker.
#[test]
fn who_gave_a_replica_back_gets_it_not_again() {
    let (manifest, mut public) = slot(&job(SchedulingPolicy::Spread), 2);
    public.policy.min_candidates = 6;
    let of = (manifest.pending[0].job, ReplicaIndex(0));
    public.barred.insert((of, worker(3)));
    let found = orders(&manifest, &public);
    assert_eq!((found[0].len(), found[0].contains(&2)), (6, false));
    assert_eq!(found[1].len(), 7);
    // A worker that is not there takes nobody's place.
    public.barred = [(of, worker(9))].into();
    assert_eq!(orders(&manifest, &public)[0].len(), 7);
    // Nor does one of several.
    public.policy.min_candidates = 5;
    public.barred.extend([(of, worker(3)), (of, worker(4))]);
    assert_eq!(orders(&manifest, &public)[0].len(), 5);
    assert!(!orders(&manifest, &public)[0].iter().any(|at| [2, 3].contains(at)));
    public.policy.min_candidates = 6;
    assert_eq!(orders(&manifest, &public)[0].len(), 0);
    // The answer would tell too much about those that are left.
    public.barred = [(of, worker(3))].into();
    public.policy.min_candidates = 7;
    assert_eq!(orders(&manifest, &public).iter().map(Vec::len).collect::<Vec<_>>(), [0, 7]);
    // Its data is at the worker that gave it back.
    public.policy.min_candidates = 1;
    let volumes = vec![host_volume(OnLoss::Pending)];
    let bound = JobSpec { volumes, ..job(SchedulingPolicy::Spread) };
    let (manifest, mut public) = slot(&bound, 1);
    let of = (manifest.pending[0].job, ReplicaIndex(0));
    let data = Profile { volumes: vec!["data".parse().unwrap()], ..Profile::default() };
    public.profiles = (1..=7).map(|number| (worker(number), data.clone())).collect();
    public.previous.insert(of, worker(3));
    assert_eq!(orders(&manifest, &public), [vec![2]]);
    public.barred.insert((of, worker(3)));
    assert_eq!(orders(&manifest, &public), [vec![]; 1]);
}

#[test]
fn a_closed_worker_is_given_nothing_and_keeps_what_it_runs() {
    let (manifest, mut public) = slot(&job(SchedulingPolicy::Spread), 1);
    public.policy.min_candidates = 7;
    public.closed = [worker(3)].into();
    let plan = Plan::new(&manifest, &public).unwrap();
    let JobRefusal::TooFewCandidates { found: 6, min: 7, unfit } =
        &plan.refusals()[&manifest.pending[0].job]
    else {
        panic!("{:?}", plan.refusals())
    };
    assert_eq!(unfit.of(Unfit::Closed), 1);
    public.policy.min_candidates = 6;
    assert!(!orders(&manifest, &public)[0].contains(&2));
}
