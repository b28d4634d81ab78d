//! A cluster whose admin, and the contracts' governor, is an account of three owners of whom two must agree: what it
//! does, it is given by `--unsigned`, and no owner does it alone.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
};

use serde_json::{Value, json};

use super::*;

const MULTISIG: &str =
    include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../contracts/test/multisig.json"));
/// The selectors of its `agree` and `execute` of (address,uint256,bytes).
const AGREE: &str = "57fbdd9c";
const EXECUTE: &str = "b61d27f6";

/// Addresses of Foundry's test phrase whose keys the chain has: the owners, and who pays for what anybody may send.
struct Federation {
    rpc: String,
    accounts: Vec<String>,
    address: String,
}

/// Asks the chain itself.
fn ask(rpc: &str, method: &str, parameters: &Value) -> Result<Value, String> {
    let host = rpc.trim_start_matches("http://").trim_end_matches('/');
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": parameters});
    let body = body.to_string();
    let request = format!(
        "POST / HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    let mut stream = TcpStream::connect(host).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let at = answer.find('{').unwrap();
    let end = answer.rfind('}').unwrap();
    let answer: Value = serde_json::from_str(&answer[at..=end]).unwrap();
    match answer.get("error") {
        Some(error) => Err(error.to_string()),
        None => Ok(answer["result"].clone()),
    }
}

fn word(digits: &str) -> String {
    format!("{:0>64}", digits.trim_start_matches("0x"))
}

impl Federation {
    fn found(rpc: String) -> Self {
        let accounts = ask(&rpc, "eth_accounts", &json!([])).unwrap();
        let accounts: Vec<_> = accounts.as_array().unwrap().iter().map(text).collect();
        let multisig: Value = serde_json::from_str(MULTISIG).unwrap();
        let owners: String = accounts[1..4].iter().map(|owner| word(owner)).collect();
        let code = format!("{}{owners}", multisig["bytecode"].as_str().unwrap());
        let mut this = Self { rpc, accounts, address: String::new() };
        let receipt = this.send(0, json!({ "data": code })).unwrap();
        this.address = text(&receipt["contractAddress"]);
        this.send(0, json!({ "to": this.address, "value": "0xde0b6b3a7640000" })).unwrap();
        this
    }

    /// Sends from one of the chain's accounts; the receipt, or why there is none.
    fn send(&self, from: usize, mut request: Value) -> Result<Value, String> {
        request["from"] = json!(self.accounts[from]);
        let rpc = &self.rpc;
        let hash = ask(rpc, "eth_sendTransaction", &json!([request]))?;
        for _ in 0..500 {
            let receipt = ask(rpc, "eth_getTransactionReceipt", &json!([hash]))?;
            match receipt["status"].as_str() {
                Some("0x1") => return Ok(receipt),
                Some(_) => return Err(receipt.to_string()),
                // Its block is being made.
                None => std::thread::sleep(std::time::Duration::from_millis(20)),
            }
        }
        Err("there is no receipt".to_owned())
    }

    /// `agree` or `execute`, of one transaction of a file, by an owner.
    fn say(&self, owner: usize, selector: &str, transaction: &Value) -> Result<Value, String> {
        let data = transaction["data"].as_str().unwrap().trim_start_matches("0x");
        let value: u128 = transaction["value"].as_str().unwrap().parse().unwrap();
        let padded = data.len().div_ceil(64) * 64;
        let call = format!(
            "0x{selector}{}{}{}{}{data:0<padded$}",
            word(transaction["to"].as_str().unwrap()),
            word(&format!("{value:x}")),
            word("60"),
            word(&format!("{:x}", data.len() / 2)),
        );
        self.send(owner, json!({ "to": self.address, "data": call, "gas": "0xe4e1c0" }))
    }

    /// What a command prints for the account to sign.
    fn file(&self, shell: &Shell, arguments: &[&str]) -> Value {
        let by = ["--unsigned", "--from", &self.address];
        let file = shell.done(&[arguments, &by].concat());
        assert_eq!(file["version"], "1.0", "{arguments:?}: {file}");
        assert_eq!(file["chainId"], "31337");
        file
    }

    /// Two owners agree to each transaction of a file, and the third makes it.
    fn sign(&self, file: &Value) {
        let mut gas = 0;
        for transaction in file["transactions"].as_array().unwrap() {
            self.say(1, AGREE, transaction).unwrap();
            // One alone does not.
            let alone = self.say(1, EXECUTE, transaction).unwrap_err();
            assert!(!alone.is_empty());
            self.say(2, AGREE, transaction).unwrap();
            let receipt = self.say(3, EXECUTE, transaction).unwrap();
            let used = text(&receipt["gasUsed"]);
            gas += u64::from_str_radix(used.trim_start_matches("0x"), 16).unwrap();
        }
        // A Safe makes them all in one transaction (EIP-7825).
        assert!(gas < 16_777_216, "{gas}");
    }

    fn does(&self, shell: &Shell, arguments: &[&str]) {
        self.sign(&self.file(shell, arguments));
    }
}

/// The words of a refusal.
fn refused(shell: &Shell, arguments: &[&str]) -> String {
    let (code, said) = shell.veil(arguments);
    assert_eq!((code, said["kind"].as_str()), (1, Some("refused")), "{arguments:?}: {said}");
    text(&said["error"])
}

#[tokio::test(flavor = "multi_thread")]
async fn two_of_three_govern_a_cluster_and_no_one_alone() {
    let anvil = Anvil::start(AnvilConfig::default()).await.unwrap();
    let mut shell = Shell {
        rpc: anvil.url(),
        key: String::new(),
        contract: String::new(),
        cluster: String::new(),
        folder: tempfile::tempdir().unwrap(),
    };
    let two = Federation::found(shell.rpc.clone());
    let address = two.address.clone();

    // The contracts, in as many batches as a transaction's gas asks for.
    let deploy = ["chain", "deploy", "--timelock-delay", "3600"];
    let nobody = shell.veil(&[&deploy[..], &["--unsigned"]].concat());
    assert_eq!((nobody.0, nobody.1["kind"].as_str()), (2, Some("usage")), "{nobody:?}");
    let by = ["--unsigned", "--from", &address];
    let mut batches = 0;
    let deployed = loop {
        let said = shell.done(&[&deploy[..], &by].concat());
        if said["transactions"].is_null() {
            break said;
        }
        batches += 1;
        assert!(batches < 5, "{said}");
        two.sign(&said);
    };
    assert_eq!(batches, 4);
    shell.contract = text(&deployed["directory"]);
    let verify = ["chain", "verify-deployment"];
    let verified = shell.done(&verify);
    assert_eq!((&verified["verified"], &verified["timelock_delay"]), (&json!(true), &json!(3600)));
    assert_eq!(text(&verified["guardian"]).to_lowercase(), address.to_lowercase());
    // One byte of one contract.
    let disputes = &deployed["disputes"];
    let honest = text(&ask(&shell.rpc, "eth_getCode", &json!([disputes, "latest"])).unwrap());
    let mut changed = honest.clone();
    changed.replace_range(2002..2004, if &honest[2002..2004] == "00" { "01" } else { "00" });
    ask(&shell.rpc, "anvil_setCode", &json!([disputes, changed])).unwrap();
    let (code, said) = shell.veil(&verify);
    assert_eq!((code, said["kind"].as_str()), (1, Some("verification")), "{said}");
    let told = text(&said["error"]);
    assert!(told.contains("Disputes at 0x") && told.contains("byte 1000 "), "{told}");
    ask(&shell.rpc, "anvil_setCode", &json!([disputes, honest])).unwrap();
    assert_eq!(shell.done(&verify), verified);

    // A cluster of the account, which its id is read from the events of.
    two.does(&shell, &["chain", "cluster", "--committee", "1", "--closed"]);
    let events = shell.lines(&["chain", "watch", "--from", "1", "--once"]);
    let registered = events.iter().find(|event| event["event"] == "ClusterRegistered").unwrap();
    shell.cluster = text(&registered["arguments"]["cluster"]);
    let status = shell.done(&["chain", "status"]);
    assert_eq!(text(&status["cluster"]["admin"]).to_lowercase(), address.to_lowercase());

    // An owner alone neither admits, nor sets the policy, nor evicts.
    let identity = shell.path("identity.age");
    let made = shell.done(&["identity", "new", "--out", &identity]);
    let peer = text(&made["peer_id_hash"]);
    let operator = format!("0x{}", account(KEY).address());
    let approve =
        ["chain", "approve", "--peer", &peer, "--operator", &operator, "--role", "worker"];
    std::fs::write(shell.path("policy"), "min_candidates = 2\n").unwrap();
    let policy = ["chain", "policy", "set", "--file", "policy"];
    let evict = ["chain", "exit", "--peer", &peer];
    let admin = ["chain", "admin", "--propose", &operator];
    // The second key is the first owner's.
    shell.key = OTHER_KEY.to_owned();
    for arguments in [&approve[..], &policy, &admin] {
        assert!(refused(&shell, arguments).contains("admin"), "{arguments:?}");
        let owner = format!("0x{}", account(OTHER_KEY).address());
        let by = ["--unsigned", "--from", &owner];
        assert!(refused(&shell, &[arguments, &by].concat()).contains("admin"));
    }
    shell.key = String::new();
    two.does(&shell, &approve);
    two.does(&shell, &policy);
    assert_eq!(shell.done(&["chain", "policy", "get"])["policy"]["min_candidates"], 2);
    shell.key = KEY.to_owned();
    shell.done(&["chain", "register", "--identity", &identity, "--role", "worker"]);
    let nodes = |shell: &Shell| {
        shell.done(&["chain", "status"])["cluster"]["nodes"].as_array().unwrap().len()
    };
    assert_eq!(nodes(&shell), 1);
    shell.key = OTHER_KEY.to_owned();
    refused(&shell, &evict);
    shell.key = String::new();
    two.does(&shell, &evict);
    assert_eq!(nodes(&shell), 0);

    // Governance is theirs as well.
    let schedule = ["chain", "govern", "schedule", "--guardian", &operator];
    shell.key = OTHER_KEY.to_owned();
    assert!(refused(&shell, &schedule).contains("--unsigned --from"));
    shell.key = String::new();
    two.does(&shell, &schedule);
    let listed = |shell: &Shell| shell.done(&["chain", "govern", "list"])["operations"].clone();
    let operations = listed(&shell);
    // The first one put the set in force.
    assert_eq!(
        (&operations[0]["state"], &operations[1]["state"]),
        (&json!("done"), &json!("waiting"))
    );
    let id = text(&operations[1]["id"]);
    let execute = ["chain", "govern", "execute", &id];
    let early = refused(&shell, &[&execute[..], &["--unsigned", "--from", &address]].concat());
    assert!(early.contains("veil chain govern list"), "{early}");
    ask(&shell.rpc, "evm_increaseTime", &json!([3600])).unwrap();
    ask(&shell.rpc, "evm_mine", &json!([])).unwrap();
    two.does(&shell, &execute);
    assert_eq!(listed(&shell)[1]["state"], "done");
    // A challenge is decided the same way; this one does not exist.
    two.does(&shell, &["chain", "dispute", "resolve", "0", "--reject"]);
    let operations = listed(&shell);
    let id = text(&operations[2]["id"]);
    two.does(&shell, &["chain", "govern", "cancel", &id]);
    assert_eq!(listed(&shell)[2]["state"], "cancelled");

    // The new guardian pauses, and nothing new begins until it ends that.
    shell.key = KEY.to_owned();
    let paused = shell.done(&["chain", "pause"]);
    assert!(paused["paused_until"].as_u64().unwrap() > 0);
    let elect = ["chain", "elect", "request"];
    assert!(refused(&shell, &elect).contains("has paused new work"));
    assert_eq!(shell.done(&["chain", "pause", "--end"])["paused_until"], 0);
    assert!(!refused(&shell, &elect).contains("paused"));
    drop(anvil);
}
