//! What a job can say and nobody does yet. This is the only list: whoever makes something work takes its
//! line out.

use crate::{
    job::JobSpec,
    kind::{JobType, Overlap},
};

/// A job asks for something that this version does not do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{key}`: this version does not support {what}")]
pub struct Unsupported {
    /// The key of the job file.
    pub key: &'static str,
    /// What nobody does yet, and what is possible instead.
    pub what: &'static str,
}

type Asks = fn(&JobSpec) -> bool;

/// Key of the job file, what it asks for, whether a job asks for it.
const LIST: &[(&str, &str, Asks)] = &[(
    "periodic.overlap",
    "two runs of a periodic job at once; write overlap = \"skip\" or \"replace\"",
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
