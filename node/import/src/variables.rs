//! Variables of Compose: `$NAME`, `${NAME:-default}`, `$$`, and the files that set them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use crate::{
    bounds::MAX_TEXT,
    error::{ImportError, Pos},
    yaml::Node,
};

/// A default within a default, and so on.
const MAX_DEPTH: usize = 8;
/// Longest file of variables.
const MAX_FILE: u64 = 256 * 1024;

/// What variables are set to, and which were asked for in vain.
#[derive(Clone, Debug, Default)]
pub(crate) struct Variables {
    values: BTreeMap<String, String>,
    /// Asked for, and neither set nor given a default: empty, as in Compose.
    pub(crate) unset: BTreeSet<String>,
    /// Bytes that have been put in.
    written: usize,
}

impl Variables {
    pub(crate) fn new(values: BTreeMap<String, String>) -> Self {
        Self { values, ..Self::default() }
    }

    /// Adds what is not set yet.
    pub(crate) fn add(&mut self, more: Vec<(String, Option<String>)>) {
        for (name, value) in more {
            if let Some(value) = value {
                self.values.entry(name).or_insert(value);
            }
        }
    }

    /// What a copy of these has put in counts here, and so does what it asked for in vain.
    pub(crate) fn took(&mut self, mut copy: Self) {
        self.unset.append(&mut copy.unset);
        self.written = copy.written;
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }

    /// Puts variables into all texts of a document.
    pub(crate) fn put_into(&mut self, node: &mut Node) -> Result<(), ImportError> {
        node.each_text(&mut |pos, text, _| {
            if text.contains('$') {
                *text = self.expand(text, pos)?;
            }
            Ok(())
        })
    }

    /// A text with its variables put in.
    pub(crate) fn expand(&mut self, text: &str, pos: Pos) -> Result<String, ImportError> {
        let mut out = String::new();
        self.write(text, pos, 0, &mut out)?;
        Ok(out)
    }

    fn write(
        &mut self,
        text: &str,
        pos: Pos,
        depth: usize,
        out: &mut String,
    ) -> Result<(), ImportError> {
        let wrong = |says: String| ImportError::Variable { pos, says };
        if depth > MAX_DEPTH {
            return Err(wrong(format!("more than {MAX_DEPTH} defaults within one another")));
        }
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('$') {
            self.push(before, pos, out)?;
            rest = if let Some(after) = after.strip_prefix('$') {
                out.push('$');
                after
            } else if let Some(inner) = after.strip_prefix('{') {
                let Some(end) = end_of(inner) else {
                    return Err(wrong(format!("`{}` has no end: }} is missing", clip(rest))));
                };
                let (inside, after) = inner.split_at(end);
                self.braced(inside, pos, depth, out)?;
                after.strip_prefix('}').unwrap_or(after)
            } else {
                let (name, after) = after.split_at(name_len(after));
                if name.is_empty() {
                    return Err(wrong(format!(
                        "`${}` is no variable: write $$ for a dollar sign",
                        clip(after)
                    )));
                }
                let value = self.look_up(name);
                self.push(&value.unwrap_or_default(), pos, out)?;
                after
            };
        }
        self.push(rest, pos, out)
    }

    /// What stands between the braces.
    fn braced(
        &mut self,
        inside: &str,
        pos: Pos,
        depth: usize,
        out: &mut String,
    ) -> Result<(), ImportError> {
        let (name, operator) = inside.split_at(name_len(inside));
        let wrong = |says: String| ImportError::Variable { pos, says };
        if name.is_empty() {
            return Err(wrong(format!("`${{{}}}` has no variable's name", clip(inside))));
        }
        let set = self.values.get(name).cloned();
        let filled = set.clone().filter(|value| !value.is_empty());
        let (value, other, is_default) = match operator {
            "" => (self.look_up(name), "", true),
            _ => {
                let (value, operator) = match operator.strip_prefix(':') {
                    Some(operator) => (filled, operator),
                    None => (set, operator),
                };
                if let Some(other) = operator.strip_prefix('-') {
                    (value, other, true)
                } else if let Some(says) = operator.strip_prefix('?') {
                    if value.is_none() {
                        let says = if says.is_empty() { "it must be set" } else { says };
                        return Err(wrong(format!(
                            "variable {name} is not set: {}; set it, or name a file of variables with --env-file",
                            clip(says)
                        )));
                    }
                    (value, "", true)
                } else if let Some(other) = operator.strip_prefix('+') {
                    (value, other, false)
                } else {
                    return Err(wrong(format!(
                        "`${{{}}}`: behind the name, one of :- - :? ? :+ + is possible",
                        clip(inside)
                    )));
                }
            }
        };
        match (value, is_default) {
            (Some(value), true) => self.push(&value, pos, out),
            (None, true) | (Some(_), false) => self.write(other, pos, depth + 1, out),
            (None, false) => Ok(()),
        }
    }

    fn look_up(&mut self, name: &str) -> Option<String> {
        let value = self.values.get(name).cloned();
        if value.is_none() {
            self.unset.insert(name.to_owned());
        }
        value
    }

    fn push(&mut self, text: &str, pos: Pos, out: &mut String) -> Result<(), ImportError> {
        self.written = self.written.saturating_add(text.len());
        if self.written > MAX_TEXT {
            return Err(ImportError::TooLarge { pos });
        }
        out.push_str(text);
        Ok(())
    }
}

fn name_len(text: &str) -> usize {
    if text.starts_with(|c: char| c.is_ascii_digit()) {
        return 0;
    }
    text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(text.len())
}

/// Where the braces end that have begun before `text`.
fn end_of(text: &str) -> Option<usize> {
    let mut open = 0_usize;
    let mut before = ' ';
    for (at, c) in text.char_indices() {
        match c {
            '{' if before == '$' => open += 1,
            '}' if open == 0 => return Some(at),
            '}' => open -= 1,
            _ => {}
        }
        before = c;
    }
    None
}

/// Enough of a text to find it by.
fn clip(text: &str) -> &str {
    text.char_indices().nth(40).map_or(text, |(at, _)| text.get(..at).unwrap_or(text))
}

/// What is named alone, `NAME`, has no value: it is passed on from whoever runs it.
pub(crate) type Assignments = Vec<(String, Option<String>)>;

/// Reads a file of variables, if it is there.
pub(crate) fn read_file(
    path: &Path,
    variables: &mut Variables,
) -> Result<Option<Assignments>, ImportError> {
    let wrong = |says: String| ImportError::Option { path: path.to_owned(), says };
    let Ok(metadata) = fs::metadata(path) else { return Ok(None) };
    if metadata.len() > MAX_FILE {
        return Err(wrong(format!("a file of variables has at most {MAX_FILE} bytes")));
    }
    let text = fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
    let in_file = |source| ImportError::In { path: path.to_owned(), source: Box::new(source) };
    assignments(&text, variables).map(Some).map_err(in_file)
}

/// `NAME=value` in each line, as Compose reads it: with `export`, quotes and comments.
pub(crate) fn assignments(
    text: &str,
    variables: &mut Variables,
) -> Result<Assignments, ImportError> {
    let mut found = Assignments::new();
    let mut lines = text.lines().enumerate();
    while let Some((number, line)) = lines.next() {
        let pos = Pos { line: number + 1, column: 1 };
        let line = line.trim_start().trim_start_matches('\u{feff}');
        let line = line.strip_prefix("export ").unwrap_or(line).trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let Some((name, value)) = line.split_once('=') else {
            found.push((line.trim().to_owned(), None));
            continue;
        };
        let (name, mut value) = (name.trim().to_owned(), value.trim_start().to_owned());
        let quote = value.chars().next().filter(|c| matches!(c, '"' | '\''));
        let value = match quote {
            Some(quote) => {
                // A value in quotes may go on over lines.
                let end = loop {
                    if let Some(end) = closing(&value, quote) {
                        break end;
                    }
                    let Some((_, next)) = lines.next() else {
                        let says = format!("the value of {name} has no closing {quote}");
                        return Err(ImportError::Variable { pos, says });
                    };
                    value.push('\n');
                    value.push_str(next);
                };
                let inside = value.get(1..end).unwrap_or_default();
                if quote == '\'' { inside.to_owned() } else { unescaped(variables, inside, pos)? }
            }
            None => {
                let end = value.find(" #").unwrap_or(value.len());
                let plain = value.get(..end).unwrap_or_default().trim_end();
                if plain.contains('$') { variables.expand(plain, pos)? } else { plain.to_owned() }
            }
        };
        // A later line sees what an earlier one has set.
        variables.values.entry(name.clone()).or_insert_with(|| value.clone());
        found.push((name, Some(value)));
    }
    Ok(found)
}

/// Where the quote closes.
fn closing(text: &str, quote: char) -> Option<usize> {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            '\\' if quote == '"' && !escaped => escaped = true,
            c if c == quote && !escaped => return Some(at),
            _ => escaped = false,
        }
    }
    None
}

fn unescaped(variables: &mut Variables, text: &str, pos: Pos) -> Result<String, ImportError> {
    let text = if text.contains('$') { variables.expand(text, pos)? } else { text.to_owned() };
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (c, c == '\\') {
            (c, false) => out.push(c),
            _ => match chars.next() {
                Some('n') => out.push('\n'),
                Some('t') => out.push('\t'),
                Some('r') => out.push('\r'),
                Some(other) => out.push(other),
                None => out.push('\\'),
            },
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables() -> Variables {
        let set = [("A", "1"), ("EMPTY", ""), ("TAG", "16")];
        Variables::new(set.map(|(name, value)| (name.to_owned(), value.to_owned())).into())
    }

    fn expand(text: &str) -> Result<String, String> {
        let pos = Pos { line: 3, column: 7 };
        variables().expand(text, pos).map_err(|error| error.to_string())
    }

    #[test]
    fn variables_are_put_in_as_in_compose() {
        for (text, expanded) in [
            ("postgres:${TAG}", "postgres:16"),
            ("$A-$A", "1-1"),
            ("$$A $${A}", "$A ${A}"),
            ("${B:-x}", "x"),
            ("${B-x}", "x"),
            ("${EMPTY:-x}", "x"),
            ("${EMPTY-x}", ""),
            ("${A:+set}${B:+set}", "set"),
            ("${EMPTY+set}${EMPTY:+filled}", "set"),
            ("${B:-${C:-$A}}", "1"),
            ("${B:-${C:-}}", ""),
            ("${A?no}", "1"),
            ("$B", ""),
            ("${B:-a}b}", "ab}"),
        ] {
            assert_eq!(expand(text).as_deref(), Ok(expanded), "{text}");
        }
    }

    #[test]
    fn what_cannot_be_put_in_is_named_with_its_place() {
        for (text, says) in [
            ("${B:?give a password}", "line 3, column 7: variable B is not set: give a password"),
            ("${EMPTY:?}", "EMPTY is not set: it must be set"),
            ("${A", "has no end"),
            ("${}", "no variable's name"),
            ("$", "write $$"),
            ("${A!}", "one of :-"),
        ] {
            let error = expand(text).unwrap_err();
            assert!(error.contains(says), "{text}: {error}");
        }
        let nested = format!("{}x{}", "${B:-".repeat(20), "}".repeat(20));
        assert!(expand(&nested).unwrap_err().contains("within one another"));
    }

    #[test]
    fn variables_do_not_grow_without_end() {
        let mut variables = Variables::new([("X".to_owned(), "x".repeat(1 << 20))].into());
        let error = variables.expand(&"$X".repeat(9), Pos::default()).unwrap_err();
        assert!(matches!(error, ImportError::TooLarge { .. }), "{error}");
    }

    #[test]
    fn files_of_variables_are_read_as_compose_reads_them() {
        let text =
            "# c\nexport A=b # c\nB = \"x\\n$A\"\nC='$A'\nD\nE=\nF=\"two\nlines\"\nG=${A}#1\n";
        let found = assignments(text, &mut Variables::default()).unwrap();
        let expected = [
            ("A", Some("b")),
            ("B", Some("x\nb")),
            ("C", Some("$A")),
            ("D", None),
            ("E", Some("")),
            ("F", Some("two\nlines")),
            ("G", Some("b#1")),
        ];
        let expected: Assignments = expected
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value.map(str::to_owned)))
            .collect();
        assert_eq!(found, expected);
        assert!(assignments("A=\"x", &mut Variables::default()).is_err());
    }
}
