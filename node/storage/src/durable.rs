//! Files that survive a power cut, and files that are destroyed.
//!
//! Each write goes to a temporary file beside its target, is synced, and gets the target's name in
//! one step; then the folder is synced. After a crash the target has its old content or the new one.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Seek, SeekFrom, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use veil_protocol_spec::Blake3Digest;

fn temporary(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".partial");
    PathBuf::from(name)
}

/// Makes the entries of the folder of `path` durable.
fn sync_folder(path: &Path) -> io::Result<()> {
    match path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        Some(folder) => File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

/// Replaces a file's content, completely or not at all, and durably: the folder is synced too, so
/// that a power cut does not bring the old content back.
///
/// # Errors
/// Whatever the system says; the file has its old content then.
pub fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let temporary = temporary(path);
    let written = (|| {
        let mut file = File::create(&temporary)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        sync_folder(path)
    })();
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written
}

/// Why a file was not written; nothing is left behind then.
#[derive(Debug, thiserror::Error)]
pub enum WriteNewError {
    /// There is a file already.
    #[error("{0} exists already; it is not overwritten: move it away or choose another folder")]
    Exists(PathBuf),
    /// The system refuses: the disk is full, for instance.
    #[error("{path}: {source}")]
    #[allow(missing_docs, reason = "the message says what they are")]
    Io { path: PathBuf, source: io::Error },
}

/// Writes a file that does not exist yet, completely or not at all.
///
/// # Errors
/// [`WriteNewError`].
pub fn write_new(path: &Path, mode: u32, content: &[u8]) -> Result<(), WriteNewError> {
    write_new_with(path, mode, |file| file.write_all(content))
}

/// [`write_new`] for content that is written piece by piece.
///
/// # Errors
/// As [`write_new`].
pub fn write_new_with(
    path: &Path,
    mode: u32,
    content: impl FnOnce(&mut File) -> io::Result<()>,
) -> Result<(), WriteNewError> {
    let temporary = temporary(path);
    let written = (|| {
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(mode)
            .open(&temporary)?;
        content(&mut file)?;
        file.sync_all()?;
        // Unlike rename, this fails if the target exists.
        fs::hard_link(&temporary, path)?;
        sync_folder(path)
    })();
    let _ = fs::remove_file(&temporary);
    written.map_err(|source: io::Error| match source.kind() {
        io::ErrorKind::AlreadyExists => WriteNewError::Exists(path.to_owned()),
        _ => WriteNewError::Io { path: path.to_owned(), source },
    })
}

/// Destroys a file: overwrites it, makes that durable, and removes it. A file that is not there is
/// not an error. On copy-on-write file systems and flash the old bytes may stay on the medium; they
/// are encrypted for that reason.
///
/// # Errors
/// Whatever the system says.
pub fn erase_file(path: &Path) -> io::Result<()> {
    let mut file = match OpenOptions::new().write(true).open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        opened => opened?,
    };
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(0))?;
    io::copy(&mut io::Read::take(io::repeat(0), length), &mut file)?;
    file.flush()?;
    file.sync_all()?;
    drop(file);
    fs::remove_file(path)?;
    sync_folder(path)
}

/// Gives a file another name, durably, and replaces a file that has it; `false` if there is no such file.
///
/// # Errors
/// Whatever the system says; the file has its old name then.
pub fn rename_file(from: &Path, to: &Path) -> io::Result<bool> {
    match fs::rename(from, to) {
        Ok(()) => sync_folder(to).map(|()| true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// BLAKE3 of a file's content, and its length in bytes.
///
/// # Errors
/// Whatever the system says.
pub fn hash_file(path: &Path) -> io::Result<(Blake3Digest, u64)> {
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(File::open(path)?)?;
    Ok((Blake3Digest(*hasher.finalize().as_bytes()), hasher.count()))
}

/// Raises the counter in a file by one, from 0 if there is none, and makes that durable before it
/// returns the new value.
///
/// # Errors
/// Whatever the system says; a file without a number is an error, so that a counter never goes back.
pub fn count_up(path: &Path) -> io::Result<u32> {
    let before = match fs::read_to_string(path) {
        Ok(text) => text.trim().parse::<u32>().map_err(io::Error::other)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
        Err(error) => return Err(error),
    };
    let now = before.checked_add(1).ok_or_else(|| io::Error::other("the counter is exhausted"))?;
    replace(path, now.to_string().as_bytes())?;
    Ok(now)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(folder: &Path) -> usize {
        fs::read_dir(folder).unwrap().count()
    }

    #[test]
    fn a_new_file_overwrites_nothing_and_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        write_new(&path, 0o600, b"first").unwrap();
        let second = write_new(&path, 0o600, b"second").unwrap_err();
        assert!(matches!(second, WriteNewError::Exists(_)));
        assert_eq!(fs::read(&path).unwrap(), b"first");
        assert_eq!(entries(folder.path()), 1);
        let failed = write_new_with(&folder.path().join("other"), 0o600, |file| {
            file.write_all(b"half")?;
            Err(io::Error::other("the disk is full"))
        });
        assert!(failed.is_err());
        assert_eq!(entries(folder.path()), 1);
    }

    #[test]
    fn a_replaced_file_has_the_new_content_or_the_old_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        replace(&path, b"a longer first content").unwrap();
        replace(&path, b"second").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"second");
        // A folder has the temporary file's name: nothing can be written there.
        fs::create_dir(temporary(&path)).unwrap();
        assert!(replace(&path, b"third").is_err());
        assert_eq!(fs::read(&path).unwrap(), b"second");
        // A folder has the target's name: the temporary file is removed again.
        let taken = folder.path().join("taken");
        fs::create_dir_all(taken.join("inside")).unwrap();
        assert!(replace(&taken, b"x").is_err());
        assert!(!temporary(&taken).exists());
    }

    #[test]
    fn an_erased_file_is_gone_and_may_be_erased_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        fs::write(&path, b"secret").unwrap();
        // A second name of the same file shows what is left on the medium.
        let other_name = folder.path().join("other name");
        fs::hard_link(&path, &other_name).unwrap();
        erase_file(&path).unwrap();
        assert!(!path.exists());
        assert_eq!(fs::read(&other_name).unwrap(), [0; 6]);
        erase_file(&path).unwrap();
    }

    #[test]
    fn a_renamed_file_keeps_its_content_and_may_be_missing() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("share"), folder.path().join("share.void"));
        assert!(!rename_file(&from, &to).unwrap());
        fs::write(&from, b"share").unwrap();
        assert!(rename_file(&from, &to).unwrap());
        assert!(!from.exists());
        assert_eq!(fs::read(&to).unwrap(), b"share");
        assert!(rename_file(&to, &from).unwrap());
        assert_eq!(fs::read(&from).unwrap(), b"share");
    }

    #[test]
    fn a_counter_grows_over_restarts_and_never_goes_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("restarts");
        assert_eq!([count_up(&path).unwrap(), count_up(&path).unwrap()], [1, 2]);
        fs::write(&path, "no number").unwrap();
        assert!(count_up(&path).is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "no number");
        fs::write(&path, u32::MAX.to_string()).unwrap();
        assert!(count_up(&path).is_err());
    }

    #[test]
    fn a_digest_is_that_of_the_whole_content() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let content = vec![7; (1 << 20) + 13];
        fs::write(&path, &content).unwrap();
        let digest = Blake3Digest(*blake3::hash(&content).as_bytes());
        assert_eq!(hash_file(&path).unwrap(), (digest, content.len() as u64));
    }
}
