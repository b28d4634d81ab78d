//! What `docker login` has left: passwords of registries, in its configuration or with credential helpers.
//!
//! The file is `$DOCKER_CONFIG/config.json`, otherwise `~/.docker/config.json`. For a registry it names a helper of its own
//! (`credHelpers`), or holds user and password (`auths`), or names a helper for all (`credsStore`): in this order. A helper is
//! the program `docker-credential-NAME`, which is asked as Docker asks it.
//!
//! # Security
//! What is read is zeroized; nothing of it is in an error.

use std::{
    collections::BTreeMap,
    env, fs,
    io::{Read as _, Write as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::Deserialize;
use veil_protocol_spec::scheduling::RegistryCredentials;
use zeroize::{ZeroizeOnDrop, Zeroizing};

/// The user name that stands for a token in place of a password.
const TOKEN: &str = "<token>";
/// Longest answer of a helper.
const MAX_ANSWER: u64 = 64 * 1024;

/// Why there are no credentials. Nothing secret is in the messages.
#[derive(Debug, thiserror::Error)]
#[error(
    "{path} has no credentials for {registry}: {reason}; `docker login {registry}` writes them, or give \
     registry.username and registry.password"
)]
#[allow(missing_docs, reason = "the message says what its fields are")]
pub struct NoLogin {
    pub path: PathBuf,
    pub registry: String,
    pub reason: String,
}

/// What `docker login` writes, as far as it matters here.
#[derive(Deserialize)]
struct DockerConfig {
    #[serde(default)]
    auths: BTreeMap<String, DockerAuth>,
    #[serde(default, rename = "credHelpers")]
    helpers: BTreeMap<String, String>,
    #[serde(default, rename = "credsStore")]
    store: Option<String>,
}

#[derive(Deserialize, ZeroizeOnDrop)]
struct DockerAuth {
    auth: Option<String>,
    #[serde(default, rename = "identitytoken")]
    token: Option<String>,
}

/// What a helper answers.
#[derive(Deserialize, ZeroizeOnDrop)]
struct Answer {
    #[serde(rename = "Username")]
    username: String,
    #[serde(rename = "Secret")]
    secret: String,
}

/// The registry of an image, as `docker login` names it; first as helpers know it.
fn registry_of(image: &str) -> (String, Vec<String>) {
    let first = image.split('/').next().unwrap_or_default();
    let has_host = image.contains('/') && (first.contains(['.', ':']) || first == "localhost");
    if has_host && !matches!(first, "docker.io" | "index.docker.io") {
        (first.to_owned(), vec![first.to_owned(), format!("https://{first}")])
    } else {
        let keys = ["https://index.docker.io/v1/", "index.docker.io", "docker.io"];
        ("docker.io".to_owned(), keys.map(str::to_owned).to_vec())
    }
}

/// The credentials for the registry of an image, by the image's name. May ask a program of this machine, and wait for it.
///
/// # Errors
/// [`NoLogin`].
pub fn credentials(image: &str) -> Result<RegistryCredentials, NoLogin> {
    let folder = env::var_os("DOCKER_CONFIG").map(PathBuf::from);
    let home = || env::home_dir().unwrap_or_default().join(".docker");
    credentials_in(&folder.unwrap_or_else(home).join("config.json"), image)
}

pub(crate) fn credentials_in(path: &Path, image: &str) -> Result<RegistryCredentials, NoLogin> {
    let (registry, keys) = registry_of(image);
    let none =
        |reason: String| NoLogin { path: path.to_owned(), registry: registry.clone(), reason };
    let words = |reason: &str| none(reason.to_owned());
    let file = fs::read(path).map(Zeroizing::new).map_err(|_| words("it cannot be read"))?;
    let config: DockerConfig =
        serde_json::from_slice(&file).map_err(|_| words("it is not what Docker writes"))?;
    let DockerConfig { auths, helpers, store } = config;
    if let Some((key, helper)) = keys.iter().find_map(|key| helpers.get_key_value(key)) {
        return ask(helper, key).map_err(none);
    }
    let found = keys.iter().find_map(|key| auths.get(key));
    if found.is_some_and(|found| found.token.as_ref().is_some_and(|token| !token.is_empty())) {
        return Err(words("they are a token of an identity, which workers cannot pull with"));
    }
    let auth = found.and_then(|found| found.auth.as_ref()).filter(|auth| !auth.is_empty());
    let Some(auth) = auth else {
        return match (store, keys.first()) {
            (Some(store), Some(key)) => ask(&store, key).map_err(none),
            _ => Err(words("it has no such entry")),
        };
    };
    let both = STANDARD.decode(auth).map(Zeroizing::new);
    let both = both.map_err(|_| words("they are malformed"))?;
    let both = core::str::from_utf8(&both).ok().and_then(|text| text.split_once(':'));
    let (username, password) = both.ok_or_else(|| words("they are malformed"))?;
    Ok(RegistryCredentials { username: username.to_owned(), password: password.to_owned() })
}

/// Asks a helper, or says why it has nothing.
fn ask(helper: &str, server: &str) -> Result<RegistryCredentials, String> {
    let program = format!("docker-credential-{helper}");
    let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if !helper.chars().all(is_name) {
        return Err(format!("`{helper}` is no name of a credential helper"));
    }
    let failed = |error: std::io::Error| format!("{program}: {error}");
    let mut command = Command::new(&program);
    command.arg("get").stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut running = command.spawn().map_err(failed)?;
    if let Some(mut input) = running.stdin.take() {
        // One that does not read it says why.
        let _ = input.write_all(server.as_bytes());
    }
    // Reserved at once: a buffer that grows leaves copies behind.
    let mut said = Zeroizing::new(Vec::with_capacity(MAX_ANSWER as usize + 1));
    let read = running.stdout.take().map(|out| out.take(MAX_ANSWER).read_to_end(&mut said));
    let ended = running.wait().map_err(failed)?;
    read.unwrap_or(Ok(0)).map_err(failed)?;
    if !ended.success() {
        // What helpers say then is a sentence, and nothing secret: as Docker, only the known one is repeated.
        let unknown = String::from_utf8_lossy(&said).contains("credentials not found");
        let why = if unknown { "has none".to_owned() } else { format!("failed ({ended})") };
        return Err(format!("{program} {why}"));
    }
    let answer: Answer = serde_json::from_slice(&said)
        .map_err(|_| format!("{program} answers something else than credentials"))?;
    if answer.username == TOKEN {
        return Err("they are a token of an identity, which workers cannot pull with".to_owned());
    }
    let (username, password) = (answer.username.clone(), answer.secret.clone());
    Ok(RegistryCredentials { username, password })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn credentials_are_those_that_docker_login_left() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.json");
        let login = |image: &str| credentials_in(&path, image);
        let says = |image: &str| login(image).unwrap_err().to_string();
        assert!(says("r.example/app").contains("cannot be read"));
        fs::write(&path, "[").unwrap();
        assert!(says("r.example/app").contains("not what Docker writes"));
        let auth = STANDARD.encode("robot:pass:word");
        let config = format!(
            "{{\"auths\":{{\"r.example:5000\":{{\"auth\":\"{auth}\"}},\"empty.example\":{{}},\
             \"token.example\":{{\"auth\":\"{auth}\",\"identitytoken\":\"hunter2\"}},\
             \"https://index.docker.io/v1/\":{{\"auth\":\"{auth}\"}}}}}}"
        );
        fs::write(&path, config).unwrap();
        for name in ["r.example:5000/team/app", "library/app", "app", "docker.io/team/app"] {
            let found = login(name).unwrap();
            assert_eq!((&*found.username, &*found.password), ("robot", "pass:word"), "{name}");
        }
        for name in ["r.example/app", "empty.example/app"] {
            assert!(says(name).contains("no such entry"), "{}", says(name));
        }
        assert!(says("token.example/app").contains("token of an identity"));
    }

    /// A helper of this test is found as Docker finds it, by the `PATH`, which only a process of its own may change.
    #[test]
    fn a_credential_helper_is_asked_for_what_it_keeps() {
        const FOLDER: &str = "VEIL_TEST_HELPERS";
        let Some(folder) = env::var_os(FOLDER).map(PathBuf::from) else {
            let folder = tempfile::tempdir().unwrap();
            let helper = folder.path().join("docker-credential-veil-test");
            let script = "#!/bin/sh\nread -r server\ncase $server in\n\
                *.none) echo 'credentials not found in native keychain'; exit 1;;\n\
                *.broken) echo hunter2; exit 2;;\n*.odd) echo hunter2;;\n\
                *.token) echo '{\"ServerURL\":\"a\",\"Username\":\"<token>\",\"Secret\":\"hunter2\"}';;\n\
                *) echo '{\"ServerURL\":\"a\",\"Username\":\"'$server'\",\"Secret\":\"hunter2\"}';;\nesac\n";
            fs::write(&helper, script).unwrap();
            fs::set_permissions(&helper, fs::Permissions::from_mode(0o755)).unwrap();
            let path = env::var("PATH").unwrap_or_default();
            let again = Command::new(env::current_exe().unwrap())
                .args([
                    "--exact",
                    "docker_login::tests::a_credential_helper_is_asked_for_what_it_keeps",
                ])
                .args(["--nocapture"])
                .env("PATH", format!("{}:{path}", folder.path().display()))
                .env(FOLDER, folder.path())
                .output()
                .unwrap();
            let said = String::from_utf8_lossy(&again.stdout);
            assert!(again.status.success() && said.contains("1 passed"), "{again:?}");
            return;
        };
        let path = folder.join("config.json");
        let auth = STANDARD.encode("robot:own");
        let config = format!(
            "{{\"auths\":{{\"stored.example\":{{}},\"file.example\":{{\"auth\":\"{auth}\"}},\
             \"own.example\":{{\"auth\":\"{auth}\"}}}},\"credsStore\":\"veil-test\",\
             \"credHelpers\":{{\"own.example\":\"veil-test\",\"lost.example\":\"veil-not-there\",\
             \"bad.example\":\"../x\"}}}}"
        );
        fs::write(&path, config).unwrap();
        for (image, username, password) in [
            ("stored.example/app", "stored.example", "hunter2"),
            ("other.example/app", "other.example", "hunter2"),
            ("own.example/app", "own.example", "hunter2"),
            ("app", "https://index.docker.io/v1/", "hunter2"),
            ("file.example/app", "robot", "own"),
        ] {
            let found = credentials_in(&path, image).unwrap();
            assert_eq!((&*found.username, &*found.password), (username, password), "{image}");
        }
        for (image, says) in [
            ("r.none/app", "docker-credential-veil-test has none"),
            ("r.broken/app", "docker-credential-veil-test failed"),
            ("r.odd/app", "something else than credentials"),
            ("r.token/app", "token of an identity"),
            ("lost.example/app", "docker-credential-veil-not-there: "),
            ("bad.example/app", "no name of a credential helper"),
        ] {
            let refused = credentials_in(&path, image).unwrap_err().to_string();
            assert!(refused.contains(says), "{image}: {refused}");
            assert!(!refused.contains("hunter2"), "{refused}");
        }
    }
}
