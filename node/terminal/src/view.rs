//! A text that is shown again and again, each time in the place of the one before.

use crate::Size;

/// What is on the terminal of it.
#[derive(Clone, Copy, Debug, Default)]
pub struct View {
    lines: usize,
}

impl View {
    /// What to send to a terminal of that size, so that `text` stands where the last one stood.
    ///
    /// A line that is too long is cut, and lines beyond the last but one are counted instead: a line that
    /// wraps, or a screen that scrolls, would leave parts of the old text.
    pub fn renew(&mut self, text: &str, size: Size) -> String {
        let room = size.lines.saturating_sub(1).max(1);
        let all = text.lines().count();
        let shown = if all > room { room - 1 } else { all };
        let mut frame = match self.lines {
            0 => String::new(),
            lines => format!("\r\x1b[{lines}A"),
        };
        frame.push_str("\x1b[J");
        for line in text.lines().take(shown) {
            frame.extend(line.chars().take(size.columns));
            frame.push('\n');
        }
        if shown < all {
            let more = format!("... {} more lines: a taller terminal shows them", all - shown);
            frame.extend(more.chars().take(size.columns));
            frame.push('\n');
        }
        self.lines = if shown < all { shown + 1 } else { shown };
        frame
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A terminal that knows what the view sends.
    struct Terminal {
        size: Size,
        lines: Vec<String>,
        at: usize,
    }

    impl Terminal {
        fn new(lines: usize, columns: usize) -> Self {
            Self { size: Size { columns, lines }, lines: vec!["$ veil".to_owned()], at: 1 }
        }

        fn take(&mut self, sent: &str) {
            let mut rest = sent;
            while !rest.is_empty() {
                if let Some(after) = rest.strip_prefix('\r') {
                    rest = after;
                } else if let Some(after) = rest.strip_prefix("\x1b[J") {
                    self.lines.truncate(self.at);
                    rest = after;
                } else if let Some(after) = rest.strip_prefix("\x1b[") {
                    let (up, after) = after.split_once('A').unwrap();
                    self.at -= up.parse::<usize>().unwrap();
                    rest = after;
                } else {
                    let (line, after) = rest.split_once('\n').unwrap();
                    assert!(line.chars().count() <= self.size.columns, "it would wrap: {line}");
                    self.lines.truncate(self.at);
                    self.lines.push(line.to_owned());
                    self.at += 1;
                    rest = after;
                }
            }
            assert!(self.lines.len() - 1 < self.size.lines, "it would scroll: {:?}", self.lines);
        }
    }

    #[test]
    fn each_text_stands_in_the_place_of_the_last() {
        let (mut terminal, mut view) = (Terminal::new(10, 20), View::default());
        for text in ["one\ntwo\nthree\n", "", "one\n", "a\nb\nc\nd\ne\n", "one and only\n"] {
            let sent = view.renew(text, terminal.size);
            terminal.take(&sent);
            let shown: Vec<_> = terminal.lines.iter().skip(1).map(String::as_str).collect();
            assert_eq!(shown, text.lines().collect::<Vec<_>>());
            assert_eq!(terminal.lines[0], "$ veil", "what stood above stays");
        }
    }

    #[test]
    fn what_does_not_fit_is_cut_and_counted() {
        let (mut terminal, mut view) = (Terminal::new(4, 10), View::default());
        for text in ["a line of twenty-one\n2\n3\n4\n5\n", "1\n2\n3\n", "1\n2\n3\n4\n"] {
            let sent = view.renew(text, terminal.size);
            terminal.take(&sent);
        }
        assert_eq!(terminal.lines, ["$ veil", "1", "2", "... 2 more"]);
    }
}
