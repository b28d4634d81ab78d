//! Names that operators choose.

use serde::{Deserialize, Serialize};

use crate::{limits, text::texts};

/// A text is not a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a name is 1 to {max} characters out of a-z 0-9 -, beginning and ending with a letter or digit",
    max = Name::MAX_BYTES
)]
pub struct InvalidName;

/// A label of DNS (RFC 1123): the name of a job, of a port, of a volume, of a host.
///
/// ```
/// use veil_protocol_spec_job::names::Name;
/// assert_eq!("shop-web".parse::<Name>().unwrap().as_str(), "shop-web");
/// assert!("Shop_web".parse::<Name>().is_err());
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

impl Name {
    /// Longest name.
    pub const MAX_BYTES: usize = 63;

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// A name that resembles `text`, and ends with `suffix`: what a name may not have becomes a dash.
    /// `None` if nothing is left.
    #[must_use]
    pub fn resembling(text: &str, suffix: &str) -> Option<Self> {
        let allowed =
            |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
        let dashed: String = text.chars().map(allowed).collect();
        let room = Self::MAX_BYTES.checked_sub(suffix.len())?;
        let kept = dashed.get(..room).unwrap_or(&dashed).trim_matches('-');
        format!("{kept}{suffix}").trim_matches('-').parse().ok()
    }
}

impl TryFrom<String> for Name {
    type Error = InvalidName;

    fn try_from(text: String) -> Result<Self, InvalidName> {
        let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        let valid = (1..=Self::MAX_BYTES).contains(&text.len())
            && text.bytes().all(allowed)
            && !text.starts_with('-')
            && !text.ends_with('-');
        if valid { Ok(Self(text)) } else { Err(InvalidName) }
    }
}

/// A text is no organisation's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an organisation's name is 1 to {max} printable ASCII characters", max = Organisation::MAX_BYTES)]
pub struct InvalidOrganisation;

/// An organisation, as the chain names it: one word of ASCII.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Organisation(String);

impl Organisation {
    /// Longest name: one word of the chain.
    pub const MAX_BYTES: usize = 32;

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Organisation {
    type Error = InvalidOrganisation;

    fn try_from(text: String) -> Result<Self, InvalidOrganisation> {
        let printable = |b: u8| b.is_ascii_graphic() || b == b' ';
        let valid = (1..=Self::MAX_BYTES).contains(&text.len())
            && text.bytes().all(printable)
            && text.trim() == text;
        if valid { Ok(Self(text)) } else { Err(InvalidOrganisation) }
    }
}

/// A text names no host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a host's name is 1 to {max} characters: parts of a-z 0-9 - _ with dots between them, each beginning and ending \
     with a letter or digit, the last one not a number; and not `localhost`",
    max = HostName::MAX_BYTES
)]
pub struct InvalidHostName;

/// What a container calls another host: a name of DNS, in which underscores are possible as in Compose.
///
/// ```
/// use veil_protocol_spec_job::names::HostName;
/// assert_eq!("db.shop".parse::<HostName>().unwrap().as_str(), "db.shop");
/// assert!("10.0.0.1".parse::<HostName>().is_err());
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HostName(String);

impl HostName {
    /// Longest name.
    pub const MAX_BYTES: usize = 128;

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for HostName {
    type Error = InvalidHostName;

    fn try_from(text: String) -> Result<Self, InvalidHostName> {
        let allowed =
            |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_';
        let is_end =
            |b: Option<u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        let part = |part: &str| {
            (1..=Name::MAX_BYTES).contains(&part.len())
                && part.bytes().all(allowed)
                && is_end(part.bytes().next())
                && is_end(part.bytes().last())
        };
        let last = text.rsplit('.').next().unwrap_or_default();
        let valid = (1..=Self::MAX_BYTES).contains(&text.len())
            && text.split('.').all(part)
            && !last.bytes().all(|b| b.is_ascii_digit())
            && last != "localhost";
        if valid { Ok(Self(text)) } else { Err(InvalidHostName) }
    }
}

/// A text names no variable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a variable's name is 1 to {max} bytes without `=`, spaces or control characters",
    max = limits::VARIABLE_NAME_BYTES
)]
pub struct InvalidVariableName;

/// The name of a variable of the environment.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct VariableName(String);

impl VariableName {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether a text is the name of a variable.
    #[must_use]
    pub fn is_one(text: &str) -> bool {
        let allowed = |c: char| c != '=' && !c.is_control() && !c.is_whitespace();
        (1..=limits::VARIABLE_NAME_BYTES).contains(&text.len()) && text.chars().all(allowed)
    }
}

impl TryFrom<String> for VariableName {
    type Error = InvalidVariableName;

    fn try_from(text: String) -> Result<Self, InvalidVariableName> {
        if Self::is_one(&text) { Ok(Self(text)) } else { Err(InvalidVariableName) }
    }
}

texts! {
    HostName: InvalidHostName;
    VariableName: InvalidVariableName;
    Name: InvalidName;
    Organisation: InvalidOrganisation;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_labels_of_dns() {
        for name in ["a", "0", "shop-web", "a--b", &"a".repeat(63)] {
            assert_eq!(name.parse::<Name>().map(|n| n.to_string()), Ok(name.to_owned()));
        }
        for wrong in ["", "-", "a-", "-a", "A", "a.b", "a_b", "a b", "é", &"a".repeat(64)] {
            assert_eq!(wrong.parse::<Name>(), Err(InvalidName), "{wrong:?}");
        }
    }

    #[test]
    fn a_name_can_be_made_of_any_text() {
        let like = |text: &str| Name::resembling(text, "-7").map(String::from);
        assert_eq!(like("nginx"), Some("nginx-7".to_owned()));
        assert_eq!(like("My_App.v2"), Some("my-app-v2-7".to_owned()));
        assert_eq!(like(&"a".repeat(200)).unwrap().len(), 63);
        assert_eq!(like("___"), Some("7".to_owned()));
        assert_eq!(Name::resembling("é", ""), None);
        assert_eq!(Name::resembling("a", &"-".repeat(64)), None);
    }

    #[test]
    fn hosts_are_names_and_no_addresses() {
        for name in ["db", "my_db", "db.shop", "a-b.c_d.e", "1.a", &"a".repeat(63)] {
            assert_eq!(name.parse::<HostName>().map(|n| n.to_string()), Ok(name.to_owned()));
        }
        let long = vec!["a".repeat(63); 3].join(".");
        for wrong in [
            "",
            ".",
            "a.",
            ".a",
            "a..b",
            "_a",
            "a-",
            "A",
            "5432",
            "10.0.0.1",
            "localhost",
            "a.localhost",
            &long,
        ] {
            assert_eq!(wrong.parse::<HostName>(), Err(InvalidHostName), "{wrong:?}");
        }
    }

    #[test]
    fn variables_have_names() {
        assert!("DATABASE_ADDR".parse::<VariableName>().is_ok());
        for wrong in ["", "A=B", "A B", "A\0", &"a".repeat(256)] {
            assert_eq!(wrong.parse::<VariableName>(), Err(InvalidVariableName), "{wrong:?}");
        }
    }

    #[test]
    fn organisations_are_words_of_the_chain() {
        for name in ["Acme", "Universität".get(..8).unwrap(), "A B", &"a".repeat(32)] {
            assert!(name.parse::<Organisation>().is_ok(), "{name}");
        }
        for wrong in ["", " a", "a ", "ä", "a\n", &"a".repeat(33)] {
            assert_eq!(wrong.parse::<Organisation>(), Err(InvalidOrganisation), "{wrong:?}");
        }
    }
}
