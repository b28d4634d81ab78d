//! Images that start as the official ones of nginx, redis and postgres do, as jobs: as root, they give what
//! they write to a user of their own and drop to it; once as they are, once with a root file system that can
//! only be read.
//!
//! `cargo test --release -p veil-node --test devnet_processes -- --ignored --nocapture official`, which needs
//! root and mmdebstrap beside what the other tests need.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use serde_json::Value;

use super::network::{Network, json, until, veil};

/// How long a server may take over an answer.
const ANSWER: Duration = Duration::from_secs(5);

/// One of the images.
struct Official {
    name: &'static str,
    port: u16,
    /// What it writes to, with sizes, where the root file system can only be read.
    tmpfs: &'static str,
    /// A request.
    asks: fn() -> Vec<u8>,
    /// What the beginning of the answer has in it.
    answers: &'static [u8],
}

const OFFICIAL: [Official; 3] = [
    Official {
        name: "nginx",
        port: 80,
        tmpfs: "\"/run\" = \"1Mi\", \"/var/lib/nginx\" = \"16Mi\"",
        asks: || b"GET / HTTP/1.0\r\n\r\n".to_vec(),
        answers: b"Welcome to nginx",
    },
    Official {
        name: "redis",
        port: 6379,
        tmpfs: "\"/data\" = \"16Mi\"",
        asks: || b"SET a 41\r\nINCR a\r\n".to_vec(),
        answers: b"+OK\r\n:42\r\n",
    },
    Official {
        name: "postgres",
        port: 5432,
        tmpfs: "\"/run\" = \"1Mi\", \"/var/lib/postgresql\" = \"192Mi\"",
        asks: select_42,
        answers: b"\0\x0242",
    },
];

/// A start-up message of protocol 3.0 for the user `postgres`, and a simple query.
fn select_42() -> Vec<u8> {
    let framed = |tag: &[u8], body: &[u8]| {
        let length = u32::try_from(body.len() + 4).unwrap().to_be_bytes();
        [tag, &length, body].concat()
    };
    let start = [&196_608_u32.to_be_bytes()[..], b"user\0postgres\0\0"].concat();
    [framed(b"", &start), framed(b"Q", b"SELECT 42\0")].concat()
}

impl Official {
    fn job_file(&self, image: &str, is_read_only: bool) -> String {
        let Self { name, port, tmpfs, .. } = self;
        let (suffix, container) = if is_read_only {
            ("-read-only", format!("[container]\nread_only = true\ntmpfs = {{ {tmpfs} }}\n"))
        } else {
            ("", String::new())
        };
        format!(
            "name = \"{name}{suffix}\"\nimage = \"{image}\"\n[resources]\ncpu = \"500m\"\nmemory = \"256Mi\"\n\
             {container}[[port]]\nname = \"main\"\ncontainer = {port}\nhost = \"dynamic\"\n"
        )
    }

    /// Whether the server gives its answer.
    fn is_served_at(&self, address: SocketAddr) -> std::io::Result<bool> {
        let mut stream = TcpStream::connect_timeout(&address, ANSWER)?;
        stream.set_read_timeout(Some(ANSWER))?;
        stream.write_all(&(self.asks)())?;
        let (mut answer, mut block) = (Vec::new(), [0; 4096]);
        while !answer.windows(self.answers.len()).any(|part| part == self.answers) {
            match stream.read(&mut block)? {
                0 => return Ok(false),
                read => answer.extend_from_slice(&block[..read]),
            }
        }
        Ok(true)
    }
}

/// Builds the images, and pushes them to the registry that has the sample image.
fn build() -> Vec<String> {
    let sample = veil_node_devnet::sample_image().unwrap();
    let registry = sample.split('/').next().unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../demo/official/build");
    let output = Command::new(script).arg(registry).stderr(Stdio::inherit()).output().unwrap();
    assert!(output.status.success(), "are you root, and is mmdebstrap installed?");
    let images: Vec<_> =
        String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect();
    assert_eq!(images.len(), OFFICIAL.len(), "{images:?}");
    images
}

/// Where the first replica's port is reached, once it runs.
fn endpoint(network: &Network, job: &str) -> Option<SocketAddr> {
    let mut command = veil();
    command.args(["job", "status", job, "--json", "--devnet"]).arg(&network.folder);
    let status = json(&mut command);
    let endpoint: &Value = &status["replicas"][0]["observed"]["endpoints"][0];
    let host = endpoint["host"].as_str()?.parse().ok()?;
    Some(SocketAddr::new(host, u16::try_from(endpoint["port"].as_u64()?).ok()?))
}

#[test]
#[ignore = "builds images from packages of the distribution"]
fn official_images_start_as_they_are_and_read_only() {
    let images = build();
    let (network, _) = Network::start();
    for (official, image) in OFFICIAL.iter().zip(&images) {
        for is_read_only in [false, true] {
            let file = official.job_file(image, is_read_only);
            let job = network.submit_file(&file);
            let at = until("it runs", || {
                network.running(&job, 1).and_then(|_| endpoint(&network, &job))
            });
            until("it answers", || {
                official.is_served_at(at).is_ok_and(|served| served).then_some(())
            });
            println!("{} answers at {at}, read-only: {is_read_only}", official.name);
        }
    }
}
