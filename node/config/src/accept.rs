//! What a worker's operator accepts.

use std::collections::BTreeSet;

use serde::Deserialize;
use veil_protocol_spec::{
    Address,
    scheduling::{Accepts, Egress, Organisation, Repositories},
};

use crate::parse_address;

/// `[worker.accept]`: whose jobs this worker runs, and which images. Published with its telemetry; members place
/// nothing else here.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AcceptSection {
    /// Accounts that submit jobs; all if neither this nor `organisations` is given.
    pub operators: Option<Vec<AccountText>>,
    /// Organisations, as the chain approved them, whose accounts submit jobs; beside `operators`.
    pub organisations: Option<Vec<Organisation>>,
    /// Repositories of images, and what is below them; all if it is not given.
    pub images: Option<Vec<Repositories>>,
}

/// An account in any case of its letters: checksummed addresses mix them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct AccountText(Address);

impl TryFrom<String> for AccountText {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        parse_address(&text).map(Self)
    }
}

impl AcceptSection {
    /// As it is published, by a worker on which containers may reach so much.
    #[must_use]
    pub fn accepts(&self, egress: Egress) -> Accepts {
        let sorted = |accounts: &Vec<AccountText>| {
            accounts.iter().map(|account| account.0).collect::<BTreeSet<_>>().into_iter().collect()
        };
        let distinct = |images: &Vec<Repositories>| {
            images.iter().cloned().collect::<BTreeSet<_>>().into_iter().collect()
        };
        let named = |organisations: &Vec<Organisation>| {
            organisations.iter().cloned().collect::<BTreeSet<_>>().into_iter().collect()
        };
        Accepts {
            operators: self.operators.as_ref().map(sorted),
            images: self.images.as_ref().map(distinct),
            egress,
            organisations: self.organisations.as_ref().map(named),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_worker_accepts_is_published_in_order() {
        let section: AcceptSection = toml::from_str(
            r#"
            operators = ["0xFFffFFffFFffFFffFFffFFffFFffFFffFFffFFff", "0x0000000000000000000000000000000000000001"]
            images = ["registry.example/shop", "docker.io/library", "docker.io/library"]
            organisations = ["Zoo", "Acme", "Zoo"]
            "#,
        )
        .unwrap();
        let Accepts { operators, images, egress, organisations } = section.accepts(Egress::Public);
        let organisations: Vec<_> =
            organisations.iter().flatten().map(Organisation::as_str).collect();
        assert_eq!(organisations, ["Acme", "Zoo"]);
        let mut one = [0; 20];
        one[19] = 1;
        assert_eq!(operators, Some(vec![Address(one), Address([0xff; 20])]));
        let images: Vec<_> = images.iter().flatten().map(Repositories::as_str).collect();
        assert_eq!(images, ["docker.io/library", "registry.example/shop"]);
        assert_eq!(egress, Egress::Public);
        assert!(toml::from_str::<AcceptSection>(r#"images = ["Shop:latest"]"#).is_err());
        assert!(toml::from_str::<AcceptSection>(r#"operators = ["0x12"]"#).is_err());
        assert!(toml::from_str::<AcceptSection>(r#"organisations = [" Acme"]"#).is_err());
    }
}
