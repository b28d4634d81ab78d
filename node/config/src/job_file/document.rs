//! A job file as a tree of values that know where they stand.

use core::ops::Range;

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    keys::{self, LISTS, State},
    problem::{Found, Problems, Reason},
};

/// A value and its place.
pub(super) type Value<'a> = Spanned<DeValue<'a>>;
/// What a value says, or where what is wrong with it.
pub(super) type Parsed<T> = Result<T, (Range<usize>, Reason)>;

/// A section, or one of a list of them.
#[derive(Clone, Copy)]
pub(super) struct Section<'a> {
    /// Its path; "" for the file as a whole.
    path: &'static str,
    table: &'a DeTable<'a>,
    begin: usize,
}

/// Reads a file, and gathers whatever is wrong with it.
pub(super) struct Reader<'a> {
    root: &'a DeTable<'a>,
    found: Found<'a>,
}

/// Reads `text` with `read`. Every key that is none is a problem, and so is each that `read` meets.
pub(super) fn read<T>(
    text: &str,
    read: impl FnOnce(&mut Reader<'_>) -> Option<T>,
) -> Result<T, Problems> {
    // The mark that some editors put at the beginning.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut found = Found::new(text);
    let root = match DeTable::parse(text) {
        Ok(root) => root,
        Err(error) => {
            let at = error.span().unwrap_or(0..0);
            found.push("", &at, Reason::Syntax(error.message().to_owned()));
            return found.unless_any(|| None);
        }
    };
    let mut reader = Reader { root: root.get_ref(), found };
    reader.check_keys("", root.get_ref());
    let value = read(&mut reader);
    reader.found.unless_any(|| value)
}

fn join(section: &str, key: &str) -> String {
    if section.is_empty() { key.to_owned() } else { format!("{section}.{key}") }
}

fn is_default(value: &DeValue<'_>, default: keys::Default) -> bool {
    match default {
        keys::Default::False => value.as_bool() == Some(false),
        keys::Default::Empty => value.as_array().is_some_and(|list| list.is_empty()),
        keys::Default::Any => value.as_str() == Some("any"),
    }
}

impl<'a> Reader<'a> {
    fn check_keys(&mut self, section: &str, table: &DeTable<'_>) {
        for (key, value) in table {
            let path = join(section, key.get_ref());
            let (at, is_section) = (key.span(), keys::is_section(&path));
            match (keys::of(&path).map(|key| key.state), value.get_ref()) {
                (Some(State::Reserved { what, default }), value) => {
                    if !is_default(value, default) {
                        let default = default.text();
                        self.push(&path, &at, Reason::Reserved { what, default });
                    }
                }
                (None, DeValue::Array(list)) if LISTS.contains(&&*path) => {
                    for item in list.iter() {
                        match item.get_ref().as_table() {
                            Some(table) => self.check_keys(&path, table),
                            None => self.no_list(&path, &item.span(), item.get_ref()),
                        }
                    }
                }
                (None, value) if LISTS.contains(&&*path) => self.no_list(&path, &at, value),
                (_, DeValue::Table(table)) if is_section => self.check_keys(&path, table),
                (Some(State::Open), _) => {}
                (None, value) if is_section => {
                    let (found, expected) = (value.type_str(), "a section");
                    self.push(&path, &at, Reason::Kind { found, expected });
                }
                (None, _) => self.push(&path, &at, keys::unknown(section, &path)),
            }
        }
    }

    fn no_list(&mut self, path: &str, at: &Range<usize>, value: &DeValue<'_>) {
        let expected = match path {
            "port" => "[[port]], a section for each port,",
            "link" => "[[link]], a section for each link,",
            "after" => "[[after]], a section for each job that is waited for,",
            "volume" => "[[volume]], a section for each volume,",
            "secret" => "[[secret]], a section for each secret,",
            _ => "[[file]], a section for each file,",
        };
        self.push(path, at, Reason::Kind { found: value.type_str(), expected });
    }

    pub(super) fn push(&mut self, key: &str, at: &Range<usize>, reason: Reason) {
        self.found.push(key, at, reason);
    }

    /// The file as a whole.
    pub(super) const fn root(&self) -> Section<'a> {
        Section { path: "", table: self.root, begin: 0 }
    }

    /// The sections of a list.
    pub(super) fn sections(&self, list: &'static str) -> Vec<Section<'a>> {
        let value = self.root.get(list).map(Spanned::get_ref);
        let items = value.and_then(DeValue::as_array).into_iter().flat_map(|items| items.iter());
        let section = |item: &'a Value<'a>| {
            let table = item.get_ref().as_table()?;
            Some(Section { path: list, table, begin: item.span().start })
        };
        items.filter_map(section).collect()
    }

    /// The value of a key, by its path or an alias, and the path it has in the file.
    fn value(
        &mut self,
        section: Section<'a>,
        path: &'static str,
    ) -> Option<(&'static str, &'a Value<'a>)> {
        let aliases = keys::of(path).map_or(&[][..], |key| key.aliases);
        let mut given = None;
        for path in [path].into_iter().chain(aliases.iter().copied()) {
            let inside = path.strip_prefix(section.path).unwrap_or(path).trim_start_matches('.');
            let Some(value) = look_up(section.table, inside) else { continue };
            if keys::is_section(path) && value.get_ref().is_table() {
                continue; // its keys are looked up by themselves
            }
            match given {
                None => given = Some((path, value)),
                Some((other, _)) => self.push(path, &value.span(), Reason::Twice(other.to_owned())),
            }
        }
        given
    }

    /// What a key says, which `parse` learns from its value and the path it has in the file; `None` if it is
    /// not there, or wrong.
    pub(super) fn get_as<T>(
        &mut self,
        section: Section<'a>,
        path: &'static str,
        parse: impl FnOnce(&'static str, &'a Value<'a>) -> Parsed<T>,
    ) -> Option<T> {
        let (path, value) = self.value(section, path)?;
        match parse(path, value) {
            Ok(value) => Some(value),
            Err((at, reason)) => {
                self.push(path, &at, reason);
                None
            }
        }
    }

    /// As [`get_as`](Self::get_as), where the path does not matter.
    pub(super) fn get<T>(
        &mut self,
        section: Section<'a>,
        path: &'static str,
        parse: impl FnOnce(&'a Value<'a>) -> Parsed<T>,
    ) -> Option<T> {
        self.get_as(section, path, |_, value| parse(value))
    }

    /// Of the file as a whole.
    pub(super) fn top<T>(
        &mut self,
        path: &'static str,
        parse: impl FnOnce(&'a Value<'a>) -> Parsed<T>,
    ) -> Option<T> {
        self.get(self.root(), path, parse)
    }

    /// Whether a key is given, right or wrong.
    pub(super) fn has(&self, section: Section<'a>, path: &'static str) -> bool {
        let aliases = keys::of(path).map_or(&[][..], |key| key.aliases);
        [path].into_iter().chain(aliases.iter().copied()).any(|path| {
            let inside = path.strip_prefix(section.path).unwrap_or(path).trim_start_matches('.');
            look_up(section.table, inside).is_some()
        })
    }

    /// A problem unless the key is given.
    pub(super) fn require(
        &mut self,
        section: Section<'a>,
        path: &'static str,
        example: &'static str,
    ) {
        if !self.has(section, path) {
            let at = section.begin..section.begin;
            self.push(path, &at, Reason::Missing(example));
        }
    }

    /// A problem for each of the keys that is given: they have a meaning only with something else.
    pub(super) fn refuse(
        &mut self,
        section: Section<'a>,
        paths: &[&'static str],
        only_with: &'static str,
    ) {
        for path in paths {
            if let Some((path, value)) = self.value(section, path) {
                self.push(path, &value.span(), Reason::Without(only_with));
            }
        }
    }
}

fn look_up<'a>(table: &'a DeTable<'a>, path: &str) -> Option<&'a Value<'a>> {
    match path.split_once('.') {
        None => table.get(path),
        Some((section, rest)) => look_up(table.get(section)?.get_ref().as_table()?, rest),
    }
}
