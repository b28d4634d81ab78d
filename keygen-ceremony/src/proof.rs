//! Step 10: "each member proves that its share is usable: a partial decryption of a public test
//! ciphertext that lies on the common polynomial". Such a share is *verified*.

use veil_committee::{
    code::{Opening, decode},
    decrypt::{PartialDecryptor, partial_len},
    frost::{EvmSuite, keys::GroupKeyShare},
    key_share::{KeyShare, KeyShareError, KeyShareOrigin, test_ciphertext},
    ring::Element,
    with_degree,
};
use veil_protocol_spec::{
    Blake3Digest, Committee, KeySetDigest, ParticipantIndex, ceremony::AbortReason,
};
use zeroize::Zeroizing;

use crate::{setup::Setup, shares::keys::MemberKeys};

/// Makes the key share, with this member's partial decryption of the test ciphertext of
/// (`key_set`, `root`).
pub(crate) fn key_share(
    setup: &Setup,
    key_set: KeySetDigest,
    root: &Blake3Digest,
    share: Zeroizing<Vec<u128>>,
    dec: MemberKeys,
    frost: &GroupKeyShare<EvmSuite>,
) -> Result<KeyShare, KeyShareError> {
    let origin = KeyShareOrigin {
        ceremony: setup.id,
        attempt: setup.attempt,
        committee: setup.committee(),
        participant: setup.me,
        epoch: setup.parameters.epoch,
        key_set,
        parameters: setup.parameters.parameters_digest,
    };
    with_degree!(setup.committee(), D => {
        let (elements, _) = share.as_chunks::<D>();
        let elements: Zeroizing<Vec<Element<u128, D>>> =
            Zeroizing::new(elements.iter().copied().map(Element).collect());
        let decryptor = PartialDecryptor::new(
            origin.committee,
            origin.participant,
            &elements,
            &dec,
            &key_set,
            origin.epoch,
        );
        let test = test_ciphertext(&key_set, root, elements.len());
        let test_share = decryptor.partial(core::slice::from_ref(&test))?;
        KeyShare::new(origin, &elements, dec, frost, test_share)
    })
}

/// Whether the members' test shares lie on one polynomial of degree t.
///
/// # Errors
/// [`AbortReason::WrongProof`] names those that stand out, where 2t+1 others agree.
pub fn check(
    committee: Committee,
    shares: &[(ParticipantIndex, &[u8])],
) -> Result<(), AbortReason> {
    let wrong = |accused: Vec<ParticipantIndex>, detail: &str| AbortReason::WrongProof {
        accused,
        detail: detail.to_owned(),
    };
    let length = partial_len(committee, 1);
    let accused: Vec<_> =
        shares.iter().filter(|(_, bytes)| bytes.len() != length).map(|(j, _)| *j).collect();
    if !accused.is_empty() {
        return Err(wrong(accused, "the test decryption has the wrong length"));
    }
    with_degree!(committee, D => {
        let elements: Vec<(ParticipantIndex, Element<u128, D>)> = shares
            .iter()
            .map(|(j, bytes)| {
                let (words, _) = bytes.as_chunks::<16>();
                let word = |i: usize| words.get(i).map_or(0, |w| u128::from_le_bytes(*w));
                (*j, Element(core::array::from_fn(word)))
            })
            .collect();
        let values: Vec<_> = elements.iter().map(|(_, element)| *element).collect();
        let opening = Opening::new(committee, committee.max_faulty().get());
        match opening.open(&values) {
            Ok(_) => Ok(()),
            Err(_) => {
                let accused = decode(committee, &elements).map(|d| d.wrong).unwrap_or_default();
                Err(wrong(accused, "the test decryptions do not lie on one polynomial"))
            }
        }
    })
}
