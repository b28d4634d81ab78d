//! What a job's volumes are to the engine.
//!
//! # Ephemeral ones
//! Volumes of the engine without names: it removes them with their container. They are limited where
//! the engine's disk has project quotas, as XFS mounted with `pquota` has; elsewhere their size is reserved, and
//! no more. As with `docker run`, they begin with what the image has in their place.
//!
//! # Set-id programs and devices
//! The engine mounts folders of the host and its own volumes without `nosuid` and `nodev`, and has no option
//! for it. Neither helps: no container gains privileges by a program (`no-new-privileges`), and those that a
//! container may open are in the engine's list of devices, whatever files there are.

use std::collections::{BTreeMap, HashMap};

use bollard::{
    models::{
        Mount, MountBindOptions, MountBindOptionsPropagationEnum as Propagation, MountType,
        MountVolumeOptions, MountVolumeOptionsDriverConfig, VolumeCreateRequest,
    },
    query_parameters::RemoveVolumeOptions,
};
use veil_protocol_spec::scheduling::{Mebibytes, Name, User, Volume, VolumeKind};

use crate::{
    engine::{Docker, Kind},
    error::{DockerError, ReplicaError},
    terms::HostVolume,
};

/// Options of a folder in memory, as `docker run --tmpfs` has them: no programs, no set-id bits, no devices.
/// Whoever the program runs as is to write there, but runtimes give a folder that the image has its mode back;
/// so it belongs to the job's user, if that is a number.
pub(crate) fn in_memory(size: Mebibytes, read_only: bool, user: Option<&User>) -> String {
    let user = user.map_or("", User::as_str);
    let (user, group) = user.split_once(':').unwrap_or((user, ""));
    let owner: String = [("uid", user), ("gid", group)]
        .into_iter()
        .filter(|(_, id)| !id.is_empty() && id.bytes().all(|b| b.is_ascii_digit()))
        .map(|(key, id)| format!(",{key}={id}"))
        .collect();
    let access = if read_only { "ro" } else { "rw" };
    format!("{access},noexec,nosuid,nodev,mode=1777,size={}{owner}", size.bytes())
}

/// Mounts of the engine, and folders in memory by path.
pub(crate) fn mounts(
    volumes: &[Volume],
    offered: &BTreeMap<Name, HostVolume>,
    has_quotas: bool,
    user: Option<&User>,
) -> Result<(Vec<Mount>, HashMap<String, String>), ReplicaError> {
    let (mut mounts, mut tmpfs) = (Vec::new(), HashMap::new());
    for volume in volumes {
        let target = volume.mount.to_string();
        match volume.kind {
            VolumeKind::Tmpfs { size } => {
                tmpfs.insert(target, in_memory(size, volume.read_only, user));
            }
            VolumeKind::Ephemeral { size } => {
                mounts.push(ephemeral(target, size, volume.read_only, has_quotas));
            }
            VolumeKind::Host { .. } => mounts.push(host(target, volume, offered)?),
        }
    }
    Ok((mounts, tmpfs))
}

fn ephemeral(target: String, size: Mebibytes, read_only: bool, has_quotas: bool) -> Mount {
    let limited = || MountVolumeOptionsDriverConfig {
        name: Some("local".to_owned()),
        options: Some(quota(size.bytes())),
    };
    Mount {
        target: Some(target),
        typ: Some(MountType::VOLUME),
        read_only: Some(read_only),
        volume_options: Some(MountVolumeOptions {
            no_copy: Some(false),
            driver_config: has_quotas.then(limited),
            ..MountVolumeOptions::default()
        }),
        ..Mount::default()
    }
}

fn host(
    target: String,
    volume: &Volume,
    offered: &BTreeMap<Name, HostVolume>,
) -> Result<Mount, ReplicaError> {
    let name = &volume.name;
    let folder = offered.get(name).ok_or_else(|| ReplicaError::NoVolume { name: name.clone() })?;
    if folder.read_only && !volume.read_only {
        return Err(ReplicaError::ReadOnlyVolume { name: name.clone() });
    }
    Ok(Mount {
        target: Some(target),
        source: Some(folder.path.to_string_lossy().into_owned()),
        typ: Some(MountType::BIND),
        read_only: Some(volume.read_only),
        bind_options: Some(MountBindOptions {
            propagation: Some(Propagation::RPRIVATE),
            ..MountBindOptions::default()
        }),
        ..Mount::default()
    })
}

fn quota(bytes: u64) -> HashMap<String, String> {
    HashMap::from([("size".to_owned(), bytes.to_string())])
}

impl Docker {
    /// Whether it can limit a volume, by trying: engines do not say.
    pub(crate) async fn has_quotas(&self) -> Result<bool, DockerError> {
        let request = VolumeCreateRequest {
            driver: Some("local".to_owned()),
            driver_opts: Some(quota(1 << 20)),
            ..VolumeCreateRequest::default()
        };
        let creating = self.client.create_volume(request);
        let name = match self.call(Kind::Change, "create volume", creating).await {
            Ok(volume) => volume.name,
            Err(DockerError::Refused { .. }) => return Ok(false),
            Err(error) => return Err(error),
        };
        let removing = self.client.remove_volume(&name, None::<RemoveVolumeOptions>);
        self.call(Kind::Change, "remove volume", removing).await?;
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use veil_protocol_spec::scheduling::OnLoss;

    use super::*;

    fn volume(name: &str, kind: VolumeKind, read_only: bool) -> Volume {
        let mount = format!("/{name}").parse().unwrap();
        Volume { name: name.parse().unwrap(), mount, kind, read_only }
    }

    #[test]
    fn each_kind_is_mounted_as_it_is_meant() {
        let size = Mebibytes::covering(64 << 20).unwrap();
        let host = VolumeKind::Host { on_loss: OnLoss::Pending };
        let volumes = [
            volume("cache", VolumeKind::Tmpfs { size }, false),
            volume("data", host, true),
            volume("scratch", VolumeKind::Ephemeral { size }, false),
        ];
        let folder = HostVolume { path: "/srv/data".into(), read_only: true };
        let offered = BTreeMap::from([("data".parse().unwrap(), folder)]);
        let (mounted, tmpfs) = mounts(&volumes, &offered, true, None).unwrap();
        assert_eq!(tmpfs["/cache"], "rw,noexec,nosuid,nodev,mode=1777,size=67108864");
        let [data, scratch] = &mounted[..] else { panic!("{mounted:?}") };
        assert_eq!((data.source.as_deref(), data.read_only), (Some("/srv/data"), Some(true)));
        assert_eq!((scratch.source.as_ref(), scratch.target.as_deref()), (None, Some("/scratch")));
        let limit = scratch.volume_options.clone().unwrap().driver_config.unwrap().options;
        assert_eq!(limit.unwrap()["size"], "67108864");
        let (mounted, _) = mounts(&volumes, &offered, false, None).unwrap();
        assert_eq!(mounted[1].volume_options.clone().unwrap().driver_config, None);
    }

    #[test]
    fn a_folder_that_is_not_offered_so_is_named() {
        let host = VolumeKind::Host { on_loss: OnLoss::Pending };
        let wanted = [volume("data", host, false)];
        let refused = mounts(&wanted, &BTreeMap::new(), false, None).unwrap_err();
        assert!(matches!(&refused, ReplicaError::NoVolume { name } if name.as_str() == "data"));
        let folder = HostVolume { path: "/srv/data".into(), read_only: true };
        let offered = BTreeMap::from([("data".parse().unwrap(), folder)]);
        let refused = mounts(&wanted, &offered, false, None).unwrap_err();
        assert!(matches!(refused, ReplicaError::ReadOnlyVolume { .. }), "{refused}");
    }
}
