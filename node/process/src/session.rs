//! The processes of a session that somebody else began, such as a command that an engine runs in a container.
//!
//! A process is known by three things at once: its session, its control group, and a descriptor of it that was
//! opened before both were read. So no signal reaches a process that got the number of one that is gone.

use std::{
    fs,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// The processes of a session in a control group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Members {
    leader: Pid,
    group: String,
}

/// What they are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tell {
    /// Who listened has gone: what a terminal says that is closed. Most programs end.
    HangUp,
    /// They end.
    Kill,
}

impl Members {
    /// Those of the session that `leader` began, in control groups whose path has `group` in it. Nobody, if the number
    /// is none of a process.
    #[must_use]
    pub fn of(leader: i64, group: &str) -> Option<Self> {
        let leader =
            i32::try_from(leader).ok().filter(|leader| *leader > 0).and_then(Pid::from_raw)?;
        (!group.is_empty()).then(|| Self { leader, group: group.to_owned() })
    }

    /// How many there are. Of the leader also if it has left for another session.
    #[must_use]
    pub fn count(&self) -> usize {
        self.find().len()
    }

    /// Tells all of them; how many have been told.
    #[must_use]
    pub fn tell(&self, what: Tell) -> usize {
        let signal = match what {
            Tell::HangUp => Signal::HUP,
            Tell::Kill => Signal::KILL,
        };
        let told = |process: &&OwnedFd| pidfd_send_signal(process, signal).is_ok();
        self.find().iter().filter(told).count()
    }

    /// The leader's number among the processes of its container.
    #[must_use]
    pub fn inner_leader(&self) -> Option<u32> {
        self.open(self.leader)?;
        let status = fs::read_to_string(folder(self.leader).join("status")).ok()?;
        let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:"))?;
        numbers.split_whitespace().last()?.parse().ok()
    }

    fn find(&self) -> Vec<OwnedFd> {
        let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
        let numbers = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        numbers.filter_map(Pid::from_raw).filter_map(|process| self.open(process)).collect()
    }

    /// A descriptor of the process, if it is one of them.
    fn open(&self, process: Pid) -> Option<OwnedFd> {
        // First the descriptor: if it is of another process than what is read, it is of one that is gone.
        let opened = pidfd_open(process, PidfdFlags::empty()).ok()?;
        let folder = folder(process);
        let session = session(&folder)?;
        let is_of_session = process == self.leader || session == self.leader;
        let is_of_group = || {
            let groups = fs::read_to_string(folder.join("cgroup"));
            groups.is_ok_and(|groups| groups.contains(&self.group))
        };
        (is_of_session && is_of_group()).then_some(opened)
    }
}

fn folder(process: Pid) -> PathBuf {
    PathBuf::from(format!("/proc/{}", process.as_raw_nonzero()))
}

/// The session of a process that has not ended.
fn session(folder: &Path) -> Option<Pid> {
    let stat = fs::read_to_string(folder.join("stat")).ok()?;
    // A program's name may have anything in it, but for what follows the last parenthesis.
    let (_, rest) = stat.rsplit_once(") ")?;
    let mut fields = rest.split(' ');
    let state = fields.next()?;
    let session = fields.nth(2)?.parse().ok()?;
    if matches!(state, "Z" | "X") { None } else { Pid::from_raw(session) }
}

#[cfg(test)]
mod tests {
    use std::{
        io::Read as _,
        os::unix::process::ExitStatusExt as _,
        process::{Child, Command, Stdio},
        thread::sleep,
        time::{Duration, Instant},
    };

    use super::*;

    /// A session of three, the leader among them, of which nobody ends by itself.
    fn begin() -> Child {
        let script = "sleep 1000 & sleep 1000 & echo; wait";
        // Whoever runs the tests may have told them to ignore a hang-up, as `nohup` does, and children inherit that.
        let mut begun = Command::new("env")
            .args(["--default-signal=HUP", "setsid", "sh", "-c", script])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        begun.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
        begun
    }

    /// The control group of this process, which its children are in.
    fn own_group() -> String {
        let groups = fs::read_to_string("/proc/self/cgroup").unwrap();
        groups.lines().next().unwrap().rsplit(':').next().unwrap().to_owned()
    }

    #[test]
    fn a_session_ends_whole_and_alone() {
        let (mut one, mut other) = (begin(), begin());
        let of = |child: &Child, group: &str| Members::of(child.id().into(), group).unwrap();
        let group = own_group();
        let (first, second) = (of(&one, &group), of(&other, &group));
        assert_eq!((first.count(), second.count()), (3, 3));
        assert_eq!(of(&one, "of-somebody-else").tell(Tell::Kill), 0, "another control group");
        assert_eq!(first.inner_leader(), Some(one.id()));
        assert_eq!(first.tell(Tell::HangUp), 3);
        assert_eq!(one.wait().unwrap().signal(), Some(Signal::HUP.as_raw()));
        assert_eq!(second.count(), 3);
        assert_eq!(second.tell(Tell::Kill), 3);
        assert_eq!(other.wait().unwrap().signal(), Some(Signal::KILL.as_raw()));
        let deadline = Instant::now() + Duration::from_secs(30);
        while first.count() + second.count() > 0 {
            assert!(Instant::now() < deadline, "what was killed ends");
            sleep(Duration::from_millis(10));
        }
        assert_eq!(first.inner_leader(), None);
    }

    #[test]
    fn no_process_has_such_a_number() {
        for number in [0, -1, i64::MAX] {
            assert_eq!(Members::of(number, "group"), None, "{number}");
        }
        assert_eq!(Members::of(1, ""), None, "every path has nothing in it");
    }
}
