//! What a worker says of itself in public.
//!
//! Its operator's labels are in the registry, where changing them takes a transaction; what is here goes with
//! each message of telemetry, signed by the worker's identity.
//!
//! # Caveats
//! The worker's own word: nobody proves that its processor is of the architecture that it names, as nobody
//! proves a label. A worker that does not do what it says harms the jobs that it wins, and is seen to.

use core::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use veil_protocol_spec_job::{
    image::ImageReference,
    labels::Label,
    limits::ENTRIES,
    names::{Name, Organisation},
    network::Egress,
};

use crate::ids::Address;

/// Labels that a worker sets itself.
pub const MAX_FACTS: usize = 16;
/// Accounts, organisations, and repositories of images, to which a worker restricts itself, each.
pub const MAX_ACCEPTED: usize = 32;

/// A text names no repositories.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "repositories are named by [host[:port]][/path] in lower case, at most {max} characters, without tag, digest, \
     or / at an end",
    max = ImageReference::MAX_NAME
)]
pub struct InvalidRepositories;

/// A repository of images and all that lie below it, such as `registry.example/shop`.
///
/// ```
/// use veil_protocol_spec::scheduling::{ImageReference, Repositories};
/// let digest = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
/// let image = |name| format!("{name}@sha256:{digest}").parse::<ImageReference>().unwrap();
/// let shop: Repositories = "registry.example/shop".parse().unwrap();
/// assert!(shop.contain(&image("registry.example/shop")));
/// assert!(shop.contain(&image("registry.example/shop/web")));
/// assert!(!shop.contain(&image("registry.example/shopping")));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Repositories(String);

impl Repositories {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether an image is in one of them.
    #[must_use]
    pub fn contain(&self, image: &ImageReference) -> bool {
        let below = image.name().strip_prefix(&self.0);
        below.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

impl TryFrom<String> for Repositories {
    type Error = InvalidRepositories;

    fn try_from(text: String) -> Result<Self, InvalidRepositories> {
        let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-:/".contains(&b);
        let end = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_alphanumeric());
        let valid = text.len() <= ImageReference::MAX_NAME
            && text.bytes().all(allowed)
            && !text.contains("//")
            && end(text.bytes().next())
            && end(text.bytes().last());
        if valid { Ok(Self(text)) } else { Err(InvalidRepositories) }
    }
}

impl FromStr for Repositories {
    type Err = InvalidRepositories;

    fn from_str(text: &str) -> Result<Self, InvalidRepositories> {
        text.to_owned().try_into()
    }
}

impl From<Repositories> for String {
    fn from(text: Repositories) -> Self {
        text.0
    }
}

impl fmt::Display for Repositories {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whose jobs a worker runs, and which images. Its operator decides; a job that does not fit goes elsewhere.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Accepts {
    /// Accounts that submit jobs, strictly ascending; `None` for all, or for those of [`Self::organisations`]
    /// only.
    pub operators: Option<Vec<Address>>,
    /// Where images come from, strictly ascending; `None` for anywhere.
    pub images: Option<Vec<Repositories>>,
    /// The most that containers may reach.
    pub egress: Egress,
    /// Organisations whose accounts submit jobs, beside [`Self::operators`], strictly ascending; `None` for none
    /// beside them.
    pub organisations: Option<Vec<Organisation>>,
}

impl Accepts {
    /// Whether it takes jobs of this account, which is of these organisations by the chain: either list that
    /// names it will do, and without any list everybody is named.
    #[must_use]
    pub fn submitter(&self, account: &Address, organisations: &[Organisation]) -> bool {
        let Self { operators, organisations: accepted, .. } = self;
        let by_account = operators.as_ref().is_some_and(|those| those.contains(account));
        let names = |those: &Vec<Organisation>| organisations.iter().any(|one| those.contains(one));
        let nobody_named = operators.is_none() && accepted.is_none();
        nobody_named || by_account || accepted.as_ref().is_some_and(names)
    }

    /// Whether it runs this image.
    #[must_use]
    pub fn image(&self, image: &ImageReference) -> bool {
        let from = |those: &Vec<Repositories>| those.iter().any(|those| those.contain(image));
        self.images.as_ref().is_none_or(from)
    }

    /// Whether it lets a container reach that much.
    #[must_use]
    pub const fn egress(&self, wanted: Egress) -> bool {
        const fn reach(egress: Egress) -> u8 {
            match egress {
                Egress::None => 0,
                Egress::Public => 1,
                Egress::AllowPrivate => 2,
            }
        }
        reach(wanted) <= reach(self.egress)
    }
}

/// What a worker says of itself beside its telemetry. The default says nothing and takes every job that needs nothing
/// special.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// What it found out by itself: keys begin with `veil/`. Strictly ascending.
    pub facts: Vec<Label>,
    /// Host volumes that it offers, strictly ascending.
    pub volumes: Vec<Name>,
    /// What it takes.
    pub accepts: Accepts,
}

/// Why a profile is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "each message says what its fields are")]
pub enum ProfileError {
    /// A list has too many entries.
    #[error("a worker's profile lists {len} {list}: at most {max}")]
    TooMany { list: &'static str, len: usize, max: usize },
    /// A list is not strictly ascending.
    #[error("the {list} of a worker's profile are not strictly ascending")]
    Order { list: &'static str },
    /// A fact has a key that is the operator's to set, or the chain's.
    #[error(
        "a worker's profile states a label that is not its own to set: keys begin with veil/, and are not veil/light"
    )]
    Key,
}

impl Profile {
    /// What each key of [`Self::facts`] begins with.
    pub const PREFIX: &'static str = "veil/";
    /// Longest encoding: of full lists with the longest entries.
    pub const MAX_BYTES: usize = 64
        + MAX_FACTS * 2 * 64
        + ENTRIES * (Name::MAX_BYTES + 1)
        + MAX_ACCEPTED * (20 + ImageReference::MAX_NAME + 2 + Organisation::MAX_BYTES + 1);

    /// Checks all rules.
    ///
    /// # Errors
    /// [`ProfileError`], the first that is broken.
    pub fn validate(&self) -> Result<(), ProfileError> {
        let Self { facts, volumes, accepts } = self;
        let Accepts { operators, images, egress: _, organisations } = accepts;
        ascending("facts", facts, MAX_FACTS)?;
        ascending("volumes", volumes, ENTRIES)?;
        ascending("operators", operators.as_deref().unwrap_or_default(), MAX_ACCEPTED)?;
        ascending("images", images.as_deref().unwrap_or_default(), MAX_ACCEPTED)?;
        ascending("organisations", organisations.as_deref().unwrap_or_default(), MAX_ACCEPTED)?;
        // What the registration says, the worker's own word does not change.
        let own = |label: &Label| {
            let key = label.key.as_str();
            key.starts_with(Self::PREFIX) && key != "veil/light"
        };
        if facts.iter().all(own) { Ok(()) } else { Err(ProfileError::Key) }
    }
}

fn ascending<T: Ord>(list: &'static str, entries: &[T], max: usize) -> Result<(), ProfileError> {
    if entries.len() > max {
        return Err(ProfileError::TooMany { list, len: entries.len(), max });
    }
    let in_order = entries.iter().zip(entries.iter().skip(1)).all(|(a, b)| a < b);
    if in_order { Ok(()) } else { Err(ProfileError::Order { list }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(texts: &[&str]) -> Vec<Label> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn profile() -> Profile {
        Profile {
            facts: labels(&["veil/arch=amd64", "veil/os=linux"]),
            volumes: vec!["data".parse().unwrap(), "logs".parse().unwrap()],
            accepts: Accepts {
                operators: Some(vec![Address([1; 20]), Address([2; 20])]),
                images: Some(vec!["registry.example".parse().unwrap()]),
                egress: Egress::Public,
                organisations: None,
            },
        }
    }

    #[test]
    fn each_rule_is_checked() {
        assert_eq!(profile().validate(), Ok(()));
        assert_eq!(Profile::default().validate(), Ok(()));
        let broken = |change: fn(&mut Profile)| {
            let mut profile = profile();
            change(&mut profile);
            profile.validate()
        };
        let order = |list| Err(ProfileError::Order { list });
        assert_eq!(broken(|p| p.facts.reverse()), order("facts"));
        assert_eq!(broken(|p| p.volumes = vec!["a".parse().unwrap(); 2]), order("volumes"));
        assert_eq!(
            broken(|p| p.accepts.operators = Some(vec![Address([1; 20]); 2])),
            order("operators")
        );
        let twice = |p: &mut Profile| {
            p.accepts.organisations = Some(vec!["Acme".parse().unwrap(); 2]);
        };
        assert_eq!(broken(twice), order("organisations"));
        assert_eq!(broken(|p| p.facts = labels(&["zone=eu"])), Err(ProfileError::Key));
        assert_eq!(broken(|p| p.facts = labels(&["veil/light=true"])), Err(ProfileError::Key));
        let many = |p: &mut Profile| {
            let numbered = |i: usize| format!("r{i:03}.example").parse().unwrap();
            p.accepts.images = Some((0..=MAX_ACCEPTED).map(numbered).collect());
        };
        let (len, max) = (MAX_ACCEPTED + 1, MAX_ACCEPTED);
        assert_eq!(broken(many), Err(ProfileError::TooMany { list: "images", len, max }));
    }

    #[test]
    fn no_list_takes_all_and_an_empty_one_nothing() {
        let image = format!("other.example/app@sha256:{}", "ab".repeat(32)).parse().unwrap();
        let all = Accepts::default();
        assert!(all.submitter(&Address([9; 20]), &[]) && all.image(&image));
        let some = profile().accepts;
        assert!(some.submitter(&Address([2; 20]), &[]) && !some.submitter(&Address([9; 20]), &[]));
        assert!(!some.image(&image));
        let none = Accepts { operators: Some(vec![]), images: Some(vec![]), ..all };
        assert!(!none.submitter(&Address([2; 20]), &[]) && !none.image(&image));
    }

    #[test]
    fn either_list_of_submitters_will_do() {
        let names =
            |names: &[&str]| names.iter().map(|name| name.parse().unwrap()).collect::<Vec<_>>();
        let (own, other) = (Address([1; 20]), Address([9; 20]));
        let of =
            |operators, organisations| Accepts { operators, organisations, ..Accepts::default() };
        let acme = of(None, Some(names(&["Acme"])));
        assert!(acme.submitter(&other, &names(&["Zoo", "Acme"])));
        assert!(!acme.submitter(&other, &names(&["Zoo"])) && !acme.submitter(&other, &[]));
        let both = of(Some(vec![own]), Some(names(&["Acme"])));
        assert!(both.submitter(&own, &[]) && both.submitter(&other, &names(&["Acme"])));
        assert!(!both.submitter(&other, &names(&["Zoo"])));
        let only = of(Some(vec![own]), None);
        assert!(!only.submitter(&other, &names(&["Acme"])));
        assert!(!of(None, Some(vec![])).submitter(&own, &names(&["Acme"])), "an empty one: nobody");
    }

    #[test]
    fn more_reach_than_the_worker_allows_is_not_taken() {
        let levels = [Egress::None, Egress::Public, Egress::AllowPrivate];
        for (most, egress) in levels.into_iter().enumerate() {
            let accepts = Accepts { egress, ..Accepts::default() };
            for (wanted, level) in levels.into_iter().enumerate() {
                assert_eq!(accepts.egress(level), wanted <= most, "{level:?} of {egress:?}");
            }
        }
    }

    #[test]
    fn repositories_are_names_without_tag() {
        for text in ["registry.example:5000/shop", "docker.io", "localhost/a_b"] {
            assert_eq!(text.parse::<Repositories>().unwrap().as_str(), text);
        }
        let long = "a".repeat(256);
        for text in ["", "/shop", "shop/", "a//b", "Shop", "shop@sha256", "a b", long.as_str()] {
            assert_eq!(text.parse::<Repositories>(), Err(InvalidRepositories), "{text}");
        }
    }
}
