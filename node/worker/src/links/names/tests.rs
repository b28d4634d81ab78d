use veil_protocol_spec::{PeerIdHash, link::LinkEnd, scheduling::Link};

use super::*;

const ALICE: Address = Address([1; 20]);
const BOB: Address = Address([2; 20]);
const ME: PeerIdHash = PeerIdHash([9; 32]);

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

/// The job of this number, which is its place in the order, too.
fn listed(job: u8, operator: Address, called: &str, after: &[&str]) -> Listed {
    Listed {
        position: job.into(),
        job: Blake3Digest([job; 32]),
        operator,
        name: name(called),
        replicas: 2,
        ports: vec![name("pg")],
        after: after.iter().map(|job| name(job)).collect(),
    }
}

fn link(operator: Address, job: &str, port: &str) -> LinkOf {
    let link = Link {
        host: "db".parse().unwrap(),
        listen: 5432.try_into().unwrap(),
        job: name(job),
        port: name(port),
        env: None,
    };
    let from = LinkEnd { job: Blake3Digest([99; 32]), replica: ReplicaIndex(0) };
    LinkOf { from, operator, link }
}

fn at(job: &Blake3Digest, worker: PeerIdHash) -> Vec<Target> {
    let replica = LinkEnd { job: *job, replica: ReplicaIndex(0) };
    vec![Target { is_former: false, replica, worker }]
}

/// Each job has a replica on the worker of its own number.
fn names(jobs: Vec<Listed>) -> Names {
    let placed = |job: &Blake3Digest| at(job, PeerIdHash(job.0));
    Names::of(jobs, placed, |_| false)
}

fn workers(names: &Names, of: &LinkOf) -> Result<Vec<u8>, Nowhere> {
    names.targets(of).map(|targets| targets.iter().map(|target| target.worker.0[0]).collect())
}

#[test]
fn two_operators_jobs_of_one_name_never_meet() {
    let jobs = vec![listed(1, ALICE, "db", &[]), listed(2, BOB, "db", &[])];
    let names = names(jobs);
    assert_eq!(workers(&names, &link(ALICE, "db", "pg")), Ok(vec![1]));
    assert_eq!(workers(&names, &link(BOB, "db", "pg")), Ok(vec![2]));
    let stranger = link(Address([3; 20]), "db", "pg");
    assert_eq!(workers(&names, &stranger), Err(Nowhere::NoJob(name("db"))));
}

#[test]
fn a_link_leads_to_all_versions_that_have_the_port() {
    let mut second = listed(2, ALICE, "db", &[]);
    second.ports.push(name("admin"));
    let names = names(vec![listed(1, ALICE, "db", &[]), second]);
    assert_eq!(workers(&names, &link(ALICE, "db", "pg")), Ok(vec![1, 2]));
    assert_eq!(workers(&names, &link(ALICE, "db", "admin")), Ok(vec![2]));
    let no_port = Nowhere::NoPort { job: name("db"), port: name("ftp") };
    assert_eq!(workers(&names, &link(ALICE, "db", "ftp")), Err(no_port));
}

#[test]
fn a_job_without_a_place_is_told_apart_from_one_that_there_is_not() {
    let nothing = Names::of([listed(1, ALICE, "db", &[])], |_| Vec::new(), |_| false);
    let pending = Err(Nowhere::NotPlaced(name("db")));
    assert_eq!(workers(&nothing, &link(ALICE, "db", "pg")), pending);
    assert_eq!(nothing.placed(ALICE, &name("db")), Err(Nowhere::NotPlaced(name("db"))));
    assert_eq!(nothing.placed(ALICE, &name("no")), Err(Nowhere::NoJob(name("no"))));
}

#[test]
fn done_is_what_certificates_say_of_every_replica_of_the_version_that_is_wanted() {
    let exit = |code| Some(ReplicaExit { code: Some(code), out_of_memory: false });
    let ending = |current: u8, codes: [Option<i32>; 2]| {
        let jobs = [listed(1, ALICE, "db", &[]), listed(2, ALICE, "db", &[])];
        let names = Names::of(jobs, |_| Vec::new(), |job| job.0[0] == current);
        // Only of the second one anything is known.
        let done = |job: Blake3Digest, replica: ReplicaIndex| {
            let code = codes[usize::from(replica.0)].filter(|_| job.0[0] == 2);
            code.and_then(exit)
        };
        names.ending(done, ALICE, &name("db"))
    };
    assert_eq!(ending(0, [Some(0), Some(0)]), Ending::Done, "the newest, if none is noted");
    assert_eq!(ending(1, [Some(0), Some(0)]), Ending::Open(2), "the one before has come back");
    assert_eq!(ending(2, [Some(0), None]), Ending::Open(1));
    assert_eq!(ending(2, [None, Some(3)]), Ending::Failed(Some(3)));
    let nothing = Names::default().ending(|_, _| None, BOB, &name("db"));
    assert_eq!(nothing, Ending::NoJob);
}

#[test]
fn a_circle_is_one_of_one_operators_jobs() {
    let circle = |other: Address| {
        let jobs = vec![listed(1, ALICE, "a", &["b"]), listed(2, other, "b", &["a"])];
        names(jobs).circle(ALICE, &name("a"))
    };
    assert_eq!(circle(ALICE), Some(vec![name("a"), name("b"), name("a")]));
    assert_eq!(circle(BOB), None, "another operator's job of that name waits for nobody here");
}

#[test]
fn a_job_that_is_withdrawn_or_moves_is_another_state_of_names() {
    let one = || names(vec![listed(1, ALICE, "db", &[])]);
    assert_eq!(one(), one());
    assert_ne!(one(), Names::default());
    let moved = Names::of([listed(1, ALICE, "db", &[])], |job| at(job, ME), |_| false);
    assert_ne!(one(), moved);
}
