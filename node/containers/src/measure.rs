//! How much is in ephemeral volumes that the engine cannot limit.
//!
//! Looked at with each sample for telemetry, where this process may read the engine's folders, as root may. More
//! than the job asked for is said of the replica; nothing is stopped.

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use bollard::models::ContainerSummary;
use veil_protocol_spec::scheduling::{JobSpec, Name, VolumeKind};

use crate::{executor::Executor, labels, replica::ReplicaId};

/// Files and folders of one volume that are looked at: what more of them hold is not found out.
const MOST: usize = 100_000;
/// As `stat` counts.
const BLOCK: u64 = 512;

/// A folder of the engine, and how much may be in it.
struct Looked {
    replica: ReplicaId,
    name: Name,
    folder: PathBuf,
    bytes: u64,
}

impl Executor {
    /// Looks into the volumes of `listed`.
    pub(crate) async fn measure(&self, listed: &[ContainerSummary]) {
        let volumes: Vec<_> = {
            let memory = self.memory();
            if memory.has_quotas == Some(true) {
                return;
            }
            let of = |container: &ContainerSummary| {
                let replica = labels::read(container.labels.as_ref()?)?.id;
                Some(volumes(replica, &memory.desired.get(&replica)?.spec, container))
            };
            listed.iter().filter_map(of).flatten().collect()
        };
        if volumes.is_empty() {
            self.memory().overfull.clear();
            return;
        }
        let looking = tokio::task::spawn_blocking(move || {
            let is_full = |volume: &Looked| {
                size(&volume.folder, volume.bytes).is_ok_and(|held| held > volume.bytes)
            };
            let full = volumes.into_iter().filter(is_full);
            full.map(|volume| (volume.replica, volume.name)).collect::<BTreeMap<_, _>>()
        });
        if let Ok(overfull) = looking.await {
            self.memory().overfull = overfull;
        }
    }
}

fn volumes(replica: ReplicaId, spec: &JobSpec, container: &ContainerSummary) -> Vec<Looked> {
    let mounts = container.mounts.as_deref().unwrap_or_default();
    let ephemeral = spec.volumes.iter().filter_map(|volume| match volume.kind {
        VolumeKind::Ephemeral { size } => Some((volume, size.bytes())),
        VolumeKind::Host { .. } | VolumeKind::Tmpfs { .. } => None,
    });
    let looked = ephemeral.filter_map(|(volume, bytes)| {
        let is_there = volume.mount.as_str();
        let mut own = mounts.iter().filter(|one| one.typ.as_deref() == Some("volume"));
        let folder = own.find(|one| one.destination.as_deref() == Some(is_there))?.source.clone();
        Some(Looked { replica, name: volume.name.clone(), folder: folder?.into(), bytes })
    });
    looked.collect()
}

/// What a folder holds, or more than `enough` as soon as it does; links are not followed.
fn size(folder: &Path, enough: u64) -> io::Result<u64> {
    let mut folders = vec![folder.to_owned()];
    let (mut held, mut entries) = (0, 0);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let metadata = entry.metadata()?;
            held += metadata.blocks() * BLOCK;
            entries += 1;
            if held > enough || entries > MOST {
                return Ok(held);
            }
            if metadata.is_dir() {
                folders.push(entry.path());
            }
        }
    }
    Ok(held)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_folders_counts_and_what_links_lead_to_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let deep = folder.path().join("a/b");
        fs::create_dir_all(&deep).unwrap();
        fs::write(deep.join("file"), vec![7; 3 << 20]).unwrap();
        std::os::unix::fs::symlink("/usr", folder.path().join("link")).unwrap();
        let held = size(folder.path(), u64::MAX).unwrap();
        assert!((3 << 20..4 << 20).contains(&held), "{held}");
        assert!(size(folder.path(), 1 << 20).unwrap() > 1 << 20);
        assert!(size(&folder.path().join("missing"), 0).is_err());
    }
}
