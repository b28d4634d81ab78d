//! A real Prometheus that scrapes a network of processes: what an operator sees of it.

use std::{
    collections::BTreeSet,
    env, fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use serde_json::{Value, json};
use veil_node_devnet::DevnetFile;

use crate::network::{Network, until};

/// Of these there is nothing as long as nothing goes wrong.
const EMPTY_WHEN_FINE: [&str; 1] = ["veil_refusals_total"];

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Where the programs of Debian's package are: installed, or laid out by `cargo xtask setup`.
fn program(name: &str) -> PathBuf {
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), PathBuf::from);
    let own = repository().join(target).join("setup/prometheus/usr/bin").join(name);
    let path = if own.is_file() { own } else { name.into() };
    let runs = Command::new(&path).arg("--version").output();
    assert!(runs.is_ok_and(|output| output.status.success()), "no {name}: run `cargo xtask setup`");
    path
}

struct Prometheus {
    child: Child,
    url: String,
    promtool: PathBuf,
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Prometheus {
    /// With the alerts of the repository, which it raises at once, and with each node of the network as its owner would
    /// name it to a reader.
    fn start(network: &Network, folder: &Path) -> Self {
        let alerts = fs::read_to_string(repository().join("ops/prometheus/alerts.yml")).unwrap();
        let at_once = |line: &str| {
            let waits = line.trim_start().starts_with("for: ");
            if waits { "        for: 0s".to_owned() } else { line.to_owned() }
        };
        let alerts: Vec<String> = alerts.lines().map(at_once).collect();
        fs::write(folder.join("alerts.yml"), alerts.join("\n")).unwrap();
        let nodes = DevnetFile::read(&network.folder).unwrap().nodes.into_iter();
        let scraped = nodes.map(|node| {
            let data = network.folder.join(&node.name).join("data");
            let address = node.api.unwrap();
            json!({
                "job_name": node.name,
                "scheme": "https",
                "authorization": { "credentials_file": data.join("api-read-token") },
                "tls_config": { "ca_file": data.join("api-certificate.pem") },
                "static_configs": [{ "targets": [address.strip_prefix("https://").unwrap()] }],
                "relabel_configs": [
                    { "target_label": "job", "replacement": "veil" },
                    { "target_label": "instance", "replacement": node.name },
                ],
            })
        });
        let configuration = json!({
            "global": { "scrape_interval": "2s", "evaluation_interval": "2s" },
            "rule_files": ["alerts.yml"],
            "scrape_configs": scraped.collect::<Vec<_>>(),
        });
        // JSON is YAML.
        let file = folder.join("prometheus.yml");
        fs::write(&file, configuration.to_string()).unwrap();
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let mut command = Command::new(program("prometheus"));
        command.arg(format!("--config.file={}", file.display()));
        command.arg(format!("--storage.tsdb.path={}", folder.join("data").display()));
        command.arg(format!("--web.listen-address={free}"));
        let log = fs::File::create(folder.join("log")).unwrap();
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap();
        Self { child, url: format!("http://{free}"), promtool: program("promtool") }
    }

    /// What an expression is now; nothing if Prometheus does not answer, or does not take it.
    fn query(&self, expression: &str) -> Option<Vec<Value>> {
        let mut command = Command::new(&self.promtool);
        command.args(["query", "instant", "--format=json", &self.url, expression]);
        let output = command.output().unwrap();
        let answer = output.status.success().then_some(output.stdout)?;
        serde_json::from_slice(&answer).ok()
    }

    /// The nodes that an alert is raised for.
    fn firing(&self, alert: &str) -> Option<BTreeSet<String>> {
        let raised = format!("ALERTS{{alertname=\"{alert}\",alertstate=\"firing\"}}");
        let instance = |found: &Value| found["metric"]["instance"].as_str().unwrap().to_owned();
        Some(self.query(&raised)?.iter().map(instance).collect())
    }
}

/// Every expression of the dashboard.
fn expressions(of: &Value, all: &mut Vec<String>) {
    match of {
        Value::Object(entries) => {
            all.extend(entries.get("expr").and_then(Value::as_str).map(str::to_owned));
            entries.values().for_each(|entry| expressions(entry, all));
        }
        Value::Array(entries) => entries.iter().for_each(|entry| expressions(entry, all)),
        _ => {}
    }
}

#[test]
fn the_dashboard_shows_a_placement_and_an_alert_a_node_that_is_gone() {
    let (network, _) = Network::start();
    let folder = tempfile::tempdir().unwrap();
    let prometheus = Prometheus::start(&network, folder.path());
    let nodes = DevnetFile::read(&network.folder).unwrap().nodes.len();
    until("each node is scraped", || {
        (prometheus.query("veil_ready == 1")?.len() == nodes).then_some(())
    });

    let dashboard = fs::read_to_string(repository().join("ops/grafana/veil.json")).unwrap();
    let mut panels = Vec::new();
    expressions(&serde_json::from_str(&dashboard).unwrap(), &mut panels);
    assert!(panels.len() > 15, "{panels:?}");
    for panel in panels {
        let fine = EMPTY_WHEN_FINE.iter().any(|metric| panel.contains(metric));
        until(&panel, || {
            let found = prometheus.query(&panel.replace("$node", ".*"))?;
            (fine || !found.is_empty()).then_some(())
        });
    }
    // The slot that placed the sample job, by whoever evaluated it.
    let evaluated = "sum(veil_slot_phase_seconds_count{phase=\"evaluate\"}) > 0";
    until("the phases of the slot are there", || {
        (!prometheus.query(evaluated)?.is_empty()).then_some(())
    });

    assert_eq!(prometheus.firing("VeilMembersPartWrong"), Some(BTreeSet::new()));
    // A busy machine may answer too late for once.
    until("no node is down", || prometheus.firing("VeilNodeDown")?.is_empty().then_some(()));
    network.end("worker-3");
    let gone = BTreeSet::from(["worker-3".to_owned()]);
    until("the alert fires", || (prometheus.firing("VeilNodeDown")? == gone).then_some(()));
    let worker = network.start_node("worker-3");
    until("the alert clears", || prometheus.firing("VeilNodeDown")?.is_empty().then_some(()));
    drop(worker);
}
