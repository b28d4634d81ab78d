//! What is known of lists, so that each is looked at once.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use veil_protocol_spec::Blake3Digest;

/// Lists of which it is remembered; each takes some tens of kilobytes.
const REMEMBERED: usize = 1024;

/// Why a list is not computed on.
pub trait Refusal: Clone {
    /// Whether nothing was found out about the list: it is looked at again then.
    fn says_nothing(&self) -> bool;
}

/// What was found of a list.
pub type Found<T, E> = Result<Arc<T>, E>;

/// What is known of lists, by the digest that they are named by; of one that is being looked at, nothing yet.
#[derive(Debug)]
pub struct Known<T, E>(Mutex<BTreeMap<Blake3Digest, Option<Found<T, E>>>>);

impl<T, E> Default for Known<T, E> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T, E: Refusal> Known<T, E> {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<Blake3Digest, Option<Found<T, E>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this call is the first to ask for it.
    ///
    /// # Errors
    /// What is known, if it is not.
    pub fn begin(&self, digest: Blake3Digest) -> Result<(), Option<Found<T, E>>> {
        let mut known = self.lock();
        if let Some(known) = known.get(&digest) {
            return Err(known.clone());
        }
        if known.len() >= REMEMBERED {
            known.retain(|_, found| found.is_none());
        }
        known.insert(digest, None);
        Ok(())
    }

    /// Remembers what was found, unless that says nothing.
    pub fn set(&self, digest: Blake3Digest, found: &Found<T, E>) {
        let mut known = self.lock();
        match found {
            Err(refusal) if refusal.says_nothing() => _ = known.remove(&digest),
            found => _ = known.insert(digest, Some(found.clone())),
        }
    }

    /// What was found, if anything was.
    #[must_use]
    pub fn found(&self, digest: &Blake3Digest) -> Option<Found<T, E>> {
        self.lock().get(digest).cloned().flatten()
    }

    /// Why a list was found not to be one.
    #[must_use]
    pub fn refused(&self, digest: &Blake3Digest) -> Option<E> {
        self.found(digest)?.err()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::RequestRefusal;

    #[test]
    fn a_list_is_looked_at_once() {
        let known: Known<(), _> = Known::default();
        let job = Blake3Digest([1; 32]);
        assert!(known.begin(job).is_ok());
        assert!(matches!(known.begin(job), Err(None)), "it is under way");
        let refusal = RequestRefusal::Light;
        known.set(job, &Err(refusal.clone()));
        match known.begin(job) {
            Err(Some(Err(found))) => assert_eq!(found, refusal),
            other => panic!("{other:?}"),
        }
        assert_eq!(known.refused(&job), Some(refusal));
        let other = Blake3Digest([2; 32]);
        assert!(known.begin(other).is_ok());
        known.set(other, &Err(RequestRefusal::Stopped));
        assert!(known.begin(other).is_ok(), "what was cut off is looked at again");
    }

    #[test]
    fn no_more_is_remembered_than_fits() {
        let known: Known<(), RequestRefusal> = Known::default();
        let digest = |n: usize| {
            let mut bytes = [0; 32];
            bytes[..8].copy_from_slice(&n.to_le_bytes());
            Blake3Digest(bytes)
        };
        known.begin(digest(usize::MAX)).unwrap();
        for n in 0..3 * REMEMBERED {
            known.begin(digest(n)).unwrap();
            known.set(digest(n), &Ok(Arc::new(())));
        }
        assert!(known.lock().len() <= REMEMBERED);
        assert!(matches!(known.begin(digest(usize::MAX)), Err(None)), "what is under way stays");
    }
}
