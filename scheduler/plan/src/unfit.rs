//! Why a worker is no candidate for a job, by what is public.

use std::{collections::BTreeMap, fmt};

use veil_protocol_spec::scheduling::{JobSpec, Label, Organisation, Profile, VolumeKind};

/// What the chain says of a worker, and of who has submitted a job, as of one block.
#[derive(Clone, Copy, Debug, Default)]
pub struct OnChain<'a> {
    /// The worker's labels.
    pub labels: &'a [Label],
    /// The worker's organisation; `None` if nobody vouches for it.
    pub organisation: Option<&'a Organisation>,
    /// The submitter's organisations: those of the nodes that it has registered.
    pub submitter: &'a [Organisation],
}

/// What a worker lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Unfit {
    /// It has not the labels that the job asks for, or one that the job does not want.
    Labels,
    /// It is of none of the organisations that the job names.
    Organisation,
    /// It does not offer a host volume of the job.
    Volume,
    /// It does not let containers reach as much.
    Egress,
    /// Its operator does not take jobs of this submitter.
    Operator,
    /// Its operator does not take this image.
    Image,
    /// It is given nothing more.
    Closed,
    /// A replica of the job, from which this one must be kept apart, runs in its failure domain.
    Taken,
}

impl Unfit {
    /// What a worker of which the chain says this, with this profile in its telemetry, lacks for a job; `None`
    /// if nothing.
    #[must_use]
    pub fn of(job: &JobSpec, chain: OnChain<'_>, profile: &Profile) -> Option<Self> {
        let accepts = &profile.accepts;
        let volumes = job.volumes.iter();
        let mut from_host = volumes.filter(|volume| matches!(volume.kind, VolumeKind::Host { .. }));
        if !job.constraints.are_met_by(&[chain.labels, &profile.facts].concat()) {
            Some(Self::Labels)
        } else if !job.constraints.organisations.contain(chain.organisation) {
            Some(Self::Organisation)
        } else if !from_host.all(|volume| profile.volumes.contains(&volume.name)) {
            Some(Self::Volume)
        } else if !accepts.egress(job.egress) {
            Some(Self::Egress)
        } else if !accepts.submitter(&job.operator, chain.submitter) {
            Some(Self::Operator)
        } else if !accepts.image(&job.image) {
            Some(Self::Image)
        } else {
            None
        }
    }

    /// How many of the workers are candidates, and what the others lack.
    pub fn count<'a>(
        job: &JobSpec,
        workers: impl Iterator<Item = (OnChain<'a>, &'a Profile)>,
    ) -> (usize, UnfitCounts) {
        let lacks: Vec<_> = workers.map(|(chain, profile)| Self::of(job, chain, profile)).collect();
        let found = lacks.iter().filter(|lack| lack.is_none()).count();
        (found, lacks.into_iter().flatten().collect())
    }

    const fn text(self) -> &'static str {
        match self {
            Self::Labels => "by labels",
            Self::Organisation => "by organisation",
            Self::Volume => "for want of a volume",
            Self::Egress => "by what containers may reach there",
            Self::Operator => "by whose jobs they take",
            Self::Image => "by the images that they take",
            Self::Closed => "because they take nothing more",
            Self::Taken => "by hard anti-affinity",
        }
    }
}

/// How many workers are no candidates, by what they lack first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnfitCounts(BTreeMap<Unfit, usize>);

impl UnfitCounts {
    /// Of one.
    #[must_use]
    pub fn of(&self, unfit: Unfit) -> usize {
        self.0.get(&unfit).copied().unwrap_or_default()
    }
}

impl FromIterator<Unfit> for UnfitCounts {
    fn from_iter<I: IntoIterator<Item = Unfit>>(unfit: I) -> Self {
        let mut counts = BTreeMap::new();
        unfit.into_iter().for_each(|one| *counts.entry(one).or_default() += 1);
        Self(counts)
    }
}

/// Such as `2 by labels, 1 for want of a volume`.
impl fmt::Display for UnfitCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("none");
        }
        for (position, (unfit, count)) in self.0.iter().enumerate() {
            let comma = if position > 0 { ", " } else { "" };
            write!(f, "{comma}{count} {}", unfit.text())?;
        }
        Ok(())
    }
}
