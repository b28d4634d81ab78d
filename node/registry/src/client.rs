//! Asking a registry.

use core::time::Duration;

use async_recursion::async_recursion as boxed;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use reqwest::{
    Client, RequestBuilder, Response, StatusCode, Url,
    header::{ACCEPT, AUTHORIZATION, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE},
    redirect::Policy,
};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use veil_protocol_spec::{
    hex,
    scheduling::{ImageReference, ImageTag, RegistryCredentials},
};

use crate::{error::RegistryError, manifest};

/// For one request, its answer included: what is asked for is small.
const TIMEOUT: Duration = Duration::from_secs(30);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const REDIRECTS: usize = 5;
/// Without a word of the registry about it.
const PAUSE_SECONDS: u64 = 10;

/// Where images without a host in their name are.
const DEFAULT_HOST: &str = "registry-1.docker.io";
const MANIFESTS: &str = "application/vnd.oci.image.manifest.v1+json, \
                         application/vnd.docker.distribution.manifest.v2+json";

/// What a tag may stand for besides: one manifest for each platform.
const INDEXES: &str = "application/vnd.oci.image.index.v1+json, \
                       application/vnd.docker.distribution.manifest.list.v2+json";

/// What is asked for.
#[derive(Clone, Copy)]
pub(crate) enum What {
    Manifest,
    /// A manifest, or an index of several.
    Tag,
    Payload,
    Token,
}

impl What {
    /// The longest. Registries take manifests up to 4 MiB, as the distribution protocol recommends.
    const fn max(self) -> usize {
        match self {
            Self::Manifest | Self::Tag => 4 << 20,
            Self::Payload => 64 << 10,
            Self::Token => 64 << 10,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Manifest | Self::Tag => "manifest",
            Self::Payload => "signature",
            Self::Token => "token",
        }
    }
}

/// Finds the credentials for an image's registry by the image's name, or says why there are none.
pub type FindLogin = fn(&str) -> Result<RegistryCredentials, String>;

/// Asks registries, each by the host in the image's name.
#[derive(Clone, Debug)]
pub struct Registry {
    remote: Client,
    /// A proxy is for other machines.
    local: Client,
    insecure: Vec<String>,
}

/// Where an image is.
struct Place<'a> {
    host: &'a str,
    repository: String,
    is_local: bool,
    /// Whether it may be asked without TLS.
    is_insecure: bool,
}

/// As an answer to a login says it.
#[derive(Deserialize)]
struct Token {
    #[serde(alias = "access_token")]
    token: String,
}

impl<'a> Place<'a> {
    fn of(name: &'a str, insecure: &[String]) -> Self {
        // As the container engines read it: a first component is a host if it looks like one.
        let (host, path) = match name.split_once('/') {
            Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" => {
                (first, rest)
            }
            _ => ("docker.io", name),
        };
        let is_default = matches!(host, "docker.io" | "index.docker.io");
        let repository = if is_default && !path.contains('/') {
            format!("library/{path}")
        } else {
            path.to_owned()
        };
        let name = host.split_once(':').map_or(host, |(name, _)| name);
        let is_local = name == "localhost" || name.starts_with("127.");
        let is_insecure = is_local || insecure.iter().any(|listed| listed == host);
        let host = if is_default { DEFAULT_HOST } else { host };
        Self { host, repository, is_local, is_insecure }
    }
}

impl Registry {
    /// `insecure`: hosts with their ports that are asked without TLS if they have none, as those of this
    /// machine are.
    ///
    /// # Errors
    /// [`RegistryError::Unreachable`] if the system has no roots of trust.
    pub fn new(insecure: Vec<String>) -> Result<Self, RegistryError> {
        // It fails, which is not an error, if the process has chosen a provider already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let builder = || {
            let follow = Policy::custom(|attempt| {
                let from = attempt.previous().last().map(|url| url.scheme() == "https");
                if attempt.previous().len() > REDIRECTS {
                    attempt.error("too many redirects")
                } else if from == Some(true) && attempt.url().scheme() != "https" {
                    attempt.error("a redirect to where there is no TLS")
                } else {
                    attempt.follow()
                }
            });
            Client::builder()
                .timeout(TIMEOUT)
                .connect_timeout(CONNECT_TIMEOUT)
                .redirect(follow)
                .user_agent(concat!("veil/", env!("CARGO_PKG_VERSION")))
        };
        let failed = |error: reqwest::Error| RegistryError::Unreachable {
            url: "TLS".to_owned(),
            reason: chain(&error),
        };
        let remote = builder().build().map_err(failed)?;
        let local = builder().no_proxy().build().map_err(failed)?;
        Ok(Self { remote, local, insecure })
    }

    /// The image's manifest, byte for byte; it has the image's digest.
    ///
    /// # Errors
    /// [`RegistryError`].
    #[boxed]
    pub async fn manifest(&self, image: &ImageReference) -> Result<Vec<u8>, RegistryError> {
        self.manifest_as(image, None).await
    }

    /// The same, as whoever has these credentials.
    pub(crate) async fn manifest_as(
        &self,
        image: &ImageReference,
        by: Option<&RegistryCredentials>,
    ) -> Result<Vec<u8>, RegistryError> {
        let reference = format!("sha256:{}", image.digest_hex());
        let (url, bytes) = self.tagged(image, &reference, by).await?;
        of_digest(url, bytes, &image.digest_bytes()).map(|(_, bytes)| bytes)
    }

    /// The image that a tag stands for now. Of several platforms, that of Linux on `architecture`: `amd64`, `arm64`.
    ///
    /// # Errors
    /// [`RegistryError`], of which [`RegistryError::NoName`] if no registry has such names, and
    /// [`RegistryError::NoPlatform`].
    #[boxed]
    pub async fn resolve(
        &self,
        name: &str,
        tag: &str,
        architecture: &str,
    ) -> Result<ImageReference, RegistryError> {
        self.resolve_as(name, tag, architecture, None).await
    }

    /// The same, as whoever has these credentials. They go to the registry, and to whom it names for its logins, over TLS,
    /// or without to a registry that is asked without.
    ///
    /// # Errors
    /// As [`Registry::resolve`], and [`RegistryError::WrongCredentials`].
    #[boxed]
    pub async fn resolve_as(
        &self,
        name: &str,
        tag: &str,
        architecture: &str,
        by: Option<&RegistryCredentials>,
    ) -> Result<ImageReference, RegistryError> {
        let no_name = || RegistryError::NoName(format!("{name}:{tag}"));
        let is_tag = ImageTag::try_from(tag.to_owned()).is_ok();
        let with =
            |digest: &[u8]| format!("{name}@sha256:{}", hex(digest)).parse::<ImageReference>();
        let any = with(&[0; 32]).map_err(|_| no_name())?;
        if !is_tag {
            return Err(no_name());
        }
        let (url, bytes) = self.get(&any, &format!("manifests/{tag}"), What::Tag, by).await?;
        let digest = match manifest::of_platform(&bytes, architecture)? {
            None => Sha256::digest(&bytes).into(),
            Some(Some(digest)) => digest,
            Some(None) => {
                let architecture = architecture.to_owned();
                return Err(RegistryError::NoPlatform { url, architecture });
            }
        };
        with(&digest).map_err(|_| no_name())
    }

    /// The same; a registry that may serve it to those with a password only is asked again with what `login` finds for the
    /// image's name, which may wait for a program of this machine. Nobody gets a password who does not want one. The image,
    /// and whether it took one.
    ///
    /// # Errors
    /// In words: those of [`Registry::resolve_as`], and of `login` behind why the registry would be asked again.
    #[boxed]
    pub async fn resolve_or_log_in(
        &self,
        name: &str,
        tag: &str,
        architecture: &str,
        login: FindLogin,
    ) -> Result<(ImageReference, bool), String> {
        let error = match self.resolve(name, tag, architecture).await {
            Ok(image) => return Ok((image, false)),
            Err(error) if error.may_want_credentials() => error,
            Err(error) => return Err(error.to_string()),
        };
        let image = name.to_owned();
        let found = tokio::task::spawn_blocking(move || login(&image)).await;
        let by = match found.map_err(|error| error.to_string())? {
            Ok(by) => by,
            Err(none) => return Err(format!("{error}; {none}")),
        };
        let image = self.resolve_as(name, tag, architecture, Some(&by)).await;
        image.map(|image| (image, true)).map_err(|error| error.to_string())
    }

    /// The manifest under another reference beside the image, and its address.
    pub(crate) async fn tagged(
        &self,
        image: &ImageReference,
        reference: &str,
        by: Option<&RegistryCredentials>,
    ) -> Result<(String, Vec<u8>), RegistryError> {
        self.get(image, &format!("manifests/{reference}"), What::Manifest, by).await
    }

    /// A part of something beside the image, and its address.
    pub(crate) async fn blob(
        &self,
        image: &ImageReference,
        digest: &[u8; 32],
        what: What,
        by: Option<&RegistryCredentials>,
    ) -> Result<(String, Vec<u8>), RegistryError> {
        let path = format!("blobs/sha256:{}", hex(digest));
        let (url, bytes) = self.get(image, &path, what, by).await?;
        of_digest(url, bytes, digest)
    }

    async fn get(
        &self,
        image: &ImageReference,
        path: &str,
        what: What,
        by: Option<&RegistryCredentials>,
    ) -> Result<(String, Vec<u8>), RegistryError> {
        let place = Place::of(image.name(), &self.insecure);
        let client = if place.is_local { &self.local } else { &self.remote };
        let url = |scheme| format!("{scheme}://{}/v2/{}/{path}", place.host, place.repository);
        let accept = match what {
            What::Tag => format!("{MANIFESTS}, {INDEXES}"),
            _ => MANIFESTS.to_owned(),
        };
        let ask = |url: &str| client.get(url).header(ACCEPT, &accept);
        // As Docker does it: with TLS if there is any.
        let mut url_asked = url("https");
        let mut answer = ask(&url_asked).send().await;
        if place.is_insecure && answer.as_ref().is_err_and(reqwest::Error::is_connect) {
            url_asked = url("http");
            answer = ask(&url_asked).send().await;
        }
        let mut answer = answer.map_err(|error| unreachable(&url_asked, &error))?;
        if answer.status() == StatusCode::UNAUTHORIZED {
            let wrong = || wrong_credentials(&url_asked, by);
            let header = match login(client, &answer, &place) {
                Some(Login::Bearer(request)) => {
                    let request = match by {
                        Some(by) => request.basic_auth(&by.username, Some(&by.password)),
                        None => *request,
                    };
                    let (_, bytes) =
                        read(request, What::Token).await.map_err(|error| match error {
                            RegistryError::NotServed { status: 401 | 403, .. } => {
                                wrong().unwrap_or(error)
                            }
                            error => error,
                        })?;
                    let no_token = |error: serde_json::Error| RegistryError::Unreachable {
                        url: url_asked.clone(),
                        reason: format!("no token: {error}"),
                    };
                    let token: Token = serde_json::from_slice(&bytes).map_err(no_token)?;
                    Some(format!("Bearer {}", token.token))
                }
                Some(Login::Basic) => by.map(|RegistryCredentials { username, password }| {
                    format!("Basic {}", STANDARD.encode(format!("{username}:{password}")))
                }),
                None => None,
            };
            if let Some(header) = header {
                let mut header = HeaderValue::try_from(header).map_err(|_| {
                    let reason = "a token that is no token".to_owned();
                    wrong().unwrap_or(RegistryError::Unreachable { url: url_asked.clone(), reason })
                })?;
                header.set_sensitive(true);
                let again = ask(&url_asked).header(AUTHORIZATION, header).send().await;
                answer = again.map_err(|error| unreachable(&url_asked, &error))?;
                if answer.status() == StatusCode::UNAUTHORIZED
                    && let Some(error) = wrong()
                {
                    return Err(error);
                }
            }
        }
        Ok((url_asked.clone(), read_answer(answer, url_asked, what).await?))
    }
}

/// How a registry wants to be asked.
enum Login {
    /// With a token, which this request gets.
    Bearer(Box<RequestBuilder>),
    /// With user and password.
    Basic,
}

/// How it says that it does. The words are the registry's own: for a token it is asked where it says, with TLS as the
/// registry itself.
fn login(client: &Client, answer: &Response, place: &Place<'_>) -> Option<Login> {
    let header = answer.headers().get(WWW_AUTHENTICATE)?.to_str().ok()?;
    let (scheme, said) = header.split_once(' ').unwrap_or((header, ""));
    if scheme.eq_ignore_ascii_case("basic") {
        return Some(Login::Basic);
    }
    if !scheme.eq_ignore_ascii_case("bearer") {
        return None;
    }
    let value = |name: &str| {
        let (_, rest) = said.split_once(&format!("{name}=\""))?;
        rest.split_once('"').map(|(value, _)| value)
    };
    let mut url = Url::parse(value("realm")?).ok()?;
    if url.scheme() != "https" && !place.is_insecure {
        return None;
    }
    let scope = format!("repository:{}:pull", place.repository);
    if let Some(service) = value("service") {
        url.query_pairs_mut().append_pair("service", service);
    }
    url.query_pairs_mut().append_pair("scope", &scope);
    Some(Login::Bearer(Box::new(client.get(url))))
}

fn wrong_credentials(url: &str, by: Option<&RegistryCredentials>) -> Option<RegistryError> {
    let username = by?.username.clone();
    Some(RegistryError::WrongCredentials { url: url.to_owned(), username })
}

async fn read(request: RequestBuilder, what: What) -> Result<(String, Vec<u8>), RegistryError> {
    let answer = request.send().await.map_err(|error| {
        let url = error.url().map(without_query).unwrap_or_default();
        unreachable(&url, &error)
    })?;
    let url = without_query(answer.url());
    Ok((url.clone(), read_answer(answer, url, what).await?))
}

/// The answer's content, up to the limit.
async fn read_answer(
    mut answer: Response,
    url: String,
    what: What,
) -> Result<Vec<u8>, RegistryError> {
    let status = answer.status();
    match status.as_u16() {
        200 => {}
        429 => {
            let header = answer.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
            let seconds = header.and_then(|value| value.trim().parse().ok());
            return Err(RegistryError::Limited { url, seconds: seconds.unwrap_or(PAUSE_SECONDS) });
        }
        408 | 500..=599 => {
            let reason = format!("HTTP status {}", status.as_u16());
            return Err(RegistryError::Unreachable { url, reason });
        }
        status => return Err(RegistryError::NotServed { url, status }),
    }
    let max = what.max();
    let mut bytes = Vec::new();
    loop {
        match answer.chunk().await {
            Ok(Some(chunk)) if bytes.len() + chunk.len() > max => {
                return Err(RegistryError::TooLarge { url, what: what.name(), max });
            }
            Ok(Some(chunk)) => bytes.extend_from_slice(&chunk),
            Ok(None) => return Ok(bytes),
            Err(error) => return Err(unreachable(&url, &error)),
        }
    }
}

fn of_digest(
    url: String,
    bytes: Vec<u8>,
    digest: &[u8; 32],
) -> Result<(String, Vec<u8>), RegistryError> {
    if <[u8; 32]>::from(Sha256::digest(&bytes)) == *digest {
        Ok((url, bytes))
    } else {
        Err(RegistryError::WrongContent { url })
    }
}

fn without_query(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    url.into()
}

fn unreachable(url: &str, error: &reqwest::Error) -> RegistryError {
    RegistryError::Unreachable { url: url.to_owned(), reason: chain(error) }
}

/// The innermost reason says what is wrong.
fn chain(error: &reqwest::Error) -> String {
    let mut source: &dyn core::error::Error = error;
    while let Some(inner) = source.source() {
        source = inner;
    }
    source.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_where_engines_look_for_it() {
        let insecure = ["registry.lan:5000".to_owned()];
        for (name, host, repository, is_local, is_insecure) in [
            ("busybox", DEFAULT_HOST, "library/busybox", false, false),
            ("docker.io/busybox", DEFAULT_HOST, "library/busybox", false, false),
            ("team/app", DEFAULT_HOST, "team/app", false, false),
            ("r.example/app", "r.example", "app", false, false),
            ("registry.lan:5000/a/b", "registry.lan:5000", "a/b", false, true),
            ("registry.lan/a/b", "registry.lan", "a/b", false, false),
            ("localhost/app", "localhost", "app", true, true),
            ("127.0.0.1:5000/app", "127.0.0.1:5000", "app", true, true),
        ] {
            let image: ImageReference =
                format!("{name}@sha256:{}", "ab".repeat(32)).parse().unwrap();
            let place = Place::of(image.name(), &insecure);
            assert_eq!((place.host, &place.repository[..]), (host, repository), "{name}");
            assert_eq!((place.is_local, place.is_insecure), (is_local, is_insecure), "{name}");
        }
    }
}
