use ark_ff::{AdditiveGroup, Field};

use super::*;

const CEREMONY: CeremonyId = CeremonyId([1; 32]);
const BEFORE: Blake3Digest = Blake3Digest([2; 32]);
const SIZE: Size = Size::PROTOCOL_TEST;

fn place(sender: u8) -> Place<'static> {
    let sender = ParticipantIndex::new(sender).unwrap();
    Place { ceremony: &CEREMONY, attempt: Attempt(3), sender, before: &BEFORE }
}

/// What three members make one after another, with the first powers that each raised.
fn chain() -> Vec<(First, Contribution)> {
    let mut powers = Powers::start(SIZE);
    let mut first = First::start();
    let contribute = |j: u8| {
        let made = powers.contribute(&[j; 32], place(j));
        let before = first;
        first = check_contribution(SIZE, place(j), &before, &made.powers, &made.proof).unwrap();
        powers = Powers::read(SIZE, &made.powers).unwrap();
        assert_eq!(powers.to_bytes(), made.powers);
        (before, made)
    };
    (1..=3).map(contribute).collect()
}

fn check(sender: u8, before: &First, made: &Contribution) -> Result<First, Refused> {
    check_contribution(SIZE, place(sender), before, &made.powers, &made.proof)
}

#[test]
fn members_raise_the_powers_one_after_another() {
    let tau: Fr = (1..=3).map(|j| exponent(&[j; 32])).product();
    let chain = chain();
    let last = Powers::read(SIZE, &chain[2].1.powers).unwrap();
    assert_eq!(last.check(), Ok(()));
    let (g, h) = (G1Affine::generator(), G2Affine::generator());
    let exponents = [1_u64, 2, 3, 5, 6];
    let first: Vec<_> = exponents.iter().map(|i| (g * tau.pow([*i])).into_affine()).collect();
    let second: Vec<_> = (1..=3_u64).map(|i| (h * tau.pow([i])).into_affine()).collect();
    assert_eq!((last.first, last.second), (first, second));
}

#[test]
fn a_proof_is_for_one_place_one_predecessor_and_one_string() {
    let chain = chain();
    let (before, made) = &chain[1];
    assert!(check(2, before, made).is_ok());
    assert_eq!(check(3, before, made), Err(Refused::Proof));
    assert_eq!(check(2, &First::start(), made), Err(Refused::Proof));
    let (ceremony, attempt, other) = (CeremonyId([9; 32]), Attempt(4), Blake3Digest([9; 32]));
    for place in [
        Place { ceremony: &ceremony, ..place(2) },
        Place { attempt, ..place(2) },
        Place { before: &other, ..place(2) },
    ] {
        let checked = check_contribution(SIZE, place, before, &made.powers, &made.proof);
        assert_eq!(checked, Err(Refused::Proof));
    }
    // Any other power than the first belongs to the statement, too.
    let mut powers = Powers::read(SIZE, &made.powers).unwrap();
    powers.first.swap(1, 2);
    let powers = powers.to_bytes();
    let swapped = Contribution { powers, ..made.clone() };
    assert_eq!(check(2, before, &swapped), Err(Refused::Proof));
    for at in [0, CHALLENGE - 1, CHALLENGE, PROOF_BYTES - 1] {
        let mut wrong = made.clone();
        wrong.proof[at] ^= 1;
        assert_eq!(check(2, before, &wrong), Err(Refused::Proof), "byte {at}");
    }
    for length in [0, CHALLENGE, PROOF_BYTES - 1, PROOF_BYTES + 1] {
        let mut wrong = made.clone();
        wrong.proof.resize(length, 0);
        assert_eq!(check(2, before, &wrong), Err(Refused::Proof), "{length} bytes");
    }
}

#[test]
fn who_takes_anothers_powers_cannot_prove_them() {
    // The last member takes powers of its own making, of an exponent that it knows: the classical attack.
    let chain = chain();
    let (before, _) = &chain[2];
    let alone = Powers::start(SIZE).contribute(&[9; 32], place(3));
    assert_eq!(check(3, before, &alone), Err(Refused::Proof));
}

#[test]
fn first_powers_in_the_two_groups_have_one_exponent() {
    let made = Powers::start(SIZE).contribute(&[1; 32], place(1));
    let other = Powers::start(SIZE).contribute(&[2; 32], place(1));
    let second = SIZE.first() * G1Affine::BYTES;
    let mut mixed = made.clone();
    mixed.powers[second..].copy_from_slice(&other.powers[second..]);
    assert_eq!(check(1, &First::start(), &mixed), Err(Refused::Proof));
    // The structure shows it as well.
    assert_eq!(Powers::read(SIZE, &mixed.powers).unwrap().check(), Err(Refused::NotPowers));
}

#[test]
fn every_power_is_checked() {
    let made = Powers::start(SIZE).contribute(&[1; 32], place(1));
    let right = Powers::read(SIZE, &made.powers).unwrap();
    assert_eq!(right.check(), Ok(()));
    let factor = Fr::from(5_u64);
    for i in 0..right.first.len() {
        let mut wrong = right.clone();
        wrong.first[i] = wrong.first[i].times(&factor).into_affine();
        assert_eq!(wrong.check(), Err(Refused::NotPowers), "power {i} of the first group");
    }
    for i in 0..right.second.len() {
        let mut wrong = right.clone();
        wrong.second[i] = wrong.second[i].times(&factor).into_affine();
        assert_eq!(wrong.check(), Err(Refused::NotPowers), "power {i} of the second group");
    }
    // All powers beyond the gap off by one factor: each pair among them is right.
    let mut wrong = right.clone();
    for power in &mut wrong.first[SIZE.n()..] {
        *power = power.times(&factor).into_affine();
    }
    assert_eq!(wrong.check(), Err(Refused::NotPowers));
}

#[test]
fn powers_of_zero_and_of_small_order_are_no_powers() {
    let made = Powers::start(SIZE).contribute(&[1; 32], place(1));
    let second = SIZE.first() * G1Affine::BYTES;
    // The point (0, 1) has order 3; the neutral element has no encoding.
    for (at, power) in [(0, 0), (second, SIZE.first())] {
        let mut wrong = made.clone();
        wrong.powers[at..at + 56].fill(0);
        assert_eq!(check(1, &First::start(), &wrong), Err(Refused::Point(power)));
        assert_eq!(Powers::read(SIZE, &wrong.powers), Err(Refused::Point(power)));
    }
    // Behind the first powers only a reader of all of them finds it, whatever the proof says.
    let mut wrong = made.clone();
    wrong.powers[2 * 56..3 * 56].fill(0);
    assert_eq!(check(1, &First::start(), &wrong), Err(Refused::Proof));
    wrong.proof = prove(&[1; 32], place(1), &First::start(), &wrong.powers);
    assert!(check(1, &First::start(), &wrong).is_ok());
    assert_eq!(Powers::read(SIZE, &wrong.powers), Err(Refused::Point(2)));
    let expected = SIZE.bytes();
    for given in [0, expected - 1, expected + 1] {
        wrong.powers.resize(given, 0);
        let refused = Err(Refused::Length { given, expected });
        assert_eq!(check(1, &First::start(), &wrong), refused);
        assert_eq!(Powers::read(SIZE, &wrong.powers).map(drop), refused.map(drop));
    }
    // The exponent zero: a proof of it can be made, the powers cannot be written.
    let zero = Powers::start(SIZE).raise(&Fr::ZERO);
    assert!(Powers::read(SIZE, &zero.to_bytes()).is_err());
}

#[test]
fn the_same_key_gives_the_same_bytes_and_another_place_another_nonce() {
    let powers = Powers::start(SIZE);
    let made = powers.contribute(&[1; 32], place(1));
    assert_eq!(made, powers.contribute(&[1; 32], place(1)));
    let other = powers.contribute(&[1; 32], place(2));
    assert_eq!(made.powers, other.powers);
    // Two responses under one nonce would give the exponent away: z - z' = (c - c') tau.
    let read = |made: &Contribution| {
        let challenge: [u8; CHALLENGE] = made.proof[..CHALLENGE].try_into().unwrap();
        (scalar(&challenge), read_scalar(&made.proof[CHALLENGE..]).unwrap())
    };
    let ((c, z), (c2, z2)) = (read(&made), read(&other));
    assert_ne!(z - z2, (c - c2) * exponent(&[1; 32]));
}

/// Known answers: other implementations of `reference-string.md` must come to the same bytes.
#[test]
fn vectors() {
    #[derive(serde::Serialize, serde::Deserialize, PartialEq, Debug)]
    struct Vector {
        ceremony: CeremonyId,
        attempt: Attempt,
        sender: ParticipantIndex,
        before: Blake3Digest,
        key: Blake3Digest,
        powers: String,
        proof: String,
    }
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let mut powers = Powers::start(SIZE);
    let mut vectors = Vec::new();
    for j in 1..=2_u8 {
        let Place { ceremony, attempt, sender, before } = place(j);
        let made = powers.contribute(&[j; 32], place(j));
        vectors.push(Vector {
            ceremony: *ceremony,
            attempt,
            sender,
            before: *before,
            key: Blake3Digest([j; 32]),
            powers: hex(&made.powers),
            proof: hex(&made.proof),
        });
        powers = Powers::read(SIZE, &made.powers).unwrap();
    }
    let path =
        concat!(env!("CARGO_MANIFEST_DIR"), "/../../protocol-spec/vectors/reference_string.json");
    if std::env::var_os("VEIL_BLESS").is_some() {
        std::fs::write(path, serde_json::to_string_pretty(&vectors).unwrap() + "\n").unwrap();
    }
    let pinned: Vec<Vector> =
        serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    assert_eq!(pinned, vectors);
}
