// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {VeilContract} from "./VeilContract.sol";
import {INodeRegistry} from "./interfaces/INodeRegistry.sol";

/// @title Whom the clusters' admins admit, and as what
/// @notice See `INodeRegistry`.
abstract contract Approvals is INodeRegistry, VeilContract {
    /// @notice Runs containers.
    uint8 public constant ROLE_WORKER = 1;
    /// @notice May sit in the committee.
    uint8 public constant ROLE_MEMBER = 2;
    /// @notice Longest time for which an approval can be used.
    uint64 public constant MAX_APPROVAL = 90 days;
    /// @notice The time for which one by `registerNode` can be.
    uint64 public constant DEFAULT_APPROVAL = 30 days;

    mapping(bytes32 cluster => mapping(bytes32 peer => Approval)) private _approvals;
    mapping(address admin => bytes32) private _firstClusters;
    /// @inheritdoc INodeRegistry
    mapping(bytes32 cluster => address) public override nextAdmin;

    /// @inheritdoc INodeRegistry
    function transferAdmin(bytes32 cluster, address to) external override {
        if (_existing(cluster).admin != msg.sender) revert NotClusterAdmin(cluster, msg.sender);
        nextAdmin[cluster] = to;
        emit AdminProposed(cluster, to);
    }

    /// @inheritdoc INodeRegistry
    function acceptAdmin(bytes32 cluster) external override {
        Cluster storage settings = _existing(cluster);
        if (nextAdmin[cluster] != msg.sender) revert NotNextAdmin(cluster, msg.sender);
        address before = settings.admin;
        delete nextAdmin[cluster];
        settings.admin = msg.sender;
        if (_firstClusters[before] == cluster) delete _firstClusters[before];
        _rememberFirst(cluster);
        emit AdminChanged(cluster, before, msg.sender);
    }

    /// @inheritdoc INodeRegistry
    function approve(bytes32 cluster, bytes32 peer, Approval calldata approval) external override {
        if (_existing(cluster).admin != msg.sender) revert NotClusterAdmin(cluster, msg.sender);
        if (approval.operator == address(0)) revert InvalidOperator();
        _checkRoles(approval.roles);
        uint64 latest = uint64(block.timestamp) + MAX_APPROVAL;
        if (approval.validUntil < block.timestamp || approval.validUntil > latest) {
            revert InvalidApprovalTime(approval.validUntil, latest);
        }
        _approve(cluster, peer, approval);
    }

    /// @inheritdoc INodeRegistry
    function withdrawApproval(bytes32 cluster, bytes32 peer) external override {
        if (_existing(cluster).admin != msg.sender) revert NotClusterAdmin(cluster, msg.sender);
        _forgetApproval(cluster, peer);
    }

    /// @inheritdoc INodeRegistry
    function registerNode(bytes32 peerID, address operator) external override {
        bytes32 cluster = _firstClusters[msg.sender];
        if (cluster == 0) revert UnknownCluster(cluster);
        if (operator == address(0)) {
            _forgetApproval(cluster, peerID);
            return;
        }
        uint64 validUntil = uint64(block.timestamp) + DEFAULT_APPROVAL;
        _approve(cluster, peerID, Approval(operator, ROLE_WORKER, validUntil, 0));
    }

    /// @inheritdoc INodeRegistry
    function approvalOf(bytes32 cluster, bytes32 peer)
        external
        view
        override
        returns (Approval memory)
    {
        return _approvals[cluster][peer];
    }

    function _approve(bytes32 cluster, bytes32 peer, Approval memory approval) private {
        _approvals[cluster][peer] = approval;
        emit NodeApproved(
            cluster,
            peer,
            approval.operator,
            approval.roles,
            approval.organisation,
            approval.validUntil
        );
    }

    function _forgetApproval(bytes32 cluster, bytes32 peer) internal {
        if (_approvals[cluster][peer].operator == address(0)) return;
        delete _approvals[cluster][peer];
        emit ApprovalWithdrawn(cluster, peer);
    }

    /// @dev The cluster that `registerNode` means.
    function _rememberFirst(bytes32 cluster) internal {
        if (_firstClusters[msg.sender] == 0) _firstClusters[msg.sender] = cluster;
    }

    /// @dev Uses the approval up. The admin says of its own nodes what they are; a worker of an open
    /// cluster that names no organisation claims nothing that somebody would have to approve.
    function _admit(Registration calldata registration, bytes32 peer) internal {
        bytes32 cluster = registration.cluster;
        Cluster storage settings = _existing(cluster);
        if (msg.sender == settings.admin) return;
        bool claimsNothing = registration.roles == ROLE_WORKER && registration.organisation == 0;
        if (claimsNothing && settings.openToWorkers) return;
        Approval memory found = _approvals[cluster][peer];
        if (found.operator != msg.sender) revert NodeNotApproved(cluster, peer, msg.sender);
        if (block.timestamp > found.validUntil) {
            revert ApprovalExpired(cluster, peer, found.validUntil);
        }
        if (found.roles != registration.roles || found.organisation != registration.organisation) {
            revert NotAsApproved(cluster, peer, found.roles, found.organisation);
        }
        delete _approvals[cluster][peer];
    }

    function _checkRoles(uint8 roles) internal pure {
        if (roles == 0 || roles > (ROLE_WORKER | ROLE_MEMBER)) revert UnknownRoles(roles);
    }

    function _existing(bytes32 cluster) internal view virtual returns (Cluster storage);
}
