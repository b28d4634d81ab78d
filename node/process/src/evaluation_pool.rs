//! The threads on which manifests are evaluated: a limited number of them, at low priority.
//!
//! An evaluation keeps every core that it gets busy for seconds. Agreement, signing, the network and the
//! answers to peers must not wait for it, so it has threads of its own, fewer than there are cores unless
//! there is one, and the system prefers all others.

use std::{
    num::NonZeroUsize,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    thread::available_parallelism,
};

use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::lower_thread_priority;

/// Why there are no threads.
#[derive(Debug, thiserror::Error)]
#[error("the system gives no threads for the evaluation: {0}")]
pub struct NoThreads(String);

/// Evaluates nothing until it is used for the first time.
#[derive(Debug, Default)]
pub struct EvaluationPool {
    threads: OnceLock<NonZeroUsize>,
    pool: Mutex<Option<Arc<ThreadPool>>>,
}

/// All cores but one, and at least one.
fn all_but_one() -> usize {
    available_parallelism().map_or(1, NonZeroUsize::get).saturating_sub(1).max(1)
}

impl EvaluationPool {
    /// Uses so many threads instead of one for each core but one. Without effect the second time, or after
    /// the first use.
    pub fn limit(&self, threads: NonZeroUsize) {
        let _ = self.threads.set(threads);
    }

    /// Does work on the pool, and whatever it shares out with rayon; waits for it on this thread.
    ///
    /// # Errors
    /// [`NoThreads`].
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, NoThreads> {
        Ok(self.started()?.install(work))
    }

    fn started(&self) -> Result<Arc<ThreadPool>, NoThreads> {
        let mut pool = self.pool.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(started) = &*pool {
            return Ok(Arc::clone(started));
        }
        let threads = self.threads.get().map_or_else(all_but_one, |threads| threads.get());
        let started = ThreadPoolBuilder::new()
            .num_threads(threads)
            .thread_name(|index| format!("evaluation-{index}"))
            // Where the system refuses, the evaluation competes with the rest, as without a pool.
            .start_handler(|_| lower_thread_priority())
            .build()
            .map_err(|error| NoThreads(error.to_string()))?;
        Ok(Arc::clone(pool.insert(Arc::new(started))))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use rayon::prelude::*;

    use super::*;

    /// The calling thread's nice value, by the kernel.
    fn nice() -> i32 {
        let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
        let after_name = stat.rsplit(')').next().unwrap();
        after_name.split_whitespace().nth(16).unwrap().parse().unwrap()
    }

    #[test]
    fn work_is_shared_out_over_so_many_threads_of_low_priority() {
        let before = nice();
        for threads in [1, 3] {
            let pool = EvaluationPool::default();
            pool.limit(NonZeroUsize::new(threads).unwrap());
            let (names, count) = pool
                .run(|| {
                    let name = |_| std::thread::current().name().unwrap().to_owned();
                    let names: BTreeSet<_> = (0..1000).into_par_iter().map(name).collect();
                    (names, rayon::current_num_threads())
                })
                .unwrap();
            assert_eq!(count, threads);
            assert!(names.len() <= threads);
            assert!(names.iter().all(|name| name.starts_with("evaluation-")), "{names:?}");
            let inside = pool.run(nice).unwrap();
            assert!(inside > before || before >= 19, "nicer than the rest: {inside}, {before}");
        }
        assert_eq!(nice(), before, "the caller's stays");
    }

    #[test]
    fn a_core_is_left_to_the_rest() {
        let pool = EvaluationPool::default();
        let cores = available_parallelism().unwrap().get();
        let threads = pool.run(rayon::current_num_threads).unwrap();
        assert_eq!(threads, if cores == 1 { 1 } else { cores - 1 });
    }
}
