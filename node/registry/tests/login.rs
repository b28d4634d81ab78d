//! The real registry, with a file of passwords (`htpasswd`), on loopback; `cargo xtask setup --docker` installs it.

#![allow(clippy::unwrap_used, reason = "a failed helper fails the test")]

use std::{
    fs,
    net::TcpListener,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use reqwest::{Client, Response, StatusCode, header::CONTENT_TYPE};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tokio::time::sleep;
use veil_node_registry::{Registry, RegistryError, parts};
use veil_protocol_spec::{
    hex,
    scheduling::{ImageApproval, RegistryCredentials},
};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// `robot` and `hunter2`, by bcrypt.
const PASSWORDS: &str = "robot:$2b$05$abcdefghijklmnopqrstuuoXuKqgZXLiJqzfmMXDDhSFPIvxV7t8.\n";

struct Server {
    address: String,
    process: Child,
    _folder: tempfile::TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn robot(password: &str) -> RegistryCredentials {
    RegistryCredentials { username: "robot".to_owned(), password: password.to_owned() }
}

impl Server {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        // Free a moment ago.
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        fs::write(path("htpasswd"), PASSWORDS).unwrap();
        let config = format!(
            "version: 0.1\nlog: {{level: error}}\nhttp: {{addr: '{address}'}}\n\
             storage: {{filesystem: {{rootdirectory: '{}'}}}}\n\
             auth: {{htpasswd: {{realm: test, path: '{}'}}}}\n",
            path("data").display(),
            path("htpasswd").display()
        );
        fs::write(path("config.yml"), config).unwrap();
        let process = Command::new("docker-registry")
            .arg("serve")
            .arg(path("config.yml"))
            .stderr(Stdio::null())
            .spawn()
            .expect("the registry is missing: cargo xtask setup --docker");
        let server = Self { address, process, _folder: folder };
        let deadline = Instant::now() + Duration::from_secs(60);
        while Client::new().get(server.url("")).send().await.is_err() {
            assert!(Instant::now() < deadline, "the registry does not answer");
            sleep(Duration::from_millis(50)).await;
        }
        server
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}/v2/{path}", self.address)
    }

    /// Pushes an image of one blob, which is its configuration, and says its digest.
    async fn push(&self, name: &str, tag: &str) -> String {
        let client = Client::new();
        let digest = |bytes: &[u8]| format!("sha256:{}", hex(&Sha256::digest(bytes)));
        let done = |answer: Response| assert_eq!(answer.status(), StatusCode::CREATED);
        let blob = b"{}";
        let upload = client.post(self.url(&format!("{name}/blobs/uploads/")));
        let upload = upload.basic_auth("robot", Some("hunter2")).send().await.unwrap();
        let place = upload.headers()["location"].to_str().unwrap();
        let put = client.put(format!("{place}&digest={}", digest(blob))).body(&blob[..]);
        done(put.basic_auth("robot", Some("hunter2")).send().await.unwrap());
        let config = json!({ "mediaType": "application/vnd.oci.image.config.v1+json", "size": 2, "digest": digest(blob) });
        let manifest =
            json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [] });
        let manifest = manifest.to_string();
        let put =
            client.put(self.url(&format!("{name}/manifests/{tag}"))).header(CONTENT_TYPE, MANIFEST);
        let put = put.basic_auth("robot", Some("hunter2")).body(manifest.clone());
        done(put.send().await.unwrap());
        digest(manifest.as_bytes())
    }
}

#[tokio::test]
async fn a_private_tag_is_resolved_by_who_has_the_password() {
    // Also chooses who encrypts, which the test's own client needs.
    let registry = Registry::new(Vec::new()).unwrap();
    let server = Server::start().await;
    let digest = server.push("team/app", "1").await;
    let name = format!("{}/team/app", server.address);
    let ask =
        async |by: Option<&RegistryCredentials>| registry.resolve_as(&name, "1", "amd64", by).await;
    let refused = ask(None).await.unwrap_err();
    assert!(matches!(refused, RegistryError::NotServed { status: 401, .. }), "{refused}");
    let image = ask(Some(&robot("hunter2"))).await.unwrap();
    assert_eq!(image.to_string(), format!("{name}@{digest}"));
    let stranger = RegistryCredentials { username: "nobody".to_owned(), ..robot("hunter2") };
    for (by, username) in
        [(robot("hunter3"), "robot"), (stranger, "nobody"), (robot("a\nb"), "robot")]
    {
        let refused = ask(Some(&by)).await.unwrap_err();
        let named = matches!(&refused, RegistryError::WrongCredentials { username: of, .. } if of == username);
        assert!(named, "{refused}");
        let says = refused.to_string();
        assert!(says.contains("docker login") && !says.contains("hunter"), "{says}");
    }
    let missing = registry.resolve_as(&name, "2", "amd64", Some(&robot("hunter2"))).await;
    assert!(matches!(missing, Err(RegistryError::NotServed { status: 404, .. })), "{missing:?}");
}

/// Of a worker, whose job has the password sealed in it.
#[tokio::test]
async fn a_private_image_is_checked_by_who_has_the_password() {
    let registry = Registry::new(Vec::new()).unwrap();
    let server = Server::start().await;
    let digest = server.push("team/app", "1").await;
    let image = format!("{}/team/app@{digest}", server.address).parse().unwrap();
    let manifest = Client::new().get(server.url(&format!("team/app/manifests/{digest}")));
    let manifest = manifest.header("accept", MANIFEST).basic_auth("robot", Some("hunter2"));
    let manifest = manifest.send().await.unwrap().bytes().await.unwrap();
    let root = parts(&manifest, None).unwrap().tree().root();
    let approval = ImageApproval { root, signature: None };
    let check =
        async |by: Option<&RegistryCredentials>| registry.check(&image, &approval, None, by).await;
    assert_eq!(check(Some(&robot("hunter2"))).await, Ok(None));
    let refused = check(None).await.unwrap_err();
    assert!(matches!(refused, RegistryError::NotServed { status: 401, .. }), "{refused}");
    let refused = check(Some(&robot("hunter3"))).await.unwrap_err();
    assert!(matches!(refused, RegistryError::WrongCredentials { .. }), "{refused}");
}
