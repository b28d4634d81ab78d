//! A local chain with Veil's contracts, identities, and groups that sign.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use alloy::providers::{Provider, ProviderBuilder};
use frost_core::{
    Identifier, SigningKey, SigningPackage, aggregate,
    keys::{KeyPackage, SigningShare, VerifyingShare},
    round1, round2,
};
use rand::rngs::OsRng;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};
use veil_committee::frost::{Dkg, EvmSuite, GroupKeyShare, GroupPublicKey, dkg::Packages};
use veil_node_chain::{
    Chain, ChainConfig, ChainError, ClusterSettings, Deployment, Endorsements, KeyPublication,
    Mined, NodeApproval, NodeRegistration, Proposal, ReferenceString, Refusal,
    anvil::{Anvil, AnvilConfig},
};
use veil_protocol_spec::{
    Address, Attempt, Blake3Digest, ClusterId, Committee, Epoch, KeccakDigest, KeySetDigest,
    PublicIdentity, Slot,
    identity::SecretIdentity,
    registry::Roles,
    scheduling::{
        AssignmentCertificate, Binding, CertificateBody, GroupSignature, MerkleTree,
        ReferenceStringOrigin,
    },
};

pub(crate) const WORKER: Roles = Roles { worker: true, member: false };
pub(crate) const MEMBER: Roles = Roles { worker: false, member: true };

/// Account 0 of the local chain owns the directory and is the cluster's admin.
pub(crate) struct World {
    pub(crate) anvil: Anvil,
    pub(crate) admin: Chain,
    pub(crate) deployment: Deployment,
    pub(crate) cluster: ClusterId,
    pub(crate) committee: Committee,
}

pub(crate) fn identity(i: u8) -> SecretIdentity {
    SecretIdentity::from_bytes(&[i; 32]).unwrap()
}

impl World {
    pub(crate) async fn new(members: u8) -> Self {
        let anvil = Anvil::start(AnvilConfig::default()).await.unwrap();
        let config =
            ChainConfig::new(anvil.url(), Address([0; 20])).with_key(anvil.key(0).unwrap());
        let (admin, deployment) = Chain::deploy(config).await.unwrap();
        let committee = Committee::new(members).unwrap();
        let settings =
            ClusterSettings { policy: b"spread".to_vec(), ..ClusterSettings::new(committee) };
        let cluster = admin.register_cluster(&settings).await.unwrap();
        Self { anvil, admin, deployment, cluster, committee }
    }

    /// The handle of another account.
    pub(crate) fn account(&self, i: usize) -> Chain {
        self.admin.with_key(self.anvil.key(i).unwrap())
    }

    pub(crate) fn registration(&self, roles: Roles) -> NodeRegistration {
        // Without the admin's word a worker is of no organisation.
        let organisation = roles.member.then(|| "example".parse().unwrap());
        let labels = vec!["zone=eu-1".parse().unwrap()];
        NodeRegistration { cluster: self.cluster, roles, organisation, labels, stake: 0 }
    }

    /// What [`Self::registration`] says, for an hour.
    pub(crate) async fn approval(&self, operator: &Chain, roles: Roles) -> NodeApproval {
        let NodeRegistration { organisation, .. } = self.registration(roles);
        let valid_until = self.admin.time().await.unwrap() + 3600;
        NodeApproval { operator: operator.account().unwrap(), roles, organisation, valid_until }
    }

    /// Registers members 1 to n by the admin.
    pub(crate) async fn with_members(self) -> Self {
        for i in 1..=self.committee.n() as u8 {
            let registration = self.registration(MEMBER);
            self.admin.register_node(&registration, &identity(i)).await.unwrap();
        }
        self
    }

    pub(crate) fn roster(&self) -> Vec<PublicIdentity> {
        (1..=self.committee.n() as u8).map(|i| identity(i).public()).collect()
    }

    pub(crate) async fn proposal(&self, epoch: u64, attempt: u32) -> Proposal {
        let (_, now) = self.admin.block().await.unwrap();
        Proposal {
            cluster: self.cluster,
            epoch: Epoch(epoch),
            attempt: Attempt(attempt),
            parameters: "insecure-test".to_owned(),
            parameters_digest: Blake3Digest([0x70; 32]),
            context: [0xc0; 32],
            deadline: now + 3600,
        }
    }

    pub(crate) fn publication(&self, epoch: u64, attempt: u32, group: &Group) -> KeyPublication {
        KeyPublication::new(
            self.admin.scope(self.cluster),
            (Epoch(epoch), Attempt(attempt)),
            group.public(),
            KeySetDigest([0x20 + epoch as u8; 32]),
            Blake3Digest([0x30; 32]),
            ReferenceString {
                digest: Blake3Digest([0x40; 32]),
                origin: ReferenceStringOrigin::Committee,
            },
        )
        .unwrap()
    }

    /// All signatures of a publication.
    pub(crate) fn endorse(&self, publication: &KeyPublication, group: &Group) -> Endorsements {
        let digest = publication.member_digest();
        Endorsements {
            members: (1..=self.committee.n() as u8).map(|i| identity(i).sign(&digest)).collect(),
            possession: group.sign(publication.possession_digest()),
        }
    }

    /// Proposes, publishes and activates the key of an epoch, and returns what the publication cost.
    pub(crate) async fn publish(&self, epoch: u64, group: &Group, previous: Option<&Group>) -> u64 {
        self.admin.propose_ceremony(&self.proposal(epoch, 0).await).await.unwrap();
        let publication = self.publication(epoch, 0, group);
        let endorsements = self.endorse(&publication, group);
        // Anyone may publish.
        let anyone = self.account(7);
        let mined = anyone.publish_key(&publication, &self.roster(), &endorsements).await.unwrap();
        if let Some(previous) = previous {
            self.activate(&publication, previous).await.unwrap();
        }
        mined.gas
    }

    /// By the group in force, on the last certificate that was anchored.
    pub(crate) async fn activate(
        &self,
        publication: &KeyPublication,
        previous: &Group,
    ) -> Result<Mined, ChainError> {
        let head = self.admin.head(self.cluster).await.unwrap();
        let last = head.map_or(CertificateBody::NO_PREVIOUS, |head| head.hash);
        let handover = previous.sign(publication.handover_digest(last));
        let epoch = publication.epoch;
        self.account(7).activate_key(self.cluster, epoch, last, Some(&handover)).await
    }

    /// To be anchored on `previous`, which is the certificate before it as well.
    pub(crate) fn body(&self, epoch: u64, slot: u64, previous: KeccakDigest) -> CertificateBody {
        CertificateBody {
            binding: Binding {
                scope: self.admin.scope(self.cluster),
                key_set: KeySetDigest([0x20 + epoch as u8; 32]),
                epoch: Epoch(epoch),
            },
            slot: Slot(slot),
            manifest: Blake3Digest([0x3a; 32]),
            previous,
            base: previous,
            jobs_seen: 1,
            evaluation: Blake3Digest([0xe0; 32]),
            members_only: CertificateBody::NO_SECTION,
            assignments_root: MerkleTree::EMPTY_ROOT,
            state_root: KeccakDigest([0x57; 32]),
            reference_string: ReferenceStringOrigin::Committee,
        }
    }

    /// A provider of the local chain itself, beside the client under test.
    pub(crate) fn provider(&self) -> impl Provider + use<> {
        ProviderBuilder::new()
            .disable_recommended_fillers()
            .connect_http(self.anvil.url().parse().unwrap())
    }

    /// Calls a method that only anvil has.
    pub(crate) async fn control(&self, method: &'static str, parameters: Value) {
        let done = self.provider().raw_request::<_, Value>(method.into(), parameters).await;
        done.unwrap();
    }

    /// Whether each transaction gets a block at once.
    pub(crate) async fn automine(&self, automine: bool) {
        self.control("anvil_setAutomine", json!([automine])).await;
    }

    /// Transactions that use more gas do not fit into a block.
    pub(crate) async fn limit_blocks(&self, gas: u64) {
        self.control("evm_setBlockGasLimit", json!([gas])).await;
    }

    /// Moves the chain's clock on.
    pub(crate) async fn pass(&self, seconds: u64) {
        self.control("evm_increaseTime", json!([seconds])).await;
        self.mine(1).await;
    }

    /// Adds blocks.
    pub(crate) async fn mine(&self, blocks: u64) {
        self.control("evm_mine", json!([{ "timestamp": null, "blocks": blocks }])).await;
    }

    /// Puts other code at an address.
    pub(crate) async fn set_code(&self, at: Address, code: &[u8]) {
        let code = alloy::hex::encode_prefixed(code);
        self.control("anvil_setCode", json!([format!("0x{at}"), code])).await;
    }

    /// The code at an address.
    pub(crate) async fn code(&self, at: Address) -> Vec<u8> {
        self.provider().get_code_at(at.0.into()).await.unwrap().to_vec()
    }

    /// Replaces the last blocks by empty ones.
    pub(crate) async fn reorganise(&self, depth: u64) {
        self.control("anvil_reorg", json!({ "depth": depth, "tx_block_pairs": [] })).await;
    }
}

/// The refusal that a call ended with.
pub(crate) fn refusal<T: core::fmt::Debug>(result: Result<T, ChainError>) -> Refusal {
    match result {
        Err(ChainError::Refused(refusal)) => refusal,
        other => panic!("not refused by a contract: {other:?}"),
    }
}

/// That a contract refuses, by which error, and that there is a sentence for it.
macro_rules! assert_refused {
    ($result:expr, $kind:ident($pattern:pat)) => {
        let refusal = $crate::support::refusal($result);
        assert!(matches!(refusal, veil_node_chain::Refusal::$kind($pattern)), "{refusal:?}");
        assert!(!refusal.to_string().is_empty());
    };
}
pub(crate) use assert_refused;

/// Polls until there is an answer. Only for states that stay until the test ends them.
pub(crate) async fn eventually<T>(what: &str, mut poll: impl AsyncFnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = poll().await {
            return found;
        }
        assert!(start.elapsed() < Duration::from_secs(600), "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A way to an endpoint that can be closed and opened again. While it is closed, connections end without
/// an answer; its port stays bound, so that no other program gets it.
pub(crate) struct Proxy {
    address: SocketAddr,
    open: watch::Sender<bool>,
    _connections: JoinSet<()>,
}

impl Proxy {
    pub(crate) async fn start(target: &str) -> Self {
        let target: SocketAddr = target.trim_start_matches("http://").parse().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (open, opened) = watch::channel(true);
        let mut accepting = JoinSet::new();
        accepting.spawn(async move {
            // They end with this task.
            let mut connections = JoinSet::new();
            while let Ok((mut from, _)) = listener.accept().await {
                let mut opened = opened.clone();
                connections.spawn(async move {
                    if !*opened.borrow() {
                        return;
                    }
                    let Ok(mut to) = TcpStream::connect(target).await else { return };
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut from, &mut to) => {}
                        _ = opened.wait_for(|open| !open) => {}
                    }
                });
            }
        });
        Self { address, open, _connections: accepting }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn open(&self) {
        self.open.send_replace(true);
    }

    pub(crate) fn close(&self) {
        self.open.send_replace(false);
    }
}

/// The JSON of a request, however it comes in pieces.
async fn body(connection: &mut TcpStream) -> Option<Value> {
    let mut request = Vec::new();
    loop {
        if connection.read_buf(&mut request).await.ok()? == 0 {
            return None;
        }
        let text = std::str::from_utf8(&request).ok()?;
        let body =
            text.split_once("\r\n\r\n").and_then(|(_, body)| serde_json::from_str(body).ok());
        if body.is_some() {
            return body;
        }
    }
}

/// A provider that has had enough of its caller: it says so to each request but that for its chain, with this status.
pub(crate) struct Limiting {
    address: SocketAddr,
    _answering: JoinSet<()>,
}

impl Limiting {
    pub(crate) async fn start(status: &'static str, chain: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut answering = JoinSet::new();
        answering.spawn(async move {
            while let Ok((mut connection, _)) = listener.accept().await {
                let Some(request) = body(&mut connection).await else { continue };
                let mut answer = json!({ "jsonrpc": "2.0", "id": request["id"] });
                let status = if request["method"] == "eth_chainId" {
                    answer["result"] = json!(format!("{chain:#x}"));
                    "200 OK"
                } else {
                    let message = "daily request count exceeded, request rate limited";
                    answer["error"] = json!({ "code": -32005, "message": message });
                    status
                };
                let body = answer.to_string();
                let length = body.len();
                let answer = format!(
                    "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\
                     connection: close\r\n\r\n{body}"
                );
                let _ = connection.write_all(answer.as_bytes()).await; // the caller may have gone
            }
        });
        Self { address, _answering: answering }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

/// A committee's signing key, all shares in one place.
pub(crate) struct Group(Vec<Arc<GroupKeyShare>>);

impl Group {
    /// By the distributed key generation.
    pub(crate) fn generate(committee: Committee) -> Self {
        let (mut secrets, mut public) = (Vec::new(), Packages::new());
        for i in committee.participants() {
            let (secret, package) = Dkg::<EvmSuite>::start(committee, i, &mut OsRng).unwrap();
            secrets.push((i, secret));
            public.insert(i, package);
        }
        let (mut second, mut inboxes) = (Vec::new(), BTreeMap::<_, Packages<_>>::new());
        for (me, secret) in secrets {
            let mut others = public.clone();
            others.remove(&me);
            let (secret, outgoing) = secret.receive(&others).unwrap();
            second.push((me, secret));
            for (to, package) in outgoing {
                inboxes.entry(to).or_default().insert(me, package);
            }
        }
        let inbox = |me| inboxes.get(&me).cloned().unwrap_or_default();
        Self(second.into_iter().map(|(me, s)| Arc::new(s.finish(&inbox(me)).unwrap())).collect())
    }

    pub(crate) fn public(&self) -> &GroupPublicKey {
        self.0[0].public()
    }

    /// By the first 2t+1 members with `frost-core`, or by the only one.
    pub(crate) fn sign(&self, message: KeccakDigest) -> GroupSignature {
        let threshold = self.public().committee().signing_threshold().get();
        let message = message.as_bytes();
        let secret = |share: &GroupKeyShare| share.to_secret_bytes()[4..36].to_vec();
        let signature = if threshold == 1 {
            let key = SigningKey::<EvmSuite>::deserialize(&secret(&self.0[0])).unwrap();
            key.sign(OsRng, message)
        } else {
            let group = self.public().package();
            let signers = self.0.iter().take(threshold).map(|share| {
                let id = Identifier::<EvmSuite>::try_from(u16::from(share.index().get())).unwrap();
                let signing = SigningShare::deserialize(&secret(share)).unwrap();
                let verifying = VerifyingShare::from(signing);
                let key = *group.verifying_key();
                let package = KeyPackage::new(id, signing, verifying, key, threshold as u16);
                let (nonces, commitments) = round1::commit(package.signing_share(), &mut OsRng);
                (id, package, nonces, commitments)
            });
            let signers: Vec<_> = signers.collect();
            let commitments = signers.iter().map(|(id, .., c)| (*id, *c)).collect();
            let package = SigningPackage::new(commitments, message);
            let shares = signers
                .iter()
                .map(|(id, key, nonces, _)| (*id, round2::sign(&package, nonces, key).unwrap()))
                .collect();
            aggregate(&package, &shares, group).unwrap()
        };
        GroupSignature(signature.serialize().unwrap().try_into().unwrap())
    }

    pub(crate) fn certify(&self, body: CertificateBody) -> AssignmentCertificate {
        AssignmentCertificate { body, signature: self.sign(body.signing_digest()) }
    }
}
