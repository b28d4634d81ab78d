// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

/// @notice A contract that belongs to a directory.
interface IVeilContract {
    /// @notice A point of secp256k1 in affine coordinates.
    struct Point {
        uint256 x;
        uint256 y;
    }

    /// @notice The same in compressed form.
    struct CompressedPoint {
        uint256 x;
        /// 2 if y is even, 3 if it is odd.
        uint8 prefix;
    }

    /// @notice An ECDSA signature in 64 bytes (EIP-2098): the parity of the nonce point is the highest
    /// bit of `vs`, the rest of it is the low `s`.
    struct CompactSignature {
        bytes32 r;
        bytes32 vs;
    }

    /// @notice A FROST signature (R, z). R is given uncompressed, so that nobody has to take a square
    /// root on chain; what is hashed is its compressed form.
    struct FrostSignature {
        uint256 rx;
        uint256 ry;
        uint256 z;
    }

    /// @notice New work is paused until this second (Unix time). Exits never are.
    error Paused(uint64 until);
    /// @notice Only the directory's owner, the timelock, may do this.
    error NotGovernance(address caller);
    /// @notice Only the contract of this name in the same set may do this.
    error NotContract(bytes32 name, address caller);

    /// @notice The directory that this contract was deployed for; the `contract` of everything that
    /// is signed.
    function directory() external view returns (address);

    /// @notice The version of the set that this contract is for: the one that was to be published next when
    /// it was deployed. It works with the contracts of that set, and with no others.
    function setVersion() external view returns (uint64);

    /// @notice Raised whenever the interface changes; a client refuses versions that it was not
    /// built for.
    function interfaceVersion() external view returns (uint16);
}
