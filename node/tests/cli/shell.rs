//! What a shell and `man` get: help without arguments, completions, manual pages.

use std::{
    fs,
    process::{Command, Output, Stdio},
};

use crate::idle_worker::veil;

fn run(arguments: &[&str]) -> Output {
    veil(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn help_says_what_veil_is_and_what_to_do_next() {
    let help = run(&["--help"]);
    assert!(help.status.success() && help.stderr.is_empty(), "{help:?}");
    let without = run(&[]);
    // Nothing was done: a script whose variable is empty must not read "done".
    assert_eq!(without.status.code(), Some(2));
    assert!(without.stdout.is_empty(), "{without:?}");
    for said in [text(&help.stdout), text(&run(&["-h"]).stdout), text(&without.stderr)] {
        for expected in [
            "Veil runs containers on machines of several organisations, and shows nobody how\n",
            "You run containers:  veil job init",
            "You run a worker:  veil config sample --role worker",
            "You sit in the committee:  veil config sample --role member",
            "You administer a cluster:  veil chain deploy",
            "Exit codes:",
            "  3  a file could not be read or written",
        ] {
            assert!(said.contains(expected), "{expected}: {said}");
        }
    }
}

/// What bash offers after `line`, with the script that `veil completions bash` prints.
fn completed(script: &str, line: &[&str]) -> Vec<String> {
    let complete = format!(
        "source {script}; \
         function=$(complete -p veil | sed 's/.*-F \\([^ ]*\\).*/\\1/'); \
         COMP_WORDS=({words}); COMP_CWORD={at}; \
         \"$function\" veil '{last}' '{before}'; printf '%s\\n' \"${{COMPREPLY[@]}}\"",
        words = line.join(" "),
        at = line.len() - 1,
        last = line.last().unwrap(),
        before = line[line.len() - 2],
    );
    let bash = Command::new("bash").args(["--norc", "-c", &complete]).output().unwrap();
    assert!(bash.status.success() && bash.stderr.is_empty(), "{bash:?}");
    text(&bash.stdout).lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

#[test]
fn bash_completes_commands_and_options() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("veil.bash");
    fs::write(&path, run(&["completions", "bash"]).stdout).unwrap();
    let script = path.to_str().unwrap();
    let accepted = Command::new("bash").args(["-n", script]).output().unwrap();
    assert!(accepted.status.success() && accepted.stderr.is_empty(), "{accepted:?}");
    assert_eq!(completed(script, &["veil", "jo"]), ["job"]);
    assert_eq!(completed(script, &["veil", "job", "his"]), ["history"]);
    assert_eq!(completed(script, &["veil", "config", "sample", "--ro"]), ["--role"]);
    let roles = completed(script, &["veil", "config", "sample", "--role", "wo"]);
    assert_eq!(roles, ["worker"]);
    assert!(completed(script, &["veil", "nonsense"]).is_empty());
}

#[test]
fn every_shell_gets_all_commands() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = run(&["completions", shell]);
        assert!(script.status.success() && script.stderr.is_empty(), "{shell}: {script:?}");
        let script = text(&script.stdout);
        for command in ["ceremony", "devnet", "job", "evict", "completions", "man"] {
            assert!(script.contains(command), "{shell}: {command}");
        }
    }
    let wrong = run(&["completions", "tcsh"]);
    assert_eq!(wrong.status.code(), Some(2));
    assert!(text(&wrong.stderr).contains("bash, elvish, fish, powershell, zsh"), "{wrong:?}");
}

/// What groff objects to in a page; nothing if it is not installed.
fn objections(page: &std::path::Path) -> String {
    let groff = Command::new("groff")
        .args(["-man", "-ww", "-z", "-Tutf8"])
        .arg(page)
        .stdin(Stdio::null())
        .output();
    groff.map_or_else(|_| String::new(), |groff| text(&groff.stderr))
}

#[test]
fn manual_pages_are_whole() {
    let folder = tempfile::tempdir().unwrap();
    let into = folder.path().join("share/man/man1");
    for _ in 0..2 {
        let written = run(&["man", into.to_str().unwrap()]);
        assert!(written.status.success() && written.stderr.is_empty(), "{written:?}");
    }
    let mut pages = 0;
    for entry in fs::read_dir(&into).unwrap() {
        let path = entry.unwrap().path();
        let page = fs::read_to_string(&path).unwrap();
        assert_eq!(path.extension().unwrap(), "1");
        for section in [".TH", ".SH NAME", ".SH SYNOPSIS", ".SH DESCRIPTION", ".SH \"EXIT STATUS\""]
        {
            assert!(page.contains(section), "{}: {section} is missing", path.display());
        }
        assert_eq!(objections(&path), "", "{}", path.display());
        pages += 1;
    }
    assert!(pages > 40, "{pages}");
    let root = fs::read(into.join("veil.1")).unwrap();
    assert_eq!(run(&["man"]).stdout, root);
    assert!(text(&root).contains("FIRST STEPS"));
    let page = run(&["man", "--page", "veil-job-submit"]).stdout;
    assert_eq!(page, fs::read(into.join("veil-job-submit.1")).unwrap());
    let wrong = run(&["man", "--page", "veil-nonsense"]);
    assert_eq!(wrong.status.code(), Some(2));
    assert!(text(&wrong.stderr).contains("`veil man DIR` writes all"), "{wrong:?}");
    // Where no folder can be.
    let file = into.join("veil.1/below");
    assert_eq!(run(&["man", file.to_str().unwrap()]).status.code(), Some(3));
}
