//! Replicas that this worker gives back.
//!
//! # Flow
//! 1. Its operator [evicts](GivesBack) replicas with a notice; the registry says that the worker is drained; the
//!    executor has given up on one that stays unhealthy. Each is a word ([`GivenBack`]) for the place that the replica
//!    has, which is on disk before anything follows from it.
//! 2. [`Evictions::said`] is what telemetry says. Members place the replica elsewhere, not here.
//! 3. When the notice is over the word is [due](Evictions::due): the container goes, and is not made again. What has
//!    no end of notice runs until it runs elsewhere (`moves`).
//! 4. When the engine has no container of it any more, the word says [that](Evictions::have_stopped).
//! 5. A certificate by which the replica has no place here ends the word.
//!
//! # Restart
//! Words are read again. A worker that lost them with its data directory, after it had said that an exclusive
//! replica has stopped and before it knew the certificate that follows, may start it again until it knows that
//! certificate.

use std::{
    collections::BTreeSet,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};

use tokio::sync::watch;
use veil_node_api::evict::{Evict, EvictError, Evicted, GivesBack};
use veil_node_core::epoch::ActiveEpoch;
use veil_node_process::unix_now;
use veil_node_storage::durable::replace;
use veil_protocol_spec::{
    PeerIdHash, Slot,
    scheduling::{
        GiveBackReason, GivenBack, LEAK_WINDOW_BLOCKS, MAX_RETURNED_OF_OPERATOR, MAX_WORDS, Note,
        UnixMillis,
    },
};

use crate::assigned::{Assigned, Replica};

/// See the [module documentation](self).
pub(crate) struct Evictions {
    path: PathBuf,
    words: Mutex<Vec<GivenBack>>,
    changed: watch::Sender<()>,
    known: OnceLock<(PeerIdHash, Arc<ActiveEpoch>)>,
}

impl Evictions {
    /// What is on disk.
    ///
    /// # Errors
    /// What the system says, or that the file is not what this worker writes: what it promises must not be forgotten.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let words = match std::fs::read(path) {
            Ok(stored) => serde_json::from_slice(&stored).map_err(io::Error::other)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error),
        };
        let (words, changed) = (Mutex::new(words), watch::Sender::new(()));
        Ok(Self { path: path.to_owned(), words, changed, known: OnceLock::new() })
    }

    /// From now on the worker knows what it has.
    pub(crate) fn know(&self, me: PeerIdHash, epoch: Arc<ActiveEpoch>) {
        let _ = self.known.set((me, epoch)); // once in a process
    }

    /// Changes with every word.
    pub(crate) fn subscribe(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    fn words(&self) -> MutexGuard<'_, Vec<GivenBack>> {
        self.words.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// On disk, and then in force.
    fn put(&self, words: &mut Vec<GivenBack>, mut new: Vec<GivenBack>) -> io::Result<()> {
        new.sort_unstable_by_key(GivenBack::key);
        let stored = serde_json::to_vec(&new).map_err(io::Error::other)?;
        replace(&self.path, &stored)?;
        *words = new;
        self.changed.send_replace(());
        Ok(())
    }

    /// Gives these back, unless they are given back already. The deadline of a drain comes before a later notice.
    pub(crate) fn add(&self, new: impl IntoIterator<Item = GivenBack>) -> io::Result<()> {
        let mut words = self.words();
        let is_known = |of: &GivenBack| {
            let known = words.iter().find(|w| (w.key(), w.placed) == (of.key(), of.placed));
            known.is_some_and(|known| {
                let ends = known.until.is_some_and(|until| of.until.is_none_or(|new| until <= new));
                known.has_stopped || ends || of.reason != GiveBackReason::Drained
            })
        };
        let new: Vec<_> = new.into_iter().filter(|of| !is_known(of)).collect();
        if new.is_empty() {
            return Ok(());
        }
        let keys: BTreeSet<_> = new.iter().map(GivenBack::key).collect();
        let kept = words.iter().filter(|word| !keys.contains(&word.key())).cloned();
        let all = kept.chain(new).collect();
        self.put(&mut words, all)
    }

    /// Drops words for places that the worker has no more: by a certificate, and if nothing of the replica is kept
    /// here until it runs elsewhere.
    pub(crate) fn follow(&self, now: &Assigned, is_kept: impl Fn(&Replica) -> bool) {
        let mut words = self.words();
        let stays = |word: &&GivenBack| {
            let placed = now.here.get(&word.key());
            placed == Some(&word.placed) || placed.is_none() && is_kept(&word.key())
        };
        let kept: Vec<_> = words.iter().filter(stays).cloned().collect();
        if kept.len() < words.len()
            && let Err(error) = self.put(&mut words, kept)
        {
            tracing::warn!(%error, "what this worker has given back is not forgotten");
        }
    }

    /// What must not run here any more.
    pub(crate) fn due(&self, now: UnixMillis) -> BTreeSet<Replica> {
        let is_over =
            |word: &&GivenBack| word.has_stopped || word.until.is_some_and(|until| until <= now);
        self.words().iter().filter(is_over).map(GivenBack::key).collect()
    }

    /// When the next notice is over.
    pub(crate) fn next_due(&self, now: UnixMillis) -> Option<UnixMillis> {
        let words = self.words();
        words.iter().filter_map(|word| word.until).filter(|until| *until > now).min()
    }

    /// What of it is not known to have stopped.
    pub(crate) fn stopping(&self, now: UnixMillis) -> BTreeSet<Replica> {
        let runs =
            |word: &&GivenBack| !word.has_stopped && word.until.is_some_and(|until| until <= now);
        self.words().iter().filter(runs).map(GivenBack::key).collect()
    }

    /// The engine has no container of these any more. Whether that is news.
    pub(crate) fn have_stopped(&self, now: UnixMillis, gone: &BTreeSet<Replica>) -> bool {
        let stopping = self.stopping(now);
        let mut words = self.words();
        let mut new = words.clone();
        let of_gone =
            |word: &&mut GivenBack| gone.contains(&word.key()) && stopping.contains(&word.key());
        let stopped: Vec<_> = new.iter_mut().filter(of_gone).collect();
        let is_news = !stopped.is_empty();
        stopped.into_iter().for_each(|word| word.has_stopped = true);
        if is_news && let Err(error) = self.put(&mut words, new) {
            tracing::warn!(%error, "that replicas have stopped is not on disk, and is not said");
            return false;
        }
        is_news
    }

    /// What telemetry says. A drain is on chain: only what it has stopped is news. Once the registry says otherwise
    /// that is no reason any more, but the word stands: a member may have listed it.
    pub(crate) fn said(&self, is_drained: bool) -> Vec<GivenBack> {
        let words = self.words();
        let said = words.iter().filter(|w| w.has_stopped || w.reason != GiveBackReason::Drained);
        let said = said.cloned().map(|word| match word.reason {
            GiveBackReason::Drained if !is_drained => {
                GivenBack { reason: GiveBackReason::DrainEnded, ..word }
            }
            _ => word,
        });
        said.take(MAX_WORDS).collect()
    }
}

/// A word for the place that a replica has.
pub(crate) const fn word(
    (job, replica): Replica,
    placed: Slot,
    reason: GiveBackReason,
    until: Option<UnixMillis>,
    note: Note,
) -> GivenBack {
    GivenBack { job, replica, placed, reason, until, has_stopped: false, note }
}

impl GivesBack for Evictions {
    fn give_back(&self, request: &Evict) -> Result<Vec<Evicted>, EvictError> {
        let not_now = |why: &str| EvictError::NotNow(why.to_owned());
        let (me, epoch) = self.known.get().ok_or_else(|| {
            not_now(
                "this worker runs no containers yet; `veil worker status` says what it waits for",
            )
        })?;
        let state = epoch.ledger.state();
        let here = Assigned::to(*me, &state).here;
        let prefix = request.job.as_deref().unwrap_or_default().trim_start_matches("0x");
        let is_meant = |(job, replica): &Replica| {
            job.to_string().starts_with(prefix)
                && request.replica.is_none_or(|index| index == *replica)
        };
        let meant: Vec<_> = here.iter().filter(|&(of, _)| is_meant(of)).collect();
        let jobs: BTreeSet<_> = meant.iter().map(|((job, _), _)| job).collect();
        if request.job.is_some() && jobs.len() > 1 {
            return Err(EvictError::NothingSuch(format!(
                "{} jobs begin with {prefix}: give more digits",
                jobs.len()
            )));
        }
        if meant.is_empty() {
            let what = request.job.as_deref().unwrap_or("anything");
            return Err(EvictError::NothingSuch(format!(
                "this worker has no replica of {what}: `veil worker status` lists what it has"
            )));
        }
        let own = state.returned().filter(|(.., returned)| returned.placement.worker == *me);
        if own.count() + meant.len() > MAX_RETURNED_OF_OPERATOR {
            return Err(EvictError::NotNow(format!(
                "an operator's workers give back at most {MAX_RETURNED_OF_OPERATOR} replicas in {LEAK_WINDOW_BLOCKS} blocks: drain the worker with `veil node drain`"
            )));
        }
        let notice = request.notice_seconds.saturating_mul(1000);
        let until = Some(UnixMillis(unix_now().0.saturating_add(notice)));
        let (reason, note) = (GiveBackReason::Evicted, &request.reason);
        let words =
            meant.iter().map(|(of, placed)| word(**of, **placed, reason, until, note.clone()));
        self.add(words)
            .map_err(|error| EvictError::NotNow(format!("{}: {error}", self.path.display())))?;
        let words = self.words();
        let evicted = |word: &GivenBack| {
            let GivenBack { job, replica, until, .. } = *word;
            here.contains_key(&word.key()).then_some(Evicted { job, replica, until })
        };
        Ok(words.iter().filter(|word| is_meant(&word.key())).filter_map(evicted).collect())
    }
}

#[cfg(test)]
mod tests {
    use veil_protocol_spec::{Blake3Digest, ReplicaIndex};

    use super::*;

    const ONE: Replica = (Blake3Digest([1; 32]), ReplicaIndex(0));
    const TWO: Replica = (Blake3Digest([2; 32]), ReplicaIndex(0));
    const NOW: UnixMillis = UnixMillis(5_000);

    fn assigned(replicas: &[(Replica, u64)]) -> Assigned {
        let here = replicas.iter().map(|(replica, slot)| (*replica, Slot(*slot))).collect();
        Assigned { slot: Slot(9), here, is_lost: false }
    }

    fn evicted(of: Replica, until: Option<u64>) -> GivenBack {
        word(of, Slot(3), GiveBackReason::Evicted, until.map(UnixMillis), Note::default())
    }

    fn opened() -> (tempfile::TempDir, Evictions) {
        let folder = tempfile::tempdir().unwrap();
        let evictions = Evictions::open(&folder.path().join("given-back.json")).unwrap();
        (folder, evictions)
    }

    #[test]
    fn what_is_given_back_runs_until_its_notice_is_over() {
        let (_folder, evictions) = opened();
        let mut changed = evictions.subscribe();
        evictions.add([evicted(ONE, Some(6_000)), evicted(TWO, None)]).unwrap();
        assert!(changed.has_changed().unwrap());
        assert_eq!((evictions.due(NOW), evictions.said(false).len()), ([].into(), 2));
        assert!(!evictions.have_stopped(NOW, &[ONE].into()), "a container that is gone by itself");
        let later = UnixMillis(6_000);
        assert_eq!((evictions.due(later), evictions.stopping(later)), ([ONE].into(), [ONE].into()));
        assert!(evictions.have_stopped(later, &[ONE, TWO].into()));
        assert_eq!((evictions.due(NOW), evictions.stopping(later)), ([ONE].into(), [].into()));
        let said: Vec<_> = evictions.said(false).iter().map(|word| word.has_stopped).collect();
        assert_eq!(said, [true, false]);
        changed.mark_unchanged();
        evictions.add([evicted(ONE, Some(9_000))]).unwrap();
        assert!(!changed.has_changed().unwrap(), "a word is not taken back");
    }

    #[test]
    fn the_next_process_keeps_the_word() {
        let (folder, evictions) = opened();
        evictions.add([evicted(ONE, Some(1))]).unwrap();
        assert!(evictions.have_stopped(NOW, &[ONE].into()));
        let path = folder.path().join("given-back.json");
        let again = Evictions::open(&path).unwrap();
        assert_eq!(again.said(false), evictions.said(false));
        std::fs::write(&path, "nonsense").unwrap();
        assert!(Evictions::open(&path).is_err(), "what it has promised must not be forgotten");
    }

    #[test]
    fn a_certificate_ends_the_word() {
        let (_folder, evictions) = opened();
        evictions.add([evicted(ONE, Some(1)), evicted(TWO, Some(1))]).unwrap();
        let here = assigned(&[(ONE, 3), (TWO, 3)]);
        evictions.follow(&here, |_| false);
        assert_eq!(evictions.due(NOW), [ONE, TWO].into());
        // One has left and is kept until it runs elsewhere: its notice ends that all the same.
        evictions.follow(&assigned(&[(TWO, 3)]), |of| *of == ONE);
        assert_eq!(evictions.due(NOW), [ONE, TWO].into());
        // Placed here anew: that is another place.
        evictions.follow(&assigned(&[(ONE, 8), (TWO, 3)]), |_| true);
        assert_eq!(evictions.due(NOW), [TWO].into());
        evictions.follow(&assigned(&[]), |_| false);
        assert_eq!(evictions.due(NOW), [].into());
    }

    #[test]
    fn a_drain_is_said_by_the_chain_and_what_it_stopped_by_the_worker() {
        let (_folder, evictions) = opened();
        let drained = word(ONE, Slot(3), GiveBackReason::Drained, Some(NOW), Note::default());
        evictions.add([drained]).unwrap();
        assert_eq!(evictions.said(true), []);
        assert!(evictions.have_stopped(NOW, &[ONE].into()));
        assert_eq!(evictions.said(true)[0].reason, GiveBackReason::Drained);
        assert_eq!(evictions.said(false)[0].reason, GiveBackReason::DrainEnded, "it is over");
    }

    #[test]
    fn the_deadline_of_a_drain_comes_before_a_later_notice() {
        let (_folder, evictions) = opened();
        evictions.add([evicted(ONE, None), evicted(TWO, Some(4_000))]).unwrap();
        let drained = |of| word(of, Slot(3), GiveBackReason::Drained, Some(NOW), Note::default());
        evictions.add([drained(ONE), drained(TWO)]).unwrap();
        assert_eq!(evictions.due(UnixMillis(4_000)), [TWO].into());
        assert_eq!(evictions.due(NOW), [ONE, TWO].into());
    }
}
