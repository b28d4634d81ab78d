//! Tests: what somebody else refuses is neither pulled nor run.

use std::sync::{Arc, Mutex};

use tokio::time::{Duration, Instant, sleep};
use veil_protocol_spec::scheduling::{ImageReference, RegistryCredentials, SealedContents};

use crate::{
    Approve, Executor, Filter, ReplicaError, Terms,
    fake::{Fake, observed, reconcile, replicas},
};

type Reason = fn(ImageReference) -> ReplicaError;

/// As whom somebody is asked each time; as nobody without credentials.
type Asked = Vec<Option<String>>;

/// Who is asked: what it says, and as whom it was asked.
#[derive(Clone, Default)]
struct Judge(Arc<Mutex<(Option<Reason>, Asked)>>);

impl Judge {
    fn say(&self, reason: Option<Reason>) {
        self.0.lock().unwrap().0 = reason;
    }

    fn asked_as(&self) -> Asked {
        let mut asked = self.0.lock().unwrap().1.clone();
        asked.sort();
        asked
    }

    fn asked(&self) -> usize {
        self.0.lock().unwrap().1.len()
    }

    async fn worker(&self, fake: &Fake) -> Executor {
        let judge = self.clone();
        let approve = Approve::new(move |image, by| {
            let mut judge = judge.0.lock().unwrap();
            judge.1.push(by.map(|by| by.username.clone()));
            let said = judge.0.map_or(Ok(()), |reason| Err(reason(image)));
            Box::pin(async move { said })
        });
        let terms = Terms { filter: Filter::Unfiltered, approve, ..Terms::default() };
        fake.worker_on(terms).await
    }
}

fn not_approved(image: ImageReference) -> ReplicaError {
    ReplicaError::NotApproved { image, reason: "another root".to_owned() }
}

fn limited(image: ImageReference) -> ReplicaError {
    ReplicaError::Limited { image, reason: "Retry-After: 77".to_owned() }
}

#[tokio::test(start_paused = true)]
async fn what_is_refused_is_neither_pulled_nor_run_until_the_cluster_allows_it() {
    let (fake, judge) = (Fake::default(), Judge::default());
    let worker = judge.worker(&fake).await;
    judge.say(Some(not_approved));
    let (since, desired) = (Instant::now(), replicas(1, 2));
    for _ in 0..3 {
        let report = reconcile(&worker, &desired).await;
        assert!(report.started.is_empty(), "{report:?}");
        sleep(Duration::from_secs(700)).await;
    }
    assert_eq!(judge.asked(), 1, "it is final");
    assert_eq!(fake.calls(since, "POST /images/create"), 0);
    assert_eq!(fake.calls(since, "POST /containers/create"), 0);
    let error = observed(&worker, &desired[0]).await.error.unwrap();
    assert!(error.starts_with("nothing of ") && error.ends_with("another root"), "{error}");

    judge.say(None);
    assert!(reconcile(&worker, &desired).await.started.is_empty(), "nobody says that it changed");
    worker.approvals_changed();
    worker.wake().await;
    assert_eq!(reconcile(&worker, &desired).await.started.len(), 2);
    // An image that is here is asked about, too, before another container is made of it.
    judge.say(Some(not_approved));
    let more = [desired, replicas(2, 1)].concat();
    let report = reconcile(&worker, &more).await;
    assert!(report.started.is_empty() && report.failed.len() == 1, "{report:?}");
}

#[tokio::test(start_paused = true)]
async fn what_may_pass_is_asked_again_when_the_registry_says() {
    let (fake, judge) = (Fake::default(), Judge::default());
    let worker = judge.worker(&fake).await;
    judge.say(Some(limited));
    let desired = replicas(1, 1);
    assert_eq!(reconcile(&worker, &desired).await.failed.len(), 1);
    judge.say(None);
    sleep(Duration::from_secs(60)).await;
    assert!(reconcile(&worker, &desired).await.started.is_empty());
    sleep(Duration::from_secs(60)).await;
    assert_eq!(reconcile(&worker, &desired).await.started.len(), 1);
}

/// Of the same image: by its credentials is who may see it, not whether it is what the cluster allows.
#[tokio::test(start_paused = true)]
async fn each_job_is_asked_about_with_its_own_credentials() {
    let (fake, judge) = (Fake::default(), Judge::default());
    let worker = judge.worker(&fake).await;
    let mut jobs = [replicas(1, 1), replicas(2, 1), replicas(3, 1)].concat();
    for (desired, username) in jobs.iter_mut().zip(["one", "other"]) {
        let (username, password) = (username.to_owned(), "hunter2".to_owned());
        let mut contents = SealedContents::default();
        contents.registry = Some(RegistryCredentials { username, password });
        desired.contents = Some(Arc::new(contents));
    }
    assert_eq!(reconcile(&worker, &jobs).await.started.len(), 3);
    let name = |name: &str| Some(name.to_owned());
    assert_eq!(judge.asked_as(), [None, name("one"), name("other")]);
}
