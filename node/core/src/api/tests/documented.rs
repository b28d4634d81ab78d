//! The OpenAPI document against what is served: routes, and keys of answers.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use veil_node_api::{
    denied::{Denied, LoginError},
    evict::{self, Evict, EvictError, Evicted, GivesBack},
    gate::{Challenge, ChallengeRequest, LoggedIn, LoginRequest},
    tls::CertificateHash,
};
use veil_protocol_spec::{
    Address, ClusterId, Epoch, KeccakDigest, KeySetDigest, ParticipantIndex, ReplicaIndex,
    Signature, Wire,
    agreement::{Instance, Lock},
    evidence::EvidenceKind,
    registry::NotDelegated,
    scheduling::{
        AssignmentCertificate, Assignments, CertificateVote, Manifest, Note, Protocol,
        RolloutPhase, SignedCertificateVote, UnixMillis, VersionOutcome,
    },
};

use super::*;
use crate::answering::from_afar;
use veil_node_api::periodic::{PeriodicStatus, RunOutcome};
use veil_node_api::status::{
    ChainStatus, DoneStatus, Endpoint, EndpointStatus, EngineStatus, LinkStatus, Observed,
    ReplicaStatus, SlotReport, TrafficStatus,
};
use veil_node_api::versions::{JobVersion, VersionStatus};
use veil_node_api::weights::{WeightsFile, WeightsStatus, WeightsTaken};

fn document() -> Value {
    serde_json::from_str(OPENAPI).unwrap()
}

/// A worker that has nothing to give back.
struct Idle;

impl GivesBack for Idle {
    fn give_back(&self, _: &Evict) -> Result<Vec<Evicted>, EvictError> {
        Err(EvictError::NothingSuch("nothing is here".to_owned()))
    }
}

/// What is served from afar, and what a worker serves beside it on its own socket.
fn served() -> Routes {
    let reporter = Unjoined::new().reporter;
    let served = from_afar(reporter, ClusterId([1; 32]), CertificateHash([2; 32]), [3; 32]);
    served.merge(evict::routes(Arc::new(Idle)))
}

/// Whether a value is what a schema of the document says; where not, if it is not.
fn check(document: &Value, schema: &Value, value: &Value, at: &str) -> Result<(), String> {
    if let Some(name) = schema["$ref"].as_str() {
        let named = document.pointer(name.trim_start_matches('#')).unwrap();
        return check(document, named, value, at);
    }
    if let Some(choices) = schema["oneOf"].as_array() {
        let fits = choices.iter().filter(|choice| check(document, choice, value, at).is_ok());
        return (fits.count() == 1).then_some(()).ok_or_else(|| format!("{at}: {value}"));
    }
    let types = match &schema["type"] {
        Value::Null => return Ok(()),
        Value::Array(types) => types.clone(),
        one => vec![one.clone()],
    };
    let is = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let fits = |of: &Value| *of == is || (*of == "number" && is == "integer");
    if !types.iter().any(fits) {
        return Err(format!("{at} is of type {is}, documented as {types:?}"));
    }
    match value {
        Value::String(text) => check_text(schema, text, at),
        Value::Array(items) => {
            items.iter().try_for_each(|item| check(document, &schema["items"], item, at))
        }
        Value::Object(keys) => {
            for (key, value) in keys {
                let named =
                    schema["properties"].get(key).unwrap_or(&schema["additionalProperties"]);
                if *named == false {
                    return Err(format!("{at}.{key} is not documented"));
                }
                check(document, named, value, &format!("{at}.{key}"))?;
            }
            let required = schema["required"].as_array().cloned().unwrap_or_default();
            let missing = required.iter().find(|key| !keys.contains_key(key.as_str().unwrap()));
            missing.map_or(Ok(()), |key| Err(format!("{at} lacks {key}")))
        }
        _ => Ok(()),
    }
}

fn check_text(schema: &Value, text: &str, at: &str) -> Result<(), String> {
    if let Some(words) = schema["enum"].as_array()
        && !words.iter().any(|word| word == text)
    {
        return Err(format!("{at}: {text} is no documented word"));
    }
    let Some(pattern) = schema["pattern"].as_str() else { return Ok(()) };
    let digits = pattern.strip_prefix("^[0-9a-f]{").and_then(|rest| rest.strip_suffix("}$"));
    let digits: usize = digits.unwrap().parse().unwrap();
    let is_hex = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    (is_hex && text.len() == digits).then_some(()).ok_or_else(|| format!("{at}: {text}"))
}

fn assert_documented(name: &str, value: &impl Serialize) {
    let document = document();
    let schema = &document["components"]["schemas"][name];
    assert!(schema.is_object(), "{name} is not documented");
    let value = serde_json::to_value(value).unwrap();
    check(&document, schema, &value, name).unwrap();
}

#[test]
fn every_route_is_documented_and_every_documented_route_is_served() {
    let routes = served();
    let served: BTreeSet<_> =
        routes.listed().iter().map(|(method, path)| format!("{method} {path}")).collect();
    assert_eq!(served.len(), routes.listed().len());
    let document = document();
    let paths = document["paths"].as_object().unwrap().iter();
    let documented = paths.flat_map(|(path, methods)| {
        methods.as_object().unwrap().keys().map(move |method| format!("{method} {path}"))
    });
    assert_eq!(documented.collect::<BTreeSet<_>>(), served);
}

#[test]
fn every_reference_leads_somewhere_and_every_schema_is_used() {
    fn collect(value: &Value, found: &mut BTreeSet<String>) {
        match value {
            Value::Object(keys) => {
                found.extend(keys.get("$ref").and_then(Value::as_str).map(str::to_owned));
                keys.values().for_each(|value| collect(value, found));
            }
            Value::Array(items) => items.iter().for_each(|value| collect(value, found)),
            _ => {}
        }
    }
    let (document, mut found) = (document(), BTreeSet::new());
    collect(&document, &mut found);
    for reference in &found {
        assert!(document.pointer(reference.trim_start_matches('#')).is_some(), "{reference}");
    }
    let schemas = document["components"]["schemas"].as_object().unwrap().keys();
    let named: BTreeSet<_> = schemas.map(|name| format!("#/components/schemas/{name}")).collect();
    found.retain(|reference| reference.contains("/schemas/"));
    assert_eq!(found, named);
}

/// The routes that need no token are those that the document says are open.
#[tokio::test]
async fn what_is_open_from_afar_is_documented_as_open() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("afar.sock");
    let stop = CancellationToken::new();
    let serving = socket::serve(path.clone(), served().into_router(), stop.clone()).await.unwrap();
    let document = document();
    for (route, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let (method, digest) = (method.to_uppercase(), "00".repeat(32));
            let route =
                route.replace("{slot}", "1").replace("{digest}", &digest).replace("{job}", &digest);
            let mut stream = UnixStream::connect(&path).await.unwrap();
            let request = format!("{method} {route} HTTP/1.0\r\n\r\n");
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            let open = operation["security"].as_array().is_some_and(Vec::is_empty);
            assert_eq!(!answer.starts_with("HTTP/1.0 401"), open, "{request}: {answer}");
        }
    }
    stop.cancel();
    serving.await.unwrap();
}

#[test]
fn refusals_have_documented_words() {
    let (account, cluster) = (Address([1; 20]), ClusterId([2; 32]));
    let denied = [
        Denied::NoToken,
        Denied::UnknownToken,
        Denied::Expired { seconds: 1 },
        Denied::OtherCluster { given: cluster, node: cluster },
        LoginError::NotIssued.into(),
        LoginError::Expired.into(),
        LoginError::Replayed.into(),
        LoginError::Full.into(),
        Denied::Signature { account },
        Denied::NoRight { account },
        NotDelegated::Never { operator: account, key: account }.into(),
        NotDelegated::Expired { operator: account, key: account, until: 1 }.into(),
        NotDelegated::Revoked { operator: account, key: account, at: 1 }.into(),
        Denied::ReadOnly,
        Denied::OtherAccount { session: account, job: account },
        Denied::Malformed("signature"),
        Denied::NotNow(String::new()),
    ];
    for denied in &denied {
        assert_documented("Error", &json!({ "error": denied.to_string(), "kind": denied.kind() }));
    }
    let words: BTreeSet<_> = denied.iter().map(Denied::kind).collect();
    let document = document();
    let documented = &document["components"]["schemas"]["Error"]["properties"]["kind"]["enum"];
    let documented: BTreeSet<_> =
        documented.as_array().unwrap().iter().map(|word| word.as_str().unwrap()).collect();
    assert_eq!(words, documented);
}

fn replica() -> ReplicaStatus {
    ReplicaStatus {
        job: Blake3Digest([1; 32]),
        replica: ReplicaIndex(0),
        worker: Some(PeerIdHash([2; 32])),
        pending_because: Some(String::new()),
        observed: Some(Observed {
            container: Some(String::new()),
            exit_code: Some(1),
            endpoints: vec![Endpoint {
                name: "http".parse().unwrap(),
                host: "127.0.0.1".parse().unwrap(),
                port: 8080,
                protocol: Protocol::Tcp,
            }],
            links: vec![LinkStatus {
                address: "db:5432".to_owned(),
                job: "shop-db".parse().unwrap(),
                port: "pg".parse().unwrap(),
                trouble: Some(String::new()),
                carried: 1,
                failed: 0,
            }],
            ..Observed::default()
        }),
        done: Some(DoneStatus {
            succeeded: true,
            exit_code: Some(0),
            out_of_memory: false,
            worker: PeerIdHash([2; 32]),
            slot: Slot(1),
        }),
        version: Some(2),
    }
}

#[test]
fn statuses_have_the_documented_keys() {
    let reporter = Unjoined::new().reporter;
    assert_documented("Readiness", &reporter.readiness());
    assert_documented("Live", &json!({ "live": true }));
    assert_documented("Status", &reporter.status());
    let slot = SlotReport {
        phases: BTreeMap::from([(veil_node_api::status::Phase::Lock, 0.5)]),
        manifest: Some(Blake3Digest([1; 32])),
        culprits: vec![ParticipantIndex::new(1).unwrap()],
        disagree: vec![PeerIdHash([2; 32])],
        anchored_in_block: Some(7),
        ..SlotReport::default()
    };
    let engine = ["Docker", "1", "linux", "amd64"].map(str::to_owned);
    let [name, version, os, architecture] = engine;
    assert_documented(
        "Status",
        &Status {
            addresses: vec![String::new()],
            engine: Some(EngineStatus { name, version, os, architecture, filtered: true }),
            participant: ParticipantIndex::new(1).ok(),
            key_set: Some(KeySetDigest([1; 32])),
            certificate: Some(KeccakDigest([1; 32])),
            chain: Some(ChainStatus {
                block: 1,
                block_time: 1,
                anchored_slot: Some(Slot(1)),
                endpoints: vec![EndpointStatus {
                    url: String::new(),
                    healthy: false,
                    fault: Some(String::new()),
                    answered: 1,
                    failed: 1,
                }],
            }),
            slots: vec![slot],
            replicas: vec![replica()],
            traffic: TrafficStatus::default(),
            refusals: BTreeMap::from([("a".to_owned(), BTreeMap::from([("b".to_owned(), 1)]))]),
            ..reporter.status()
        },
    );
    let version = VersionStatus {
        number: 2,
        outcome: VersionOutcome::Rolling,
        wanted: true,
        rollout: RolloutPhase::Rolling,
        unproven: 1,
    };
    let mut job = JobStatus {
        job: Blake3Digest([1; 32]),
        position: 1,
        operator: Address([1; 20]),
        cancelled: false,
        name: Some(String::new()),
        image: Some(String::new()),
        wanted: Some(1),
        replicas: vec![replica()],
        version: Some(version),
        periodic: Some(PeriodicStatus {
            last_run: Some(1),
            outcome: Some(RunOutcome::UnderWay),
            left_out: Some(2),
            next_run: Some(3),
        }),
        after: vec!["shop-db".parse().unwrap()],
    };
    assert_documented("Job", &job);
    for outcome in [Some(RunOutcome::Succeeded), Some(RunOutcome::Failed), None] {
        let (last_run, left_out, next_run) = (None, None, None);
        job.periodic = Some(PeriodicStatus { last_run, outcome, left_out, next_run });
        assert_documented("Job", &job);
    }
    job.periodic = None;
    (job.name, job.image, job.wanted) = (None, None, None);
    job.replicas[0].worker = None;
    job.replicas[0].observed = None;
    (job.version, job.replicas[0].version) = (None, None);
    assert_documented("Job", &job);
    assert_documented("JobOffered", &JobOffered { job: job.job, listed: true });
    let mut evidence = EvidenceStatus {
        digest: Blake3Digest([1; 32]),
        kind: EvidenceKind::Agreement,
        participant: ParticipantIndex::new(1).ok(),
        peer: Some(PeerIdHash([1; 32])),
        epoch: Epoch(0),
        slot: Some(Slot(1)),
        bytes: 1,
        command: Some(String::new()),
    };
    for kind in EvidenceKind::ALL {
        evidence.kind = kind;
        assert_documented("Evidence", &evidence);
    }
    assert_documented("EvidenceFile", &EvidenceFile { wire: String::new() });
}

#[test]
fn evictions_have_the_documented_keys() {
    let (job, replica) = (Some("ab".to_owned()), Some(ReplicaIndex(1)));
    let mut evict = Evict { job, replica, notice_seconds: 60, reason: Note::default() };
    assert_documented("Evict", &evict);
    (evict.job, evict.replica) = (None, None);
    assert_documented("Evict", &evict);
    let (job, replica) = (Blake3Digest([1; 32]), ReplicaIndex(1));
    for until in [None, Some(UnixMillis(1_760_000_000_000))] {
        assert_documented("Evicted", &Evicted { job, replica, until });
    }
}

#[test]
fn logins_have_the_documented_keys() {
    let (account, challenge) = (Address([1; 20]), "00".repeat(32));
    assert_documented("ChallengeRequest", &ChallengeRequest { account });
    assert_documented("Challenge", &Challenge { challenge: challenge.clone(), expires: 1 });
    let (cluster, signature) = (ClusterId([2; 32]), "00".repeat(65));
    let operator = Some(account);
    let login = LoginRequest { account, operator, cluster, challenge, expires: 1, signature };
    assert_documented("LoginRequest", &login);
    assert_documented("LoginRequest", &LoginRequest { operator: None, ..login });
    assert_documented("LoggedIn", &LoggedIn { token: String::new(), expires: 1 });
}

#[test]
fn what_the_protocol_defines_has_the_documented_keys() {
    let vectors = include_str!("../../../../../protocol-spec/vectors/scheduling.json");
    let vectors: Value = serde_json::from_str(vectors).unwrap();
    assert_documented("JobSpec", &vectors["job_spec"]["json"]);
    let spec: JobSpec = of_vector(&vectors["job_spec"]);
    let (job, version) = (spec.digest(), None);
    let of = JobVersion { job, position: 1, cancelled: false, version, placed: 1, spec };
    assert_documented("JobVersion", &of);
    let manifest: Manifest = of_vector(&vectors["manifest"]);
    let certificate: AssignmentCertificate = of_vector(&vectors["assignment_certificate"]);
    let assignments: Assignments = of_vector(&vectors["assignments"]);
    let lock = Lock {
        binding: manifest.binding,
        instance: Instance::manifest(manifest.slot),
        round: 0,
        value: Blake3Digest([1; 32]),
        votes: Vec::new(),
    };
    let vote = CertificateVote::of(&certificate.body);
    assert_documented("SlotRecord", &SlotRecord { manifest, lock, assignments, certificate });
    let (member, signature) = (ParticipantIndex::new(1).unwrap(), Signature([1; 64]));
    assert_documented("Vote", &SignedCertificateVote { vote, member, signature });
    let sealed = include_str!("../../../../../protocol-spec/vectors/sealed.json");
    let sealed: Value = serde_json::from_str(sealed).unwrap();
    assert_documented("SealingKey", &sealed["sealing_key"]["json"]);
    assert_documented("JobSpec", &sealed["job_spec"]["json"]);
    assert_documented("JobSpec", &sealed["encrypted_request"]["json"]);
    let bytes = || Bytes(vec![1; 4]);
    let keys = EncryptionKeys { public_key: bytes(), reference_string: bytes() };
    assert_documented("EncryptionKeys", &keys);
    let weights = Blake3Digest([1; 32]);
    let because = Some(String::new());
    assert_documented("WeightsStatus", &WeightsStatus { weights, held: false, because });
    assert_documented("WeightsStatus", &WeightsStatus { weights, held: true, because: None });
    assert_documented("WeightsFile", &WeightsFile { wire: String::new() });
    assert_documented("WeightsTaken", &WeightsTaken { weights });
}

fn of_vector<T: Wire>(vector: &Value) -> T {
    let text = vector["encoding"].as_str().unwrap();
    let mut bytes = vec![0; text.len() / 2];
    veil_protocol_spec::read_hex(text, &mut bytes).unwrap();
    T::from_wire(&bytes).unwrap()
}
