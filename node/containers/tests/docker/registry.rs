//! A registry of this test: it serves what it is given, or a refusal, and counts what it is asked.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard},
};

use http_body_util::Full;
use hyper::{
    Request, Response,
    body::{Bytes, Incoming},
    header::CONTENT_TYPE,
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::net::TcpListener;
use tokio_util::task::AbortOnDropHandle;
use veil_protocol_spec::scheduling::JobSpec;

use crate::common::{SLEEP, job};

const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const GZIP: &[u8] = include_bytes!("../oci/layer.tar.gz");
const ZSTD: &[u8] = include_bytes!("../oci/layer.tar.zst");
/// Of the layer as it is unpacked.
const LAYER: &str = "sha256:9a858d6d50660314f2968342b9dfc1c78348c0c27b166137a0c0b6ffce6234ec";

#[derive(Debug, Default)]
struct State {
    /// By digest, with the media type.
    content: BTreeMap<String, (String, Vec<u8>)>,
    /// What manifests are answered with instead: a status, and the code of an error.
    refusal: Option<(u16, &'static str)>,
    manifests_asked_for: usize,
}

/// See the [module documentation](self).
pub(crate) struct Registry {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    _serving: AbortOnDropHandle<()>,
}

fn digest(bytes: &[u8]) -> String {
    let hash = Sha256::digest(bytes);
    hash.iter().fold("sha256:".to_owned(), |text, byte| text + &format!("{byte:02x}"))
}

impl Registry {
    /// On a port of its own on loopback, where engines take registries without TLS.
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State::default()));
        let shared = Arc::clone(&state);
        let serving = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let state = Arc::clone(&shared);
                let answer = service_fn(move |request| answer(Arc::clone(&state), request));
                let serving = http1::Builder::new().serve_connection(TokioIo::new(stream), answer);
                tokio::spawn(serving);
            }
        });
        Self { address, state, _serving: AbortOnDropHandle::new(serving) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// A job that sleeps in the image with this digest.
    pub(crate) fn job(&self, digest: &str) -> JobSpec {
        let image = format!("{}/app@{digest}", self.address);
        JobSpec { image: image.parse().unwrap(), ..job(&SLEEP) }
    }

    /// The digest under which it is served.
    fn put(&self, media_type: &str, bytes: &[u8]) -> String {
        let digest = digest(bytes);
        self.put_as(&digest, media_type, bytes);
        digest
    }

    /// Under whatever digest.
    pub(crate) fn put_as(&self, digest: &str, media_type: &str, bytes: &[u8]) {
        let content = (media_type.to_owned(), bytes.to_vec());
        self.state().content.insert(digest.to_owned(), content);
    }

    /// A manifest or index from the folder.
    pub(crate) fn put_file(&self, json: &[u8]) -> String {
        let manifest: Value = serde_json::from_slice(json).unwrap();
        self.put(manifest["mediaType"].as_str().unwrap(), json)
    }

    /// A manifest from the folder, its layers and its configuration replaced by what this registry has.
    pub(crate) fn put_zstd(&self, json: &[u8]) -> String {
        let mut manifest: Value = serde_json::from_slice(json).unwrap();
        let media_type = manifest["layers"][0]["mediaType"].clone();
        manifest["config"] = self.config("amd64");
        manifest["layers"] = json!([self.layer(media_type.as_str().unwrap(), ZSTD)]);
        self.put(OCI_MANIFEST, manifest.to_string().as_bytes())
    }

    /// A manifest of one image, as one builds it for one platform.
    pub(crate) fn put_image(&self, architecture: &str) -> String {
        let layer = self.layer("application/vnd.oci.image.layer.v1.tar+gzip", GZIP);
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": self.config(architecture),
            "layers": [layer],
        });
        self.put(OCI_MANIFEST, manifest.to_string().as_bytes())
    }

    fn layer(&self, media_type: &str, bytes: &[u8]) -> Value {
        let digest = self.put(media_type, bytes);
        json!({ "mediaType": media_type, "digest": digest, "size": bytes.len() })
    }

    fn config(&self, architecture: &str) -> Value {
        let media_type = "application/vnd.oci.image.config.v1+json";
        let config = json!({
            "os": "linux",
            "architecture": architecture,
            "config": { "Cmd": ["/note.txt"] },
            "rootfs": { "type": "layers", "diff_ids": [LAYER] },
        });
        let bytes = config.to_string().into_bytes();
        let digest = self.put(media_type, &bytes);
        json!({ "mediaType": media_type, "digest": digest, "size": bytes.len() })
    }

    pub(crate) fn refuse(&self, refusal: Option<(u16, &'static str)>) {
        self.state().refusal = refusal;
    }

    pub(crate) fn manifests_asked_for(&self) -> usize {
        self.state().manifests_asked_for
    }
}

async fn answer(
    state: Arc<Mutex<State>>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let path = request.uri().path();
    let mut state = state.lock().unwrap();
    let refused = |(status, code): (u16, &str)| {
        let body = json!({ "errors": [{ "code": code, "message": code.to_lowercase() }] });
        (status, "application/json".to_owned(), body.to_string().into_bytes())
    };
    let is_manifest = path.contains("/manifests/");
    state.manifests_asked_for += usize::from(is_manifest);
    let digest = path.rsplit('/').next().unwrap_or_default();
    let (status, media_type, body) = match (state.refusal, state.content.get(digest)) {
        _ if path == "/v2/" => (200, "application/json".to_owned(), b"{}".to_vec()),
        (Some(refusal), _) if is_manifest => refused(refusal),
        (_, Some((media_type, bytes))) => (200, media_type.clone(), bytes.clone()),
        (_, None) if is_manifest => refused((404, "MANIFEST_UNKNOWN")),
        (_, None) => refused((404, "BLOB_UNKNOWN")),
    };
    let response = Response::builder().status(status).header(CONTENT_TYPE, media_type);
    Ok(response.body(Full::new(Bytes::from(body))).unwrap())
}
