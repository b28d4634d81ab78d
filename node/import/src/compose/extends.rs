//! `extends`: a service that takes over another one, of this file or of one beside it.

use std::collections::BTreeMap;

use super::file;
use crate::{
    bounds::MAX_NODES,
    error::{ImportError, Pos},
    folder::Folder,
    variables::Variables,
    yaml::{Entry, Node, Value},
};

/// Services that take over one another in a row, and files that are read for it.
const MAX: usize = 16;

/// Lists that are added to and not replaced, as Compose does it.
const ADDED: &[&str] = &[
    "cap_add",
    "cap_drop",
    "configs",
    "device_cgroup_rules",
    "devices",
    "dns",
    "dns_opt",
    "dns_search",
    "env_file",
    "expose",
    "external_links",
    "extra_hosts",
    "group_add",
    "links",
    "ports",
    "profiles",
    "secrets",
    "security_opt",
    "tmpfs",
    "volumes",
];
/// Lists of `name=value` that are maps, too.
const NAMED: &[&str] = &["annotations", "args", "environment", "extra_hosts", "labels", "sysctls"];
/// Commands are replaced as a whole.
const REPLACED: &[&str] = &["command", "entrypoint", "test"];

struct Files<'a> {
    folder: &'a Folder,
    variables: &'a mut Variables,
    /// Values that have been copied.
    nodes: usize,
    read: BTreeMap<String, Node>,
}

/// Replaces each service of the document by what it is with what it extends.
pub(super) fn resolve(
    document: &mut Node,
    folder: &Folder,
    variables: &mut Variables,
) -> Result<(), ImportError> {
    let services = document.get("services").map_or(&[][..], Node::entries);
    if !services.iter().any(|service| service.value.get("extends").is_some()) {
        return Ok(());
    }
    let original = document.clone();
    let mut files = Files { folder, variables, nodes: 0, read: BTreeMap::new() };
    let Value::Map(top) = &mut document.value else { return Ok(()) };
    let services = top.iter_mut().find(|entry| entry.key == "services");
    let Some(Value::Map(services)) = services.map(|entry| &mut entry.value.value) else {
        return Ok(());
    };
    for service in services {
        let whole = files.whole(&original, &service.key, service.pos, 0)?;
        service.value = whole;
    }
    Ok(())
}

impl Files<'_> {
    /// The service of that name in a file, with what it extends.
    fn whole(
        &mut self,
        document: &Node,
        name: &str,
        pos: Pos,
        depth: usize,
    ) -> Result<Node, ImportError> {
        let wrong = |says: String| ImportError::Extends { pos, says };
        if depth > MAX {
            return Err(wrong(format!(
                "`{name}` takes over itself, or more than {MAX} services in a row"
            )));
        }
        let Some(own) = document.at(&["services", name]) else {
            return Err(wrong(format!("there is no service `{name}`")));
        };
        self.nodes += own.count();
        if self.nodes > MAX_NODES {
            return Err(ImportError::TooLarge { pos });
        }
        let Some(extends) = own.get("extends") else { return Ok(own.clone()) };
        let pos = extends.pos;
        let wrong = |says: &str| ImportError::Extends { pos, says: says.to_owned() };
        let target = extends.as_text().or_else(|| extends.text_at(&["service"]));
        let target =
            target.ok_or_else(|| wrong("write `service`, and `file` if it is another one"))?;
        let base = match extends.text_at(&["file"]) {
            None => self.whole(document, target, pos, depth + 1)?,
            Some(file) => {
                let inside = self.folder.inside(file).ok_or_else(|| {
                    wrong("the file is outside the folder of this one: copy it there")
                })?;
                self.file(&inside, pos)?;
                let other = self.read.remove(&inside);
                let other = other.ok_or_else(|| wrong("the file takes over itself"))?;
                let whole = self.whole(&other, target, pos, depth + 1);
                self.read.insert(inside, other);
                whole?
            }
        };
        let mut own = own.clone();
        if let Value::Map(entries) = &mut own.value {
            entries.retain(|entry| entry.key != "extends");
        }
        // What waits for others, and whose network it shares, is not taken over.
        let mut base = base;
        if let Value::Map(entries) = &mut base.value {
            entries.retain(|entry| {
                !matches!(entry.key.as_str(), "depends_on" | "links" | "volumes_from")
            });
        }
        Ok(merge(base, own, ""))
    }

    /// Reads a file, if it has not been read.
    fn file(&mut self, inside: &str, pos: Pos) -> Result<(), ImportError> {
        if self.read.contains_key(inside) {
            return Ok(());
        }
        if self.read.len() >= MAX {
            let says = format!("more than {MAX} files");
            return Err(ImportError::Extends { pos, says });
        }
        let mut document = file::read(self.folder, inside, pos)?;
        let path = self.folder.path(inside);
        let within = |source| ImportError::In { path, source: Box::new(source) };
        self.variables.put_into(&mut document).map_err(within)?;
        file::rebase(&mut document, file::folder_of(inside));
        self.nodes += document.count();
        self.read.insert(inside.to_owned(), document);
        Ok(())
    }
}

/// `own` over `base`, as Compose merges the values of `key`.
pub(super) fn merge(base: Node, own: Node, key: &str) -> Node {
    if own.is_null() && !key.is_empty() {
        return base;
    }
    let both = if NAMED.contains(&key) { (named(base), named(own)) } else { (base, own) };
    match both {
        (Node { value: Value::Map(base), .. }, Node { pos, value: Value::Map(own) }) => {
            let mut entries = base;
            for Entry { key, pos, value } in own {
                match entries.iter_mut().find(|entry| entry.key == key) {
                    Some(entry) => {
                        let before = core::mem::replace(&mut entry.value, Node::text(pos, ""));
                        entry.value = merge(before, value, &key);
                    }
                    None => entries.push(Entry { key, pos, value }),
                }
            }
            Node { pos, value: Value::Map(entries) }
        }
        (base, own) if ADDED.contains(&key) && !REPLACED.contains(&key) => {
            let list = |node: Node| match node.value {
                Value::List(list) => list,
                _ => vec![node],
            };
            let pos = own.pos;
            let mut all = list(base);
            for node in list(own) {
                // A mount of the same place replaces the other.
                let place = place_of(&node);
                if let Some(place) = place.filter(|_| key == "volumes") {
                    all.retain(|before| place_of(before).as_ref() != Some(&place));
                }
                let is_there = all
                    .iter()
                    .any(|before| before.as_text().is_some() && before.as_text() == node.as_text());
                if !is_there {
                    all.push(node);
                }
            }
            Node { pos, value: Value::List(all) }
        }
        (_, own) => own,
    }
}

/// Where a volume is mounted.
fn place_of(node: &Node) -> Option<String> {
    match node.as_text() {
        Some(text) => text.split(':').nth(1).map(str::to_owned),
        None => node.text_at(&["target"]).map(str::to_owned),
    }
}

/// `["A=1", "B"]` as a map.
fn named(node: Node) -> Node {
    let Value::List(list) = &node.value else { return node };
    let entry = |node: &Node| {
        let text = node.as_text()?;
        let (key, value) = match text.split_once('=') {
            Some((key, value)) => (key, Node::text(node.pos, value)),
            None => {
                let value = Value::Scalar { text: String::new(), plain: true };
                (text, Node { pos: node.pos, value })
            }
        };
        Some(Entry { key: key.to_owned(), pos: node.pos, value })
    };
    Node { pos: node.pos, value: Value::Map(list.iter().filter_map(entry).collect()) }
}
