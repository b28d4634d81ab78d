//! What a job can say and nobody does. This is the only list: whoever makes something work takes its line out.
//!
//! That two runs of a periodic job are never under way at once is decided for good (`docs/adr/0021-no-runs-side-by-side.md`).

use crate::{
    job::JobSpec,
    kind::{JobType, Overlap},
};

/// A job asks for something that nobody does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{key}`: {what}")]
pub struct Unsupported {
    /// The key of the job file.
    pub key: &'static str,
    /// What nobody does, and what is possible instead.
    pub what: &'static str,
}

type Asks = fn(&JobSpec) -> bool;

/// Key of the job file, what it asks for, whether a job asks for it.
const LIST: &[(&str, &str, Asks)] = &[(
    "periodic.overlap",
    "two runs of one periodic job are never under way at once: write overlap = \"skip\" or \"replace\", or give the \
     runs jobs of their own, whose times take turns",
    |job| matches!(job.kind, JobType::Periodic { overlap: Overlap::Allow, .. }),
)];

/// Everything that the job asks for in vain, in the order of the list.
pub fn asked_by(job: &JobSpec) -> impl Iterator<Item = Unsupported> {
    let asked = LIST.iter().filter(|(.., asks)| asks(job));
    asked.map(|&(key, what, _)| Unsupported { key, what })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arbitrary::{everything, job};

    #[test]
    fn a_job_that_asks_for_everything_asks_for_each_line() {
        let asked: Vec<_> = asked_by(&everything()).map(|asked| asked.key).collect();
        assert_eq!(asked, LIST.iter().map(|(key, ..)| *key).collect::<Vec<_>>());
        assert_eq!(asked_by(&job()).next(), None);
    }
}
