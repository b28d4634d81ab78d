// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Approvals} from "./Approvals.sol";
import {VeilContract} from "./VeilContract.sol";
import {IKeyCeremony} from "./interfaces/IKeyCeremony.sol";
import {INodeRegistry} from "./interfaces/INodeRegistry.sol";
import {Secp256k1} from "./libraries/Secp256k1.sol";

/// @title Clusters, their nodes, and the nodes' stake
/// @notice See `INodeRegistry`.
contract NodeRegistry is Approvals {
    /// @notice Most standbys of a committee.
    uint8 public constant MAX_STANDBYS = 8;
    /// @notice Longest announcement of what widens.
    uint32 public constant MAX_WIDENING_DELAY = 30 days;
    /// @notice Longest labels.
    uint256 public constant MAX_LABELS_BYTES = 1024;
    /// @notice How long stake stays slashable after the committee was replaced.
    uint64 public constant DISPUTE_WINDOW = 14 days;
    /// @notice How long it does if the committee is never replaced.
    uint64 public constant MAX_EXIT = 180 days;
    /// @notice EIP-712 type of what an identity signs to be registered.
    bytes32 public constant NODE_REGISTRATION_TYPE = keccak256(
        "NodeRegistration(bytes32 cluster,bytes32 peer,address operator,uint8 roles,bytes32 organisation,string labels,uint32 nonce)"
    );

    /// @dev A node of one cluster, in one word. `roles` is zero while it is not registered; `operator`
    /// stays until its stake is withdrawn.
    struct Record {
        address operator;
        uint8 roles;
        uint24 position;
        uint8 registrations;
        bytes7 organisationTag;
    }

    /// @dev What a worker is given, in one word.
    struct Given {
        Eligibility eligibility;
        uint64 drainDeadline;
    }

    mapping(bytes32 cluster => Cluster) private _clusters;
    mapping(bytes32 cluster => mapping(bytes32 peer => Record)) private _records;
    mapping(bytes32 cluster => mapping(bytes32 peer => Stake)) private _stakes;
    mapping(bytes32 cluster => mapping(bytes32 peer => Given)) private _eligibility;
    /// @dev In the order of registration; the place of a node that left holds zero. Workers are apart,
    /// so that no crowd of them makes an election expensive.
    mapping(bytes32 cluster => bytes32[]) private _members;
    mapping(bytes32 cluster => bytes32[]) private _workers;

    constructor(address directory_) VeilContract(directory_) {}

    /// @inheritdoc INodeRegistry
    function registerCluster(bytes32 salt, Settings calldata settings)
        external
        override
        returns (bytes32 cluster)
    {
        uint8 size = settings.committeeSize;
        if (size != 1 && size != 4 && size != 7 && size != 10 && size != 13) {
            revert UnsupportedCommitteeSize(size);
        }
        if (settings.standbys > MAX_STANDBYS) revert TooManyStandbys(settings.standbys);
        if (settings.slotMillis == 0) revert InvalidSlotTime();
        if (settings.wideningDelay > MAX_WIDENING_DELAY) {
            revert InvalidWideningDelay(settings.wideningDelay);
        }
        if (settings.memberStake > type(uint88).max) revert InvalidStake(settings.memberStake);
        cluster = clusterId(msg.sender, salt);
        if (_clusters[cluster].admin != address(0)) revert ClusterAlreadyRegistered(cluster);
        _clusters[cluster] = Cluster({
            admin: msg.sender,
            committeeSize: size,
            standbys: settings.standbys,
            seatsPerOrganisation: settings.seatsPerOrganisation,
            openToWorkers: settings.openToWorkers,
            elected: settings.elected,
            wideningDelay: settings.wideningDelay,
            slotMillis: settings.slotMillis,
            memberStake: settings.memberStake,
            registeredAt: uint64(block.timestamp)
        });
        _rememberFirst(cluster);
        emit ClusterRegistered(cluster, msg.sender, settings);
    }

    /// @inheritdoc INodeRegistry
    function register(Registration calldata registration, CompactSignature calldata signature)
        external
        payable
        override
        returns (bytes32 peer)
    {
        _checkRoles(registration.roles);
        uint256 length = bytes(registration.labels).length;
        if (length > MAX_LABELS_BYTES) revert LabelsTooLong(length);
        peer = Secp256k1.peerIdHash(registration.identity);
        address signer = Secp256k1.addressOf(peer, registration.identity);
        if (signer == address(0)) revert InvalidIdentityKey();
        bytes32 cluster = registration.cluster;
        Record memory record = _records[cluster][peer];
        if (record.roles != 0) revert NodeAlreadyRegistered(cluster, peer);
        if (record.operator != address(0)) revert ExitPending(cluster, peer);
        if (record.registrations == type(uint8).max) revert TooManyRegistrations(peer);
        _admit(registration, peer);
        bytes32 digest = _registrationDigest(registration, peer, record.registrations);
        if (!_isSignedBy(signer, digest, signature)) revert WrongIdentitySignature(peer);
        _enlist(registration, peer, record.registrations + 1);
        if (msg.value > 0) _addStake(cluster, peer);
    }

    /// @inheritdoc INodeRegistry
    function increaseStake(bytes32 cluster, bytes32 peer) external payable override {
        // Nobody else: each addition moves the activation of what was added before.
        if (_registered(cluster, peer).operator != msg.sender) {
            revert NotNodeOperator(cluster, peer, msg.sender);
        }
        if (msg.value == 0) revert InvalidStake(0);
        _addStake(cluster, peer);
    }

    /// @inheritdoc INodeRegistry
    function setEligibility(
        bytes32 cluster,
        bytes32 peer,
        Eligibility eligibility,
        uint64 drainDeadline
    ) external override {
        _requireOperatorOrAdmin(cluster, peer, _registered(cluster, peer));
        if (drainDeadline != 0 && eligibility != Eligibility.Draining) {
            revert NotDrained(drainDeadline);
        }
        _eligibility[cluster][peer] = Given(eligibility, drainDeadline);
        emit EligibilityChanged(cluster, peer, eligibility, drainDeadline, msg.sender);
    }

    /// @inheritdoc INodeRegistry
    function requestExit(bytes32 cluster, bytes32 peer) external override {
        Record storage record = _registered(cluster, peer);
        _requireOperatorOrAdmin(cluster, peer, record);
        (record.roles & ROLE_MEMBER != 0 ? _members[cluster] : _workers[cluster])[record.position] =
            0;
        record.roles = 0;
        delete _eligibility[cluster][peer];
        emit NodeDeregistered(cluster, peer);
        // Whom the admin takes out does not come back by what was said before.
        if (_clusters[cluster].admin == msg.sender) _forgetApproval(cluster, peer);
        Stake storage stake = _stakes[cluster][peer];
        uint256 amount = _total(stake);
        if (amount == 0) {
            record.operator = address(0);
            return;
        }
        // It may sit in the committee in force and in the one that is elected for the next epoch;
        // the key of the epoch after that ends both.
        uint24 exitEpoch = _epochs(cluster) + 1;
        stake.exitEpoch = exitEpoch;
        stake.exitRequestedAt = uint32(block.timestamp);
        emit ExitRequested(cluster, peer, amount, exitEpoch);
    }

    /// @inheritdoc INodeRegistry
    function withdraw(bytes32 cluster, bytes32 peer) external override {
        Record storage record = _records[cluster][peer];
        address operator = record.operator;
        if (record.roles != 0 || operator == address(0)) revert NoExit(cluster, peer);
        Stake memory stake = _stakes[cluster][peer];
        uint64 latest = stake.exitRequestedAt + MAX_EXIT;
        if (block.timestamp < latest && !_isOver(cluster, stake.exitEpoch)) {
            revert StillSlashable(stake.exitEpoch, latest);
        }
        uint256 amount = _total(stake);
        delete _stakes[cluster][peer];
        record.operator = address(0);
        emit StakeWithdrawn(cluster, peer, operator, amount);
        _pay(operator, amount);
    }

    /// @inheritdoc INodeRegistry
    function slash(bytes32 cluster, bytes32 peer, uint256 amount)
        external
        override
        onlyContract("Disputes")
        returns (uint256 taken)
    {
        Stake storage stake = _stakes[cluster][peer];
        uint256 fromActive = amount < stake.active ? amount : stake.active;
        uint256 fromAdded = amount - fromActive;
        if (fromAdded > stake.added) fromAdded = stake.added;
        stake.active -= uint88(fromActive);
        stake.added -= uint88(fromAdded);
        taken = fromActive + fromAdded;
        emit StakeSlashed(cluster, peer, taken);
        _pay(msg.sender, taken);
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
    function registrations(bytes32 cluster, bytes32 peer) external view override returns (uint32) {
        return _records[cluster][peer].registrations;
    }

    /// @inheritdoc INodeRegistry
    function operatorOf(bytes32 cluster, bytes32 peer) external view override returns (address) {
        Record storage record = _records[cluster][peer];
        return record.roles == 0 ? address(0) : record.operator;
    }

    /// @inheritdoc INodeRegistry
    function nodeOf(bytes32 cluster, bytes32 peer) external view override returns (Node memory) {
        _registered(cluster, peer);
        return _node(cluster, peer);
    }

    /// @inheritdoc INodeRegistry
    function stakeOf(bytes32 cluster, bytes32 peer) external view override returns (Stake memory) {
        return _stakes[cluster][peer];
    }

    /// @inheritdoc INodeRegistry
    function nodes(bytes32 cluster, bool ofMembers, uint32 from, uint32 count)
        external
        view
        override
        returns (Node[] memory page, uint32 next)
    {
        _existing(cluster);
        bytes32[] storage list = ofMembers ? _members[cluster] : _workers[cluster];
        uint256 end = uint256(from) + count;
        if (end >= list.length) end = list.length;
        else next = uint32(end);
        page = new Node[](end > from ? end - from : 0);
        uint256 found = 0;
        for (uint256 i = from; i < end; ++i) {
            bytes32 peer = list[i];
            if (peer != 0) page[found++] = _node(cluster, peer);
        }
        assembly ("memory-safe") {
            mstore(page, found) // shorter than allocated
        }
    }

    /// @inheritdoc INodeRegistry
    function members(bytes32 cluster) external view override returns (bytes32[] memory peers) {
        _existing(cluster);
        peers = _members[cluster];
        uint256 found = 0;
        for (uint256 i = 0; i < peers.length; ++i) {
            bytes32 peer = peers[i];
            if (peer != 0) peers[found++] = peer;
        }
        assembly ("memory-safe") {
            mstore(peers, found) // shorter than allocated
        }
    }

    /// @inheritdoc INodeRegistry
    function candidates(bytes32 cluster, uint64 epoch)
        external
        view
        override
        returns (Candidate[] memory list)
    {
        uint256 least = _existing(cluster).memberStake;
        bytes32[] storage order = _members[cluster];
        uint256 length = order.length;
        list = new Candidate[](length);
        uint256 found = 0;
        for (uint256 i = 0; i < length; ++i) {
            bytes32 peer = order[i];
            if (peer == 0) continue;
            Stake memory stake = _stakes[cluster][peer];
            uint256 active = stake.active;
            if (stake.activeFrom <= epoch) active += stake.added;
            if (active < least) continue;
            // Less than 2^89 wei are less than 2^60 gwei.
            list[found++] = Candidate(
                peer, _records[cluster][peer].organisationTag, uint64(1 + active / 1 gwei)
            );
        }
        assembly ("memory-safe") {
            mstore(list, found) // shorter than allocated
        }
    }

    function _enlist(Registration calldata registration, bytes32 peer, uint8 times) private {
        bool member = registration.roles & ROLE_MEMBER != 0;
        bytes32[] storage list =
            member ? _members[registration.cluster] : _workers[registration.cluster];
        uint24 position = uint24(list.length);
        list.push(peer);
        _records[registration.cluster][peer] = Record({
            operator: msg.sender,
            roles: registration.roles,
            position: position,
            registrations: times,
            organisationTag: bytes7(keccak256(abi.encode(registration.organisation)))
        });
        emit NodeRegistered(
            registration.cluster,
            peer,
            msg.sender,
            registration.roles,
            position,
            registration.identity.x,
            Secp256k1.prefix(registration.identity.y),
            registration.organisation,
            registration.labels
        );
    }

    /// @dev Adds the value of the call. What was added before and counts already is settled.
    function _addStake(bytes32 cluster, bytes32 peer) private {
        Stake storage stake = _stakes[cluster][peer];
        uint256 total = _total(stake) + msg.value;
        if (total > type(uint88).max) revert InvalidStake(msg.value);
        uint24 epochs = _epochs(cluster);
        if (stake.activeFrom <= epochs) {
            stake.active += stake.added;
            stake.added = 0;
        }
        // The next election is for epoch `epochs`; candidates may be frozen already.
        uint24 activeFrom = epochs == 0 ? 0 : epochs + 1;
        if (epochs == 0) stake.active += uint88(msg.value);
        else stake.added += uint88(msg.value);
        stake.activeFrom = activeFrom;
        emit StakeIncreased(cluster, peer, msg.value, activeFrom);
    }

    function _total(Stake memory stake) private pure returns (uint256) {
        return uint256(stake.active) + stake.added;
    }

    /// @dev Whether the epoch has a key since the dispute window.
    function _isOver(bytes32 cluster, uint64 epoch) private view returns (bool) {
        if (_epochs(cluster) <= epoch) return false;
        IKeyCeremony.Key memory key = _ceremony().keyOf(cluster, epoch);
        return block.timestamp >= key.publishedAt + DISPUTE_WINDOW;
    }

    /// @dev How many keys the cluster has.
    function _epochs(bytes32 cluster) private view returns (uint24) {
        return uint24(_ceremony().epochs(cluster));
    }

    function _ceremony() private view returns (IKeyCeremony) {
        return IKeyCeremony(_contractOf("KeyCeremony"));
    }

    function _pay(address to, uint256 amount) private {
        if (amount == 0) return;
        (bool taken,) = to.call{value: amount}("");
        if (!taken) revert PaymentFailed(to);
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
        Given memory given = _eligibility[cluster][peer];
        return Node({
            peer: peer,
            operator: record.operator,
            roles: record.roles,
            position: record.position,
            organisationTag: record.organisationTag,
            stake: _total(_stakes[cluster][peer]),
            eligibility: given.eligibility,
            drainDeadline: given.drainDeadline
        });
    }

    function _existing(bytes32 cluster) internal view override returns (Cluster storage settings) {
        settings = _clusters[cluster];
        if (settings.admin == address(0)) revert UnknownCluster(cluster);
    }

    function _requireOperatorOrAdmin(bytes32 cluster, bytes32 peer, Record storage record)
        private
        view
    {
        if (record.operator != msg.sender && _clusters[cluster].admin != msg.sender) {
            revert NotNodeOperator(cluster, peer, msg.sender);
        }
    }

    function _registered(bytes32 cluster, bytes32 peer)
        private
        view
        returns (Record storage record)
    {
        record = _records[cluster][peer];
        if (record.roles == 0) revert NodeNotRegistered(cluster, peer);
    }
}
