//! Known answers of the threshold arithmetic and of the ceremony's and decryption's encodings, in
//! `protocol-spec/vectors/threshold.json`. They pin every derivation that two builds must agree on.
//! `VEIL_BLESS=1` rewrites the file.
#![allow(clippy::unwrap_used)]

use std::{env, fs, path::PathBuf};

use serde_json::{Value, json};
use veil_committee::{
    decrypt::{PartialDecryptor, SquashedBlock},
    prf::{Prf, SetKey},
    randomness::{NoiseShares, RandomShares, ZeroShares, keys_of},
    ring::Element,
    subsets::{NoiseGroups, key_sets, zero_groups},
};
use veil_protocol_spec::{
    Address, Attempt, Blake3Digest, ChainId, ClusterId, Committee, Epoch, KeySetDigest,
    ParticipantIndex, Slot, Wire,
    agreement::{Instance, Lock},
    ceremony::{
        CeremonyParameters, Finish, Header, Payload, Round, SignedMessage, Stream, StreamRoot,
    },
    codec::Bytes,
    decryption::{DecryptionMessage, DecryptionPayload, RequestContext, RequestId},
    identity::SecretIdentity,
    scheduling::{Binding, ClusterScope},
};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn word(value: u128) -> String {
    format!("{value:032x}")
}

fn element<const D: usize>(element: Element<u128, D>) -> Value {
    json!(element.0.map(word).to_vec())
}

fn ring() -> Value {
    let a = Element::<u128, 4>([1, 2, 3, u128::MAX]);
    let b = Element::<u128, 4>([5, 1 << 127, 7, 11]);
    json!({
        "ring": "Z_2^128[X]/(X^4+X+1), coefficients of 1, X, X^2, X^3",
        "a": element(a),
        "b": element(b),
        "product": element(a * b),
        "inverse_of_a": element(a.inverse().unwrap()),
    })
}

fn randomness() -> Value {
    let committee = Committee::new(4).unwrap();
    let keys: Vec<_> = (0..4).map(|i| SetKey::new([i; 32])).collect();
    let (sets, groups) = (key_sets(committee), NoiseGroups::of(committee));
    let members: Vec<Value> = committee
        .participants()
        .map(|me| {
            let mine = keys_of(&sets, me, &keys);
            let noise_keys = keys_of(groups.groups(), me, &keys);
            let mut random = [Element::<u128, 3>::ZERO()];
            RandomShares::new(committee, me, &mine, "vector").fill(5, &mut random);
            let mut zero = [Element::<u128, 3>::ZERO()];
            let zero_keys = keys_of(&zero_groups(committee), me, &keys);
            ZeroShares::new(committee, me, &zero_keys, "vector").add_to(5, &mut zero);
            let mut noise = [Element::<u128, 3>::ZERO()];
            NoiseShares::new(committee, me, &noise_keys, "vector", 1000).add_to(5, 7, &mut noise);
            json!({
                "participant": me,
                "prss": element(random[0]),
                "przs": element(zero[0]),
                "noise": element(noise[0]),
            })
        })
        .collect();
    let mut stream = [0; 2];
    Prf::new(&keys[1], "vector").fill(9, &mut stream);
    json!({
        "committee": 4,
        "keys": "set and group i (in canonical order) has 32 bytes of value i",
        "label": "vector",
        "prf_key_1_words_9_10": stream.map(word),
        "element": 5,
        "noise_stride": 7,
        "noise_bound": 1000,
        "members": members,
    })
}

fn decryption() -> Value {
    let committee = Committee::new(4).unwrap();
    let me = ParticipantIndex::new(2).unwrap();
    let sets = key_sets(committee);
    let keys: Vec<_> = (0..4).map(|i| SetKey::new([i; 32])).collect();
    let share: Vec<_> = (0..8u128).map(|i| Element([i, i + 1, i * i])).collect();
    let decryptor = PartialDecryptor::new::<3>(
        committee,
        me,
        &share,
        &keys_of(&sets, me, &keys),
        &KeySetDigest([9; 32]),
        Epoch(3),
    );
    let block = SquashedBlock { mask: (1..=8).map(|i| u128::MAX / i).collect(), body: 1 << 123 };
    let context = RequestContext {
        step: 2,
        before: Blake3Digest([6; 32]),
        ..RequestContext::first(KeySetDigest([9; 32]), Epoch(3), Slot(4), Blake3Digest([7; 32]))
    };
    let request = RequestId::of(&context, &[block.digest()]);
    let partial = decryptor.partial(core::slice::from_ref(&block)).unwrap();
    let identity = SecretIdentity::from_bytes(&[2; 32]).unwrap();
    let payload = DecryptionPayload::Partial(Bytes(partial.clone()));
    let scope = ClusterScope {
        chain_id: ChainId(31_337),
        contract: Address([1; 20]),
        cluster: ClusterId([2; 32]),
    };
    let binding = Binding { scope, key_set: context.key_set, epoch: context.epoch };
    let vote = Lock::vote_digest(&binding, Instance::manifest(context.slot), 5, &context.manifest);
    json!({
        "block_digest": block.digest(),
        "request": request,
        "partial_of_participant_2": hex(&partial),
        "message": hex(&DecryptionMessage::sign(request, me, payload, &identity).to_wire()),
        "vote_digest": hex(&vote),
    })
}

fn ceremony() -> Value {
    let committee = Committee::new(4).unwrap();
    let identities: Vec<_> =
        (1..=4).map(|i| SecretIdentity::from_bytes(&[i; 32]).unwrap()).collect();
    let parameters = CeremonyParameters {
        committee,
        parameters: "vector".to_owned(),
        parameters_digest: Blake3Digest([5; 32]),
        roster: identities.iter().map(SecretIdentity::public).collect(),
        epoch: Epoch(1),
        context: [6; 32],
    };
    let header = Header {
        ceremony: parameters.id(),
        attempt: Attempt(2),
        round: Round::Finish,
        sender: ParticipantIndex::new(3).unwrap(),
        recipient: None,
    };
    let finish = Payload::Finish(Finish { root: Blake3Digest([8; 32]) });
    let message = SignedMessage::sign(header, finish, &identities[2]);
    json!({
        "parameters": hex(&parameters.to_wire()),
        "ceremony_id": parameters.id(),
        "finish_message": hex(&message.to_wire()),
        "finish_digest": message.digest(),
        "chunk_digest": StreamRoot::chunk_digest(&header, Stream::Bodies, 7, b"chunk"),
    })
}

#[test]
fn known_answers() {
    let found = json!({
        "ring": ring(),
        "randomness": randomness(),
        "decryption": decryption(),
        "ceremony": ceremony(),
    });
    let path =
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../protocol-spec/vectors/threshold.json");
    if env::var_os("VEIL_BLESS").is_some() {
        fs::write(&path, format!("{found:#}\n")).unwrap();
    }
    let expected: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    assert_eq!(found, expected, "see the module: VEIL_BLESS=1 rewrites {}", path.display());
}
