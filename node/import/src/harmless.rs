//! Keys that can be left out and change nothing that a program of the job sees, or that Veil says in another way.
//!
//! Every other key that is not used counts as changed behaviour. `docs/import.md` lists the same keys with the same
//! reasons, and a test compares both.

/// The format of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Format {
    /// Docker Compose.
    Compose,
    /// Kubernetes objects.
    Kubernetes,
    /// Akash's stack definition language.
    Akash,
}

impl Format {
    /// As `docs/import.md` calls it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Compose => "Compose",
            Self::Kubernetes => "Kubernetes",
            Self::Akash => "Akash",
        }
    }
}

/// Keys of a format, with their reasons, in the order of `docs/import.md`.
pub fn table(format: Format) -> impl Iterator<Item = (&'static str, &'static str)> {
    let lines = match format {
        Format::Compose => include_str!("harmless/compose.txt"),
        Format::Kubernetes => include_str!("harmless/kubernetes.txt"),
        Format::Akash => include_str!("harmless/akash.txt"),
    };
    lines.lines().filter_map(|line| line.split_once(" | "))
}

/// Why a key can be left out, if it can.
#[must_use]
pub fn reason(format: Format, key: &str) -> Option<&'static str> {
    let is = |listed: &str| {
        listed == key || listed.strip_suffix('*').is_some_and(|begin| key.starts_with(begin))
    };
    table(format).find(|(listed, _)| is(listed)).map(|(_, reason)| reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The list in `docs/import.md` is this one.
    #[test]
    fn the_document_lists_what_may_be_left_out() {
        let document = include_str!("../../../docs/import.md");
        for format in [Format::Compose, Format::Kubernetes, Format::Akash] {
            let heading = format!("### Left out of {}\n", format.name());
            let (_, section) = document.split_once(&heading).expect("a section of the format");
            let section = section.split("\n#").next().unwrap_or_default();
            let rows = section.lines().filter_map(|line| {
                let (key, reason) = line.strip_prefix("| `")?.split_once("` | ")?;
                Some((key, reason.strip_suffix(" |")?))
            });
            let documented: Vec<_> = rows.collect();
            assert_eq!(documented, table(format).collect::<Vec<_>>(), "{}", format.name());
        }
    }

    #[test]
    fn each_key_is_listed_once() {
        for format in [Format::Compose, Format::Kubernetes, Format::Akash] {
            let mut keys: Vec<_> = table(format).map(|(key, _)| key).collect();
            keys.sort_unstable();
            let all = keys.len();
            keys.dedup();
            assert_eq!(all, keys.len());
        }
        assert!(reason(Format::Compose, "x-anything").is_some());
        assert!(reason(Format::Compose, "privileged").is_none());
    }
}
