// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {MerkleProof} from "@openzeppelin/contracts/utils/cryptography/MerkleProof.sol";

import {VeilContract} from "./VeilContract.sol";
import {INodeRegistry} from "./interfaces/INodeRegistry.sol";
import {IPolicyRegistry} from "./interfaces/IPolicyRegistry.sol";

/// @title Policies, rights and images of clusters
/// @notice See `IPolicyRegistry`.
contract PolicyRegistry is IPolicyRegistry, VeilContract {
    /// @notice May submit jobs.
    uint32 public constant RIGHT_SUBMIT = 1;
    /// @notice May allow and revoke images.
    uint32 public constant RIGHT_IMAGES = 2;
    /// @notice Longest policy.
    uint256 public constant MAX_POLICY_BYTES = 8192;
    /// @notice Most images that are allowed or announced at once: nodes read them all.
    uint256 public constant MAX_IMAGES = 1024;

    bytes32 private constant IMAGE_LEAF = keccak256("veil v1 image leaf");

    /// @notice Where the clusters are.
    INodeRegistry public immutable registry;

    /// @dev In one word.
    struct Grant {
        Allowance current;
        Allowance announced;
        /// When `announced` holds; 0 if nothing is announced.
        uint64 from;
    }

    struct PolicyRecord {
        bytes current;
        bytes announced;
        /// When `announced` holds; 0 if nothing is announced.
        uint64 from;
    }

    /// @dev `root` and `signature` hold, what is announced from `from` on; all zero if unknown or revoked.
    struct ImageRecord {
        bytes32 root;
        bytes32 announcedRoot;
        bytes32 signature;
        bytes32 announcedSignature;
        uint64 from;
        bool known;
        /// One more than the position in `_listed`; 0 if it is not there.
        uint32 place;
    }

    mapping(bytes32 cluster => PolicyRecord) private _policies;
    mapping(bytes32 cluster => mapping(address account => Grant)) private _grants;
    mapping(bytes32 cluster => mapping(bytes32 manifest => ImageRecord)) private _images;
    /// @inheritdoc IPolicyRegistry
    mapping(bytes32 cluster => uint64) public override imageCount;
    /// @inheritdoc IPolicyRegistry
    mapping(bytes32 cluster => uint64) public override restrictedFrom;
    /// @dev What is allowed or announced.
    mapping(bytes32 cluster => bytes32[]) private _listed;

    constructor(address directory_, INodeRegistry registry_) VeilContract(directory_) {
        _requireContract(address(registry_));
        registry = registry_;
    }

    modifier onlyAdmin(bytes32 cluster) {
        if (registry.clusterOf(cluster).admin != msg.sender) {
            revert NotClusterAdmin(cluster, msg.sender);
        }
        _;
    }

    modifier onlyWith(bytes32 cluster, uint32 right) {
        if (allowanceOf(cluster, msg.sender).rights & right == 0) {
            revert MissingRight(cluster, msg.sender, right);
        }
        _;
    }

    /// @inheritdoc IPolicyRegistry
    function setClusterPolicy(bytes32 cluster, bytes calldata policy)
        external
        override
        onlyAdmin(cluster)
    {
        if (policy.length == 0 || policy.length > MAX_POLICY_BYTES) {
            revert InvalidPolicyLength(policy.length);
        }
        PolicyRecord storage record = _policies[cluster];
        if (_isDue(record.from)) record.current = record.announced;
        uint64 from = record.current.length == 0 ? uint64(block.timestamp) : _widenedFrom(cluster);
        if (from == block.timestamp) {
            record.current = policy;
            delete record.announced;
            record.from = 0;
        } else {
            record.announced = policy;
            record.from = from;
        }
        emit ClusterPolicyChanged(cluster, keccak256(policy), from, policy);
    }

    /// @inheritdoc IPolicyRegistry
    function setAllowance(bytes32 cluster, address account, Allowance calldata allowance)
        external
        override
        onlyAdmin(cluster)
    {
        Grant storage grant = _grants[cluster][account];
        Allowance memory current = _inForce(grant);
        uint64 from = _widenedFrom(cluster);
        Allowance memory narrowed = from == block.timestamp
            ? allowance
            : Allowance({
                rights: current.rights & allowance.rights,
                jobsPerDay: _min(current.jobsPerDay, allowance.jobsPerDay),
                leakBitsPerDay: _min(current.leakBitsPerDay, allowance.leakBitsPerDay)
            });
        bool widens = narrowed.rights != allowance.rights
            || narrowed.jobsPerDay != allowance.jobsPerDay
            || narrowed.leakBitsPerDay != allowance.leakBitsPerDay;
        if (!widens) from = uint64(block.timestamp);
        grant.current = narrowed;
        grant.announced = allowance;
        grant.from = widens ? from : 0;
        emit AllowanceChanged(cluster, account, narrowed, allowance, from);
    }

    /// @inheritdoc IPolicyRegistry
    function allowImage(
        bytes32 cluster,
        bytes32 manifest,
        bytes32 root,
        bytes32 signature,
        bytes32[] calldata proof
    ) external override onlyWith(cluster, RIGHT_IMAGES) {
        if (root == 0) revert EmptyImageRoot();
        if (
            signature != 0
                && !MerkleProof.verifyCalldata(
                    proof, root, imageLeaf(ImagePart.Signature, signature)
                )
        ) revert SignatureNotInRoot(manifest, signature);
        ImageRecord storage image = _images[cluster][manifest];
        if (_isDue(image.from)) {
            image.root = image.announcedRoot;
            image.signature = image.announcedSignature;
        }
        uint64 from = _widenedFrom(cluster);
        if (from == block.timestamp) {
            image.root = root;
            image.signature = signature;
            image.announcedRoot = 0;
            image.announcedSignature = 0;
            image.from = 0;
        } else {
            image.announcedRoot = root;
            image.announcedSignature = signature;
            image.from = from;
        }
        if (!image.known) {
            image.known = true;
            // What ran so far runs until then: an announcement closes nothing at once.
            if (imageCount[cluster] == 0) restrictedFrom[cluster] = from;
            imageCount[cluster] += 1;
        }
        if (image.place == 0) {
            bytes32[] storage listed = _listed[cluster];
            if (listed.length == MAX_IMAGES) revert TooManyImages(cluster, MAX_IMAGES);
            listed.push(manifest);
            image.place = uint32(listed.length);
        }
        emit ImageAnnounced(cluster, manifest, root, signature, from);
    }

    /// @inheritdoc IPolicyRegistry
    function revokeImage(bytes32 cluster, bytes32 manifest)
        external
        override
        onlyWith(cluster, RIGHT_IMAGES)
    {
        ImageRecord storage image = _images[cluster][manifest];
        if (image.root == 0 && image.announcedRoot == 0) {
            revert ImageNotAllowed(cluster, manifest);
        }
        image.root = 0;
        image.announcedRoot = 0;
        image.signature = 0;
        image.announcedSignature = 0;
        image.from = 0;
        _unlist(cluster, image);
        emit ImageRevoked(cluster, manifest, msg.sender);
    }

    /// @inheritdoc IPolicyRegistry
    function getClusterPolicy(bytes32 cluster) external view override returns (bytes memory) {
        registry.clusterOf(cluster); // unknown ones are refused
        PolicyRecord storage record = _policies[cluster];
        return _isDue(record.from) ? record.announced : record.current;
    }

    /// @inheritdoc IPolicyRegistry
    function announcedPolicy(bytes32 cluster)
        external
        view
        override
        returns (bytes memory policy, uint64 from)
    {
        PolicyRecord storage record = _policies[cluster];
        if (record.from != 0 && !_isDue(record.from)) return (record.announced, record.from);
    }

    /// @inheritdoc IPolicyRegistry
    function allowanceOf(bytes32 cluster, address account)
        public
        view
        override
        returns (Allowance memory allowance)
    {
        allowance = _inForce(_grants[cluster][account]);
        if (registry.clusterOf(cluster).admin == account) allowance.rights = type(uint32).max;
    }

    /// @inheritdoc IPolicyRegistry
    function announcedAllowance(bytes32 cluster, address account)
        external
        view
        override
        returns (Allowance memory allowance, uint64 from)
    {
        Grant storage grant = _grants[cluster][account];
        if (grant.from != 0 && !_isDue(grant.from)) return (grant.announced, grant.from);
    }

    /// @inheritdoc IPolicyRegistry
    function imageOf(bytes32 cluster, bytes32 manifest)
        public
        view
        override
        returns (Image memory)
    {
        ImageRecord storage image = _images[cluster][manifest];
        bool isDue = _isDue(image.from);
        if (image.from != 0 && (isDue || image.root == 0)) {
            ImageStatus status = isDue ? ImageStatus.Allowed : ImageStatus.Announced;
            return Image(status, image.from, image.announcedRoot, image.announcedSignature);
        }
        if (image.root != 0) return Image(ImageStatus.Allowed, 0, image.root, image.signature);
        return Image(image.known ? ImageStatus.Revoked : ImageStatus.Unknown, 0, 0, 0);
    }

    /// @inheritdoc IPolicyRegistry
    function isImageAllowed(bytes32 cluster, bytes32 manifest)
        external
        view
        override
        returns (bool)
    {
        return !_isDue(restrictedFrom[cluster])
            || imageOf(cluster, manifest).status == ImageStatus.Allowed;
    }

    /// @inheritdoc IPolicyRegistry
    function allowedImages(bytes32 cluster)
        external
        view
        override
        returns (bool restricted, AllowedImage[] memory images)
    {
        bytes32[] storage listed = _listed[cluster];
        images = new AllowedImage[](listed.length);
        uint256 count;
        for (uint256 i = 0; i < listed.length; ++i) {
            Image memory image = imageOf(cluster, listed[i]);
            if (image.status == ImageStatus.Allowed) {
                images[count++] = AllowedImage(listed[i], image.root, image.signature);
            }
        }
        // Shorter, in place.
        assembly ("memory-safe") {
            mstore(images, count)
        }
        restricted = _isDue(restrictedFrom[cluster]);
    }

    /// @inheritdoc IPolicyRegistry
    function verifyImagePart(
        bytes32 cluster,
        bytes32 manifest,
        ImagePart part,
        bytes32 digest,
        bytes32[] calldata proof
    ) external view override returns (bool) {
        Image memory image = imageOf(cluster, manifest);
        return image.status == ImageStatus.Allowed
            && MerkleProof.verifyCalldata(proof, image.root, imageLeaf(part, digest));
    }

    /// @inheritdoc IPolicyRegistry
    function imageLeaf(ImagePart part, bytes32 digest) public pure override returns (bytes32) {
        return keccak256(bytes.concat(keccak256(abi.encode(IMAGE_LEAF, part, digest))));
    }

    /// @dev The last takes the place that becomes free.
    function _unlist(bytes32 cluster, ImageRecord storage image) private {
        bytes32[] storage listed = _listed[cluster];
        bytes32 last = listed[listed.length - 1];
        listed[image.place - 1] = last;
        _images[cluster][last].place = image.place;
        image.place = 0;
        listed.pop();
    }

    /// @dev When what is widened now holds: at once in the cluster's first days.
    function _widenedFrom(bytes32 cluster) private view returns (uint64) {
        INodeRegistry.Cluster memory settings = registry.clusterOf(cluster);
        uint64 time = uint64(block.timestamp);
        bool young = time < settings.registeredAt + settings.wideningDelay;
        return young ? time : time + settings.wideningDelay;
    }

    function _inForce(Grant storage grant) private view returns (Allowance memory) {
        return _isDue(grant.from) ? grant.announced : grant.current;
    }

    function _isDue(uint64 from) private view returns (bool) {
        return from != 0 && block.timestamp >= from;
    }

    function _min(uint32 a, uint32 b) private pure returns (uint32) {
        return a < b ? a : b;
    }
}
