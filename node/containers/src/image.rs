//! Which images may be asked for now.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use tokio::time::Instant;
use veil_node_process::moment::asked_to_wait;
use veil_protocol_spec::{Blake3Digest, scheduling::ImageReference};

use crate::{error::ReplicaError, pause::Pause};

/// An image that could not be had.
#[derive(Debug)]
struct Failed {
    error: Arc<ReplicaError>,
    pause: Pause,
    /// Who wanted it.
    jobs: BTreeSet<Blake3Digest>,
}

/// Who pulls an image: a job with credentials of its own, or all that have none.
pub(crate) type Puller = Option<Blake3Digest>;

/// What is known of images in vain, who is at work on which, and to whom registries have served them.
#[derive(Debug, Default)]
pub(crate) struct Images {
    failed: BTreeMap<(ImageReference, Puller), Failed>,
    pulling: BTreeSet<ImageReference>,
    served: BTreeMap<ImageReference, BTreeSet<Puller>>,
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
        puller: Puller,
        jobs: &BTreeSet<Blake3Digest>,
        now: Instant,
    ) -> Verdict {
        if self.pulling.contains(image) {
            return Verdict::Busy;
        }
        let of = (image.clone(), puller);
        let Some(failed) = self.failed.get(&of) else { return Verdict::Ask };
        if failed.error.is_final() {
            if jobs.is_subset(&failed.jobs) {
                return Verdict::Wait(Arc::clone(&failed.error));
            }
            self.failed.remove(&of);
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
        puller: Puller,
        jobs: BTreeSet<Blake3Digest>,
        error: &Arc<ReplicaError>,
        now: Instant,
    ) {
        let new =
            || Failed { error: Arc::clone(error), pause: Pause::new(now), jobs: BTreeSet::new() };
        let failed = self.failed.entry((image.clone(), puller)).or_insert_with(new);
        failed.error = Arc::clone(error);
        failed.jobs.extend(jobs);
        failed.pause.fail(now, asked_to_wait(&error.to_string()));
    }

    pub(crate) fn begin(&mut self, image: &ImageReference) {
        self.pulling.insert(image.clone());
    }

    pub(crate) fn end(&mut self, image: &ImageReference) {
        self.pulling.remove(image);
    }

    pub(crate) fn succeed(&mut self, image: &ImageReference, puller: Puller) {
        self.failed.remove(&(image.clone(), puller));
    }

    /// A registry has served it; if it was not here, nobody else has it from before.
    pub(crate) fn serve(&mut self, image: &ImageReference, puller: Puller, was_here: bool) {
        let served = self.served.entry(image.clone()).or_default();
        if !was_here {
            served.clear();
        }
        served.insert(puller);
    }

    /// Whether it was served here to others only. What was here before this process is everybody's.
    pub(crate) fn is_of_others(&self, image: &ImageReference, puller: Puller) -> bool {
        self.served.get(image).is_some_and(|served| !served.contains(&puller))
    }

    /// It is not here any more.
    pub(crate) fn removed(&mut self, image: &ImageReference) {
        self.served.remove(image);
    }

    /// Nobody wants the others any more.
    pub(crate) fn retain(&mut self, wanted: &BTreeSet<&ImageReference>) {
        self.failed.retain(|(image, _), _| wanted.contains(image));
    }

    /// The engine may be another one now, or configured in another way; or the cluster allows other images.
    pub(crate) fn forget_final(&mut self) {
        self.failed.retain(|_, failed| !failed.error.is_final());
    }

    /// The pause of an image that is tried again.
    pub(crate) fn pause(&self, image: &ImageReference, puller: Puller) -> Option<&Pause> {
        let failed =
            self.failed.get(&(image.clone(), puller)).filter(|failed| !failed.error.is_final())?;
        Some(&failed.pause)
    }
}
