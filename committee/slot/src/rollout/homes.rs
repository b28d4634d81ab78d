//! Where a version finds the data of the one before.

use veil_protocol_spec::{
    Blake3Digest, PeerIdHash, ReplicaIndex,
    scheduling::{ClusterState, JobSpec, Line, VolumeKind},
};

/// Of a replica of a job of this line that never had a place: the last version before its own of which a replica of
/// that index has one, or had it last, and where.
#[must_use]
pub fn predecessor(
    state: &ClusterState,
    line: &Line,
    job: Blake3Digest,
    replica: ReplicaIndex,
) -> Option<(Blake3Digest, PeerIdHash)> {
    if state.last_place(job, replica).is_some() {
        return None;
    }
    let others = line.versions().iter().rev().filter(|version| version.job != job);
    let mut places = others.filter_map(|of| Some((of.job, state.last_place(of.job, replica)?)));
    places.next()
}

/// Names of the folders of workers that a job keeps its data in.
#[must_use]
pub fn host_volumes(job: &JobSpec) -> Vec<String> {
    let of_host = job.volumes.iter().filter(|of| matches!(of.kind, VolumeKind::Host { .. }));
    of_host.map(|volume| volume.name.as_str().to_owned()).collect()
}

/// Whether a job keeps data where another one, its predecessor, did.
#[must_use]
pub fn inherits(job: &JobSpec, before: &JobSpec) -> bool {
    let kept = host_volumes(before);
    host_volumes(job).iter().any(|name| kept.contains(name))
}

#[cfg(test)]
mod tests {
    use veil_protocol_spec::scheduling::{OnLoss, Volume};

    use super::*;
    use crate::fixtures;

    fn with(volumes: &[(&str, VolumeKind)]) -> JobSpec {
        let volume = |(name, kind): &(&str, VolumeKind)| Volume {
            name: name.parse().unwrap(),
            mount: format!("/{name}").parse().unwrap(),
            kind: *kind,
            read_only: false,
        };
        JobSpec { volumes: volumes.iter().map(volume).collect(), ..fixtures::job(1) }
    }

    #[test]
    fn data_is_inherited_in_a_host_volume_of_the_same_name_and_in_no_other() {
        let host = VolumeKind::Host { on_loss: OnLoss::Pending };
        let empty = VolumeKind::Host { on_loss: OnLoss::Empty };
        let before = with(&[("data", host), ("scratch", host)]);
        for (volumes, expected) in [
            (&[("data", host)][..], true),
            (&[("data", empty)], true),
            (&[("other", host), ("scratch", host)], true),
            (&[("other", host)], false),
            (&[], false),
        ] {
            assert_eq!(inherits(&with(volumes), &before), expected, "{volumes:?}");
            assert_eq!(inherits(&before, &with(volumes)), expected, "{volumes:?}");
        }
    }
}
