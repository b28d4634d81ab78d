//! What the engine says of single containers, asked as seldom as it can be.
//!
//! The list of containers, which is one call, has a line of text for each. As long as that says nothing new,
//! what was heard before holds for [`HOLDS`]. A container of which the engine does not answer is asked about
//! after growing pauses only, and meanwhile its failure is the answer: it costs the others no time.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use bollard::models::ContainerSummary;
use tokio::time::Instant;

use crate::{error::DockerError, observe::Seen, pause::Pause};

/// How long an answer holds if the list says nothing new: a container that ran for more than a minute, and
/// was started again by the engine unseen, shows the new count this much later.
const HOLDS: Duration = Duration::from_secs(30);

/// What a line of the list says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Line {
    state: Option<String>,
    /// Exit code or health.
    detail: Option<String>,
    /// Seconds since it started or ended; a minute stands for all that is longer.
    age: u64,
}

impl Line {
    /// Such as `Up 35 seconds (healthy)`, `Exited (137) 2 minutes ago`, `Up Less than a second`.
    pub(crate) fn of(container: &ContainerSummary) -> Self {
        let text = container.status.as_deref().unwrap_or_default();
        let detail = text.split_once('(').and_then(|(_, rest)| rest.split_once(')'));
        let words: Vec<_> = text.split(' ').collect();
        let unit = words.iter().position(|word| word.starts_with("second"));
        let age = match unit {
            _ if text.contains("Less than a second") => 0,
            Some(unit) => {
                unit.checked_sub(1).and_then(|before| words.get(before)?.parse().ok()).unwrap_or(0)
            }
            None => 60,
        };
        Self {
            state: container.state.map(|state| state.to_string()),
            detail: detail.map(|(detail, _)| detail.to_owned()),
            age,
        }
    }

    /// Whether nothing can have happened but that time went by.
    fn follows(&self, before: &Self) -> bool {
        (&self.state, &self.detail) == (&before.state, &before.detail) && self.age >= before.age
    }
}

#[derive(Debug)]
struct Look {
    line: Line,
    at: Instant,
    answer: Result<Seen, Failed>,
}

#[derive(Debug)]
struct Failed {
    error: Arc<DockerError>,
    pause: Pause,
}

/// The last answers, by the engine's id of the container.
#[derive(Debug, Default)]
pub(crate) struct Looks {
    looks: BTreeMap<String, Look>,
}

impl Looks {
    /// What is known without asking.
    pub(crate) fn known(
        &mut self,
        id: &str,
        line: &Line,
        now: Instant,
    ) -> Option<Result<Seen, Arc<DockerError>>> {
        let look = self.looks.get_mut(id)?;
        if !line.follows(&look.line) {
            return None;
        }
        look.line.age = line.age;
        match &look.answer {
            Ok(seen) => (now.duration_since(look.at) < HOLDS).then(|| Ok(seen.clone())),
            Err(failed) => failed.pause.left(now).map(|_| Err(Arc::clone(&failed.error))),
        }
    }

    pub(crate) fn keep(
        &mut self,
        id: &str,
        line: Line,
        answer: Result<Seen, Arc<DockerError>>,
        now: Instant,
    ) -> Result<Seen, Arc<DockerError>> {
        let kept = answer.clone().map_err(|error| {
            let before = self.looks.remove(id).and_then(|look| look.answer.err());
            let mut pause = before.map_or_else(|| Pause::new(now), |failed| failed.pause);
            pause.fail(now, None);
            Failed { error, pause }
        });
        self.looks.insert(id.to_owned(), Look { line, at: now, answer: kept });
        answer
    }

    /// The others are gone.
    pub(crate) fn retain(&mut self, containers: &BTreeSet<&str>) {
        self.looks.retain(|id, _| containers.contains(id.as_str()));
    }
}

#[cfg(test)]
mod tests {
    use bollard::models::ContainerSummaryStateEnum as State;

    use super::*;

    fn line(state: State, text: &str) -> Line {
        let status = Some(text.to_owned());
        Line::of(&ContainerSummary { state: Some(state), status, ..ContainerSummary::default() })
    }

    #[test]
    fn a_line_of_the_list_follows_another_unless_something_has_happened() {
        use State::{EXITED, RESTARTING, RUNNING};
        for (before, after, follows) in [
            ((RUNNING, "Up Less than a second"), (RUNNING, "Up 1 second"), true),
            ((RUNNING, "Up 35 seconds"), (RUNNING, "Up About a minute"), true),
            ((RUNNING, "Up About a minute"), (RUNNING, "Up 2 hours"), true),
            ((RUNNING, "Up 2 hours"), (RUNNING, "Up 3 seconds"), false),
            ((RUNNING, "Up 35 seconds"), (RUNNING, "Up 2 seconds"), false),
            ((RUNNING, "Up 2 hours"), (RUNNING, "Up Less than a second"), false),
            (
                (RUNNING, "Up 3 seconds (health: starting)"),
                (RUNNING, "Up 4 seconds (healthy)"),
                false,
            ),
            ((RUNNING, "Up 3 minutes (healthy)"), (RUNNING, "Up 4 minutes (unhealthy)"), false),
            ((RUNNING, "Up 3 minutes (healthy)"), (RUNNING, "Up 4 minutes (healthy)"), true),
            ((RUNNING, "Up 3 minutes"), (EXITED, "Exited (0) 1 second ago"), false),
            ((EXITED, "Exited (0) 1 second ago"), (EXITED, "Exited (0) 3 weeks ago"), true),
            ((EXITED, "Exited (0) 50 seconds ago"), (EXITED, "Exited (0) 1 second ago"), false),
            ((RESTARTING, "Restarting (1) 2 seconds ago"), (RUNNING, "Up 1 second"), false),
        ] {
            let (before, after) = (line(before.0, before.1), line(after.0, after.1));
            assert_eq!(after.follows(&before), follows, "{before:?} {after:?}");
        }
    }
}
