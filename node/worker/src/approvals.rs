//! What the chain says of an image is compared with what its registry serves, before an engine is asked for it.
//!
//! # Flow
//! 1. An image that the cluster does not run is refused. While the cluster runs all, nothing more is asked.
//! 2. Else [`Registry::check`] compares manifest, configuration, layers and signature with what the chain
//!    commits to, and checks the signature if the policy asks for one. A private registry is asked with the credentials that
//!    are sealed in the job.
//! 3. What has passed is kept, because it holds for ever: all of it follows from digests. So a replica starts
//!    again while its registry is away.
//! 4. When the chain says something else, what was refused for good is asked about again.
//!
//! # State
//! What has passed is in `checked-images.json`. Without it, or with one that cannot be read, it is checked anew.

use std::{
    collections::VecDeque,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use serde::{Deserialize, Serialize};
use veil_node_config::WorkerSection;
use veil_node_containers::{Approve, Executor, ReplicaError};
use veil_node_core::cluster::Views;
use veil_node_registry::{ImageKey, KeyError, Registry, RegistryError};
use veil_node_storage::durable::replace;
use veil_protocol_spec::scheduling::{ImageApproval, ImageReference, RegistryCredentials};
use zeroize::Zeroizing;

/// As many as a cluster allows at once. The oldest go first.
const MAX_PASSED: usize = 1024;

/// What the chain says of an image now.
#[derive(Clone, Debug, Default)]
pub(crate) struct Said {
    /// Why the cluster does not run it.
    pub(crate) refused: Option<String>,
    /// Nothing while the cluster runs all.
    pub(crate) approval: Option<ImageApproval>,
    /// Whether the policy asks for signatures.
    pub(crate) signed_only: bool,
}

/// An image that is what the chain commits to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Passed {
    image: ImageReference,
    approval: ImageApproval,
    /// The key that has signed it, if that was asked.
    signed_by: Option<String>,
}

/// See the [module documentation](self).
pub(crate) struct Approvals {
    registry: Registry,
    keys: Vec<ImageKey>,
    said: Box<dyn Fn(&ImageReference) -> Said + Send + Sync>,
    passed: Mutex<VecDeque<Passed>>,
    file: PathBuf,
}

/// Why images cannot be checked at all.
#[derive(Debug, thiserror::Error)]
pub enum ApprovalError {
    /// A public key.
    #[error("worker.image_keys: {0}")]
    Key(#[from] KeyError),
    /// This machine.
    #[error("no registry can be asked: {0}")]
    Registry(#[from] RegistryError),
}

impl Approvals {
    /// Reads the keys, and what has passed before.
    ///
    /// # Errors
    /// [`ApprovalError`].
    pub(crate) fn open(
        section: &WorkerSection,
        data_dir: &Path,
        said: impl Fn(&ImageReference) -> Said + Send + Sync + 'static,
    ) -> Result<Arc<Self>, ApprovalError> {
        let keys = section.image_keys.iter().map(|path| ImageKey::read(path));
        let keys = keys.collect::<Result<_, _>>()?;
        let file = data_dir.join("checked-images.json");
        let passed = std::fs::read(&file).ok();
        let passed = passed.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        Ok(Arc::new(Self {
            registry: Registry::new(section.insecure_registries.clone())?,
            keys,
            said: Box::new(said),
            passed: Mutex::new(passed.unwrap_or_default()),
            file,
        }))
    }

    /// For the executor.
    pub(crate) fn approve(self: &Arc<Self>) -> Approve {
        let approvals = Arc::clone(self);
        Approve::new(move |image, by| {
            let approvals = Arc::clone(&approvals);
            Box::pin(async move { approvals.ask(image, by).await })
        })
    }

    async fn ask(
        &self,
        image: ImageReference,
        by: Option<Zeroizing<RegistryCredentials>>,
    ) -> Result<(), ReplicaError> {
        // 1. "An image that the cluster does not run is refused."
        let Said { refused, approval, signed_only } = (self.said)(&image);
        if let Some(reason) = refused {
            return Err(ReplicaError::NotApproved { image, reason });
        }
        let Some(approval) = approval else { return Ok(()) };
        if self.has_passed(&image, &approval, signed_only) {
            return Ok(());
        }
        // 2. "compares manifest, configuration, layers and signature with what the chain commits to"
        let keys = signed_only.then_some(&self.keys[..]);
        match self.registry.check(&image, &approval, keys, by.as_deref()).await {
            Ok(key) => {
                let signed_by = key.map(ImageKey::to_hex);
                self.pass(Passed { image, approval, signed_by });
                Ok(())
            }
            Err(error) => Err(refusal(image, by.is_some(), &error)),
        }
    }

    fn has_passed(
        &self,
        image: &ImageReference,
        approval: &ImageApproval,
        signed_only: bool,
    ) -> bool {
        let is_ours = |key: &String| self.keys.iter().any(|own| own.to_hex() == *key);
        let passed = self.passed.lock().unwrap_or_else(PoisonError::into_inner);
        passed.iter().any(|passed| {
            // Its name may be another: the content is the digest's.
            passed.image.digest_hex() == image.digest_hex()
                && passed.approval == *approval
                && (!signed_only || passed.signed_by.as_ref().is_some_and(is_ours))
        })
    }

    /// 3. "What has passed is kept."
    fn pass(&self, new: Passed) {
        let mut passed = self.passed.lock().unwrap_or_else(PoisonError::into_inner);
        passed.retain(|old| old.image.digest_hex() != new.image.digest_hex());
        passed.push_back(new);
        while passed.len() > MAX_PASSED {
            passed.pop_front();
        }
        let saved = serde_json::to_vec(&*passed).map_err(std::io::Error::other);
        if let Err(error) = saved.and_then(|bytes| replace(&self.file, &bytes)) {
            let file = self.file.display();
            tracing::warn!(%error, %file, "images that were checked are checked again after a restart");
        }
    }
}

fn refusal(image: ImageReference, with_credentials: bool, error: &RegistryError) -> ReplicaError {
    let reason = error.to_string();
    match error {
        RegistryError::Unreachable { .. } => ReplicaError::Pull { image, reason },
        RegistryError::Limited { .. } => ReplicaError::Limited { image, reason },
        RegistryError::WrongCredentials { .. } => ReplicaError::Credentials { image, reason },
        // It knows who asks, and does not let it.
        RegistryError::NotServed { status: 401 | 403, .. } if with_credentials => {
            ReplicaError::Credentials { image, reason }
        }
        RegistryError::NotServed { .. } => ReplicaError::NoSuchImage { image, reason },
        _ => ReplicaError::NotApproved { image, reason },
    }
}

/// Step 4: "When the chain says something else, what was refused for good is asked about again." Runs until it is
/// dropped.
pub(crate) async fn follow(views: &Views, executor: &Executor) {
    let mut views = views.subscribe();
    loop {
        let images = views.borrow_and_update().images.clone();
        if views.wait_for(|view| view.images != images).await.is_err() {
            return;
        }
        executor.approvals_changed();
    }
}

#[cfg(test)]
mod tests {
    use sha2::{Digest as _, Sha256};
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };
    use veil_node_registry::parts;
    use veil_protocol_spec::{KeccakDigest, hex};

    use super::*;

    const APPROVAL: ImageApproval =
        ImageApproval { root: KeccakDigest([1; 32]), signature: Some([2; 32]) };

    /// Nobody listens there.
    fn image() -> ImageReference {
        format!("127.0.0.1:1/app@sha256:{}", "ab".repeat(32)).parse().unwrap()
    }

    fn open(folder: &Path, said: &Said, keys: &[&str]) -> Arc<Approvals> {
        let image_keys = keys.iter().map(PathBuf::from).collect();
        let section = WorkerSection { image_keys, ..WorkerSection::default() };
        let said = said.clone();
        Approvals::open(&section, folder, move |_| said.clone()).unwrap()
    }

    #[tokio::test]
    async fn what_the_cluster_does_not_run_is_refused_before_anybody_is_asked() {
        let folder = tempfile::tempdir().unwrap();
        let refused = Said { refused: Some("not here".to_owned()), ..Said::default() };
        let asked = open(folder.path(), &refused, &[]).ask(image(), None).await;
        assert!(matches!(asked, Err(ReplicaError::NotApproved { .. })), "{asked:?}");
        open(folder.path(), &Said::default(), &[]).ask(image(), None).await.unwrap();
        let allowed = Said { approval: Some(APPROVAL), ..Said::default() };
        let asked = open(folder.path(), &allowed, &[]).ask(image(), None).await.unwrap_err();
        assert!(matches!(asked, ReplicaError::Pull { .. }) && !asked.is_final(), "{asked}");
    }

    #[tokio::test]
    async fn what_has_passed_starts_again_while_its_registry_is_away() {
        let folder = tempfile::tempdir().unwrap();
        let key = folder.path().join("cosign.pub");
        std::fs::write(&key, include_bytes!("../../registry/tests/p256.pub")).unwrap();
        let key = key.to_str().unwrap();
        let unsigned = Said { approval: Some(APPROVAL), ..Said::default() };
        let signed = Said { signed_only: true, ..unsigned.clone() };
        let approvals = open(folder.path(), &unsigned, &[key]);
        approvals.pass(Passed { image: image(), approval: APPROVAL, signed_by: None });
        approvals.ask(image(), None).await.unwrap();
        open(folder.path(), &unsigned, &[]).ask(image(), None).await.unwrap();
        // The policy asks for more since, or the chain commits to something else.
        assert!(open(folder.path(), &signed, &[key]).ask(image(), None).await.is_err());
        let other = ImageApproval { root: KeccakDigest([9; 32]), ..APPROVAL };
        let other = Said { approval: Some(other), ..Said::default() };
        assert!(open(folder.path(), &other, &[key]).ask(image(), None).await.is_err());

        let signed_by = Some(approvals.keys[0].to_hex());
        approvals.pass(Passed { image: image(), approval: APPROVAL, signed_by });
        open(folder.path(), &signed, &[key]).ask(image(), None).await.unwrap();
        open(folder.path(), &unsigned, &[]).ask(image(), None).await.unwrap();
        // The key is not trusted any more.
        assert!(open(folder.path(), &signed, &[]).ask(image(), None).await.is_err());
        std::fs::write(folder.path().join("checked-images.json"), b"{").unwrap();
        assert!(
            open(folder.path(), &unsigned, &[]).ask(image(), None).await.is_err(),
            "checked anew"
        );
    }

    /// A registry of one image, without a signature, for whoever has this login, in base64.
    async fn private(manifest: Vec<u8>, login: &'static str) -> ImageReference {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let digest = hex(&Sha256::digest(&manifest));
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") {
                    match stream.read_u8().await {
                        // The beginning of TLS is no request.
                        Ok(byte) if !request.is_empty() || byte == b'G' => request.push(byte),
                        _ => break,
                    }
                }
                if request.is_empty() {
                    continue;
                }
                let request = String::from_utf8_lossy(&request).to_lowercase();
                let said = format!("authorization: basic {login}").to_lowercase();
                let (head, content) = if request.contains(&said) {
                    ("200 OK", &manifest[..])
                } else {
                    ("401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"test\"", &[][..])
                };
                let length = content.len();
                let head = format!(
                    "HTTP/1.1 {head}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
                );
                // Who is refused hangs up early.
                let _ = stream.write_all(head.as_bytes()).await;
                let _ = stream.write_all(content).await;
            }
        });
        format!("{address}/app@sha256:{digest}").parse().unwrap()
    }

    #[tokio::test]
    async fn a_private_image_is_checked_as_its_job_may_see_it() {
        let folder = tempfile::tempdir().unwrap();
        let manifest =
            format!(r#"{{"config":{{"digest":"sha256:{}"}},"layers":[]}}"#, "ab".repeat(32));
        let root = parts(manifest.as_bytes(), None).unwrap().tree().root();
        let image = private(manifest.into_bytes(), "cm9ib3Q6aHVudGVyMg==").await;
        let allowed =
            Said { approval: Some(ImageApproval { root, signature: None }), ..Said::default() };
        let approvals = open(folder.path(), &allowed, &[]);
        let robot = |password: &str| {
            let (username, password) = ("robot".to_owned(), password.to_owned());
            Some(Zeroizing::new(RegistryCredentials { username, password }))
        };
        let without = approvals.ask(image.clone(), None).await.unwrap_err();
        assert!(matches!(without, ReplicaError::NoSuchImage { .. }), "{without}");
        let wrong = approvals.ask(image.clone(), robot("hunter3")).await.unwrap_err();
        assert!(matches!(wrong, ReplicaError::Credentials { .. }), "{wrong}");
        assert!(!wrong.to_string().contains("hunter"), "{wrong}");
        approvals.ask(image.clone(), robot("hunter2")).await.unwrap();
        // What it is, is known from now on: whether a job may have it, its own pull decides.
        approvals.ask(image, None).await.unwrap();
    }

    #[test]
    fn whoever_the_registry_knows_and_refuses_has_wrong_credentials() {
        let refused = |status, with| {
            refusal(image(), with, &RegistryError::NotServed { url: String::new(), status })
        };
        for status in [401, 403] {
            assert!(matches!(refused(status, true), ReplicaError::Credentials { .. }));
            assert!(matches!(refused(status, false), ReplicaError::NoSuchImage { .. }));
        }
        assert!(matches!(refused(404, true), ReplicaError::NoSuchImage { .. }));
    }

    #[test]
    fn a_key_that_is_none_is_named_at_the_start() {
        let image_keys = vec![PathBuf::from("Cargo.toml")];
        let section = WorkerSection { image_keys, ..WorkerSection::default() };
        let opened = Approvals::open(&section, Path::new("."), |_| Said::default());
        let error = opened.map(drop).unwrap_err().to_string();
        assert!(error.starts_with("worker.image_keys: Cargo.toml"), "{error}");
    }
}
