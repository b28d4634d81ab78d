// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IVeilContract} from "../src/interfaces/IVeilContract.sol";
import {FrostVerifier} from "../src/libraries/FrostVerifier.sol";
import {Secp256k1} from "../src/libraries/Secp256k1.sol";
import {Vm} from "./Vm.sol";

/// @dev Plain Schnorr signatures: what a group of one makes, under the equation of all groups. That
/// the challenge is the one of the Rust crate is shown by its vectors.
library Signer {
    Vm private constant vm = Vm(address(uint160(uint256(keccak256("hevm cheat code")))));

    function key(uint256 secret) internal pure returns (IVeilContract.CompressedPoint memory) {
        Vm.Wallet memory wallet = vm.createWallet(secret);
        return IVeilContract.CompressedPoint(wallet.publicKeyX, Secp256k1.prefix(wallet.publicKeyY));
    }

    function sign(uint256 secret, bytes32 message)
        internal
        pure
        returns (IVeilContract.FrostSignature memory signature)
    {
        uint256 nonce = uint256(keccak256(abi.encode("nonce", secret, message))) % Secp256k1.N;
        Vm.Wallet memory wallet = vm.createWallet(nonce);
        (signature.rx, signature.ry) = (wallet.publicKeyX, wallet.publicKeyY);
        IVeilContract.CompressedPoint memory own = key(secret);
        uint256 c = FrostVerifier.challenge(own.x, own.prefix, message, signature.rx, signature.ry);
        signature.z = addmod(nonce, mulmod(c, secret, Secp256k1.N), Secp256k1.N);
    }
}
