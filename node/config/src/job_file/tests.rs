use proptest::prelude::*;
use toml::Value;
use veil_protocol_spec::scheduling::{
    Capability, CpuUnits, FailureDomain, HealthProbe, JobType, LeasePolicy, MemoryUnits,
    Organisations, RestartMode, SchedulingPolicy, Strength, Unhealthy,
};

use super::{keys::State, *};

const DIGEST: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

fn file(top: &str, sections: &str) -> String {
    let image = format!("image = \"localhost:5000/tools/a_b:1.4@sha256:{DIGEST}\"");
    format!("{image}\n{top}\n[resources]\ncpu = \"150m\"\nmemory = \"65Mi\"\n{sections}\n")
}

fn job(top: &str, sections: &str) -> JobSpec {
    let text = file(top, sections);
    JobFile::parse(&text).and_then(|job| job.check()).unwrap_or_else(|e| panic!("{text}\n{e}"))
}

/// What is wrong, line by line.
fn wrong(top: &str, sections: &str) -> Vec<String> {
    let refused = JobFile::parse(&file(top, sections)).unwrap_err();
    let JobFileError::Problems(Problems(problems)) = refused else { panic!("{refused}") };
    problems.iter().map(ToString::to_string).collect()
}

fn one_wrong(top: &str, sections: &str) -> String {
    let mut all = wrong(top, sections);
    assert_eq!(all.len(), 1, "{all:?}");
    all.remove(0)
}

#[test]
fn the_least_file_gets_the_defaults() {
    let file = JobFile::parse(&file("", "")).unwrap();
    assert!(!file.is_named());
    let scope = ClusterScope { chain_id: ChainId(7), ..NOWHERE };
    let job = file.into_spec(scope, Address([3; 20]), 7).unwrap();
    let ResourceRequest::Clear(request) = job.request else { panic!("{:?}", job.request) };
    assert_eq!((request.cpu, request.memory), (CpuUnits(2), MemoryUnits(2)));
    assert_eq!((job.scope, job.operator, job.nonce), (scope, Address([3; 20]), 7));
    assert_eq!((job.name.as_str(), job.replicas), ("a-b-7", 1));
    assert_eq!(job.tag.as_ref().unwrap().as_str(), "1.4");
    let default = JobSpec::new(
        scope,
        job.operator,
        7,
        job.name.clone(),
        job.image.clone(),
        job.request.clone(),
    );
    assert_eq!(JobSpec { tag: job.tag.clone(), ..default }, job);
}

#[test]
fn settings_reach_the_specification_in_one_order() {
    let job = job(
        "name = \"web\"\nentrypoint = [\"/bin/a\"]\nargs = [\"b\"]",
        "[container]\nuser = 101\nworkdir = \"/srv\"\nhostname = \"web\"\ninit = true\nread_only = true\n\
         tmpfs = { \"/tmp\" = \"64Mi\", \"/run\" = \"1.5Mi\" }\nshm_size = \"32Mi\"\npids = 1000\n\
         ulimits = { nofile = \"1024:65536\", core = 0, memlock = \"unlimited\" }\nstop_signal = \"QUIT\"\n\
         [container.capabilities]\ndrop = [\"ALL\"]\nadd = [\"CAP_SETUID\", \"CHOWN\"]",
    );
    assert_eq!((job.command, job.args), (vec!["/bin/a".to_owned()], vec!["b".to_owned()]));
    let container = job.container;
    assert_eq!(container.user.unwrap().as_str(), "101");
    assert!(container.init && container.read_only);
    let tmpfs: Vec<_> = container.tmpfs.iter().map(|t| (t.path.as_str(), t.size.0.get())).collect();
    assert_eq!(tmpfs, [("/run", 2), ("/tmp", 64)]);
    let ulimits: Vec<_> =
        container.ulimits.iter().map(|u| (u.kind.name(), u.soft, u.hard)).collect();
    assert_eq!(ulimits, [("core", 0, 0), ("memlock", -1, -1), ("nofile", 1024, 65_536)]);
    assert_eq!(container.stop_signal.unwrap().name(), "SIGQUIT");
    assert_eq!(container.capabilities.effective(), [Capability::Chown, Capability::Setuid]);
}

#[test]
fn placement_restart_health_and_lease_reach_the_specification() {
    let job = job(
        "lease = { exclusive = \"2m\" }",
        "[placement]\npolicy = \"cost\"\npriority = 9\nallow = [\"b=1\", \"a=1\"]\ndeny = [\"c=1\"]\n\
         anti_affinity = \"hard\"\nfailure_domain = \"region\"\nmax_latency = 1\nprefer_previous = true\n\
         organisations = \"any\"\n[restart]\nmode = \"on_failure\"\nattempts = 4\n[health]\n\
         probe = { http = { port = 8080 } }\ninterval = \"1m\"\nretries = 2",
    );
    assert_eq!((job.policy, job.priority.0), (SchedulingPolicy::Cost, 9));
    let allow: Vec<_> = job.constraints.allow.iter().map(ToString::to_string).collect();
    assert_eq!(allow, ["a=1", "b=1"]);
    let apart = job.constraints.anti_affinity.unwrap();
    assert_eq!(apart.strength, Strength::Hard);
    assert_eq!(apart.domain, FailureDomain::Label("region".parse().unwrap()));
    assert_eq!(job.constraints.max_latency.unwrap().get(), 1);
    assert_eq!(job.lease, LeasePolicy::Exclusive { seconds: 120 });
    assert_eq!((job.restart.mode, job.restart.attempts), (RestartMode::OnFailure, Some(4)));
    let health = job.health.unwrap();
    assert_eq!(health.probe, HealthProbe::Http { port: 8080, path: "/".to_owned() });
    let numbers = (health.interval_seconds, health.timeout_seconds, health.retries);
    assert_eq!(numbers, (60, 5, 2));
}

#[test]
fn organisations_are_names_or_any() {
    let named = |text: &str| {
        let sections = format!("[placement]\norganisations = {text}");
        JobFile::parse(&file("", &sections))
            .map(|job| job.check().unwrap().constraints.organisations)
    };
    let names = ["Acme", "Example University"].map(|name| name.parse().unwrap()).to_vec();
    assert_eq!(named("[\"Example University\", \"Acme\"]").unwrap(), Organisations::Of(names));
    assert_eq!(named("\"any\"").unwrap(), Organisations::Any);
    for wrong in ["\"Acme\"", "[\" Acme\"]", "[\"Universit\u{e4}t\"]", "[1]"] {
        let error = named(wrong).unwrap_err().to_string();
        assert!(error.contains("placement.organisations"), "{wrong}: {error}");
    }
}

#[test]
fn links_and_start_conditions_are_read_in_one_order() {
    let text = "[[link]]\njob = \"shop-db\"\nport = \"pg\"\nhost = \"my_db\"\nlisten = 5432\nenv = \"DB\"\n\
                [[link]]\njob = \"cache\"\nport = \"redis\"\nlisten = 6379\n\
                [[after]]\njob = \"shop-db\"\nis = \"healthy\"\n[[after]]\njob = \"cache\"";
    let job = job("", text);
    let links: Vec<_> = job.links.iter().map(|link| link.address().to_string()).collect();
    assert_eq!(links, ["cache:6379", "my_db:5432"]);
    assert_eq!(job.links[1].env.as_ref().map(|env| env.as_str()), Some("DB"));
    let after: Vec<_> = job.after.iter().map(ToString::to_string).collect();
    assert_eq!(after, ["cache to be running", "shop-db to be healthy"]);
    let itself = JobFile::parse(&file("name = \"a\"", "[[after]]\njob = \"a\"")).unwrap();
    assert!(matches!(itself.check(), Err(JobFileError::Job(JobError::AfterItself))));
}

#[test]
fn how_a_job_is_updated_is_read() {
    let update = "[update]\nmax_parallel = 2\nmin_healthy = \"20s\"\nauto_revert = false";
    let job = JobFile::parse(&file("", update)).unwrap().check().unwrap();
    let read = (job.update.max_parallel, job.update.min_healthy_seconds, job.update.auto_revert);
    assert_eq!((read, job.update.healthy_deadline_seconds), ((2, 20, false), 300));
}

#[test]
fn what_nobody_does_is_read_and_refused_by_the_specification() {
    let (top, sections) =
        ("type = \"periodic\"", "[periodic]\ncron = \"0 4 * * *\"\noverlap = \"allow\"");
    let refused = JobFile::parse(&file(top, sections)).unwrap().check().unwrap_err();
    let JobFileError::Job(JobError::Unsupported(unsupported)) = &refused else {
        panic!("{refused}")
    };
    assert_eq!(unsupported.key, "periodic.overlap", "{refused}");
}

#[test]
fn a_system_job_is_one_replica_of_which_none_goes_elsewhere() {
    let job = JobFile::parse(&file("type = \"system\"", "")).unwrap().check().unwrap();
    assert_eq!((&job.kind, job.replicas), (&JobType::System, 1));
    assert_eq!(job.restart.mode, RestartMode::Always);
    let refused = |top: &str, sections| {
        let top = format!("type = \"system\"\n{top}");
        JobFile::parse(&file(&top, sections)).unwrap().check().unwrap_err().to_string()
    };
    let moves = "[health]\nprobe = { tcp = { port = 1 } }\nunhealthy = \"reschedule\"";
    for (top, sections, says) in [
        ("replicas = 2", "", "leave `replicas` out"),
        ("lease = { exclusive = \"2m\" }", "", "leave `lease` out"),
        ("anti_affinity = \"hard\"", "", "leave `anti_affinity` out"),
        ("", moves, "unhealthy = \"restart\""),
    ] {
        let error = refused(top, sections);
        assert!(error.contains(says), "{top} {sections}: {error}");
    }
}

#[test]
fn what_stays_unhealthy_may_be_given_back() {
    let health = "[health]\nprobe = { tcp = { port = 1 } }\nunhealthy = \"reschedule\"";
    for top in ["", "restart = \"never\""] {
        let job = JobFile::parse(&file(top, health)).unwrap().check().unwrap();
        assert_eq!(job.health.unwrap().unhealthy, Unhealthy::Reschedule);
    }
}

#[test]
fn everything_that_is_wrong_is_said_at_once() {
    let all = wrong("replicas = 0\nfoo = 1", "[container]\npids = \"many\"\n[health]\nretries = 3");
    let says = [
        "line 2, column 12: `replicas`: 0 is out of range: 1 to 1024",
        "line 3, column 1: `foo`: there is no such key; known here: name, type,",
        "line 8, column 8: `container.pids`: a string is here, and a whole number is expected",
        "`health.probe`: it is missing",
    ];
    assert_eq!(all.len(), says.len(), "{all:#?}");
    let mut all = all;
    all.sort_by_key(|line| !line.contains("health.probe"));
    let missing = all.remove(0);
    assert!(missing.contains(says[3]), "{missing}");
    for (line, says) in all.iter().zip(says) {
        assert!(line.starts_with(says), "{line}");
    }
}

#[test]
fn each_mistake_is_named() {
    for (top, sections, says) in [
        ("failure_domain = \"zone\"", "", "only with anti_affinity"),
        ("max_latency = 4", "", "0 to 3 are possible"),
        ("allow = [{ key = \"gpu\", value = \"a100\" }]", "", "\"gpu=a100\""),
        ("allow = \"gpu=a100\"", "", "a list of labels"),
        ("policy = \"best\"", "", "\"spread\", \"bin_pack\", \"priority_round_robin\" or \"cost\""),
        ("allow = [\"a=1\"]", "[placement]\nallow = [\"b=1\"]", "given twice"),
        ("command = [\"a\"]\nentrypoint = [\"a\"]", "", "given twice"),
        ("entrypoint = \"/bin/a\"", "", "a list of texts"),
        ("name = \"My Job\"", "", "a-z 0-9 -"),
        ("lease = \"exclusive\"", "", "lease = { exclusive = \"2m\" }"),
        ("lease = { exclusive = \"10s\" }", "", "30 to 86400"),
        ("lease = { exclusive = { seconds = 120 } }", "", "exclusive"),
        ("restart = \"sometimes\"", "", "\"never\", \"on_failure\" or \"always\""),
        ("restart = \"never\"", "", ""),
        ("port = 80", "", "[[port]]"),
        ("container = 1", "", "a section"),
        ("", "[batch]\nmax_attempts = 2", "only with type = \"batch\""),
        ("type = \"periodic\"", "", "[periodic] cron"),
        ("type = \"periodic\"", "[periodic]\ncron = \"@daily\"", "five fields"),
        ("type = \"periodic\"", "[periodic]\ncron = \"0 0 31 2 *\"", "no day is ever one of"),
        (
            "type = \"periodic\"",
            "[periodic]\ncron = \"0 0 1 * *\"\ntime_zone = \"Europe/Berlijn\"",
            "no time zone `Europe/Berlijn`",
        ),
        ("", "[[port]]\ncontainer = 80", "name = \"http\""),
        ("", "[[port]]\nname = \"a\"\ncontainer = 0", "1 to 65535"),
        ("", "[[port]]\nname = \"a\"\ncontainer = 80\nhost = \"any\"", "\"dynamic\" or \"none\""),
        (
            "",
            "[[volume]]\nname = \"a\"\nmount = \"/a\"\nkind = \"host\"\nsize = \"1Gi\"",
            "only with kind",
        ),
        ("", "[[volume]]\nname = \"a\"\nmount = \"/a\"\nkind = \"tmpfs\"", "size = \"1Gi\""),
        ("", "[container]\ntmpfs = { \"tmp\" = \"1Mi\" }", "begins with /"),
        ("", "[container]\ntmpfs = { \"/tmp\" = 5 }", "5 bytes is hardly meant"),
        ("", "[container]\ntmpfs = { \"/tmp\" = \"0\" }", "holds nothing"),
        ("", "[container]\nulimits = { files = 1 }", "\"nofile\""),
        ("", "[container]\nulimits = { nofile = \"1:2:3\" }", "\"soft:hard\""),
        ("", "[container]\ncapabilities = { add = [\"ALL\"] }", "name those that it needs"),
        ("", "[container]\nstop_signal = \"SIGSEGV\"", "\"SIGTERM\""),
        ("", "[container]\nuser = \"a b\"", "such as \"101\""),
        ("", "[restart]\nmode = \"never\"\nattempts = 2", "only with mode"),
        ("", "[health]\nprobe = { tcp = { port = 1 }, http = { port = 2 } }", "no other probe"),
        ("", "[health]\nprobe = { http = { path = \"/\" } }", "port = 8080"),
        ("", "[health]\nprobe = { tcp = { port = 1 } }\ninterval = \"2h\"", "1 to 3600"),
        ("", "[[link]]\njob = \"db\"\nport = \"pg\"", "listen = 5432"),
        ("", "[[link]]\njob = \"5\"\nport = \"pg\"\nlisten = 1", "host = \"db\""),
        ("", "[[link]]\njob = \"db\"\nport = \"pg\"\nlisten = 1\nhost = \"::1\"", "a host's name"),
        ("", "[[after]]\njob = \"db\"\nis = \"up\"", "\"running\", \"healthy\" or \"done\""),
        ("depends_on = [\"db\"]", "", "[[after]]"),
        ("", "[placement]\nmax_skew = 1", "write \"any\""),
        ("", "[resources.encrypted]\n", "true or false"),
        (
            "",
            "[container]\nsealed = true\n[placement]\norganisations = \"any\"",
            "which `sealed` seals",
        ),
    ] {
        if says.is_empty() {
            job(top, sections);
        } else {
            let refused = one_wrong(top, sections);
            assert!(refused.contains(says), "{top}{sections}: {refused}");
        }
    }
}

#[test]
fn keys_with_units_of_their_own_count_in_them() {
    let request = |resources: &str| {
        let text = format!("image = \"a@sha256:{DIGEST}\"\n[resources]\n{resources}");
        match JobFile::parse(&text).map(|job| job.job.request) {
            Ok(ResourceRequest::Clear(request)) => Ok(request),
            Ok(other) => panic!("{other:?}"),
            Err(refused) => Err(refused.to_string()),
        }
    };
    let same = request("cpu = 1.5\nmemory = \"128Mi\"\ndisk = \"2Gi\"").unwrap();
    for other in [
        "cpu_millicores = 1500\nmemory_mib = 128\ndisk_gib = 2",
        "cpu_millicores = \"1500m\"\nmemory_mib = \"128Mi\"\ndisk_gib = \"2Gi\"",
        "cpu_millicores = \"1500\"\nmemory_mib = \"128\"\ndisk_gib = 0x2",
        "cpu = \"1.5\"\nmemory = 134_217_728\ndisk = \"2 GiB\"",
    ] {
        assert_eq!(request(other).unwrap(), same, "{other}");
    }
    for wrong in ["cpu_millicores = 0.5", "cpu_millicores = \"0.5\""] {
        let refused = request(&format!("{wrong}\nmemory_mib = 1")).unwrap_err();
        assert!(refused.contains("not whole"), "{refused}");
    }
    let refused = request("cpu = nan\nmemory = true").unwrap_err();
    assert_eq!(refused.lines().count(), 2, "{refused}");
    let refused = request("cpu = 9e9\nmemory = \"9000Ti\"").unwrap_err();
    assert!(refused.contains("cannot be requested"), "{refused}");
}

#[test]
fn samples_parse_as_they_are_and_with_every_line_in_use() {
    for sample in [samples::SERVICE, samples::BATCH, samples::PERIODIC, samples::SYSTEM] {
        JobFile::parse(sample).unwrap();
    }
    for supported in [samples::SERVICE, samples::BATCH, samples::PERIODIC, samples::SYSTEM] {
        JobFile::parse(supported).unwrap().check().unwrap();
    }
    let used = |line: &str| match line.strip_prefix('#') {
        Some(key) if !key.starts_with(' ') => key.to_owned(),
        _ => line.to_owned(),
    };
    // The lease stands at the end, behind the sections: it is tried at the top.
    let all: Vec<_> = samples::SERVICE.lines().map(used).collect();
    let (top, rest): (Vec<_>, Vec<_>) = all.iter().partition(|line| line.starts_with("lease"));
    let mut text = top.into_iter().chain(rest).cloned().collect::<Vec<_>>().join("\n");
    text = text.replace("mode = \"always\"", "mode = \"on_failure\"");
    let job = JobFile::parse(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    job.check().unwrap();
}

/// A file with every key that can be used, in its own words.
fn any_file() -> impl Strategy<Value = String> {
    let quantities = (1u64..4000, 1u64..4000, 0u64..100, 0u16..9, 1u16..1024);
    let container = (
        proptest::option::of(0u32..70_000),
        any::<[bool; 3]>(),
        prop::collection::btree_map("/[a-z]{1,8}/[a-z]{1,8}", 1u32..64, 0..4),
        1u32..65_536,
        prop::collection::btree_set(0..Capability::ALL.len(), 0..5),
    );
    let life = (0usize..3, proptest::option::of(0u16..1000), 30u32..86_400, any::<u8>());
    let labels = prop::collection::btree_set("[a-z]{1,9}=[a-zA-Z0-9]{1,9}", 0..6);
    (quantities, container, life, labels, "[a-z][a-z0-9]{0,20}").prop_map(
        |((cpu, memory, disk, gpus, replicas), (user, flags, tmpfs, pids, drop), life, labels, name)| {
            let (mode, attempts, lease, priority) = life;
            let mode = ["never", "on_failure", "always"][mode];
            let tmpfs: Vec<_> = tmpfs.iter().rev().map(|(path, size)| format!("\"{path}\" = \"{size}Mi\"")).collect();
            let drop: Vec<_> = drop.iter().rev().map(|i| format!("\"{}\"", Capability::ALL[*i])).collect();
            let labels: Vec<_> = labels.iter().rev().map(|label| format!("\"{label}\"")).collect();
            let mut text = format!(
                "name = \"{name}\"\nreplicas = {replicas}\nlease = {{ exclusive = \"{lease}s\" }}\n\
                 image = \"a/{name}@sha256:{DIGEST}\"\n[resources]\ncpu = \"{cpu}m\"\nmemory = \"{}Mi\"\n\
                 disk = \"{disk}GB\"\ngpus = {gpus}\n[restart]\nmode = \"{mode}\"\n",
                memory + 64
            );
            if let ("on_failure", Some(attempts)) = (mode, attempts) {
                text += &format!("attempts = {attempts}\n");
            }
            text += &format!(
                "[placement]\npriority = {priority}\nallow = [{}]\n[container]\ninit = {}\nread_only = {}\n\
                 tmpfs = {{ {} }}\npids = {pids}\ncapabilities = {{ drop = [{}] }}\n",
                labels.join(", "), flags[0], flags[1], tmpfs.join(", "), drop.join(", "),
            );
            if let Some(user) = user {
                text += &format!("user = \"{user}\"\n");
            }
            if flags[2] { text.replace('\n', "\r\n") } else { text }
        },
    )
}

proptest! {
    #[test]
    fn a_job_keeps_its_digest_from_file_to_json_and_back(text in any_file(), nonce: u64) {
        let file = JobFile::parse(&text).unwrap();
        let job = file.into_spec(NOWHERE, Address([3; 20]), nonce).unwrap();
        let json = serde_json::to_string(&job).unwrap();
        let back: JobSpec = serde_json::from_str(&json).unwrap();
        prop_assert_eq!(back.digest(), job.digest());
        prop_assert_eq!(back, job);
    }

    #[test]
    fn noise_never_panics(text in "\\PC{0,200}") {
        let _ = JobFile::parse(&text);
    }

    #[test]
    fn values_of_any_kind_never_panic(key in 0..keys::KEYS.len(), value in 0usize..9) {
        let values = ["1", "-1", "1.5", "\"\"", "\"a:b\"", "true", "[]", "{ a = 1 }", "1979-05-27"];
        let path = keys::KEYS[key].path;
        let _ = JobFile::parse(&file(&format!("{path} = {}", values[value]), ""));
    }

    #[test]
    fn a_damaged_sample_never_panics(at in 0..samples::SERVICE.len(), noise in "\\PC{0,3}") {
        let mut text = samples::SERVICE.replace("\n#", "\n");
        let at = (0..=at.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap();
        text.insert_str(at, &noise);
        let _ = JobFile::parse(&text);
    }
}

/// Every key and alias is reachable: no other part of the reader would notice one that nothing reads.
#[test]
fn every_open_key_is_read() {
    for key in keys::KEYS.iter().filter(|key| key.state == State::Open) {
        for path in [key.path].iter().chain(key.aliases) {
            let mut table = toml::Table::new();
            let mut value = Value::Datetime("1979-05-27".parse().unwrap());
            for part in path.split('.').rev() {
                table = toml::Table::from_iter([(part.to_owned(), value)]);
                value = Value::Table(table.clone());
            }
            if let Some(list) = ["port", "link", "after", "volume", "secret", "file"]
                .into_iter()
                .find(|list| path.starts_with(&format!("{list}.")))
            {
                let item = table.remove(list).unwrap();
                table.insert(list.to_owned(), Value::Array(vec![item]));
            }
            let text = toml::to_string(&table).unwrap();
            // No key takes a date.
            let refused = JobFile::parse(&text).unwrap_err().to_string();
            let of_type = refused.lines().any(|line| line.contains(&format!("`{path}`")));
            assert!(of_type, "{path}: {refused}");
        }
    }
}
