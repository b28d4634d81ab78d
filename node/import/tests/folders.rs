//! Files that take in others, and collections of files.

#![allow(clippy::unwrap_used, reason = "a failed helper fails the test")]

use std::{env, fs, path::Path};

use veil_node_import::{Options, error::ImportError, read};

fn options() -> Options {
    Options { project: Some("demo".to_owned()), ..Options::default() }
}

/// Files in a folder, by their path and text.
fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (path, text) in files {
        let path = folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    folder
}

#[test]
fn a_file_that_includes_itself_or_too_many_is_refused() {
    let main = "include: [a/b.yml]\nservices: {x: {image: x}}";
    let circle = [("a/b.yml", "include: [c/d.yml]"), ("a/c/d.yml", "include: [../b.yml]")];
    let circle = tree(&circle);
    let refused = read(main, circle.path(), circle.path(), &options()).unwrap_err().to_string();
    assert!(
        refused.contains("`a/b.yml` includes `a/c/d.yml` includes `a/b.yml`, which never ends"),
        "{refused}"
    );

    // Each includes the next twice: 2^9 files of ten.
    let twice = |i: usize| format!("include: [{i}.yml, {{path: {i}.yml}}]\n");
    let names: Vec<_> = (0..10).map(|i| (format!("{i}.yml"), twice(i + 1))).collect();
    let mut all: Vec<_> = names.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    all.push(("10.yml", "services: {y: {image: y}}"));
    let bomb = tree(&all);
    let main = "include: [0.yml]\nservices: {x: {image: x}}";
    let refused = read(main, bomb.path(), bomb.path(), &options()).unwrap_err().to_string();
    assert!(refused.contains("more than 64 files"), "{refused}");

    // What all files have together is bounded as one file is, values and texts.
    let list = format!("services: {{y: {{image: y, command: [{}]}}}}", ["x"; 50_000].join(","));
    let large = tree(&[("a.yml", list.as_str())]);
    let main = "include: [a.yml, a.yml, a.yml, a.yml]";
    let refused = read(main, large.path(), large.path(), &options()).unwrap_err();
    assert!(matches!(refused, ImportError::TooLarge { .. }), "{refused}");
    let long = "y".repeat(100_000);
    let text = format!("services: {{y: {{image: y, command: [{}]}}}}", ["$A"; 30].join(","));
    let large = tree(&[("a.yml", text.as_str())]);
    let options = Options { environment: [("A".to_owned(), long)].into(), ..options() };
    let refused = read(main, large.path(), large.path(), &options).unwrap_err().to_string();
    assert!(refused.contains("bytes"), "{refused}");
}

/// Nor is a file that a link leads to.
#[test]
fn no_file_outside_the_folder_is_taken_over() {
    let outside = tree(&[("b.yml", "services: {b: {image: hunter2}}")]);
    for main in [
        "include: [./b.yml]\nservices: {x: {image: x}}",
        "services: {x: {extends: {file: b.yml, service: b}}}",
    ] {
        let inside = tempfile::tempdir().unwrap();
        let link = inside.path().join("b.yml");
        std::os::unix::fs::symlink(outside.path().join("b.yml"), link).unwrap();
        let refused = read(main, inside.path(), inside.path(), &options()).unwrap_err().to_string();
        assert!(refused.contains("a link leads out of the folder"), "{refused}");
    }
}

/// Paths are relative to the file that they stand in.
#[test]
fn what_is_extended_has_its_own_folder() {
    let service = "services: {base: {image: x, env_file: own.env, volumes: [\"./a.conf:/a.conf\", \"data:/data\"], \
                   extends: {file: ../other/more.yml, service: more}}}";
    let other = "services: {more: {image: y, volumes: [\"./b.conf:/b.conf\"]}}";
    let files = [
        ("common/base.yml", service),
        ("common/own.env", "A=common"),
        ("common/a.conf", "a"),
        ("other/more.yml", other),
        ("other/b.conf", "b"),
    ];
    let folder = tree(&files);
    let main = "services: {x: {extends: {file: common/base.yml, service: base}}}";
    let import = read(main, folder.path(), folder.path(), &options()).unwrap();
    let text = import.jobs[0].file_text(&options());
    for part in ["common/a.conf", "other/b.conf", "\"A\" = \"common\"", "name = \"demo-data\""] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

/// How many services of a collection become jobs that do all that its files say, and why others do not: each `.yaml` and
/// `.yml` under `VEIL_IMPORT_COLLECTION`, with what lies beside it. `docs/import.md` has what came of it.
#[test]
#[ignore = "needs a collection: VEIL_IMPORT_COLLECTION=DIR"]
fn collection() {
    let root = env::var("VEIL_IMPORT_COLLECTION").expect("VEIL_IMPORT_COLLECTION names no folder");
    let mut folders = vec![Path::new(&root).to_owned()];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "yaml" || end == "yml") {
                files.push(path);
            }
        }
    }
    files.sort();
    let (mut all, mut whole) = (0, 0);
    for path in files {
        let folder = path.parent().unwrap();
        let environment = [("PWD".to_owned(), folder.to_str().unwrap().to_owned())].into();
        let options = Options { environment, ..Options::default() };
        let shown = path.strip_prefix(&root).unwrap().display();
        let import = match read(&fs::read_to_string(&path).unwrap(), folder, folder, &options) {
            Ok(import) => import,
            Err(error) => {
                println!("{shown}: refused: {error}");
                continue;
            }
        };
        for (service, expressible) in &import.expressible {
            all += 1;
            if *expressible {
                whole += 1;
                continue;
            }
            println!("{shown}: {service}");
            for dropped in &import.dropped {
                if dropped.service == *service && dropped.changes_behaviour {
                    println!("    {}: {}", dropped.key, dropped.reason);
                }
            }
        }
    }
    println!("{whole} of {all} services");
    assert!(all > 0, "there is nothing to import");
}
