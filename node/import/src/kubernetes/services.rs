//! Services: who is reached under which name, and where on the worker's address.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Made, name_of,
    objects::{Objects, selects},
    probes::port_of,
};
use crate::{
    error::ImportError,
    job::{Host, Job, Port},
    links::{self, Server, mentions},
    report::Report,
    yaml::{Entry, Node},
};

/// Keys of a Service that are read.
const READ: &[&str] = &["ports", "selector", "type"];

/// A job behind a Service.
struct Reached<'a> {
    object: &'a Node,
    name: &'a str,
    job: usize,
    ports: BTreeSet<(u16, u16)>,
}

/// A port of a Service.
struct Given {
    listen: u16,
    container: u16,
}

pub(super) fn connect(
    objects: &Objects<'_>,
    made: &[Made],
    jobs: &mut [Job],
    report: &mut Report,
) -> Result<(), ImportError> {
    let mut behind: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    let mut reached = Vec::new();
    for object in &objects.services {
        let name = name_of(object);
        let selector = object.at(&["spec", "selector"]);
        let targets: Vec<usize> = match selector {
            Some(selector) => {
                let is = |one: &&Made| selects(selector, &one.labels) && !is_init(jobs, one.job);
                made.iter().filter(is).map(|one| one.job).collect()
            }
            None => Vec::new(),
        };
        if targets.is_empty() {
            outside(object, name, made, jobs, report);
            continue;
        }
        one(object, name, &targets, made, jobs, &mut reached, report)?;
        behind.insert(name, targets);
    }
    for rule in &objects.rules {
        rules(rule, &behind, made, jobs, report);
    }
    // Those that a job names come first: there is not room for all.
    for is_named in [true, false] {
        for from in made {
            let mut left = 0;
            for Reached { object, name, job, ports } in &reached {
                let mut hosts = hosts(name, object, from);
                let names = |host: &String| from.texts.iter().any(|text| mentions(text, host));
                hosts.retain(|host| names(host) == is_named);
                left += links::link(jobs, from.job, *job, &Server { hosts, ports: ports.clone() });
            }
            links::left_out(report, &service_of(jobs, from.job), from.pos, left);
        }
    }
    Ok(())
}

/// What runs before the containers of a pod has its labels, and serves nobody.
fn is_init(jobs: &[Job], job: usize) -> bool {
    let name = jobs.get(job).map(|job| job.name.as_str()).unwrap_or_default();
    jobs.iter().any(|job| job.after.iter().any(|after| after.job == name))
}

fn service_of(jobs: &[Job], job: usize) -> String {
    jobs.get(job).map(|job| job.service.clone()).unwrap_or_default()
}

/// A Service that selects nothing of the file.
fn outside(object: &Node, name: &str, made: &[Made], jobs: &[Job], report: &mut Report) {
    let named = made.iter().filter(|one| one.texts.iter().any(|text| mentions(text, name)));
    let mut is_named = false;
    for one in named {
        is_named = true;
        let reason = format!("it reaches `{name}`, which the file does not run: link it by hand");
        report.changed(&service_of(jobs, one.job), "Service", object.pos, reason);
    }
    if !is_named {
        report.drop_as("", "Service.unused", &format!("Service.{name}"), object.pos);
    }
}

fn one<'a>(
    object: &'a Node,
    name: &'a str,
    targets: &[usize],
    made: &[Made],
    jobs: &mut [Job],
    reached: &mut Vec<Reached<'a>>,
    report: &mut Report,
) -> Result<(), ImportError> {
    let spec = object.get("spec").map_or(&[][..], Node::entries);
    let first = targets.first().copied().unwrap_or_default();
    let service = service_of(jobs, first);
    for Entry { key, pos, value } in spec {
        let harmless = key == "sessionAffinity" && value.as_text() != Some("None");
        if harmless {
            let reason = "links carry each connection to the next replica";
            report.changed(&service, "Service.spec.sessionAffinity", *pos, reason);
        } else if !READ.contains(&key.as_str()) && !value.is_null() {
            report.drop(&service, &format!("Service.spec.{key}"), *pos);
        }
    }
    let kind = object.text_at(&["spec", "type"]).unwrap_or("ClusterIP");
    let mut ports = BTreeMap::<usize, Vec<Given>>::new();
    for node in object.at(&["spec", "ports"]).map_or(&[][..], Node::items) {
        port(node, kind, targets, jobs, &mut ports, report)?;
    }
    let distinct: BTreeSet<_> = targets.iter().map(|target| service_of(jobs, *target)).collect();
    if distinct.len() > 1 {
        for other in distinct.iter().filter(|other| **other != service) {
            let reason = format!(
                "`{name}` selects several workloads, and a link leads to one job: to `{service}`"
            );
            report.changed(other, "Service.spec.selector", object.pos, reason);
        }
    }
    for (job, ports) in ports {
        let is_own =
            |from: &&Made| from.job == job && from.texts.iter().any(|text| mentions(text, name));
        let several = jobs.get(job).is_some_and(|job| job.replicas > 1);
        if several && made.iter().any(|from| is_own(&from)) {
            let reason =
                format!("its replicas reach one another by `{name}`: a job has no link to itself");
            report.changed(&service_of(jobs, job), "Service", object.pos, reason);
        }
        let ports = ports.iter().map(|given| (given.listen, given.container)).collect();
        reached.push(Reached { object, name, job, ports });
    }
    Ok(())
}

/// Names of a Service: the short one, and longer ones that somebody uses.
fn hosts(name: &str, object: &Node, from: &Made) -> BTreeSet<String> {
    let namespace = object.text_at(&["metadata", "namespace"]).unwrap_or(&from.namespace);
    let long = [
        format!("{name}.{namespace}"),
        format!("{name}.{namespace}.svc"),
        format!("{name}.{namespace}.svc.cluster.local"),
    ];
    let used = long.into_iter().filter(|host| {
        // `a.b` is in `a.b.svc`, too: it counts as a word of its own only.
        let longer = format!("{host}.svc");
        from.texts.iter().any(|text| {
            let text = text.replace(&longer, "");
            mentions(&text, host) && !text.contains(&format!("{host}."))
        })
    });
    let mut hosts: BTreeSet<String> = used.collect();
    hosts.insert(name.to_owned());
    hosts
}

fn port(
    node: &Node,
    kind: &str,
    targets: &[usize],
    jobs: &mut [Job],
    ports: &mut BTreeMap<usize, Vec<Given>>,
    report: &mut Report,
) -> Result<(), ImportError> {
    let number = |key: &str| node.text_at(&[key]).and_then(|text| text.parse::<u16>().ok());
    let wrong = |says: String| ImportError::Value {
        pos: node.pos,
        key: "Service.spec.ports".to_owned(),
        says,
    };
    let listen = number("port").filter(|port| *port != 0);
    let listen = listen.ok_or_else(|| wrong("`port` is 1 to 65535".to_owned()))?;
    let udp = node.text_at(&["protocol"]) == Some("UDP");
    let target = node.text_at(&["targetPort"]);
    // Of two containers of a pod, that one which has the port.
    let has = |job: &&usize| {
        let job = jobs.get(**job)?;
        let container = match target {
            Some(target) => port_of(job, target)?,
            None => listen,
        };
        job.ports
            .iter()
            .any(|port| port.container == container && port.udp == udp)
            .then_some(container)
    };
    let found = targets.iter().find_map(|job| has(&job).map(|container| (*job, container)));
    let first = targets.first().copied().unwrap_or_default();
    let (job, container) = match (found, target) {
        (Some(found), _) => found,
        (None, None) => (first, listen),
        (None, Some(target)) => match target.parse::<u16>() {
            Ok(container) if container != 0 => (first, container),
            _ => {
                let service = service_of(jobs, first);
                let reason = format!("no container has a port `{target}`");
                report.changed(&service, "Service.spec.ports", node.pos, reason);
                return Ok(());
            }
        },
    };
    let host = match kind {
        "NodePort" => number("nodePort").map_or(Host::Dynamic, Host::Number),
        "LoadBalancer" => Host::Number(listen),
        _ => Host::None,
    };
    let service = service_of(jobs, job);
    if udp {
        report.drop(&service, "Service.spec.ports.udp", node.pos);
    }
    if let Some(job) = jobs.get_mut(job)
        && job.add_port(Port { container, udp, host, called: None }).is_err()
    {
        let reason = format!("port {container} has one number on the worker's address");
        report.changed(&service, "Service.spec.ports", node.pos, reason);
    }
    if !udp {
        ports.entry(job).or_default().push(Given { listen, container });
    }
    Ok(())
}

/// What objects say of the pods of others, and no job does.
fn rules(
    rule: &Node,
    behind: &BTreeMap<&str, Vec<usize>>,
    made: &[Made],
    jobs: &[Job],
    report: &mut Report,
) {
    let kind = rule.text_at(&["kind"]).unwrap_or_default();
    let mut texts = Vec::new();
    rule.get("spec").into_iter().for_each(|spec| spec.texts(&mut texts));
    let (targets, reason): (BTreeSet<String>, &str) = match kind {
        "Ingress" => {
            let named = behind.iter().filter(|(name, _)| texts.contains(name));
            let services = named.flat_map(|(_, jobs)| jobs).map(|job| service_of(jobs, *job));
            (
                services.collect(),
                "no proxy stands before a job's ports: run one as a job, or publish the port",
            )
        }
        "HorizontalPodAutoscaler" => {
            let target = rule.text_at(&["spec", "scaleTargetRef", "name"]).unwrap_or_default();
            let is = |job: &&Job| job.service == target;
            let services = jobs.iter().filter(is).map(|job| job.service.clone());
            (services.collect(), "how many replicas there are is said by whoever submits the job")
        }
        "NetworkPolicy" => {
            let selector = rule.at(&["spec", "podSelector", "matchLabels"]);
            let is = |one: &&Made| selector.is_none_or(|selector| selects(selector, &one.labels));
            let services = made.iter().filter(is).map(|one| service_of(jobs, one.job));
            (
                services.collect(),
                "`egress` says where a job may connect to; jobs of one operator may reach one another",
            )
        }
        _ => {
            let subjects = rule.get("subjects").map_or(&[][..], Node::items);
            let accounts: Vec<_> =
                subjects.iter().filter_map(|subject| subject.text_at(&["name"])).collect();
            let is = |one: &&Made| {
                one.account.as_deref().is_some_and(|account| accounts.contains(&account))
            };
            let services = made.iter().filter(is).map(|one| service_of(jobs, one.job));
            (services.collect(), "the program asks Kubernetes, which is not there")
        }
    };
    if targets.is_empty() {
        report.changed("", kind, rule.pos, reason);
    }
    for service in targets {
        report.changed(&service, kind, rule.pos, reason);
    }
}
