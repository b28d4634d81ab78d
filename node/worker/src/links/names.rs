//! What the names of jobs mean at the moment, operator by operator: for links and start conditions.
//!
//! "A link names a job by its name. It means the jobs of the same operator in the same cluster whose bodies have that
//! name, all versions of it."

use std::collections::BTreeMap;

use veil_node_links::{LinkOf, Nowhere, Target};
use veil_protocol_spec::{
    Address, Blake3Digest, ReplicaIndex,
    scheduling::{JobSpec, Name, Protocol, ReplicaExit, circle_of},
};

/// What is needed of one job that the chain lists and whose body is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Listed {
    /// Its place in the chain's order.
    pub(crate) position: u64,
    pub(crate) job: Blake3Digest,
    pub(crate) operator: Address,
    pub(crate) name: Name,
    pub(crate) replicas: u16,
    /// Names of its TCP ports.
    pub(crate) ports: Vec<Name>,
    /// Names of the jobs that it waits for.
    pub(crate) after: Vec<Name>,
}

impl Listed {
    pub(crate) fn of(position: u64, body: &JobSpec) -> Self {
        let tcp = body.ports.iter().filter(|port| port.protocol == Protocol::Tcp);
        Self {
            position,
            job: body.digest(),
            operator: body.operator,
            name: body.name.clone(),
            replicas: body.replicas,
            ports: tcp.map(|port| port.name.clone()).collect(),
            after: body.after.iter().map(|after| after.job.clone()).collect(),
        }
    }
}

/// Whether all replicas of a job have ended with code 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// They have.
    Done,
    /// So many have not yet.
    Open(usize),
    /// One has ended otherwise, with this code if that is known.
    Failed(Option<i32>),
    /// There is no such job.
    NoJob,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Named {
    /// The version that is wanted.
    wanted: Option<Listed>,
    /// Every replica that has a place, with the ports that it has.
    placed: Vec<(Target, Vec<Name>)>,
}

/// See the [module documentation](self).
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Names(BTreeMap<(Address, Name), Named>);

impl Names {
    /// `jobs` are those that the chain lists and nobody has withdrawn; `placed` says where replicas of one are, or were
    /// and may still be, and `is_current` whether one is the version that an update goes to.
    pub(crate) fn of(
        jobs: impl IntoIterator<Item = Listed>,
        placed: impl Fn(&Blake3Digest) -> Vec<Target>,
        is_current: impl Fn(&Blake3Digest) -> bool,
    ) -> Self {
        let mut all = BTreeMap::<_, Named>::new();
        for listed in jobs {
            let named = all.entry((listed.operator, listed.name.clone())).or_default();
            let place = |target| (target, listed.ports.clone());
            named.placed.extend(placed(&listed.job).into_iter().map(place));
            // Which one is wanted an update decides, once a certificate has noted that there are several.
            let rank = |of: &Listed| (is_current(&of.job), of.position);
            if named.wanted.as_ref().is_none_or(|wanted| rank(wanted) < rank(&listed)) {
                named.wanted = Some(listed);
            }
        }
        for named in all.values_mut() {
            named.placed.sort_unstable();
        }
        Self(all)
    }

    fn named(&self, operator: Address, name: &Name) -> Option<&Named> {
        self.0.get(&(operator, name.clone()))
    }

    /// Where a link leads.
    pub(crate) fn targets(&self, of: &LinkOf) -> Result<Vec<Target>, Nowhere> {
        let (job, port) = (&of.link.job, &of.link.port);
        let named = self.named(of.operator, job).ok_or_else(|| Nowhere::NoJob(job.clone()))?;
        if named.placed.is_empty() {
            return Err(Nowhere::NotPlaced(job.clone()));
        }
        let has_port = named.placed.iter().filter(|(_, ports)| ports.contains(port));
        let targets: Vec<_> = has_port.map(|(target, _)| *target).collect();
        if targets.is_empty() {
            return Err(Nowhere::NoPort { job: job.clone(), port: port.clone() });
        }
        Ok(targets)
    }

    /// The replicas of a job that have a place.
    pub(crate) fn placed(&self, operator: Address, name: &Name) -> Result<Vec<Target>, Nowhere> {
        let named = self.named(operator, name).ok_or_else(|| Nowhere::NoJob(name.clone()))?;
        if named.placed.is_empty() {
            return Err(Nowhere::NotPlaced(name.clone()));
        }
        Ok(named.placed.iter().map(|(target, _)| *target).collect())
    }

    /// "Every replica of the job of that name, of the version that is wanted, has ended with code 0." `done` says how a
    /// replica has ended, if it has.
    pub(crate) fn ending(
        &self,
        done: impl Fn(Blake3Digest, ReplicaIndex) -> Option<ReplicaExit>,
        operator: Address,
        name: &Name,
    ) -> Ending {
        let wanted = self.named(operator, name).and_then(|named| named.wanted.as_ref());
        let Some(wanted) = wanted else { return Ending::NoJob };
        let mut open = 0;
        for replica in (0..wanted.replicas).map(ReplicaIndex) {
            match done(wanted.job, replica) {
                Some(exit) if exit.is_success() => {}
                Some(exit) => return Ending::Failed(exit.code),
                None => open += 1,
            }
        }
        if open == 0 { Ending::Done } else { Ending::Open(open) }
    }

    /// The names along which a job waits for itself; nothing if it does not.
    pub(crate) fn circle(&self, operator: Address, name: &Name) -> Option<Vec<Name>> {
        let after = |name: &Name| {
            let wanted = self.named(operator, name).and_then(|named| named.wanted.as_ref());
            wanted.map(|wanted| wanted.after.clone()).unwrap_or_default()
        };
        circle_of(name, after)
    }
}

#[cfg(test)]
mod tests;
