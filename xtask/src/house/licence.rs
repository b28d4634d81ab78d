//! Licence expressions, as crates state them: SPDX, or the older `MIT/Apache-2.0`.

/// Whether the `allowed` licences fulfil `expression`. They do not fulfil one that cannot be parsed.
pub(super) fn is_met(expression: &str, allowed: &dyn Fn(&str) -> bool) -> bool {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let words: Vec<_> = spaced.split_whitespace().collect();
    let mut at = 0;
    let met = either(&words, &mut at, allowed);
    met == Some(true) && at == words.len()
}

/// `all OR all ...`.
fn either(words: &[&str], at: &mut usize, allowed: &dyn Fn(&str) -> bool) -> Option<bool> {
    let mut met = all(words, at, allowed)?;
    while words.get(*at) == Some(&"OR") {
        *at += 1;
        met |= all(words, at, allowed)?;
    }
    Some(met)
}

/// `one AND one ...`.
fn all(words: &[&str], at: &mut usize, allowed: &dyn Fn(&str) -> bool) -> Option<bool> {
    let mut met = one(words, at, allowed)?;
    while words.get(*at) == Some(&"AND") {
        *at += 1;
        met &= one(words, at, allowed)?;
    }
    Some(met)
}

/// A licence, with its exception if it has one, or an expression in brackets.
fn one(words: &[&str], at: &mut usize, allowed: &dyn Fn(&str) -> bool) -> Option<bool> {
    let word = *words.get(*at)?;
    *at += 1;
    if word == "(" {
        let met = either(words, at, allowed)?;
        let closed = words.get(*at) == Some(&")");
        *at += 1;
        return closed.then_some(met);
    }
    if words.get(*at) == Some(&"WITH") {
        let exception = *words.get(*at + 1)?;
        *at += 2;
        return Some(allowed(&format!("{word} WITH {exception}")));
    }
    (!matches!(word, "OR" | "AND" | "WITH" | ")")).then(|| allowed(word))
}

#[cfg(test)]
mod tests {
    use super::is_met;

    #[test]
    fn expressions_are_parsed() {
        let allowed = |name: &str| ["MIT", "ISC", "A WITH E"].contains(&name);
        for met in
            ["MIT", "GPL-3.0 OR MIT", "MIT/GPL-3.0", "(MIT OR GPL-3.0) AND ISC", "A WITH E OR B"]
        {
            assert!(is_met(met, &allowed), "{met}");
        }
        for not in
            ["", "GPL-3.0", "MIT AND GPL-3.0", "MIT OR", "(MIT", "MIT ISC", "A", "MIT WITH E", ")"]
        {
            assert!(!is_met(not, &allowed), "{not}");
        }
    }
}
