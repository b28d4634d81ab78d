//! Job files as people write them, right and wrong: `tests/jobs/EXPECTED.tsv` says what becomes of each.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::{collections::BTreeSet, fs, path::Path};

use veil_node_config::job_file::JobFile;

#[test]
fn every_case_is_accepted_or_refused_as_expected() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/jobs");
    let table = fs::read_to_string(folder.join("EXPECTED.tsv")).unwrap();
    let mut expected = BTreeSet::new();
    for row in table.lines().filter(|row| !row.starts_with('#')) {
        let (file, says) = row.split_once('\t').unwrap();
        expected.insert(format!("{file}.toml"));
        let text = fs::read_to_string(folder.join(format!("{file}.toml"))).unwrap();
        let result = JobFile::parse(&text).and_then(|job| job.check());
        match (says, result) {
            ("accepted", result) => assert!(result.is_ok(), "{file}: {}", result.unwrap_err()),
            (says, Ok(_)) => panic!("{file} is accepted, and not refused with {says}"),
            (says, Err(refused)) => {
                let refused = refused.to_string();
                for part in says.split('\t') {
                    assert!(refused.contains(part), "{file}: {refused}");
                }
                let each = says.split('\t').filter(|part| part.starts_with("line ")).count();
                let lines = refused.lines().filter(|line| line.starts_with("line ")).count();
                assert!(each == 0 || lines == each, "{file}: {refused}");
            }
        }
    }
    let all = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name());
    let all = all.map(|name| name.into_string().unwrap()).filter(|name| name.ends_with(".toml"));
    assert_eq!(all.collect::<BTreeSet<_>>(), expected);
}
