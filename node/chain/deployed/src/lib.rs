//! Whether code on the chain is what this build deploys, byte for byte, and made with what it belongs to.
//!
//! # Role
//! Compares bytes that somebody else has read with the checked-in creation code; no I/O of its own.
//!
//! # Flow
//! 1. A contract's code is the end of its creation code, in which the constructor has filled in what is immutable:
//!    `Template` finds where, and which place is for which value, so that nothing of it is taken on trust.
//! 2. [`check`] holds each place to what the set says: the contracts work with one another, and with no others.
//!
//! # State and restart
//! None.

use core::fmt;

use alloy::primitives::{Address as EvmAddress, B256, Bytes, U256};
use veil_contracts::{
    assignment_anchor::AssignmentAnchor, committee_election::CommitteeElection,
    directory::Directory, disputes::Disputes, fee_pool::FeePool, job_board::JobBoard,
    key_ceremony::KeyCeremony, node_registry::NodeRegistry, policy_registry::PolicyRegistry,
    timelock::Timelock,
};
use veil_protocol_spec::{Address, hex};

const JUMP_TO_CODE: u8 = 0xfe; // INVALID: nothing runs into what follows
const CODECOPY: u8 = 0x39;
const ADD: u8 = 0x01;
const MSTORE: u8 = 0x52;
const PUSH0: u8 = 0x5f;
const PUSH32: u8 = 0x7f;

/// How a contract differs from what this build deploys.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say what the fields are")]
pub enum InvalidDeployment {
    /// A byte of its code.
    #[error(
        "{contract} at 0x{address}: byte {offset} of its code is {found}, and {expected} as built: it is another program; deploy with `veil chain deploy`, or verify with the build that deployed it"
    )]
    Code { contract: &'static str, address: Address, offset: usize, expected: Byte, found: Byte },
    /// This build's own code, by another compiler than is known here.
    #[error("{contract} as built is of a form that is not known here: report it")]
    Form { contract: &'static str },
    /// Something that it was made with.
    #[error(
        "{contract} at 0x{address}: its {value} is 0x{found}, and 0x{expected} in this set (byte {offset} of its code): the contracts do not belong together; deploy a set with `veil chain deploy`"
    )]
    Value {
        contract: &'static str,
        address: Address,
        offset: usize,
        value: &'static str,
        expected: String,
        found: String,
    },
}

/// A byte, or the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Byte(Option<u8>);

impl fmt::Display for Byte {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(byte) => write!(f, "0x{byte:02x}"),
            None => f.write_str("beyond its end"),
        }
    }
}

/// What a place for an immutable value has to hold.
#[derive(Clone, Copy, Debug)]
enum Expected {
    /// This.
    Word(&'static str, B256),
    /// Whatever it is, the same in all places.
    Any,
}

/// A contract's code before its constructor fills in what is immutable.
struct Template<'a> {
    code: &'a [u8],
    /// Where each immutable value is, in the order of their declaration.
    places: Vec<Vec<usize>>,
}

/// The instructions of code: where each is, what it is, what it pushes.
fn instructions(code: &[u8]) -> impl Iterator<Item = (usize, u8, &[u8])> {
    let mut at = 0;
    core::iter::from_fn(move || {
        let operation = *code.get(at)?;
        let length = usize::from(operation.checked_sub(PUSH0).filter(|n| *n <= 32).unwrap_or(0));
        let pushed = code.get(at + 1..at + 1 + length).unwrap_or_default();
        let found = (at, operation, pushed);
        at += 1 + length;
        Some(found)
    })
}

impl<'a> Template<'a> {
    /// From creation code without arguments, as solc makes it: the constructor, which copies the code that follows it to
    /// memory, and writes the immutable values into it, the last declared first: a zero, then for each place its offset,
    /// added to where the code is.
    ///
    /// `None` if it has another form: then a place is missing.
    fn of(creation: &'a [u8]) -> Option<Self> {
        let (end, ..) = instructions(creation).find(|(_, what, _)| *what == JUMP_TO_CODE)?;
        let (constructor, code) = (creation.get(..end)?, creation.get(end + 1..)?);
        let all: Vec<_> = instructions(constructor).collect();
        let copied = all.iter().rposition(|(_, what, _)| *what == CODECOPY)?;
        let mut places: Vec<Vec<usize>> = Vec::new();
        for window in all.get(copied..)?.windows(3) {
            let &[(_, first, pushed), (_, second, _), (_, third, _)] = window else { continue };
            if first == PUSH0 {
                places.push(Vec::new());
            } else if first > PUSH0 && pushed.len() < 4 && (second, third) == (ADD, MSTORE) {
                let offset = pushed.iter().fold(0, |all, byte| all << 8 | usize::from(*byte));
                places.last_mut()?.push(offset);
            }
        }
        places.retain(|places| !places.is_empty());
        places.reverse();
        let template = Self { code, places };
        template.has_all_places().then_some(template)
    }

    /// Whether the places are those that the code leaves empty.
    fn has_all_places(&self) -> bool {
        let empty = instructions(self.code)
            .filter(|(_, what, word)| *what == PUSH32 && word.iter().all(|byte| *byte == 0))
            .map(|(at, ..)| at + 1);
        let mut known: Vec<_> = self.places.iter().flatten().copied().collect();
        known.sort_unstable();
        empty.eq(known)
    }

    /// Compares code on the chain.
    fn check(
        &self,
        (contract, address): (&'static str, Address),
        found: &[u8],
        expected: &[Expected],
    ) -> Result<Vec<B256>, InvalidDeployment> {
        let mut filled = self.code.to_vec();
        let mut values = Vec::new();
        for (places, expected) in self.places.iter().zip(expected) {
            let mut value = match expected {
                Expected::Word(_, word) => Some(*word),
                Expected::Any => None,
            };
            for &offset in places {
                let Some(word) = found.get(offset..offset + 32).map(B256::from_slice) else {
                    break; // it is shorter: found below
                };
                let wanted = *value.get_or_insert(word);
                if word != wanted {
                    let value = match expected {
                        Expected::Word(name, _) => name,
                        Expected::Any => "immutable value",
                    };
                    return Err(InvalidDeployment::Value {
                        contract,
                        address,
                        offset,
                        value,
                        expected: hex(wanted.as_slice()),
                        found: hex(word.as_slice()),
                    });
                }
                if let Some(place) = filled.get_mut(offset..offset + 32) {
                    place.copy_from_slice(word.as_slice());
                }
            }
            values.push(value.unwrap_or_default());
        }
        let longest = filled.len().max(found.len());
        let differs = (0..longest).find(|&at| filled.get(at) != found.get(at));
        match differs {
            None => Ok(values),
            Some(offset) => {
                let [expected, found] =
                    [&filled[..], found].map(|of| Byte(of.get(offset).copied()));
                Err(InvalidDeployment::Code { contract, address, offset, expected, found })
            }
        }
    }
}

/// A set of contracts, as their directory names it.
#[derive(Clone, Copy, Debug)]
pub struct Set<'a> {
    /// Each contract's name and address, the directory among them.
    pub named: &'a [(&'static str, Address)],
    /// The version of the set.
    pub version: u64,
}

impl Set<'_> {
    fn word(&self, name: &'static str) -> Expected {
        let at = self.named.iter().find(|(known, _)| *known == name);
        let at = at.map_or(EvmAddress::ZERO, |(_, at)| EvmAddress::new(at.0));
        Expected::Word(name, at.into_word())
    }

    /// What a contract is made of, and what it is made with.
    fn built(&self, name: &str) -> (&'static Bytes, Vec<Expected>) {
        let any = Expected::Any;
        let registry = self.word("NodeRegistry");
        let (creation, own): (&Bytes, Vec<Expected>) = match name {
            // Who may publish its first set, which is published.
            "Directory" => return (&Directory::BYTECODE, vec![any]),
            "Timelock" => return (&Timelock::BYTECODE, vec![]),
            "NodeRegistry" => (&NodeRegistry::BYTECODE, vec![]),
            "PolicyRegistry" => (&PolicyRegistry::BYTECODE, vec![registry]),
            "CommitteeElection" => (&CommitteeElection::BYTECODE, vec![registry, any, any]),
            "KeyCeremony" => {
                (&KeyCeremony::BYTECODE, vec![registry, self.word("CommitteeElection")])
            }
            "JobBoard" => (&JobBoard::BYTECODE, vec![self.word("PolicyRegistry"), registry]),
            "AssignmentAnchor" => {
                (&AssignmentAnchor::BYTECODE, vec![self.word("KeyCeremony"), registry])
            }
            "FeePool" => {
                let steps = ["CommitteeElection", "KeyCeremony", "AssignmentAnchor"];
                let steps = steps.into_iter().map(|name| self.word(name));
                (&FeePool::BYTECODE, [registry].into_iter().chain(steps).collect())
            }
            _ => {
                let judges = [self.word("KeyCeremony"), self.word("AssignmentAnchor")];
                (&Disputes::BYTECODE, [registry].into_iter().chain(judges).collect())
            }
        };
        let version = Expected::Word("set", U256::from(self.version).into());
        (creation, [self.word("Directory"), version].into_iter().chain(own).collect())
    }
}

/// Compares the code of the contract of this name, and gives its immutable values, in the order of their declaration.
///
/// # Errors
/// The first difference.
pub fn check(
    set: &Set<'_>,
    (contract, address): (&'static str, Address),
    found: &[u8],
) -> Result<Vec<B256>, InvalidDeployment> {
    let (creation, expected) = set.built(contract);
    let template = Template::of(creation).filter(|of| of.places.len() == expected.len());
    let template = template.ok_or(InvalidDeployment::Form { contract })?;
    template.check((contract, address), found, &expected)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DISPUTES: (&str, Address) = ("Disputes", Address([7; 20]));

    fn word(byte: u8) -> B256 {
        B256::repeat_byte(byte)
    }

    /// As a constructor leaves it, with these values.
    fn made(template: &Template<'_>, values: &[B256]) -> Vec<u8> {
        let mut code = template.code.to_vec();
        for (places, value) in template.places.iter().zip(values) {
            for at in places {
                code[*at..*at + 32].copy_from_slice(value.as_slice());
            }
        }
        code
    }

    #[test]
    fn every_place_of_the_built_contracts_is_found() {
        for (creation, values) in [
            (&Directory::BYTECODE, 1),
            (&NodeRegistry::BYTECODE, 2),
            (&PolicyRegistry::BYTECODE, 3),
            (&CommitteeElection::BYTECODE, 5),
            (&KeyCeremony::BYTECODE, 4),
            (&JobBoard::BYTECODE, 4),
            (&AssignmentAnchor::BYTECODE, 4),
            (&Disputes::BYTECODE, 5),
            (&FeePool::BYTECODE, 6),
            (&Timelock::BYTECODE, 0),
        ] {
            let template = Template::of(creation).unwrap();
            assert_eq!(template.places.len(), values);
            assert!(template.code.starts_with(&[0x60, 0x80, 0x60, 0x40, MSTORE]));
        }
    }

    #[test]
    fn one_changed_byte_anywhere_is_told_with_its_place() {
        let template = Template::of(&Disputes::BYTECODE).unwrap();
        let values = [1, 2, 3, 4, 5].map(word);
        let expected = values.map(|value| Expected::Word("value", value));
        let honest = made(&template, &values);
        assert_eq!(template.check(DISPUTES, &honest, &expected), Ok(values.to_vec()));
        let places: Vec<_> = template.places.iter().flatten().copied().collect();
        let immutable =
            |at: usize| places.iter().find(|place| (**place..**place + 32).contains(&at));
        let some = (0..honest.len()).step_by(97).chain(places.iter().map(|at| at + 31));
        for at in some {
            let mut changed = honest.clone();
            changed[at] ^= 1;
            match (template.check(DISPUTES, &changed, &expected).unwrap_err(), immutable(at)) {
                (InvalidDeployment::Code { contract, offset, .. }, None) => {
                    assert_eq!((contract, offset), ("Disputes", at));
                }
                (InvalidDeployment::Value { contract, offset, .. }, Some(place)) => {
                    assert_eq!((contract, offset), ("Disputes", *place));
                }
                (told, _) => panic!("{at}: {told}"),
            }
        }
        for other in [&honest[..honest.len() - 1], &[&honest[..], &[0]].concat(), &[]] {
            let told = template.check(DISPUTES, other, &expected).unwrap_err().to_string();
            assert!(told.contains("beyond its end"), "{told}");
        }
    }

    #[test]
    fn what_is_made_with_others_is_told() {
        let template = Template::of(&Disputes::BYTECODE).unwrap();
        let swapped = made(&template, &[1, 2, 4, 3, 5].map(word));
        let names = ["directory", "set", "NodeRegistry", "KeyCeremony", "AssignmentAnchor"];
        let mut expected = Vec::new();
        for (name, byte) in names.into_iter().zip(1..) {
            expected.push(Expected::Word(name, word(byte)));
        }
        let told = template.check(DISPUTES, &swapped, &expected).unwrap_err().to_string();
        assert!(told.contains("its NodeRegistry is 0x0404"), "{told}");
        // Whatever it is, it is one value.
        let any = [Expected::Any; 5];
        let mut split = swapped.clone();
        assert!(template.check(DISPUTES, &swapped, &any).is_ok());
        split[template.places[2][1] + 31] ^= 1;
        assert!(template.check(DISPUTES, &split, &any).is_err());
    }
}
