//! A node that is asked over TLS, and through its socket.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use async_trait::async_trait;
use axum::{Extension, Json};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_util::sync::CancellationToken;
use veil_node_api::{
    address::NodeAddress,
    client::{Client, ClientError},
    gate::{Accounts, Caller, Challenge, ChallengeRequest, Gate, LoggedIn, LoginRequest},
    relay::{self, Bytes, Leads, NoWay},
    routes::Routes,
    sessions::Login,
    socket,
    tls::{self, CertificateHash},
    token::{new_read_token, token_hash},
    trust::{Trust, TrustError},
};
use veil_protocol_spec::{
    Address, ClusterId, PeerIdHash, Wire as _, hex, read_hex, registry::Delegation,
    scheduling::JobSpec,
};

const CLUSTER: ClusterId = ClusterId([3; 32]);
const GRANTED: Address = Address([1; 20]);
const STRANGER: Address = Address([2; 20]);
/// To which `GRANTED` has delegated, until it revokes it.
const DELEGATE: Address = Address([5; 20]);
const EXPIRED: Address = Address([6; 20]);

/// Stands for the chain: the "signature" of an account is its address, and the first bytes of challenge and
/// certificate.
#[derive(Default)]
struct TestAccounts {
    revoked: AtomicBool,
}

fn signature(login: &Login, certificate: &CertificateHash) -> [u8; 65] {
    let mut signature = [0; 65];
    signature[..20].copy_from_slice(login.account.as_bytes());
    signature[20..40].copy_from_slice(&login.challenge[..20]);
    signature[40..60].copy_from_slice(&certificate.0[..20]);
    signature[60..].copy_from_slice(&login.operator.as_bytes()[..5]);
    signature
}

#[async_trait]
impl Accounts for TestAccounts {
    fn signer(
        &self,
        login: &Login,
        certificate: &CertificateHash,
        given: &[u8; 65],
    ) -> Result<Option<Address>, String> {
        Ok([GRANTED, STRANGER, DELEGATE, EXPIRED].into_iter().find(|account| {
            signature(&Login { account: *account, ..*login }, certificate) == *given
        }))
    }

    async fn has_rights(&self, account: Address) -> Result<bool, String> {
        Ok(account == GRANTED)
    }

    async fn delegation(&self, operator: Address, key: Address) -> Result<Delegation, String> {
        Ok(match (operator, key) {
            (GRANTED, DELEGATE) if self.revoked.load(Ordering::Relaxed) => Delegation::Revoked(7),
            (GRANTED, DELEGATE) | (STRANGER, DELEGATE) => Delegation::Until(u64::MAX),
            (GRANTED, EXPIRED) => Delegation::Expired(7),
            _ => Delegation::Never,
        })
    }
}

/// Leads to one worker only, which repeats what it is told.
struct Repeats;

const WORKER: PeerIdHash = PeerIdHash([7; 32]);

#[async_trait]
impl Leads for Repeats {
    async fn lead(&self, worker: PeerIdHash) -> Result<Box<dyn Bytes>, NoWay> {
        if worker != WORKER {
            return Err(NoWay::Unreachable(format!("peer {worker} is not registered")));
        }
        let (near, far) = tokio::io::duplex(1024);
        tokio::spawn(async move {
            let (mut reads, mut writes) = tokio::io::split(far);
            tokio::io::copy(&mut reads, &mut writes).await.unwrap();
            writes.shutdown().await.unwrap();
        });
        Ok(Box::new(near))
    }
}

async fn who(Extension(caller): Extension<Caller>) -> Json<Value> {
    Json(json!({ "caller": format!("{caller:?}") }))
}

struct Server {
    folder: tempfile::TempDir,
    address: SocketAddr,
    accounts: Arc<TestAccounts>,
    read_token: zeroize::Zeroizing<String>,
    stop: CancellationToken,
    serving: tokio::task::JoinHandle<()>,
}

impl Server {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let read_token = new_read_token(&CLUSTER);
        let files = tls::TlsFiles::own(folder.path(), vec!["localhost".to_owned()]).unwrap();
        let certificate = files.certificate_hash().unwrap();
        let hash = token_hash(&read_token);
        let accounts = Arc::new(TestAccounts::default());
        let gate = Gate::new(accounts.clone(), CLUSTER, certificate, hash);
        let guarded = Routes::default().get("/v1/who", who).post("/v1/who", who);
        let length = async |body: axum::body::Bytes| Json(json!({ "length": body.len() }));
        let guarded = guarded.post("/v1/length", length);
        let guarded = guarded.merge(relay::routes(Arc::new(Repeats)));
        let open = Routes::default().get("/open", async || Json(json!({})));
        let router = gate.guard(guarded, open).into_router();
        let stop = CancellationToken::new();
        let any_port = "127.0.0.1:0".parse().unwrap();
        let serving = tls::serve(any_port, &files, router, stop.clone());
        let (address, serving) = serving.await.unwrap();
        Self { folder, address, accounts, read_token, stop, serving }
    }

    fn address(&self) -> NodeAddress {
        NodeAddress::Remote { host: self.address.ip().to_string(), port: self.address.port() }
    }

    fn certificate(&self) -> CertificateHash {
        let file = |name| self.folder.path().join(name);
        let (certificate, key) = (file("api-certificate.pem"), file("api-key.pem"));
        tls::TlsFiles { certificate, key }.certificate_hash().unwrap()
    }

    fn client(&self, token: Option<&str>) -> Client {
        let trust = Trust::load(&self.folder.path().join("api-certificate.pem")).unwrap();
        Client::new(self.address(), Some(trust), token.map(|token| token.to_owned().into()))
    }

    fn answer(&self, account: Address, signer: Address, challenge: &Challenge) -> LoginRequest {
        answer(account, signer, &self.certificate(), challenge)
    }
}

async fn challenge(client: &Client, account: Address) -> Challenge {
    client.post("/v1/login/challenge", &ChallengeRequest { account }).await.unwrap()
}

fn answer(
    account: Address,
    signer: Address,
    certificate: &CertificateHash,
    given: &Challenge,
) -> LoginRequest {
    let mut challenge = [0; 32];
    read_hex(&given.challenge, &mut challenge).unwrap();
    let operator = account;
    let login = Login { account: signer, operator, challenge, expires: given.expires };
    let signature = hex(&signature(&login, certificate));
    let Challenge { challenge, expires } = given.clone();
    let operator = None;
    LoginRequest { account, operator, cluster: CLUSTER, challenge, expires, signature }
}

/// The word for why a caller is turned away.
fn word<T: std::fmt::Debug>(answer: Result<T, ClientError>) -> String {
    match answer {
        Err(ClientError::Denied { kind, .. }) => kind,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_caller_is_known_by_its_token() {
    let server = Server::start().await;
    let nobody = server.client(None);
    assert_eq!(word(nobody.get::<Value>("/v1/who").await), "no_token");
    assert_eq!(nobody.get::<Value>("/open").await.unwrap(), json!({}));
    let missing = nobody.get::<Value>("/nowhere").await.unwrap_err().to_string();
    assert!(missing.contains("404"), "{missing}");
    let reader = server.client(Some(&server.read_token));
    assert_eq!(reader.get::<Value>("/v1/who").await.unwrap()["caller"], "Reader");
    assert_eq!(word(reader.post::<Value>("/v1/who", &json!({})).await), "read_only");
    let who_has =
        async |token: &str| word(server.client(Some(token)).get::<Value>("/v1/who").await);
    let other = new_read_token(&ClusterId([4; 32]));
    for (token, why) in [
        ("0123", "unknown_token"),
        (new_read_token(&CLUSTER).as_str(), "unknown_token"),
        (other.as_str(), "other_cluster"),
        (&format!("veil-session-{CLUSTER}-1700000000-00"), "token_expired"),
    ] {
        assert_eq!(who_has(token).await, why, "{token}");
    }

    let sign = |login: &Login, certificate: &CertificateHash| Ok(signature(login, certificate));
    let operator = nobody.log_in(GRANTED, GRANTED, CLUSTER, &sign).await.unwrap();
    let caller = operator.post::<Value>("/v1/who", &json!({})).await.unwrap();
    assert!(caller["caller"].as_str().unwrap().starts_with("Operator"), "{caller}");
    let fails = |_: &Login, _: &CertificateHash| Err("no key".to_owned());
    let unsigned = nobody.log_in(GRANTED, GRANTED, CLUSTER, &fails).await.unwrap_err();
    assert!(matches!(&unsigned, ClientError::NotSigned(why) if why == "no key"));
    server.stop.cancel();
    server.serving.await.unwrap();
}

/// The longest job's body is read, of whoever may post one; of others a few kilobytes.
#[tokio::test]
async fn a_long_body_is_read_of_known_callers_only() {
    let server = Server::start().await;
    let nobody = server.client(None);
    let long = "x".repeat(2 * JobSpec::MAX_BYTES);
    assert_eq!(word(nobody.post::<Value>("/v1/length", &long).await), "no_token");
    let refused = nobody.post::<Value>("/v1/login", &"x".repeat(20 << 10)).await.unwrap_err();
    assert!(refused.to_string().contains("length limit"), "{refused}");
    let sign = |login: &Login, shown: &CertificateHash| Ok(signature(login, shown));
    let operator = nobody.log_in(GRANTED, GRANTED, CLUSTER, &sign).await.unwrap();
    let read: Value = operator.post("/v1/length", &long).await.unwrap();
    assert_eq!(read["length"], long.len() + 2);
    let refused = operator.post::<Value>("/v1/length", &"x".repeat(2 << 20)).await.unwrap_err();
    assert!(refused.to_string().contains("length limit"), "{refused}");
}

#[tokio::test]
async fn only_a_granted_account_logs_in_for_itself_once() {
    let (server, other) = (Server::start().await, Server::start().await);
    let client = server.client(None);
    let login =
        async |asked: LoginRequest| word(client.post::<LoggedIn>("/v1/login", &asked).await);
    let given = challenge(&client, GRANTED).await;
    let right = server.answer(GRANTED, GRANTED, &given);
    let cluster = ClusterId([4; 32]);
    assert_eq!(login(LoginRequest { cluster, ..right.clone() }).await, "other_cluster");
    assert_eq!(login(server.answer(GRANTED, STRANGER, &given)).await, "signature");
    let not_issued = "challenge_not_issued";
    assert_eq!(login(server.answer(STRANGER, STRANGER, &given)).await, not_issued);
    let expires = given.expires + 1;
    assert_eq!(login(LoginRequest { expires, ..right.clone() }).await, not_issued);
    let elsewhere = challenge(&other.client(None), GRANTED).await;
    assert_eq!(login(server.answer(GRANTED, GRANTED, &elsewhere)).await, not_issued);
    // Who passes a challenge on has shown another certificate.
    let relayed = answer(GRANTED, GRANTED, &other.certificate(), &given);
    assert_eq!(login(relayed).await, "signature");
    let ungranted = challenge(&client, STRANGER).await;
    assert_eq!(login(server.answer(STRANGER, STRANGER, &ungranted)).await, "no_right");
    let signature = "00".to_owned();
    assert_eq!(login(LoginRequest { signature, ..right.clone() }).await, "malformed");

    let opened: LoggedIn = client.post("/v1/login", &right).await.unwrap();
    assert_eq!(login(right).await, "challenge_replayed");
    let caller = server.client(Some(&opened.token)).get::<Value>("/v1/who").await.unwrap();
    assert!(caller["caller"].as_str().unwrap().starts_with("Operator"), "{caller}");
}

/// It reads, and posts for its operator, until that one revokes it: in the middle of its session, too.
#[tokio::test]
async fn a_delegate_logs_in_for_its_operator() {
    let server = Server::start().await;
    let nobody = server.client(None);
    let sign = |login: &Login, shown: &CertificateHash| Ok(signature(login, shown));
    let logged_in =
        async |key, operator| nobody.log_in(key, operator, CLUSTER, &sign).await.map(|_| ());
    assert_eq!(word(logged_in(STRANGER, GRANTED).await), "not_delegated");
    assert_eq!(word(logged_in(EXPIRED, GRANTED).await), "delegation_expired");
    assert_eq!(word(logged_in(DELEGATE, STRANGER).await), "no_right", "its operator has none");
    assert_eq!(word(logged_in(DELEGATE, DELEGATE).await), "no_right", "nor has it itself");
    // What it signed for one operator opens nothing for another one.
    let given = challenge(&nobody, DELEGATE).await;
    let mut for_itself = server.answer(DELEGATE, DELEGATE, &given);
    for_itself.operator = Some(GRANTED);
    assert_eq!(word(nobody.post::<LoggedIn>("/v1/login", &for_itself).await), "signature");

    let delegate = nobody.log_in(DELEGATE, GRANTED, CLUSTER, &sign).await.unwrap();
    let caller: Value = delegate.post("/v1/who", &json!({})).await.unwrap();
    assert!(caller["caller"].as_str().unwrap().starts_with("Delegate"), "{caller}");
    server.accounts.revoked.store(true, Ordering::Relaxed);
    let refused = delegate.post::<Value>("/v1/who", &json!({})).await;
    assert_eq!(word(refused), "delegation_revoked");
    assert!(delegate.get::<Value>("/v1/who").await.is_ok(), "it reads until its session ends");
    assert_eq!(word(logged_in(DELEGATE, GRANTED).await), "delegation_revoked");
}

#[tokio::test]
async fn a_node_is_known_by_its_certificate() {
    let (server, other) = (Server::start().await, Server::start().await);
    let untrusting = Client::new(server.address(), None, None);
    assert!(matches!(untrusting.get::<Value>("/v1/who").await, Err(ClientError::NoTrust(_))));
    let trust = Trust::load(&other.folder.path().join("api-certificate.pem")).unwrap();
    let misled = Client::new(server.address(), Some(trust), None).get::<Value>("/v1/who").await;
    assert!(matches!(misled, Err(ClientError::Unreachable { .. })), "{misled:?}");
    let nothing = Trust::load(&server.folder.path().join("api-key.pem"));
    assert!(matches!(nothing, Err(TrustError::File(_))), "{nothing:?}");
}

#[tokio::test]
async fn questions_through_the_socket_are_answered_and_refusals_passed_on() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("admin.sock");
    let client = Client::of_socket(path.clone());
    assert!(matches!(client.get::<Value>("/v1/who").await, Err(ClientError::Socket { .. })));
    let no = async || veil_node_api::refuse(axum::http::StatusCode::CONFLICT, &"not now");
    let router = Routes::default().get("/v1/who", who).get("/v1/no", no).into_router();
    let stop = CancellationToken::new();
    let served = socket::serve(path.clone(), router.clone(), stop.clone()).await.unwrap();
    assert_eq!(client.get::<Value>("/v1/who").await.unwrap()["caller"], "Local");
    let refused = client.get::<Value>("/v1/no").await;
    assert!(matches!(refused, Err(ClientError::Refused(error)) if error == "not now"));
    let second = socket::serve(path.clone(), router, stop.clone()).await;
    assert!(matches!(second, Err(socket::SocketError::InUse(_))));
    stop.cancel();
    served.await.unwrap();
    assert!(!path.exists());
}

/// What is sent comes back, whatever it is and in both directions at once, and the end of one side is the end of the
/// other.
async fn assert_repeats(mut way: Box<dyn Bytes>) {
    let sent: Vec<u8> = (0..300_000_u32).map(|i| (i % 251) as u8).collect();
    let (mut reads, mut writes) = tokio::io::split(&mut way);
    let mut back = Vec::new();
    let writing = async {
        writes.write_all(&sent).await.unwrap();
        writes.shutdown().await.unwrap();
    };
    let (_, read) = tokio::join!(writing, reads.read_to_end(&mut back));
    read.unwrap();
    assert!(back == sent);
}

#[tokio::test]
async fn a_connection_becomes_a_way_to_a_worker_for_whoever_may_use_job_routes() {
    let server = Server::start().await;
    let given = challenge(&server.client(None), GRANTED).await;
    let login = server.answer(GRANTED, GRANTED, &given);
    let opened: LoggedIn = server.client(None).post("/v1/login", &login).await.unwrap();
    let operator = server.client(Some(&opened.token));
    assert_repeats(operator.reach(WORKER).await.unwrap()).await;
    // So many at once.
    let mut ways = Vec::new();
    for _ in 0..16 {
        ways.push(operator.reach(WORKER).await.unwrap());
    }
    let refused = operator.reach(WORKER).await.map(drop).unwrap_err();
    assert!(refused.to_string().contains("too many sessions"), "{refused}");
    drop(ways);
    let refused = operator.reach(PeerIdHash([8; 32])).await.map(drop).unwrap_err();
    assert!(matches!(&refused, ClientError::Refused(why) if why.contains("not registered")));
    for token in [None, Some(server.read_token.as_str())] {
        let refused = server.client(token).reach(WORKER).await.map(drop).unwrap_err();
        let expected = if token.is_none() { "no_token" } else { "read_only" };
        assert!(matches!(&refused, ClientError::Denied { kind, .. } if kind == expected));
    }
    // Who asks for a page gets none.
    let page: Result<Value, _> =
        operator.get(&relay::PATH.replace("{worker}", &WORKER.to_string())).await;
    assert!(page.unwrap_err().to_string().contains("upgrade"));
    server.stop.cancel();
    server.serving.await.unwrap();
}

#[tokio::test]
async fn a_socket_leads_to_workers_too() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("admin.sock");
    let stop = CancellationToken::new();
    let router = relay::routes(Arc::new(Repeats)).into_router();
    let serving = socket::serve(path.clone(), router, stop.clone()).await.unwrap();
    assert_repeats(Client::of_socket(path).reach(WORKER).await.unwrap()).await;
    stop.cancel();
    serving.await.unwrap();
}
