// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IVeilContract} from "../src/interfaces/IVeilContract.sol";
import {FrostVerifier} from "../src/libraries/FrostVerifier.sol";
import {Secp256k1} from "../src/libraries/Secp256k1.sol";
import {Signer} from "./Signer.sol";
import {Vm} from "./Vm.sol";

/// @dev So that gas is measured as a contract would spend it.
contract Harness {
    function verify(
        IVeilContract.CompressedPoint calldata key,
        bytes32 message,
        IVeilContract.FrostSignature calldata signature
    ) external view returns (bool valid, uint256 gas) {
        gas = gasleft();
        valid = FrostVerifier.verify(key, message, signature);
        gas -= gasleft();
    }
}

contract FrostVerifierTest {
    Vm private constant vm = Vm(address(uint160(uint256(keccak256("hevm cheat code")))));
    Harness private harness = new Harness();

    /// @dev The signature that the Rust crate made, 3 of 4 (protocol-spec/vectors/frost.json).
    function vector()
        private
        view
        returns (
            IVeilContract.CompressedPoint memory key,
            bytes32 message,
            IVeilContract.FrostSignature memory signature,
            bytes32 challenge
        )
    {
        string memory json = vm.readFile("../protocol-spec/vectors/frost.json");
        key = compressed(vm.parseJsonBytes(json, ".group_key"));
        message = vm.parseJsonBytes32(json, ".message");
        IVeilContract.CompressedPoint memory r = compressed(vm.parseJsonBytes(json, ".signature_R"));
        signature.rx = r.x;
        signature.ry = lift(r);
        signature.z = uint256(vm.parseJsonBytes32(json, ".signature_z"));
        challenge = vm.parseJsonBytes32(json, ".challenge");
    }

    function compressed(bytes memory text)
        private
        pure
        returns (IVeilContract.CompressedPoint memory point)
    {
        require(text.length == 33, "length");
        point.prefix = uint8(text[0]);
        uint256 x;
        assembly ("memory-safe") {
            x := mload(add(text, 0x21))
        }
        point.x = x;
    }

    /// @dev The y-coordinate: p is 3 modulo 4, so a root is a power.
    function lift(IVeilContract.CompressedPoint memory point) private pure returns (uint256 y) {
        uint256 p = Secp256k1.P;
        uint256 base = addmod(mulmod(mulmod(point.x, point.x, p), point.x, p), 7, p);
        y = 1;
        for (uint256 e = (p + 1) / 4; e != 0; e >>= 1) {
            if (e & 1 == 1) y = mulmod(y, base, p);
            base = mulmod(base, base, p);
        }
        if (Secp256k1.prefix(y) != point.prefix) y = p - y;
    }

    function verify(
        IVeilContract.CompressedPoint memory key,
        bytes32 message,
        IVeilContract.FrostSignature memory signature
    ) private view returns (bool valid) {
        (valid,) = harness.verify(key, message, signature);
    }

    function test_the_signature_of_the_rust_crate_verifies() external {
        (
            IVeilContract.CompressedPoint memory key,
            bytes32 message,
            IVeilContract.FrostSignature memory signature,
            bytes32 challenge
        ) = vector();
        uint256 c = FrostVerifier.challenge(key.x, key.prefix, message, signature.rx, signature.ry);
        require(bytes32(c) == challenge, "challenge");
        (bool valid, uint256 gas) = harness.verify(key, message, signature);
        require(valid, "signature");
        vm.snapshotValue("FrostVerifier", "verify", gas);
    }

    /// @dev protocol-spec/vectors/frost_committees.json: 40 signatures by the Rust crate, 2t+1 of
    /// n = 4, 7, 10 and 13.
    function test_signatures_of_all_committees_verify() external view {
        string memory json = vm.readFile("../protocol-spec/vectors/frost_committees.json");
        for (uint256 i = 0; i < 40; ++i) {
            string memory place = string.concat(".signatures[", vm.toString(i), "]");
            (
                IVeilContract.CompressedPoint memory key,
                bytes32 message,
                IVeilContract.FrostSignature memory signature
            ) = signatureOf(json, place);
            require(verify(key, message, signature), place);
            require(!verify(key, ~message, signature), place);
            signature.z = Secp256k1.N - signature.z;
            require(!verify(key, message, signature), place);
        }
    }

    /// @dev protocol-spec/vectors/frost_contracts.json: what `Signer` signs, the Rust crate verifies.
    function test_what_these_tests_sign_is_what_the_rust_crate_verifies() external view {
        string memory json = vm.readFile("../protocol-spec/vectors/frost_contracts.json");
        for (uint256 i = 0; i < 4; ++i) {
            string memory place = string.concat(".signatures[", vm.toString(i), "]");
            (
                IVeilContract.CompressedPoint memory key,
                bytes32 message,
                IVeilContract.FrostSignature memory signature
            ) = signatureOf(json, place);
            uint256 secret = uint256(keccak256(abi.encode(i))) % Secp256k1.N;
            IVeilContract.CompressedPoint memory own = Signer.key(secret);
            require(message == keccak256(abi.encode(secret)), "message");
            require(own.x == key.x && own.prefix == key.prefix, "key");
            IVeilContract.FrostSignature memory signed = Signer.sign(secret, message);
            require(keccak256(abi.encode(signed)) == keccak256(abi.encode(signature)), "signature");
        }
    }

    function signatureOf(string memory json, string memory place)
        private
        pure
        returns (
            IVeilContract.CompressedPoint memory key,
            bytes32 message,
            IVeilContract.FrostSignature memory signature
        )
    {
        key = compressed(vm.parseJsonBytes(json, string.concat(place, ".group_key")));
        message = vm.parseJsonBytes32(json, string.concat(place, ".message"));
        IVeilContract.CompressedPoint memory r =
            compressed(vm.parseJsonBytes(json, string.concat(place, ".signature_R")));
        signature.rx = r.x;
        signature.ry = lift(r);
        signature.z = uint256(vm.parseJsonBytes32(json, string.concat(place, ".signature_z")));
    }

    function test_changed_signatures_do_not_verify() external view {
        (
            IVeilContract.CompressedPoint memory key,
            bytes32 message,
            IVeilContract.FrostSignature memory signature,
        ) = vector();
        require(!verify(key, message ^ bytes32(uint256(1)), signature), "message");
        key.prefix ^= 1;
        require(!verify(key, message, signature), "key");
        key.prefix ^= 1;
        uint256 z = signature.z;
        signature.z = addmod(z, 1, Secp256k1.N);
        require(!verify(key, message, signature), "z");
        signature.z = 0;
        require(!verify(key, message, signature), "zero");
        unchecked {
            signature.z = z + Secp256k1.N; // the same scalar in a second spelling
        }
        if (signature.z > z) require(!verify(key, message, signature), "spelling");
        signature.z = z;
        signature.ry = Secp256k1.P - signature.ry;
        require(!verify(key, message, signature), "R");
        signature.ry ^= 1;
        require(!verify(key, message, signature), "not on the curve");
    }

    function testFuzz_signatures_verify_for_their_key_and_message_only(
        uint256 secret,
        bytes32 message,
        bytes32 other
    ) external view {
        secret = secret % (Secp256k1.N - 1) + 1;
        vm.assume(message != other);
        IVeilContract.CompressedPoint memory key = Signer.key(secret);
        vm.assume(key.x < Secp256k1.N);
        IVeilContract.FrostSignature memory signature = Signer.sign(secret, message);
        require(verify(key, message, signature), "own");
        require(!verify(key, other, signature), "another message");
        IVeilContract.CompressedPoint memory stranger = Signer.key(secret % 1000 + 1);
        vm.assume(stranger.x != key.x);
        require(!verify(stranger, message, signature), "another key");
    }

    function testFuzz_random_values_do_not_verify(
        bytes32 message,
        uint256 rx,
        uint256 ry,
        uint256 z
    ) external view {
        IVeilContract.FrostSignature memory signature = IVeilContract.FrostSignature(rx, ry, z);
        require(!verify(Signer.key(1), message, signature), "random");
    }

    function testFuzz_points_are_on_the_curve_in_one_spelling(uint256 secret) external pure {
        secret = secret % (Secp256k1.N - 1) + 1;
        Vm.Wallet memory wallet = vm.createWallet(secret);
        (uint256 x, uint256 y) = (wallet.publicKeyX, wallet.publicKeyY);
        require(Secp256k1.isOnCurve(x, y), "on");
        require(Secp256k1.toAddress(x, y) == wallet.account, "address");
        require(!Secp256k1.isOnCurve(x, y ^ 1), "off");
        unchecked {
            if (x + Secp256k1.P > x) require(!Secp256k1.isOnCurve(x + Secp256k1.P, y), "x");
        }
    }
}
