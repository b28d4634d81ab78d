//! Images that the chain allows by their commitment and by a signature, from a registry that is there and from one
//! that serves something else.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    thread::spawn,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use ring::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _},
};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use veil_protocol_spec::hex;

use super::network::{Network, chain, reason, set_policy, until};

const MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";
/// RFC 5480: what comes before an uncompressed point of P-256.
const SPKI: &[u8] = b"\x30\x59\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07\x03\x42\0";

fn sha256(content: &[u8]) -> String {
    format!("sha256:{}", hex(&Sha256::digest(content)))
}

/// An image in the registry that has the sample image.
struct Image {
    registry: String,
    name: String,
    manifest: Vec<u8>,
}

impl Image {
    /// The sample image under another name and digest: `white` space is added to its manifest.
    fn copy(name: &str, white: &str) -> Self {
        let sample = veil_node_devnet::sample_image().unwrap();
        let (registry, rest) = sample.split_once('/').unwrap();
        let (from, digest) = rest.split_once('@').unwrap();
        let mut image =
            Self { registry: registry.to_owned(), name: name.to_owned(), manifest: Vec::new() };
        let (status, _, mut manifest) = image.ask(
            &format!("GET /v2/{from}/manifests/{digest}"),
            &format!("Accept: {MANIFEST}"),
            b"",
        );
        assert_eq!((status, sha256(&manifest).as_str()), (200, digest));
        let parsed: Value = serde_json::from_slice(&manifest).unwrap();
        let layers = parsed["layers"].as_array().unwrap();
        for part in layers.iter().chain([&parsed["config"]]) {
            let part = part["digest"].as_str().unwrap();
            let mount = format!("POST /v2/{name}/blobs/uploads/?mount={part}&from={from}");
            assert_eq!(image.ask(&mount, "Accept: */*", b"").0, 201, "{part}");
        }
        manifest.extend_from_slice(white.as_bytes());
        image.manifest = manifest;
        image.put(MANIFEST, &image.digest(), &image.manifest);
        image
    }

    fn digest(&self) -> String {
        sha256(&self.manifest)
    }

    fn reference(&self) -> String {
        format!("{}/{}@{}", self.registry, self.name, self.digest())
    }

    /// Status, where to go on, content.
    fn ask(&self, request: &str, header: &str, body: &[u8]) -> (u16, String, Vec<u8>) {
        let Self { registry, .. } = self;
        let mut stream = TcpStream::connect(registry).unwrap();
        let length = body.len();
        let head = format!(
            "{request} HTTP/1.0\r\nHost: {registry}\r\n{header}\r\nContent-Length: {length}\r\n\r\n"
        );
        stream.write_all(&[head.as_bytes(), body].concat()).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        let end = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
        let head = String::from_utf8(answer[..end].to_vec()).unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let location = head.lines().find_map(|line| line.strip_prefix("Location: "));
        (status, location.unwrap_or_default().to_owned(), answer[end + 4..].to_vec())
    }

    fn put(&self, kind: &str, tag: &str, manifest: &[u8]) {
        let put = format!("PUT /v2/{}/manifests/{tag}", self.name);
        let (status, _, said) = self.ask(&put, &format!("Content-Type: {kind}"), manifest);
        assert_eq!(status, 201, "{}", String::from_utf8_lossy(&said));
    }

    /// What a manifest says of this content, which is put there.
    fn blob(&self, kind: &str, content: &[u8]) -> Value {
        let begin = format!("POST /v2/{}/blobs/uploads/", self.name);
        let (status, at, _) = self.ask(&begin, "Accept: */*", b"");
        assert_eq!(status, 202, "{at}");
        let at = at.split_once(&self.registry).map_or(at.as_str(), |(_, path)| path).to_owned();
        let (and, digest) = (if at.contains('?') { '&' } else { '?' }, sha256(content));
        let put = format!("PUT {at}{and}digest={digest}");
        let (status, ..) = self.ask(&put, "Content-Type: application/octet-stream", content);
        assert_eq!(status, 201, "{put}");
        json!({ "mediaType": kind, "size": content.len(), "digest": digest })
    }

    /// Signs it, and writes the public key to a file.
    fn sign(&self, network: &Network) -> String {
        let (random, kind) = (SystemRandom::new(), &ECDSA_P256_SHA256_ASN1_SIGNING);
        let made = EcdsaKeyPair::generate_pkcs8(kind, &random).unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(kind, made.as_ref(), &random).unwrap();
        let payload = json!({
            "critical": {
                "identity": { "docker-reference": format!("{}/{}", self.registry, self.name) },
                "image": { "docker-manifest-digest": self.digest() },
                "type": "cosign container image signature",
            },
            "optional": null,
        });
        let payload = payload.to_string().into_bytes();
        let signature = pair.sign(&random, &payload).unwrap();
        let mut layer = self.blob("application/vnd.dev.cosign.simplesigning.v1+json", &payload);
        layer["annotations"] =
            json!({ "dev.cosignproject.cosign/signature": STANDARD.encode(signature.as_ref()) });
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": IMAGE,
            "config": self.blob("application/vnd.oci.image.config.v1+json", b"{}"),
            "layers": [layer],
        });
        let tag = format!("{}.sig", self.digest().replace(':', "-"));
        self.put(IMAGE, &tag, manifest.to_string().as_bytes());
        let digits = STANDARD.encode([SPKI, pair.public_key().as_ref()].concat());
        let path = network.folder.join("cosign.pub");
        fs::write(
            &path,
            format!("-----BEGIN PUBLIC KEY-----\n{digits}\n-----END PUBLIC KEY-----\n"),
        )
        .unwrap();
        path.to_str().unwrap().to_owned()
    }
}

/// A registry that serves something else, whatever it is asked for.
fn liar() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut request = Vec::new();
            let mut byte = [0];
            // It speaks no TLS.
            while !request.ends_with(b"\r\n\r\n")
                && (request.is_empty() || request[0] == b'G')
                && stream.read_exact(&mut byte).is_ok()
            {
                request.push(byte[0]);
            }
            if request.ends_with(b"\r\n\r\n") {
                let _ = stream.write_all(b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n{}");
            }
        }
    });
    address
}

fn job_file(image: &str) -> String {
    format!("image = \"{image}\"\n[resources]\ncpu = \"100m\"\nmemory = \"64Mi\"\n")
}

fn submit(network: &Network, image: &str) -> String {
    network.submit_file(&job_file(image))
}

/// An image that is signed.
pub(crate) struct Signed {
    image: Image,
    /// The public key's file.
    pub(crate) key: String,
}

impl Signed {
    pub(crate) fn push(network: &Network) -> Self {
        let image = Image::copy("veil-test/signed", " \n");
        let key = image.sign(network);
        Self { image, key }
    }

    /// Every job that ran before ends, because its image is not allowed: `before` is one.
    pub(crate) fn is_what_the_chain_allows(&self, network: &Network, before: &str) {
        let Self { image: signed, key } = self;
        let plain = Image::copy("veil-test/plain", "\n");
        let (plain, reference) = (plain.reference(), signed.reference());

        // By commitment.
        chain(network, &["image", "allow", "--image", &plain]);
        let job = submit(network, &plain);
        until("what is allowed runs", || network.running(&job, 1));
        reason(network, before, &["the cluster does not allow its image"]);
        let refused = network.refused_file(&job_file(&reference));
        assert!(refused.contains("the cluster does not allow the image"), "{refused}");
        let path = network.folder.join("manifest.json");
        let file = path.to_str().unwrap();
        fs::write(&path, &signed.manifest).unwrap();
        chain(network, &["image", "allow", "--manifest", file]);
        let other = submit(network, &reference);
        until("the other one is allowed, and runs", || network.running(&other, 1));
        // What the chain allows is not what the registry serves.
        let third = [&signed.manifest[..], b"\n"].concat();
        fs::write(&path, &third).unwrap();
        chain(network, &["image", "allow", "--manifest", file]);
        let lies = submit(network, &format!("{}/app@{}", liar(), sha256(&third)));
        reason(network, &lies, &["is run:", "what the registry serves has another digest"]);

        // By signature.
        chain(network, &["image", "allow", "--image", &reference, "--key", key]);
        set_policy(network, "min_candidates = 1\nimage_signatures = true\n");
        reason(network, &job, &["its image is allowed without a signature"]);
        let job = submit(network, &reference);
        until("what is signed runs", || network.running(&job, 1));
        // The chain names a signature that nobody has made.
        let nobodys = sha256(b"nobody's");
        chain(network, &["image", "allow", "--image", &plain, "--signature", &nobodys]);
        let job = submit(network, &plain);
        reason(network, &job, &["is run:", "the registry serves no signature of it"]);
    }
}
