//! The stored type of the agreement, which `protocol-spec` defines.

pub use veil_protocol_spec::agreement::record::Record;
pub(super) use veil_protocol_spec::agreement::record::{Entry, Step};
