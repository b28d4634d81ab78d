//! Progress: a bar on a terminal, a line per stage otherwise.

use std::{
    io::{IsTerminal, stderr},
    sync::Mutex,
    time::Duration,
};

use indicatif::{ProgressBar, ProgressStyle};

use super::output;

/// Tells a person how far a long job is, on standard error.
pub(super) struct Reporter {
    bar: ProgressBar,
    terminal: bool,
    last: Mutex<String>,
}

impl Reporter {
    pub(super) fn new() -> Self {
        let terminal = stderr().is_terminal();
        let bar = if terminal { ProgressBar::new(1) } else { ProgressBar::hidden() };
        let template = "{msg:24} [{bar:40}] {percent:>3}% {elapsed_precise} eta {eta}";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.enable_steady_tick(Duration::from_millis(500));
        Self { bar, terminal, last: Mutex::new(String::new()) }
    }

    /// Units done of a stage.
    pub(super) fn at(&self, stage: &str, done: u64, total: u64) {
        self.bar.set_length(total.max(1));
        self.bar.set_position(done);
        self.stage(stage);
    }

    /// A new stage.
    pub(super) fn stage(&self, stage: &str) {
        let Ok(mut last) = self.last.lock() else { return };
        if *last == stage {
            return;
        }
        stage.clone_into(&mut last);
        if self.terminal {
            self.bar.set_message(stage.to_owned());
        } else {
            output::note(stage);
        }
    }

    /// A line that stays.
    pub(super) fn say(&self, line: &str) {
        self.bar.suspend(|| output::note(line));
    }

    pub(super) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
