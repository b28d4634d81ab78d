//! Files of all three formats, each with what it becomes; and what no file can do.
//!
//! `tests/files/NAME.yaml` becomes `tests/files/NAME.expected`. `VEIL_BLESS=1` writes what is expected: read the
//! difference before you commit it.

#![allow(clippy::unwrap_used, reason = "a failed helper fails the test")]

use std::{env, fs, path::Path};

use proptest::prelude::*;
use veil_node_config::job_file::JobFile;
use veil_node_import::{Import, Options, error::ImportError, read};

const ANY_IMAGE: &str =
    "image = \"image@sha256:0000000000000000000000000000000000000000000000000000000000000000\"";

fn folder() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/files"))
}

fn options() -> Options {
    let environment = [("HOME_PAGE", "index.html"), ("EMPTY", "")];
    let environment = environment.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    Options { project: Some("demo".to_owned()), environment, ..Options::default() }
}

fn import(text: &str) -> Result<Import, ImportError> {
    read(text, folder(), folder(), &options())
}

/// The job file with all that is to be filled in.
fn filled(text: &str) -> String {
    let line = |line: &str| match line {
        line if line.starts_with("image = ") => ANY_IMAGE.to_owned(),
        "# organisations = [\"...\"]" => "organisations = \"any\"".to_owned(),
        line => line.to_owned(),
    };
    text.lines().map(line).collect::<Vec<_>>().join("\n")
}

/// Everything that a file becomes, as one text.
fn shown(import: &Import, options: &Options) -> String {
    let mut out = String::new();
    for (service, expressible) in &import.expressible {
        out += &format!(
            "{service}: {}\n",
            if *expressible { "expressible" } else { "not expressible" }
        );
    }
    for dropped in &import.dropped {
        let sign = if dropped.changes_behaviour { "!" } else { "-" };
        let (service, key) = (&dropped.service, &dropped.key);
        out += &format!(
            "{sign} {service} {key} ({}:{}): {}\n",
            dropped.line, dropped.column, dropped.reason
        );
    }
    for note in &import.notes {
        out += &format!("note: {note}\n");
    }
    for file in &import.files {
        assert!(!format!("{file:?}").contains("hunter2"));
        let secret = if file.secret { " (secret)" } else { "" };
        out +=
            &format!("\n=== {}{secret}\n{}\n", file.path, String::from_utf8_lossy(&file.content));
    }
    for job in &import.jobs {
        assert!(!format!("{job:?}").contains("hunter2"));
        out += &format!("\n=== {}.toml\n{}", job.name, job.file_text(options));
    }
    out
}

fn samples() -> Vec<(String, String)> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|end| end == "yaml") {
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            all.push((name, fs::read_to_string(path).unwrap()));
        }
    }
    all.sort();
    all
}

#[test]
fn each_file_becomes_what_is_expected() {
    let samples = samples();
    for kind in ["compose-", "kubernetes-", "akash-"] {
        assert!(samples.iter().filter(|(name, _)| name.starts_with(kind)).count() >= 8, "{kind}");
    }
    assert!(samples.len() >= 40, "{} files", samples.len());
    let mut wrong = Vec::new();
    for (name, text) in samples {
        let shown = match import(&text) {
            Ok(import) => shown(&import, &options()),
            Err(error) => format!("refused: {error}\n"),
        };
        let path = folder().join(format!("{name}.expected"));
        if env::var_os("VEIL_BLESS").is_some() {
            fs::write(&path, shown).unwrap();
        } else if fs::read_to_string(&path).unwrap_or_default() != shown {
            wrong.push(name);
        }
    }
    assert!(wrong.is_empty(), "VEIL_BLESS=1 shows the difference of {wrong:?}");
}

/// What is written is what the job file's own parser takes, once image and organisations are there.
#[test]
fn each_job_file_is_sound() {
    for (name, text) in samples() {
        let Ok(import) = import(&text) else { continue };
        for job in &import.jobs {
            let text = filled(&job.file_text(&options()));
            let file =
                JobFile::parse(&text).unwrap_or_else(|error| panic!("{name}: {error}\n{text}"));
            let spec = file.check().unwrap_or_else(|error| panic!("{name}: {error}\n{text}"));
            assert_eq!(spec.name.as_str(), job.name, "{name}");
            assert_eq!(file.seals(), job.seals(), "{name}");
        }
    }
}

/// Names of jobs, and what links and conditions name, are there.
#[test]
fn links_lead_to_ports_of_jobs() {
    for (name, text) in samples() {
        let Ok(import) = import(&text) else { continue };
        let texts: Vec<_> =
            import.jobs.iter().map(|job| (&job.name, job.file_text(&options()))).collect();
        for (_, text) in &texts {
            for link in text.split("\n[[link]]\n").skip(1) {
                let value = |key: &str| {
                    let line = link.lines().find(|line| line.starts_with(key)).unwrap();
                    line.split('"').nth(1).unwrap().to_owned()
                };
                let (job, port) = (value("job = "), value("port = "));
                let target = &texts.iter().find(|(name, _)| **name == job).unwrap().1;
                assert!(
                    target.contains(&format!("[[port]]\nname = \"{port}\"")),
                    "{name}: {job} {port}"
                );
            }
        }
    }
}

fn refusal(text: &str) -> String {
    import(text).unwrap_err().to_string()
}

#[test]
fn what_cannot_be_imported_is_refused_with_its_place() {
    for (text, says) in [
        ("a: [", "the file is not YAML"),
        ("services:\n  a: {image: x}\n  a: {image: y}\n", "line 3, column 3: `a` is there twice"),
        ("? [a]\n: b\n", "a key is a text here"),
        ("services: {a: !new {image: x}}", "the tag !new is not known"),
        (
            "services: {a: {image: x}}\n---\nservices: {b: {image: y}}\n",
            "line 3, column 1: another document",
        ),
        ("a: 1\n", "this is no Compose file"),
        ("services: {}\n", "nothing in it that runs"),
        ("services: {a: {image: x, <<: 1}}", "`<<` takes a map"),
        (
            "services:\n  a:\n    image: \"x:${TAG:?say which}\"\n",
            "line 3, column 12: variable TAG is not set: say which",
        ),
        ("services: {a: {image: x, ports: [\"80:90:100:110\"]}}", "is no port"),
        ("services: {a: {image: x, depends_on: {b: {condition: soon}}}}", "none of Compose"),
        ("services: {a: {extends: a}}", "takes over itself"),
        ("services: {a: {extends: {service: b, file: ../x.yaml}}}", "outside the folder"),
        ("services: {a: {extends: {service: b, file: none.yaml}}}", "none.yaml"),
        ("services: {a: {image: x, volumes: [\"data:relative\"]}}", "no path in the container"),
        ("services: {a: [1]}", "`services.a` must be a map"),
        ("services: {a: {image: [1]}}", "`image` must be a text"),
        ("include: [none.yaml]\nservices: {a: {image: x}}", "none.yaml"),
        ("include: [{file: x}]\nservices: {a: {image: x}}", "`include`: there is no `file` in it"),
        ("include: [{env_file: x}]\nservices: {a: {image: x}}", "it names no file"),
        ("include: [\"oci://r.example/a:1\"]", "docker compose config"),
        ("include: [/etc/compose.yaml]", "is not in the folder"),
        ("include: {a: b}\nservices: {a: {image: x}}", "`include` must be a list"),
        ("apiVersion: v1\nkind: Pod\nmetadata: {name: a}\n", "`Pod.spec`: it is missing"),
        (
            "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {containers: []}\n",
            "a pod has a container",
        ),
        (
            "apiVersion: batch/v1\nkind: CronJob\nmetadata: {name: a}\nspec: {schedule: nonsense, jobTemplate: {spec: {template: {spec: {containers: [{name: a}]}}}}}\n",
            "spec.schedule",
        ),
        (
            "apiVersion: v1\nkind: Secret\nmetadata: {name: a}\ndata: {k: hunter2!}\n",
            "`data.k`: it is no base64",
        ),
        (
            "services: {a: {image: x, expose: [{port: 0}]}}\ndeployment: {}\n",
            "a port is 1 to 65535",
        ),
    ] {
        let refused = refusal(text);
        assert!(refused.contains(says), "{text}: {refused}");
        assert!(!refused.contains("hunter2"), "{refused}");
    }
    let deep = format!("services: {}1{}", "[".repeat(100), "]".repeat(100));
    assert!(refusal(&deep).contains("levels of lists and maps"));
    assert!(matches!(import(&"#".repeat(2 << 20)), Err(ImportError::TooLong(_))));
}

#[test]
fn a_service_that_is_not_there_is_named_with_those_that_are() {
    let options = Options { services: vec!["b".to_owned()], ..options() };
    let refused = read("services: {a: {image: x}}", folder(), folder(), &options).unwrap_err();
    assert_eq!(refused.to_string(), "there is no service `b`; there are a");
    let options = Options { services: vec!["a".to_owned()], ..options };
    let text = "services: {a: {image: x}, b: {image: y, privileged: true}}";
    let import = read(text, folder(), folder(), &options).unwrap();
    assert_eq!((import.jobs.len(), import.dropped.len()), (1, 0));
}

/// A billion values of ten lines are refused before they are made.
#[test]
fn an_expansion_bomb_is_refused_within_little_memory() {
    let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for i in 1..10 {
        let alias = format!("*a{}", i - 1);
        text += &format!("a{i}: &a{i} [{}]\n", [alias.as_str(); 10].join(", "));
    }
    text += "services: {a: {image: x, command: *a9}}\n";
    let before = peak_kib();
    assert!(matches!(import(&text), Err(ImportError::TooLarge { .. })));
    // 200,000 values are about 20 MB; some other test may run beside.
    let grown = peak_kib() - before;
    assert!(grown < 200 * 1024, "{grown} KiB");

    let merges = "x: &x {image: a}\nservices:\n  a: {<<: *x}\n  b: {<<: [*x, *x]}\n";
    assert_eq!(import(merges).unwrap().jobs.len(), 2);
    let text = format!(
        "x: &x \"{}\"\nservices: {{a: {{image: b, command: [{}]}}}}\n",
        "y".repeat(10_000),
        ["*x"; 1000].join(",")
    );
    assert!(matches!(import(&text), Err(ImportError::TooLarge { .. })));
}

/// Most memory that this process has held.
fn peak_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// A file that a link leads out of the folder, and a variable's file elsewhere, are not read.
#[test]
fn nothing_is_read_outside_the_folder() {
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("secret.env"), "PASSWORD=hunter2\n").unwrap();
    let inside = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(outside.path().join("secret.env"), inside.path().join("a.conf"))
        .unwrap();
    let env_file = outside.path().join("secret.env");
    let text = format!(
        "services: {{a: {{image: x, env_file: {}, volumes: [\"./a.conf:/a.conf\"]}}}}",
        env_file.display()
    );
    let import = read(&text, inside.path(), inside.path(), &options()).unwrap();
    let all = shown(&import, &options());
    assert!(!all.contains("hunter2"), "{all}");
    assert!(all.contains("outside the folder") && all.contains("kind = \"host\""), "{all}");
}

/// A file up to the limit is sealed, a larger one is a volume.
#[test]
fn files_beside_are_sealed_as_long_as_they_fit() {
    let beside = tempfile::tempdir().unwrap();
    fs::write(beside.path().join("small"), vec![b'x'; 1024]).unwrap();
    fs::write(beside.path().join("most"), vec![b'x'; 256 * 1024]).unwrap();
    fs::write(beside.path().join("large"), vec![b'x'; 256 * 1024 + 1]).unwrap();
    let text = "services: {a: {image: x, environment: {A: b}, volumes: [\"./most:/most\", \"./small:/small\", \
                \"./large:/large\"]}}";
    let import = read(text, beside.path(), beside.path(), &options()).unwrap();
    let text = import.jobs[0].file_text(&options());
    assert!(text.contains("[[file]]\npath = \"/most\"\nfrom = { file = \"most\" }"), "{text}");
    for folder in ["/small", "/large"] {
        let volume = format!("mount = \"{folder}\"\nkind = \"host\"");
        assert!(text.contains(&volume), "{folder}: {text}");
    }
    let file = JobFile::parse(&filled(&text)).unwrap().in_folder(beside.path().to_owned());
    file.contents().unwrap();
}

/// A folder is sealed whole or not at all: by the bytes and the number of its files together.
#[test]
fn a_folder_beside_is_sealed_if_all_of_it_fits() {
    let beside = tempfile::tempdir().unwrap();
    for (folder, files, bytes) in [("fits", 2, 1024), ("large", 2, 200 * 1024), ("many", 257, 1)] {
        let folder = beside.path().join(folder);
        fs::create_dir(&folder).unwrap();
        for i in 0..files {
            fs::write(folder.join(i.to_string()), vec![b'x'; bytes]).unwrap();
        }
    }
    for (folder, sealed) in [("fits", true), ("large", false), ("many", false)] {
        let text = format!("services: {{a: {{image: x, volumes: [\"./{folder}:/data:ro\"]}}}}");
        let import = read(&text, beside.path(), beside.path(), &options()).unwrap();
        let text = import.jobs[0].file_text(&options());
        let file = format!("path = \"/data/1\"\nfrom = {{ file = \"{folder}/1\" }}");
        assert_eq!(text.contains(&file), sealed, "{folder}: {text}");
        assert_eq!(
            text.contains("mount = \"/data\"\nkind = \"host\""),
            !sealed,
            "{folder}: {text}"
        );
    }
}

/// Parts of files in any order: keys of all three formats with values of all kinds.
fn value() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("\"80:80\"".to_owned()),
        Just("${A:-$B}".to_owned()),
        Just("true".to_owned()),
        Just("~".to_owned()),
        Just("500m".to_owned()),
        Just("./x:/y:ro".to_owned()),
        "[a-z0-9:/.$ {}-]{0,12}".prop_map(|text| format!("{text:?}")),
        any::<i64>().prop_map(|number| number.to_string()),
    ];
    let key = prop::sample::select(vec![
        "services",
        "deployment",
        "profiles",
        "compute",
        "resources",
        "image",
        "ports",
        "volumes",
        "environment",
        "command",
        "healthcheck",
        "test",
        "deploy",
        "networks",
        "secrets",
        "configs",
        "extends",
        "include",
        "depends_on",
        "apiVersion",
        "kind",
        "metadata",
        "name",
        "spec",
        "template",
        "containers",
        "env",
        "valueFrom",
        "limits",
        "cpu",
        "memory",
        "storage",
        "expose",
        "port",
        "to",
        "global",
        "target",
        "source",
        "build",
        "x-a",
        "<<",
    ]);
    leaf.prop_recursive(5, 64, 6, move |inner| {
        let map = prop::collection::vec((key.clone(), inner.clone()), 0..6).prop_map(|entries| {
            let entries: Vec<_> =
                entries.into_iter().map(|(key, value)| format!("{key}: {value}")).collect();
            format!("{{{}}}", entries.join(", "))
        });
        let list =
            prop::collection::vec(inner, 0..4).prop_map(|items| format!("[{}]", items.join(", ")));
        prop_oneof![3 => map, 1 => list]
    })
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in "(\\PC|[\\n:{}&*<,\\[\\]-]){0,200}") {
        let _ = import(&text);
    }

    #[test]
    fn no_structure_makes_it_panic(service in value(), other in value()) {
        let _ = import(&format!("services:\n  a: {service}\n  b: {other}\nvolumes: {other}\nsecrets: {service}\n"));
        let _ = import(&format!("services:\n  a: {service}\nprofiles: {other}\ndeployment: {service}\n"));
        let pod = format!("{{spec: {service}, metadata: {other}}}");
        for kind in ["Deployment", "CronJob", "Pod", "Service", "Secret"] {
            let _ = import(&format!("apiVersion: v1\nkind: {kind}\nspec: {{template: {pod}, a: {other}}}\ndata: {service}\n"));
        }
    }

    /// A file that is cut off or changed somewhere is imported or refused.
    #[test]
    fn no_damage_makes_it_panic(which in any::<prop::sample::Index>(), at in any::<prop::sample::Index>(), put in "\\PC{0,3}") {
        let samples = samples();
        let (_, text) = which.get(&samples);
        let mut cut = at.index(text.len() + 1);
        while !text.is_char_boundary(cut) {
            cut -= 1;
        }
        let _ = import(&text[..cut]);
        let _ = import(&format!("{}{put}{}", &text[..cut], &text[cut..]));
    }
}

/// The example has no part that is left out, and finds itself by links.
#[test]
fn the_shop_is_imported_whole() {
    let shop = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/shop"));
    let text = fs::read_to_string(shop.join("compose.yaml")).unwrap();
    let options = Options { organisations: vec!["any".to_owned()], ..Options::default() };
    let import = read(&text, shop, shop, &options).unwrap();
    assert!(import.expressible.values().all(|expressible| *expressible), "{:?}", import.dropped);
    let names: Vec<_> = import.jobs.iter().map(|job| job.name.as_str()).collect();
    assert_eq!(names, ["shop-proxy", "shop-web", "shop-cache", "shop-db"]);
    let text =
        |name: &str| import.jobs.iter().find(|job| job.name == name).unwrap().file_text(&options);
    let (proxy, web, db) = (text("shop-proxy"), text("shop-web"), text("shop-db"));
    let has = |text: &str, part: &str| assert!(text.contains(part), "{part}\n{text}");
    has(
        &proxy,
        "[[link]]\njob = \"shop-web\"\nport = \"tcp-8000\"\nhost = \"web\"\nlisten = 8000\n",
    );
    has(&proxy, "container = 80\nhost = 8080\n");
    has(
        &proxy,
        "[[file]]\npath = \"/etc/nginx/conf.d/shop.conf\"\nfrom = { file = \"proxy/shop.conf\" }\n",
    );
    has(&web, "[[link]]\njob = \"shop-db\"\nport = \"tcp-5432\"\nhost = \"db\"\nlisten = 5432\n");
    has(&web, "[[after]]\njob = \"shop-db\"\nis = \"healthy\"\n");
    has(
        &web,
        "[[secret]]\npath = \"/run/secrets/db-password\"\nfrom = { file = \"db-password.txt\" }\n",
    );
    has(&db, "name = \"shop-db-data\"\nmount = \"/var/lib/postgresql/data\"\nkind = \"host\"\n");
    assert!(!proxy.contains("host = \"db\""), "they share no network\n{proxy}");
    for job in &import.jobs {
        let text = job.file_text(&options);
        let file = JobFile::parse(&filled(&text)).unwrap().in_folder(shop.to_owned());
        file.check().unwrap();
        file.contents().unwrap();
    }
}
