//! Rules of links and start conditions.

use super::*;
use crate::names::VariableName;

#[test]
fn links_are_found_at_one_address_each() {
    let order = |list, entry: &str| JobError::EntryOrder { list, entry: entry.to_owned() };
    let both = |a: Link, b: Link| refused(|j| j.links = vec![a, b]);
    assert_eq!(both(link("db", 2, "a"), link("db", 1, "a")), order("links", "db:1"));
    assert_eq!(both(link("db", 1, "a"), link("db", 1, "b")), order("links", "db:1"));
    let linked = JobSpec { links: vec![link("db", 1, "a"), link("db", 2, "b")], ..job() };
    assert_eq!(JobSpec::parse(&linked.to_wire()), Ok(linked.clone()));
    assert_eq!(linked.link_hosts().len(), 1);
    let [job, port] = ["a", "pg"].map(|name| name.parse().unwrap());
    assert!(linked.links_to(&job, &port) && !linked.links_to(&port, &job));
    let own = "app".parse().unwrap();
    assert_eq!(refused(|j| j.links = vec![link("app", 1, "a")]), JobError::LinkToItself(own));
    let env: Option<VariableName> = Some("DB".parse().unwrap());
    let set = |at| Link { env: env.clone(), ..link("db", at, "a") };
    assert_eq!(both(set(1), set(2)), JobError::LinkVariable(env.clone().unwrap()));
    let many = |j: &mut JobSpec| j.links = (1..66).map(|at| link("db", at, "a")).collect();
    assert_eq!(refused(many), JobError::TooManyEntries { list: "links", len: 65, max: 64 });
}

#[test]
fn circles_are_found_however_long_they_are() {
    let circle = |jobs: &[(&str, &[&str])]| {
        let name = |text: &&str| text.parse().unwrap();
        let after = |job: &crate::names::Name| {
            let found = jobs.iter().find(|(of, _)| *of == job.as_str());
            found.map(|(_, after)| after.iter().map(name).collect()).unwrap_or_default()
        };
        let found = circle_of(&name(&"a"), after);
        found.map(|path| path.into_iter().map(String::from).collect::<Vec<_>>())
    };
    assert_eq!(circle(&[("a", &["b"]), ("b", &["a"])]).unwrap(), ["a", "b", "a"]);
    let long = circle(&[("a", &["x", "b"]), ("b", &["c", "x"]), ("c", &["a"]), ("x", &[])]);
    assert_eq!(long.unwrap(), ["a", "b", "c", "a"]);
    // Others wait for each other; that is their trouble.
    assert_eq!(circle(&[("a", &["b"]), ("b", &["c"]), ("c", &["b"])]), None);
    assert_eq!(circle(&[("a", &["missing"])]), None);
}

#[test]
fn a_job_waits_for_others_once_each() {
    let after = |job: &str| After { job: job.parse().unwrap(), is: Condition::Healthy };
    let waits = |jobs: [&str; 2]| refused(|j| j.after = jobs.map(after).to_vec());
    let order = |entry: &str| JobError::EntryOrder { list: "after", entry: entry.to_owned() };
    assert_eq!((waits(["b", "a"]), waits(["a", "a"])), (order("a"), order("a")));
    assert_eq!(waits(["app", "db"]), JobError::AfterItself);
    let waits = JobSpec { after: vec![after("a"), after("b")], ..job() };
    assert_eq!(JobSpec::parse(&waits.to_wire()), Ok(waits.clone()));
    assert_ne!(waits.template(), job().template(), "its replicas start by another rule");
}
