//! `veil job import`: what it writes, what it prints, and how it ends.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpListener,
    os::unix::fs::PermissionsExt as _,
    thread,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::json;

use super::{Said, veil, veil_with};

const COMPOSE: &str = "services:\n  web: { image: \"registry.example/web:1\", secrets: [key] }\n  \
                       bad: { image: \"registry.example/bad:1\", privileged: true }\nsecrets: { key: { content: hunter2 } }\n";

#[test]
fn json_alone_writes_nothing_and_says_what_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("compose.yaml");
    fs::write(&file, COMPOSE).unwrap();
    let said = veil(&[
        "job",
        "import",
        file.to_str().unwrap(),
        "--project",
        "shop",
        "--offline",
        "--json",
    ]);
    let object = said.json();
    assert_eq!(said.code, 1, "{}", said.stderr);
    assert_eq!(object["expressible"], json!({ "web": true, "bad": false }));
    let dropped = &object["dropped"][0];
    assert_eq!((&dropped["service"], &dropped["key"]), (&json!("bad"), &json!("privileged")));
    assert_eq!(dropped["changes_behaviour"], true);
    assert_eq!(object["jobs"][0]["name"], "shop-web");
    assert!(object["jobs"][0]["fill_in"].as_array().unwrap().len() == 2, "{object}");
    assert!(!said.stdout.contains("hunter2"), "{}", said.stdout);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn job_files_are_written_all_or_none() {
    let folder = tempfile::tempdir().unwrap();
    let (file, out) = (folder.path().join("compose.yaml"), folder.path().join("jobs"));
    fs::write(&file, COMPOSE).unwrap();
    let import = |more: &[&str]| {
        let mut arguments =
            vec!["job", "import", file.to_str().unwrap(), "--out", out.to_str().unwrap()];
        arguments.extend([
            "--project",
            "shop",
            "--offline",
            "--organisation",
            "Acme",
            "--service",
            "web",
        ]);
        arguments.extend(more);
        veil(&arguments)
    };
    let said = import(&["--json"]);
    assert_eq!(said.code, 0, "{} {}", said.stdout, said.stderr);
    let text = fs::read_to_string(out.join("shop-web.toml")).unwrap();
    assert!(text.contains("organisations = [\"Acme\"]"), "{text}");
    assert!(!out.join("shop-bad.toml").exists());
    let secret = out.join("shop-web.files/key");
    assert_eq!(fs::read_to_string(&secret).unwrap(), "hunter2");
    assert_eq!(fs::metadata(&secret).unwrap().permissions().mode() & 0o777, 0o600);

    // With its digest it is a job.
    let digest = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
    let whole = text.replace("@sha256:\"", &format!("@sha256:{digest}\""));
    fs::write(out.join("shop-web.toml"), whole).unwrap();
    let valid = veil(&["job", "validate", out.join("shop-web.toml").to_str().unwrap(), "--json"]);
    assert_eq!(valid.code, 0, "{}", valid.stdout);

    fs::remove_file(&secret).unwrap();
    let again = import(&[]);
    assert_eq!(again.code, 3, "{}", again.stdout);
    assert!(again.stderr.contains("--force"), "{}", again.stderr);
    assert!(!secret.exists());
    assert_eq!(import(&["--force"]).code, 0);
    assert!(secret.exists());
}

#[test]
fn what_is_no_such_file_is_refused_with_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("x.yaml");
    fs::write(&file, "services:\n  a: [\n").unwrap();
    let said = veil(&["job", "import", file.to_str().unwrap(), "--json"]);
    assert_eq!((said.code, &said.json()["kind"]), (2, &json!("import")));
    assert!(said.json()["error"].as_str().unwrap().contains("line "), "{}", said.stdout);
    let none = veil(&["job", "import", "/nonexistent.yaml", "--json"]);
    assert_eq!((none.code, &none.json()["kind"]), (3, &json!("files")));
}

/// A registry that serves one tag to `robot` with `hunter2` only.
fn private_registry() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let right = format!("basic {}", STANDARD.encode("robot:hunter2")).to_lowercase();
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut request = Vec::new();
            let mut byte = [0];
            while !request.ends_with(b"\r\n\r\n")
                && stream.read(&mut byte).is_ok_and(|read| read > 0)
            {
                request.push(byte[0]);
                // The beginning of TLS.
                if request[0] != b'G' {
                    break;
                }
            }
            let request = String::from_utf8_lossy(&request).to_lowercase();
            let (status, more, body) = if request.contains(&right) {
                ("200 OK", "", r#"{"config":{"digest":"sha256:00"},"layers":[]}"#)
            } else {
                ("401 Unauthorized", "WWW-Authenticate: Basic realm=\"test\"\r\n", "")
            };
            let length = body.len();
            let head = format!(
                "HTTP/1.1 {status}\r\n{more}Content-Length: {length}\r\nConnection: close\r\n\r\n"
            );
            if request.starts_with("get") {
                stream.write_all((head + body).as_bytes()).unwrap();
            }
        }
    });
    address
}

#[test]
fn a_private_image_is_pinned_with_what_docker_login_left() {
    let address = private_registry();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("compose.yaml");
    fs::write(&file, format!("services: {{web: {{image: \"{address}/web:1\"}}}}")).unwrap();
    let import = |auth: Option<&str>, more: &[&str]| {
        let auths = auth.map(|auth| json!({ &address: { "auth": STANDARD.encode(auth) } }));
        let config = json!({ "auths": auths.unwrap_or_else(|| json!({})) });
        fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
        let arguments = [&["job", "import", file.to_str().unwrap(), "--json"], more].concat();
        veil_with(&[("DOCKER_CONFIG", folder.path().to_str().unwrap())], &arguments)
    };
    let notes = |said: &Said| said.json()["notes"].to_string();

    let said = import(None, &[]);
    assert_eq!(said.json()["jobs"][0]["pinned"], false);
    assert!(
        notes(&said).contains("401") && notes(&said).contains("docker login"),
        "{}",
        notes(&said)
    );

    let said = import(Some("robot:hunter3"), &[]);
    assert_eq!(said.json()["jobs"][0]["pinned"], false);
    assert!(notes(&said).contains("refuses the password of `robot`"), "{}", notes(&said));
    assert!(!said.stdout.contains("hunter"), "{}", said.stdout);

    let said = import(Some("robot:hunter2"), &[]);
    assert_eq!(said.json()["jobs"][0]["pinned"], true);
    assert!(notes(&said).contains("--registry-login"), "{}", notes(&said));
    assert!(!said.json()["jobs"][0]["toml"].to_string().contains("[registry]"));

    let said = import(Some("robot:hunter2"), &["--registry-login"]);
    let text = said.json()["jobs"][0]["toml"].as_str().unwrap().to_owned();
    assert!(text.contains("[registry]\nfrom = \"docker\"\n"), "{text}");
    assert_eq!(said.json()["notes"], json!([]));
    assert!(!said.stdout.contains("hunter"), "{}", said.stdout);
}
