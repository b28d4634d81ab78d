//! When to reconcile before the next regular time.

use std::{collections::HashMap, time::Duration};

use async_recursion::async_recursion as boxed;
use bollard::query_parameters::EventsOptionsBuilder;
use futures::StreamExt as _;
use tokio::time::{Instant, sleep, sleep_until};

use crate::{executor::Executor, labels, replica::ReplicaId};

/// Before the engine is asked again for its events.
const PAUSE: Duration = Duration::from_secs(10);

impl Executor {
    /// Hears from the engine that a container of this worker has ended or changed its health, until it is
    /// dropped. Without it, that is found out by the next reconciliation.
    #[boxed]
    pub async fn listen(&self) {
        let words = |list: &[&str]| list.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
        let mut filters: HashMap<String, Vec<String>> = labels::of_worker(&self.owner);
        filters.insert("type".to_owned(), words(&["container"]));
        // The second is Podman's own word for the first.
        filters.insert("event".to_owned(), words(&["die", "died", "health_status"]));
        loop {
            let options = EventsOptionsBuilder::new().filters(&filters).build();
            let mut events = std::pin::pin!(self.docker.client.events(Some(options)));
            while let Some(Ok(_)) = events.next().await {
                self.woken.notify_one();
            }
            sleep(PAUSE).await;
        }
    }

    /// Resolves when there is something to do: the engine has told of a container, or the pause of one is
    /// over. It may be dropped at any time.
    #[boxed]
    pub async fn wake(&self) {
        let next = self.memory().due.values().min().copied();
        let pause = async {
            match next {
                Some(at) => sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.woken.notified() => {}
            () = pause => {}
        }
        let now = Instant::now();
        self.memory().due.retain(|_, at| *at > now);
    }

    /// This replica is to be started again after a pause.
    pub(crate) fn wait_for(&self, id: ReplicaId, pause: Duration) {
        self.memory().due.insert(id, Instant::now() + pause);
        self.woken.notify_one();
    }
}
