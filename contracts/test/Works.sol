// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IAssignmentAnchor} from "../src/interfaces/IAssignmentAnchor.sol";
import {IVeilContract} from "../src/interfaces/IVeilContract.sol";
import {INodeRegistry} from "../src/interfaces/INodeRegistry.sol";
import {Base} from "./Base.sol";
import {Signer} from "./Signer.sol";

/// @dev A cluster whose key is in force, and a worker that is assigned, confirms and claims through the pool.
abstract contract Works is Base {
    address internal constant OWNER = address(0x0111);
    address internal constant PAYER = address(0x0222);
    uint256 internal constant WORKER_SECRET = 50;
    bytes32 internal constant JOB = "job";

    /// @dev The certificate that was anchored last.
    IAssignmentAnchor.Certificate internal head;
    bytes32 internal headIs;

    function setUp() public virtual override {
        super.setUp();
        registerMembers();
        publish(0, GROUP, 0);
        registerWorker(OWNER);
        vm.deal(PAYER, 1000 ether);
    }

    function registerWorker(address operator) internal {
        INodeRegistry.Registration memory node = registration(WORKER_SECRET, WORKER);
        node.organisation = 0;
        bytes32 peer = peerOf(WORKER_SECRET);
        uint32 nonce = registry.registrations(cluster, peer);
        bytes32 digest = registrationDigest(node, peer, operator, nonce);
        registerAs(operator, node, compact(WORKER_SECRET, digest));
    }

    /// @dev Of the slot after the head.
    function next() internal view returns (IAssignmentAnchor.Certificate memory c) {
        (c.cluster, c.epoch, c.slot) = (cluster, ceremony.epochs(cluster) - 1, head.slot + 1);
        (c.keySet, c.manifest) = (keccak256("key set"), keccak256("manifest"));
        (c.previous, c.base) = (headIs, headIs);
        (c.evaluation, c.assignmentsRoot) = (keccak256("evaluation"), keccak256("root"));
        c.stateRoot = keccak256("state");
    }

    function anchorBy(address who, IAssignmentAnchor.Certificate memory c) internal {
        bytes32 hash = anchors.hashOf(c);
        uint256 secret = GROUP + c.epoch;
        IVeilContract.CompressedPoint memory key = Signer.key(secret);
        IVeilContract.FrostSignature memory signature = Signer.sign(secret, hash);
        vm.prank(who);
        pool.anchor(c, key, signature);
        (head, headIs) = (c, hash);
    }

    function assignment(uint16 replica)
        internal
        pure
        returns (IAssignmentAnchor.Assignment memory)
    {
        return IAssignmentAnchor.Assignment(JOB, replica, 1, peerOf(WORKER_SECRET));
    }

    /// @dev As the state has it since that slot.
    function placed(uint64 slot) internal pure returns (IAssignmentAnchor.Replica memory) {
        return IAssignmentAnchor.Replica(JOB, 0, 0, peerOf(WORKER_SECRET), slot, 0);
    }

    /// @dev Anchors the slot that assigns replica 0 to the worker, and confirms it.
    function place() internal returns (bytes32 certificate, uint64 slot) {
        IAssignmentAnchor.Certificate memory c = next();
        c.assignmentsRoot = anchors.leafOf(assignment(0));
        anchorBy(address(this), c);
        IAssignmentAnchor.Certificate[] memory chain = new IAssignmentAnchor.Certificate[](1);
        chain[0] = c;
        vm.prank(OWNER);
        pool.confirmDeployment(chain, assignment(0), new bytes32[](0));
        return (headIs, c.slot);
    }

    /// @dev Anchors a slot whose state is that replica alone.
    function anchorState(IAssignmentAnchor.Replica memory replica) internal {
        IAssignmentAnchor.Certificate memory c = next();
        replica.flags &= 1;
        c.stateRoot = anchors.replicaLeafOf(replica);
        anchorBy(address(this), c);
    }

    function fund(uint256 amount, uint64 price) internal {
        vm.prank(PAYER);
        pool.fundJob{value: amount}(cluster, JOB, price);
    }

    function claim(IAssignmentAnchor.Replica memory replica, bytes32 certificate)
        internal
        returns (uint256)
    {
        return pool.claim(head, replica, new bytes32[](0), certificate, PAYER);
    }
}
