//! Which chains have a prevrandao that an election can be decided by.
//!
//! Source: EIP-4399, and each chain's own documentation of the opcode. On the others it is a constant, or chosen by who
//! builds the block.

use veil_protocol_spec::ChainId;

use crate::connection::Chain;

/// Ethereum and its test networks, Gnosis, the OP stack (of the block of Ethereum that it follows), local ones.
const USABLE: [u64; 11] =
    [1, 10, 100, 1_337, 8_453, 17_000, 31_337, 84_532, 560_048, 11_155_111, 11_155_420];

impl Chain {
    /// Whether nobody chooses the chain's prevrandao, as far as is known here: an elected cluster needs that.
    #[must_use]
    pub fn has_usable_prevrandao(&self) -> bool {
        let ChainId(id) = self.chain_id();
        USABLE.binary_search(&id).is_ok()
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_table_is_in_order() {
        assert!(super::USABLE.is_sorted());
    }
}
