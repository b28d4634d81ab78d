//! `[container]`: how the container is set up.

use veil_protocol_spec::scheduling::{
    Capability, CapabilityChange, ContainerPath, ContainerSettings, InvalidUser, StopSignal, Tmpfs,
    Ulimit, UlimitKind, User, limits,
};

use super::{
    document::{Parsed, Reader, Value},
    problem::Reason,
    values::{self, boolean, entries, list, mebibytes, parsed, refused, seconds, text, whole},
};

pub(super) fn read(reader: &mut Reader<'_>) -> ContainerSettings {
    let default = ContainerSettings::default();
    let mut tmpfs = reader
        .top("container.tmpfs", |value| {
            entries(value, "{ \"/path\" = \"size\" }", |path, size| {
                let path = ContainerPath::try_from(path.to_owned())
                    .or_else(|error| refused(size, Reason::Value(format!("{path:?}: {error}"))))?;
                Ok(Tmpfs { path, size: mebibytes(size)? })
            })
        })
        .unwrap_or_default();
    tmpfs.sort_unstable();
    let mut ulimits = reader
        .top("container.ulimits", |value| entries(value, "{ nofile = \"soft:hard\" }", ulimit))
        .unwrap_or_default();
    ulimits.sort_unstable();
    ContainerSettings {
        user: reader.top("container.user", user),
        workdir: reader.top("container.workdir", parsed),
        hostname: reader.top("container.hostname", parsed),
        init: reader.top("container.init", boolean).unwrap_or(default.init),
        read_only: reader.top("container.read_only", boolean).unwrap_or(default.read_only),
        tmpfs,
        shm_size: reader.top("container.shm_size", mebibytes),
        pids: reader
            .top("container.pids", |value| whole(value, limits::PIDS))
            .unwrap_or(default.pids),
        ulimits,
        stop_signal: reader.top("container.stop_signal", stop_signal),
        stop_timeout_seconds: reader
            .top("container.stop_timeout", |value| seconds(value, limits::STOP_SECONDS))
            .unwrap_or(default.stop_timeout_seconds),
        capabilities: capabilities(reader),
    }
}

/// A text, or the number of a user.
fn user(value: &Value<'_>) -> Parsed<User> {
    if !value.get_ref().is_integer() {
        return parsed(value);
    }
    let number: u64 = whole(value, 0..=u64::from(i32::MAX.unsigned_abs()))?;
    let user = number.to_string().parse();
    user.or_else(|error: InvalidUser| refused(value, Reason::Value(error.to_string())))
}

/// `nofile = 1024`, `nofile = "1024:65536"`, `memlock = "unlimited"`.
fn ulimit(name: &str, value: &Value<'_>) -> Parsed<Ulimit> {
    let Some(kind) = UlimitKind::of_name(name) else {
        let possible = values::one_of(UlimitKind::ALL.iter().map(|kind| kind.name()));
        return refused(value, Reason::Word { word: name.to_owned(), possible });
    };
    let limit = |text: &str| match text {
        "unlimited" | "-1" => Some(Ulimit::UNLIMITED),
        text if text.bytes().all(|b| b.is_ascii_digit()) => text.parse().ok(),
        _ => None,
    };
    let both = match value.get_ref().as_str() {
        Some(text) => {
            let (soft, hard) = text.split_once(':').unwrap_or((text, text));
            limit(soft).zip(limit(hard))
        }
        None => {
            let number: u64 = whole(value, 0..=i64::MAX.unsigned_abs())?;
            i64::try_from(number).ok().map(|number| (number, number))
        }
    };
    match both {
        Some((soft, hard)) => Ok(Ulimit { kind, soft, hard }),
        None => {
            let form = "a limit is a number, \"unlimited\", or \"soft:hard\" of these";
            refused(value, Reason::Value(form.to_owned()))
        }
    }
}

fn stop_signal(value: &Value<'_>) -> Parsed<StopSignal> {
    let word = text(value)?;
    let known = StopSignal::of_name(word).or_else(|| StopSignal::of_name(&format!("SIG{word}")));
    known.map_or_else(
        || {
            let possible = values::one_of(StopSignal::ALL.iter().map(|signal| signal.name()));
            refused(value, Reason::Word { word: word.to_owned(), possible })
        },
        Ok,
    )
}

enum Named {
    All,
    One(Capability),
}

fn capability(value: &Value<'_>) -> Parsed<Named> {
    let word = text(value)?;
    let name = word.strip_prefix("CAP_").unwrap_or(word);
    if name == "ALL" {
        return Ok(Named::All);
    }
    Capability::of_name(name).map(Named::One).map_or_else(
        || {
            let names = values::one_of(Capability::ALL.iter().map(|one| one.name()));
            let possible =
                format!("a job may have {names}, which are Docker's defaults, and no others");
            refused(value, Reason::Word { word: word.to_owned(), possible })
        },
        Ok,
    )
}

fn capabilities(reader: &mut Reader<'_>) -> CapabilityChange {
    let mut change = CapabilityChange::default();
    let named = |value| list(value, "a list of capabilities", capability);
    for one in reader.top("container.capabilities.drop", named).unwrap_or_default() {
        match one {
            Named::All => change.drop_all = true,
            Named::One(one) => change.drop.push(one),
        }
    }
    let added = |value| {
        list(value, "a list of capabilities", |entry| match capability(entry)? {
            Named::One(one) => Ok(one),
            Named::All => {
                let what = "name those that it needs: it has all of them unless it drops some";
                refused(entry, Reason::Value(what.to_owned()))
            }
        })
    };
    change.add = reader.top("container.capabilities.add", added).unwrap_or_default();
    change.drop.sort_unstable();
    change.add.sort_unstable();
    change
}

/// The image's own entry point, or another one.
pub(super) fn entrypoint(reader: &mut Reader<'_>) -> Vec<String> {
    reader.top("container.entrypoint", values::texts).unwrap_or_default()
}

/// The image's own arguments, or others.
pub(super) fn args(reader: &mut Reader<'_>) -> Vec<String> {
    reader.top("container.args", values::texts).unwrap_or_default()
}

/// Whether only winners learn both.
pub(super) fn sealed(reader: &mut Reader<'_>) -> bool {
    let sealed = reader.top("container.sealed", boolean).unwrap_or_default();
    let root = reader.root();
    let given = ["container.entrypoint", "container.args"];
    if sealed && !given.into_iter().any(|key| reader.has(root, key)) {
        reader.require(root, "container.args", "args = [\"--listen\"], which `sealed` seals");
    }
    sealed
}
