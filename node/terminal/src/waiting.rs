//! What a command waits for: said on standard error once it has taken longer than a person waits gladly.
//!
//! A command says what it is about to wait for with [`on`], as often as that changes, and [`over`] ends it.
//! What is done within [`QUIET`] says nothing. After that, what it waits for is a line, once more every
//! [`AGAIN`] with the seconds that it has taken: on a terminal in the place of the line before.

use core::fmt::{self, Write as _};
use std::{
    io::{IsTerminal as _, Write as _, stderr},
    sync::{Mutex, MutexGuard, Once, PoisonError},
    thread,
    time::{Duration, Instant},
};

/// What a command waits for that has a transaction to send.
pub const TRANSACTION: &str = "waiting until the transaction is mined and deep enough";
/// So long nothing is said.
pub const QUIET: Duration = Duration::from_secs(2);
/// Between two lines about the same.
pub const AGAIN: Duration = Duration::from_secs(10);
/// Between two looks at the clock.
const TICK: Duration = Duration::from_millis(200);

/// What is waited for, and what was said of it.
#[derive(Debug)]
struct Wait {
    begun: Instant,
    what: String,
    said: Option<Instant>,
}

impl Wait {
    /// What is to be said now, if anything; a terminal can be told every second.
    fn due(&mut self, now: Instant, again: Duration) -> Option<String> {
        let waited = now.saturating_duration_since(self.begun);
        if waited < QUIET {
            return None;
        }
        let since = self.said.map(|said| now.saturating_duration_since(said));
        if since.is_some_and(|since| since < again) {
            return None;
        }
        self.said = Some(now);
        let mut line = self.what.clone();
        if since.is_some() {
            let _ = write!(line, " ({} s)", waited.as_secs()); // into a string
        } else {
            line.push_str(" ...");
        }
        Some(line)
    }
}

/// For the process: it has one standard error.
struct Waiting {
    wait: Option<Wait>,
    /// Whether the last line of the terminal is ours to take away.
    on_terminal: bool,
}

static WAITING: Mutex<Waiting> = Mutex::new(Waiting { wait: None, on_terminal: false });

fn waiting() -> MutexGuard<'static, Waiting> {
    WAITING.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Waiting {
    /// Takes away the line that is there for now.
    fn clear(&mut self) {
        if core::mem::take(&mut self.on_terminal) {
            let _ = write!(stderr().lock(), "\r\x1b[K"); // nobody reads it
        }
    }

    fn tick(&mut self) {
        let terminal = stderr().is_terminal();
        let again = if terminal { Duration::from_secs(1) } else { AGAIN };
        let Some(line) = self.wait.as_mut().and_then(|wait| wait.due(Instant::now(), again)) else {
            return;
        };
        if !terminal {
            let _ = writeln!(stderr().lock(), "{line}"); // nobody reads it
            return;
        }
        let columns = console::Term::stderr().size_checked().map_or(80, |(_, columns)| columns);
        let line: String = line.chars().take(usize::from(columns).saturating_sub(1)).collect();
        let _ = write!(stderr().lock(), "\r\x1b[K{line}"); // nobody reads it
        self.on_terminal = true;
    }
}

/// From now on this is waited for: a line such as `waiting for the node at /run/veil/admin.sock`.
pub fn on(what: impl fmt::Display) {
    static TICKER: Once = Once::new();
    let mut waiting = waiting();
    let begun = waiting.wait.as_ref().map_or_else(Instant::now, |wait| wait.begun);
    waiting.wait = Some(Wait { begun, what: what.to_string(), said: None });
    drop(waiting);
    TICKER.call_once(|| {
        let ticker = thread::Builder::new().name("waiting".to_owned());
        // Without a thread nothing is said, and the command does its work.
        let _ = ticker.spawn(|| {
            loop {
                thread::sleep(TICK);
                self::waiting().tick();
            }
        });
    });
}

/// Nothing is waited for any more.
pub fn over() {
    let mut waiting = waiting();
    waiting.wait = None;
    waiting.clear();
}

/// A line for a person, on standard error, whatever is waited for.
pub fn note(line: impl fmt::Display) {
    waiting().clear();
    let _ = writeln!(stderr().lock(), "{line}"); // nobody reads it
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_quick_says_nothing_and_what_is_slow_says_it_again() {
        let begun = Instant::now();
        let mut wait = Wait { begun, what: "waiting for a block".to_owned(), said: None };
        let at = |seconds| begun + Duration::from_secs_f64(seconds);
        let mut said = Vec::new();
        for tick in 0..125_u32 {
            let seconds = f64::from(tick) / 5.0;
            if let Some(line) = wait.due(at(seconds), AGAIN) {
                said.push((seconds, line));
            }
        }
        let expected = [
            (2.0, "waiting for a block ..."),
            (12.0, "waiting for a block (12 s)"),
            (22.0, "waiting for a block (22 s)"),
        ];
        assert_eq!(said, expected.map(|(seconds, line)| (seconds, line.to_owned())));
        // What comes next is said at once: the command has been slow already.
        let mut wait = Wait { begun, what: "asking the node".to_owned(), said: None };
        assert_eq!(wait.due(at(25.0), AGAIN).as_deref(), Some("asking the node ..."));
    }
}
