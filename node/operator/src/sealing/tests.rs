use tfhe::ClientKey;
use veil_node_config::job_file::samples;
use veil_protocol_spec::{
    Address, ChainId, ClusterId, Committee, Epoch, ParticipantIndex,
    codec::Bytes,
    identity::SecretIdentity,
    scheduling::{ClusterScope, GpuUnits, Resources},
    sealing::SEALING_KEY,
};
use veil_scheduler::{request_agrees, verify_request, write_public_key};

use super::*;

pub(crate) const SCOPE: ClusterScope =
    ClusterScope { chain_id: ChainId(1), contract: Address([1; 20]), cluster: ClusterId([2; 32]) };

/// What the chain, the members and an honest node say.
pub(crate) struct Cluster {
    pub(crate) key: Key,
    pub(crate) keys: EncryptionKeys,
    pub(crate) public: CompactPublicKey,
    pub(crate) string: ReferenceString,
}

impl Cluster {
    /// What the proof of a job's request is for.
    pub(crate) fn metadata(&self, job: &JobSpec) -> ProofMetadata {
        ProofMetadata::for_request(&job.scope, &self.key.key_set(), &job.operator, job.nonce)
    }
}

fn a_public_key(parameters: &ParameterSet) -> CompactPublicKey {
    CompactPublicKey::new(&ClientKey::generate(parameters.config()))
}

pub(crate) fn cluster() -> Cluster {
    let parameters = ParameterSet::insecure_test();
    let public = a_public_key(&parameters);
    let string = ReferenceString::generate_insecure(*parameters.pke()).unwrap();
    let (written, mut string_bytes) = (write_public_key(&public).unwrap(), Vec::new());
    string.write(&mut string_bytes).unwrap();
    let binding = Binding { scope: SCOPE, key_set: KeySetDigest([3; 32]), epoch: Epoch(1) };
    let secrets: Vec<_> = (1..=4).map(|i| SecretIdentity::from_bytes(&[i; 32]).unwrap()).collect();
    let identities: Vec<_> = secrets.iter().map(SecretIdentity::public).collect();
    let announced: Vec<_> = (1..)
        .zip(&secrets)
        .map(|(i, own)| {
            let (member, key) = (ParticipantIndex::new(i).unwrap(), vec![i; SEALING_KEY]);
            let stated = public_key_digest(&written);
            SealingKeyAnnouncement::new(binding, member, key, stated, own)
        })
        .collect();
    let committee = Committee::new(4).unwrap();
    let roster = SealingRoster::new(binding, committee, &identities, &announced).unwrap();
    let keys = EncryptionKeys { public_key: Bytes(written), reference_string: Bytes(string_bytes) };
    let reference_string = string.digest();
    Cluster { key: Key { binding, parameters, reference_string, roster }, keys, public, string }
}

pub(crate) fn job(nonce: u64) -> JobSpec {
    let file = JobFile::parse(samples::SERVICE).unwrap();
    file.into_spec(SCOPE, Address([9; 20]), nonce).unwrap()
}

pub(crate) fn limits(job: &JobSpec) -> Resources {
    match &job.request {
        ResourceRequest::Clear(limits) => *limits,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_request_is_encrypted_so_that_its_winner_can_check_it() {
    let Cluster { key, keys, public, string } = cluster();
    let sealer = SealerKey::from_signature(b"the operator's");
    let clear = job(4);
    let encrypt = async |job: &JobSpec| {
        encrypted(job, Scale::default(), &key, keys.clone(), &sealer).await.unwrap()
    };
    let (request, sealed) = encrypt(&clear).await;
    assert_eq!(sealed.limits, limits(&clear));
    let body = JobSpec { request: ResourceRequest::Encrypted(request.clone()), ..clear.clone() };
    assert!(sealed.is_committed_to(&body));
    // Members verify it for this submission, and the winner finds its limits in it.
    let metadata = body.request_metadata().unwrap();
    verify_request(&request.list, &metadata, &public, &string).unwrap();
    let quantities = sealed.quantities(&request.scale).unwrap();
    let agrees = |sealed: &SealedRequest| {
        request_agrees(&request.list, &quantities, &sealed.seed.randomness(), &public).unwrap()
    };
    assert!(agrees(&sealed));
    let mut contents = SealedContents::default();
    contents.request = Some(sealed.clone());
    assert_eq!(contents.validate(&body), Ok(()));
    assert_eq!(contents.applied(&body), clear);
    // The same submission has the same request again; a later one another, of which nothing shows that it is as large.
    let (again, _) = encrypt(&clear).await;
    assert_eq!(again, request);
    let (later, other) = encrypt(&job(5)).await;
    assert!(later.list != request.list && later.commitment != request.commitment);
    assert!(!agrees(&other));
}

#[tokio::test]
async fn keys_that_are_not_the_clusters_encrypt_nothing() {
    let Cluster { key, keys, .. } = cluster();
    let sealer = SealerKey::from_signature(b"the operator's");
    let encrypt = async |keys: EncryptionKeys| {
        encrypted(&job(4), Scale::default(), &key, keys, &sealer).await.map(drop)
    };
    assert!(encrypt(keys.clone()).await.is_ok());
    // A node that would like to read the limits.
    let own = write_public_key(&a_public_key(&key.parameters)).unwrap();
    let refused = encrypt(EncryptionKeys { public_key: Bytes(own), ..keys.clone() }).await;
    assert!(matches!(refused, Err(OperatorError::OtherPublicKey)), "{refused:?}");
    let string = ReferenceString::generate_insecure(*key.parameters.pke()).unwrap();
    let mut own = Vec::new();
    string.write(&mut own).unwrap();
    let refused = encrypt(EncryptionKeys { reference_string: Bytes(own), ..keys.clone() }).await;
    assert!(matches!(refused, Err(OperatorError::OtherReferenceString)), "{refused:?}");
    // What the scale cannot count is refused before anything is encrypted.
    let mut large = job(4);
    large.request = ResourceRequest::Clear(Resources { gpu: GpuUnits(192), ..limits(&large) });
    let refused = encrypted(&large, Scale::default(), &key, keys, &sealer).await;
    let refused = refused.map(drop);
    assert!(matches!(refused, Err(OperatorError::Obstacle(Obstacle::TooLarge(_)))), "{refused:?}");
}
