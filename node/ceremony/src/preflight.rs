//! What must hold before a member joins a ceremony: better to fail in the first second than after
//! ten minutes of computing.

use std::{collections::BTreeMap, fmt, path::Path};

use serde::{Deserialize, Serialize};
use veil_keygen_ceremony::{
    chunks::ChunkPlan,
    keyset::{Layout, ParameterSet, key_set_size_limit},
};
use veil_protocol_spec::{
    Blake3Digest, Committee, ParticipantIndex, PublicIdentity, Wire,
    ceremony::{CeremonyMessage, CeremonyParameters},
    domain,
    publication::Facts,
};

/// What members that compute the same bytes have in common: program version, protocol versions, the
/// FHE parameter set.
#[must_use]
pub fn build_fingerprint(params: &ParameterSet) -> Blake3Digest {
    let versions = [CeremonyMessage::VERSION, CeremonyParameters::VERSION];
    let params = params.digest();
    let parts: [&[u8]; 3] = [env!("CARGO_PKG_VERSION").as_bytes(), &versions, params.as_bytes()];
    Blake3Digest(domain::hash_parts(domain::BUILD_FINGERPRINT, &parts))
}

/// What a member needs for an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Needs {
    /// Bytes on disk: all share streams, the key set twice (once while it is written).
    pub disk: u64,
    /// Bytes of memory: the bodies twice, and room to compute in.
    pub memory: u64,
    /// Milliseconds that two clocks may differ.
    pub clock: u64,
}

/// Room to compute in.
const MEMORY_ROOM: u64 = 256 << 20;
/// Two clocks may differ by so much, beside what the question itself took.
const CLOCK_LIMIT: u64 = 5_000;

impl Needs {
    /// For a parameter set.
    #[must_use]
    pub fn of(committee: Committee, params: &ParameterSet) -> Self {
        use veil_protocol_spec::ceremony::Stream;
        let layout = Layout::of(params);
        let plan = ChunkPlan::new(committee, params, &layout);
        let streams = plan.stream_bytes(Stream::Bits) + plan.stream_bytes(Stream::Bodies);
        Self {
            disk: committee.n() as u64 * streams + 2 * key_set_size_limit(params),
            memory: 2 * layout.body_bytes() + MEMORY_ROOM,
            clock: CLOCK_LIMIT,
        }
    }
}

/// This process's own facts.
#[must_use]
pub fn own_facts(params: &ParameterSet, data_dir: &Path) -> Facts {
    // Not knowing is no reason to refuse.
    let free_memory = sysinfo::System::new().map_or(u64::MAX, |mut system| {
        system.refresh_memory();
        system.available_memory()
    });
    Facts {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        fingerprint: build_fingerprint(params),
        free_disk: free_disk(data_dir),
        free_memory,
    }
}

/// Of the disk with the longest mount point above the folder.
fn free_disk(folder: &Path) -> u64 {
    let folder = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
    // An overlay or an unlisted file system is not known either.
    let Ok(disks) = sysinfo::Disks::new_with_refreshed_list() else { return u64::MAX };
    let above = disks.iter().filter(|disk| folder.starts_with(disk.mount_point()));
    above
        .max_by_key(|disk| disk.mount_point().as_os_str().len())
        .map_or(u64::MAX, sysinfo::Disk::available_space)
}

/// An answer, with what the question showed beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The other side's facts.
    pub facts: Facts,
    /// Its clock minus this one's, in milliseconds.
    pub clock_difference: i64,
    /// What the question took, in milliseconds: the difference is uncertain by half of it.
    pub round_trip: u64,
}

/// Why a member cannot take part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum PreflightFault {
    /// No answer.
    #[error("does not answer: start `veil ceremony join` there, and check addresses and firewall")]
    Unreachable,
    /// Another build.
    #[error(
        "runs version {theirs}, this member {mine}, or another build of it: use the same everywhere"
    )]
    Build {
        /// Its version.
        theirs: String,
        /// This one's.
        mine: String,
    },
    /// Clocks differ.
    #[error("its clock differs by {milliseconds} ms: set both by NTP")]
    Clock {
        /// How much.
        milliseconds: i64,
    },
    /// Too little disk.
    #[error("{free} bytes of disk free, {needed} needed: make room or move its data directory")]
    Disk {
        /// Free.
        free: u64,
        /// Needed.
        needed: u64,
    },
    /// Too little memory.
    #[error("{free} bytes of memory available, {needed} needed: stop other programs or add memory")]
    Memory {
        /// Available.
        free: u64,
        /// Needed.
        needed: u64,
    },
}

/// One member's row of the table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PreflightRow {
    /// Who.
    pub participant: ParticipantIndex,
    /// Its identity.
    pub identity: PublicIdentity,
    /// What it fails; empty if nothing.
    pub faults: Vec<PreflightFault>,
}

/// Who can take part and who cannot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Preflight {
    /// By participant.
    pub members: Vec<PreflightRow>,
}

impl Preflight {
    /// Judges everybody, this member included.
    #[must_use]
    pub fn judge(
        roster: &[PublicIdentity],
        me: ParticipantIndex,
        mine: &Facts,
        answers: &BTreeMap<ParticipantIndex, Answer>,
        needs: Needs,
    ) -> Self {
        let row = |(i, identity): (usize, &PublicIdentity)| {
            let participant = ParticipantIndex::new(i as u8 + 1).ok()?;
            let faults = if participant == me {
                own_faults(mine, needs)
            } else if let Some(answer) = answers.get(&participant) {
                let mut faults = own_faults(&answer.facts, needs);
                if answer.facts.fingerprint != mine.fingerprint {
                    faults.push(PreflightFault::Build {
                        theirs: answer.facts.version.clone(),
                        mine: mine.version.clone(),
                    });
                }
                let milliseconds = answer.clock_difference;
                if milliseconds.unsigned_abs() > needs.clock + answer.round_trip / 2 {
                    faults.push(PreflightFault::Clock { milliseconds });
                }
                faults
            } else {
                vec![PreflightFault::Unreachable]
            };
            Some(PreflightRow { participant, identity: *identity, faults })
        };
        Self { members: roster.iter().enumerate().filter_map(row).collect() }
    }

    /// Whether everybody can take part.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.members.iter().all(|row| row.faults.is_empty())
    }
}

fn own_faults(facts: &Facts, needs: Needs) -> Vec<PreflightFault> {
    let mut faults = Vec::new();
    if facts.free_disk < needs.disk {
        faults.push(PreflightFault::Disk { free: facts.free_disk, needed: needs.disk });
    }
    if facts.free_memory < needs.memory {
        faults.push(PreflightFault::Memory { free: facts.free_memory, needed: needs.memory });
    }
    faults
}

/// The table.
impl fmt::Display for Preflight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, row) in self.members.iter().enumerate() {
            if i > 0 {
                writeln!(f)?;
            }
            let identity = row.identity.to_string();
            write!(f, "participant {:>2}  {}..  ", row.participant, &identity[..16])?;
            if row.faults.is_empty() {
                write!(f, "ready")?;
            }
            for (k, fault) in row.faults.iter().enumerate() {
                write!(f, "{}{fault}", if k > 0 { "; " } else { "" })?;
            }
        }
        Ok(())
    }
}
