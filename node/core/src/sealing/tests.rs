//! What a member proposes of jobs in which something is sealed.

use veil_committee_sealed::seal::{SealerKey, seal};
use veil_protocol_spec::{
    Address, Epoch, KeySetDigest, ParticipantIndex,
    scheduling::{
        CpuUnits, JobSpec, MemoryUnits, ResourceRequest, Resources, Sealed, SealedContents,
        SealedVariable, Submission,
    },
    sealing::SealingRoster,
};
use veil_tests::fixtures::{self, SCOPE};

use super::*;

const OPERATOR: Address = Address([3; 20]);
/// Of the cluster's public key.
const STATED: Blake3Digest = Blake3Digest([5; 32]);
const BINDING: Binding = Binding { scope: SCOPE, key_set: KeySetDigest([4; 32]), epoch: Epoch(1) };

fn member() -> ParticipantIndex {
    ParticipantIndex::new(1).unwrap()
}

fn key(seed: u8) -> SealingKey {
    SealingKey::derive(&[seed; 32], BINDING, member())
}

fn plain(nonce: u64) -> JobSpec {
    let (cpu, memory) = (CpuUnits(1), MemoryUnits(1));
    let request = ResourceRequest::Clear(Resources { cpu, memory, ..Resources::default() });
    let image = format!("a/b@sha256:{}", "0f".repeat(32)).parse().unwrap();
    JobSpec::new(SCOPE, OPERATOR, nonce, "app".parse().unwrap(), image, request)
}

/// Sealed to a committee of one, whose member has that key.
fn sealed(nonce: u64, to: &SealingKey) -> JobSpec {
    let (identity, job) = (fixtures::identity(1, member()), plain(nonce));
    let (identities, announced) = ([identity.public()], [to.announce(STATED, &identity)]);
    let committee = Committee::new(1).unwrap();
    let roster = SealingRoster::new(BINDING, committee, &identities, &announced).unwrap();
    let variable = SealedVariable { name: "TOKEN".into(), value: "secret".into() };
    let mut contents = SealedContents::default();
    contents.env.push(variable);
    let key = SealerKey::from_signature(b"the operator's");
    let part = seal(&job, &contents, &roster, &key, &mut OsRng).unwrap();
    JobSpec { sealed: Sealed::Part(Box::new(part)), ..job }
}

#[test]
fn a_member_proposes_a_sealed_job_only_if_the_share_that_was_dealt_to_it_is_right() {
    let folder = tempfile::tempdir().unwrap();
    let jobs = Jobs::open(&folder.path().join("jobs.redb"), SCOPE).unwrap();
    let identity = fixtures::identity(1, member());
    let (right, wrong, nothing) = (sealed(1, &key(1)), sealed(2, &key(2)), plain(3));
    let all = [&right, &wrong, &nothing];
    let listed: Vec<_> = (0..)
        .zip(all)
        .map(|(position, job)| {
            let (job, operator) = (job.digest(), OPERATOR);
            Submission { position, job, operator, leak_bits: 10, cancelled: false }
        })
        .collect();
    jobs.set_submissions(&listed);
    let own = || Sealing::new(key(1), STATED, &identity);
    assert!(!own().proposes(&right.digest(), &jobs), "nobody has its body");
    for job in all {
        let _ = jobs.offer(job.clone()).unwrap();
    }
    let sealing = own();
    // The second time it is remembered.
    for _ in 0..2 {
        assert!(sealing.proposes(&right.digest(), &jobs));
        assert!(!sealing.proposes(&wrong.digest(), &jobs), "it was dealt to another key");
        assert!(sealing.proposes(&nothing.digest(), &jobs));
    }
    // Not listed yet, or by somebody else: it is looked at again when it is.
    let other = Submission { operator: Address([9; 20]), ..listed[0] };
    for by_nobody in [vec![], vec![other]] {
        let sealing = own();
        jobs.set_submissions(&by_nobody);
        assert!(!sealing.proposes(&right.digest(), &jobs));
        jobs.set_submissions(&listed);
        assert!(sealing.proposes(&right.digest(), &jobs));
    }
}
