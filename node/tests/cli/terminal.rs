//! What commands show a person: tables that fit the terminal, views that are renewed, and what is waited for. The node
//! that is asked is one of this test's, which answers what a test tells it to.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpListener,
    os::unix::net::UnixListener,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};
use tempfile::TempDir;
use veil_node_api::status::JobStatus;
use veil_protocol_spec::{Address, Blake3Digest};

use crate::idle_worker::{start, veil, write_folder};

/// Ends a test that hangs.
const PATIENCE: Duration = Duration::from_secs(120);

/// A node that answers every request with what `answer` makes of its number, from 0; `None` hangs up.
struct Node {
    folder: TempDir,
}

impl Node {
    fn new(answer: impl Fn(usize) -> Option<String> + Send + 'static) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join("admin.sock")).unwrap();
        thread::spawn(move || {
            for (number, asked) in listener.incoming().enumerate() {
                let mut asked = BufReader::new(asked.unwrap());
                let mut line = String::new();
                while asked.read_line(&mut line).unwrap() > 2 {
                    line.clear();
                }
                let Some(body) = answer(number) else { continue };
                let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close";
                let answer = format!("{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
                // Whoever asked may have left.
                let _ = asked.get_mut().write_all(answer.as_bytes());
            }
        });
        Self { folder }
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("admin.sock")
    }

    fn list(&self, more: &[&str]) -> Command {
        let socket = self.socket();
        veil(&[&["job", "list", "--node", socket.to_str().unwrap()], more].concat())
    }
}

fn jobs(count: u8) -> String {
    let jobs: Vec<_> = (0..count)
        .map(|i| JobStatus {
            job: Blake3Digest([0xa0 + i; 32]),
            position: i.into(),
            operator: Address([1; 20]),
            cancelled: false,
            name: Some(format!("job-{i}")),
            image: Some(format!("registry.example.org/web@sha256:{}", "5e".repeat(32))),
            wanted: Some(3),
            replicas: Vec::new(),
            version: None,
            periodic: None,
        })
        .collect();
    serde_json::to_string(&jobs).unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Runs `veil` on a terminal of that size, made by `script`; its process id is written into a file of `folder`.
fn on_terminal(command: &Command, (columns, lines): (u32, u32), folder: &Path) -> Command {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words: Vec<_> = words.map(|word| format!("'{}'", word.to_str().unwrap())).collect();
    let pid = folder.join("pid");
    let line = format!(
        "stty cols {columns} rows {lines}; echo $$ > '{}'; exec {}",
        pid.display(),
        words.join(" ")
    );
    let mut script = Command::new("script");
    script.args(["-qec", &line, "/dev/null"]).env_remove("COLUMNS").env("SHELL", "/bin/sh");
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => script.env(name, value),
            None => script.env_remove(name),
        };
    }
    script.stdin(Stdio::null());
    script
}

/// What was said, but for what was waited for: this machine may be slow.
fn but_waits(said: &str) -> String {
    said.lines().filter(|line| !line.starts_with("waiting for the ")).collect()
}

fn interrupt(process: i32) {
    kill(Pid::from_raw(process), Signal::SIGINT).unwrap();
}

/// Waits for the end of a process; its exit code.
fn end_of(child: &mut Child) -> Option<i32> {
    let since = Instant::now();
    loop {
        if let Some(ended) = child.try_wait().unwrap() {
            return ended.code();
        }
        if since.elapsed() > PATIENCE {
            child.kill().unwrap();
            panic!("it does not end");
        }
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn tables_fit_the_terminal_and_are_whole_in_a_pipe() {
    let node = Node::new(|_| Some(jobs(2)));
    let piped = text(&node.list(&[]).env("COLUMNS", "40").output().unwrap().stdout);
    for whole in [&"a0".repeat(32), &"a1".repeat(32), &format!("@sha256:{}", "5e".repeat(32))] {
        assert!(piped.contains(whole.as_str()), "{piped}");
    }
    for (columns, whole) in [(80, false), (100, false), (300, true)] {
        let command = node.list(&[]);
        let shown = on_terminal(&command, (columns, 24), node.folder.path()).output().unwrap();
        assert!(shown.status.success(), "{shown:?}");
        let shown = text(&shown.stdout).replace('\r', "");
        assert_eq!(shown.lines().count(), 3, "{shown}");
        for line in shown.lines() {
            assert!(line.chars().count() <= columns as usize, "{columns}: {line}");
        }
        assert!(shown.contains("a0a0a0a0") && shown.contains("job-1"), "{shown}");
        assert_eq!(shown.contains(&"a0".repeat(32)), whole, "{columns}: {shown}");
    }
    // What `COLUMNS` says counts more than the terminal.
    let command = node.list(&[]);
    let mut script = on_terminal(&command, (300, 24), node.folder.path());
    let shown = text(&script.env("COLUMNS", "80").output().unwrap().stdout);
    assert!(shown.lines().all(|line| line.trim_end().chars().count() <= 80), "{shown}");
}

/// Every word of it is there, whatever the width: lines are broken, and nothing is cut. (A line of usage is never broken.)
#[test]
fn the_help_of_options_fits_the_terminal_and_has_whole_lines_in_a_pipe() {
    let folder = tempfile::tempdir().unwrap();
    for words in [&["job", "submit", "--help"][..], &["devnet", "--help"], &["job", "--help"]] {
        let mut command = veil(words);
        command.env("NO_COLOR", "1");
        let whole = text(&command.output().unwrap().stdout);
        let longest = |of: &str| of.lines().map(|line| line.chars().count()).max().unwrap();
        for columns in [60, 80] {
            assert!(longest(&whole) > columns, "{words:?} needs no breaking: {whole}");
            let size = (u32::try_from(columns).unwrap(), 24);
            let shown = on_terminal(&command, size, folder.path()).output().unwrap();
            let shown = text(&shown.stdout);
            assert!(longest(&shown) <= columns, "{words:?} in {columns}: {shown}");
            assert!(shown.split_whitespace().eq(whole.split_whitespace()), "{words:?}: {shown}");
        }
        command.env("COLUMNS", "60");
        assert_eq!(text(&command.output().unwrap().stdout), whole, "a pipe has no width");
    }
}

#[test]
fn watching_prints_an_object_a_line_until_it_is_interrupted() {
    let node = Node::new(|number| (number != 1).then(|| jobs(1)));
    let mut running = node
        .list(&["--watch=1", "--json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(running.stdout.take().unwrap()).lines();
    let mut next = || -> Value { serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap() };
    assert_eq!(next()["jobs"][0]["name"], "job-0");
    // A node that is away for a moment is told, and asked again.
    assert_eq!(next()["kind"], "node");
    assert_eq!(next()["jobs"][0]["name"], "job-0");
    interrupt(running.id().try_into().unwrap());
    assert_eq!(end_of(&mut running), Some(0));
    let mut said = String::new();
    running.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(but_waits(&said), "");
}

#[test]
fn watching_ends_when_nobody_reads() {
    let folder = tempfile::tempdir().unwrap();
    let config = write_folder(folder.path());
    let worker = start(&config);
    let node = Node::new(|_| Some(jobs(1)));
    for json in [&[][..], &["--json"]] {
        let watched = ["status", "--config", &config, "--watch=1"];
        let mut status = veil(&[&watched[..], json].concat());
        let mut list = node.list(&[&["--watch=1"][..], json].concat());
        for command in [&mut status, &mut list] {
            let mut running =
                command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
            let mut reader = BufReader::new(running.stdout.take().unwrap());
            let mut line = String::new();
            reader.read_line(&mut line).unwrap();
            assert!(!line.is_empty());
            drop(reader);
            assert_eq!(end_of(&mut running), Some(0));
            let mut said = String::new();
            running.stderr.take().unwrap().read_to_string(&mut said).unwrap();
            assert_eq!(but_waits(&said), "", "{command:?}");
        }
    }
    drop(worker);
}

#[test]
fn a_first_look_that_fails_ends_the_watch() {
    let nowhere = veil(&["status", "--node", "/nowhere", "--watch", "--json"]).output().unwrap();
    assert_eq!(nowhere.status.code(), Some(1));
    let object: Value = serde_json::from_slice(&nowhere.stdout).unwrap();
    assert_eq!(object["kind"], "node");
    for wrong in ["0", "3601", "often"] {
        let refused = veil(&["status", &format!("--watch={wrong}")]).output().unwrap();
        assert_eq!(refused.status.code(), Some(2), "{wrong}");
    }
}

#[test]
fn a_terminal_is_renewed_in_place() {
    let node = Node::new(|number| Some(jobs(if number % 2 == 0 { 3 } else { 1 })));
    let command = node.list(&["--watch=1"]);
    let mut script = on_terminal(&command, (80, 24), node.folder.path());
    let mut running = script.stdout(Stdio::piped()).spawn().unwrap();
    let mut shown = Vec::new();
    let mut output = running.stdout.take().unwrap();
    let since = Instant::now();
    // Three times; each but the first begins by going up over the one before.
    while !text(&shown).contains("\u{1b}[2A") {
        assert!(since.elapsed() < PATIENCE, "{:?}", text(&shown));
        let mut some = [0; 4096];
        let count = output.read(&mut some).unwrap();
        assert_ne!(count, 0, "it ended: {:?}", text(&shown));
        shown.extend_from_slice(&some[..count]);
    }
    let process = fs::read_to_string(node.folder.path().join("pid")).unwrap();
    interrupt(process.trim().parse().unwrap());
    assert_eq!(end_of(&mut running), Some(0));
    let shown = text(&shown);
    let frames: Vec<_> = shown.split("\u{1b}[J").collect();
    assert!(frames[1].contains("job-2") && frames[1].ends_with("\r\u{1b}[4A"), "{frames:?}");
    assert!(frames[2].contains("job-0") && frames[2].ends_with("\r\u{1b}[2A"), "{frames:?}");
    assert!(!frames[2].contains("job-1"), "{frames:?}");
}

#[test]
fn what_takes_longer_than_two_seconds_says_what_it_waits_for() {
    let slow = Node::new(|_| {
        thread::sleep(Duration::from_secs(3));
        Some(jobs(1))
    });
    for json in [&[][..], &["--json"]] {
        let Output { status, stdout, stderr } = slow.list(json).output().unwrap();
        let (said, shown) = (text(&stderr), text(&stdout));
        assert!(status.success() && shown.contains("job-0"), "{shown} {said}");
        let expected = format!("the node at {} has ...\n", slow.socket().display());
        assert!(said.starts_with("waiting for") && said.ends_with(&expected), "{said}");
    }
    let quick = Node::new(|_| Some(jobs(1)));
    let since = Instant::now();
    let said = quick.list(&[]).output().unwrap();
    let is_quick = since.elapsed() < Duration::from_secs(2);
    assert!(said.status.success() && (said.stderr.is_empty() || !is_quick), "{said:?}");
}

#[test]
fn a_chain_that_does_not_answer_is_named_before_it_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let rpc = format!("http://{}", listener.local_addr().unwrap());
    let contract = "0x1111111111111111111111111111111111111111";
    let cluster = format!("0x{}", "22".repeat(32));
    let place = ["--rpc", &rpc, "--contract", contract, "--cluster", &cluster];
    for command in [&["chain", "status"][..], &["operator", "delegates"]] {
        let mut running = veil(&[command, &place].concat()).stderr(Stdio::piped()).spawn().unwrap();
        let mut said = String::new();
        BufReader::new(running.stderr.take().unwrap()).read_line(&mut said).unwrap();
        running.kill().unwrap();
        running.wait().unwrap();
        assert_eq!(said, "connecting to the chain ...\n", "{command:?}");
    }
}

#[test]
fn evidence_is_found_by_its_first_digits() {
    let node = Node::new(|_| {
        let kept = |digits: &str| {
            json!({
                "digest": digits.repeat(32), "kind": "signing", "participant": 3, "peer": null,
                "epoch": 0, "slot": 7, "bytes": 100, "command": null,
            })
        };
        Some(json!([kept("a0"), kept("a1")]).to_string())
    });
    let (socket, out) = (node.socket(), node.folder.path().join("evidence"));
    let export = |digest: &str| {
        let place = ["--node", socket.to_str().unwrap(), "--out", out.to_str().unwrap(), "--json"];
        let ended = veil(&[&["evidence", "export", digest][..], &place].concat()).output().unwrap();
        let object: Value = serde_json::from_slice(&ended.stdout).unwrap();
        (ended.status.code(), object["error"].as_str().unwrap().to_owned())
    };
    let (code, error) = export("a");
    assert_eq!(code, Some(2));
    assert!(error.contains("several pieces of evidence begin with a"), "{error}");
    let (code, error) = export("b");
    assert_eq!(code, Some(2));
    assert!(error.contains("`veil evidence list` names them"), "{error}");
    // Found: the node is asked for this one, and this node's answer is none.
    let (code, error) = export("a1");
    assert_eq!(code, Some(1), "{error}");
}

#[test]
fn arguments_that_are_wrong_are_an_object_for_a_program() {
    for arguments in [&["job", "list", "--nonsense"][..], &["nonsense"], &["job"], &[]] {
        let refused = veil(&[arguments, &["--json"]].concat()).output().unwrap();
        assert_eq!(refused.status.code(), Some(2), "{arguments:?}");
        let object: Value = serde_json::from_slice(&refused.stdout).unwrap();
        assert_eq!(object["kind"], "usage", "{arguments:?}: {object}");
        assert!(refused.stderr.is_empty(), "{refused:?}");
    }
    let help = veil(&["job", "list", "--json", "--help"]).output().unwrap();
    assert!(help.status.success() && text(&help.stdout).contains("--watch"), "{help:?}");
}
