//! The verification equation that the chain checks, computed without any code of frost-core, on an answer
//! that the contracts' tests use as well.

use std::{fs, path::PathBuf};

use frost_core::{
    aggregate,
    keys::{IdentifierList, KeyPackage, generate_with_dealer},
    round1, round2,
};
use k256::{
    AffinePoint, EncodedPoint, ProjectivePoint, PublicKey, Scalar,
    elliptic_curve::{
        PrimeField,
        sec1::{FromEncodedPoint, ToEncodedPoint},
    },
};
use sha3::{Digest, Keccak256};
use veil_committee::frost::GroupSignature;

use super::*;

/// RFC 9380, section 5.3.1, with Keccak-256 (block of 136 bytes), and hash_to_field with one
/// element of 48 bytes.
fn challenge(r: &[u8], key: &[u8], message: &[u8]) -> Scalar {
    let mut dst = b"FROST-secp256k1-KECCAK256-v1chal".to_vec();
    dst.push(dst.len() as u8);
    let keccak = |parts: &[&[u8]]| -> [u8; 32] {
        parts.iter().fold(Keccak256::new(), |hash, part| hash.chain_update(part)).finalize().into()
    };
    let b0 = keccak(&[&[0; 136], r, key, message, &[0, 48, 0], &dst]);
    let b1 = keccak(&[&b0, &[1], &dst]);
    let mixed: Vec<u8> = b0.iter().zip(b1).map(|(a, b)| a ^ b).collect();
    let b2 = keccak(&[&mixed, &[2], &dst]);
    let base = Scalar::from(256u64);
    let uniform = b1.iter().chain(&b2[..16]);
    uniform.fold(Scalar::ZERO, |sum, byte| sum * base + Scalar::from(u64::from(*byte)))
}

fn point(bytes: &[u8]) -> ProjectivePoint {
    ProjectivePoint::from(PublicKey::from_sec1_bytes(bytes).unwrap().as_affine())
}

fn scalar(bytes: &[u8]) -> Scalar {
    let bytes: [u8; 32] = bytes.try_into().unwrap();
    Scalar::from_repr(bytes.into()).unwrap()
}

fn address(point: ProjectivePoint) -> [u8; 20] {
    let uncompressed = point.to_affine().to_encoded_point(false);
    let hash: [u8; 32] = Keccak256::digest(&uncompressed.as_bytes()[1..]).into();
    hash[12..].try_into().unwrap()
}

/// The precompile: the key Q with s R' = h G + r Q, where R' has x-coordinate r and the parity
/// of v.
fn ecrecover(h: Scalar, v: u8, r: Scalar, s: Scalar) -> [u8; 20] {
    let mut compressed = [0; 33];
    compressed[0] = v - 27 + 2;
    compressed[1..].copy_from_slice(&r.to_bytes());
    let nonce = AffinePoint::from_encoded_point(&EncodedPoint::from_bytes(compressed).unwrap());
    let nonce = ProjectivePoint::from(nonce.unwrap());
    address((nonce * s - ProjectivePoint::GENERATOR * h) * r.invert().unwrap())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold("0x".to_owned(), |text, byte| text + &format!("{byte:02x}"))
}

fn unhex(text: &str) -> Vec<u8> {
    let digits = text.strip_prefix("0x").unwrap();
    let byte = |i| u8::from_str_radix(&digits[i..i + 2], 16).unwrap();
    (0..digits.len()).step_by(2).map(byte).collect()
}

/// A threshold signature, 3 of 4.
fn answer() -> serde_json::Value {
    signature(0x5eed, 4, &Keccak256::digest(b"veil frost known answer").into())
}

/// A signature by 2t+1 of n = 3t+1, reproducible since every draw is from a seed (the one use of
/// seeded nonces: the key is public).
fn signature(seed: u64, n: u16, message: &[u8; 32]) -> serde_json::Value {
    let mut rng = ChaCha20Rng::seed_from_u64(seed);
    let quorum = 2 * ((n - 1) / 3) + 1;
    let (shares, group) =
        generate_with_dealer::<EvmSuite, _>(n, quorum, IdentifierList::Default, &mut rng).unwrap();
    let signers: BTreeMap<_, _> = shares
        .into_iter()
        .take(usize::from(quorum))
        .map(|(i, share)| {
            let key = KeyPackage::try_from(share).unwrap();
            let (nonces, commitments) = round1::commit(key.signing_share(), &mut rng);
            (i, (key, nonces, commitments))
        })
        .collect();
    let commitments = signers.iter().map(|(i, (_, _, commitments))| (*i, *commitments));
    let package = frost_core::SigningPackage::new(commitments.collect(), message);
    let sign = |key, nonces| round2::sign(&package, nonces, key).unwrap();
    let shares = signers.iter().map(|(i, (key, nonces, _))| (*i, sign(key, nonces))).collect();
    let signature = aggregate(&package, &shares, &group).unwrap().serialize().unwrap();
    let key = group.verifying_key().serialize().unwrap();
    let (r, z) = signature.split_at(33);
    serde_json::json!({
        "group_key": hex(&key),
        "message": hex(message),
        "signature_R": hex(r),
        "signature_z": hex(z),
        "challenge": hex(&challenge(r, &key, message).to_bytes()),
    })
}

/// The vector `file`, which has to be `expected`, or is written with `VEIL_BLESS=1`.
fn stored(file: &str, expected: &serde_json::Value) -> serde_json::Value {
    let path =
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../protocol-spec/vectors").join(file);
    if std::env::var("VEIL_BLESS").is_ok_and(|bless| bless == "1") {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let text = serde_json::to_string_pretty(expected).unwrap();
        fs::write(&path, text + "\n").unwrap();
    }
    let text = fs::read_to_string(&path).expect("run once with VEIL_BLESS=1");
    let stored: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(&stored, expected, "{}: VEIL_BLESS=1 rewrites it", path.display());
    stored
}

/// 40 signatures of committees of all sizes, for the contracts to verify.
#[test]
fn signatures_of_all_committees_are_vectors_of_the_contracts() {
    let signatures: Vec<_> = (0..40_u64)
        .map(|i| {
            let n = [4, 7, 10, 13][i as usize % 4];
            signature(i, n, &Keccak256::digest(i.to_be_bytes()).into())
        })
        .collect();
    stored("frost_committees.json", &serde_json::json!({ "signatures": signatures }));
}

/// What the contracts' tests sign with (`contracts/test/Signer.sol`) is taken by the library: forge
/// checks that it signs these values, and here they verify.
#[test]
fn signatures_of_the_contracts_tests_verify() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../protocol-spec/vectors/frost_contracts.json");
    let vector: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    let signatures = vector["signatures"].as_array().unwrap();
    assert_eq!(signatures.len(), 4);
    for one in signatures {
        let field = |name: &str| unhex(one[name].as_str().unwrap());
        let key = frost_core::VerifyingKey::<EvmSuite>::deserialize(&field("group_key")).unwrap();
        let bytes = [field("signature_R"), field("signature_z")].concat();
        let mut signature = frost_core::Signature::deserialize(&bytes).unwrap();
        assert!(key.verify(&field("message"), &signature).is_ok());
        assert!(key.verify(b"another message", &signature).is_err());
        signature = frost_core::Signature::new(*signature.R(), *signature.z() + Scalar::ONE);
        assert!(key.verify(&field("message"), &signature).is_err());
    }
}

#[test]
fn the_verification_equation_of_the_contracts_holds() {
    let stored = stored("frost.json", &answer());
    let field = |name: &str| unhex(stored[name].as_str().unwrap());
    let (key, message) = (field("group_key"), field("message"));
    let (r, z) = (field("signature_R"), field("signature_z"));
    let c = challenge(&r, &key, &message);
    assert_eq!(field("challenge"), c.to_bytes().to_vec());
    let z_scalar = scalar(&z);
    assert_eq!(ProjectivePoint::GENERATOR * z_scalar, point(&r) + point(&key) * c);

    // "ecrecover(-z*px, 27 + parity(py), px, -c*px) == address(R)"
    let px = scalar(&key[1..]);
    let recovered = ecrecover(-(z_scalar * px), 27 + (key[0] & 1), px, -(c * px));
    assert_eq!(recovered, address(point(&r)));

    // And what the library says of the same bytes.
    let library = frost_core::VerifyingKey::<EvmSuite>::deserialize(&key).unwrap();
    let parsed = frost_core::Signature::deserialize(&[r.clone(), z.clone()].concat()).unwrap();
    assert!(library.verify(&message, &parsed).is_ok());
}

/// The machines' signatures satisfy the independent equation too, for a shared and a solo key;
/// other spellings of a signature are refused.
#[test]
fn signatures_of_the_machines_satisfy_the_equation() {
    for n in [1, 4] {
        let committee = Committee::new(n).unwrap();
        let members = Members::new(&generate(committee, 7), 1, &[]).run();
        let signature = &members.signed[&index(1)].signature;
        let (r, z) = signature.as_bytes().split_at(33);
        let key = members.session.group().verifying_key_bytes();
        let c = challenge(r, &key, MESSAGE.as_bytes());
        assert_eq!(ProjectivePoint::GENERATOR * scalar(z), point(r) + point(&key) * c);

        let parse = |bytes: &[u8]| GroupSignature::<EvmSuite>::from_bytes(bytes);
        assert_eq!(parse(signature.as_bytes()).as_ref(), Ok(signature));
        assert!(parse(&signature.as_bytes()[..64]).is_err());
        assert!(parse(&[signature.as_bytes(), &[0]].concat()).is_err());
        let mut other_tag = signature.as_bytes().to_vec();
        other_tag[0] = 5;
        assert!(parse(&other_tag).is_err());
        let above_order = [r, &[0xff; 32]].concat();
        assert!(parse(&above_order).is_err());
    }
}
