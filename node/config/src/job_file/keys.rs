//! Every key of a job file, and what to say of keys that are none.

use super::problem::Reason;

/// Why a known key cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It can.
    Open,
    /// Only its default is accepted.
    Reserved {
        /// What it is for.
        what: &'static str,
        /// The default, as the file writes it.
        default: Default,
    },
}

/// The default of a reserved key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Default {
    /// `false`.
    False,
    /// An empty list.
    Empty,
    /// `"any"`.
    Any,
}

impl Default {
    pub(super) const fn text(self) -> &'static str {
        match self {
            Self::False => "false",
            Self::Empty => "[]",
            Self::Any => "\"any\"",
        }
    }
}

/// A key of the job file.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// The key with those of its sections before it; those of a list of sections are named like a section's.
    pub path: &'static str,
    /// Others that mean the same.
    pub aliases: &'static [&'static str],
    /// Whether it can be used.
    pub state: State,
}

const fn key(path: &'static str) -> Key {
    Key { path, aliases: &[], state: State::Open }
}

const fn alias(path: &'static str, aliases: &'static [&'static str]) -> Key {
    Key { path, aliases, state: State::Open }
}

const fn reserved(path: &'static str, what: &'static str, default: Default) -> Key {
    Key { path, aliases: &[], state: State::Reserved { what, default } }
}

/// Every key, in the order of the documentation.
pub const KEYS: &[Key] = &[
    key("name"),
    key("type"),
    key("batch.max_attempts"),
    key("periodic.cron"),
    key("periodic.time_zone"),
    key("periodic.overlap"),
    key("image"),
    key("replicas"),
    alias("resources.cpu", &["resources.cpu_millicores"]),
    alias("resources.memory", &["resources.memory_mib"]),
    alias("resources.disk", &["resources.disk_gib"]),
    key("resources.gpus"),
    key("resources.encrypted"),
    alias("container.entrypoint", &["container.command", "entrypoint", "command"]),
    alias("container.args", &["args"]),
    key("container.sealed"),
    key("container.user"),
    key("container.workdir"),
    key("container.hostname"),
    key("container.init"),
    key("container.read_only"),
    key("container.tmpfs"),
    key("container.shm_size"),
    key("container.pids"),
    key("container.ulimits"),
    key("container.stop_signal"),
    key("container.stop_timeout"),
    key("container.capabilities.add"),
    key("container.capabilities.drop"),
    key("port.name"),
    key("port.container"),
    key("port.protocol"),
    key("port.host"),
    key("egress"),
    key("link.job"),
    key("link.port"),
    key("link.host"),
    key("link.listen"),
    key("link.env"),
    key("after.job"),
    key("after.is"),
    key("volume.name"),
    key("volume.mount"),
    key("volume.kind"),
    key("volume.size"),
    key("volume.read_only"),
    key("volume.on_loss"),
    alias("placement.policy", &["policy"]),
    alias("placement.priority", &["priority"]),
    alias("placement.allow", &["allow"]),
    alias("placement.deny", &["deny"]),
    alias("placement.anti_affinity", &["anti_affinity"]),
    alias("placement.failure_domain", &["failure_domain"]),
    alias("placement.max_latency", &["max_latency"]),
    alias("placement.prefer_previous", &["prefer_previous"]),
    key("placement.organisations"),
    reserved(
        "placement.max_per_domain",
        "at most so many replicas in one failure domain",
        Default::Any,
    ),
    reserved(
        "placement.max_skew",
        "failure domains that hold nearly as many replicas each",
        Default::Any,
    ),
    reserved(
        "placement.tolerations",
        "workers that only take jobs which tolerate them",
        Default::Empty,
    ),
    reserved("placement.preferences", "labels that are preferred and not required", Default::Empty),
    alias("lease", &["lease.exclusive"]),
    alias("restart", &["restart.mode"]),
    key("restart.attempts"),
    key("restart.interval"),
    key("restart.delay"),
    key("health.probe.command"),
    key("health.probe.tcp.port"),
    key("health.probe.http.port"),
    key("health.probe.http.path"),
    alias("health.interval", &["health.interval_seconds"]),
    alias("health.timeout", &["health.timeout_seconds"]),
    key("health.retries"),
    alias("health.start_period", &["health.start_period_seconds"]),
    key("health.unhealthy"),
    key("update.max_parallel"),
    key("update.min_healthy"),
    key("update.healthy_deadline"),
    key("update.auto_revert"),
    reserved("price", "a limit of what a worker may take", Default::Any),
    reserved("reveal", "a choice of who learns where replicas run", Default::Any),
    reserved("gang", "placing all replicas or none", Default::False),
    key("env"),
    key("secret.path"),
    key("secret.env"),
    key("secret.from"),
    key("secret.mode"),
    key("file.path"),
    key("file.from"),
    key("file.mode"),
    key("registry.from"),
    key("registry.username"),
    key("registry.password"),
];

/// Sections that a file may have several of, `[[port]]`.
pub(super) const LISTS: &[&str] = &["port", "link", "after", "volume", "secret", "file"];

/// Keys that other systems have, that older job files had, or that stand in another section here, with what
/// to write.
const ELSEWHERE: &[(&[&str], &str)] = &[
    (&["ports", "expose"], "one [[port]] for each: [[port]] name = \"http\", container = 80"),
    (
        &["volumes", "mounts"],
        "one [[volume]] for each: [[volume]] name = \"data\", mount = \"/data\", kind = \"host\"",
    ),
    (&["user"], "it in the container's section: [container] user = \"101\""),
    (
        &["cap_add", "cap_drop", "container.cap_add", "container.cap_drop"],
        "[container.capabilities] drop = [\"ALL\"], add = [\"CHOWN\"]",
    ),
    (&["workdir", "working_dir", "container.working_dir"], "[container] workdir = \"/srv\""),
    (&["hostname"], "[container] hostname = \"web\""),
    (&["init"], "[container] init = true"),
    (&["read_only"], "[container] read_only = true"),
    (&["tmpfs"], "[container] tmpfs = { \"/tmp\" = \"64Mi\" }"),
    (&["shm_size"], "[container] shm_size = \"128Mi\""),
    (&["pids", "pids_limit", "container.pids_limit"], "[container] pids = 1024"),
    (&["ulimits"], "[container] ulimits = { nofile = 65536 }"),
    (&["stop_signal"], "[container] stop_signal = \"SIGQUIT\""),
    (
        &["stop_timeout", "stop_grace_period", "container.stop_grace_period"],
        "[container] stop_timeout = \"30s\"",
    ),
    (
        &["privileged", "container.privileged"],
        "nothing: no container is privileged; name what it needs in [container.capabilities] add",
    ),
    (
        &[
            "sysctls",
            "container.sysctls",
            "devices",
            "container.devices",
            "network_mode",
            "pid",
            "ipc",
        ],
        "nothing: containers get no part of the host",
    ),
    (
        &["environment", "env_file", "container.env", "container.environment"],
        "[env] TZ = \"Europe/Berlin\"",
    ),
    (
        &["secrets", "container.secrets"],
        "one [[secret]] for each: [[secret]] path = \"/run/secrets/db\", from = { file = \"db.txt\" }",
    ),
    (
        &["files", "configs", "config"],
        "one [[file]] for each: [[file]] path = \"/etc/app.conf\", from = { file = \"app.conf\" }",
    ),
    (
        &["links", "networks", "external_links"],
        "one [[link]] for each port that it reaches: [[link]] job = \"shop-db\", port = \"pg\", listen = 5432",
    ),
    (
        &["depends_on", "dependsOn"],
        "one [[after]] for each: [[after]] job = \"shop-db\", is = \"healthy\"",
    ),
    (
        &["sidecars", "init_containers", "initContainers", "sidecar"],
        "a job for each container: one job is one container",
    ),
    (&["cpu", "cpus", "cpu_millicores"], "[resources] cpu = \"500m\""),
    (&["memory", "mem_limit", "memory_mib"], "[resources] memory = \"256Mi\""),
    (&["disk", "disk_gib", "storage"], "[resources] disk = \"1Gi\""),
    (&["gpu", "gpus", "resources.gpu"], "[resources] gpus = 1"),
    (
        &["resources.io", "resources.iops", "resources.bandwidth", "resources.egress"],
        "nothing: there are no limits of I/O and of traffic",
    ),
    (
        &["healthcheck", "health_check"],
        "[health] probe = { http = { port = 8080, path = \"/healthz\" } }",
    ),
    (&["health.command"], "[health] probe = { command = [\"/bin/check\"] }"),
    (&["health.tcp", "health.port"], "[health] probe = { tcp = { port = 5432 } }"),
    (
        &["health.http", "health.path"],
        "[health] probe = { http = { port = 8080, path = \"/healthz\" } }",
    ),
    (
        &["restart.on_failure", "restart.max_retries", "restart_policy"],
        "[restart] mode = \"on_failure\", attempts = 5",
    ),
    (&["lease.keep"], "lease = \"keep\""),
    (&["lease.seconds"], "lease = { exclusive = \"2m\" }"),
    (&["labels", "constraints"], "[placement] allow = [\"zone=eu-1\"]"),
    (&["affinity"], "[placement] anti_affinity = \"soft\""),
    (
        &["organisations", "organizations", "placement.organizations"],
        "[placement] organisations = [\"Acme\"]",
    ),
    (&["sticky", "sticky_disk"], "[[volume]] kind = \"host\": a replica stays where its volume is"),
    (&["taints", "tolerations", "placement.taints"], "[placement] tolerations, which is reserved"),
    (&["count", "scale", "deploy.replicas"], "replicas = 3"),
    (&["schedule", "cron"], "type = \"periodic\" and [periodic] cron = \"0 4 * * *\""),
];

/// The entry that a path belongs to, by its own path or by an alias.
pub(super) fn of(path: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.path == path || key.aliases.contains(&path))
}

/// Whether keys stand in a section of this path.
pub(super) fn is_section(path: &str) -> bool {
    let within = |key: &str| key.strip_prefix(path).is_some_and(|rest| rest.starts_with('.'));
    KEYS.iter().any(|key| within(key.path) || key.aliases.iter().any(|alias| within(alias)))
}

/// What to say of a path that is no key; `section` is where it stands, "" for the top.
pub(super) fn unknown(section: &str, path: &str) -> Reason {
    if let Some((_, form)) = ELSEWHERE.iter().find(|(paths, _)| paths.contains(&path)) {
        return Reason::Elsewhere(form);
    }
    let name = path.rsplit('.').next().unwrap_or(path);
    let known = names_in(section);
    let near = known.iter().map(|known| (distance(name, known), known));
    match near.min().filter(|(distance, _)| *distance <= 1 + name.len() / 5) {
        Some((_, known)) => Reason::Misspelt((*known).to_owned()),
        None => match KEYS.iter().find(|key| key.path.rsplit('.').next() == Some(name)) {
            Some(key) => Reason::Misspelt(key.path.to_owned()),
            None => Reason::Unknown { known: known.join(", ") },
        },
    }
}

/// Names of the keys and sections that stand in a section.
fn names_in(section: &str) -> Vec<&'static str> {
    let inside = |path: &'static str| {
        let rest = match section {
            "" => path,
            section => path.strip_prefix(section)?.strip_prefix('.')?,
        };
        rest.split('.').next()
    };
    let mut names: Vec<_> = KEYS.iter().filter_map(|key| inside(key.path)).collect();
    names.dedup();
    names
}

/// Letters to insert, remove or change, or neighbours to swap, to make one word of the other.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![(0..=b.len()).collect::<Vec<usize>>()];
    for (i, x) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, y) in b.iter().enumerate() {
            let change = rows[i][j] + usize::from(x != y);
            let mut least = change.min(rows[i][j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && a[i - 1] == *y && *x == b[j - 1] {
                least = least.min(rows[i - 1][j - 1] + 1);
            }
            row.push(least);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_count_edits() {
        for (a, b, expected) in [
            ("", "", 0),
            ("a", "", 1),
            ("replica", "replicas", 1),
            ("iamge", "image", 1),
            ("abc", "xyz", 3),
        ] {
            assert_eq!((distance(a, b), distance(b, a)), (expected, expected), "{a} {b}");
        }
    }

    #[test]
    fn no_key_is_there_twice_and_none_is_elsewhere() {
        let mut all: Vec<_> = KEYS
            .iter()
            .flat_map(|key| [key.path].into_iter().chain(key.aliases.iter().copied()))
            .collect();
        for (paths, _) in ELSEWHERE {
            for path in *paths {
                assert!(!is_section(path) || *path == "lease", "{path}");
                all.push(path);
            }
        }
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), count);
    }

    #[test]
    fn what_is_no_key_is_told_apart() {
        assert_eq!(unknown("", "replica"), Reason::Misspelt("replicas".to_owned()));
        assert_eq!(unknown("container", "container.usr"), Reason::Misspelt("user".to_owned()));
        assert_eq!(
            unknown("", "cron_job.time_zone"),
            Reason::Misspelt("periodic.time_zone".to_owned())
        );
        assert!(
            matches!(unknown("", "cap_add"), Reason::Elsewhere(form) if form.contains("capabilities"))
        );
        let known = Reason::Unknown {
            known: "max_parallel, min_healthy, healthy_deadline, auto_revert".to_owned(),
        };
        assert_eq!(unknown("update", "update.canary_steps"), known);
    }
}
