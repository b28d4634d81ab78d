use std::{sync::Mutex, time::Duration};

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use veil_protocol_spec::{Wire as _, read_hex};
use veil_scheduler_plan::inputs::PublicInputs;

use super::*;

/// What the circuit was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Asked {
    slot: Slot,
    /// What it went on from: slot, and how often that was asked before.
    begun: Option<(Slot, usize)>,
    opened: Vec<Vec<u8>>,
}

/// A circuit that notes what it is asked, and answers when it is let.
#[derive(Clone)]
struct Noted {
    asked: Arc<Mutex<Vec<Asked>>>,
    cancellations: Arc<Mutex<Vec<Cancellation>>>,
    answers: Arc<Semaphore>,
    refuses: Option<&'static str>,
}

impl Noted {
    fn new(refuses: Option<&'static str>) -> Self {
        let answers = Arc::new(Semaphore::new(0));
        Self { asked: Arc::default(), cancellations: Arc::default(), answers, refuses }
    }

    fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    fn is_cancelled(&self, call: usize) -> bool {
        self.cancellations.lock().unwrap()[call].is_cancelled()
    }
}

impl Steps for Noted {
    type Begun = (Slot, usize);

    async fn evaluate(
        &self,
        manifest: Manifest,
        begun: Option<Self::Begun>,
        opened: Vec<Vec<u8>>,
        cancellation: Cancellation,
    ) -> Result<(Evaluation, Self::Begun), String> {
        let (slot, outputs) = (manifest.slot, opened.len());
        self.cancellations.lock().unwrap().push(cancellation);
        self.asked.lock().unwrap().push(Asked { slot, begun, opened });
        self.answers.acquire().await.unwrap().forget();
        if let Some(refusal) = self.refuses {
            return Err(refusal.to_owned());
        }
        let digest = Blake3Digest([u8::try_from(outputs).unwrap(); 32]);
        let evaluation = Evaluation {
            evaluated: Evaluated { digest, public: PublicInputs::default(), outputs },
            blocks: Arc::default(),
            proof_seconds: 0.0,
            seconds: 0.0,
            squash_seconds: 0.0,
        };
        Ok((evaluation, (slot, begun.map_or(0, |(_, steps)| steps) + 1)))
    }
}

fn evaluator(circuit: &Noted) -> Evaluator<Noted> {
    Evaluator::by(circuit.clone(), Tasks::new(CancellationToken::new()))
}

fn manifest(slot: u64) -> Manifest {
    let vectors = include_str!("../../../../protocol-spec/vectors/scheduling.json");
    let vectors: serde_json::Value = serde_json::from_str(vectors).unwrap();
    let text = vectors["manifest"]["encoding"].as_str().unwrap();
    let mut bytes = vec![0; text.len() / 2];
    read_hex(text, &mut bytes).unwrap();
    Manifest { slot: Slot(slot), ..Manifest::from_wire(&bytes).unwrap() }
}

/// Until the circuit was asked so often.
async fn asked(circuit: &Noted, times: usize) {
    while circuit.asked().len() < times {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

fn opened(steps: u8) -> Vec<Vec<u8>> {
    (0..steps).map(|step| vec![step]).collect()
}

#[tokio::test]
async fn a_step_goes_on_from_the_one_before_in_its_slot_alone() {
    let circuit = Noted::new(None);
    circuit.answers.add_permits(9);
    let mut evaluator = evaluator(&circuit);
    for step in 0..2 {
        evaluator.start(manifest(7), step.into(), opened(step));
        let (of, result) = evaluator.finished().await.unwrap();
        assert_eq!((of, result.unwrap().evaluated.outputs), ((Slot(7), step.into()), step.into()));
    }
    // What was opened in a slot, and what it has begun, is nothing to the next one.
    evaluator.start(manifest(8), 0, opened(0));
    assert_eq!(evaluator.finished().await.unwrap().0, (Slot(8), 0));
    let expected = [
        Asked { slot: Slot(7), begun: None, opened: opened(0) },
        Asked { slot: Slot(7), begun: Some((Slot(7), 1)), opened: opened(1) },
        Asked { slot: Slot(8), begun: None, opened: opened(0) },
    ];
    assert_eq!(circuit.asked(), expected);
    assert!(evaluator.blocks((Slot(8), 0)).is_some());
    assert!(evaluator.blocks((Slot(8), 1)).is_none() && evaluator.blocks((Slot(7), 1)).is_none());
}

/// Opening or signing may fail after it: that evaluates nothing again.
#[tokio::test]
async fn a_step_that_is_known_is_not_evaluated_again() {
    let circuit = Noted::new(None);
    circuit.answers.add_permits(9);
    let mut evaluator = evaluator(&circuit);
    for _ in 0..3 {
        evaluator.start(manifest(7), 1, opened(1));
        let (of, result) = evaluator.finished().await.unwrap();
        assert_eq!((of, result.unwrap().evaluated.outputs), ((Slot(7), 1), 1));
    }
    assert_eq!(circuit.asked().len(), 1);
    // Another step of the slot is, and goes on from it.
    evaluator.start(manifest(7), 2, opened(2));
    evaluator.finished().await.unwrap().1.unwrap();
    assert_eq!(circuit.asked()[1].begun, Some((Slot(7), 1)));
}

#[tokio::test]
async fn a_slot_that_has_ended_is_not_evaluated_to_the_end_and_its_result_is_left_aside() {
    let circuit = Noted::new(None);
    let mut evaluator = evaluator(&circuit);
    evaluator.start(manifest(7), 0, opened(0));
    asked(&circuit, 1).await;
    evaluator.cancel(Slot(6));
    assert!(!circuit.is_cancelled(0), "another slot");
    evaluator.cancel(Slot(7));
    assert!(circuit.is_cancelled(0));
    // The next slot begins while the circuit still computes for the last.
    evaluator.start(manifest(8), 0, opened(0));
    asked(&circuit, 2).await;
    circuit.answers.add_permits(2);
    assert_eq!(evaluator.finished().await.unwrap().0, (Slot(8), 0));
    assert!(!circuit.is_cancelled(1));
    assert!(evaluator.blocks((Slot(7), 0)).is_none());
    // A result that came before the slot was given up.
    evaluator.start(manifest(9), 0, opened(0));
    asked(&circuit, 3).await;
    circuit.answers.add_permits(1);
    while evaluator.finished.is_empty() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    evaluator.cancel(Slot(9));
    evaluator.start(manifest(10), 0, opened(0));
    circuit.answers.add_permits(1);
    assert_eq!(evaluator.finished().await.unwrap().0, (Slot(10), 0));
}

/// As of a manifest that names a circuit which this build does not have.
#[tokio::test]
async fn what_cannot_be_evaluated_is_said_by_name_and_begun_anew_next_time() {
    let circuit = Noted::new(Some("the manifest is for another circuit"));
    circuit.answers.add_permits(9);
    let mut evaluator = evaluator(&circuit);
    for _ in 0..2 {
        evaluator.start(manifest(7), 0, opened(0));
        let (of, result) = evaluator.finished().await.unwrap();
        assert_eq!(of, (Slot(7), 0));
        assert_eq!(result.err().as_deref(), Some("the manifest is for another circuit"));
        assert!(evaluator.blocks((Slot(7), 0)).is_none(), "nothing is opened");
    }
    assert!(circuit.asked().iter().all(|asked| asked.begun.is_none()));
}
