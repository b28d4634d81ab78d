//! Which images may be asked for now.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use tokio::time::Instant;
use veil_protocol_spec::{Blake3Digest, scheduling::ImageReference};

use crate::{error::ReplicaError, pause::Pause, refusal};

/// An image that could not be had.
#[derive(Debug)]
struct Failed {
    error: Arc<ReplicaError>,
    pause: Pause,
    /// Who wanted it.
    jobs: BTreeSet<Blake3Digest>,
}

/// What is known of images in vain, and who is at work on which.
#[derive(Debug, Default)]
pub(crate) struct Images {
    failed: BTreeMap<ImageReference, Failed>,
    pulling: BTreeSet<ImageReference>,
}

/// Whether an image may be asked for now.
#[derive(Debug)]
pub(crate) enum Verdict {
    Ask,
    /// Another call is at it.
    Busy,
    Wait(Arc<ReplicaError>),
}

impl Images {
    /// An answer of [`Verdict::Ask`] is to be followed by [`Self::begin`].
    pub(crate) fn verdict(
        &mut self,
        image: &ImageReference,
        jobs: &BTreeSet<Blake3Digest>,
        now: Instant,
    ) -> Verdict {
        if self.pulling.contains(image) {
            return Verdict::Busy;
        }
        let Some(failed) = self.failed.get(image) else { return Verdict::Ask };
        if failed.error.is_final() {
            if jobs.is_subset(&failed.jobs) {
                return Verdict::Wait(Arc::clone(&failed.error));
            }
            self.failed.remove(image);
            return Verdict::Ask;
        }
        match failed.pause.left(now) {
            Some(_) => Verdict::Wait(Arc::clone(&failed.error)),
            None => Verdict::Ask,
        }
    }

    pub(crate) fn fail(
        &mut self,
        image: &ImageReference,
        jobs: BTreeSet<Blake3Digest>,
        error: &Arc<ReplicaError>,
        now: Instant,
    ) {
        let new =
            || Failed { error: Arc::clone(error), pause: Pause::new(now), jobs: BTreeSet::new() };
        let failed = self.failed.entry(image.clone()).or_insert_with(new);
        failed.error = Arc::clone(error);
        failed.jobs.extend(jobs);
        failed.pause.fail(now, refusal::asked_to_wait(&error.to_string()));
    }

    pub(crate) fn begin(&mut self, image: &ImageReference) {
        self.pulling.insert(image.clone());
    }

    pub(crate) fn end(&mut self, image: &ImageReference) {
        self.pulling.remove(image);
    }

    pub(crate) fn succeed(&mut self, image: &ImageReference) {
        self.failed.remove(image);
    }

    /// Nobody wants the others any more.
    pub(crate) fn retain(&mut self, wanted: &BTreeSet<&ImageReference>) {
        self.failed.retain(|image, _| wanted.contains(image));
    }

    /// The engine may be another one now, or configured in another way; or the cluster allows other images.
    pub(crate) fn forget_final(&mut self) {
        self.failed.retain(|_, failed| !failed.error.is_final());
    }

    /// The pause of an image that is tried again.
    pub(crate) fn pause(&self, image: &ImageReference) -> Option<&Pause> {
        let failed = self.failed.get(image).filter(|failed| !failed.error.is_final())?;
        Some(&failed.pause)
    }
}
