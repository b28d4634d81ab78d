// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {VeilContract} from "./VeilContract.sol";
import {INodeRegistry} from "./interfaces/INodeRegistry.sol";
import {Secp256k1} from "./libraries/Secp256k1.sol";

/// @title Clusters and their nodes
/// @notice See `INodeRegistry`.
contract NodeRegistry is INodeRegistry, VeilContract {
    /// @notice Runs containers.
    uint8 public constant ROLE_WORKER = 1;
    /// @notice May sit in the committee.
    uint8 public constant ROLE_MEMBER = 2;
    /// @notice May submit jobs.
    uint32 public constant RIGHT_SUBMIT = 1;
    /// @notice Longest policy.
    uint256 public constant MAX_POLICY_BYTES = 8192;
    /// @notice Longest labels.
    uint256 public constant MAX_LABELS_BYTES = 1024;
    /// @notice EIP-712 type of what an identity signs to be registered.
    bytes32 public constant NODE_REGISTRATION_TYPE = keccak256(
        "NodeRegistration(bytes32 cluster,bytes32 peer,address operator,uint8 roles,bytes32 organisation,string labels,uint32 nonce)"
    );

    /// @dev A node of one cluster. `operator` is zero while it is not registered.
    struct Record {
        address operator;
        uint8 roles;
        uint32 position;
        uint32 registrations;
        bytes32 organisation;
        string labels;
    }

    /// @dev A key that proved possession once, in any cluster. The peer is a hash of the key, so
    /// this never changes.
    struct Identity {
        address signer;
        uint8 prefix;
        uint256 x;
    }

    mapping(bytes32 cluster => Cluster) private _clusters;
    mapping(bytes32 cluster => bytes) private _policies;
    mapping(bytes32 cluster => mapping(address account => uint32)) private _rights;
    mapping(address admin => mapping(bytes32 peer => address)) private _approved;
    mapping(bytes32 peer => Identity) private _identities;
    mapping(bytes32 cluster => mapping(bytes32 peer => Record)) private _records;
    /// @dev In the order of registration; the place of a node that left holds zero.
    mapping(bytes32 cluster => bytes32[]) private _order;

    constructor(address directory_) VeilContract(directory_) {}

    modifier onlyAdmin(bytes32 cluster) {
        if (_existing(cluster).admin != msg.sender) revert NotClusterAdmin(cluster, msg.sender);
        _;
    }

    /// @inheritdoc INodeRegistry
    function registerCluster(
        bytes32 salt,
        uint8 committeeSize,
        bool openToWorkers,
        uint64 slotMillis,
        bytes calldata policy
    ) external override returns (bytes32 cluster) {
        bool supported = committeeSize == 1 || committeeSize == 4 || committeeSize == 7
            || committeeSize == 10 || committeeSize == 13;
        if (!supported) revert UnsupportedCommitteeSize(committeeSize);
        if (slotMillis == 0) revert InvalidSlotTime();
        cluster = clusterId(msg.sender, salt);
        if (_clusters[cluster].admin != address(0)) revert ClusterAlreadyRegistered(cluster);
        _clusters[cluster] = Cluster(msg.sender, committeeSize, openToWorkers, slotMillis);
        emit ClusterRegistered(cluster, msg.sender, committeeSize, openToWorkers, slotMillis);
        _setPolicy(cluster, policy);
    }

    /// @inheritdoc INodeRegistry
    function setClusterPolicy(bytes32 cluster, bytes calldata policy)
        external
        override
        onlyAdmin(cluster)
    {
        _setPolicy(cluster, policy);
    }

    /// @inheritdoc INodeRegistry
    function setRights(bytes32 cluster, address account, uint32 rights)
        external
        override
        onlyAdmin(cluster)
    {
        _rights[cluster][account] = rights;
        emit RightsChanged(cluster, account, rights);
    }

    /// @inheritdoc INodeRegistry
    function registerNode(bytes32 peerID, address operator) external override {
        _approved[msg.sender][peerID] = operator;
        emit NodeApproved(msg.sender, peerID, operator);
    }

    /// @inheritdoc INodeRegistry
    function register(Registration calldata registration, CompactSignature calldata signature)
        external
        override
        returns (bytes32 peer)
    {
        bytes32 cluster = registration.cluster;
        Point memory key = registration.identity;
        if (!Secp256k1.isOnCurve(key.x, key.y)) revert InvalidIdentityKey();
        if (registration.roles == 0 || registration.roles > (ROLE_WORKER | ROLE_MEMBER)) {
            revert UnknownRoles(registration.roles);
        }
        uint256 length = bytes(registration.labels).length;
        if (length > MAX_LABELS_BYTES) revert LabelsTooLong(length);
        peer = Secp256k1.peerIdHash(key);
        _checkAdmission(cluster, peer, registration.roles);

        Record storage record = _records[cluster][peer];
        if (record.operator != address(0)) revert NodeAlreadyRegistered(cluster, peer);
        address signer = Secp256k1.toAddress(key.x, key.y);
        bytes32 digest = _registrationDigest(registration, peer, record.registrations);
        if (!_isSignedBy(signer, digest, signature)) revert WrongIdentitySignature(peer);

        if (_identities[peer].signer == address(0)) {
            _identities[peer] = Identity(signer, Secp256k1.prefix(key.y), key.x);
        }
        record.operator = msg.sender;
        record.roles = registration.roles;
        record.position = uint32(_order[cluster].length);
        record.registrations += 1;
        record.organisation = registration.organisation;
        record.labels = registration.labels;
        _order[cluster].push(peer);
        emit NodeRegistered(cluster, peer, msg.sender, registration.roles);
    }

    /// @inheritdoc INodeRegistry
    function deregister(bytes32 cluster, bytes32 peer) external override {
        Record storage record = _registered(cluster, peer);
        if (record.operator != msg.sender && _clusters[cluster].admin != msg.sender) {
            revert NotNodeOperator(cluster, peer, msg.sender);
        }
        _order[cluster][record.position] = 0;
        record.operator = address(0);
        record.roles = 0;
        emit NodeDeregistered(cluster, peer);
    }

    /// @inheritdoc INodeRegistry
    function clusterId(address admin, bytes32 salt) public view override returns (bytes32) {
        return keccak256(abi.encode(block.chainid, directory, admin, salt));
    }

    /// @inheritdoc INodeRegistry
    function clusterOf(bytes32 cluster) external view override returns (Cluster memory) {
        return _existing(cluster);
    }

    /// @inheritdoc INodeRegistry
    function getClusterPolicy(bytes32 cluster) external view override returns (bytes memory) {
        _existing(cluster);
        return _policies[cluster];
    }

    /// @inheritdoc INodeRegistry
    function rightsOf(bytes32 cluster, address account) external view override returns (uint32) {
        if (_existing(cluster).admin == account) return type(uint32).max;
        return _rights[cluster][account];
    }

    /// @inheritdoc INodeRegistry
    function approvedOperator(address admin, bytes32 peer)
        external
        view
        override
        returns (address)
    {
        return _approved[admin][peer];
    }

    /// @inheritdoc INodeRegistry
    function registrations(bytes32 cluster, bytes32 peer) external view override returns (uint32) {
        return _records[cluster][peer].registrations;
    }

    /// @inheritdoc INodeRegistry
    function signerOf(bytes32 peer) external view override returns (address) {
        return _identities[peer].signer;
    }

    /// @inheritdoc INodeRegistry
    function operatorOf(bytes32 cluster, bytes32 peer) external view override returns (address) {
        return _records[cluster][peer].operator;
    }

    /// @inheritdoc INodeRegistry
    function nodeOf(bytes32 cluster, bytes32 peer) external view override returns (Node memory) {
        _registered(cluster, peer);
        return _node(cluster, peer);
    }

    /// @inheritdoc INodeRegistry
    function nodes(bytes32 cluster, uint32 from, uint32 count)
        external
        view
        override
        returns (Node[] memory page, uint32 next)
    {
        _existing(cluster);
        bytes32[] storage order = _order[cluster];
        uint256 end = uint256(from) + count;
        if (end >= order.length) end = order.length;
        else next = uint32(end);
        uint256 found = 0;
        for (uint256 i = from; i < end; ++i) {
            if (order[i] != 0) ++found;
        }
        page = new Node[](found);
        found = 0;
        for (uint256 i = from; i < end; ++i) {
            if (order[i] != 0) page[found++] = _node(cluster, order[i]);
        }
    }

    /// @inheritdoc INodeRegistry
    function members(bytes32 cluster) external view override returns (bytes32[] memory peers) {
        _existing(cluster);
        bytes32[] storage order = _order[cluster];
        peers = new bytes32[](order.length);
        uint256 found = 0;
        for (uint256 i = 0; i < order.length; ++i) {
            bytes32 peer = order[i];
            if (peer != 0 && _records[cluster][peer].roles & ROLE_MEMBER != 0) {
                peers[found++] = peer;
            }
        }
        assembly ("memory-safe") {
            mstore(peers, found) // shorter than allocated
        }
    }

    function _setPolicy(bytes32 cluster, bytes calldata policy) private {
        if (policy.length > MAX_POLICY_BYTES) revert PolicyTooLong(policy.length);
        _policies[cluster] = policy;
        emit ClusterPolicyChanged(cluster, keccak256(policy), policy);
    }

    /// @dev The admin's own nodes need no approval, nor do workers of an open cluster.
    function _checkAdmission(bytes32 cluster, bytes32 peer, uint8 roles) private view {
        Cluster storage settings = _existing(cluster);
        address admin = settings.admin;
        if (msg.sender == admin || (settings.openToWorkers && roles == ROLE_WORKER)) return;
        if (_approved[admin][peer] != msg.sender) {
            revert NodeNotApproved(cluster, peer, msg.sender);
        }
    }

    function _registrationDigest(Registration calldata registration, bytes32 peer, uint32 nonce)
        private
        view
        returns (bytes32)
    {
        return _typedDigest(
            keccak256(
                abi.encode(
                    NODE_REGISTRATION_TYPE,
                    registration.cluster,
                    peer,
                    msg.sender,
                    registration.roles,
                    registration.organisation,
                    keccak256(bytes(registration.labels)),
                    nonce
                )
            )
        );
    }

    function _node(bytes32 cluster, bytes32 peer) private view returns (Node memory) {
        Record storage record = _records[cluster][peer];
        Identity storage key = _identities[peer];
        return Node({
            peer: peer,
            identity: abi.encodePacked(key.prefix, key.x),
            operator: record.operator,
            roles: record.roles,
            position: record.position,
            organisation: record.organisation,
            labels: record.labels
        });
    }

    function _existing(bytes32 cluster) private view returns (Cluster storage settings) {
        settings = _clusters[cluster];
        if (settings.admin == address(0)) revert UnknownCluster(cluster);
    }

    function _registered(bytes32 cluster, bytes32 peer)
        private
        view
        returns (Record storage record)
    {
        record = _records[cluster][peer];
        if (record.operator == address(0)) revert NodeNotRegistered(cluster, peer);
    }
}
