//! `include`: other Compose files whose services, networks, volumes, secrets and configs are part of this one's.
//!
//! Each has its own folder, which its paths are relative to, and its own `.env`, which comes after what is set already.
//! Whatever two files define has to be the same in both. Where something stands in an included file is told as the place
//! of the `include` that it came by: lines of reports are those of the imported file.

use std::collections::BTreeMap;

use super::{extends::merge, file};
use crate::{
    bounds::MAX_NODES,
    error::{ImportError, Pos},
    folder::Folder,
    variables::{Variables, read_file},
    yaml::{Entry, Node, Value},
};

/// Files that are included, each as often as it is.
const MAX: usize = 64;
/// What is taken over of an included file.
const PARTS: &[&str] = &["services", "networks", "volumes", "secrets", "configs"];

struct Includes<'a> {
    folder: &'a Folder,
    /// Files that are being included, the outermost first.
    chain: Vec<String>,
    files: usize,
    nodes: usize,
}

/// Files that are one: later ones override earlier ones.
struct Item {
    pos: Pos,
    paths: Vec<String>,
    folder: String,
    env_files: Option<Vec<String>>,
}

/// Puts what the document includes into it.
pub(super) fn resolve(
    document: &mut Node,
    folder: &Folder,
    variables: &mut Variables,
) -> Result<(), ImportError> {
    let mut includes = Includes { folder, chain: Vec::new(), files: 0, nodes: document.count() };
    includes.all_of(document, variables)
}

impl Includes<'_> {
    fn all_of(
        &mut self,
        document: &mut Node,
        variables: &mut Variables,
    ) -> Result<(), ImportError> {
        let Some(included) = document.get("include").cloned() else { return Ok(()) };
        if let Value::Map(entries) = &mut document.value {
            entries.retain(|entry| entry.key != "include");
        }
        for node in included.list("include")? {
            let item = self.item(node)?;
            let mut part = self.read(&item, variables)?;
            at(&mut part, item.pos);
            add(document, part, item.pos)?;
        }
        Ok(())
    }

    /// What one element of the list says, with paths in the imported file's folder.
    fn item(&self, node: &Node) -> Result<Item, ImportError> {
        let pos = node.pos;
        let inside = |path: &str| {
            let inside = if path.starts_with(['/', '~']) || path.contains("://") {
                None
            } else {
                self.folder.inside(path)
            };
            inside.ok_or_else(|| {
                let says = format!(
                    "`{path}` is not in the folder of the imported file: copy it there, or import what `docker \
                     compose config` prints"
                );
                ImportError::Include { pos, says }
            })
        };
        let texts = |key: &str| -> Result<Vec<String>, ImportError> {
            match node.get(key) {
                None => Ok(Vec::new()),
                Some(list) if list.as_list().is_some() => {
                    list.items().iter().map(|path| Ok(path.str(key)?.to_owned())).collect()
                }
                Some(one) => Ok(vec![one.str(key)?.to_owned()]),
            }
        };
        let paths = match node.as_text() {
            Some(path) => vec![path.to_owned()],
            None => {
                for Entry { key, pos, .. } in node.map("include")? {
                    if !["path", "project_directory", "env_file"].contains(&key.as_str()) {
                        let says = format!("there is no `{key}` in it");
                        return Err(ImportError::Include { pos: *pos, says });
                    }
                }
                texts("path")?
            }
        };
        let paths: Vec<_> = paths.iter().map(|path| inside(path)).collect::<Result<_, _>>()?;
        let Some(first) = paths.first() else {
            return Err(ImportError::Include { pos, says: "it names no file: `path`".to_owned() });
        };
        let folder = match node.text_at(&["project_directory"]) {
            Some(path) => inside(path)?,
            None => file::folder_of(first).to_owned(),
        };
        let env_files = texts("env_file")?;
        let env_files = env_files.iter().map(|path| inside(path)).collect::<Result<Vec<_>, _>>()?;
        let env_files = Some(env_files).filter(|files| !files.is_empty());
        Ok(Item { pos, paths, folder, env_files })
    }

    fn read(&mut self, item: &Item, variables: &mut Variables) -> Result<Node, ImportError> {
        let Item { pos, paths, folder, env_files } = item;
        let wrong = |says: String| ImportError::Include { pos: *pos, says };
        // The file's own variables come after those that are set: the imported file decides.
        let mut own = variables.clone();
        let default = [within(folder, ".env")];
        for path in env_files.as_deref().unwrap_or(&default) {
            match read_file(&self.folder.path(path), &mut own)? {
                Some(set) => own.add(set),
                None if env_files.is_none() => {}
                None => return Err(wrong(format!("there is no file of variables `{path}`"))),
            }
        }
        let mut whole: Option<Node> = None;
        for path in paths {
            if self.chain.contains(path) {
                let chain =
                    [&self.chain[..], core::slice::from_ref(path)].concat().join("` includes `");
                return Err(wrong(format!("`{chain}`, which never ends")));
            }
            self.files += 1;
            if self.files > MAX {
                return Err(wrong(format!(
                    "more than {MAX} files, each counted as often as it is included"
                )));
            }
            let mut document = file::read(self.folder, path, *pos)?;
            let read_from = self.folder.path(path);
            let in_file =
                |source| ImportError::In { path: read_from.clone(), source: Box::new(source) };
            own.put_into(&mut document).map_err(in_file)?;
            document.map("").map_err(in_file)?;
            self.nodes += document.count();
            if self.nodes > MAX_NODES {
                return Err(ImportError::TooLarge { pos: *pos });
            }
            file::rebase(&mut document, folder);
            self.chain.push(path.clone());
            let nested = self.all_of(&mut document, &mut own).map_err(in_file);
            self.chain.pop();
            nested?;
            whole = Some(match whole {
                None => document,
                Some(before) => merge(before, document, ""),
            });
        }
        variables.took(own);
        Ok(whole.unwrap_or_else(|| Node { pos: *pos, value: Value::Map(Vec::new()) }))
    }
}

fn within(folder: &str, name: &str) -> String {
    if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") }
}

/// Says that all of it is there.
fn at(node: &mut Node, pos: Pos) {
    node.pos = pos;
    match &mut node.value {
        Value::Scalar { .. } => {}
        Value::List(list) => list.iter_mut().for_each(|node| at(node, pos)),
        Value::Map(map) => {
            for entry in map {
                entry.pos = pos;
                at(&mut entry.value, pos);
            }
        }
    }
}

/// Takes over what an included file defines.
fn add(document: &mut Node, included: Node, pos: Pos) -> Result<(), ImportError> {
    let (Value::Map(own), Value::Map(parts)) = (&mut document.value, included.value) else {
        return Ok(());
    };
    for Entry { key, value, .. } in parts {
        // Its name is that of nothing here, and what else there may be is for other programs.
        if !PARTS.contains(&key.as_str()) || value.is_null() {
            continue;
        }
        let Value::Map(defined) = value.value else {
            return Err(ImportError::Kind { pos, key, expected: "a map" });
        };
        let there = match own.iter_mut().find(|entry| entry.key == key) {
            Some(entry) => {
                if entry.value.is_null() {
                    entry.value.value = Value::Map(Vec::new());
                }
                &mut entry.value
            }
            None => {
                own.push(Entry {
                    key: key.clone(),
                    pos,
                    value: Node { pos, value: Value::Map(Vec::new()) },
                });
                let Some(entry) = own.last_mut() else { continue };
                &mut entry.value
            }
        };
        let Value::Map(there) = &mut there.value else { continue }; // an error by itself
        let names: BTreeMap<String, usize> =
            there.iter().enumerate().map(|(i, entry)| (entry.key.clone(), i)).collect();
        for entry in defined {
            match names.get(&entry.key).and_then(|i| there.get(*i)) {
                None => there.push(entry),
                Some(other) if same(&other.value, &entry.value) => {}
                Some(_) => {
                    let says = format!(
                        "`{key}.{}` is defined otherwise elsewhere: give one of both another name",
                        entry.key
                    );
                    return Err(ImportError::Include { pos, says });
                }
            }
        }
    }
    Ok(())
}

/// Whether two values say the same, wherever they stand.
fn same(a: &Node, b: &Node) -> bool {
    match (&a.value, &b.value) {
        (Value::Scalar { text: a, .. }, Value::Scalar { text: b, .. }) => a == b,
        (Value::List(a), Value::List(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b))
        }
        (Value::Map(a), Value::Map(b)) => {
            let has = |entry: &Entry| {
                b.iter().any(|other| other.key == entry.key && same(&entry.value, &other.value))
            };
            a.len() == b.len() && a.iter().all(has)
        }
        _ => false,
    }
}
