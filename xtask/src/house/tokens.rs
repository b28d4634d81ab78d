//! Tokens of Rust source, as far as finding imports needs them.

/// A token, and its line, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Token<'a> {
    /// An identifier, a number, `::`, a text in its quotes, or one letter.
    pub(super) text: &'a str,
    pub(super) line: usize,
}

/// The tokens of `source`, without comments.
pub(super) fn tokens(source: &str) -> Vec<Token<'_>> {
    let mut found = Vec::new();
    let (mut at, mut line) = (0, 1);
    while let Some(first) = source[at..].chars().next() {
        let rest = &source[at..];
        let (length, is_token) = if first.is_whitespace() {
            (first.len_utf8(), false)
        } else if rest.starts_with("//") {
            (rest.find('\n').unwrap_or(rest.len()), false)
        } else if rest.starts_with("/*") {
            (comment(rest), false)
        } else if let Some(length) = literal(rest) {
            (length, true)
        } else if is_word(first) {
            (rest.find(|letter| !is_word(letter)).unwrap_or(rest.len()), true)
        } else if rest.starts_with("::") {
            (2, true)
        } else {
            (first.len_utf8(), true)
        };
        let (text, _) = rest.split_at(length);
        if is_token {
            found.push(Token { text, line });
        }
        line += text.matches('\n').count();
        at += length;
    }
    found
}

pub(super) fn is_word(letter: char) -> bool {
    letter.is_alphanumeric() || letter == '_'
}

/// Length of the comment that `rest` starts with; they nest.
fn comment(rest: &str) -> usize {
    let (mut at, mut depth) = (0, 0_usize);
    while let Some(letter) = rest[at..].chars().next() {
        if rest[at..].starts_with("/*") {
            (at, depth) = (at + 2, depth + 1);
        } else if rest[at..].starts_with("*/") {
            (at, depth) = (at + 2, depth - 1);
            if depth == 0 {
                return at;
            }
        } else {
            at += letter.len_utf8();
        }
    }
    at
}

/// Length of the text or letter that `rest` starts with, if it starts with one.
fn literal(rest: &str) -> Option<usize> {
    let prefix = ["br", "cr", "b", "c", "r"].into_iter().find(|prefix| {
        rest.strip_prefix(prefix).is_some_and(|rest| rest.starts_with(['"', '#', '\'']))
    });
    let body = &rest[prefix.map_or(0, str::len)..];
    let before = rest.len() - body.len();
    if prefix.is_some_and(|prefix| prefix.ends_with('r')) {
        let hashes = body.len() - body.trim_start_matches('#').len();
        let text = body[hashes..].strip_prefix('"')?; // else a raw identifier
        let end = format!("\"{}", "#".repeat(hashes));
        let length = text.find(&end).map_or(text.len(), |found| found + end.len());
        return Some(before + hashes + 1 + length);
    }
    let quote = body.chars().next().filter(|first| matches!(first, '"' | '\''))?;
    if quote == '\'' {
        // 'a' is a letter, 'a a lifetime.
        let mut letters = body[1..].chars();
        let first = letters.next()?;
        if first != '\\' && letters.next() != Some('\'') {
            return None;
        }
    }
    let mut escaped = false;
    for (at, letter) in body.char_indices().skip(1) {
        if letter == quote && !escaped {
            return Some(before + at + 1);
        }
        escaped = letter == '\\' && !escaped;
    }
    Some(rest.len())
}

#[cfg(test)]
mod tests {
    use super::tokens;

    #[test]
    fn comments_and_texts_are_no_code() {
        let source = r##"
            use a::b; // use c::d;
            /* use /* e */ f; */ let x: &'static str = "use g \" ;" ;
            let y = ['\'', '"', 'h', b'i']; r#"use "j""#; r#k; "l
            m"; n"##;
        let found = tokens(source);
        let code: Vec<_> = found
            .iter()
            .map(|token| {
                if token.text.ends_with(['"', '\'']) && token.text.len() > 1 {
                    "_"
                } else {
                    token.text
                }
            })
            .collect();
        let expected = "use a :: b ; let x : & ' static str = _ ; let y = [ _ , _ , _ , _ ] ; r#\"use \"j\"\"# ; r # k ; _ ; n";
        assert_eq!(code.join(" "), expected);
        assert_eq!(found.last().unwrap().line, 5);
    }
}
