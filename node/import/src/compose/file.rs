//! Another Compose file beside the imported one: read within the same bounds, its paths as the imported file has them.

use std::fs;

use crate::{
    bounds::MAX_BYTES,
    error::{ImportError, Pos},
    folder::Folder,
    yaml::{self, Entry, Node, Value},
};

/// Reads a file that `pos` names. `inside` is a path in the folder.
pub(super) fn read(folder: &Folder, inside: &str, pos: Pos) -> Result<Node, ImportError> {
    let path = folder.path(inside);
    let failed = |source| ImportError::File { pos, path: path.clone(), source };
    let within = |source| ImportError::In { path: path.clone(), source: Box::new(source) };
    let bytes = fs::metadata(&path).map_err(failed)?.len();
    if bytes > MAX_BYTES as u64 {
        return Err(within(ImportError::TooLong(usize::try_from(bytes).unwrap_or(usize::MAX))));
    }
    if !folder.holds(&path) {
        let outside = "a link leads out of the folder of the imported file: copy the file there";
        return Err(failed(std::io::Error::other(outside)));
    }
    let text = fs::read_to_string(&path).map_err(failed)?;
    let mut documents = yaml::read(&text).map_err(within)?;
    if documents.len() != 1 {
        let pos = Pos { line: 1, column: 1 };
        return Err(within(ImportError::Documents { pos, format: "Compose" }));
    }
    Ok(documents.remove(0))
}

/// The folder of a file, both within that of the imported file; empty for the latter.
pub(super) fn folder_of(inside: &str) -> &str {
    inside.rsplit_once('/').map_or("", |(folder, _)| folder)
}

/// Makes paths that are relative to `folder` relative to the folder of the imported file.
pub(super) fn rebase(document: &mut Node, folder: &str) {
    if folder.is_empty() {
        return;
    }
    for (key, value) in entries(document) {
        if key == "include" {
            each(value, |item| match item.as_map() {
                None => text(item, folder),
                Some(_) => {
                    for (_, value) in entries(item) {
                        each(value, |path| text(path, folder));
                    }
                }
            });
            continue;
        }
        for (_, defined) in entries(value) {
            match key {
                "services" => service(defined, folder),
                "secrets" | "configs" => text_at(defined, "file", folder),
                "volumes" => {
                    if let Some(options) = get(defined, "driver_opts") {
                        dotted_at(options, "device", folder);
                    }
                }
                _ => {}
            }
        }
    }
}

fn service(service: &mut Node, folder: &str) {
    for (key, value) in entries(service) {
        match key {
            "env_file" | "label_file" => each(value, |file| match file.as_map() {
                Some(_) => text_at(file, "path", folder),
                None => text(file, folder),
            }),
            "extends" => text_at(value, "file", folder),
            "build" if value.as_map().is_some() => {
                if get(value, "context").is_none()
                    && let Value::Map(entries) = &mut value.value
                {
                    let (pos, key) = (value.pos, "context".to_owned());
                    entries.push(Entry { key, pos, value: Node::text(pos, ".") });
                }
                text_at(value, "context", folder);
            }
            "build" => text(value, folder),
            "volumes" => each(value, |mount| match mount.as_map() {
                Some(_) if mount.text_at(&["type"]).is_none_or(|kind| kind == "bind") => {
                    dotted_at(mount, "source", folder);
                }
                Some(_) => {}
                None => dotted(mount, folder),
            }),
            _ => {}
        }
    }
}

fn entries(node: &mut Node) -> impl Iterator<Item = (&str, &mut Node)> {
    let map = match &mut node.value {
        Value::Map(map) => map.as_mut_slice(),
        _ => &mut [],
    };
    map.iter_mut().map(|Entry { key, value, .. }| (key.as_str(), value))
}

fn get<'a>(node: &'a mut Node, key: &str) -> Option<&'a mut Node> {
    entries(node).find(|(own, value)| *own == key && !value.is_null()).map(|(_, value)| value)
}

/// A list's elements, or the one.
fn each(node: &mut Node, mut change: impl FnMut(&mut Node)) {
    match &mut node.value {
        Value::List(list) => list.iter_mut().for_each(change),
        _ => change(node),
    }
}

fn text_at(node: &mut Node, key: &str, folder: &str) {
    if let Some(value) = get(node, key) {
        text(value, folder);
    }
}

fn dotted_at(node: &mut Node, key: &str, folder: &str) {
    if let Some(value) = get(node, key) {
        dotted(value, folder);
    }
}

/// Text that is a path, if it is no address.
fn text(node: &mut Node, folder: &str) {
    let own = match node.as_text() {
        Some(text) if !is_elsewhere(text) => text.to_owned(),
        _ => return,
    };
    *node = Node::text(node.pos, format!("./{folder}/{own}"));
}

/// Text that is a path only if it looks like one: else it is the name of a volume.
fn dotted(node: &mut Node, folder: &str) {
    let source = node.as_text().and_then(|text| text.split(':').next()).unwrap_or_default();
    if source.starts_with('.') || source.contains('/') {
        text(node, folder);
    }
}

/// Whether it is no path beneath some folder.
fn is_elsewhere(text: &str) -> bool {
    text.starts_with(['/', '~']) || text.contains("://") || text.starts_with("git@")
}
