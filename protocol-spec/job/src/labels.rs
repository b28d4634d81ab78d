//! Public labels of workers, as the registry holds them and as constraints name them.

use core::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// A text is not a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a label is key=value, each 1 to {MAX_LEN} characters out of A-Z a-z 0-9 . _ - (keys: lower \
     case, and / too), beginning and ending with a letter or digit"
)]
pub struct InvalidLabel;

/// Longest key and longest value, in characters.
const MAX_LEN: usize = 63;

macro_rules! text {
    ($($(#[$doc:meta])* $name:ident($allowed:expr);)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidLabel;

            fn try_from(s: String) -> Result<Self, InvalidLabel> {
                let allowed: fn(u8) -> bool = $allowed;
                let end = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_alphanumeric());
                let valid = s.len() <= MAX_LEN
                    && s.bytes().all(allowed)
                    && end(s.bytes().next())
                    && end(s.bytes().last());
                if valid { Ok(Self(s)) } else { Err(InvalidLabel) }
            }
        }

        impl FromStr for $name {
            type Err = InvalidLabel;

            fn from_str(s: &str) -> Result<Self, InvalidLabel> {
                s.to_owned().try_into()
            }
        }

        impl From<$name> for String {
            fn from(text: $name) -> Self {
                text.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    )*};
}

text! {
    /// A label's key: 1 to 63 characters out of `a-z 0-9 . _ - /`, such as `topology/zone`.
    LabelKey(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-/".contains(&b));
    /// A label's value: 1 to 63 characters out of `A-Z a-z 0-9 . _ -`.
    LabelValue(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
}

/// One label, `key=value`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Label {
    /// The property, such as `topology/zone`.
    pub key: LabelKey,
    /// The property's value.
    pub value: LabelValue,
}

impl FromStr for Label {
    type Err = InvalidLabel;

    fn from_str(s: &str) -> Result<Self, InvalidLabel> {
        let (key, value) = s.split_once('=').ok_or(InvalidLabel)?;
        Ok(Self { key: key.parse()?, value: value.parse()? })
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.key, self.value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_parse_and_print() {
        for text in ["zone=eu-1", "topology/rack=R_12.b", "a=B"] {
            assert_eq!(text.parse::<Label>().map(|l| l.to_string()), Ok(text.to_owned()));
        }
    }

    #[test]
    fn other_texts_are_refused() {
        let long = "a".repeat(64);
        for text in [
            "", "a", "=", "a=", "=a", "A=b", "a=b=c", "a =b", "-a=b", "a=b-", "a=/b", "a/=b", "é=b",
        ] {
            assert_eq!(text.parse::<Label>(), Err(InvalidLabel), "{text:?}");
        }
        assert!(long[1..].parse::<LabelKey>().is_ok());
        assert_eq!(long.parse::<LabelKey>(), Err(InvalidLabel));
        assert_eq!(long.parse::<LabelValue>(), Err(InvalidLabel));
    }
}
