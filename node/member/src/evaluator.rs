//! Evaluating locked manifests, one step of a circuit at a time, until they are needed no more.
//!
//! # State
//! The last result is kept: a failure after the evaluation must not evaluate again. So is what a slot has begun,
//! for its next step; without it the next step begins with the inputs.

use std::{sync::Arc, time::Instant};

use tokio::sync::mpsc;
use veil_committee::decrypt::SquashedBlock;
use veil_committee_slot::machine::Evaluated;
use veil_keygen_ceremony::keyset::squashed_blocks;
use veil_node_core::{
    cluster::Tasks,
    epoch::ActiveEpoch,
    evaluation::{self, Begun, EvaluationError, InputSource},
};
use veil_node_p2p::Network;
use veil_node_process::evaluation_pool::NoThreads;
use veil_protocol_spec::{Blake3Digest, Slot, identity::SecretIdentity, scheduling::Manifest};
use veil_scheduler::{Cancellation, SquashError};

/// What came of an evaluation.
#[derive(Clone)]
pub(crate) struct Evaluation {
    /// As far as the slot is concerned with it.
    pub(crate) evaluated: Evaluated,
    /// What the committee opens.
    blocks: Arc<Vec<SquashedBlock>>,
    /// What verifying the telemetry took, message by message, as it arrived.
    pub(crate) proof_seconds: f64,
    /// What the circuit took.
    pub(crate) seconds: f64,
    /// What squashing took.
    pub(crate) squash_seconds: f64,
}

/// A step of a slot's circuit.
pub(crate) type Step = (Slot, u16);
/// A step and what came of its evaluation.
pub(crate) type Finished = (Step, Result<Evaluation, String>);
/// The same with what it goes on from.
type Done<B> = (Step, Result<(Evaluation, UnderWay<B>), String>);

/// What a slot has begun, and what ends it.
type UnderWay<B> = (Slot, B, Cancellation);

/// Why there is nothing to open.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Evaluation(#[from] EvaluationError),
    #[error(transparent)]
    Squash(#[from] SquashError),
    #[error(transparent)]
    Threads(#[from] NoThreads),
    #[error("the runtime is shutting down")]
    Stopped,
}

/// What evaluates steps.
pub(crate) trait Steps: Clone + Send + Sync + 'static {
    /// What the next step goes on from.
    type Begun: Clone + Send + 'static;

    /// Evaluates what is asked after what was opened, until that is cancelled.
    fn evaluate(
        &self,
        manifest: Manifest,
        begun: Option<Self::Begun>,
        opened: Vec<Vec<u8>>,
        cancellation: Cancellation,
    ) -> impl Future<Output = Result<(Evaluation, Self::Begun), String>> + Send;
}

/// See the [module documentation](self).
pub(crate) struct Evaluator<S: Steps = Work> {
    work: S,
    tasks: Tasks,
    running: Option<(Step, Cancellation)>,
    begun: Option<UnderWay<S::Begun>>,
    last: Option<(Step, Evaluation)>,
    finished: mpsc::UnboundedReceiver<Done<S::Begun>>,
    finish: mpsc::UnboundedSender<Done<S::Begun>>,
}

/// What an evaluation takes.
#[derive(Clone)]
pub(crate) struct Work {
    network: Network,
    identity: SecretIdentity,
    inputs: InputSource,
}

impl Evaluator {
    /// Idle.
    pub(crate) fn new(
        network: Network,
        identity: SecretIdentity,
        inputs: InputSource,
        tasks: Tasks,
    ) -> Self {
        Self::by(Work { network, identity, inputs }, tasks)
    }

    /// Signs and gossips what all steps of a slot come to here.
    pub(crate) fn state(&self, manifest: Manifest, evaluation: Blake3Digest) {
        let Work { network, identity, .. } = self.work.clone();
        self.tasks.spawn(async move {
            evaluation::report(&network, &identity, &manifest, evaluation).await;
        });
    }
}

impl<S: Steps> Evaluator<S> {
    fn by(work: S, tasks: Tasks) -> Self {
        let (finish, finished) = mpsc::unbounded_channel();
        Self { work, tasks, running: None, begun: None, last: None, finished, finish }
    }

    /// Evaluates a step of a locked manifest, after what was opened, unless that was done.
    pub(crate) fn start(&mut self, manifest: Manifest, step: u16, opened: Vec<Vec<u8>>) {
        let key = (manifest.slot, step);
        if let Some((_, before)) = self.running.take() {
            before.cancel();
        }
        let begun = self.begun.take_if(|(slot, ..)| *slot == manifest.slot);
        if let (Some((of, known)), Some(begun)) = (&self.last, &begun)
            && *of == key
        {
            self.running = Some((key, begun.2.clone()));
            // The receiver is this one's own.
            let _ = self.finish.send((key, Ok((known.clone(), begun.clone()))));
            return;
        }
        let cancellation = match &begun {
            Some((.., cancellation)) => cancellation.clone(),
            None => Cancellation::default(),
        };
        self.running = Some((key, cancellation.clone()));
        let (work, finish) = (self.work.clone(), self.finish.clone());
        self.tasks.spawn(async move {
            let begun = begun.map(|(_, begun, _)| begun);
            let result = work.evaluate(manifest, begun, opened, cancellation.clone()).await;
            if !cancellation.is_cancelled() {
                let result =
                    result.map(|(evaluation, begun)| (evaluation, (key.0, begun, cancellation)));
                // The member has stopped if nobody takes it.
                let _ = finish.send((key, result));
            }
        });
    }

    /// The slot needs no evaluation any more.
    pub(crate) fn cancel(&mut self, slot: Slot) {
        if let Some((_, cancellation)) = self.running.take_if(|((of, _), _)| *of == slot) {
            cancellation.cancel();
        }
        self.begun.take_if(|(of, ..)| *of == slot);
        self.last.take_if(|((of, _), _)| *of == slot);
    }

    /// The next evaluation that has finished.
    pub(crate) async fn finished(&mut self) -> Option<Finished> {
        let (step, result) = loop {
            let (step, result) = self.finished.recv().await?;
            // One that was given up while it came is left aside. The next step listens to the same cancellation.
            if self.running.take_if(|(of, _)| *of == step).is_some() {
                break (step, result);
            }
        };
        let result = result.map(|(evaluation, begun)| {
            self.begun = Some(begun);
            self.last = Some((step, evaluation.clone()));
            evaluation
        });
        Some((step, result))
    }

    /// What a step has put out, if it was evaluated here.
    pub(crate) fn blocks(&self, step: Step) -> Option<Vec<SquashedBlock>> {
        let (_, evaluation) = self.last.as_ref().filter(|(of, _)| *of == step)?;
        Some(evaluation.blocks.to_vec())
    }
}

impl Steps for Work {
    type Begun = Begun;

    async fn evaluate(
        &self,
        manifest: Manifest,
        begun: Option<Begun>,
        opened: Vec<Vec<u8>>,
        cancellation: Cancellation,
    ) -> Result<(Evaluation, Begun), String> {
        let evaluated = self.evaluate_step(manifest, begun, opened, &cancellation).await;
        evaluated.map_err(|error| error.to_string())
    }
}

impl Work {
    async fn evaluate_step(
        &self,
        manifest: Manifest,
        begun: Option<Begun>,
        opened: Vec<Vec<u8>>,
        cancellation: &Cancellation,
    ) -> Result<(Evaluation, Begun), Failure> {
        let mut proof_seconds = 0.0;
        let begun = match begun {
            Some(begun) => begun,
            None => {
                proof_seconds = seconds_of_proofs(&self.inputs.epoch, &manifest);
                // "A member that sees the lock of a manifest that it did not vote for stores the bundle first."
                // (`slot.md`, 5)
                let (fetched, kept) = self.inputs.fetch_and_keep(manifest).await?;
                self.inputs.begin(kept.manifest().clone(), fetched, cancellation.clone())?
            }
        };
        let ((outputs, digest), seconds) = begun.step(opened).await?;
        let epoch = Arc::clone(&self.inputs.epoch);
        let (key, since) = (self.inputs.key()?, Instant::now());
        let squashed = tokio::task::spawn_blocking(move || {
            let squash = || outputs.squash(&key);
            let squashed = epoch.evaluators.run(squash)??;
            Ok::<_, Failure>(squashed.as_slice().iter().flat_map(squashed_blocks).collect())
        });
        let blocks: Vec<_> = squashed.await.map_err(|_| Failure::Stopped)??;
        let public = begun.public.clone();
        let evaluation = Evaluation {
            evaluated: Evaluated { digest, public, outputs: blocks.len() },
            blocks: Arc::new(blocks),
            proof_seconds,
            seconds,
            squash_seconds: since.elapsed().as_secs_f64(),
        };
        Ok((evaluation, begun))
    }
}

fn seconds_of_proofs(epoch: &ActiveEpoch, manifest: &Manifest) -> f64 {
    let pool = epoch.pool();
    let entries = manifest.telemetry.iter();
    entries.filter_map(|e| Some(pool.get(&e.sender, &e.digest)?.expanded.seconds)).sum()
}

#[cfg(test)]
mod tests;
