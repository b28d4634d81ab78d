//! YAML with the place of each value, anchors written out and merges done, of bounded size.
//!
//! An alias is a copy of what it stands for. Copies count, each with all that is in it: a file that makes billions of
//! values of a few lines ends at `MAX_NODES`, before they are made.

use std::collections::{BTreeMap, BTreeSet};

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, Tag};

use crate::{
    bounds::{MAX_DEPTH, MAX_NODES, MAX_TEXT},
    error::{ImportError, Pos},
};

/// A value, and where it begins.
#[derive(Clone, Debug)]
pub struct Node {
    /// Where.
    pub pos: Pos,
    /// What.
    pub value: Value,
}

/// What a value is.
#[derive(Clone, Debug)]
pub enum Value {
    /// A text; `plain` without quotes, so that it may be a number, true or null.
    Scalar {
        /// As it is written, without quotes.
        text: String,
        /// Whether it was without quotes.
        plain: bool,
    },
    /// A list.
    List(Vec<Node>),
    /// A map, in the order of the file.
    Map(Vec<Entry>),
}

/// What a map says of a key.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// Where the key is.
    pub pos: Pos,
    /// What it is set to.
    pub value: Node,
}

impl Node {
    /// A text in quotes.
    pub fn text(pos: Pos, text: impl Into<String>) -> Self {
        Self { pos, value: Value::Scalar { text: text.into(), plain: false } }
    }

    /// Whether it is null, or nothing.
    pub fn is_null(&self) -> bool {
        matches!(&self.value, Value::Scalar { text, plain: true }
            if matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL"))
    }

    /// A text, number or boolean as it is written; not null.
    pub fn as_text(&self) -> Option<&str> {
        match &self.value {
            Value::Scalar { text, .. } if !self.is_null() => Some(text),
            _ => None,
        }
    }

    /// As both YAML 1.1, which Compose reads, and 1.2 say it.
    pub fn as_bool(&self) -> Option<bool> {
        match self.as_text()? {
            "true" | "True" | "TRUE" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" => Some(true),
            "false" | "False" | "FALSE" | "no" | "No" | "NO" | "off" | "Off" | "OFF" => Some(false),
            _ => None,
        }
    }

    /// A whole number.
    pub fn as_number(&self) -> Option<u64> {
        self.as_text()?.parse().ok()
    }

    /// A list's items.
    pub fn as_list(&self) -> Option<&[Node]> {
        match &self.value {
            Value::List(list) => Some(list),
            _ => None,
        }
    }

    /// A map's entries.
    pub fn as_map(&self) -> Option<&[Entry]> {
        match &self.value {
            Value::Map(map) => Some(map),
            _ => None,
        }
    }

    /// The entries of a map; none if it is no map.
    pub fn entries(&self) -> &[Entry] {
        self.as_map().unwrap_or_default()
    }

    /// The entries of a list; none if it is no list.
    pub fn items(&self) -> &[Node] {
        self.as_list().unwrap_or_default()
    }

    /// What a map has under the key, unless that is null.
    pub fn get(&self, key: &str) -> Option<&Node> {
        let entry = self.entries().iter().find(|entry| entry.key == key)?;
        Some(&entry.value).filter(|value| !value.is_null())
    }

    /// The same along several keys.
    pub fn at(&self, keys: &[&str]) -> Option<&Node> {
        keys.iter().try_fold(self, |node, key| node.get(key))
    }

    /// The text along several keys.
    pub fn text_at(&self, keys: &[&str]) -> Option<&str> {
        self.at(keys)?.as_text()
    }

    /// A list, or null.
    pub fn list(&self, key: &str) -> Result<&[Node], ImportError> {
        if self.is_null() {
            return Ok(&[]);
        }
        self.as_list().ok_or_else(|| self.no("a list", key))
    }

    /// A map, or null.
    pub fn map(&self, key: &str) -> Result<&[Entry], ImportError> {
        if self.is_null() {
            return Ok(&[]);
        }
        self.as_map().ok_or_else(|| self.no("a map", key))
    }

    /// A text that is there.
    pub fn str(&self, key: &str) -> Result<&str, ImportError> {
        self.as_text().ok_or_else(|| self.no("a text", key))
    }

    fn no(&self, expected: &'static str, key: &str) -> ImportError {
        ImportError::Kind { pos: self.pos, key: key.to_owned(), expected }
    }

    /// Hands each text to `change`.
    pub fn each_text(
        &mut self,
        change: &mut impl FnMut(Pos, &mut String, &mut bool) -> Result<(), ImportError>,
    ) -> Result<(), ImportError> {
        match &mut self.value {
            Value::Scalar { text, plain } => change(self.pos, text, plain),
            Value::List(list) => list.iter_mut().try_for_each(|node| node.each_text(change)),
            Value::Map(map) => map.iter_mut().try_for_each(|entry| entry.value.each_text(change)),
        }
    }

    /// How many values there are, this one among them.
    pub fn count(&self) -> usize {
        1 + match &self.value {
            Value::Scalar { .. } => 0,
            Value::List(list) => list.iter().map(Self::count).sum(),
            Value::Map(map) => map.iter().map(|entry| entry.value.count()).sum(),
        }
    }

    /// All texts beneath.
    pub fn texts<'a>(&'a self, found: &mut Vec<&'a str>) {
        match &self.value {
            Value::Scalar { text, .. } => found.push(text),
            Value::List(list) => list.iter().for_each(|node| node.texts(found)),
            Value::Map(map) => map.iter().for_each(|entry| entry.value.texts(found)),
        }
    }
}

/// A key whose value has not come yet.
struct Key {
    text: String,
    pos: Pos,
    merges: bool,
}

/// How large a value is, with all that is in it.
#[derive(Clone, Copy, Default)]
struct Size {
    nodes: usize,
    text: usize,
    depth: usize,
}

/// A list or map that has not ended yet.
enum Open {
    List(Vec<Node>),
    Map { entries: Vec<Entry>, seen: BTreeSet<String>, key: Option<Key>, merges: Vec<Node> },
}

struct Frame {
    open: Open,
    pos: Pos,
    anchor: usize,
    /// What had been counted when it began.
    before: Size,
    deepest: usize,
}

struct Builder {
    frames: Vec<Frame>,
    anchors: BTreeMap<usize, (Node, Size)>,
    total: Size,
    documents: Vec<Node>,
}

fn pos(marker: &Marker) -> Pos {
    Pos { line: marker.line(), column: marker.col() + 1 }
}

/// The documents of a file; those that are empty are left out.
pub fn read(text: &str) -> Result<Vec<Node>, ImportError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut builder = Builder {
        frames: Vec::new(),
        anchors: BTreeMap::new(),
        total: Size::default(),
        documents: Vec::new(),
    };
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| ImportError::Syntax {
            pos: pos(error.marker()),
            says: error.info().to_owned(),
        })?;
        builder.take(event, pos(&span.start))?;
    }
    builder.documents.retain(|document| !document.is_null());
    Ok(builder.documents)
}

/// Whether a text with this tag stays a text; other tags are refused.
fn is_text(tag: Option<&Tag>, pos: Pos) -> Result<bool, ImportError> {
    let Some(tag) = tag else { return Ok(false) };
    let core = tag.handle == "tag:yaml.org,2002:" || tag.handle == "!!";
    match tag.suffix.as_str() {
        "str" if core => Ok(true),
        "!" if tag.handle.is_empty() => Ok(true),
        "int" | "float" | "bool" | "null" | "map" | "seq" | "set" | "omap" if core => Ok(false),
        suffix => Err(ImportError::Tag { pos, tag: format!("{}{suffix}", tag.handle) }),
    }
}

impl Builder {
    fn take(&mut self, event: Event<'_>, pos: Pos) -> Result<(), ImportError> {
        match event {
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
            Event::DocumentStart(_) => {
                // An anchor is known in its document only.
                self.anchors.clear();
                Ok(())
            }
            Event::Scalar(text, style, anchor, tag) => {
                let is_text = is_text(tag.as_deref(), pos)?;
                let plain = style == ScalarStyle::Plain && !is_text;
                let size = Size { nodes: 1, text: text.len(), depth: 0 };
                self.count(size, pos)?;
                let node = Node { pos, value: Value::Scalar { text: text.into_owned(), plain } };
                self.keep(anchor, &node, size);
                self.put(node, 0, false)
            }
            Event::SequenceStart(anchor, tag) => {
                is_text(tag.as_deref(), pos)?;
                self.open(Open::List(Vec::new()), pos, anchor)
            }
            Event::MappingStart(anchor, tag) => {
                is_text(tag.as_deref(), pos)?;
                let open = Open::Map {
                    entries: Vec::new(),
                    seen: BTreeSet::new(),
                    key: None,
                    merges: Vec::new(),
                };
                self.open(open, pos, anchor)
            }
            Event::Alias(anchor) => {
                let Some((_, size)) = self.anchors.get(&anchor) else {
                    let says = "an alias of something that has not ended yet".to_owned();
                    return Err(ImportError::Syntax { pos, says });
                };
                let size = *size;
                self.count(size, pos)?;
                if self.frames.len() + size.depth > MAX_DEPTH {
                    return Err(ImportError::TooDeep { pos });
                }
                let node = self.anchors.get(&anchor).map(|(node, _)| node.clone());
                node.map_or(Ok(()), |node| self.put(node, size.depth, true))
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(),
        }
    }

    fn count(&mut self, size: Size, pos: Pos) -> Result<(), ImportError> {
        self.total.nodes = self.total.nodes.saturating_add(size.nodes);
        self.total.text = self.total.text.saturating_add(size.text);
        if self.total.nodes > MAX_NODES || self.total.text > MAX_TEXT {
            return Err(ImportError::TooLarge { pos });
        }
        Ok(())
    }

    fn keep(&mut self, anchor: usize, node: &Node, size: Size) {
        if anchor != 0 {
            self.anchors.insert(anchor, (node.clone(), size));
        }
    }

    fn open(&mut self, open: Open, pos: Pos, anchor: usize) -> Result<(), ImportError> {
        if self.frames.len() >= MAX_DEPTH {
            return Err(ImportError::TooDeep { pos });
        }
        if matches!(self.frames.last(), Some(Frame { open: Open::Map { key: None, .. }, .. })) {
            return Err(ImportError::Key { pos });
        }
        let before = self.total;
        self.count(Size { nodes: 1, text: 0, depth: 0 }, pos)?;
        self.frames.push(Frame { open, pos, anchor, before, deepest: 0 });
        Ok(())
    }

    fn close(&mut self) -> Result<(), ImportError> {
        let Some(Frame { open, pos, anchor, before, deepest }) = self.frames.pop() else {
            return Ok(());
        };
        let value = match open {
            Open::List(list) => Value::List(list),
            Open::Map { entries, seen, merges, .. } => Value::Map(merged(entries, seen, merges)),
        };
        let node = Node { pos, value };
        let depth = deepest + 1;
        if anchor != 0 {
            // What an anchor keeps is a copy, too.
            let size = Size {
                nodes: self.total.nodes - before.nodes,
                text: self.total.text - before.text,
                depth,
            };
            self.count(Size { depth: 0, ..size }, pos)?;
            self.keep(anchor, &node, size);
        }
        self.put(node, depth, false)
    }

    /// Puts a value where it belongs. `depth` is that of what is in it.
    fn put(&mut self, node: Node, depth: usize, is_alias: bool) -> Result<(), ImportError> {
        let Some(frame) = self.frames.last_mut() else {
            self.documents.push(node);
            return Ok(());
        };
        frame.deepest = frame.deepest.max(depth);
        match &mut frame.open {
            Open::List(list) => list.push(node),
            Open::Map { entries, seen, key, merges } => match key.take() {
                None => match node.value {
                    Value::Scalar { text, plain } => {
                        // A quoted `<<` is a key like any other.
                        let merges = plain && text == "<<";
                        *key = Some(Key { text, pos: node.pos, merges });
                    }
                    _ => return Err(ImportError::Key { pos: node.pos }),
                },
                Some(Key { merges: true, .. }) => match &node.value {
                    Value::Map(_) => merges.push(node),
                    Value::List(list) if !is_alias => {
                        if let Some(wrong) = list.iter().find(|node| node.as_map().is_none()) {
                            return Err(ImportError::Merge { pos: wrong.pos });
                        }
                        merges.extend(list.iter().cloned());
                    }
                    _ => return Err(ImportError::Merge { pos: node.pos }),
                },
                Some(Key { text: key, pos, .. }) => {
                    if !seen.insert(key.clone()) {
                        return Err(ImportError::Twice { pos, key });
                    }
                    entries.push(Entry { key, pos, value: node });
                }
            },
        }
        Ok(())
    }
}

/// Own entries first; of what is merged, the first that has a key.
fn merged(mut entries: Vec<Entry>, mut seen: BTreeSet<String>, merges: Vec<Node>) -> Vec<Entry> {
    for node in merges {
        let Value::Map(more) = node.value else { continue };
        entries.extend(more.into_iter().filter(|entry| seen.insert(entry.key.clone())));
    }
    entries
}
