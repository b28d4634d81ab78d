//! How far something is that takes minutes: on a terminal a line that changes, elsewhere a line a step.

use core::fmt;
use std::{
    io::{IsTerminal as _, stderr},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};

use crate::waiting::note;

/// Between two lines about one step where there is no terminal.
const DETAIL_INTERVAL: Duration = Duration::from_secs(10);

/// What has a length, stage by stage: a bar.
pub struct Stages {
    bar: ProgressBar,
    terminal: bool,
    last: Mutex<String>,
}

impl fmt::Debug for Stages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stages").field("last", &self.last).finish_non_exhaustive()
    }
}

impl Default for Stages {
    fn default() -> Self {
        let terminal = stderr().is_terminal();
        let bar = if terminal { ProgressBar::new(1) } else { ProgressBar::hidden() };
        let template = "{msg:24} [{bar:40}] {percent:>3}% {elapsed_precise} eta {eta}";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.enable_steady_tick(Duration::from_millis(500));
        Self { bar, terminal, last: Mutex::new(String::new()) }
    }
}

impl Stages {
    /// Units done of a stage.
    pub fn at(&self, stage: &str, done: u64, total: u64) {
        self.bar.set_length(total.max(1));
        self.bar.set_position(done);
        self.stage(stage);
    }

    /// A new stage.
    pub fn stage(&self, stage: &str) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if *last == stage {
            return;
        }
        stage.clone_into(&mut last);
        if self.terminal {
            self.bar.set_message(stage.to_owned());
        } else {
            note(stage);
        }
    }

    /// A line that stays.
    pub fn say(&self, line: &str) {
        self.bar.suspend(|| note(line));
    }

    /// Takes the bar away.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

/// What has steps of unknown length: a spinner.
pub struct Steps {
    bar: ProgressBar,
    terminal: bool,
    step: Mutex<(&'static str, Option<Instant>)>,
}

impl fmt::Debug for Steps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Steps").field("step", &self.step).finish_non_exhaustive()
    }
}

impl Default for Steps {
    fn default() -> Self {
        let terminal = stderr().is_terminal();
        let bar = if terminal { ProgressBar::new_spinner() } else { ProgressBar::hidden() };
        if let Ok(style) =
            ProgressStyle::with_template("{spinner} {prefix:14} {elapsed} {wide_msg}")
        {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(200));
        Self { bar, terminal, step: Mutex::new(("", None)) }
    }
}

impl Steps {
    /// A new step.
    pub fn step(&self, step: &'static str) {
        *self.step.lock().unwrap_or_else(PoisonError::into_inner) = (step, None);
        if self.terminal {
            self.bar.set_prefix(step);
            self.bar.set_message("");
            self.bar.reset_elapsed();
        } else {
            note(format_args!("{step} ..."));
        }
    }

    /// Where the step is.
    pub fn detail(&self, detail: &str) {
        if self.terminal {
            self.bar.set_message(detail.to_owned());
            return;
        }
        let mut step = self.step.lock().unwrap_or_else(PoisonError::into_inner);
        if step.1.is_none_or(|last| last.elapsed() >= DETAIL_INTERVAL) {
            step.1 = Some(Instant::now());
            note(format_args!("{}: {detail}", step.0));
        }
    }

    /// A line that stays.
    pub fn say(&self, line: &str) {
        self.bar.suspend(|| note(line));
    }

    /// Takes the spinner away.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
