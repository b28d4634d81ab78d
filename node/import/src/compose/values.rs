//! Values that several keys have.

use crate::{error::ImportError, quantity::Bytes, yaml::Node};

/// A size, or an error with its place.
pub(super) fn size(key: &str, node: &Node) -> Result<u64, ImportError> {
    let bytes = Bytes::Compose.parse(node.str(key)?);
    bytes.ok_or_else(|| wrong(key, node, "no size; write such as 512m or 1gb"))
}

pub(super) fn wrong(key: &str, node: &Node, says: &str) -> ImportError {
    let text = node.as_text().unwrap_or_default();
    let says = format!("{text:?} is {says}");
    ImportError::Value { pos: node.pos, key: key.to_owned(), says }
}
