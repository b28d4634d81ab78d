//! Updates, an automatic revert and a drain of a job that somebody asks all the time.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::{JoinHandle, sleep, spawn},
    time::{Duration, Instant},
};

use serde_json::Value;

use super::network::{Network, json, until, veil};

/// "A client that asks every 50 ms sees no failure."
const PACE: Duration = Duration::from_millis(50);
/// How long it waits for an answer.
const TIMEOUT: Duration = Duration::from_secs(2);

/// How often somebody was asked, and did not answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Count {
    asked: u64,
    failed: u64,
}

impl Count {
    fn add(&mut self, answered: bool) {
        self.asked += 1;
        self.failed += u64::from(!answered);
    }
}

/// What the client has seen.
#[derive(Default)]
struct Seen {
    asked: u64,
    /// Requests, by what was done to the job meanwhile, in order.
    phases: Vec<(&'static str, Count)>,
    /// What each endpoint answered of them.
    endpoints: BTreeMap<SocketAddr, Count>,
    /// Requests that none of those answered that are published.
    failures: Vec<String>,
    /// Requests that one endpoint did not answer while it was in the list that was read last.
    stale: u64,
    /// Endpoints that refused although `veil job status` named them as healthy before and after.
    refusals: Vec<String>,
    /// The longest that one was named so while it refused all the time.
    longest: Duration,
}

/// The endpoints that `veil job status` named last, and how often it has named any.
#[derive(Default)]
struct Named {
    times: u64,
    addresses: Vec<SocketAddr>,
    /// What is done to the job.
    phase: &'static str,
}

/// Asks the replicas in turn; a request fails if none of those that are published answers.
struct Client {
    named: Arc<Mutex<Named>>,
    stop: Arc<AtomicBool>,
    asking: Option<JoinHandle<Seen>>,
}

/// An endpoint that refuses: since when, and after which answer of `veil job status`.
type Refusing = BTreeMap<SocketAddr, (Instant, u64, String)>;

impl Seen {
    /// A request fails if nobody answers it.
    fn count(&mut self, phase: &'static str, answers: &[(SocketAddr, Result<(), String>)]) {
        for (address, answer) in answers {
            self.endpoints.entry(*address).or_default().add(answer.is_ok());
        }
        if self.phases.last().is_none_or(|(last, _)| *last != phase) {
            self.phases.push((phase, Count::default()));
        }
        let answered = answers.iter().any(|(_, answer)| answer.is_ok());
        if let Some((_, count)) = self.phases.last_mut() {
            count.add(answered);
        }
        if !answered {
            self.failures.push(format!("request {} ({phase}): {answers:?}", self.asked));
        }
        self.asked += 1;
    }

    /// One refusal is counted for each time that an endpoint stops to answer, once an answer that was asked for later
    /// still names it.
    fn judge(
        &mut self,
        named: &Named,
        answers: &[(SocketAddr, Result<(), String>)],
        refusing: &mut Refusing,
    ) {
        refusing.retain(|address, _| named.addresses.contains(address));
        for (address, answer) in answers {
            match answer {
                Ok(()) => {
                    refusing.remove(address);
                }
                Err(error) => {
                    self.stale += u64::from(named.addresses.contains(address));
                    let begun = || (Instant::now(), named.times, error.clone());
                    refusing.entry(*address).or_insert_with(begun);
                }
            }
        }
        for (begun, times, error) in refusing.values_mut() {
            // The answer under way when it began to refuse may be of before: it is the one after that counts.
            if named.times < times.saturating_add(2) {
                continue;
            }
            if !error.is_empty() {
                self.refusals.push(core::mem::take(error));
            }
            self.longest = self.longest.max(begun.elapsed());
        }
    }
}

fn ask(address: SocketAddr) -> Result<(), String> {
    let told = |error: std::io::Error| format!("{address}: {error}");
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT).map_err(told)?;
    stream.set_read_timeout(Some(TIMEOUT)).map_err(told)?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").map_err(told)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).map_err(told)?;
    let is_served = answer.starts_with("HTTP/1.0 200") || answer.starts_with("HTTP/1.1 200");
    is_served.then_some(()).ok_or_else(|| format!("{address}: {answer:?}"))
}

impl Client {
    fn start(addresses: Vec<SocketAddr>) -> Self {
        let named = Arc::new(Mutex::new(Named { times: 0, addresses, phase: "nothing" }));
        let stop = Arc::new(AtomicBool::new(false));
        let (known, stopped) = (Arc::clone(&named), Arc::clone(&stop));
        let asking = spawn(move || {
            let (mut seen, mut refusing) = (Seen::default(), Refusing::new());
            while !stopped.load(Ordering::Relaxed) {
                let addresses = known.lock().unwrap().addresses.clone();
                let first = seen.asked as usize % addresses.len().max(1);
                let in_turn = addresses.iter().cycle().skip(first).take(addresses.len());
                let answers: Vec<_> = in_turn.map(|address| (*address, ask(*address))).collect();
                let phase = known.lock().unwrap().phase;
                seen.count(phase, &answers);
                seen.judge(&known.lock().unwrap(), &answers, &mut refusing);
                sleep(PACE);
            }
            seen
        });
        Self { named, stop, asking: Some(asking) }
    }

    fn knows(&self, addresses: Vec<SocketAddr>) {
        if !addresses.is_empty() {
            let mut named = self.named.lock().unwrap();
            *named = Named { times: named.times + 1, addresses, ..*named };
        }
    }

    /// From now on this is done to the job.
    fn during(&self, phase: &'static str) {
        self.named.lock().unwrap().phase = phase;
    }

    fn end(mut self) -> Seen {
        self.stop.store(true, Ordering::Relaxed);
        self.asking.take().unwrap().join().unwrap()
    }
}

/// A job of three replicas that serves at this port; healthy is what serves at 8080.
fn submit(network: &Network, port: u16, more: &str) -> Value {
    let image = veil_node_devnet::sample_image().unwrap();
    let path = network.folder.join("site.toml");
    let text = format!(
        "name = \"site\"\nimage = \"{image}\"\nreplicas = 3\n\
         [container]\nargs = [\"httpd\", \"-f\", \"-p\", \"{port}\", \"-h\", \"/www\"{more}]\n\
         [resources]\ncpu = \"100m\"\nmemory = \"64Mi\"\n\
         [[port]]\nname = \"http\"\ncontainer = 8080\n\
         [health]\nprobe = {{ tcp = {{ port = 8080 }} }}\ninterval = \"1s\"\ntimeout = \"1s\"\n\
         [update]\nmin_healthy = \"2s\"\nhealthy_deadline = \"30s\"\n"
    );
    fs::write(&path, text).unwrap();
    let mut command = veil();
    command.args(["job", "submit", "--json"]).arg(&path).arg("--devnet").arg(&network.folder);
    json(&mut command)
}

fn ask_job(network: &Network, arguments: &[&str]) -> Value {
    let mut command = veil();
    command.arg("job").args(arguments).args(["--json", "--devnet"]).arg(&network.folder);
    json(&mut command)
}

/// Digests of what runs of the job, and where it is reached.
fn look(network: &Network, jobs: &BTreeSet<String>) -> (Vec<String>, Vec<SocketAddr>) {
    let status = ask_job(network, &["status"]);
    let rows = status["replicas"].as_array().unwrap().iter();
    let own = rows.filter(|row| jobs.contains(row["job"].as_str().unwrap()));
    let running: Vec<_> = own.filter(|row| row["running"] == true).collect();
    let addresses = running.iter().flat_map(|row| {
        let endpoints = row["observed"]["endpoints"].as_array().cloned().unwrap_or_default();
        endpoints.into_iter().filter_map(|of| {
            let host: std::net::IpAddr = of["host"].as_str()?.parse().ok()?;
            Some(SocketAddr::new(host, of["port"].as_u64()?.try_into().ok()?))
        })
    });
    let addresses = addresses.collect();
    (running.iter().map(|row| row["job"].as_str().unwrap().to_owned()).collect(), addresses)
}

/// What has become of each version, by number.
fn states(network: &Network) -> Vec<String> {
    let history = ask_job(network, &["history", "site"]);
    let versions = history["versions"].as_array().unwrap().iter();
    versions.map(|version| version["state"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn who_asks_all_the_time_sees_no_failure_in_an_update_a_revert_and_a_drain() {
    let (network, _) = Network::start();
    let first = submit(&network, 8080, "");
    assert!(first["update"].is_null(), "{first}");
    let digest = |submitted: &Value| submitted["job"].as_str().unwrap().to_owned();
    let mut jobs = BTreeSet::from([digest(&first)]);
    let all = |jobs: &BTreeSet<String>, client: Option<&Client>, wanted: &str| {
        let (running, addresses) = look(&network, jobs);
        let whole = running.len() == 3 && running.iter().all(|job| job == wanted);
        if let Some(client) = client {
            client.knows(addresses.clone());
        }
        whole.then_some(addresses)
    };
    let one = digest(&first);
    let addresses = until("the job runs", || all(&jobs, None, &one));
    assert_eq!(addresses.len(), 3);
    let client = Client::start(addresses);

    // Another program, that does the same.
    client.during("rolling update");
    let second = submit(&network, 8080, ", \"-v\"");
    assert_eq!(second["update"]["version"], 2, "{second}");
    let two = digest(&second);
    jobs.insert(two.clone());
    until("version 2 runs", || all(&jobs, Some(&client), &two));
    until("version 2 is certified to be healthy", || {
        (states(&network) == ["healthy", "healthy, wanted"]).then_some(())
    });

    // One that listens elsewhere: its port is never open.
    client.during("automatic revert");
    let third = submit(&network, 8081, "");
    jobs.insert(digest(&third));
    until("version 3 has failed, and version 2 is back", || {
        let whole = all(&jobs, Some(&client), &two).is_some();
        let failed = ["healthy", "healthy, wanted", "failed"];
        (whole && states(&network) == failed).then_some(())
    });

    // A worker is drained.
    client.during("drain");
    let drained = network.running(&two, 3).unwrap().remove(0);
    network.give("drain", &drained);
    until("the worker is drained", || {
        all(&jobs, Some(&client), &two);
        network.running(&two, 3).filter(|workers| !workers.contains(&drained))
    });
    network.give("eligible", &drained);

    // Going back is an update too.
    let Seen { asked, phases, endpoints, failures, stale, refusals, longest } = client.end();
    for (phase, Count { asked, failed }) in phases {
        println!("{phase}: {asked} requests, one every 50 ms, of which {failed} failed");
    }
    for (endpoint, Count { asked, failed }) in endpoints {
        println!("{endpoint}: asked {asked} times, did not answer {failed} of them");
    }
    println!(
        "{asked} requests; {stale} times a named endpoint did not answer; {} ended and were named on, \
         {longest:?} at the longest: {refusals:#?}",
        refusals.len()
    );
    assert!(asked > 100 && failures.is_empty(), "{asked} requests: {failures:#?}");
    let back = ask_job(&network, &["revert", "site", "--to", "1"]);
    assert_eq!(back["update"]["version"], 4, "{back}");
    let four = digest(&back);
    jobs.insert(four.clone());
    until("version 1 runs again", || all(&jobs, None, &four));
}

#[test]
fn a_request_fails_if_nobody_answers_it_and_each_endpoint_is_counted() {
    let [one, two] = ["127.0.0.1:1", "127.0.0.1:2"].map(|of| of.parse::<SocketAddr>().unwrap());
    let mut seen = Seen::default();
    seen.count("update", &[(one, Err("refused".to_owned())), (two, Ok(()))]);
    seen.count("drain", &[(one, Err("refused".to_owned())), (two, Err("refused".to_owned()))]);
    seen.count("drain", &[(two, Ok(()))]);
    let count = |asked, failed| Count { asked, failed };
    assert_eq!(seen.phases, [("update", count(1, 0)), ("drain", count(2, 1))]);
    assert_eq!(seen.endpoints, BTreeMap::from([(one, count(2, 2)), (two, count(3, 1))]));
    assert_eq!((seen.asked, seen.failures.len()), (3, 1));
}

#[test]
fn an_endpoint_that_is_named_on_while_it_refuses_is_counted_once() {
    let address: SocketAddr = "127.0.0.1:1".parse().unwrap();
    let refuses = [(address, Err("refused".to_owned()))];
    let (mut seen, mut refusing) = (Seen::default(), Refusing::new());
    let mut asked = |times, answers: &[_], addresses: &[_]| {
        let named = Named { times, addresses: addresses.to_vec(), phase: "" };
        seen.judge(&named, answers, &mut refusing);
        (seen.stale, seen.refusals.len())
    };
    // The answer that is under way may be of before.
    assert_eq!(asked(5, &refuses, &[address]), (1, 0));
    assert_eq!(asked(6, &refuses, &[address]), (2, 0));
    assert_eq!(asked(7, &refuses, &[address]), (3, 1));
    assert_eq!(asked(8, &refuses, &[address]), (4, 1));
    // It answers again, and what is no longer named may refuse.
    assert_eq!(asked(9, &[(address, Ok(()))], &[address]), (4, 1));
    assert_eq!(asked(10, &refuses, &[]), (4, 1));
    assert_eq!(asked(20, &[], &[]), (4, 1));
}
