//! What is sealed in a job, as its container finds it: files in memory, and variables.
//!
//! # Files
//! In a folder of this worker's host that lies in memory ([`Terms::secrets`](crate::terms::Terms::secrets)), one folder
//! for each replica, which only the worker's user may enter; the engine mounts each file where the job wants it,
//! for reading. A folder that is not in memory is refused: the contents would stay on a disk. A host that starts again
//! finds the folder empty: the files are laid out before each start of a container.
//!
//! # Variables
//! Are in the container's settings, which the engine keeps on its disk as long as there is the container. There is no
//! other way to give them to a program that knows nothing of Veil.

use std::{
    collections::BTreeSet,
    fs, io,
    os::unix::fs::{
        DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, chown,
    },
    path::{Path, PathBuf},
};

use bollard::models::{
    Mount, MountBindOptions, MountBindOptionsPropagationEnum as Propagation, MountType,
};
use rustix::process::geteuid;
use veil_protocol_spec::scheduling::{SealedFile, User};
use zeroize::Zeroizing;

use crate::{
    container,
    error::ReplicaError,
    executor::Executor,
    keep::Keep,
    replica::{DesiredReplica, ReplicaId},
};

/// Everybody in the container may read it.
const FOR_ALL: u32 = 0o004;

impl Executor {
    /// Each worker of a host has its own.
    fn secrets(&self) -> PathBuf {
        self.terms.secrets.join(format!("veil-{}", self.owner.worker))
    }

    fn secrets_of(&self, id: &ReplicaId) -> PathBuf {
        self.secrets().join(container::name(&self.owner, id))
    }

    /// The files of a replica, as mounts.
    pub(crate) fn sealed_mounts(&self, desired: &DesiredReplica) -> Vec<Mount> {
        let Some(contents) = &desired.contents else { return Vec::new() };
        let folder = self.secrets_of(&desired.id());
        let mount = |(number, file): (usize, &SealedFile)| Mount {
            target: Some(file.path.to_string()),
            source: Some(folder.join(number.to_string()).to_string_lossy().into_owned()),
            typ: Some(MountType::BIND),
            read_only: Some(true),
            bind_options: Some(MountBindOptions {
                propagation: Some(Propagation::RPRIVATE),
                ..MountBindOptions::default()
            }),
            ..Mount::default()
        };
        contents.files.iter().enumerate().map(mount).collect()
    }

    /// Puts the files of a replica where its mounts lead, unless they are there: before each start.
    pub(crate) async fn lay_out(&self, desired: &DesiredReplica) -> Result<(), ReplicaError> {
        let Some(contents) = desired.contents.clone().filter(|of| !of.files.is_empty()) else {
            return Ok(());
        };
        let (all, folder) = (self.secrets(), self.secrets_of(&desired.id()));
        let user = desired.spec.container.user.clone();
        let path = folder.clone();
        let writing = move || {
            make_folder(&all)?;
            require_memory(&all)?;
            make_folder(&folder)?;
            contents.files.iter().enumerate().try_for_each(|(number, file)| {
                write(&folder.join(number.to_string()), file, user.as_ref())
            })
        };
        match tokio::task::spawn_blocking(writing).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(ReplicaError::Secrets { path, reason: error.to_string() }),
            Err(error) => Err(ReplicaError::Secrets { path, reason: error.to_string() }),
        }
    }

    /// Removes the files of a replica whose container was removed, unless it is to have another.
    pub(crate) fn clear_of(&self, id: &ReplicaId) {
        let path = self.secrets_of(id);
        if !self.memory().desired.contains_key(id) && path.exists() {
            remove(&path);
            let _ = fs::remove_dir(self.secrets()); // unless others have files
        }
    }

    /// Removes the files of replicas that are neither desired nor kept, and have no container any more.
    pub(crate) fn clear_away(&self, keep: &Keep, existing: impl Iterator<Item = ReplicaId>) {
        let Ok(folders) = fs::read_dir(self.secrets()) else { return };
        let mut here: BTreeSet<_> = keep.replicas.iter().copied().chain(existing).collect();
        {
            // Also what a later call desires, or an earlier one is at work on.
            let memory = self.memory();
            here.extend(memory.desired.keys().chain(memory.busy.keys()));
        }
        let here: BTreeSet<_> = here.iter().map(|id| container::name(&self.owner, id)).collect();
        for folder in folders.filter_map(Result::ok) {
            if !here.contains(&*folder.file_name().to_string_lossy()) {
                remove(&folder.path());
            }
        }
        let _ = fs::remove_dir(self.secrets());
    }
}

fn remove(path: &Path) {
    if let Err(error) = fs::remove_dir_all(path) {
        tracing::warn!(path = %path.display(), %error, "secrets of a replica that is gone are not removed");
    }
}

fn make_folder(path: &Path) -> io::Result<()> {
    match fs::DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            // Everybody may make folders there: whoever made it in advance, or a link in its place, must not read
            // what comes into it.
            let found = fs::symlink_metadata(path)?;
            if !found.is_dir() || found.uid() != geteuid().as_raw() {
                let path = path.display();
                return Err(io::Error::other(format!(
                    "{path} is no folder of this worker's user: somebody else has made it; remove it"
                )));
            }
            fs::set_permissions(path, fs::Permissions::from_mode(0o700))
        }
        made => made,
    }
}

/// Of the file systems that the kernel lists, the one that a path lies in must be in memory.
fn require_memory(path: &Path) -> io::Result<()> {
    let mounted = fs::read_to_string("/proc/self/mountinfo")?;
    let kind = file_system(&mounted, &path.canonicalize()?);
    match kind.as_deref() {
        Some("tmpfs" | "ramfs") => Ok(()),
        kind => {
            let kind = kind.unwrap_or("an unknown file system");
            Err(io::Error::other(format!("this is on {kind}, and not in memory (tmpfs)")))
        }
    }
}

/// The type of the file system that `path` lies in, by the lines of `mountinfo`: of those with the longest mount point,
/// the last, which covers the others.
fn file_system(mounted: &str, path: &Path) -> Option<String> {
    let mounts = mounted.lines().filter_map(|line| {
        let (of_mount, of_system) = line.split_once(" - ")?;
        // The kernel writes a space as its octal number.
        let point = of_mount.split(' ').nth(4)?.replace("\\040", " ");
        let kind = of_system.split(' ').next()?;
        path.starts_with(&point).then(|| (point.len(), kind.to_owned()))
    });
    mounts.max_by_key(|(len, _)| *len).map(|(_, kind)| kind)
}

fn write(path: &Path, file: &SealedFile, user: Option<&User>) -> io::Result<()> {
    let (content, mode) = (&file.content.0, file.mode.bits());
    let is_there = fs::read(path).map(Zeroizing::new).is_ok_and(|found| *found == *content);
    if !is_there {
        // A running container holds the file that it was started with.
        let _ = fs::remove_file(path);
        let mut options = fs::OpenOptions::new();
        let mut new = options.write(true).create_new(true).mode(0o600).open(path)?;
        io::Write::write_all(&mut new, content)?;
    }
    if mode & FOR_ALL == 0
        && let Some((user, group)) = user.and_then(numbers)
    {
        chown(path, Some(user), group).map_err(|error| {
            io::Error::other(format!(
                "mode {mode:04o} for user {user}: {error}; a worker that is not root gives files to everybody in \
                 the container, as mode = \"0444\" does"
            ))
        })?;
    }
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

/// Ids of the job's user and group, if the job gives numbers.
fn numbers(user: &User) -> Option<(u32, Option<u32>)> {
    let (user, group) = user.as_str().split_once(':').unwrap_or((user.as_str(), ""));
    Some((user.parse().ok()?, group.parse().ok()))
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, sync::Arc};

    use veil_protocol_spec::{
        codec::Bytes,
        scheduling::{FileMode, SealedContents},
    };

    use super::*;
    use crate::{
        fake::{Fake, replicas},
        terms::Terms,
    };

    fn contents() -> SealedContents {
        let file = |path: &str, mode: u16, content: &[u8]| SealedFile {
            path: path.parse().unwrap(),
            mode: FileMode::try_from(mode).unwrap(),
            content: Bytes(content.to_vec()),
        };
        SealedContents {
            env: Vec::new(),
            files: vec![file("/etc/app.conf", 0o444, b"one"), file("/run/db", 0o400, b"two")],
            registry: None,
            arguments: None,
            request: None,
        }
    }

    async fn executor(secrets: &Path) -> Executor {
        let terms = Terms { secrets: secrets.to_owned(), ..Terms::default() };
        Fake::default().worker_on(terms).await
    }

    fn desired() -> DesiredReplica {
        DesiredReplica { contents: Some(Arc::new(contents())), ..replicas(1, 1).remove(0) }
    }

    #[test]
    fn the_file_system_is_that_of_the_longest_mount_point() {
        let mounted = "1 0 0:1 / / rw - ext4 /dev/sda rw\n\
                       2 1 0:2 / /dev/shm rw,nosuid shared:1 - tmpfs shm rw\n\
                       3 1 0:3 / /srv/a\\040b rw - ramfs none rw\n\
                       4 2 0:4 / /dev/shm/disk rw - xfs /dev/sdb rw";
        let of = |path: &str| file_system(mounted, Path::new(path));
        assert_eq!(of("/var/x").as_deref(), Some("ext4"));
        assert_eq!(of("/dev/shm/veil").as_deref(), Some("tmpfs"));
        assert_eq!(of("/dev/shmx").as_deref(), Some("ext4"));
        assert_eq!(of("/srv/a b/c").as_deref(), Some("ramfs"));
        assert_eq!(of("/dev/shm/disk/x").as_deref(), Some("xfs"));
        assert_eq!(file_system("", Path::new("/")), None);
    }

    #[tokio::test]
    async fn files_lie_in_memory_with_their_modes_and_go_with_their_replica() {
        let folder = tempfile::tempdir_in("/dev/shm").unwrap();
        let (executor, desired) = (executor(folder.path()).await, desired());
        executor.lay_out(&desired).await.unwrap();
        let mounts = executor.sealed_mounts(&desired);
        let found: Vec<_> = mounts
            .iter()
            .map(|mount| {
                let source = mount.source.clone().unwrap();
                let mode = fs::metadata(&source).unwrap().permissions().mode() & 0o777;
                (mount.target.clone().unwrap(), fs::read(&source).unwrap(), mode, mount.read_only)
            })
            .collect();
        let expected = [
            ("/etc/app.conf".to_owned(), b"one".to_vec(), 0o444, Some(true)),
            ("/run/db".to_owned(), b"two".to_vec(), 0o400, Some(true)),
        ];
        assert_eq!(found, expected);
        // The host has started again: the folder is empty. Then everything is there already.
        let own = executor.secrets_of(&desired.id());
        assert_eq!(fs::metadata(&own).unwrap().permissions().mode() & 0o777, 0o700);
        fs::remove_dir_all(&own).unwrap();
        executor.lay_out(&desired).await.unwrap();
        executor.lay_out(&desired).await.unwrap();
        assert_eq!(fs::read(own.join("1")).unwrap(), b"two");

        let id = desired.id();
        let others = folder.path().join("veil-of-another-worker");
        fs::create_dir(&others).unwrap();
        let left = executor.secrets().join("left-by-another-process");
        fs::create_dir(&left).unwrap();
        let wanted = BTreeMap::from([(id, desired.clone())]);
        let desire = |wanted| executor.memory().desire(wanted, &Keep::NOTHING);
        let kept = Keep { replicas: [id].into(), ..Keep::NOTHING };
        desire(&wanted);
        executor.clear_away(&Keep::NOTHING, [].into_iter());
        desire(&BTreeMap::new());
        executor.clear_away(&kept, [].into_iter());
        executor.clear_away(&Keep::NOTHING, [id].into_iter());
        assert!(own.exists(), "it is desired, kept, or has a container");
        executor.clear_away(&Keep::NOTHING, [].into_iter());
        assert!(!own.exists() && !left.exists() && !executor.secrets().exists());
        assert!(others.exists(), "another worker of this host");
    }

    #[tokio::test]
    async fn a_folder_that_somebody_else_has_made_in_advance_is_refused_and_stays_empty() {
        let folder = tempfile::tempdir_in("/dev/shm").unwrap();
        let executor = executor(folder.path()).await;
        let theirs = folder.path().join("theirs");
        fs::create_dir(&theirs).unwrap();
        std::os::unix::fs::symlink(&theirs, executor.secrets()).unwrap();
        let refused = executor.lay_out(&desired()).await.unwrap_err().to_string();
        assert!(refused.contains("somebody else has made it"), "{refused}");
        fs::remove_file(executor.secrets()).unwrap();
        // Only root can give a folder away.
        if geteuid().is_root() {
            fs::rename(&theirs, executor.secrets()).unwrap();
            chown(executor.secrets(), Some(65_534), None).unwrap();
            let refused = executor.lay_out(&desired()).await.unwrap_err().to_string();
            assert!(refused.contains("somebody else has made it"), "{refused}");
            assert_eq!(fs::read_dir(executor.secrets()).unwrap().count(), 0);
        }
    }

    #[tokio::test]
    async fn a_folder_on_a_disk_is_refused_and_stays_empty() {
        let folder = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let executor = executor(folder.path()).await;
        let refused = executor.lay_out(&desired()).await.unwrap_err().to_string();
        assert!(refused.contains("not in memory (tmpfs)"), "{refused}");
        assert_eq!(fs::read_dir(executor.secrets()).unwrap().count(), 0);
    }
}
