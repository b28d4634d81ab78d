//! The folder that an imported file lies in, and what it may take from there.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Component, Path, PathBuf},
};

use veil_protocol_spec::scheduling::limits;

/// Bytes of files beside the imported one that are sealed into one job, one of them or all together. The rest of what
/// can be sealed is left to variables and credentials.
pub(crate) const MAX_FILE: u64 = limits::SEALED_FILE_BYTES as u64;
/// Entries of a folder that are looked at.
const MAX_ENTRIES: usize = 1024;
/// Folders within one another.
const MAX_DEPTH: usize = 8;

/// What lies at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    Nothing,
    File {
        bytes: u64,
    },
    /// Files by their path in the folder; none if they are too many, or too large, to be sealed.
    Folder {
        files: Option<BTreeMap<String, u64>>,
    },
    /// A socket, a device, something that links out of the folder.
    Other,
}

/// The folder of the imported file.
#[derive(Clone, Debug)]
pub(crate) struct Folder {
    root: PathBuf,
    /// Whether job files are written there too, so that paths stay short.
    beside: bool,
}

impl Folder {
    pub(crate) fn new(root: &Path, out: &Path) -> Self {
        let root = if root.as_os_str().is_empty() { PathBuf::from(".") } else { root.to_owned() };
        let out = if out.as_os_str().is_empty() { Path::new(".") } else { out };
        let same = |a: &Path, b: &Path| {
            a == b || matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b)
        };
        let beside = same(&root, out);
        Self { root, beside }
    }

    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    /// The name of the folder.
    pub(crate) fn name(&self) -> Option<String> {
        let whole = self.root.canonicalize().ok()?;
        whole.file_name().map(|name| name.to_string_lossy().into_owned())
    }

    /// The path within the folder, without `.` and `..`; none if it leads out of it.
    pub(crate) fn inside(&self, path: &str) -> Option<String> {
        let mut parts: Vec<String> = Vec::new();
        for part in Path::new(path).components() {
            match part {
                Component::CurDir => {}
                Component::Normal(part) => parts.push(part.to_str()?.to_owned()),
                Component::ParentDir => drop(parts.pop()?),
                Component::RootDir | Component::Prefix(_) => return None,
            }
        }
        Some(parts.join("/"))
    }

    /// The path as a job file has it.
    pub(crate) fn written(&self, path: &str) -> String {
        match self.inside(path) {
            Some(inside) if self.beside => inside,
            _ if Path::new(path).is_absolute() => path.to_owned(),
            _ => {
                let path = self.path(path);
                path.canonicalize().unwrap_or(path).to_string_lossy().into_owned()
            }
        }
    }

    /// What lies at a path in the folder. Nothing is followed out of it.
    pub(crate) fn look(&self, inside: &str) -> Found {
        let path = self.path(inside);
        let Ok(metadata) = fs::metadata(&path) else { return Found::Nothing };
        if !self.holds(&path) {
            return Found::Other;
        }
        if metadata.is_file() {
            Found::File { bytes: metadata.len() }
        } else if metadata.is_dir() {
            let mut files = BTreeMap::new();
            let mut entries = 0;
            let all = self.list(&path, "", 0, &mut files, &mut entries).is_ok();
            let bytes: u64 = files.values().sum();
            let fit = all && bytes <= MAX_FILE && files.len() <= limits::SEALED_ENTRIES;
            Found::Folder { files: fit.then_some(files) }
        } else {
            Found::Other
        }
    }

    /// The content of a file that [`look`](Self::look) has found.
    pub(crate) fn read(&self, inside: &str) -> io::Result<Vec<u8>> {
        let path = self.path(inside);
        let long = fs::metadata(&path)?.len() > MAX_FILE;
        if long || !self.holds(&path) {
            return Err(io::Error::other("it is too long, or outside the folder"));
        }
        fs::read(path)
    }

    /// Whether it is there, and no link leads out of the folder on the way.
    pub(crate) fn holds(&self, path: &Path) -> bool {
        let both = (self.root.canonicalize(), path.canonicalize());
        matches!(both, (Ok(root), Ok(path)) if path.starts_with(&root))
    }

    fn list(
        &self,
        folder: &Path,
        within: &str,
        depth: usize,
        files: &mut BTreeMap<String, u64>,
        entries: &mut usize,
    ) -> Result<(), ()> {
        if depth > MAX_DEPTH {
            return Err(());
        }
        for entry in fs::read_dir(folder).map_err(drop)? {
            let entry = entry.map_err(drop)?;
            let name = entry.file_name().to_str().ok_or(())?.to_owned();
            *entries += 1;
            if *entries > MAX_ENTRIES {
                return Err(());
            }
            // What keeps an empty folder in a repository is not meant.
            if name.starts_with('.') {
                continue;
            }
            let path = entry.path();
            let metadata = fs::metadata(&path).map_err(drop)?;
            let name = if within.is_empty() { name } else { format!("{within}/{name}") };
            if metadata.is_dir() && !entry.file_type().map_err(drop)?.is_symlink() {
                self.list(&path, &name, depth + 1, files, entries)?;
            } else if metadata.is_file() && self.holds(&path) {
                files.insert(name, metadata.len());
            } else {
                return Err(());
            }
        }
        Ok(())
    }
}
