// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {AssignmentAnchor} from "../src/AssignmentAnchor.sol";
import {Directory} from "../src/Directory.sol";
import {JobBoard} from "../src/JobBoard.sol";
import {KeyCeremony} from "../src/KeyCeremony.sol";
import {NodeRegistry} from "../src/NodeRegistry.sol";
import {IDirectory} from "../src/interfaces/IDirectory.sol";
import {IKeyCeremony} from "../src/interfaces/IKeyCeremony.sol";
import {INodeRegistry} from "../src/interfaces/INodeRegistry.sol";
import {IVeilContract} from "../src/interfaces/IVeilContract.sol";
import {Signer} from "./Signer.sol";
import {Vm} from "./Vm.sol";

/// @dev The set, deployed; a cluster whose admin is the test; helpers that sign.
abstract contract Base {
    Vm internal constant vm = Vm(address(uint160(uint256(keccak256("hevm cheat code")))));

    Directory internal directory;
    NodeRegistry internal registry;
    KeyCeremony internal ceremony;
    JobBoard internal board;
    AssignmentAnchor internal anchors;
    bytes32 internal cluster;

    uint8 internal constant WORKER = 1;
    uint8 internal constant MEMBER = 2;
    uint64 internal constant NOW = 1_800_000_000;
    /// @dev The secret key of the group that tests publish.
    uint256 internal constant GROUP = 0x6b0f;

    function setUp() public virtual {
        vm.warp(NOW);
        directory = new Directory(address(this));
        registry = new NodeRegistry(address(directory));
        ceremony = new KeyCeremony(address(directory), registry);
        board = new JobBoard(address(directory), registry);
        anchors = new AssignmentAnchor(address(directory), registry, ceremony);
        directory.publish(entries());
        cluster = registry.registerCluster(0, 4, true, 10_000, "policy");
    }

    function entries() internal view returns (IDirectory.Entry[] memory list) {
        list = new IDirectory.Entry[](4);
        list[0] = IDirectory.Entry("NodeRegistry", address(registry));
        list[1] = IDirectory.Entry("KeyCeremony", address(ceremony));
        list[2] = IDirectory.Entry("JobBoard", address(board));
        list[3] = IDirectory.Entry("AssignmentAnchor", address(anchors));
    }

    function check(bool condition, string memory what) internal pure {
        require(condition, what);
    }

    /// @dev EIP-712, written out once more.
    function typedDigest(bytes32 structHash) internal view returns (bytes32) {
        bytes32 separator = keccak256(
            abi.encode(
                keccak256(
                    "EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"
                ),
                keccak256("Veil"),
                keccak256("1"),
                block.chainid,
                address(directory)
            )
        );
        return keccak256(abi.encodePacked(hex"1901", separator, structHash));
    }

    function compact(uint256 secret, bytes32 digest)
        internal
        pure
        returns (IVeilContract.CompactSignature memory)
    {
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(secret, digest);
        bytes32 vs = v == 28 ? s | bytes32(uint256(1) << 255) : s;
        return IVeilContract.CompactSignature(r, vs);
    }

    function identityKey(uint256 secret) internal pure returns (IVeilContract.Point memory) {
        Vm.Wallet memory wallet = vm.createWallet(secret);
        return IVeilContract.Point(wallet.publicKeyX, wallet.publicKeyY);
    }

    function registration(uint256 secret, uint8 roles)
        internal
        view
        returns (INodeRegistry.Registration memory)
    {
        return INodeRegistry.Registration(cluster, identityKey(secret), roles, "example", "zone=a");
    }

    function registrationDigest(
        INodeRegistry.Registration memory node,
        bytes32 peer,
        address operator,
        uint32 nonce
    ) internal view returns (bytes32) {
        return typedDigest(
            keccak256(
                abi.encode(
                    keccak256(
                        "NodeRegistration(bytes32 cluster,bytes32 peer,address operator,uint8 roles,bytes32 organisation,string labels,uint32 nonce)"
                    ),
                    node.cluster,
                    peer,
                    operator,
                    node.roles,
                    node.organisation,
                    keccak256(bytes(node.labels)),
                    nonce
                )
            )
        );
    }

    function peerOf(uint256 secret) internal pure returns (bytes32) {
        IVeilContract.Point memory key = identityKey(secret);
        bytes1 prefix = key.y % 2 == 0 ? bytes1(0x02) : bytes1(0x03);
        return keccak256(abi.encodePacked(hex"002508021221", prefix, key.x));
    }

    /// @dev Registers the node of `secret`, operated by the test.
    function register(uint256 secret, uint8 roles) internal returns (bytes32 peer) {
        INodeRegistry.Registration memory node = registration(secret, roles);
        peer = peerOf(secret);
        uint32 nonce = registry.registrations(cluster, peer);
        bytes32 digest = registrationDigest(node, peer, address(this), nonce);
        check(registry.register(node, compact(secret, digest)) == peer, "peer");
    }

    function registerMembers() internal {
        for (uint256 i = 1; i <= 4; ++i) {
            register(i, MEMBER);
        }
    }

    function proposal(uint64 epoch, uint32 attempt)
        internal
        view
        returns (IKeyCeremony.Proposal memory)
    {
        return IKeyCeremony.Proposal(
            cluster, epoch, attempt, "test", bytes32("parameters"), bytes32("context"), NOW + 3600
        );
    }

    function publication(uint64 epoch, uint32 attempt, uint256 group)
        internal
        pure
        returns (IKeyCeremony.Publication memory p)
    {
        p.epoch = epoch;
        p.attempt = attempt;
        p.groupKey = identityKey(group);
        p.verifyingSharesRoot = keccak256("shares");
        p.fheKeyDigest = keccak256("key set");
        p.transcriptRoot = keccak256("transcript");
        p.referenceStringDigest = keccak256("reference string");
        p.referenceStringOrigin = 1;
    }

    function publicationHash(IKeyCeremony.Publication memory p) internal pure returns (bytes32) {
        return keccak256(
            abi.encode(
                keccak256(
                    "KeyPublication(bytes32 cluster,uint64 epoch,uint32 attempt,uint256 groupKeyX,uint256 groupKeyY,bytes32 verifyingSharesRoot,bytes32 fheKeyDigest,bytes32 transcriptRoot,bytes32 referenceStringDigest,uint8 referenceStringOrigin)"
                ),
                p.cluster,
                p.epoch,
                p.attempt,
                p.groupKey,
                p.verifyingSharesRoot,
                p.fheKeyDigest,
                p.transcriptRoot,
                p.referenceStringDigest,
                p.referenceStringOrigin
            )
        );
    }

    function memberSignatures(bytes32 digest)
        internal
        pure
        returns (IVeilContract.CompactSignature[] memory list)
    {
        list = new IVeilContract.CompactSignature[](4);
        for (uint256 i = 0; i < 4; ++i) {
            list[i] = compact(i + 1, digest);
        }
    }

    function possessionDigest(IKeyCeremony.Publication memory p) internal view returns (bytes32) {
        bytes32 kind = keccak256("KeyPossession(bytes32 publication)");
        return typedDigest(keccak256(abi.encode(kind, publicationHash(p))));
    }

    function handoverDigest(IKeyCeremony.Publication memory p) internal view returns (bytes32) {
        bytes32 kind = keccak256("KeyHandover(bytes32 publication)");
        return typedDigest(keccak256(abi.encode(kind, publicationHash(p))));
    }

    /// @dev Proposes and publishes the key `group` of an epoch.
    function publish(uint64 epoch, uint256 group, uint256 previous) internal {
        ceremony.propose(proposal(epoch, 0));
        IKeyCeremony.Publication memory p = publication(epoch, 0, group);
        p.cluster = cluster;
        IVeilContract.FrostSignature memory handover;
        if (epoch > 0) handover = Signer.sign(previous, handoverDigest(p));
        ceremony.publish(
            p,
            memberSignatures(typedDigest(publicationHash(p))),
            Signer.sign(group, possessionDigest(p)),
            handover
        );
    }
}
