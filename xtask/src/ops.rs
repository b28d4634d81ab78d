//! What operators put into Prometheus and Grafana: `ops/`.
//!
//! Prometheus' own promtool reads the configuration, makes each alert fire and clear (`alerts.test.yml`), and parses every
//! expression of the dashboard. Each metric that they name has to be one that `docs/json.md` lists.

use std::{
    collections::BTreeSet,
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

use crate::{
    failed::Failed,
    step::{Step, probe, root, target},
};

const NAME: &str = "ops";
const ALERTS: &str = "ops/prometheus/alerts.yml";
const CASES: &str = "ops/prometheus/alerts.test.yml";
const CONFIGURATION: &str = "ops/prometheus/prometheus.yml";
const DASHBOARD: &str = "ops/grafana/veil.json";
const DOCUMENT: &str = "docs/json.md";
const ALERTS_DOCUMENT: &str = "docs/metrics.md";
/// What names of Veil's metrics begin with.
const PREFIXES: [&str; 2] = ["veil_", "libp2p_"];

fn cannot(what: &str, path: &Path, error: &dyn std::fmt::Display) -> Failed {
    Failed::new(NAME, format!("cannot {what} {}: {error}", path.display()))
}

fn read(path: &str) -> Result<String, Failed> {
    let path = root().join(path);
    fs::read_to_string(&path).map_err(|error| cannot("read", &path, &error))
}

/// Where [`setup`] lays Debian's programs.
fn folder() -> PathBuf {
    target().join("setup/prometheus")
}

/// promtool, where it is.
fn promtool() -> Option<String> {
    let own = folder().join("usr/bin/promtool").to_string_lossy().into_owned();
    ["promtool".to_owned(), own].into_iter().find(|tool| probe(tool, &["--version"]).is_some())
}

/// Lays promtool into the build folder, unless it is installed. The Debian package would start a server.
pub(crate) fn setup(may_install: bool, missing: &mut Vec<String>) -> Result<(), Failed> {
    if let Some(tool) = promtool() {
        println!("promtool: {}", probe(&tool, &["--version"]).unwrap_or_default());
        return Ok(());
    }
    println!("promtool: missing");
    if !may_install {
        missing.push("sudo apt-get update && sudo apt-get install -y prometheus".to_owned());
        return Ok(());
    }
    let folder = folder();
    let shown = folder.to_string_lossy().into_owned();
    let _ = fs::remove_dir_all(&folder); // what is left of another version, if anything is
    fs::create_dir_all(&folder).map_err(|error| cannot("create", &folder, &error))?;
    Step::new(NAME, "apt-get", &["update"]).run()?;
    Step::new(NAME, "apt-get", &["download", "prometheus"]).inside(&folder).run()?;
    let entries = fs::read_dir(&folder).map_err(|error| cannot("read", &folder, &error))?;
    let is_package = |path: &PathBuf| path.extension().is_some_and(|end| end == "deb");
    let package = entries.flatten().map(|entry| entry.path()).find(is_package);
    let package = package.ok_or_else(|| Failed::new(NAME, "apt-get has loaded no package"))?;
    Step::new(NAME, "dpkg-deb", &["-x", &package.to_string_lossy(), &shown]).run()?;
    fs::remove_file(&package).map_err(|error| cannot("remove", &package, &error))?;
    promtool()
        .map(drop)
        .ok_or_else(|| Failed::new(NAME, format!("{shown} has no promtool that runs")))
}

/// Checks all of it.
pub(crate) fn test() -> Result<(), Failed> {
    let tool = promtool()
        .ok_or_else(|| Failed::new(NAME, "promtool is missing: run cargo xtask setup"))?;
    // The certificate and the token that it names are the operator's.
    Step::new(NAME, &tool, &["check", "config", "--syntax-only", CONFIGURATION]).run()?;
    Step::new(NAME, &tool, &["test", "rules", CASES]).run()?;
    let (alerts, cases, listed) = (read(ALERTS)?, read(CASES)?, read(ALERTS_DOCUMENT)?);
    let names = named(&alerts, "- alert: ");
    if let Some(alert) = names.iter().find(|alert| !listed.contains(&format!("| `{alert}` |"))) {
        return Err(Failed::new(NAME, format!("{ALERTS_DOCUMENT} lists no {alert}")));
    }
    let untested: Vec<_> = names
        .into_iter()
        .filter(|alert| cases.matches(&format!("alertname: {alert}")).count() < 3)
        .collect();
    if !untested.is_empty() {
        let list = untested.join(", ");
        let reason = format!("{CASES} does not make each alert fire and clear: {list}");
        return Err(Failed::new(NAME, reason));
    }
    let dashboard = read(DASHBOARD)?;
    let dashboard: Value = serde_json::from_str(&dashboard)
        .map_err(|error| cannot("parse", Path::new(DASHBOARD), &error))?;
    let expressions = expressions(&dashboard);
    parse(&tool, &expressions)?;
    let known = metrics(&read(DOCUMENT)?);
    let used = metrics(&[alerts, expressions.join("\n")].join("\n"));
    let unknown: Vec<_> = used.iter().filter(|name| !is_known(name, &known)).cloned().collect();
    if !unknown.is_empty() {
        let reason = format!("{DOCUMENT} lists no metric {}", unknown.join(", "));
        return Err(Failed::new(NAME, reason));
    }
    let (used, panels) = (used.len(), expressions.len());
    println!("== {NAME}: {panels} expressions of the dashboard, {used} metrics that nodes have");
    Ok(())
}

/// What stands behind `key`, line by line.
fn named<'a>(text: &'a str, key: &str) -> Vec<&'a str> {
    text.lines().filter_map(|line| line.trim_start().strip_prefix(key)).collect()
}

/// Every `expr` in a dashboard.
fn expressions(of: &Value) -> Vec<String> {
    match of {
        Value::Object(entries) => entries
            .iter()
            .flat_map(|(key, value)| match value.as_str() {
                Some(text) if key == "expr" => vec![text.to_owned()],
                _ => expressions(value),
            })
            .collect(),
        Value::Array(entries) => entries.iter().flat_map(expressions).collect(),
        _ => Vec::new(),
    }
}

/// Has promtool parse them, as rules that record them. JSON is YAML.
fn parse(tool: &str, expressions: &[String]) -> Result<(), Failed> {
    let rules: Vec<Value> = expressions
        .iter()
        .enumerate()
        .map(|(i, text)| {
            let expr = text.replace("$node", ".*");
            serde_json::json!({ "record": format!("panel_{i}"), "expr": expr })
        })
        .collect();
    let file = serde_json::json!({ "groups": [{ "name": "dashboard", "rules": rules }] });
    let folder = tempfile::tempdir().map_err(|error| cannot("make", &env::temp_dir(), &error))?;
    let path = folder.path().join("dashboard.json");
    fs::write(&path, file.to_string()).map_err(|error| cannot("write", &path, &error))?;
    let args = ["check", "rules", "--lint=none", &path.to_string_lossy()];
    let output = Command::new(tool).args(args).output();
    let output = output.map_err(|error| cannot("start", Path::new(tool), &error))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    Err(Failed::new(NAME, format!("an expression of {DASHBOARD} is wrong:\n{said}")))
}

/// The names of metrics in a text.
fn metrics(text: &str) -> BTreeSet<String> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.split(|c| !is_name(c))
        .filter(|word| PREFIXES.iter().any(|prefix| word.starts_with(prefix)))
        .map(str::to_owned)
        .collect()
}

/// A histogram has several series.
fn is_known(name: &str, known: &BTreeSet<String>) -> bool {
    let series = ["_bucket", "_sum", "_count"].iter();
    known.contains(name)
        || series.filter_map(|series| name.strip_suffix(series)).any(|name| known.contains(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_found_in_expressions() {
        let used = metrics("rate(veil_a_total{x=\"y\"}[5m]) / on (z) (veil_b_seconds_bucket) + up");
        assert_eq!(used.into_iter().collect::<Vec<_>>(), ["veil_a_total", "veil_b_seconds_bucket"]);
        let known = metrics("| `veil_b_seconds` | by `phase` |");
        assert!(is_known("veil_b_seconds_bucket", &known) && !is_known("veil_a_total", &known));
    }

    #[test]
    fn expressions_are_found_at_any_depth() {
        let board =
            serde_json::json!({ "panels": [{ "targets": [{ "expr": "a" }] }, { "expr": "b" }] });
        assert_eq!(expressions(&board), ["a", "b"]);
    }

    #[test]
    fn alerts_are_found_by_their_key() {
        assert_eq!(named("  - alert: A\n  expr: x\n  - alert: B", "- alert: "), ["A", "B"]);
    }
}
