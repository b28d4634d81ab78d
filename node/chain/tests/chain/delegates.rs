//! Keys that submit and cancel for an operator.

use veil_contracts::job_board::JobBoard::JobBoardErrors;
use veil_node_chain::{Allowance, DelegatedKey};
use veil_protocol_spec::{Blake3Digest, registry::Delegation};

use crate::support::{World, assert_refused};

#[tokio::test(flavor = "multi_thread")]
async fn a_delegated_key_submits_and_cancels_until_it_may_no_more() {
    let world = World::new(1).await;
    let (cluster, digest) = (world.cluster, Blake3Digest([0x0b; 32]));
    let (operator, key) = (world.account(1), world.account(2));
    let (owner, account) = (operator.account().unwrap(), key.account().unwrap());
    let two = Allowance { jobs_per_day: 2, ..Allowance::submit_freely() };
    world.admin.set_allowance(cluster, owner, two).await.unwrap();

    let submit = async |nonce| key.submit_job_for(cluster, owner, digest, nonce, 1).await;
    assert_refused!(submit(0).await, Jobs(JobBoardErrors::NotDelegate(_)));
    assert_eq!(key.delegation(cluster, owner, account).await.unwrap(), Delegation::Never);
    let until = world.admin.time().await.unwrap() + 1000;
    operator.delegate(cluster, account, until).await.unwrap();
    let listed = DelegatedKey { key: account, delegation: Delegation::Until(until) };
    assert_eq!(world.admin.delegates(cluster, owner).await.unwrap(), [listed]);

    // The job, its nonce and its quota are the operator's, who goes on counting.
    assert_eq!(submit(0).await.unwrap(), 0);
    assert_eq!(operator.submit_job(cluster, Blake3Digest([0x0c; 32]), 1, 1).await.unwrap(), 1);
    assert_refused!(submit(2).await, Jobs(JobBoardErrors::QuotaExceeded(_)));
    let jobs = world.admin.jobs(cluster, 0).await.unwrap();
    assert!(jobs.iter().all(|job| job.operator == owner));
    key.cancel_job_for_operator(cluster, 1).await.unwrap();
    assert!(world.admin.jobs(cluster, 1).await.unwrap()[0].cancelled);

    // What it calls besides, it calls for itself.
    assert_refused!(
        key.submit_job(cluster, digest, 0, 1).await,
        Jobs(JobBoardErrors::MissingRight(_))
    );
    let other = world.account(3);
    key.delegate(cluster, other.account().unwrap(), until).await.unwrap();
    let second_hand = other.submit_job_for(cluster, owner, digest, 2, 1).await;
    assert_refused!(second_hand, Jobs(JobBoardErrors::NotDelegate(_)));

    operator.revoke_delegate(cluster, account).await.unwrap();
    assert_refused!(submit(2).await, Jobs(JobBoardErrors::DelegateRevoked(_)));
    let revoked = key.delegation(cluster, owner, account).await.unwrap();
    assert!(matches!(revoked, Delegation::Revoked(_)), "{revoked:?}");
    assert_eq!(world.admin.delegates(cluster, owner).await.unwrap(), []);

    let until = world.admin.time().await.unwrap() + 100;
    operator.delegate(cluster, account, until).await.unwrap();
    world.pass(200).await;
    assert_refused!(
        key.cancel_job_for_operator(cluster, 0).await,
        Jobs(JobBoardErrors::DelegateExpired(_))
    );
    let expired = key.delegation(cluster, owner, account).await.unwrap();
    assert_eq!(expired, Delegation::Expired(until));
    let past = operator.delegate(cluster, account, until).await;
    assert_refused!(past, Jobs(JobBoardErrors::InvalidDelegationTime(_)));
    let own = operator.delegate(cluster, owner, until + 10_000).await;
    assert_refused!(own, Jobs(JobBoardErrors::InvalidDelegate(_)));
}
