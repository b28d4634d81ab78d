//! A disk that is really full: a small tmpfs, which needs the right to mount. Without it the test
//! says so and checks nothing.
#![allow(clippy::unwrap_used)]

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

struct Mount<'a>(&'a Path);

impl Drop for Mount<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0).status();
    }
}

fn simulate(out: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_veil"))
        .args(["ceremony", "simulate", "--parameters", "insecure-short", "--no-comparison"])
        .args(["--json", "--out"])
        .arg(out)
        .output()
        .unwrap()
}

/// The ceremony's streams need 2.9 MB and the whole folder 3.7 MB: one size fails in the ceremony,
/// the other when the result is written.
#[test]
fn a_full_disk_is_named_and_loses_nothing() {
    for size in ["1m", "3m"] {
        let folder = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size}"), "veil-test"])
            .arg(folder.path())
            .output();
        if !mounted.is_ok_and(|output| output.status.success()) {
            eprintln!("SKIPPED: mounting a tmpfs needs root; the full disk is not tested");
            return;
        }
        let _mount = Mount(folder.path());
        let before = folder.path().join("before");
        fs::write(&before, "kept").unwrap();
        let output = simulate(&folder.path().join("out"));
        let text = String::from_utf8(output.stdout).unwrap();
        let code = output.status.code();
        // A ceremony that ran out of space may still have found some for its evidence.
        assert!(code == Some(3) || code == Some(1) && size == "1m", "{size}: {code:?} {text}");
        assert!(text.contains("No space left on device"), "{size}: {text}");
        assert_eq!(fs::read_to_string(&before).unwrap(), "kept");
        let out = folder.path().join("out");
        let partial = fs::read_dir(&out).unwrap().filter(|entry| {
            entry.as_ref().unwrap().file_name().to_string_lossy().ends_with(".partial")
        });
        assert_eq!(partial.count(), 0, "{size}");
    }
}
