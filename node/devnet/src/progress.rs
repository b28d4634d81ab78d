//! What happens on the way, and how long each step takes.

use std::{sync::Arc, time::Instant};

/// What happens on the way.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// A step begins.
    Step(&'static str),
    /// Where it is.
    Detail(&'a str),
    /// It is done, after so many seconds.
    Done(&'static str, f64),
}

/// Is called with each event.
pub type EventHandler = Arc<dyn Fn(Event<'_>) + Send + Sync>;

/// Times a step.
pub(crate) struct StepTimer {
    on_event: EventHandler,
    step: &'static str,
    begun: Instant,
}

impl StepTimer {
    pub(crate) fn start(on_event: &EventHandler, step: &'static str) -> Self {
        on_event(Event::Step(step));
        Self { on_event: Arc::clone(on_event), step, begun: Instant::now() }
    }

    pub(crate) fn done(self) -> (&'static str, f64) {
        let seconds = self.begun.elapsed().as_secs_f64();
        (self.on_event)(Event::Done(self.step, seconds));
        (self.step, seconds)
    }
}
