//! A command in one text, split as a shell does it and Compose with it.

/// The words of a command: with quotes and backslashes, without variables and patterns.
/// `None` if a quote does not end.
pub(crate) fn split(text: &str) -> Option<Vec<String>> {
    let (mut words, mut word) = (Vec::new(), None::<String>);
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            ' ' | '\t' | '\n' | '\r' => words.extend(word.take()),
            '\'' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next()? {
                        '\'' => break,
                        c => word.push(c),
                    }
                }
            }
            '"' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next()? {
                        '"' => break,
                        '\\' => match chars.next()? {
                            c @ ('"' | '\\' | '$' | '`') => word.push(c),
                            '\n' => {}
                            c => word.extend(['\\', c]),
                        },
                        c => word.push(c),
                    }
                }
            }
            '\\' => match chars.next() {
                Some('\n') => {}
                Some(c) => word.get_or_insert_default().push(c),
                None => return None,
            },
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    Some(words)
}

#[cfg(test)]
mod tests {
    use super::split;

    #[test]
    fn commands_are_split_as_shells_split_them() {
        for (text, words) in [
            ("nginx -g 'daemon off;'", &["nginx", "-g", "daemon off;"][..]),
            ("sh -c \"echo \\\"a b\\\" \\x\"", &["sh", "-c", "echo \"a b\" \\x"]),
            ("a\\ b ''  c\n d", &["a b", "", "c", "d"]),
            ("", &[]),
        ] {
            assert_eq!(
                split(text).as_deref(),
                Some(&words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>()[..]),
                "{text}"
            );
        }
        assert_eq!(split("a 'b"), None);
        assert_eq!(split("a \""), None);
    }
}
