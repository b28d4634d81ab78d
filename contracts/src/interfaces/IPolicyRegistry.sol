// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IVeilContract} from "./IVeilContract.sol";

/// @title Policies, rights and images of clusters
/// @notice What narrows holds at once; what widens is announced and holds after the cluster's
/// `wideningDelay`, so that everyone affected sees it coming. While a cluster is younger than its delay
/// nobody relies on it yet, and everything holds at once.
///
/// Images are named by the digest of their manifest. The root of an allowed image commits to what the
/// manifest consists of: a Merkle tree (pairs sorted, as OpenZeppelin's `MerkleProof`) over the leaves
/// `keccak256(bytes.concat(keccak256(abi.encode(keccak256("veil v1 image leaf"), kind, digest))))`.
/// The digest of a signature is the SHA-256 of the signature itself. One of them may be named when the image
/// is allowed: it is checked to be under the root, and nodes find it beside the image.
/// A cluster restricts images from when the first one that was ever announced is allowed on (`restrictedFrom`):
/// until then, and so while none was announced, it runs any.
interface IPolicyRegistry is IVeilContract {
    /// @notice What an account may do in a cluster, and how much of it.
    struct Allowance {
        /// `RIGHT_` bits.
        uint32 rights;
        /// Jobs on one day (UTC).
        uint32 jobsPerDay;
        /// Bits that the placement of these jobs may tell about other's load, on one day.
        uint32 leakBitsPerDay;
    }

    /// @notice What is known of an image.
    enum ImageStatus {
        Unknown,
        /// It will be allowed at `allowedFrom`.
        Announced,
        Allowed,
        Revoked
    }

    /// @notice What a leaf of an image's tree stands for.
    enum ImagePart {
        Config,
        Layer,
        Signature
    }

    /// @notice An image.
    struct Image {
        ImageStatus status;
        /// Unix time.
        uint64 allowedFrom;
        bytes32 root;
        /// The signature under the root that was named; 0 if none was.
        bytes32 signature;
    }

    /// @notice An image that is allowed now.
    struct AllowedImage {
        bytes32 manifest;
        bytes32 root;
        /// 0 if none was named.
        bytes32 signature;
    }

    /// @notice The cluster has another policy from this second (Unix time) on.
    event ClusterPolicyChanged(
        bytes32 indexed cluster, bytes32 indexed policyHash, uint64 from, bytes policy
    );
    /// @notice What an account may do: `current` now, `announced` from this second (Unix time) on.
    event AllowanceChanged(
        bytes32 indexed cluster,
        address indexed account,
        Allowance current,
        Allowance announced,
        uint64 from
    );
    /// @notice An image is allowed from this second (Unix time) on.
    event ImageAnnounced(
        bytes32 indexed cluster,
        bytes32 indexed manifest,
        bytes32 root,
        bytes32 signature,
        uint64 allowedFrom
    );
    /// @notice An image is no longer allowed.
    event ImageRevoked(bytes32 indexed cluster, bytes32 indexed manifest, address by);

    /// @notice Only the cluster's admin may do this.
    error NotClusterAdmin(bytes32 cluster, address caller);
    /// @notice The account lacks a right.
    error MissingRight(bytes32 cluster, address account, uint32 right);
    /// @notice The policy is empty or longer than `MAX_POLICY_BYTES`.
    error InvalidPolicyLength(uint256 length);
    /// @notice So many images are allowed or announced at once: revoke one before.
    error TooManyImages(bytes32 cluster, uint256 max);
    /// @notice The image has no root.
    error EmptyImageRoot();
    /// @notice The signature that was named is not under the image's root.
    error SignatureNotInRoot(bytes32 manifest, bytes32 signature);
    /// @notice The image is neither allowed nor announced.
    error ImageNotAllowed(bytes32 cluster, bytes32 manifest);

    /// @notice Uploads the policy: scheduling policy, weights and epoch length, opaque here; its
    /// Keccak-256 is in every manifest. Every change of a policy in force counts as widening; the
    /// first one holds at once. Admin only.
    function setClusterPolicy(bytes32 cluster, bytes calldata policy) external;

    /// @notice Says what an account may do. What is narrower than now holds at once, the rest after
    /// the delay. Admin only.
    function setAllowance(bytes32 cluster, address account, Allowance calldata allowance) external;

    /// @notice Announces an image; once allowed, with another root, it stays allowed under the old
    /// one until then. Accounts with `RIGHT_IMAGES`.
    /// @param manifest SHA-256 of the image's manifest, as registries name it.
    /// @param root Root of its tree.
    /// @param signature SHA-256 of a signature under the root; 0 for none.
    /// @param proof Siblings on the way from the signature's leaf to the root, lowest first.
    function allowImage(
        bytes32 cluster,
        bytes32 manifest,
        bytes32 root,
        bytes32 signature,
        bytes32[] calldata proof
    ) external;

    /// @notice Revokes an image at once, announced or allowed. Accounts with `RIGHT_IMAGES`.
    function revokeImage(bytes32 cluster, bytes32 manifest) external;

    /// @notice The policy in force; empty before the first.
    function getClusterPolicy(bytes32 cluster) external view returns (bytes memory);

    /// @notice The policy that is announced and from when; empty if none is.
    function announcedPolicy(bytes32 cluster)
        external
        view
        returns (bytes memory policy, uint64 from);

    /// @notice What an account may do now. The admin has all rights, and the quotas it was given.
    function allowanceOf(bytes32 cluster, address account) external view returns (Allowance memory);

    /// @notice What is announced for an account and from when; 0 if nothing is.
    function announcedAllowance(bytes32 cluster, address account)
        external
        view
        returns (Allowance memory allowance, uint64 from);

    function imageOf(bytes32 cluster, bytes32 manifest) external view returns (Image memory);

    /// @notice From when (Unix time) the cluster runs allowed images only; 0 while none was ever announced.
    function restrictedFrom(bytes32 cluster) external view returns (uint64);

    /// @notice How many images were ever announced.
    function imageCount(bytes32 cluster) external view returns (uint64);

    /// @notice Every image that is allowed now, and whether the cluster runs no others: it runs all until the
    /// first is allowed.
    function allowedImages(bytes32 cluster)
        external
        view
        returns (bool restricted, AllowedImage[] memory images);

    /// @notice Whether the cluster runs this image: it is allowed, or images are not restricted.
    function isImageAllowed(bytes32 cluster, bytes32 manifest) external view returns (bool);

    /// @notice Whether the image is allowed now and this part is under its root.
    /// @param digest SHA-256 of the part.
    /// @param proof Siblings on the way from the leaf to the root, lowest first.
    function verifyImagePart(
        bytes32 cluster,
        bytes32 manifest,
        ImagePart part,
        bytes32 digest,
        bytes32[] calldata proof
    ) external view returns (bool);

    /// @notice The leaf of a part.
    function imageLeaf(ImagePart part, bytes32 digest) external pure returns (bytes32);
}
