//! Tests: what a worker believes of a registry, against one that serves whatever it is told to.

#![allow(clippy::unwrap_used, reason = "a failed helper fails the test")]

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use ring::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _},
};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};
use veil_node_registry::{ImageKey, Registry, RegistryError, parts};
use veil_protocol_spec::{
    KeccakDigest, hex,
    scheduling::{ImageApproval, ImageReference},
};

/// Status, header lines, content.
type Answer = (u16, String, Vec<u8>);

/// A registry without TLS on this machine.
#[derive(Clone)]
struct Server {
    address: String,
    answers: Arc<Mutex<BTreeMap<String, Answer>>>,
    /// What was asked for, in order.
    asked: Arc<Mutex<Vec<String>>>,
}

impl Server {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let server = Self { address, answers: Arc::default(), asked: Arc::default() };
        let all = server.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(all.clone().answer(stream));
            }
        });
        server
    }

    async fn answer(self, mut stream: TcpStream) {
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            match stream.read_u8().await {
                // The beginning of TLS.
                Ok(byte) if request.is_empty() && byte != b'G' => return,
                Ok(byte) => request.push(byte),
                Err(_) => return,
            }
        }
        let request = String::from_utf8(request).unwrap();
        let path = request.split(' ').nth(1).unwrap().to_owned();
        self.asked.lock().unwrap().push(path.clone());
        let is_locked = self.answers.lock().unwrap().contains_key("/token");
        let is_in = request.to_lowercase().contains("authorization: bearer secret");
        let known = path.split('?').next().unwrap().to_owned();
        let (status, headers, content) = if is_locked && !is_in && known != "/token" {
            let realm = format!("http://{}/token", self.address);
            let challenge = format!("WWW-Authenticate: Bearer realm=\"{realm}\",service=\"r\"\r\n");
            (401, challenge, Vec::new())
        } else {
            let found = self.answers.lock().unwrap().get(&known).cloned();
            found.unwrap_or((404, String::new(), Vec::new()))
        };
        let length = content.len();
        let head = format!(
            "HTTP/1.1 {status} said\r\nContent-Length: {length}\r\nConnection: close\r\n{headers}\r\n"
        );
        // Who is refused hangs up early.
        let _ = stream.write_all(head.as_bytes()).await;
        let _ = stream.write_all(&content).await;
    }

    fn serve(&self, path: &str, answer: Answer) {
        self.answers.lock().unwrap().insert(format!("/v2/app/{path}"), answer);
    }

    fn put(&self, path: &str, content: &[u8]) {
        self.serve(path, (200, String::new(), content.to_vec()));
    }

    fn blob(&self, content: &[u8]) -> String {
        let digest = sha256(content);
        self.put(&format!("blobs/{digest}"), content);
        digest
    }
}

fn sha256(content: &[u8]) -> String {
    format!("sha256:{}", hex(&Sha256::digest(content)))
}

/// Who signs.
struct Signer {
    pair: EcdsaKeyPair,
    random: SystemRandom,
}

impl Signer {
    fn new() -> Self {
        let (random, kind) = (SystemRandom::new(), &ECDSA_P256_SHA256_ASN1_SIGNING);
        let made = EcdsaKeyPair::generate_pkcs8(kind, &random).unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(kind, made.as_ref(), &random).unwrap();
        Self { pair, random }
    }

    fn key(&self) -> ImageKey {
        let prefix = "3059301306072a8648ce3d020106082a8648ce3d030107034200";
        let byte = |i| u8::from_str_radix(&prefix[2 * i..2 * i + 2], 16).unwrap();
        let mut info: Vec<u8> = (0..prefix.len() / 2).map(byte).collect();
        info.extend_from_slice(self.pair.public_key().as_ref());
        let digits = STANDARD.encode(info);
        let pem = format!("-----BEGIN PUBLIC KEY-----\n{digits}\n-----END PUBLIC KEY-----\n");
        ImageKey::from_pem(pem.as_bytes()).unwrap()
    }

    fn sign(&self, payload: &[u8]) -> Vec<u8> {
        self.pair.sign(&self.random, payload).unwrap().as_ref().to_vec()
    }
}

fn payload(digest: &str) -> Value {
    json!({
        "critical": {
            "identity": { "docker-reference": "r.example/app" },
            "image": { "docker-manifest-digest": digest },
            "type": "cosign container image signature",
        },
        "optional": null,
    })
}

/// An image in a registry, signed or not.
struct Image {
    server: Server,
    registry: Registry,
    reference: ImageReference,
    manifest: Vec<u8>,
    signatures: String,
}

impl Image {
    async fn new() -> Self {
        let server = Server::start().await;
        let digest = |byte: &str| format!("sha256:{}", byte.repeat(32));
        let manifest = json!({
            "schemaVersion": 2,
            "config": { "digest": digest("01") },
            "layers": [{ "digest": digest("02") }, { "digest": digest("03") }],
        });
        let manifest = manifest.to_string().into_bytes();
        let digest = sha256(&manifest);
        server.put(&format!("manifests/{digest}"), &manifest);
        let reference: ImageReference = format!("{}/app@{digest}", server.address).parse().unwrap();
        let signatures = format!("manifests/sha256-{}.sig", reference.digest_hex());
        let registry = Registry::new(Vec::new()).unwrap();
        Self { server, registry, reference, manifest, signatures }
    }

    fn digest(&self) -> String {
        format!("sha256:{}", self.reference.digest_hex())
    }

    fn approval(&self, signature: Option<&[u8]>) -> ImageApproval {
        let signature = signature.map(|signature| Sha256::digest(signature).into());
        let root = parts(&self.manifest, signature).unwrap().tree().root();
        ImageApproval { root, signature }
    }

    /// Serves these signatures of these payloads, beside a layer of another kind.
    fn sign(&self, all: &[(&[u8], &[u8])]) {
        let layer = |(payload, signature): &(&[u8], &[u8])| {
            let annotation = json!({
                "dev.cosignproject.cosign/signature": STANDARD.encode(signature),
            });
            json!({
                "mediaType": "application/vnd.dev.cosign.simplesigning.v1+json",
                "digest": self.server.blob(payload),
                "annotations": annotation,
            })
        };
        let other = json!({ "mediaType": "text/plain", "digest": "sha256:00" });
        let layers: Vec<_> = [other].into_iter().chain(all.iter().map(layer)).collect();
        self.server.put(&self.signatures, json!({ "layers": layers }).to_string().as_bytes());
    }

    async fn refusal(&self, approval: &ImageApproval, keys: Option<&[ImageKey]>) -> RegistryError {
        let error = self.registry.check(&self.reference, approval, keys, None).await.unwrap_err();
        assert!(error.is_final(), "{error}");
        error
    }
}

#[tokio::test]
async fn an_image_is_what_the_chain_commits_to_or_nothing_of_it_runs() {
    let image = Image::new().await;
    let approval = image.approval(None);
    assert_eq!(image.registry.check(&image.reference, &approval, None, None).await, Ok(None));
    let other = ImageApproval { root: KeccakDigest([7; 32]), ..approval };
    let refused = image.refusal(&other, None).await;
    assert!(matches!(refused, RegistryError::Commitment { .. }), "{refused}");
    // The chain names a signature that its root does not contain.
    let other = ImageApproval { signature: Some([7; 32]), ..approval };
    let refused = image.refusal(&other, None).await;
    assert!(matches!(refused, RegistryError::Commitment { .. }), "{refused}");

    let path = format!("manifests/{}", image.digest());
    image.server.put(&path, b"something else");
    let refused = image.refusal(&approval, None).await;
    assert!(matches!(refused, RegistryError::WrongContent { .. }), "{refused}");
    image.server.put(&path, &vec![b' '; (4 << 20) + 1]);
    let refused = image.refusal(&approval, None).await;
    assert!(matches!(refused, RegistryError::TooLarge { what: "manifest", .. }), "{refused}");
    for status in [400, 403, 404] {
        image.server.serve(&path, (status, String::new(), Vec::new()));
        let refused = image.refusal(&approval, None).await;
        assert!(matches!(refused, RegistryError::NotServed { .. }), "{refused}");
    }
}

#[tokio::test]
async fn an_index_is_no_image() {
    let image = Image::new().await;
    let index = br#"{"manifests": []}"#;
    let digest = sha256(index);
    image.server.put(&format!("manifests/{digest}"), index);
    let reference = format!("{}/app@{digest}", image.server.address).parse().unwrap();
    let refused = image.registry.check(&reference, &image.approval(None), None, None).await;
    assert!(matches!(refused, Err(RegistryError::NoImage(_))), "{refused:?}");
}

#[tokio::test]
async fn what_passes_is_tried_again() {
    let image = Image::new().await;
    let (approval, path) = (image.approval(None), format!("manifests/{}", image.digest()));
    let after = "Retry-After: 77\r\n".to_owned();
    for (answer, said) in [
        ((429, after, Vec::new()), "toomanyrequests; Retry-After: 77"),
        ((503, String::new(), Vec::new()), "HTTP status 503"),
    ] {
        image.server.serve(&path, answer);
        let error =
            image.registry.check(&image.reference, &approval, None, None).await.unwrap_err();
        assert!(!error.is_final() && error.to_string().contains(said), "{error}");
    }
    let nobody: ImageReference = format!("127.0.0.1:1/app@{}", image.digest()).parse().unwrap();
    let error = image.registry.check(&nobody, &approval, None, None).await.unwrap_err();
    assert!(matches!(error, RegistryError::Unreachable { .. }) && !error.is_final(), "{error}");
}

#[tokio::test]
async fn a_registry_that_wants_everybody_to_log_in_gets_a_token() {
    let image = Image::new().await;
    let token = (200, String::new(), br#"{"access_token": "secret"}"#.to_vec());
    image.server.answers.lock().unwrap().insert("/token".to_owned(), token);
    let approval = image.approval(None);
    image.registry.check(&image.reference, &approval, None, None).await.unwrap();
    let asked = image.server.asked.lock().unwrap().clone();
    assert!(asked[1].contains("service=r&scope=repository%3Aapp%3Apull"), "{asked:?}");
    let none = (200, String::new(), b"{}".to_vec());
    image.server.answers.lock().unwrap().insert("/token".to_owned(), none);
    let error = image.registry.check(&image.reference, &approval, None, None).await.unwrap_err();
    assert!(error.to_string().contains("no token"), "{error}");
}

#[tokio::test]
async fn a_signature_is_checked_where_the_policy_asks_for_it() {
    let image = Image::new().await;
    let (signer, other) = (Signer::new(), Signer::new());
    let said = payload(&image.digest()).to_string().into_bytes();
    let (signature, second) = (signer.sign(&said), other.sign(&said));
    image.sign(&[(&said, &second), (&said, &signature)]);
    let approval = image.approval(Some(&signature));
    let keys = [other.key(), signer.key()];
    let check = image.registry.check(&image.reference, &approval, Some(&keys), None).await;
    assert_eq!(check, Ok(Some(&keys[1])), "the signature that the chain names, not the first");
    let named = image.registry.signature_by(&image.reference, &signer.key()).await.unwrap();
    assert_eq!(Some(named), approval.signature);
    // Nobody asks: nothing is fetched.
    image.server.asked.lock().unwrap().clear();
    assert_eq!(image.registry.check(&image.reference, &approval, None, None).await, Ok(None));
    assert_eq!(image.server.asked.lock().unwrap().len(), 1);

    let refused = image.refusal(&approval, Some(&[])).await;
    assert_eq!(refused, RegistryError::NoKeys);
    let refused = image.refusal(&approval, Some(&keys[..1])).await;
    assert_eq!(refused, RegistryError::WrongKey);
    let refused = image.refusal(&image.approval(None), Some(&keys)).await;
    assert_eq!(refused, RegistryError::Unsigned);
    let refused = image.refusal(&image.approval(Some(b"a third")), Some(&keys)).await;
    assert!(matches!(refused, RegistryError::OtherSignatures { count: 2, .. }), "{refused}");
}

/// Made by other software, and served by Docker's registry: `sigstore/README.md` says how.
#[tokio::test]
async fn a_signature_that_sigstore_made_is_verified() {
    let manifest = include_bytes!("sigstore/manifest.json");
    let signatures = include_bytes!("sigstore/signatures.json");
    let payload = include_bytes!("sigstore/payload.json");
    let key = ImageKey::from_pem(include_bytes!("sigstore/cosign.pub")).unwrap();
    let server = Server::start().await;
    let digest = sha256(manifest);
    server.put(&format!("manifests/{digest}"), manifest);
    server.put(&format!("manifests/{}.sig", digest.replace(':', "-")), signatures);
    server.blob(payload);
    let reference: ImageReference = format!("{}/app@{digest}", server.address).parse().unwrap();
    let registry = Registry::new(Vec::new()).unwrap();

    let named = registry.signature_by(&reference, &key).await.unwrap();
    let root = parts(manifest, Some(named)).unwrap().tree().root();
    let approval = ImageApproval { root, signature: Some(named) };
    let keys = [Signer::new().key(), key];
    let check = registry.check(&reference, &approval, Some(&keys), None).await;
    assert_eq!(check, Ok(Some(&keys[1])));
    let wrong = registry.check(&reference, &approval, Some(&keys[..1]), None).await;
    assert_eq!(wrong, Err(RegistryError::WrongKey));
    let by = registry.signature_by(&reference, &keys[0]).await;
    assert_eq!(by, Err(RegistryError::WrongKey));
    // It is of this image alone: for another one nothing is signed, whoever serves it there.
    let other = [&manifest[..], b" "].concat();
    let digest = sha256(&other);
    server.put(&format!("manifests/{digest}"), &other);
    server.put(&format!("manifests/{}.sig", digest.replace(':', "-")), signatures);
    let reference: ImageReference = format!("{}/app@{digest}", server.address).parse().unwrap();
    let refused = registry.signature_by(&reference, &keys[1]).await;
    assert!(matches!(refused, Err(RegistryError::SignedOther { .. })), "{refused:?}");
}

#[tokio::test]
async fn a_registry_that_lies_about_signatures_is_refused_by_name() {
    let image = Image::new().await;
    let signer = Signer::new();
    let keys = [signer.key()];
    let said = payload(&image.digest()).to_string().into_bytes();
    let signature = signer.sign(&said);
    let approval = image.approval(Some(&signature));
    let none = image.refusal(&approval, Some(&keys)).await;
    assert!(matches!(none, RegistryError::NoSignature { .. }), "{none}");
    let by = image.registry.signature_by(&image.reference, &keys[0]).await.unwrap_err();
    assert!(matches!(by, RegistryError::NoSignature { .. }), "{by}");

    // The committed signature beside another payload.
    let mut changed = said.clone();
    changed.push(b' ');
    image.sign(&[(&changed, &signature)]);
    assert_eq!(image.refusal(&approval, Some(&keys)).await, RegistryError::WrongKey);
    // A broken signature, to which the chain commits.
    let mut broken = signature.clone();
    *broken.last_mut().unwrap() ^= 1;
    image.sign(&[(&said, &broken)]);
    let refused = image.refusal(&image.approval(Some(&broken)), Some(&keys)).await;
    assert_eq!(refused, RegistryError::WrongKey);
    // A good signature of another image.
    let elsewhere = payload(&sha256(b"another")).to_string().into_bytes();
    let theirs = signer.sign(&elsewhere);
    image.sign(&[(&elsewhere, &theirs)]);
    let refused = image.refusal(&image.approval(Some(&theirs)), Some(&keys)).await;
    assert_eq!(refused, RegistryError::SignedOther { signed: sha256(b"another") });
    let by = image.registry.signature_by(&image.reference, &keys[0]).await.unwrap_err();
    assert_eq!(by, refused);
    // Something else that was signed with the key.
    let mut letter = payload(&image.digest());
    letter["critical"]["type"] = json!("letter");
    for text in [letter.to_string(), "{}".to_owned()] {
        let theirs = signer.sign(text.as_bytes());
        image.sign(&[(text.as_bytes(), &theirs)]);
        let refused = image.refusal(&image.approval(Some(&theirs)), Some(&keys)).await;
        assert!(matches!(refused, RegistryError::NotSignatures { .. }), "{refused}");
    }
    // A payload of another digest, one that is too long, none at all.
    image.sign(&[(&said, &signature)]);
    let path = format!("blobs/{}", sha256(&said));
    image.server.put(&path, b"something else");
    let refused = image.refusal(&approval, Some(&keys)).await;
    assert!(matches!(refused, RegistryError::WrongContent { .. }), "{refused}");
    image.server.put(&path, &vec![b' '; (64 << 10) + 1]);
    let refused = image.refusal(&approval, Some(&keys)).await;
    assert!(matches!(refused, RegistryError::TooLarge { what: "signature", .. }), "{refused}");
    image.server.serve(&path, (404, String::new(), Vec::new()));
    let refused = image.refusal(&approval, Some(&keys)).await;
    assert!(matches!(refused, RegistryError::NotServed { .. }), "{refused}");
    // Something else under the tag, and more than anybody looks at.
    for text in [
        "[]".to_owned(),
        json!({ "layers": vec![json!({
        "mediaType": "", "digest": ""
    }); 65] })
        .to_string(),
    ] {
        image.server.put(&image.signatures, text.as_bytes());
        let refused = image.refusal(&approval, Some(&keys)).await;
        assert!(matches!(refused, RegistryError::NotSignatures { .. }), "{refused}");
    }
    image.server.put(&image.signatures, &vec![b' '; (4 << 20) + 1]);
    let refused = image.refusal(&approval, Some(&keys)).await;
    assert!(matches!(refused, RegistryError::TooLarge { .. }), "{refused}");
}

#[tokio::test]
async fn a_tag_is_resolved_to_the_image_of_one_platform() {
    let server = Server::start().await;
    let registry = Registry::new(Vec::new()).unwrap();
    let name = format!("{}/app", server.address);
    let one = br#"{"config":{"digest":"sha256:00"},"layers":[]}"#;
    server.put("manifests/1.4", one);
    let image = registry.resolve(&name, "1.4", "amd64").await.unwrap();
    assert_eq!(image.to_string(), format!("{name}@{}", sha256(one)));

    let wanted = format!("sha256:{}", "ab".repeat(32));
    let other = format!("sha256:{}", "cd".repeat(32));
    let index = json!({ "manifests": [
        { "digest": other, "platform": { "os": "linux", "architecture": "arm64", "variant": "v8" } },
        { "digest": wanted, "platform": { "os": "linux", "architecture": "amd64" } },
        { "digest": other, "platform": { "os": "unknown", "architecture": "unknown" } },
    ] });
    server.put("manifests/2", index.to_string().as_bytes());
    let image = registry.resolve(&name, "2", "amd64").await.unwrap();
    assert_eq!(image.to_string(), format!("{name}@{wanted}"));

    let refused = registry.resolve(&name, "2", "riscv64").await.unwrap_err();
    assert!(matches!(refused, RegistryError::NoPlatform { .. }), "{refused}");
    assert!(refused.to_string().contains("linux/riscv64"), "{refused}");
    let refused = registry.resolve(&name, "3", "amd64").await.unwrap_err();
    assert!(matches!(refused, RegistryError::NotServed { status: 404, .. }), "{refused}");
    server.put("manifests/none", b"{}");
    let refused = registry.resolve(&name, "none", "amd64").await.unwrap_err();
    assert!(matches!(refused, RegistryError::NoImage(_)), "{refused}");
    for (name, tag) in [("A", "1"), (&*name, "a b"), ("a@b", "1"), ("", "1")] {
        let refused = registry.resolve(name, tag, "amd64").await.unwrap_err();
        assert!(matches!(refused, RegistryError::NoName(_)), "{refused}");
    }
}
