//! The files of a crate, and which imports which.
//!
//! # Flow
//! 1. From a root file, `mod name;` leads to the file of each module, as the compiler goes.
//!    Items behind `#[cfg(test)]` are left out: tests may import from anywhere.
//! 2. In each file, every path that starts with `crate`, `self` or `super`, in an import or elsewhere,
//!    is followed through the modules as far as they go. The last one's file is imported.
//!
//! # What counts
//! - A path to a name that a module re-exports is an import of that module's file: import the name from
//!   the module that defines it.
//! - A module's path into modules beneath it does not count: it declares them and re-exports their names.
//!   Their paths to it do count.
//!
//! # Caveats
//! It does not see paths that macros assemble.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
};

use super::tokens::{Token, is_word, tokens};

/// Names of modules from the root, which has none.
type ModulePath = Vec<String>;

/// One import: which line of which file names what of which other.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Import {
    pub(super) from: PathBuf,
    pub(super) to: PathBuf,
    pub(super) line: usize,
    /// The path as far as it names modules and one name more.
    pub(super) name: String,
}

/// The modules of one root file.
#[derive(Debug, Default)]
struct Modules {
    /// The file that each module is in, its own or that of a module around it.
    files: BTreeMap<ModulePath, PathBuf>,
    paths: Vec<Found>,
}

/// A path in a source.
#[derive(Debug)]
struct Found {
    module: ModulePath,
    segments: Vec<String>,
    line: usize,
}

/// All imports between the files that belong to `root`.
pub(super) fn imports(root: &Path) -> io::Result<BTreeSet<Import>> {
    let mut modules = Modules::default();
    modules.read(root, root.parent().unwrap_or(root), Vec::new())?;
    Ok(modules.paths.iter().filter_map(|found| modules.import(found)).collect())
}

impl Modules {
    /// Reads a file, whose modules' files are in `folder`, and those.
    fn read(&mut self, file: &Path, folder: &Path, module: ModulePath) -> io::Result<()> {
        let source = fs::read_to_string(file)?;
        let mut reader = Reader::new(&source);
        reader.items(&module);
        self.files.insert(module, file.to_owned());
        self.paths.append(&mut reader.paths);
        for inline in reader.inline {
            self.files.insert(inline, file.to_owned());
        }
        for child in reader.children {
            // Inline modules are folders too.
            let within: PathBuf = child.inline.iter().collect();
            let folder = folder.join(within);
            let name = child.module.last().map_or("", String::as_str);
            let flat = folder.join(format!("{name}.rs"));
            let (next, folder) = match child.path {
                Some(path) => {
                    let next = file.with_file_name(path);
                    // As if it were the root of a crate.
                    let folder = next.parent().unwrap_or(&folder).to_owned();
                    (next, folder)
                }
                None if flat.exists() => (flat, folder.join(name)),
                None => (folder.join(name).join("mod.rs"), folder.join(name)),
            };
            self.read(&next, &folder, child.module)?;
        }
        Ok(())
    }

    /// The import that a path is, if it leads to another file of this crate, and not to one beneath.
    fn import(&self, found: &Found) -> Option<Import> {
        let mut module = found.module.clone();
        let mut known = 0;
        for segment in &found.segments {
            match segment.as_str() {
                "crate" => module.clear(),
                "self" => {}
                "super" => _ = module.pop(),
                name => {
                    module.push(name.to_owned());
                    if !self.files.contains_key(&module) {
                        module.pop();
                        break;
                    }
                }
            }
            known += 1;
        }
        let (from, to) = (self.files.get(&found.module)?, self.files.get(&module)?);
        let is_beneath = module.starts_with(&found.module);
        let name = found.segments.get(known).or(found.segments.last())?.clone();
        (from != to && !is_beneath).then(|| Import {
            from: from.clone(),
            to: to.clone(),
            line: found.line,
            name,
        })
    }
}

/// A module with a file of its own.
#[derive(Debug)]
struct Child {
    module: ModulePath,
    /// Modules within the file that it is declared in.
    inline: Vec<String>,
    /// The file, if an attribute names it.
    path: Option<String>,
}

struct Reader<'a> {
    tokens: Vec<Token<'a>>,
    at: usize,
    children: Vec<Child>,
    inline: Vec<ModulePath>,
    paths: Vec<Found>,
}

impl<'a> Reader<'a> {
    fn new(source: &'a str) -> Self {
        let tokens = tokens(source);
        Self { tokens, at: 0, children: Vec::new(), inline: Vec::new(), paths: Vec::new() }
    }

    fn peek(&self, ahead: usize) -> &'a str {
        self.tokens.get(self.at + ahead).map_or("", |token| token.text)
    }

    fn next_is(&self, texts: &[&str]) -> bool {
        texts.iter().enumerate().all(|(ahead, text)| self.peek(ahead) == *text)
    }

    /// Everything in a file.
    fn items(&mut self, file: &ModulePath) {
        self.block(file, &mut Vec::new());
    }

    /// Everything up to the bracket that closes a module within a file, or the file's end.
    fn block(&mut self, file: &ModulePath, inline: &mut Vec<String>) {
        let mut depth = 0_usize;
        let mut path = None;
        while self.at < self.tokens.len() {
            let module = || [file.as_slice(), inline.as_slice()].concat();
            match self.peek(0) {
                "#" if self.next_is(&["#", "[", "cfg", "(", "test", ")", "]"]) => {
                    self.at += 7;
                    self.skip_item();
                }
                "#" if self.next_is(&["#", "[", "path", "="]) => {
                    path = Some(self.peek(4).trim_matches('"').to_owned());
                    self.at += 6;
                }
                "mod" if self.peek(2) == ";" => {
                    let name = self.peek(1).to_owned();
                    let module = [module(), vec![name]].concat();
                    let child = Child { module, inline: inline.clone(), path: path.take() };
                    self.children.push(child);
                    self.at += 3;
                }
                "mod" if self.peek(2) == "{" => {
                    inline.push(self.peek(1).to_owned());
                    self.inline.push([file.as_slice(), inline.as_slice()].concat());
                    self.at += 3;
                    self.block(file, inline);
                    inline.pop();
                }
                "{" => {
                    depth += 1;
                    self.at += 1;
                }
                "}" if depth == 0 => {
                    self.at += 1;
                    return;
                }
                "}" => {
                    depth -= 1;
                    self.at += 1;
                }
                "crate" | "self" | "super" if self.peek(1) == "::" => {
                    self.path(&module(), &mut Vec::new());
                }
                // A visibility is no import.
                "pub" if self.next_is(&["pub", "(", "in"]) => {
                    self.at += 3;
                    while !matches!(self.peek(0), ")" | "") {
                        self.at += 1;
                    }
                }
                _ => self.at += 1,
            }
        }
    }

    /// A path and, in an import, all that its brackets hold.
    fn path(&mut self, module: &ModulePath, segments: &mut Vec<String>) {
        let before = segments.len();
        let line = self.tokens.get(self.at).map_or(0, |token| token.line);
        loop {
            if self.peek(0) == "{" && before < segments.len() {
                self.at += 1;
                while !matches!(self.peek(0), "}" | "") {
                    self.path(module, segments);
                    if self.peek(0) == "as" {
                        self.at += 2;
                    }
                    if self.peek(0) == "," {
                        self.at += 1;
                    }
                }
                self.at += 1;
                break;
            }
            segments.push(self.peek(0).to_owned());
            self.at += 1;
            let goes_on = self.peek(0) == "::"
                && (self.peek(1).starts_with(is_word) || matches!(self.peek(1), "{" | "*"));
            if !goes_on {
                let segments = segments.clone();
                self.paths.push(Found { module: module.clone(), segments, line });
                break;
            }
            self.at += 1;
        }
        segments.truncate(before);
    }

    /// Past the item behind an attribute: to its semicolon, or past its brackets.
    fn skip_item(&mut self) {
        let mut depth = 0_usize;
        while self.at < self.tokens.len() {
            let text = self.peek(0);
            self.at += 1;
            match text {
                "{" | "(" | "[" => depth += 1,
                "}" | ")" | "]" if depth == 0 => {
                    self.at -= 1; // of what is around it
                    return;
                }
                "}" | ")" | "]" => {
                    depth -= 1;
                    if depth == 0 && text == "}" {
                        return;
                    }
                }
                ";" if depth == 0 => return,
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// The imports among files of a crate, as `from to line name`.
    fn among(files: &[(&str, &str)]) -> Vec<String> {
        let folder = tempfile::tempdir().unwrap();
        for (name, source) in files {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, source).unwrap();
        }
        let short = |path: &Path| path.strip_prefix(folder.path()).unwrap().display().to_string();
        let found = imports(&folder.path().join("lib.rs")).unwrap();
        found
            .iter()
            .map(|found| {
                format!("{} {} {} {}", short(&found.from), short(&found.to), found.line, found.name)
            })
            .collect()
    }

    #[test]
    fn imports_and_paths_are_followed_to_their_files() {
        let found = among(&[
            ("lib.rs", "#[path = \"x/a.rs\"] mod a; mod b { pub mod c; }\nfn main() { a::run(); }"),
            ("x/a.rs", "mod d;\npub(in crate::b) use crate::{b::c::{One, Two as Three}, b};"),
            ("x/d.rs", "fn x(y: super::Y) { let _: super::super::b::c::Z; self::z(); }"),
            ("b/c.rs", "mod e; fn x() -> $crate::a::d::X {}"),
            ("b/c/e/mod.rs", "use super::{super::super::a, f};"),
        ]);
        let expected = [
            "b/c/e/mod.rs b/c.rs 1 f",
            "b/c/e/mod.rs x/a.rs 1 a",
            "b/c.rs x/d.rs 1 X",
            "x/a.rs b/c.rs 2 One",
            "x/a.rs b/c.rs 2 Two",
            "x/a.rs lib.rs 2 b",
            "x/d.rs b/c.rs 1 Z",
            "x/d.rs x/a.rs 1 Y",
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn tests_may_import_from_anywhere() {
        let found = among(&[
            ("lib.rs", "mod a; mod b;"),
            ("a.rs", "#[cfg(test)] mod tests;\n#[cfg(test)]\nfn x() { crate::b::x(); }"),
            ("b.rs", "#[cfg(test)] mod tests { use crate::a::Y; }\nuse crate::a::X;"),
        ]);
        assert_eq!(found, ["b.rs a.rs 2 X"]);
    }
}
