use tfhe::{
    core_crypto::prelude::{DynamicDistribution, LweDimension},
    shortint::parameters::v1_8::V1_8_PARAM_PKE_TO_BIG_MESSAGE_2_CARRY_2_KS_PBS_TUNIFORM_2M128_ZKV2,
};
use veil_protocol_spec::{Attempt, CeremonyId, ParticipantIndex};

use super::*;
use crate::Place;

const PRODUCTION: CompactPublicKeyEncryptionParameters =
    V1_8_PARAM_PKE_TO_BIG_MESSAGE_2_CARRY_2_KS_PBS_TUNIFORM_2M128_ZKV2;

fn small() -> CompactPublicKeyEncryptionParameters {
    CompactPublicKeyEncryptionParameters {
        encryption_lwe_dimension: LweDimension(256),
        encryption_noise_distribution: DynamicDistribution::new_t_uniform(2),
        ..PRODUCTION
    }
}

#[test]
fn the_sizes_are_those_of_tfhe() {
    let sizes = [small(), PRODUCTION].map(|parameters| Size::of(&parameters).unwrap().n());
    assert_eq!(sizes, [2_496, 5_952]);
    assert_eq!(Size::of(&PRODUCTION).unwrap().bytes(), 1_333_192);
}

/// tfhe takes the string for one of its own: right sizes, right groups, a gap at n + 1.
#[test]
fn tfhe_reads_what_is_made_of_powers() {
    let parameters = small();
    let size = Size::of(&parameters).unwrap();
    let (ceremony, before) = (CeremonyId([1; 32]), Blake3Digest([2; 32]));
    let sender = ParticipantIndex::new(1).unwrap();
    let place = Place { ceremony: &ceremony, attempt: Attempt(0), sender, before: &before };
    let made = Powers::start(size).contribute(&[7; 32], place);
    let powers = Powers::read(size, &made.powers).unwrap();
    powers.check().unwrap();
    let string = ReferenceString::made_of(&powers, &parameters).unwrap();
    let mut file = Vec::new();
    string.write(&mut file).unwrap();
    let read = ReferenceString::read(file.as_slice(), parameters).unwrap();
    assert_eq!(read.digest(), string.digest());
    // tfhe's own generator makes the same, with an exponent and labels of its own.
    let tfhe = ReferenceString::generate_insecure(parameters).unwrap();
    assert_eq!(serialize(tfhe.crs()).unwrap().len(), serialize(string.crs()).unwrap().len());
    assert_ne!(tfhe.digest(), string.digest());
    // Of another size, version or length.
    let wrong = Powers::start(Size::PROTOCOL_TEST);
    let refused = ReferenceString::made_of(&wrong, &parameters).unwrap_err();
    assert!(matches!(refused, ReferenceStringError::Size { given: 3, needed: 2_496 }));
    let refused = ReferenceString::read(file.as_slice(), PRODUCTION).unwrap_err();
    assert!(matches!(refused, ReferenceStringError::Refused(_)), "{refused}");
    for damaged in [&file[..file.len() - 1], &file[..1]] {
        assert!(ReferenceString::read(damaged, parameters).is_err());
    }
    file[0] = 1;
    let refused = ReferenceString::read(file.as_slice(), parameters).unwrap_err();
    assert!(matches!(refused, ReferenceStringError::Version(1)), "{refused}");
}
