//! What instances decide.

use veil_protocol_spec::{
    Blake3Digest, CodecError, Wire,
    agreement::{Instance, SlotEnd, Subject},
    codec::Bytes,
    domain,
    scheduling::{Manifest, ManifestError},
};

use super::engine::Members;

/// The value of an instance, by the instance's subject.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::large_enum_variant, reason = "an end is plain data; one at a time is on its way")]
pub enum Value {
    /// A slot's inputs.
    Manifest(Box<Manifest>),
    /// How a slot ends.
    End(SlotEnd),
}

/// Bytes that are no value of an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ValueError {
    /// Not a manifest, or not a valid one.
    #[error("the manifest is invalid: {0}")]
    Manifest(#[from] ManifestError),
    /// Not the end of a slot.
    #[error("the end of the slot is invalid: {0}")]
    End(CodecError),
    /// Of another slot or binding.
    #[error("it is of another {0}")]
    Elsewhere(&'static str),
}

impl Value {
    /// Parses a value and checks structure, binding and slot. What else it must be is the host's to
    /// say.
    pub(super) fn parse(
        bytes: &Bytes,
        instance: Instance,
        members: &Members,
    ) -> Result<Self, ValueError> {
        let (value, binding, slot) = match instance.subject {
            Subject::Manifest => {
                let manifest = Manifest::parse(&bytes.0, members.committee)?;
                let (binding, slot) = (manifest.binding, manifest.slot);
                (Self::Manifest(Box::new(manifest)), binding, slot)
            }
            Subject::End => {
                let end = SlotEnd::from_wire(&bytes.0).map_err(ValueError::End)?;
                (Self::End(end), end.binding, end.slot)
            }
        };
        binding.check(&members.binding).map_err(|e| ValueError::Elsewhere(e.field))?;
        if slot != instance.slot {
            return Err(ValueError::Elsewhere("slot"));
        }
        Ok(value)
    }
}

/// The digest that votes name, from the encoding.
pub(super) fn digest_of(subject: Subject, bytes: &Bytes) -> Blake3Digest {
    match subject {
        Subject::Manifest => Blake3Digest(domain::hash_parts(domain::MANIFEST, &[&bytes.0])),
        Subject::End => SlotEnd::digest_of(&bytes.0),
    }
}
