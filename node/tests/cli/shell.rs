//! What somebody gets who asks for help, or for nothing.

use std::process::Output;

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
