//! What containers may reach: rules in the kernel, on the bridges of their networks.
//!
//! # How
//! A table of nftables for each worker, of its own name. What it drops is dropped, whatever other tables
//! accept: neither the engine's rules nor those of the host's operator are changed, nor can they open what
//! is closed here. It is written as a whole in one transaction, so that there is no time without rules, and
//! writing it again changes nothing.
//!
//! Rules go by the interface that a packet comes in from, which a container cannot choose; its address it
//! can. An answer is let through by the direction of its connection, not by its age: what was open before is
//! closed by new rules.
//!
//! Connections to the addresses of links are brought to a port of this host, from the interface of their own network
//! only, and let in there; whoever connects to that port otherwise is not.
//!
//! # Caveats
//! - IPv4 only: these networks have no addresses of version 6, and such packets are dropped.
//! - Name servers are reached at port 53, wherever they are: those of most clouds and homes have private
//!   addresses. What they answer is not looked at.
//! - Rules do not survive a restart of the machine. No container does by itself either.

use std::{
    fmt::Write as _,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddrV4},
    path::Path,
    process::Stdio,
    time::Duration,
};

use tokio::{io::AsyncWriteExt as _, process::Command, time::timeout};
use veil_protocol_spec::scheduling::Egress;

use crate::owner::Owner;

/// Beginning of the names of all bridges, of whatever worker.
pub(crate) const PREFIX: &str = "veil";
/// A kernel answers in milliseconds.
const DEADLINE: Duration = Duration::from_secs(10);
/// Where it is on systems that do not have it in the path of ordinary users.
const PROGRAMS: [&str; 3] = ["nft", "/usr/sbin/nft", "/sbin/nft"];
/// Where the host keeps its name servers; the second, if the first only names a service of the host.
const NAME_SERVERS: [&str; 2] = ["/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"];

/// IANA's registry of special addresses of version 4: whatever is not reachable globally, with all groups and
/// what is reserved.
const SPECIAL: &str = "0.0.0.0/8, 10.0.0.0/8, 100.64.0.0/10, 127.0.0.0/8, 169.254.0.0/16, 172.16.0.0/12, \
     192.0.0.0/24, 192.0.2.0/24, 192.168.0.0/16, 198.18.0.0/15, 198.51.100.0/24, 203.0.113.0/24, 224.0.0.0/3";
/// What nobody may reach: this host, and what only its own link has, such as the metadata of a cloud.
const NEVER: &str = "0.0.0.0/8, 127.0.0.0/8, 169.254.0.0/16, 224.0.0.0/3";

/// The rules are not in force, so nothing may start.
#[derive(Clone, Debug, thiserror::Error)]
pub enum FirewallError {
    /// There is no program that writes them.
    #[error(
        "`nft` is not installed, so nothing keeps containers from this host and its network; install the \
         package nftables, or set worker.egress = \"unfiltered\""
    )]
    NoProgram,
    /// The kernel refused.
    #[error(
        "`nft` cannot keep containers from this host and its network: {0}; give the worker CAP_NET_ADMIN \
         (AmbientCapabilities=CAP_NET_ADMIN in its unit), or set worker.egress = \"unfiltered\""
    )]
    Refused(String),
    /// The engine's networks are elsewhere.
    #[error(
        "the engine has made the interface {0} in another network namespace than this worker's, as a \
         rootless engine or one in a virtual machine does, where the worker cannot filter; run both in \
         one, or set worker.egress = \"unfiltered\""
    )]
    Elsewhere(String),
}

/// The interface of a network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Bridge {
    pub(crate) name: String,
    pub(crate) egress: Egress,
}

/// Refuses an interface that is not in this process's own network namespace.
pub(crate) fn is_here(bridge: &str) -> Result<(), FirewallError> {
    let is_here = Path::new("/sys/class/net").join(bridge).exists();
    if is_here { Ok(()) } else { Err(FirewallError::Elsewhere(bridge.to_owned())) }
}

/// Addresses of name servers that a container may ask: those given, or the host's.
pub(crate) fn name_servers(given: &[Ipv4Addr]) -> Vec<Ipv4Addr> {
    if !given.is_empty() {
        return given.to_vec();
    }
    let files = NAME_SERVERS.iter().filter_map(|file| std::fs::read_to_string(file).ok());
    let mut servers: Vec<_> = files.flat_map(|text| name_servers_of(&text)).collect();
    servers.sort_unstable();
    servers.dedup();
    servers
}

/// Those of the loopback interface are not the container's to ask.
fn name_servers_of(text: &str) -> Vec<Ipv4Addr> {
    let lines = text.lines().filter_map(|line| line.trim().strip_prefix("nameserver"));
    let addresses = lines.filter_map(|rest| rest.trim().parse().ok());
    let old = addresses.filter_map(|address| match address {
        IpAddr::V4(address) => Some(address),
        IpAddr::V6(_) => None,
    });
    old.filter(|address| !address.is_loopback()).collect()
}

/// One for each worker and cluster.
fn table(owner: &Owner) -> String {
    let (worker, scope) = (owner.worker.to_string(), &owner.scope);
    let (contract, cluster) = (scope.contract.to_string(), scope.cluster.to_string());
    format!("inet {PREFIX}_{worker:.16}_{}_{contract:.8}_{cluster:.16}", scope.chain_id)
}

/// Name servers that containers may ask.
#[derive(Clone, Debug, Default)]
pub(crate) struct NameServers {
    pub(crate) addresses: Vec<Ipv4Addr>,
    /// Whether the engine's own listens on this host, as Podman's does; Docker's is within each container.
    pub(crate) is_here: bool,
}

/// Where a link's connections come from and are on their way to, and the port of this host that they are brought to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Way {
    /// The interface that they come in from.
    pub(crate) bridge: String,
    pub(crate) at: SocketAddrV4,
    pub(crate) port: u16,
}

/// The rules that bring connections of links to this host, and those that let them in there.
fn led(ways: &[Way]) -> (String, String) {
    let (mut lead, mut admit) = (String::new(), String::new());
    for Way { bridge, at, port } in ways {
        let (address, number) = (at.ip(), at.port());
        let _ = writeln!(
            lead,
            "    iifname \"{bridge}\" ip daddr {address} tcp dport {number} redirect to :{port}"
        );
        let _ = writeln!(admit, "    iifname \"{bridge}\" ct status dnat tcp dport {port} accept");
    }
    if lead.is_empty() {
        return (lead, admit);
    }
    // Before the engine's own rules for published ports.
    let chain = format!(
        "  chain links {{\n    type nat hook prerouting priority -110\n    policy accept\n{lead}  }}\n"
    );
    (chain, admit)
}

/// The table of a worker that does not filter: it brings connections of links to this host, and closes nothing.
/// Without links there is none.
pub(crate) fn rules_of_links(owner: &Owner, links: &[Way]) -> String {
    let table = table(owner);
    let mut text = format!("table {table}\ndelete table {table}\n");
    let (chain, _) = led(links);
    if !chain.is_empty() {
        let _ = write!(text, "table {table} {{\n{chain}}}\n");
    }
    text
}

/// The whole table in nft's language. Without bridges there is none.
pub(crate) fn rules(
    owner: &Owner,
    bridges: &[Bridge],
    name_servers: &NameServers,
    links: &[Way],
) -> String {
    let table = table(owner);
    let mut text = format!("table {table}\ndelete table {table}\n");
    if bridges.is_empty() {
        return text;
    }
    let quoted = |bridge: &Bridge| format!("\"{}\"", bridge.name);
    let all = bridges.iter().map(quoted).collect::<Vec<_>>().join(", ");
    let servers =
        name_servers.addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let ask = if servers.is_empty() {
        String::new()
    } else {
        format!("    ip daddr {{ {servers} }} meta l4proto {{ tcp, udp }} th dport 53 accept\n")
    };
    let chain = |egress| match egress {
        Egress::Public => "goto public",
        Egress::AllowPrivate => "goto private",
        Egress::None => "drop",
    };
    let ways =
        bridges.iter().map(|bridge| format!("{} : {}", quoted(bridge), chain(bridge.egress)));
    let ways = ways.collect::<Vec<_>>().join(", ");
    let own: String = bridges.iter().map(quoted).fold(String::new(), |mut own, name| {
        let _ = writeln!(own, "    iifname {name} oifname {name} accept");
        own
    });
    let asking = bridges.iter().filter(|bridge| bridge.egress != Egress::None);
    let asking = asking.map(quoted).collect::<Vec<_>>().join(", ");
    let ask_host = match (asking.as_str(), name_servers.is_here) {
        ("", _) => String::new(),
        (asking, true) => {
            format!("    iifname {{ {asking} }} meta l4proto {{ tcp, udp }} th dport 53 accept\n")
        }
        (_, false) if ask.is_empty() => String::new(),
        (asking, false) => format!("    iifname {{ {asking} }} {}", ask.trim_start()),
    };
    let (links, admit) = led(links);
    let answers = "ct direction reply ct state established,related accept";
    let _ = write!(
        text,
        "table {table} {{
  set special {{
    type ipv4_addr
    flags interval
    elements = {{ {SPECIAL} }}
  }}
  set never {{
    type ipv4_addr
    flags interval
    elements = {{ {NEVER} }}
  }}
  chain public {{
{ask}    ip daddr @special drop
    accept
  }}
  chain private {{
{ask}    ip daddr @never drop
    accept
  }}
  chain leaving {{
    {answers}
    meta nfproto ipv6 drop
{own}    oifname \"{PREFIX}*\" drop
    iifname vmap {{ {ways} }}
    drop
  }}
  chain forward {{
    type filter hook forward priority -10
    policy accept
    iifname {{ {all} }} goto leaving
  }}
  chain here {{
    {answers}
{ask_host}{admit}    drop
  }}
  chain input {{
    type filter hook input priority -10
    policy accept
    iifname {{ {all} }} goto here
  }}
{links}}}
"
    );
    text
}

/// Puts the rules in force.
///
/// # Errors
/// [`FirewallError`]: those before are in force then.
pub(crate) async fn apply(rules: &str) -> Result<(), FirewallError> {
    for program in PROGRAMS {
        match timeout(DEADLINE, run(program, rules)).await {
            Ok(Err(error)) if error.kind() == io::ErrorKind::NotFound => {}
            Ok(Ok(None)) => return Ok(()),
            Ok(Ok(Some(words))) => return Err(FirewallError::Refused(words)),
            Ok(Err(error)) => return Err(FirewallError::Refused(error.to_string())),
            Err(_) => {
                let words = format!("no answer within {} s", DEADLINE.as_secs());
                return Err(FirewallError::Refused(words));
            }
        }
    }
    Err(FirewallError::NoProgram)
}

/// What it says if it fails.
async fn run(program: &str, rules: &str) -> io::Result<Option<String>> {
    let mut child = Command::new(program)
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that does not read says why when it ends.
        let _ = stdin.write_all(rules.as_bytes()).await;
    }
    let output = child.wait_with_output().await?;
    let words = String::from_utf8_lossy(&output.stderr);
    let first = words.lines().find(|line| !line.trim().is_empty()).unwrap_or("it failed");
    Ok((!output.status.success()).then(|| first.trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use veil_protocol_spec::{Address, ChainId, ClusterId, PeerIdHash, scheduling::ClusterScope};

    use super::*;

    #[test]
    fn name_servers_are_those_that_a_container_can_ask() {
        let text = "# nameserver 9.9.9.9\nsearch a\nnameserver 127.0.0.53\nnameserver 10.0.0.2\n\
                    nameserver fe80::1\n  nameserver   1.1.1.1 \nnameserver\n";
        let expected = [Ipv4Addr::new(10, 0, 0, 2), Ipv4Addr::new(1, 1, 1, 1)];
        assert_eq!(name_servers_of(text), expected);
        assert_eq!(name_servers(&expected), expected);
    }

    #[test]
    fn every_bridge_has_its_way_and_without_any_there_are_no_rules() {
        let bridge = |name: &str, egress| Bridge { name: name.to_owned(), egress };
        let scope = ClusterScope {
            chain_id: ChainId(7),
            contract: Address([1; 20]),
            cluster: ClusterId([2; 32]),
        };
        let owner = Owner { scope, worker: PeerIdHash([0xab; 32]) };
        let bridges = [
            bridge("veila", Egress::Public),
            bridge("veilb", Egress::AllowPrivate),
            bridge("veilc", Egress::None),
        ];
        let addresses = vec![Ipv4Addr::new(10, 0, 0, 2)];
        let servers = NameServers { addresses, is_here: false };
        let way = Way {
            bridge: "veilb".to_owned(),
            at: "198.18.0.32:5432".parse().unwrap(),
            port: 40_001,
        };
        let text = rules(&owner, &bridges, &servers, std::slice::from_ref(&way));
        for expected in [
            "table inet veil_abababababababab_7_01010101_0202020202020202 {",
            "iifname { \"veila\", \"veilb\", \"veilc\" } goto leaving",
            "iifname vmap { \"veila\" : goto public, \"veilb\" : goto private, \"veilc\" : drop }",
            "iifname \"veilc\" oifname \"veilc\" accept",
            "iifname \"veilb\" ip daddr 198.18.0.32 tcp dport 5432 redirect to :40001\n",
            "iifname \"veilb\" ct status dnat tcp dport 40001 accept\n    drop",
            // Nothing but links has no names to ask for either.
            "iifname { \"veila\", \"veilb\" } ip daddr { 10.0.0.2 } meta l4proto { tcp, udp } th dport 53 accept",
        ] {
            assert!(text.contains(expected), "{expected}\n{text}");
        }
        let text = rules(&owner, &bridges, &NameServers { is_here: true, ..servers.clone() }, &[]);
        assert!(!text.contains("nat"), "{text}");
        let expected =
            "iifname { \"veila\", \"veilb\" } meta l4proto { tcp, udp } th dport 53 accept";
        assert!(text.contains(expected), "{text}");
        let only = rules_of_links(&owner, std::slice::from_ref(&way));
        assert!(only.contains("redirect to :40001") && !only.contains("drop"), "{only}");
        assert!(!rules_of_links(&owner, &[]).contains('{'));
        let none = rules(&owner, &[], &servers, &[]);
        assert!(none.contains("\ndelete table inet veil_abababababababab_7_01010101_"), "{none}");
        assert!(!none.contains('{'), "{none}");
    }
}
