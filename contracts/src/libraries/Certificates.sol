// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IAssignmentAnchor} from "../interfaces/IAssignmentAnchor.sol";

/// @title Digests of certificates, assignments and replicas, as the crate `veil-protocol-spec` makes them
library Certificates {
    bytes32 internal constant CERTIFICATE = keccak256("veil v2 assignment certificate");
    bytes32 internal constant LEAF = keccak256("veil v1 assignment leaf");
    bytes32 internal constant REPLICA_LEAF = keccak256("veil v2 state replica leaf");

    /// @notice What the committee signs: Keccak-256 of sixteen words.
    function digest(
        uint256 chainId,
        address directory,
        IAssignmentAnchor.Certificate calldata certificate
    ) internal pure returns (bytes32 hash) {
        bytes32 purpose = CERTIFICATE;
        assembly ("memory-safe") {
            let m := mload(0x40)
            mstore(m, purpose)
            mstore(add(m, 0x20), chainId)
            mstore(add(m, 0x40), directory)
            // Thirteen words, as they are: a number that does not fit its type is in no signed digest.
            calldatacopy(add(m, 0x60), certificate, 0x1a0)
            hash := keccak256(m, 0x200)
        }
    }

    /// @notice The leaf of an assignment, hashed twice so that no inner node passes for one.
    function leaf(IAssignmentAnchor.Assignment calldata assignment)
        internal
        pure
        returns (bytes32)
    {
        return leafOf(assignment.job, assignment.replica, assignment.outcome, assignment.worker);
    }

    /// @notice The same of its parts.
    function leafOf(bytes32 job, uint16 replica, uint8 outcome, bytes32 worker)
        internal
        pure
        returns (bytes32)
    {
        bytes32 inner = keccak256(abi.encode(LEAF, job, replica, outcome, worker));
        return keccak256(bytes.concat(inner));
    }

    /// @notice The leaf of a replica in the state tree.
    function replicaLeaf(IAssignmentAnchor.Replica calldata replica)
        internal
        pure
        returns (bytes32)
    {
        bytes32 inner = keccak256(
            abi.encode(
                REPLICA_LEAF,
                replica.job,
                replica.replica,
                replica.form,
                replica.worker,
                replica.slot,
                replica.flags
            )
        );
        return keccak256(bytes.concat(inner));
    }
}
