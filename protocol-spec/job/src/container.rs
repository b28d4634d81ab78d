//! How a job's container is set up, within what every worker allows.
//!
//! # Capabilities
//! A container has those of [`Capability::ALL`], which are Docker's defaults, less what the job drops. No
//! job gets others, and none is privileged.

use core::num::NonZeroU32;

use serde::{Deserialize, Serialize};

use crate::{names::Name, text::texts};

/// How a container is set up. Every default is that of the image or of Docker, unless said otherwise.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ContainerSettings {
    /// Who runs the program, in place of the image's user.
    pub user: Option<User>,
    /// Where it starts, in place of the image's folder.
    pub workdir: Option<ContainerPath>,
    /// Name of the host inside; by default the engine's, which is random.
    pub hostname: Option<Name>,
    /// Whether process 1 is a small one that passes signals on and collects what has ended.
    pub init: bool,
    /// Whether the root file system can only be read.
    pub read_only: bool,
    /// Folders in memory, by path, strictly ascending.
    pub tmpfs: Vec<Tmpfs>,
    /// Size of `/dev/shm`; by default the engine's 64 MiB.
    pub shm_size: Option<Mebibytes>,
    /// Most processes and threads at once, 1 to 65,536. 512 by default: enough for ordinary servers, and
    /// no fork bomb.
    pub pids: u32,
    /// Limits of each process, by kind, strictly ascending.
    pub ulimits: Vec<Ulimit>,
    /// What the program is told to stop with, in place of the image's signal.
    pub stop_signal: Option<StopSignal>,
    /// Seconds from there until it is killed, 0 to 300; 10 by default.
    pub stop_timeout_seconds: u16,
    /// What the program may do beyond an ordinary user.
    pub capabilities: CapabilityChange,
}

impl ContainerSettings {
    /// Most processes and threads unless the job says another number.
    pub const DEFAULT_PIDS: u32 = 512;
    /// Seconds between the stop signal and the kill unless the job says another number.
    pub const DEFAULT_STOP_SECONDS: u16 = 10;
}

impl Default for ContainerSettings {
    fn default() -> Self {
        Self {
            user: None,
            workdir: None,
            hostname: None,
            init: false,
            read_only: false,
            tmpfs: Vec::new(),
            shm_size: None,
            pids: Self::DEFAULT_PIDS,
            ulimits: Vec::new(),
            stop_signal: None,
            stop_timeout_seconds: Self::DEFAULT_STOP_SECONDS,
            capabilities: CapabilityChange::default(),
        }
    }
}

/// A text names no user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a user is a number or a name of the image, with :group behind it if wanted, such as \"101\", \
     \"nginx\" or \"101:101\""
)]
pub struct InvalidUser;

/// A user of the container, by number or name, and a group if one is given.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct User(String);

impl User {
    /// Longest number or name.
    const MAX_BYTES: usize = 32;

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for User {
    type Error = InvalidUser;

    fn try_from(text: String) -> Result<Self, InvalidUser> {
        let one = |name: &str| {
            let number = name.bytes().all(|b| b.is_ascii_digit());
            (1..=Self::MAX_BYTES).contains(&name.len())
                && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
                && name.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
                // As the kernel counts them.
                && (!number || name.parse::<i32>().is_ok())
        };
        let (user, group) = text.split_once(':').map_or((&*text, None), |(u, g)| (u, Some(g)));
        if one(user) && group.is_none_or(one) { Ok(Self(text)) } else { Err(InvalidUser) }
    }
}

/// A text is no path of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a path in a container begins with /, has no empty part, no . or .., no colon, comma or control \
     character, no / at its end, and at most {max} bytes",
    max = ContainerPath::MAX_BYTES
)]
pub struct InvalidContainerPath;

/// An absolute path in a container, in its only spelling.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ContainerPath(String);

impl ContainerPath {
    /// Longest path.
    pub const MAX_BYTES: usize = 255;

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this path is `folder` or lies in it.
    #[must_use]
    pub fn is_within(&self, folder: &str) -> bool {
        self.0.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    /// Whether something may be mounted there: not the root, nor what the kernel shows of itself.
    #[must_use]
    pub fn is_mountable(&self) -> bool {
        self.0 != "/" && !["/proc", "/sys", "/dev"].iter().any(|folder| self.is_within(folder))
    }
}

impl TryFrom<String> for ContainerPath {
    type Error = InvalidContainerPath;

    fn try_from(text: String) -> Result<Self, InvalidContainerPath> {
        let part = |part: &str| !matches!(part, "" | "." | "..");
        let valid = text.len() <= Self::MAX_BYTES
            && !text.contains(|c: char| c.is_control() || c == ':' || c == ',')
            && (text == "/"
                || text.strip_prefix('/').is_some_and(|rest| rest.split('/').all(part)));
        if valid { Ok(Self(text)) } else { Err(InvalidContainerPath) }
    }
}

texts! {
    User: InvalidUser;
    ContainerPath: InvalidContainerPath;
}

/// A size in whole MiB, not 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Mebibytes(pub NonZeroU32);

impl Mebibytes {
    /// The fewest MiB that cover `bytes`; `None` for 0 and for more than 2^32 MiB.
    #[must_use]
    pub fn covering(bytes: u64) -> Option<Self> {
        u32::try_from(bytes.div_ceil(1 << 20)).ok().and_then(NonZeroU32::new).map(Self)
    }

    /// The size in bytes.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        (self.0.get() as u64) << 20
    }
}

/// A folder in memory; what is in it counts as the container's memory and goes with the container.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tmpfs {
    /// Where.
    pub path: ContainerPath,
    /// How much fits in, at most the memory that the job asks for.
    pub size: Mebibytes,
}

/// Makes an enum of names that a file and the engine know.
macro_rules! named {
    ($(#[$doc:meta])* $type:ident { $($(#[$variant:meta])* $name:ident = $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum $type {
            $($(#[$variant])* #[serde(rename = $text)] $name,)*
        }

        impl $type {
            /// All of them, ascending.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// As a file writes it.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }

            /// The one with this name.
            #[must_use]
            pub fn of_name(name: &str) -> Option<Self> {
                Self::ALL.iter().find(|one| one.name() == name).copied()
            }
        }

        impl core::fmt::Display for $type {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                f.write_str(self.name())
            }
        }
    };
}

named! {
    /// What a process may do beyond an ordinary user.
    Capability {
        /// Write to the audit log.
        AuditWrite = "AUDIT_WRITE",
        /// Change owners of files.
        Chown = "CHOWN",
        /// Read and write files whoever owns them.
        DacOverride = "DAC_OVERRIDE",
        /// What otherwise only a file's owner may.
        Fowner = "FOWNER",
        /// Keep set-id bits when a file changes.
        Fsetid = "FSETID",
        /// Send signals to whatever process.
        Kill = "KILL",
        /// Make special files.
        Mknod = "MKNOD",
        /// Listen on ports below 1024.
        NetBindService = "NET_BIND_SERVICE",
        /// Send raw packets, as `ping` does.
        NetRaw = "NET_RAW",
        /// Give files capabilities.
        Setfcap = "SETFCAP",
        /// Become another group.
        Setgid = "SETGID",
        /// Give own capabilities to others, and drop them.
        Setpcap = "SETPCAP",
        /// Become another user.
        Setuid = "SETUID",
        /// Change the root folder.
        SysChroot = "SYS_CHROOT",
    }
}

named! {
    /// A limit of one process, counted in the kernel's units.
    UlimitKind {
        /// Size of a core dump, in bytes.
        Core = "core",
        /// CPU time, in seconds.
        Cpu = "cpu",
        /// Size of the data segment, in bytes.
        Data = "data",
        /// Size of a file, in bytes.
        Fsize = "fsize",
        /// Memory that is never swapped, in bytes.
        Memlock = "memlock",
        /// Open files.
        Nofile = "nofile",
        /// Processes of the user, whichever container they are in.
        Nproc = "nproc",
        /// Signals that wait.
        Sigpending = "sigpending",
        /// Size of the stack, in bytes.
        Stack = "stack",
    }
}

named! {
    /// A signal that tells a program to stop.
    StopSignal {
        /// The terminal is gone.
        Hup = "SIGHUP",
        /// As Ctrl-C.
        Int = "SIGINT",
        /// At once, without a chance to clean up.
        Kill = "SIGKILL",
        /// As Ctrl-\; nginx ends gracefully.
        Quit = "SIGQUIT",
        /// systemd ends.
        RtMin3 = "SIGRTMIN+3",
        /// What is usual.
        Term = "SIGTERM",
        /// For the program to define.
        Usr1 = "SIGUSR1",
        /// For the program to define.
        Usr2 = "SIGUSR2",
        /// Apache httpd ends gracefully.
        Winch = "SIGWINCH",
    }
}

/// Limits of each process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ulimit {
    /// What is limited.
    pub kind: UlimitKind,
    /// The limit, which a process may raise to the hard one; -1 for none.
    pub soft: i64,
    /// The highest limit; -1 for none.
    pub hard: i64,
}

impl Ulimit {
    /// No limit.
    pub const UNLIMITED: i64 = -1;
    /// Most open files that a hard limit may allow: beyond what kernels give by default, a container does
    /// not start.
    pub const MAX_OPEN_FILES: i64 = 1 << 20;

    /// Whether both are limits, and the soft one is within the hard one.
    #[must_use]
    pub const fn is_sound(self) -> bool {
        let ordered =
            self.hard == Self::UNLIMITED || self.soft != Self::UNLIMITED && self.soft <= self.hard;
        let possible = match self.kind {
            UlimitKind::Nofile => self.hard >= 0 && self.hard <= Self::MAX_OPEN_FILES,
            _ => self.hard >= Self::UNLIMITED,
        };
        ordered && possible && self.soft >= Self::UNLIMITED
    }
}

/// What a job changes of the default capabilities.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CapabilityChange {
    /// Whether all go, and only those that are added are left.
    pub drop_all: bool,
    /// Those that go, strictly ascending; none beside `drop_all`.
    pub drop: Vec<Capability>,
    /// Those that the job needs, strictly ascending.
    pub add: Vec<Capability>,
}

impl CapabilityChange {
    /// What the container has, ascending.
    #[must_use]
    pub fn effective(&self) -> Vec<Capability> {
        let has =
            |one: &Capability| self.add.contains(one) || !self.drop_all && !self.drop.contains(one);
        Capability::ALL.iter().copied().filter(has).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_those_of_docker() {
        for text in ["0", "101", "101:101", "nginx", "www-data:www-data", "_apt", "2147483647"] {
            assert_eq!(text.parse::<User>().map(|u| u.to_string()), Ok(text.to_owned()));
        }
        for text in ["", ":", "a:", ":a", "a:b:c", "a b", "-1", "2147483648", "é", &"a".repeat(33)]
        {
            assert_eq!(text.parse::<User>(), Err(InvalidUser), "{text:?}");
        }
    }

    #[test]
    fn a_path_has_one_spelling() {
        for text in ["/", "/a", "/var/lib/data", "/a b", "/é"] {
            assert_eq!(text.parse::<ContainerPath>().map(|p| p.to_string()), Ok(text.to_owned()));
        }
        let long = format!("/{}", "a".repeat(255));
        for text in
            ["", "a", "//", "/a/", "/a//b", "/./a", "/a/..", "/a:b", "/a,b", "/a\0", "/a\n", &long]
        {
            assert_eq!(text.parse::<ContainerPath>(), Err(InvalidContainerPath), "{text:?}");
        }
        assert!(long.get(..255).unwrap().parse::<ContainerPath>().is_ok());
    }

    #[test]
    fn what_the_kernel_shows_is_not_mounted_over() {
        let mountable = |text: &str| text.parse::<ContainerPath>().unwrap().is_mountable();
        assert!(["/tmp", "/devices", "/processes/a", "/var/proc"].into_iter().all(mountable));
        assert!(!["/", "/dev", "/dev/shm", "/proc/1", "/sys"].into_iter().any(mountable));
    }

    #[test]
    fn names_lead_back_and_ascend() {
        for one in Capability::ALL {
            assert_eq!(Capability::of_name(one.name()), Some(*one));
            assert_eq!(serde_json::to_value(one).unwrap(), one.name());
        }
        assert!(
            Capability::ALL.is_sorted()
                && UlimitKind::ALL.is_sorted()
                && StopSignal::ALL.is_sorted()
        );
        assert_eq!(Capability::of_name("SYS_ADMIN"), None);
        assert_eq!(StopSignal::of_name("SIGRTMIN+3"), Some(StopSignal::RtMin3));
    }

    #[test]
    fn effective_capabilities_are_the_defaults_less_what_is_dropped() {
        use Capability::{Chown, NetRaw};

        let effective = |drop_all, drop: &[_], add: &[_]| {
            CapabilityChange { drop_all, drop: drop.to_vec(), add: add.to_vec() }.effective()
        };
        assert_eq!(effective(false, &[], &[]), Capability::ALL);
        assert_eq!(effective(false, &[], &[Chown]), Capability::ALL);
        assert_eq!(effective(true, &[], &[]), []);
        assert_eq!(effective(true, &[], &[Chown]), [Chown]);
        let without = effective(false, &[NetRaw], &[]);
        assert!(!without.contains(&NetRaw) && without.len() == Capability::ALL.len() - 1);
    }

    #[test]
    fn ulimits_are_ordered_and_possible() {
        let sound = |kind, soft, hard| Ulimit { kind, soft, hard }.is_sound();
        assert!(sound(UlimitKind::Core, 0, -1) && sound(UlimitKind::Core, -1, -1));
        assert!(sound(UlimitKind::Nofile, 1024, 1 << 20));
        assert!(!sound(UlimitKind::Core, -1, 0) && !sound(UlimitKind::Core, 2, 1));
        assert!(!sound(UlimitKind::Core, -2, -1) && !sound(UlimitKind::Core, -2, -2));
        assert!(!sound(UlimitKind::Nofile, 1, -1) && !sound(UlimitKind::Nofile, 1, (1 << 20) + 1));
    }

    #[test]
    fn sizes_are_rounded_up() {
        let mebibytes = |bytes| Mebibytes::covering(bytes).map(Mebibytes::bytes);
        assert_eq!(
            [mebibytes(0), mebibytes(1), mebibytes(1 << 20)],
            [None, Some(1 << 20), Some(1 << 20)]
        );
        assert_eq!(mebibytes((1 << 20) + 1), Some(2 << 20));
        assert_eq!(mebibytes(u64::MAX), None);
    }
}
