//! What is waited for before a container starts (`links.md`, steps 9 to 12).
//!
//! "A condition that has held once for a replica at a worker is not asked for again": nor one of a replica that has a
//! container here, whichever process made it, unless it is of a job that ends.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::{StreamExt as _, stream};
use tokio::{
    sync::{Notify, watch},
    time::sleep,
};
use veil_protocol_spec::{
    Blake3Digest, Slot,
    link::LinkEnd,
    scheduling::{After, Condition, JobSpec},
};

use super::{
    Links, locked,
    names::{Ending, Names},
};
use crate::assigned::Replica;

/// "It asks again every two seconds."
const AGAIN: Duration = Duration::from_secs(2);
/// Replicas whose conditions are asked for at once.
const AT_ONCE: usize = 8;

/// A replica that is not started before something holds.
#[derive(Clone, Debug)]
struct Waits {
    placed: Slot,
    spec: Arc<JobSpec>,
    /// Conditions that hold, by their place in the body.
    met: BTreeSet<usize>,
    /// Why it is not started; nothing once it may.
    why: Option<String>,
}

impl Waits {
    fn new(placed: Slot, spec: &Arc<JobSpec>) -> Self {
        let why = spec.after.first().map(|after| format!("waits for {after}"));
        Self { placed, spec: Arc::clone(spec), met: BTreeSet::new(), why }
    }
}

/// See the [module documentation](self).
pub(crate) struct Waiting {
    links: Arc<Links>,
    replicas: Mutex<BTreeMap<Replica, Waits>>,
    /// There is another replica to ask for.
    more: Notify,
    /// Some may start now, or wait for another reason.
    changed: watch::Sender<()>,
}

impl Waiting {
    pub(crate) fn new(links: Arc<Links>) -> Arc<Self> {
        let changed = watch::channel(()).0;
        Arc::new(Self { links, replicas: Mutex::default(), more: Notify::new(), changed })
    }

    /// Changes when some may start, or wait for another reason.
    pub(crate) fn subscribe(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// What is placed here, by the slots that did, and the bodies that are known.
    pub(crate) fn follow(
        &self,
        here: &BTreeMap<Replica, Slot>,
        bodies: &BTreeMap<Blake3Digest, Arc<JobSpec>>,
    ) {
        let mut replicas = locked(&self.replicas);
        replicas.retain(|replica, waits| here.get(replica) == Some(&waits.placed));
        for (replica, placed) in here {
            let body = bodies.get(&replica.0).filter(|body| !body.after.is_empty());
            if let Some(body) = body.filter(|_| !replicas.contains_key(replica)) {
                replicas.insert(*replica, Waits::new(*placed, body));
                self.more.notify_one();
            }
        }
    }

    /// These have a container here.
    pub(crate) fn started(&self, containers: &BTreeSet<LinkEnd>) {
        let mut replicas = locked(&self.replicas);
        let mut any = false;
        for (&(job, replica), waits) in replicas.iter_mut() {
            // That of a batch replica may be of an earlier run.
            let has_container =
                !waits.spec.kind.ends() && containers.contains(&LinkEnd { job, replica });
            if waits.why.is_some() && has_container {
                waits.why = None;
                any = true;
            }
        }
        if any {
            self.changed.send_replace(());
        }
    }

    /// Why a replica is not to be started yet.
    pub(crate) fn why(&self, replica: &Replica) -> Option<String> {
        locked(&self.replicas).get(replica)?.why.clone()
    }

    /// Asks until it is dropped.
    pub(crate) async fn run(self: Arc<Self>) {
        loop {
            let open: Vec<_> = {
                let replicas = locked(&self.replicas);
                let open = replicas.iter().filter(|(_, waits)| waits.why.is_some());
                open.map(|(replica, waits)| (*replica, waits.clone())).collect()
            };
            let asked = open.into_iter().map(|(replica, waits)| self.look(replica, waits));
            let mut asked = stream::iter(asked).buffer_unordered(AT_ONCE);
            while let Some((replica, looked)) = asked.next().await {
                self.took(replica, looked);
            }
            tokio::select! {
                () = sleep(AGAIN) => {}
                () = self.more.notified() => {}
            }
        }
    }

    fn took(&self, replica: Replica, looked: Waits) {
        let mut replicas = locked(&self.replicas);
        let known = replicas.get_mut(&replica).filter(|known| known.placed == looked.placed);
        // It has got a container meanwhile.
        let Some(known) = known.filter(|known| known.why.is_some()) else { return };
        let (job, index) = replica;
        if known.why != looked.why {
            match &looked.why {
                Some(why) => tracing::info!(%job, replica = %index, "{why}"),
                None => tracing::info!(%job, replica = %index, "starts: what it waited for holds"),
            }
            self.changed.send_replace(());
        }
        *known = looked;
    }

    async fn look(&self, replica: Replica, mut waits: Waits) -> (Replica, Waits) {
        let spec = Arc::clone(&waits.spec);
        let circle = circle(&locked(&self.links.names), &spec);
        if circle.is_some() {
            waits.why = circle;
            return (replica, waits);
        }
        waits.why = None;
        for (index, after) in spec.after.iter().enumerate() {
            if waits.met.contains(&index) {
                continue;
            }
            match self.holds(replica, &spec, after).await {
                Ok(()) => _ = waits.met.insert(index),
                Err(why) => {
                    waits.why.get_or_insert(format!("waits for {after}: {why}"));
                }
            }
        }
        (replica, waits)
    }

    /// Whether a condition holds, or why it does not.
    async fn holds(&self, replica: Replica, spec: &JobSpec, after: &After) -> Result<(), String> {
        let links = &self.links;
        if after.is == Condition::Done {
            let state = links.epoch.ledger.state();
            let done = |job, replica| Some(state.done_replica(job, replica)?.exit);
            return done_or_why(&locked(&links.names).ending(done, spec.operator, &after.job));
        }
        let placed = locked(&links.names).placed(spec.operator, &after.job);
        let (job, replica) = replica;
        let mut last = "no replica answers".to_owned();
        for target in placed.map_err(|nowhere| nowhere.to_string())? {
            match links.condition(LinkEnd { job, replica }, target).await {
                Ok(found) if found.healthy => return Ok(()),
                Ok(found) if found.running && after.is == Condition::Running => return Ok(()),
                Ok(found) if found.running => {
                    "it runs, and is not healthy yet".clone_into(&mut last)
                }
                Ok(_) => "it does not run yet".clone_into(&mut last),
                Err(failure) => last = failure.to_string(),
            }
        }
        Err(last)
    }
}

fn done_or_why(ending: &Ending) -> Result<(), String> {
    match ending {
        Ending::Done => Ok(()),
        Ending::Open(1) => Err("a replica of it has not ended".to_owned()),
        Ending::Open(count) => Err(format!("{count} replicas of it have not ended")),
        Ending::Failed(Some(code)) => {
            Err(format!("a replica of it has ended with code {code}: submit it again"))
        }
        Ending::Failed(None) => {
            Err("a replica of it has ended, and nobody knows how: submit it again".to_owned())
        }
        Ending::NoJob => Err("there is no such job of this account: submit it".to_owned()),
    }
}

fn circle(names: &Names, spec: &JobSpec) -> Option<String> {
    let path = names.circle(spec.operator, &spec.name)?;
    let path: Vec<_> = path.into_iter().map(String::from).collect();
    let path = path.join(" -> ");
    Some(format!("waits for itself in a circle, {path}: submit one of them without that [[after]]"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_ended_otherwise_is_said_with_what_to_do() {
        assert_eq!(done_or_why(&Ending::Done), Ok(()));
        for (ending, says) in [
            (Ending::Open(1), "a replica of it has not ended"),
            (Ending::Open(3), "3 replicas"),
            (Ending::Failed(Some(3)), "code 3: submit it again"),
            (Ending::Failed(None), "nobody knows how"),
            (Ending::NoJob, "submit it"),
        ] {
            let why = done_or_why(&ending).unwrap_err();
            assert!(why.contains(says), "{why}");
        }
    }
}
