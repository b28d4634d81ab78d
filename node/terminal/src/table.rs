//! Tables: as wide as their cells, and on a terminal no wider than it.
//!
//! What gives way on a narrow terminal is said by the column: identifiers are shortened in the middle, so
//! that their first digits, by which commands find them, stay; sentences go on below themselves; words and
//! numbers stay whole. Without a width nothing is cut: a program may read it, or a person search it later.

use std::io::{self, Write};

/// Between two columns.
const GAP: usize = 2;
/// No identifier is made shorter: eight digits in front, two dots, four behind.
const LEAST_ID: usize = 14;
/// A sentence keeps this much room before identifiers are shortened for it.
const ROOM_FOR_PROSE: usize = 28;
/// And this much after that: a word.
const LEAST_PROSE: usize = 9;

/// What a column holds, under which heading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Column {
    /// Words, which are shown whole.
    Words(&'static str),
    /// Numbers, at the right edge.
    Number(&'static str),
    /// Digests, references of images, names of peers.
    Id(&'static str),
    /// Sentences.
    Prose(&'static str),
}

impl Column {
    const fn heading(self) -> &'static str {
        match self {
            Self::Words(text) | Self::Number(text) | Self::Id(text) | Self::Prose(text) => text,
        }
    }
}

/// A table.
#[derive(Clone, Debug)]
pub struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// Without rows yet.
    #[must_use]
    pub fn new<const N: usize>(columns: [Column; N]) -> Self {
        Self { columns: columns.into(), rows: Vec::new() }
    }

    /// One more row: a cell for each column.
    pub fn row<const N: usize>(&mut self, cells: [impl Into<String>; N]) {
        let cells = cells.into_iter().map(|cell| printable(&cell.into())).collect::<Vec<_>>();
        debug_assert_eq!(cells.len(), self.columns.len(), "a cell for each column");
        self.rows.push(cells);
    }

    /// Writes it, within `width` if it is given.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn write(&self, out: &mut dyn Write, width: Option<usize>) -> io::Result<()> {
        let widths = self.widths(width);
        let headings: Vec<_> =
            self.columns.iter().map(|column| column.heading().to_owned()).collect();
        std::iter::once(&headings)
            .chain(&self.rows)
            .try_for_each(|row| self.write_row(out, row, &widths))
    }

    fn write_row(&self, out: &mut dyn Write, row: &[String], widths: &[usize]) -> io::Result<()> {
        let cells: Vec<_> = self
            .columns
            .iter()
            .zip(row)
            .zip(widths)
            .map(|((column, cell), &width)| match column {
                Column::Prose(_) => (wrap(cell, width), width),
                Column::Id(_) => (vec![shorten(cell, width)], width),
                Column::Number(_) => (vec![format!("{cell:>width$}")], width),
                Column::Words(_) => (vec![cell.clone()], width),
            })
            .collect();
        let height = cells.iter().map(|(lines, _)| lines.len()).max().unwrap_or_default();
        (0..height).try_for_each(|i| {
            let line = cells.iter().map(|(lines, width)| {
                let text = lines.get(i).map(String::as_str).unwrap_or_default();
                format!("{text:<width$}")
            });
            let line = line.collect::<Vec<_>>().join(&" ".repeat(GAP));
            writeln!(out, "{}", line.trim_end())
        })
    }

    /// How wide each column is.
    fn widths(&self, width: Option<usize>) -> Vec<usize> {
        let natural = self.columns.iter().enumerate().map(|(i, column)| {
            let cells = self.rows.iter().filter_map(|row| row.get(i));
            let cells = cells.map(|cell| cell.chars().count());
            cells.fold(column.heading().len(), usize::max)
        });
        let mut widths: Vec<_> = natural.collect();
        let Some(width) = width else { return widths };
        let gaps = GAP * widths.len().saturating_sub(1);
        let is_prose: fn(&Column) -> bool = |column| matches!(column, Column::Prose(_));
        let is_id: fn(&Column) -> bool = |column| matches!(column, Column::Id(_));
        let stages = [(is_prose, ROOM_FOR_PROSE), (is_id, LEAST_ID), (is_prose, LEAST_PROSE)];
        for (gives_way, least) in stages {
            while widths.iter().sum::<usize>() + gaps > width {
                let those = self.columns.iter().zip(&mut widths).filter(|(of, _)| gives_way(of));
                match those.map(|(_, width)| width).max() {
                    Some(widest) if *widest > least => *widest -= 1,
                    _ => break,
                }
            }
        }
        widths
    }
}

/// What a node sent may hold control characters, which a terminal would obey.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

/// `text` within `width` characters: both ends of it, and two dots between them.
fn shorten(text: &str, width: usize) -> String {
    let count = text.chars().count();
    if count <= width {
        return text.to_owned();
    }
    let kept = width.saturating_sub(2);
    let tail = kept / 3;
    let head = text.chars().take(kept - tail);
    head.chain("..".chars().take(width)).chain(text.chars().skip(count - tail)).collect()
}

/// `text` in lines of `width` characters, broken between words; a longer word is shortened.
#[must_use]
pub fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let word = shorten(word, width);
        match lines.last_mut() {
            Some(line) if line.is_empty() => line.push_str(&word),
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(&word);
            }
            _ => lines.push(word),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "3f2a91c0de5577aa3f2a91c0de5577aa3f2a91c0de5577aa3f2a91c0de5577ff";
    const REASON: &str = "no candidate had room for 2 GiB of memory, and one waits for its engine";

    fn table() -> Table {
        let mut table = Table::new([
            Column::Id("job"),
            Column::Number("replica"),
            Column::Id("worker"),
            Column::Words("assigned"),
            Column::Prose("because"),
        ]);
        table.row([DIGEST, "0", DIGEST, "yes", ""]);
        table.row([DIGEST, "11", "-", "pending", REASON]);
        table
    }

    fn lines(table: &Table, width: Option<usize>) -> Vec<String> {
        let mut text = Vec::new();
        table.write(&mut text, width).unwrap();
        String::from_utf8(text).unwrap().lines().map(str::to_owned).collect()
    }

    #[test]
    fn nothing_is_cut_without_a_terminal() {
        let lines = lines(&table(), None);
        assert_eq!(lines.len(), 3);
        assert!(lines[1].starts_with(DIGEST) && lines[1].ends_with("yes"), "{}", lines[1]);
        assert_eq!(lines[1].matches(DIGEST).count(), 2);
        assert!(lines[2].ends_with(REASON), "{}", lines[2]);
    }

    #[test]
    fn a_wide_terminal_shows_the_same() {
        assert_eq!(lines(&table(), Some(400)), lines(&table(), None));
    }

    #[test]
    fn a_table_fits_every_terminal_of_sixty_columns_and_more() {
        let prose = |lines: &[String]| -> String {
            let start = lines[0].find("because").unwrap();
            lines[2..].iter().filter_map(|line| line.get(start..)).collect::<Vec<_>>().join(" ")
        };
        for width in 60..=240 {
            let lines = lines(&table(), Some(width));
            for line in &lines {
                assert!(line.chars().count() <= width, "{width}: {line}");
            }
            // The digits that a command finds it by stay, and so does the whole reason.
            assert!(lines[1].starts_with("3f2a91c0"), "{width}: {}", lines[1]);
            assert!(lines[2].contains("pending"), "{width}: {}", lines[2]);
            assert_eq!(prose(&lines), REASON, "{width}");
        }
    }

    #[test]
    fn a_terminal_of_eighty_columns_is_used() {
        let expected = "\
job              replica  worker          assigned  because
3f2a91c0d..77ff        0  3f2a91c0..77ff  yes
3f2a91c0d..77ff       11  -               pending   no candidate had room for 2
                                                    GiB of memory, and one waits
                                                    for its engine";
        assert_eq!(lines(&table(), Some(80)).join("\n"), expected);
    }

    #[test]
    fn identifiers_keep_both_ends() {
        assert_eq!(shorten(DIGEST, 64), DIGEST);
        assert_eq!(shorten(DIGEST, 14), "3f2a91c0..77ff");
        assert_eq!(shorten("short", 14), "short");
        for width in 0..64 {
            assert_eq!(shorten(DIGEST, width).chars().count(), width);
        }
        assert_eq!(shorten("åäöåäöåäöåäö", 8), "åäöå..äö");
    }

    #[test]
    fn a_terminal_obeys_nothing_that_a_node_sent() {
        let mut table = Table::new([Column::Words("name"), Column::Prose("because")]);
        table.row(["\u{1b}[2Jweb", "a\nb\u{7}"]);
        assert_eq!(lines(&table, None)[1], "?[2Jweb  a?b?");
    }
}
