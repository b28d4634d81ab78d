// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IAssignmentAnchor} from "../interfaces/IAssignmentAnchor.sol";

/// @title Digests of certificates and assignments, as the crate `veil-protocol-spec` makes them
library Certificates {
    bytes32 internal constant CERTIFICATE = keccak256("veil v1 assignment certificate");
    bytes32 internal constant LEAF = keccak256("veil v1 assignment leaf");

    /// @notice What the committee signs: Keccak-256 of twelve words.
    function digest(
        uint256 chainId,
        address directory,
        IAssignmentAnchor.Certificate calldata certificate
    ) internal pure returns (bytes32) {
        return keccak256(
            abi.encode(
                CERTIFICATE,
                chainId,
                directory,
                certificate.cluster,
                certificate.epoch,
                certificate.keySet,
                certificate.slot,
                certificate.manifest,
                certificate.previous,
                certificate.assignmentsRoot,
                certificate.stateRoot,
                certificate.referenceStringOrigin
            )
        );
    }

    /// @notice The leaf of an assignment, hashed twice so that no inner node passes for one.
    function leaf(IAssignmentAnchor.Assignment calldata assignment)
        internal
        pure
        returns (bytes32)
    {
        bytes32 inner = keccak256(
            abi.encode(
                LEAF, assignment.job, assignment.replica, assignment.outcome, assignment.worker
            )
        );
        return keccak256(bytes.concat(inner));
    }
}
