//! The files of the workspace that people write, without what tools write.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// Folders that tools write.
const OTHERS: [&str; 5] = ["target", "node_modules", "out", "cache", "vectors"];

/// The files beneath `folder` with one of these extensions.
pub(super) fn files(folder: &Path, extensions: &[&str]) -> io::Result<Vec<PathBuf>> {
    let (mut found, mut open) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(&folder)? {
            let (path, name) = entry.map(|entry| (entry.path(), entry.file_name()))?;
            let name = name.to_string_lossy();
            let is_one = path
                .extension()
                .is_some_and(|found| extensions.iter().any(|extension| found == *extension));
            if path.is_dir() && !name.starts_with('.') && !OTHERS.contains(&&*name) {
                open.push(path);
            } else if is_one && path.is_file() {
                found.push(path);
            }
        }
    }
    Ok(found)
}
